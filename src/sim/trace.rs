//! The digest of everything that happened, and the last of it in words.

use std::collections::VecDeque;

use super::event::in_words;
use crate::base::time::Instant;

/// What happened so far.
#[derive(Debug)]
pub(super) struct Trace {
    a: u64,
    b: u64,
    steps: u64,
    last: VecDeque<(Instant, [u64; 3])>,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            a: 0x243f_6a88_85a3_08d3,
            b: 0x1319_8a2e_0370_7344,
            steps: 0,
            last: VecDeque::new(),
        }
    }
}

impl Trace {
    /// An event happens at `now`; `words` are the figures that make it.
    pub fn step(&mut self, now: Instant, words: [u64; 3]) {
        self.steps += 1;
        log::trace!("{now} {}", in_words(words));
        self.mix(now.as_micros());
        words.into_iter().for_each(|word| self.mix(word));
        if self.last.len() == LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back((now, words));
    }

    /// Bytes moved.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    /// Events so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// All of it in 128 bits.
    pub fn digest(&self) -> String {
        format!("{:016x}{:016x}", self.a, self.b)
    }

    /// The last events, oldest first.
    pub fn last(&self) -> Vec<String> {
        let line = |(at, words): &(Instant, [u64; 3])| format!("{at} {}", in_words(*words));
        self.last.iter().map(line).collect()
    }

    /// Not for secrets: tells runs apart.
    fn mix(&mut self, word: u64) {
        self.a = (self.a ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.a ^= self.a >> 29;
        self.b = self.b.rotate_left(5) ^ self.a.wrapping_add(word);
    }
}

/// Events that are kept.
const LAST_MAX: usize = 40;
