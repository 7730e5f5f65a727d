//! Torrents whose files cannot be written at present, for a reason that may pass by itself: a full
//! disk, a quota, rights, a disk that is not mounted.
//!
//! ```text
//!  running ── storage failed ──▶ error, opened to be served only ──▶ what is verified is served
//!     ▲                                  ▲  │ not even that: again        │ after 2 s, 4 s … 60 s
//!     │                                  └──┘ after a while               ▼
//!     └──────────────────────── yes ───────────────────────── storage asked: can it be written?
//! ```
//!
//! The exchange begins anew, as what was not verified may not be there; peers are called again at
//! once. Nothing is asked of them until storage says that there is room. Files that can be written
//! for a short time only are tried less and less often.

use std::time::Duration;

use super::action::StorageAction;
use super::torrent::Torrent;
use super::{Engine, State};
use crate::base::id::TorrentId;
use crate::base::status::Trouble;
use crate::base::time::Instant;

/// What the files of a torrent wait for.
#[derive(Debug)]
pub struct Plight {
    reason: String,
    /// When they are tried next.
    retry_at: Instant,
    /// From the last trial to the next.
    pause: Duration,
    /// What is on disk was looked at, and is served.
    is_serving: bool,
    /// Storage was asked whether they can be written.
    is_asked: bool,
    /// They could not even be read.
    was_closed: bool,
}

/// The end of a plight.
#[derive(Clone, Copy, Debug)]
pub struct Cure {
    at: Instant,
    /// From the trial that ended it to the one that would have been next.
    pause: Duration,
}

impl Plight {
    /// When something is to be done about it.
    pub fn deadline(&self) -> Instant {
        self.retry_at
    }
}

impl Torrent {
    /// Whether peers are looked for: it fetches, or serves.
    pub fn is_taking_part(&self) -> bool {
        match self.state {
            State::Downloading | State::Seeding => true,
            State::Error => self.plight.as_ref().is_some_and(|plight| plight.is_serving),
            State::Checking | State::Queued | State::Paused => false,
        }
    }

    /// Whether it waits until its files can be written.
    pub fn is_waiting(&self) -> bool {
        self.state == State::Error && self.plight.is_some()
    }

    /// Whether peers that come are let in.
    pub fn takes_peers(&self) -> bool {
        match self.state {
            State::Checking | State::Downloading | State::Seeding => true,
            State::Error => self.is_waiting() && self.is_open,
            State::Queued | State::Paused => false,
        }
    }

    /// Time until files that cannot be written are tried again, if they are.
    pub fn retry_in(&self, now: Instant) -> Option<Duration> {
        let plight = self.plight.as_ref().filter(|_| self.is_waiting())?;
        Some(plight.retry_at.since(now))
    }
}

impl Engine {
    /// Storage has given the torrent up, but may go on with it later.
    pub(super) fn cannot_write(&mut self, id: TorrentId, reason: String, now: Instant) {
        self.leave_queue(id, now);
        self.leave_line(id);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        log::warn!("torrent waits torrent={id}: {reason}");
        let is_new = torrent.plight.is_none();
        match &mut torrent.plight {
            Some(plight) => {
                plight.reason.clone_from(&reason);
                (plight.is_serving, plight.is_asked) = (false, false);
                plight.was_closed = true;
            }
            None => {
                let lately = torrent.cure.filter(|cure| now - cure.at < PAUSE_MAX);
                let pause = lately.map_or(PAUSE_MIN, |cure| cure.pause);
                torrent.plight = Some(Box::new(Plight {
                    reason: reason.clone(),
                    retry_at: now + pause,
                    pause,
                    is_serving: false,
                    is_asked: false,
                    was_closed: false,
                }));
            }
        }
        torrent.check = None;
        if torrent.state == State::Paused {
            return; // it is opened when it is resumed
        }
        if is_new || torrent.reason.as_ref() != Some(&reason) {
            self.set_state(id, State::Error, Some(reason), now);
        }
        self.part_with_peers(id, "data cannot be written", now);
        if is_new {
            self.open_again(id, now);
        }
        self.rearm_torrent(id, now);
    }

    /// What is on disk is known of a torrent that cannot be written: it is served.
    pub(super) fn serve_meanwhile(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if let Some(plight) = &mut torrent.plight {
            plight.is_serving = true;
            let is_back = std::mem::take(&mut plight.was_closed);
            if is_back || torrent.swarm.has_all_wanted() {
                plight.retry_at = now; // perhaps all is well, or there is nothing to be written
            }
        }
        torrent.candidates.wake(now);
        self.tell_lsd(id);
        self.rearm_torrent(id, now);
    }

    /// The user wants to know now.
    pub(super) fn try_now(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let Some(plight) = &mut torrent.plight else {
            return;
        };
        (plight.retry_at, plight.pause) = (now, PAUSE_MIN / 2);
        let reason = plight.reason.clone();
        if torrent.state == State::Paused {
            torrent.paused_from = None;
            torrent.tracker.resumed(now);
            torrent.candidates.wake(now);
            self.set_state(id, State::Error, Some(reason), now);
            self.track(id, now);
            self.check_more(id, now);
        }
        self.plight_due(id, now);
        self.rearm_torrent(id, now);
    }

    /// Tries the files of a torrent again, if it is time to.
    pub(super) fn plight_due(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let Some(plight) = &mut torrent.plight else {
            return;
        };
        if plight.retry_at > now || torrent.state != State::Error || self.ending.is_some() {
            return;
        }
        plight.pause = (plight.pause * 2).min(PAUSE_MAX);
        plight.retry_at = now + plight.pause;
        if !torrent.is_open {
            self.open_again(id, now);
        } else if plight.is_serving && !std::mem::replace(&mut plight.is_asked, true) {
            self.storage(StorageAction::Probe { torrent: id });
        }
    }

    /// Storage looked whether the files of a torrent can be written.
    pub fn storage_probed(&mut self, id: TorrentId, result: Result<(), Trouble>, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let Some(plight) = &mut torrent.plight else {
            return;
        };
        plight.is_asked = false;
        if torrent.state != State::Error {
            return; // it is paused: storage is asked again when it is resumed
        }
        match result {
            Err(trouble) => {
                log::debug!("torrent waits on torrent={id}: {}", trouble.message);
                plight.reason.clone_from(&trouble.message);
                torrent.reason = Some(trouble.message);
            }
            Ok(()) => {
                let pause = plight.pause;
                torrent.plight = None;
                torrent.cure = Some(Cure { at: now, pause });
                log::info!("files can be written again torrent={id}");
                self.start(id, now);
            }
        }
    }
}

/// Between two trials: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
