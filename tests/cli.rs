//! The binary as a user meets it: commands, messages, exit codes.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of the test, and evpeer run inside it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }

    /// Data with nested folders, empty files, unicode names and files smaller than a piece.
    fn write_tree(&self, name: &str) {
        self.write(&format!("{name}/a.bin"), &noise(100_000));
        self.write(&format!("{name}/sub/deep/b.bin"), &noise(70_001));
        self.write(&format!("{name}/sub/empty"), b"");
        self.write(&format!("{name}/ünïcode 漢字.txt"), b"text");
    }

    fn run(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.run_words(&words)
    }

    fn run_words(&self, words: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_evpeer"))
            .args(words)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .expect("evpeer runs");
        Run::new(&words.join(" "), &output)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Run {
    line: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn new(line: &str, output: &Output) -> Self {
        Self {
            line: line.to_owned(),
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into(),
            err: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "evpeer {}: {self:#?}", self.line);
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// Bytes without a pattern, the same for every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let step = |_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

#[test]
fn what_create_makes_show_describes_and_verify_confirms() {
    let place = Place::new();
    place.write_tree("data");
    let made = place
        .run("create data -o x.torrent --tracker http://h/a --piece-length 16KiB --json")
        .ends(0);
    assert_eq!(place.names(), ["data", "x.torrent"]);

    let shown = place.run("show x.torrent --json").ends(0);
    let object = shown.json();
    assert_eq!(object["info_hash"], made.json()["info_hash"]);
    assert_eq!(object["name"], "data");
    assert_eq!(object["piece_length"], 16384);
    assert_eq!(object["pieces"], 11);
    assert_eq!(object["length"], 170_005);
    assert_eq!(object["trackers"], serde_json::json!([["http://h/a"]]));
    assert_eq!(object["private"], false);
    let magnet = object["magnet"].as_str().expect("a link");
    assert!(magnet.contains(made.json()["info_hash"].as_str().expect("a hash")));
    let paths: Vec<&str> = object["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|f| f["path"].as_str().expect("a path"))
        .collect();
    let expected = [
        "data/a.bin",
        "data/sub/deep/b.bin",
        "data/sub/empty",
        "data/ünïcode 漢字.txt",
    ];
    assert_eq!(paths, expected);

    let text = place.run("show x.torrent").ends(0).out;
    for part in ["data", "166 KiB", "http://h/a", "data/sub/empty", magnet] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let verified = place.run("verify -t x.torrent").ends(0);
    assert!(
        verified.out.contains("all 11 pieces are right"),
        "{verified:?}"
    );
}

#[test]
fn magnet_of_a_torrent_can_be_shown() {
    let place = Place::new();
    place.write("one file.bin", &noise(5000));
    place
        .run_words(&["create", "one file.bin", "-o", "x.torrent"])
        .ends(0);
    let object = place.run("show --json x.torrent").ends(0).json();
    let magnet = object["magnet"].as_str().expect("a link");
    let shown = place.run_words(&["show", "--json", magnet]).ends(0).json();
    assert_eq!(shown["info_hash"], object["info_hash"]);
    assert_eq!(shown["name"], "one file.bin");
}

#[test]
fn the_same_data_makes_the_same_torrent() {
    let (here, there) = (Place::new(), Place::new());
    for place in [&here, &there] {
        place.write_tree("data");
        place.run("create data -o x.torrent").ends(0);
    }
    let read = |place: &Place| fs::read(place.path().join("x.torrent")).expect("a file");
    assert_eq!(read(&here), read(&there));
}

#[test]
fn executable_bits_are_kept() {
    let place = Place::new();
    place.write_tree("data");
    let tool = place.path().join("data/a.bin");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).expect("a mode");
    place.run("create data -o x.torrent").ends(0);
    let object = place.run("show x.torrent --json").ends(0).json();
    let files = object["files"].as_array().expect("files");
    let bits: Vec<bool> = files.iter().map(|f| f["executable"] == true).collect();
    assert_eq!(bits, [true, false, false, false]);
}

#[test]
fn verify_names_what_is_wrong_and_what_is_missing() {
    let place = Place::new();
    place.write_tree("data");
    place
        .run("create data -o x.torrent --piece-length 16KiB")
        .ends(0);
    let mut bytes = noise(100_000);
    bytes[50_000] ^= 1;
    place.write("data/a.bin", &bytes);
    fs::remove_file(place.path().join("data/sub/deep/b.bin")).expect("removed");

    let object = place.run("verify -t x.torrent --json").ends(1).json();
    assert_eq!(object["pieces"], 11);
    assert_eq!(object["wrong_pieces"], 1);
    assert_eq!(object["good_pieces"], 5);
    assert_eq!(object["missing_pieces"], 5);
    let text = place.run("verify x.torrent -q").ends(1).out;
    for part in [
        "x.torrent",
        "1 wrong",
        "5 missing",
        "data/a.bin",
        "data/sub/deep/b.bin",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn verify_takes_several_and_one_bad_one_decides() {
    let place = Place::new();
    for name in ["one", "two"] {
        place.write(&format!("{name}.bin"), &noise(40_000 + name.len()));
        place.run_words(&["create", &format!("{name}.bin")]).ends(0);
    }
    place
        .run("verify one.bin.torrent -t two.bin.torrent")
        .ends(0);
    place.write("two.bin", b"short");
    let run = place
        .run("verify one.bin.torrent two.bin.torrent --json")
        .ends(1);
    assert_eq!(run.out.lines().count(), 2);
    let folder = place.run("verify -t . -q").ends(1);
    assert!(
        folder.out.contains("two.bin") && !folder.out.contains("one.bin"),
        "{folder:?}"
    );
}

#[test]
fn verify_counts_an_absent_empty_file() {
    let place = Place::new();
    place.write_tree("data");
    place.run("create data -o x.torrent").ends(0);
    fs::remove_file(place.path().join("data/sub/empty")).expect("removed");
    let run = place.run("verify x.torrent").ends(1);
    assert!(run.out.contains("data/sub/empty"), "{run:?}");
}

#[test]
fn create_leaves_out_links_and_says_so() {
    let place = Place::new();
    place.write_tree("data");
    symlink("/etc/passwd", place.path().join("data/link")).expect("a link");
    let run = place.run("create data -o x.torrent").ends(0);
    assert!(
        run.err.contains("data/link") && run.err.contains("symbolic link"),
        "{run:?}"
    );
    assert!(!place.run("show x.torrent").ends(0).out.contains("link"));
}

#[test]
fn create_keeps_what_is_there_unless_forced() {
    let place = Place::new();
    place.write_tree("data");
    place.write("x.torrent", b"precious");
    let run = place.run("create data -o x.torrent").ends(2);
    assert!(
        run.err.contains("x.torrent") && run.err.contains("--force"),
        "{run:?}"
    );
    assert_eq!(
        fs::read(place.path().join("x.torrent")).expect("a file"),
        b"precious"
    );
    place.run("create data -o x.torrent --force").ends(0);
    place.run("verify x.torrent").ends(0);
    assert_eq!(place.names(), ["data", "x.torrent"]);
}

#[test]
fn create_names_its_output_after_the_data() {
    let place = Place::new();
    place.write_tree("data");
    place.run("create data/").ends(0);
    assert_eq!(place.names(), ["data", "data.torrent"]);
}

/// Every row: what is typed, the exit code, and what the message must name.
#[test]
fn every_failure_names_the_thing_and_the_remedy() {
    let place = Place::new();
    place.write_tree("data");
    place.write("noise.torrent", &noise(3000));
    place.write("empty.torrent", b"");
    place.write("empty/nothing", b"");
    place.run("create data -o good.torrent").ends(0);
    let good = fs::read(place.path().join("good.torrent")).expect("a file");
    place.write("cut.torrent", &good[..good.len() - 30]);
    fs::create_dir(place.path().join("folder")).expect("a folder");
    let huge = fs::File::create(place.path().join("huge.torrent")).expect("a file");
    huge.set_len(65 << 20).expect("a size");
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path().join("fifo"), 0o600.into()).expect("a fifo");
    symlink("nowhere", place.path().join("dangling.torrent")).expect("a link");
    let before = place.names();

    let cases: &[(&str, i32, &[&str])] = &[
        (
            "",
            2,
            &["-t", "share PATH", "--open-tracker", "Usage", "create"],
        ),
        ("--open-tracker --exit-on-complete", 2, &["nothing to run"]),
        ("share none", 2, &["none", "No such file"]),
        ("share empty", 2, &["empty", "no data"]),
        (
            "share /dev/null",
            2,
            &["/dev/null", "neither a file nor a folder"],
        ),
        ("share data --tracker h", 2, &["'h'", "http://"]),
        ("share data --private", 2, &["private", "--save FILE"]),
        (
            "share data --save data/x.torrent",
            2,
            &["data/x.torrent", "part of the data", "--save"],
        ),
        (
            "share data --save good.torrent",
            2,
            &["good.torrent", "exists", "--save", "--force"],
        ),
        (
            "share data --save nowhere/x.torrent",
            2,
            &["nowhere", "does not exist", "--save"],
        ),
        ("share data -p 99999", 2, &["99999", "0..=65535"]),
        (
            "-t none.torrent",
            2,
            &["none.torrent", "No such file", "check the path"],
        ),
        ("sahre data", 2, &["sahre", "no such command", "--help"]),
        (
            "-t noise.torrent",
            2,
            &["noise.torrent", "not a usable .torrent"],
        ),
        (
            "-t empty.torrent",
            2,
            &["empty.torrent", "not a usable .torrent"],
        ),
        (
            "-t cut.torrent",
            2,
            &["cut.torrent", "not a usable .torrent"],
        ),
        ("-t huge.torrent", 2, &["huge.torrent", "limit"]),
        (
            "-t dangling.torrent",
            2,
            &["dangling.torrent", "No such file"],
        ),
        ("-t fifo", 2, &["fifo", "pipe"]),
        ("-t /dev/zero", 2, &["/dev/zero", "device"]),
        ("-t folder", 2, &["folder", "no *.torrent"]),
        (
            "-t good.torrent -o nowhere",
            2,
            &["nowhere", "does not exist", "-o"],
        ),
        (
            "-t good.torrent -o good.torrent",
            2,
            &["good.torrent", "not a folder", "-o"],
        ),
        (
            "-t magnet:?xt=urn:btih:00",
            2,
            &["magnet:", "not built", "-t FILE"],
        ),
        (
            "-t http://h:0/x.torrent",
            2,
            &["http://h:0/x.torrent", "no usable address", "INFOHASH"],
        ),
        (
            "-t HTTPS://h/x.torrent",
            2,
            &["HTTPS://h/x.torrent", "TLS", "-t FILE"],
        ),
        (
            "-t good.torrent --tracker https://h/a",
            2,
            &["https://h/a", "TLS"],
        ),
        (
            "-t good.torrent --tracker udp://h/a",
            2,
            &["udp://h/a", "port"],
        ),
        ("-t good.torrent --tracker h", 2, &["'h'", "http://"]),
        (
            "-t good.torrent --peer 10.0.0.1",
            2,
            &["10.0.0.1", "HOST:PORT"],
        ),
        ("-t good.torrent -p 99999", 2, &["99999", "0..=65535"]),
        (
            "-t good.torrent --log-file nowhere/l",
            2,
            &["nowhere/l", "--log-file"],
        ),
        ("-t good.torrent --seed-ratios 2", 2, &["--seed-ratio"]),
        ("show none.torrent", 2, &["none.torrent", "No such file"]),
        ("show folder", 2, &["folder", "not a .torrent"]),
        ("show fifo", 2, &["fifo", "pipe"]),
        (
            "show magnet:?xt=urn:btih:00",
            2,
            &["magnet:?xt=urn:btih:00", "copy it again"],
        ),
        (
            "verify -t noise.torrent",
            2,
            &["noise.torrent", "not a usable .torrent"],
        ),
        (
            "verify -t good.torrent -o nowhere",
            2,
            &["nowhere", "does not exist", "-o"],
        ),
        ("create none", 2, &["none", "No such file"]),
        ("create empty -o x.torrent", 2, &["empty", "no data"]),
        (
            "create /dev/null",
            2,
            &["/dev/null", "neither a file nor a folder"],
        ),
        ("create fifo", 2, &["fifo", "neither a file nor a folder"]),
        (
            "create data -o data/x.torrent",
            2,
            &["data/x.torrent", "part of the data", "-o"],
        ),
        (
            "create data/a.bin -o data/a.bin --force",
            2,
            &["data/a.bin", "part of the data"],
        ),
        (
            "create data -o nowhere/x.torrent",
            2,
            &["nowhere", "does not exist", "-o"],
        ),
        (
            "create data -o folder",
            2,
            &["folder", "is a folder", "-o FILE"],
        ),
        ("create data -o /sys/x.torrent", 2, &["/sys", "-o"]),
        (
            "create data -o x.torrent --piece-length 1000",
            2,
            &["1000", "--piece-length"],
        ),
        (
            "create data -o x.torrent --piece-length 0",
            2,
            &["0", "--piece-length"],
        ),
        (
            "create data -o x.torrent --piece-length 1GiB",
            2,
            &["--piece-length"],
        ),
        (
            "create data -o x.torrent --tracker h",
            2,
            &["'h'", "http://"],
        ),
        ("completions tcsh", 2, &["tcsh", "bash"]),
    ];
    for (line, code, parts) in cases {
        let run = place.run(line).ends(*code);
        assert_eq!(run.out, "", "{run:#?}");
        for part in *parts {
            assert!(run.err.contains(part), "{part}: {run:#?}");
        }
        assert_eq!(place.names(), before, "{line} left something behind");
    }
}

/// Goal: a forecast says the same in words and as JSON, draws its plot, and does not change.
#[test]
fn simulate_tells_how_long_a_swarm_takes() {
    let place = Place::new();
    let line = "simulate --hosts 12 --link 1Gbit --size 4MiB --kill 2 --racks 3 --uplink 2Gbit";
    let told = place.run(&format!("{line} --json --plot p.svg")).ends(0);
    let object = told.json();
    assert_eq!(object["hosts"], 12);
    assert_eq!(object["unfinished"], 0);
    assert!(
        object["complete"]
            .as_u64()
            .is_some_and(|count| (9..=11).contains(&count))
    );
    let seconds = |key: &str| object[key].as_f64().expect("seconds");
    assert!(seconds("bound_s") > 0.0 && seconds("bound_s") < seconds("first_s"));
    assert!(seconds("first_s") <= seconds("median_s") && seconds("median_s") <= seconds("last_s"));
    let plot = fs::read_to_string(place.path().join("p.svg")).expect("the plot");
    assert!(plot.starts_with("<svg") && plot.contains("hosts complete"));

    assert_eq!(
        place.run(&format!("{line} --json")).ends(0).json(),
        object,
        "not the same again"
    );
    let other = place.run(&format!("{line} --seed 2 --json")).ends(0).json();
    assert_ne!(other["digest"], object["digest"]);
    let table = place.run(line).ends(0).out;
    for part in [
        "12 hosts, 1 with the data, 4.00 MiB",
        "last host complete",
        "no protocol is below",
    ] {
        assert!(table.contains(part), "{part} is not in {table}");
    }
}

/// Goal: a soak runs for as long as asked, counts, and one of its runs comes back with its number.
#[test]
fn soak_counts_what_it_has_seen_and_repeats_a_run() {
    let place = Place::new();
    let soak = place.run("soak --for 2s --jobs 1").ends(0).out;
    assert!(
        soak.contains(" runs, ") && soak.contains(" steps, "),
        "{soak}"
    );
    let once = place.run("soak --seed 7").ends(0).out;
    assert!(once.starts_with("seed 7: "), "{once}");
    assert_eq!(place.run("soak --seed 7").ends(0).out, once);
    let part = place
        .run("soak --seed 7 --only hosts=2,faults=")
        .ends(0)
        .out;
    assert!(part.contains(" 0 faults"), "{part}");
}

#[test]
fn show_goes_on_after_an_input_that_it_cannot_use() {
    let place = Place::new();
    place.write_tree("data");
    place.run("create data -o x.torrent").ends(0);
    let run = place.run("show none.torrent x.torrent").ends(2);
    assert!(
        run.out.contains("data/a.bin") && run.err.contains("none.torrent"),
        "{run:?}"
    );
}

#[test]
fn help_version_completions_and_manual_are_printed() {
    let place = Place::new();
    let cases = [
        ("--help", "--exit-on-complete"),
        ("create --help", "--piece-length"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("completions bash", "_evpeer"),
        ("completions zsh", "#compdef evpeer"),
        ("completions fish", "complete -c evpeer"),
        ("man", ".TH"),
    ];
    for (line, part) in cases {
        let run = place.run(line).ends(0);
        assert!(run.out.contains(part), "{line}: {}", run.out);
        assert_eq!(run.err, "", "{line}");
    }
}

#[test]
fn reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    place.write_tree("data");
    place.run("create data -o x.torrent").ends(0);
    for line in ["show x.torrent", "completions bash", "man", "--help"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_evpeer"))
            .args(line.split_whitespace())
            .current_dir(place.path())
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .expect("evpeer runs");
        Run::new(line, &output).ends(0);
    }
}

/// A peer that runs beside the test; killed if it outlives it.
struct Peer {
    child: Child,
    /// What it prints; taken away, the pipe is closed.
    out: Option<Lines<BufReader<ChildStdout>>>,
    port: u16,
}

impl Peer {
    /// Starts a peer on a free port of the loopback and waits until it listens.
    fn start(place: &Place, line: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_evpeer"))
            .args(line.split_whitespace())
            .args(ALONE.split_whitespace())
            .current_dir(place.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("evpeer starts");
        let (lines, logged) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = lines.send(line);
            }
        });
        let port = loop {
            let line = logged.recv_timeout(A_MINUTE).expect("the peer listens");
            if let Some((_, port)) = line.split_once("listening port=") {
                break port.parse().expect("a port");
            }
        };
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self {
            child,
            out: Some(out.lines()),
            port,
        }
    }

    /// The lines that it prints, as they come.
    fn lines(&mut self) -> impl Iterator<Item = String> {
        self.out.iter_mut().flatten().map_while(Result::ok)
    }

    /// Reads objects until one with this value; returns it.
    #[track_caller]
    fn wait_for(&mut self, key: &str, value: &str) -> Value {
        for line in self.lines() {
            let object: Value = serde_json::from_str(&line).expect("JSON");
            if object[key] == value {
                return object;
            }
        }
        panic!("no {key} {value}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// Everything that it still prints, and its exit code.
    fn end(&mut self) -> (Vec<String>, Option<i32>) {
        let lines = self.lines().collect();
        (lines, self.child.wait().expect("it ends").code())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const A_MINUTE: Duration = Duration::from_secs(60);
/// A peer on a free port of the loopback that finds no peers of other tests.
const ALONE: &str = "-p 0 --bind 127.0.0.1 --no-lsd";

/// A folder with data and its .torrent, and one without the data.
fn seed_and_leecher() -> (Place, Place) {
    let (seed, leecher) = (Place::new(), Place::new());
    seed.write_tree("data");
    let tool = seed.path().join("data/a.bin");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).expect("a mode");
    seed.run("create data -o x.torrent --piece-length 16KiB")
        .ends(0);
    let torrent = fs::read(seed.path().join("x.torrent")).expect("a file");
    leecher.write("x.torrent", &torrent);
    (seed, leecher)
}

#[test]
fn download_is_complete_then_durable_and_equal() {
    let (place, other) = seed_and_leecher();
    let mut seed = Peer::start(&place, "-t x.torrent --json");
    seed.wait_for("state", "seeding");
    let line = format!(
        "-t x.torrent --json --exit-on-complete --peer 127.0.0.1:{}",
        seed.port
    );
    let mut leecher = Peer::start(&other, &line);
    let complete = leecher.wait_for("event", "complete");
    assert_eq!(complete["done_bytes"], 170_005);
    leecher.wait_for("event", "durable");
    let (last, code) = leecher.end();
    assert_eq!(code, Some(0));
    let last: Value = serde_json::from_str(last.last().expect("last figures")).expect("JSON");
    assert_eq!(last["event"], "progress");

    other.run("verify x.torrent").ends(0);
    let mode = |name: &str| {
        let found = fs::metadata(other.path().join(name)).expect("a file");
        found.permissions().mode() & 0o111
    };
    assert_ne!(mode("data/a.bin"), 0);
    assert_eq!(mode("data/sub/empty"), 0);

    seed.signal(Signal::INT);
    let (last, code) = seed.end();
    assert_eq!(code, Some(0));
    let last: Value = serde_json::from_str(last.last().expect("last figures")).expect("JSON");
    assert_eq!(
        (&last["event"], &last["up_bytes"]),
        (&"progress".into(), &170_005.into())
    );
}

#[test]
fn plain_output_says_complete_only_when_a_download_ends() {
    let (place, other) = seed_and_leecher();
    let present = place
        .run(&format!("{ALONE} -t x.torrent --exit-on-complete"))
        .ends(0);
    assert!(
        present.out.contains("seeding") && !present.out.contains("complete"),
        "{present:?}"
    );

    let mut seed = Peer::start(&place, "-t x.torrent --json");
    seed.wait_for("state", "seeding");
    let line = format!(
        "-t x.torrent --exit-on-complete --peer 127.0.0.1:{}",
        seed.port
    );
    let (lines, code) = Peer::start(&other, &line).end();
    assert_eq!(code, Some(0));
    let of = |word: &str| lines.iter().filter(|line| line.contains(word)).count();
    assert_eq!(
        (of("downloading"), of("complete"), of("durable")),
        (1, 1, 1),
        "{lines:#?}"
    );
}

#[test]
fn signals_end_a_peer_in_good_order() {
    for signal in [Signal::INT, Signal::TERM] {
        let (place, _other) = seed_and_leecher();
        let mut seed = Peer::start(&place, "-t x.torrent");
        seed.signal(signal);
        let (lines, code) = seed.end();
        assert_eq!(code, Some(0), "{signal:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("stopping")),
            "{lines:#?}"
        );
        assert!(
            lines.last().is_some_and(|line| line.contains("stopped")),
            "{lines:#?}"
        );
    }
}

/// The tracker takes the connection and says nothing, so that there is something to wait for.
#[test]
fn second_signal_leaves_without_waiting() {
    let (place, _other) = seed_and_leecher();
    let tracker = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = tracker.local_addr().expect("an address");
    let line = format!("-t x.torrent --tracker http://{address}/announce");
    let mut seed = Peer::start(&place, &line);
    let _asked = tracker.accept().expect("the first announce");
    seed.signal(Signal::INT);
    assert!(seed.lines().any(|line| line.starts_with("stopping")));
    seed.signal(Signal::INT);
    assert_eq!(seed.end().1, Some(0));
}

#[test]
fn seed_goes_on_when_nobody_reads_its_output() {
    let (place, other) = seed_and_leecher();
    for options in ["--json", "-v"] {
        let mut seed = Peer::start(&place, &format!("-t x.torrent {options}"));
        seed.out = None;
        let peer = format!("--peer 127.0.0.1:{}", seed.port);
        let line = format!("-q {ALONE} -t x.torrent --exit-on-complete {peer}");
        other.run(&line).ends(0);
        other.run("verify x.torrent").ends(0);
        fs::remove_dir_all(other.path().join("data")).expect("removed");
    }
}

#[test]
fn port_in_use_is_named_with_the_remedy() {
    let (place, _other) = seed_and_leecher();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let run = place
        .run(&format!("-p {port} --bind 127.0.0.1 --no-lsd -t x.torrent"))
        .ends(1);
    assert!(
        run.err.contains(&port.to_string()) && run.err.contains("-p"),
        "{run:?}"
    );
}

#[test]
fn torrent_that_cannot_be_stored_is_named_with_file_and_remedy() {
    let (_place, other) = seed_and_leecher();
    other.write("data/a.bin/in/the/way", b"");
    let run = other.run(&format!("{ALONE} -t x.torrent")).ends(1);
    for part in ["'data'", "a.bin", "move it away"] {
        assert!(run.err.contains(part), "{part}: {run:?}");
    }
}

/// Answers connections to a free port of the loopback, one `answer` each, and hands on what was
/// asked. The last connection is left open.
fn serve(answers: Vec<Vec<u8>>) -> (u16, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (port, serve_at(listener, answers))
}

fn serve_at(listener: TcpListener, answers: Vec<Vec<u8>>) -> mpsc::Receiver<Vec<u8>> {
    let (heard, questions) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept()?;
            let mut asked = Vec::new();
            let mut byte = [0];
            // A request ends with an empty line, a handshake has 68 bytes.
            let is_whole = |asked: &[u8]| match asked.first() {
                Some(0x13) => asked.len() == 68,
                _ => asked.ends_with(b"\r\n\r\n"),
            };
            while !is_whole(&asked) {
                stream.read_exact(&mut byte)?;
                asked.push(byte[0]);
            }
            let _ = heard.send(asked);
            stream.write_all(&answer)?;
        }
        Ok::<_, std::io::Error>(())
    });
    questions
}

fn http_ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn http_redirect(location: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into()
}

/// Every row: what is asked for, what the server says, and what the message must name.
#[test]
fn torrent_that_cannot_be_fetched_is_named_with_the_remedy() {
    let (place, _other) = seed_and_leecher();
    let torrent = fs::read(place.path().join("x.torrent")).expect("a file");
    let zeros = "torrents/0000000000000000000000000000000000000000.torrent";
    let head =
        |length: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    type Case = (&'static str, Vec<Vec<u8>>, &'static [&'static str]);
    let cases: [Case; 9] = [
        (
            "a/x.torrent",
            vec![b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()],
            &["status 404", "check the address"],
        ),
        (
            "x.torrent",
            vec![http_ok(&noise(500))],
            &["no usable .torrent"],
        ),
        (
            zeros,
            vec![http_ok(&torrent)],
            &["another torrent", "ask whoever"],
        ),
        (
            "x.torrent",
            vec![head("67108865")],
            &["exceeds 67108864 B", "not the data"],
        ),
        ("x.torrent", vec![head("70")], &["closed inside the answer"]),
        (
            "x.torrent",
            vec![b"SSH-2.0-x\r\n\r\n".to_vec()],
            &["not HTTP", "peer or a web server"],
        ),
        (
            "x.torrent",
            vec![http_redirect("https://h/")],
            &["TLS is not built in", "-t FILE"],
        ),
        (
            "x.torrent",
            vec![http_redirect("ftp://h/")],
            &["no usable address"],
        ),
        ("x.torrent", vec![http_redirect("/y"); 9], &["without end"]),
    ];
    let before = place.names();
    for (path, answers, parts) in cases {
        let (port, _questions) = serve(answers);
        let url = format!("http://127.0.0.1:{port}/{path}");
        let run = place.run(&format!("{ALONE} -t {url}")).ends(2);
        for part in [&url[..]].iter().chain(parts) {
            assert!(run.err.contains(part), "{part}: {run:#?}");
        }
        assert_eq!((&*run.out, place.names()), ("", before.clone()));
    }
}

#[test]
fn host_where_nothing_listens_is_named_after_a_while() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let run = place.run(&format!("-t http://{address}/x.torrent")).ends(2);
    for part in [
        &address.to_string()[..],
        "nothing listens",
        "start evpeer there",
    ] {
        assert!(run.err.contains(part), "{part}: {run:#?}");
    }
}

/// The host is still starting when it is asked first; who hands the torrent out is its peer.
#[test]
fn torrent_of_another_peer_is_fetched_and_that_peer_is_dialled() {
    let (place, _other) = seed_and_leecher();
    let torrent = fs::read(place.path().join("x.torrent")).expect("a file");
    let shown = place.run("show x.torrent --json").ends(0).json();
    let hash = shown["info_hash"].as_str().expect("a hash");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);

    let empty = Place::new();
    let url = format!("http://{address}/torrents/{hash}.torrent");
    let line = format!("-v -t {url} {ALONE} --no-tracker");
    let mut child = Command::new(env!("CARGO_BIN_EXE_evpeer"))
        .args(line.split_whitespace())
        .current_dir(empty.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("evpeer starts");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let refused = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("refused")));
    assert!(refused.is_some(), "it is tried again");
    let listener = TcpListener::bind(address).expect("the port is free still");
    let redirect = http_redirect(&format!("/elsewhere/{hash}"));
    let questions = serve_at(listener, vec![redirect, http_ok(&torrent), Vec::new()]);
    let asked = |_| questions.recv_timeout(A_MINUTE).expect("it asks");
    let asked: Vec<Vec<u8>> = (0..3).map(asked).collect();
    assert!(asked[0].starts_with(format!("GET /torrents/{hash}.torrent ").as_bytes()));
    assert!(asked[1].starts_with(b"GET /elsewhere/"));
    assert!(asked[2].starts_with(b"\x13BitTorrent protocol"), "the peer");
    child.kill().expect("it runs still");
    child.wait().expect("it ends");
}

#[test]
fn share_seeds_what_lies_there_and_says_what_to_type() {
    let (place, other) = (Place::new(), Place::new());
    place.write_tree("data");
    let line = "share data --json --save x.torrent --tracker http://127.0.0.1:1/a \
                --piece-length 16KiB --comment text --no-tracker";
    let mut peer = Peer::start(&place, line);
    let told = peer.wait_for("event", "share");
    let hash = told["info_hash"].as_str().expect("a hash").to_owned();
    let here = format!("http://127.0.0.1:{}", peer.port);
    let url = format!("{here}/torrents/{hash}.torrent");
    assert_eq!(told["urls"], serde_json::json!([url]));
    assert_eq!(told["command"], format!("evpeer -t {url}"));
    assert_eq!(
        (&told["file"], &told["length"]),
        (&"x.torrent".into(), &170_005.into())
    );
    peer.wait_for("state", "seeding");

    let made = place.run("show x.torrent --json").ends(0).json();
    assert_eq!(made["info_hash"], hash);
    assert_eq!(
        made["trackers"],
        serde_json::json!([[format!("{here}/announce")], ["http://127.0.0.1:1/a"]])
    );
    assert_eq!(
        (&made["piece_length"], &made["comment"]),
        (&16384.into(), &"text".into())
    );

    let torrent = fs::read(place.path().join("x.torrent")).expect("a file");
    other.write("x.torrent", &torrent);
    let line = format!("{ALONE} -t x.torrent --no-tracker --exit-on-complete --peer 127.0.0.1:");
    other.run(&format!("{line}{}", peer.port)).ends(0);
    other.run("verify x.torrent").ends(0);
    peer.signal(Signal::INT);
    assert_eq!(peer.end().1, Some(0));
    assert_eq!(place.names(), ["data", "x.torrent"]);
}

/// A file, seen through a link from elsewhere; nothing is written without --save.
#[test]
fn share_prints_the_line_for_people_and_leaves_nothing_behind() {
    let (place, elsewhere) = (Place::new(), Place::new());
    place.write("one file.bin", &noise(50_000));
    symlink(
        place.path().join("one file.bin"),
        elsewhere.path().join("link"),
    )
    .expect("a link");
    let mut peer = Peer::start(&elsewhere, "share link");
    let start = format!("evpeer -t http://127.0.0.1:{}/torrents/", peer.port);
    assert!(
        peer.lines()
            .any(|line| line.starts_with(&start) && line.ends_with(".torrent"))
    );
    assert!(
        peer.lines()
            .any(|line| line.starts_with("one file.bin: seeding"))
    );
    peer.signal(Signal::TERM);
    assert_eq!(peer.end().1, Some(0));
    assert_eq!(place.names(), ["one file.bin"]);
    assert_eq!(elsewhere.names(), ["link"]);
}

#[test]
fn share_of_a_private_torrent_names_its_file() {
    let place = Place::new();
    place.write_tree("data");
    let mut peer = Peer::start(&place, "share data --private --save x.torrent --json");
    let told = peer.wait_for("event", "share");
    assert_eq!(told["urls"], serde_json::json!([]));
    assert_eq!(told["command"], "evpeer -t x.torrent");
    let made = place.run("show x.torrent --json").ends(0).json();
    assert_eq!(made["private"], true);
    peer.signal(Signal::INT);
    assert_eq!(peer.end().1, Some(0));
}

#[test]
fn signal_ends_share_while_it_hashes() {
    let place = Place::new();
    let file = fs::File::create(place.path().join("large")).expect("a file");
    file.set_len(1 << 40).expect("a size");
    let mut peer = Peer::start(&place, "share large");
    peer.signal(Signal::INT);
    assert_eq!(peer.end().1, Some(0));
    assert_eq!(place.names(), ["large"]);
}

#[test]
fn open_tracker_runs_without_a_torrent() {
    let place = Place::new();
    let mut peer = Peer::start(&place, "--open-tracker --json");
    let told = peer.wait_for("event", "tracker");
    let url = format!("http://127.0.0.1:{}/announce", peer.port);
    assert_eq!(told["urls"], serde_json::json!([url]));
    peer.signal(Signal::TERM);
    assert_eq!(peer.end().1, Some(0));
}
