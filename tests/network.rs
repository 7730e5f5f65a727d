//! One network that outlives any of its peers: the first one, which made the torrent and tracked
//! it, is killed when a third of the data is out. The others go on, and new peers join them by
//! every road there is.
//!
//! What the first one sends passes a relay that lets so many bytes a second through, so that it can
//! be killed in the middle. The relay's address is all that the others are told of it.

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use support::data::{DataSet, Tolerance};
use support::evpeer::{BINARY, Evpeer, Setup, ctl};
use support::relay::Relay;
use support::tracker::Tracker;
use support::{folder, sandbox, scratch, skip, torrent, wait_for};

const LIMIT: Duration = Duration::from_secs(90);
const LEN: u64 = 16 * 1024 * 1024;
/// What the first peer may send a second.
const PACE_BYTES_S: u64 = 2 * 1024 * 1024;
/// Of all bytes, so many hundredths are out when it dies.
const OUT_PERCENT: u64 = 30;

/// Goal: a newcomer that knows nobody finds the survivors on the link; they have everything
/// together.
#[test]
fn newcomer_joins_by_local_discovery_after_the_first_peer_died() {
    let test = "newcomer_joins_by_local_discovery_after_the_first_peer_died";
    sandbox::inside(test, |lan| {
        if !lan.is_isolated {
            return skip("local discovery needs a network that nobody else hears");
        }
        let scratch = scratch();
        // Nobody speaks to a group from 127.0.0.1.
        let (ip, args) = (lan.host(1), ["--no-tracker", "--no-lsd=no"]);
        let mut stage = Stage::on(ip, scratch.path(), Holds::Most, &args);
        stage.kill_first();
        let newcomer = stage.join("newcomer", &args);
        stage.is_known(newcomer);
        stage.finish();
    });
}

/// Goal: the torrent's own tracker died with the first peer; another one leads to the survivors,
/// who have everything together.
#[test]
fn newcomer_joins_by_a_second_tracker_after_the_first_peer_died() {
    let scratch = scratch();
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let url = tracker.url();
    let mut stage = Stage::new(scratch.path(), Holds::Most, &["--tracker", &url]);
    stage.kill_first();
    let newcomer = stage.join("newcomer", &["--tracker", &url]);
    let port = stage.peers[newcomer].1.address.port();
    let announces = || tracker.announces();
    wait_for("it announces itself", LIMIT, || {
        announces().iter().any(|a| a.peer.port() == port)
    });
    stage.is_known(newcomer);
    stage.finish();
}

/// Goal: a peer that was killed before the first one died comes back with its folder alone.
#[test]
fn newcomer_joins_by_its_own_session_after_the_first_peer_died() {
    let scratch = scratch();
    let mut stage = Stage::new(scratch.path(), Holds::Nothing, &["--no-tracker"]);
    let away = stage.peers.len() - 1;
    let others = stage.addresses_but(away);
    let home = stage.peers[away].0.clone();
    wait_for("the others are remembered", LIMIT, || {
        let known = session_of(&home)["torrents"][0]["known"].clone();
        let known = known.as_array().map_or(&[][..], Vec::as_slice);
        let known: Vec<_> = known
            .iter()
            .filter_map(|k| k["address"].as_str())
            .map(str::to_owned)
            .collect();
        others.iter().all(|addr| known.contains(&addr.to_string()))
    });
    let (home, mut peer) = stage.peers.remove(away);
    kill(&mut peer);
    stage.kill_first();
    let mut command = Command::new(BINARY);
    command.arg("--json").arg("-o").arg(&home);
    let again = Evpeer::start_command("again", &mut command, Ipv4Addr::LOCALHOST.into());
    assert_eq!(again.address, peer.address);
    stage.peers.push((home, again));
    stage.welcome(stage.peers.len() - 1, "session");
    stage.restart_first();
    stage.finish();
}

/// Goal: the address of any survivor, whichever, is enough; they have everything together.
#[test]
fn newcomer_joins_by_any_survivors_address_after_the_first_peer_died() {
    let scratch = scratch();
    let mut stage = Stage::new(scratch.path(), Holds::Most, &["--no-tracker"]);
    stage.kill_first();
    let survivors = stage.addresses_but(usize::MAX);
    for survivor in survivors {
        let peer = survivor.to_string();
        let name = format!("newcomer-of-{}", survivor.port());
        let newcomer = stage.join(&name, &["--no-tracker", "--peer", &peer]);
        stage.is_known(newcomer);
    }
    stage.finish();
}

/// What the others have before the first peer gives them anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// All but what the first peer gives before it dies.
    Most,
}

/// The first peer, and others that know each other.
struct Stage<'a> {
    scratch: &'a Path,
    set: DataSet,
    holds: Holds,
    torrent: PathBuf,
    first: Option<Evpeer>,
    first_address: SocketAddr,
    relay: Relay,
    /// Folders and peers, all but the first.
    peers: Vec<(PathBuf, Evpeer)>,
}

impl<'a> Stage<'a> {
    fn new(scratch: &'a Path, holds: Holds, args: &[&str]) -> Self {
        Self::on(Ipv4Addr::LOCALHOST, scratch, holds, args)
    }

    /// All listen on `ip`.
    fn on(ip: Ipv4Addr, scratch: &'a Path, holds: Holds, args: &[&str]) -> Self {
        let set = DataSet::file(&folder(scratch, "data"), "set", LEN, 1);
        let torrent = scratch.join("set.shared.torrent");
        let first = share(&set, (ip, 0).into(), Some(&torrent));
        first.wait_for_state("seeding", LIMIT);
        let relay = Relay::paced(first.address, PACE_BYTES_S);
        // The others have a torrent of the same name, whose trackers do not lead past the relay.
        let untracked = torrent::create(&set, None);
        let mut stage = Self {
            scratch,
            set,
            holds,
            torrent: untracked,
            first_address: first.address,
            first: Some(first),
            relay,
            peers: Vec::new(),
        };
        let relay = stage.relay.address().to_string();
        let mut bytes = stage.set.bytes();
        bytes[(LEN - LEN * OUT_PERCENT / 100) as usize..].fill(0);
        for name in ["a", "b", "c"] {
            if holds == Holds::Most {
                fs::write(folder(scratch, name).join("set"), &bytes).expect("writable");
            }
            stage.join(name, &[args, &["--peer", &relay]].concat());
        }
        stage.torrent = torrent;
        let all: Vec<usize> = (0..stage.peers.len()).collect();
        wait_for("all know each other", LIMIT, || {
            all.iter().all(|&n| {
                let here = here(&stage.peers[n].0);
                let others = stage.addresses_but(n);
                others.iter().all(|other| here.contains(other))
            })
        });
        stage
    }

    /// One more peer, on any port.
    fn join(&mut self, name: &str, args: &[&str]) -> usize {
        let home = folder(self.scratch, name);
        let setup = Setup {
            ip: self.first_address.ip(),
            is_local: args.contains(&"--no-lsd=no"),
            args,
            ..Setup::new(&self.torrent, &home)
        };
        let peer = Evpeer::start(name, &setup);
        self.peers.push((home, peer));
        self.peers.len() - 1
    }

    fn addresses_but(&self, left_out: usize) -> Vec<SocketAddr> {
        let others = self.peers.iter().enumerate();
        let others = others.filter(|(n, _)| *n != left_out);
        others.map(|(_, (_, peer))| peer.address).collect()
    }

    /// The first peer is gone in the middle of its work, and everybody comes to see it.
    fn kill_first(&mut self) {
        let out = LEN * OUT_PERCENT / 100;
        wait_for("so much is out", LIMIT, || match self.holds {
            Holds::Nothing => self.relay.passed() >= out,
            Holds::Most => self
                .peers
                .iter()
                .any(|(_, peer)| peer.has_event("complete")),
        });
        let mut first = self.first.take().expect("it runs");
        kill(&mut first);
        let began = Instant::now();
        let percent = self.relay.passed() * 100 / LEN;
        let addresses = [self.relay.address(), first.address];
        wait_for("all know that it is gone", LIMIT, || {
            let lists = self.peers.iter().map(|(home, _)| here(home));
            lists
                .into_iter()
                .all(|list| !addresses.iter().any(|addr| list.contains(addr)))
        });
        let is_early = self.holds == Holds::Most || {
            let mut peers = self.peers.iter();
            peers.all(|(_, peer)| !peer.has_event("complete"))
        };
        assert!(is_early, "somebody had everything at {percent} %");
        println!("killed at {percent} %, known {:?} later", began.elapsed());
    }

    fn restart_first(&mut self) {
        let first = share(&self.set, self.first_address, None);
        assert_eq!(first.address, self.first_address);
        self.first = Some(first);
    }

    /// All others hear of a newcomer.
    fn is_known(&self, newcomer: usize) {
        let began = Instant::now();
        let address = self.peers[newcomer].1.address;
        let mut others = self.peers.iter().filter(|(_, p)| p.address != address);
        wait_for("all know the newcomer", LIMIT, || {
            others
                .clone()
                .all(|(home, _)| here(home).contains(&address))
        });
        assert!(others.next().is_some());
        println!("the newcomer is known {:?} later", began.elapsed());
    }

    /// The same, and it and somebody else are connected because of this road.
    fn welcome(&self, newcomer: usize, road: &str) {
        let own = self.peers[newcomer].1.address.to_string();
        wait_for("it is connected by that road", LIMIT, || {
            self.peers.iter().enumerate().any(|(n, (home, _))| {
                let answer = ctl(home, &["peers", "--json"]).object();
                let peers = answer["peers"].as_array().cloned().unwrap_or_default();
                let is_its = |peer: &Value| n == newcomer || peer["listens"] == own;
                let mut its = peers.iter().filter(|peer| is_its(peer));
                its.any(|peer| peer["source"] == road)
            })
        });
        self.is_known(newcomer);
    }

    /// Everybody gets everything; only then do those leave who had it.
    fn finish(self) {
        for (_, peer) in &self.peers {
            peer.wait_for_event("complete", LIMIT);
        }
        for (home, peer) in self.peers {
            self.set.assert_same_in(&home, Tolerance::NONE);
            peer.leave();
        }
        if let Some(first) = self.first {
            first.leave();
        }
    }
}

/// `evpeer share` of a set.
fn share(set: &DataSet, address: SocketAddr, save: Option<&Path>) -> Evpeer {
    let mut command = Command::new(BINARY);
    command.arg("share").arg(set.root());
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["--json", "--no-lsd", "--bind", &ip, "-p", &port]);
    if let Some(path) = save {
        command.arg("--save").arg(path);
    }
    Evpeer::start_command("first", &mut command, address.ip())
}

fn kill(peer: &mut Evpeer) {
    peer.process.signal(Signal::KILL);
    peer.process.wait(LIMIT);
}

/// The evpeers that are in the network as the peer of this folder knows it.
fn here(home: &Path) -> Vec<SocketAddr> {
    let answer = ctl(home, &["peers", "--network", "--json"]).object();
    let hosts = answer["network"].as_array().cloned().unwrap_or_default();
    let hosts = hosts.iter().filter(|host| host["here"] == true);
    let addresses = hosts.filter_map(|host| host["address"].as_str()?.parse().ok());
    addresses.collect()
}

fn session_of(home: &Path) -> Value {
    let text = fs::read_to_string(home.join(".evpeer/session")).unwrap_or_default();
    let (_, body) = text.split_once('\n').unwrap_or_default();
    serde_json::from_str(body).unwrap_or_default()
}
