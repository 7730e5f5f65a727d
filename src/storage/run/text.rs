//! The texts of torrents in the state folder.

use std::path::Path;

use crate::base::id::InfoHash;
use crate::base::limits::TORRENT_FILE_LEN_MAX;
use crate::meta::text::Text;
use crate::storage::error::StorageError;
use crate::storage::state;

/// Whether this text is kept at `path`, to the last byte.
pub(super) fn is_kept(path: &Path, text: &Text) -> bool {
    let kept = state::read(path, TORRENT_FILE_LEN_MAX).ok().flatten();
    kept.is_some_and(|kept| kept == **text.source())
}

/// Reads the text of a torrent again.
///
/// # Errors
/// It is not there any more, or another one is.
pub(super) fn read(path: &Path, info_hash: InfoHash) -> Result<Text, StorageError> {
    let lost = |message: String| StorageError::TextLost {
        path: path.to_path_buf(),
        message,
    };
    let bytes = state::read(path, TORRENT_FILE_LEN_MAX).map_err(|error| lost(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| lost("there is none".to_owned()))?;
    Text::read(&bytes, info_hash).map_err(|error| lost(error.to_string()))
}
