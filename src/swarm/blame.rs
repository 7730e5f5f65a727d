//! Who sent which block, and who is charged when a piece is wrong.
//!
//! A bad piece whose blocks all came from one sender charges that sender at once. Otherwise the
//! digests of its blocks are kept and the piece is fetched again *alone*: from one sender. If it
//! is bad again, that sender is the liar; if it is good, the blocks whose digests differ name
//! the liars of the first time. So a liar is found within two failures, and an honest sender,
//! whose blocks are the same in both, is never charged.

use std::collections::BTreeMap;

use crate::base::id::PieceIndex;
use crate::swarm::peer::Origin;

/// The memory of senders, for pieces under way and for pieces that failed.
#[derive(Debug, Default)]
pub struct Blame {
    under_way: BTreeMap<PieceIndex, Vec<Option<Origin>>>,
    failed: BTreeMap<PieceIndex, Failure>,
}

#[derive(Debug)]
struct Failure {
    digests: Vec<u64>,
    senders: Vec<Option<Origin>>,
}

impl Blame {
    /// Notes that `block` of `blocks` of `piece` came from `sender`.
    pub fn received(&mut self, piece: PieceIndex, block: u32, blocks: u32, sender: Origin) {
        let senders = self
            .under_way
            .entry(piece)
            .or_insert_with(|| vec![None; blocks as usize]);
        senders[block as usize] = Some(sender);
    }

    /// Forgets who sent the blocks of a piece that is fetched anew.
    pub fn restarted(&mut self, piece: PieceIndex) {
        self.under_way.remove(&piece);
    }

    /// Whether `sender` had a part in the failure of `piece`.
    pub fn is_suspect(&self, piece: PieceIndex, sender: Origin) -> bool {
        self.failed
            .get(&piece)
            .is_some_and(|f| f.senders.contains(&Some(sender)))
    }

    /// The piece is bad; returns who is proven guilty by that.
    pub fn failed(&mut self, piece: PieceIndex, digests: Vec<u64>) -> Option<Origin> {
        let senders = self.under_way.remove(&piece)?;
        let first = senders.first().copied().flatten();
        if first.is_some() && senders.iter().all(|s| *s == first) {
            return first;
        }
        self.failed
            .entry(piece)
            .or_insert(Failure { digests, senders });
        None
    }

    /// The piece is good, with these digests if it had failed before; returns the guilty.
    pub fn passed(&mut self, piece: PieceIndex, digests: &[u64]) -> Vec<Origin> {
        self.under_way.remove(&piece);
        let Some(failure) = self.failed.remove(&piece) else {
            return Vec::new();
        };
        let mut guilty: Vec<Origin> = failure
            .senders
            .iter()
            .zip(failure.digests.iter().zip(digests))
            .filter(|(_, (then, now))| then != now)
            .filter_map(|(sender, _)| *sender)
            .collect();
        guilty.sort_unstable();
        guilty.dedup();
        guilty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PeerId;

    fn origin(n: u8) -> Origin {
        Origin {
            remote: ([10, 0, 0, n], 6881).into(),
            peer_id: PeerId([n; 20]),
        }
    }

    /// Sends the blocks of piece 0 from the numbered senders.
    fn piece(blame: &mut Blame, senders: &[u8]) {
        for (block, &n) in senders.iter().enumerate() {
            blame.received(PieceIndex(0), block as u32, senders.len() as u32, origin(n));
        }
    }

    #[test]
    fn only_sender_of_a_bad_piece_is_charged_at_once() {
        let mut blame = Blame::default();
        piece(&mut blame, &[7, 7, 7]);
        assert_eq!(blame.failed(PieceIndex(0), vec![1, 2, 3]), Some(origin(7)));
    }

    #[test]
    fn block_that_changed_names_its_first_sender_and_nobody_else() {
        let mut blame = Blame::default();
        piece(&mut blame, &[1, 2, 3, 2]);
        assert_eq!(blame.failed(PieceIndex(0), vec![10, 99, 30, 40]), None);
        assert!(blame.is_suspect(PieceIndex(0), origin(1)));
        assert!(!blame.is_suspect(PieceIndex(0), origin(4)));
        piece(&mut blame, &[4, 4, 4, 4]);
        assert_eq!(blame.passed(PieceIndex(0), &[10, 20, 30, 40]), [origin(2)]);
        assert_eq!(blame.passed(PieceIndex(0), &[10, 20, 30, 40]), []);
    }

    #[test]
    fn two_liars_are_both_named_once() {
        let mut blame = Blame::default();
        piece(&mut blame, &[1, 2, 1, 3]);
        assert_eq!(blame.failed(PieceIndex(0), vec![98, 99, 97, 40]), None);
        piece(&mut blame, &[3, 3, 3, 3]);
        assert_eq!(
            blame.passed(PieceIndex(0), &[1, 2, 3, 40]),
            [origin(1), origin(2)]
        );
    }
}
