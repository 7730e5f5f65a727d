//! Stores into maps that hold up the loop, and torrents that are not mapped any more for that.
//!
//! A store is to find its page in memory, writable: the paging lane has touched it shortly before.
//! On some file systems the page is taken away again meanwhile, or may only be written when a
//! server has answered; and everywhere the kernel slows down whoever writes faster than the disk.
//! The thread then sleeps in the middle of the store, and with it the whole loop. That it slept is
//! known from the count of its sleeps; a store that was slow as other programs had the processor
//! is nobody's fault.
//!
//! Slow stores are added up for each torrent and turn of the loop. Turns with more than [`STALL`]
//! of them are stalled, and when those of a minute come to [`STALLED_MAX`] the torrent is written
//! through buffers, where it is the disk lane that sleeps. Its windows change over with their next
//! store.

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
    /// Whose maps something was stored into since it was told how long that took.
    storing: Option<TorrentId>,
    /// Torrents whose stores slept, and for how long.
    in_turn: BTreeMap<TorrentId, Duration>,
    /// Time asleep that nobody has asked for yet.
    asleep: Duration,
}

/// When and for how long a torrent stalled the loop lately.
#[derive(Debug, Default)]
pub(super) struct Stalled(Vec<(Instant, Duration)>);

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
    /// Something will be stored into a map of this torrent.
    pub fn store_begins(&mut self, torrent: TorrentId) {
        self.storing = Some(torrent);
        self.sleeps.get_or_insert_with(map::sleeps_of_thread);
    }

    /// A slow store into a map took so long; returns for how long those of its torrent have stalled
    /// the turn by now, if they have. The thread may have slept elsewhere in this turn; that is
    /// rare, as it waits nowhere else.
    fn stored(&mut self, torrent: TorrentId, took: Duration) -> Option<Duration> {
        let now = map::sleeps_of_thread();
        let has_slept = now.is_none() || self.sleeps != Some(now);
        self.sleeps = Some(now);
        has_slept.then(|| self.slept(torrent, took))?
    }

    fn slept(&mut self, torrent: TorrentId, time: Duration) -> Option<Duration> {
        let sum = self.in_turn.entry(torrent).or_default();
        *sum += time;
        self.asleep += time;
        Some(*sum).filter(|&sum| sum > STALL)
    }

    /// The turn ends: these torrents have stalled it.
    fn end_turn(&mut self) -> impl Iterator<Item = (TorrentId, Duration)> + use<> {
        self.sleeps = None;
        let all = std::mem::take(&mut self.in_turn).into_iter();
        all.filter(|(_, time)| *time > STALL)
    }
}

impl Stalled {
    fn push(&mut self, time: Duration, now: Instant) {
        self.0.retain(|&(at, _)| now - at < LATELY);
        self.0.push((now, time));
    }

    /// Whether a turn that has been stalled for `time` is one too many.
    fn is_too_much_with(&self, time: Duration, now: Instant) -> bool {
        let lately = self.0.iter().filter(|&&(at, _)| now - at < LATELY);
        lately.map(|(_, time)| *time).sum::<Duration>() + time >= STALLED_MAX
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
    /// Takes how long the last [`store`](Self::store) or [`job_done`](Self::job_done) took, with
    /// which bytes may have gone into a map: a torrent whose stores have stalled the loop for too
    /// long is not mapped any more.
    pub fn took(&mut self, time: Duration) {
        let Some(id) = self.stalls.storing.take().filter(|_| time >= SLOW) else {
            return;
        };
        let (Some(time), StorageKind::Auto) = (self.stalls.stored(id, time), self.kind) else {
            return;
        };
        let now = self.now;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.stalled.is_too_much_with(time, now) && torrent.why_buffered != Some(Why::Stalls)
        {
            let files = torrent.files.len() as u32;
            let changed = (0..files).filter(|&index| torrent.buffer(index, Why::Stalls));
            let count = changed.count();
            torrent.why_buffered = Some(Why::Stalls);
            log::warn!(
                "stores into mapped files stall the loop, written through buffers from now on: \
                 torrent={id} files={count} info_hash={}",
                torrent.meta.info_hash.short()
            );
        }
    }

    /// A turn of the loop ends.
    pub(super) fn turn_stalls(&mut self) {
        for (id, time) in self.stalls.end_turn() {
            if let Some(torrent) = self.torrents.get_mut(&id) {
                torrent.stalled.push(time, self.now);
            }
        }
    }

    /// Takes a window out of its map that is mapped and shall not be.
    pub(super) fn leave_map(&mut self, slot: usize) {
        let window = self.windows.get(slot);
        let WindowKey { torrent, file, .. } = window.key;
        let of = self.torrents.get(&torrent);
        let is_buffered = of.is_some_and(|of| of.files[file as usize].is_buffered);
        if window.job.is_none() && is_buffered {
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
        let torrents = self.torrents.iter().map(|(id, torrent)| (id, &**torrent));
        torrents.filter_map(buffered).collect()
    }
}

/// A store that takes less is not looked at: it costs two looks at the clock and no more.
const SLOW: Duration = Duration::from_millis(1);
/// Ten times what one turn may take, within that time: an ordinary disk at its limit comes to a
/// fifth of it (measured: 51 and 97 ms in two of 59,000 turns at 200 MiB/s with syncs).
const STALLED_MAX: Duration = Duration::from_millis(500);
const LATELY: Duration = Duration::from_secs(60);

const _: () = assert!(STALLED_MAX.as_millis() == 10 * STALL.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: TorrentId = TorrentId(7);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn stalls_count_for_a_minute() {
        let cases = [
            // what it shows      at s, ms                               the last is too much
            ("a long one", &[(1, 500)][..], true),
            ("not long enough", &[(1, 499)][..], false),
            ("several", &[(1, 200), (5, 200), (60, 100)][..], true),
            ("too far apart", &[(1, 200), (5, 200), (61, 100)][..], false),
        ];
        for (name, all, is_too_much) in cases {
            let mut stalled = Stalled::default();
            let mut last = false;
            for &(second, time) in all {
                last = stalled.is_too_much_with(millis(time), at(second));
                stalled.push(millis(time), at(second));
            }
            assert_eq!(last, is_too_much, "{name}");
        }
    }

    #[test]
    fn stores_of_a_turn_are_added_up_and_those_of_others_are_not() {
        let mut stalls = Stalls::default();
        for time in [20, 20, 10] {
            assert_eq!(stalls.slept(TORRENT, millis(time)), None);
        }
        assert_eq!(stalls.slept(TorrentId(1), millis(40)), None);
        assert_eq!(stalls.end_turn().next(), None, "50 and 40 ms");
        assert_eq!(stalls.slept(TORRENT, millis(30)), None, "another turn");
        assert_eq!(stalls.slept(TORRENT, millis(21)), Some(millis(51)));
        assert!(stalls.end_turn().eq([(TORRENT, millis(51))]));
        assert_eq!(stalls.asleep, millis(141));
    }

    /// Goal: only a thread that slept was kept by the kernel.
    #[cfg(target_os = "linux")]
    #[test]
    fn slow_store_counts_if_the_thread_slept_meanwhile() {
        let mut stalls = Stalls::default();
        stalls.store_begins(TORRENT);
        std::thread::sleep(Duration::from_millis(2));
        stalls.stored(TORRENT, SLOW);
        assert_eq!(stalls.asleep, SLOW);
        stalls.stored(TORRENT, 5 * SLOW);
        assert_eq!(stalls.asleep, SLOW, "it did not sleep again");
        std::thread::sleep(Duration::from_millis(2));
        stalls.stored(TORRENT, SLOW);
        assert_eq!(stalls.asleep, 2 * SLOW);
    }
}
