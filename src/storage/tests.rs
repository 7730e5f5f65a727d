//! Both backings against real files in a temporary folder; jobs run here, in whatever order a
//! test wants.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use tempfile::TempDir;

use super::jobs::MapError;
use super::*;
use crate::base::digest::{block_digest, sha1};
use crate::base::limits::{BLOCK_LEN, FILES_OPEN_MAX, WINDOWS_COUNT_MAX, WINDOWS_LEN_MAX};
use crate::base::plan::WritePlan;
use crate::base::rng::Rng;
use crate::base::slot::Slot;
use crate::meta::geometry::FileKind;

const KINDS: [StorageKind; 2] = [StorageKind::Map, StorageKind::Pwrite];
const ID: TorrentId = TorrentId(7);

/// A torrent named `t` whose files have these paths, lengths and BEP 47 attributes.
pub(super) fn torrent(piece_len: u32, files: &[(&str, u64, &str)]) -> (Arc<Metainfo>, Vec<u8>) {
    let mut rng = Rng::new(files.len() as u64);
    let mut data = Vec::new();
    let mut list = String::new();
    for (path, len, attr) in files {
        let from = data.len();
        data.resize(from + *len as usize, 0);
        if !attr.contains('p') {
            for chunk in data[from..].chunks_mut(8) {
                chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
            }
        }
        let names: String = path
            .split('/')
            .map(|name| format!("{}:{name}", name.len()))
            .collect();
        list += &format!(
            "d4:attr{}:{attr}6:lengthi{len}e4:pathl{names}ee",
            attr.len()
        );
    }
    let hashes: Vec<u8> = data.chunks(piece_len as usize).flat_map(sha1).collect();
    (metainfo(piece_len, &list, &hashes), data)
}

fn metainfo(piece_len: u32, list: &str, hashes: &[u8]) -> Arc<Metainfo> {
    let mut bytes = format!(
        "d4:infod5:filesl{list}e4:name1:t12:piece lengthi{piece_len}e6:pieces{}:",
        hashes.len()
    )
    .into_bytes();
    bytes.extend_from_slice(hashes);
    bytes.extend_from_slice(b"ee");
    Arc::new(Metainfo::from_bytes(&bytes).unwrap())
}

/// Files of all sorts: longer than windows, tiny, without bytes, pads, and borders everywhere.
fn mixed() -> Vec<(&'static str, u64, &'static str)> {
    vec![
        ("empty", 0, ""),
        ("long", 3 * WINDOW_LEN + 12_345, ""),
        ("sub/one", 1, ""),
        ("sub/two", 2, "x"),
        (".pad/1", 70_000, "p"),
        ("sub/deep/er/page", 4096, ""),
        ("sub/deep/er/block", 16_384, ""),
        ("nothing", 0, ""),
        ("window", WINDOW_LEN, ""),
        ("tail", 77_777, ""),
        (".pad/2", 33, "p"),
    ]
}

/// A storage, its folder, and what it said.
struct World {
    dir: TempDir,
    storage: Storage,
    events: Vec<Event>,
    /// Jobs that were polled but not executed, and results that were not delivered.
    held: Vec<Result<Job, Done>>,
    jobs_run: usize,
}

impl World {
    fn new(kind: StorageKind, windows: u64) -> Self {
        Self::at(TempDir::new().unwrap(), kind, Access::ReadWrite, windows)
    }

    fn at(dir: TempDir, kind: StorageKind, access: Access, windows: u64) -> Self {
        let storage = Storage::new(StorageOptions {
            root: dir.path().to_owned(),
            kind,
            access,
            windows_len_max: windows * WINDOW_LEN,
            state_dir: None,
        });
        Self {
            dir,
            storage,
            events: Vec::new(),
            held: Vec::new(),
            jobs_run: 0,
        }
    }

    /// Runs jobs and hashes until nothing is left to do.
    fn drive(&mut self) {
        self.drive_with(jobs::run);
    }

    /// Likewise, with something else in the place of the operating system.
    fn drive_with(&mut self, mut run: impl FnMut(Job) -> Done) {
        for held in std::mem::take(&mut self.held) {
            let done = held.map(&mut run).unwrap_or_else(|done| done);
            self.storage.job_done(done);
        }
        loop {
            let mut is_idle = true;
            while let Some(job) = self.storage.poll_job() {
                is_idle = false;
                self.jobs_run += 1;
                let done = run(job);
                self.storage.job_done(done);
                self.assert_limits();
            }
            is_idle &= self.storage.work(1 << 20, Pace::AtOnce) == 0;
            while let Some(event) = self.storage.poll_event() {
                is_idle = false;
                self.events.push(event);
            }
            if is_idle {
                break;
            }
        }
        assert!(!self.storage.has_work());
        assert_eq!(self.storage.status(), DiskStatus::default());
    }

    /// Executes or delivers one job out of turn.
    fn step(&mut self, rng: &mut Rng) {
        while let Some(job) = self.storage.poll_job() {
            self.held.push(Ok(job));
        }
        if self.held.is_empty() {
            return;
        }
        let index = (rng.next_u64() % self.held.len() as u64) as usize;
        match self.held.swap_remove(index) {
            Ok(job) => self.held.push(Err(jobs::run(job))),
            Err(done) => self.storage.job_done(done),
        }
        self.assert_limits();
    }

    fn assert_limits(&self) {
        let (len, count) = self.storage.windows.in_use();
        assert!(len <= self.storage.windows_len_max, "{len} B of windows");
        assert!(count <= WINDOWS_COUNT_MAX, "{count} windows");
        let files = self.storage.open_files.len();
        assert!(files <= FILES_OPEN_MAX, "{files} files");
    }

    fn add(&mut self, meta: &Arc<Metainfo>) -> Bitfield {
        self.storage.add(ID, Arc::clone(meta));
        self.drive();
        match self.events.pop() {
            Some(Event::Scanned { candidates, .. }) => candidates,
            other => panic!("{other:?}"),
        }
    }

    /// The mount points that the output folder lies on.
    fn mounts_of_folder(&mut self, meta: &Arc<Metainfo>) -> Vec<String> {
        self.add(meta);
        let mounts = self.storage.mounts(meta.info_hash).to_vec();
        self.storage.remove(ID);
        self.drive();
        mounts
    }

    fn add_error(&mut self, meta: &Arc<Metainfo>) -> StorageError {
        self.storage.add(ID, Arc::clone(meta));
        self.drive();
        self.failure()
    }

    fn failure(&mut self) -> StorageError {
        match self.events.pop() {
            Some(Event::Failed { error, .. } | Event::Lapsed { error, .. }) => error,
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self, piece: u32) -> Verdict {
        self.storage.check(ID, PieceIndex(piece));
        self.drive();
        match self.events.pop() {
            Some(Event::Checked { verdict, .. }) => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn store_piece(&mut self, meta: &Metainfo, data: &[u8], piece: u32) {
        let at = meta.geometry().offset(PieceIndex(piece), 0) as usize;
        let len = meta.geometry().piece_len(PieceIndex(piece));
        self.storage
            .store(slot(piece, 0, len), &data[at..at + len as usize]);
    }

    fn store_all(&mut self, meta: &Metainfo, data: &[u8]) {
        self.storage.create_empty_files(ID);
        for piece in 0..meta.geometry().piece_count() {
            self.store_piece(meta, data, piece);
            self.drive();
        }
    }

    fn settle(&mut self) {
        self.storage.settle(ID, Ticket(0));
        self.drive();
        assert!(matches!(self.events.pop(), Some(Event::Settled { .. })));
    }

    fn lent(&mut self, plan: &WritePlan) -> Lent<Vec<u8>> {
        self.storage.lend(plan, |slices| {
            slices.iter().flat_map(|s| s.to_vec()).collect()
        })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("t").join(name)
    }

    fn assert_files(&self, meta: &Metainfo, data: &[u8]) {
        for file in &meta.files {
            let path = self.dir.path().join(file.path.as_path());
            if file.kind == FileKind::Pad {
                assert!(!path.exists(), "{}", file.path);
                continue;
            }
            let expected = &data[file.offset as usize..][..file.len as usize];
            assert!(fs::read(&path).unwrap() == expected, "{}", file.path);
        }
    }
}

fn slot(piece: u32, begin: u32, len: u32) -> Slot {
    Slot {
        torrent: ID,
        piece: PieceIndex(piece),
        begin,
        len,
    }
}

fn write_files(root: &Path, meta: &Metainfo, data: &[u8]) {
    for file in &meta.files {
        if file.kind == FileKind::Data {
            let path = root.join(file.path.as_path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &data[file.offset as usize..][..file.len as usize]).unwrap();
        }
    }
}

/// Goal: what is stored ends up in the files, whatever the order and the size of the chunks, the
/// number of windows, and the order in which jobs run and return.
/// Method: seeded shuffles; every piece is checked as soon as it is stored.
#[test]
fn stored_bytes_reach_the_files_in_any_order() {
    for kind in KINDS {
        for rng_seed in 0..12 {
            let piece_len = [16_384, 32_768, 100_000, 1 << 20, 3 << 20][rng_seed as usize % 5];
            let windows = [1, 2, 3, 64][rng_seed as usize % 4];
            let (meta, data) = torrent(piece_len, &mixed());
            let mut rng = Rng::new(rng_seed);
            let mut world = World::new(kind, windows);
            world.add(&meta);
            world.storage.create_empty_files(ID);
            let mut left: Vec<u32> = (0..meta.geometry().piece_count()).collect();
            while !left.is_empty() {
                let piece = left.swap_remove((rng.next_u64() % left.len() as u64) as usize);
                if rng.below(2) == 0 {
                    world.storage.prepare(ID, PieceIndex(piece));
                }
                let mut chunks = chunks_of(meta.geometry().piece_len(PieceIndex(piece)), &mut rng);
                let at = meta.geometry().offset(PieceIndex(piece), 0) as usize;
                while !chunks.is_empty() {
                    let (begin, len) =
                        chunks.swap_remove((rng.next_u64() % chunks.len() as u64) as usize);
                    let bytes = &data[at + begin as usize..][..len as usize];
                    world.storage.store(slot(piece, begin, len), bytes);
                    if rng.below(4) == 0 {
                        world.step(&mut rng);
                    }
                }
                world.storage.check(ID, PieceIndex(piece));
                if rng.below(4) == 0 {
                    world.storage.work(rng.next_u64() % (1 << 20), Pace::AtOnce);
                }
            }
            world.storage.settle(ID, Ticket(0));
            world.drive();
            let good = world.events.iter().filter(|event| {
                matches!(event, Event::Checked { verdict, .. }
                    if *verdict == Verdict::Good { blocks: vec![] })
            });
            let pieces = meta.geometry().piece_count() as usize;
            assert_eq!(good.count(), pieces, "{kind:?} rng_seed {rng_seed}");
            world.assert_files(&meta, &data);
        }
    }
}

/// Cuts `len` bytes into chunks of random lengths.
fn chunks_of(len: u32, rng: &mut Rng) -> Vec<(u32, u32)> {
    let mut chunks = Vec::new();
    let mut begin = 0;
    while begin < len {
        let n = (1 + rng.next_u64() as u32 % (2 * BLOCK_LEN)).min(len - begin);
        chunks.push((begin, n));
        begin += n;
    }
    chunks
}

#[test]
fn two_windows_are_enough_for_many_long_pieces_at_once() {
    for kind in KINDS {
        let (meta, data) = torrent(4 << 20, &[("a", 20 << 20, "")]);
        let mut world = World::new(kind, 2);
        world.add(&meta);
        let pieces = meta.geometry().piece_count();
        for begin in (0..4 << 20).step_by(BLOCK_LEN as usize) {
            for piece in 0..pieces {
                world.storage.prepare(ID, PieceIndex(piece));
                let at = meta.geometry().offset(PieceIndex(piece), begin) as usize;
                let bytes = &data[at..at + BLOCK_LEN as usize];
                world.storage.store(slot(piece, begin, BLOCK_LEN), bytes);
            }
            if begin % (1 << 18) == 0 {
                world.drive();
            }
        }
        (0..pieces).for_each(|piece| world.storage.check(ID, PieceIndex(piece)));
        world.drive();
        assert_eq!(world.events.len(), pieces as usize, "{:?}", world.events);
        world.settle();
        world.assert_files(&meta, &data);
    }
}

#[test]
fn bad_piece_is_told_with_the_digest_of_each_block() {
    for kind in KINDS {
        let (meta, data) = torrent(100_000, &[("a", 250_001, ""), ("b", 49_999, "")]);
        let mut world = World::new(kind, 2);
        world.add(&meta);
        let mut wrong = data.clone();
        wrong[200_000 + 2 * BLOCK_LEN as usize] ^= 1;
        let blocks = |of: &[u8]| -> Vec<u64> {
            of[200_000..]
                .chunks(BLOCK_LEN as usize)
                .map(block_digest)
                .collect()
        };
        world.store_piece(&meta, &wrong, 2);
        let bad = Verdict::Bad {
            blocks: blocks(&wrong),
        };
        assert_eq!(world.check(2), bad, "{kind:?}");
        world.store_piece(&meta, &data, 2);
        let after_failure = Verdict::Good {
            blocks: blocks(&data),
        };
        assert_eq!(world.check(2), after_failure, "{kind:?}");
        assert_eq!(world.check(2), Verdict::Good { blocks: vec![] }, "{kind:?}");
        assert_ne!(blocks(&wrong)[2], blocks(&data)[2]);
    }
}

#[test]
fn data_that_is_there_is_found_and_not_touched() {
    for kind in KINDS {
        let (meta, data) = torrent(50_000, &mixed());
        let dir = TempDir::new().unwrap();
        write_files(dir.path(), &meta, &data);
        let long = dir.path().join("t/long");
        let mut too_long = fs::read(&long).unwrap();
        too_long.extend_from_slice(b"more than the torrent says");
        fs::write(&long, &too_long).unwrap();
        fs::write(dir.path().join("t/tail"), b"short").unwrap();
        fs::remove_file(dir.path().join("t/sub/one")).unwrap();
        let before = fs::metadata(&long).unwrap();

        let mut world = World::at(dir, kind, Access::ReadWrite, 4);
        let candidates = world.add(&meta);
        let geometry = meta.geometry();
        for piece in 0..geometry.piece_count() {
            let is_whole = ![2, 9]
                .iter()
                .any(|&file| geometry.pieces_of_file(file).contains(&piece));
            assert_eq!(candidates.has(piece), is_whole, "piece {piece}");
            let is_there = !geometry.pieces_of_file(2).contains(&piece);
            let expected = match (is_whole, is_there) {
                (true, _) => Verdict::Good { blocks: vec![] },
                (false, false) => Verdict::Missing,
                (false, true) => continue, // its file is short, and nobody asks
            };
            assert_eq!(world.check(piece), expected, "{kind:?} piece {piece}");
        }
        let after = fs::metadata(&long).unwrap();
        assert_eq!(
            (before.len(), before.mtime_nsec(), before.ino()),
            (after.len(), after.mtime_nsec(), after.ino())
        );
        assert!(!world.path("sub/one").exists());

        world.store_all(&meta, &data);
        world.settle();
        assert_eq!(fs::read(world.path("long")).unwrap(), too_long);
        fs::write(world.path("long"), &too_long[..meta.files[1].len as usize]).unwrap();
        world.assert_files(&meta, &data);
    }
}

#[test]
fn read_only_storage_creates_and_changes_nothing() {
    for kind in KINDS {
        let (meta, data) = torrent(50_000, &mixed());
        let dir = TempDir::new().unwrap();
        let mut world = World::at(dir, kind, Access::ReadOnly, 4);
        assert_eq!(world.add(&meta).count_ones(), 0);
        world.storage.create_empty_files(ID);
        world.storage.prepare(ID, PieceIndex(0));
        world.store_piece(&meta, &data, 0);
        assert_eq!(world.check(0), Verdict::Missing);
        world.settle();
        assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn more_than_fits_is_refused_with_figures_before_anything_is_made() {
    let piece_len = 256 << 20;
    let list = format!("d6:lengthi{}e4:pathl1:aee", 1u64 << 44);
    let meta = metainfo(piece_len, &list, &vec![0; 20 << 16]);
    let mut world = World::new(StorageKind::Auto, 2);
    match world.add_error(&meta) {
        StorageError::NoSpace { need, free, path } => {
            assert_eq!((need, &*path), (1 << 44, world.dir.path()));
            assert!(free > 0 && free < need);
        }
        other => panic!("{other}"),
    }
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0);
    // The same in a storage that does not write is a question of reading alone.
    let mut world = World::at(
        TempDir::new().unwrap(),
        StorageKind::Auto,
        Access::ReadOnly,
        2,
    );
    assert_eq!(world.add(&meta).count_ones(), 0);
}

#[test]
fn room_is_needed_for_what_unwanted_files_have_in_pieces_of_wanted_ones() {
    const LONG: u64 = 1 << 44;
    let piece_len = 256 << 20;
    let files = [("a", 5000), ("b", LONG), ("c", 1000), ("d", 3 << 28)];
    let list = files.map(|(name, len)| format!("d6:lengthi{len}e4:pathl1:{name}ee"));
    let pieces = (LONG + (3 << 28) + 6000).div_ceil(256 << 20) as usize;
    let meta = metainfo(piece_len, &list.concat(), &vec![0; 20 * pieces]);
    // In the last piece of `b` lie the first bytes of it, which `a` has shifted, `c`, and of `d`.
    for (skipped, need) in [
        (vec![], LONG + (3 << 28) + 6000),
        (vec![3], LONG + (256 << 20)),
        (vec![0, 2, 3], LONG + (256 << 20)),
    ] {
        let mut world = World::new(StorageKind::Auto, 2);
        world.storage.choose(ID, skipped.clone());
        match world.add_error(&meta) {
            StorageError::NoSpace { need: told, .. } => assert_eq!(told, need, "{skipped:?}"),
            other => panic!("{other}"),
        }
    }
}

/// What it shows, how the folder is made so, what the message must say.
type Case = (&'static str, fn(&Path), &'static str);

#[test]
fn output_folder_that_cannot_be_used_is_named_with_a_remedy() {
    let (meta, _) = torrent(16_384, &[("a", 100, "")]);
    let cases: [Case; 3] = [
        ("missing", |root| fs::remove_dir(root).unwrap(), "create it"),
        (
            "a file",
            |root| {
                fs::remove_dir(root).unwrap();
                fs::write(root, b"x").unwrap();
            },
            "is not a folder",
        ),
        (
            "a dangling link",
            |root| {
                fs::remove_dir(root).unwrap();
                symlink("/does/not/exist", root).unwrap();
            },
            "create it",
        ),
    ];
    for (name, prepare, text) in cases {
        let outer = TempDir::new().unwrap();
        let root = outer.path().join("out");
        fs::create_dir(&root).unwrap();
        prepare(&root);
        let mut storage = Storage::new(StorageOptions {
            root: root.clone(),
            kind: StorageKind::Auto,
            access: Access::ReadWrite,
            windows_len_max: WINDOWS_LEN_MAX,
            state_dir: None,
        });
        storage.add(ID, Arc::clone(&meta));
        let job = storage.poll_job().unwrap();
        storage.job_done(jobs::run(job));
        let Some(Event::Failed { error, .. }) = storage.poll_event() else {
            panic!("{name}: no failure");
        };
        let message = error.to_string();
        assert!(message.contains(text), "{name}: {message}");
        assert!(
            message.contains(root.to_str().unwrap()),
            "{name}: {message}"
        );
    }
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let (meta, _) = torrent(16_384, &[("d/a", 100, "")]);
    let cases: [Case; 5] = [
        (
            "folder",
            |t| fs::create_dir_all(t.join("d/a")).unwrap(),
            "is a folder",
        ),
        ("pipe", |t| make_fifo(&t.join("d"), "a"), "is a pipe"),
        (
            "link to a file",
            |t| {
                fs::create_dir_all(t.join("d")).unwrap();
                symlink("/etc/passwd", t.join("d/a")).unwrap();
            },
            "is a symbolic link",
        ),
        (
            "link to a folder",
            |t| {
                fs::create_dir_all(t).unwrap();
                symlink("/tmp", t.join("d")).unwrap();
            },
            "is a symbolic link",
        ),
        (
            "file in the place of a folder",
            |t| {
                fs::create_dir_all(t).unwrap();
                fs::write(t.join("d"), b"x").unwrap();
            },
            "is a file, not a folder",
        ),
    ];
    for (name, prepare, text) in cases {
        let mut world = World::new(StorageKind::Auto, 2);
        prepare(&world.path(""));
        let message = world.add_error(&meta).to_string();
        assert!(message.contains(text), "{name}: {message}");

        // The same when it turns up only after the scan.
        let mut world = World::new(StorageKind::Auto, 2);
        world.add(&meta);
        prepare(&world.path(""));
        world.storage.store(slot(0, 0, 3), b"abc");
        world.drive();
        let message = world.failure().to_string();
        assert!(message.contains(text), "{name}: {message}");
    }
}

fn make_fifo(dir: &Path, name: &str) {
    fs::create_dir_all(dir).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join(name),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

#[test]
fn files_come_with_their_first_piece_and_at_full_length() {
    for kind in KINDS {
        let (meta, data) = torrent(16_384, &[("a", 3 << 20, "x"), ("b", 20_000, "")]);
        let mut world = World::new(kind, 4);
        world.add(&meta);
        assert!(!world.path("").exists());
        world.storage.prepare(ID, PieceIndex(0));
        world.drive();
        let a = fs::metadata(world.path("a")).unwrap();
        assert_eq!((a.len(), a.permissions().mode() & 0o100), (3 << 20, 0o100));
        assert!(a.blocks() * 512 >= 3 << 20, "allocated, not sparse");
        assert!(!world.path("b").exists());
        world.store_piece(&meta, &data, 192);
        world.drive();
        let b = fs::metadata(world.path("b")).unwrap();
        assert_eq!((b.len(), b.permissions().mode() & 0o111), (20_000, 0));
    }
}

#[test]
fn lent_bytes_are_those_of_the_plan() {
    for kind in KINDS {
        let (meta, data) = torrent(200_000, &mixed());
        let dir = TempDir::new().unwrap();
        write_files(dir.path(), &meta, &data);
        let mut world = World::at(dir, kind, Access::ReadWrite, 2);
        world.add(&meta);
        let mut rng = Rng::new(3);
        for round in 0..60 {
            let mut plan = WritePlan::default();
            let mut expected = Vec::new();
            for _ in 0..1 + rng.next_u64() % 4 {
                plan.push_bytes(b"head");
                expected.extend_from_slice(b"head");
                let piece = rng.next_u64() as u32 % meta.geometry().piece_count();
                let piece_len = meta.geometry().piece_len(PieceIndex(piece));
                let begin = rng.next_u64() as u32 % piece_len;
                let len = (1 + rng.next_u64() as u32 % BLOCK_LEN).min(piece_len - begin);
                plan.push_data(slot(piece, begin, len));
                let at = meta.geometry().offset(PieceIndex(piece), begin) as usize;
                expected.extend_from_slice(&data[at..at + len as usize]);
            }
            let mut sent = Vec::new();
            // As many attempts as a plan has windows that come one after the other.
            for _ in 0..20 {
                let mut rest = WritePlan::default();
                skip(&plan, sent.len(), &mut rest);
                match world.lent(&rest) {
                    Lent::Done(bytes) => sent.extend_from_slice(&bytes),
                    Lent::NotReady => {
                        world.drive();
                        assert!(matches!(world.events.pop(), Some(Event::Readable)));
                    }
                }
            }
            assert!(sent == expected, "{kind:?} round {round}");
        }
    }
}

/// The plan without its first `done` bytes.
fn skip(plan: &WritePlan, mut done: usize, rest: &mut WritePlan) {
    use crate::base::plan::Segment;
    for segment in &plan.segments {
        match *segment {
            Segment::Bytes { start, end } => {
                let n = done.min(end - start);
                rest.push_bytes(&plan.scratch[start + n..end]);
                done -= n;
            }
            Segment::Data(slot) => {
                let n = done.min(slot.len as usize);
                rest.push_data(Slot {
                    begin: slot.begin + n as u32,
                    len: slot.len - n as u32,
                    ..slot
                });
                done -= n;
            }
        }
    }
}

/// What leaves soon is loaded while something else does, unless its file is not there.
#[test]
fn what_is_lent_soon_is_loaded_ahead() {
    let (meta, data) = torrent(16_384, &[("a", 3 << 20, ""), ("b", 16_384, "")]);
    for kind in KINDS {
        let dir = TempDir::new().unwrap();
        write_files(dir.path(), &meta, &data);
        let mut world = World::at(dir, kind, Access::ReadWrite, 8);
        world.add(&meta);
        let mut plan = WritePlan::default();
        plan.push_data(slot(0, 0, 16_384));
        plan.ahead = Some(slot(2 * 64, 0, 16_384));
        assert_eq!(world.lent(&plan), Lent::NotReady);
        world.drive();
        let mut next = WritePlan::default();
        next.push_data(slot(2 * 64, 0, 16_384));
        let at = 2 << 20;
        let expected = data[at..at + 16_384].to_vec();
        assert!(world.lent(&next) == Lent::Done(expected), "{kind:?}");
        next.clear();
        next.push_data(slot(64, 0, 16_384));
        next.ahead = Some(slot(3 * 64, 0, 16_384));
        let lent = world.lent(&next);
        assert_eq!(lent, Lent::NotReady, "{kind:?}: nobody spoke of it");
        world.drive();
        fs::remove_file(world.path("b")).unwrap();
        let expected = data[1 << 20..][..16_384].to_vec();
        assert!(world.lent(&next) == Lent::Done(expected), "{kind:?}");
        world.drive();
        let has_failed = |event: &Event| matches!(event, Event::Failed { .. });
        let failed = world.events.iter().any(has_failed);
        assert!(!failed, "{kind:?}: nobody has asked for it");
    }
}

#[test]
fn lending_from_a_lost_file_fails_the_torrent_alone() {
    let (meta, data) = torrent(16_384, &[("a", 100_000, "")]);
    let dir = TempDir::new().unwrap();
    write_files(dir.path(), &meta, &data);
    let mut world = World::at(dir, StorageKind::Auto, Access::ReadWrite, 2);
    assert!(world.add(&meta).is_full());
    fs::remove_file(world.path("a")).unwrap();
    let mut plan = WritePlan::default();
    plan.push_data(slot(0, 0, 100));
    assert_eq!(world.lent(&plan), Lent::NotReady);
    world.drive();
    assert!(matches!(world.events.pop(), Some(Event::Readable)));
    assert_eq!(world.lent(&plan), Lent::NotReady);
    world.drive();
    let path = world.path("a");
    assert_eq!(world.failure(), StorageError::Missing { path });
    assert_eq!(world.lent(&plan), Lent::NotReady);
}

#[test]
fn settled_means_that_others_read_what_was_stored() {
    for kind in KINDS {
        let (meta, data) = torrent(16_384, &[("a", 100_000, "")]);
        let mut world = World::new(kind, 2);
        world.add(&meta);
        world.store_piece(&meta, &data, 1);
        world.storage.settle(ID, Ticket(0));
        assert!(
            world.storage.poll_event().is_none(),
            "bytes wait for a window"
        );
        world.drive();
        assert!(matches!(world.events.pop(), Some(Event::Settled { .. })));
        let read = fs::read(world.path("a")).unwrap();
        assert!(read[16_384..32_768] == data[16_384..32_768], "{kind:?}");
        world.settle();
    }
}

/// Goal: `Durable` comes after every file written and every folder changed before was synced, and
/// never after a sync that failed.
/// Method: look at the jobs in the order in which they run.
#[test]
fn durable_means_that_files_and_folders_were_synced_after_the_last_store() {
    for kind in KINDS {
        let (meta, data) = torrent(50_000, &mixed());
        let mut world = World::new(kind, 4);
        world.add(&meta);
        world.store_all(&meta, &data);
        world.storage.sync(ID, Ticket(0));
        let (mut files, mut dirs) = (Vec::new(), Vec::new());
        world.drive_with(|job| {
            match &job.work {
                Work::Write { .. } => assert!(files.is_empty(), "write after sync"),
                Work::Sync {
                    files: of,
                    dirs: changed,
                    ..
                } => {
                    files.extend(of.iter().map(|file| file.path.clone()));
                    dirs.extend_from_slice(changed);
                }
                _ => {}
            }
            jobs::run(job)
        });
        assert!(matches!(world.events.pop(), Some(Event::Durable { .. })));
        assert_eq!(files.len(), 7, "{files:?}");
        let expected = ["", "t", "t/sub", "t/sub/deep", "t/sub/deep/er"];
        assert_eq!(dirs, expected.map(PathBuf::from), "{kind:?}");

        // Nothing new: durable at once.
        world.storage.sync(ID, Ticket(0));
        assert!(matches!(
            world.storage.poll_event(),
            Some(Event::Durable { .. })
        ));

        world.store_piece(&meta, &data, 0);
        world.storage.sync(ID, Ticket(0));
        world.drive_with(|job| {
            let id = job.id;
            match job.work {
                Work::Sync { .. } => Done {
                    id,
                    outcome: Outcome::Finished(Err(StorageError::Truncated { path: "x".into() })),
                },
                _ => jobs::run(job),
            }
        });
        world.failure();
        assert!(world.events.is_empty());
    }
}

#[test]
fn file_that_cannot_be_mapped_is_buffered() {
    let (meta, data) = torrent(100_000, &mixed());
    let refuse = |job: Job| match job.work {
        Work::Map { .. } => Done {
            id: job.id,
            outcome: Outcome::Mapped(Err(MapError::Refused(rustix::io::Errno::NODEV.into()))),
        },
        _ => jobs::run(job),
    };
    let mut world = World::new(StorageKind::Auto, 2);
    world.add(&meta);
    for piece in 0..meta.geometry().piece_count() {
        world.store_piece(&meta, &data, piece);
        world.storage.check(ID, PieceIndex(piece));
    }
    world.storage.create_empty_files(ID);
    world.storage.settle(ID, Ticket(0));
    world.drive_with(refuse);
    world.assert_files(&meta, &data);

    let mut world = World::new(StorageKind::Map, 2);
    world.add(&meta);
    world.store_piece(&meta, &data, 0);
    world.drive_with(refuse);
    assert!(world.failure().to_string().contains("--storage pwrite"));
}

#[test]
fn file_that_cannot_be_allocated_is_buffered() {
    let (meta, data) = torrent(100_000, &[("a", 2 << 20, "")]);
    let mut world = World::new(StorageKind::Auto, 2);
    world.add(&meta);
    world.store_piece(&meta, &data, 3);
    let mut reads = 0;
    world.drive_with(|job| {
        reads += u32::from(matches!(job.work, Work::Read { .. }));
        assert!(!matches!(job.work, Work::Map { .. }));
        let mut done = jobs::run(job);
        if let Outcome::Opened(Ok(jobs::Opened::Open { allocated, .. })) = &mut done.outcome {
            *allocated = false;
        }
        done
    });
    assert_eq!(reads, 1);
    assert_eq!(world.check(3), Verdict::Good { blocks: vec![] });
}

/// Goal: an error of any job ends its torrent, once, and nobody waits for ever; another torrent in
/// the same storage goes on.
/// Method: fail the n-th job of the first torrent, for every n.
#[test]
fn any_failing_job_ends_one_torrent_and_no_other() {
    for kind in KINDS {
        for n in 0.. {
            let (meta, data) = torrent(100_000, &[("a", 3 << 20, ""), ("b", 5000, "")]);
            let mut world = World::new(kind, 2);
            let other = TorrentId(8);
            let (other_meta, other_data) = torrent(100_000, &[("c", 2 << 20, "")]);
            world.storage.add(ID, Arc::clone(&meta));
            world.storage.add(other, Arc::clone(&other_meta));
            for piece in 0..other_meta.geometry().piece_count() {
                world.store_piece(&meta, &data, piece);
                world.storage.check(ID, PieceIndex(piece));
                let at = piece as usize * 100_000;
                let len = other_meta.geometry().piece_len(PieceIndex(piece));
                let place = Slot {
                    torrent: other,
                    ..slot(piece, 0, len)
                };
                world
                    .storage
                    .store(place, &other_data[at..at + len as usize]);
                world.storage.check(other, PieceIndex(piece));
            }
            world.storage.sync(ID, Ticket(0));
            world.storage.sync(other, Ticket(0));
            let mut count = 0;
            let mut reached = false;
            let second = world.dir.path().join("t/c");
            world.drive_with(|job| {
                if is_about(&job.work, &second) {
                    return jobs::run(job);
                }
                count += 1;
                if count - 1 != n {
                    return jobs::run(job);
                }
                reached = true;
                fail(job)
            });
            let of = |torrent: TorrentId| {
                let events = world.events.iter();
                events.filter(move |event| match event {
                    Event::Failed { torrent: of, .. }
                    | Event::Lapsed { torrent: of, .. }
                    | Event::Durable { torrent: of, .. } => *of == torrent,
                    _ => false,
                })
            };
            assert!(matches!(
                of(other).collect::<Vec<_>>()[..],
                [Event::Durable { .. }]
            ));
            if !reached {
                assert!(matches!(
                    of(ID).collect::<Vec<_>>()[..],
                    [Event::Durable { .. }]
                ));
                break;
            }
            let ours: Vec<_> = of(ID).collect();
            assert!(
                matches!(
                    ours[..],
                    [Event::Failed { .. } | Event::Lapsed { .. } | Event::Durable { .. }]
                ),
                "{kind:?} n {n}: {ours:?}"
            );
        }
    }
}

/// Whether the job is about the file at `path`, or cannot fail.
fn is_about(work: &Work, path: &Path) -> bool {
    match work {
        Work::Scan { meta, .. }
        | Work::CreateEmpty { meta, .. }
        | Work::Open { meta, .. }
        | Work::LookAtTimes { meta, .. }
        | Work::Prove { meta, .. } => path.ends_with(meta.files[0].path.as_path()),
        Work::Map { path: of, .. }
        | Work::Populate { path: of, .. }
        | Work::Read { path: of, .. }
        | Work::Write { path: of, .. }
        | Work::Close { path: of, .. } => of == path,
        Work::Sync { files, .. } => files.iter().any(|file| file.path == path),
        Work::Unmap { .. }
        | Work::LookAtFiles { .. }
        | Work::FindText { .. }
        | Work::ReadText { .. }
        | Work::GiveBack
        | Work::MakeJournal { .. }
        | Work::MakeFirstJournal { .. }
        | Work::AppendJournal { .. }
        | Work::InstallJournal { .. }
        | Work::SyncJournal { .. }
        | Work::LeaveJournal { .. }
        | Work::OpenJournal { .. }
        | Work::RemoveJournal { .. } => true,
    }
}

pub(super) fn fail(job: Job) -> Done {
    fail_with(job, StorageError::Truncated { path: "x".into() })
}

/// The job was not done, for this reason.
pub(super) fn fail_with(job: Job, error: StorageError) -> Done {
    let outcome = match job.work {
        Work::Scan { .. } => Outcome::Scanned(Err(error)),
        Work::CreateEmpty { .. } => Outcome::CreatedEmpty(Err(error)),
        Work::Open { .. } => Outcome::Opened(Err(error)),
        Work::Map { .. } => Outcome::Mapped(Err(MapError::Failed(error))),
        Work::Unmap { .. } => Outcome::Unmapped,
        Work::Read { .. } => Outcome::Read(Err(error)),
        Work::Prove { .. } => Outcome::Proved(Err(error)),
        Work::LookAtFiles { files, .. } => Outcome::Looked(files.iter().map(|_| None).collect()),
        Work::LookAtTimes { meta, .. } => Outcome::Times(vec![0; meta.files.len()]),
        Work::FindText { .. } => Outcome::TextFound(false),
        Work::GiveBack => Outcome::GaveBack,
        Work::ReadText { .. } => Outcome::TextRead(Err(error)),
        Work::MakeJournal { .. } | Work::MakeFirstJournal { .. } | Work::OpenJournal { .. } => {
            Outcome::JournalMade(Err(error))
        }
        Work::LeaveJournal { .. } => Outcome::JournalLeft(Err(error)),
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

#[test]
fn results_for_a_removed_torrent_are_harmless_and_stored_bytes_are_kept() {
    for kind in KINDS {
        for rng_seed in 0..40 {
            let (meta, data) = torrent(100_000, &[("a", 3 << 20, ""), ("b", 5000, "")]);
            let mut rng = Rng::new(rng_seed);
            let mut world = World::new(kind, 2);
            world.add(&meta);
            world.store_piece(&meta, &data, 0);
            world.drive();
            for piece in 1..meta.geometry().piece_count() {
                world.store_piece(&meta, &data, piece);
                world.storage.check(ID, PieceIndex(piece));
            }
            world.storage.sync(ID, Ticket(0));
            for _ in 0..rng_seed {
                world.step(&mut rng);
            }
            world.storage.remove(ID);
            world.store_piece(&meta, &data, 0);
            world.storage.check(ID, PieceIndex(0));
            world.drive();
            assert_eq!(world.storage.windows.in_use(), (0, 0));
            assert!(world.storage.open_files.is_empty());
            let read = fs::read(world.path("a")).unwrap();
            assert!(read[..100_000] == data[..100_000], "{kind:?} {rng_seed}");
        }
    }
}

/// Goal: nothing that a torrent had stored before it was removed is written over what its
/// successor stores, and no result of old jobs is taken for one of the successor's.
/// Method: wrong bytes, removal at a random moment, the same torrent again under the same id; jobs
/// run and return in random order, and the right bytes are stored as soon as they may be.
#[test]
fn successor_of_a_removed_torrent_waits_until_nothing_old_can_be_written() {
    for kind in KINDS {
        for rng_seed in 0..60 {
            let (meta, data) = torrent(100_000, &[("a", 3 << 20, ""), ("b", 5000, "")]);
            let wrong = vec![0x55; data.len()];
            let mut rng = Rng::new(rng_seed);
            let mut world = World::new(kind, 2);
            world.add(&meta);
            for piece in 0..meta.geometry().piece_count() {
                world.store_piece(&meta, &wrong, piece);
                world.storage.check(ID, PieceIndex(piece));
                world.step(&mut rng);
            }
            for _ in 0..rng_seed {
                world.step(&mut rng);
            }
            world.storage.remove(ID);
            while world.storage.poll_event().is_some() {}
            world.storage.add(ID, Arc::clone(&meta));
            let mut steps = 0;
            loop {
                match world.storage.poll_event() {
                    Some(Event::Scanned { torrent, .. }) if torrent == ID => break,
                    None | Some(Event::Readable) => world.step(&mut rng),
                    Some(other) => panic!("{kind:?} {rng_seed}: {other:?}"),
                }
                steps += 1;
                assert!(steps < 10_000, "{kind:?} {rng_seed}: never taken up");
            }
            for piece in 0..meta.geometry().piece_count() {
                world.store_piece(&meta, &data, piece);
                world.step(&mut rng);
            }
            world.settle();
            world.assert_files(&meta, &data);
        }
    }
}

#[test]
fn torrent_that_waits_for_its_predecessor_is_settled_and_can_be_removed() {
    let (meta, data) = torrent(100_000, &[("a", 3 << 20, "")]);
    let mut world = World::new(StorageKind::Pwrite, 2);
    world.add(&meta);
    world.store_piece(&meta, &data, 0);
    world.storage.remove(ID);
    let next = TorrentId(8);
    world.storage.add(next, Arc::clone(&meta));
    world.storage.sync(next, Ticket(0));
    let event = world.storage.poll_event();
    assert!(
        matches!(event, Some(Event::Durable { torrent, .. }) if torrent == next),
        "{event:?}"
    );
    world.storage.remove(next);
    world.drive();
    assert!(world.events.is_empty(), "{:?}", world.events);
    assert_eq!(world.storage.windows.in_use(), (0, 0));
    world.add(&meta);
}

#[test]
fn check_of_stored_pieces_comes_before_that_of_found_ones_and_counts_as_backlog() {
    let (meta, data) = torrent(100_000, &[("a", 1_000_000, "")]);
    let dir = TempDir::new().unwrap();
    write_files(dir.path(), &meta, &data);
    let mut world = World::at(dir, StorageKind::Auto, Access::ReadWrite, 4);
    world.add(&meta);
    (0..9).for_each(|piece| world.storage.check(ID, PieceIndex(piece)));
    assert_eq!(world.storage.status().hash_backlog_bytes, 0);
    world.store_piece(&meta, &data, 9);
    world.storage.check(ID, PieceIndex(9));
    assert_eq!(world.storage.status().hash_backlog_bytes, 100_000);
    world.drive();
    let first = world.events.iter().find_map(|event| match event {
        Event::Checked { piece, .. } => Some(*piece),
        _ => None,
    });
    assert_eq!((first, world.events.len()), (Some(PieceIndex(9)), 10));
}

#[test]
fn check_of_found_pieces_gets_on_while_stored_ones_wait_for_company() {
    let (meta, data) = torrent(100_000, &[("a", 1_000_000, "")]);
    let dir = TempDir::new().unwrap();
    write_files(dir.path(), &meta, &data);
    let mut world = World::at(dir, StorageKind::Auto, Access::ReadWrite, 4);
    world.add(&meta);
    world.store_piece(&meta, &data, 9);
    world.storage.check(ID, PieceIndex(9));
    (0..9).for_each(|piece| world.storage.check(ID, PieceIndex(piece)));
    for _ in 0..100 {
        while let Some(job) = world.storage.poll_job() {
            world.storage.job_done(jobs::run(job));
        }
        assert_eq!(world.storage.work_urgent(1 << 20, Pace::InCompany), 0);
        world.storage.work_found(100_000);
    }
    let checked = std::iter::from_fn(|| world.storage.poll_event());
    let checked = checked.filter(|event| matches!(event, Event::Checked { .. }));
    assert_eq!(checked.count(), 9);
    assert_eq!(world.storage.status().hash_backlog_bytes, 100_000);
}

/// Goal: who is served from the disk does not wait behind all that a check of another torrent will
/// hash.
/// Method: jobs are done one after the other, as a disk does them; how many come first when a
/// window is needed that is not in memory.
#[test]
fn reads_for_peers_do_not_wait_behind_a_long_check() {
    const OTHER: TorrentId = TorrentId(8);
    let mib = WINDOW_LEN as u32;
    let (meta, data) = torrent(mib, &[("long", 24 * WINDOW_LEN, "")]);
    let (served, _) = torrent(mib, &[("served", 3 * WINDOW_LEN, "")]);
    let dir = TempDir::new().unwrap();
    write_files(dir.path(), &meta, &data);
    fs::write(dir.path().join("t/served"), vec![7; 3 << 20]).unwrap();
    let mut world = World::at(dir, StorageKind::Auto, Access::ReadWrite, 32);
    world.add(&meta);
    world.storage.add(OTHER, served);
    world.drive();
    (0..24).for_each(|piece| world.storage.check(ID, PieceIndex(piece)));
    let mut disk = std::collections::VecDeque::new();
    let mut counts = Vec::new();
    for piece in 0..3 {
        let mut plan = WritePlan::default();
        plan.push_data(Slot {
            torrent: OTHER,
            ..slot(piece, 0, BLOCK_LEN)
        });
        let mut count = 0;
        while world.lent(&plan) == Lent::NotReady {
            disk.extend(std::iter::from_fn(|| world.storage.poll_job()));
            let job = disk.pop_front().expect("somebody waits for one");
            world.storage.job_done(jobs::run(job));
            world.storage.work(2 << 20, Pace::AtOnce);
            count += 1;
        }
        counts.push(count);
    }
    assert!(counts[1..].iter().all(|&count| count <= 4), "{counts:?}");
    world.held.extend(disk.into_iter().map(Ok));
    world.drive();
    let is_good = |e: &&Event| {
        matches!(
            e,
            Event::Checked {
                verdict: Verdict::Good { .. },
                ..
            }
        )
    };
    assert_eq!(
        world.events.iter().filter(is_good).count(),
        24,
        "the check ends all the same"
    );
}

#[test]
fn many_small_files_stay_within_the_limits_and_are_synced_at_once() {
    for kind in KINDS {
        let names: Vec<String> = (0..700).map(|i| format!("{}/{i}", i % 10)).collect();
        let files: Vec<(&str, u64, &str)> = names.iter().map(|n| (&**n, 10, "")).collect();
        let (meta, data) = torrent(7000, &files);
        let mut world = World::new(kind, 64);
        world.add(&meta);
        world.storage.store(slot(0, 0, 7000), &data);
        assert_eq!(world.check(0), Verdict::Good { blocks: vec![] });
        world.storage.sync(ID, Ticket(0));
        let mut syncs = 0;
        world.drive_with(|job| {
            match &job.work {
                Work::Sync { anchor, files, .. } => {
                    assert!(anchor.is_some() && files.is_empty());
                    syncs += 1;
                }
                Work::Close { written, .. } => assert!(!written, "synced one by one"),
                _ => {}
            }
            jobs::run(job)
        });
        assert!(matches!(world.events.pop(), Some(Event::Durable { .. })));
        assert_eq!(syncs, 1);
        world.assert_files(&meta, &data);
        world.storage.sync(ID, Ticket(0));
        assert!(matches!(
            world.storage.poll_event(),
            Some(Event::Durable { .. })
        ));
    }
}

/// Goal: a write-back that failed is told to every torrent that may have lost bytes by it, though
/// the kernel tells it once.
/// Method: two torrents whose files were closed unsynced, one that syncs its own open file.
#[test]
fn failed_sync_of_the_file_system_fails_all_who_rely_on_it() {
    let names: Vec<String> = (0..400).map(|i| format!("{i}")).collect();
    let files: Vec<(&str, u64, &str)> = names.iter().map(|n| (&**n, 10, "")).collect();
    let (small, data) = torrent(4000, &files);
    let (single, _) = torrent(4000, &[("single", 4000, "")]);
    let mut world = World::new(StorageKind::Auto, 64);
    let (other, third) = (TorrentId(8), TorrentId(9));
    world.storage.add(ID, Arc::clone(&small));
    world.storage.add(other, Arc::clone(&small));
    world.storage.add(third, Arc::clone(&single));
    world.drive();
    world.events.clear();
    for torrent in [ID, other, third] {
        let place = Slot {
            torrent,
            ..slot(0, 0, 4000)
        };
        world.storage.store(place, &data);
        world.drive();
    }
    world.storage.sync(third, Ticket(0));
    world.storage.sync(ID, Ticket(0));
    world.storage.sync(other, Ticket(0));
    let mut is_first = true;
    world.drive_with(|job| match job.work {
        Work::Sync {
            anchor: Some(_), ..
        } if std::mem::take(&mut is_first) => fail(job),
        _ => jobs::run(job),
    });
    let mut failed = Vec::new();
    let mut durable = Vec::new();
    for event in &world.events {
        match event {
            Event::Failed { torrent, .. } => failed.push(*torrent),
            Event::Durable { torrent, .. } => durable.push(*torrent),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((failed, durable), (vec![ID, other], vec![third]));
}

#[test]
fn torrent_of_empty_files_needs_nothing_else() {
    for kind in KINDS {
        let (meta, data) = torrent(16_384, &[("a", 0, ""), ("b/c", 0, "x")]);
        let mut world = World::new(kind, 2);
        assert_eq!(world.add(&meta).len(), 0);
        world.storage.create_empty_files(ID);
        world.storage.sync(ID, Ticket(0));
        world.drive();
        assert!(matches!(world.events.pop(), Some(Event::Durable { .. })));
        world.assert_files(&meta, &data);
    }
}

/// Goal: a torrent that stalls the loop goes on in buffers, unless only maps are wanted, with every
/// byte that went into its maps, whatever those were loaded for.
/// Method: half of each piece goes into a map; the second one was loaded to be read.
#[test]
fn torrent_that_stalls_the_loop_goes_on_in_buffers() {
    for (kind, is_moved) in [(StorageKind::Auto, true), (StorageKind::Map, false)] {
        let (meta, data) = torrent(WINDOW_LEN as u32, &[("a", 2 * WINDOW_LEN, "")]);
        let mut world = World::new(kind, 8);
        world.add(&meta);
        let half = WINDOW_LEN as usize / 2;
        let store = |world: &mut World, piece: u32, part: usize| {
            let place = slot(piece, (part * half) as u32, half as u32);
            let from = piece as usize * 2 * half + part * half;
            world.storage.store(place, &data[from..from + half]);
        };
        store(&mut world, 0, 0);
        world.drive();
        let mut plan = WritePlan::default();
        plan.push_data(slot(1, 0, 100));
        assert_eq!(world.lent(&plan), Lent::NotReady);
        world.drive();
        assert!(matches!(world.lent(&plan), Lent::Done(_)));
        for time in [499, 500] {
            assert!(world.storage.buffered().is_empty(), "{time}");
            store(&mut world, 1, 0);
            std::thread::sleep(Duration::from_millis(2)); // in the place of the kernel
            world.storage.took(Duration::from_millis(time));
        }
        let buffered = world.storage.buffered();
        assert_eq!(
            buffered.get(&ID).map(|of| of.is_all),
            is_moved.then_some(true)
        );
        let asleep = world.storage.take_time_asleep();
        assert_eq!(asleep, Duration::from_millis(999));
        (0..2).for_each(|piece| store(&mut world, piece, 1));
        world.drive();
        let is_as_told = |(_, window): (usize, &window::Window)| window.is_mapped() != is_moved;
        assert!(world.storage.windows.iter().all(is_as_told));
        world.events.clear();
        for piece in 0..2 {
            assert_eq!(
                world.check(piece),
                Verdict::Good { blocks: vec![] },
                "{kind:?}"
            );
        }
        world.storage.settle(ID, Ticket(0));
        world.drive();
        world.assert_files(&meta, &data);
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a name of ours").to_owned()
}

/// Goal: a disk that was there in an earlier run is waited for, unless its files are there without
/// it.
#[test]
fn disk_of_an_earlier_run_is_waited_for() {
    for mount in ["..", "", "t", "t/sub"] {
        let (meta, data) = torrent(16_384, &[("sub/a", 20_000, ""), ("sub/b", 5, "")]);
        let mut world = World::new(StorageKind::Auto, 2);
        let root = world.dir.path().to_owned();
        let path = match mount {
            ".." => root.parent().unwrap().to_owned(),
            "" => root.clone(),
            _ => root.join(mount),
        };
        let mut mounts = ["/nowhere", &text(&path), &text(&root.join("elsewhere"))];
        mounts.sort_unstable();
        let mounts = mounts.map(str::to_owned);
        let before = world.mounts_of_folder(&meta);
        if before.contains(&text(&path)) {
            continue; // there is a disk
        }
        world.storage.recall_mounts(meta.info_hash, mounts.to_vec());
        for _ in 0..2 {
            world.storage.add(ID, Arc::clone(&meta));
            world.drive();
            let Some(Event::Lapsed { error, .. }) = world.events.pop() else {
                panic!("it is not there");
            };
            let path = path.clone();
            assert_eq!(error, StorageError::NotMounted { path });
            assert_eq!(world.storage.mounts(meta.info_hash), mounts);
        }
        write_files(world.dir.path(), &meta, &data);
        assert_eq!(world.add(&meta).len(), 2);
        assert_eq!(world.storage.mounts(meta.info_hash), before);
    }
}

/// Goal: the disk of an output folder that is used no more is not waited for.
#[test]
fn disk_of_another_output_folder_does_not_matter() {
    let (meta, _) = torrent(16_384, &[("a", 20_000, "")]);
    let mut world = World::new(StorageKind::Auto, 2);
    let mounts = vec!["/nowhere".to_owned(), "/nowhere/t".to_owned()];
    world.storage.recall_mounts(meta.info_hash, mounts);
    world.add(&meta); // it is looked at, and has not failed
}

/// Goal: who says so after it was told goes on without the disk, and nobody else does.
#[test]
fn user_may_do_without_a_disk_that_was_found_missing() {
    let (meta, _) = torrent(16_384, &[("a", 20_000, "")]);
    let mut world = World::new(StorageKind::Auto, 2);
    let before = world.mounts_of_folder(&meta);
    let mounts = vec![text(&world.dir.path().join("t"))];
    world.storage.recall_mounts(meta.info_hash, mounts.clone());
    world.storage.do_without_disk(meta.info_hash);
    assert_eq!(world.storage.mounts(meta.info_hash), mounts);
    world.storage.add(ID, Arc::clone(&meta));
    world.drive();
    assert!(matches!(world.events.pop(), Some(Event::Lapsed { .. })));
    world.storage.do_without_disk(meta.info_hash);
    world.add(&meta); // it is looked at, and has not failed
    assert_eq!(world.storage.mounts(meta.info_hash), before);
}

/// Bytes that a file takes on the disk.
fn room_of(path: &std::path::Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.blocks() * 512)
}

/// Goal: of files that are not wanted the disk has what shared pieces need and nothing else, and
/// when they are wanted after all that is in its place.
#[test]
fn unwanted_files_hold_what_shared_pieces_need_and_nothing_else() {
    const BLOCK: u64 = 16_384;
    let piece_len = 4 * BLOCK as u32;
    let files = [
        ("none", 0, ""),
        ("first", 10 * BLOCK + 5000, ""), // shares piece 2 with `wanted`
        ("wanted", 5 * BLOCK, ""),
        ("small", 5 * BLOCK + 999, ""), // its head and its tail are shared, pieces 3 and 5
        ("also", 2 * BLOCK, ""),
        ("apart", 9 * BLOCK, ""),
        ("beside", 3 * WINDOW_LEN, ""),
        ("tail", 100, ""),
    ];
    let (meta, data) = torrent(piece_len, &files);
    let geometry = meta.geometry();
    let wanted = |file: u32| file == 2 || file == 4;
    let pieces: Vec<u32> = (0..8)
        .filter(|&f| wanted(f))
        .flat_map(|f| geometry.pieces_of_file(f))
        .collect();
    for kind in KINDS {
        let mut world = World::new(kind, 8);
        let skipped: Vec<u32> = (0..8).filter(|&f| !wanted(f)).collect();
        world.storage.choose(ID, skipped);
        world.add(&meta);
        world.storage.create_empty_files(ID);
        for &piece in pieces.iter().rev() {
            world.storage.prepare(ID, PieceIndex(piece));
            world.store_piece(&meta, &data, piece);
            world.drive();
        }
        for &piece in &pieces {
            assert!(
                matches!(world.check(piece), Verdict::Good { .. }),
                "piece {piece}"
            );
        }
        world.settle();
        world.storage.sync(ID, Ticket(0));
        world.drive();
        assert!(matches!(world.events.pop(), Some(Event::Durable { .. })));
        for (file, (name, len, _)) in (0..).zip(&files) {
            let shared = geometry
                .pieces_of_file(file)
                .filter(|piece| pieces.contains(piece));
            let path = world.path(name);
            assert_eq!(
                path.exists(),
                wanted(file) || shared.clone().count() > 0,
                "{name}"
            );
            if !wanted(file) && path.exists() {
                assert_eq!(fs::metadata(&path).unwrap().len(), *len, "{name}");
                // A page at each end of a run of bytes is taken as a whole.
                let most = shared.count() as u64 * (u64::from(piece_len) + 2 * 4096);
                let room = room_of(&path);
                assert!(
                    room <= most.min(*len + 4096),
                    "{name} takes {room} B, {most} B needed"
                );
            }
        }
        let small = fs::read(world.path("small")).unwrap();
        let begin = geometry.file_offset(3) as usize;
        let held = |piece: u32, at: usize| {
            pieces.contains(&piece) && (at / piece_len as usize) as u32 == piece
        };
        for (at, byte) in (begin..).zip(small) {
            let is_held = (0..geometry.piece_count()).any(|piece| held(piece, at));
            assert_eq!(byte, if is_held { data[at] } else { 0 }, "byte {at} of all");
        }

        world.storage.choose(ID, Vec::new());
        world.storage.create_empty_files(ID);
        for piece in (0..geometry.piece_count()).filter(|piece| !pieces.contains(piece)) {
            world.store_piece(&meta, &data, piece);
            world.drive();
        }
        for piece in 0..geometry.piece_count() {
            assert!(
                matches!(world.check(piece), Verdict::Good { .. }),
                "piece {piece}"
            );
        }
        world.settle();
        for (file, (name, len, _)) in (0..).zip(&files) {
            let begin = geometry.file_offset(file) as usize;
            let content = fs::read(world.path(name)).unwrap();
            assert!(content == data[begin..begin + *len as usize], "{name}");
            assert!(room_of(&world.path(name)) >= *len, "{name}");
        }
        let is_sparse = |slot: &FileSlot| slot.is_sparse;
        assert!(!world.storage.torrents[&ID].files.iter().any(is_sparse));
        world.storage.remove(ID);
        world.drive();
    }
}

/// Goal: no room is asked for that unwanted files would take, and what came of one before it was
/// skipped is not lost.
#[test]
fn file_that_is_skipped_while_it_comes_keeps_what_it_has() {
    let (meta, data) = torrent(1 << 16, &[("a", 1 << 20, ""), ("b", 1 << 20, "")]);
    for kind in KINDS {
        let mut world = World::new(kind, 4);
        world.add(&meta);
        // Bytes wait for their window as the file becomes one that is not wanted.
        world.store_piece(&meta, &data, 3);
        world.storage.choose(ID, vec![0, 1]);
        world.drive();
        assert!(matches!(world.check(3), Verdict::Good { .. }));
        world.store_piece(&meta, &data, 20);
        world.drive();
        world.settle();
        let content = fs::read(world.path("a")).unwrap();
        assert!(content[3 << 16..4 << 16] == data[3 << 16..4 << 16]);
        assert!(room_of(&world.path("b")) <= (1 << 16) + 8192);
        // It was open for writing of a part: wanted now, with a store under way.
        world.storage.choose(ID, Vec::new());
        world.store_piece(&meta, &data, 21);
        world.store_piece(&meta, &data, 22);
        world.drive();
        world.settle();
        let content = fs::read(world.path("b")).unwrap();
        assert!(content[4 << 16..7 << 16] == data[20 << 16..23 << 16]);
        assert!(room_of(&world.path("b")) >= 1 << 20);
    }
}

/// Goal: of a file that was cut, what is left is found, and the file stays as it is until something
/// of it comes.
#[test]
fn short_file_is_read_as_it_is_and_made_longer_by_the_first_store() {
    const LEN: u64 = 3 * WINDOW_LEN + 300_000;
    for kind in KINDS {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            for held in [LEN - 1, WINDOW_LEN + 100_000, WINDOW_LEN, 1, 0] {
                let (meta, data) = torrent(50_000, &[("a", 120_000, ""), ("b", LEN, "")]);
                let dir = TempDir::new().unwrap();
                write_files(dir.path(), &meta, &data);
                let path = dir.path().join("t/b");
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_len(held).unwrap();
                let before = fs::metadata(&path).unwrap().mtime_nsec();
                let mut world = World::at(dir, kind, access, 4);
                let candidates = world.add(&meta);
                let count = meta.geometry().piece_count();
                let expected: Vec<u32> = (0..count)
                    .filter(|&piece| {
                        let end = (u64::from(piece) + 1) * 50_000;
                        end.min(120_000 + LEN) <= 120_000 + held
                    })
                    .collect();
                let found: Vec<u32> = candidates.ones().collect();
                assert_eq!(found, expected, "{kind:?} {access:?} {held}");
                for &piece in &found {
                    let verdict = world.check(piece);
                    assert_eq!(verdict, Verdict::Good { blocks: vec![] }, "piece {piece}");
                }
                let after = fs::metadata(&path).unwrap();
                assert_eq!((after.len(), after.mtime_nsec()), (held, before));
                // It is used: looks at it find nothing wrong.
                world.storage.tick(Instant::from_micros(5_000_000));
                world.drive();
                assert!(world.events.is_empty(), "{:?}", world.events);
                if access == Access::ReadOnly {
                    continue;
                }
                for piece in (0..count).filter(|piece| !found.contains(piece)) {
                    world.store_piece(&meta, &data, piece);
                    world.drive();
                }
                world.settle();
                world.assert_files(&meta, &data);
            }
        }
    }
}

#[test]
fn what_nobody_uses_any_more_holds_no_window_and_no_file() {
    for kind in KINDS {
        let (meta, data) = torrent(50_000, &mixed());
        let dir = TempDir::new().unwrap();
        write_files(dir.path(), &meta, &data);
        let mut world = World::at(dir, kind, Access::ReadWrite, 4);
        world.add(&meta);
        let good = Verdict::Good { blocks: vec![] };
        for piece in 0..meta.geometry().piece_count() {
            assert_eq!(world.check(piece), good);
        }
        let held = |world: &World| {
            let windows = world.storage.windows.iter().count();
            (windows > 0, !world.storage.open_files.is_empty())
        };
        let mut plan = WritePlan::default();
        plan.push_data(slot(0, 0, BLOCK_LEN));
        for second in 0..60 {
            world.storage.tick(Instant::from_micros(second * 1_000_000));
            world.drive();
            if second < 29 {
                while world.lent(&plan) == Lent::NotReady {
                    world.drive();
                    world.events.clear();
                }
                assert_eq!(held(&world), (true, true), "{kind:?} second {second}");
            }
        }
        assert_eq!(held(&world), (false, false), "{kind:?}");
        assert_eq!(world.check(0), good);
        assert_eq!(held(&world), (true, true), "{kind:?}");
    }
}
