//! What a user asks of a running torrent: pause, resume, removal, and a closer look.
//!
//! ```text
//!            pause                       resume: on with what was done before, or `queue`d
//!  running ────────▶ paused ─────────────────────────────────────────────────▶ running
//!     │                 │  its files were lost to an error before: as below
//!     │ a fault         ▼
//!     └─────────────▶ error ── resume: opened anew, everything is checked ──▶ checking
//! ```
//!
//! A fault that may pass is `plight`'s: the torrent serves and goes on by itself, and `resume` only
//! makes it try at once.
//!
//! A paused torrent has no connections and no deadlines, and its trackers know that it stopped.
//! Storage keeps its files, synced, so that whatever was under way ends in good order.

use std::sync::Arc;

use super::action::StorageAction;
use super::choosing;
use super::torrent::Transferred;
use super::view::{Direction, FileView, PeerView, TrackerView};
use super::{Ending, Engine, Report, State};
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::metainfo::FileKind;
use crate::swarm::Swarm;
use crate::tracker::budget::Rates;
use crate::wire::url::TrackerUrl;

impl Engine {
    /// Lets go of a torrent; its data stays. False if there is no such torrent.
    pub fn remove_torrent(&mut self, id: TorrentId, now: Instant) -> bool {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
        torrent.state = State::Paused; // nobody is dialled in the place of those who go
        self.network_stands(id, State::Paused);
        self.state_begins(id, None);
        self.queue_changed(now);
        self.part_with_peers(id, "the torrent is removed", now);
        self.stop_announcing(id, now);
        let Some(torrent) = self.torrents.remove(&id) else {
            return false;
        };
        if self.torrents.is_empty() {
            self.server.set_rates(Rates::ALONE);
        }
        let meta = torrent.swarm.meta();
        self.by_hash.remove(&meta.info_hash);
        self.server.registry.untrack(meta.info_hash);
        if let Some(lsd) = &mut self.lsd {
            lsd.remove(meta.info_hash);
        }
        self.last_syncs.remove(&id);
        self.pace.forget_torrent(id);
        // It may know of the torrent although it does not have its files.
        self.storage(StorageAction::Close { torrent: id });
        log::info!(
            "torrent removed name=\"{}\" info_hash={}",
            meta.name.escape_debug(),
            meta.info_hash.short()
        );
        self.report(Report::Removed {
            torrent: id,
            name: meta.name.clone(),
            info_hash: meta.info_hash,
        });
        true
    }

    /// Stops a torrent until it is resumed. False if there is no such torrent.
    pub fn pause(&mut self, id: TorrentId, now: Instant) -> bool {
        self.pause_for(id, None, now)
    }

    /// Pauses a torrent, and says why unless its user did it.
    pub(super) fn pause_for(&mut self, id: TorrentId, why: Option<String>, now: Instant) -> bool {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
        if torrent.state == State::Paused {
            return true;
        }
        torrent.paused_from = Some(torrent.state);
        let is_open = torrent.is_open;
        self.rest(id, State::Paused, why, now);
        if is_open {
            self.sync(id);
        }
        true
    }

    /// A torrent takes no part in its swarm for a while.
    pub(super) fn rest(&mut self, id: TorrentId, state: State, why: Option<String>, now: Instant) {
        self.set_state(id, state, why, now);
        self.part_with_peers(id, "the torrent is paused", now);
        self.stop_announcing(id, now);
        self.unlist(id, now);
    }

    /// A torrent that was at rest takes part again, and announces itself at `announce_at`.
    pub(super) fn come_back(&mut self, id: TorrentId, announce_at: Instant, now: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.tracker.resumed(announce_at);
            torrent.candidates.wake(now);
            self.track(id, now);
        }
    }

    /// Goes on with a torrent that was paused or has failed. False if there is no such torrent.
    pub fn resume(&mut self, id: TorrentId, now: Instant) -> bool {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
        match torrent.state {
            State::Paused | State::Error => {}
            State::Queued => {
                self.call_out_of_turn(id, now);
                return true;
            }
            State::Checking | State::Downloading | State::Seeding => return true,
        }
        if torrent.plight.is_some() {
            // One that is paused did not tell its user what he would do without.
            if torrent.state == State::Error {
                let info_hash = torrent.swarm.meta().info_hash;
                self.storage(StorageAction::DoWithoutDisk { info_hash });
            }
            self.try_now(id, now);
            return true;
        }
        self.goal_passed(id, now);
        let announce_at = self.announce_turn(now);
        self.come_back(id, announce_at, now);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
        let before = torrent.paused_from.take();
        let is_complete = torrent.swarm.has_all_wanted();
        match before {
            _ if !torrent.is_open => self.open_again(id, now),
            Some(State::Checking) => {
                self.set_state(id, State::Checking, None, now);
                self.check_more(id, now);
            }
            // The last bytes were on their way when it was paused: it is told as complete now.
            Some(State::Downloading) if is_complete => {
                self.set_state(id, State::Downloading, None, now);
                self.settle(id);
            }
            // Its exchange may not have begun yet.
            _ => self.start(id, now),
        }
        self.rearm_torrent(id, now);
        true
    }

    /// Storage knows the torrent no more: it begins as if it were added now.
    pub(super) fn open_again(&mut self, id: TorrentId, now: Instant) {
        let rng = Rng::new(self.rng.next_u64());
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let meta = Arc::clone(torrent.swarm.meta());
        let swarm = Swarm::new(id, Arc::clone(&meta), rng, now);
        let old = std::mem::replace(&mut torrent.swarm, swarm);
        choosing::apply_to_new(&mut torrent.swarm, &torrent.choice, now);
        torrent.before.add(&Transferred::of(&old));
        torrent.check = None;
        torrent.durable = false;
        torrent.is_open = true;
        let writable = torrent.plight.is_none();
        if writable {
            self.set_state(id, State::Checking, None, now);
        }
        self.choice_before_opening(id);
        self.storage(StorageAction::Open {
            torrent: id,
            meta,
            writable,
        });
    }

    /// Closes every stream to peers of this torrent, those that are being opened too.
    pub(super) fn part_with_peers(&mut self, id: TorrentId, why: &str, now: Instant) {
        for conn in self.conns_of(id) {
            self.close(conn, Ending::Local(why), now);
        }
    }

    /// What was transferred for a torrent in all runs; `None` if there is no such torrent.
    pub fn totals(&self, id: TorrentId) -> Option<Transferred> {
        self.torrents.get(&id).map(|torrent| torrent.totals())
    }

    /// The connected peers of a torrent; `None` if there is no such torrent.
    pub fn peers(&mut self, id: TorrentId, now: Instant) -> Option<Vec<PeerView>> {
        let torrent = self.torrents.get_mut(&id)?;
        let mut views = Vec::new();
        for (_, (_, conn)) in &self.conns {
            let Some(exchange) = conn.exchange().filter(|e| e.torrent == id) else {
                continue;
            };
            let (down_bytes_s, up_bytes_s) = torrent.swarm.peer_rates(exchange.key, now);
            let peer = torrent.swarm.peer(exchange.key);
            views.push(PeerView {
                remote: conn.remote,
                listens: conn.listens,
                peer_id: exchange.peer_id,
                client: exchange.client.as_deref().map(str::to_owned),
                source: conn.listens.and_then(|at| torrent.candidates.source(at)),
                direction: match exchange.dialled {
                    true => Direction::Outgoing,
                    false => Direction::Incoming,
                },
                is_seed: peer.is_seed(),
                pieces: peer.have.count_ones(),
                silent_for: now - conn.last_in,
                age: now - conn.opened,
                down_bytes_s,
                up_bytes_s,
                down_bytes: peer.down.total(),
                up_bytes: peer.up.total(),
                chokes_us: peer.chokes_us,
                wants_us: peer.wants_us,
                choked: peer.choked,
                wanted: peer.wanted,
            });
        }
        Some(views)
    }

    /// The trackers of a torrent, in their tiers; `None` if there is no such torrent.
    pub fn trackers(&self, id: TorrentId) -> Option<Vec<TrackerView>> {
        let torrent = self.torrents.get(&id)?;
        let given = torrent.contacts.trackers.iter().map(std::slice::from_ref);
        let own = torrent.swarm.meta().trackers.iter().map(Vec::as_slice);
        let view = |tier: usize, url: &String| {
            let url = TrackerUrl::parse(url).ok()?.to_string();
            let heard = torrent.contacts.heard.get(&url).cloned();
            Some(TrackerView { url, tier, heard })
        };
        let tiers = own.chain(given).enumerate();
        let all = tiers.flat_map(|(tier, urls)| urls.iter().filter_map(move |url| view(tier, url)));
        Some(all.collect())
    }

    /// The files of a torrent from the one at `from` on, with their places; none if there is no
    /// such torrent.
    pub fn files(&self, id: TorrentId, from: usize) -> impl Iterator<Item = (usize, FileView)> {
        let torrent = self.torrents.get(&id);
        torrent.into_iter().flat_map(move |torrent| {
            let files = torrent.swarm.meta().files.iter().enumerate();
            let files = files.filter(|(_, file)| file.kind == FileKind::Data);
            let files = (1..)
                .zip(files)
                .skip_while(move |(_, (place, _))| *place < from);
            files.map(|(number, (place, file))| {
                let view = FileView {
                    number,
                    priority: torrent.choice.of(place as u32),
                    path: file.path.as_str().to_owned(),
                    length: file.len,
                    done_bytes: done_bytes_of_file(&torrent.swarm, place as u32),
                };
                (place, view)
            })
        })
    }
}

/// Bytes of a file that lie in verified pieces.
fn done_bytes_of_file(swarm: &Swarm, file: u32) -> u64 {
    let geometry = swarm.meta().geometry();
    let begin = geometry.file_offset(file);
    let end = begin + geometry.file_len(file);
    let good = geometry.pieces_of_file(file);
    let good = good.filter(|&piece| swarm.pieces().has(piece));
    good.map(|piece| {
        let piece = PieceIndex(piece);
        let from = geometry.offset(piece, 0);
        let to = from + u64::from(geometry.piece_len(piece));
        to.min(end).saturating_sub(from.max(begin))
    })
    .sum()
}

#[cfg(test)]
mod tests;
