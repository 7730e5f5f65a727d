//! What links told whose word proved bad: it waits, and is believed when somebody answers there.
//!
//! Whoever makes up peers is found out by its neighbours, which try some of what it tells. From
//! then on they take what it tells for nothing and tell it to nobody, until they have seen it for
//! themselves: so inventions end with the neighbours of who made them up, and the word of those
//! who told them on before they knew counts again with each truth that they tell.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::flush::Item;
use super::roster::{Key, NOBODY, Record};
use super::{Broadcast, Event, LINKS_MAX};
use crate::base::limits::CONNECT_TIMEOUT;
use crate::base::time::Instant;
use crate::wire::ev_peers::NETWORK;

/// Evpeers that wait for a trial, by the links that told of them.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    /// What was said of each in which list, all of it by one link.
    waiting: BTreeMap<(Key, u16), Record>,
    /// Those that were not tried yet, the latest last, by the serial number of the link.
    queues: BTreeMap<u32, VecDeque<Key>>,
    /// Those that are tried, and since when.
    tried: VecDeque<(Instant, Key)>,
    /// The link that had its turn last.
    last_turn: u32,
    /// No trial before this moment.
    rested_at: Instant,
}

impl Unproven {
    /// Keeps what a link says of an address in a list, in the place of the oldest if there are too
    /// many. What others say of it too is not kept: it will be tried anyway.
    fn add(&mut self, list: u16, key: Key, record: Record) {
        match self.teller(key) {
            None => {
                let queue = self.queues.entry(record.teller).or_default();
                queue.push_back(key);
                if queue.len() > WAITING_MAX
                    && let Some(oldest) = queue.pop_front()
                {
                    self.take(oldest);
                }
            }
            Some(teller) if teller != record.teller => return,
            Some(_) => {}
        }
        if self.waiting.len() >= RECORDS_MAX {
            return;
        }
        let known = self.waiting.entry((key, list)).or_insert(record);
        if record.rank() > known.rank() {
            *known = record;
        }
    }

    /// The link that told of an address which waits.
    fn teller(&self, key: Key) -> Option<u32> {
        self.of(key).next().map(|(_, record)| record.teller)
    }

    fn of(&self, key: Key) -> impl Iterator<Item = (u16, Record)> {
        let of_key = self.waiting.range((key, 0)..=(key, u16::MAX));
        of_key.map(|(&(_, list), &record)| (list, record))
    }

    /// Takes out what is said of an address.
    fn take(&mut self, key: Key) -> Vec<(u16, Record)> {
        let said: Vec<_> = self.of(key).collect();
        for (list, record) in &said {
            self.waiting.remove(&(key, *list));
            if let Some(queue) = self.queues.get_mut(&record.teller) {
                queue.retain(|waiting| *waiting != key);
            }
        }
        self.tried.retain(|(_, tried)| *tried != key);
        said
    }

    /// A link has ended: nobody answers for what it said.
    pub(super) fn forget_link(&mut self, serial: u32) {
        self.queues.remove(&serial);
        self.waiting.retain(|_, record| record.teller != serial);
    }

    /// When there is something to do.
    pub(super) fn due(&self) -> Instant {
        let trial = match self.queues.values().any(|queue| !queue.is_empty()) {
            true => self.rested_at,
            false => Instant::NEVER,
        };
        let over = self.tried.front();
        trial.min(over.map_or(Instant::NEVER, |(at, _)| *at + TRIAL_TIME))
    }

    /// Whom to try now: links take turns, so that nobody's inventions come before another's word,
    /// and of each the latest is first.
    fn next_trial(&mut self, now: Instant) -> Option<Key> {
        self.queues.retain(|_, queue| !queue.is_empty());
        if self.rested_at > now {
            return None;
        }
        let after = self.queues.range(self.last_turn.saturating_add(1)..).next();
        let serial = *after.or_else(|| self.queues.first_key_value())?.0;
        self.last_turn = serial;
        self.rested_at = now + TRIAL_PAUSE;
        let key = self.queues.get_mut(&serial)?.pop_back()?;
        self.tried.push_back((now, key));
        Some(key)
    }

    /// An address is not tried now: it is when there is room again, and its link's turn.
    fn put_back(&mut self, key: Key, now: Instant) {
        let Some(place) = self.tried.iter().rposition(|(_, tried)| *tried == key) else {
            return;
        };
        self.tried.remove(place);
        self.rested_at = now + BUSY_PAUSE;
        if let Some(teller) = self.teller(key) {
            self.queues.entry(teller).or_default().push_back(key);
        }
    }

    /// Forgets those whose trial came to nothing.
    fn give_up(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.tried.front()
            && at + TRIAL_TIME <= now
        {
            self.tried.pop_front();
            self.take(key);
        }
    }
}

impl Broadcast {
    /// A link whose word proved bad tells of a stranger: whether that is taken note of.
    pub(super) fn wait_for_proof(&mut self, list: u16, key: Key, record: &Record) -> bool {
        let is_tried = record.is_evpeer && record.standing.is_here();
        if is_tried {
            self.unproven.add(list, key, *record);
        }
        is_tried
    }

    /// Has those tried whose turn it is.
    pub(super) fn try_unproven(&mut self, now: Instant) {
        self.unproven.give_up(now);
        if let Some(key) = self.unproven.next_trial(now) {
            let addr = key.addr();
            self.events.push_back(Event::Doubted { addr });
        }
    }

    /// The address of [`Event::Doubted`] is not tried: too many others are.
    pub fn not_tried(&mut self, addr: SocketAddr, now: Instant) {
        self.unproven.put_back(addr.into(), now);
    }

    /// An address was tried of which something is said that nobody believed. Gives back who said
    /// it.
    pub(super) fn proved(&mut self, key: Key, is_alive: bool, now: Instant) -> Option<u32> {
        let said = self.unproven.take(key);
        let teller = said.first().map(|(_, record)| record.teller);
        if is_alive {
            for (list, record) in said {
                self.believe_proven(list, key, record, now);
            }
        }
        teller
    }

    fn believe_proven(&mut self, list: u16, key: Key, told: Record, now: Instant) {
        let Some(roster) = self.roster(list) else {
            return; // we have left that swarm
        };
        let known = roster.get(key).copied();
        let is_newer = known.is_none_or(|known| told.rank() > known.rank());
        if !is_newer || !self.make_room(list, key) {
            return;
        }
        // That somebody is there says that it is in the network, and no more than that.
        let is_first_hand = list == NETWORK;
        let record = Record {
            changed_s: super::first_hand::seconds(now),
            teller: if is_first_hand { NOBODY } else { told.teller },
            before: known.map(|known| known.standing),
            ..told
        };
        self.roster_mut(list).expect("read above").put(key, record);
        let who = Some(key);
        self.pending.add(Item { list, who }, None);
        self.heard(list, key, &record, is_first_hand);
        if !is_first_hand {
            self.imply_network(key, record, true);
            for item in std::mem::take(&mut self.fresh) {
                self.pending.add(item, None);
            }
        }
    }
}

/// Addresses that wait for each link at most.
const WAITING_MAX: usize = 32;
/// Things said of all of them together, in all lists, at most.
const RECORDS_MAX: usize = 4 * WAITING_MAX * LINKS_MAX;
/// Time between two trials.
const TRIAL_PAUSE: Duration = Duration::from_millis(100);
/// The same when too many wait to be tried.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Time that a trial may take, with its wait for those before it; without an outcome nothing is
/// learned.
const TRIAL_TIME: Duration = Duration::from_secs(60);

const _: () = assert!(TRIAL_TIME.as_secs() > 2 * CONNECT_TIMEOUT.as_secs());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ev_peers::Standing;

    fn key(n: u16) -> Key {
        let [high, low] = n.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 6881)).into()
    }

    fn said_by(teller: u32, epoch: u64) -> Record {
        Record {
            epoch,
            changed_s: 0,
            teller,
            standing: Standing::Leecher,
            before: None,
            is_evpeer: true,
        }
    }

    #[test]
    fn links_take_turns_and_each_has_its_own_room() {
        let mut unproven = Unproven::default();
        for n in 0..100 {
            unproven.add(NETWORK, key(n), said_by(1, 5));
        }
        unproven.add(NETWORK, key(500), said_by(2, 5));
        unproven.add(3, key(500), said_by(2, 5));
        unproven.add(3, key(500), said_by(1, 6)); // after the other
        assert_eq!(unproven.waiting.len(), WAITING_MAX + 2);
        let mut now = Instant::ZERO;
        let mut tried = Vec::new();
        while let Some(key) = unproven.next_trial(now) {
            assert_eq!(unproven.next_trial(now), None, "one at a time");
            tried.push(key);
            now += TRIAL_PAUSE;
        }
        assert_eq!(tried[..3], [key(99), key(500), key(98)]);
        assert_eq!(tried.len(), WAITING_MAX + 1);
        let said = unproven.take(key(500));
        assert_eq!(said, [(NETWORK, said_by(2, 5)), (3, said_by(2, 5))]);
    }

    #[test]
    fn number_of_things_said_is_bounded() {
        let mut unproven = Unproven::default();
        for teller in 0..2 * LINKS_MAX as u32 {
            for n in 0..WAITING_MAX as u16 {
                let key = key(n + 100 * teller as u16);
                (0..10).for_each(|list| unproven.add(list, key, said_by(teller, 5)));
            }
        }
        assert_eq!(unproven.waiting.len(), RECORDS_MAX);
        (0..2 * LINKS_MAX as u32).for_each(|teller| unproven.forget_link(teller));
        assert!(unproven.waiting.is_empty());
    }

    #[test]
    fn who_is_not_tried_waits_on() {
        let mut unproven = Unproven::default();
        let mut now = Instant::ZERO;
        unproven.add(NETWORK, key(1), said_by(1, 5));
        unproven.add(NETWORK, key(2), said_by(1, 5));
        assert_eq!(unproven.next_trial(now), Some(key(2)));
        unproven.put_back(key(2), now);
        assert_eq!(
            (unproven.next_trial(now), unproven.due()),
            (None, now + BUSY_PAUSE)
        );
        now += BUSY_PAUSE;
        assert_eq!(unproven.next_trial(now), Some(key(2)));
        now += TRIAL_PAUSE;
        assert_eq!(unproven.next_trial(now), Some(key(1)));
        unproven.take(key(2));
        unproven.add(NETWORK, key(2), said_by(1, 9));
        unproven.give_up(now + TRIAL_TIME);
        let left: Vec<_> = unproven.waiting.keys().collect();
        assert_eq!(left, [&(key(2), NETWORK)], "told anew");
    }

    #[test]
    fn nothing_is_kept_of_who_did_not_answer_and_of_links_that_ended() {
        let mut unproven = Unproven::default();
        let mut now = Instant::ZERO + TRIAL_PAUSE;
        for n in 0..3 {
            unproven.add(NETWORK, key(n), said_by(1, 5));
        }
        unproven.add(NETWORK, key(9), said_by(7, 5));
        assert_eq!(unproven.due(), Instant::ZERO);
        for _ in 0..3 {
            assert!(unproven.next_trial(now).is_some());
            now += TRIAL_PAUSE;
        }
        unproven.forget_link(1);
        assert_eq!(unproven.waiting.len(), 1, "what the other said");
        while unproven.due() != Instant::NEVER {
            now = unproven.due().max(now);
            unproven.give_up(now);
            unproven.next_trial(now);
        }
        assert!(unproven.waiting.is_empty() && unproven.tried.is_empty());
        unproven.next_trial(now);
        assert!(unproven.queues.is_empty());
    }
}
