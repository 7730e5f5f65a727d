//! What lists amount to, and which buckets of them differ.

use bytes::Bytes;

use super::{BUCKET_BITS_MAX, DIGEST, EvPeersError, ROOT_LEN, ROOTS, VERSION, WANT};

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

/// See [`Message::Roots`](super::Message::Roots).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roots<'a> {
    pub(super) body: &'a [u8],
}

/// See [`Message::Digest`](super::Message::Digest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest<'a> {
    /// The sender's number of the list.
    pub handle: u16,
    /// There are 2^bits buckets, at most 2^[`BUCKET_BITS_MAX`].
    pub bits: u8,
    pub(super) body: &'a [u8],
}

/// See [`Message::Want`](super::Message::Want).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    /// The sender's number of the list.
    pub handle: u16,
    /// There are 2^bits buckets.
    pub bits: u8,
    /// Whether buckets beside these differ: another digest would help.
    pub more: bool,
    pub(super) body: &'a [u8],
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
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, EvPeersError> {
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
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, EvPeersError> {
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
