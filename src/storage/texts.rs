//! The bytes of .torrent files: in memory while somebody needs them, in the state folder else.
//!
//! A torrent needs the hashes of its pieces while some are checked or read back, and its text when
//! somebody wants the file. One that was not needed for a while is let go, if the state folder
//! has it: that is seen before, as it is kept there by others, in their own time. Where nothing is
//! kept it stays.
//!
//! ```text
//!              not needed              it is there
//! add ──▶ Held ──────────▶ looked for ─────────────▶ let go
//!          ▲ ▲                 │ it is not              │ needed
//!          │ └─────────────────┘                        ▼
//!          └───────────────────────────────────────── read ── lost ──▶ who needs it has failed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::error::StorageError;
use super::jobs::Work;
use super::keep::torrent_path;
use super::{Event, Purpose, Storage};
use crate::base::id::{InfoHash, PieceIndex, TorrentId};
use crate::base::time::Instant;
use crate::meta::text::{Room, Text};

/// The texts in memory, and those on their way there.
#[derive(Debug)]
pub(super) struct Texts {
    held: BTreeMap<InfoHash, Held>,
    /// Where the next is put.
    room: Room,
    /// Those that a job reads.
    reading: BTreeSet<InfoHash>,
    /// Those that the caller waits for.
    asked: BTreeSet<InfoHash>,
    /// When some may have to be let go.
    rest_at: Instant,
    /// When the memory of those that were let go is to go back to the system, which it does not
    /// by itself: it lies between what others hold.
    give_back_at: Instant,
    /// The earliest time for the next.
    may_give_back_at: Instant,
}

#[derive(Debug)]
struct Held {
    text: Text,
    /// It is not let go before this.
    rests_at: Instant,
    /// A job looks whether it is kept.
    is_looked_for: bool,
}

impl Texts {
    /// None is held.
    pub fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            room: Room::default(),
            reading: BTreeSet::new(),
            asked: BTreeSet::new(),
            rest_at: Instant::NEVER,
            give_back_at: Instant::NEVER,
            may_give_back_at: Instant::ZERO,
        }
    }

    /// When there is something to do.
    pub fn next_at(&self) -> Instant {
        self.rest_at.min(self.give_back_at)
    }

    /// The text of a torrent, if it is at hand.
    pub fn of(&self, info_hash: InfoHash) -> Option<&Text> {
        self.held.get(&info_hash).map(|held| &held.text)
    }

    fn hold(&mut self, info_hash: InfoHash, text: Text, now: Instant) {
        let rests_at = now + REST_TIME;
        self.rest_at = self.rest_at.min(rests_at);
        let held = Held {
            text: self.room.take_in(text),
            rests_at,
            is_looked_for: false,
        };
        self.held.insert(info_hash, held);
    }

    fn looked_for(&self) -> usize {
        self.held.values().filter(|held| held.is_looked_for).count()
    }
}

impl Storage {
    /// Asks for the .torrent file of a torrent that was added before; [`Event::Text`] follows.
    pub fn text(&mut self, info_hash: InfoHash) {
        self.texts.asked.insert(info_hash);
        self.want_text(info_hash);
        self.give_text(info_hash);
    }

    /// The torrent is removed for good, and so is what was kept of it. Who asked for its text is
    /// told so.
    pub fn forget_text(&mut self, info_hash: InfoHash) {
        self.texts.held.remove(&info_hash);
        self.texts.reading.remove(&info_hash);
        self.answer_for_text(info_hash, Err(StorageError::TextRemoved));
    }

    /// The text of a torrent that is about to be added without it.
    pub fn hold(&mut self, info_hash: InfoHash, text: Text) {
        self.texts.hold(info_hash, text, self.now);
    }

    /// Whether the hashes of a torrent's pieces are at hand.
    pub(super) fn has_hashes(&self, torrent: TorrentId) -> bool {
        let torrent = self.torrents.get(&torrent);
        torrent.is_some_and(|of| self.texts.of(of.meta.info_hash).is_some())
    }

    /// The hash of a piece, if it is at hand.
    pub(super) fn piece_hash(&self, torrent: TorrentId, piece: PieceIndex) -> Option<[u8; 20]> {
        let info_hash = self.torrents.get(&torrent)?.meta.info_hash;
        Some(*self.texts.of(info_hash)?.piece_hash(piece))
    }

    /// The hashes of a torrent's pieces will be needed.
    pub(super) fn want_hashes(&mut self, torrent: TorrentId) {
        if let Some(of) = self.torrents.get(&torrent) {
            self.want_text(of.meta.info_hash);
        }
    }

    /// Sees to it that a text is at hand, soon if it is not now.
    fn want_text(&mut self, info_hash: InfoHash) {
        if let Some(held) = self.texts.held.get_mut(&info_hash) {
            held.rests_at = self.now + REST_TIME;
            return;
        }
        let Some(folder) = &self.state_dir else {
            return self.text_lost(info_hash, StorageError::TextNotKept);
        };
        if self.texts.reading.insert(info_hash) {
            let path = torrent_path(folder, info_hash);
            let work = Work::ReadText { path, info_hash };
            self.submit(Purpose::ReadText(info_hash), work);
        }
    }

    /// Takes a text that was read again.
    pub(super) fn text_read(&mut self, info_hash: InfoHash, result: Result<Text, StorageError>) {
        if !self.texts.reading.remove(&info_hash) {
            return; // nobody wants it any more
        }
        match result {
            Ok(text) => self.texts.hold(info_hash, text, self.now),
            // One that was added meanwhile has brought its own.
            Err(_) if self.texts.of(info_hash).is_some() => {}
            Err(error) => return self.text_lost(info_hash, error),
        }
        self.give_text(info_hash);
    }

    /// Answers who waits for a text, if it is at hand.
    fn give_text(&mut self, info_hash: InfoHash) {
        if let Some(text) = self.texts.of(info_hash) {
            let source = text.source().clone();
            self.answer_for_text(info_hash, Ok(source));
        }
    }

    /// Whoever needs a text that is not to be had cannot go on.
    fn text_lost(&mut self, info_hash: InfoHash, error: StorageError) {
        self.answer_for_text(info_hash, Err(error.clone()));
        let of = self.torrents.iter();
        let of = of.filter(|(_, torrent)| torrent.meta.info_hash == info_hash);
        let ids: Vec<TorrentId> = of.map(|(id, _)| *id).collect();
        for id in ids {
            if self.needs_hashes(id) {
                self.fail(id, error.clone());
            }
        }
    }

    fn answer_for_text(&mut self, info_hash: InfoHash, result: Result<Bytes, StorageError>) {
        if self.texts.asked.remove(&info_hash) {
            self.events.push_back(Event::Text { info_hash, result });
        }
    }

    /// Looks for those in the state folder that nobody has needed for a while.
    pub(super) fn turn_texts(&mut self) {
        let now = self.now;
        if self.texts.give_back_at <= now {
            self.texts.give_back_at = Instant::NEVER;
            self.texts.may_give_back_at = now + GIVE_BACK_INTERVAL;
            self.submit(Purpose::GiveBack, Work::GiveBack);
        }
        if self.texts.rest_at > now {
            return;
        }
        self.texts.rest_at = Instant::NEVER;
        let Some(folder) = self.state_dir.clone() else {
            return;
        };
        let needed = self.needed_texts();
        let mut room = LOOKED_FOR_MAX.saturating_sub(self.texts.looked_for());
        let mut found = Vec::new();
        for (info_hash, held) in &mut self.texts.held {
            if needed.contains(info_hash) {
                held.rests_at = held.rests_at.max(now + REST_TIME);
            }
            if held.is_looked_for {
                continue; // it is asked again when that is over
            } else if held.rests_at > now {
                self.texts.rest_at = self.texts.rest_at.min(held.rests_at);
            } else if room > 0 {
                room -= 1;
                held.is_looked_for = true;
                found.push((*info_hash, held.text.clone()));
            }
        }
        for (info_hash, text) in found {
            let path = torrent_path(&folder, info_hash);
            self.submit(Purpose::FindText(info_hash), Work::FindText { path, text });
        }
    }

    /// Takes whether a text is kept: then it can be let go, if nobody has needed it meanwhile.
    pub(super) fn text_found(&mut self, info_hash: InfoHash, is_kept: bool) {
        let now = self.now;
        self.texts.rest_at = self.texts.rest_at.min(now); // others wait for their turn
        let Some(held) = self.texts.held.get_mut(&info_hash) else {
            return;
        };
        held.is_looked_for = false;
        match is_kept {
            true if held.rests_at <= now => {
                self.texts.held.remove(&info_hash);
                if self.texts.held.is_empty() {
                    self.texts.room = Room::default();
                }
                let at = (now + GIVE_BACK_DELAY).max(self.texts.may_give_back_at);
                self.texts.give_back_at = self.texts.give_back_at.min(at);
                log::debug!("text let go info_hash={}", info_hash.short());
            }
            true => {}
            false => held.rests_at = now + KEPT_TIME,
        }
    }

    /// The torrents whose pieces are to be hashed.
    fn needed_texts(&self) -> BTreeSet<InfoHash> {
        let ids = self.torrents.keys().filter(|id| self.needs_hashes(**id));
        ids.map(|id| self.torrents[id].meta.info_hash).collect()
    }

    fn needs_hashes(&self, id: TorrentId) -> bool {
        let memory = self.torrents.get(&id).and_then(|of| of.memory.as_ref());
        let is_proving = memory.is_some_and(|memory| memory.proofs.is_any_left());
        is_proving || self.checks.is_any_of(id)
    }
}

/// How long nobody must have needed a text.
const REST_TIME: Duration = Duration::from_secs(15);
/// How long one stays that is not kept, before it is looked for again.
const KEPT_TIME: Duration = Duration::from_secs(60);
/// How long after a text was let go its memory goes: others follow it.
const GIVE_BACK_DELAY: Duration = Duration::from_secs(10);
/// How often that is done at most: all memory is gone through.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(300);
/// How many are looked for at a time: each is a job.
const LOOKED_FOR_MAX: usize = 64;

#[cfg(test)]
mod tests;
