//! What was verified of a torrent when storage gave it up.
//!
//! A journal on a full disk takes no more records. What it could not be told is not lost as long as
//! the process lives: the pieces are hashed again when the torrent comes back, not fetched.

use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;
use crate::storage::Storage;
use crate::storage::journal::{Claim, Resumed};

impl Storage {
    /// The torrent is about to be given up.
    pub(in crate::storage) fn keep_in_mind(&mut self, id: TorrentId) {
        let Some(memory) = self.memory(id) else {
            return;
        };
        let log = memory.log;
        let awaiting: Vec<u32> = (memory.waiting.awaiting.iter())
            .map(|(piece, _)| piece.0)
            .collect();
        let mut verified = self.logs[&log].log.known().claims.held().clone();
        for piece in awaiting {
            verified.set(piece);
        }
        self.former.insert(id, verified);
    }

    /// The torrent comes back: what was verified then and is claimed no more is worth hashing, as
    /// far as its files are there.
    pub(super) fn recall(&mut self, id: TorrentId, resumed: &mut Resumed, whole: &Bitfield) {
        let Some(verified) = self.former.remove(&id) else {
            return;
        };
        let claims = &resumed.knowledge.claims;
        let is_forgotten = |&piece: &u32| whole.has(piece) && claims.get(piece) == Claim::Absent;
        let forgotten: Vec<u32> = verified.ones().filter(is_forgotten).collect();
        resumed.knowledge.set_all(&forgotten, Claim::Doubtful);
        for piece in forgotten {
            resumed.unproven.set(piece);
        }
    }
}
