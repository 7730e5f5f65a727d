//! Files of a torrent that its user wants, and those that are not wanted.
//!
//! A torrent with all that is wanted of it is a *partial seed* (BEP 21): state `seeding`, its peers
//! hear at once that it only uploads, but trackers are told that bytes are left, and that it waits
//! (`event=paused`). As soon as more is wanted it is a leecher again.

use std::sync::Arc;

use super::action::StorageAction;
use super::{Engine, Report, State};
use crate::base::choice::Choice;
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::meta::choice;
use crate::meta::metainfo::Metainfo;
use crate::swarm::Swarm;

impl Engine {
    /// What a torrent is; `None` if there is no such torrent.
    pub fn metainfo(&self, id: TorrentId) -> Option<&Arc<Metainfo>> {
        Some(self.torrents.get(&id)?.swarm.meta())
    }

    /// What the user chose of a torrent; `None` if there is no such torrent.
    pub fn choice(&self, id: TorrentId) -> Option<&Choice> {
        Some(&self.torrents.get(&id)?.choice)
    }

    /// The user wants this of a torrent from now on. False if there is no such torrent.
    pub fn choose(&mut self, id: TorrentId, choice: Choice, now: Instant) -> bool {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return false;
        };
        if torrent.choice == choice {
            return true;
        }
        torrent.choice = choice;
        apply(&mut torrent.swarm, &torrent.choice, now);
        let (state, has_all) = (torrent.state, torrent.swarm.has_all_wanted());
        self.tell_choice(id);
        match state {
            State::Downloading | State::Seeding => {
                self.storage(StorageAction::Begin { torrent: id }); // of files without bytes
            }
            State::Checking | State::Queued | State::Paused | State::Error => {}
        }
        match (state, has_all) {
            (State::Seeding, true) => {
                self.sync(id);
            }
            (State::Seeding, false) => self.become_leecher(id, now),
            (State::Queued, true) => self.take_turn(id, now), // there is nothing to wait for
            _ => {}
        }
        self.report(Report::Chosen { torrent: id });
        self.run_effects(id, now);
        self.rearm_torrent(id, now);
        true
    }

    /// Storage is about to open a torrent: whether its files fit depends on which are wanted.
    pub(super) fn choice_before_opening(&mut self, id: TorrentId) {
        if self.choice(id).is_some_and(Choice::is_partial) {
            self.tell_choice(id);
        }
    }

    /// Tells storage which files are not wanted.
    fn tell_choice(&mut self, id: TorrentId) {
        if let Some(torrent) = self.torrents.get(&id) {
            let count = torrent.swarm.meta().geometry().file_count();
            let mut skipped = torrent.choice.skipped();
            skipped.retain(|&file| file < count);
            self.storage(StorageAction::Choose {
                torrent: id,
                skipped,
            });
        }
    }

    /// Something is missing of a torrent that seeded: everybody hears of it, and seeds that were
    /// of no use are called again.
    pub(super) fn become_leecher(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.durable = false;
        torrent.candidates.wake(now);
        torrent.tracker.hurry(now);
        self.set_state(id, State::Downloading, None, now);
        self.track(id, now);
        self.tell_upload_only(id, false);
    }

    /// Whether a torrent is there as a whole, and seeds: other seeds are of no use to it.
    pub(super) fn is_whole_seed(&self, id: TorrentId) -> bool {
        let torrent = self.torrents.get(&id);
        torrent.is_some_and(|t| t.state == State::Seeding && t.swarm.is_complete())
    }
}

/// Makes a new exchange, which wants everything, want what is chosen.
pub(super) fn apply_to_new(swarm: &mut Swarm, choice: &Choice, now: Instant) {
    if *choice != Choice::default() {
        apply(swarm, choice, now);
    }
}

/// Makes an exchange want what is chosen.
fn apply(swarm: &mut Swarm, choice: &Choice, now: Instant) {
    let pieces = choice::pieces(swarm.meta().geometry(), choice);
    swarm.choose(pieces, choice.order, now);
}
