//! One direction of all streams: the buckets, and the lines of those who wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use crate::base::bucket::Bucket;
use crate::base::id::{ConnId, TorrentId};
use crate::base::time::Instant;

/// One direction: what may pass, and who waits for it.
#[derive(Debug)]
pub(super) struct Way {
    /// The limit of all torrents together.
    pub all: Bucket,
    /// The torrents with a limit of their own.
    pub own: BTreeMap<TorrentId, Bucket>,
    /// Who waits, by torrent; no line is empty.
    pub lines: BTreeMap<TorrentId, VecDeque<ConnId>>,
    /// In whose line each of them stands.
    pub waits: BTreeMap<ConnId, TorrentId>,
    /// Who was woken for a portion and has not come yet.
    pub woken: BTreeMap<ConnId, Promise>,
    /// Whose stream was woken last.
    pub last: TorrentId,
}

/// What a stream was woken for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    pub torrent: TorrentId,
    pub bytes: u64,
    pub at: Instant,
}

impl Way {
    pub fn new(rate: u64, now: Instant) -> Self {
        Self {
            all: Bucket::new(rate, now),
            own: BTreeMap::new(),
            lines: BTreeMap::new(),
            waits: BTreeMap::new(),
            woken: BTreeMap::new(),
            last: TorrentId(0),
        }
    }

    /// Whether there is any limit.
    pub fn is_any(&self) -> bool {
        self.all.rate().is_some() || !self.own.is_empty()
    }

    /// Whether streams of `torrent` are limited.
    pub fn limits(&self, torrent: TorrentId) -> bool {
        self.all.rate().is_some() || self.own.contains_key(&torrent)
    }

    /// The lowest rate that holds for a stream of `torrent`, bytes per second.
    pub fn rate(&self, torrent: TorrentId) -> Option<u64> {
        let own = self.own.get(&torrent).and_then(Bucket::rate);
        self.all.rate().into_iter().chain(own).min()
    }

    /// Bytes that a stream of `torrent` moves at once.
    pub fn portion(&self, torrent: TorrentId) -> u64 {
        let own = self.own.get(&torrent).map(Bucket::portion);
        own.unwrap_or(u64::MAX).min(self.all.portion())
    }

    /// Bytes that `conn` may move now; it stands in line if there are none, or others are before
    /// it.
    pub fn room(&mut self, conn: ConnId, torrent: TorrentId) -> usize {
        let was_woken = self.woken.remove(&conn).is_some();
        if was_woken || self.lines.is_empty() {
            let free = |bucket: &Bucket, promised: u64| {
                let promised = usize::try_from(promised).unwrap_or(usize::MAX);
                bucket.left().saturating_sub(promised)
            };
            let left = free(&self.all, self.promised(None));
            let own = self.own.get(&torrent);
            let own = own.map_or(usize::MAX, |own| free(own, self.promised(Some(torrent))));
            let portion = usize::try_from(self.portion(torrent)).unwrap_or(usize::MAX);
            let room = left.min(own).min(portion);
            if room > 0 {
                return room;
            }
        }
        if self.waits.insert(conn, torrent).is_none() {
            self.lines.entry(torrent).or_default().push_back(conn);
        }
        0
    }

    /// Bytes that streams of a torrent, or all, were woken for and have not moved yet.
    pub fn promised(&self, torrent: Option<TorrentId>) -> u64 {
        let promises = self.woken.values();
        let concerned = promises.filter(|promise| torrent.is_none_or(|t| promise.torrent == t));
        concerned.map(|promise| promise.bytes).sum()
    }

    /// Bytes passed on a stream of `torrent`.
    pub fn passed(&mut self, torrent: TorrentId, bytes: usize, now: Instant) {
        let buckets = self.own.get_mut(&torrent).into_iter();
        for bucket in buckets.chain([&mut self.all]) {
            bucket.refill(now);
            bucket.take(bytes);
        }
    }

    /// Whether `conn` waits for its turn, or was told only now that it has come.
    pub fn holds_back(&self, conn: ConnId, now: Instant) -> bool {
        let woken = self.woken.get(&conn);
        self.waits.contains_key(&conn) || woken.is_some_and(|w| now - w.at < WOKEN_TIME)
    }

    /// Takes those from the lines who may move a portion now.
    pub fn wake(&mut self, now: Instant) -> Vec<ConnId> {
        self.all.refill(now);
        self.own.values_mut().for_each(|own| own.refill(now));
        self.woken
            .retain(|_, promise| now - promise.at < WOKEN_TIME);
        let mut woken = Vec::new();
        while let Some(torrent) = self.next_line() {
            let conn = self.take_first(torrent);
            let bytes = self.portion(torrent);
            let promise = Promise {
                torrent,
                bytes,
                at: now,
            };
            self.woken.insert(conn, promise);
            self.last = torrent;
            woken.push(conn);
        }
        woken
    }

    /// The torrent whose turn it is, of those whose first in line may move a portion.
    pub fn next_line(&self) -> Option<TorrentId> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let behind = self.lines.range(after);
        let before = self.lines.range(..=self.last);
        let mut lines = behind.chain(before).map(|(torrent, _)| *torrent);
        lines.find(|&torrent| self.ready_at(torrent) == Instant::ZERO)
    }

    pub fn take_first(&mut self, torrent: TorrentId) -> ConnId {
        let line = self.lines.get_mut(&torrent).expect("a line that is there");
        let conn = line.pop_front().expect("no line is empty");
        if line.is_empty() {
            self.lines.remove(&torrent);
        }
        self.waits.remove(&conn);
        conn
    }

    /// When the first in the line of `torrent` may move a portion; the beginning of time: now.
    pub fn ready_at(&self, torrent: TorrentId) -> Instant {
        let portion = self.portion(torrent);
        let ready = |bucket: &Bucket, promised: u64| match bucket.rate() {
            None => Instant::ZERO,
            Some(_) if bucket.left() as u64 >= promised + portion => Instant::ZERO,
            Some(_) => bucket.ready_at(promised + portion),
        };
        let own = self.own.get(&torrent);
        let own = own.map_or(Instant::ZERO, |own| {
            ready(own, self.promised(Some(torrent)))
        });
        own.max(ready(&self.all, self.promised(None)))
    }

    /// When somebody who waits may go on.
    pub fn due(&self) -> Instant {
        let ready = self.lines.keys().map(|&torrent| self.ready_at(torrent));
        ready.min().unwrap_or(Instant::NEVER)
    }

    /// Limits `torrent`, or all together; 0 is no limit.
    pub fn set_rate(&mut self, torrent: Option<TorrentId>, rate: u64, now: Instant) {
        match torrent {
            None => self.all.set_rate(rate, now),
            Some(torrent) if rate == 0 => {
                self.own.remove(&torrent);
            }
            Some(torrent) => {
                let fresh = || Bucket::new(rate, now);
                let bucket = self.own.entry(torrent).or_insert_with(fresh);
                bucket.set_rate(rate, now);
            }
        }
    }

    /// What of the lines does not agree; `is_there` says of a stream whether it still is.
    pub fn audit(&self, is_there: impl Fn(ConnId) -> bool) -> Result<(), String> {
        let in_lines: usize = self.lines.values().map(VecDeque::len).sum();
        if in_lines != self.waits.len() || self.lines.values().any(VecDeque::is_empty) {
            return Err(format!(
                "{in_lines} streams in line, noted {}",
                self.waits.len()
            ));
        }
        for (conn, torrent) in &self.waits {
            let is_in_line = (self.lines.get(torrent)).is_some_and(|line| line.contains(conn));
            if !is_in_line || !is_there(*conn) || self.woken.contains_key(conn) {
                return Err(format!("{conn} waits for a limit in vain"));
            }
        }
        match self.woken.keys().find(|conn| !is_there(**conn)) {
            Some(conn) => Err(format!("{conn} is gone and was promised bytes")),
            None => Ok(()),
        }
    }

    /// A stream is gone, or does not want to move anything.
    pub fn forget(&mut self, conn: ConnId) {
        self.woken.remove(&conn);
        let Some(torrent) = self.waits.remove(&conn) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&torrent) {
            line.retain(|other| *other != conn);
            if line.is_empty() {
                self.lines.remove(&torrent);
            }
        }
    }
}

/// Whoever was woken and has not come for so long has nothing to move.
const WOKEN_TIME: Duration = Duration::from_millis(100);
