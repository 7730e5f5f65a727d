//! News on their way out: gathered, paced, encoded once, shared.
//!
//! What is pending are names, not contents: an entry that changes twice before it leaves, leaves
//! once. For each link the entries are chosen that it may hear of and did not tell itself; links
//! with the same choice share one encoding. In a burst of joins that is mostly one encoding for all
//! links but those that the joins came from.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::roster::Key;
use super::{Broadcast, LINKS_MAX};
use crate::base::address::may_be_told;
use crate::base::time::Instant;
use crate::wire::ev_peers::{
    EntriesWriter, Entry, Membership, NETWORK, SWARMS_IN_BODY_MAX, Standing, Swarms, Tag, Why, tag,
};

/// What there is news of: a peer in a list, or ourselves in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub list: u16,
    pub who: Option<Key>,
}

/// News that have not left yet, oldest first. Bounded by the lists: an item is in it once.
#[derive(Debug, Default)]
pub(super) struct Pending {
    order: VecDeque<Item>,
    /// By which links each item came, one bit a link.
    told_by: BTreeMap<Item, u32>,
    /// Swarms that we joined or left, with our epoch there.
    swarms: BTreeMap<u16, u64>,
}

/// What somebody says of the other end of a link, who shall hear it and knows better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rumour {
    pub slot: usize,
    pub list: u16,
    pub entry: Entry,
}

/// When news may leave: at once after quiet, else after a window that grows under load.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    window: Duration,
}

/// An item with its content.
#[derive(Clone, Copy)]
struct Told {
    item: Item,
    told_by: u32,
    addr: Option<SocketAddr>,
    entry: Entry,
    /// The address was known before, here and so elsewhere too, or elsewhere perhaps.
    is_again: bool,
}

impl Pending {
    /// There is news of `item`, told by the link in `slot` if by any.
    pub fn add(&mut self, item: Item, slot: Option<usize>) {
        let told_by = slot.map_or(0, |slot| 1 << slot);
        if self.told_by.insert(item, told_by).is_none() {
            self.order.push_back(item);
        }
    }

    /// The link in `slot` told it too.
    pub fn repeated(&mut self, item: Item, slot: usize) {
        if let Some(told_by) = self.told_by.get_mut(&item) {
            *told_by |= 1 << slot;
        }
    }

    /// We joined or left a swarm.
    pub fn swarm(&mut self, list: u16, epoch: u64) {
        self.swarms.insert(list, epoch);
    }

    /// The link in `slot` is gone, and the slot free for another.
    pub fn forget_link(&mut self, slot: usize) {
        self.told_by
            .values_mut()
            .for_each(|told_by| *told_by &= !(1 << slot));
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.swarms.is_empty()
    }

    /// The oldest `most` items, sorted, with the links that told them.
    fn take(&mut self, most: usize) -> Vec<(Item, u32)> {
        let count = self.order.len().min(most);
        let taken = self.order.drain(..count);
        let mut items: Vec<_> = taken
            .filter_map(|item| Some((item, self.told_by.remove(&item)?)))
            .collect();
        items.sort_unstable();
        items
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: None,
            window: WINDOW_MIN,
        }
    }
}

impl Pace {
    /// When the next flush may be.
    pub fn due(&self) -> Instant {
        self.last.map_or(Instant::ZERO, |last| last + self.window)
    }

    fn flushed(&mut self, count: usize, now: Instant) {
        self.last = Some(now);
        self.window = if count > BUSY {
            (self.window * 2).min(WINDOW_MAX)
        } else {
            (self.window / 2).max(WINDOW_MIN)
        };
    }
}

impl Broadcast {
    /// Whether news shall leave now.
    pub(super) fn news_due(&self, now: Instant) -> bool {
        let is_news = !self.pending.is_empty() || !self.rumours.is_empty();
        is_news && self.pace.due() <= now
    }

    /// Sends what is pending, as much as one flush may hold.
    pub(super) fn flush(&mut self, now: Instant) {
        let swarms = std::mem::take(&mut self.pending.swarms);
        self.tell_swarms(&swarms);
        let rumours = std::mem::take(&mut self.rumours);
        for rumour in rumours {
            let mut writer = EntriesWriter::entries(Why::News, rumour.entry.epoch);
            writer.push(rumour.list, &rumour.entry);
            self.send(rumour.slot, writer.finish());
        }
        let items = self.pending.take(FLUSH_MAX);
        self.pace.flushed(items.len(), now);
        let is_new_here = now - self.in_company_since < NEW_HERE;
        let told: Vec<Told> = items
            .into_iter()
            .filter_map(|(item, told_by)| self.content(item, told_by, is_new_here))
            .collect();
        self.tell_news(&told);
    }

    fn content(&self, item: Item, told_by: u32, is_new_here: bool) -> Option<Told> {
        let (entry, is_again) = match item.who {
            Some(key) => {
                let record = self.roster(item.list)?.get(key)?;
                (record.entry(key), is_new_here || record.before.is_some())
            }
            None => (self.own_entry(item.list)?, true),
        };
        Some(Told {
            item,
            told_by,
            addr: entry.addr,
            entry,
            is_again,
        })
    }

    /// What we say of ourselves in a list.
    pub(super) fn own_entry(&self, list: u16) -> Option<Entry> {
        let (epoch, standing) = match list {
            NETWORK => (self.network_epoch, Standing::Leecher),
            list => {
                let swarm = self.swarms.get(&list)?;
                (swarm.epoch, swarm.standing)
            }
        };
        Some(Entry {
            addr: None,
            epoch,
            standing,
            is_evpeer: true,
        })
    }

    fn tell_news(&mut self, told: &[Told]) {
        let covers = covers(told);
        let mut encoded: Vec<(Vec<u16>, Vec<Bytes>)> = Vec::new();
        for slot in self.slots() {
            let choice = self.choose(slot, told, &covers);
            if choice.is_empty() {
                continue;
            }
            let known = encoded.iter().position(|(chosen, _)| *chosen == choice);
            let place = known.unwrap_or_else(|| {
                let entries = choice.iter().map(|&i| &told[usize::from(i)]);
                let bodies = encode(Why::News, entries.map(|told| (told.item.list, told.entry)));
                self.counts.bodies += bodies.len() as u64;
                encoded.push((choice, bodies));
                encoded.len() - 1
            });
            for body in encoded[place].1.clone() {
                self.counts.bodies_sent += 1;
                self.send(slot, body);
            }
        }
        self.counts.flushes += u64::from(!encoded.is_empty());
    }

    /// Which of the entries the link in `slot` hears, by their places.
    fn choose(&self, slot: usize, told: &[Told], covers: &BTreeMap<Key, Vec<u16>>) -> Vec<u16> {
        let link = self.link(slot);
        let is_for = |one: &Told| {
            link.met.is_some()
                && link.shares(one.item.list)
                && one.told_by & (1 << slot) == 0
                && one
                    .addr
                    .is_none_or(|addr| may_be_told(addr, link.remote.ip()))
        };
        let is_covered = |one: &Told| {
            let Some(by) = one.item.who.and_then(|key| covers.get(&key)) else {
                return false;
            };
            let same_epoch = |&&i: &&u16| told[usize::from(i)].entry.epoch == one.entry.epoch;
            one.item.list == NETWORK
                && !one.is_again
                && one.entry.standing.is_here()
                && by
                    .iter()
                    .filter(same_epoch)
                    .any(|&i| is_for(&told[usize::from(i)]))
        };
        let places = (0..).zip(told);
        let chosen = places.filter(|(_, one)| is_for(one) && !is_covered(one));
        chosen.map(|(place, _)| place).collect()
    }

    /// Tells all links which swarms we joined or left.
    fn tell_swarms(&mut self, swarms: &BTreeMap<u16, u64>) {
        if swarms.is_empty() {
            return;
        }
        for slot in self.slots() {
            if self.link(slot).met.is_some() {
                self.name_swarms(slot, swarms);
            }
        }
    }

    /// Names swarms to the other end of a link, which is met.
    pub(super) fn name_swarms(&mut self, slot: usize, swarms: &BTreeMap<u16, u64>) {
        let link = self.link(slot);
        let Some(met) = link.met else { return };
        let membership = |(&handle, &epoch): (&u16, &u64)| match self.swarms.get(&handle) {
            Some(swarm) => Membership {
                handle,
                standing: swarm.standing,
                epoch: swarm.epoch,
                tag: tag(&link.our_salt, &met.salt, swarm.info_hash),
            },
            None => Membership {
                handle,
                standing: Standing::Left,
                epoch,
                tag: Tag::default(),
            },
        };
        let all: Vec<_> = swarms.iter().map(membership).collect();
        let mut parts: Vec<_> = all.chunks(SWARMS_IN_BODY_MAX).collect();
        if parts.is_empty() {
            parts.push(&[]); // our epoch in the network goes with them
        }
        for part in parts {
            let body = Swarms::encode(self.network_epoch, part.iter().copied());
            self.send(slot, body);
        }
    }
}

/// Of peers in the news of a swarm, where: who hears of them there, and never did before, knows
/// that they are in the network, and since when.
fn covers(told: &[Told]) -> BTreeMap<Key, Vec<u16>> {
    let mut covers: BTreeMap<Key, Vec<u16>> = BTreeMap::new();
    for (place, one) in (0..).zip(told) {
        let is_cover = one.item.list != NETWORK && one.entry.is_evpeer;
        if let (Some(key), true) = (one.item.who, is_cover && one.entry.standing.is_here()) {
            covers.entry(key).or_default().push(place);
        }
    }
    covers
}

/// Entries as bodies, as many as they need.
pub(super) fn encode(why: Why, entries: impl Iterator<Item = (u16, Entry)> + Clone) -> Vec<Bytes> {
    let Some(newest) = entries.clone().map(|(_, entry)| entry.epoch).max() else {
        return Vec::new();
    };
    let mut bodies = Vec::new();
    let mut writer = EntriesWriter::entries(why, newest);
    for (list, entry) in entries {
        if !writer.has_room() {
            let full = std::mem::replace(&mut writer, EntriesWriter::entries(why, newest));
            bodies.push(full.finish());
        }
        writer.push(list, &entry);
    }
    bodies.push(writer.finish());
    bodies
}

/// Quiet after which news leave at once, and how long they wait for company otherwise.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// The same under load.
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// How long after a host found others these may know peers that are news to it.
const NEW_HERE: Duration = Duration::from_secs(120);
/// Items in a flush that are load.
const BUSY: usize = 64;
/// Items in a flush at most: some 10 KiB a link, IPv4.
const FLUSH_MAX: usize = 1024;

const _: () = assert!(LINKS_MAX <= 32 && FLUSH_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn item(port: u16) -> Item {
        let addr = SocketAddr::from(([10, 0, 0, 1], port));
        Item {
            list: NETWORK,
            who: Some(addr.into()),
        }
    }

    #[test]
    fn item_is_pending_once_and_knows_who_told_it() {
        let mut pending = Pending::default();
        pending.add(item(1), Some(0));
        pending.add(item(2), None);
        pending.repeated(item(1), 3);
        pending.repeated(item(9), 3);
        assert_eq!(pending.take(9), [(item(1), 0b1001), (item(2), 0)]);
        assert!(pending.is_empty());

        // A newer content was told by its teller alone; a freed slot told nothing.
        pending.add(item(1), Some(0));
        pending.add(item(1), Some(2));
        pending.add(item(2), Some(1));
        pending.forget_link(1);
        assert_eq!(pending.take(1), [(item(1), 0b100)]);
        assert_eq!(pending.take(1), [(item(2), 0)]);
    }

    #[test]
    fn window_grows_under_load_and_shrinks_again() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(), Instant::ZERO);
        let mut now = Instant::from_micros(5_000_000);
        let mut windows = Vec::new();
        for count in [1, 1000, 1000, 1000, 1000, 1000, 2, 2, 2, 2] {
            pace.flushed(count, now);
            windows.push((pace.due() - now).as_millis());
            now = pace.due();
        }
        assert_eq!(
            windows,
            [100, 200, 400, 800, 1000, 1000, 500, 250, 125, 100]
        );
    }
}
