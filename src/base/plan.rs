//! What a connection wants to write: bytes at hand and places in mapped files, in order.

use super::slot::Slot;

/// One part of what shall leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `scratch[start..end]` of the plan.
    Bytes {
        /// First byte in the scratch buffer.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// Payload that storage lends.
    Data(Slot),
}

/// The next bytes of one stream. The shell keeps one and fills it for every connection in turn.
#[derive(Debug, Default)]
pub struct WritePlan {
    /// Encoded control messages and block headers.
    pub scratch: Vec<u8>,
    /// What leaves, in order.
    pub segments: Vec<Segment>,
    /// Bytes of all segments.
    pub len: usize,
    /// Payload of another piece that leaves soon after them: worth having in memory by then.
    pub ahead: Option<Slot>,
    /// The stream ends after them: the last bytes and its end may leave together.
    pub is_last: bool,
}

impl WritePlan {
    /// Empties the plan, keeping its buffers.
    pub fn clear(&mut self) {
        self.scratch.clear();
        self.segments.clear();
        self.len = 0;
        self.ahead = None;
        self.is_last = false;
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`, joined to the segment before where that is of bytes too.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.claim(start);
    }

    /// Makes `scratch[start..]`, which was written from outside, part of the plan.
    ///
    /// # Panics
    /// If `start` is past the end of the scratch buffer.
    pub fn claim(&mut self, start: usize) {
        let bytes = self.scratch.len() - start;
        if bytes == 0 {
            return;
        }
        self.len += bytes;
        match self.segments.last_mut() {
            Some(Segment::Bytes { end, .. }) if *end == start => *end = self.scratch.len(),
            _ => self.segments.push(Segment::Bytes {
                start,
                end: self.scratch.len(),
            }),
        }
    }

    /// Leaves out what is past the first `len` bytes.
    pub fn cut(&mut self, len: usize) {
        while self.len > len
            && let Some(last) = self.segments.pop()
        {
            let over = self.len - len;
            let kept = match last {
                Segment::Bytes { start, end } if end - start > over => Segment::Bytes {
                    start,
                    end: end - over,
                },
                Segment::Data(slot) if slot.len as usize > over => Segment::Data(Slot {
                    len: slot.len - over as u32,
                    ..slot
                }),
                Segment::Bytes { start, end } => {
                    self.len -= end - start;
                    continue;
                }
                Segment::Data(slot) => {
                    self.len -= slot.len as usize;
                    continue;
                }
            };
            self.segments.push(kept);
            self.len = len;
        }
    }

    /// Appends payload from storage.
    pub fn push_data(&mut self, slot: Slot) {
        if slot.len > 0 {
            self.len += slot.len as usize;
            self.segments.push(Segment::Data(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{PieceIndex, TorrentId};

    #[test]
    fn neighbouring_bytes_are_one_segment() {
        let slot = Slot {
            torrent: TorrentId(0),
            piece: PieceIndex(3),
            begin: 0,
            len: 9,
        };
        let mut plan = WritePlan::default();
        plan.push_bytes(b"ab");
        plan.push_bytes(b"c");
        plan.push_data(slot);
        plan.push_bytes(b"d");
        assert_eq!(
            plan.segments,
            [
                Segment::Bytes { start: 0, end: 3 },
                Segment::Data(slot),
                Segment::Bytes { start: 3, end: 4 },
            ]
        );
        assert_eq!(plan.len, 13);
        plan.cut(13);
        assert_eq!((plan.len, plan.segments.len()), (13, 3));
        plan.cut(5);
        assert_eq!(
            plan.segments,
            [
                Segment::Bytes { start: 0, end: 3 },
                Segment::Data(Slot { len: 2, ..slot }),
            ]
        );
        plan.cut(3);
        assert_eq!((plan.len, plan.segments.len()), (3, 1));
        plan.cut(1);
        assert_eq!(plan.segments, [Segment::Bytes { start: 0, end: 1 }]);
        plan.cut(0);
        assert!(plan.is_empty() && plan.segments.is_empty());
        plan.push_data(slot);
        plan.clear();
        assert!(plan.is_empty());
    }
}
