//! What is told when all whom this peer knows in a swarm have everything: how long that took, and
//! how many copies of the data this peer sent meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Peer;
use crate::base::id::TorrentId;
use crate::cli::output::printable;
use crate::cli::units::show_time;
use crate::control::api;
use crate::engine::Census;
use crate::engine::action::{Report, Snapshot, State};

/// The torrents that are being spread, as far as this peer has to do with it.
#[derive(Debug, Default)]
pub(super) struct Spreads {
    under_way: BTreeMap<TorrentId, Spread>,
    /// When they are looked at next.
    next_at: Option<Instant>,
}

/// A torrent of which somebody may miss something.
#[derive(Debug)]
struct Spread {
    /// When the first of the others came.
    since: Instant,
    /// Payload that had been sent before, in this run.
    up_before: u64,
    /// How often in a row somebody was seen to miss something, this peer perhaps: who has just
    /// come may not have said yet that he has everything.
    missing_looks: u32,
    /// Somebody did miss something.
    was_missing: bool,
    /// This peer misses something itself: there is nothing to look at until it is complete.
    is_leecher: bool,
    /// Since when nobody misses anything.
    done_at: Option<Instant>,
}

impl Spreads {
    /// How long until they are to be looked at.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next_at
            .map_or(Duration::MAX, |at| at.saturating_duration_since(now))
    }
}

impl Spread {
    /// Takes what is known of the swarm now; when the last was complete, if nobody has missed
    /// anything for `time`.
    fn look(
        &mut self,
        snapshot: &Snapshot,
        census: Census,
        time: Duration,
        now: Instant,
    ) -> Option<Instant> {
        self.is_leecher = snapshot.state != State::Seeding;
        if self.is_leecher || census.complete < census.peers {
            self.missing_looks += 1;
            self.was_missing |= self.is_leecher || self.missing_looks > 1;
            self.done_at = None;
            return None;
        }
        self.missing_looks = 0;
        let done_at = *self.done_at.get_or_insert(now);
        (now - done_at >= time).then_some(done_at)
    }
}

impl Peer {
    /// Somebody may have come who misses something.
    pub(super) fn note_spread(&mut self, report: &Report, snapshot: &Snapshot) {
        let now = Instant::now();
        let Spreads { under_way, next_at } = &mut self.spreads;
        let is_to_be_seen = match report {
            Report::PeerJoined { torrent, .. } => {
                let spread = under_way.entry(*torrent).or_insert(Spread {
                    since: now,
                    up_before: snapshot.up_bytes,
                    missing_looks: 0,
                    was_missing: snapshot.state != State::Seeding,
                    is_leecher: false,
                    done_at: None,
                });
                !spread.is_leecher
            }
            Report::State { torrent, state, .. } => match state {
                State::Paused | State::Queued | State::Error => {
                    under_way.remove(torrent);
                    false
                }
                State::Checking | State::Downloading => false,
                State::Seeding => under_way.contains_key(torrent),
            },
            _ => false,
        };
        if is_to_be_seen {
            next_at.get_or_insert(now + LOOK_INTERVAL);
        }
    }

    /// Looks whether any of them has come to its end, if it is time.
    pub(super) fn look_at_spreads(&mut self) {
        let now = Instant::now();
        if self.spreads.next_at.is_some_and(|at| at <= now) {
            self.tell_spreads(STAYS_DONE_TIME, now);
        }
    }

    /// The same as this peer is about to leave; then it looks no more.
    pub(super) fn look_at_last_spreads(&mut self) {
        self.tell_spreads(Duration::ZERO, Instant::now());
        self.spreads = Spreads::default();
    }

    /// Tells of those in which nobody has missed anything for `time`.
    fn tell_spreads(&mut self, time: Duration, now: Instant) {
        let mut under_way = std::mem::take(&mut self.spreads.under_way);
        under_way.retain(|&torrent, spread| {
            let Some(snapshot) = self.reactor.snapshot(torrent) else {
                return false;
            };
            let census = self.reactor.engine_mut().swarm_census(torrent);
            let census = census.unwrap_or_default();
            let Some(done_at) = spread.look(&snapshot, census, time, now) else {
                return true;
            };
            let up = snapshot.up_bytes.saturating_sub(spread.up_before);
            if spread.was_missing || up > 0 {
                let time = done_at - spread.since;
                let copies = up as f64 / snapshot.length.max(1) as f64;
                let all = match census.peers {
                    0 => "nobody else is there any more".to_owned(),
                    1 => "the other peer that is known has everything".to_owned(),
                    peers => format!("all other {peers} peers that are known have everything"),
                };
                let name = printable(&snapshot.name);
                let text = format!(
                    "{name}: {all}, {} after the first came; {copies:.2} copies sent",
                    show_time(time)
                );
                let object = api::spread(&snapshot, census.peers, time, copies);
                self.progress.tell(&text, &object);
            }
            false
        });
        let is_any = under_way.values().any(|spread| !spread.is_leecher);
        self.spreads.next_at = is_any.then_some(now + LOOK_INTERVAL);
        self.spreads.under_way = under_way;
    }
}

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long nobody must miss anything: newcomers may be on their way.
const STAYS_DONE_TIME: Duration = Duration::from_millis(1500);
