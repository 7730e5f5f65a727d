//! What a peer remembers: after a kill it goes on where it was, with whom it knew.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use support::data::names_below;
use support::data::{DataSet, Tolerance};
use support::evpeer::{BINARY, Evpeer, Setup, ctl};
use support::process::Process;
use support::relay::Relay;
use support::torrent::HandMade;
use support::tracker::Tracker;
use support::{folder, scratch, torrent, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// `evpeer -o home --json` and what a test adds to it: everything else is remembered.
fn again(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("--json").arg("-o").arg(home).args(args);
    command
}

fn start_again(home: &Path, args: &[&str]) -> Evpeer {
    Evpeer::start_command("again", &mut again(home, args), Ipv4Addr::LOCALHOST.into())
}

/// Runs until it ends by itself; exit code and what it said on standard error.
fn fails(command: &mut Command) -> (Option<i32>, String) {
    let mut process = Process::spawn("fails", command);
    let code = process.wait(LIMIT).code();
    (code, process.errors())
}

fn session_of(home: &Path) -> Value {
    let text = fs::read_to_string(home.join(".evpeer/session")).unwrap_or_default();
    let (_, body) = text.split_once('\n').unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}

/// Announces `peer` to a tracker, as if it were in the swarm.
fn announce(tracker: &Tracker, info_hash: [u8; 20], peer: SocketAddr) {
    let url = tracker.url();
    let host = url
        .trim_start_matches("http://")
        .trim_end_matches("/announce");
    let hash: String = info_hash
        .iter()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let mut stream = TcpStream::connect(host).expect("the tracker is there");
    let port = peer.port();
    let request = format!(
        "GET /announce?info_hash={hash}&peer_id=-XX0000-000000000000&port={port}&uploaded=0\
         &downloaded=0&left=0&compact=1&event=started HTTP/1.1\r\nHost: {host}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
}

/// Goal: a peer that was killed goes on with nothing but its folder: no .torrent, no tracker, no
/// discovery, no option.
/// Method: a tracker names the seed's relay, which is held in the middle; the leecher is killed,
/// tracker and .torrent go away, and it is started with its folder alone.
#[test]
fn killed_peer_finishes_from_whom_it_knew_without_tracker_and_torrent_file() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", 16 * MIB, 1);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let made = HandMade::of(&set, 256 * 1024, Some(&tracker.url()));
    let quiet = ["--no-tracker", "--no-pex"];
    let seed = Evpeer::start(
        "seed",
        &Setup {
            args: &quiet,
            ..Setup::new(&made.path, &set.folder)
        },
    );
    seed.wait_for_state("seeding", LIMIT);
    let relay = Relay::start(seed.address, 6 * MIB);
    announce(&tracker, made.info_hash, relay.address());

    let home = folder(scratch.path(), "home");
    let args = ["--max-peers", "77", "--storage", "pwrite"];
    let mut leecher = Evpeer::start(
        "leecher",
        &Setup {
            args: &args,
            ..Setup::new(&made.path, &home)
        },
    );
    let port = leecher.address.port();
    wait_for("it is held in the middle", LIMIT, || relay.is_held());
    wait_for("the peer is remembered", LIMIT, || {
        let known = &session_of(&home)["torrents"][0]["known"][0];
        known["address"] == relay.address().to_string() && known["evpeer"] == true
    });
    leecher.process.signal(Signal::KILL);
    leecher.process.wait(LIMIT);
    drop(tracker);
    fs::remove_file(&made.path).expect("it is there");
    relay.lift();

    let mut again = start_again(&home, &["--exit-on-complete"]);
    assert_eq!(again.address.port(), port, "the same port again");
    let session = session_of(&home);
    assert_eq!(session["given"]["conns_max"], 77);
    assert_eq!(session["given"]["storage"], "pwrite");
    assert_eq!(session["given"]["bind"], "127.0.0.1");
    assert_eq!(session["given"]["lsd"], false);
    assert_eq!(session["port"], port);
    assert_eq!(again.wait_for_exit(LIMIT), Some(0));
    again.assert_sane();
    set.assert_same_in(&home, Tolerance::NONE);
    assert_eq!(
        session_of(&home)["torrents"][0]["info_hash"]
            .as_str()
            .map(str::len),
        Some(40)
    );
    seed.leave();
}

/// Addresses of the peers that `ctl` says are connected in `home`, and how each was learned.
fn peers_of(home: &Path) -> Vec<(String, String)> {
    let answer = ctl(home, &["peers", "--json"]).object();
    let peers = answer["peers"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let peer = |peer: &Value| (text(&peer["listens"]), text(&peer["source"]));
    let mut peers: Vec<_> = peers.iter().map(peer).collect();
    peers.sort();
    peers
}

/// The evpeers that `ctl` lists in `home`: those that are connected, or those that are not.
fn network_of(home: &Path, connected: bool) -> Vec<String> {
    let answer = ctl(home, &["peers", "--network", "--json"]).object();
    let hosts = answer["network"].as_array().cloned().unwrap_or_default();
    let hosts = hosts.iter().filter(|host| host["connected"] == connected);
    let addresses = hosts.filter_map(|host| Some(host["address"].as_str()?.to_owned()));
    addresses.collect()
}

fn kill(peer: &mut Evpeer) {
    peer.process.signal(Signal::KILL);
    peer.process.wait(LIMIT);
}

/// Goal: killing peers costs the network nothing that their folders do not bring back.
/// Method: three peers lack the same piece, so that none of them is done; a tracker introduces
/// them, and goes away. One is killed and started with its folder alone, then all of them. A
/// newcomer with the missing piece that knows one of them completes all.
#[test]
fn killed_peers_find_each_other_again_without_tracker_and_local_discovery() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", 4 * MIB, 1);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let made = HandMade::of(&set, 256 * 1024, Some(&tracker.url()));
    let homes: Vec<PathBuf> = ["a", "b", "c"]
        .iter()
        .map(|name| folder(scratch.path(), name))
        .collect();
    let mut peers = Vec::new();
    for home in &homes {
        let part = &set.bytes()[..3 * MIB as usize];
        fs::write(home.join("set"), part).expect("writable");
        peers.push(Evpeer::start("first", &Setup::new(&made.path, home)));
    }
    let others = |of: usize| -> Vec<String> {
        let others = (0..3).filter(|&n| n != of);
        let mut others: Vec<_> = others.map(|n| peers[n].address.to_string()).collect();
        others.sort();
        others
    };
    let expected: Vec<Vec<String>> = (0..3).map(others).collect();
    let is_joined = |n: usize| {
        let joined = peers_of(&homes[n]);
        joined.iter().map(|(addr, _)| addr).eq(&expected[n])
    };
    wait_for("all are joined", LIMIT, || (0..3).all(is_joined));
    wait_for("all are remembered", LIMIT, || {
        (0..3).all(|n| {
            let known = session_of(&homes[n])["torrents"][0]["known"].clone();
            let known = known.as_array().map_or(&[][..], Vec::as_slice);
            let addresses = known.iter().filter_map(|k| k["address"].as_str());
            let mut addresses: Vec<&str> = addresses.collect();
            addresses.sort_unstable();
            addresses == expected[n]
        })
    });
    drop(tracker);

    kill(&mut peers[2]);
    let again = start_again(&homes[2], &[]);
    assert_eq!(again.address, peers[2].address);
    peers[2] = again;
    wait_for("the killed one is back", LIMIT, || (0..3).all(is_joined));
    assert_eq!(network_of(&homes[2], true), expected[2]);

    peers.iter_mut().for_each(kill);
    peers[0] = start_again(&homes[0], &[]);
    assert_eq!(
        network_of(&homes[0], false),
        expected[0],
        "though nobody is there"
    );
    kill(&mut peers[0]);
    peers = homes.iter().map(|home| start_again(home, &[])).collect();
    wait_for("all are back", LIMIT, || (0..3).all(is_joined));
    let sources = |n: usize| peers_of(&homes[n]).into_iter().map(|(_, source)| source);
    let sources: Vec<String> = (0..3).flat_map(sources).collect();
    assert!(sources.contains(&"session".to_owned()), "{sources:?}");

    let survivor = [peers[1].address];
    let newcomer = Evpeer::start(
        "newcomer",
        &Setup {
            peers: &survivor,
            args: &["--no-tracker"],
            ..Setup::new(&made.path, &set.folder)
        },
    );
    for (peer, home) in peers.into_iter().zip(&homes) {
        peer.wait_for_event("complete", LIMIT);
        set.assert_same_in(home, Tolerance::NONE);
        peer.leave();
    }
    newcomer.leave();
}

#[test]
fn second_process_in_the_same_folder_is_refused_by_name() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", MIB, 1);
    let torrent = torrent::create(&set, None);
    let first = Evpeer::start("first", &Setup::new(&torrent, &set.folder));
    let elsewhere = scratch.path().join("state").display().to_string();
    for args in [&[][..], &["--state-dir", &elsewhere]] {
        let setup = Setup {
            args,
            ..Setup::new(&torrent, &set.folder)
        };
        let (code, said) = fails(&mut setup.command());
        assert_eq!(code, Some(1), "{said}");
        let pid = format!("process {}", first.process.pid());
        assert!(said.contains("in use") && said.contains(&pid), "{said}");
    }
    first.leave();
}

#[test]
fn state_paused_removed_and_totals_survive_and_a_named_torrent_runs() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "one", 2 * MIB, 1);
    let one = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&one, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let home = folder(scratch.path(), "home");
    let peers = [seed.address];
    let leecher = Evpeer::start(
        "leecher",
        &Setup {
            peers: &peers,
            ..Setup::new(&one, &home)
        },
    );
    leecher.wait_for_event("complete", LIMIT);
    let two = torrent::create(&DataSet::file(&home, "two", MIB, 2), None);
    ctl(
        &home,
        &["add", two.to_str().expect("plain names"), "--json"],
    )
    .object();
    ctl(&home, &["pause", "one", "--json"]).object();
    leecher.leave();
    for file in [&one, &two] {
        let aside = file.with_extension("away");
        fs::rename(file, aside).expect("it is there");
    }

    let states = |home: &Path| {
        let status = ctl(home, &["status", "--json"]).object();
        let torrents = status["torrents"].as_array().cloned().unwrap_or_default();
        let state = |t: &Value| format!("{} {}", t["torrent"], t["state"]).replace('"', "");
        torrents.iter().map(state).collect::<Vec<_>>()
    };
    let second = start_again(&home, &[]);
    wait_for("two seeds, one is paused", LIMIT, || {
        states(&home) == ["one paused", "two seeding"]
    });
    let status = ctl(&home, &["status", "--json"]).object();
    let one_now = &status["torrents"][0];
    assert_eq!(
        (&one_now["down_bytes"], &one_now["down_total_bytes"]),
        (&0.into(), &(2 * MIB).into())
    );
    ctl(&home, &["remove", "two", "--json"]).object();
    second.leave();

    // Named again, it runs again.
    let third = start_again(
        &home,
        &["-t", one.with_extension("away").to_str().expect("plain")],
    );
    wait_for("one seeds, two is gone", LIMIT, || {
        states(&home) == ["one seeding"]
    });
    third.leave();
    assert!(home.join("two").is_file());
    seed.leave();
}

/// A peer that knows nobody is told of one when it is started again, and of a tracker that is
/// remembered; with a torrent named beside it that is not for the others.
#[test]
fn peers_and_trackers_given_to_a_session_are_for_all_of_it_unless_a_torrent_is_named() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "one", MIB, 1);
    let one = torrent::create(&set, None);
    let home = folder(scratch.path(), "home");
    Evpeer::start("alone", &Setup::new(&one, &home)).leave();
    let two = torrent::create(&DataSet::file(&home, "two", MIB, 2), None);
    let other = Tracker::start(Ipv4Addr::LOCALHOST);
    let args = [
        "-t",
        two.to_str().expect("plain"),
        "--tracker",
        &other.url(),
    ];
    let named = start_again(&home, &args);
    named.wait_for_state("seeding", LIMIT);
    named.leave();
    let seed = Evpeer::start("seed", &Setup::new(&one, &set.folder));
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let peer = seed.address.to_string();
    let args = ["--peer", &peer, "--tracker", &tracker.url()];
    let mut told = start_again(&home, &[&args[..], &["--exit-on-complete"]].concat());
    assert_eq!(told.wait_for_exit(LIMIT), Some(0));
    let got = fs::read(home.join("one")).expect("it is there");
    assert!(got == set.bytes(), "the same data");
    let trackers = |place: usize| session_of(&home)["torrents"][place]["trackers"].clone();
    assert_eq!(trackers(0), serde_json::json!([tracker.url()]));
    assert_eq!(trackers(1), serde_json::json!([tracker.url(), other.url()]));
    seed.leave();
}

/// Goal: a kill at any moment leaves a session that is whole.
/// Method: orders that each change the session come as fast as they are answered; after a number
/// of them that grows, the peer is killed and started again.
#[test]
fn session_is_whole_after_a_kill_at_any_moment() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", MIB, 1);
    let torrent = torrent::create(&set, None);
    let home = &set.folder;
    let mut peer = Evpeer::start("first", &Setup::new(&torrent, home));
    peer.wait_for_state("seeding", LIMIT);
    wait_for("it is written", LIMIT, || session_of(home).is_object());
    for orders in 0..12 {
        let stream = UnixStream::connect(home.join(".evpeer/control.sock")).expect("it is served");
        let mut stream = BufReader::new(stream);
        for order in ["pause", "resume"].iter().cycle().take(orders) {
            let line = format!("{{\"v\":1,\"command\":\"{order}\",\"torrent\":\"set\"}}\n");
            let sent = stream.get_mut().write_all(line.as_bytes());
            sent.expect("it reads");
            let mut answer = String::new();
            stream.read_line(&mut answer).expect("it answers");
            assert!(answer.contains("\"ok\":true"), "{answer}");
        }
        kill(&mut peer);
        assert!(session_of(home)["torrents"][0].is_object(), "{orders}");
        peer = start_again(home, &[]);
        let state = || ctl(home, &["status", "--json"]).object()["torrents"][0]["state"].clone();
        wait_for("it is taken up", LIMIT, || {
            state() == "seeding" || state() == "paused"
        });
    }
    peer.leave();
    let names = names_below(&home.join(".evpeer"));
    let is_damaged = |name: &PathBuf| name.to_string_lossy().contains("damaged");
    assert!(!names.iter().any(is_damaged), "{names:?}");
}

/// One row a session: what is on the disk, and what comes of it.
#[test]
fn damaged_session_is_put_aside_and_a_newer_one_refused() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", MIB, 1);
    let torrent = torrent::create(&set, None);
    let home = &set.folder;
    let first = Evpeer::start("first", &Setup::new(&torrent, home));
    first.wait_for_state("seeding", LIMIT);
    first.leave();
    let path = home.join(".evpeer/session");
    let whole = fs::read(&path).expect("it was written");
    let flipped: Vec<u8> = {
        let mut bytes = whole.clone();
        let place = bytes.len() / 2;
        bytes[place] ^= 4;
        bytes
    };
    let rows = [
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("garbage", vec![0xa5; 10_000]),
        ("a flipped bit", flipped),
    ];
    for (round, (name, bytes)) in rows.into_iter().enumerate() {
        fs::write(&path, &bytes).expect("writable");
        let args = ["--bind", "127.0.0.1", "-p", "0", "--no-lsd"];
        let again = start_again(home, &args);
        again.wait_for_state("seeding", LIMIT);
        again.wait_for_text("session not readable", LIMIT);
        again.leave();
        let aside = ["", ".2", ".3", ".4"][round];
        let aside = home.join(format!(".evpeer/session.damaged{aside}"));
        assert_eq!(fs::read(&aside).expect("it was kept"), bytes, "{name}");
        assert!(session_of(home)["torrents"][0].is_object(), "{name}");
    }

    let newer = String::from_utf8(whole)
        .expect("text")
        .replacen("session 1", "session 7", 1);
    fs::write(&path, &newer).expect("writable");
    let (code, said) = fails(&mut again(home, &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("format 7") && said.contains("newer"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&path).expect("it stays"), newer);
}

#[test]
fn torrent_whose_file_was_lost_stays_in_the_session() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", MIB, 1);
    let torrent = torrent::create(&set, None);
    let home = &set.folder;
    let first = Evpeer::start("first", &Setup::new(&torrent, home));
    first.wait_for_state("seeding", LIMIT);
    first.leave();
    let hash = session_of(home)["torrents"][0]["info_hash"].clone();
    let hash = hash.as_str().expect("a text");
    let kept = home.join(format!(".evpeer/{hash}.torrent"));
    fs::write(&kept, "nonsense").expect("writable");
    let second = start_again(home, &[]);
    let said = second.wait_for_text("not taken up", LIMIT);
    assert!(said.contains(hash), "{said}");
    second.leave();
    assert_eq!(session_of(home)["torrents"][0]["info_hash"], hash);
    let third = Evpeer::start("third", &Setup::new(&torrent, home));
    third.wait_for_state("seeding", LIMIT);
    third.leave();
    assert_eq!(
        fs::read(&kept).expect("kept"),
        fs::read(&torrent).expect("there")
    );
}

#[test]
fn state_goes_elsewhere_if_the_output_folder_takes_none_and_ctl_finds_it() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "set", MIB, 1);
    let torrent = torrent::create(&set, None);
    // Stands in for media that nobody can write to, not even root.
    fs::write(set.folder.join(".evpeer"), "").expect("writable");
    let common: PathBuf = scratch.path().join("xdg");
    let mut command = Setup::new(&torrent, &set.folder).command();
    command.env("XDG_STATE_HOME", &common);
    let peer = Evpeer::start_command("peer", &mut command, Ipv4Addr::LOCALHOST.into());
    peer.wait_for_state("seeding", LIMIT);
    peer.wait_for_text("cannot be written", LIMIT);
    let mut command = Command::new(BINARY);
    command
        .args(["ctl", "--json", "status", "-o"])
        .arg(&set.folder);
    let output = command
        .env("XDG_STATE_HOME", &common)
        .output()
        .expect("it runs");
    let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let state_dir = PathBuf::from(status["state_dir"].as_str().expect("a text"));
    assert!(
        state_dir.starts_with(common.join("evpeer")),
        "{}",
        state_dir.display()
    );
    assert!(state_dir.join("lock").is_file());
    peer.leave();
    assert!(state_dir.join("session").is_file());

    // The output folder can be written again: the session is not there, and that is said.
    fs::remove_file(set.folder.join(".evpeer")).expect("writable");
    let mut command = again(&set.folder, &[]);
    let (code, said) = fails(command.env("XDG_STATE_HOME", &common));
    assert_eq!(code, Some(2), "{said}");
    let place = state_dir.display().to_string();
    assert!(
        said.contains("is elsewhere") && said.contains(&place),
        "{said}"
    );
    let again = start_again(&set.folder, &["--state-dir", &place]);
    again.wait_for_state("seeding", LIMIT);
    again.leave();
}

#[test]
fn neither_torrent_nor_session_is_unusable_and_leaves_nothing() {
    let scratch = scratch();
    let (code, said) = fails(&mut again(scratch.path(), &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing to run"), "{said}");
    assert_eq!(names_below(scratch.path()), Vec::<PathBuf>::new());
}
