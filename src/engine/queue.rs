//! Torrents that wait for their turn to download (`--max-active`).
//!
//! ```text
//!                 pieces are missing,               a place is free,
//!  checking ──── and all places taken ──▶ queued ── or its user resumes it ──▶ downloading
//!                                           ▲                                       │
//!                                           └── for a while more get on than may ───┘
//! ```
//!
//! Those that were added first have their turn first, whichever check ends first. One that has
//! received nothing for a while goes on, but holds no place meanwhile: nobody waits behind a swarm
//! without seeds. After an outage of the network many get on at a time; those that were added last
//! wait again then. Seeding takes no place. To everybody else a queued torrent is a paused one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::timers::TimerId;
use super::torrent::Torrent;
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::time::Instant;

/// Who gets on.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The torrents that download or are checked, as far as they were looked at.
    received: BTreeMap<TorrentId, Received>,
    /// Those that their user had begin out of turn: they do not wait again.
    called: BTreeSet<TorrentId>,
    /// While more get on than may.
    surplus: Option<Surplus>,
    /// When places are given away next.
    armed: Option<Instant>,
}

/// What a torrent has received.
#[derive(Clone, Copy, Debug)]
struct Received {
    bytes: u64,
    /// Since when it is no more.
    since: Instant,
    /// Some of it came as it was looked at.
    gets_on: bool,
    /// Its bytes at the last look at a surplus,
    seen: u64,
    /// and at how many of these looks some had come.
    busy_looks: u32,
}

/// A time in which more get on than may.
#[derive(Clone, Copy, Debug)]
struct Surplus {
    since: Instant,
    looked_at: Instant,
    looks: u32,
}

impl Engine {
    /// Torrents that download at a time; 0 is no bound.
    pub fn max_active(&self) -> u32 {
        self.config.max_active
    }

    /// Whether one more torrent may download beside the others.
    pub(super) fn has_place(&mut self, id: TorrentId, now: Instant) -> bool {
        let most = self.config.max_active as usize;
        most == 0 || self.places_taken(id, now) < most
    }

    /// Looks at what the torrents have received.
    fn look_at_received(&mut self, now: Instant) {
        let Self {
            torrents, queue, ..
        } = self;
        let may_hold = |state| matches!(state, State::Downloading | State::Checking);
        let is_there = |id: &TorrentId| torrents.get(id).is_some_and(|t| may_hold(t.state));
        queue.received.retain(|id, _| is_there(id));
        for (&id, torrent) in torrents.iter().filter(|(_, t)| may_hold(t.state)) {
            let bytes = torrent.totals().down;
            let received = queue.received.entry(id).or_insert(Received {
                bytes,
                since: now,
                gets_on: false,
                seen: bytes,
                busy_looks: 0,
            });
            if received.bytes != bytes {
                (received.bytes, received.since) = (bytes, now);
                received.gets_on = true;
            }
        }
    }

    /// Whether the torrent holds a place, if it may: that it receives nothing is not long so.
    fn is_patient(&self, id: TorrentId, now: Instant) -> bool {
        let received = self.queue.received.get(&id);
        received.is_some_and(|received| now - received.since < STALL_TIME)
    }

    /// The places that this torrent cannot have: others download in them, or have their turn
    /// before it.
    fn places_taken(&mut self, id: TorrentId, now: Instant) -> usize {
        self.look_at_received(now);
        let holds = |other: TorrentId, torrent: &Torrent| match torrent.state {
            _ if other == id => false,
            State::Downloading => !torrent.was_complete && self.is_patient(other, now),
            State::Checking => other < id && !torrent.was_complete && self.is_patient(other, now),
            State::Queued => other < id,
            State::Seeding | State::Paused | State::Error => false,
        };
        let torrents = self.torrents.iter();
        torrents
            .filter(|(id, torrent)| holds(**id, torrent))
            .count()
    }

    /// A torrent that has to wait: nobody hears of it until its turn.
    pub(super) fn queue(&mut self, id: TorrentId, now: Instant) {
        let reason = format!(
            "as many torrents download as may at a time, {}",
            self.config.max_active
        );
        self.rest(id, State::Queued, Some(reason), now);
    }

    /// A torrent may have left its place, or may want one.
    pub(super) fn queue_changed(&mut self, now: Instant) {
        if self.config.max_active > 0 {
            self.arm_queue(now);
        }
    }

    fn arm_queue(&mut self, at: Instant) {
        if self.queue.armed.is_none_or(|armed| at < armed) {
            self.queue.armed = Some(at);
            self.timers.arm(TimerId::Queue, at);
        }
    }

    /// Gives free places away, and has those wait again for whom there is none.
    pub(super) fn queue_due(&mut self, now: Instant) {
        if self.queue.armed.take_if(|at| *at <= now).is_none() {
            return; // an earlier entry stood for this one
        }
        if self.ending.is_some() {
            return;
        }
        self.take_places_back(now);
        while let Some(id) = self.first_of(State::Queued) {
            if !self.has_place(id, now) {
                return self.arm_queue(now + LOOK_INTERVAL);
            }
            self.take_turn(id, now);
        }
        let downloading = self.torrents.values();
        let downloading = downloading
            .filter(|t| t.state == State::Downloading && !t.was_complete)
            .count();
        if downloading > self.config.max_active as usize {
            self.arm_queue(now + LOOK_INTERVAL);
        }
    }

    fn first_of(&self, state: State) -> Option<TorrentId> {
        let mut torrents = self.torrents.iter();
        let (id, _) = torrents.find(|(_, torrent)| torrent.state == state)?;
        Some(*id)
    }

    /// Where more torrents get on than may, and not just for a moment, those that were added last
    /// wait again. One that received something now and then drives nobody out.
    fn take_places_back(&mut self, now: Instant) {
        self.look_at_received(now);
        if self.beyond_places(0, now).is_empty() {
            self.queue.surplus = None;
            return;
        }
        let Queue {
            surplus, received, ..
        } = &mut self.queue;
        let is_new = surplus.is_none();
        let surplus = surplus.get_or_insert(Surplus {
            since: now,
            looked_at: now,
            looks: 0,
        });
        if is_new || now - surplus.looked_at >= LOOK_INTERVAL {
            surplus.looked_at = now;
            surplus.looks += u32::from(!is_new);
            for received in received.values_mut() {
                let has_more = received.seen != received.bytes;
                received.busy_looks = match is_new {
                    true => 0,
                    false => received.busy_looks + u32::from(has_more),
                };
                received.seen = received.bytes;
            }
        }
        let Surplus { since, looks, .. } = *surplus;
        if now - since >= STALL_TIME {
            self.queue.surplus = None;
            for id in self.beyond_places(looks / 2 + 1, now) {
                self.queue(id, now);
            }
        }
    }

    /// Of the torrents that get on, and had received something at so many looks, those for whom
    /// there are no places.
    fn beyond_places(&self, busy_looks: u32, now: Instant) -> Vec<TorrentId> {
        let gets_on = |id: &TorrentId| {
            let received = self.queue.received.get(id);
            let torrent = &self.torrents[id];
            torrent.state == State::Downloading
                && !torrent.was_complete
                && !torrent.swarm.has_all_wanted()
                && !self.queue.called.contains(id)
                && received.is_some_and(|r| r.gets_on && r.busy_looks >= busy_looks)
                && self.is_patient(*id, now)
        };
        let active = self.torrents.keys().copied().filter(gets_on);
        active.skip(self.config.max_active as usize).collect()
    }

    /// It is the turn of a torrent that was queued.
    pub(super) fn take_turn(&mut self, id: TorrentId, now: Instant) {
        self.come_back(id, now, now);
        self.begin(id, now);
    }

    /// Its user has a torrent that was queued begin now.
    pub(super) fn call_out_of_turn(&mut self, id: TorrentId, now: Instant) {
        self.take_turn(id, now);
        self.queue.called.insert(id);
    }

    /// A torrent is in another state, or gone: what it had received is of no interest any more.
    pub(super) fn state_begins(&mut self, id: TorrentId, state: Option<State>) {
        self.queue.received.remove(&id);
        if !matches!(state, Some(State::Downloading | State::Seeding)) {
            self.leave_line(id);
        }
        if state != Some(State::Downloading) {
            self.queue.called.remove(&id);
        }
    }

    /// Something else is to be done with a torrent that may be queued: it is not at rest any more.
    pub(super) fn leave_queue(&mut self, id: TorrentId, now: Instant) {
        if self.state(id) == Some(State::Queued) {
            self.come_back(id, now, now);
        }
    }
}

/// A torrent that has received nothing for so long holds no place; nor has one that gets on to
/// leave its place before more than may get on have done so for as long.
const STALL_TIME: Duration = Duration::from_secs(60);
/// How often that is looked at while others wait.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
