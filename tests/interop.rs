//! Real clients: every one downloads from evpeer and evpeer from every one, byte for byte.
//!
//! Each test has a sandbox of its own (`support/sandbox.rs`) with a tracker and an address for
//! every client. A client that this machine lacks is named and its tests are skipped;
//! `EVPEER_REQUIRE_CLIENTS=1` makes that a failure.

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::clients::{Client, Kind, Roads, Task};
use support::data::DataSet;
use support::evpeer::{Evpeer, Setup};
use support::sandbox::{self, Lan};
use support::tracker::Tracker;
use support::{folder, free_port, scratch, torrent};

#[test]
fn transmission_downloads_from_evpeer() {
    sandbox::inside("transmission_downloads_from_evpeer", |lan| {
        transfers(lan, Kind::Evpeer, &[Kind::Transmission]);
    });
}

#[test]
fn evpeer_downloads_from_transmission() {
    sandbox::inside("evpeer_downloads_from_transmission", |lan| {
        transfers(lan, Kind::Transmission, &[Kind::Evpeer]);
    });
}

#[test]
fn aria2_downloads_from_evpeer() {
    sandbox::inside("aria2_downloads_from_evpeer", |lan| {
        transfers(lan, Kind::Evpeer, &[Kind::Aria2]);
    });
}

#[test]
fn evpeer_downloads_from_aria2() {
    sandbox::inside("evpeer_downloads_from_aria2", |lan| {
        transfers(lan, Kind::Aria2, &[Kind::Evpeer]);
    });
}

#[test]
fn libtorrent_downloads_from_evpeer() {
    sandbox::inside("libtorrent_downloads_from_evpeer", |lan| {
        transfers(lan, Kind::Evpeer, &[Kind::Libtorrent]);
    });
}

#[test]
fn evpeer_downloads_from_libtorrent() {
    sandbox::inside("evpeer_downloads_from_libtorrent", |lan| {
        transfers(lan, Kind::Libtorrent, &[Kind::Evpeer]);
    });
}

#[test]
fn mixed_swarm_of_all_clients_and_three_evpeers_completes() {
    sandbox::inside(
        "mixed_swarm_of_all_clients_and_three_evpeers_completes",
        |lan| {
            let others = [Kind::Transmission, Kind::Aria2, Kind::Libtorrent];
            let mut leechers = vec![Kind::Evpeer, Kind::Evpeer];
            leechers.extend(
                others
                    .into_iter()
                    .filter(|kind| kind.is_here(lan.is_isolated)),
            );
            transfers(lan, Kind::Evpeer, &leechers);
        },
    );
}

/// Goal: several torrents at once in two evpeers, each with other clients in its swarm, and one
/// client that is killed on the way and replaced by another on what it had: all complete.
#[test]
fn several_torrents_complete_with_all_clients_and_one_that_is_replaced() {
    let name = "several_torrents_complete_with_all_clients_and_one_that_is_replaced";
    sandbox::inside(name, |lan| {
        let others = [Kind::Transmission, Kind::Aria2, Kind::Libtorrent];
        if others.iter().all(|kind| kind.is_here(lan.is_isolated)) {
            several_torrents(lan);
        }
    });
}

fn several_torrents(lan: Lan) {
    let scratch = scratch();
    let torrents = folder(scratch.path(), "torrents");
    let data = folder(&torrents, "data");
    let trackers = [(); 3].map(|()| Tracker::start(lan.host(1)));
    let sets: Vec<DataSet> = (0..3)
        .map(|n| DataSet::file(&data, &format!("set-{n}"), SET_LEN / 4, n))
        .collect();
    let swarms: Vec<Swarm> = sets
        .iter()
        .zip(trackers)
        .map(|(set, tracker)| Swarm {
            lan,
            scratch: scratch.path(),
            torrent: torrent::create(set, Some(&tracker.url())),
            tracker,
        })
        .collect();
    let evpeer = |name: &str, home: &Path, host: u8, args: &[&str]| {
        let mut setup = Setup::new(&torrents, home);
        let ip: Ipv4Addr = lan.host(host);
        (setup.ip, setup.port, setup.args) = (ip.into(), free_port(ip), args);
        for swarm in &swarms {
            swarm.tracker.place(SocketAddrV4::new(ip, setup.port));
        }
        Evpeer::start(name, &setup)
    };
    // So slow that a client can be caught on its way.
    let seed = evpeer("seed", &data, 2, &["--up-limit", "4MiB"]);
    support::wait_for("the seed has all", LIMIT, || seeded(&seed) == 3);
    let home = folder(scratch.path(), "evpeer");
    let leecher = evpeer("leecher", &home, 3, &[]);
    let start = |swarm: usize, kind: Kind, host: u8| {
        let place = folder(scratch.path(), &format!("place-{host}"));
        (swarms[swarm].start(kind, &place, host), place)
    };
    let (mut doomed, its_place) = start(0, Kind::Aria2, 4);
    let mut running = vec![
        (0, start(0, Kind::Transmission, 5)),
        (1, start(1, Kind::Aria2, 6)),
        (1, start(1, Kind::Libtorrent, 7)),
        (2, start(2, Kind::Libtorrent, 8)),
        (2, start(2, Kind::Transmission, 9)),
    ];
    support::wait_for("it has something", LIMIT, || {
        std::fs::metadata(its_place.join("set-0")).is_ok_and(|found| found.len() > 0)
    });
    let was_early = !doomed.is_complete();
    doomed.process().signal(Signal::KILL);
    doomed.process().wait(LIMIT);
    drop(doomed);
    assert!(was_early, "it was complete before it was killed");
    running.push((
        0,
        (swarms[0].start(Kind::Libtorrent, &its_place, 10), its_place),
    ));

    for (set, (client, place)) in &mut running {
        client.wait_until_complete(LIMIT);
        let name = format!("set-{set}");
        let [original, copy] = [&data, &*place].map(|at| std::fs::read(at.join(&name)).ok());
        assert!(original == copy, "{name} of {:?}", client.kind());
    }
    support::wait_for("evpeer has all", LIMIT, || seeded(&leecher) == 3);
    leecher.leave();
    seed.leave();
    for set in &sets {
        set.assert_same_in(&home, Kind::Evpeer.tolerance());
    }
}

/// Torrents of which an evpeer has everything.
fn seeded(peer: &Evpeer) -> usize {
    let events = peer.events();
    let seeding = events.iter().filter(|event| event["state"] == "seeding");
    let names: BTreeSet<&str> = seeding
        .filter_map(|event| event["torrent"].as_str())
        .collect();
    names.len()
}

/// The control: if this fails, the fault is in the harness or the machine, not in evpeer.
#[test]
fn other_clients_download_from_each_other() {
    sandbox::inside("other_clients_download_from_each_other", |lan| {
        transfers(lan, Kind::Libtorrent, &[Kind::Aria2, Kind::Transmission]);
        transfers(lan, Kind::Transmission, &[Kind::Libtorrent, Kind::Aria2]);
    });
}

/// `seed` has everything, all `leechers` get it and each other through a tracker.
fn transfers(lan: Lan, seed: Kind, leechers: &[Kind]) {
    let kinds = [&[seed], leechers].concat();
    if !kinds.iter().all(|kind| kind.is_here(lan.is_isolated)) {
        return;
    }
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "interop set", SET_LEN, 7);
    let tracker = Tracker::start(lan.host(1));
    let torrent = if kinds.contains(&Kind::Evpeer) {
        torrent::create(&set, Some(&tracker.url()))
    } else {
        torrent::HandMade::of(&set, PIECE_LEN, Some(&tracker.url())).path
    };
    let swarm = Swarm {
        lan,
        scratch: scratch.path(),
        torrent,
        tracker,
    };

    let source = folder(scratch.path(), "source");
    set.copy_to(&source);
    let mut seed = swarm.start(seed, &source, 2);
    seed.wait_until_complete(LIMIT);
    let folders: Vec<PathBuf> = (0..leechers.len())
        .map(|i| folder(scratch.path(), &format!("leecher-{i}")))
        .collect();
    let mut running: Vec<Client> = Vec::new();
    for (i, kind) in leechers.iter().enumerate() {
        running.push(swarm.start(*kind, &folders[i], 3 + i as u8));
    }
    for client in &mut running {
        client.wait_until_complete(LIMIT);
    }
    for (client, folder) in running.iter().zip(&folders) {
        set.assert_same_in(folder, client.kind().tolerance());
    }
    set.assert_same_in(&source, seed.kind().tolerance());
    for client in running.iter_mut().chain([&mut seed]) {
        if client.kind() == Kind::Evpeer {
            let code = client.process().terminate(LIMIT);
            assert_eq!(code, Some(0), "evpeer leaves with 0 after SIGTERM");
        }
    }
}

struct Swarm<'a> {
    lan: Lan,
    scratch: &'a Path,
    torrent: PathBuf,
    tracker: Tracker,
}

impl Swarm<'_> {
    /// Starts `kind` on host `n`, on data in `data_folder`.
    fn start(&self, kind: Kind, data_folder: &Path, n: u8) -> Client {
        let ip: Ipv4Addr = self.lan.host(n);
        let address = SocketAddrV4::new(ip, free_port(ip));
        self.tracker.place(address);
        let home = folder(self.scratch, &format!("home-{n}"));
        let (torrent, folder) = (self.torrent.as_path(), data_folder);
        Client::start(
            kind,
            &Task {
                torrent,
                folder,
                home: &home,
                address,
                roads: Roads {
                    pex: true,
                    ..Roads::default()
                },
            },
        )
    }
}

/// Bytes of the set that goes round: some seconds of the slowest client.
const SET_LEN: u64 = 32 * 1024 * 1024;
/// Bytes of a piece in torrents made without evpeer.
const PIECE_LEN: u32 = 256 * 1024;
/// Transmission alone takes 12 s before its first byte, and all share two cores.
const LIMIT: Duration = Duration::from_secs(240);
