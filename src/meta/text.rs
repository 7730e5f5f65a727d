//! The bytes of a .torrent file: the hashes of its pieces, and the text that others ask for.
//!
//! They are needed while pieces are checked and when somebody wants the file, and are most of what
//! a small torrent takes in memory. So they can be had apart from what it says otherwise
//! ([`Metainfo::apart`]), to be let go and read again.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::metainfo::{Metainfo, MetainfoError};
use crate::base::id::{InfoHash, PieceIndex};

/// The text of a torrent, whose hashes are as many as it has pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    source: Bytes,
    /// Where in it the info dictionary is, and the hashes of all pieces, 20 bytes each.
    info: Range<usize>,
    hashes: Range<usize>,
}

/// Where texts are put that come and go together. They lie side by side there, and apart from what
/// stays, so that they are whole pages of memory when they go.
#[derive(Debug, Default)]
pub struct Room(BytesMut);

impl Room {
    /// The same text in here, unless it is so long that it has pages of its own.
    pub fn take_in(&mut self, text: Text) -> Text {
        let len = text.source.len();
        if len > ROOM_LEN / 8 {
            return text;
        }
        if self.0.capacity() < len {
            self.0 = BytesMut::with_capacity(ROOM_LEN);
        }
        self.0.extend_from_slice(&text.source);
        Text {
            source: self.0.split().freeze(),
            ..text
        }
    }
}

/// Bytes of memory for texts that are got at a time: more than 128 KiB, from which on glibc has the
/// system give them, and take them back, as they are.
const ROOM_LEN: usize = 256 * 1024;

/// Why a text is not that of a torrent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// It is none of any torrent.
    #[error(transparent)]
    Unusable(#[from] MetainfoError),
    /// It is that of another one.
    #[error("it is of another torrent, {found}")]
    Other {
        /// Of this.
        found: InfoHash,
    },
}

impl Text {
    /// `info` and `hashes` are parts of `source`.
    pub(super) fn new(source: Bytes, info: &[u8], hashes: &[u8]) -> Self {
        let place = |part: &[u8]| {
            let begin = part.as_ptr().addr() - source.as_ptr().addr();
            begin..begin + part.len()
        };
        Self {
            info: place(info),
            hashes: place(hashes),
            source,
        }
    }

    /// The text of the torrent with this info hash, which vouches for every piece hash in it.
    ///
    /// # Errors
    /// It is not.
    pub fn read(source: &[u8], info_hash: InfoHash) -> Result<Self, TextError> {
        let meta = Metainfo::from_bytes(source)?;
        match meta.into_text() {
            (found, Some(text)) if found == info_hash => Ok(text),
            (found, _) => Err(TextError::Other { found }),
        }
    }

    /// The whole file as it was read.
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// The info dictionary as it was found.
    pub fn info(&self) -> &[u8] {
        &self.source[self.info.clone()]
    }

    /// The SHA-1 that `piece` must have.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn piece_hash(&self, piece: PieceIndex) -> &[u8; 20] {
        &self.source[self.hashes.clone()].as_chunks().0[piece.as_usize()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::digest::sha1;

    const TORRENT: &str = "d8:announce8:http://a4:infod6:lengthi5e4:name1:a12:piece lengthi4e\
                           6:pieces40:aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbee";

    #[test]
    fn text_is_read_again_only_if_it_is_the_torrents_own() {
        let meta = Metainfo::from_bytes(TORRENT.as_bytes()).expect("it is a torrent");
        let hash = meta.info_hash;
        let (light, text) = Metainfo::apart(Arc::new(meta));
        let text = text.expect("it was read a moment ago");
        assert!(light.text().is_none() && light.name == "a");
        assert_eq!(text.piece_hash(PieceIndex(1)), &[b'b'; 20]);
        assert_eq!(InfoHash(sha1(text.info())), hash);
        assert_eq!(Text::read(text.source(), hash), Ok(text.clone()));
        let mut room = Room::default();
        let moved = [(); 2].map(|()| room.take_in(text.clone()));
        assert!(moved.iter().all(|moved| *moved == text));
        let [first, second] = moved.each_ref().map(|moved| moved.source.as_ptr_range());
        assert_eq!(first.end, second.start, "side by side");
        let other = TORRENT.replace("aaaaab", "aaaacb");
        let found = Text::read(other.as_bytes(), hash);
        assert!(matches!(found, Err(TextError::Other { found }) if found != hash));
        let beside = TORRENT.replace("http://a", "http://b");
        assert!(
            Text::read(beside.as_bytes(), hash).is_ok(),
            "the info is the same"
        );
        for len in 0..TORRENT.len() {
            let cut = Text::read(&TORRENT.as_bytes()[..len], hash);
            assert!(matches!(cut, Err(TextError::Unusable(_))), "{len}: {cut:?}");
        }
    }
}
