//! What is believed of what links tell, and what comes of it.

use std::time::Duration;

use super::first_hand::seconds;
use super::flush::{Item, Rumour};
use super::roster::{Key, NOBODY, Record};
use super::{ALL_LEN_MAX, Broadcast, Event, LIST_LEN_MAX};
use crate::base::time::Instant;
use crate::wire::ev_peers::{Entry, NETWORK, Standing, Why};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    News,
    Same,
    Older,
    Refused,
}

impl Broadcast {
    pub(super) fn weigh(
        &mut self,
        slot: usize,
        list: u16,
        entry: &Entry,
        why: Why,
        now: Instant,
    ) -> Outcome {
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
        if is_itself && list == NETWORK {
            self.tell_what_is_said(slot, key, entry.epoch, now);
        }
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
            before: known.map(|known| known.standing),
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
        if let Some(later) = self.word_after(list, key, &record) {
            self.refute_departure(key, later, known, now);
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
        let known = self.roster(list).and_then(|roster| roster.get(key));
        let known = known.copied();
        let follows =
            !is_here && known.is_some_and(|known| self.follows(record.epoch, known.epoch, now));
        if self.is_far_future(record.epoch, is_here, now) && !follows {
            self.link_mut(slot).trust.told();
            self.link_mut(slot).trust.untrue();
            return false;
        }
        if !is_here && self.held.contains_key(&key) {
            self.contradict(slot, list, key, record, now);
            return false;
        }
        if known.is_some() && is_here {
            return true;
        }
        let is_disproven = is_here && self.link(slot).trust.is_disproven();
        if is_disproven && !self.held.contains_key(&key) {
            if !self.wait_for_proof(list, key, record) {
                self.refused(slot, list, now);
            }
            return false;
        }
        let is_answer = why == Why::Repair && self.is_asked(slot, list, now);
        let link = self.link_mut(slot);
        let may = if is_answer {
            link.answers.take(1, now)
        } else if why == Why::News && is_here && !link.trust.is_proven() {
            link.first_news.take(1, now)
        } else {
            link.strangers.take(1, now)
        };
        if !may {
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
        if list == NETWORK {
            self.gainsay(key, record.epoch, now);
            self.dispute(key);
        }
        let is_due = |known: &Record| self.age_s(known, now) >= WITNESS_PAUSE.as_secs();
        match (its_link, known) {
            (Some(its), _) => {
                let has_room = self.rumours.len() < RUMOURS_MAX;
                if its != slot && has_room && self.link(its).shares(list) {
                    let entry = record.entry(key);
                    let slot = its;
                    self.rumours.push(Rumour { slot, list, entry });
                }
            }
            (None, Some(known))
                if !known.is_evpeer && known.standing.is_here() && is_due(&known) =>
            {
                let after = Record {
                    epoch: record.epoch.max(known.epoch),
                    ..known
                };
                let roster = self.roster_mut(list).expect("known above");
                roster.put(key, after);
                self.witness(list, key, known.standing, now);
            }
            _ => {}
        }
    }

    /// Remembers that an evpeer which we do not believe to be gone is said to be.
    fn gainsay(&mut self, key: Key, epoch: u64, now: Instant) {
        self.gainsaid
            .retain(|_, (_, at)| now - *at < GAINSAID_MEMORY);
        if self.gainsaid.len() < GAINSAID_MAX || self.gainsaid.contains_key(&key) {
            let said = self.gainsaid.entry(key).or_insert((epoch, now));
            *said = (said.0.max(epoch), now);
        }
    }

    /// The evpeer at the other end of a link speaks of itself. If it was said to be gone since, it
    /// has to know: what it was told at that time may not have reached it.
    fn tell_what_is_said(&mut self, slot: usize, key: Key, epoch: u64, now: Instant) {
        let Some(&(said, at)) = self.gainsaid.get(&key) else {
            return;
        };
        if said <= epoch || now - at >= GAINSAID_MEMORY {
            self.gainsaid.remove(&key);
        } else if self.rumours.len() < RUMOURS_MAX {
            let entry = Entry {
                addr: Some(key.addr()),
                epoch: said,
                standing: Standing::Left,
                is_evpeer: true,
            };
            let list = NETWORK;
            self.rumours.push(Rumour { slot, list, entry });
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

    /// What an evpeer said in a swarm after it left the network, as an entry of that list claims:
    /// it was there to refute that, and the refutation comes by the swarm's list first.
    fn word_after(&self, list: u16, key: Key, record: &Record) -> Option<Record> {
        if list != NETWORK || record.standing.is_here() {
            return None;
        }
        let known = self.swarms.values().filter_map(|s| s.roster.get(key));
        let later = known.filter(|known| {
            known.is_evpeer && known.standing.is_here() && known.epoch >= record.epoch
        });
        later.max_by_key(|known| known.epoch).copied()
    }

    /// All hear that an evpeer is in the network, who told otherwise too. Whoever told it may have
    /// tried the evpeer without having heard its last word: so we look for ourselves.
    fn refute_departure(&mut self, key: Key, later: Record, known: Option<Record>, now: Instant) {
        if !self.make_room(NETWORK, key) {
            return;
        }
        let before = known.map(|known| known.standing);
        let record = Record {
            changed_s: seconds(now),
            standing: Standing::Leecher,
            before,
            ..later
        };
        self.network.put(key, record);
        let who = Some(key);
        self.pending.add(Item { list: NETWORK, who }, None);
        if !before.is_some_and(Standing::is_here) {
            self.heard(NETWORK, key, &record, false);
        }
        self.dispute(key);
    }

    /// An evpeer is there as some say, and gone as others do.
    fn dispute(&mut self, key: Key) {
        let addr = key.addr();
        self.events.push_back(Event::Disputed { addr });
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
        if is_change {
            self.heard(list, key, &record, is_itself);
        }
        // What we saw ourselves is looked at again when others say otherwise.
        let is_back = list == NETWORK && is_change && record.standing.is_here() && !is_itself;
        if is_back && self.denied.get(&key).is_some_and(|d| d.may_again(now)) {
            self.dispute(key);
        }
        if list == NETWORK && !record.standing.is_here() {
            self.left_network(key, record.epoch, now);
        } else if record.is_evpeer && record.standing.is_here() && list != NETWORK {
            self.imply_network(key, record, is_itself);
        }
    }

    /// An evpeer in a swarm is in the network.
    pub(super) fn imply_network(&mut self, key: Key, record: Record, is_itself: bool) {
        let known = self.network.get(key).copied();
        let is_known =
            known.is_some_and(|known| known.standing.is_here() || known.epoch >= record.epoch);
        if is_known || !self.make_room(NETWORK, key) {
            return;
        }
        let record = Record {
            standing: Standing::Leecher,
            before: known.map(|known| known.standing),
            ..record
        };
        self.network.put(key, record);
        self.fresh.push(Item {
            list: NETWORK,
            who: Some(key),
        });
        self.heard(NETWORK, key, &record, is_itself);
    }

    /// Whoever told `known` was wrong, if `record` puts back what was before it, and soon.
    fn blame(&mut self, slot: usize, known: &Record, record: &Record, now: Instant) {
        let is_put_back = Some(record.standing) == known.before
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
}

/// Time in which a refutation is held against who told what it refutes.
const REFUTED_WITHIN: Duration = Duration::from_secs(60);
/// Time between two assertions of a witness that a foreign peer is still there.
const WITNESS_PAUSE: Duration = Duration::from_secs(60);
/// Evpeers of which we remember that others declare them gone, at most.
const GAINSAID_MAX: usize = 256;
/// For how long we remember it.
const GAINSAID_MEMORY: Duration = Duration::from_secs(2 * 3600);
/// Rumours that wait to be carried to whom they are about, at most.
const RUMOURS_MAX: usize = 64;
