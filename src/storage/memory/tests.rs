//! What a process leaves to the next one, with real files and journals, and a clock of ours.

use std::fs;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;
use crate::base::id::Ticket;
use crate::base::limits::WINDOWS_LEN_MAX;
use crate::base::rng::Rng;
use crate::config::StorageKind;
use crate::storage::error::StorageError;
use crate::storage::jobs::{self, Done, Job, Outcome, Work};
use crate::storage::journal::{Binding, BootId, Knowledge, replay};
use crate::storage::tests::{fail, fail_with, torrent};
use crate::storage::{Access, Event, Pace, StorageOptions};

const KINDS: [StorageKind; 2] = [StorageKind::Map, StorageKind::Pwrite];
pub(in crate::storage) const ID: TorrentId = TorrentId(7);
const PIECE_LEN: u32 = 100_000;

/// One life of a process after the other in one folder.
pub(in crate::storage) struct World {
    pub dir: TempDir,
    kind: StorageKind,
    pub meta: Arc<Metainfo>,
    data: Vec<u8>,
    pub storage: Storage,
    pub now: Instant,
    events: Vec<Event>,
    /// The run of the machine; its own, if not given.
    boot: Option<BootId>,
    /// What jobs are run, in order.
    pub ran: Vec<&'static str>,
}

/// What a start finds: pieces to check, pieces that are there, blocks of others.
pub type Seen = (Vec<u32>, Vec<u32>, Vec<(u32, Vec<u32>)>);

impl World {
    pub fn new(kind: StorageKind) -> Self {
        let files = [
            ("a", 1_234_567, ""),
            ("sub/b", 70_000, ""),
            ("c", 400_000, ""),
        ];
        let (meta, data) = torrent(PIECE_LEN, &files);
        let dir = TempDir::new().expect("a folder");
        fs::create_dir(dir.path().join("state")).expect("a folder");
        let storage = storage(&dir, kind);
        Self {
            dir,
            kind,
            meta,
            data,
            storage,
            now: Instant::from_micros(1),
            events: Vec::new(),
            boot: None,
            ran: Vec::new(),
        }
    }

    fn count(&self) -> u32 {
        self.meta.geometry().piece_count()
    }

    /// The process dies: nothing that it has not done is done. Another begins.
    pub fn die(&mut self) {
        self.storage = storage(&self.dir, self.kind);
        self.events.clear();
    }

    /// Does what is to be done at this moment; returns what storage said.
    pub fn drive(&mut self) -> Vec<Event> {
        self.drive_with(jobs::run)
    }

    fn drive_with(&mut self, mut run: impl FnMut(Job) -> Done) -> Vec<Event> {
        loop {
            let mut is_idle = true;
            self.storage.tick(self.now);
            while let Some(job) = self.storage.poll_job() {
                is_idle = false;
                self.ran.push(name_of(&job.work));
                let mut done = run(job);
                if let (Outcome::Scanned(Ok(scan)), Some(boot)) = (&mut done.outcome, self.boot) {
                    scan.boot = Some(boot);
                }
                self.storage.job_done(done);
            }
            is_idle &= self.storage.work(1 << 20, Pace::AtOnce) == 0;
            while let Some(event) = self.storage.poll_event() {
                is_idle = false;
                self.events.push(event);
            }
            if is_idle {
                return std::mem::take(&mut self.events);
            }
        }
    }

    /// Lets time pass, in steps.
    pub fn pass(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        let mut said = self.drive();
        while let Some(at) = self.storage.next_deadline()
            && at <= end
        {
            self.now = self.now.max(at) + Duration::from_micros(1);
            said.extend(self.drive());
        }
        self.now = end;
        said
    }

    pub fn add(&mut self) -> Seen {
        self.storage.add(ID, Arc::clone(&self.meta));
        match self.drive().pop() {
            Some(Event::Scanned {
                candidates,
                vouched,
                filled,
                ..
            }) => {
                let filled = filled
                    .iter()
                    .map(|(p, blocks)| (p.0, blocks.ones().collect()));
                (
                    candidates.ones().collect(),
                    vouched.ones().collect(),
                    filled.collect(),
                )
            }
            other => panic!("{other:?}"),
        }
    }

    fn store(&mut self, piece: u32, begin: u32, len: u32) {
        let at = self.meta.geometry().offset(PieceIndex(piece), begin) as usize;
        let slot = Slot {
            torrent: ID,
            piece: PieceIndex(piece),
            begin,
            len,
        };
        self.storage.store(slot, &self.data[at..at + len as usize]);
    }

    pub fn store_piece(&mut self, piece: u32) {
        let len = self.meta.geometry().piece_len(PieceIndex(piece));
        self.store(piece, 0, len);
        self.storage.check(ID, PieceIndex(piece));
        let said = self.drive();
        let good = said.iter().any(|event| {
            matches!(
                event,
                Event::Checked {
                    verdict: Verdict::Good { .. },
                    ..
                }
            )
        });
        assert!(good, "piece {piece}: {said:?}");
    }

    pub fn sync(&mut self) {
        self.storage.sync(ID, Ticket(0));
        let said = self.drive();
        assert!(
            said.iter()
                .any(|event| matches!(event, Event::Durable { .. })),
            "{said:?}"
        );
    }

    /// Whether the disk has this piece.
    fn is_on_disk(&self, piece: u32) -> bool {
        let piece = PieceIndex(piece);
        let text = self.meta.text().expect("it was read");
        let proven = jobs::run(Job {
            id: crate::storage::jobs::JobId(0),
            work: Work::Prove {
                root: self.dir.path().into(),
                meta: Arc::clone(&self.meta),
                piece,
                hash: *text.piece_hash(piece),
            },
        });
        matches!(proven.outcome, Outcome::Proved(Ok(true)))
    }

    fn journal_path(&self) -> PathBuf {
        let name = format!("state/{}.journal", self.meta.info_hash);
        self.dir.path().join(name)
    }

    fn journal(&self) -> Knowledge {
        let bytes = fs::read(self.journal_path()).expect("a journal");
        replay(&bytes, &Binding::of(&self.meta))
            .expect("usable")
            .knowledge
    }

    fn journal_of(&self, claim: Claim) -> Vec<u32> {
        self.journal().claims.of(claim).collect()
    }

    fn go_down(&mut self) {
        self.boot = Some(BootId([9; 16]));
        self.die();
    }
}

fn storage(dir: &TempDir, kind: StorageKind) -> Storage {
    Storage::new(StorageOptions {
        root: dir.path().to_owned(),
        kind,
        access: Access::ReadWrite,
        windows_len_max: WINDOWS_LEN_MAX,
        state_dir: Some(dir.path().join("state")),
    })
}

fn name_of(work: &Work) -> &'static str {
    match work {
        Work::Sync { .. } => "sync",
        Work::Prove { .. } => "prove",
        Work::MakeJournal { .. } | Work::MakeFirstJournal { .. } => "make",
        Work::AppendJournal { .. } => "append",
        Work::InstallJournal { .. } => "install",
        Work::SyncJournal { .. } => "sync journal",
        Work::LeaveJournal { .. } => "leave journal",
        Work::OpenJournal { .. } => "open journal",
        Work::Read { .. } => "read",
        Work::Write { .. } => "write",
        Work::FindText { .. } => "find text",
        Work::ReadText { .. } => "read text",
        Work::GiveBack => "give back",
        _ => "other",
    }
}

#[test]
fn pieces_and_blocks_of_a_killed_process_are_taken_up_without_hashing() {
    for kind in KINDS {
        let mut world = World::new(kind);
        assert_eq!(world.add(), (vec![], vec![], vec![]));
        for piece in [1, 2, 3, 12, 13, 16] {
            world.store_piece(piece);
        }
        world.store(5, 0, 16_384);
        world.store(5, 32_768, 5000);
        world.store(6, 81_920, 18_080);
        world.drive();
        world.pass(Duration::from_millis(101));
        world.die();
        let (candidates, vouched, filled) = world.add();
        assert_eq!(candidates, [0; 0], "{kind:?}");
        assert_eq!(vouched, [1, 2, 3, 12, 13, 16], "{kind:?}");
        assert_eq!(filled, [(5, vec![0]), (6, vec![5, 6])], "{kind:?}");
        // A verdict ends what was known of blocks.
        world.store(6, 0, 81_920);
        world.storage.check(ID, PieceIndex(6));
        world.drive();
        world.die();
        let (_, vouched, filled) = world.add();
        assert_eq!(vouched, [1, 2, 3, 6, 12, 13, 16], "{kind:?}");
        assert_eq!(filled, [(5, vec![0])], "{kind:?}");
    }
}

/// Goal: a journal that was closed as nothing was written says all in the end, whatever happened to
/// the file meanwhile.
#[test]
fn journal_of_a_torrent_at_rest_is_closed_and_gone_on_with() {
    type Meddle = fn(&std::path::Path);
    let meddlers: [(&str, Meddle); 4] = [
        ("left alone", |_| ()),
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("put back", |path| {
            fs::rename(path.with_extension("copy"), path).unwrap();
        }),
        ("cut", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(60).unwrap();
        }),
    ];
    for (what, meddle) in meddlers {
        let mut world = World::new(StorageKind::Map);
        world.add();
        world.store_piece(1);
        world.sync();
        let path = world.journal_path();
        fs::copy(&path, path.with_extension("copy")).expect("a journal");
        world.store_piece(2);
        world.sync();
        world.ran.clear();
        world.pass(Duration::from_secs(60));
        assert!(world.ran.contains(&"leave journal"), "{what}");
        meddle(&path);

        world.store_piece(3);
        assert!(world.ran.contains(&"open journal"), "{what}");
        let is_made_anew = world.ran.contains(&"make");
        assert_eq!(is_made_anew, what != "left alone", "{what}");
        assert_eq!(world.journal_of(Claim::Checked), [3], "{what}");
        world.die();
        assert_eq!(world.add().1, [1, 2, 3], "{what}");
    }
}

#[test]
fn many_blocks_wait_less_than_few_to_be_noted() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        let noted = |world: &World| {
            let known = world.journal().filled;
            known
                .values()
                .map(|blocks| blocks.count_ones())
                .sum::<u32>()
        };
        for piece in 0..5 {
            world.store(piece, 0, 6 * 16_384);
        }
        world.pass(Duration::from_millis(60));
        assert_eq!(noted(&world), 0, "{kind:?}");
        world.store(5, 0, 2 * 16_384);
        world.pass(Duration::from_millis(6));
        assert_eq!(noted(&world), 32, "{kind:?}");
        for piece in 6..12 {
            world.store(piece, 0, 6 * 16_384);
        }
        world.pass(Duration::from_millis(3));
        assert_eq!(noted(&world), 32, "{kind:?}");
        world.pass(Duration::from_millis(15));
        assert_eq!(noted(&world), 68, "{kind:?}");
    }
}

#[test]
fn piece_is_noted_in_the_turn_in_which_it_passed() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        world.pass(Duration::from_millis(10));
        for piece in 0..world.count() {
            world.store_piece(piece);
            let held: Vec<u32> = world.journal().claims.held().ones().collect();
            assert_eq!(held, (0..=piece).collect::<Vec<_>>(), "{kind:?}");
        }
    }
}

#[test]
fn machine_that_went_down_leaves_what_was_committed() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..4 {
            world.store_piece(piece);
        }
        world.pass(Duration::from_secs(3));
        assert_eq!(world.journal_of(Claim::Durable), [0, 1, 2, 3], "{kind:?}");
        for piece in 4..7 {
            world.store_piece(piece);
        }
        world.store(9, 0, 16_384);
        world.pass(Duration::from_millis(200));
        world.go_down();
        let (candidates, vouched, filled) = world.add();
        assert_eq!(candidates, [4, 5, 6], "{kind:?}");
        assert_eq!(vouched, [0, 1, 2, 3], "{kind:?}");
        assert_eq!(filled, []);
    }
}

#[test]
fn machine_that_does_not_tell_its_run_counts_as_gone_down() {
    let mut world = World::new(StorageKind::Map);
    let blind = |job: Job| {
        let mut done = jobs::run(job);
        if let Outcome::Scanned(Ok(scan)) = &mut done.outcome {
            scan.boot = None;
        }
        done
    };
    for life in 0..2 {
        world.storage.add(ID, Arc::clone(&world.meta));
        let said = world.drive_with(blind);
        let Some(Event::Scanned {
            vouched,
            candidates,
            ..
        }) = said.last()
        else {
            panic!("{said:?}");
        };
        assert!(vouched.count_ones() == 0);
        assert_eq!(candidates.count_ones(), life);
        world.store_piece(3);
        world.die();
    }
}

#[test]
fn after_a_good_end_nothing_is_hashed_even_after_a_reboot() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..world.count() {
            world.store_piece(piece);
        }
        world.sync();
        world.go_down();
        let all: Vec<u32> = (0..world.count()).collect();
        assert_eq!(world.add(), (vec![], all, vec![]), "{kind:?}");
    }
}

/// Goal: a piece is claimed durable only after a sync of its files that began after its bytes were
/// stored has returned 0.
/// Method: the journal is read before and after each job, while pieces are stored meanwhile.
#[test]
fn no_claim_is_written_before_its_sync() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..5 {
            world.store_piece(piece);
        }
        world.now += Duration::from_secs(2);
        world.storage.tick(world.now);
        let mut syncs = Vec::new();
        while let Some(job) = world.storage.poll_job() {
            if name_of(&job.work) == "sync" {
                syncs.push(job);
            } else {
                let done = jobs::run(job);
                world.storage.job_done(done);
            }
        }
        assert_eq!(syncs.len(), 1, "one commit");
        // Later pieces are in no commit that began before.
        for piece in 5..8 {
            let len = world.meta.geometry().piece_len(PieceIndex(piece));
            world.store(piece, 0, len);
            world.storage.check(ID, PieceIndex(piece));
        }
        world.drive();
        assert_eq!(world.journal_of(Claim::Durable), [0; 0], "{kind:?}");
        assert_eq!(world.journal_of(Claim::Checked), (0..8).collect::<Vec<_>>());
        let sync = syncs.pop().expect("one commit");
        world.storage.job_done(jobs::run(sync));
        world.drive();
        assert_eq!(world.journal_of(Claim::Durable), (0..5).collect::<Vec<_>>());
    }
}

/// Goal: bytes that lay in a buffer while a sync ran are synced by the next one.
#[test]
fn bytes_that_were_buffered_during_a_sync_are_synced_by_the_next() {
    let mut world = World::new(StorageKind::Pwrite);
    world.add();
    world.store_piece(0);
    world.store(1, 0, PIECE_LEN / 2);
    world.now += Duration::from_secs(2);
    world.storage.tick(world.now);
    let mut writes = Vec::new();
    while let Some(job) = world.storage.poll_job() {
        match name_of(&job.work) {
            "write" => writes.push(job),
            _ => world.storage.job_done(jobs::run(job)),
        }
    }
    let write = writes.pop().expect("the first half is written");
    world.store(1, PIECE_LEN / 2, PIECE_LEN / 2);
    world.storage.job_done(jobs::run(write));
    world.drive();
    assert_eq!(world.ran.iter().filter(|ran| **ran == "sync").count(), 1);
    world.storage.check(ID, PieceIndex(1));
    world.ran.clear();
    world.pass(Duration::from_secs(3));
    assert_eq!(world.journal_of(Claim::Durable), [0, 1]);
    let order = world
        .ran
        .iter()
        .filter(|ran| ["write", "sync"].contains(ran));
    assert_eq!(order.copied().collect::<Vec<_>>(), ["write", "sync"]);
}

#[test]
fn settled_does_not_wait_for_a_sync() {
    let mut world = World::new(StorageKind::Pwrite);
    world.add();
    world.store_piece(0);
    world.now += Duration::from_secs(2);
    world.storage.tick(world.now);
    let mut syncs = Vec::new();
    while let Some(job) = world.storage.poll_job() {
        match name_of(&job.work) {
            "sync" => syncs.push(job),
            _ => world.storage.job_done(jobs::run(job)),
        }
    }
    assert_eq!(syncs.len(), 1);
    world.store(1, 0, PIECE_LEN);
    world.storage.settle(ID, Ticket(0));
    let said = world.drive();
    assert!(matches!(said[..], [Event::Settled { .. }]), "{said:?}");
    world.storage.job_done(jobs::run(syncs.remove(0)));
    world.drive();
}

#[test]
fn commits_come_after_a_second_and_under_load_after_half_a_minute() {
    let mut world = World::new(StorageKind::Map);
    world.add();
    world.pass(Duration::from_secs(5));
    world.ran.clear();
    world.store_piece(0);
    world.pass(Duration::from_millis(900));
    assert!(!world.ran.contains(&"sync"));
    world.pass(Duration::from_millis(200));
    assert!(world.ran.contains(&"sync"));
    // Data pours in: 20 MB a second.
    let mut loaded_from = None;
    world.ran.clear();
    for second in 0..40 {
        for _ in 0..20 {
            for _ in 0..10 {
                world.store(9, 0, PIECE_LEN);
            }
            world.pass(Duration::from_millis(50));
        }
        if second == 2 {
            world.store_piece(1);
            loaded_from = Some(world.now);
            world.ran.clear();
        }
        let is_late = loaded_from.is_some_and(|at| world.now - at > Duration::from_secs(32));
        let is_early = loaded_from.is_some_and(|at| world.now - at < Duration::from_secs(28));
        assert!(!is_early || !world.ran.contains(&"sync"), "second {second}");
        assert!(!is_late || world.ran.contains(&"sync"), "second {second}");
    }
}

/// Goal: row 135: what was stored since the last good sync is not vouched for, nothing else is
/// lost, and a second success proves nothing.
#[test]
fn failed_sync_makes_the_pieces_since_the_last_one_doubtful() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..4 {
            world.store_piece(piece);
        }
        world.sync();
        for piece in 4..8 {
            world.store_piece(piece);
        }
        world.now += Duration::from_secs(2);
        let said = world.drive_with(|job| match name_of(&job.work) {
            "sync" => fail(job),
            _ => jobs::run(job),
        });
        assert!(matches!(said[..], [Event::Lapsed { .. }]), "{said:?}");
        assert_eq!(world.journal_of(Claim::Durable), [0, 1, 2, 3]);
        assert_eq!(world.journal_of(Claim::Doubtful), [4, 5, 6, 7]);
        let (candidates, vouched, _) = world.add();
        assert_eq!((candidates, vouched), (vec![4, 5, 6, 7], vec![0, 1, 2, 3]));
        for piece in 4..8 {
            world.storage.check(ID, PieceIndex(piece));
        }
        world.drive();
        assert_eq!(world.journal_of(Claim::Checked), [4, 5, 6, 7]);
        // The page cache may show what the disk does not have: a sync alone is no proof.
        world.ran.clear();
        world.storage.leave(ID, Ticket(0));
        let said = world.drive();
        assert!(matches!(said[..], [Event::Durable { .. }]), "{said:?}");
        assert_eq!(world.journal_of(Claim::Durable), [0, 1, 2, 3]);
        assert!(!world.ran.contains(&"prove"));
        world.storage.memory(ID).expect("remembered").is_leaving = false;
        world.sync();
        assert_eq!(world.journal_of(Claim::Durable), (0..8).collect::<Vec<_>>());
        assert!(world.ran.iter().filter(|ran| **ran == "prove").count() >= 4);
    }
}

#[test]
fn pieces_of_a_killed_process_become_durable_when_the_disk_gave_them_back() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..5 {
            world.store_piece(piece);
        }
        world.die();
        world.add();
        assert_eq!(world.journal_of(Claim::Durable), [0; 0]);
        let said = world.pass(Duration::from_secs(5));
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(world.journal_of(Claim::Durable), (0..5).collect::<Vec<_>>());
    }
}

/// Names that a former process made are safe only when their folders were synced.
#[test]
fn names_that_a_killed_process_made_are_synced_with_the_first_bytes() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        world.store(12, 34_567, 16_384); // of t/sub/b: the file is there, and claims nothing
        world.drive();
        world.die();
        world.add();
        let mut synced = BTreeSet::new();
        // Of t/sub/b; of that and t/c, which is new; of t/c.
        let expected: [(u32, &[&str]); 3] =
            [(12, &["", "t", "t/sub"]), (13, &["", "t"]), (14, &[])];
        for (piece, expected) in expected {
            world.store_piece(piece);
            world.storage.sync(ID, Ticket(0));
            synced.clear();
            world.drive_with(|job| {
                if let Work::Sync { dirs, .. } = &job.work {
                    synced.extend(dirs.iter().map(|dir| dir.display().to_string()));
                }
                jobs::run(job)
            });
            assert!(synced.iter().eq(expected), "{kind:?} {piece}: {synced:?}");
        }
    }
}

/// Reading past the page cache brings the bytes to the disk, but not what makes them visible there
/// after a power cut.
#[test]
fn piece_that_is_read_back_before_its_sync_does_not_become_durable() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        world.store_piece(1);
        world.sync(); // after this good end, whatever was written is looked at
        world.store_piece(0);
        world.die();
        let (_, vouched, _) = world.add();
        assert_eq!(vouched, [0, 1]);
        world.now += Duration::from_secs(2);
        world.ran.clear();
        let said = world.drive_with(|job| match name_of(&job.work) {
            "sync" => fail(job),
            _ => jobs::run(job),
        });
        assert!(matches!(said[..], [Event::Lapsed { .. }]), "{said:?}");
        assert!(world.ran.contains(&"prove"), "{:?}", world.ran);
        assert_eq!(world.journal_of(Claim::Durable), [1]);
        assert_eq!(world.journal_of(Claim::Doubtful), [0]);
    }
}

#[test]
fn piece_that_the_disk_does_not_give_back_is_lost() {
    for kind in KINDS {
        let mut world = World::new(kind);
        world.add();
        for piece in 0..5 {
            world.store_piece(piece);
        }
        world.die();
        world.add();
        // As after a write-back that failed while nobody held the file.
        let file = fs::File::options()
            .write(true)
            .open(world.dir.path().join("t/a"));
        file.expect("there")
            .write_all_at(b"x", 200_123)
            .expect("written");
        let said = world.pass(Duration::from_secs(5));
        assert!(
            matches!(
                said[..],
                [Event::Lost {
                    piece: PieceIndex(2),
                    ..
                }]
            ),
            "{said:?}"
        );
        assert_eq!(world.journal_of(Claim::Durable), [0, 1, 3, 4]);
        assert_eq!(world.journal_of(Claim::Checked), [0; 0]);
        world.store_piece(2);
        world.pass(Duration::from_secs(5));
        assert_eq!(world.journal_of(Claim::Durable), (0..5).collect::<Vec<_>>());
    }
}

#[test]
fn one_wrong_sample_has_all_pieces_of_its_file_read() {
    let mut world = World::new(StorageKind::Map);
    world.add();
    for piece in 0..world.count() {
        world.store_piece(piece);
    }
    world.sync();
    world.die();
    // The same inode and size: only looking tells. Every piece of `a` is wrong.
    let path = world.dir.path().join("t/a");
    fs::write(&path, vec![1; 1_234_567]).expect("written");
    world.add();
    let said = world.pass(Duration::from_secs(5));
    let lost: BTreeSet<u32> = said
        .iter()
        .map(|event| match event {
            Event::Lost { piece, .. } => piece.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, (0..13).collect());
    let held: Vec<u32> = world.journal().claims.held().ones().collect();
    assert_eq!(held, (13..world.count()).collect::<Vec<_>>());
}

#[test]
fn file_that_was_replaced_or_cut_or_is_gone_takes_its_pieces_with_it() {
    type Change = fn(&std::path::Path);
    let copied: Change = |path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).expect("copied");
        fs::rename(copy, path).expect("renamed");
    };
    let cases: [(&str, Change, u32); 4] = [
        ("copied", copied, 13),
        (
            "longer",
            |path| {
                let file = fs::File::options().write(true).open(path).expect("there");
                file.set_len(2_000_000).expect("longer");
            },
            13,
        ),
        (
            "cut",
            |path| {
                let file = fs::File::options().write(true).open(path).expect("there");
                file.set_len(1_000_000).expect("cut");
            },
            10, // the rest of it is looked at
        ),
        ("gone", |path| fs::remove_file(path).expect("removed"), 0),
    ];
    for (name, change, left) in cases {
        for is_rebooted in [false, true] {
            let mut world = World::new(StorageKind::Map);
            world.add();
            for piece in 0..world.count() {
                world.store_piece(piece);
            }
            world.sync();
            if is_rebooted {
                world.boot = Some(BootId([9; 16]));
            }
            world.die();
            change(&world.dir.path().join("t/a"));
            let (candidates, vouched, _) = world.add();
            let of_file: Vec<u32> = (0..left).collect();
            let others: Vec<u32> = (13..world.count()).collect();
            assert_eq!((candidates, vouched), (of_file, others), "{name}");
        }
    }
}

#[test]
fn file_that_is_replaced_under_way_lets_the_torrent_lapse() {
    let mut world = World::new(StorageKind::Map);
    world.add();
    world.store_piece(0);
    world.store_piece(14);
    world.sync();
    world.die();
    world.add();
    let path = world.dir.path().join("t/a");
    fs::rename(&path, world.dir.path().join("elsewhere")).expect("moved");
    world.store(3, 0, PIECE_LEN);
    let said = world.drive();
    let [Event::Lapsed { error, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert!(matches!(error, StorageError::Replaced { .. }), "{error}");
    let held: Vec<u32> = world.journal().claims.held().ones().collect();
    assert_eq!(held, [14]);
}

#[test]
fn recheck_goes_on_where_it_was_and_its_pieces_are_committed() {
    for kind in KINDS {
        let mut world = World::new(kind);
        fs::create_dir_all(world.dir.path().join("t/sub")).expect("a folder");
        for file in &world.meta.files {
            let bytes = &world.data[file.offset as usize..(file.offset + file.len) as usize];
            fs::write(world.dir.path().join(file.path.as_path()), bytes).expect("written");
        }
        let (candidates, vouched, _) = world.add();
        assert_eq!(candidates.len() as u32, world.count());
        assert!(vouched.is_empty());
        for piece in 0..10 {
            world.storage.check(ID, PieceIndex(piece));
        }
        world.drive();
        world.die();
        let (candidates, vouched, _) = world.add();
        assert_eq!(vouched, (0..10).collect::<Vec<_>>(), "{kind:?}");
        assert_eq!(
            candidates,
            (10..world.count()).collect::<Vec<_>>(),
            "{kind:?}"
        );
        for piece in 10..world.count() {
            world.storage.check(ID, PieceIndex(piece));
        }
        world.drive();
        world.pass(Duration::from_secs(5));
        let durable = world.journal_of(Claim::Durable);
        assert_eq!(durable, (0..world.count()).collect::<Vec<_>>(), "{kind:?}");
    }
}

#[test]
fn data_that_was_there_is_committed_with_its_files_and_folders() {
    let mut world = World::new(StorageKind::Map);
    fs::create_dir_all(world.dir.path().join("t/sub")).expect("a folder");
    for file in &world.meta.files {
        let bytes = &world.data[file.offset as usize..(file.offset + file.len) as usize];
        fs::write(world.dir.path().join(file.path.as_path()), bytes).expect("written");
    }
    world.add();
    for piece in 0..world.count() {
        world.storage.check(ID, PieceIndex(piece));
    }
    world.drive();
    let mut synced = BTreeSet::new();
    world.storage.sync(ID, Ticket(0));
    let said = world.drive_with(|job| {
        if let Work::Sync { found, dirs, .. } = &job.work {
            synced.extend(found.iter().chain(dirs).cloned());
        }
        jobs::run(job)
    });
    assert!(matches!(said[..], [Event::Durable { .. }]), "{said:?}");
    let expected = ["", "t", "t/a", "t/c", "t/sub", "t/sub/b"].map(PathBuf::from);
    assert_eq!(synced, expected.into());
    assert_eq!(world.journal_of(Claim::Durable).len() as u32, world.count());
}

#[test]
fn newer_journal_is_refused_and_left_alone() {
    let mut world = World::new(StorageKind::Map);
    world.add();
    world.store_piece(1);
    world.die();
    let mut bytes = fs::read(world.journal_path()).expect("a journal");
    bytes[8] += 1;
    let crc = crate::base::digest::crc32c(0, &bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(world.journal_path(), &bytes).expect("written");
    world.storage.add(ID, Arc::clone(&world.meta));
    let said = world.drive();
    let [Event::Failed { error, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains("version 2") && text.contains(".journal"),
        "{text}"
    );
    assert_eq!(fs::read(world.journal_path()).expect("a journal"), bytes);
}

/// Goal: whatever fails, and whenever the process dies, nothing false is claimed of the next life:
/// a piece that is vouched for is right, and a durable one was synced.
/// Method: random stores, checks, time, failures and deaths; each life compares what it is told
/// with what the files hold.
#[test]
fn nothing_false_is_vouched_for_whatever_fails() {
    for kind in KINDS {
        for rng_seed in 0..25 {
            let mut rng = Rng::new(rng_seed);
            let mut world = World::new(kind);
            for life in 0..6 {
                world.storage.add(ID, Arc::clone(&world.meta));
                let failures = rng.below(8);
                for _ in 0..rng.below(40) {
                    let piece = rng.below(world.count());
                    if rng.below(2) == 0 && world.storage.torrents.contains_key(&ID) {
                        let len = world.meta.geometry().piece_len(PieceIndex(piece));
                        world.store(piece, 0, rng.below(len) + 1);
                        world.store(piece, 0, len);
                        world.storage.check(ID, PieceIndex(piece));
                    }
                    world.now += Duration::from_millis(u64::from(rng.below(900)));
                    world.drive_with(|job| match name_of(&job.work) {
                        "other" | "read" => jobs::run(job),
                        _ if rng.below(100) < failures => fail(job),
                        _ => jobs::run(job),
                    });
                }
                world.die();
                if !world.journal_path().exists() {
                    continue;
                }
                let held = world.journal();
                for piece in held.claims.held().ones() {
                    assert!(
                        world.is_on_disk(piece),
                        "{kind:?}, rng_seed {rng_seed}, life {life}, piece {piece}"
                    );
                }
            }
        }
    }
}

/// Hostile row 134. Goal: whichever job fails, once, with an error of the disk or for want of
/// space: what is vouched for is right, in this life and the next, and with a new attempt the
/// torrent becomes durable.
/// Method: the first job fails, in another run the second, and so on until a run has no more.
#[test]
fn hostile_134_whichever_job_fails_nothing_false_is_claimed_and_another_attempt_succeeds() {
    let errors = [
        StorageError::Io {
            path: "x".into(),
            action: "touch",
            message: "input/output error".to_owned(),
        },
        StorageError::NoSpace {
            path: "x".into(),
            need: 1,
            free: 0,
        },
    ];
    for kind in KINDS {
        for error in &errors {
            let mut told = 0;
            let mut nth = 0;
            while let Some(is_told) = with_one_failure(kind, error, nth) {
                told += u32::from(is_told);
                nth += 1;
            }
            assert!(nth > 20 && told > 5, "{kind:?}: {nth} jobs, {told} told");
        }
    }
}

/// Fetches everything while job number `nth` fails. Says whether anybody was told, if there was
/// such a job.
fn with_one_failure(kind: StorageKind, error: &StorageError, nth: u32) -> Option<bool> {
    let mut world = World::new(kind);
    let (mut count, mut has_failed) = (0, false);
    let mut run = |job: Job| {
        count += 1;
        if count != nth + 1 || matches!(job.work, Work::Unmap { .. }) {
            has_failed |= count == nth + 1;
            return jobs::run(job);
        }
        has_failed = true;
        fail_with(job, error.clone())
    };
    let is_trouble = |e: &Event| matches!(e, Event::Failed { .. } | Event::Lapsed { .. });
    let (mut is_told, mut is_durable) = (false, false);
    for _ in 0..3 {
        world.storage.add(ID, Arc::clone(&world.meta));
        let mut said = world.drive_with(&mut run);
        let vouched = said.iter().find_map(|event| match event {
            Event::Scanned { vouched, .. } => Some(vouched.clone()),
            _ => None,
        });
        let vouched = vouched.unwrap_or_else(|| Bitfield::new(world.count()));
        assert_right(&world, vouched.ones(), nth);
        for piece in (0..world.count()).filter(|&piece| !vouched.has(piece)) {
            let len = world.meta.geometry().piece_len(PieceIndex(piece));
            world.store(piece, 0, len);
            world.storage.check(ID, PieceIndex(piece));
            world.now += Duration::from_millis(150);
            said.extend(world.drive_with(&mut run));
        }
        world.storage.sync(ID, Ticket(0));
        for _ in 0..20 {
            world.now += Duration::from_millis(500);
            said.extend(world.drive_with(&mut run));
        }
        is_durable = said.iter().any(|e| matches!(e, Event::Durable { .. }));
        if !said.iter().any(is_trouble) {
            break;
        }
        is_told = true;
    }
    assert!(is_durable, "{kind:?}, job {nth}: never durable");
    world.die();
    if world.journal_path().exists() {
        let held = world.journal();
        assert_right(&world, held.claims.held().ones(), nth);
    }
    has_failed.then_some(is_told)
}

fn assert_right(world: &World, pieces: impl Iterator<Item = u32>, nth: u32) {
    for piece in pieces {
        let is_right = world.is_on_disk(piece);
        assert!(is_right, "{:?}, job {nth}, piece {piece}", world.kind);
    }
}
