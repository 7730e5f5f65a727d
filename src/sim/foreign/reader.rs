//! A reader of the peer wire protocol that shares nothing with the product's decoder.
//!
//! It collects whole messages: foreign peers are few, and what they read is theirs.

use crate::base::id::{InfoHash, PeerId};
use crate::wire::message::BlockRef;

use crate::base::id::PieceIndex;

/// A message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first 68 bytes.
    Handshake {
        /// BEP 6 is offered.
        fast: bool,
        /// BEP 10 is offered.
        extended: bool,
        /// The swarm.
        info_hash: InfoHash,
        /// Who speaks.
        peer_id: PeerId,
    },
    /// No id at all.
    KeepAlive,
    /// Id 0.
    Choke,
    /// Id 1.
    Unchoke,
    /// Id 2.
    Interested,
    /// Id 3.
    NotInterested,
    /// Id 4.
    Have(PieceIndex),
    /// Id 5.
    Bitfield(Vec<u8>),
    /// Id 6.
    Request(BlockRef),
    /// Id 7 and its payload.
    Block(BlockRef, Vec<u8>),
    /// Id 8.
    Cancel(BlockRef),
    /// Id 14.
    HaveAll,
    /// Id 15.
    HaveNone,
    /// Id 16.
    Reject(BlockRef),
    /// Id 17.
    AllowedFast(PieceIndex),
    /// Id 20: the extended id and what follows.
    Extended(u8, Vec<u8>),
    /// Another id.
    Other(u8),
    /// A message whose length does not fit its id, or a stream that does not begin as it should:
    /// nothing after it can be read.
    Broken,
}

/// The bytes of one direction of a stream.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    /// Bytes of `held` that were read.
    read: usize,
    is_shaken: bool,
    is_broken: bool,
}

impl Reader {
    /// Takes bytes in.
    pub fn received(&mut self, bytes: &[u8]) {
        if self.read == self.held.len() {
            self.held.clear();
            self.read = 0;
        }
        self.held.extend_from_slice(bytes);
    }

    /// The next message, once it is whole.
    pub fn poll(&mut self) -> Option<Heard> {
        if self.is_broken {
            return None;
        }
        let heard = self.next()?;
        self.is_broken = heard == Heard::Broken;
        Some(heard)
    }

    fn next(&mut self) -> Option<Heard> {
        if !self.is_shaken {
            let head = self.take(68)?;
            self.is_shaken = true;
            return Some(handshake(&head).unwrap_or(Heard::Broken));
        }
        let len = self.peek(4)?;
        let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if len > LEN_MAX {
            return Some(Heard::Broken);
        }
        let whole = self.take(4 + len)?;
        let Some((&id, body)) = whole[4..].split_first() else {
            return Some(Heard::KeepAlive);
        };
        Some(message(id, body).unwrap_or(Heard::Broken))
    }

    fn peek(&self, len: usize) -> Option<&[u8]> {
        self.held.get(self.read..self.read + len)
    }

    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let bytes = self.peek(len)?.to_vec();
        self.read += len;
        Some(bytes)
    }
}

fn handshake(head: &[u8]) -> Option<Heard> {
    let (name, rest) = head.split_first_chunk::<20>()?;
    let (reserved, rest) = rest.split_first_chunk::<8>()?;
    let (info_hash, rest) = rest.split_first_chunk::<20>()?;
    let (peer_id, _) = rest.split_first_chunk::<20>()?;
    (name == b"\x13BitTorrent protocol").then_some(Heard::Handshake {
        fast: reserved[7] & 0x04 != 0,
        extended: reserved[5] & 0x10 != 0,
        info_hash: InfoHash(*info_hash),
        peer_id: PeerId(*peer_id),
    })
}

fn message(id: u8, body: &[u8]) -> Option<Heard> {
    let (words, rest) = body.as_chunks::<4>();
    let word = |at: usize| words.get(at).map(|word| u32::from_be_bytes(*word));
    let is_exact = |len: usize| (words.len() == len && rest.is_empty()).then_some(());
    let block = || {
        is_exact(3)?;
        Some(BlockRef {
            piece: PieceIndex(word(0)?),
            begin: word(1)?,
            len: word(2)?,
        })
    };
    let piece = || is_exact(1).and(word(0)).map(PieceIndex);
    let bare = |heard| is_exact(0).map(|()| heard);
    match id {
        0 => bare(Heard::Choke),
        1 => bare(Heard::Unchoke),
        2 => bare(Heard::Interested),
        3 => bare(Heard::NotInterested),
        4 => piece().map(Heard::Have),
        5 => Some(Heard::Bitfield(body.to_vec())),
        6 => block().map(Heard::Request),
        7 => {
            let payload = body.get(8..)?;
            let block = BlockRef {
                piece: PieceIndex(word(0)?),
                begin: word(1)?,
                len: payload.len() as u32,
            };
            Some(Heard::Block(block, payload.to_vec()))
        }
        8 => block().map(Heard::Cancel),
        14 => bare(Heard::HaveAll),
        15 => bare(Heard::HaveNone),
        16 => block().map(Heard::Reject),
        17 => piece().map(Heard::AllowedFast),
        20 => body
            .split_first()
            .map(|(&id, rest)| Heard::Extended(id, rest.to_vec())),
        other => Some(Heard::Other(other)),
    }
}

/// Longest message that is read, bytes.
const LEN_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::{Handshake, Reserved};
    use crate::wire::message::Outgoing;

    #[test]
    fn what_is_heard_is_what_was_said_however_it_was_cut() {
        let shake = Handshake {
            reserved: Reserved {
                fast: true,
                ..Reserved::default()
            },
            info_hash: InfoHash([7; 20]),
            peer_id: PeerId([9; 20]),
        };
        let block = BlockRef {
            piece: PieceIndex(3),
            begin: 64,
            len: 2,
        };
        let said = [
            Outgoing::KeepAlive,
            Outgoing::HaveNone,
            Outgoing::Have(PieceIndex(8)),
            Outgoing::Request(block),
            Outgoing::Piece(block),
        ];
        let mut bytes = shake.encode().to_vec();
        said.iter().for_each(|message| message.encode(&mut bytes));
        bytes.extend_from_slice(b"ab");
        Outgoing::Choke.encode(&mut bytes);
        for cut in 0..bytes.len() {
            let mut reader = Reader::default();
            let mut heard = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                reader.received(part);
                heard.extend(std::iter::from_fn(|| reader.poll()));
            }
            let expected = [
                Heard::Handshake {
                    fast: true,
                    extended: false,
                    info_hash: InfoHash([7; 20]),
                    peer_id: PeerId([9; 20]),
                },
                Heard::KeepAlive,
                Heard::HaveNone,
                Heard::Have(PieceIndex(8)),
                Heard::Request(block),
                Heard::Block(block, b"ab".to_vec()),
                Heard::Choke,
            ];
            assert_eq!(heard, expected, "cut at {cut}");
        }
    }

    #[test]
    fn nothing_is_read_after_what_makes_no_sense() {
        let mut reader = Reader::default();
        reader.received(&[1; 68]);
        assert_eq!(reader.poll(), Some(Heard::Broken));
        reader.received(&[0, 0, 0, 1, 0]);
        assert_eq!(reader.poll(), None);
    }
}
