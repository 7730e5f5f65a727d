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
    /// Payload that had been sent before, in all runs.
    up_before: u64,
    /// Somebody was seen to miss something, this peer perhaps.
    was_missing: bool,
    /// Since when nobody does.
    done_at: Option<Instant>,
}

impl Spreads {
    /// How long until they are to be looked at.
    pub fn wait(&self, now: Instant) -> Duration {
        let at = self.next_at.filter(|_| !self.under_way.is_empty());
        at.map_or(Duration::MAX, |at| at.saturating_duration_since(now))
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
        let is_seed = snapshot.state == State::Seeding;
        if !is_seed || census.complete < census.peers {
            self.was_missing = true;
            self.done_at = None;
            return None;
        }
        let done_at = *self.done_at.get_or_insert(now);
        (now - done_at >= time).then_some(done_at)
    }
}

impl Peer {
    /// Somebody may have come who misses something.
    pub(super) fn note_spread(&mut self, report: &Report, snapshot: &Snapshot) {
        if let Report::PeerJoined { torrent, .. } = report {
            let now = Instant::now();
            let spreads = &mut self.spreads;
            spreads.under_way.entry(*torrent).or_insert(Spread {
                since: now,
                up_before: snapshot.up_bytes,
                was_missing: snapshot.state != State::Seeding,
                done_at: None,
            });
            spreads.next_at.get_or_insert(now + LOOK_INTERVAL);
        }
    }

    /// Looks whether any of them has come to its end, if it is time.
    pub(super) fn look_at_spreads(&mut self) {
        let now = Instant::now();
        if self.spreads.next_at.is_some_and(|at| at <= now) {
            self.tell_spreads(STAYS_DONE_TIME, now);
        }
    }

    /// The same as this peer is about to leave.
    pub(super) fn look_at_last_spreads(&mut self) {
        self.tell_spreads(Duration::ZERO, Instant::now());
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
        self.spreads.next_at = (!under_way.is_empty()).then_some(now + LOOK_INTERVAL);
        self.spreads.under_way = under_way;
    }
}

/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long nobody must miss anything: newcomers may be on their way.
const STAYS_DONE_TIME: Duration = Duration::from_millis(1500);
