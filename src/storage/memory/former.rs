//! What was verified of a torrent when storage gave it up.
//!
//! A journal on a full disk takes no more records. What it could not be told is not lost as long as
//! the process lives: the pieces are hashed again when the torrent comes back, not fetched.

use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;
use crate::storage::Storage;
use crate::storage::journal::{Claim, Resumed};

/// A torrent as it was when it was given up.
#[derive(Debug)]
pub(in crate::storage) struct Former {
    verified: Bitfield,
    /// What was not on the disk for sure may be lost, whatever the journal that is found says: the
    /// last records may not have reached it.
    pub is_doubted: bool,
}

impl Storage {
    /// The torrent is about to be given up.
    pub(in crate::storage) fn keep_in_mind(&mut self, id: TorrentId) {
        let Some(memory) = self.memory(id) else {
            return;
        };
        let log = memory.log;
        let awaiting: Vec<u32> = memory.awaiting.iter().map(|(piece, _)| piece.0).collect();
        let mut verified = self.logs[&log].log.known().claims.held().clone();
        for piece in awaiting {
            verified.set(piece);
        }
        let is_doubted = false;
        let former = Former {
            verified,
            is_doubted,
        };
        self.former.insert(id, former);
    }

    /// The torrent comes back: what was verified then and is claimed no more is worth hashing, as
    /// far as its files are there. Says which claims the journal has to take back.
    pub(super) fn recall(
        &mut self,
        id: TorrentId,
        resumed: &mut Resumed,
        whole: &Bitfield,
    ) -> Vec<u32> {
        let Some(Former {
            verified,
            is_doubted,
        }) = self.former.remove(&id)
        else {
            return Vec::new();
        };
        let claims = &resumed.knowledge.claims;
        let doubted: Vec<u32> = match is_doubted {
            true => claims.of(Claim::Checked).collect(),
            false => Vec::new(),
        };
        let is_forgotten = |&piece: &u32| whole.has(piece) && claims.get(piece) == Claim::Absent;
        let forgotten: Vec<u32> = verified.ones().filter(is_forgotten).collect();
        resumed.knowledge.set_all(&forgotten, Claim::Doubtful);
        resumed.knowledge.set_all(&doubted, Claim::Doubtful);
        for &piece in forgotten.iter().chain(&doubted) {
            resumed.unproven.set(piece);
        }
        doubted
    }
}
