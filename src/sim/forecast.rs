//! How long until the last host is complete: a swarm of many hosts, run in virtual time.
//!
//! Every host is told of some others at random, as a tracker would tell it, and hears of the rest
//! from those, as all evpeers tell each other; all that lack the data begin at the same moment.
//! Those of a rack have a prefix of their own, and find each other by multicast too. Payload is not
//! carried along, everything else is real.

use std::time::Duration;

use super::actor::{Actor, Hands, Input};
use super::spec::{Have, Judged, PeerSpec, tagged_torrent};
use super::{Failure, HostId, Link, Uplink, World};
use crate::base::rng::Rng;

/// What is to be forecast.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// Seed of everything random.
    pub rng_seed: u64,
    /// Hosts, those with the data among them.
    pub hosts: u32,
    /// Hosts that have the data at the start.
    pub seeds: u32,
    /// Bytes to be spread.
    pub length: u64,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// The line of each host, or of the first if there are `other_links`.
    pub link: Link,
    /// Lines of other kinds: hosts have `link` and these in turn, those with the data first.
    pub other_links: Vec<Link>,
    /// Racks that the hosts are dealt to in turn; 0 for one switch without a limit of its own.
    pub racks: u32,
    /// What joins a rack to the others.
    pub uplink: Uplink,
    /// Hosts without the data that die on the way, each at a random moment, for good.
    pub killed: u32,
    /// Other hosts that each is told of at the start.
    pub known: u32,
    /// Virtual time after which to give up.
    pub limit: Duration,
    /// How strictly the run is judged.
    pub judged: Judged,
}

impl Default for Forecast {
    fn default() -> Self {
        let link = Link::lan(10_000_000_000 / 8);
        Self {
            rng_seed: 1,
            hosts: 100,
            seeds: 1,
            length: 1 << 30,
            piece_len: 1 << 20,
            link,
            other_links: Vec::new(),
            racks: 0,
            uplink: Uplink {
                up_bytes_s: link.up_bytes_s,
                down_bytes_s: link.down_bytes_s,
                latency: Duration::from_micros(50),
            },
            killed: 0,
            known: 10,
            limit: Duration::from_secs(24 * 3600),
            judged: Judged::Loosely,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When each host that began without the data had it, in order of time, from the start.
    pub completed: Vec<Duration>,
    /// Hosts that should have become complete and did not.
    pub unfinished: u32,
    /// The shortest time that the lines allow.
    pub bound: Duration,
    /// How often the seeds together sent the whole data.
    pub seed_copies: f64,
    /// How often it crossed the uplinks of all racks, together.
    pub uplink_copies: f64,
    /// Payload that was received and of no use, bytes.
    pub duplicate_bytes: u64,
    /// Bytes of streams that were not payload.
    pub control_bytes: u64,
    /// Events of the world, and inputs of its engines.
    pub steps: u64,
    /// Inputs that the engines took.
    pub inputs: u64,
    /// Digest of the run.
    pub digest: String,
}

impl Forecast {
    /// The shortest time in which this can be done, whatever the protocol: the seeds must send
    /// everything once, every host must receive everything, and all together must send it as
    /// often as it is needed (Kumar and Ross 2006); each rack must receive it once. Of hosts that
    /// die the bound counts what they could send, and nothing that they receive.
    pub fn bound(&self) -> Duration {
        let goodput = self.link.goodput();
        let sum = |hosts: std::ops::Range<u32>| {
            let ups = hosts.map(|index| self.link_of(index).up_bytes_s as f64);
            ups.sum::<f64>() * goodput
        };
        let leechers = self.seeds..self.hosts;
        let mut downs: Vec<u64> = leechers
            .clone()
            .map(|index| self.link_of(index).down_bytes_s)
            .collect();
        downs.sort_unstable();
        // The slowest may be those that die.
        let slowest = downs.get(self.killed as usize).or(downs.last());
        let slowest = *slowest.unwrap_or(&self.link.down_bytes_s) as f64 * goodput;
        let len = self.length as f64;
        let survivors = f64::from((leechers.len() as u32).saturating_sub(self.killed));
        let mut bound = (len / sum(0..self.seeds))
            .max(len / slowest)
            .max(survivors * len / sum(0..self.hosts));
        if self.racks > self.seeds {
            bound = bound.max(len / (self.uplink.down_bytes_s as f64 * goodput));
        }
        Duration::from_secs_f64(bound)
    }

    /// Runs it.
    ///
    /// `tell` hears of the virtual time and the number of complete hosts every now and then.
    ///
    /// # Errors
    /// A judge found fault with the engines.
    pub fn run(&self, mut tell: impl FnMut(Duration, u32)) -> Result<Outcome, Box<Failure>> {
        let mut rng = Rng::new(self.rng_seed);
        let meta = tagged_torrent(self.length, self.piece_len, &mut rng);
        let mut world = World::tagged(rng.next_u64(), self.link, meta, self.judged);
        let racks: Vec<_> = (0..self.racks)
            .map(|_| world.add_rack(self.uplink))
            .collect();
        let start = world.now();
        let known: Vec<Vec<HostId>> = (0..self.hosts)
            .map(|index| acquaintances(index, self.known, &mut rng))
            .map(|known| known.into_iter().map(|index| self.place(index)).collect())
            .collect();
        let mut order: Vec<u32> = (0..self.hosts).collect();
        order.sort_unstable_by_key(|&index| self.place(index));
        for index in order {
            while world.host_count() < self.place(index).0 {
                world.add_actor(Box::new(Nobody), None);
            }
            let have = if index < self.seeds {
                Have::All
            } else {
                Have::Nothing
            };
            let mut spec = PeerSpec::new(have, &known[index as usize]);
            spec.link = Some(self.link_of(index));
            spec.rack = racks.get(index as usize % racks.len().max(1)).copied();
            spec.prefix_len = self.prefix_len();
            spec.config.trackers = false;
            spec.config.broadcast = true;
            // Who is told of few in its rack looks around there, as all do by default.
            spec.config.lsd = self.racks > 0;
            world.add(spec);
        }
        let mut deaths = self.deaths(&mut rng);
        let mut waiting = self.hosts - self.seeds;
        while world.completed() < waiting && world.now() - start < self.limit {
            let next = deaths.last().map_or(Duration::MAX, |(at, _)| *at);
            let left = next.saturating_sub(world.now() - start).min(ROUND);
            world.advance(left, |world| world.completed() == waiting)?;
            let now = world.now() - start;
            while let Some((_, host)) = deaths.pop_if(|(at, _)| *at <= now) {
                waiting -= u32::from(world.completed_at(host).is_none());
                world.cut(host);
            }
            tell(now, world.completed());
        }
        let at = |host: u32| Some(world.completed_at(self.place(host))? - start);
        let mut completed: Vec<Duration> = (self.seeds..self.hosts).filter_map(at).collect();
        completed.sort_unstable();
        let (mut duplicate_bytes, mut payload) = (0, 0);
        for index in 0..self.hosts {
            if let Some(figures) = world.snapshot(self.place(index)) {
                duplicate_bytes += figures.wasted_bytes;
                payload += figures.down_bytes;
            }
        }
        let delivered = world.network().ledger().delivered;
        let sent: u64 = (0..self.seeds)
            .map(|seed| world.traffic(self.place(seed)).0)
            .sum();
        let crossed: u64 = racks
            .iter()
            .map(|&r| world.network().lines.crossed(r).1)
            .sum();
        Ok(Outcome {
            unfinished: waiting - world.completed(),
            bound: self.bound(),
            seed_copies: sent as f64 / self.length as f64,
            uplink_copies: crossed as f64 * self.link.goodput() / self.length as f64,
            duplicate_bytes,
            // What the dead had received is not known any more; it counts here.
            control_bytes: delivered.saturating_sub(payload),
            completed,
            steps: world.steps(),
            inputs: world.inputs(),
            digest: world.digest(),
        })
    }

    /// The line of the host at `index`: in turn, within a rack where there are racks.
    fn link_of(&self, index: u32) -> Link {
        let place = index / self.racks.max(1);
        match place as usize % (self.other_links.len() + 1) {
            0 => self.link,
            other => self.other_links[other - 1],
        }
    }

    /// Addresses of a rack: its hosts have a prefix of their own, with some to spare.
    fn rack_len(&self) -> u32 {
        let hosts = self.hosts.div_ceil(self.racks.max(1));
        (hosts + 1).next_power_of_two()
    }

    /// Leading bits that the addresses of a link share.
    fn prefix_len(&self) -> u8 {
        match self.racks {
            0 => 8,
            _ => 32 - self.rack_len().ilog2() as u8,
        }
    }

    /// The number that the host at `index` has in the world, which its address is made of.
    fn place(&self, index: u32) -> HostId {
        match self.racks {
            0 => HostId(index),
            racks => HostId(index % racks * self.rack_len() + index / racks),
        }
    }

    /// Who dies when, the last first.
    fn deaths(&self, rng: &mut Rng) -> Vec<(Duration, HostId)> {
        let mut leechers: Vec<u32> = (self.seeds..self.hosts).collect();
        rng.shuffle(&mut leechers);
        let bound = self.bound().as_micros() as u64;
        let unit = bound / u64::from(u32::MAX) + 1;
        let units = (bound / unit).max(1) as u32;
        let mut deaths: Vec<_> = leechers
            .into_iter()
            .take(self.killed as usize)
            .map(|host| {
                let at = Duration::from_micros(u64::from(rng.below(units)) * unit);
                (at, self.place(host))
            })
            .collect();
        deaths.sort_unstable_by(|a, b| b.cmp(a));
        deaths
    }
}

impl Outcome {
    /// When so many of a hundred of those that became complete had everything.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.completed.len().checked_sub(1)?;
        self.completed.get((last * percent).div_ceil(100)).copied()
    }

    /// When the last host had everything.
    pub fn last(&self) -> Option<Duration> {
        self.completed.last().copied()
    }

    /// How much longer than the bound that was.
    pub fn ratio(&self) -> Option<f64> {
        let last = self.last()?;
        Some(last.as_secs_f64() / self.bound.as_secs_f64())
    }
}

/// The hosts that the one at `index` is told of: some of those before it.
fn acquaintances(index: u32, count: u32, rng: &mut Rng) -> Vec<u32> {
    if index <= count {
        return (0..index).collect();
    }
    let mut known = Vec::new();
    while known.len() < count as usize {
        let host = rng.below(index);
        if !known.contains(&host) {
            known.push(host);
        }
    }
    known
}

/// Stands at an address of a rack that no host has.
#[derive(Debug)]
struct Nobody;

impl Actor for Nobody {
    fn handle(&mut self, _: Input<'_>, _: &mut Hands<'_>) {}

    fn is_honest(&self) -> bool {
        true
    }
}

/// Virtual time between two looks at who died.
const ROUND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn bound_is_that_of_the_narrowest_place() {
        let line = |up: u64, down: u64| Link {
            down_bytes_s: down * MB,
            ..Link::lan(up * MB)
        };
        let wide = line(100, 100);
        // One host has a narrower line, and one has the narrowest.
        let both = [vec![wide; 6], vec![line(100, 20), line(100, 5)]].concat();
        let cases = [
            // what is narrow, the first line, those of the others, megabytes a second
            ("no place more than others", wide, vec![], 100.0),
            ("the seed's way out", line(1, 100), vec![wide; 9], 1.0),
            (
                "ways out together",
                wide,
                vec![line(1, 100); 9],
                109.0 / 9.0,
            ),
            ("a way in", wide, vec![wide, line(100, 5)], 5.0),
            ("who may die", wide, both, 20.0),
        ];
        for (name, link, other_links, rate) in cases {
            let forecast = Forecast {
                hosts: 10,
                killed: u32::from(name == "who may die"),
                length: 100 * MB,
                link,
                other_links,
                ..Forecast::default()
            };
            let expected = 100.0 / (rate * link.goodput());
            let bound = forecast.bound().as_secs_f64();
            let is_near = (bound / expected - 1.0).abs() < 1e-6;
            assert!(is_near, "{name}: {bound} s instead of {expected} s");
        }
    }

    /// Goal: hosts have the lines that were given, in turn.
    /// Method: nobody on a narrow line can be complete before everybody on a wide one.
    #[test]
    fn hosts_have_lines_in_turn() {
        let forecast = Forecast {
            hosts: 9,
            length: 4 * MB,
            piece_len: 16 * 1024,
            link: Link::lan(100 * MB),
            other_links: vec![Link {
                down_bytes_s: MB,
                ..Link::lan(100 * MB)
            }],
            ..Forecast::default()
        };
        let outcome = forecast.run(|_, _| {}).unwrap_or_else(|f| panic!("{f}"));
        let narrow = Duration::from_secs(4);
        let early = outcome.completed.iter().filter(|&&at| at < narrow);
        assert_eq!((early.count(), outcome.completed.len()), (4, 8));
    }
}
