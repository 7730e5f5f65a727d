//! Some files of a torrent and not others: what comes, what the disk holds, what is remembered.

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use support::data::{DataSet, Tolerance, names_below};
use support::evpeer::{BINARY, Evpeer, Setup, ctl};
use support::process::Process;
use support::torrent::HandMade;
use support::tracker::Tracker;
use support::{folder, scratch, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const PIECE_LEN: u32 = 64 * 1024;
/// No border of files is one of pieces; files without bytes are between them.
const FILES: [(&str, u64); 8] = [
    ("a.bin", 900_017),
    ("docs/b.txt", 300_001),
    ("docs/c.txt", 2_000_003),
    ("docs/none", 0),
    ("empty", 0),
    ("videos/d.bin", 3_000_000),
    ("videos/e.bin", 1_500_000),
    ("videos/f.bin", 700_000),
];

/// The set above, with a content that repeats nowhere.
fn make_set(parent: &Path) -> DataSet {
    let mut files = Vec::new();
    let mut number = 1u64;
    for (path, len) in FILES {
        let path = Path::new("set").join(path);
        let place = parent.join(&path);
        fs::create_dir_all(place.parent().expect("it has a folder")).expect("writable");
        let mut content = Vec::new();
        while (content.len() as u64) < len {
            number = number
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405);
            content.extend((number >> 16).to_le_bytes().iter().take(6));
        }
        content.truncate(len as usize);
        fs::write(place, content).expect("writable");
        files.push((path, len));
    }
    DataSet {
        folder: parent.to_owned(),
        name: "set".to_owned(),
        files,
    }
}

/// A seed of the set, and a leecher's folder.
struct Stage {
    scratch: tempfile::TempDir,
    set: DataSet,
    made: HandMade,
    seed: Evpeer,
    home: PathBuf,
}

impl Stage {
    fn new(tracker: Option<&Tracker>) -> Self {
        let scratch = scratch();
        let set = make_set(&folder(scratch.path(), "data"));
        let url = tracker.map(Tracker::url);
        let made = HandMade::of(&set, PIECE_LEN, url.as_deref());
        let seed = Evpeer::start(
            "seed",
            &Setup {
                args: &["--no-tracker", "--no-pex"],
                ..Setup::new(&made.path, &set.folder)
            },
        );
        seed.wait_for_state("seeding", LIMIT);
        let home = folder(scratch.path(), "home");
        Self {
            scratch,
            set,
            made,
            seed,
            home,
        }
    }

    /// A leecher that knows `peer`.
    fn leecher(&self, peer: SocketAddr, args: &[&str]) -> Evpeer {
        Evpeer::start(
            "leecher",
            &Setup {
                args,
                peers: &[peer],
                ..Setup::new(&self.made.path, &self.home)
            },
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join("set").join(name)
    }

    /// The pieces that the file has bytes in.
    fn pieces_of(&self, name: &str) -> std::ops::Range<u64> {
        let mut begin = 0;
        for (path, len) in FILES {
            if path == name {
                let piece_len = u64::from(PIECE_LEN);
                return begin / piece_len..(begin + len).div_ceil(piece_len);
            }
            begin += len;
        }
        panic!("no file {name}");
    }

    /// The files `wanted` are there and right; of others the disk has what pieces need that they
    /// share with those, and nothing else.
    fn assert_only(&self, wanted: &[&str]) {
        for (name, len) in FILES {
            let path = self.path(name);
            if wanted.contains(&name) {
                let ours = fs::read(&path).expect(name);
                let theirs = fs::read(self.set.root().join(name)).expect(name);
                assert!(ours == theirs, "{name} is not what it should be");
                continue;
            }
            let pieces = self.pieces_of(name);
            let is_needed = |piece: &u64| {
                let mut all = wanted.iter();
                all.any(|other| self.pieces_of(other).contains(piece))
            };
            let shared = match len {
                0 => 0,
                _ => pieces.filter(is_needed).count() as u64,
            };
            assert_eq!(path.exists(), shared > 0, "{name}");
            let room = fs::metadata(&path).map_or(0, |found| found.blocks() * 512);
            let most = shared * (u64::from(PIECE_LEN) + 2 * 4096);
            assert!(
                room <= most,
                "{name} takes {room} B, shared pieces {most} B"
            );
        }
    }
}

fn start_again(home: &Path, args: &[&str]) -> Evpeer {
    let mut command = Command::new(BINARY);
    command.arg("--json").arg("-o").arg(home).args(args);
    Evpeer::start_command("again", &mut command, Ipv4Addr::LOCALHOST.into())
}

/// Runs until it ends by itself; exit code and what it said on standard error.
fn fails(command: &mut Command) -> (Option<i32>, String) {
    let mut process = Process::spawn("fails", command);
    let code = process.wait(LIMIT).code();
    (code, process.errors())
}

fn remembered(home: &Path) -> Value {
    let text = fs::read_to_string(home.join(".evpeer/session")).unwrap_or_default();
    let (_, body) = text.split_once('\n').unwrap_or_default();
    let session: Value = serde_json::from_str(body).unwrap_or_default();
    session["torrents"][0].clone()
}

fn count(tracker: &Tracker, event: &str) -> usize {
    let announces = tracker.announces();
    announces.iter().filter(|a| a.event == event).count()
}

/// Goal: only what is wanted comes, and is told as complete; when more is wanted just the rest is
/// fetched, also if the peer is killed in between; trackers hear of a download that ended once,
/// when everything is there.
/// Method: one file of eight; a kill; all of them, slowly; a kill in the middle; the rest.
#[test]
fn some_files_come_and_later_the_others_through_kills() {
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let stage = Stage::new(Some(&tracker));
    let quiet = ["--no-pex", "--only", "b.txt"];
    let mut leecher = stage.leecher(stage.seed.address, &quiet);
    let done = leecher.wait_for_event("durable", LIMIT);
    assert_eq!(
        (&done["state"], &done["left_bytes"]),
        (&json!("seeding"), &json!(0))
    );
    stage.assert_only(&["docs/b.txt"]);
    let held = stage.pieces_of("docs/b.txt");
    assert_eq!(
        done["wanted_bytes"],
        (held.end - held.start) * u64::from(PIECE_LEN)
    );
    assert_eq!(done["done_bytes"], done["wanted_bytes"]);
    wait_for("the tracker hears that it waits", LIMIT, || {
        let announces = tracker.announces();
        announces.iter().any(|a| a.event == "paused" && a.left > 0)
    });
    assert_eq!(count(&tracker, "completed"), 0);
    wait_for("it is remembered", LIMIT, || {
        remembered(&stage.home)["files"]
            .as_array()
            .is_some_and(|runs| runs.len() == 2)
    });
    leecher.process.signal(Signal::KILL);
    leecher.process.wait(LIMIT);

    // So slow that there is time to kill it in the middle.
    let mut again = start_again(&stage.home, &["--down-limit", "1MiB"]);
    again.wait_for_state("seeding", LIMIT);
    again.wait_for_event("durable", LIMIT);
    stage.assert_only(&["docs/b.txt"]);
    let files = ctl(&stage.home, &["files", "set", "--json"]).object();
    let wanted: Vec<bool> = files["files"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|file| file["wanted"] == true)
        .collect();
    assert_eq!(
        wanted,
        [false, true, false, false, false, false, false, false]
    );
    let files = ctl(
        &stage.home,
        &["files", "set", "--want", "*", "--high", "8", "--json"],
    );
    assert_eq!(files.object()["files"][7]["priority"], "high");
    again.wait_for_state("downloading", LIMIT);
    let some = done["done_bytes"].as_u64().expect("a number") + 1_000_000;
    wait_for("it is in the middle", LIMIT, || {
        let status = ctl(&stage.home, &["status", "--json"]).object();
        status["torrents"][0]["done_bytes"].as_u64() > Some(some)
    });
    wait_for("that is remembered", LIMIT, || {
        remembered(&stage.home)["files"] == json!([[7, 7, "high"]])
    });
    again.process.signal(Signal::KILL);
    again.process.wait(LIMIT);

    let last = start_again(&stage.home, &["--down-limit", "0"]);
    let done = last.wait_for_event("durable", LIMIT);
    assert_eq!(done["done_bytes"], stage.set.len());
    stage.set.assert_same_in(&stage.home, Tolerance::NONE);
    wait_for("the tracker hears of the end", LIMIT, || {
        count(&tracker, "completed") == 1
    });
    let status = ctl(&stage.set.folder, &["status", "--json"]).object();
    let fetched = status["torrents"][0]["up_bytes"].as_u64();
    let fetched = fetched.expect("a number");
    let most = stage.set.len() + stage.set.len() / 4;
    assert!(fetched < most, "{fetched} B came for {} B", stage.set.len());
    last.leave();
    stage.seed.leave();
}

/// Goal: a file that is skipped before anything of it came is never made; what is chosen of a
/// running peer holds in the next run, and a flag that is given then counts.
/// Method: a peer that knows nobody is told to skip what it wanted and killed; it goes on with the
/// seed.
#[test]
fn skipped_files_are_never_made_and_a_flag_counts() {
    let stage = Stage::new(None);
    let mut command = Setup::new(&stage.made.path, &stage.home).command();
    command.args(["--only", "videos", "--only", "b.txt"]);
    let mut alone = Evpeer::start_command("alone", &mut command, Ipv4Addr::LOCALHOST.into());
    alone.wait_for_state("downloading", LIMIT);
    let chosen = ctl(
        &stage.home,
        &[
            "files", "set", "--skip", "*", "--want", "docs,2-3", "--json",
        ],
    );
    assert_eq!(chosen.code, Some(1), "no file is called so: {chosen:?}");
    let args = [
        "files",
        "set",
        "--skip",
        "*",
        "--want",
        "2-3",
        "--high",
        "docs/b.txt",
    ];
    let chosen = ctl(
        &stage.home,
        &[&args[..], &["--sequential", "yes", "--json"]].concat(),
    );
    let files = chosen.object();
    assert_eq!(files["sequential"], true);
    let shown = |at: usize| {
        (
            &files["files"][at]["number"],
            &files["files"][at]["priority"],
        )
    };
    assert_eq!(shown(0), (&json!(1), &json!("skip")));
    assert_eq!(shown(1), (&json!(2), &json!("high")));
    assert_eq!(shown(2), (&json!(3), &json!("normal")));
    assert_eq!(files["files"][3]["wanted"], false);
    let text = ctl(&stage.home, &["files", "set"]).out;
    assert!(
        text.contains("high") && text.contains("pieces in order"),
        "{text}"
    );
    wait_for("it is remembered", LIMIT, || {
        remembered(&stage.home)["sequential"] == true
    });
    alone.process.signal(Signal::KILL);
    alone.process.wait(LIMIT);

    let peer = stage.seed.address.to_string();
    let mut again = start_again(&stage.home, &["--exit-on-complete", "--peer", &peer]);
    assert_eq!(again.wait_for_exit(LIMIT), Some(0));
    again.assert_sane();
    stage.assert_only(&["docs/b.txt", "docs/c.txt"]);
    assert!(!stage.path("videos/e.bin").exists() && !stage.path("docs/none").exists());

    let only = [
        "--only",
        "set/videos/f*",
        "--only=none",
        "--sequential=no",
        "--exit-on-complete",
    ];
    let mut flagged = stage.leecher(stage.seed.address, &only);
    assert_eq!(flagged.wait_for_exit(LIMIT), Some(0));
    let memory = remembered(&stage.home);
    assert_eq!(memory["sequential"], false);
    assert_eq!(memory["files"], json!([[0, 2, "skip"], [4, 6, "skip"]]));
    let theirs = fs::read(stage.set.root().join("videos/f.bin")).expect("it is there");
    assert!(fs::read(stage.path("videos/f.bin")).expect("it came") == theirs);
    assert_eq!(
        fs::metadata(stage.path("docs/none"))
            .expect("it is wanted")
            .len(),
        0
    );
    let docs = fs::read(stage.set.root().join("docs/c.txt")).expect("it is there");
    assert!(fs::read(stage.path("docs/c.txt")).expect("nothing is lost") == docs);
    let mut all = stage.leecher(stage.seed.address, &["--only", "*", "--exit-on-complete"]);
    assert_eq!(all.wait_for_exit(LIMIT), Some(0));
    stage.set.assert_same_in(&stage.home, Tolerance::NONE);
    stage.seed.leave();
}

/// Goal: a glob that matches nothing, or is none, is told with its remedy wherever it is given, and
/// nothing else happens.
#[test]
fn glob_that_matches_nothing_is_told_and_nothing_is_lost() {
    let stage = Stage::new(None);
    let run = |args: &[&str]| {
        let setup = Setup::new(&stage.made.path, &stage.home);
        fails(setup.command().args(args))
    };
    for glob in ["*.iso", "docs/nothing", "["] {
        let (code, errors) = run(&["--only", "a.bin", "--only", glob]);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains(glob), "{errors}");
        let remedies = ["evpeer show", "between [ and ]"];
        assert!(
            remedies.iter().any(|remedy| errors.contains(remedy)),
            "{errors}"
        );
        assert_eq!(names_below(&stage.home), Vec::<PathBuf>::new());
    }

    let watched = folder(stage.scratch.path(), "watched");
    let mut command = Command::new(BINARY);
    command.args([
        "--json",
        "--bind",
        "127.0.0.1",
        "-p",
        "0",
        "--no-lsd",
        "--only",
        "*.iso",
    ]);
    command
        .arg("--watch")
        .arg(&watched)
        .arg("-o")
        .arg(&stage.home);
    let peer = Evpeer::start_command("watching", &mut command, Ipv4Addr::LOCALHOST.into());
    let source = stage.made.path.to_str().expect("a text");
    let refused = ctl(&stage.home, &["add", source, "--only", "*.mkv"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .err
            .contains("\"*.mkv\" matches none of the 8 files"),
        "{refused:?}"
    );
    fs::copy(&stage.made.path, watched.join("set.torrent")).expect("writable");
    let told = peer.wait_for_text("left out", LIMIT);
    assert!(
        told.contains("\"*.iso\" matches none") || told.contains("*.iso"),
        "{told}"
    );
    let status = ctl(&stage.home, &["status", "--json"]).object();
    assert_eq!(status["torrents"], json!([]));

    let added = ctl(&stage.home, &["add", source, "--only", "docs", "--json"]).object();
    let wanted = added["wanted_bytes"].as_u64();
    assert!(wanted.is_some_and(|wanted| wanted < 2_600_000), "{added}");
    let wrong = ctl(
        &stage.home,
        &["files", "set", "--skip", "docs", "--want", "99"],
    );
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.err.contains("\"99\" matches none"), "{wrong:?}");
    let files = ctl(&stage.home, &["files", "set", "--json"]).object();
    assert_eq!(files["files"][1]["priority"], "normal", "nothing was done");
    peer.leave();
    stage.seed.leave();
}
