//! What an exchange is at work with, and what is let go of while there is nothing to do.
//!
//! A seed without peers keeps its pieces and its totals. All else is as it is at the beginning then,
//! and there are thousands of such torrents: it is made when it is looked at for the first time, and
//! given up when the last peer has left.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::blame::Blame;
use super::choker::Choker;
use super::near::Near;
use super::news::News;
use super::picker::Picker;
use super::pieces::Alone;
use super::suggest::Spread;
use super::{Exchange, Swarm, Writer};
use crate::base::id::PieceIndex;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::wire::message::BlockRef;

/// The work of an exchange. Where none is at hand it is that of a seed without peers.
#[derive(Debug)]
pub(super) struct Live {
    work: OnceCell<Box<Work>>,
    meta: Arc<Metainfo>,
    /// What the next one draws from.
    rng_seed: u64,
}

/// See [`Live`].
#[derive(Debug)]
pub(super) struct Work {
    pub picker: Picker,
    pub choker: Choker,
    pub blame: Blame,
    /// Which connection writes a block that is arriving, and when it last did.
    pub writers: BTreeMap<BlockRef, Writer>,
    /// Pieces that are fetched from one peer only.
    pub alone: BTreeMap<PieceIndex, Alone>,
    /// Pieces that storage was told to prepare.
    pub prepared: BTreeSet<PieceIndex>,
    /// Pieces that are being hashed.
    pub hashing: BTreeSet<PieceIndex>,
    /// Verified pieces that are being hashed again, as a peer seems to have got them wrong.
    pub rechecking: BTreeSet<PieceIndex>,
    pub news: News,
    pub spread: Spread,
    /// When it was last seen whether somebody gets a slot, as our line had nothing to do.
    pub spared_at: Option<Instant>,
    /// Once there was a peer on our own link.
    pub near: Option<Box<Near>>,
    /// Under a limit of rate: whose queue is filled first the next time.
    pub first_to_fill: usize,
    /// Blocks that are being collected aside.
    pub aside_count: usize,
    /// Bytes of pieces under way that a former process had stored.
    pub taken_up: BTreeMap<PieceIndex, u32>,
    pub picked: Vec<BlockRef>,
}

impl Live {
    /// The work of an exchange that has nothing yet.
    pub fn new(meta: Arc<Metainfo>, mut rng: Rng, now: Instant) -> Self {
        let work = Work::new(&meta, Picker::new, &mut rng, now);
        Self {
            work: OnceCell::from(Box::new(work)),
            meta,
            rng_seed: rng.next_u64(),
        }
    }

    /// What the torrent is.
    pub fn meta(&self) -> &Arc<Metainfo> {
        &self.meta
    }

    /// Whether there is nothing at hand.
    pub fn is_at_rest(&self) -> bool {
        self.work.get().is_none()
    }

    fn rest(&mut self) {
        self.work.take();
        self.rng_seed = Rng::new(self.rng_seed).next_u64();
    }

    /// That of a seed without peers. Its choker's round is due: it had none for a long time.
    fn of_a_seed(&self) -> Box<Work> {
        let mut rng = Rng::new(self.rng_seed);
        let work = Work::new(&self.meta, Picker::of_a_seed, &mut rng, Instant::ZERO);
        Box::new(work)
    }
}

impl Work {
    fn new(
        meta: &Metainfo,
        picker: fn(u32, u32, u64, Rng) -> Picker,
        rng: &mut Rng,
        now: Instant,
    ) -> Self {
        let geometry = meta.geometry();
        Self {
            picker: picker(
                geometry.piece_count(),
                geometry.nominal_piece_len(),
                geometry.length(),
                Rng::new(rng.next_u64()),
            ),
            choker: Choker::new(Rng::new(rng.next_u64()), now),
            blame: Blame::default(),
            writers: BTreeMap::new(),
            alone: BTreeMap::new(),
            prepared: BTreeSet::new(),
            hashing: BTreeSet::new(),
            rechecking: BTreeSet::new(),
            news: News::new(),
            spread: Spread::new(Rng::new(rng.next_u64())),
            spared_at: None,
            near: None,
            first_to_fill: 0,
            aside_count: 0,
            taken_up: BTreeMap::new(),
            picked: Vec::new(),
        }
    }

    /// Whether nothing is under way, and the user wants the pieces in no order of theirs.
    fn is_over(&self) -> bool {
        let pieces = [&self.prepared, &self.hashing, &self.rechecking];
        pieces.iter().all(|pieces| pieces.is_empty())
            && self.writers.is_empty()
            && self.alone.is_empty()
            && self.picker.is_as_made()
    }
}

impl Deref for Live {
    type Target = Work;

    fn deref(&self) -> &Work {
        self.work.get_or_init(|| self.of_a_seed())
    }
}

impl DerefMut for Live {
    fn deref_mut(&mut self) -> &mut Work {
        if self.work.get().is_none() {
            self.work = OnceCell::from(self.of_a_seed());
        }
        self.work.get_mut().expect("made just now")
    }
}

impl Swarm {
    /// Lets go of what a seed without peers has no use for, if we are one.
    pub(super) fn rest_if_idle(&mut self) {
        let is_idle = self.exchange == Exchange::Full && self.peers.is_empty();
        if is_idle && self.is_complete() && !self.live.is_at_rest() && self.live.is_over() {
            self.live.rest();
        }
    }
}
