//! The small digests that pure code needs.

use sha1::{Digest, Sha1};
use siphasher::sip::SipHasher24;

use super::rng::Rng;

/// SHA-1 of `bytes`.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// SHA-1 of bytes that come one run after the other.
#[derive(Clone, Debug, Default)]
pub struct Sha1Stream(Sha1);

impl Sha1Stream {
    /// Takes the bytes that follow those before.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes since the last call of this.
    pub fn finish(&mut self) -> [u8; 20] {
        self.0.finalize_reset().into()
    }
}

/// The first eight bytes of the SHA-1 of `block`: enough to tell two senders' blocks apart.
pub fn block_digest(block: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha1(block);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// SipHash-2-4 of `bytes`: without `key` nobody can tell it, or make two inputs collide.
pub fn siphash(key: &[u8; 16], bytes: &[u8]) -> u64 {
    SipHasher24::new_with_key(key).hash(bytes)
}

/// CRC-32C (Castagnoli) of `bytes`, going on from `before`, the checksum of what came before them;
/// 0 if nothing did. Finds every flipped bit and every burst of up to 32.
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut crc = !before;
    for word in words {
        let low = u32::from_le_bytes([word[0], word[1], word[2], word[3]]) ^ crc;
        let [a, b, c, d] = low.to_le_bytes();
        let places = [a, b, c, d, word[4], word[5], word[6], word[7]];
        crc = 0;
        for (table, byte) in CRC_TABLES.iter().rev().zip(places) {
            crc ^= table[usize::from(byte)];
        }
    }
    for &byte in rest {
        crc = (crc >> 8) ^ CRC_TABLES[0][usize::from(crc as u8 ^ byte)];
    }
    !crc
}

/// What a byte does to the checksum when so many more bytes follow it.
static CRC_TABLES: [[u32; 256]; 8] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            // The polynomial 0x1edc6f41 with its bits reversed (RFC 3720, 12.1).
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut later = 1;
    while later < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[later - 1][byte];
            tables[later][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        later += 1;
    }
    tables
}

/// One number made of many: equal rows give the same, others by chance one time in 2^64. Not
/// against somebody who seeks two rows that agree.
pub fn mix(row: impl IntoIterator<Item = u64>) -> u64 {
    row.into_iter().fold(0, |sum, number| {
        Rng::new(sum.rotate_left(5) ^ number).next_u64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::hex;

    #[test]
    fn crc32c_of_the_standards_examples() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        let cases: [(&str, Vec<u8>, u32); 5] = [
            ("nothing", vec![], 0),
            ("123456789", b"123456789".to_vec(), 0xe306_9283),
            ("32 zeros", vec![0; 32], 0x8a91_36aa),
            ("32 ones", vec![0xff; 32], 0x62a8_ab43),
            ("counting up", (0..32).collect(), 0x46dd_794e),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(crc32c(0, &bytes), expected, "{name}");
            for cut in 0..=bytes.len() {
                let (first, rest) = bytes.split_at(cut);
                assert_eq!(crc32c(crc32c(0, first), rest), expected, "{name} at {cut}");
            }
        }
    }

    #[test]
    fn mix_depends_on_every_number_and_its_place() {
        let rows: [&[u64]; 6] = [&[], &[0], &[0, 0], &[1, 2], &[2, 1], &[1, 2, 0]];
        let mixed: std::collections::BTreeSet<u64> =
            rows.iter().map(|row| mix(row.iter().copied())).collect();
        assert_eq!(mixed.len(), rows.len());
    }

    #[test]
    fn sha1_of_the_standards_example() {
        // FIPS 180-4, example "abc".
        assert_eq!(
            hex(&sha1(b"abc")),
            "a9993e364706816aba3e25717850c26c9cd0d89d"
        );
        assert_eq!(block_digest(b"abc"), 0xa999_3e36_4706_816a);
    }

    #[test]
    fn stream_gives_the_digest_of_all_its_runs_and_begins_anew() {
        let mut stream = Sha1Stream::default();
        for _ in 0..2 {
            stream.update(b"a");
            stream.update(b"");
            stream.update(b"bc");
            assert_eq!(stream.finish(), sha1(b"abc"));
        }
    }

    #[test]
    fn siphash_of_the_papers_example() {
        // Aumasson and Bernstein, "SipHash: a fast short-input PRF", appendix A.
        let bytes: Vec<u8> = (0..16).collect();
        let key: &[u8; 16] = bytes.as_slice().try_into().unwrap();
        assert_eq!(siphash(key, &bytes[..15]), 0xa129_ca61_49be_45e5);
    }
}
