//! Two hosts meet, and make their lists the same.
//!
//! ```text
//!  meeting   each:  Entries (Meeting), the latest 200      Roots: what each list amounts to
//!  round     A: Digest ──▶ B, whose buckets differ
//!            A ◀── Entries (Repair): B's entries of those buckets, as many as fit one body
//!            A ◀── Want: these buckets; are there more?
//!            A: Entries (Repair), what B did not just tell ──▶ B     then the next round
//! ```
//!
//! Whoever sees that roots differ begins, after a pause in which what is on its way arrives; who
//! is far behind begins at once, with one link at a time. Rounds end when no bucket differs, when
//! one changed nothing on either side, or after [`ROUNDS_MAX`]. What a round brings is told on as
//! news if it is little; otherwise the other neighbours are told the new root, and compare.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Broadcast;
use super::flush::encode;
use super::roster::{Key, Record, Roster};
use crate::base::address::may_be_told;
use crate::base::time::Instant;
use crate::wire::ev_peers::{
    BUCKET_BITS_MAX, Digest, EntriesWriter, Entry, NETWORK, ROOTS_IN_BODY_MAX, Root, Roots,
    Standing, Want, Why,
};

use super::weigh::Outcome;

/// How far a list and its like at the other end of a link are.
#[derive(Debug, Default)]
pub(super) struct Repair {
    due: Option<(Instant, Due)>,
    /// Peers in the other side's list, as it said last.
    their_count: u32,
    rounds: u32,
    /// Until when the answer to our digest is one.
    asked_until: Option<Instant>,
    /// Digests in a row that were not answered.
    unanswered: u32,
    /// What the answer told, and we know as well or took over.
    told: BTreeMap<Key, (u64, Standing, bool)>,
    /// Whether this round changed anything.
    is_progress: bool,
    answered: Option<Instant>,
    /// Times that we asked to compare again because an entry was refused.
    refusals: u32,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Roots,
    Digest,
}

impl Broadcast {
    /// Tells the other end of a link the latest of these lists, and what they amount to.
    pub(super) fn introduce(&mut self, slot: usize, lists: &[u16]) {
        let link = self.link(slot);
        let mut latest: Vec<(u32, u16, Entry)> = Vec::new();
        for &list in lists {
            let Some(roster) = self.roster(list) else {
                continue;
            };
            let told = roster.iter().filter(|(key, _)| {
                *key != link.remote_key && may_be_told(key.addr(), link.remote.ip())
            });
            latest.extend(told.map(|(key, record)| (record.changed_s, list, record.entry(key))));
        }
        if latest.len() > MEETING_MAX {
            let place = latest.len() - MEETING_MAX;
            latest.select_nth_unstable_by_key(place, |(changed_s, ..)| *changed_s);
            latest.drain(..place);
        }
        latest.sort_unstable_by_key(|(_, list, entry)| (*list, entry.addr));
        let own = lists.iter().filter(|list| **list != NETWORK);
        let own = own.filter_map(|&list| Some((list, self.own_entry(list)?)));
        let told: Vec<_> = own
            .chain(latest.into_iter().map(|(_, list, e)| (list, e)))
            .collect();
        for body in encode(Why::Meeting, told.iter().copied()) {
            self.send(slot, body);
        }
        self.tell_roots(slot, lists);
    }

    fn tell_roots(&mut self, slot: usize, lists: &[u16]) {
        for lists in lists.chunks(ROOTS_IN_BODY_MAX) {
            let roots = lists.iter().filter_map(|&list| self.root(slot, list));
            let body = Roots::encode(roots.collect::<Vec<_>>());
            self.send(slot, body);
        }
    }

    fn root(&self, slot: usize, list: u16) -> Option<Root> {
        let sum = self.roster(list)?.sum_for(self.link(slot).remote_key);
        Some(Root {
            handle: list,
            count: sum.count,
            root: sum.root,
        })
    }

    /// The other side says what its lists amount to.
    pub(super) fn roots_told(&mut self, slot: usize, roots: Roots<'_>, now: Instant) {
        for theirs in roots.iter() {
            let Some(list) = self.link(slot).list(theirs.handle) else {
                continue;
            };
            let Some(ours) = self.root(slot, list) else {
                continue;
            };
            if (ours.count, ours.root) == (theirs.count, theirs.root) {
                self.link_mut(slot).repairs.remove(&list);
                continue;
            }
            let jitter = Duration::from_millis(self.rng.below(JITTER_MS).into());
            let (due, at) = if theirs.count > ours.count.saturating_add(FAR) {
                (Due::Digest, now)
            } else if ours.count > theirs.count.saturating_add(FAR) {
                // It begins as soon as it knows; if it does not know yet, it shall.
                (Due::Roots, now + AHEAD_PAUSE)
            } else {
                (Due::Digest, now + SETTLE + jitter)
            };
            let repair = self.repair(slot, list);
            repair.their_count = theirs.count;
            if repair.asked_until.is_none_or(|until| until <= now) {
                repair.rounds = 0;
                self.schedule(slot, list, due, at);
            }
        }
    }

    /// Compares a list with the neighbours' soon, but with the one in `slot`.
    pub(super) fn spread(&mut self, slot: usize, list: u16, now: Instant) {
        for other in self.slots() {
            let link = self.link(other);
            if other != slot && link.met.is_some() && link.shares(list) {
                self.schedule(other, list, Due::Roots, now + SETTLE);
            }
        }
    }

    /// An entry was refused for want of room or allowance: compare again later, ever more rarely.
    pub(super) fn refused(&mut self, slot: usize, list: u16, now: Instant) {
        let repair = self.repair(slot, list);
        if repair.due.is_none() && repair.refusals < REFUSALS_MAX {
            let pause = REFUSED_PAUSE * 2_u32.pow(repair.refusals);
            repair.refusals += 1;
            self.schedule(slot, list, Due::Roots, now + pause);
        }
    }

    /// Whether the other side owes us an answer about a list.
    pub(super) fn is_asked(&self, slot: usize, list: u16, now: Instant) -> bool {
        let repair = self.link(slot).repairs.get(&list);
        let until = repair.and_then(|repair| repair.asked_until);
        until.is_some_and(|until| until > now)
    }

    /// An entry of such an answer was weighed, and not refused.
    pub(super) fn note_answer(&mut self, slot: usize, list: u16, entry: &Entry, outcome: Outcome) {
        let Some(repair) = self.link_mut(slot).repairs.get_mut(&list) else {
            return;
        };
        if let (Some(addr), true) = (entry.addr, repair.asked_until.is_some()) {
            repair.is_progress |= outcome == Outcome::News;
            let rank = (entry.epoch, entry.standing, entry.is_evpeer);
            if outcome != Outcome::Older && repair.told.len() < ANSWER_MAX {
                repair.told.insert(addr.into(), rank);
            }
        }
    }

    /// Something of a repair is due.
    pub(super) fn repair_due(&mut self, serial: u32, list: u16, now: Instant) {
        let is_it = |slot: &usize| self.link(*slot).serial == serial;
        let Some(slot) = self.by_conn.values().copied().find(is_it) else {
            return;
        };
        let Some(repair) = self.link_mut(slot).repairs.get_mut(&list) else {
            return;
        };
        match repair.due {
            Some((at, due)) if at <= now => {
                repair.due = None;
                match due {
                    Due::Roots => self.tell_roots(slot, &[list]),
                    Due::Digest => self.ask(slot, list, now),
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, slot: usize, list: u16, now: Instant) {
        let link = self.link(slot);
        let (serial, remote) = (link.serial, link.remote_key);
        let busy = self.repairing.get(&list);
        if busy.is_some_and(|&(other, until)| other != serial && until > now) {
            return self.schedule(slot, list, Due::Digest, now + BUSY_PAUSE);
        }
        if !self.may_walk(slot, list, now) {
            return self.schedule(slot, list, Due::Digest, now + BUSY_PAUSE);
        }
        let link = self.link(slot);
        let Some(roster) = self.roster(list) else {
            return;
        };
        let their_count = link
            .repairs
            .get(&list)
            .map_or(0, |repair| repair.their_count);
        let their_bits = (their_count / 16).max(1).next_power_of_two().ilog2() as u8;
        let bits = roster.bucket_bits().max(their_bits).min(BUCKET_BITS_MAX);
        let body = Digest::encode(list, &roster.sums_for(remote, bits));
        self.repairing.insert(list, (serial, now + ANSWER_TIME));
        let repair = self.repair(slot, list);
        repair.asked_until = Some(now + ANSWER_TIME);
        repair.rounds += 1;
        repair.is_progress = false;
        repair.told.clear();
        // Whoever is too busy to compare says nothing.
        let unanswered = repair.unanswered;
        repair.unanswered += 1;
        if unanswered < UNANSWERED_MAX {
            let pause = ANSWER_TIME * 2_u32.pow(unanswered) + BUSY_PAUSE;
            self.schedule(slot, list, Due::Digest, now + pause);
        }
        self.counts.repairs += 1;
        self.send(slot, body);
    }

    /// The other side asks which of its buckets differ from ours.
    pub(super) fn digest_told(&mut self, slot: usize, digest: Digest<'_>, now: Instant) {
        let link = self.link(slot);
        let remote = link.remote;
        let Some(list) = link.list(digest.handle) else {
            return;
        };
        let answered = link.repairs.get(&list).and_then(|repair| repair.answered);
        let is_soon = answered.is_some_and(|at| now - at < ROUND_PAUSE);
        if is_soon || !self.may_walk(slot, list, now) {
            return;
        }
        let Some(roster) = self.roster(list) else {
            return;
        };
        let ours = roster.sums_for(remote.into(), digest.bits);
        let mut wanted: Vec<bool> = digest.sums().zip(ours).map(|(a, b)| a != b).collect();
        let entries = roster.in_buckets(&wanted, remote.into());
        let mut by_bucket: Vec<_> = entries
            .filter(|(key, _)| may_be_told(key.addr(), remote.ip()))
            .map(|(key, record)| (key.bucket(digest.bits), key, *record))
            .collect();
        by_bucket.sort_unstable_by_key(|(bucket, key, _)| (*bucket, *key));
        let (body, more) = fill(list, &by_bucket, &mut wanted);
        if let Some(body) = body {
            self.send(slot, body);
        }
        self.send(slot, Want::encode(list, &wanted, more));
        let repair = self.repair(slot, list);
        repair.answered = Some(now);
        repair.due = None; // one side at a time
    }

    /// The answer to our digest ends with what the other side wants.
    pub(super) fn want_told(&mut self, slot: usize, want: Want<'_>, now: Instant) {
        let Some(list) = self.link(slot).list(want.handle) else {
            return;
        };
        if !self.is_asked(slot, list, now) {
            return;
        }
        let remote = self.link(slot).remote;
        let repair = self.repair(slot, list);
        (repair.asked_until, repair.unanswered, repair.due) = (None, 0, None);
        let told = std::mem::take(&mut repair.told);
        let wanted: Vec<bool> = (0..1 << want.bits).map(|bucket| want.has(bucket)).collect();
        let Some(roster) = self.roster(list) else {
            return;
        };
        let is_new = |(key, record): &(Key, &Record)| {
            told.get(key) != Some(&record.rank()) && may_be_told(key.addr(), remote.ip())
        };
        let entries = roster.in_buckets(&wanted, remote.into()).filter(is_new);
        let entries: Vec<_> = entries
            .map(|(key, record)| (list, record.entry(key)))
            .take(ANSWER_MAX)
            .collect();
        let bodies = encode(Why::Repair, entries.iter().copied());
        let is_any = !bodies.is_empty();
        bodies.into_iter().for_each(|body| self.send(slot, body));
        self.repairing.remove(&list);
        let repair = self.repair(slot, list);
        repair.is_progress |= is_any;
        if want.more && repair.is_progress && repair.rounds < ROUNDS_MAX {
            self.schedule(slot, list, Due::Digest, now + ROUND_PAUSE);
        }
    }

    /// Whether one more round, which walks over a list twice, may be spent on a link.
    fn may_walk(&mut self, slot: usize, list: u16, now: Instant) -> bool {
        let len = self.roster(list).map_or(0, Roster::len);
        self.link_mut(slot).walks.take(2 * len, now)
    }

    fn repair(&mut self, slot: usize, list: u16) -> &mut Repair {
        self.link_mut(slot).repairs.entry(list).or_default()
    }

    fn schedule(&mut self, slot: usize, list: u16, due: Due, at: Instant) {
        self.repair(slot, list).due = Some((at, due));
        let serial = self.link(slot).serial;
        self.repairs_due.arm((serial, list), at);
    }
}

/// Writes entries, bucket by bucket, until a body is full. The bucket that does not fit, and those
/// after it, are not `wanted` in turn but another time; says whether there are any.
fn fill(
    list: u16,
    by_bucket: &[(usize, Key, Record)],
    wanted: &mut [bool],
) -> (Option<bytes::Bytes>, bool) {
    let newest = by_bucket.iter().map(|(_, _, record)| record.epoch).max();
    let mut writer = EntriesWriter::entries(Why::Repair, newest.unwrap_or(0));
    for (bucket, key, record) in by_bucket {
        if !writer.has_room() {
            // A bucket that no body can hold is sent as far as it goes.
            let cut = (*bucket).max(by_bucket[0].0 + 1).min(wanted.len());
            let rest = &mut wanted[cut..];
            let more = rest.contains(&true);
            rest.fill(false);
            return (Some(writer.finish()), more);
        }
        writer.push(list, &record.entry(*key));
    }
    let body = (!writer.is_empty()).then(|| writer.finish());
    (body, false)
}

/// Entries told when two hosts meet, at most.
const MEETING_MAX: usize = 200;
/// Peers that a list must lack, beside the latest, for its repair to begin at once.
const FAR: u32 = 200;
/// Time in which what is on its way arrives, before a list is compared bucket by bucket.
const SETTLE: Duration = Duration::from_secs(2);
/// Spread of that, milliseconds: of two sides one begins.
const JITTER_MS: u32 = 2000;
/// Time for the other side, if it is far behind, to catch up before it is told our root again.
const AHEAD_PAUSE: Duration = Duration::from_secs(10);
/// Time for an answer to a digest.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Digests in a row that one side sends in vain; each pause is twice the one before.
const UNANSWERED_MAX: u32 = 5;
/// Time between two rounds on one link.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Time before another link is tried while one repairs the list.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// Rounds in a row at most.
const ROUNDS_MAX: u32 = 64;
/// Entries of one answer that are remembered, and sent in turn, at most.
const ANSWER_MAX: usize = 4096;
/// Pause before lists are compared again because an entry was refused; it doubles.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// How often that is done at most.
const REFUSALS_MAX: u32 = 8;
