//! The small digests that pure code needs.

use sha1::{Digest, Sha1};

/// SHA-1 of `bytes`.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// The first eight bytes of the SHA-1 of `block`: enough to tell two senders' blocks apart.
pub fn block_digest(block: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha1(block);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
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
}
