//! What comes in on links: who may say what, and what is believed.

use std::time::Duration;

use super::first_hand::seconds;
use super::flush::{Item, Rumour};
use super::link::Met;
use super::roster::{Key, NOBODY, Record};
use super::{ALL_LEN_MAX, Broadcast, Event, LIST_LEN_MAX, Violation};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::wire::ev_peers::{
    Bye, Entries, Entry, Hello, Membership, Message, NETWORK, Reason, Records, Standing, Swarms,
    Tag, Why, tag,
};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    News,
    Same,
    Older,
    Refused,
}

impl Broadcast {
    /// An `ev_peers` message came on a link.
    ///
    /// # Errors
    /// If its sender breaks the rules. The link is ended.
    pub fn received(&mut self, link: ConnId, body: &[u8], now: Instant) -> Result<(), Violation> {
        let Some(&slot) = self.by_conn.get(&link) else {
            return Ok(()); // its last messages cross with our good bye
        };
        let result = self.take_message(slot, body, now);
        if result.is_err() {
            self.remove_link(link, now);
        }
        self.judge_links(now);
        result
    }

    fn take_message(&mut self, slot: usize, body: &[u8], now: Instant) -> Result<(), Violation> {
        let link = self.link_mut(slot);
        if !link.bytes_in.take(body.len(), now) {
            return Err(Violation::Flood);
        }
        let message = Message::decode(body)?;
        let is_met = link.met.is_some();
        match message {
            Message::Hello(hello) if !is_met => self.hello(slot, hello, now),
            Message::Bye(bye) => return self.bye(slot, bye, now),
            _ if !is_met => return Err(Violation::Order),
            Message::Hello(_) => return Err(Violation::Order),
            Message::Swarms(swarms) => return self.swarms_named(slot, swarms, now),
            Message::Entries(entries) => return self.entries(slot, entries, now),
            Message::Roots(roots) => self.roots_told(slot, roots, now),
            Message::Digest(digest) => self.digest_told(slot, digest, now),
            Message::Want(want) => self.want_told(slot, want, now),
        }
        Ok(())
    }

    fn hello(&mut self, slot: usize, hello: Hello, now: Instant) {
        let skew_ms = hello.clock_ms as i128 - self.clock.raw_ms(now) as i128;
        let bound = i64::MAX / 4;
        self.link_mut(slot).met = Some(Met {
            salt: hello.salt,
            skew_ms: skew_ms.clamp(-i128::from(bound), bound.into()) as i64,
        });
        self.set_clock(now);
        let all = self
            .swarms
            .iter()
            .map(|(&handle, swarm)| (handle, swarm.epoch))
            .collect();
        self.name_swarms(slot, &all);
        self.introduce(slot, &[NETWORK]);
    }

    fn bye(&mut self, slot: usize, bye: Bye<'_>, now: Instant) -> Result<(), Violation> {
        let records = bye.records();
        if bye.reason == Reason::Leaving && self.link(slot).met.is_some() {
            let gone = itself(Standing::Left, records.newest());
            self.take_entry(slot, NETWORK, &gone, Why::News, now);
            self.relay(slot, now);
        }
        self.records(slot, records, Why::Meeting, now)?;
        let link = self.link(slot).id;
        let reason = bye.reason;
        self.remove_link(link, now);
        self.events.push_back(Event::Ended { link, reason });
        Ok(())
    }

    fn swarms_named(
        &mut self,
        slot: usize,
        swarms: Swarms<'_>,
        now: Instant,
    ) -> Result<(), Violation> {
        let here = itself(Standing::Leecher, swarms.epoch);
        self.take_entry(slot, NETWORK, &here, Why::News, now);
        let named = swarms.iter().collect::<Result<Vec<_>, _>>()?;
        let (gone, here): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|membership| !membership.standing.is_here());
        for membership in gone {
            if let Some(list) = self.link_mut(slot).forget(membership.handle) {
                let gone = itself(Standing::Left, membership.epoch);
                self.take_entry(slot, list, &gone, Why::News, now);
            }
        }
        let ours = if here.is_empty() {
            Vec::new()
        } else {
            self.tags_of(slot)
        };
        for membership in here {
            self.link_mut(slot).name(membership)?;
            let place = ours.binary_search_by_key(&membership.tag, |(tag, _)| *tag);
            if let Ok(place) = place {
                self.match_swarm(slot, ours[place].1, &membership.tag, now);
            }
        }
        self.relay(slot, now);
        Ok(())
    }

    /// What the other end would call our swarms, sorted.
    fn tags_of(&self, slot: usize) -> Vec<(Tag, u16)> {
        let link = self.link(slot);
        let Some(met) = link.met else {
            return Vec::new();
        };
        let swarms = self.swarms.iter();
        let mut tags: Vec<_> = swarms
            .map(|(&list, swarm)| (tag(&met.salt, &link.our_salt, swarm.info_hash), list))
            .collect();
        tags.sort_unstable();
        tags
    }

    /// Our swarm `list` is common to both ends if the other one named it by `tag`.
    pub(super) fn match_swarm(&mut self, slot: usize, list: u16, tag: &Tag, now: Instant) {
        if let Some(Membership {
            standing, epoch, ..
        }) = self.link_mut(slot).match_tag(tag, list)
        {
            self.take_entry(slot, list, &itself(standing, epoch), Why::News, now);
            self.relay(slot, now);
            self.introduce(slot, &[list]);
        }
    }

    fn entries(
        &mut self,
        slot: usize,
        entries: Entries<'_>,
        now: Instant,
    ) -> Result<(), Violation> {
        let result = self.records(slot, entries.records(), entries.why, now);
        match entries.why {
            Why::News => self.relay(slot, now),
            Why::Meeting | Why::Repair => self.relay_repaired(slot, now),
        }
        result
    }

    fn records(
        &mut self,
        slot: usize,
        records: Records<'_>,
        why: Why,
        now: Instant,
    ) -> Result<(), Violation> {
        for record in records {
            let (handle, entry) = record?;
            if let Some(list) = self.link(slot).list(handle) {
                self.take_entry(slot, list, &entry, why, now);
            }
        }
        Ok(())
    }

    /// Weighs one entry that the link in `slot` told, and acts on it.
    fn take_entry(&mut self, slot: usize, list: u16, entry: &Entry, why: Why, now: Instant) {
        let outcome = self.weigh(slot, list, entry, why, now);
        match outcome {
            Outcome::News => self.counts.news += 1,
            Outcome::Same | Outcome::Older => self.counts.repeated += 1,
            Outcome::Refused => self.counts.refused += 1,
        }
        if why == Why::Repair && outcome != Outcome::Refused {
            self.note_answer(slot, list, entry, outcome);
        }
    }

    fn weigh(&mut self, slot: usize, list: u16, entry: &Entry, why: Why, now: Instant) -> Outcome {
        let remote = self.link(slot).remote;
        let addr = entry.addr.unwrap_or(remote);
        let is_itself = entry.addr.is_none();
        if self.is_own(addr) {
            self.told_of_us(list, entry, now);
            return Outcome::Same;
        }
        if !is_itself && !self.may_hear(addr, remote) {
            return Outcome::Refused;
        }
        let key = Key::from(addr);
        let Some(roster) = self.roster(list) else {
            return Outcome::Refused;
        };
        let known = roster.get(key).copied();
        let record = Record {
            epoch: entry.epoch,
            changed_s: seconds(now),
            teller: if is_itself {
                NOBODY
            } else {
                self.link(slot).serial
            },
            standing: entry.standing,
            before: known.map_or(Standing::Left, |known| known.standing),
            is_evpeer: entry.is_evpeer || is_itself,
        };
        let is_newer = known.is_none_or(|known| record.rank() > known.rank());
        if !is_newer {
            if known.map(|known| known.rank()) == Some(record.rank()) {
                let who = Some(key);
                self.pending.repeated(Item { list, who }, slot);
                self.link_mut(slot).trust.told();
                return Outcome::Same;
            }
            let has_room = self.rumours.len() < RUMOURS_MAX;
            if let (true, Some(known)) = (is_itself && has_room, known) {
                // It has to know what is said of it, and outdo it.
                let entry = known.entry(key);
                self.rumours.push(Rumour { slot, list, entry });
            }
            return Outcome::Older;
        }
        if !is_itself && !self.is_credible(slot, list, key, &record, why, now) {
            return Outcome::Refused;
        }
        if self.is_older_than_network(list, key, &record) {
            return Outcome::Older;
        }
        if known.is_none() && !self.make_room(list, key) {
            self.refused(slot, list, now);
            return Outcome::Refused;
        }
        self.believe(slot, list, key, record, known, now);
        Outcome::News
    }

    /// Whether hearsay about `key`, newer than what we know, may be believed.
    fn is_credible(
        &mut self,
        slot: usize,
        list: u16,
        key: Key,
        record: &Record,
        why: Why,
        now: Instant,
    ) -> bool {
        let is_here = record.standing.is_here();
        if self.is_far_future(record.epoch, is_here, now) {
            self.link_mut(slot).trust.told();
            self.link_mut(slot).trust.untrue();
            return false;
        }
        if !is_here && self.held.contains_key(&key) {
            self.contradict(slot, list, key, record, now);
            return false;
        }
        let known = self.roster(list).and_then(|roster| roster.get(key));
        if known.is_some() && is_here {
            return true;
        }
        let is_answer = why == Why::Repair && self.is_asked(slot, list, now);
        let link = self.link_mut(slot);
        let allowance = if is_answer {
            &mut link.answers
        } else {
            &mut link.strangers
        };
        if !allowance.take(1, now) {
            self.refused(slot, list, now);
            return false;
        }
        true
    }

    /// A peer that we are connected to is said to be gone. It hears that itself, if it is an
    /// evpeer; for another we are the witness. Nobody is blamed: from where the others are, the
    /// teller is the one who brings lies and we are the one who brings refutations.
    fn contradict(&mut self, slot: usize, list: u16, key: Key, record: &Record, now: Instant) {
        self.link_mut(slot).trust.told();
        self.link_mut(slot).trust.untrue();
        let known = self
            .roster(list)
            .and_then(|roster| roster.get(key))
            .copied();
        let links = self.by_conn.values();
        let its_link = links
            .copied()
            .find(|&other| self.link(other).remote_key == key);
        match (its_link, known) {
            (Some(its), _) if its != slot && self.rumours.len() < RUMOURS_MAX => {
                if self.link(its).shares(list) {
                    self.rumours.push(Rumour {
                        slot: its,
                        list,
                        entry: record.entry(key),
                    });
                }
            }
            (None, Some(known)) if !known.is_evpeer && known.standing.is_here() => {
                if self.age_s(&known, now) >= WITNESS_PAUSE.as_secs() {
                    let after = Record {
                        epoch: record.epoch.max(known.epoch),
                        ..known
                    };
                    let roster = self.roster_mut(list).expect("known above");
                    roster.put(key, after);
                    self.witness(list, key, known.standing, now);
                }
            }
            _ => {}
        }
    }

    /// Whether an entry of a swarm is of a time before its evpeer left the network.
    fn is_older_than_network(&self, list: u16, key: Key, record: &Record) -> bool {
        let network = self.network.get(key);
        list != NETWORK
            && record.is_evpeer
            && network
                .is_some_and(|network| !network.standing.is_here() && network.epoch >= record.epoch)
    }

    fn believe(
        &mut self,
        slot: usize,
        list: u16,
        key: Key,
        record: Record,
        known: Option<Record>,
        now: Instant,
    ) {
        let is_itself = record.teller == NOBODY;
        if let Some(known) = known {
            self.blame(slot, &known, &record, now);
        }
        let link = self.link_mut(slot);
        if !is_itself {
            link.trust.told();
            if known.is_none() && record.is_evpeer && link.trust.doubts(now) {
                let addr = key.addr();
                self.events.push_back(Event::Doubted { addr });
            }
        }
        self.roster_mut(list)
            .expect("a list that we have")
            .put(key, record);
        self.fresh.push(Item {
            list,
            who: Some(key),
        });
        let was = known.map_or(Standing::Left, |known| known.standing);
        let turned = known.is_some_and(|known| known.is_evpeer != record.is_evpeer);
        let is_change = was != record.standing || (turned && was.is_here());
        if is_change && (is_itself || !self.held.contains_key(&key)) {
            self.heard(list, key, &record, is_itself);
        }
        if list == NETWORK && !record.standing.is_here() {
            self.left_network(key, record.epoch, now);
        } else if record.is_evpeer && record.standing.is_here() && list != NETWORK {
            self.imply_network(key, record, is_itself);
        }
    }

    /// An evpeer in a swarm is in the network.
    fn imply_network(&mut self, key: Key, record: Record, is_itself: bool) {
        let known = self.network.get(key).copied();
        let is_known =
            known.is_some_and(|known| known.standing.is_here() || known.epoch >= record.epoch);
        if is_known || !self.make_room(NETWORK, key) {
            return;
        }
        let record = Record {
            standing: Standing::Leecher,
            before: known.map_or(Standing::Left, |known| known.standing),
            ..record
        };
        self.network.put(key, record);
        self.fresh.push(Item {
            list: NETWORK,
            who: Some(key),
        });
        if is_itself || !self.held.contains_key(&key) {
            self.heard(NETWORK, key, &record, is_itself);
        }
    }

    /// Whoever told `known` was wrong, if `record` puts back what was before it, and soon.
    fn blame(&mut self, slot: usize, known: &Record, record: &Record, now: Instant) {
        let is_put_back = record.standing == known.before
            && record.standing.is_here()
            && record.standing != known.standing;
        if is_put_back && self.age_s(known, now) < REFUTED_WITHIN.as_secs() {
            let serial = self.link(slot).serial;
            if let Some(teller) = self
                .teller(known.teller)
                .filter(|link| link.serial != serial)
            {
                teller.trust.untrue();
            }
        }
    }

    /// Tells the other links what is fresh.
    pub(super) fn relay(&mut self, slot: usize, now: Instant) {
        for item in std::mem::take(&mut self.fresh) {
            let far = item
                .who
                .and_then(|key| self.roster(item.list)?.get(key))
                .is_some_and(|record| {
                    self.is_far_future(record.epoch, record.standing.is_here(), now)
                });
            if !far {
                self.pending.add(item, Some(slot));
            }
        }
    }

    /// The same after a meeting or a repair: a few entries travel as news, of many only the fact
    /// that a list is different now. (Who comes new to the network has nothing to tell it.)
    fn relay_repaired(&mut self, slot: usize, now: Instant) {
        if self.fresh.len() <= REPAIRED_NEWS_MAX {
            self.relay(slot, now);
            return;
        }
        let mut lists: Vec<u16> = self.fresh.drain(..).map(|item| item.list).collect();
        lists.sort_unstable();
        lists.dedup();
        for list in lists {
            self.spread(slot, list, now);
        }
    }

    /// Room in a list for one more address, if there may be one more.
    pub(super) fn make_room(&mut self, list: u16, key: Key) -> bool {
        let ports_max = self.ports_max(key.addr().ip());
        let rosters = self.swarms.values().map(|swarm| &swarm.roster);
        let all = rosters.map(|roster| roster.len()).sum::<usize>() + self.network.len();
        let Some(roster) = self.roster_mut(list) else {
            return false;
        };
        if roster.get(key).is_some() {
            return true;
        }
        if roster.count_of_ip(key, ports_max) >= ports_max {
            return false;
        }
        let is_full = roster.len() >= LIST_LEN_MAX || all >= ALL_LEN_MAX;
        let before = roster.len();
        if is_full {
            roster.thin_out();
        }
        !is_full || roster.len() < before
    }

    /// Ends links whose other ends are not worth their words.
    pub(super) fn judge_links(&mut self, now: Instant) {
        for slot in self.slots() {
            if self.link(slot).trust.is_gone(now) {
                let link = self.link(slot).id;
                self.link_dropped(link, Reason::Surplus, now);
                self.events.push_back(Event::Distrusted { link });
            }
        }
    }
}

/// What an evpeer says of itself.
fn itself(standing: Standing, epoch: u64) -> Entry {
    Entry {
        addr: None,
        epoch,
        standing,
        is_evpeer: true,
    }
}

/// Time in which a refutation is held against who told what it refutes.
const REFUTED_WITHIN: Duration = Duration::from_secs(60);
/// Time between two assertions of a witness that a foreign peer is still there.
const WITNESS_PAUSE: Duration = Duration::from_secs(60);
/// Rumours that wait to be carried to whom they are about, at most.
const RUMOURS_MAX: usize = 64;
/// Entries of one repair that are told on as news, at most.
const REPAIRED_NEWS_MAX: usize = 32;
