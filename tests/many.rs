//! Many torrents in each peer, and torrents that come while it runs.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
    let start = |name: &str, torrent: &Path| {
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

/// Goal: the torrents of a peer get equal parts of what its down limit lets through, however many
/// peers each has.
/// Method: three seeds have one of four torrents, and one of them has the others too.
#[test]
fn torrents_of_a_leecher_share_its_down_limit() {
    let share = Share::new();
    let (torrents, sets) = (share.torrents.as_path(), &share.sets);
    let seed = |name: &str, torrent: &Path| {
        let home = folder(share.scratch.path(), name);
        sets.iter().for_each(|set| set.copy_to(&home));
        Evpeer::start(name, &Setup::new(torrent, &home))
    };
    let seeds = [
        seed("seed", torrents),
        seed("second", &share.first()),
        seed("third", &share.first()),
    ];
    for (seed, count) in seeds.iter().zip([FEW, 1, 1]) {
        wait_for("it seeds", LIMIT, || seeded(seed).len() == count);
    }
    let home = folder(share.scratch.path(), "leecher");
    let known = seeds.each_ref().map(|seed| seed.address);
    let limit = SHARED_RATE.to_string();
    let args = ["--down-limit", &limit];
    let mut setup = Setup::new(torrents, &home);
    (setup.peers, setup.args) = (&known, &args);
    let leecher = Evpeer::start("leecher", &setup);
    share.assert_shared(&home, "down_bytes");
    wait_for("it has everything", LIMIT, || seeded(&leecher).len() == FEW);
    leecher.leave();
    seeds.into_iter().for_each(Evpeer::leave);
    let is_same = |set: &DataSet| set.assert_same_in(&home, Tolerance::NONE);
    sets.iter().for_each(is_same);
}

/// Goal: the torrents of a peer get equal parts of what its up limit lets through, however many
/// peers each has.
/// Method: three leechers want one of four torrents, and one each of the others.
#[test]
fn torrents_of_a_seed_share_its_up_limit() {
    let share = Share::new();
    let home = folder(share.scratch.path(), "seed");
    share.sets.iter().for_each(|set| set.copy_to(&home));
    let limit = SHARED_RATE.to_string();
    let args = ["--up-limit", &limit];
    let mut setup = Setup::new(&share.torrents, &home);
    setup.args = &args;
    let seed = Evpeer::start("seed", &setup);
    wait_for("it seeds all", LIMIT, || seeded(&seed).len() == FEW);
    let known = [seed.address];
    let leechers: Vec<Evpeer> = (0..FEW + 2)
        .map(|n| {
            let name = format!("leecher-{n}");
            let home = folder(share.scratch.path(), &name);
            let torrent = share.torrents.join(format!("file-{}.torrent", n % FEW));
            let torrent = if n < FEW { torrent } else { share.first() };
            let mut setup = Setup::new(&torrent, &home);
            setup.peers = &known;
            Evpeer::start(&name, &setup)
        })
        .collect();
    share.assert_shared(&home, "up_bytes");
    for leecher in leechers {
        wait_for("it has it", LIMIT, || seeded(&leecher).len() == 1);
        leecher.leave();
    }
    seed.leave();
}

/// Torrents of one size that are moved under one limit.
struct Share {
    scratch: tempfile::TempDir,
    /// A folder of all their `.torrent` files.
    torrents: PathBuf,
    sets: Vec<DataSet>,
}

impl Share {
    fn new() -> Self {
        let scratch = scratch();
        let made = folder(scratch.path(), "made");
        let sets: Vec<DataSet> = (0..FEW)
            .map(|n| {
                let data = folder(&made, "data");
                DataSet::file(&data, &format!("file-{n}"), SHARED_LEN, n as u64)
            })
            .collect();
        let torrents = folder(scratch.path(), "torrents");
        for set in &sets {
            let path = torrent::create(set, None);
            let name = path.file_name().expect("a file");
            fs::rename(&path, torrents.join(name)).expect("ours");
        }
        Self {
            scratch,
            torrents,
            sets,
        }
    }

    /// The torrent that has more peers than the others.
    fn first(&self) -> PathBuf {
        self.torrents.join("file-0.torrent")
    }

    /// Between an eighth and three quarters of all bytes, or until one torrent is as good as done,
    /// none gets less than half of an equal part. `home` is that of the peer with the limit.
    fn assert_shared(&self, home: &Path, counter: &str) {
        let moved = || -> BTreeMap<String, u64> {
            let status = ctl(home, &["status", "--json"]).object();
            let torrents = status["torrents"].as_array().cloned().unwrap_or_default();
            let figure = |torrent: &Value| {
                let name = torrent["torrent"].as_str().expect("text").to_owned();
                (name, torrent[counter].as_u64().expect("a figure"))
            };
            torrents.iter().map(figure).collect()
        };
        let sum = |moved: &BTreeMap<String, u64>| moved.values().sum::<u64>();
        let all = SHARED_LEN * FEW as u64;
        let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
        wait_for("the middle of it is over", LIMIT, || {
            last = moved();
            if first.is_empty() && sum(&last) >= all / 8 {
                first = last.clone();
            }
            let is_done = last.values().any(|&bytes| bytes >= SHARED_LEN / 16 * 15);
            is_done || sum(&last) >= all / 4 * 3
        });
        let equal = (sum(&last) - sum(&first)) / FEW as u64;
        let parts: Vec<u64> = last
            .iter()
            .map(|(name, bytes)| bytes - first[name])
            .collect();
        println!("{counter}: {parts:?}, an equal part is {equal}");
        assert_eq!(parts.len(), FEW);
        assert!(equal > SHARED_LEN / 8, "{equal}: too short a time to tell");
        assert!(parts.iter().all(|&part| part >= equal / 2), "{parts:?}");
    }
}

/// Torrents that share a limit, the bytes of each, and the bytes a second of all.
const FEW: usize = 4;
const SHARED_LEN: u64 = 8 << 20;
const SHARED_RATE: u64 = 4 << 20;

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
