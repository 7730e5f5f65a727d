//! Several SHA-1 streams at once (FIPS 180-4): the pieces that are hashed side by side.
//!
//! Each step of SHA-1 needs the result of the one before, so a single stream leaves the hash
//! unit of the processor idle while it waits for that result. The streams of different pieces
//! need nothing of each other: with their instructions interleaved, one computes while the
//! others wait. Four streams are as many as pay, more of them no longer fit the registers.
//!
//! ```text
//! stream 0   r4 ····· r4 ····· r4       r4: four of the 80 rounds, one instruction
//! stream 1    r4 ····· r4 ····· r4      ··: its result is on the way
//! stream 2     r4 ····· r4 ····· r4
//! stream 3      r4 ····· r4 ····· r4
//! ```
//!
//! Whether the processor has such a unit is asked at run time; where it has none, or is no
//! x86-64, the streams go through the `sha1` crate one after the other.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "code for instructions that not every x86-64 has is called after detection"
    )
)]

use sha1::block_api::compress;

/// One stream: the digest of all blocks so far, and how many bytes they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha1State {
    words: [u32; 5],
    len: u64,
}

impl Sha1State {
    /// A stream that has seen nothing.
    pub fn new() -> Self {
        Self {
            words: [
                0x6745_2301,
                0xefcd_ab89,
                0x98ba_dcfe,
                0x1032_5476,
                0xc3d2_e1f0,
            ],
            len: 0,
        }
    }

    /// The digest of everything that the stream has seen, `tail` included.
    ///
    /// `tail` may have any length, but it is hashed alone: what can go in a lane should have gone
    /// through [`update_lanes`].
    pub fn finish(mut self, tail: &[u8]) -> [u8; 20] {
        self.advance_alone(tail);
        let (_, rest) = tail.as_chunks::<BLOCK_LEN>();

        // The end of the message: a one bit, zeros, and the number of bits in the last 8 bytes.
        let mut blocks = [[0; BLOCK_LEN]; 2];
        let count = if rest.len() + 1 + 8 <= BLOCK_LEN {
            1
        } else {
            2
        };
        let bytes = blocks[..count].as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let bits_at = bytes.len() - 8;
        bytes[bits_at..].copy_from_slice(&((self.len + rest.len() as u64) * 8).to_be_bytes());
        compress(&mut self.words, &blocks[..count]);

        let mut digest = [0; 20];
        for (four, word) in digest.chunks_exact_mut(4).zip(self.words) {
            four.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// Takes up the whole blocks of `bytes`.
    fn advance_alone(&mut self, bytes: &[u8]) {
        let (blocks, _) = bytes.as_chunks::<BLOCK_LEN>();
        compress(&mut self.words, blocks);
        self.len += blocks.as_flattened().len() as u64;
    }
}

impl Default for Sha1State {
    fn default() -> Self {
        Self::new()
    }
}

/// Feeds `data[i]` to `states[i]`, as many streams at once as the processor has use for.
///
/// Groups of four streams are the fastest; a list of any length is split into such groups.
///
/// # Panics
/// If the lists differ in length, or the slices do, or their length is no multiple of 64: what
/// is left of a message goes to [`Sha1State::finish`].
pub fn update_lanes(states: &mut [&mut Sha1State], data: &[&[u8]]) {
    update_by(Way::detect(), states, data);
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Stream after stream, by the `sha1` crate.
    OneByOne,
    /// Streams interleaved.
    #[cfg(target_arch = "x86_64")]
    Interleaved(interleaved::Detected),
}

impl Way {
    /// The best that this processor offers.
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(detected) = interleaved::Detected::detect() {
            return Self::Interleaved(detected);
        }
        Self::OneByOne
    }
}

fn update_by(way: Way, states: &mut [&mut Sha1State], data: &[&[u8]]) {
    assert_eq!(states.len(), data.len(), "one slice for each stream");
    let len = data.first().map_or(0, |first| first.len());
    assert_eq!(len % BLOCK_LEN, 0, "whole blocks of {BLOCK_LEN} B");
    for bytes in data {
        assert_eq!(bytes.len(), len, "all slices have one length");
    }
    for (states, data) in states.chunks_mut(LANES_MAX).zip(data.chunks(LANES_MAX)) {
        match way {
            Way::OneByOne => {
                for (state, bytes) in states.iter_mut().zip(data) {
                    state.advance_alone(bytes);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Way::Interleaved(detected) => detected.advance(states, data),
        }
    }
}

/// Bytes that SHA-1 compresses at a time.
const BLOCK_LEN: usize = 64;
/// Streams that are advanced at once.
const LANES_MAX: usize = 4;

#[cfg(target_arch = "x86_64")]
mod interleaved {
    //! The compression of 1 to 4 streams with the SHA instructions of x86-64.

    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32,
        _mm_sha1rnds4_epu32, _mm_shuffle_epi8, _mm_xor_si128,
    };

    use super::{BLOCK_LEN, Sha1State};

    /// Proof that the processor has the instructions: there is no other way to get one.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Detected(());

    impl Detected {
        /// Asks the processor; the answer is kept by `std`.
        pub(super) fn detect() -> Option<Self> {
            let has_all = is_x86_feature_detected!("sha")
                && is_x86_feature_detected!("ssse3")
                && is_x86_feature_detected!("sse4.1");
            has_all.then_some(Self(()))
        }

        /// Advances up to four streams by slices of one length, a multiple of 64.
        pub(super) fn advance(self, states: &mut [&mut Sha1State], data: &[&[u8]]) {
            match states.len() {
                1 => self.advance_all::<1>(states, data),
                2 => self.advance_all::<2>(states, data),
                3 => self.advance_all::<3>(states, data),
                4 => self.advance_all::<4>(states, data),
                count => unreachable!("{count} streams at once"),
            }
        }

        fn advance_all<const N: usize>(self, states: &mut [&mut Sha1State], data: &[&[u8]]) {
            let blocks: [_; N] = std::array::from_fn(|lane| data[lane].as_chunks().0);
            let mut words = std::array::from_fn(|lane| states[lane].words);
            // SAFETY: `compress` is safe code that demands nothing of its caller but a processor
            // with the features sha, ssse3 and sse4.1 (sse2 is part of every x86-64). `self`
            // exists, so `detect` has found them, and a processor does not lose features while
            // the process runs.
            unsafe { compress(&mut words, &blocks) };
            for (lane, state) in states.iter_mut().enumerate() {
                state.words = words[lane];
                state.len += data[lane].len() as u64;
            }
        }
    }

    /// The variables of `N` streams within one block, each a register or a place on the stack.
    struct Lanes<'a, const N: usize> {
        blocks: [&'a [u8; BLOCK_LEN]; N],
        /// Words a, b, c, d, the first in the highest 32 bits.
        abcd: [__m128i; N],
        /// What word e is made of: `abcd` as it was four rounds ago, before the first round e.
        before: [__m128i; N],
        /// The latest 16 words of the message schedule, four in a vector.
        schedule: [[__m128i; 4]; N],
    }

    /// Compresses the blocks of `N` streams, all of one count, into their words.
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn compress<const N: usize>(words: &mut [[u32; 5]; N], blocks: &[&[[u8; BLOCK_LEN]]; N]) {
        let mut abcd = words.map(|[a, b, c, d, _]| vector(a, b, c, d));
        let mut e = words.map(|[.., e]| vector(e, 0, 0, 0));
        #[expect(
            clippy::needless_range_loop,
            reason = "one place in N lists, not a walk of one"
        )]
        for at in 0..blocks[0].len() {
            let mut lanes = Lanes {
                blocks: std::array::from_fn(|lane| &blocks[lane][at]),
                abcd,
                before: e,
                schedule: [[_mm_setzero_si128(); 4]; N],
            };
            twenty_rounds::<N, 0>(&mut lanes);
            twenty_rounds::<N, 1>(&mut lanes);
            twenty_rounds::<N, 2>(&mut lanes);
            twenty_rounds::<N, 3>(&mut lanes);
            for lane in 0..N {
                abcd[lane] = _mm_add_epi32(abcd[lane], lanes.abcd[lane]);
                e[lane] = _mm_sha1nexte_epu32(lanes.before[lane], e[lane]);
            }
        }
        for lane in 0..N {
            words[lane] = [
                _mm_extract_epi32::<3>(abcd[lane]) as u32,
                _mm_extract_epi32::<2>(abcd[lane]) as u32,
                _mm_extract_epi32::<1>(abcd[lane]) as u32,
                _mm_extract_epi32::<0>(abcd[lane]) as u32,
                _mm_extract_epi32::<3>(e[lane]) as u32,
            ];
        }
    }

    /// The rounds that share one function and constant (FIPS 180-4, 4.1.1 and 4.2.1).
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn twenty_rounds<const N: usize, const STAGE: i32>(lanes: &mut Lanes<N>) {
        for step in 0..5 {
            let group = STAGE as usize * 5 + step;
            for lane in 0..N {
                four_rounds::<N, STAGE>(lanes, lane, group);
            }
        }
    }

    /// Rounds `4 * group ..` of one stream.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn four_rounds<const N: usize, const STAGE: i32>(
        lanes: &mut Lanes<N>,
        lane: usize,
        group: usize,
    ) {
        let schedule = &mut lanes.schedule[lane];
        let message = if group < 4 {
            big_endian(lanes.blocks[lane], group)
        } else {
            let [oldest, older, newer, newest] =
                std::array::from_fn(|age| schedule[(group + age) % 4]);
            let mixed = _mm_xor_si128(_mm_sha1msg1_epu32(oldest, older), newer);
            _mm_sha1msg2_epu32(mixed, newest)
        };
        schedule[group % 4] = message;

        let before = lanes.abcd[lane];
        let e = if group == 0 {
            _mm_add_epi32(lanes.before[lane], message)
        } else {
            _mm_sha1nexte_epu32(lanes.before[lane], message)
        };
        lanes.abcd[lane] = _mm_sha1rnds4_epu32::<STAGE>(before, e);
        lanes.before[lane] = before;
    }

    /// Words `4 * group ..` of the message, the first in the highest 32 bits.
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn big_endian(block: &[u8; BLOCK_LEN], group: usize) -> __m128i {
        let half = |at: usize| {
            let (halves, _) = block.as_chunks::<8>();
            i64::from_le_bytes(halves[2 * group + at])
        };
        let reversed = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
        _mm_shuffle_epi8(_mm_set_epi64x(half(1), half(0)), reversed)
    }

    /// Four words, the first in the highest 32 bits.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn vector(first: u32, second: u32, third: u32, fourth: u32) -> __m128i {
        _mm_set_epi32(first as i32, second as i32, third as i32, fourth as i32)
    }
}

#[cfg(test)]
mod tests {
    use sha1::{Digest, Sha1};

    use super::*;
    use crate::base::id::hex;
    use crate::base::rng::Rng;

    /// Both ways, or the one that there is: a machine without the unit tests the other alone.
    fn ways() -> Vec<Way> {
        vec![Way::OneByOne, Way::detect()]
    }

    fn random_bytes(len: usize, rng: &mut Rng) -> Vec<u8> {
        (0..len).map(|_| rng.next_u64() as u8).collect()
    }

    /// The digest of `message` by `way`, its first `fed` bytes as one lane.
    fn digest_by(way: Way, message: &[u8], fed: usize) -> [u8; 20] {
        let mut state = Sha1State::new();
        update_by(way, &mut [&mut state], &[&message[..fed]]);
        state.finish(&message[fed..])
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        let million = "a".repeat(1_000_000);
        // FIPS 180-4 examples and the vectors of NIST's byte-oriented test (SHAVS).
        let cases = [
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
            ),
            (
                "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmno\
                 ijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                "a49b2446a02c645bf419f995b67091253a04a259",
            ),
            (&million, "34aa973cd4c4daa4f61eeb2bdbad27316534016f"),
        ];
        for way in ways() {
            for (message, digest) in cases {
                let whole_blocks = message.len() / BLOCK_LEN * BLOCK_LEN;
                let found = digest_by(way, message.as_bytes(), whole_blocks);
                assert_eq!(hex(&found), digest, "{way:?}, {} B", message.len());
            }
        }
    }

    #[test]
    fn a_tail_of_any_length_is_counted_and_padded() {
        let mut rng = Rng::new(1);
        let message = random_bytes(5 * BLOCK_LEN, &mut rng);
        for way in ways() {
            for fed in [0, BLOCK_LEN, 2 * BLOCK_LEN] {
                for len in fed..=message.len() {
                    let expected: [u8; 20] = Sha1::digest(&message[..len]).into();
                    let found = digest_by(way, &message[..len], fed);
                    assert_eq!(found, expected, "{way:?}, {fed} B of {len} B by lane");
                }
            }
        }
    }

    /// Goal: no stream takes anything from its neighbours, however many there are.
    /// Method: random streams, fed in random steps, against the `sha1` crate.
    #[test]
    fn streams_side_by_side_are_as_if_alone() {
        for rng_seed in 0..200 {
            let mut rng = Rng::new(rng_seed);
            let count = 1 + rng.below(11) as usize;
            for way in ways() {
                let mut states = vec![Sha1State::new(); count];
                let mut expected = vec![Sha1::new(); count];
                for _ in 0..rng.below(5) {
                    let len = rng.below(40) as usize * BLOCK_LEN;
                    let data: Vec<_> = (0..count).map(|_| random_bytes(len, &mut rng)).collect();
                    for (hasher, bytes) in expected.iter_mut().zip(&data) {
                        hasher.update(bytes);
                    }
                    let mut states: Vec<_> = states.iter_mut().collect();
                    let data: Vec<_> = data.iter().map(Vec::as_slice).collect();
                    update_by(way, &mut states, &data);
                }
                for (lane, (state, hasher)) in states.into_iter().zip(expected).enumerate() {
                    let tail_len = rng.below(200) as usize;
                    let tail = random_bytes(tail_len, &mut rng);
                    let expected: [u8; 20] = hasher.chain_update(&tail).finalize().into();
                    let place = format!("rng_seed {rng_seed}, {way:?}, lane {lane} of {count}");
                    assert_eq!(state.finish(&tail), expected, "{place}");
                }
            }
        }
    }

    #[test]
    fn nothing_to_do_changes_nothing() {
        let mut state = Sha1State::new();
        update_lanes(&mut [&mut state], &[&[]]);
        update_lanes(&mut [], &[]);
        assert_eq!(state, Sha1State::new());
    }

    #[test]
    #[should_panic(expected = "whole blocks")]
    fn a_partial_block_is_refused() {
        update_lanes(&mut [&mut Sha1State::new()], &[&[0; 65]]);
    }

    #[test]
    #[should_panic(expected = "all slices have one length")]
    fn slices_of_different_length_are_refused() {
        let (mut one, mut two) = (Sha1State::new(), Sha1State::new());
        update_lanes(&mut [&mut one, &mut two], &[&[0; 64], &[0; 128]]);
    }

    #[test]
    #[should_panic(expected = "one slice for each stream")]
    fn a_stream_without_a_slice_is_refused() {
        update_lanes(&mut [&mut Sha1State::new()], &[]);
    }
}
