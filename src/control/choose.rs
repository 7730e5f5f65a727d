//! Which files of a torrent are wanted, as a request says it.

use super::answer::Refusal;
use super::request::Choosing;
use crate::base::choice::{Choice, PieceOrder, Priority};
use crate::base::id::TorrentId;
use crate::base::time::Instant;
use crate::engine::Engine;
use crate::meta::choice::{self, ChoiceError, Pattern};
use crate::meta::metainfo::Metainfo;

impl From<ChoiceError> for Refusal {
    fn from(error: ChoiceError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// What `choosing` means for a torrent that is about to be taken up.
///
/// # Errors
/// A pattern is none, or means no file.
pub fn chosen(meta: &Metainfo, choosing: &Choosing) -> Result<Choice, Refusal> {
    let only = choosing.only.iter().map(|text| Pattern::glob(text));
    let only = only.collect::<Result<Vec<_>, _>>()?;
    let choice = choice::only(meta, &only, PieceOrder::default())?;
    changed(meta, &choice, choosing)
}

fn changed(meta: &Metainfo, before: &Choice, choosing: &Choosing) -> Result<Choice, Refusal> {
    let lists = [
        (&choosing.skip, Priority::Skip),
        (&choosing.want, Priority::Normal),
        (&choosing.high, Priority::High),
    ];
    let mut changes = Vec::new();
    for (patterns, priority) in lists {
        for text in patterns {
            changes.push((Pattern::numbers_or_glob(text)?, priority));
        }
    }
    let mut after = choice::changed(meta, before, &changes)?;
    match choosing.sequential {
        Some(true) => after.order = PieceOrder::Sequential,
        Some(false) => after.order = PieceOrder::RarestFirst,
        None => {}
    }
    Ok(after)
}

/// Has other files of a torrent wanted; all that is asked for, or nothing.
pub(super) fn choose(
    engine: &mut Engine,
    id: TorrentId,
    choosing: &Choosing,
    now: Instant,
) -> Result<(), Refusal> {
    let (Some(meta), Some(before)) = (engine.metainfo(id), engine.choice(id)) else {
        return Ok(());
    };
    let after = changed(meta, before, choosing)?;
    engine.choose(id, after, now);
    Ok(())
}
