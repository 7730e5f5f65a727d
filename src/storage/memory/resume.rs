//! Taking up what the journal says, and watching that the files stay those it is about.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Load, Memory};
use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;
use crate::base::seldom::Seldom;
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::storage::error::StorageError;
use crate::storage::jobs::{Presence, Scan};
use crate::storage::journal::log::{Before, Log};
use crate::storage::journal::{self, Binding, Claim, Found, Record, Stamp, Unusable};
use crate::storage::prove::Proofs;
use crate::storage::{Event, Storage};

impl Storage {
    /// Takes up what the journal says, as far as it holds; returns the event that tells of it.
    ///
    /// # Errors
    /// The journal must not be touched.
    pub(in crate::storage) fn take_up(
        &mut self,
        id: TorrentId,
        scan: Scan,
        path: PathBuf,
    ) -> Result<Event, StorageError> {
        let meta = Arc::clone(&self.torrents[&id].meta);
        let geometry = meta.geometry();
        let binding = Binding::of(&meta);
        let whole = whole_pieces(&meta, &scan.files);
        let (journal, file) = match scan.journal {
            None => (None, None),
            Some(found) => match journal::replay(&found.bytes, &binding) {
                Ok(journal) => (Some(journal), Some(found.file)),
                Err(source @ Unusable::TooNew { .. }) => {
                    return Err(StorageError::JournalTooNew { path, source });
                }
                Err(unusable) => {
                    log::warn!("journal of {} {unusable}: all is checked", meta.info_hash);
                    (None, None)
                }
            },
        };
        let found = Found {
            boot: scan.boot,
            stamps: &scan.stamps,
            times: &scan.times,
            whole: &whole,
        };
        let mut resumed = journal::resume(journal, &binding, geometry, found);
        self.recall(id, &mut resumed, &whole);
        let known = &resumed.knowledge;
        let mut candidates = Bitfield::new(binding.piece_count);
        known.claims.of(Claim::Doubtful).for_each(|piece| {
            candidates.set(piece);
        });
        let filled = known.filled.iter();
        let event = Event::Scanned {
            torrent: id,
            candidates,
            vouched: known.claims.held().clone(),
            filled: filled
                .map(|(&piece, blocks)| (piece, blocks.clone()))
                .collect(),
        };
        let proofs = Proofs::new(&known.claims, resumed.suspects, self.now);
        let before = match (file, resumed.goes_on) {
            (None, _) => Before::Nothing,
            (Some(_), None) => Before::Other,
            (Some(file), Some((chain, len))) => Before::Same(file, chain, len),
        };
        let log = Log::new(binding, resumed.knowledge, before);
        let log = self.insert_log(id, log);
        self.wake_at = self.wake_at.min(self.now);
        let memory = Memory {
            log,
            stamps: scan.stamps,
            waiting: Seldom::default(),
            partials_at: Instant::NEVER,
            partials_noted: self.now,
            since: self.now,
            is_committing: false,
            unproven: resumed.unproven,
            proofs: Seldom::holding(proofs),
            is_leaving: false,
            load: Load::new(self.now),
        };
        if let Some(torrent) = self.torrents.get_mut(&id) {
            torrent.memory = Some(Box::new(memory));
        }
        Ok(event)
    }

    /// A file was opened: compares it with the one that claims are about, and takes note of what
    /// it has become.
    ///
    /// # Errors
    /// It is another one.
    pub(in crate::storage) fn remember_file(
        &mut self,
        id: TorrentId,
        index: u32,
        [before, after]: [Stamp; 2],
    ) -> Result<(), StorageError> {
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return Ok(());
        };
        let Some(memory) = &mut torrent.memory else {
            return Ok(());
        };
        let entry = &torrent.meta.files[index as usize];
        let (log, known) = (memory.log, memory.stamps[index as usize]);
        if entry.len == 0 {
            return Ok(());
        }
        memory.stamps[index as usize] = after;
        let open = &self.logs[&log].log;
        let binding = *open.binding();
        let claims = &open.known().claims;
        let pieces = torrent.meta.geometry().pieces_of_file(index);
        let held: Vec<u32> = pieces.filter(|&piece| claims.held().has(piece)).collect();
        let is_same = before == known;
        if is_same && before == after {
            return Ok(());
        }
        let files = binding.files_of(binding.group_of(index));
        let group = &memory.stamps[files.start as usize..files.end as usize];
        let stamp = Stamp::of_group(group.iter().copied());
        let path = self.root.join(entry.path.as_path());
        let is_replaced = !is_same && !held.is_empty();
        let log = self.log(log);
        if is_replaced {
            log.push(Record::Doubted(held), now);
        }
        log.push(Record::Stamped(vec![(binding.group_of(index), stamp)]), now);
        match is_replaced {
            true => Err(StorageError::Replaced { path }),
            false => Ok(()),
        }
    }
}

/// Pieces all of whose bytes are there, as far as the lengths of their files say.
pub(in crate::storage) fn whole_pieces(meta: &Metainfo, files: &[Presence]) -> Bitfield {
    let geometry = meta.geometry();
    let piece_len = u64::from(geometry.nominal_piece_len());
    let mut whole = Bitfield::full(geometry.piece_count());
    for ((index, presence), entry) in (0..).zip(files).zip(&meta.files) {
        let held = match presence {
            Presence::Whole => continue,
            Presence::Short { len } => *len,
            Presence::Absent => 0,
        };
        for piece in geometry.pieces_of_file(index) {
            let piece_end = (u64::from(piece) + 1) * piece_len;
            if piece_end.min(entry.offset + entry.len) > entry.offset + held {
                whole.clear(piece);
            }
        }
    }
    whole
}
