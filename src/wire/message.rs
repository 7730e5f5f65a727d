//! The messages of the peer wire protocol (BEP 3, BEP 5, BEP 6, BEP 10) as values.
//!
//! [`Message`] is what arrived, borrowed from where it lies; [`Outgoing`] is what shall leave,
//! small enough to be queued and encoded only when the socket has room.

use bytes::Bytes;

use crate::base::id::PieceIndex;
use crate::base::limits::{EXTENDED_LEN_MAX, MESSAGE_LEN_MAX};

/// A message from a peer, whole but for the payload of a `piece`, which comes in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A length prefix of 0 (BEP 3).
    KeepAlive,
    /// Id 0 (BEP 3): requests will not be answered.
    Choke,
    /// Id 1 (BEP 3).
    Unchoke,
    /// Id 2 (BEP 3).
    Interested,
    /// Id 3 (BEP 3).
    NotInterested,
    /// Id 4 (BEP 3). The index may lie outside the torrent.
    Have(PieceIndex),
    /// Id 5 (BEP 3). The length may be wrong for the torrent.
    Bitfield(&'a [u8]),
    /// Id 6 (BEP 3). May reach outside the torrent.
    Request(BlockRef),
    /// Id 8 (BEP 3).
    Cancel(BlockRef),
    /// Id 9 (BEP 5): the UDP port of the peer's DHT node.
    Port(u16),
    /// Id 13 (BEP 6).
    Suggest(PieceIndex),
    /// Id 14 (BEP 6): a bitfield of ones.
    HaveAll,
    /// Id 15 (BEP 6): a bitfield of zeros.
    HaveNone,
    /// Id 16 (BEP 6): the request will not be answered.
    Reject(BlockRef),
    /// Id 17 (BEP 6): may be requested while choked.
    AllowedFast(PieceIndex),
    /// Id 20 (BEP 10).
    Extended {
        /// 0 for the extension handshake, else an id that we gave out in ours.
        id: u8,
        /// What follows the id.
        body: &'a [u8],
    },
    /// Any other id; its body is skipped.
    Unknown {
        /// The id.
        id: u8,
        /// Bytes that follow the id.
        len: u32,
    },
}

/// A run of bytes of one piece, as `request`, `piece`, `cancel` and `reject` name it.
///
/// From the network: any numbers at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// The piece.
    pub piece: PieceIndex,
    /// First byte, counted from the start of the piece.
    pub begin: u32,
    /// Number of bytes.
    pub len: u32,
}

/// A message to a peer, not encoded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A length prefix of 0 (BEP 3).
    KeepAlive,
    /// Id 0 (BEP 3).
    Choke,
    /// Id 1 (BEP 3).
    Unchoke,
    /// Id 2 (BEP 3).
    Interested,
    /// Id 3 (BEP 3).
    NotInterested,
    /// Id 4 (BEP 3).
    Have(PieceIndex),
    /// Id 5 (BEP 3): the bytes of a [`Bitfield`](crate::base::bits::Bitfield).
    Bitfield(Bytes),
    /// Id 6 (BEP 3).
    Request(BlockRef),
    /// Id 7 (BEP 3): only the head is encoded, the payload follows from storage.
    Piece(BlockRef),
    /// Id 8 (BEP 3).
    Cancel(BlockRef),
    /// Id 9 (BEP 5); only to peers with the DHT bit.
    Port(u16),
    /// Id 13 (BEP 6); only if both sides set the fast bit, as the next four.
    Suggest(PieceIndex),
    /// Id 14 (BEP 6).
    HaveAll,
    /// Id 15 (BEP 6).
    HaveNone,
    /// Id 16 (BEP 6).
    Reject(BlockRef),
    /// Id 17 (BEP 6).
    AllowedFast(PieceIndex),
    /// Id 20 (BEP 10).
    Extended {
        /// 0 for the extension handshake, else an id that the peer gave out in its own.
        id: u8,
        /// What follows the id.
        body: Bytes,
    },
    /// Bytes that are encoded already: a handshake, an HTTP request.
    Raw(Bytes),
}

impl Outgoing {
    /// Appends the encoding to `out`; of `Piece` the head of 13 B.
    ///
    /// # Panics
    /// If a bitfield or an extended message is longer than we would accept it ourselves.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::KeepAlive => out.extend_from_slice(&[0; 4]),
            Self::Choke => encode_head(id::CHOKE, 0, out),
            Self::Unchoke => encode_head(id::UNCHOKE, 0, out),
            Self::Interested => encode_head(id::INTERESTED, 0, out),
            Self::NotInterested => encode_head(id::NOT_INTERESTED, 0, out),
            Self::Have(piece) => encode_index(id::HAVE, *piece, out),
            Self::Bitfield(bits) => encode_bitfield(bits, out),
            Self::Request(block) => encode_block(id::REQUEST, *block, out),
            Self::Piece(block) => encode_piece_head(*block, out),
            Self::Cancel(block) => encode_block(id::CANCEL, *block, out),
            Self::Port(port) => {
                encode_head(id::PORT, 2, out);
                out.extend_from_slice(&port.to_be_bytes());
            }
            Self::Suggest(piece) => encode_index(id::SUGGEST, *piece, out),
            Self::HaveAll => encode_head(id::HAVE_ALL, 0, out),
            Self::HaveNone => encode_head(id::HAVE_NONE, 0, out),
            Self::Reject(block) => encode_block(id::REJECT, *block, out),
            Self::AllowedFast(piece) => encode_index(id::ALLOWED_FAST, *piece, out),
            Self::Extended { id, body } => encode_extended(*id, body, out),
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Bytes that the message takes on the wire; of `Piece` head and payload together.
    pub fn wire_len(&self) -> usize {
        match self {
            Self::KeepAlive => 4,
            Self::Choke
            | Self::Unchoke
            | Self::Interested
            | Self::NotInterested
            | Self::HaveAll
            | Self::HaveNone => 5,
            Self::Port(_) => 7,
            Self::Have(_) | Self::Suggest(_) | Self::AllowedFast(_) => 9,
            Self::Request(_) | Self::Cancel(_) | Self::Reject(_) => 17,
            Self::Piece(block) => PIECE_HEAD_LEN + block.len as usize,
            Self::Bitfield(bits) => 5 + bits.len(),
            Self::Extended { body, .. } => 6 + body.len(),
            Self::Raw(bytes) => bytes.len(),
        }
    }
}

/// Length prefix and id.
fn encode_head(id: u8, body_len: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&(body_len + 1).to_be_bytes());
    out.push(id);
}

fn encode_index(id: u8, piece: PieceIndex, out: &mut Vec<u8>) {
    encode_head(id, 4, out);
    out.extend_from_slice(&piece.0.to_be_bytes());
}

fn encode_block(id: u8, block: BlockRef, out: &mut Vec<u8>) {
    encode_head(id, 12, out);
    out.extend_from_slice(&block.piece.0.to_be_bytes());
    out.extend_from_slice(&block.begin.to_be_bytes());
    out.extend_from_slice(&block.len.to_be_bytes());
}

fn encode_piece_head(block: BlockRef, out: &mut Vec<u8>) {
    encode_head(id::PIECE, 8 + block.len, out);
    out.extend_from_slice(&block.piece.0.to_be_bytes());
    out.extend_from_slice(&block.begin.to_be_bytes());
}

fn encode_bitfield(bits: &[u8], out: &mut Vec<u8>) {
    assert!(
        bits.len() < MESSAGE_LEN_MAX as usize,
        "PIECES_MAX pieces at most"
    );
    encode_head(id::BITFIELD, bits.len() as u32, out);
    out.extend_from_slice(bits);
}

fn encode_extended(extended_id: u8, body: &[u8], out: &mut Vec<u8>) {
    assert!(
        body.len() + 2 <= EXTENDED_LEN_MAX as usize,
        "an extended message of {} B",
        body.len()
    );
    encode_head(id::EXTENDED, body.len() as u32 + 1, out);
    out.push(extended_id);
    out.extend_from_slice(body);
}

/// Bytes of a `piece` message before its payload: length prefix, id, index, begin (BEP 3).
pub const PIECE_HEAD_LEN: usize = 13;

/// Message ids.
pub(super) mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::hex;

    const BLOCK: BlockRef = BlockRef {
        piece: PieceIndex(7),
        begin: 0x8000,
        len: 0x4000,
    };

    /// Written out by hand from the layouts of BEP 3, 5, 6 and 10.
    #[test]
    fn every_message_encodes_as_the_beps_lay_it_out() {
        let cases = [
            (Outgoing::KeepAlive, "00000000"),
            (Outgoing::Choke, "0000000100"),
            (Outgoing::Unchoke, "0000000101"),
            (Outgoing::Interested, "0000000102"),
            (Outgoing::NotInterested, "0000000103"),
            (Outgoing::Have(PieceIndex(7)), "000000050400000007"),
            (
                Outgoing::Bitfield(Bytes::from_static(&[0xff, 0x80])),
                "0000000305ff80",
            ),
            (
                Outgoing::Request(BLOCK),
                "0000000d06000000070000800000004000",
            ),
            (Outgoing::Piece(BLOCK), "00004009070000000700008000"),
            (
                Outgoing::Cancel(BLOCK),
                "0000000d08000000070000800000004000",
            ),
            (Outgoing::Port(6881), "00000003091ae1"),
            (Outgoing::HaveAll, "000000010e"),
            (Outgoing::HaveNone, "000000010f"),
            (
                Outgoing::Reject(BLOCK),
                "0000000d10000000070000800000004000",
            ),
            (Outgoing::Suggest(PieceIndex(7)), "000000050d00000007"),
            (Outgoing::AllowedFast(PieceIndex(7)), "000000051100000007"),
            (
                Outgoing::Extended {
                    id: 3,
                    body: Bytes::from_static(b"de"),
                },
                "0000000414036465",
            ),
            (Outgoing::Raw(Bytes::from_static(b"GET")), "474554"),
        ];
        for (message, expected) in cases {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(hex(&out), expected, "{message:?}");
            let payload_len = match message {
                Outgoing::Piece(block) => block.len as usize,
                _ => 0,
            };
            assert_eq!(message.wire_len(), out.len() + payload_len, "{message:?}");
        }
    }

    #[test]
    fn an_outgoing_message_is_small_enough_to_queue() {
        assert!(size_of::<Outgoing>() <= 48);
        assert!(size_of::<Message<'_>>() <= 24);
    }
}
