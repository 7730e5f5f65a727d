//! Stock clients and evpeers that find each other through evpeers: by an evpeer's tracker, over
//! HTTP and UDP, by local discovery and by peer exchange.
//!
//! As in `tests/interop.rs`, each test has a sandbox of its own, a client that this machine lacks
//! is named and its tests are skipped, and `EVPEER_REQUIRE_CLIENTS=1` makes that a failure.

mod support;

use std::any::Any;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::clients::{Client, Kind, Roads, Task};
use support::data::DataSet;
use support::evpeer::{BINARY, Evpeer, Setup};
use support::process::Process;
use support::sandbox::{self, Lan};
use support::{folder, free_port, scratch, torrent, wait_for};

#[test]
fn stock_clients_find_each_other_through_a_pure_tracker_by_http() {
    sandbox::inside(
        "stock_clients_find_each_other_through_a_pure_tracker_by_http",
        |lan| through_a_pure_tracker(lan, "http", &STOCK),
    );
}

#[test]
fn stock_clients_find_each_other_through_a_pure_tracker_by_udp() {
    sandbox::inside(
        "stock_clients_find_each_other_through_a_pure_tracker_by_udp",
        |lan| through_a_pure_tracker(lan, "udp", &STOCK),
    );
}

#[test]
fn evpeers_find_each_other_through_a_pure_tracker_by_udp() {
    sandbox::inside(
        "evpeers_find_each_other_through_a_pure_tracker_by_udp",
        |lan| through_a_pure_tracker(lan, "udp", &[Kind::Evpeer, Kind::Evpeer, Kind::Evpeer]),
    );
}

#[test]
fn stock_clients_find_each_other_through_an_evpeer_of_the_swarm() {
    sandbox::inside(
        "stock_clients_find_each_other_through_an_evpeer_of_the_swarm",
        through_a_member,
    );
}

#[test]
fn evpeers_and_libtorrent_find_each_other_by_local_discovery() {
    sandbox::inside(
        "evpeers_and_libtorrent_find_each_other_by_local_discovery",
        |lan| by_local_discovery(lan, Kind::Libtorrent),
    );
}

#[test]
fn evpeers_and_transmission_find_each_other_by_local_discovery() {
    sandbox::inside(
        "evpeers_and_transmission_find_each_other_by_local_discovery",
        |lan| by_local_discovery(lan, Kind::Transmission),
    );
}

#[test]
fn libtorrent_learns_of_a_peer_from_an_evpeer_by_exchange() {
    sandbox::inside(
        "libtorrent_learns_of_a_peer_from_an_evpeer_by_exchange",
        |lan| by_exchange(lan, Kind::Evpeer, Kind::Libtorrent),
    );
}

#[test]
fn evpeer_learns_of_a_peer_from_libtorrent_by_exchange() {
    sandbox::inside(
        "evpeer_learns_of_a_peer_from_libtorrent_by_exchange",
        |lan| by_exchange(lan, Kind::Libtorrent, Kind::Evpeer),
    );
}

#[test]
fn transmission_learns_of_a_peer_from_an_evpeer_by_exchange() {
    sandbox::inside(
        "transmission_learns_of_a_peer_from_an_evpeer_by_exchange",
        |lan| by_exchange(lan, Kind::Evpeer, Kind::Transmission),
    );
}

#[test]
fn evpeer_learns_of_a_peer_from_transmission_by_exchange() {
    sandbox::inside(
        "evpeer_learns_of_a_peer_from_transmission_by_exchange",
        |lan| by_exchange(lan, Kind::Transmission, Kind::Evpeer),
    );
}

/// An evpeer that is no peer tracks; one client has everything, the others get it.
fn through_a_pure_tracker(lan: Lan, scheme: &str, kinds: &[Kind]) {
    if !all_here(lan, kinds) {
        return;
    }
    let scratch = scratch();
    let ip = lan.host(1);
    let port = free_port(ip);
    let mut command = Command::new(BINARY);
    command
        .args(["--json", "--open-tracker", "--no-lsd", "--bind"])
        .arg(ip.to_string())
        .args(["-p", &port.to_string(), "-o"])
        .arg(folder(scratch.path(), "tracker"));
    let tracker = Process::spawn("tracker", &mut command);
    tracker.wait_for_line("a `listening` event", LIMIT, |line| {
        line.contains("\"listening\"").then_some(())
    });
    let swarm = Swarm::new(
        lan,
        scratch.path(),
        &format!("{scheme}://{ip}:{port}/announce"),
    );
    let (seed, leechers) = kinds.split_first().expect("somebody has the data");
    let roads = Roads {
        udp: scheme == "udp",
        ..Roads::default()
    };
    let seed = swarm.seed(*seed, 2, roads);
    let leechers = swarm.leechers(leechers, 3, roads);
    swarm.finish(seed, leechers);
}

/// The tracker is the evpeer that has everything, or one that has nothing yet.
fn through_a_member(lan: Lan) {
    if !all_here(lan, &STOCK) {
        return;
    }
    for seed in [Kind::Evpeer, Kind::Aria2] {
        let scratch = scratch();
        let member = SocketAddrV4::new(lan.host(2), free_port(lan.host(2)));
        let swarm = Swarm::new(lan, scratch.path(), &format!("http://{member}/announce"));
        let mut first = swarm.client(Kind::Evpeer, member, seed == Kind::Evpeer, Roads::default());
        let mut others: Vec<Client> = Vec::new();
        for (n, kind) in (3..).zip(STOCK) {
            let address = SocketAddrV4::new(lan.host(n), free_port(lan.host(n)));
            others.push(swarm.client(kind, address, seed == kind, Roads::default()));
        }
        for client in others.iter_mut().chain([&mut first]) {
            client.wait_until_complete(LIMIT);
        }
    }
}

/// No tracker: evpeer serves the client, and another evpeer is served by both.
fn by_local_discovery(lan: Lan, kind: Kind) {
    if !lan.is_isolated || !all_here(lan, &[kind]) {
        return; // only in a sandbox nobody else hears
    }
    let roads = Roads {
        lsd: true,
        ..Roads::default()
    };
    for (seed, leechers) in [
        (Kind::Evpeer, [kind, Kind::Evpeer]),
        (kind, [Kind::Evpeer, Kind::Evpeer]),
    ] {
        let scratch = scratch();
        let swarm = Swarm::new(lan, scratch.path(), "");
        let seed = swarm.seed(seed, 2, roads);
        let leechers = swarm.leechers(&leechers, 3, roads);
        swarm.finish(seed, leechers);
    }
}

/// Nobody has any data. `pupil` and one evpeer know `teacher` alone, and meet through it.
fn by_exchange(lan: Lan, teacher: Kind, pupil: Kind) {
    if !all_here(lan, &[teacher, pupil]) {
        return;
    }
    let roads = Roads {
        pex: true,
        ..Roads::default()
    };
    let scratch = scratch();
    let swarm = Swarm::new(lan, scratch.path(), "");
    let address = |n| SocketAddrV4::new(lan.host(n), free_port(lan.host(n)));
    let (teacher_at, pupil_at) = (address(2), address(4));
    let evpeer = |name, at: SocketAddrV4, peers: &[SocketAddr]| {
        let folder = folder(scratch.path(), name);
        let mut setup = Setup::new(&swarm.torrent, &folder);
        setup.ip = (*at.ip()).into();
        setup.port = at.port();
        setup.peers = peers;
        Evpeer::start(name, &setup)
    };
    let other_at = address(3);
    let (other, _running): (Evpeer, Box<dyn Any>) = match teacher {
        Kind::Evpeer => {
            let pupil = swarm.client(pupil, pupil_at, false, roads);
            let other = evpeer("other", other_at, &[]);
            let teacher = evpeer("teacher", teacher_at, &[other_at.into(), pupil_at.into()]);
            (other, Box::new((pupil, teacher)))
        }
        _ => {
            let teacher = swarm.client(teacher, teacher_at, false, roads);
            let other = evpeer("other", other_at, &[teacher_at.into()]);
            let pupil = evpeer("pupil", pupil_at, &[teacher_at.into()]);
            (other, Box::new((teacher, pupil)))
        }
    };
    let ip = pupil_at.ip().to_string();
    wait_for("the two meet", EXCHANGE_LIMIT, || {
        other.events().iter().any(|event| {
            let remote = event["peer"].as_str().unwrap_or_default();
            event["change"] == "joined" && remote.starts_with(&format!("{ip}:"))
        })
    });
}

struct Swarm<'a> {
    lan: Lan,
    scratch: &'a Path,
    set: DataSet,
    torrent: PathBuf,
    source: PathBuf,
}

impl<'a> Swarm<'a> {
    /// A swarm whose torrent names `tracker`; none if that is empty.
    fn new(lan: Lan, scratch: &'a Path, tracker: &str) -> Self {
        let set = DataSet::tree(&folder(scratch, "data"), "discovery set", SET_LEN, 11);
        let tracker = (!tracker.is_empty()).then_some(tracker);
        let torrent = torrent::create(&set, tracker);
        let source = folder(scratch, "source");
        set.copy_to(&source);
        Self {
            lan,
            scratch,
            set,
            torrent,
            source,
        }
    }

    fn client(&self, kind: Kind, address: SocketAddrV4, has_all: bool, roads: Roads) -> Client {
        let name = format!("host-{}", address.ip());
        let empty = folder(self.scratch, &name);
        let home = folder(self.scratch, &format!("home-{}", address.ip()));
        let folder = if has_all { &self.source } else { &empty };
        Client::start(
            kind,
            &Task {
                torrent: &self.torrent,
                folder,
                home: &home,
                address,
                roads,
            },
        )
    }

    fn seed(&self, kind: Kind, n: u8, roads: Roads) -> Client {
        let ip = self.lan.host(n);
        let mut seed = self.client(kind, SocketAddrV4::new(ip, free_port(ip)), true, roads);
        seed.wait_until_complete(LIMIT);
        seed
    }

    fn leechers(&self, kinds: &[Kind], first: u8, roads: Roads) -> Vec<Client> {
        let start = |(n, kind): (u8, &Kind)| {
            let ip = self.lan.host(n);
            self.client(*kind, SocketAddrV4::new(ip, free_port(ip)), false, roads)
        };
        (first..).zip(kinds).map(start).collect()
    }

    /// Waits until all have everything, and compares every byte.
    fn finish(&self, seed: Client, mut leechers: Vec<Client>) {
        for client in &mut leechers {
            client.wait_until_complete(LIMIT);
        }
        for (n, client) in (3..).zip(&leechers) {
            let folder = self.scratch.join(format!("host-{}", self.lan.host(n)));
            self.set.assert_same_in(&folder, client.kind().tolerance());
        }
        drop(seed);
    }
}

fn all_here(lan: Lan, kinds: &[Kind]) -> bool {
    kinds.iter().all(|kind| kind.is_here(lan.is_isolated))
}

const STOCK: [Kind; 3] = [Kind::Libtorrent, Kind::Aria2, Kind::Transmission];
const SET_LEN: u64 = 4 * 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);
/// Transmission exchanges peers every 90 s, others every 60.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(240);
