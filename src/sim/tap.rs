//! A tap on a stream: what each end said, read from the bytes alone.
//!
//! It has a reader of its own, so that a fault of the product's decoder is a fault that it sees.

use crate::base::id::PieceIndex;
use crate::base::slot::Slot;
use crate::wire::message::BlockRef;

use super::net::{Chunk, Part};

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A handshake; whether the fast extension was offered in it.
    Handshake {
        /// BEP 6.
        fast: bool,
    },
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
    /// The head of id 7.
    Block(BlockRef),
    /// Payload of the block whose head came last: what lies at `done`, right or wrong, or bytes.
    Payload(Payload),
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
    /// The body of id 20: the extension's number, and what it says.
    Extended(Vec<u8>),
    /// Anything else.
    Other(u8),
}

/// Payload as it was carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Bytes, at this offset in the block.
    Bytes(u32, Vec<u8>),
    /// A tag.
    Tag(Slot, bool),
}

impl Said {
    /// Bytes of payload in it.
    pub fn payload_len(&self) -> u64 {
        match self {
            Self::Payload(Payload::Bytes(_, bytes)) => bytes.len() as u64,
            Self::Payload(Payload::Tag(slot, _)) => u64::from(slot.len),
            _ => 0,
        }
    }
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub struct Tap {
    state: State,
    held: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing was said.
    #[default]
    Fresh,
    /// Messages.
    Framed,
    /// Payload of this block; so much has come.
    Payload(BlockRef, u32),
    /// Another protocol.
    Foreign,
}

impl Tap {
    /// Reads a chunk; what was said in it is handed to `heard`, in order.
    pub fn read(&mut self, chunk: &Chunk, mut heard: impl FnMut(Said)) {
        let mut rest = &chunk.bytes[..];
        for part in &chunk.parts {
            match *part {
                Part::Bytes(len) => {
                    let (bytes, after) = rest.split_at(len);
                    rest = after;
                    self.read_bytes(bytes, &mut heard);
                }
                Part::Tag(slot, is_right) => {
                    if let State::Payload(block, done) = &mut self.state {
                        *done += slot.len;
                        if *done >= block.len {
                            self.state = State::Framed;
                        }
                    }
                    heard(Said::Payload(Payload::Tag(slot, is_right)));
                }
            }
        }
    }

    fn read_bytes(&mut self, mut bytes: &[u8], heard: &mut impl FnMut(Said)) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Foreign => return,
                State::Payload(block, done) => {
                    let len = (bytes.len() as u32).min(block.len - *done);
                    let (payload, after) = bytes.split_at(len as usize);
                    heard(Said::Payload(Payload::Bytes(*done, payload.to_vec())));
                    *done += len;
                    if *done == block.len {
                        self.state = State::Framed;
                    }
                    bytes = after;
                }
                State::Fresh | State::Framed => {
                    // One byte more at a time, as far as the next thing needs.
                    let want = self.want();
                    let len = want.saturating_sub(self.held.len()).min(bytes.len());
                    self.held.extend_from_slice(&bytes[..len]);
                    bytes = &bytes[len..];
                    if self.held.len() == self.want() {
                        self.complete(heard);
                    }
                }
            }
        }
    }

    /// Bytes to be held before anything can be said of them.
    fn want(&self) -> usize {
        if matches!(self.state, State::Fresh) {
            let is_peer = self.held.first().is_none_or(|&first| first == 19);
            return if is_peer { 68 } else { self.held.len() };
        }
        let Some((head, _)) = self.held.split_first_chunk::<4>() else {
            return 4;
        };
        let len = u32::from_be_bytes(*head) as usize;
        match self.held.get(4) {
            None if len == 0 => 4,
            None => 5,
            Some(7) if len >= 9 => 13,
            Some(_) => 4 + len,
        }
    }

    fn complete(&mut self, heard: &mut impl FnMut(Said)) {
        let held = std::mem::take(&mut self.held);
        if matches!(self.state, State::Fresh) {
            if held.first() == Some(&19) && held.len() == 68 {
                self.state = State::Framed;
                let fast = held[27] & 4 != 0;
                return heard(Said::Handshake { fast });
            }
            self.state = State::Foreign;
            return;
        }
        let Some((&id, body)) = held.get(4..).and_then(|rest| rest.split_first()) else {
            return; // keep-alive
        };
        let word = |at: usize| {
            let word = body.get(at..at + 4).map(|w| [w[0], w[1], w[2], w[3]]);
            u32::from_be_bytes(word.unwrap_or_default())
        };
        let piece = PieceIndex(word(0));
        let block = BlockRef {
            piece,
            begin: word(4),
            len: word(8),
        };
        heard(match id {
            0 => Said::Choke,
            1 => Said::Unchoke,
            2 => Said::Interested,
            3 => Said::NotInterested,
            4 => Said::Have(piece),
            5 => Said::Bitfield(body.to_vec()),
            6 => Said::Request(block),
            7 => {
                let len = u32::from_be_bytes([held[0], held[1], held[2], held[3]]) - 9;
                let block = BlockRef { len, ..block };
                if len > 0 {
                    self.state = State::Payload(block, 0);
                }
                Said::Block(block)
            }
            8 => Said::Cancel(block),
            14 => Said::HaveAll,
            15 => Said::HaveNone,
            16 => Said::Reject(block),
            17 => Said::AllowedFast(piece),
            20 => Said::Extended(body.to_vec()),
            other => Said::Other(other),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &[u8]) -> Chunk {
        let mut chunk = Chunk::default();
        chunk.push_bytes(bytes);
        chunk
    }

    #[test]
    fn what_was_said_does_not_depend_on_how_it_was_cut() {
        let mut stream = vec![19];
        stream.extend_from_slice(b"BitTorrent protocol");
        stream.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4]);
        stream.extend_from_slice(&[9; 40]);
        stream.extend_from_slice(&[0, 0, 0, 0]); // keep-alive
        stream.extend_from_slice(&[0, 0, 0, 1, 14]);
        stream.extend_from_slice(&[0, 0, 0, 5, 4, 0, 0, 0, 7]);
        stream.extend_from_slice(&[0, 0, 0, 12, 7, 0, 0, 0, 3, 0, 0, 0, 64, b'a', b'b', b'c']);
        stream.extend_from_slice(&[0, 0, 0, 1, 0]);
        let block = BlockRef {
            piece: PieceIndex(3),
            begin: 64,
            len: 3,
        };
        for cut in 1..stream.len() {
            let mut tap = Tap::default();
            let mut said = Vec::new();
            let mut payload = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                tap.read(&chunk(part), |it| match it {
                    Said::Payload(Payload::Bytes(_, bytes)) => payload.extend(bytes),
                    it => said.push(it),
                });
            }
            let expected = [
                Said::Handshake { fast: true },
                Said::HaveAll,
                Said::Have(PieceIndex(7)),
                Said::Block(block),
                Said::Choke,
            ];
            assert_eq!(said, expected, "cut at {cut}");
            assert_eq!(payload, b"abc", "cut at {cut}");
        }
    }

    #[test]
    fn another_protocol_says_nothing() {
        let mut tap = Tap::default();
        tap.read(&chunk(b"GET /announce HTTP/1.1\r\n\r\n"), |said| {
            panic!("{said:?}")
        });
    }
}
