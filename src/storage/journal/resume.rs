//! What of a journal holds when a torrent is taken up: the files and the machine have a say.

use super::{Binding, BootId, Chain, Claim, Knowledge, Replayed, Stamp, pieces_of_files};
use crate::base::bits::Bitfield;
use crate::base::digest::mix;
use crate::meta::geometry::Geometry;

/// What a torrent begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// What is known. Pieces that are held may be served at once; those that are doubtful have
    /// to be hashed.
    pub knowledge: Knowledge,
    /// The journal says exactly this: it can go on there, behind so many bytes.
    pub goes_on: Option<(Chain, u64)>,
    /// Pieces that are held, in files that somebody may have written since the last good end.
    pub suspects: Vec<u32>,
    /// Pieces that a former process stored, or a part of them, in this run of the machine, or that
    /// it lost faith in: a write-back that failed meanwhile may have gone unnoticed, so only what
    /// is read back from the disk shows that they are there.
    pub unproven: Bitfield,
}

/// What is found of the files when a torrent is taken up.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The run of the machine.
    pub boot: Option<BootId>,
    /// One stamp a file.
    pub stamps: &'a [Stamp],
    /// When each file was last written.
    pub times: &'a [u64],
    /// Pieces all of whose files are there and long enough.
    pub whole: &'a Bitfield,
}

/// Compares what the journal says, if there is a usable one, with what is there.
pub fn resume(
    journal: Option<Replayed>,
    binding: &Binding,
    geometry: &Geometry,
    found: Found<'_>,
) -> Resumed {
    let is_same_boot =
        found.boot.is_some() && journal.as_ref().map(|j| j.knowledge.boot) == Some(found.boot);
    let goes_on = journal.as_ref().map(|j| (j.chain, j.len));
    let mut knowledge = match journal {
        Some(journal) => journal.knowledge.trusted_in(found.boot),
        None => {
            let mut nothing = Knowledge::nothing(binding, found.boot);
            let all: Vec<u32> = (0..binding.piece_count).collect();
            nothing.set_all(&all, Claim::Doubtful);
            nothing
        }
    };
    knowledge.boot = found.boot;
    let mut is_changed = false;
    for group in 0..binding.group_count() {
        let files = binding.files_of(group);
        let stamps = &found.stamps[files.start as usize..files.end as usize];
        let now = Stamp::of_group(stamps.iter().copied());
        let before = std::mem::replace(&mut knowledge.stamps[group as usize], now);
        let is_same = match is_same_boot {
            true => before.in_boot == now.in_boot,
            false => before.lasting == now.lasting,
        };
        if !is_same {
            is_changed = true;
            let pieces: Vec<u32> = pieces_of_files(geometry, files).collect();
            knowledge.set_all(&pieces, Claim::Doubtful);
        }
    }
    is_changed |= drop_what_has_no_file(&mut knowledge, found.whole);
    let mut unproven = Bitfield::new(binding.piece_count);
    if is_same_boot {
        for claim in [Claim::Checked, Claim::Doubtful] {
            knowledge.claims.of(claim).for_each(|piece| {
                unproven.set(piece);
            });
        }
        for piece in knowledge.filled.keys() {
            unproven.set(piece.0);
        }
    }
    let suspects = suspects(&knowledge, binding, geometry, found.times);
    Resumed {
        suspects,
        knowledge,
        goes_on: goes_on.filter(|_| is_same_boot && !is_changed),
        unproven,
    }
}

/// The pieces that are held in groups that were written since the last good end.
fn suspects(
    knowledge: &Knowledge,
    binding: &Binding,
    geometry: &Geometry,
    times: &[u64],
) -> Vec<u32> {
    let is_written = |group: &u32| {
        let before = knowledge.times[*group as usize];
        before != 0 && before != time_of_group(binding, *group, times)
    };
    let written = (0..binding.group_count()).filter(is_written);
    let pieces = written.flat_map(|group| pieces_of_files(geometry, binding.files_of(group)));
    pieces
        .filter(|&piece| knowledge.claims.held().has(piece))
        .collect()
}

/// One number that tells when the files of a group were last written.
pub fn time_of_group(binding: &Binding, group: u32, times: &[u64]) -> u64 {
    let files = binding.files_of(group);
    mix(times[files.start as usize..files.end as usize]
        .iter()
        .copied())
}

/// Forgets pieces that cannot be there, as a file of theirs is missing or short; says whether a
/// claim was among them.
fn drop_what_has_no_file(knowledge: &mut Knowledge, whole: &Bitfield) -> bool {
    let is_gone = |piece: &u32| !whole.has(*piece);
    let doubtful: Vec<u32> = knowledge
        .claims
        .of(Claim::Doubtful)
        .filter(is_gone)
        .collect();
    let held: Vec<u32> = knowledge.claims.held().ones().filter(is_gone).collect();
    let filled: Vec<u32> = knowledge.filled.keys().map(|piece| piece.0).collect();
    let filled: Vec<u32> = filled.into_iter().filter(is_gone).collect();
    knowledge.set_all(&doubtful, Claim::Absent);
    knowledge.set_all(&held, Claim::Absent);
    knowledge.set_all(&filled, Claim::Absent);
    !held.is_empty() || !filled.is_empty()
}
