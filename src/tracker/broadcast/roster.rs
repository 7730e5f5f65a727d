//! One list: who is in it, who left it, and what that amounts to.
//!
//! Sums are over those that are there, and apart for each reach of addresses: two hosts compare
//! what may be told between them. Tombstones are in no sum: each host forgets them in its own time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::base::address::{Scope, scope};
use crate::base::rng::Rng;
use crate::base::seldom::Blank;
use crate::wire::ev_peers::{BUCKET_BITS_MAX, Entry, Standing};

/// An address, small: lists are long, and there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    ip: [u8; 16],
    port: u16,
}

/// The newest that is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub epoch: u64,
    /// When this became known here, seconds of our clock.
    pub changed_s: u32,
    /// The link that told us first, [`NOBODY`] if it is proven.
    pub teller: u32,
    pub standing: Standing,
    /// The standing before this one, if the address was known then.
    pub before: Option<Standing>,
    pub is_evpeer: bool,
}

/// The records of a list.
#[derive(Debug, Default)]
pub(super) struct Roster {
    records: BTreeMap<Key, Kept>,
    sums: [Sum; 3],
    /// The evpeers that are there, in no order.
    evpeers: Vec<Key>,
}

impl Blank for Roster {
    const BLANK: &'static Self = &Self {
        records: BTreeMap::new(),
        sums: [Sum { count: 0, root: 0 }; 3],
        evpeers: Vec::new(),
    };

    fn is_blank(&self) -> bool {
        self.records.is_empty()
    }
}

/// A record, and where in `evpeers` its key is.
#[derive(Clone, Copy, Debug)]
struct Kept {
    record: Record,
    place: Option<u32>,
}

/// What some records amount to: how many are there, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub count: u32,
    pub root: u64,
}

/// Who may hear of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Everybody,
    LinkLocal,
    Loopback,
}

impl Key {
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }

    /// The same address with another port.
    fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    fn reach(&self) -> Reach {
        reach(Ipv6Addr::from(self.ip).into())
    }

    fn hash(&self) -> u64 {
        let ip = u128::from_be_bytes(self.ip);
        mix(mix(mix(u64::from(self.port)) ^ ip as u64) ^ (ip >> 64) as u64)
    }

    /// Which of 2^bits buckets it is in; halves of a bucket are two buckets of one bit more.
    pub fn bucket(&self, bits: u8) -> usize {
        self.hash().checked_shr(64 - u32::from(bits)).unwrap_or(0) as usize
    }
}

impl From<SocketAddr> for Key {
    fn from(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            ip: ip.octets(),
            port: addr.port(),
        }
    }
}

impl Record {
    /// Its place in the order in which the higher wins. Of two claims of one epoch the better
    /// one: a peer that is there can speak for itself.
    pub fn rank(&self) -> (u64, Standing, bool) {
        (self.epoch, self.standing, self.is_evpeer)
    }

    pub fn entry(&self, key: Key) -> Entry {
        Entry {
            addr: Some(key.addr()),
            epoch: self.epoch,
            standing: self.standing,
            is_evpeer: self.is_evpeer,
        }
    }

    fn hash(&self, key: Key) -> u64 {
        let what = (self.standing as u64) << 1 | u64::from(self.is_evpeer);
        mix(mix(key.hash() ^ self.epoch) ^ what)
    }
}

impl Roster {
    pub fn get(&self, key: Key) -> Option<&Record> {
        self.records.get(&key).map(|kept| &kept.record)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Record)> {
        self.records.iter().map(|(&key, kept)| (key, &kept.record))
    }

    /// How many are there.
    pub fn here_count(&self) -> usize {
        self.sums.iter().map(|sum| sum.count as usize).sum()
    }

    /// Those that are there.
    pub fn here(&self) -> impl Iterator<Item = (Key, &Record)> {
        self.iter().filter(|(_, record)| record.standing.is_here())
    }

    pub fn put(&mut self, key: Key, record: Record) {
        let known = self.records.get(&key).copied();
        if let Some(known) = known {
            self.count(key, &known.record, Sum::sub);
        }
        let place = known.and_then(|known| known.place);
        let place = match (place, record.is_evpeer && record.standing.is_here()) {
            (Some(place), false) => {
                self.unlist(place);
                None
            }
            (None, true) => {
                self.evpeers.push(key);
                Some(self.evpeers.len() as u32 - 1)
            }
            (place, _) => place,
        };
        self.records.insert(key, Kept { record, place });
        self.count(key, &record, Sum::add);
    }

    pub fn remove(&mut self, key: Key) {
        if let Some(old) = self.records.remove(&key) {
            self.count(key, &old.record, Sum::sub);
            if let Some(place) = old.place {
                self.unlist(place);
            }
        }
    }

    /// Takes a place out of `evpeers`.
    fn unlist(&mut self, place: u32) {
        self.evpeers.swap_remove(place as usize);
        if let Some(moved) = self.evpeers.get(place as usize)
            && let Some(kept) = self.records.get_mut(moved)
        {
            kept.place = Some(place);
        }
    }

    /// From now on nobody can be wrong about this address: we know it first hand.
    pub fn prove(&mut self, key: Key) -> Option<u32> {
        let kept = self.records.get_mut(&key)?;
        Some(std::mem::replace(&mut kept.record.teller, NOBODY))
    }

    /// Addresses with this one's IP address, counted up to `most`.
    pub fn count_of_ip(&self, key: Key, most: usize) -> usize {
        let ports = key.with_port(0)..=key.with_port(u16::MAX);
        self.records.range(ports).take(most).count()
    }

    /// What is here that `remote` may hear of, without `remote` itself.
    pub fn sum_for(&self, remote: Key) -> Sum {
        let mut sum = self.sums[Reach::Everybody as usize];
        let reach = remote.reach();
        if reach != Reach::Everybody {
            sum.join(self.sums[reach as usize]);
        }
        if let Some(record) = self.get(remote).filter(|record| record.standing.is_here()) {
            sum.sub(record.hash(remote));
        }
        sum
    }

    /// The same, bucket by bucket; there are 2^bits.
    pub fn sums_for(&self, remote: Key, bits: u8) -> Vec<u64> {
        let mut sums = vec![0_u64; 1 << bits];
        for (key, record) in self.here() {
            if key != remote && key.is_for(remote) {
                let sum = &mut sums[key.bucket(bits)];
                *sum = sum.wrapping_add(record.hash(key));
            }
        }
        sums
    }

    /// What `remote` may hear of in the buckets for which `wanted` is true, tombstones too.
    pub fn in_buckets(&self, wanted: &[bool], remote: Key) -> impl Iterator<Item = (Key, &Record)> {
        let bits = wanted.len().ilog2() as u8;
        self.iter().filter(move |(key, _)| {
            *key != remote && key.is_for(remote) && wanted[key.bucket(bits)]
        })
    }

    /// How many bits make buckets of some sixteen records.
    pub fn bucket_bits(&self) -> u8 {
        let buckets = (self.len() / 16).next_power_of_two();
        (buckets.ilog2() as u8).min(BUCKET_BITS_MAX)
    }

    /// Up to `count` evpeers that are there and wanted, each with the same chance. Costs some
    /// looks for each, however long the list is: where hardly anybody is wanted, not all are found.
    pub fn sample(
        &self,
        count: usize,
        rng: &mut Rng,
        is_wanted: impl Fn(Key) -> bool,
    ) -> Vec<(Key, Record)> {
        let len = self.evpeers.len();
        let mut chosen = Vec::new();
        // The first steps of a shuffle; these places are not as they are in the list.
        let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
        for place in 0..len.min(count.saturating_mul(LOOKS_A_CHOICE)) {
            if chosen.len() >= count {
                break;
            }
            let other = place + rng.below((len - place) as u32) as usize;
            let here = moved.get(&place).copied().unwrap_or(place);
            let there = moved.insert(other, here).unwrap_or(other);
            let key = self.evpeers[there];
            if let Some(record) = self.get(key).filter(|_| is_wanted(key)) {
                chosen.push((key, *record));
            }
        }
        chosen
    }

    /// Makes room for one sixteenth of what is here: of tombstones the oldest; if these are not
    /// enough, the latest that the link told which told most of what is unproven. So many at a time
    /// that the search for them costs little for each.
    pub fn thin_out(&mut self) {
        let goal = (self.len() / 16).max(1);
        let mut tombs: Vec<_> = self
            .iter()
            .filter(|(_, record)| !record.standing.is_here())
            .map(|(key, record)| (record.changed_s, key))
            .collect();
        tombs.sort_unstable();
        if tombs.len() < goal {
            tombs.extend(self.latest_of_worst_teller());
        }
        tombs.truncate(goal);
        tombs.into_iter().for_each(|(_, key)| self.remove(key));
    }

    fn latest_of_worst_teller(&self) -> Vec<(u32, Key)> {
        let unproven = |(_, record): &(Key, &Record)| record.teller != NOBODY;
        let mut counts = BTreeMap::new();
        for (_, record) in self.here().filter(unproven) {
            *counts.entry(record.teller).or_insert(0_u32) += 1;
        }
        let worst = counts.iter().max_by_key(|(_, count)| **count);
        let Some((&worst, _)) = worst else {
            return Vec::new();
        };
        let told = self.here().filter(|(_, record)| record.teller == worst);
        let mut latest: Vec<_> = told.map(|(key, record)| (record.changed_s, key)).collect();
        latest.sort_unstable_by(|a, b| b.cmp(a));
        latest
    }

    fn count(&mut self, key: Key, record: &Record, apply: fn(&mut Sum, u64)) {
        if record.standing.is_here() {
            apply(&mut self.sums[key.reach() as usize], record.hash(key));
        }
    }
}

impl Key {
    /// Whether `remote` may hear of this address, as far as its reach goes.
    fn is_for(self, remote: Self) -> bool {
        let reach = self.reach();
        reach == Reach::Everybody || reach == remote.reach()
    }
}

impl Sum {
    fn add(&mut self, hash: u64) {
        self.count += 1;
        self.root = self.root.wrapping_add(hash);
    }

    fn sub(&mut self, hash: u64) {
        self.count -= 1;
        self.root = self.root.wrapping_sub(hash);
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        self.root = self.root.wrapping_add(other.root);
    }
}

fn reach(ip: IpAddr) -> Reach {
    match scope(ip) {
        Scope::Loopback => Reach::Loopback,
        Scope::LinkLocal => Reach::LinkLocal,
        Scope::Nowhere | Scope::Site | Scope::Global => Reach::Everybody,
    }
}

/// The finisher of splitmix64. Sums find differences between honest hosts; a host that wants to
/// hide one can also just lie about its sums.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Evpeers looked at for each that a sample shall have, at most.
const LOOKS_A_CHOICE: usize = 32;
/// The teller of what is proven, or of what nobody told.
pub(super) const NOBODY: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        text.parse::<SocketAddr>().expect("an address").into()
    }

    fn record(epoch: u64, standing: Standing, teller: u32) -> Record {
        Record {
            epoch,
            changed_s: epoch as u32,
            teller,
            standing,
            before: None,
            is_evpeer: true,
        }
    }

    #[test]
    fn address_survives_the_key() {
        for text in ["10.0.0.1:6881", "[fd00::1]:6881", "127.0.0.1:1"] {
            assert_eq!(key(text).addr().to_string(), text);
        }
        assert_eq!(key("[::ffff:10.0.0.1]:1"), key("10.0.0.1:1"));
    }

    /// Goal: sums depend on what is there alone, not on how it came to be; buckets add up.
    #[test]
    fn sums_are_those_of_the_records_that_are_there() {
        let remote = key("10.9.9.9:1");
        let mut rng = Rng::new(1);
        let (mut one, mut other) = (Roster::default(), Roster::default());
        let mut truth = BTreeMap::new();
        for epoch in 0..3000 {
            let key = key(&format!("10.0.0.{}:{}", rng.below(9), 1 + rng.below(20)));
            let standing = [Standing::Left, Standing::Leecher, Standing::Seed];
            let record = record(epoch, standing[rng.below(3) as usize], NOBODY);
            one.put(key, record);
            truth.insert(key, record);
        }
        for (&key, &record) in &truth {
            if record.standing.is_here() {
                other.put(key, record);
            }
        }
        assert_eq!(one.sum_for(remote), other.sum_for(remote));
        assert_eq!(one.sum_for(remote).count as usize, one.here().count());
        for bits in 0..=BUCKET_BITS_MAX {
            let sums = one.sums_for(remote, bits);
            assert_eq!(sums, other.sums_for(remote, bits));
            let all = sums.iter().fold(0_u64, |all, sum| all.wrapping_add(*sum));
            assert_eq!(all, one.sum_for(remote).root);
        }
        truth.keys().for_each(|&key| one.remove(key));
        assert_eq!(one.sum_for(remote), Sum::default());
    }

    #[test]
    fn each_end_of_a_link_leaves_itself_and_the_other_out() {
        let (a, b, c) = (key("10.0.0.1:1"), key("10.0.0.2:1"), key("10.0.0.3:1"));
        let (mut at_a, mut at_b) = (Roster::default(), Roster::default());
        at_a.put(b, record(1, Standing::Leecher, NOBODY));
        at_b.put(a, record(2, Standing::Leecher, NOBODY));
        for roster in [&mut at_a, &mut at_b] {
            roster.put(c, record(3, Standing::Seed, NOBODY));
            // Loopback stays on the machine, and in no sum for others.
            roster.put(key("127.0.0.1:7"), record(4, Standing::Seed, NOBODY));
        }
        assert_eq!(at_a.sum_for(b), at_b.sum_for(a));
        assert_eq!(at_a.sum_for(b).count, 1);
        assert_eq!(at_a.sums_for(b, 4), at_b.sums_for(a, 4));
        assert_eq!(at_a.sum_for(key("127.0.0.1:9")).count, 3);
    }

    #[test]
    fn oldest_tombstones_go_first_then_what_one_link_made_up() {
        let mut roster = Roster::default();
        for n in 0..160_u16 {
            let teller = if n < 100 { 1 } else { 2 };
            let key = Key::from(SocketAddr::from(([10, 0, 0, 1], n + 1)));
            roster.put(key, record(n.into(), Standing::Leecher, teller));
        }
        let tomb = key("10.0.0.1:5");
        roster.put(tomb, record(900, Standing::Left, 2));
        roster.prove(key("10.0.0.1:100"));
        roster.thin_out();
        assert_eq!((roster.len(), roster.get(tomb)), (150, None));
        let told = |teller| roster.iter().filter(|(_, r)| r.teller == teller).count();
        assert_eq!((told(1), told(2)), (89, 60), "the worst teller pays");
        assert!(roster.get(key("10.0.0.1:100")).is_some(), "proven");
        assert!(roster.get(key("10.0.0.1:1")).is_some(), "the older");
    }

    #[test]
    fn every_evpeer_has_the_same_chance_in_a_sample() {
        let mut roster = Roster::default();
        for n in 1..=20_u16 {
            let key = Key::from(SocketAddr::from(([10, 0, 0, 1], n)));
            roster.put(key, record(1, Standing::Leecher, NOBODY));
        }
        let mut rng = Rng::new(3);
        let mut counts = [0; 21];
        for _ in 0..2000 {
            let sample = roster.sample(5, &mut rng, |_| true);
            assert_eq!(sample.len(), 5);
            sample
                .iter()
                .for_each(|(key, _)| counts[usize::from(key.port)] += 1);
        }
        let fair = 400..600;
        assert!(
            counts[1..].iter().all(|count| fair.contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn sample_is_of_those_that_are_there_whoever_came_and_went() {
        let mut roster = Roster::default();
        let mut rng = Rng::new(4);
        for n in 0..3000_u32 {
            let key = Key::from(SocketAddr::from(([10, 0, 0, 1], 1 + rng.below(200) as u16)));
            let standing = [Standing::Left, Standing::Leecher, Standing::Seed];
            let standing = standing[rng.below(3) as usize];
            match rng.below(4) {
                0 => roster.remove(key),
                _ => {
                    let is_evpeer = rng.below(4) > 0;
                    let record = record(n.into(), standing, NOBODY);
                    roster.put(
                        key,
                        Record {
                            is_evpeer,
                            ..record
                        },
                    );
                }
            }
        }
        let here = roster.here().filter(|(_, record)| record.is_evpeer);
        let here: Vec<Key> = here.map(|(key, _)| key).collect();
        let mut all = roster.sample(1000, &mut rng, |_| true);
        all.sort_unstable_by_key(|(key, _)| *key);
        assert!(all.iter().map(|(key, _)| *key).eq(here.iter().copied()));
        let one = roster.sample(3, &mut rng, |key| key == here[7]);
        assert_eq!(one.len(), 1, "few looks are enough for a short list");
    }
}
