//! uTP (BEP 29), as far as to refuse it: a SYN is answered with a reset, nothing else is.
//!
//! Stock clients dial by uTP first. Where UDP is open and silent they wait for seconds; a reset
//! makes them dial by TCP at once.

/// Whether a datagram opens a uTP connection: type 4 of version 1, with a whole header.
pub fn is_syn(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER_LEN && datagram[0] == (TYPE_SYN << 4 | VERSION)
}

/// The packet that refuses the connection which `datagram` opens; `None` if it opens none.
///
/// It is no longer than what it answers. `timestamp_us` is the sender's clock, microseconds.
///
/// ```text
///  0         1           2              4          8         12        16      18
///  type|ver  extension   connection id  timestamp  its delay  window   seq_nr  ack_nr
/// ```
pub fn reset_for(datagram: &[u8], timestamp_us: u32) -> Option<[u8; HEADER_LEN]> {
    if !is_syn(datagram) {
        return None;
    }
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| datagram[at + i]));
    let mut reset = [0; HEADER_LEN];
    reset[0] = TYPE_RESET << 4 | VERSION;
    reset[2..4].copy_from_slice(&datagram[2..4]);
    reset[4..8].copy_from_slice(&timestamp_us.to_be_bytes());
    reset[8..12].copy_from_slice(&timestamp_us.wrapping_sub(word(4)).to_be_bytes());
    reset[18..20].copy_from_slice(&datagram[16..18]);
    Some(reset)
}

/// Bytes of a uTP header.
pub const HEADER_LEN: usize = 20;
const VERSION: u8 = 1;
const TYPE_RESET: u8 = 3;
const TYPE_SYN: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Laid out by hand after BEP 29.
    const SYN: [u8; 20] = [
        0x41, 0, 0x12, 0x34, // type and version, no extension, connection id
        0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0x10, 0, 0, // timestamp 1000 µs, delay, window
        0, 1, 0, 0, // seq_nr, ack_nr
    ];

    #[test]
    fn syn_is_answered_with_the_reset_of_its_connection() {
        #[rustfmt::skip]
        let expected = [
            0x31, 0, 0x12, 0x34,
            0, 0, 0x0b, 0xb8, 0, 0, 0x07, 0xd0, 0, 0, 0, 0,
            0, 0, 0, 1,
        ];
        assert_eq!(reset_for(&SYN, 3000), Some(expected));
        // The clocks are not the same; their difference wraps.
        assert_eq!(reset_for(&SYN, 0).map(|r| r[8]), Some(0xff));
    }

    #[test]
    fn nothing_but_a_whole_syn_is_answered() {
        for len in 0..SYN.len() {
            assert_eq!(reset_for(&SYN[..len], 0), None, "{len} B");
        }
        for first in (0..=u8::MAX).filter(|&first| first != SYN[0]) {
            let mut other = SYN;
            other[0] = first;
            assert_eq!(reset_for(&other, 0), None, "{first:#x}");
        }
    }

    #[test]
    fn an_answer_is_never_longer_than_the_question_and_asks_for_none() {
        let mut rng = Rng::new(29);
        let mut answered = 0;
        for _ in 0..20_000 {
            let len = rng.below(60) as usize;
            let mut datagram: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
            if let Some(first) = datagram.first_mut()
                && rng.below(2) == 0
            {
                *first = SYN[0];
            }
            if let Some(reset) = reset_for(&datagram, rng.next_u64() as u32) {
                answered += 1;
                assert!(reset.len() <= datagram.len());
                assert_eq!(reset_for(&reset, 0), None);
            }
        }
        assert!(answered > 1000, "only {answered} were answered");
    }
}
