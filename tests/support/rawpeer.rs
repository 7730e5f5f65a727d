//! The peer wire protocol spoken by hand over a plain socket, honest or not.
//!
//! Nothing of the crate is used: what these tests say on the wire does not change with it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Message ids of BEP 3, BEP 6 and BEP 10.
pub mod id {
    #![allow(missing_docs, reason = "the names are those of the BEPs")]
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

/// Whether the handshake offers the fast extension (BEP 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fast {
    /// Bit set.
    Offered,
    /// Bit clear.
    Absent,
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: u8,
    /// What follows the id.
    pub body: Vec<u8>,
}

impl Message {
    /// The numbers of a request, cancel, reject, or the head of a piece message; None if it is
    /// too short.
    pub fn words(&self) -> Option<[u32; 3]> {
        let mut words = [0; 3];
        let heads = self
            .body
            .chunks_exact(4)
            .chain(std::iter::repeat(&[0u8; 4][..]));
        for (word, raw) in words.iter_mut().zip(heads) {
            *word = u32::from_be_bytes(raw.try_into().ok()?);
        }
        (self.body.len() >= 8).then_some(words)
    }
}

/// One end of a connection whose other end is a client.
pub struct RawPeer {
    stream: TcpStream,
    /// Bytes read and not yet taken.
    inbox: Vec<u8>,
    /// What the client's handshake said: reserved bytes, info hash, peer id.
    pub handshake: [u8; 68],
}

/// How an attempt to read a message ended without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMessage {
    /// The connection was closed or reset.
    Closed,
    /// Nothing came in time.
    Silence,
}

impl RawPeer {
    /// Connects to `to`, shakes hands for `info_hash`.
    pub fn dial(to: SocketAddr, info_hash: &[u8; 20], fast: Fast) -> Self {
        let stream = TcpStream::connect(to).expect("the client listens");
        let hello = handshake(info_hash, fast, &new_peer_id());
        Self::shake(stream, &hello).expect("the client shakes hands")
    }

    /// The same from the address `from` with a handshake that is given; an error if the client does
    /// not answer it.
    pub fn try_dial(to: SocketAddr, from: Ipv4Addr, hello: &[u8; 68]) -> io::Result<Self> {
        let kind = socket2::Type::STREAM;
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), kind, None)?;
        socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
        socket.connect(&to.into())?;
        Self::shake(socket.into(), hello)
    }

    /// Shakes hands on an accepted or established stream.
    pub fn shake(stream: TcpStream, hello: &[u8; 68]) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut peer = Self {
            stream,
            inbox: Vec::new(),
            handshake: [0; 68],
        };
        peer.send(hello)?;
        peer.stream.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
        peer.stream.read_exact(&mut peer.handshake)?;
        if peer.handshake[28..48] != hello[28..48] {
            return Err(io::Error::new(ErrorKind::InvalidData, "another info hash"));
        }
        Ok(peer)
    }

    /// Another handle of the same connection, to write while this one reads.
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a handle more is allowed")
    }

    /// Writes raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(WRITE_LIMIT))?;
        self.stream.write_all(bytes)
    }

    /// Writes a message; panics if the client has closed the connection.
    pub fn say(&mut self, id: u8, body: &[u8]) {
        self.send(&message(id, body))
            .expect("the connection is open");
    }

    /// The next message, keep-alives left out.
    pub fn read(&mut self, limit: Duration) -> Result<Message, NoMessage> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = self.take_message() {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoMessage::Silence);
            }
            self.stream
                .set_read_timeout(Some(left))
                .expect("a socket takes a time-out");
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(NoMessage::Closed),
                Ok(len) => self.inbox.extend(&chunk[..len]),
                Err(error) if is_silence(&error) => {}
                Err(_) => return Err(NoMessage::Closed),
            }
        }
    }

    /// Reads until a message that `wanted` accepts; panics if there is none in time.
    pub fn read_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Message) -> bool,
    ) -> Message {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.read(left) {
                Ok(message) if wanted(&message) => return message,
                Ok(_) => {}
                Err(reason) => panic!("{reason:?} instead of {what}"),
            }
        }
    }

    /// Says that it is interested and waits for the unchoke.
    pub fn become_unchoked(&mut self) {
        self.say(id::INTERESTED, &[]);
        self.read_until("an unchoke", UNCHOKE_LIMIT, |message| {
            message.id == id::UNCHOKE
        });
    }

    /// Whether the client still answers: a request, by someone unchoked, gets its block.
    pub fn assert_serves(&mut self, piece: u32, begin: u32, expected: &[u8]) {
        self.say(id::REQUEST, &words(&[piece, begin, expected.len() as u32]));
        let answer = self.read_until("the block", ANSWER_LIMIT, |message| {
            let words = message.words().map(|words| [words[0], words[1]]);
            message.id == id::PIECE && words == Some([piece, begin])
        });
        assert_eq!(
            &answer.body[8..],
            expected,
            "the block is what the torrent says"
        );
    }

    /// The numbers of the next request that the leecher sends.
    pub fn next_request(&mut self) -> [u32; 3] {
        let request = self.read_until("a request", REQUEST_LIMIT, |m| m.id == id::REQUEST);
        request.words().expect("a request has three numbers")
    }

    /// Reads until the client closes; panics if it does not within `limit`.
    pub fn assert_closed(&mut self, why: &str, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            match self.read(end.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(NoMessage::Closed) => return,
                Err(NoMessage::Silence) => panic!("still open after {limit:?}: {why}"),
            }
        }
    }

    fn take_message(&mut self) -> Option<Message> {
        loop {
            let prefix = self.inbox.first_chunk::<4>()?;
            let len = u32::from_be_bytes(*prefix) as usize;
            assert!(
                len <= 1024 * 1024,
                "no client sends messages of {len} bytes"
            );
            if self.inbox.len() < 4 + len {
                return None;
            }
            let mut raw = self.inbox.drain(..4 + len).skip(4);
            if let Some(id) = raw.next() {
                return Some(Message {
                    id,
                    body: raw.collect(),
                });
            }
        }
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A handshake that offers extended messages (BEP 10) and, if wished, the fast extension (BEP 6).
pub fn handshake(info_hash: &[u8; 20], fast: Fast, peer_id: &[u8; 20]) -> [u8; 68] {
    let mut raw = [0; 68];
    raw[..20].copy_from_slice(b"\x13BitTorrent protocol");
    raw[25] = 0x10;
    raw[27] = if fast == Fast::Offered { 0x04 } else { 0 };
    raw[28..48].copy_from_slice(info_hash);
    raw[48..].copy_from_slice(peer_id);
    raw
}

/// A peer id that nobody else has.
pub fn new_peer_id() -> [u8; 20] {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let serial = COUNT.fetch_add(1, Ordering::Relaxed) % 1_000_000;
    let id = format!("-RW0001-{:06}{serial:06}", std::process::id() % 1_000_000);
    id.as_bytes().try_into().expect("8 + 6 + 6 characters")
}

/// A message with its length prefix.
pub fn message(id: u8, body: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(5 + body.len());
    raw.extend((body.len() as u32 + 1).to_be_bytes());
    raw.push(id);
    raw.extend(body);
    raw
}

/// Big-endian numbers one after another.
pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);
/// Three rounds of a choker that looks every 10 s.
const UNCHOKE_LIMIT: Duration = Duration::from_secs(35);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// How soon a leecher asks an unchoked source, also again after a time-out.
const REQUEST_LIMIT: Duration = Duration::from_secs(40);
const WRITE_LIMIT: Duration = Duration::from_secs(30);
