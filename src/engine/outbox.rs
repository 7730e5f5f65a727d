//! What waits to be written to one stream, encoded only when there is room for it.

use std::collections::VecDeque;

use crate::base::id::TorrentId;
use crate::base::plan::WritePlan;
use crate::base::slot::Slot;
use crate::wire::message::{BlockRef, Outgoing, PIECE_HEAD_LEN};

/// A queue of messages and how much of its front has left.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Outgoing>,
    /// Bytes of the front message that are sent already.
    front_sent: usize,
    /// Bytes of all messages, less what is sent.
    len: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The block that waits last, if the last message is one.
    pub fn last_payload(&self) -> Option<BlockRef> {
        match self.queue.back() {
            Some(Outgoing::Piece(block)) => Some(*block),
            _ => None,
        }
    }

    /// Appends a message.
    pub fn push(&mut self, message: Outgoing) {
        self.len += message.wire_len();
        self.queue.push_back(message);
    }

    /// Drops requests, and what takes requests back, unless a part of it has left.
    pub fn drop_requests(&mut self) {
        let begun = usize::from(self.front_sent > 0);
        let mut place = 0;
        self.queue.retain(|message| {
            place += 1;
            let is_request = matches!(message, Outgoing::Request(_) | Outgoing::Cancel(_));
            let is_kept = place <= begun || !is_request;
            if !is_kept {
                self.len -= message.wire_len();
            }
            is_kept
        });
    }

    /// Appends the next bytes to `plan`, until it holds `most` or nothing is left.
    pub fn plan(&self, torrent: TorrentId, most: usize, plan: &mut WritePlan) {
        let mut skip = self.front_sent;
        for message in &self.queue {
            if plan.len >= most {
                return;
            }
            let scratch_before = plan.scratch.len();
            message.encode(&mut plan.scratch);
            let encoded = plan.scratch.len() - scratch_before;
            plan.claim(scratch_before + skip.min(encoded));
            if let Outgoing::Piece(block) = message {
                let sent = skip.saturating_sub(PIECE_HEAD_LEN) as u32;
                plan.push_data(Slot {
                    torrent,
                    piece: block.piece,
                    begin: block.begin + sent,
                    len: block.len - sent,
                });
            }
            skip = 0;
        }
    }

    /// `n` bytes left; returns how many of them were payload.
    ///
    /// # Panics
    /// If more left than waited.
    pub fn sent(&mut self, n: usize) -> u64 {
        assert!(n <= self.len, "{n} bytes sent of {}", self.len);
        self.len -= n;
        let mut left = n;
        let mut payload = 0;
        while let Some(front) = self.queue.front() {
            let rest = front.wire_len() - self.front_sent;
            let now = left.min(rest);
            if matches!(front, Outgoing::Piece(_)) {
                let head_left = PIECE_HEAD_LEN.saturating_sub(self.front_sent);
                payload += now.saturating_sub(head_left) as u64;
            }
            left -= now;
            if now < rest {
                self.front_sent += now;
                break;
            }
            self.front_sent = 0;
            self.queue.pop_front();
            if left == 0 {
                break;
            }
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PieceIndex;
    use crate::base::plan::Segment;
    use crate::wire::message::BlockRef;

    /// The bytes of a plan, payload as `#`.
    fn bytes(plan: &WritePlan) -> Vec<u8> {
        let part = |segment: &Segment| match *segment {
            Segment::Bytes { start, end } => plan.scratch[start..end].to_vec(),
            Segment::Data(slot) => vec![b'#'; slot.len as usize],
        };
        plan.segments.iter().flat_map(part).collect()
    }

    #[test]
    fn requests_are_dropped_unless_a_part_has_left() {
        let request = |begin| {
            Outgoing::Request(BlockRef {
                piece: PieceIndex(0),
                begin,
                len: 16,
            })
        };
        let mut outbox = Outbox::default();
        let messages = [request(0), Outgoing::Interested, request(16), request(32)];
        messages
            .into_iter()
            .for_each(|message| outbox.push(message));
        assert_eq!(outbox.sent(3), 0);
        outbox.drop_requests();
        assert_eq!(outbox.len(), 17 - 3 + 5);
        let mut plan = WritePlan::default();
        outbox.plan(TorrentId(0), usize::MAX, &mut plan);
        assert_eq!(plan.len, outbox.len());
    }

    #[test]
    fn any_partial_write_goes_on_where_it_stopped() {
        let block = BlockRef {
            piece: PieceIndex(1),
            begin: 64,
            len: 40,
        };
        let messages = [
            Outgoing::Unchoke,
            Outgoing::Piece(block),
            Outgoing::Have(PieceIndex(3)),
        ];
        let mut whole = Outbox::default();
        messages.iter().for_each(|m| whole.push(m.clone()));
        let mut plan = WritePlan::default();
        whole.plan(TorrentId(0), usize::MAX, &mut plan);
        let expected = bytes(&plan);
        assert_eq!(expected.len(), 5 + 13 + 40 + 9);

        for cut in 0..=expected.len() {
            let mut outbox = Outbox::default();
            messages.iter().for_each(|m| outbox.push(m.clone()));
            let mut payload = outbox.sent(cut);
            plan.clear();
            outbox.plan(TorrentId(0), usize::MAX, &mut plan);
            assert_eq!(bytes(&plan), expected[cut..], "cut at {cut}");
            assert_eq!(plan.len, outbox.len());
            payload += outbox.sent(outbox.len());
            assert_eq!(payload, 40, "cut at {cut}");
            assert!(outbox.is_empty());
        }
    }
}
