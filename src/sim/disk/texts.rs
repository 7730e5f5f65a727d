//! The texts of torrents, in the state folder.

use std::path::PathBuf;

use super::Disk;
use crate::meta::text::Text;
use crate::storage::error::StorageError;

impl Disk {
    /// Keeps the text of a torrent.
    pub fn keep_text(&mut self, path: PathBuf, text: Text) {
        self.texts.insert(path, text);
    }

    pub(super) fn read_text(&self, path: PathBuf) -> Result<Text, StorageError> {
        let text = self.texts.get(&path).cloned();
        text.ok_or_else(|| StorageError::TextLost {
            path,
            message: "there is none".to_owned(),
        })
    }
}
