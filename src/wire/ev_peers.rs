//! `ev_peers`, our extended message (BEP 10): what evpeers tell each other about peers.
//!
//! A body is binary, begins with [`VERSION`] and a kind, and ends with its message. Numbers are
//! big-endian; lists of a kind fill the rest of the body.
//!
//! ```text
//! 1 Hello    salt 16 · clock 8 · flags 1 (bit 0: drawn)
//! 2 Swarms   epoch 8 · { handle 2 · standing 1 · epoch 8 · tag 8 }*      left: standing 0
//! 3 Entries  why 1 · newest 8 · record*
//! 4 Roots    { handle 2 · count 4 · root 8 }*
//! 5 Digest   handle 2 · bits 1 · sum 8 × 2^bits
//! 6 Want     handle 2 · bits 1 · more 1 · one bit a bucket
//! 7 Bye      reason 1 · newest 8 · record*
//!
//! record     0x80 · handle 2                                    all that follow are of this list
//!          | flags 1 · address 6, 18 or 0 · age (LEB128)        epoch = newest - age
//! flags      bits 0-1 standing · 2 evpeer · 3 IPv6 · 4 the sender itself, no address
//! ```
//!
//! *Handles.* Each sender numbers the swarms that it is in, once for all its links; so a flush is
//! the same bytes on every link with the same swarms. Handle 0 is the network list: evpeers
//! without info hashes. What a handle stands for is proven by a [`tag`], which nobody can make or
//! understand without the info hash. (Who has the info hash can also just try a handshake.)
//!
//! *Ages.* Epochs are milliseconds, and what is told together happened at about the same time:
//! an IPv4 entry has mostly 8 to 10 bytes. Between two epochs of one address order alone counts.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use bytes::Bytes;

use super::compact;
use crate::base::digest::sha1;
use crate::base::id::InfoHash;

/// Where a peer stands: in a swarm, or in the network (where there are no seeds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is gone.
    Left,
    /// It is there, and not complete as far as anybody knows.
    Leecher,
    /// It is there and has everything.
    Seed,
}

impl Standing {
    /// Whether the peer is there.
    pub fn is_here(self) -> bool {
        self != Self::Left
    }

    fn from_byte(byte: u8) -> Result<Self, EvPeersError> {
        match byte {
            0 => Ok(Self::Left),
            1 => Ok(Self::Leecher),
            2 => Ok(Self::Seed),
            _ => Err(EvPeersError::Standing { byte }),
        }
    }
}

/// What is known of one peer in one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it accepts connections; `None` is the sender of the message itself.
    pub addr: Option<SocketAddr>,
    /// Which of two entries for an address is newer: the subject's own count if it is an evpeer,
    /// else its first-hand witness's; milliseconds since 1970 as far as clocks are right.
    pub epoch: u64,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it speaks this protocol.
    pub is_evpeer: bool,
}

/// One message, its lists still in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The first message each way: an offer of a link, or the answer that accepts it.
    Hello(Hello),
    /// Swarms that the sender is in.
    Swarms(Swarms<'a>),
    /// Entries of lists.
    Entries(Entries<'a>),
    /// What the sender's lists amount to.
    Roots(Roots<'a>),
    /// The same of one list, bucket by bucket.
    Digest(Digest<'a>),
    /// The answer to a digest: whose buckets the answerer wants in turn.
    Want(Want<'a>),
    /// The link ends, the stream need not.
    Bye(Bye<'a>),
}

/// See [`Message::Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Random bytes, new for every link.
    pub salt: Salt,
    /// The sender's wall clock, milliseconds since 1970.
    pub clock_ms: u64,
    /// Whether the sender drew the other side at random; else the stream was there anyway.
    pub is_drawn: bool,
}

/// See [`Message::Swarms`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swarms<'a> {
    /// The sender's own epoch in the network.
    pub epoch: u64,
    body: &'a [u8],
}

/// A swarm that a sender is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The sender's number for it, not 0.
    pub handle: u16,
    /// Where the sender stands; [`Standing::Left`] withdraws the handle.
    pub standing: Standing,
    /// The sender's epoch there.
    pub epoch: u64,
    /// The proof, see [`tag`].
    pub tag: Tag,
}

/// Why entries are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// They are news.
    News,
    /// The link is new, and these are the latest.
    Meeting,
    /// A digest differed.
    Repair,
}

/// See [`Message::Entries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a> {
    /// Why they are told.
    pub why: Why,
    records: Records<'a>,
}

/// What a list amounts to on one link: peers that are there, both ends left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The sender's number of the list.
    pub handle: u16,
    /// How many peers.
    pub count: u32,
    /// The sum of their hashes.
    pub root: u64,
}

/// See [`Message::Roots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots<'a> {
    body: &'a [u8],
}

/// See [`Message::Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest<'a> {
    /// The sender's number of the list.
    pub handle: u16,
    /// There are 2^bits buckets, at most 2^[`BUCKET_BITS_MAX`].
    pub bits: u8,
    body: &'a [u8],
}

/// See [`Message::Want`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    /// The sender's number of the list.
    pub handle: u16,
    /// There are 2^bits buckets.
    pub bits: u8,
    /// Whether buckets beside these differ: another digest would help.
    pub more: bool,
    body: &'a [u8],
}

/// Why a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The sender leaves the network.
    Leaving,
    /// The sender has links enough without this one.
    Surplus,
    /// The sender has no room for the link that was offered; some others may have.
    Full,
}

/// See [`Message::Bye`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye<'a> {
    /// Why.
    pub reason: Reason,
    records: Records<'a>,
}

/// Entries in a body, in order, each with the handle of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    newest: u64,
    handle: Option<u16>,
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a body. Records are read by [`Records`], one after the other.
    ///
    /// # Errors
    /// Whatever the format rules out. The sender is no evpeer of ours.
    pub fn decode(body: &'a [u8]) -> Result<Self, EvPeersError> {
        if body.len() > BODY_LEN_MAX {
            return Err(EvPeersError::TooLong { len: body.len() });
        }
        let mut rest = body;
        let version = byte(&mut rest)?;
        if version != VERSION {
            return Err(EvPeersError::Version { version });
        }
        match byte(&mut rest)? {
            HELLO => Ok(Self::Hello(Hello::decode(rest)?)),
            SWARMS => Ok(Self::Swarms(Swarms {
                epoch: number(&mut rest)?,
                body: whole::<MEMBERSHIP_LEN>(rest)?,
            })),
            ENTRIES => Ok(Self::Entries(Entries {
                why: Why::from_byte(byte(&mut rest)?)?,
                records: Records::decode(rest)?,
            })),
            ROOTS => Ok(Self::Roots(Roots {
                body: whole::<ROOT_LEN>(rest)?,
            })),
            DIGEST => Ok(Self::Digest(Digest::decode(rest)?)),
            WANT => Ok(Self::Want(Want::decode(rest)?)),
            BYE => Ok(Self::Bye(Bye {
                reason: Reason::from_byte(byte(&mut rest)?)?,
                records: Records::decode(rest)?,
            })),
            kind => Err(EvPeersError::Kind { kind }),
        }
    }
}

/// Whether `body` offers a link, or accepts one.
pub fn is_hello(body: &[u8]) -> bool {
    body.starts_with(&[VERSION, HELLO])
}

impl Hello {
    fn decode(mut body: &[u8]) -> Result<Self, EvPeersError> {
        let hello = Self {
            salt: *array(&mut body)?,
            clock_ms: number(&mut body)?,
            is_drawn: match byte(&mut body)? {
                flags @ 0..=1 => flags == 1,
                flags => return Err(EvPeersError::Flags { flags }),
            },
        };
        body.is_empty().then_some(hello).ok_or(EvPeersError::Length)
    }

    /// The body of this message.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, HELLO];
        out.extend(self.salt);
        out.extend(self.clock_ms.to_be_bytes());
        out.push(self.is_drawn.into());
        out.into()
    }
}

impl Swarms<'_> {
    /// The swarms, in the sender's order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Membership, EvPeersError>> {
        let (items, _) = self.body.as_chunks::<MEMBERSHIP_LEN>();
        items.iter().map(|item| {
            let mut rest = &item[..];
            let handle = u16::from_be_bytes(*array(&mut rest)?);
            if handle == NETWORK {
                return Err(EvPeersError::Handle);
            }
            Ok(Membership {
                handle,
                standing: Standing::from_byte(byte(&mut rest)?)?,
                epoch: number(&mut rest)?,
                tag: *array(&mut rest)?,
            })
        })
    }

    /// The body of a message with these swarms.
    pub fn encode(epoch: u64, swarms: impl IntoIterator<Item = Membership>) -> Bytes {
        let mut out = vec![VERSION, SWARMS];
        out.extend(epoch.to_be_bytes());
        for swarm in swarms {
            out.extend(swarm.handle.to_be_bytes());
            out.push(swarm.standing as u8);
            out.extend(swarm.epoch.to_be_bytes());
            out.extend(swarm.tag);
        }
        out.into()
    }
}

impl<'a> Entries<'a> {
    /// The entries, in order.
    pub fn records(&self) -> Records<'a> {
        self.records
    }
}

impl<'a> Bye<'a> {
    /// Entries of the network list: who might have room.
    pub fn records(&self) -> Records<'a> {
        self.records
    }
}

impl Roots<'_> {
    /// The roots, in the sender's order.
    pub fn iter(&self) -> impl Iterator<Item = Root> {
        let (items, _) = self.body.as_chunks::<ROOT_LEN>();
        items.iter().map(|item| {
            let (handle, rest) = item.split_at(2);
            let (count, root) = rest.split_at(4);
            Root {
                handle: u16::from_be_bytes(handle.try_into().expect("2 bytes")),
                count: u32::from_be_bytes(count.try_into().expect("4 bytes")),
                root: u64::from_be_bytes(root.try_into().expect("8 bytes")),
            }
        })
    }

    /// The body of a message with these roots.
    pub fn encode(roots: impl IntoIterator<Item = Root>) -> Bytes {
        let mut out = vec![VERSION, ROOTS];
        for root in roots {
            out.extend(root.handle.to_be_bytes());
            out.extend(root.count.to_be_bytes());
            out.extend(root.root.to_be_bytes());
        }
        out.into()
    }
}

impl<'a> Digest<'a> {
    fn decode(body: &'a [u8]) -> Result<Self, EvPeersError> {
        let [high, low, bits, body @ ..] = body else {
            return Err(EvPeersError::Length);
        };
        if *bits > BUCKET_BITS_MAX {
            return Err(EvPeersError::Buckets { bits: *bits });
        }
        if body.len() != 8 << bits {
            return Err(EvPeersError::Length);
        }
        Ok(Self {
            handle: u16::from_be_bytes([*high, *low]),
            bits: *bits,
            body,
        })
    }

    /// The sums of the buckets, in order.
    pub fn sums(&self) -> impl Iterator<Item = u64> {
        let (sums, _) = self.body.as_chunks::<8>();
        sums.iter().map(|&sum| u64::from_be_bytes(sum))
    }

    /// The body of a message with these sums, whose number is a power of two.
    pub fn encode(handle: u16, sums: &[u64]) -> Bytes {
        assert!(sums.len().is_power_of_two(), "one sum a bucket");
        let mut out = vec![VERSION, DIGEST];
        out.extend(handle.to_be_bytes());
        out.push(sums.len().ilog2() as u8);
        sums.iter().for_each(|sum| out.extend(sum.to_be_bytes()));
        out.into()
    }
}

impl<'a> Want<'a> {
    fn decode(body: &'a [u8]) -> Result<Self, EvPeersError> {
        let [high, low, bits, more, body @ ..] = body else {
            return Err(EvPeersError::Length);
        };
        if *bits > BUCKET_BITS_MAX {
            return Err(EvPeersError::Buckets { bits: *bits });
        }
        if body.len() != (1_usize << bits).div_ceil(8) {
            return Err(EvPeersError::Length);
        }
        if *more > 1 {
            return Err(EvPeersError::Flags { flags: *more });
        }
        Ok(Self {
            handle: u16::from_be_bytes([*high, *low]),
            bits: *bits,
            more: *more == 1,
            body,
        })
    }

    /// Whether this bucket is wanted.
    pub fn has(&self, bucket: usize) -> bool {
        let byte = self.body.get(bucket / 8).copied().unwrap_or(0);
        byte & (0x80 >> (bucket % 8)) != 0
    }

    /// The body of a message that wants the buckets, of 2^bits, for which `wanted` is true.
    pub fn encode(handle: u16, wanted: &[bool], more: bool) -> Bytes {
        assert!(wanted.len().is_power_of_two(), "one flag a bucket");
        let mut out = vec![VERSION, WANT];
        out.extend(handle.to_be_bytes());
        out.extend([wanted.len().ilog2() as u8, more.into()]);
        out.extend(wanted.chunks(8).map(|flags| {
            let bits = flags.iter().enumerate();
            bits.fold(0_u8, |byte, (i, &flag)| byte | (u8::from(flag) << (7 - i)))
        }));
        out.into()
    }
}

impl<'a> Records<'a> {
    fn decode(mut body: &'a [u8]) -> Result<Self, EvPeersError> {
        Ok(Self {
            newest: number(&mut body)?,
            handle: None,
            rest: body,
        })
    }

    /// The epoch from which ages are counted back.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Reads one record; `None` if it only names the list of those that follow.
    fn record(&mut self) -> Result<Option<(u16, Entry)>, EvPeersError> {
        let flags = byte(&mut self.rest)?;
        if flags == LIST_MARK {
            let handle = array::<2>(&mut self.rest)?;
            self.handle = Some(u16::from_be_bytes(*handle));
            return Ok(None);
        }
        let handle = self.handle.ok_or(EvPeersError::Handle)?;
        let addr = match flags & ADDRESS_MASK {
            0 => compact::peers(array::<{ compact::PEER_LEN }>(&mut self.rest)?).next(),
            IPV6 => compact::peers6(array::<{ compact::PEER6_LEN }>(&mut self.rest)?).next(),
            ITSELF => None,
            _ => return Err(EvPeersError::Flags { flags }),
        };
        let age = leb128(&mut self.rest)?;
        let entry = Entry {
            addr: addr.map(canonical),
            epoch: self.newest.checked_sub(age).ok_or(EvPeersError::Age)?,
            standing: Standing::from_byte(flags & STANDING_MASK)?,
            is_evpeer: flags & EVPEER != 0,
        };
        Ok(Some((handle, entry)))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(u16, Entry), EvPeersError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.record() {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    self.rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Writes entries one after the other, and is then a body.
#[derive(Debug)]
pub struct EntriesWriter {
    out: Vec<u8>,
    newest: u64,
    handle: Option<u16>,
}

impl EntriesWriter {
    /// An [`Entries`]; `newest` is the highest epoch that will be written.
    pub fn entries(why: Why, newest: u64) -> Self {
        Self::new(vec![VERSION, ENTRIES, why as u8], newest)
    }

    /// A [`Bye`]; `newest` as above.
    pub fn bye(reason: Reason, newest: u64) -> Self {
        Self::new(vec![VERSION, BYE, reason as u8], newest)
    }

    fn new(mut out: Vec<u8>, newest: u64) -> Self {
        out.extend(newest.to_be_bytes());
        Self {
            out,
            newest,
            handle: None,
        }
    }

    /// Appends an entry of the list `handle`; cheap if the one before was of the same list.
    pub fn push(&mut self, handle: u16, entry: &Entry) {
        if self.handle != Some(handle) {
            self.handle = Some(handle);
            self.out.push(LIST_MARK);
            self.out.extend(handle.to_be_bytes());
        }
        let addr = entry.addr.map(canonical);
        let kind = match addr {
            None => ITSELF,
            Some(SocketAddr::V4(_)) => 0,
            Some(SocketAddr::V6(_)) => IPV6,
        };
        let evpeer = if entry.is_evpeer { EVPEER } else { 0 };
        self.out.push(entry.standing as u8 | kind | evpeer);
        match addr {
            None => {}
            Some(SocketAddr::V4(addr)) => self.out.extend(compact::encode_peer(addr)),
            Some(SocketAddr::V6(addr)) => self.out.extend(compact::encode_peer6(addr)),
        }
        let age = self.newest.checked_sub(entry.epoch);
        write_leb128(
            &mut self.out,
            age.expect("no entry is newer than the newest"),
        );
    }

    /// Whether one more entry keeps the body within [`BODY_LEN_MAX`].
    pub fn has_room(&self) -> bool {
        self.out.len() + ENTRY_LEN_MAX <= BODY_LEN_MAX
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.handle.is_none()
    }

    /// The body.
    pub fn finish(self) -> Bytes {
        self.out.into()
    }
}

/// Random bytes of one side of a link.
pub type Salt = [u8; 16];
/// The proof that its sender knows an info hash.
pub type Tag = [u8; 8];

/// Names a swarm to who has it too, on one link and in one direction.
///
/// The order of the salts keeps an outsider from handing our own tags back to us as its proof.
pub fn tag(sender: &Salt, receiver: &Salt, swarm: InfoHash) -> Tag {
    let mut text = [0; 52];
    text[..16].copy_from_slice(sender);
    text[16..32].copy_from_slice(receiver);
    text[32..].copy_from_slice(&swarm.0);
    let [a, b, c, d, e, f, g, h, ..] = sha1(&text);
    [a, b, c, d, e, f, g, h]
}

impl Why {
    fn from_byte(byte: u8) -> Result<Self, EvPeersError> {
        match byte {
            0 => Ok(Self::News),
            1 => Ok(Self::Meeting),
            2 => Ok(Self::Repair),
            flags => Err(EvPeersError::Flags { flags }),
        }
    }
}

impl Reason {
    fn from_byte(byte: u8) -> Result<Self, EvPeersError> {
        match byte {
            0 => Ok(Self::Leaving),
            1 => Ok(Self::Surplus),
            2 => Ok(Self::Full),
            flags => Err(EvPeersError::Flags { flags }),
        }
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, addr.port(), 0, 0).into(),
        ip => SocketAddr::new(ip, addr.port()),
    }
}

fn array<'a, const LEN: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; LEN], EvPeersError> {
    let (front, tail) = rest.split_first_chunk().ok_or(EvPeersError::Length)?;
    *rest = tail;
    Ok(front)
}

fn byte(rest: &mut &[u8]) -> Result<u8, EvPeersError> {
    array::<1>(rest).map(|&[byte]| byte)
}

fn number(rest: &mut &[u8]) -> Result<u64, EvPeersError> {
    array(rest).map(|&bytes| u64::from_be_bytes(bytes))
}

fn whole<const LEN: usize>(body: &[u8]) -> Result<&[u8], EvPeersError> {
    let is_whole = body.len().is_multiple_of(LEN);
    is_whole.then_some(body).ok_or(EvPeersError::Length)
}

/// A number in groups of seven bits, the lowest first, in as few bytes as it needs.
fn leb128(rest: &mut &[u8]) -> Result<u64, EvPeersError> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = byte(rest)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
            return Err(EvPeersError::Age);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(EvPeersError::Age)
}

fn write_leb128(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// What the format rules out. Every variant ends the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvPeersError {
    /// The body is longer than any that we send.
    #[error("ev_peers of {len} B, limit {BODY_LEN_MAX} B")]
    TooLong {
        /// Bytes of the body.
        len: usize,
    },
    /// Another version of the format.
    #[error("ev_peers version {version}, we speak {VERSION}")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// No such kind of message.
    #[error("ev_peers kind {kind}")]
    Kind {
        /// The second byte.
        kind: u8,
    },
    /// The body ends too early or too late.
    #[error("ev_peers body of a wrong length")]
    Length,
    /// Flags that mean nothing.
    #[error("ev_peers flags {flags:#04x}")]
    Flags {
        /// The flags.
        flags: u8,
    },
    /// A standing that is none.
    #[error("ev_peers standing {byte}")]
    Standing {
        /// The byte in its place.
        byte: u8,
    },
    /// An entry of no list, or a swarm under the network's handle.
    #[error("ev_peers handle out of place")]
    Handle,
    /// An age that is longer than needed, or older than time.
    #[error("ev_peers age out of range")]
    Age,
    /// A digest of more buckets than there are.
    #[error("ev_peers digest of 2^{bits} buckets, limit 2^{BUCKET_BITS_MAX}")]
    Buckets {
        /// The exponent.
        bits: u8,
    },
}

/// The version of the format: the first byte of each body.
pub const VERSION: u8 = 1;
/// The handle of the network list.
pub const NETWORK: u16 = 0;
/// Longest body that is read or written, bytes.
pub const BODY_LEN_MAX: usize = 16 * 1024;
/// A digest has at most 2 to this power buckets.
pub const BUCKET_BITS_MAX: u8 = 8;
/// Swarms in one body at most.
pub const SWARMS_IN_BODY_MAX: usize = (BODY_LEN_MAX - 10) / MEMBERSHIP_LEN;
/// Roots in one body at most.
pub const ROOTS_IN_BODY_MAX: usize = (BODY_LEN_MAX - 2) / ROOT_LEN;

const HELLO: u8 = 1;
const SWARMS: u8 = 2;
const ENTRIES: u8 = 3;
const ROOTS: u8 = 4;
const DIGEST: u8 = 5;
const WANT: u8 = 6;
const BYE: u8 = 7;

const LIST_MARK: u8 = 0x80;
const STANDING_MASK: u8 = 0x03;
const EVPEER: u8 = 0x04;
const IPV6: u8 = 0x08;
const ITSELF: u8 = 0x10;
/// Everything that is not standing or evpeer: bits without a meaning are refused with it.
const ADDRESS_MASK: u8 = !(STANDING_MASK | EVPEER);

const MEMBERSHIP_LEN: usize = 2 + 1 + 8 + 8;
const ROOT_LEN: usize = 2 + 4 + 8;
/// Mark, flags, IPv6 address, the longest age.
const ENTRY_LEN_MAX: usize = 3 + 1 + compact::PEER6_LEN + 10;

const _: () = assert!(8 << BUCKET_BITS_MAX < BODY_LEN_MAX, "a digest fits a body");
const _: () = assert!(BODY_LEN_MAX < crate::base::limits::EXTENDED_LEN_MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::hex;
    use crate::base::rng::Rng;

    fn entry(addr: Option<&str>, epoch: u64, standing: Standing) -> Entry {
        Entry {
            addr: addr.map(|text| text.parse().expect("an address")),
            epoch,
            standing,
            is_evpeer: true,
        }
    }

    /// Reads `body` to its end and writes it again.
    fn again(body: &[u8]) -> Result<Bytes, EvPeersError> {
        Ok(match Message::decode(body)? {
            Message::Hello(hello) => hello.encode(),
            Message::Swarms(swarms) => {
                let items = swarms.iter().collect::<Result<Vec<_>, _>>()?;
                Swarms::encode(swarms.epoch, items)
            }
            Message::Entries(entries) => {
                let writer = EntriesWriter::entries(entries.why, entries.records.newest());
                write(writer, entries.records())?
            }
            Message::Roots(roots) => Roots::encode(roots.iter()),
            Message::Digest(digest) => {
                Digest::encode(digest.handle, &digest.sums().collect::<Vec<_>>())
            }
            Message::Want(want) => {
                let wanted: Vec<_> = (0..1 << want.bits).map(|i| want.has(i)).collect();
                Want::encode(want.handle, &wanted, want.more)
            }
            Message::Bye(bye) => {
                let writer = EntriesWriter::bye(bye.reason, bye.records.newest());
                write(writer, bye.records())?
            }
        })
    }

    fn write(mut writer: EntriesWriter, records: Records<'_>) -> Result<Bytes, EvPeersError> {
        for record in records {
            let (handle, entry) = record?;
            writer.push(handle, &entry);
        }
        Ok(writer.finish())
    }

    /// One body of each kind.
    fn bodies() -> Vec<Bytes> {
        let mut writer = EntriesWriter::entries(Why::News, 1000);
        writer.push(0, &entry(Some("10.0.0.5:6881"), 1000, Standing::Leecher));
        writer.push(0, &entry(Some("[fd00::5]:6881"), 800, Standing::Left));
        writer.push(7, &entry(None, 0, Standing::Seed));
        let mut bye = EntriesWriter::bye(Reason::Full, 5);
        bye.push(0, &entry(Some("10.0.0.6:1"), 5, Standing::Leecher));
        let membership = |handle, standing| Membership {
            handle,
            standing,
            epoch: 7,
            tag: [handle as u8; 8],
        };
        let root = |handle| Root {
            handle,
            count: 3,
            root: u64::MAX,
        };
        vec![
            Hello {
                salt: [9; 16],
                clock_ms: 1,
                is_drawn: true,
            }
            .encode(),
            Swarms::encode(7, (1..4).map(|handle| membership(handle, Standing::Seed))),
            writer.finish(),
            Roots::encode([root(0), root(1)]),
            Digest::encode(2, &[1, 2, 3, 4]),
            Want::encode(2, &[true, false, false, true], true),
            bye.finish(),
        ]
    }

    #[test]
    fn entries_are_laid_out_as_the_module_says() {
        let expected = "0103000000000000\
            0003e8800000050a0000051ae100\
            0cfd0000000000000000000000000000051ae1c80180000716e807";
        assert_eq!(hex(&bodies()[2]), expected);
        let newest_v4 = 1 + compact::PEER_LEN + 1;
        assert!(newest_v4 <= 12, "an IPv4 entry of the last 100 ms");
    }

    #[test]
    fn every_kind_reads_what_it_writes_and_no_cut_of_it() {
        for body in bodies() {
            assert_eq!(again(&body).as_ref(), Ok(&body), "{}", hex(&body));
            for len in 0..body.len() {
                // A list may end after any of its items; what is read is a front of the whole.
                if let Ok(cut) = again(&body[..len]) {
                    assert!(body[..len].starts_with(&cut), "{}", hex(&body[..len]));
                }
            }
            assert_eq!(
                is_hello(&body),
                matches!(Message::decode(&body), Ok(Message::Hello(_)))
            );
        }
    }

    #[test]
    fn what_the_format_rules_out_is_refused() {
        let body = |hex: &str| -> Vec<u8> {
            let pairs = hex.as_bytes().chunks(2);
            let digits = pairs.map(|pair| str::from_utf8(pair).expect("hex"));
            digits
                .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
                .collect()
        };
        #[rustfmt::skip]
        let cases = [
            // what it shows              body                              error
            ("no kind",                   "01",                             EvPeersError::Length),
            ("another version",           "0201",       EvPeersError::Version { version: 2 }),
            ("an unknown kind",           "0108",             EvPeersError::Kind { kind: 8 }),
            ("flags of hello",            "0101000000000000000000000000000000000000000000000000ff",
                                                          EvPeersError::Flags { flags: 255 }),
            ("network among swarms",      "01020000000000000000\
 0000010000000000000000aabbccddeeff0011",
                                                                        EvPeersError::Handle),
            ("an entry of no list",       "0103000000000000000064040a0000051ae100",
                                                                        EvPeersError::Handle),
            ("standing 3",                "01030000000000000000648000001300",
                                                       EvPeersError::Standing { byte: 3 }),
            ("IPv6 and itself",           "01030000000000000000648000001800",
                                                        EvPeersError::Flags { flags: 0x18 }),
            ("older than time",           "01030000000000000000648000001065", EvPeersError::Age),
            ("a long zero",               "0103000000000000000064800000108000", EvPeersError::Age),
            ("an age of eleven bytes",    "010300ffffffffffffffff80000010\
                                            8080808080808080808001",          EvPeersError::Age),
            ("more than 64 bits",         "010300ffffffffffffffff80000010\
                                            ffffffffffffffffff02",            EvPeersError::Age),
            ("512 buckets",               "0105000009",    EvPeersError::Buckets { bits: 9 }),
            ("a digest cut short",        "010500000100",                  EvPeersError::Length),
            ("a want without buckets",    "010600000000",                  EvPeersError::Length),
        ];
        for (name, hex, error) in cases {
            assert_eq!(again(&body(hex)), Err(error), "{name}");
        }
        let long = vec![VERSION; BODY_LEN_MAX + 1];
        assert!(matches!(again(&long), Err(EvPeersError::TooLong { .. })));
    }

    #[test]
    fn random_bodies_are_refused_or_read_to_the_same_values() {
        let mut rng = Rng::new(10);
        let seeds = bodies();
        let mut read = 0;
        for round in 0..20_000 {
            let mut body = seeds[round % seeds.len()].to_vec();
            for _ in 0..rng.below(4) {
                let place = rng.below(body.len() as u32) as usize;
                body[place] = rng.next_u64() as u8;
            }
            body.truncate(rng.below(body.len() as u32 + 1) as usize);
            if let Ok(first) = again(&body) {
                read += 1;
                assert_eq!(again(&first), Ok(first.clone()), "{}", hex(&body));
            }
        }
        assert!(read > 1000, "{read} of the bodies could be read");
    }

    #[test]
    fn tag_is_of_one_link_and_one_direction() {
        let (a, b, swarm) = ([1; 16], [2; 16], InfoHash([3; 20]));
        let all = [
            tag(&a, &b, swarm),
            tag(&b, &a, swarm),
            tag(&a, &[4; 16], swarm),
            tag(&a, &b, InfoHash([4; 20])),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one));
        }
    }

    #[test]
    fn full_writer_keeps_within_the_body() {
        let mut writer = EntriesWriter::entries(Why::Repair, u64::MAX);
        let mut handle = 0;
        while writer.has_room() {
            // The longest entries there are: a list each, IPv6, the oldest epoch.
            handle += 1;
            writer.push(handle, &entry(Some("[fd00::1]:1"), 0, Standing::Seed));
        }
        let body = writer.finish();
        assert!(body.len() <= BODY_LEN_MAX && body.len() > BODY_LEN_MAX - ENTRY_LEN_MAX);
        assert_eq!(again(&body), Ok(body));
    }
}
