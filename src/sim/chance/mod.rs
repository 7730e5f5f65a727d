//! Swarms of chance: everything about them, faults included, is drawn from one number.
//!
//! A run has two phases. In the first, anything goes wrong: hosts are killed, cut, suspended, their
//! clocks jump, ways are cut, streams break, disks fail. Then the faults stop, what is down comes
//! back, and in a bounded time every honest host has to be complete. The judges watch throughout.
//!
//! ```text
//!  seed ──▶ Plan (hosts, lines, faults) ──▶ run ──▶ Tally, or a Failure ──▶ shrink ──▶ Cut
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::disk::DiskFaults;
use super::foreign::{Manners, Vice};
use super::net::Link;
use super::spec::{Have, PeerSpec};
use super::{HostId, World};
use crate::base::rng::Rng;
use crate::meta::create::{CreateOptions, Creator, NewFile};
use crate::meta::metainfo::Metainfo;

mod draw;
mod run;
mod shrink;

pub use run::run;
pub use shrink::shrink;

/// A world and what goes wrong in it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all of it was drawn from.
    pub rng_seed: u64,
    /// Bytes of each file.
    pub files: Vec<u64>,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Hosts; the first is a seed that others can reach.
    pub hosts: Vec<HostPlan>,
    /// Foreign clients and attackers, which dial the hosts.
    pub guests: Vec<Guest>,
    /// Trackers, which the hosts may know.
    pub trackers: Vec<TrackerPlan>,
    /// What goes wrong, in order of time.
    pub faults: Vec<(Duration, Fault)>,
    /// Whether evpeers tell each other of evpeers.
    pub broadcast: bool,
}

/// A tracker of a plan.
#[derive(Clone, Debug)]
pub struct TrackerPlan {
    /// What runs there.
    pub kind: TrackerKind,
    /// What its first answers are; of an evpeer they are all good.
    pub first: Vec<BadAnswer>,
}

/// What runs on a tracker's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerKind {
    /// A tracker of another make that speaks HTTP.
    Http,
    /// One that speaks UDP.
    Udp,
    /// An evpeer without a torrent, asked by HTTP.
    EvpeerHttp,
    /// The same, asked by UDP.
    EvpeerUdp,
}

/// An answer of a tracker that helps nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAnswer {
    /// None.
    Silence,
    /// That it will not.
    Refusal,
    /// Addresses at which nobody is.
    Lie,
    /// Bytes.
    Noise,
}

/// A host of a plan.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// What it begins with.
    pub have: Have,
    /// Hosts that it is told of, all before it in the plan. If there are none, it and the first
    /// host look around on their link, or have a tracker in common.
    pub peers: Vec<u32>,
    /// Trackers that it knows.
    pub trackers: Vec<u32>,
    /// Its line.
    pub link: Link,
    /// When it joins, from the start.
    pub joins: Duration,
    /// Whether others can reach it.
    pub is_reachable: bool,
    /// What its user has set.
    pub settings: Settings,
}

/// What a user may set and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether it offers the fast extension.
    pub fast: bool,
    /// Connections that it allows.
    pub conns_max: u32,
    /// Whether it looks for others on its link.
    pub lsd: bool,
    /// Whether it tells its peers of each other.
    pub pex: bool,
}

/// A host that runs another program.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What it does as others do.
    pub manners: Manners,
    /// What it does as no honest client does.
    pub vices: Vec<Vice>,
    /// Hosts that it dials.
    pub dials: Vec<u32>,
    /// Its line.
    pub link: Link,
}

/// Something that goes wrong. Hosts are places in the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The process is killed and started again after a while.
    Kill(u32, Duration),
    /// The host leaves in good order and comes back after a while, with other settings.
    Leave(u32, Duration, Settings),
    /// The power goes and comes back after a while.
    PowerCut(u32, Duration),
    /// The host stands still.
    Suspend(u32, Duration),
    /// Its clock jumps ahead.
    ClockJump(u32, Duration),
    /// A stream of it breaks.
    Reset(u32),
    /// These hosts are an island for a while.
    Island(Vec<u32>, Duration),
    /// These hosts lose the net one after the other, and get it back in another order: one more
    /// each time that this has passed.
    Swizzle(Vec<u32>, Duration),
    /// The way from one host to another is cut for a while, not the way back.
    OneWay(u32, u32, Duration),
    /// Its line becomes this much slower.
    Slow(u32, u32),
    /// Its disk fails like this from now on.
    Disk(u32, DiskFaults),
}

/// What a run takes away from its plan, to find the least that still fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Only the first so many hosts.
    pub hosts: Option<u32>,
    /// Only these of the faults.
    pub faults: Option<Vec<u32>>,
    /// Only the first so many guests.
    pub guests: Option<u32>,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Hosts in them.
    pub hosts: u64,
    /// Events of the worlds.
    pub steps: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Virtual time, microseconds.
    pub micros: u64,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.hosts += other.hosts;
        self.steps += other.steps;
        self.faults += other.faults;
        self.micros += other.micros;
    }
}

impl Plan {
    /// The plan without what `cut` takes away.
    pub fn without(mut self, cut: &Cut) -> Self {
        if let Some(hosts) = cut.hosts {
            self.hosts.truncate(hosts.max(2) as usize);
        }
        if let Some(guests) = cut.guests {
            self.guests.truncate(guests as usize);
        }
        if let Some(kept) = &cut.faults {
            let all = std::mem::take(&mut self.faults);
            self.faults = (0..)
                .zip(all)
                .filter(|(index, _)| kept.contains(index))
                .map(|(_, fault)| fault)
                .collect();
        }
        let count = self.hosts.len() as u32;
        self.faults.retain(|(_, fault)| fault.hosts_max() < count);
        self
    }

    /// The shortest time in which the slowest lines allow everybody to be complete.
    pub fn bound(&self) -> Duration {
        let len: u64 = self.files.iter().sum();
        let slowest = self.hosts.iter().map(|host| {
            let link = &host.link;
            link.up_bytes_s.min(link.down_bytes_s)
        });
        let slowest = slowest.min().unwrap_or(1) as f64 / 2.0;
        Duration::from_secs_f64(len as f64 / slowest)
    }

    /// The torrent and its content.
    ///
    /// # Panics
    /// If the plan is not one that was drawn.
    pub fn torrent(&self) -> (Arc<Metainfo>, Arc<[u8]>) {
        let mut rng = Rng::new(self.rng_seed ^ 0x00c0_ffee);
        let total: u64 = self.files.iter().sum();
        let content: Vec<u8> = (0..total).map(|_| rng.next_u64() as u8).collect();
        let file = |(index, &len): (usize, &u64)| NewFile {
            path: vec![format!("file-{index}")],
            len,
            executable: false,
        };
        let options = CreateOptions {
            name: "content".to_owned(),
            files: self.files.iter().enumerate().map(file).collect(),
            piece_len: Some(self.piece_len),
            ..CreateOptions::default()
        };
        let mut creator = Creator::new(options).expect("the options are sound");
        creator.feed(&content).expect("as long as said");
        let bytes = creator.finish().expect("all of it was fed");
        let meta = Metainfo::from_bytes(&bytes).expect("what is created can be read");
        (Arc::new(meta), content.into())
    }
}

impl Fault {
    /// The highest place in the plan that it is about.
    fn hosts_max(&self) -> u32 {
        match self {
            Self::Kill(host, _)
            | Self::Leave(host, ..)
            | Self::PowerCut(host, _)
            | Self::Suspend(host, _)
            | Self::ClockJump(host, _)
            | Self::Reset(host)
            | Self::Slow(host, _)
            | Self::Disk(host, _) => *host,
            Self::Island(hosts, _) | Self::Swizzle(hosts, _) => {
                hosts.iter().copied().max().unwrap_or(0)
            }
            Self::OneWay(from, to, _) => *from.max(to),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.map(|hosts| format!("hosts={hosts}"));
        let faults = self.faults.as_ref().map(|faults| {
            let faults: Vec<String> = faults.iter().map(u32::to_string).collect();
            format!("faults={}", faults.join("."))
        });
        let guests = self.guests.map(|guests| format!("guests={guests}"));
        let parts: Vec<String> = hosts.into_iter().chain(faults).chain(guests).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cut = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let wrong = || format!("\"{part}\" is none of hosts=N, faults=N.N.N, guests=N");
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            match name {
                "hosts" => cut.hosts = Some(value.parse().map_err(|_| wrong())?),
                "guests" => cut.guests = Some(value.parse().map_err(|_| wrong())?),
                "faults" => {
                    let numbers = value.split('.').filter(|number| !number.is_empty());
                    let numbers: Result<_, _> = numbers.map(str::parse).collect();
                    cut.faults = Some(numbers.map_err(|_| wrong())?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cut_says_of_itself_makes_the_same_cut() {
        for text in ["", "hosts=3", "faults=0.4.11,guests=1", "hosts=2,faults="] {
            let cut: Cut = text.parse().expect("sound");
            assert_eq!(cut.to_string(), text);
        }
        assert!("host=3".parse::<Cut>().is_err());
        assert!("faults=1.x".parse::<Cut>().is_err());
    }

    #[test]
    fn a_cut_keeps_no_fault_of_a_host_that_is_gone() {
        let plan = (0..200).map(Plan::draw).find(|plan| plan.faults.len() > 8);
        let plan = plan.expect("some plan has many faults");
        let cut = Cut {
            hosts: Some(2),
            ..Cut::default()
        };
        let small = plan.without(&cut);
        assert_eq!(small.hosts.len(), 2);
        assert!(small.faults.iter().all(|(_, fault)| fault.hosts_max() < 2));
    }
}
