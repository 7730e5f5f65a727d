//! Incremental decoder for the peer wire protocol (BEP 3, "peer messages").
//!
//! Slices of any size go in, control messages come out, parsed where they lie. The payload of
//! a `piece` is never held: it is handed on in the chunks in which it arrives, with the place it
//! belongs to.
//!
//! ```text
//!          4 B: len, 5 B: id     13 B: index, begin
//! Head ──┬───────────────────▶ BlockBegins ─────────▶ Payload(left) ─┐
//!  ▲     ├── bitfield, extended ──▶ Body(len) ── whole: Message ─────┤
//!  │     ├── unknown id: Message ─▶ Skip(left) ──────────────────────┤
//!  │     └── any other: Message ─────────────────────────────────────┤
//!  └─────────────────────────── nothing left ────────────────────────┘
//! ```
//!
//! Owns at most 16 B of a partial head, which is also all of a partial `request`, plus the body
//! of a bitfield or an extended message while it is incomplete. Lengths are judged as soon as
//! they are read, so no body grows that would be refused in the end.

use crate::base::id::PieceIndex;
use crate::base::limits::{BLOCK_LEN, EXTENDED_LEN_MAX, MESSAGE_LEN_MAX};

use super::bencode::BencodeError;
use super::message::{BlockRef, Message, PIECE_HEAD_LEN, id};

/// Turns one peer's bytes into [`Step`]s. Knows no torrent: indices are for the caller to check.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The front of a message whose head is incomplete.
    head: [u8; HEAD_LEN_MAX],
    head_len: u8,
    rest: Rest,
    /// A body that came in parts: incomplete, or lent out by the last step.
    body: Vec<u8>,
}

/// What the front of the input was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// All input was used and more is needed.
    NeedMore,
    /// A message is complete.
    Message(Message<'a>),
    /// The head of a `piece` message; `len` bytes of payload follow, maybe none.
    BlockBegins(BlockRef),
    /// A part of the payload: the last `len` of the bytes used.
    Payload {
        /// What [`Step::BlockBegins`] said.
        block: BlockRef,
        /// Bytes of the block that came before this part.
        done: u32,
        /// Bytes of this part, at least 1; the block is through when `done + len == block.len`.
        len: u32,
    },
}

/// What a peer sent that no BEP allows. Every variant ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length prefix is above [`MESSAGE_LEN_MAX`].
    #[error("message of {len} B, limit {MESSAGE_LEN_MAX} B")]
    MessageTooLong {
        /// The length prefix.
        len: u32,
    },
    /// The length prefix does not fit the id.
    #[error("message id {id} with a body of {len} B")]
    WrongLength {
        /// The message id.
        id: u8,
        /// Bytes after the id.
        len: u32,
    },
    /// The body of an extended message is no bencoded dictionary.
    #[error("extended message: {0}")]
    Bencode(#[from] BencodeError),
    /// The body of an extended message is bencode, but no dictionary.
    #[error("extended message without a dictionary")]
    NotADictionary,
}

impl Decoder {
    /// Decodes one step from the front of `input`; returns the bytes used and what they were.
    ///
    /// `NeedMore` uses all of the input, every other step at least one byte of it. A body that
    /// was collected from several inputs stays allocated until the next step, even one with
    /// empty input.
    ///
    /// # Errors
    /// Lengths that BEP 3, 5, 6 or 10 rule out. The stream cannot be resumed after an error.
    pub fn step<'a>(&'a mut self, input: &'a [u8]) -> Result<(usize, Step<'a>), WireError> {
        match self.rest {
            Rest::Nothing => {}
            Rest::Payload { block, done } => return Ok(self.take_payload(block, done, input)),
            Rest::Body { kind, len } => return Ok(self.take_body(kind, len, 0, input)),
            Rest::Skip { left } => return self.skip(left, input),
        }
        self.take_head(0, input)
    }

    /// Bytes held of an incomplete message, or of a complete one that the last step lent out.
    pub fn held_len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// Reads a head from `input[used..]` and what of the body lies behind it.
    fn take_head<'a>(
        &'a mut self,
        mut used: usize,
        input: &'a [u8],
    ) -> Result<(usize, Step<'a>), WireError> {
        // The last body was lent out until now; an idle connection keeps none.
        self.body = Vec::new();
        let held = usize::from(self.head_len);
        let fresh = &input[used..];
        let parsed = if held == 0 {
            Head::parse(fresh)?
        } else {
            let copied = fresh.len().min(HEAD_LEN_MAX - held);
            self.head[held..held + copied].copy_from_slice(&fresh[..copied]);
            Head::parse(&self.head[..held + copied])?
        };
        let Some((head_len, head)) = parsed else {
            if held == 0 {
                self.head[..fresh.len()].copy_from_slice(fresh);
            }
            self.head_len = (held + fresh.len()) as u8;
            return Ok((input.len(), Step::NeedMore));
        };
        self.head_len = 0;
        used += head_len - held;
        match head {
            Head::Whole(message) => {
                if let Message::Unknown { len, .. } = message {
                    self.rest = Rest::skip(len);
                }
                Ok((used, Step::Message(message)))
            }
            Head::Piece(block) => {
                self.rest = Rest::payload(block, 0);
                Ok((used, Step::BlockBegins(block)))
            }
            Head::Body { kind, len } => Ok(self.take_body(kind, len, used, input)),
        }
    }

    /// Lends the body out of `input` if it is whole there, else collects it.
    fn take_body<'a>(
        &'a mut self,
        kind: BodyKind,
        len: usize,
        used: usize,
        input: &'a [u8],
    ) -> (usize, Step<'a>) {
        let fresh = &input[used..];
        if self.body.is_empty() && fresh.len() >= len {
            self.rest = Rest::Nothing;
            return (used + len, Step::Message(kind.message(&fresh[..len])));
        }
        // Grows with what came, not with what was announced: a claim costs the peer bytes.
        let part = fresh.len().min(len - self.body.len());
        self.body.extend_from_slice(&fresh[..part]);
        if self.body.len() < len {
            self.rest = Rest::Body { kind, len };
            return (used + part, Step::NeedMore);
        }
        self.rest = Rest::Nothing;
        (used + part, Step::Message(kind.message(&self.body)))
    }

    fn take_payload(&mut self, block: BlockRef, done: u32, input: &[u8]) -> (usize, Step<'static>) {
        if input.is_empty() {
            return (0, Step::NeedMore);
        }
        let part = input.len().min((block.len - done) as usize);
        let len = part as u32;
        self.rest = Rest::payload(block, done + len);
        (part, Step::Payload { block, done, len })
    }

    fn skip<'a>(&'a mut self, left: u32, input: &'a [u8]) -> Result<(usize, Step<'a>), WireError> {
        let part = input.len().min(left as usize);
        self.rest = Rest::skip(left - part as u32);
        match self.rest {
            Rest::Nothing => self.take_head(part, input),
            _ => Ok((part, Step::NeedMore)),
        }
    }
}

/// What is still to come of a message whose head was read.
#[derive(Clone, Copy, Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Payload {
        block: BlockRef,
        done: u32,
    },
    Body {
        kind: BodyKind,
        len: usize,
    },
    Skip {
        left: u32,
    },
}

impl Rest {
    fn payload(block: BlockRef, done: u32) -> Self {
        match done == block.len {
            true => Self::Nothing,
            false => Self::Payload { block, done },
        }
    }

    fn skip(left: u32) -> Self {
        match left {
            0 => Self::Nothing,
            _ => Self::Skip { left },
        }
    }
}

/// Messages with a body of variable length.
#[derive(Clone, Copy, Debug)]
enum BodyKind {
    Bitfield,
    Extended(u8),
}

impl BodyKind {
    fn message(self, body: &[u8]) -> Message<'_> {
        match self {
            Self::Bitfield => Message::Bitfield(body),
            Self::Extended(id) => Message::Extended { id, body },
        }
    }
}

/// What the front of a message says.
enum Head {
    Whole(Message<'static>),
    Piece(BlockRef),
    Body { kind: BodyKind, len: usize },
}

impl Head {
    /// Parses the head at the front of `bytes`; returns its length too.
    ///
    /// `None` if more bytes are needed, which is never so with [`HEAD_LEN_MAX`].
    fn parse(bytes: &[u8]) -> Result<Option<(usize, Self)>, WireError> {
        let Some((prefix, after)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let message_len = u32::from_be_bytes(*prefix);
        if message_len == 0 {
            return Ok(Some((4, Self::Whole(Message::KeepAlive))));
        }
        if message_len > MESSAGE_LEN_MAX {
            return Err(WireError::MessageTooLong { len: message_len });
        }
        let Some((&id, after)) = after.split_first() else {
            return Ok(None);
        };
        let len = message_len - 1;
        check_len(id, len)?;
        let fixed = |message| Ok(Some((5, Self::Whole(message))));
        match id {
            id::CHOKE => fixed(Message::Choke),
            id::UNCHOKE => fixed(Message::Unchoke),
            id::INTERESTED => fixed(Message::Interested),
            id::NOT_INTERESTED => fixed(Message::NotInterested),
            id::HAVE_ALL => fixed(Message::HaveAll),
            id::HAVE_NONE => fixed(Message::HaveNone),
            id::HAVE => Ok(parse_index(after, Message::Have)),
            id::SUGGEST => Ok(parse_index(after, Message::Suggest)),
            id::ALLOWED_FAST => Ok(parse_index(after, Message::AllowedFast)),
            id::REQUEST => Ok(parse_block(after, Message::Request)),
            id::CANCEL => Ok(parse_block(after, Message::Cancel)),
            id::REJECT => Ok(parse_block(after, Message::Reject)),
            id::PORT => Ok(parse_port(after)),
            id::PIECE => Ok(parse_piece_head(len, after)),
            id::EXTENDED => Ok(parse_extended_head(len, after)),
            id::BITFIELD => {
                let (kind, len) = (BodyKind::Bitfield, len as usize);
                Ok(Some((5, Self::Body { kind, len })))
            }
            _ => fixed(Message::Unknown { id, len }),
        }
    }
}

/// Whether `len` bytes may follow `id`.
fn check_len(id: u8, len: u32) -> Result<(), WireError> {
    let fits = match id {
        id::CHOKE
        | id::UNCHOKE
        | id::INTERESTED
        | id::NOT_INTERESTED
        | id::HAVE_ALL
        | id::HAVE_NONE => len == 0,
        id::HAVE | id::SUGGEST | id::ALLOWED_FAST => len == 4,
        id::REQUEST | id::CANCEL | id::REJECT => len == 12,
        id::PORT => len == 2,
        // Nothing longer was asked for; without payload it is BitComet's way to reject.
        id::PIECE => (8..=8 + BLOCK_LEN).contains(&len),
        id::EXTENDED => (1..EXTENDED_LEN_MAX).contains(&len),
        // The limit of all messages was made for the bitfield.
        id::BITFIELD => true,
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(WireError::WrongLength { id, len }),
    }
}

fn parse_index(after: &[u8], message: fn(PieceIndex) -> Message<'static>) -> Option<(usize, Head)> {
    let index = u32::from_be_bytes(*after.first_chunk()?);
    Some((9, Head::Whole(message(PieceIndex(index)))))
}

fn parse_block(after: &[u8], message: fn(BlockRef) -> Message<'static>) -> Option<(usize, Head)> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *after.first_chunk()?;
    let block = BlockRef {
        piece: PieceIndex(u32::from_be_bytes([a, b, c, d])),
        begin: u32::from_be_bytes([e, f, g, h]),
        len: u32::from_be_bytes([i, j, k, l]),
    };
    Some((HEAD_LEN_MAX, Head::Whole(message(block))))
}

fn parse_port(after: &[u8]) -> Option<(usize, Head)> {
    let port = u16::from_be_bytes(*after.first_chunk()?);
    Some((7, Head::Whole(Message::Port(port))))
}

fn parse_piece_head(len: u32, after: &[u8]) -> Option<(usize, Head)> {
    let [a, b, c, d, e, f, g, h] = *after.first_chunk()?;
    let block = BlockRef {
        piece: PieceIndex(u32::from_be_bytes([a, b, c, d])),
        begin: u32::from_be_bytes([e, f, g, h]),
        len: len - 8,
    };
    Some((PIECE_HEAD_LEN, Head::Piece(block)))
}

fn parse_extended_head(len: u32, after: &[u8]) -> Option<(usize, Head)> {
    let kind = BodyKind::Extended(*after.first()?);
    let len = len as usize - 1;
    Some((6, Head::Body { kind, len }))
}

/// Bytes after which every head is complete: a whole `request`.
const HEAD_LEN_MAX: usize = 17;

const _: () = assert!(HEAD_LEN_MAX >= PIECE_HEAD_LEN);

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::rng::Rng;
    use crate::wire::message::Outgoing;

    const BLOCK: BlockRef = BlockRef {
        piece: PieceIndex(7),
        begin: 0x8000,
        len: 300,
    };

    /// A step that outlives its input: messages as text, payload as (block, done, bytes).
    #[derive(Debug, PartialEq)]
    enum Seen {
        Message(String),
        Block(BlockRef),
        Payload(BlockRef, u32, Vec<u8>),
        Error(WireError),
    }

    /// Decodes `parts` in turn; neighbouring chunks of a block are joined, `NeedMore` dropped.
    fn decode(parts: &[&[u8]]) -> Vec<Seen> {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for part in parts {
            let mut input = *part;
            loop {
                let (used, step) = match decoder.step(input) {
                    Ok(step) => step,
                    Err(error) => {
                        seen.push(Seen::Error(error));
                        return seen;
                    }
                };
                let taken = &input[..used];
                match step {
                    Step::NeedMore => {
                        assert_eq!(used, input.len(), "NeedMore uses all");
                        break;
                    }
                    Step::Message(message) => seen.push(Seen::Message(format!("{message:?}"))),
                    Step::BlockBegins(block) => seen.push(Seen::Block(block)),
                    Step::Payload { block, done, len } => {
                        let chunk = &taken[used - len as usize..];
                        push_payload(&mut seen, block, done, chunk);
                    }
                }
                assert!(used > 0, "a step uses a byte");
                input = &input[used..];
            }
        }
        seen
    }

    fn push_payload(seen: &mut Vec<Seen>, block: BlockRef, done: u32, chunk: &[u8]) {
        assert!(!chunk.is_empty());
        match seen.last_mut() {
            Some(Seen::Payload(same, start, bytes)) if *start + bytes.len() as u32 == done => {
                assert_eq!(*same, block);
                bytes.extend_from_slice(chunk);
            }
            _ => seen.push(Seen::Payload(block, done, chunk.to_vec())),
        }
    }

    /// `len` counted right, then `id`, then `body`.
    fn framed(id: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 1).to_be_bytes().to_vec();
        bytes.push(id);
        bytes.extend_from_slice(body);
        bytes
    }

    /// Every kind of message once, the long ones with bodies of some hundred bytes.
    fn stream_of_all_messages() -> Vec<u8> {
        let mut bytes = Vec::new();
        let messages = [
            Outgoing::KeepAlive,
            Outgoing::Bitfield(Bytes::from(vec![0xa5; 200])),
            Outgoing::Choke,
            Outgoing::Unchoke,
            Outgoing::Interested,
            Outgoing::NotInterested,
            Outgoing::Have(PieceIndex(u32::MAX)),
            Outgoing::Request(BLOCK),
            Outgoing::Piece(BLOCK),
        ];
        messages.iter().for_each(|m| m.encode(&mut bytes));
        bytes.extend((0..BLOCK.len).map(|i| i as u8));
        let messages = [
            Outgoing::Cancel(BLOCK),
            Outgoing::Port(6881),
            Outgoing::Raw(framed(21, &[0xee; 50]).into()),
            Outgoing::HaveAll,
            Outgoing::HaveNone,
            Outgoing::Piece(BlockRef { len: 0, ..BLOCK }),
            Outgoing::Reject(BLOCK),
            Outgoing::Raw(framed(13, &[0, 0, 0, 9]).into()),
            Outgoing::Suggest(PieceIndex(7)),
            Outgoing::AllowedFast(PieceIndex(7)),
            Outgoing::Raw(framed(255, &[]).into()),
            Outgoing::Extended {
                id: 3,
                body: Bytes::from(vec![b'x'; 100]),
            },
            Outgoing::Extended {
                id: 0,
                body: Bytes::new(),
            },
            Outgoing::Bitfield(Bytes::new()),
            Outgoing::KeepAlive,
        ];
        messages.iter().for_each(|m| m.encode(&mut bytes));
        bytes
    }

    /// Written out by hand from the layouts of BEP 3, 5, 6 and 10.
    #[test]
    fn every_message_is_read_as_the_beps_lay_it_out() {
        let block = BlockRef {
            piece: PieceIndex(7),
            begin: 0x8000,
            len: 0x4000,
        };
        let index = PieceIndex(0x0102_0304);
        let body: &[u8] = b"d1:md11:upload_onlyi3eee";
        let cases: [(&[u8], Message<'_>); 18] = [
            (b"\0\0\0\0", Message::KeepAlive),
            (b"\0\0\0\x01\x00", Message::Choke),
            (b"\0\0\0\x01\x01", Message::Unchoke),
            (b"\0\0\0\x01\x02", Message::Interested),
            (b"\0\0\0\x01\x03", Message::NotInterested),
            (b"\0\0\0\x05\x04\x01\x02\x03\x04", Message::Have(index)),
            (b"\0\0\0\x03\x05\xff\x80", Message::Bitfield(&[0xff, 0x80])),
            (
                b"\0\0\0\x0d\x06\0\0\0\x07\0\0\x80\0\0\0\x40\0",
                Message::Request(block),
            ),
            (
                b"\0\0\0\x0d\x08\0\0\0\x07\0\0\x80\0\0\0\x40\0",
                Message::Cancel(block),
            ),
            (b"\0\0\0\x03\x09\x1a\xe1", Message::Port(6881)),
            (b"\0\0\0\x05\x0d\x01\x02\x03\x04", Message::Suggest(index)),
            (b"\0\0\0\x01\x0e", Message::HaveAll),
            (b"\0\0\0\x01\x0f", Message::HaveNone),
            (
                b"\0\0\0\x0d\x10\0\0\0\x07\0\0\x80\0\0\0\x40\0",
                Message::Reject(block),
            ),
            (
                b"\0\0\0\x05\x11\x01\x02\x03\x04",
                Message::AllowedFast(index),
            ),
            (
                b"\0\0\0\x1a\x14\x00d1:md11:upload_onlyi3eee",
                Message::Extended { id: 0, body },
            ),
            (
                b"\0\0\0\x02\x14\x03",
                Message::Extended { id: 3, body: b"" },
            ),
            (b"\0\0\0\x01\xff", Message::Unknown { id: 255, len: 0 }),
        ];
        for (bytes, message) in cases {
            let mut decoder = Decoder::default();
            let step = decoder.step(bytes);
            assert_eq!(
                step,
                Ok((bytes.len(), Step::Message(message))),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn payload_is_handed_on_in_the_chunks_in_which_it_comes() {
        let mut decoder = Decoder::default();
        let head = b"\0\0\0\x0d\x07\0\0\0\x07\0\0\x80\0";
        let block = BlockRef { len: 4, ..BLOCK };
        assert_eq!(decoder.step(head), Ok((13, Step::BlockBegins(block))));
        let payload = |done, len| Step::Payload { block, done, len };
        assert_eq!(decoder.step(b""), Ok((0, Step::NeedMore)));
        assert_eq!(decoder.step(b"a"), Ok((1, payload(0, 1))));
        assert_eq!(decoder.step(b"bcd\0\0\0\0"), Ok((3, payload(1, 3))));
        assert_eq!(
            decoder.step(b"\0\0\0\0"),
            Ok((4, Step::Message(Message::KeepAlive)))
        );
        assert_eq!(decoder.held_len(), 0);
    }

    #[test]
    fn every_split_of_a_stream_gives_the_same_steps() {
        let stream = stream_of_all_messages();
        let whole = decode(&[&stream]);
        assert_eq!(whole.len(), 25, "{whole:#?}");
        for at in 0..=stream.len() {
            let (front, back) = stream.split_at(at);
            assert_eq!(decode(&[front, back]), whole, "split at {at}");
        }
        for size in [1, 2, 3, 5, 16, 17, 18] {
            let parts: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(decode(&parts), whole, "parts of {size} B");
        }
    }

    /// Lengths are small, ids often known: most streams get far before they break, if they do.
    #[test]
    fn random_bytes_give_the_same_steps_in_any_split_and_never_panic() {
        let mut rng = Rng::new(0x57a7);
        for round in 0..2000 {
            let mut stream = Vec::new();
            for _ in 0..rng.below(20) {
                stream.extend_from_slice(&rng.below(40).to_be_bytes());
                stream.push(rng.below(24) as u8);
                stream.extend((0..rng.below(40)).map(|_| rng.next_u64() as u8));
            }
            let mut parts = Vec::new();
            let mut left = &stream[..];
            while !left.is_empty() {
                let (part, rest) = left.split_at(left.len().min(1 + rng.below(30) as usize));
                parts.push(part);
                left = rest;
            }
            assert_eq!(decode(&parts), decode(&[&stream]), "round {round}");
        }
    }

    /// Rows 33 and 36 of the hostile inputs: refused before a byte of the body is there.
    #[test]
    fn a_wrong_length_is_refused_at_the_head() {
        let exact = [
            // id, length of the body
            (0, 0),
            (1, 0),
            (2, 0),
            (3, 0),
            (4, 4),
            (6, 12),
            (8, 12),
            (9, 2),
            (13, 4),
            (14, 0),
            (15, 0),
            (16, 12),
            (17, 4),
        ];
        for (id, right) in exact {
            for len in (0..right + 9).chain([1 << 16]).filter(|&len| len != right) {
                let seen = decode(&[&head(id, len)]);
                assert_eq!(seen, [Seen::Error(WireError::WrongLength { id, len })]);
            }
        }
        let bounds = [
            // id, shortest, longest body
            (5, 0, MESSAGE_LEN_MAX - 1),
            (7, 8, 8 + BLOCK_LEN),
            (20, 1, EXTENDED_LEN_MAX - 1),
            (21, 0, MESSAGE_LEN_MAX - 1),
        ];
        for (id, shortest, longest) in bounds {
            for len in [shortest, longest] {
                let seen = decode(&[&head(id, len)]);
                assert!(!matches!(seen[..], [Seen::Error(_)]), "id {id}, {len} B");
            }
            let too_short = shortest.checked_sub(1);
            let too_long = Some(longest + 1).filter(|&len| len < MESSAGE_LEN_MAX);
            for len in [too_short, too_long].into_iter().flatten() {
                let seen = decode(&[&head(id, len)]);
                assert_eq!(seen, [Seen::Error(WireError::WrongLength { id, len })]);
            }
        }
        for len in [MESSAGE_LEN_MAX + 1, 1 << 20, 1 << 31, u32::MAX] {
            let seen = decode(&[&len.to_be_bytes()]);
            assert_eq!(seen, [Seen::Error(WireError::MessageTooLong { len })]);
        }
    }

    fn head(id: u8, len: u32) -> Vec<u8> {
        let mut bytes = (len + 1).to_be_bytes().to_vec();
        bytes.push(id);
        bytes
    }

    #[test]
    fn nothing_is_held_of_payload_and_unknown_messages() {
        let lens = [(7, 8 + BLOCK_LEN), (200, MESSAGE_LEN_MAX - 1)];
        for (id, len) in lens {
            let mut stream = head(id, len);
            stream.resize(5 + len as usize, 0);
            let mut decoder = Decoder::default();
            for byte in &stream {
                decoder
                    .step(std::slice::from_ref(byte))
                    .expect("a valid message");
                assert!(decoder.held_len() < HEAD_LEN_MAX);
            }
            assert_eq!(decoder.held_len(), 0);
            assert_eq!(decoder.body.capacity(), 0);
        }
    }

    #[test]
    fn a_body_is_held_only_while_it_is_incomplete_or_lent_out() {
        let message = framed(5, &[0xff; 1000]);
        let mut decoder = Decoder::default();
        let body = [0xff; 1000];
        let step = decoder.step(&message);
        assert_eq!(step, Ok((1005, Step::Message(Message::Bitfield(&body)))));
        assert_eq!(decoder.body.capacity(), 0, "lent out of the input");

        assert_eq!(decoder.step(&message[..9]), Ok((9, Step::NeedMore)));
        assert_eq!(decoder.held_len(), 4, "announced bytes take no memory");
        let step = decoder.step(&message[9..]);
        assert_eq!(step, Ok((996, Step::Message(Message::Bitfield(&body)))));
        assert_eq!(decoder.step(b""), Ok((0, Step::NeedMore)));
        assert_eq!(decoder.body.capacity(), 0);
    }

    #[test]
    fn an_idle_decoder_is_small() {
        assert!(size_of::<Decoder>() <= 72, "{} B", size_of::<Decoder>());
    }
}
