//! Entries in bodies: read one after the other, and written.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use bytes::Bytes;

use super::{
    ADDRESS_MASK, BODY_LEN_MAX, BYE, ENTRIES, ENTRY_LEN_MAX, EVPEER, EvPeersError, IPV6, ITSELF,
    LIST_MARK, Reason, STANDING_MASK, Standing, VERSION, Why, array, byte, number,
};
use crate::wire::compact;

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

/// Entries in a body, in order, each with the handle of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    newest: u64,
    handle: Option<u16>,
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn decode(mut body: &'a [u8]) -> Result<Self, EvPeersError> {
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
    /// An [`Entries`](super::Entries); `newest` is the highest epoch that will be written.
    pub fn entries(why: Why, newest: u64) -> Self {
        Self::new(vec![VERSION, ENTRIES, why as u8], newest)
    }

    /// A [`Bye`](super::Bye); `newest` as above.
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

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V6(ip) => SocketAddrV6::new(ip, addr.port(), 0, 0).into(),
        ip => SocketAddr::new(ip, addr.port()),
    }
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
