//! When a peer has done enough: goals of seeding, the end of a swarm, and what trackers hear.

mod support;

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use support::data::{DataSet, Tolerance};
use support::evpeer::{BINARY, Evpeer, Setup, ctl};
use support::tracker::Tracker;
use support::{folder, scratch, torrent, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

fn events_at(tracker: &Tracker, event: &str) -> usize {
    let announces = tracker.announces();
    announces.iter().filter(|a| a.event == event).count()
}

/// A torrent with a tracker, and a seed of it.
fn tracked(scratch: &Path) -> (DataSet, Tracker, PathBuf, Evpeer) {
    let set = DataSet::file(&folder(scratch, "data"), "content", 4 * MIB, 3);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = torrent::create(&set, Some(&tracker.url()));
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    (set, tracker, torrent, seed)
}

/// What is written down of the torrent.
fn remembered(home: &Path) -> Value {
    let text = fs::read_to_string(home.join(".evpeer/session")).unwrap_or_default();
    let (_, body) = text.split_once('\n').unwrap_or_default();
    let session: Value = serde_json::from_str(body).unwrap_or_default();
    session["torrents"][0].clone()
}

fn state_in(home: &Path) -> String {
    let status = ctl(home, &["status", "--json"]).object();
    status["torrents"][0]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Goal: a seed stops when its time is over and its tracker hears of it; who resumes it has it
/// seeding, in the next run too.
#[test]
fn seed_stops_when_its_time_is_over_until_it_is_resumed() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", MIB, 3);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = torrent::create(&set, Some(&tracker.url()));
    let mut setup = Setup::new(&torrent, &set.folder);
    setup.args = &["--seed-time", "1s"];
    let seed = Evpeer::start("seed", &setup);
    seed.wait_for_state("paused", LIMIT);
    wait_for("the tracker hears of it", LIMIT, || {
        events_at(&tracker, "stopped") == 1
    });
    let status = ctl(&set.folder, &["status"]);
    assert!(
        status.out.contains("it was seeded for 1 s, its seed time"),
        "{}",
        status.out
    );
    assert_eq!(ctl(&set.folder, &["resume", "content"]).code, Some(0));
    let resumed = Instant::now();
    wait_for("more than its time", LIMIT, || {
        resumed.elapsed() > Duration::from_secs(3)
    });
    assert_eq!(state_in(&set.folder), "seeding");
    seed.leave();

    let mut command = std::process::Command::new(BINARY);
    command.args(["--json", "-o"]).arg(&set.folder);
    let again = Evpeer::start_command("again", &mut command, Ipv4Addr::LOCALHOST.into());
    again.wait_for_event("durable", LIMIT);
    assert_eq!(state_in(&set.folder), "seeding");
    again.leave();
    assert_eq!(
        events_at(&tracker, "completed"),
        0,
        "it was complete from the start"
    );
}

/// Goal: a seed stops when it has sent as much as its user wants, and no sooner.
#[test]
fn seed_stops_when_its_ratio_is_reached() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 4 * MIB, 3);
    let torrent = torrent::create(&set, None);
    let mut setup = Setup::new(&torrent, &set.folder);
    setup.args = &["--seed-ratio", "2"];
    let seed = Evpeer::start("seed", &setup);
    seed.wait_for_event("durable", LIMIT);
    let known = [seed.address];
    for (name, state) in [("first", "seeding"), ("second", "paused")] {
        let home = folder(scratch.path(), name);
        let mut setup = Setup::new(&torrent, &home);
        setup.peers = &known;
        let leecher = Evpeer::start(name, &setup);
        leecher.wait_for_event("complete", LIMIT);
        wait_for(state, LIMIT, || state_in(&set.folder) == state);
        leecher.leave();
        set.assert_same_in(&home, Tolerance::default());
    }
    assert!(
        ctl(&set.folder, &["status"])
            .out
            .contains("it has sent 2.000 times its size")
    );
    seed.leave();
}

/// Goal: a peer that leaves with its swarm waits for others to come, and for the last of them.
/// Method: a seed alone; then a quick leecher, and a slow one that is let go later.
#[test]
fn peer_leaves_when_all_whom_it_knows_have_everything() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 8 * MIB, 3);
    let torrent = torrent::create(&set, None);
    let start = |name: &str, folder: &Path, known: &[SocketAddr], args: &[&str]| {
        let mut setup = Setup::new(&torrent, folder);
        let args = [args, &["--until-swarm-complete"]].concat();
        (setup.peers, setup.args) = (known, &args);
        Evpeer::start(name, &setup)
    };
    let mut seed = start("seed", &set.folder, &[], &[]);
    seed.wait_for_event("durable", LIMIT);
    let alone = Instant::now();
    wait_for("time passes", LIMIT, || alone.elapsed() > ENOUGH);
    assert!(seed.process.is_running(), "nobody was there yet");

    let [slow_home, quick_home] = ["slow", "quick"].map(|name| folder(scratch.path(), name));
    let known = [seed.address];
    let mut slow = start("slow", &slow_home, &known, &["--down-limit", "64KiB"]);
    wait_for("something has come", LIMIT, || {
        slow.counter("down_bytes") > 0
    });
    let mut quick = start("quick", &quick_home, &known, &[]);
    quick.wait_for_event("durable", LIMIT);
    let waiting = Instant::now();
    wait_for("time passes", LIMIT, || waiting.elapsed() > ENOUGH);
    for peer in [&mut seed, &mut slow, &mut quick] {
        assert!(peer.process.is_running(), "one has not everything");
    }
    assert_eq!(ctl(&slow_home, &["limit", "--down", "0"]).code, Some(0));
    slow.wait_for_event("durable", LIMIT);
    for mut peer in [seed, slow, quick] {
        assert_eq!(peer.wait_for_exit(LIMIT), Some(0));
    }
    for home in [slow_home, quick_home] {
        set.assert_same_in(&home, Tolerance::default());
    }
}

/// Goal: a peer that leaves with its swarm does not wait for one that wants no more than it has,
/// also when it hears of that one from others alone.
/// Method: a seed, a leecher of some files, another seed that meets it, and a leecher that does
/// not.
#[test]
fn nobody_waits_for_a_peer_that_wants_some_of_the_files_only() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "content", 4 * MIB, 3);
    let torrent = torrent::create(&set, None);
    let start = |name: &str, home: &Path, known: &[SocketAddr], args: &[&str]| {
        let mut setup = Setup::new(&torrent, home);
        (setup.peers, setup.args) = (known, args);
        Evpeer::start(name, &setup)
    };
    let leaving = ["--until-swarm-complete"];
    let first = start("first", &set.folder, &[], &[]);
    first.wait_for_event("durable", LIMIT);
    let home = folder(scratch.path(), "partial");
    let partial = start(
        "partial",
        &home,
        &[first.address],
        &["--only", "part-00*.bin"],
    );
    partial.wait_for_event("durable", LIMIT);
    first.leave();

    let again = folder(scratch.path(), "again");
    set.copy_to(&again);
    let mut seed = start("seed", &again, &[partial.address], &leaving);
    let home = folder(scratch.path(), "late");
    let mut late = start("late", &home, &[seed.address], &leaving);
    late.wait_for_event("durable", LIMIT);
    for peer in [&mut seed, &mut late] {
        assert_eq!(peer.wait_for_exit(LIMIT), Some(0));
    }
    partial.leave();
}

/// Goal: who was there at the end of a swarm says how long it took and how many copies it sent,
/// once; who was not needed says nothing.
#[test]
fn end_of_a_swarm_is_told_with_its_time_and_the_copies_sent() {
    const LEECHERS: usize = 3;
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 4 * MIB, 5);
    let torrent = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let known = [seed.address];
    let leechers: Vec<Evpeer> = (0..LEECHERS)
        .map(|n| {
            let home = folder(scratch.path(), &format!("home-{n}"));
            let mut setup = Setup::new(&torrent, &home);
            setup.peers = &known;
            Evpeer::start(&format!("leecher-{n}"), &setup)
        })
        .collect();
    let told = seed.wait_for_event("spread", LIMIT);
    assert_eq!(told["known_peers"], LEECHERS);
    let number = |key: &str| told[key].as_f64().expect("a number");
    let copies = number("up_bytes") / number("length");
    assert!((number("copies_sent") - copies).abs() < 0.01, "{told}");
    assert!((1.0..=LEECHERS as f64).contains(&copies), "{told}");
    assert!(number("last_s") > 0.0, "{told}");
    let mut sum = copies;
    for leecher in &leechers {
        let told = leecher.wait_for_event("spread", LIMIT);
        assert_eq!(told["known_peers"], LEECHERS);
        sum += told["copies_sent"].as_f64().expect("a number");
    }
    // Some blocks come twice, as everybody asks for the last ones.
    assert!((2.99..3.5).contains(&sum), "{sum} copies in all");

    // Another seed changes nothing.
    let again = folder(scratch.path(), "again");
    set.copy_to(&again);
    let mut setup = Setup::new(&torrent, &again);
    setup.peers = &known;
    let late = Evpeer::start("late", &setup);
    late.wait_for_state("seeding", LIMIT);
    wait_for("they meet", LIMIT, || late.has_event("peer"));
    late.leave();
    for peer in leechers.into_iter().chain([seed]) {
        let events = peer.events();
        let told = events.iter().filter(|event| event["event"] == "spread");
        assert_eq!(told.count(), 1);
        peer.leave();
    }
}

/// Longer than a peer waits before it leaves with its swarm.
const ENOUGH: Duration = Duration::from_secs(4);

/// Goal: a tracker hears of the end of a download once, whatever becomes of the data later.
/// Method: a download; a restart; damage that is fetched again, twice; another restart.
#[test]
fn tracker_hears_of_the_end_of_a_download_once() {
    let scratch = scratch();
    let (_, tracker, torrent, seed) = tracked(scratch.path());
    let home = folder(scratch.path(), "home");
    let known = [seed.address];
    let mut setup = Setup::new(&torrent, &home);
    setup.peers = &known;
    for round in 0..3 {
        let peer = Evpeer::start("peer", &setup);
        peer.wait_for_event("durable", LIMIT);
        if round > 0 {
            assert!(peer.has_event("complete"), "it was fetched again");
        }
        wait_for("the tracker hears", LIMIT, || {
            events_at(&tracker, "completed") == 1 && events_at(&tracker, "started") == round + 2
        });
        peer.leave();
        let file = File::options().write(true).open(home.join("content"));
        file.and_then(|file| file.set_len(3 * MIB))
            .expect("it can be cut");
    }
    assert_eq!(events_at(&tracker, "completed"), 1);
    seed.leave();
}

/// Goal: a tracker hears of the end of a download once, also if the process was killed before it
/// had written down that there was nothing left to fetch.
/// Method: a kill in the middle of a slow download; the rest comes as if it had come before.
#[test]
fn tracker_hears_of_the_end_that_a_kill_kept_from_being_written_down() {
    let scratch = scratch();
    let (set, tracker, torrent, seed) = tracked(scratch.path());
    let home = folder(scratch.path(), "home");
    let known = [seed.address];
    let mut setup = Setup::new(&torrent, &home);
    (setup.peers, setup.args) = (&known, &["--down-limit", "16KiB"]);
    let mut leecher = Evpeer::start("leecher", &setup);
    wait_for("what the tracker knows is written down", LIMIT, || {
        remembered(&home)["listed"] == json!([tracker.url()])
    });
    leecher.process.signal(Signal::KILL);
    leecher.process.wait(LIMIT);
    assert_eq!(events_at(&tracker, "completed"), 0);
    seed.leave();

    set.copy_to(&home);
    for _ in 0..2 {
        let peer = Evpeer::start("peer", &Setup::new(&torrent, &home));
        peer.wait_for_event("durable", LIMIT);
        wait_for("the tracker hears of the end", LIMIT, || {
            events_at(&tracker, "completed") == 1
        });
        wait_for("it is written down", LIMIT, || {
            let torrent = remembered(&home);
            torrent["untold"] == json!([]) && torrent["was_complete"] == true
        });
        peer.leave();
    }
    assert_eq!(events_at(&tracker, "completed"), 1);
}
