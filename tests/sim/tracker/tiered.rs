//! Worlds whose torrent names its trackers in tiers.

use std::sync::Arc;
use std::time::Duration;

use evpeer::base::time::Instant;
use evpeer::sim::net::Link;
use evpeer::sim::tracker::Tracker;
use evpeer::sim::udp_tracker::UdpTracker;
use evpeer::sim::{Have, HostId, PeerSpec, World};

use crate::world::torrent;

/// What stands behind an address of the torrent.
pub enum Kind {
    Http(Tracker),
    Udp(UdpTracker),
    /// An address where nobody is.
    Nobody,
    /// A name that nobody has.
    NoName,
}

/// An announce, as either kind of tracker saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub at: Instant,
    pub event: String,
    pub key: u32,
    pub port: u16,
    pub numwant: u32,
    pub left: u64,
}

/// A world with trackers; `trackers` has them in the order of their tiers.
pub struct Tiered {
    pub world: World,
    pub trackers: Vec<HostId>,
    kinds: Vec<&'static str>,
}

impl Tiered {
    pub fn new(rng_seed: u64, link: Link, tiers: Vec<Vec<Kind>>) -> Self {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[600_000]);
        let mut meta = (*meta).clone();
        let mut named = 0;
        let mut url = |kind: &Kind| {
            named += 1;
            match kind {
                Kind::Http(_) => format!("http://t{named}:6881/announce"),
                Kind::Udp(_) => format!("udp://t{named}:6881"),
                Kind::Nobody => "http://10.250.0.1:80/announce".to_owned(),
                Kind::NoName => "udp://nobody:80".to_owned(),
            }
        };
        let urls = |tier: &Vec<Kind>| tier.iter().map(&mut url).collect();
        meta.trackers = tiers.iter().map(urls).collect();
        let world = World::new(rng_seed, link, Arc::new(meta), content);
        let mut tiered = Self {
            world,
            trackers: Vec::new(),
            kinds: Vec::new(),
        };
        tiers
            .into_iter()
            .flatten()
            .for_each(|kind| tiered.add(kind));
        tiered
    }

    fn add(&mut self, kind: Kind) {
        let (name, host) = match kind {
            Kind::Http(tracker) => ("http", self.world.add_actor(Box::new(tracker), None)),
            Kind::Udp(tracker) => ("udp", self.world.add_actor(Box::new(tracker), None)),
            Kind::Nobody | Kind::NoName => ("nobody", HostId(u32::MAX)),
        };
        self.trackers.push(host);
        self.kinds.push(name);
        if name != "nobody" {
            let number = self.trackers.len();
            self.world.set_name(&format!("t{number}"), &[host]);
        }
    }

    /// A peer that knows the torrent's trackers only.
    pub fn peer(&mut self, have: Have) -> HostId {
        self.world.add(PeerSpec::new(have, &[]))
    }

    /// What a peer asked the tracker with this index.
    pub fn asked(&self, tracker: usize, of: HostId) -> Vec<Seen> {
        let (host, ip) = (self.trackers[tracker], self.world.addr(of).ip());
        match self.kinds[tracker] {
            "http" => {
                let tracker: &Tracker = self.world.actor(host).expect("a tracker");
                let seen = tracker.seen().iter().filter(|a| a.from.ip() == ip);
                let seen = seen.map(|announce| Seen {
                    at: announce.at,
                    event: announce.event(),
                    key: u32::from_str_radix(&announce.text("key"), 16).expect("hex"),
                    port: announce.number("port").expect("a port") as u16,
                    numwant: announce.number("numwant").expect("a number") as u32,
                    left: announce.number("left").expect("a number"),
                });
                seen.collect()
            }
            "udp" => {
                let seen = self.udp(tracker).seen().iter();
                let seen = seen.filter(|a| a.from.ip() == ip).map(|announce| Seen {
                    at: announce.at,
                    event: ["", "completed", "started", "stopped"][announce.event as usize]
                        .to_owned(),
                    key: announce.key,
                    port: announce.port,
                    numwant: announce.num_want as u32,
                    left: announce.left,
                });
                seen.collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn udp(&self, tracker: usize) -> &UdpTracker {
        let host = self.trackers[tracker];
        self.world.actor(host).expect("a tracker over UDP")
    }

    pub fn finish(&mut self, hosts: &[HostId], what: &str) {
        let done = |w: &mut World| hosts.iter().all(|&host| w.is_complete(host));
        if !self.world.run_until(Duration::from_secs(900), done) {
            let late = hosts.iter().find(|&&host| !self.world.is_complete(host));
            let text = format!("{what}: not complete");
            let late = *late.expect("one is not");
            panic!("{}", self.world.unfinished(late, text));
        }
        self.world
            .audit()
            .unwrap_or_else(|failure| panic!("{failure}"));
    }

    pub fn wait(&mut self, time: Duration) {
        self.world.run_until(time, |_| false);
    }

    /// Seconds since the beginning.
    pub fn secs(&self) -> u64 {
        self.world.now().as_micros() / 1_000_000
    }
}

/// How often each event was told.
pub fn count(seen: &[Seen], event: &str) -> usize {
    seen.iter().filter(|seen| seen.event == event).count()
}
