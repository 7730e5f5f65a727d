//! Addresses of evpeers, and which of them may be dialled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::address::{Interfaces, Scope, scope};
use crate::base::rng::Rng;
use crate::base::time::Instant;

/// What is known of the network, as far as links need it: a fair sample, not a list.
#[derive(Debug)]
pub(super) struct Addresses {
    interfaces: Option<Interfaces>,
    sample: Vec<SocketAddr>,
    places: BTreeMap<SocketAddr, usize>,
    /// Where somebody answered, the latest last.
    met: VecDeque<SocketAddr>,
    /// How many evpeers there are, as far as we were told.
    present: usize,
    /// When the sample may be filled up again.
    refill_at: Instant,
    /// Not to be dialled before this moment.
    paused: Waiting,
    /// Whose word was not worth a link.
    barred: Waiting,
    /// For how long they were barred last, as it grows.
    bars: BTreeMap<SocketAddr, (Duration, Instant)>,
    /// Dials in vain by IP address, and since when they are counted.
    vain: BTreeMap<IpAddr, (u32, Instant)>,
    /// When it was last searched for what is over.
    vain_swept: Instant,
}

/// Addresses that wait, each until a moment; of too many, who waits least is let go.
#[derive(Debug)]
struct Waiting {
    until: BTreeMap<SocketAddr, Instant>,
    order: BTreeSet<(Instant, SocketAddr)>,
    most: usize,
}

impl Addresses {
    pub fn new() -> Self {
        Self {
            interfaces: None,
            sample: Vec::new(),
            places: BTreeMap::new(),
            met: VecDeque::new(),
            present: 0,
            refill_at: Instant::ZERO,
            paused: Waiting::new(PAUSED_MAX),
            barred: Waiting::new(BARRED_MAX),
            bars: BTreeMap::new(),
            vain: BTreeMap::new(),
            vain_swept: Instant::ZERO,
        }
    }

    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = Some(interfaces.clone());
    }

    /// So many evpeers are there.
    pub fn counted(&mut self, present: usize) {
        self.present = present;
    }

    /// An evpeer is there; says whether it is in the sample. In a large network each has the same
    /// chance to be.
    pub fn heard(&mut self, addr: SocketAddr, rng: &mut Rng) -> bool {
        if self.places.contains_key(&addr) {
            return true;
        }
        let of = u32::try_from(self.present).unwrap_or(u32::MAX);
        if self.sample.len() >= SAMPLE_MAX {
            if rng.below(of.max(1)) as usize >= SAMPLE_MAX {
                return false;
            }
            let place = rng.below(SAMPLE_MAX as u32) as usize;
            self.remove(self.sample[place]);
        }
        self.add(addr);
        true
    }

    /// Takes addresses from a fair sample of all; says whether one of them is new.
    pub fn refill(&mut self, addrs: impl IntoIterator<Item = SocketAddr>, now: Instant) -> bool {
        self.refill_at = now + REFILL_PAUSE;
        self.sweep_vain(now);
        let before = self.sample.len();
        for addr in addrs {
            let has_room = self.sample.len() < SAMPLE_MAX && !self.places.contains_key(&addr);
            if has_room && !self.is_barred(addr, now) {
                self.add(addr);
            }
        }
        self.sample.len() > before
    }

    pub fn remove(&mut self, addr: SocketAddr) {
        if let Some(place) = self.places.remove(&addr) {
            self.sample.swap_remove(place);
            if let Some(moved) = self.sample.get(place) {
                self.places.insert(*moved, place);
            }
        }
    }

    /// Nobody is at `addr` any more, which is sure.
    pub fn forget(&mut self, addr: SocketAddr) {
        self.met.retain(|known| *known != addr);
        self.remove(addr);
    }

    pub fn present(&self) -> usize {
        self.present
    }

    /// When the sample shall be filled up: never, unless it is small although there are more.
    pub fn refill_at(&self) -> Instant {
        let is_short = self.sample.len() < SAMPLE_LOW.min(self.present);
        if is_short {
            self.refill_at
        } else {
            Instant::NEVER
        }
    }

    /// One of the sample at random.
    pub fn any(&self, rng: &mut Rng) -> Option<SocketAddr> {
        let count = u32::try_from(self.sample.len())
            .ok()
            .filter(|count| *count > 0)?;
        self.sample.get(rng.below(count) as usize).copied()
    }

    /// One of the sample at random, of those that may be dialled and `fits` accepts.
    pub fn draw(
        &self,
        rng: &mut Rng,
        now: Instant,
        fits: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let count = self.sample.len();
        if count == 0 {
            return None;
        }
        let start = rng.below(count as u32) as usize;
        let order = (0..count).map(|step| self.sample[(start + step) % count]);
        let mut order = order.filter(|&addr| self.may_dial(addr, now) && fits(addr));
        order.next()
    }

    /// The same of those where somebody answered: nobody can make up these.
    pub fn draw_met(
        &self,
        rng: &mut Rng,
        now: Instant,
        fits: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let fitting = self.met.iter().copied();
        let fitting = fitting.filter(|&addr| self.may_dial(addr, now) && fits(addr));
        let fitting: Vec<_> = fitting.collect();
        let count = fitting.len() as u32;
        (count > 0).then(|| fitting[rng.below(count) as usize])
    }

    /// Somebody answered at `addr`.
    pub fn met(&mut self, addr: SocketAddr) {
        self.met.retain(|known| *known != addr);
        if self.met.len() >= MET_MAX {
            self.met.pop_front();
        }
        self.met.push_back(addr);
        self.resume(addr);
    }

    pub fn may_dial(&self, addr: SocketAddr, now: Instant) -> bool {
        !self.paused.has(addr, now) && !self.is_barred(addr, now) && self.vain_left(addr.ip(), now)
    }

    pub fn is_barred(&self, addr: SocketAddr, now: Instant) -> bool {
        self.barred.has(addr, now)
    }

    /// `addr` is not to be dialled before `until`.
    pub fn pause(&mut self, addr: SocketAddr, until: Instant) {
        self.paused.insert(addr, until);
    }

    /// `addr` is alive and well.
    pub fn resume(&mut self, addr: SocketAddr) {
        self.paused.remove(addr);
    }

    /// No link with `addr` for a while, which grows from time to time.
    pub fn bar(&mut self, addr: SocketAddr, now: Instant) {
        self.bars.retain(|_, (_, at)| now - *at < BARS_REMEMBERED);
        if self.bars.len() >= BARRED_MAX {
            self.bars.pop_first();
        }
        let last = self
            .bars
            .get(&addr)
            .map_or(BAR_MIN / 2, |(pause, _)| *pause);
        let pause = (last * 2).min(BAR_MAX);
        self.bars.insert(addr, (pause, now));
        self.barred.insert(addr, now + pause);
        self.remove(addr);
    }

    /// When an address that is paused may be dialled again.
    pub fn next_resumed(&self, now: Instant) -> Instant {
        self.paused.next(now)
    }

    /// An address is dialled, which is in vain until the opposite is known: those that are under
    /// way count.
    pub fn dialled(&mut self, addr: SocketAddr, now: Instant) {
        self.sweep_vain(now);
        if self.vain.len() < VAIN_IPS_MAX || self.vain.contains_key(&addr.ip()) {
            let (count, since) = self.vain.entry(addr.ip()).or_insert((0, now));
            if now - *since >= VAIN_WINDOW {
                (*count, *since) = (0, now);
            }
            *count += 1;
        }
    }

    /// Makes room in the table of what was in vain.
    fn sweep_vain(&mut self, now: Instant) {
        if self.vain.len() >= VAIN_IPS_MAX && now >= self.vain_swept + VAIN_SWEEP {
            self.vain.retain(|_, (_, since)| now - *since < VAIN_WINDOW);
            self.vain_swept = now;
        }
    }

    /// A dial was not in vain, or was not made.
    pub fn not_in_vain(&mut self, ip: IpAddr) {
        if let Some((count, _)) = self.vain.get_mut(&ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.vain.remove(&ip);
            }
        }
    }

    /// Whether one more dial of this IP address may be in vain.
    fn vain_left(&self, ip: IpAddr, now: Instant) -> bool {
        let interfaces = self.interfaces.as_ref();
        let is_on_link = interfaces.is_none_or(|interfaces| interfaces.is_on_link(ip));
        let most = match scope(ip) {
            Scope::Loopback => return true,
            _ if is_on_link => VAIN_ON_LINK_MAX,
            _ => VAIN_OFF_LINK_MAX,
        };
        match self.vain.get(&ip) {
            Some((count, since)) => *count < most || now - *since >= VAIN_WINDOW,
            // Too many IP addresses to count: strangers off our links have to wait.
            None => is_on_link || self.vain.len() < VAIN_IPS_MAX,
        }
    }

    fn add(&mut self, addr: SocketAddr) {
        self.places.insert(addr, self.sample.len());
        self.sample.push(addr);
    }
}

impl Waiting {
    fn new(most: usize) -> Self {
        Self {
            until: BTreeMap::new(),
            order: BTreeSet::new(),
            most,
        }
    }

    fn has(&self, addr: SocketAddr, now: Instant) -> bool {
        self.until.get(&addr).is_some_and(|until| *until > now)
    }

    fn insert(&mut self, addr: SocketAddr, until: Instant) {
        self.remove(addr);
        if self.until.len() >= self.most
            && let Some((_, first)) = self.order.pop_first()
        {
            self.until.remove(&first);
        }
        self.until.insert(addr, until);
        self.order.insert((until, addr));
    }

    fn remove(&mut self, addr: SocketAddr) {
        if let Some(until) = self.until.remove(&addr) {
            self.order.remove(&(until, addr));
        }
    }

    /// When the next of them has waited long enough.
    fn next(&self, now: Instant) -> Instant {
        let least = (now + Duration::from_micros(1), ([0; 4], 0).into());
        let next = self.order.range(least..).next();
        next.map_or(Instant::NEVER, |(until, _)| *until)
    }
}

/// Addresses in the sample at most; a smaller network is in it as a whole.
const SAMPLE_MAX: usize = 512;
/// Addresses where somebody answered that are remembered at most.
const MET_MAX: usize = 64;
/// Addresses in it below which the owner may name some more.
const SAMPLE_LOW: usize = 64;
/// Time before it may be filled up again: some of those that are there may be barred.
const REFILL_PAUSE: Duration = Duration::from_secs(10);
/// Addresses that wait at most.
const PAUSED_MAX: usize = 512;
/// Addresses that are barred at most.
const BARRED_MAX: usize = 1024;
/// For how long an address is barred at first, and at most: among many liars those who relay are
/// taken for some, and shall not fall apart for that.
const BAR_MIN: Duration = Duration::from_secs(30);
const BAR_MAX: Duration = Duration::from_secs(3600);
/// How long it is remembered that an address was barred.
const BARS_REMEMBERED: Duration = Duration::from_secs(2 * 3600);
/// Dials in vain of one IP address within [`VAIN_WINDOW`] at most (R54 off our links; hosts on our
/// links have many ports, of peers that are gone).
const VAIN_OFF_LINK_MAX: u32 = 3;
const VAIN_ON_LINK_MAX: u32 = 16;
const VAIN_WINDOW: Duration = Duration::from_secs(600);
/// Time between two searches for what may be forgotten of that, when there is no room.
const VAIN_SWEEP: Duration = Duration::from_secs(1);
/// IP addresses for which that is counted at most.
const VAIN_IPS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Interface;

    fn addr(n: u32) -> SocketAddr {
        let [_, b, c, d] = n.to_be_bytes();
        ([10, b, c, d], 6881).into()
    }

    #[test]
    fn every_address_has_the_same_chance_to_be_in_the_sample() {
        let mut first = 0;
        for rng_seed in 0..40 {
            let mut rng = Rng::new(rng_seed);
            let mut addresses = Addresses::new();
            for n in 0..5120 {
                addresses.counted(n as usize + 1);
                addresses.heard(addr(n), &mut rng);
            }
            assert_eq!(addresses.sample.len(), SAMPLE_MAX);
            let sample = addresses.sample.iter();
            first += sample.filter(|a| **a < addr(512)).count();
        }
        // A tenth of them came first, and a tenth of the sample is of these.
        assert!(
            (1600..2500).contains(&first),
            "{first} of {}",
            40 * SAMPLE_MAX
        );
    }

    #[test]
    fn sample_forgets_who_departed() {
        let mut rng = Rng::new(1);
        let mut addresses = Addresses::new();
        (0..100).for_each(|n| assert!(addresses.heard(addr(n), &mut rng)));
        (0..99).for_each(|n| addresses.remove(addr(n)));
        assert_eq!(addresses.sample, [addr(99)]);
        assert_eq!(
            addresses.draw(&mut rng, Instant::ZERO, |_| true),
            Some(addr(99))
        );
        addresses.counted(1);
        assert_eq!(addresses.refill_at(), Instant::NEVER);
        addresses.counted(2);
        assert_eq!(addresses.refill_at(), Instant::ZERO);
        assert!(!addresses.refill([addr(99)], Instant::ZERO));
        assert_eq!(addresses.refill_at(), Instant::ZERO + REFILL_PAUSE);
        assert!(addresses.refill([addr(98)], Instant::ZERO));
    }

    /// R54, and its like for our own links.
    #[test]
    fn dials_in_vain_of_one_ip_address_are_few() {
        let mut addresses = Addresses::new();
        addresses.interfaces_found(&Interfaces::new(vec![Interface {
            index: 1,
            ip: [10, 0, 0, 1].into(),
            prefix_len: 8,
        }]));
        for (ip, most) in [
            ([93, 184, 215, 14], 3),
            ([10, 1, 1, 1], 16),
            ([127, 0, 0, 1], 500),
        ] {
            let mut now = Instant::ZERO;
            for round in 0..3 {
                let mut dials = 0;
                for port in 1000..1500 {
                    let victim = (ip, port + 500 * round).into();
                    if addresses.may_dial(victim, now) {
                        dials += 1;
                        addresses.dialled(victim, now);
                    }
                }
                assert_eq!(dials, most, "{ip:?}");
                now += VAIN_WINDOW;
            }
        }
    }

    #[test]
    fn tables_are_bounded() {
        let mut addresses = Addresses::new();
        addresses.interfaces_found(&Interfaces::default());
        let now = Instant::ZERO;
        for n in 0..5000 {
            addresses.met(addr(n));
            addresses.pause(addr(n), now + Duration::from_secs(u64::from(n) + 1));
            addresses.bar(addr(n), now);
            addresses.dialled(addr(n), now);
        }
        assert_eq!(addresses.met.len(), MET_MAX);
        assert_eq!(addresses.paused.until.len(), PAUSED_MAX);
        assert_eq!(addresses.paused.order.len(), PAUSED_MAX);
        assert_eq!(addresses.barred.until.len(), BARRED_MAX);
        assert_eq!(addresses.bars.len(), BARRED_MAX);
        assert_eq!(addresses.vain.len(), VAIN_IPS_MAX);
        assert!(
            !addresses.may_dial(addr(9999), now),
            "nobody counts its dials"
        );
    }
}
