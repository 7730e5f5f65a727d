//! What a journal claims when its host has stopped, against what the disk holds.

use std::path::Path;

use crate::base::id::PieceIndex;
use crate::meta::metainfo::Metainfo;
use crate::sim::disk::Disk;
use crate::sim::store::STATE_DIR;
use crate::storage::journal::{Binding, Unusable, replay};

/// Compares every claim that the next process will trust with the bytes on the disk: the durable
/// ones, and the checked ones if the power has not gone since they were written.
///
/// # Errors
/// A claim is false, or the journal cannot be read.
pub(super) fn compare(
    disk: &Disk,
    meta: &Metainfo,
    content: &[u8],
    was_durable: bool,
) -> Result<(), String> {
    let name = format!("{}.journal", meta.info_hash);
    let Some(bytes) = disk.bytes(&Path::new(STATE_DIR).join(name)) else {
        return Ok(());
    };
    let binding = Binding::of(meta);
    if bytes.len() as u64 > binding.journal_len_max() {
        return Err(format!("the journal is {} B long", bytes.len()));
    }
    let tally = disk.tally();
    let claims = match replay(bytes, &binding) {
        Ok(replayed) => replayed.knowledge.trusted_in(Some(disk.boot())).claims,
        // A power cut, this one or one before, may tear the first one as long as it was never
        // synced: it is replaced by the next that is made.
        Err(Unusable::NotAJournal | Unusable::Damaged)
            if disk.power_cuts() > 0 && (!was_durable || tally.errors + tally.refused > 0) =>
        {
            return Ok(());
        }
        Err(error) => return Err(format!("the journal {error}")),
    };
    for piece in claims.held().ones() {
        let claim = claims.get(piece);
        if !holds(disk, meta, content, PieceIndex(piece)) {
            return Err(format!(
                "piece {piece} is claimed to be {claim:?}, and is not there"
            ));
        }
    }
    Ok(())
}

fn holds(disk: &Disk, meta: &Metainfo, content: &[u8], piece: PieceIndex) -> bool {
    let geometry = meta.geometry();
    let mut at = geometry.offset(piece, 0) as usize;
    geometry
        .spans(piece, 0, geometry.piece_len(piece))
        .all(|span| {
            let len = span.len as usize;
            let expected = &content[at..at + len];
            at += len;
            let path = meta.files[span.file as usize].path.as_path();
            let range = span.offset as usize..span.offset as usize + len;
            let found = disk.bytes(path).and_then(|bytes| bytes.get(range));
            span.pad || found == Some(expected)
        })
}
