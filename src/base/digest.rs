//! The small digests that pure code needs.

use sha1::{Digest, Sha1};
use siphasher::sip::SipHasher24;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::hex;

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
