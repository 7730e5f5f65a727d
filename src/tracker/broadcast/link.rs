//! One link to another evpeer: what both sides proved, and what the other side may cost us.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::repair::Repair;
use super::roster::Key;
use super::{LIST_LEN_MAX, Violation};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::wire::ev_peers::{Membership, NETWORK, Salt, Tag};

/// A link, from our first hello to its end.
#[derive(Debug)]
pub(super) struct Link {
    pub id: ConnId,
    /// Never used again: records name their teller by it.
    pub serial: u32,
    pub remote: SocketAddr,
    pub remote_key: Key,
    pub our_salt: Salt,
    pub met: Option<Met>,
    /// Swarms that the other side named, by its handles.
    named: BTreeMap<u16, Membership>,
    by_tag: BTreeMap<Tag, u16>,
    /// Of these, the swarms that we are in too: its handle and ours.
    common: BTreeMap<u16, u16>,
    /// Our handles of those.
    pub shared: BTreeSet<u16>,
    pub bytes_in: Allowance,
    /// New addresses and departures of others that it may tell unasked.
    pub strangers: Allowance,
    /// The same as news, while nothing that it told is proven.
    pub first_news: Allowance,
    /// The same in answer to us.
    pub answers: Allowance,
    /// Records that we walk over to compare lists with it.
    pub walks: Allowance,
    pub trust: Trust,
    pub repairs: BTreeMap<u16, Repair>,
}

/// What the other side's hello said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    pub salt: Salt,
    /// Its wall clock less ours, milliseconds.
    pub skew_ms: i64,
}

/// How much of what a link told was so.
#[derive(Debug)]
pub(super) struct Trust {
    since: Instant,
    told: u32,
    untrue: u32,
    alive: u32,
    dead: u32,
    /// Hosts of the dead addresses: one with many ports is one.
    dead_ips: BTreeSet<IpAddr>,
    unproven: u32,
    doubted_at: Option<Instant>,
}

/// So much at once, and so much a second.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
    most: u64,
    per_sec: u64,
    /// Up to when `left` was filled.
    at: Instant,
}

impl Link {
    pub fn new(id: ConnId, serial: u32, remote: SocketAddr, our_salt: Salt, now: Instant) -> Self {
        Self {
            id,
            serial,
            remote,
            remote_key: remote.into(),
            our_salt,
            met: None,
            named: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            common: BTreeMap::new(),
            shared: BTreeSet::new(),
            bytes_in: Allowance::new(BYTES_MAX, BYTES_MAX, BYTES_S, now),
            strangers: Allowance::new(STRANGERS_FIRST, STRANGERS_MAX, STRANGERS_S, now),
            first_news: Allowance::new(UNPROVEN_MAX, UNPROVEN_MAX, UNPROVEN_S, now),
            answers: Allowance::new(ANSWERS_MAX, ANSWERS_MAX, STRANGERS_S, now),
            walks: Allowance::new(WALKED_MAX, WALKED_MAX, WALKED_S, now),
            trust: Trust::new(now),
            repairs: BTreeMap::new(),
        }
    }

    /// Our handle of the list that the other side calls `theirs`.
    pub fn list(&self, theirs: u16) -> Option<u16> {
        if theirs == NETWORK {
            return Some(NETWORK);
        }
        self.common.get(&theirs).copied()
    }

    /// Whether both sides have this list of ours.
    pub fn shares(&self, list: u16) -> bool {
        list == NETWORK || self.shared.contains(&list)
    }

    /// The other side names a swarm.
    pub fn name(&mut self, membership: Membership) -> Result<(), Violation> {
        self.forget(membership.handle);
        if self.named.len() >= SWARMS_MAX {
            return Err(Violation::TooManySwarms);
        }
        self.named.insert(membership.handle, membership);
        self.by_tag.insert(membership.tag, membership.handle);
        Ok(())
    }

    /// The other side left a swarm; says which of ours it was.
    pub fn forget(&mut self, theirs: u16) -> Option<u16> {
        if let Some(membership) = self.named.remove(&theirs) {
            self.by_tag.remove(&membership.tag);
        }
        let ours = self.common.remove(&theirs)?;
        self.shared.remove(&ours);
        self.repairs.remove(&ours);
        Some(ours)
    }

    /// The swarm that the other side named by `tag`.
    pub fn named_by(&self, tag: &Tag) -> Option<&Membership> {
        self.named.get(self.by_tag.get(tag)?)
    }

    /// If the other side named a swarm by `tag`, which we call `ours`, and this is new, it is
    /// common from now on.
    pub fn match_tag(&mut self, tag: &Tag, ours: u16) -> Option<Membership> {
        let theirs = *self.by_tag.get(tag)?;
        self.common.insert(theirs, ours);
        let is_new = self.shared.insert(ours);
        is_new.then(|| self.named[&theirs])
    }

    /// We left the swarm `ours`.
    pub fn unshare(&mut self, ours: u16) {
        self.shared.remove(&ours);
        self.repairs.remove(&ours);
        self.common.retain(|_, list| *list != ours);
    }
}

impl Trust {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            told: 0,
            untrue: 0,
            alive: 0,
            dead: 0,
            dead_ips: BTreeSet::new(),
            unproven: 0,
            doubted_at: None,
        }
    }

    /// The link told something, new or the latest that is known.
    pub fn told(&mut self) {
        self.told += 1;
        if self.told >= TOLD_REMEMBERED {
            self.told /= 2;
            self.untrue /= 2;
        }
    }

    /// What the link told turned out not to be so.
    pub fn untrue(&mut self) {
        self.untrue += 1;
    }

    /// An address that the link told was tried. A host that is said to have many ports counts
    /// once: the honest tell such lies on, and dial few of them.
    pub fn tried(&mut self, ip: IpAddr, is_alive: bool) {
        if is_alive {
            self.alive += 1;
        } else if self.dead_ips.insert(ip) {
            self.dead += 1;
        }
        if self.alive + self.dead >= TRIED_REMEMBERED {
            self.alive /= 2;
            self.dead /= 2;
            self.dead_ips.clear();
        }
    }

    /// One more address that nobody proved; says whether this one should be tried.
    pub fn doubts(&mut self, now: Instant) -> bool {
        self.unproven += 1;
        // After a first dead one more is known soon.
        let (most, pause) = match self.dead > self.alive {
            true => (1, DOUBT_PAUSE_SHORT),
            false => (UNPROVEN_TO_DOUBT, DOUBT_PAUSE),
        };
        let rested = self.doubted_at.is_none_or(|at| now - at >= pause);
        let doubts = self.unproven >= most && rested;
        if doubts {
            self.unproven = 0;
            self.doubted_at = Some(now);
        }
        doubts
    }

    /// Whether some of what the other side told turned out to be there, and not less than did not.
    pub fn is_proven(&self) -> bool {
        self.alive > 0 && self.alive >= self.dead
    }

    /// Whether more than a few of the addresses that it told were dead when they were tried, and
    /// more than were not: what it tells of strangers has to be seen to be believed.
    pub fn is_disproven(&self) -> bool {
        self.dead >= DISPROVEN_MIN && self.dead > self.alive
    }

    /// Whether hardly any of the many addresses that it told was alive. Who told the inventions of
    /// others on, until it knew them, has told fewer.
    pub fn is_worthless(&self) -> bool {
        self.dead >= WORTHLESS_MIN && self.dead > 4 * self.alive
    }

    /// Addresses that the link told and that were dead when tried.
    pub fn dead(&self) -> u32 {
        self.dead
    }

    /// Whether the other side is better not believed; `typical` are the dead addresses of a link
    /// like ours.
    ///
    /// An honest host that relays the lies of others relays their refutations too, and the rest of
    /// the news: not nearly all that it tells is untrue. Old links are given more time, so that
    /// the liar's own neighbour, to whom it is mostly new, acts before those behind that. Dead
    /// addresses are told by the honest too, until they know better ([`Trust::is_disproven`]): a
    /// link is ended for that if there are many, hardly any others, and many more than the other
    /// links told.
    pub fn is_gone(&self, typical: u32, now: Instant) -> bool {
        let minutes = (now - self.since).as_secs() / 60;
        let patience = 1 + minutes.min(PATIENCE_MAX) as u32;
        let tells_lies = self.untrue >= UNTRUE_MIN * patience && 20 * self.untrue > 17 * self.told;
        let dead = u64::from(self.dead);
        let is_odd = dead > 8 * u64::from(self.alive) && dead > 3 * u64::from(typical);
        let makes_up = self.dead >= DEAD_MIN && is_odd;
        tells_lies || makes_up
    }
}

impl Allowance {
    fn new(first: u64, most: u64, per_sec: u64, now: Instant) -> Self {
        let scale = MICROS_S;
        Self {
            left: first * scale,
            most: most * scale,
            per_sec,
            at: now,
        }
    }

    /// Takes `count`, if so much is left.
    pub fn take(&mut self, count: usize, now: Instant) -> bool {
        let passed = now.as_micros().saturating_sub(self.at.as_micros());
        let filled = passed.saturating_mul(self.per_sec);
        self.left = self.left.saturating_add(filled).min(self.most);
        self.at = self.at.max(now);
        let cost = count as u64 * MICROS_S;
        let may = self.left >= cost;
        if may {
            self.left -= cost;
        }
        may
    }
}

const MICROS_S: u64 = 1_000_000;

/// Swarms that one link may name at most.
pub(super) const SWARMS_MAX: usize = 4096;
/// Bytes that may come in on a link at once, and in a second. Ours are at most a flush of some
/// 16 KiB ten times a second and as much for repairs.
const BYTES_MAX: u64 = 1024 * 1024;
const BYTES_S: u64 = 256 * 1024;
/// Strangers that a new link may tell of at once, an old one, and how many a second. 5,000 joins
/// in a minute are 83 a second, over all links.
const STRANGERS_FIRST: u64 = 256;
const STRANGERS_MAX: u64 = 4096;
const STRANGERS_S: u64 = 32;
/// Strangers that a link may tell of as news at once, and in a second, before any of them is
/// proven: so liars in number do not take the room of those who tell of a newcomer.
const UNPROVEN_MAX: u64 = 16;
const UNPROVEN_S: u64 = 2;
/// Strangers in answers to us at once: a whole network for one that comes new to it.
const ANSWERS_MAX: u64 = 8192;
/// Records walked over at once to compare lists with the other side, and in a second: to compare
/// two of the longest lists takes a dozen rounds of two walks, a fraction of a second.
const WALKED_MAX: u64 = 512 * 1024;
const WALKED_S: u64 = 32 * 1024;

/// News after which older ones count half.
const TOLD_REMEMBERED: u32 = 1024;
/// Minutes of a link's age that add to our patience at most.
const PATIENCE_MAX: u64 = 10;
/// Untrue news before a new link may lose its credit: some are bad luck.
const UNTRUE_MIN: u32 = 24;
/// Tried addresses after which older ones count half.
const TRIED_REMEMBERED: u32 = 256;
/// Dead addresses before a link is ended for them.
const DEAD_MIN: u32 = 64;
/// Dead addresses before a link makes room for another.
const WORTHLESS_MIN: u32 = 16;
/// Dead addresses before the word of a link counts for nothing.
const DISPROVEN_MIN: u32 = 4;
/// New unproven addresses after which one is tried.
const UNPROVEN_TO_DOUBT: u32 = 8;
/// Time between two trials because of one link.
const DOUBT_PAUSE: Duration = Duration::from_secs(2);
/// The same while most of what was tried was dead.
const DOUBT_PAUSE_SHORT: Duration = Duration::from_millis(250);

const _: () = assert!(UNTRUE_MIN * (PATIENCE_MAX as u32 + 1) < TOLD_REMEMBERED / 2);
const _: () = assert!(DEAD_MIN < TRIED_REMEMBERED / 2);
const _: () = assert!(WALKED_MAX >= 16 * 2 * LIST_LEN_MAX as u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ev_peers::Standing;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn allowance_is_spent_at_once_and_comes_back_by_the_second() {
        let mut now = Instant::ZERO;
        let mut allowance = Allowance::new(3, 5, 2, now);
        assert!(allowance.take(2, now) && allowance.take(1, now) && !allowance.take(1, now));
        now += Duration::from_millis(500);
        assert!(allowance.take(1, now) && !allowance.take(1, now));
        now += Duration::from_secs(3600);
        assert!(allowance.take(5, now) && !allowance.take(1, now));
    }

    #[test]
    fn liar_loses_its_credit_and_who_relays_it_does_not() {
        let now = Instant::ZERO;
        let later = now + Duration::from_secs(3600);
        for (at, patience) in [(now, 1), (later, 1 + PATIENCE_MAX as u32)] {
            let (mut liar, mut relay) = (Trust::new(now), Trust::new(now));
            let mut lies = 0;
            while !liar.is_gone(0, at) {
                liar.told();
                liar.untrue();
                lies += 1;
            }
            assert_eq!(lies, patience * UNTRUE_MIN);
            for round in 0..10_000 {
                // A lie, and of every other one the refutation.
                relay.told();
                relay.untrue();
                (0..round % 2).for_each(|_| relay.told());
                assert!(!relay.is_gone(0, at));
            }

            let (mut liar, mut relay) = (Trust::new(at), Trust::new(now));
            for n in 0..DEAD_MIN {
                for _port in 0..100 {
                    assert!(!liar.is_gone(0, at) || n == DEAD_MIN - 1);
                    liar.tried(ip(n), false);
                    assert_eq!(liar.is_disproven(), n + 1 >= DISPROVEN_MIN);
                }
            }
            assert!(liar.is_gone(0, at) && !liar.is_proven());
            assert!(!liar.is_gone(DEAD_MIN, at), "the others are as bad");
            for round in 0..1000 {
                relay.tried(ip(round), round % 3 == 0);
                assert!(!relay.is_gone(0, at));
            }
            assert!(!relay.is_proven());
            (0..1000).for_each(|round| relay.tried(ip(round), round % 3 != 0));
            assert!(relay.is_proven());
        }
    }

    #[test]
    fn number_of_named_swarms_is_bounded() {
        let id = ConnId {
            index: 0,
            generation: 0,
        };
        let remote = ([10, 0, 0, 1], 1).into();
        let mut link = Link::new(id, 1, remote, [0; 16], Instant::ZERO);
        let membership = |handle: u16| Membership {
            handle,
            standing: Standing::Seed,
            epoch: 1,
            tag: u64::from(handle).to_be_bytes(),
        };
        for handle in 1..=SWARMS_MAX as u16 {
            assert_eq!(link.name(membership(handle)), Ok(()));
            assert_eq!(link.name(membership(handle)), Ok(()), "named again");
        }
        let one_more = link.name(membership(u16::MAX));
        assert_eq!(one_more, Err(Violation::TooManySwarms));
        assert_eq!(link.match_tag(&1_u64.to_be_bytes(), 9), Some(membership(1)));
        assert_eq!(link.match_tag(&1_u64.to_be_bytes(), 9), None, "not new");
        assert_eq!(
            (link.list(1), link.list(2), link.list(0)),
            (Some(9), None, Some(0))
        );
        assert_eq!(link.forget(1), Some(9));
        assert!(!link.shares(9) && link.shares(NETWORK));
    }
}
