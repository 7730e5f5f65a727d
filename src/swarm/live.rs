//! What an exchange is at work with, and what is let go of while there is nothing to do.
//!
//! Without peers and with nothing under way, an exchange is its pieces and its totals. All else is
//! as it is at the beginning then, and there are thousands of such torrents: it is made when it is
//! looked at for the first time, and given up when the last peer has left and the last piece is
//! hashed.

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
use super::step_back::StepBack;
use super::suggest::Spread;
use super::{Swarm, Writer};
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::wire::message::BlockRef;

/// The pieces of an exchange, and its work. None is at hand while it rests.
#[derive(Debug)]
pub(super) struct Live {
    /// Pieces that are verified.
    pub ours: Bitfield,
    work: OnceCell<Box<Work>>,
    meta: Arc<Metainfo>,
    /// What the next work draws from, and when it began.
    rng: Rng,
    began: Instant,
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
    pub back: StepBack,
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
    /// An exchange that has nothing yet, at rest.
    pub fn new(meta: Arc<Metainfo>, rng: Rng, now: Instant) -> Self {
        Self {
            ours: Bitfield::new(meta.geometry().piece_count()),
            work: OnceCell::new(),
            meta,
            rng,
            began: now,
        }
    }

    /// What the torrent is.
    pub fn meta(&self) -> &Arc<Metainfo> {
        &self.meta
    }

    /// Whether there is no work at hand.
    pub fn is_at_rest(&self) -> bool {
        self.work.get().is_none()
    }

    fn rest(&mut self) {
        self.work.take();
        self.rng.next_u64();
        self.began = Instant::ZERO; // the choker had no round for a long time
    }

    fn begin(&self) -> Box<Work> {
        let geometry = self.meta.geometry();
        let mut rng = self.rng.clone();
        let mut next_rng = || Rng::new(rng.next_u64());
        Box::new(Work {
            picker: Picker::new(
                self.ours.clone(),
                geometry.nominal_piece_len(),
                geometry.length(),
                next_rng(),
            ),
            choker: Choker::new(next_rng(), self.began),
            blame: Blame::default(),
            writers: BTreeMap::new(),
            alone: BTreeMap::new(),
            prepared: BTreeSet::new(),
            hashing: BTreeSet::new(),
            rechecking: BTreeSet::new(),
            news: News::new(),
            spread: Spread::new(next_rng()),
            back: StepBack::default(),
            spared_at: None,
            near: None,
            first_to_fill: 0,
            aside_count: 0,
            taken_up: BTreeMap::new(),
            picked: Vec::new(),
        })
    }
}

impl Work {
    /// Whether nothing is under way, and the user wants the pieces in no order of theirs.
    fn is_over(&self) -> bool {
        let is_hashing = !self.hashing.is_empty() || !self.rechecking.is_empty();
        !is_hashing && self.writers.is_empty() && self.alone.is_empty() && self.picker.is_as_made()
    }
}

impl Deref for Live {
    type Target = Work;

    fn deref(&self) -> &Work {
        self.work.get_or_init(|| self.begin())
    }
}

impl DerefMut for Live {
    fn deref_mut(&mut self) -> &mut Work {
        if self.work.get().is_none() {
            self.work = OnceCell::from(self.begin());
        }
        self.work.get_mut().expect("made just now")
    }
}

impl Swarm {
    /// Lets go of what has no use without peers, if there are none and nothing is under way.
    pub(super) fn rest_if_idle(&mut self) {
        if self.peers.is_empty() && !self.live.is_at_rest() && self.live.is_over() {
            self.live.rest();
        }
    }
}
