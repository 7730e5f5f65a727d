//! What must hold between any two events: for simulations and tests, as it walks over everything.

use std::collections::BTreeMap;

use super::Swarm;
use super::peer::Reception;
use super::picker::BlockState;
use crate::base::id::PieceIndex;
use crate::base::limits;
use crate::wire::message::BlockRef;

impl Swarm {
    /// Compares what is counted with what can be counted anew.
    ///
    /// # Errors
    /// What does not agree, in words.
    pub fn audit(&self) -> Result<(), String> {
        if self.live.is_at_rest() {
            return match self.peers.is_empty() {
                true => Ok(()),
                false => Err("at rest, though there are peers".to_owned()),
            };
        }
        self.live
            .picker
            .audit(self.peers.iter().map(|(_, peer)| &peer.have))?;
        if self.live.picker.ours() != &self.live.ours {
            return Err("the picker has other pieces than the swarm".to_owned());
        }
        self.audit_peers()?;
        self.audit_requests()?;
        self.audit_alone()?;
        let aside = |reception: &Reception| matches!(reception, Reception::Aside(_));
        let incoming = || self.peers.iter().filter_map(|(_, p)| p.incoming.as_ref());
        let asides = incoming().filter(|i| aside(&i.reception)).count();
        if asides != self.live.aside_count {
            return Err(format!(
                "{asides} blocks collected aside, counted {}",
                self.live.aside_count
            ));
        }
        let writing = |block: &BlockRef| {
            let is_it = |i: &&super::peer::Incoming| {
                i.block == *block && matches!(i.reception, Reception::Write)
            };
            incoming().filter(is_it).count()
        };
        match self.live.writers.keys().find(|block| writing(block) != 1) {
            Some(block) => Err(format!("{block:?} has {} writers", writing(block))),
            None => Ok(()),
        }
    }

    /// What is missing and what is known of whom, a line each: for a reader who asks why it is.
    pub fn describe(&self) -> Vec<String> {
        let missing =
            (0..self.geometry().piece_count()).filter(|&piece| !self.live.ours.has(piece));
        let pieces = missing.take(DESCRIBED_MAX).map(|index| {
            let piece = PieceIndex(index);
            let holders = self.peers.iter().filter(|(_, peer)| peer.have.has(index));
            let place = match self.live.alone.get(&piece) {
                _ if self.live.hashing.contains(&piece) => "being hashed".to_owned(),
                Some(alone) => format!("fetched from one peer alone: {alone:?}"),
                None if self.live.picker.active_pieces().any(|p| p == piece) => "begun".to_owned(),
                None => "not begun".to_owned(),
            };
            format!("piece {index}: {} peers have it, {place}", holders.count())
        });
        let pieces: Vec<String> = pieces.collect();
        let peers = self.peers.iter().map(|(_, peer)| {
            format!(
                "{}: offers {} pieces, {}{}{}{} requests open of {}",
                peer.origin.remote,
                peer.offers,
                if peer.chokes_us { "chokes us, " } else { "" },
                if peer.wanted { "" } else { "not wanted, " },
                if peer.snubbed { "snubbed, " } else { "" },
                peer.requests.len(),
                peer.requests_max
            )
        });
        pieces.into_iter().chain(peers).collect()
    }

    fn audit_peers(&self) -> Result<(), String> {
        let far = self.peers.iter().filter(|(_, peer)| !peer.is_near).count();
        if far != self.far_count {
            return Err(format!("{far} far peers, counted {}", self.far_count));
        }
        for (_, peer) in &self.peers {
            let remote = peer.origin.remote;
            let offers = self.offers_of(&peer.have);
            if offers != peer.offers {
                return Err(format!(
                    "{remote} offers {offers} pieces, counted {}",
                    peer.offers
                ));
            }
            let lacks = self.live.ours.ones().filter(|&p| !peer.have.has(p)).count();
            if lacks != peer.lacks as usize {
                return Err(format!(
                    "{remote} lacks {lacks} pieces, counted {}",
                    peer.lacks
                ));
            }
            if peer.requests.len() > limits::REQUESTS_OUT_MAX as usize {
                return Err(format!(
                    "{} requests open with {remote}",
                    peer.requests.len()
                ));
            }
            if peer.uploads.len() > limits::REQUESTS_IN_MAX as usize {
                return Err(format!(
                    "{} requests queued of {remote}",
                    peer.uploads.len()
                ));
            }
            if self.is_fetching() && peer.wanted != (offers > 0) {
                return Err(format!("{remote} offers {offers}, wanted: {}", peer.wanted));
            }
            let mut pieces = peer.requests.iter().map(|r| r.block.piece);
            if let Some(piece) = pieces.find(|piece| !self.is_wanted(*piece)) {
                return Err(format!("{piece:?} is asked of {remote}, nobody wants it"));
            }
            if let Some(request) = peer
                .requests
                .iter()
                .find(|r| self.live.ours.has(r.block.piece.0))
            {
                return Err(format!(
                    "{:?} is asked of {remote}, we have it",
                    request.block
                ));
            }
            if let Some(request) = peer
                .requests
                .iter()
                .find(|r| !peer.have.has(r.block.piece.0))
            {
                return Err(format!(
                    "{:?} asked of {remote}, who lacks it",
                    request.block
                ));
            }
        }
        Ok(())
    }

    /// Every block that counts as asked for is asked of so many peers.
    fn audit_requests(&self) -> Result<(), String> {
        let mut open: BTreeMap<BlockRef, u32> = BTreeMap::new();
        for (_, peer) in &self.peers {
            let arriving = peer.incoming.as_ref().filter(|i| i.counted);
            let asked = peer.requests.iter().map(|r| r.block);
            for block in asked.chain(arriving.map(|i| i.block)) {
                *open.entry(block).or_default() += 1;
            }
        }
        let geometry = self.geometry();
        for piece in self.live.picker.active_pieces() {
            if self.live.alone.contains_key(&piece) || self.live.hashing.contains(&piece) {
                continue;
            }
            for index in 0..geometry.block_count(piece) {
                let block = BlockRef {
                    piece,
                    begin: index * limits::BLOCK_LEN,
                    len: geometry.block_len(piece, index),
                };
                let asked = open.get(&block).copied().unwrap_or(0);
                let by = match self.live.picker.block_state(block) {
                    BlockState::Free => 0,
                    BlockState::Requested { by } | BlockState::Begun { by } => by,
                    BlockState::Done => continue,
                };
                if by != asked {
                    return Err(format!("{block:?} is asked of {asked} peers, counted {by}"));
                }
            }
        }
        Ok(())
    }

    /// Every missing piece that is wanted is listed, begun, being hashed, or fetched from one peer
    /// alone.
    fn audit_alone(&self) -> Result<(), String> {
        let count = self.geometry().piece_count();
        let is_known = |piece: u32| {
            self.live.ours.has(piece)
                || !self.is_wanted(PieceIndex(piece))
                || self.live.picker.is_missing(PieceIndex(piece))
                || self.live.alone.contains_key(&PieceIndex(piece))
                || self.live.hashing.contains(&PieceIndex(piece))
                || self.live.rechecking.contains(&PieceIndex(piece))
        };
        if let Some(piece) = (0..count).find(|&piece| !is_known(piece)) {
            return Err(format!("nobody will fetch piece {piece}"));
        }
        for (piece, alone) in &self.live.alone {
            if let Some(owner) = alone.owner
                && !self.peers.contains(owner.0 as usize)
            {
                return Err(format!("piece {piece} waits for a peer that is gone"));
            }
        }
        Ok(())
    }
}

/// Missing pieces that are described.
const DESCRIBED_MAX: usize = 20;
