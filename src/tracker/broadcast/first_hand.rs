//! What this host knows by itself: where it stands, whom it met, who is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::flush::Item;
use super::roster::{Key, NOBODY, Record};
use super::{
    BREAKDOWN, BREAKDOWN_LINKS, Broadcast, EXPIRY, Event, Heard, LIST_LEN_MAX, List, RENEWAL,
    SWARMS_MAX, Swarm, TOMBSTONE_LIFE,
};
use crate::base::id::InfoHash;
use crate::base::seldom::Seldom;
use crate::base::time::Instant;
use crate::wire::ev_peers::{Entry, NETWORK, Standing, tag};

/// An evpeer that we declared gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denial {
    /// How often.
    count: u32,
    /// The last time.
    at: Instant,
}

impl Broadcast {
    /// We take part in a swarm. Never to be called for a private torrent (BEP 27).
    pub fn swarm_joined(&mut self, swarm: InfoHash, standing: Standing, now: Instant) {
        if self.by_hash.contains_key(&swarm) || self.swarms.len() >= SWARMS_MAX {
            return;
        }
        let is_free = |handle: &u16| *handle != NETWORK && !self.swarms.contains_key(handle);
        let after = (1..=u16::MAX).map(|step| self.last_handle.wrapping_add(step));
        let handle = after
            .into_iter()
            .find(is_free)
            .expect("fewer swarms than handles");
        self.last_handle = handle;
        let epoch = self.next_epoch(now);
        let roster = Seldom::default();
        let info_hash = swarm;
        self.by_hash.insert(swarm, handle);
        self.swarms.insert(
            handle,
            Box::new(Swarm {
                info_hash,
                standing,
                epoch,
                roster,
                witnessed: BTreeMap::new(),
            }),
        );
        self.pending.swarm(handle, epoch);
        for slot in self.slots() {
            let link = self.link(slot);
            if let Some(met) = link.met {
                let theirs = tag(&met.salt, &link.our_salt, swarm);
                self.match_swarm(slot, handle, &theirs, now);
            }
        }
    }

    /// We leave a swarm; its list is forgotten.
    pub fn swarm_left(&mut self, swarm: InfoHash, now: Instant) {
        let Some(handle) = self.by_hash.remove(&swarm) else {
            return;
        };
        let epoch = self.next_epoch(now);
        self.swarms.remove(&handle);
        self.pending.swarm(handle, epoch);
        for slot in self.slots() {
            self.link_mut(slot).unshare(handle);
        }
    }

    /// We stand differently in a swarm from now on: complete, or not any more.
    pub fn standing_changed(&mut self, swarm: InfoHash, standing: Standing, now: Instant) {
        let Some(&handle) = self.by_hash.get(&swarm) else {
            return;
        };
        if self.swarms[&handle].standing != standing {
            let epoch = self.next_epoch(now);
            let swarm = self.swarms.get_mut(&handle).expect("named above");
            (swarm.standing, swarm.epoch) = (standing, epoch);
            self.pending.add(own(handle), None);
        }
    }

    /// A connection to the peer that accepts connections at `addr` is open. Every call is followed
    /// by one of [`Broadcast::parted`].
    pub fn met(&mut self, addr: SocketAddr, now: Instant) {
        let key = Key::from(addr);
        *self.held.entry(key).or_insert(0) += 1;
        self.denied.remove(&key);
        self.tried(key, true, now);
    }

    /// Such a connection is gone. Not a departure: that is what a dial in vain shows, or the
    /// peer's own word.
    pub fn parted(&mut self, addr: SocketAddr) {
        let key = Key::from(addr);
        if let Some(count) = self.held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&key);
            }
        }
    }

    /// A peer that is no evpeer is in a swarm: it shook hands, or announced itself, or became
    /// complete. Evpeers speak for themselves.
    pub fn seen(&mut self, swarm: InfoHash, addr: SocketAddr, standing: Standing, now: Instant) {
        let Some(&list) = self.by_hash.get(&swarm) else {
            return;
        };
        let key = Key::from(addr);
        let known = self.swarms[&list].roster.get(key).copied();
        let is_known = known.is_some_and(|known| {
            let is_fresh = self.age_s(&known, now) < RENEWAL.as_secs();
            let speaks = known.is_evpeer && known.standing.is_here();
            speaks || (known.standing == standing && is_fresh)
        });
        if is_known || self.is_own(addr) || addr.port() == 0 || !self.make_room(list, key) {
            return;
        }
        self.witness(list, key, standing, now);
    }

    /// A peer that is no evpeer was silent for too long. Of all that once saw it only its last
    /// witness says so: others may have closed their connections because of no use for them.
    pub fn expired(&mut self, swarm: InfoHash, addr: SocketAddr, now: Instant) {
        let list = self.by_hash.get(&swarm);
        let swarm_of = |list| self.swarms.get(list);
        let is_witness = list.and_then(swarm_of).is_some_and(|swarm| {
            let key = Key::from(addr);
            let known = swarm.roster.get(key).map(|known| known.epoch);
            known.is_some() && swarm.witnessed.get(&key).copied() == known
        });
        if is_witness {
            self.left(swarm, addr, now);
        }
    }

    /// A peer that is no evpeer left a swarm: it said so, or does not answer.
    pub fn left(&mut self, swarm: InfoHash, addr: SocketAddr, now: Instant) {
        let Some(&list) = self.by_hash.get(&swarm) else {
            return;
        };
        let key = Key::from(addr);
        let known = self.swarms[&list].roster.get(key);
        if known.is_some_and(|known| known.standing.is_here() && !known.is_evpeer) {
            self.witness(list, key, Standing::Left, now);
        }
    }

    /// A dial to `addr` failed. If an evpeer should be there, everybody hears that it is not.
    pub fn unreachable(&mut self, addr: SocketAddr, now: Instant) {
        let key = Key::from(addr);
        self.tried(key, false, now);
        let known = self.network.get(key).copied();
        let is_here = known.is_some_and(|known| known.standing.is_here());
        if !is_here || self.held.contains_key(&key) || !self.may_deny(key, now) {
            return;
        }
        let swarms = self
            .swarms
            .values()
            .filter_map(|swarm| swarm.roster.get(key));
        let epochs = swarms
            .chain(self.network.get(key))
            .map(|record| record.epoch);
        let epoch = epochs.max().unwrap_or(0).saturating_add(1);
        let record = Record {
            epoch,
            changed_s: seconds(now),
            teller: NOBODY,
            standing: Standing::Left,
            before: Some(Standing::Leecher),
            is_evpeer: true,
        };
        self.network.put(key, record);
        self.pending.add(
            Item {
                list: NETWORK,
                who: Some(key),
            },
            None,
        );
        self.heard(NETWORK, key, &record, true);
        self.left_network(key, epoch, now);
    }

    /// Whether we may declare an evpeer gone, which counts as done. One that is there for others
    /// and not for us would be gone and back without end.
    fn may_deny(&mut self, key: Key, now: Instant) -> bool {
        self.denied.retain(|_, d| now - d.at < DENIED_MEMORY);
        let known = self.denied.get(&key).copied();
        let may = match known {
            Some(denial) => denial.may_again(now),
            None => self.denied.len() < DENIED_MAX,
        };
        if may {
            let count = known.map_or(0, |denial| denial.count) + 1;
            self.denied.insert(key, Denial { count, at: now });
        }
        may
    }

    /// Somebody says something of us in a list; if it is not so, we say better when we have heard
    /// all that the message says.
    pub(super) fn told_of_us(&mut self, list: u16, entry: &Entry, now: Instant) {
        let Some(truth) = self.own_entry(list) else {
            return;
        };
        let is_true = entry.standing == truth.standing && entry.is_evpeer;
        let is_old = entry.epoch < truth.epoch || (is_true && entry.epoch == truth.epoch);
        let is_beyond = self.is_beyond_answer(entry.epoch, entry.standing.is_here(), now);
        if is_old || (is_beyond && !self.follows(entry.epoch, truth.epoch, now)) {
            return;
        }
        self.epoch = self.epoch.max(entry.epoch);
        if is_true {
            // Our own word from before a restart, with a clock that was ahead.
            self.set_own_epoch(list, entry.epoch);
        } else {
            self.untrue_of_us.insert(list);
        }
    }

    /// Says better what the last message said of us.
    pub(super) fn answer_untruths(&mut self, now: Instant) {
        let lists = std::mem::take(&mut self.untrue_of_us);
        if lists.contains(&NETWORK) {
            return self.assert_all(now);
        }
        for list in lists {
            let epoch = self.next_epoch(now);
            self.set_own_epoch(list, epoch);
            self.pending.add(own(list), None);
        }
    }

    /// Says anew that we are here, in the network and in all our swarms.
    pub(super) fn assert_all(&mut self, now: Instant) {
        let epoch = self.next_epoch(now);
        self.network_epoch = epoch;
        self.pending.add(own(NETWORK), None);
        for (&handle, swarm) in &mut self.swarms {
            swarm.epoch = epoch;
            self.pending.add(own(handle), None);
        }
        self.renewed = now;
    }

    /// An evpeer left the network, and so its swarms, where all that it said is older.
    pub(super) fn left_network(&mut self, key: Key, epoch: u64, now: Instant) {
        let mut gone = Vec::new();
        for (&list, swarm) in &mut self.swarms {
            let Some(known) = swarm.roster.get(key).copied() else {
                continue;
            };
            if known.is_evpeer && known.standing.is_here() && known.epoch < epoch {
                let record = Record {
                    epoch,
                    changed_s: seconds(now),
                    standing: Standing::Left,
                    before: Some(known.standing),
                    ..known
                };
                swarm.roster.put(key, record);
                gone.push((list, record));
            }
        }
        for (list, record) in gone {
            self.heard(list, key, &record, false);
        }
    }

    /// Looks for what is over, and renews what we vouch for.
    pub(super) fn sweep(&mut self, now: Instant) {
        if now - self.renewed >= RENEWAL {
            self.assert_all(now);
        }
        let lists: Vec<u16> = [NETWORK]
            .into_iter()
            .chain(self.swarms.keys().copied())
            .collect();
        for list in lists {
            self.sweep_list(list, now);
        }
    }

    fn sweep_list(&mut self, list: u16, now: Instant) {
        let Some(roster) = self.roster(list) else {
            return;
        };
        let old = roster
            .iter()
            .filter(|(_, record)| self.age_s(record, now) >= RENEWAL.as_secs());
        let old: Vec<_> = old.map(|(key, record)| (key, *record)).collect();
        if let Some(swarm) = self.swarms.get_mut(&list) {
            swarm.forget_attested();
        }
        for (key, record) in old {
            let age_s = self.age_s(&record, now);
            let is_here = record.standing.is_here();
            if !is_here && age_s >= TOMBSTONE_LIFE.as_secs() {
                match self.swarms.get_mut(&list) {
                    Some(swarm) => swarm.strike(key),
                    None => self.network.remove(key),
                }
            } else if is_here && self.held.contains_key(&key) {
                if !record.is_evpeer {
                    self.witness(list, key, record.standing, now);
                }
            } else if is_here && age_s >= EXPIRY.as_secs() {
                // Told to nobody: everybody comes to see it.
                let gone = Record {
                    epoch: record.epoch.saturating_add(1),
                    changed_s: seconds(now),
                    standing: Standing::Left,
                    before: Some(record.standing),
                    ..record
                };
                self.roster_mut(list).expect("read above").put(key, gone);
                self.heard(list, key, &gone, false);
            }
        }
    }

    /// Makes a new epoch for a foreign peer that we know first hand.
    pub(super) fn witness(&mut self, list: u16, key: Key, standing: Standing, now: Instant) {
        let clock_ms = self.clock.unix_ms(now);
        let Some(roster) = self.roster_mut(list) else {
            return;
        };
        let known = roster.get(key).copied();
        let after = known.map_or(0, |known| known.epoch.saturating_add(1));
        let record = Record {
            epoch: clock_ms.max(after),
            changed_s: seconds(now),
            teller: NOBODY,
            standing,
            before: known.map(|known| known.standing),
            is_evpeer: false,
        };
        roster.put(key, record);
        if let Some(swarm) = self.swarms.get_mut(&list) {
            swarm.attest(key, &record);
        }
        self.pending.add(
            Item {
                list,
                who: Some(key),
            },
            None,
        );
    }

    /// Tells the owner of a change.
    pub(super) fn heard(&mut self, list: u16, key: Key, record: &Record, is_first_hand: bool) {
        let list: List = self.name_of(list);
        let mut links = self.links.iter().flatten();
        let teller = links.find(|link| link.serial == record.teller);
        let teller = teller.map(|link| link.remote.ip());
        self.events.push_back(Event::Heard(Heard {
            list,
            addr: key.addr(),
            standing: record.standing,
            is_evpeer: record.is_evpeer,
            is_first_hand,
            teller,
        }));
    }

    pub(super) fn age_s(&self, record: &Record, now: Instant) -> u64 {
        u64::from(seconds(now).saturating_sub(record.changed_s))
    }

    /// An address was tried: its teller, if it has one yet, is right or wrong.
    fn tried(&mut self, key: Key, is_alive: bool, now: Instant) {
        let mut teller = self.proved(key, is_alive, now);
        let told = self.network.prove(key);
        teller = teller.or(told);
        for swarm in self.swarms.values_mut() {
            let told = swarm.roster.at_hand().and_then(|all| all.prove(key));
            teller = teller.filter(|&teller| teller != NOBODY).or(told);
        }
        let (broken, since) = self.broken;
        let is_breakdown = broken >= BREAKDOWN_LINKS && now - since < BREAKDOWN;
        if !is_alive && is_breakdown {
            return;
        }
        if let Some(link) = teller.and_then(|teller| self.teller(teller)) {
            link.trust.tried(key.addr().ip(), is_alive);
            self.judge_links(now);
        }
    }

    fn set_own_epoch(&mut self, list: u16, epoch: u64) {
        match self.swarms.get_mut(&list) {
            Some(swarm) => swarm.epoch = epoch,
            None => self.network_epoch = epoch,
        }
    }
}

impl Denial {
    /// Whether the same evpeer may be declared gone once more. The first time may have crossed
    /// with the last that it said; after that each pause is twice the one before.
    pub fn may_again(self, now: Instant) -> bool {
        let pause = match self.count.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => DENIED_PAUSE * 2_u32.pow(doublings.min(DENIED_DOUBLINGS)),
        };
        now - self.at >= pause
    }
}

impl Swarm {
    /// Takes an address out of the list.
    pub(super) fn strike(&mut self, key: Key) {
        if let Some(roster) = self.roster.at_hand() {
            roster.remove(key);
            self.roster.tidy();
        }
    }

    /// We are the witness of this from now on.
    fn attest(&mut self, key: Key, record: &Record) {
        if !record.standing.is_here() {
            self.witnessed.remove(&key);
        } else if self.witnessed.len() < LIST_LEN_MAX || self.witnessed.contains_key(&key) {
            self.witnessed.insert(key, record.epoch);
        }
    }

    /// Forgets what somebody else said better since.
    fn forget_attested(&mut self) {
        let roster = &self.roster;
        self.witnessed.retain(|key, epoch| {
            let known = roster.get(*key).map(|known| known.epoch);
            known == Some(*epoch)
        });
    }
}

/// Ourselves in a list.
fn own(list: u16) -> Item {
    Item { list, who: None }
}

/// Seconds of our clock, for records.
pub(super) fn seconds(now: Instant) -> u32 {
    (now.as_micros() / 1_000_000) as u32
}

/// Evpeers that we remember to have declared gone at most.
const DENIED_MAX: usize = 256;
/// For how long we remember it.
const DENIED_MEMORY: Duration = Duration::from_secs(2 * 3600);
/// Time from the second declaration to the third; it doubles from there.
const DENIED_PAUSE: Duration = Duration::from_secs(30);
/// How often, to about an hour.
const DENIED_DOUBLINGS: u32 = 7;

const _: () = assert!(DENIED_MEMORY.as_secs() > DENIED_PAUSE.as_secs() << DENIED_DOUBLINGS);
