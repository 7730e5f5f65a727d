//! The control socket of a running peer: every command, and clients that mean no good.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup, ctl};
use support::relay::Relay;
use support::tracker::Tracker;
use support::{folder, scratch, torrent, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// Goal: what a user does with a running peer works, and does what it says.
/// Method: a download that is held at a third; each command in turn.
#[test]
fn every_command_does_what_it_says() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "set", 24 * MIB, 1);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = torrent::create(&set, Some(&tracker.url()));
    let quiet = ["--no-tracker"];
    let seed = Evpeer::start(
        "seed",
        &Setup {
            args: &quiet,
            ..Setup::new(&torrent, &set.folder)
        },
    );
    seed.wait_for_state("seeding", LIMIT);
    let relay = Relay::start(seed.address, 8 * MIB);
    let home = folder(scratch.path(), "home");
    let known = [relay.address()];
    let mut leecher = Evpeer::start(
        "leecher",
        &Setup {
            peers: &known,
            ..Setup::new(&torrent, &home)
        },
    );
    wait_for("a third has come", LIMIT, || relay.is_held());

    let status = ctl(&home, &["status", "--json"]).object();
    assert_eq!(status["port"], leecher.address.port());
    assert_eq!(status["torrents"][0]["torrent"], "set");
    assert_eq!(status["torrents"][0]["state"], "downloading");
    assert_eq!(status["torrents"][0]["peers"], 1);
    let turns = &status["loop"];
    assert!(turns["turns"].as_u64() > Some(0), "{turns}");
    assert!(turns["longest_us"].as_u64() >= turns["median_us"].as_u64());
    assert!(turns["longest_in"].is_string(), "{turns}");
    let peers = ctl(&home, &["--json", "peers"]).object();
    let peer = &peers["peers"][0];
    assert_eq!(peer["address"], relay.address().to_string());
    assert_eq!(
        (&peer["source"], &peer["seed"]),
        (&json!("user"), &json!(true))
    );
    assert_eq!(
        (&peer["incoming"], &peer["evpeer"]),
        (&json!(false), &json!(true))
    );
    assert!(
        peer["client"]
            .as_str()
            .is_some_and(|c| c.starts_with("evpeer ")),
        "{peer}"
    );
    assert!(
        peer["down_bytes"].as_u64().is_some_and(|n| n > 4 * MIB),
        "{peer}"
    );
    assert!(
        peer["last_heard_s"].as_f64().is_some_and(|s| s < 60.0),
        "{peer}"
    );
    let network = ctl(&home, &["peers", "--network", "--json"]).object();
    assert!(network.get("network").is_some(), "{network}");
    let files = ctl(&home, &["files", "set", "--json"]).object();
    assert_eq!(
        files["files"].as_array().map(Vec::len),
        Some(set.files.len())
    );
    let done = |f: &Value| f["done_bytes"].as_u64().expect("a number");
    let done: u64 = files["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(done)
        .sum();
    assert!(done > 0 && done < set.len(), "{done}");
    let trackers = ctl(&home, &["trackers", "--json"]).object();
    assert_eq!(trackers["trackers"][0]["url"], tracker.url());
    assert_eq!(trackers["trackers"][0]["status"], "answered");
    let why = ctl(&home, &["why", "s", "--json"]).object();
    assert!(
        why["reasons"].as_array().is_some_and(|r| !r.is_empty()),
        "{why}"
    );

    // For people: the same, aligned, without colours as nobody sees them.
    for command in ["status", "peers", "files", "trackers", "why"] {
        let said = ctl(&home, &[command]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(
            said.out.contains("set") && !said.out.contains('\u{1b}'),
            "{}",
            said.out
        );
        assert!(said.out.lines().count() >= 2, "{}", said.out);
    }

    let paused = ctl(&home, &["pause", "set", "--json"]).object();
    assert_eq!(paused["state"], "paused");
    let told = |event: &str| tracker.announces().iter().any(|a| a.event == event);
    wait_for("the tracker hears of the pause", LIMIT, || told("stopped"));
    assert_eq!(
        ctl(&home, &["peers", "--json"]).object()["peers"],
        json!([])
    );
    let why = ctl(&home, &["why", "--json"]).object();
    assert!(
        why["reasons"][0]
            .as_str()
            .is_some_and(|r| r.contains("paused")),
        "{why}"
    );

    relay.lift();
    let resumed = ctl(&home, &["resume", "--all", "--json"]).object();
    assert_eq!(resumed["state"], "downloading");
    leecher.wait_for_event("complete", LIMIT);
    set.assert_same_in(&home, Tolerance::NONE);

    // Another torrent, whose data is there already.
    let other = DataSet::file(&home, "other.bin", 3 * MIB, 2);
    let other_torrent = torrent::create(&other, None);
    let other_path = scratch.path().join("moved.torrent");
    fs::rename(other_torrent, &other_path).expect("the scratch folder is writable");
    let other_path = other_path.to_str().expect("plain names");
    let added = ctl(&home, &["add", other_path, "--json"]).object();
    assert_eq!(added["torrent"], "other.bin");
    wait_for("it is checked and seeds", LIMIT, || {
        let status = ctl(&home, &["status", "--json"]).object();
        status["torrents"][1]["state"] == "seeding"
    });
    let again = ctl(&home, &["add", other_path]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("added already"), "{}", again.err);

    let hash = added["info_hash"].as_str().expect("a text").to_owned();
    let kept = home.join(format!(".evpeer/{hash}.torrent"));
    wait_for("its .torrent is kept", LIMIT, || kept.is_file());
    let removed = ctl(&home, &["remove", &hash[..10], "--json"]).object();
    assert_eq!(removed["state"], "removed");
    wait_for("its .torrent is gone", LIMIT, || !kept.exists());
    assert!(home.join("other.bin").is_file(), "the data stays");

    let said = ctl(&home, &["shutdown"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(leecher.wait_for_exit(LIMIT), Some(0));
    leecher.assert_sane();
    assert!(!home.join(".evpeer/control.sock").exists());
    seed.leave();
}

#[test]
fn peer_that_is_not_there_and_torrents_that_are_not_are_named() {
    let scratch = scratch();
    let nobody = ctl(scratch.path(), &["status"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.err.contains("no peer answers") && nobody.err.contains("-o DIR"),
        "{nobody:?}"
    );

    let set = DataSet::file(&folder(scratch.path(), "data"), "x", MIB, 1);
    let torrent = torrent::create(&set, None);
    let peer = Evpeer::start("peer", &Setup::new(&torrent, &set.folder));
    for args in [
        &["pause", "y"][..],
        &["remove", "y"],
        &["files", "y"],
        &["add", "/nowhere/y.torrent"],
    ] {
        let said = ctl(&set.folder, args);
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        assert!(said.err.contains('y'), "{said:?}");
    }
    peer.leave();
}

/// A torrent is removed while it is checked, downloaded and written, with both ways of writing;
/// added again it finds what is there and ends as the original.
#[test]
fn torrent_can_be_removed_and_added_again_in_the_middle_of_everything() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "set", 32 * MIB, 3);
    let torrent = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let source = torrent.to_str().expect("plain names");
    for storage in ["map", "pwrite"] {
        let home = folder(scratch.path(), storage);
        let args = ["--storage", storage];
        let peers = [seed.address];
        let leecher = Evpeer::start(
            storage,
            &Setup {
                args: &args,
                peers: &peers,
                ..Setup::new(&torrent, &home)
            },
        );
        let peer = seed.address.to_string();
        for round in 0..6 {
            // Later each time: from the first check to the last sync.
            let mark = round * set.len() / 5;
            wait_for("so much is there", LIMIT, || {
                let status = ctl(&home, &["status", "--json"]).object();
                status["torrents"][0]["done_bytes"].as_u64() >= Some(mark.min(set.len()))
            });
            ctl(&home, &["remove", "set", "--json"]).object();
            ctl(&home, &["add", source, "--peer", &peer, "--json"]).object();
        }
        wait_for("it is complete", LIMIT, || {
            let status = ctl(&home, &["status", "--json"]).object();
            status["torrents"][0]["state"] == "seeding"
        });
        leecher.leave();
        set.assert_same_in(&home, Tolerance::NONE);
    }
    seed.leave();
}

/// A client of the socket made by hand.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn connect(home: &Path) -> Self {
        let stream = UnixStream::connect(home.join(".evpeer/control.sock")).expect("it is served");
        stream.set_read_timeout(Some(LIMIT)).expect("a socket");
        stream.set_write_timeout(Some(LIMIT)).expect("a socket");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("it reads");
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.answer()
    }

    /// Whether the other side has closed: reads to the end.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn status() -> Value {
    json!({ "v": 1, "id": 1, "command": "status" })
}

fn idle_peer(scratch: &Path) -> (Evpeer, std::path::PathBuf) {
    let set = DataSet::file(&folder(scratch, "data"), "x", MIB, 1);
    let torrent = torrent::create(&set, None);
    let peer = Evpeer::start("peer", &Setup::new(&torrent, &set.folder));
    peer.wait_for_state("seeding", LIMIT);
    (peer, set.folder)
}

#[test]
fn socket_is_for_its_owner_and_takes_many_requests_on_one_connection() {
    let scratch = scratch();
    let (peer, home) = idle_peer(scratch.path());
    let socket = home.join(".evpeer/control.sock");
    let facts = fs::symlink_metadata(&socket).expect("it is there");
    assert!(facts.file_type().is_socket());
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    let state = fs::metadata(home.join(".evpeer")).expect("it is there");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);

    let mut raw = Raw::connect(&home);
    // Several lines at once, and one byte by byte.
    let many: String = (0..50)
        .map(|id| format!("{}\n", json!({ "v": 1, "id": id, "command": "status" })))
        .collect();
    raw.send(many.as_bytes());
    for id in 0..50 {
        let answer = raw.answer();
        assert_eq!((&answer["id"], &answer["ok"]), (&json!(id), &json!(true)));
    }
    for byte in format!("{}\n", status()).bytes() {
        raw.send(&[byte]);
    }
    assert_eq!(raw.answer()["ok"], true);
    // Errors leave the connection open.
    for (line, kind) in [
        ("nonsense", "malformed"),
        (r#"{"v":9,"command":"status"}"#, "version"),
        (r#"{"v":1,"command":"dance"}"#, "unknown_command"),
        (
            r#"{"v":1,"command":"why","torrent":"no"}"#,
            "no_such_torrent",
        ),
        (
            r#"{"v":1,"command":"add","source":"/dev/zero"}"#,
            "unusable",
        ),
        (r#"{"v":1,"command":"add","source":"relative"}"#, "unusable"),
    ] {
        raw.send(format!("{line}\n").as_bytes());
        assert_eq!(raw.answer()["error"]["kind"], kind, "{line}");
    }
    // One that says that it is done is still answered.
    raw.send(format!("{}\n", status()).as_bytes());
    raw.0.get_ref().shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(raw.answer()["ok"], true);
    assert!(raw.is_closed());
    peer.leave();
}

#[test]
fn lines_without_end_and_half_lines_cost_their_sender_only() {
    let scratch = scratch();
    let (peer, home) = idle_peer(scratch.path());
    // At the limit a line is read; it is no JSON.
    let mut raw = Raw::connect(&home);
    let mut line = vec![b'x'; MIB as usize];
    line.push(b'\n');
    raw.send(&line);
    assert_eq!(raw.answer()["error"]["kind"], "malformed");
    assert_eq!(raw.ask(&status())["ok"], true);
    // Beyond it the connection ends.
    let mut endless = Raw::connect(&home);
    let sent = endless.0.get_mut().write_all(&vec![b'x'; 4 * MIB as usize]);
    assert!(sent.is_err() || endless.is_closed(), "nobody reads 4 MiB");
    for half in [&b"{\"v\":1,\"comm"[..], b"", b"\n\n\n", &[0xff; 1000]] {
        let mut raw = Raw::connect(&home);
        raw.send(half);
        drop(raw);
    }
    let mut deep = Raw::connect(&home);
    deep.send("[".repeat(500_000).as_bytes());
    deep.send(b"\n");
    assert_eq!(deep.answer()["error"]["kind"], "malformed");
    assert_eq!(
        ctl(&home, &["status", "--json"]).object()["torrents"][0]["state"],
        "seeding"
    );
    peer.leave();
}

#[test]
fn client_that_never_reads_is_dropped_and_others_are_served_meanwhile() {
    let scratch = scratch();
    let (peer, home) = idle_peer(scratch.path());
    let before = support::proc::memory_kib(peer.process.pid(), "VmRSS:");
    let mut deaf = Raw::connect(&home);
    deaf.0.get_ref().set_nonblocking(true).expect("a socket");
    let request = format!("{}\n", status()).repeat(100);
    let end = Instant::now() + LIMIT;
    let dropped = loop {
        assert!(Instant::now() < end, "never dropped");
        match deaf.0.get_mut().write(request.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert_eq!(ctl(&home, &["status"]).code, Some(0));
            }
            Err(error) => break error,
        }
    };
    let kind = dropped.kind();
    assert!(
        matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "{dropped}"
    );
    let after = support::proc::memory_kib(peer.process.pid(), "VmRSS:");
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    peer.leave();
}

#[test]
fn hundred_clients_leave_room_for_one_more() {
    let scratch = scratch();
    let (peer, home) = idle_peer(scratch.path());
    let files = support::proc::open_files(peer.process.pid());
    let mut clients: Vec<Raw> = (0..100).map(|_| Raw::connect(&home)).collect();
    // Those who are idle longest had to go; the last ones are served.
    for raw in clients.iter_mut().skip(90) {
        assert_eq!(raw.ask(&status())["ok"], true);
    }
    assert_eq!(ctl(&home, &["status"]).code, Some(0));
    let open = support::proc::open_files(peer.process.pid());
    assert!(open <= files + 33, "{files} descriptors, then {open}");
    assert!(clients[0].is_closed());
    drop(clients);
    wait_for("their descriptors are free", LIMIT, || {
        support::proc::open_files(peer.process.pid()) <= files + 1
    });
    peer.leave();
}

#[test]
fn socket_of_a_dead_process_is_replaced_and_a_long_path_is_no_obstacle() {
    let scratch = scratch();
    let deep = folder(scratch.path(), &"long/".repeat(40));
    let set = DataSet::file(&deep, "x", MIB, 1);
    let torrent = torrent::create(&set, None);
    let socket = deep.join(".evpeer/control.sock");
    assert!(
        socket.as_os_str().len() > 108,
        "longer than a socket's name may be"
    );
    for signal in [Signal::KILL, Signal::TERM] {
        let mut peer = Evpeer::start("peer", &Setup::new(&torrent, &deep));
        assert_eq!(ctl(&deep, &["status"]).code, Some(0));
        peer.process.signal(signal);
        peer.process.wait(LIMIT);
        assert_eq!(socket.exists(), signal == Signal::KILL);
    }
    // Something else in its place is not touched; the peer runs without.
    fs::write(&socket, "mine").expect("writable");
    let peer = Evpeer::start("peer", &Setup::new(&torrent, &deep));
    peer.wait_for_state("seeding", LIMIT);
    assert_eq!(fs::read_to_string(&socket).expect("it is there"), "mine");
    peer.wait_for_text("no control socket", LIMIT);
    peer.leave();
}

/// `ctl` meets somebody who is no evpeer.
#[test]
fn ctl_is_not_fooled_by_another_server() {
    let scratch = scratch();
    let state = folder(scratch.path(), ".evpeer");
    let listener = UnixListener::bind(state.join("control.sock")).expect("a short path");
    for reply in ["", "what?\n", "{}\n", "{\"ok\":true", "[]\n"] {
        let served = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let _ = stream.write_all(reply.as_bytes());
            });
            let said = ctl(scratch.path(), &["status"]);
            server.join().expect("no panic");
            said
        });
        assert_eq!(served.code, Some(1), "{reply:?}: {served:?}");
        assert!(
            served.err.contains("no usable answer"),
            "{reply:?}: {served:?}"
        );
    }
}
