//! What comes in on links: who may say what, and what is believed.

use super::link::{Link, Met};
use super::weigh::Outcome;
use super::{Broadcast, Event, Violation};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::wire::ev_peers::{
    Bye, Entries, Entry, Hello, Membership, Message, NETWORK, Reason, Records, Standing, Swarms,
    Tag, Why, tag,
};

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
        self.answer_untruths(now);
        if result.is_err() {
            self.relay(slot, now);
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
        let met = self.links.iter().flatten().filter(|l| l.met.is_some());
        if met.count() == 1 {
            self.in_company_since = now;
        }
        let link = self.link(slot).id;
        self.events.push_back(Event::Met { link });
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
        self.relay(slot, now);
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

    /// Tells the other links what is fresh.
    pub(super) fn relay(&mut self, slot: usize, now: Instant) {
        for item in std::mem::take(&mut self.fresh) {
            let far = item
                .who
                .and_then(|key| self.roster(item.list)?.get(key))
                .is_some_and(|record| self.is_far_future(record.epoch, true, now));
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

    /// Ends links whose other ends are not worth their words. Where there are few others to compare
    /// with, a link is not ended because its news are worse than theirs: among many liars one would
    /// go after the other, the honest too.
    pub(super) fn judge_links(&mut self, now: Instant) {
        while let Some(slot) = self.untrusted(now) {
            let link = self.link(slot).id;
            self.link_dropped(link, Reason::Surplus, now);
            self.events.push_back(Event::Distrusted { link });
        }
    }

    /// A link that is better not believed. This is asked after each message.
    fn untrusted(&self, now: Instant) -> Option<usize> {
        let all = || self.links.iter().flatten();
        let mut dead: Vec<u32> = all().map(|link| link.trust.dead()).collect();
        dead.sort_unstable();
        let is_gone = |link: &Link| {
            let others = dead.len() - 1;
            let place = dead.partition_point(|count| *count < link.trust.dead());
            let typical = match others {
                0..COMPARED_MIN => u32::MAX,
                // In the row without this link.
                _ if others / 2 < place => dead[others / 2],
                _ => dead[others / 2 + 1],
            };
            link.trust.is_gone(typical, now)
        };
        let places = self.links.iter().enumerate();
        let mut gone = places.filter(|(_, link)| link.as_ref().is_some_and(is_gone));
        gone.next().map(|(slot, _)| slot)
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

/// Other links with which one is compared, at least.
const COMPARED_MIN: usize = 3;
/// Entries of one repair that are told on as news, at most.
const REPAIRED_NEWS_MAX: usize = 32;
