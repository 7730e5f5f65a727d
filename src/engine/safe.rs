//! What storage is asked to make safe, and what its answers mean.
//!
//! A question carries a ticket, which comes back with the answer. A piece may be lost and fetched
//! again between the two: only the answer to the last question is about all that is stored.

use super::action::StorageAction;
use super::{Engine, Report, State};
use crate::base::id::{Ticket, TorrentId};
use crate::base::time::Instant;

impl Engine {
    /// Asks storage to say when every stored byte of the torrent is with the kernel.
    pub(super) fn settle(&mut self, id: TorrentId) {
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.settling = torrent.settling.next();
            let ticket = torrent.settling;
            self.storage(StorageAction::Settle {
                torrent: id,
                ticket,
            });
        }
    }

    /// Has storage make everything of the torrent durable.
    pub(super) fn sync(&mut self, id: TorrentId) {
        if let Some(ticket) = self.next_sync(id) {
            self.storage(StorageAction::Sync {
                torrent: id,
                ticket,
            });
        }
    }

    /// The same for the last time.
    pub(super) fn leave_storage(&mut self, id: TorrentId) {
        if let Some(ticket) = self.next_sync(id) {
            self.last_syncs.insert(id);
            self.storage(StorageAction::Leave {
                torrent: id,
                ticket,
            });
        }
    }

    fn next_sync(&mut self, id: TorrentId) -> Option<Ticket> {
        let torrent = self.torrents.get_mut(&id)?;
        torrent.syncing = torrent.syncing.next();
        Some(torrent.syncing)
    }

    /// Every byte of the torrent that was stored when that was asked is with the kernel.
    pub fn settled(&mut self, id: TorrentId, ticket: Ticket, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.settling != ticket {
            return; // there is more by now
        }
        let is_first = torrent.swarm.is_complete() && !torrent.was_complete;
        match torrent.state {
            // Its last bytes were on their way when it was paused.
            State::Queued if torrent.swarm.has_all_wanted() => {
                self.come_back(id, now, now);
                self.set_state(id, State::Downloading, None, now);
                self.settle(id);
            }
            State::Downloading if torrent.swarm.has_all_wanted() => {
                self.report(Report::Complete { torrent: id });
                self.become_seed(id, now);
            }
            // What was not wanted any more came all the same.
            State::Seeding if is_first => self.become_seed(id, now),
            _ => {}
        }
    }

    /// Everything of the torrent that was stored when that was asked is on disk.
    pub fn durable(&mut self, id: TorrentId, ticket: Ticket, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.syncing != ticket {
            return; // there is more by now
        }
        self.last_syncs.remove(&id);
        if torrent.state == State::Seeding && !std::mem::replace(&mut torrent.durable, true) {
            self.report(Report::Durable { torrent: id });
            self.rearm_torrent(id, now); // its goal may be reached
        }
    }
}
