//! Crowds of streams that always have something to move, and what each gets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 1,
    }
}

/// Streams of several torrents that always have something to move.
struct Crowd {
    way: Way,
    now: Instant,
    streams: Vec<(ConnId, TorrentId)>,
    moved: BTreeMap<ConnId, u64>,
}

impl Crowd {
    /// So many streams of each torrent under a limit of `rate` for all.
    fn new(rate: u64, counts: &[u32]) -> Self {
        let torrents = counts.iter().zip(0..);
        let streams = torrents.flat_map(|(&count, torrent)| {
            (0..count).map(move |n| (conn(torrent * 1000 + n), TorrentId(torrent)))
        });
        Self {
            way: Way::new(rate, at(0)),
            now: at(0),
            streams: streams.collect(),
            moved: BTreeMap::new(),
        }
    }

    /// All move what they may, as the loop lets them.
    fn run(&mut self, seconds: u64) {
        for (conn, torrent) in self.streams.clone() {
            self.turn(conn, torrent);
        }
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            let due = self.way.due();
            self.now = due.max(self.now + REST_TIME);
            for conn in self.way.wake(self.now) {
                self.turn(conn, TorrentId(conn.index / 1000));
            }
        }
    }

    /// A stream moves bytes until it stands in line.
    fn turn(&mut self, conn: ConnId, torrent: TorrentId) {
        loop {
            let room = self.way.room(conn, torrent);
            if room == 0 {
                return;
            }
            let room = room.min(256 * 1024);
            self.way.passed(torrent, room, self.now);
            *self.moved.entry(conn).or_default() += room as u64;
        }
    }

    /// What the streams of a torrent moved, bytes.
    fn of(&self, torrent: u32) -> u64 {
        let streams = conn(torrent * 1000)..conn((torrent + 1) * 1000);
        self.moved.range(streams).map(|(_, bytes)| bytes).sum()
    }
}

fn assert_near(bytes: u64, expected: u64, what: &str) {
    let ratio = bytes as f64 / expected as f64;
    assert!(
        (0.98..=1.02).contains(&ratio),
        "{what}: {bytes} of {expected}"
    );
}

#[test]
fn all_streams_of_a_torrent_get_the_same() {
    for rate in [64 << 10, 5 << 20, 256 << 20] {
        let mut crowd = Crowd::new(rate, &[40]);
        crowd.run(10);
        assert_near(crowd.of(0), 10 * rate, "all");
        for &bytes in crowd.moved.values() {
            let share = 10 * rate / 40;
            assert!(
                bytes.abs_diff(share) <= share / 10,
                "{bytes} of {share} at {rate}"
            );
        }
    }
}

#[test]
fn torrents_get_the_same_however_many_streams_they_have() {
    let mut crowd = Crowd::new(1 << 20, &[50, 1, 5]);
    crowd.run(30);
    for torrent in 0..3 {
        assert_near(crowd.of(torrent), 10 << 20, "a third");
    }
}

/// Goal: a torrent's own limit holds within that of all, and what it leaves the others get.
#[test]
fn own_limit_holds_within_the_limit_of_all() {
    let mut crowd = Crowd::new(1 << 20, &[20, 20]);
    crowd.way.set_rate(Some(TorrentId(0)), 100 << 10, at(0));
    crowd.run(30);
    assert_near(crowd.of(0), 3000 << 10, "its own");
    assert_near(crowd.of(0) + crowd.of(1), 30 << 20, "all");
    // A higher one than that of all is none.
    crowd.way.set_rate(Some(TorrentId(0)), 100 << 20, crowd.now);
    crowd.moved.clear();
    crowd.run(30);
    assert_near(crowd.of(0), 15 << 20, "half");
}

/// Goal: a limit of one torrent is none for another.
#[test]
fn torrent_without_a_limit_does_not_wait_for_one_with() {
    let mut crowd = Crowd::new(0, &[3]);
    crowd.way.set_rate(Some(TorrentId(0)), 64 << 10, at(0));
    crowd.run(20);
    assert_near(crowd.of(0), 20 * (64 << 10), "its own");
    assert!(crowd.way.limits(TorrentId(0)) && !crowd.way.limits(TorrentId(1)));
    crowd.way.set_rate(Some(TorrentId(0)), 0, crowd.now);
    assert!(!crowd.way.is_any());
}

/// Goal: streams that are woken and have nothing to move cost the others nothing for long, and one
/// that is gone is in no line.
#[test]
fn streams_that_do_not_come_make_room() {
    let mut crowd = Crowd::new(64 << 10, &[10, 10]);
    crowd.run(5);
    // Those of the second torrent stand in line and never come again.
    crowd.streams.retain(|(_, torrent)| torrent.0 == 0);
    for n in 0..5 {
        crowd.way.forget(conn(1000 + n));
    }
    crowd.moved.clear();
    let end = crowd.now + Duration::from_secs(30);
    while crowd.now < end {
        crowd.now = crowd.way.due().max(crowd.now + REST_TIME);
        for conn in crowd.way.wake(crowd.now) {
            if conn.index < 1000 {
                crowd.turn(conn, TorrentId(0));
            }
        }
    }
    assert_near(crowd.of(0), 30 * (64 << 10), "those who come");
    assert!(!crowd.way.lines.contains_key(&TorrentId(1)));
    assert_eq!(crowd.way.waits.len() + crowd.way.woken.len(), 10);
    for n in 0..10 {
        crowd.way.forget(conn(n));
    }
    assert_eq!(crowd.way.due(), Instant::NEVER);
    assert!(crowd.way.waits.is_empty() && crowd.way.woken.is_empty());
}

#[test]
fn as_much_is_asked_for_ahead_as_two_seconds_bring() {
    #[rustfmt::skip]
    let rows = [
        // bytes/s     torrents  blocks
        (64 << 10,     1,        8),
        (64 << 10,     2,        4),
        (64 << 10,     100,      1),
        (1024,         1,        1),
        (256 << 20,    1,        32_768),
        (u64::MAX,     1,        u32::MAX),
    ];
    for (rate, sharers, blocks) in rows {
        assert_eq!(blocks_ahead(rate, sharers), blocks, "{rate} for {sharers}");
    }
}
