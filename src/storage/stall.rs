//! Stores into maps that hold up the loop, and torrents that are not mapped any more for that.
//!
//! A store is to find its page in memory, writable: the paging lane has touched it shortly before.
//! On some file systems the page is taken away again meanwhile, or may only be written when a
//! server has answered; and everywhere the kernel slows down whoever writes faster than the disk.
//! The thread then sleeps in the middle of the store, and with it the whole loop. That it slept is
//! known from the count of its sleeps; a store that was slow as other programs had the processor
//! is nobody's fault.
//!
//! Slow stores are added up for each torrent and turn of the loop. A sum above [`STALL`] is a
//! *strike*; with [`STRIKES_MAX`] of them within [`STRIKES_TIME`] the torrent is written through
//! buffers, where it is the disk lane that sleeps. Its windows change over with their next store.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::span::WindowKey;
use super::{Storage, Torrent, map};
use crate::base::id::TorrentId;
use crate::base::status::{Buffered, STALL};
use crate::base::time::Instant;
use crate::config::StorageKind;
use crate::meta::geometry::FileKind;

/// The slow stores of the turn that runs.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    /// How often the thread had slept when that was looked at last; `None` before the first store
    /// into a map.
    sleeps: Option<Option<u64>>,
    /// Torrents whose stores slept, and for how long.
    in_turn: BTreeMap<TorrentId, Duration>,
    /// Time asleep that nobody has asked for yet.
    asleep: Duration,
}

/// When a torrent stalled the loop, as far as it counts.
#[derive(Debug, Default)]
pub(super) struct Strikes(Vec<Instant>);

/// Why a file is not mapped although it might have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its file system does not give room ahead of the writer.
    Unallocated,
    /// Its file system does not map it.
    Unmappable,
    /// Stores into its torrent's maps held up the loop.
    Stalls,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unallocated => "its file system does not allocate files",
            Self::Unmappable => "its file system does not map files",
            Self::Stalls => "stores into its mapped files stalled the loop",
        })
    }
}

impl Stalls {
    /// Something will be stored into a map.
    pub fn store_begins(&mut self) {
        self.sleeps.get_or_insert_with(map::sleeps_of_thread);
    }

    /// A store into a map took so long. The thread may have slept elsewhere in this turn; that is
    /// rare, as it waits nowhere else.
    fn stored(&mut self, torrent: TorrentId, took: Duration) {
        if took < SLOW {
            return;
        }
        let now = map::sleeps_of_thread();
        if now.is_none() || self.sleeps != Some(now) {
            self.slept(torrent, took);
        }
        self.sleeps = Some(now);
    }

    fn slept(&mut self, torrent: TorrentId, time: Duration) {
        *self.in_turn.entry(torrent).or_default() += time;
        self.asleep += time;
    }

    /// The turn ends: these torrents held it up.
    fn end_turn(&mut self) -> Vec<TorrentId> {
        self.sleeps = None;
        let all = std::mem::take(&mut self.in_turn).into_iter();
        let long = all.filter(|(_, time)| *time > STALL);
        long.map(|(torrent, _)| torrent).collect()
    }
}

impl Strikes {
    /// One more; says whether it is one too many.
    fn strike(&mut self, now: Instant) -> bool {
        self.0.retain(|&at| now - at < STRIKES_TIME);
        self.0.push(now);
        self.0.len() >= STRIKES_MAX
    }
}

impl Torrent {
    /// A file is not mapped from now on; says whether it was before.
    pub fn buffer(&mut self, index: u32, why: Why) -> bool {
        let slot = &mut self.files[index as usize];
        if std::mem::replace(&mut slot.is_buffered, true) {
            return false;
        }
        if why != Why::Unallocated {
            slot.forget_fresh(); // a map that was loaded to be read takes stores unnoted
        }
        self.why_buffered.get_or_insert(why);
        true
    }
}

impl Storage {
    /// A store into a window of a torrent took so long, if it was a mapped one.
    pub(super) fn store_took(&mut self, torrent: TorrentId, took: Duration) {
        if took >= SLOW {
            self.stalls.stored(torrent, took);
        }
    }

    /// A turn of the loop ends: torrents that have stalled too many are not mapped any more.
    pub(super) fn turn_stalls(&mut self) {
        for id in self.stalls.end_turn() {
            let now = self.now;
            let Some(torrent) = self.torrents.get_mut(&id) else {
                continue;
            };
            let is_too_much = torrent.strikes.strike(now) && self.kind == StorageKind::Auto;
            if is_too_much && torrent.why_buffered != Some(Why::Stalls) {
                let files = torrent.files.len() as u32;
                let changed = (0..files).filter(|&index| torrent.buffer(index, Why::Stalls));
                let count = changed.count();
                torrent.why_buffered = Some(Why::Stalls);
                log::warn!(
                    "stores into mapped files stall the loop, written through buffers from now \
                     on: torrent={id} files={count} info_hash={}",
                    torrent.meta.info_hash.short()
                );
            }
        }
    }

    /// Takes a window out of its map that is mapped and shall not be.
    pub(super) fn leave_map(&mut self, slot: usize) {
        let window = self.windows.get(slot);
        let WindowKey { torrent, file, .. } = window.key;
        let is_buffered = |of: &Torrent| of.files[file as usize].is_buffered;
        if window.job.is_none() && self.torrents.get(&torrent).is_some_and(is_buffered) {
            self.load_again(slot);
        }
    }

    /// How long the thread has slept in stores into maps since this was asked last.
    pub fn take_time_asleep(&mut self) -> Duration {
        std::mem::take(&mut self.stalls.asleep)
    }

    /// Torrents with files that are written through buffers although they might have been mapped.
    pub fn buffered(&self) -> BTreeMap<TorrentId, Buffered> {
        let buffered = |(&id, torrent): (&TorrentId, &Torrent)| {
            let reason = torrent.why_buffered?.to_string();
            let files = torrent.files.iter().zip(&torrent.meta.files);
            let mut mapped = files.filter(|(slot, entry)| {
                entry.kind == FileKind::Data && entry.len > 0 && !slot.is_buffered
            });
            let is_all = mapped.next().is_none();
            Some((id, Buffered { is_all, reason }))
        };
        self.torrents.iter().filter_map(buffered).collect()
    }
}

/// A store that takes less is not looked at: the clock alone is read for it.
const SLOW: Duration = Duration::from_millis(1);
/// So many stalled turns, and within that time: an ordinary disk at its limit has one or two
/// (measured: 4 of 59,000 turns at 200 MiB/s with syncs), a server that is slow has one a second.
const STRIKES_MAX: usize = 3;
const STRIKES_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: TorrentId = TorrentId(7);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn strikes_count_within_their_time_alone() {
        let cases = [
            // what it shows       strikes at       the last is one too many
            ("two", &[1, 2][..], false),
            ("three", &[1, 2, 3][..], true),
            ("too far apart", &[1, 2, 62][..], false),
            ("the last three", &[1, 50, 70, 105][..], true),
        ];
        for (name, times, is_too_much) in cases {
            let mut strikes = Strikes::default();
            let last = times.iter().map(|&time| strikes.strike(at(time))).last();
            assert_eq!(last, Some(is_too_much), "{name}");
        }
    }

    #[test]
    fn stores_of_a_turn_are_added_up_and_those_of_others_are_not() {
        let mut stalls = Stalls::default();
        for millis in [20, 20, 9] {
            stalls.slept(TORRENT, Duration::from_millis(millis));
        }
        stalls.slept(TorrentId(1), Duration::from_millis(40));
        assert!(stalls.end_turn().is_empty(), "49 and 40 ms");
        stalls.slept(TORRENT, Duration::from_millis(2));
        assert!(stalls.end_turn().is_empty(), "another turn");
        stalls.slept(TORRENT, Duration::from_millis(30));
        stalls.slept(TORRENT, Duration::from_millis(21));
        assert_eq!(stalls.end_turn(), [TORRENT]);
        assert_eq!(stalls.asleep, Duration::from_millis(142));
    }

    /// Goal: only a thread that slept was kept by the kernel.
    #[cfg(target_os = "linux")]
    #[test]
    fn slow_store_counts_if_the_thread_slept_meanwhile() {
        let mut stalls = Stalls::default();
        stalls.store_begins();
        std::thread::sleep(Duration::from_millis(2));
        stalls.stored(TORRENT, SLOW - Duration::from_nanos(1));
        assert_eq!(stalls.asleep, Duration::ZERO, "it was not slow");
        stalls.stored(TORRENT, SLOW);
        assert_eq!(stalls.asleep, SLOW);
        stalls.stored(TORRENT, 5 * SLOW);
        assert_eq!(stalls.asleep, SLOW, "it did not sleep again");
        std::thread::sleep(Duration::from_millis(2));
        stalls.stored(TORRENT, SLOW);
        assert_eq!(stalls.asleep, 2 * SLOW);
    }
}
