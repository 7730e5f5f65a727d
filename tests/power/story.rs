//! What happens to a torrent on a disk that logs, and what was said meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::id::PieceIndex;
use evpeer::base::rng::Rng;
use evpeer::config::StorageKind;
use evpeer::meta::metainfo::Metainfo;
use sha1::{Digest, Sha1};

use super::disk::{Disk, Entry};
use super::mounts::{self, Kind, Mount};
use super::process::{self, Order, Place, Process, Said};
use super::support;

/// Where the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// On the disk of the data.
    Beside,
    /// On another disk, which keeps what the disk of the data loses.
    Elsewhere,
}

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// By which test.
    pub test: &'static str,
    /// On which file system.
    pub fs: Kind,
    /// How bytes reach files.
    pub storage: StorageKind,
    /// Where the journal is.
    pub journal: Journal,
    /// How data is synced.
    pub order: Order,
    /// Where chance begins.
    pub seed: u64,
}

impl Plan {
    /// Whether it is to be tried: `EVPEER_SEED` names one alone.
    pub fn is_wanted(&self) -> bool {
        let only = std::env::var("EVPEER_SEED").ok();
        only.is_none_or(|only| only == self.seed.to_string())
    }
}

/// Something that matters for what may be claimed, from an entry of the log on.
#[derive(Clone, Debug)]
pub enum Note {
    /// The process said that these pieces are durable.
    Durable(BTreeSet<u32>),
    /// These need not be claimed any more.
    Released(BTreeSet<u32>),
    /// Somebody else writes into these: a claim that was true is no lie.
    Spoilt(BTreeSet<u32>),
    /// It is one again.
    Mended,
}

/// A torrent of some files in folders.
#[derive(Clone, Debug)]
pub struct Torrent {
    /// Its metainfo.
    pub meta: Arc<Metainfo>,
    /// The bytes of all files.
    pub data: Vec<u8>,
}

/// What happened.
pub struct Story {
    /// What was tried.
    pub plan: Plan,
    /// The torrent.
    pub torrent: Torrent,
    /// The disk before.
    pub base: Vec<u8>,
    /// What reached it.
    pub log: Vec<Entry>,
    /// Up to where nothing is of interest.
    pub from: usize,
    /// What was said and done when the log had so many entries.
    pub notes: Vec<(usize, Note)>,
    /// The journal that is elsewhere, at all times.
    pub journals: Vec<(usize, Option<Vec<u8>>)>,
}

/// Where a story happens.
pub struct Stage<'a> {
    /// What is tried.
    pub plan: Plan,
    /// The torrent.
    pub torrent: Torrent,
    /// Where the process works.
    pub place: Place,
    /// What decides.
    pub rng: Rng,
    disk: &'a Disk,
    from: usize,
    notes: Vec<(usize, Note)>,
    journals: Vec<(usize, Option<Vec<u8>>)>,
    process: Option<Process>,
    /// Some process has.
    has_started: bool,
    good: BTreeSet<u32>,
    /// Pieces of which nothing was left by a former process.
    own: BTreeSet<u32>,
    /// Blocks that are still to be stored.
    open: BTreeMap<u32, Vec<u32>>,
    checking: BTreeSet<u32>,
    /// What each sync that was asked for will have made durable.
    asked: VecDeque<BTreeSet<u32>>,
}

impl Torrent {
    /// A torrent whose files begin and end within pieces; two of them are of the same length.
    pub fn new() -> Self {
        let mut rng = Rng::new(148);
        let len: usize = FILES.iter().map(|(_, len)| len).sum();
        let data: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        let mut info = b"d5:filesl".to_vec();
        for (path, len) in FILES {
            let names = path.split('/').map(|name| format!("{}:{name}", name.len()));
            let names: String = names.collect();
            info.extend(format!("d6:lengthi{len}e4:pathl{names}ee").bytes());
        }
        let hashes: Vec<u8> = data.chunks(PIECE_LEN).flat_map(Sha1::digest).collect();
        let head = format!(
            "e4:name1:t12:piece lengthi{PIECE_LEN}e6:pieces{}:",
            hashes.len()
        );
        info.extend([head.as_bytes(), &hashes, b"e"].concat());
        let bytes = [b"d4:info", &info[..], b"e"].concat();
        let meta = Arc::new(Metainfo::from_bytes(&bytes).expect("a torrent"));
        Self { meta, data }
    }

    /// Puts the files below `root`.
    pub fn write(&self, root: &Path) {
        let mut at = 0;
        for file in &self.meta.files {
            let path = root.join(file.path.as_path());
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("writable");
            let end = at + file.len as usize;
            fs::write(path, &self.data[at..end]).expect("writable");
            at = end;
        }
    }

    /// The pieces with bytes in a file.
    pub fn pieces_of(&self, file: usize) -> BTreeSet<u32> {
        let geometry = self.meta.geometry();
        geometry.pieces_of_file(file as u32).collect()
    }

    fn bytes(&self, piece: u32, begin: u32, len: u32) -> &[u8] {
        let at = self.meta.geometry().offset(PieceIndex(piece), begin) as usize;
        &self.data[at..at + len as usize]
    }
}

/// Lets `acts` happen on a disk that holds what `prepare` puts in the output folder.
pub fn tell(
    plan: Plan,
    scratch: &Path,
    prepare: impl FnOnce(&Torrent, &Path),
    acts: impl FnOnce(&mut Stage<'_>),
) -> Story {
    let torrent = Torrent::new();
    let base = mounts::fresh(plan.fs, scratch, |folder| {
        let root = support::folder(folder, "out");
        support::folder(&root, ".evpeer");
        prepare(&torrent, &root);
    });
    let disk = Disk::mount(&support::folder(scratch, "disk"), &base).expect("FUSE works");
    let folder = support::folder(scratch, "fs");
    let mount = Mount::new(plan.fs, &disk.path(), &folder).expect("mounted");
    let root = folder.join("out");
    let state = match plan.journal {
        Journal::Beside => root.join(".evpeer"),
        Journal::Elsewhere => {
            let _ = fs::remove_dir_all(scratch.join("state")); // that of another story
            support::folder(scratch, "state")
        }
    };
    let mut stage = Stage {
        plan,
        torrent,
        place: Place { root, state },
        rng: Rng::new(plan.seed),
        disk: &disk,
        from: 0,
        notes: Vec::new(),
        journals: vec![(0, None)],
        process: None,
        has_started: false,
        good: BTreeSet::new(),
        own: BTreeSet::new(),
        open: BTreeMap::new(),
        checking: BTreeSet::new(),
        asked: VecDeque::new(),
    };
    acts(&mut stage);
    stage.process = None;
    let Stage {
        torrent,
        from,
        notes,
        journals,
        ..
    } = stage;
    drop(mount);
    Story {
        plan,
        torrent,
        base,
        log: disk.into_log(),
        from,
        notes,
        journals,
    }
}

impl Stage<'_> {
    /// Crashes before now are of no interest.
    pub fn curtain(&mut self) {
        self.from = self.disk.log_len();
    }

    /// Takes a note of what is true from now on.
    pub fn note(&mut self, note: Note) {
        self.notes.push((self.disk.log_len(), note));
    }

    /// Files with these pieces are about to be deleted.
    ///
    /// With `data=writeback` ext4 gives their blocks to others before the deletion is on the disk:
    /// until then they may come back with other bytes, and nothing about them tells.
    pub fn before_deletion(&mut self, pieces: BTreeSet<u32>) {
        self.note(Note::Released(pieces.clone()));
        if self.plan.fs == Kind::Ext4Writeback {
            self.note(Note::Spoilt(pieces));
        }
    }

    /// A process starts and takes up the torrent.
    pub fn start(&mut self) {
        let Plan { storage, order, .. } = self.plan;
        let mut process = Process::start(&self.place, storage, order, None, &self.torrent.meta);
        let begin = process.begin();
        self.open.clear();
        self.checking.clear();
        self.asked.clear();
        self.own.clear();
        self.good = begin.vouched.ones().collect();
        let is_first = !std::mem::replace(&mut self.has_started, true);
        for piece in begin.candidates.ones() {
            process.check(piece);
            self.checking.insert(piece);
            if is_first {
                self.own.insert(piece);
            }
        }
        for (piece, filled) in begin.filled {
            let count = self.torrent.meta.geometry().block_count(piece);
            let blocks = (0..count).filter(|&block| !filled.has(block));
            self.open.insert(piece.0, blocks.collect());
        }
        self.process = Some(process);
        self.after();
    }

    /// The process is killed.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Downloads what is missing, with all that may happen meanwhile.
    pub fn download(&mut self) {
        while self.good.len() < self.torrent.meta.geometry().piece_count() as usize {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..70 => self.store_something(),
            70..93 => {}
            93..95 => {
                self.asked.push_back(self.good.clone());
                self.process().sync();
            }
            95..98 => {
                let (root, meta) = (&self.place.root, &self.torrent.meta);
                process::write_back_some(root, meta, &mut self.rng);
            }
            98 if self.plan.order == Order::Good => {
                self.kill();
                self.start();
            }
            _ => self.process().sleep(Duration::from_millis(1100)),
        }
        self.turn();
    }

    /// Waits until all is durable but what a former process left, then ends in good order.
    pub fn leave(&mut self) {
        for asked in &mut self.asked {
            asked.retain(|piece| self.own.contains(piece)); // nothing waits for the others now
        }
        self.asked.push_back(&self.good & &self.own);
        self.process().leave();
        self.wait_for_answers();
        self.process().drain_jobs();
        self.after();
        self.kill();
    }

    /// Asks for everything to be durable and waits for it.
    pub fn sync(&mut self) {
        self.asked.push_back(self.good.clone());
        self.process().sync();
        self.wait_for_answers();
    }

    /// Has all pieces hashed again.
    pub fn recheck(&mut self) {
        for piece in process::all_pieces(&self.torrent.meta) {
            self.process().check(piece);
            self.checking.insert(piece);
        }
        self.wait_for_checks();
    }

    /// Waits until nothing is being checked.
    pub fn wait_for_checks(&mut self) {
        while !self.checking.is_empty() {
            self.turn();
        }
    }

    /// Somebody else overwrites the middle of each of these pieces.
    pub fn spoil(&mut self, pieces: &BTreeSet<u32>) {
        self.note(Note::Released(pieces.clone()));
        self.note(Note::Spoilt(pieces.clone()));
        for &piece in pieces {
            let geometry = self.torrent.meta.geometry();
            let piece = PieceIndex(piece);
            let span = geometry
                .spans(piece, geometry.piece_len(piece) / 2, 1)
                .next();
            let span = span.expect("a piece has bytes");
            let path = self.path_of(span.file as usize);
            let file = File::options().write(true).open(path).expect("it is there");
            let at = geometry.offset(piece, geometry.piece_len(piece) / 2) as usize;
            let wrong = [!self.torrent.data[at]];
            file.write_all_at(&wrong, span.offset).expect("writable");
        }
    }

    /// The machine has a rest: everything reaches the disk.
    pub fn rest(&mut self) {
        let folder = File::open(&self.place.root).expect("it is there");
        rustix::fs::syncfs(&folder).expect("no disk fails here");
    }

    /// Where a file is.
    pub fn path_of(&self, file: usize) -> PathBuf {
        let path = self.torrent.meta.files[file].path.as_path();
        self.place.root.join(path)
    }

    fn wait_for_answers(&mut self) {
        while !self.asked.is_empty() {
            self.turn();
        }
    }

    fn store_something(&mut self) {
        let geometry = self.torrent.meta.geometry();
        if self.open.len() < OPEN_MAX {
            let mut missing = process::all_pieces(&self.torrent.meta);
            missing.retain(|piece| {
                let is_known = self.good.contains(piece) || self.open.contains_key(piece);
                !is_known && !self.checking.contains(piece)
            });
            if let Some(piece) = pick(&mut self.rng, missing.iter().copied()) {
                let count = geometry.block_count(PieceIndex(piece));
                let mut blocks: Vec<u32> = (0..count).collect();
                self.rng.shuffle(&mut blocks);
                self.open.insert(piece, blocks);
                self.own.insert(piece);
            }
        }
        let Some(piece) = pick(&mut self.rng, self.open.keys().copied()) else {
            return;
        };
        let process = self.process.as_mut().expect("it runs");
        match self.open.get_mut(&piece).and_then(Vec::pop) {
            Some(block) => {
                let begin = block * BLOCK_LEN;
                let len = geometry.block_len(PieceIndex(piece), block);
                let mut bytes = self.torrent.bytes(piece, begin, len).to_vec();
                if self.rng.below(50) == 0 {
                    bytes[0] ^= 1;
                }
                process.store(piece, begin, &bytes);
            }
            None => {
                self.open.remove(&piece);
                self.checking.insert(piece);
                process.check(piece);
            }
        }
    }

    fn turn(&mut self) {
        let process = self.process.as_mut().expect("it runs");
        process.turn(&mut self.rng);
        self.after();
    }

    /// Takes note of what the process did and said.
    fn after(&mut self) {
        if self.plan.journal == Journal::Elsewhere {
            let bytes = fs::read(self.place.journal(&self.torrent.meta)).ok();
            if self.journals.last().is_none_or(|(_, last)| *last != bytes) {
                self.journals.push((self.disk.log_len(), bytes));
            }
        }
        while let Some(said) = self.process().poll() {
            match said {
                Said::Good(piece) => {
                    self.checking.remove(&piece);
                    self.good.insert(piece);
                }
                Said::Bad(piece) => {
                    self.checking.remove(&piece);
                    self.good.remove(&piece);
                }
                Said::Durable => {
                    let pieces = self.asked.pop_front().expect("asked for");
                    self.note(Note::Durable(pieces));
                }
            }
        }
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }
}

fn pick(rng: &mut Rng, items: impl ExactSizeIterator<Item = u32>) -> Option<u32> {
    let mut items = items;
    match items.len() {
        0 => None,
        count => items.nth(rng.below(count as u32) as usize),
    }
}

/// Path and length of each file.
const FILES: [(&str, usize); 8] = [
    ("a/one", 300_001),
    ("a/two", 196_608),
    ("b/c/three", 400_123),
    ("b/four", 16_000),
    ("five", 350_000),
    ("b/c/six", 350_000),
    ("empty", 0),
    ("last", 33_333),
];
/// Files of the same length, by their numbers.
pub const TWINS: [usize; 2] = [4, 5];
const PIECE_LEN: usize = 65_536;
const BLOCK_LEN: u32 = 16_384;
/// Pieces that are fetched at a time.
const OPEN_MAX: usize = 4;
