//! Pieces of ours that a peer cannot have found right: data that rotted on the disk under us.
//!
//! No message of the protocol says "this hashed wrong". A peer that was sent a whole piece and does
//! not say that it has it shows it by what it does next: it asks for the piece once more, rejects
//! it, or goes. The piece is then hashed again. If it is wrong it counts as lost: it is served no
//! more and fetched from others. Nobody can have a piece hashed without having fetched all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::peer::PeerKey;
use super::picker::Wanted;
use super::{Effect, Swarm};
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;

/// Pieces that a peer is sent and has not told to have.
#[derive(Debug, Default)]
pub(super) struct Served {
    pieces: BTreeMap<PieceIndex, Sent>,
    /// Bytes of all of them.
    len: u64,
    /// Blocks that were sent.
    count: u64,
}

/// What was sent of a piece.
#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    /// The number of the last block.
    last: u64,
}

impl Served {
    /// A block of `piece` is on its way.
    pub fn sent(&mut self, piece: PieceIndex, len: u32) {
        self.count += 1;
        self.len += u64::from(len);
        let sent = self.pieces.entry(piece).or_default();
        sent.bytes += u64::from(len);
        sent.last = self.count;
        while self.pieces.len() > SERVED_MAX
            || (self.len > SERVED_LEN_MAX && self.pieces.len() > SERVED_MIN)
        {
            let oldest = self.pieces.iter().min_by_key(|(_, sent)| sent.last);
            if let Some(piece) = oldest.map(|(piece, _)| *piece) {
                self.arrived(piece);
            }
        }
    }

    /// It has `piece`.
    pub fn arrived(&mut self, piece: PieceIndex) {
        if let Some(sent) = self.pieces.remove(&piece) {
            self.len -= sent.bytes;
        }
    }

    /// It has these pieces.
    pub fn arrived_all(&mut self, pieces: &Bitfield) {
        self.pieces.retain(|sent, _| !pieces.has(sent.0));
        self.len = self.pieces.values().map(|sent| sent.bytes).sum();
    }

    /// It has everything.
    pub fn all_arrived(&mut self) {
        *self = Self::default();
    }

    /// Whether it was sent all `len` bytes of `piece`; from now on as if it had been sent none.
    fn take_whole(&mut self, piece: PieceIndex, len: u32) -> bool {
        let sent = self.pieces.get(&piece);
        let is_whole = sent.is_some_and(|sent| sent.bytes >= len.into());
        if is_whole {
            self.arrived(piece);
        }
        is_whole
    }
}

impl Swarm {
    /// The peer asks for a block of `piece`, or rejects one, which nobody does who has it and found
    /// it right.
    pub(super) fn complained(&mut self, key: PeerKey, piece: PieceIndex) {
        let len = self.geometry().piece_len(piece);
        if self.peer_mut(key).served.take_whole(piece, len) {
            self.doubt(piece);
        }
    }

    /// The peer is gone. Whoever finds a piece wrong does not stay with who sent it.
    pub(super) fn left_us(&mut self, key: PeerKey, now: Instant) {
        let peer = self.peer_mut(key);
        if now - peer.served_at > OUTRAGE_TIME {
            return;
        }
        let served = std::mem::take(&mut peer.served.pieces);
        let geometry = self.geometry();
        let is_whole = |(piece, sent): &(&PieceIndex, &Sent)| {
            sent.bytes >= u64::from(geometry.piece_len(**piece))
        };
        let whole = served.iter().filter(is_whole);
        let whole: Vec<PieceIndex> = whole.map(|(piece, _)| *piece).collect();
        for piece in whole {
            self.doubt(piece);
        }
    }

    /// Has a piece of ours hashed again.
    fn doubt(&mut self, piece: PieceIndex) {
        let is_new =
            !self.live.rechecking.contains(&piece) && self.live.rechecking.len() < RECHECKS_MAX;
        if is_new && self.live.ours.has(piece.0) {
            self.live.rechecking.insert(piece);
            self.effects.push_back(Effect::Check(piece));
        }
    }

    /// A piece of ours that is being hashed again was lost meanwhile: it is not fetched before that
    /// has come to its end, so that the verdict is of what was there before.
    pub(super) fn lost_in_doubt(&mut self, piece: PieceIndex) {
        if self.live.rechecking.contains(&piece) {
            self.live.picker.set_wanted(piece, Wanted::No);
        }
    }

    /// Storage hashed a piece; says whether it was one that was doubted.
    pub(super) fn rechecked(&mut self, piece: PieceIndex, verdict: &Verdict) -> bool {
        if !self.live.rechecking.remove(&piece) {
            return false;
        }
        if !self.live.ours.has(piece.0) {
            self.live.picker.set_wanted(piece, Wanted::Yes);
            self.refill_all = true;
        } else if !matches!(verdict, Verdict::Good { .. }) {
            self.effects.push_back(Effect::Spoilt(piece));
        }
        true
    }
}

/// Pieces that are remembered for each peer at most.
const SERVED_MAX: usize = 1024;
/// Bytes of them at most, if they are more than the fewest that are remembered: as much as may be
/// on its way to a peer when it finds the first piece wrong.
const SERVED_LEN_MAX: u64 = 16 * 1024 * 1024;
const SERVED_MIN: usize = 4;
/// Pieces that are hashed again at a time at most.
const RECHECKS_MAX: usize = SERVED_MAX;
/// Who goes later than this after the last block goes for another reason.
const OUTRAGE_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piece_counts_as_sent_when_all_of_it_was_and_once() {
        let (one, other) = (PieceIndex(1), PieceIndex(2));
        let mut served = Served::default();
        served.sent(one, 10);
        served.sent(other, 10);
        assert!(!served.take_whole(one, 20));
        served.sent(one, 10);
        assert!(served.take_whole(one, 20) && !served.take_whole(one, 20));
        served.sent(one, 10);
        assert!(!served.take_whole(one, 20), "from the beginning");
        served.sent(other, 10);
        served.arrived(other);
        assert!(!served.take_whole(other, 20));
        for (len, most) in [(20, SERVED_MAX), (1 << 20, 16), (64 << 20, SERVED_MIN)] {
            for piece in 0..2000 {
                served.sent(PieceIndex(piece), len);
            }
            assert_eq!(served.pieces.len(), most, "pieces of {len} B");
        }
    }
}
