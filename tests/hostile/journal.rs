//! Rows about journals: cut, flipped, foreign, stale, grown, half made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evpeer::base::bits::Bitfield;
use evpeer::base::digest::crc32c;
use evpeer::base::id::{InfoHash, PieceIndex, Ticket, TorrentId};
use evpeer::base::limits::WINDOWS_LEN_MAX;
use evpeer::base::rng::Rng;
use evpeer::base::slot::Slot;
use evpeer::base::time::Instant;
use evpeer::config::StorageKind;
use evpeer::meta::metainfo::Metainfo;
use evpeer::storage::error::StorageError;
use evpeer::storage::jobs::{self, Work};
use evpeer::storage::journal::{
    Binding, BootId, Claim, Knowledge, Record, Stamp, Unusable, encode_snapshot, replay,
};
use evpeer::storage::{Access, Event, Pace, Storage, StorageOptions};
use sha1::{Digest, Sha1};

use crate::support;

const TORRENT: TorrentId = TorrentId(1);
const KINDS: [StorageKind; 2] = [StorageKind::Map, StorageKind::Pwrite];

fn binding() -> Binding {
    Binding {
        info_hash: InfoHash([7; 20]),
        length: 61 * 65_536 - 100,
        piece_len: 65_536,
        piece_count: 61,
        file_count: 3,
        layout: 99,
    }
}

/// A journal in which every kind of record occurs, and what it says after each of its frames, by
/// the length up to there.
fn journal() -> (Vec<u8>, BTreeMap<usize, Knowledge>) {
    let binding = binding();
    let mut known = Knowledge::nothing(&binding, Some(BootId([3; 16])));
    known.generation = 5;
    known.apply(&Record::Checked((20..33).collect()), &binding);
    known.apply(&Record::Durable((25..30).collect()), &binding);
    known.apply(&Record::Doubted(vec![50, 51]), &binding);
    let some = [0..1, 3..4].to_vec();
    known.apply(&Record::Filled(vec![(PieceIndex(60), some)]), &binding);
    let (mut bytes, mut chain) = encode_snapshot(&binding, &known);
    let mut says = BTreeMap::from([(bytes.len(), known.clone())]);
    let one_run = std::iter::once(1..3).collect();
    let records = [
        Record::Checked(vec![0, 1, 2, 7, 9]),
        Record::Filled(vec![(PieceIndex(11), one_run)]),
        Record::Durable(vec![0, 1, 2]),
        Record::Stamped(vec![(1, Stamp::new(1, 2, 3, 4))]),
        Record::Dropped(vec![9, 26]),
        Record::Doubted(vec![27]),
        Record::Checked(vec![11]),
        Record::Durable(vec![7, 11]),
        Record::Timed(vec![(0, 5), (2, 6)]),
    ];
    for record in &records {
        chain.encode(record, &mut bytes);
        known.apply(record, &binding);
        says.insert(bytes.len(), known.clone());
    }
    (bytes, says)
}

/// What the longest whole beginning within `len` bytes says.
fn prefix(says: &BTreeMap<usize, Knowledge>, len: usize) -> Option<&Knowledge> {
    says.range(..=len).next_back().map(|(_, known)| known)
}

#[test]
fn hostile_140_journal_cut_at_every_byte_says_what_its_whole_beginning_says() {
    let (bytes, says) = journal();
    for len in 0..=bytes.len() {
        let found = replay(&bytes[..len], &binding());
        match prefix(&says, len) {
            None => assert!(found.is_err(), "{len} B"),
            Some(known) => {
                let found = found.expect("its snapshot is whole");
                assert_eq!(&found.knowledge, known, "{len} B");
                assert!(says.contains_key(&(found.len as usize)), "{len} B");
            }
        }
    }
}

#[test]
fn hostile_141_every_flipped_bit_ends_the_journal_and_adds_no_claim() {
    let (bytes, says) = journal();
    let ends: Vec<usize> = says.keys().copied().collect();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            // Everything up to the frame that is hurt holds, and nothing else.
            let whole = ends.iter().rev().find(|&&end| end <= at);
            let found = replay(&flipped, &binding());
            match whole {
                None => assert!(
                    matches!(found, Err(Unusable::NotAJournal | Unusable::Damaged)),
                    "bit {bit} of byte {at}: {found:?}"
                ),
                Some(end) => {
                    let found = found.expect("its snapshot is whole");
                    assert_eq!(found.knowledge, says[end], "bit {bit} of byte {at}");
                }
            }
        }
    }
}

#[test]
fn hostile_142_journal_of_anything_else_is_ignored_and_a_newer_one_refused() {
    let (bytes, _) = journal();
    let ours = binding();
    let others = [
        (
            "another torrent",
            Binding {
                info_hash: InfoHash([8; 20]),
                ..ours
            },
        ),
        (
            "other pieces",
            Binding {
                piece_len: 131_072,
                ..ours
            },
        ),
        (
            "one piece more",
            Binding {
                piece_count: 62,
                ..ours
            },
        ),
        (
            "another length",
            Binding {
                length: 61 * 65_536,
                ..ours
            },
        ),
        (
            "more files",
            Binding {
                file_count: 4,
                ..ours
            },
        ),
        ("other files", Binding { layout: 98, ..ours }),
    ];
    for (name, other) in others {
        assert_eq!(replay(&bytes, &other), Err(Unusable::Foreign), "{name}");
    }
    let with_version = |version: u16| {
        let mut bytes = bytes.clone();
        bytes[8..10].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c(0, &bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        replay(&bytes, &ours)
    };
    assert_eq!(with_version(2), Err(Unusable::TooNew { version: 2 }));
    assert_eq!(with_version(0), Err(Unusable::TooOld { version: 0 }));
    // Every number the other way round: the checksum of the first lines does not hold.
    let mut swapped = bytes.clone();
    swapped[8..10].reverse();
    swapped[12..16].reverse();
    assert_eq!(replay(&swapped, &ours), Err(Unusable::NotAJournal));
    let mut rng = Rng::new(1);
    for len in [0, 1, 15, 16, 17, 1000, 100_000] {
        let noise: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        assert_eq!(replay(&noise, &ours), Err(Unusable::NotAJournal));
    }
}

#[test]
fn hostile_143_tail_of_zeros_or_of_records_that_do_not_belong_there_is_cut_off() {
    let (bytes, says) = journal();
    let ends: Vec<usize> = says.keys().copied().collect();
    let frames: Vec<&[u8]> = ends.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
    let whole = &says[&bytes.len()];
    // The same records of an older snapshot of the same torrent.
    let mut older = says[&ends[0]].clone();
    older.generation -= 1;
    let (mut stale, mut chain) = encode_snapshot(&binding(), &older);
    let begin = stale.len();
    for _ in 0..frames.len() {
        chain.encode(&Record::Checked(vec![40, 41]), &mut stale);
    }
    let tails = [
        ("zeros", vec![0; 5000]),
        ("ones", vec![0xff; 5000]),
        ("all records again", bytes[ends[0]..].to_vec()),
        (
            "the last record again",
            frames.last().expect("records").to_vec(),
        ),
        ("the whole journal again", bytes.clone()),
        ("records of an older one", stale[begin..].to_vec()),
    ];
    for (name, tail) in tails {
        let found = replay(&[&bytes[..], &tail].concat(), &binding()).expect("usable");
        assert_eq!(&found.knowledge, whole, "{name}");
        assert_eq!(found.len, bytes.len() as u64, "{name}");
    }
    // The records in any other order: those before the first that is out of place hold.
    let mut rng = Rng::new(3);
    for _ in 0..500 {
        let mut order: Vec<usize> = (0..frames.len()).collect();
        rng.shuffle(&mut order);
        let shuffled: Vec<u8> = order.iter().flat_map(|&i| frames[i]).copied().collect();
        let found = replay(&[&bytes[..ends[0]], &shuffled].concat(), &binding()).expect("usable");
        let in_place = order.iter().zip(0..).take_while(|(i, place)| **i == *place);
        assert_eq!(found.knowledge, says[&ends[in_place.count()]], "{order:?}");
    }
    // A page of zeros somewhere within.
    for at in (ends[0]..bytes.len()).step_by(7) {
        let mut holed = bytes.clone();
        let end = (at + 64).min(holed.len());
        holed[at..end].fill(0);
        let first = (at..end).find(|&at| holed[at] != bytes[at]);
        let Some(at) = first else {
            continue; // there were zeros before
        };
        let found = replay(&holed, &binding()).expect("usable");
        assert_eq!(Some(&found.knowledge), prefix(&says, at));
    }
}

/// A torrent of one file `d/a`, all of its bytes 7.
fn sevens(len: usize, piece_len: usize) -> (Arc<Metainfo>, Vec<u8>) {
    let data = vec![7; len];
    let hashes: Vec<u8> = data.chunks(piece_len).flat_map(Sha1::digest).collect();
    let head = format!(
        "d4:infod5:filesld6:lengthi{len}e4:pathl1:d1:aeee4:name1:t12:piece lengthi{piece_len}e\
         6:pieces{}:",
        hashes.len()
    );
    let bytes = [head.as_bytes(), &hashes, b"ee"].concat();
    (
        Arc::new(Metainfo::from_bytes(&bytes).expect("a torrent")),
        data,
    )
}

/// A process over one folder, driven by hand.
struct Process {
    storage: Storage,
    now: Instant,
    said: Vec<Event>,
}

impl Process {
    fn begin(root: &Path, kind: StorageKind) -> Self {
        Self {
            storage: Storage::new(StorageOptions {
                root: root.to_owned(),
                kind,
                access: Access::ReadWrite,
                windows_len_max: WINDOWS_LEN_MAX,
                state_dir: Some(root.join("state")),
            }),
            now: Instant::from_micros(1),
            said: Vec::new(),
        }
    }

    /// Runs jobs until nothing is left to do, or `jobs` were run: then the process dies.
    fn drive(&mut self, jobs: &mut u32) -> bool {
        loop {
            let mut is_idle = true;
            self.storage.tick(self.now);
            while let Some(job) = self.storage.poll_job() {
                if *jobs == 0 {
                    return false;
                }
                *jobs -= 1;
                is_idle = false;
                self.storage.job_done(jobs::run(job));
            }
            is_idle &= self.storage.work(64 << 20, Pace::AtOnce) == 0;
            while let Some(event) = self.storage.poll_event() {
                is_idle = false;
                self.said.push(event);
            }
            if is_idle {
                return true;
            }
        }
    }

    fn add(&mut self, meta: &Arc<Metainfo>) -> Result<(Bitfield, Bitfield), StorageError> {
        self.storage.add(TORRENT, Arc::clone(meta));
        assert!(self.drive(&mut u32::MAX.clone()));
        match self.said.pop() {
            Some(Event::Scanned {
                candidates,
                vouched,
                ..
            }) => Ok((candidates, vouched)),
            Some(Event::Failed { error, .. }) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn store(&mut self, piece: u32, bytes: &[u8]) {
        let slot = Slot {
            torrent: TORRENT,
            piece: PieceIndex(piece),
            begin: 0,
            len: bytes.len() as u32,
        };
        self.storage.store(slot, bytes);
        self.storage.check(TORRENT, PieceIndex(piece));
    }
}

fn journal_path(root: &Path, meta: &Metainfo) -> PathBuf {
    root.join(format!("state/{}.journal", meta.info_hash))
}

fn folder(scratch: &Path) -> PathBuf {
    fs::create_dir_all(scratch.join("state")).expect("writable");
    scratch.to_owned()
}

#[test]
fn hostile_142_claims_of_a_copied_folder_are_not_believed() {
    for kind in KINDS {
        let scratch = support::scratch();
        let root = folder(&scratch.path().join("first"));
        let (meta, data) = sevens(300_000, 100_000);
        let mut first = Process::begin(&root, kind);
        first.add(&meta).expect("taken up");
        for piece in 0..3 {
            first.store(piece, &data[..100_000]);
        }
        first.storage.sync(TORRENT, Ticket(0));
        assert!(first.drive(&mut u32::MAX.clone()));
        drop(first);
        // Everything was copied, journal and all, and then the copy was spoilt.
        let copy = folder(&scratch.path().join("copy"));
        fs::create_dir_all(copy.join("t/d")).expect("writable");
        fs::copy(journal_path(&root, &meta), journal_path(&copy, &meta)).expect("copied");
        for (name, content, worth_a_look) in [
            ("whole", Some(vec![0; 300_000]), 3),
            ("short", Some(vec![7; 100]), 0),
            ("missing", None, 0),
        ] {
            match content {
                Some(content) => fs::write(copy.join("t/d/a"), content).expect("written"),
                None => fs::remove_file(copy.join("t/d/a")).expect("removed"),
            }
            let (candidates, vouched) = Process::begin(&copy, kind).add(&meta).expect("taken up");
            assert_eq!(vouched.count_ones(), 0, "{name}");
            assert_eq!(candidates.count_ones(), worth_a_look, "{name}");
        }
    }
}

#[test]
fn hostile_144_a_million_pieces_and_ten_thousand_restarts_do_not_make_it_grow() {
    // All pieces of a torrent of 2^20, one after the other in records of a few.
    let large = Binding {
        length: 1 << 34,
        piece_len: 1 << 14,
        piece_count: 1 << 20,
        ..binding()
    };
    let mut rng = Rng::new(4);
    let mut known = Knowledge::nothing(&large, None);
    let (mut bytes, mut chain) = encode_snapshot(&large, &known);
    let mut rewritten = 0;
    for first in (0..large.piece_count).step_by(64) {
        let some: Vec<u32> = (first..first + 64).filter(|_| rng.below(2) == 0).collect();
        for record in [Record::Checked(some.clone()), Record::Durable(some)] {
            known.apply(&record, &large);
            chain.encode(&record, &mut bytes);
        }
        if bytes.len() as u64 > large.journal_len_max() - 1000 {
            assert_eq!(replay(&bytes, &large).expect("usable").knowledge, known);
            (bytes, chain) = encode_snapshot(&large, &known);
            rewritten += 1;
        }
        assert!(bytes.len() as u64 <= large.journal_len_max());
    }
    assert!(rewritten > 5, "{rewritten} times");
    assert_eq!(large.journal_len_max(), 2 * (1 << 20) / 8 + 65_536);

    // Restarts of a process that stores a little and dies.
    let restarts = if support::is_nightly() { 10_000 } else { 500 };
    for kind in KINDS {
        let scratch = support::scratch();
        let root = folder(scratch.path());
        let (meta, data) = sevens(40 * 16_384, 16_384);
        let len_max = Binding::of(&meta).journal_len_max();
        for life in 0..restarts {
            let mut process = Process::begin(&root, kind);
            let (_, vouched) = process.add(&meta).expect("taken up");
            assert_eq!(vouched.count_ones(), life.min(40), "{kind:?}");
            if life < 40 {
                process.store(life, &data[..16_384]);
            }
            assert!(process.drive(&mut u32::MAX.clone()));
            drop(process);
            let len = fs::metadata(journal_path(&root, &meta))
                .expect("a journal")
                .len();
            assert!(len <= len_max, "{len} B after {life} restarts");
        }
        let names: BTreeSet<_> = fs::read_dir(root.join("state"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names.len(), 1, "nothing is left behind: {names:?}");
    }
}

/// Goal: whenever the process dies while the first journal is made, the next start is as the first
/// one, or knows what is true.
/// Method: it dies after every number of jobs; the half-made file of each is left in place.
#[test]
fn hostile_145_death_during_the_very_first_creation_is_a_fresh_start() {
    let (meta, data) = sevens(300_000, 100_000);
    for kind in KINDS {
        for jobs in 0.. {
            let scratch = support::scratch();
            let root = folder(scratch.path());
            let mut first = Process::begin(&root, kind);
            first.storage.add(TORRENT, Arc::clone(&meta));
            let mut left = jobs;
            let mut is_over = first.drive(&mut left);
            if is_over {
                first.store(1, &data[..100_000]);
                is_over = first.drive(&mut left);
            }
            drop(first);
            let beside = journal_path(&root, &meta).with_extension("journal.new");
            if !journal_path(&root, &meta).exists() {
                // As a crash within the job that writes it would leave it.
                fs::write(beside, b"half a jour").expect("written");
            }
            let mut second = Process::begin(&root, kind);
            let (candidates, vouched) = second.add(&meta).expect("taken up");
            let is_known = is_over || vouched.has(1) || candidates.has(1);
            assert!(
                is_known || vouched.count_ones() == 0,
                "{kind:?} after {jobs} jobs"
            );
            for piece in 0..3 {
                if !vouched.has(piece) {
                    second.store(piece, &data[..100_000]);
                }
            }
            second.storage.sync(TORRENT, Ticket(0));
            assert!(second.drive(&mut u32::MAX.clone()));
            drop(second);
            let (_, vouched) = Process::begin(&root, kind).add(&meta).expect("taken up");
            assert!(vouched.is_full(), "{kind:?} after {jobs} jobs");
            let kept = fs::read(root.join("t/d/a")).expect("the file");
            assert!(kept == data, "{kind:?} after {jobs} jobs");
            if is_over {
                assert!(jobs > 5, "there is something to die in");
                break;
            }
        }
    }
}

/// Goal: row 134 for what is remembered: whichever job fails, nothing false is claimed.
/// Method: the n-th job of a short life fails, for every n; the next life looks at the claims.
#[test]
fn hostile_134_whichever_job_fails_no_claim_is_false() {
    let (meta, data) = sevens(300_000, 100_000);
    for kind in KINDS {
        for n in 0.. {
            let scratch = support::scratch();
            let root = folder(scratch.path());
            let mut process = Process::begin(&root, kind);
            process.storage.add(TORRENT, Arc::clone(&meta));
            let mut count = 0;
            let mut has_failed = false;
            for piece in 0..3 {
                drive_with(&mut process, &mut count, n, &mut has_failed);
                process.store(piece, &data[..100_000]);
                process.now += std::time::Duration::from_secs(2);
            }
            drive_with(&mut process, &mut count, n, &mut has_failed);
            process.storage.sync(TORRENT, Ticket(0));
            drive_with(&mut process, &mut count, n, &mut has_failed);
            drop(process);
            if let Ok(bytes) = fs::read(journal_path(&root, &meta)) {
                let known = replay(&bytes, &Binding::of(&meta))
                    .expect("usable")
                    .knowledge;
                let kept = fs::read(root.join("t/d/a")).unwrap_or_default();
                for piece in known.claims.held().ones() {
                    let at = piece as usize * 100_000;
                    let found = kept.get(at..at + 100_000);
                    assert!(
                        found == Some(&data[..100_000]),
                        "{kind:?}, job {n}: piece {piece}"
                    );
                }
                let is_all = known.claims.of(Claim::Durable).count() == 3;
                assert!(is_all || has_failed, "{kind:?}, job {n}");
            }
            if !has_failed {
                break;
            }
        }
    }
}

fn drive_with(process: &mut Process, count: &mut u32, n: u32, has_failed: &mut bool) {
    loop {
        let mut is_idle = true;
        process.storage.tick(process.now);
        while let Some(job) = process.storage.poll_job() {
            is_idle = false;
            let is_it = *count == n;
            *count += 1;
            *has_failed |= is_it;
            let done = if is_it { failing(job) } else { jobs::run(job) };
            process.storage.job_done(done);
        }
        is_idle &= process.storage.work(64 << 20, Pace::AtOnce) == 0;
        while process.storage.poll_event().is_some() {
            is_idle = false;
        }
        if is_idle {
            return;
        }
    }
}

/// Runs a job whose result is an input/output error; what can be done by half is.
fn failing(job: jobs::Job) -> jobs::Done {
    use jobs::{Done, MapError, Outcome};
    let error = StorageError::Io {
        path: "x".into(),
        action: "use",
        message: "input/output error".into(),
    };
    let outcome = match job.work {
        Work::Scan { .. } => Outcome::Scanned(Err(error)),
        Work::CreateEmpty { .. } => Outcome::CreatedEmpty(Err(error)),
        Work::Open { .. } => Outcome::Opened(Err(error)),
        Work::Map { .. } => Outcome::Mapped(Err(MapError::Failed(error))),
        Work::Unmap { .. } => Outcome::Unmapped,
        Work::Read { .. } => Outcome::Read(Err(error)),
        Work::LookAtFiles { files, .. } => Outcome::Looked(files.iter().map(|_| None).collect()),
        Work::LookAtTimes { meta, .. } => Outcome::Times(vec![0; meta.files.len()]),
        Work::FindText { .. } => Outcome::TextFound(false),
        Work::GiveBack => Outcome::GaveBack,
        Work::ReadText { .. } => Outcome::TextRead(Err(error)),
        Work::Prove { .. } => Outcome::Proved(Err(error)),
        Work::OpenJournal { .. } => Outcome::JournalMade(Err(error)),
        Work::LeaveJournal { .. } => Outcome::JournalLeft(Err(error)),
        Work::MakeJournal { path, bytes } | Work::MakeFirstJournal { path, bytes } => {
            let half = &bytes[..bytes.len() / 2];
            fs::write(path.with_extension("journal.new"), half).expect("written");
            Outcome::JournalMade(Err(error))
        }
        Work::Populate { .. }
        | Work::Write { .. }
        | Work::Sync { .. }
        | Work::Close { .. }
        | Work::AppendJournal { .. }
        | Work::InstallJournal { .. }
        | Work::SyncJournal { .. }
        | Work::RemoveJournal { .. } => Outcome::Finished(Err(error)),
    };
    Done {
        id: job.id,
        outcome,
    }
}
