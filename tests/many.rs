//! Many torrents in each peer, and torrents that come while it runs.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup, ctl};
use support::{folder, scratch, torrent, wait_for};

const LIMIT: Duration = Duration::from_secs(120);
const TORRENTS: usize = 50;
const PEERS: usize = 10;

/// Goal: many swarms share one port, one network and one loop, and none of them starves.
/// Method: each of ten peers has everything of five of fifty torrents, nothing of the others, and
/// knows one peer.
#[test]
fn fifty_torrents_of_ten_peers_complete() {
    let scratch = scratch();
    let torrents = folder(scratch.path(), "torrents");
    let data = folder(&torrents, "data");
    let sets: Vec<DataSet> = (0..TORRENTS)
        .map(|n| {
            let len = 200_000 + 10_000 * n as u64;
            DataSet::file(&data, &format!("file-{n}"), len, n as u64)
        })
        .collect();
    for set in &sets {
        torrent::create(set, None);
    }
    let mut first: Vec<SocketAddr> = Vec::new();
    let peers: Vec<_> = (0..PEERS)
        .map(|k| {
            let home = folder(scratch.path(), &format!("peer-{k}"));
            for set in sets.iter().skip(k).step_by(PEERS) {
                set.copy_to(&home);
            }
            let mut setup = Setup::new(&torrents, &home);
            setup.peers = &first;
            let peer = Evpeer::start(&format!("peer-{k}"), &setup);
            if first.is_empty() {
                first.push(peer.address);
            }
            (home, peer)
        })
        .collect();
    for (home, peer) in peers {
        wait_for("it has everything", LIMIT, || {
            seeded(&peer).len() == TORRENTS
        });
        peer.leave();
        for set in &sets {
            set.assert_same_in(&home, Tolerance::NONE);
        }
    }
}

/// Goal: with `--max-active` no more torrents download at a time than that, in the order in which
/// they were named, all get their turn, and a restart goes on in the same way.
#[test]
fn as_many_torrents_download_as_may_at_a_time() {
    const AT_A_TIME: usize = 2;
    let scratch = scratch();
    let torrents = folder(scratch.path(), "torrents");
    let data = folder(&torrents, "data");
    let sets: Vec<DataSet> = (0..6)
        .map(|n| DataSet::file(&data, &format!("file-{n}"), 600_000, n))
        .collect();
    for set in &sets {
        torrent::create(set, None);
    }
    let home = folder(scratch.path(), "home");
    let max_active = AT_A_TIME.to_string();
    let args = ["--max-active", &max_active];
    let mut setup = Setup::new(&torrents, &home);
    setup.args = &args;
    let leecher = Evpeer::start("leecher", &setup);
    wait_for("two have their turn", LIMIT, || {
        let states = states(&leecher);
        let are = |state: &str| states.values().filter(|s| *s == state).count();
        are("downloading") == AT_A_TIME && are("queued") == sets.len() - AT_A_TIME
    });
    let why = ctl(&home, &["why", "file-5"]).out;
    assert!(why.contains("turn") && why.contains("resume"), "{why}");
    leecher.leave();

    setup.args = &[]; // it is remembered
    let seed = Evpeer::start("seed", &Setup::new(&torrents, &data));
    wait_for("it seeds all", LIMIT, || seeded(&seed).len() == sets.len());
    let peers = [seed.address];
    setup.peers = &peers;
    let leecher = Evpeer::start("again", &setup);
    wait_for("everything", LIMIT, || seeded(&leecher).len() == sets.len());
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    let mut most = 0;
    for event in leecher.events().iter().filter(|e| e["event"] == "state") {
        let field = |name: &str| event[name].as_str().expect("text").to_owned();
        states.insert(field("torrent"), field("state"));
        most = most.max(states.values().filter(|s| *s == "downloading").count());
    }
    assert_eq!(most, AT_A_TIME);
    leecher.leave();
    seed.leave();
    for set in &sets {
        set.assert_same_in(&home, Tolerance::NONE);
    }
}

/// Goal: a torrent whose peers have taken all connections does not keep the peers of another one
/// out.
/// Method: a seed that takes three peers and is slow; four leechers of a long torrent, then one of
/// a short one.
#[test]
fn busy_torrent_does_not_take_all_connections_for_ever() {
    let scratch = scratch();
    let data = folder(scratch.path(), "data");
    let long = DataSet::file(&data, "long", 64 << 20, 1);
    let short = DataSet::file(&data, "short", 500_000, 2);
    let torrents = folder(scratch.path(), "torrents");
    let torrents: Vec<_> = [&long, &short]
        .map(|set| {
            let made = torrent::create(set, None);
            let path = torrents.join(made.file_name().expect("a file"));
            fs::copy(made, &path).expect("ours");
            path
        })
        .into();
    let mut setup = Setup::new(torrents[0].parent().expect("it has one"), &data);
    setup.args = &["--max-peers", "3", "--up-limit", "256KiB"];
    let seed = Evpeer::start("seed", &setup);
    wait_for("it seeds both", LIMIT, || seeded(&seed).len() == 2);
    let known = [seed.address];
    let start = |name: &str, torrent: &std::path::Path| {
        let home = folder(scratch.path(), name);
        let mut setup = Setup::new(torrent, &home);
        setup.peers = &known;
        (Evpeer::start(name, &setup), home)
    };
    let busy: Vec<_> = (0..4)
        .map(|n| start(&format!("busy-{n}"), &torrents[0]))
        .collect();
    wait_for("all places are taken", LIMIT, || {
        let status = ctl(&data, &["status", "--json"]).object();
        let torrents = status["torrents"].as_array().cloned().unwrap_or_default();
        torrents.iter().any(|torrent| torrent["peers"] == 3)
    });
    let (late, home) = start("late", &torrents[1]);
    late.wait_for_event("complete", LIMIT);
    for (peer, _) in &busy {
        assert!(seeded(peer).is_empty(), "they are at it");
    }
    late.leave();
    let came = fs::read(home.join("short")).expect("it is there");
    assert!(came == short.bytes(), "it is not what it should be");
    busy.into_iter().for_each(|(peer, _)| peer.leave());
    seed.leave();
}

/// The state of each torrent, as told last.
fn states(peer: &Evpeer) -> BTreeMap<String, String> {
    let events = peer.events();
    let told = events.iter().filter(|event| event["event"] == "state");
    let field = |event: &Value, name: &str| event[name].as_str().expect("text").to_owned();
    told.map(|event| (field(event, "torrent"), field(event, "state")))
        .collect()
}

/// Goal: what appears in a watched folder is taken up, also by a peer that had nothing to do; what
/// is half-written, no torrent, or there already harms nothing.
#[test]
fn torrents_that_appear_in_a_watched_folder_are_taken_up() {
    let scratch = scratch();
    let data = folder(&folder(scratch.path(), "made"), "data");
    let [first, second] = ["first", "second"].map(|name| DataSet::file(&data, name, 300_000, 7));
    let torrents = [&first, &second].map(|set| torrent::create(set, None));
    let seed = Evpeer::start("seed", &Setup::new(data.parent().expect("made"), &data));
    wait_for("it seeds both", LIMIT, || seeded(&seed).len() == 2);

    let watched = folder(scratch.path(), "watched");
    let home = folder(scratch.path(), "home");
    let address = [seed.address];
    let mut setup = Setup::new(&watched, &home);
    setup.peers = &address;
    let leecher = Evpeer::start_command("leecher", &mut watching(&setup), setup.ip);
    let whole = fs::read(&torrents[0]).expect("a torrent");
    fs::write(watched.join("1.torrent"), &whole[..whole.len() / 2]).expect("ours");
    leecher.wait_for_text("1.torrent", LIMIT);
    assert!(seeded(&leecher).is_empty());
    fs::write(watched.join("1.torrent"), &whole).expect("ours");
    fs::write(watched.join("again.torrent"), &whole).expect("ours");
    wait_for("the first", LIMIT, || seeded(&leecher).len() == 1);
    fs::rename(&torrents[1], watched.join("2.torrent")).expect("ours");
    wait_for("the second", LIMIT, || seeded(&leecher).len() == 2);
    let status = ctl(&home, &["status", "--json"]).object();
    assert_eq!(status["torrents"].as_array().map(Vec::len), Some(2));
    leecher.leave();
    for set in [&first, &second] {
        set.assert_same_in(&home, Tolerance::NONE);
    }

    // After a restart the session has them, and the watched folder says nothing new.
    let again = Evpeer::start_command("again", &mut watching(&setup), setup.ip);
    wait_for("both again", LIMIT, || seeded(&again).len() == 2);
    again.leave();
    seed.leave();
}

/// The command line of `setup`, whose source is watched.
fn watching(setup: &Setup<'_>) -> std::process::Command {
    let mut command = std::process::Command::new(support::evpeer::BINARY);
    let args = setup.command();
    let args = args.get_args().map(|arg| match arg.to_str() {
        Some("-t") => "--watch".as_ref(),
        _ => arg,
    });
    command.args(args);
    command
}

/// The torrents of which a peer has everything.
fn seeded(peer: &Evpeer) -> BTreeSet<String> {
    let events = peer.events();
    let seeding = events.iter().filter(|event| event["state"] == "seeding");
    seeding
        .filter_map(|event| Some(event["torrent"].as_str()?.to_owned()))
        .collect()
}
