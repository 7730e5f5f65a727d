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

use bytes::Bytes;

use super::compact;
use crate::base::digest::sha1;
use crate::base::id::InfoHash;

pub use compare::{Digest, Root, Roots, Want};
pub use records::{EntriesWriter, Entry, Records};

mod compare;
mod records;

/// Where a peer stands: in a swarm, or in the network (where there are no seeds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is gone.
    Left,
    /// It is there, and not complete as far as anybody knows.
    Leecher,
    /// It is there and has everything.
    Seed,
    /// It is there and wants nothing more, though it does not have everything (BEP 21).
    PartialSeed,
}

impl Standing {
    /// Whether the peer is there.
    pub fn is_here(self) -> bool {
        self != Self::Left
    }

    /// Whether the peer is there to give alone.
    pub fn wants_nothing(self) -> bool {
        matches!(self, Self::Seed | Self::PartialSeed)
    }

    fn from_byte(byte: u8) -> Result<Self, EvPeersError> {
        match byte {
            0 => Ok(Self::Left),
            1 => Ok(Self::Leecher),
            2 => Ok(Self::Seed),
            3 => Ok(Self::PartialSeed),
            _ => Err(EvPeersError::Standing { byte }),
        }
    }
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
mod tests;
