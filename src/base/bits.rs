//! The bitfield of BEP 3: bit 0 is the highest bit of the first byte.

use std::fmt;

/// One bit a piece; spare bits of the last byte are always zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    bytes: Box<[u8]>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// `len` bits, all zero.
    pub fn new(len: u32) -> Self {
        Self {
            bytes: vec![0; byte_len(len)].into(),
            len,
            ones: 0,
        }
    }

    /// `len` bits, all one.
    pub fn full(len: u32) -> Self {
        let mut bytes = vec![0xff; byte_len(len)];
        if let Some(last) = bytes.last_mut() {
            *last <<= spare_bits(len);
        }
        Self {
            bytes: bytes.into(),
            len,
            ones: len,
        }
    }

    /// Reads the body of a `bitfield` message.
    ///
    /// # Errors
    /// `None` if the number of bytes is not that of `len` bits, or a spare bit is set (BEP 3).
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != byte_len(len) {
            return None;
        }
        if let Some(last) = bytes.last()
            && u32::from(*last) & ((1 << spare_bits(len)) - 1) != 0
        {
            return None;
        }
        let ones = bytes.iter().map(|b| b.count_ones()).sum();
        Some(Self {
            bytes: bytes.into(),
            len,
            ones,
        })
    }

    /// The body of a `bitfield` message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of ones.
    pub fn count_ones(&self) -> u32 {
        self.ones
    }

    /// Whether every bit is one.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether bit `index` is one.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn has(&self, index: u32) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.bytes[(index / 8) as usize] & (0x80 >> (index % 8)) != 0
    }

    /// Makes bit `index` one; says whether it was zero.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn set(&mut self, index: u32) -> bool {
        if self.has(index) {
            return false;
        }
        self.bytes[(index / 8) as usize] |= 0x80 >> (index % 8);
        self.ones += 1;
        true
    }

    /// Makes bit `index` zero; says whether it was one.
    ///
    /// # Panics
    /// If there is no such bit.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.has(index) {
            return false;
        }
        self.bytes[(index / 8) as usize] &= !(0x80 >> (index % 8));
        self.ones -= 1;
        true
    }

    /// The indices of all ones, ascending.
    pub fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        CommonOnes::new(&self.bytes, &self.bytes, 0)
    }

    /// The indices from `first` on where both have a one, ascending.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn ones_of_both<'a>(&'a self, other: &'a Self, first: u32) -> impl Iterator<Item = u32> {
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        CommonOnes::new(&self.bytes, &other.bytes, first)
    }

    /// Whether there is an index at which both have a one.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn intersects(&self, other: &Self) -> bool {
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        CommonOnes::new(&self.bytes, &other.bytes, 0)
            .next()
            .is_some()
    }

    /// Makes every bit one that is one in `other`.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        let both = self.bytes.iter_mut().zip(&other.bytes);
        both.for_each(|(own, other)| *own |= other);
        self.count();
    }

    /// Makes every bit one that is one in both.
    ///
    /// # Panics
    /// If they differ in length.
    pub fn add_common(&mut self, one: &Self, other: &Self) {
        assert_eq!(self.len, one.len, "bitfields of one torrent");
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        let both = one.bytes.iter().zip(&other.bytes);
        for (own, (one, other)) in self.bytes.iter_mut().zip(both) {
            *own |= one & other;
        }
        self.count();
    }

    /// Makes every bit zero that is zero in `other`.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn keep(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        let both = self.bytes.iter_mut().zip(&other.bytes);
        both.for_each(|(own, other)| *own &= other);
        self.count();
    }

    /// Becomes what is one in `all` and not in `without`.
    ///
    /// # Panics
    /// If the three differ in length.
    pub fn copy_without(&mut self, all: &Self, without: &Self) {
        assert_eq!(self.len, all.len, "bitfields of one torrent");
        assert_eq!(self.len, without.len, "bitfields of one torrent");
        let both = all.bytes.iter().zip(&without.bytes);
        for (own, (all, without)) in self.bytes.iter_mut().zip(both) {
            *own = all & !without;
        }
        self.count();
    }

    fn count(&mut self) {
        self.ones = self.bytes.iter().map(|byte| byte.count_ones()).sum();
    }

    /// Whether `self` has a one where `other` has none: would `other`'s owner want something?
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn has_more_than(&self, other: &Self) -> bool {
        assert_eq!(self.len, other.len, "bitfields of one torrent");
        self.bytes
            .iter()
            .zip(&other.bytes)
            .any(|(a, b)| a & !b != 0)
    }
}

impl fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
}

/// The places where two rows of bytes of the same length have a one, looked for in words.
struct CommonOnes<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Byte at which the word after `word` begins.
    next: usize,
    /// The ones of the present word that were not given yet.
    word: u64,
}

impl<'a> CommonOnes<'a> {
    /// Those from bit `first` on.
    fn new(a: &'a [u8], b: &'a [u8], first: u32) -> Self {
        let start = (first / 64 * 8) as usize;
        let mut ones = Self {
            a,
            b,
            next: start,
            word: 0,
        };
        if start < a.len() {
            ones.advance();
            ones.word &= u64::MAX >> (first % 64);
        }
        ones
    }

    fn advance(&mut self) {
        self.word = word_at(self.a, self.next) & word_at(self.b, self.next);
        self.next += 8;
    }
}

impl Iterator for CommonOnes<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        while self.word == 0 {
            if self.next >= self.a.len() {
                return None;
            }
            self.advance();
        }
        let place = self.word.leading_zeros();
        self.word &= !(1 << (63 - place));
        Some((self.next as u32 - 8) * 8 + place)
    }
}

/// The eight bytes from `at` on as a big-endian word, filled up with zeros at the end.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    if let Some(word) = rest.first_chunk() {
        return u64::from_be_bytes(*word);
    }
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

fn byte_len(bits: u32) -> usize {
    bits.div_ceil(8) as usize
}

fn spare_bits(bits: u32) -> u32 {
    (8 - bits % 8) % 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_zero_is_the_highest_of_the_first_byte() {
        let mut bits = Bitfield::new(10);
        assert!(bits.set(0) && bits.set(9) && !bits.set(9));
        assert_eq!(bits.as_bytes(), [0x80, 0x40]);
        assert_eq!(bits.ones().collect::<Vec<_>>(), [0, 9]);
        assert!(bits.clear(0) && !bits.clear(0));
        assert_eq!(bits.count_ones(), 1);
    }

    #[test]
    fn only_exact_lengths_with_zero_spare_bits_are_read() {
        let cases = [
            // what it shows      bytes               bits  accepted
            ("exact", &[0xff, 0xc0][..], 10, true),
            ("spare bit set", &[0xff, 0xe0], 10, false),
            ("short", &[0xff], 10, false),
            ("long", &[0xff, 0xc0, 0], 10, false),
            ("no spare bits", &[0xff], 8, true),
            ("no bits", &[], 0, true),
        ];
        for (name, bytes, len, accepted) in cases {
            assert_eq!(
                Bitfield::from_bytes(bytes, len).is_some(),
                accepted,
                "{name}"
            );
        }
    }

    #[test]
    fn full_equals_all_set() {
        for len in 0..70 {
            let mut bits = Bitfield::new(len);
            (0..len).for_each(|i| assert!(bits.set(i)));
            assert_eq!(bits, Bitfield::full(len), "{len} bits");
            assert!(bits.is_full());
            assert!(!bits.has_more_than(&Bitfield::full(len)));
        }
    }
    #[test]
    fn ones_of_both_are_those_that_each_has() {
        let mut rng = crate::base::rng::Rng::new(3);
        for len in [0, 1, 7, 8, 63, 64, 65, 200] {
            let (mut a, mut b) = (Bitfield::new(len), Bitfield::new(len));
            for _ in 0..len {
                a.set(rng.below(len));
                b.set(rng.below(len));
            }
            for first in 0..len + 70 {
                let slow: Vec<u32> = (first..len).filter(|&i| a.has(i) && b.has(i)).collect();
                let fast: Vec<u32> = a.ones_of_both(&b, first).collect();
                assert_eq!(fast, slow, "{len} bits from {first}");
            }
            let both = (0..len).any(|i| a.has(i) && b.has(i));
            assert_eq!(a.intersects(&b), both, "{len} bits");
            let slow: Vec<u32> = (0..len).filter(|&i| a.has(i)).collect();
            assert_eq!(a.ones().collect::<Vec<_>>(), slow, "{len} bits");
        }
    }
}
