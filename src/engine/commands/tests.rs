//! Pause, resume and removal at every stage of a torrent, with a disk and a seed played by hand.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PeerId, Ticket};
use crate::base::limits::BLOCK_LEN;
use crate::base::plan::{Segment, WritePlan};
use crate::base::status::{DiskStatus, Trouble};
use crate::base::verdict::Verdict;
use crate::config::Config;
use crate::engine::{Action, HostPort, OnDisk, Secrets, TorrentSpec};
use crate::meta::create::{CreateOptions, Creator, NewFile};
use crate::meta::metainfo::Metainfo;
use crate::wire::handshake::{Handshake, Reserved};

mod choosing;
mod goals;
mod held_back;
mod plight;
mod queue;
mod sharing;
mod text;

const PIECES: u32 = 1100;
const LEN: u64 = PIECES as u64 * BLOCK_LEN as u64;
const HOST: &str = "tracker.lan";
const SEED: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)),
    6881,
);

/// An engine with one torrent of [`PIECES`] pieces of one block, all zeros, and one tracker.
struct Script {
    engine: Engine,
    meta: Arc<Metainfo>,
    now: Instant,
    id: TorrentId,
    /// What was asked of storage, and of the shell.
    storage: Vec<StorageAction>,
    other: Vec<Action>,
    reports: Vec<Report>,
}

fn metainfo() -> Arc<Metainfo> {
    metainfo_of(
        "content",
        vec![file(Vec::new(), LEN)],
        vec![format!("http://{HOST}/announce")],
    )
}

fn file(path: Vec<String>, len: u64) -> NewFile {
    NewFile {
        path,
        len,
        executable: false,
    }
}

/// [`PIECES`] pieces of one block, all zeros, in these files.
fn metainfo_of(name: &str, files: Vec<NewFile>, trackers: Vec<String>) -> Arc<Metainfo> {
    let options = CreateOptions {
        name: name.to_owned(),
        files,
        piece_len: Some(BLOCK_LEN),
        trackers,
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    let zeros = vec![0; LEN as usize];
    creator.feed(&zeros).expect("as long as said");
    let torrent = creator.finish().expect("all of it was fed");
    Arc::new(Metainfo::from_bytes(&torrent).expect("what is created can be read"))
}

impl Script {
    fn new() -> Self {
        Self::of(metainfo())
    }

    fn of(meta: Arc<Metainfo>) -> Self {
        Self::with(&meta, spec(&meta))
    }

    fn with(meta: &Arc<Metainfo>, spec: TorrentSpec) -> Self {
        let secrets = Secrets {
            rng_seed: 1,
            peer_id: PeerId([1; 20]),
            key: 7,
            tracker: [3; 16],
        };
        let now = Instant::from_micros(1_000_000);
        let mut engine = Engine::new(Config::default(), secrets, now);
        let id = engine.add_torrent(spec, now).expect("the first one");
        let mut script = Self {
            engine,
            meta: Arc::clone(meta),
            now,
            id,
            storage: Vec::new(),
            other: Vec::new(),
            reports: Vec::new(),
        };
        script.settle();
        script
    }

    /// One that has found nothing on disk and downloads.
    fn downloading() -> Self {
        let mut script = Self::new();
        script.scanned(Bitfield::new(PIECES));
        script
    }

    fn settle(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Storage(action) => self.storage.push(action),
                Action::Report(report) => self.reports.push(report),
                other => self.other.push(other),
            }
        }
        self.engine
            .audit(self.now)
            .expect("what is counted is there");
    }

    /// Storage answers what it was asked last: every byte is with the kernel.
    fn settled(&mut self) {
        let asked = self.storage.iter().rev().find_map(|action| match action {
            StorageAction::Settle { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let ticket = asked.unwrap_or_default();
        self.engine.settled(self.id, ticket, self.now);
        self.settle();
    }

    /// The same of the disk.
    fn durable(&mut self) {
        let ticket = self.syncs().last().copied().unwrap_or_default();
        self.engine.durable(self.id, ticket, self.now);
        self.settle();
    }

    /// What storage was asked with to make all durable.
    fn syncs(&self) -> Vec<Ticket> {
        let asked = self.storage.iter().filter_map(|action| match action {
            StorageAction::Sync { ticket, .. } | StorageAction::Leave { ticket, .. } => {
                Some(*ticket)
            }
            _ => None,
        });
        asked.collect()
    }

    fn scanned(&mut self, candidates: Bitfield) {
        let found = OnDisk::unknown(candidates);
        self.engine.scanned(self.id, found, self.now);
        self.settle();
    }

    fn pause(&mut self) {
        assert!(self.engine.pause(self.id, self.now));
        self.settle();
    }

    fn resume(&mut self) {
        assert!(self.engine.resume(self.id, self.now));
        self.settle();
    }

    fn state(&self) -> State {
        self.engine.state(self.id).expect("it is there")
    }

    /// Pieces that storage was told to hash since the last call.
    fn take_checks(&mut self) -> Vec<PieceIndex> {
        let mut pieces = Vec::new();
        self.storage.retain(|action| match action {
            StorageAction::Check { piece, .. } => {
                pieces.push(*piece);
                false
            }
            _ => true,
        });
        pieces
    }

    fn answer(&mut self, pieces: &[PieceIndex]) {
        for &piece in pieces {
            let good = Verdict::Good { blocks: Vec::new() };
            self.engine.piece_checked(self.id, piece, good, self.now);
            self.settle();
        }
    }

    /// Hashes all that is there to be hashed, until nothing is asked for any more.
    fn check_all(&mut self) -> usize {
        let mut count = 0;
        loop {
            let pieces = self.take_checks();
            if pieces.is_empty() {
                return count;
            }
            count += pieces.len();
            self.answer(&pieces);
        }
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.engine.timers_fired(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// A seed connects, and does not choke us.
    fn join_seed(&mut self) -> ConnId {
        self.join(&[0, 0, 0, 1, 14, 0, 0, 0, 1, 1]) // have all, unchoke
    }

    /// A peer connects, and says this.
    fn join(&mut self, said: &[u8]) -> ConnId {
        let local = ([10, 0, 0, 1], 6881).into();
        let conn = self.engine.accepted(SEED, local, self.now);
        let conn = conn.expect("there is room");
        let handshake = Handshake {
            reserved: Reserved {
                fast: true,
                extended: false,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id: PeerId([9; 20]),
        };
        self.feed(conn, &handshake.encode());
        self.feed(conn, said);
        conn
    }

    fn feed(&mut self, conn: ConnId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.engine.received(conn, bytes, self.now);
            assert!(taken.used > 0, "some of {bytes:?} is used");
            bytes = &bytes[taken.used..];
            self.settle();
        }
    }

    /// What waits to be written to `conn`.
    fn written(&mut self, conn: ConnId) -> Vec<u8> {
        let mut plan = WritePlan::default();
        self.engine.write_plan(conn, usize::MAX, &mut plan);
        assert!(
            plan.segments
                .iter()
                .all(|s| matches!(s, Segment::Bytes { .. }))
        );
        self.engine.sent(conn, plan.len, self.now);
        self.settle();
        plan.scratch
    }

    /// Answers every request that waits; returns how many.
    fn serve(&mut self, conn: ConnId) -> usize {
        let requests = self.requests(conn);
        for request in &requests {
            let mut piece = (9 + BLOCK_LEN).to_be_bytes().to_vec();
            piece.push(7);
            piece.extend_from_slice(request);
            piece.resize(13 + BLOCK_LEN as usize, 0);
            self.feed(conn, &piece);
        }
        requests.len()
    }

    /// Takes the requests that wait to be written: piece and begin of each.
    fn requests(&mut self, conn: ConnId) -> Vec<[u8; 8]> {
        let written = self.written(conn);
        let mut rest = &written[..];
        if rest.first() == Some(&19) {
            rest = &rest[68..];
        }
        let mut requests = Vec::new();
        while let Some((len, tail)) = rest.split_first_chunk::<4>() {
            let (message, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
            if let Some((6, block)) = message.split_first() {
                requests.extend(block.first_chunk::<8>());
            }
            rest = tail;
        }
        requests
    }

    /// The next announce: answers the look-up, connects, reads the request.
    fn announced(&mut self) -> String {
        let place = self
            .other
            .iter()
            .position(|a| matches!(a, Action::Resolve { .. }));
        let Action::Resolve { lookup, host, port } = self.other.remove(place.expect("a look-up"))
        else {
            unreachable!("found above");
        };
        assert_eq!(host, HOST);
        let address = SocketAddr::from(([10, 0, 0, 8], port));
        self.engine.resolved(lookup, Ok(vec![address]), self.now);
        self.settle();
        let Some(Action::Connect { conn, .. }) = self.other.pop() else {
            panic!("the tracker is called: {:?}", self.other);
        };
        let local = ([10, 0, 0, 1], 50_000).into();
        self.engine.connected(conn, local, self.now);
        self.settle();
        let request = String::from_utf8_lossy(&self.written(conn)).into_owned();
        let reply = "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\nd8:intervali1800e5:peers0:e";
        self.feed(conn, reply.as_bytes());
        request
    }
}

fn spec(meta: &Arc<Metainfo>) -> TorrentSpec {
    TorrentSpec {
        meta: Arc::clone(meta),
        peers: Vec::new(),
        trackers: Vec::new(),
        choice: crate::base::choice::Choice::default(),
    }
}

#[test]
fn check_that_was_paused_goes_on_where_it_was() {
    let mut script = Script::new();
    script.scanned(Bitfield::full(PIECES));
    let begun = script.take_checks();
    assert!(begun.len() < PIECES as usize, "some are left");
    script.pause();
    script.answer(&begun);
    assert_eq!(script.take_checks(), []);
    assert_eq!(script.state(), State::Paused);
    script.resume();
    assert_eq!(script.state(), State::Checking);
    assert_eq!(
        script.check_all() + begun.len(),
        PIECES as usize,
        "each piece once"
    );
    assert_eq!(script.state(), State::Seeding);
    assert!(
        !script
            .reports
            .iter()
            .any(|r| matches!(r, Report::Complete { .. }))
    );
}

#[test]
fn torrent_paused_before_its_files_were_looked_at_checks_them_when_it_is_resumed() {
    let mut script = Script::new();
    script.pause();
    script.scanned(Bitfield::full(PIECES));
    assert_eq!(script.take_checks(), []);
    script.resume();
    assert_eq!(script.check_all(), PIECES as usize);
    assert_eq!(script.state(), State::Seeding);
}

#[test]
fn all_verdicts_that_come_during_a_pause_end_the_check_when_it_is_over() {
    let mut script = Script::new();
    let mut few = Bitfield::new(PIECES);
    few.set(3);
    script.scanned(few);
    let begun = script.take_checks();
    script.pause();
    script.answer(&begun);
    assert_eq!(script.state(), State::Paused);
    script.resume();
    assert_eq!(script.state(), State::Downloading);
    let snapshot = script
        .engine
        .snapshot(script.id, script.now)
        .expect("it is there");
    assert_eq!(snapshot.done_bytes, u64::from(BLOCK_LEN));
}

#[test]
fn paused_torrent_has_no_streams_and_no_deadlines_and_lets_nobody_in() {
    let mut script = Script::downloading();
    assert!(script.announced_soon().contains("event=started"));
    let conn = script.join_seed();
    script.serve(conn);
    let known = HostPort {
        host: "10.0.0.77".to_owned(),
        port: 6881,
    };
    script.engine.find_peer(script.id, known, script.now);
    script.pass(Duration::from_secs(1));
    let is_call = |a: &Action| matches!(a, Action::Connect { .. });
    assert!(script.other.iter().any(is_call), "somebody is being called");

    script.other.clear();
    script.pause();
    let closes = script
        .other
        .iter()
        .filter(|a| matches!(a, Action::Close { .. }));
    assert_eq!(
        closes.count(),
        2,
        "the seed and the call: {:?}",
        script.other
    );
    assert!(script.announced().contains("event=stopped"));
    assert_eq!(script.engine.conn_count(), 0);
    script.other.clear();
    script.pass(Duration::from_secs(24 * 3600));
    assert_eq!(script.engine.next_deadline(), None);
    assert!(script.other.is_empty(), "{:?}", script.other);

    script.join_refused();
    script.resume();
    assert!(script.announced_soon().contains("event=started"));
    assert_eq!(script.state(), State::Downloading);
    script.pass(Duration::from_secs(1));
    assert!(
        script.other.iter().any(is_call),
        "who was known is called again"
    );
}

impl Script {
    /// Lets the torrent's timer fire, then [`Script::announced`].
    fn announced_soon(&mut self) -> String {
        self.pass(Duration::from_secs(1));
        self.announced()
    }

    fn join_refused(&mut self) {
        let local = ([10, 0, 0, 1], 6881).into();
        let conn = self
            .engine
            .accepted(SEED, local, self.now)
            .expect("there is room");
        let handshake = Handshake {
            reserved: Reserved {
                fast: true,
                extended: false,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id: PeerId([9; 20]),
        };
        self.feed(conn, &handshake.encode());
        assert_eq!(self.engine.conn_count(), 0, "nobody is let in");
    }

    /// Downloads until every piece is being hashed; returns those whose verdict is due.
    fn download_all(&mut self, conn: ConnId) -> Vec<PieceIndex> {
        let mut checks = Vec::new();
        while self.serve(conn) > 0 {
            checks.extend(self.take_checks());
            self.pass(Duration::from_millis(10));
        }
        assert_eq!(checks.len(), PIECES as usize);
        checks
    }

    fn count(&self, wanted: fn(&StorageAction) -> bool) -> usize {
        self.storage.iter().filter(|action| wanted(action)).count()
    }

    fn completions(&self) -> usize {
        let is_complete = |r: &&Report| matches!(r, Report::Complete { .. });
        self.reports.iter().filter(is_complete).count()
    }
}

/// Goal: what was on the disk before a piece was lost says nothing of the piece that came again.
#[test]
fn only_the_answer_to_the_last_question_makes_a_torrent_durable() {
    let is_durable = |r: &&Report| matches!(r, Report::Durable { .. });
    let mut script = Script::new();
    script.scanned(Bitfield::full(PIECES));
    script.check_all();
    assert_eq!(script.state(), State::Seeding);
    let [asked] = script.syncs()[..] else {
        panic!("asked for once");
    };

    let lost = PieceIndex(3);
    script.engine.piece_lost(script.id, lost, script.now);
    script.settle();
    assert_eq!(script.state(), State::Downloading);
    let conn = script.join_seed();
    assert_eq!(script.serve(conn), 1);
    assert_eq!(script.check_all(), 1);
    script.settled();
    assert_eq!(script.state(), State::Seeding);

    script.engine.durable(script.id, asked, script.now);
    script.settle();
    assert_eq!(script.reports.iter().filter(is_durable).count(), 0);
    script.durable();
    assert_eq!(script.reports.iter().filter(is_durable).count(), 1);
}

#[test]
fn download_that_ends_during_a_pause_is_told_once_when_it_is_resumed() {
    let is_settle = |a: &StorageAction| matches!(a, StorageAction::Settle { .. });
    for verdicts_before in [0, 200, PIECES as usize] {
        let mut script = Script::downloading();
        let conn = script.join_seed();
        let checks = script.download_all(conn);
        script.answer(&checks[..verdicts_before]);
        script.pause();
        script.answer(&checks[verdicts_before..]);
        assert_eq!(script.count(is_settle), 1, "after {verdicts_before}");
        script.settled();
        assert_eq!((script.state(), script.completions()), (State::Paused, 0));

        script.resume();
        assert_eq!(script.count(is_settle), 2);
        for _ in 0..2 {
            script.settled();
            assert_eq!((script.state(), script.completions()), (State::Seeding, 1));
        }
        script.pause();
        script.resume();
        assert_eq!((script.state(), script.completions()), (State::Seeding, 1));
        assert_eq!(script.take_checks(), [], "nothing is checked again");
    }
}

#[test]
fn torrent_that_failed_is_opened_anew_and_its_figures_stay() {
    for is_paused_too in [false, true] {
        let mut script = Script::downloading();
        let conn = script.join_seed();
        let served = script.serve(conn);
        let received = (served as u64) * u64::from(BLOCK_LEN);
        assert!(served > 0);
        script
            .engine
            .storage_failed(script.id, Trouble::lasting("disk full"), script.now);
        script.settle();
        assert_eq!(script.state(), State::Error);
        let why = script
            .engine
            .why(script.id, DiskStatus::default(), script.now);
        assert!(why.expect("it is there")[0].contains("disk full"));
        if is_paused_too {
            script.pause();
        }
        script.storage.clear();
        script.resume();
        assert_eq!(script.state(), State::Checking);
        assert!(matches!(script.storage[..], [StorageAction::Open { .. }]));
        script.scanned(Bitfield::full(PIECES));
        script.check_all();
        assert_eq!(script.state(), State::Seeding);
        let snapshot = script
            .engine
            .snapshot(script.id, script.now)
            .expect("it is there");
        assert_eq!(snapshot.down_bytes, received);
        assert_eq!(snapshot.reason, None);
    }
}

#[test]
fn end_does_not_wait_for_the_sync_of_a_torrent_that_storage_has_dropped() {
    let mut script = Script::downloading();
    script
        .engine
        .storage_failed(script.id, Trouble::lasting("gone"), script.now);
    script.pause();
    script.storage.clear();
    script.engine.shutdown(script.now);
    script.settle();
    assert!(script.storage.is_empty(), "{:?}", script.storage);
    script.pass(Duration::from_secs(2));
    assert!(script.engine.is_finished(script.now));
}

#[test]
fn removed_torrent_is_gone_at_any_stage_and_can_be_added_again() {
    let is_close = |a: &StorageAction| matches!(a, StorageAction::Close { .. });
    for stage in [
        "checking",
        "downloading",
        "settling",
        "seeding",
        "paused",
        "error",
    ] {
        let mut script = Script::new();
        let candidates = match stage {
            "checking" | "seeding" => Bitfield::full(PIECES),
            _ => Bitfield::new(PIECES),
        };
        script.scanned(candidates);
        let mut late = Vec::new();
        match stage {
            "checking" => late = script.take_checks(),
            "downloading" => {
                let conn = script.join_seed();
                script.serve(conn);
                late = script.take_checks();
            }
            "settling" => {
                let conn = script.join_seed();
                late = script.download_all(conn);
                script.answer(&late);
            }
            "seeding" => {
                script.check_all();
            }
            "paused" => script.pause(),
            _ => script
                .engine
                .storage_failed(script.id, Trouble::lasting("x"), script.now),
        }
        assert!(
            script.engine.remove_torrent(script.id, script.now),
            "{stage}"
        );
        assert!(
            !script.engine.remove_torrent(script.id, script.now),
            "{stage}"
        );
        script.settle();
        assert_eq!(script.count(is_close), 1, "{stage}");
        let is_told = |r: &Report| matches!(r, Report::Removed { name, .. } if name == "content");
        assert!(script.reports.iter().any(is_told), "{stage}");

        // What storage says late is of no interest, and streams find nobody.
        script.answer(&late);
        script.engine.scanned(
            script.id,
            OnDisk::unknown(Bitfield::full(PIECES)),
            script.now,
        );
        script.settled();
        script.durable();
        script
            .engine
            .storage_failed(script.id, Trouble::lasting("late"), script.now);
        script.join_refused();
        assert_eq!(script.engine.torrents().count(), 0, "{stage}");
        assert!(!script.engine.pause(script.id, script.now), "{stage}");
        assert!(!script.engine.resume(script.id, script.now), "{stage}");
        assert_eq!(script.engine.peers(script.id, script.now), None, "{stage}");

        let again = script.engine.add_torrent(spec(&script.meta), script.now);
        assert_ne!(again.expect("it is free again"), script.id, "{stage}");
        script.settle();
    }
}

#[test]
fn closer_look_shows_peers_trackers_and_files() {
    let mut script = Script::downloading();
    script.announced_soon();
    let conn = script.join_seed();
    let served = script.serve(conn);
    let checks = script.take_checks();
    script.answer(&checks);
    let received = served as u64 * u64::from(BLOCK_LEN);

    let peers = script
        .engine
        .peers(script.id, script.now)
        .expect("it is there");
    let [peer] = &peers[..] else {
        panic!("{peers:?}")
    };
    assert_eq!((peer.remote, peer.direction), (SEED, Direction::Incoming));
    assert!(peer.is_seed && peer.wanted && !peer.chokes_us && peer.choked && !peer.wants_us);
    assert_eq!((peer.down_bytes, peer.pieces), (received, PIECES));
    assert!(peer.down_bytes_s > 0);

    let trackers = script.engine.trackers(script.id).expect("it is there");
    let [tracker] = &trackers[..] else {
        panic!("{trackers:?}")
    };
    assert_eq!(
        (tracker.url.as_str(), tracker.tier),
        ("http://tracker.lan/announce", 0)
    );
    let heard = super::super::view::Heard::Answered {
        peers: 0,
        warning: None,
    };
    assert_eq!(tracker.heard, Some(heard));

    let files: Vec<_> = script.engine.files(script.id, 0).collect();
    let [(0, file)] = &files[..] else {
        panic!("{files:?}")
    };
    assert_eq!(file.path, "content");
    assert_eq!(file.length, u64::from(PIECES) * u64::from(BLOCK_LEN));
    assert_eq!(file.done_bytes, checks.len() as u64 * u64::from(BLOCK_LEN));
    assert_eq!(script.engine.files(script.id, 1).count(), 0);
}

/// One row a situation: how it comes about, and what a user reads.
#[test]
fn reasons_name_what_is_missing() {
    type Situation = fn(&mut Script);
    let rows: [(Situation, &str); 6] = [
        (|_| {}, "no addresses of peers are known"),
        (|_| {}, "no tracker has answered yet"),
        (
            |script| {
                script.announced_soon();
            },
            "tracker http://tracker.lan/announce: named 0 peers",
        ),
        (
            |script| {
                let conn = script.join_seed();
                script.feed(conn, &[0, 0, 0, 1, 0]);
            },
            "all 1 peers that have pieces choke us",
        ),
        (
            |script| {
                script.join_seed();
                script.pass(Duration::from_secs(6));
            },
            "1 peers do not answer",
        ),
        (Script::pause, "it is paused"),
    ];
    for (situation, text) in rows {
        let mut script = Script::downloading();
        situation(&mut script);
        let (disk, now) = (DiskStatus::default(), script.now);
        let why = script
            .engine
            .why(script.id, disk, now)
            .expect("it is there");
        assert!(
            why.iter().any(|reason| reason.contains(text)),
            "{text}: {why:?}"
        );
    }
    let mut script = Script::downloading();
    let slow = DiskStatus {
        waiting_bytes: 1 << 30,
        hash_backlog_bytes: 0,
    };
    let why = script
        .engine
        .why(script.id, slow, script.now)
        .expect("it is there");
    assert!(why[0].contains("the disk is behind"), "{why:?}");
}
