//! What a power cut may leave of a disk, and what the next start makes of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use evpeer::base::bits::Bitfield;
use evpeer::base::rng::Rng;
use evpeer::config::StorageKind;
use evpeer::storage::journal::BootId;

use super::disk::Entry;
use super::mounts::Mount;
use super::process::{Order, Place, Process, Said, all_pieces, wrong_pieces};
use super::story::{Journal, Note, Story};
use super::support;

/// What became of the images of a story.
#[derive(Debug, Default)]
pub struct Findings {
    /// Images that were looked at.
    pub images: u64,
    /// Pieces that were claimed, all images together.
    pub claims: u64,
    /// Pieces that the process had called durable, all images together.
    pub owed: u64,
    /// Images that could not be mounted.
    pub unusable: Vec<String>,
    /// Claims that are false.
    pub lies: Vec<String>,
    /// Pieces that were called durable and are not claimed.
    pub losses: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

impl Findings {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        self.images += other.images;
        self.claims += other.claims;
        self.owed += other.owed;
        self.unusable.extend(other.unusable);
        self.lies.extend(other.lies);
        self.losses.extend(other.losses);
        self.time += other.time;
    }

    /// Fails unless everything is as it has to be.
    pub fn assert_right(&self) {
        let all = [&self.unusable, &self.lies, &self.losses];
        let all: Vec<&str> = all.into_iter().flatten().map(String::as_str).collect();
        let first = &all[..all.len().min(SHOWN)];
        assert!(
            all.is_empty(),
            "{} in all:\n{}\n",
            all.len(),
            first.join("\n")
        );
        let is_any = self.claims > 0 && self.owed > 0;
        assert!(is_any, "there is something to be wrong");
    }
}

/// How a disk loses what was in its cache.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Nothing,
    Everything,
    /// Some writes.
    Writes,
    /// Some blocks of writes.
    Blocks,
    /// Some blocks of writes, and of what was written to the same place any may have been the
    /// last.
    Order,
}

/// One crash.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Entries of the log before it.
    at: usize,
    loss: Loss,
    seed: u64,
}

/// Looks at `count` images of a story, some at a time.
pub fn look(story: &Story, scratch: &Path, count: u32) -> Findings {
    let begin = Instant::now();
    let mut cuts = cuts(story, count);
    cuts.sort_by_key(|cut| cut.at);
    let share = cuts.len().div_ceil(WORKERS).max(1);
    let findings = Mutex::new(Findings::default());
    std::thread::scope(|scope| {
        for (number, cuts) in cuts.chunks(share).enumerate() {
            let folder = support::folder(scratch, &format!("worker-{number}"));
            let findings = &findings;
            scope.spawn(move || {
                let mut worker = Worker::new(story, folder);
                for &cut in cuts {
                    worker.look_at(cut);
                }
                findings.lock().expect("no panic").add(worker.findings);
            });
        }
    });
    let findings = findings.into_inner().expect("no panic");
    let time = begin.elapsed();
    Findings { time, ..findings }
}

fn cuts(story: &Story, count: u32) -> Vec<Cut> {
    let mut rng = Rng::new(story.plan.seed ^ 0x5eed);
    let range = story.from..story.log.len() + 1;
    let notes: Vec<usize> = story.notes.iter().map(|(at, _)| *at).collect();
    let flushes: Vec<usize> = flushes(story).collect();
    let cuts = (0..count).map(|_| {
        let mut one_of = |marks: &[usize]| match marks.len() {
            0 => range.start,
            count => marks[rng.below(count as u32) as usize] + rng.below(3) as usize,
        };
        let near = [one_of(&notes), one_of(&flushes)];
        let any = range.start + rng.below(range.len() as u32) as usize;
        let at = [near[0], near[1], any][rng.below(3) as usize];
        let loss = match rng.below(20) {
            0..3 => Loss::Nothing,
            3..6 => Loss::Everything,
            6..10 => Loss::Writes,
            10..15 => Loss::Blocks,
            _ => Loss::Order,
        };
        Cut {
            at: at.clamp(range.start, range.end - 1),
            loss,
            seed: rng.next_u64(),
        }
    });
    cuts.collect()
}

fn flushes(story: &Story) -> impl Iterator<Item = usize> + '_ {
    let entries = story.log.iter().enumerate();
    entries.filter_map(|(at, entry)| matches!(entry, Entry::Flush).then_some(at))
}

/// One that looks at images, one after the other, the later ones later.
struct Worker<'a> {
    story: &'a Story,
    folder: PathBuf,
    /// The disk without anything that was in its cache, up to that entry.
    solid: Vec<u8>,
    solid_at: usize,
    findings: Findings,
}

impl<'a> Worker<'a> {
    fn new(story: &'a Story, folder: PathBuf) -> Self {
        Self {
            story,
            folder,
            solid: story.base.clone(),
            solid_at: 0,
            findings: Findings::default(),
        }
    }

    fn look_at(&mut self, cut: Cut) {
        let mut rng = Rng::new(cut.seed);
        let image = self.folder.join("image");
        self.write_image(&image, cut, &mut rng)
            .expect("there is room");
        self.findings.images += 1;
        let folder = support::folder(&self.folder, "fs");
        let mount = match Mount::new(self.story.plan.fs, &image, &folder) {
            Ok(mount) => mount,
            Err(error) => {
                let text = self.describe(cut, &error);
                return self.findings.unusable.push(text);
            }
        };
        self.start(cut, &mut rng, mount.folder());
    }

    fn write_image(&mut self, image: &Path, cut: Cut, rng: &mut Rng) -> io::Result<()> {
        let log = &self.story.log[..cut.at];
        let is_flush = |entry: &Entry| matches!(entry, Entry::Flush);
        let flushed = log.iter().rposition(is_flush).unwrap_or(0);
        for entry in log.get(self.solid_at..flushed).unwrap_or_default() {
            if let Entry::Write { offset, bytes } = entry {
                let begin = *offset as usize;
                self.solid[begin..begin + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.solid_at = self.solid_at.max(flushed);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(image)?;
        file.write_all_at(&self.solid, 0)?;
        for (offset, bytes) in survivors(&log[flushed..], cut.loss, rng) {
            file.write_all_at(bytes, offset)?;
        }
        Ok(())
    }

    /// Does what a start does, and compares what it claims with what there is.
    fn start(&mut self, cut: Cut, rng: &mut Rng, folder: &Path) {
        let root = folder.join("out");
        let state = match self.story.plan.journal {
            Journal::Beside => root.join(".evpeer"),
            Journal::Elsewhere => self.journal_of(cut, rng),
        };
        let place = Place { root, state };
        let storage = match rng.below(2) {
            0 => StorageKind::Map,
            _ => StorageKind::Pwrite,
        };
        let meta = &self.story.torrent.meta;
        let mut process = Process::start(&place, storage, Order::Good, Some(BOOT), meta);
        let begin = process.begin();
        self.findings.claims += u64::from(begin.vouched.count_ones());
        let (owed, spoilt) = self.owed(cut.at);
        self.findings.owed += owed.len() as u64;
        let mut lies = wrong_pieces(&place.root, meta, &begin.vouched);
        lies.retain(|piece| !spoilt.contains(piece));
        if !lies.is_empty() {
            let text = self.describe(cut, &format!("claimed and wrong: {lies:?}"));
            self.findings.lies.push(text);
        }
        let lost: Vec<&u32> = owed.iter().filter(|p| !begin.vouched.has(**p)).collect();
        if !lost.is_empty() {
            let text = self.describe(cut, &format!("durable and not claimed: {lost:?}"));
            self.findings.losses.push(text);
        }
        let is_sound = lies.is_empty() && spoilt.is_empty();
        if rng.below(8) == 0
            && is_sound
            && self.story.plan.order == Order::Good
            && let Err(error) = self.go_on(process, &begin.vouched, &place, storage)
        {
            let text = self.describe(cut, &error);
            self.findings.lies.push(text);
        }
    }

    /// Downloads the rest and starts once more.
    fn go_on(
        &self,
        mut process: Process,
        vouched: &Bitfield,
        place: &Place,
        storage: StorageKind,
    ) -> Result<(), String> {
        let (meta, data) = (&self.story.torrent.meta, &self.story.torrent.data);
        let piece_len = meta.geometry().nominal_piece_len() as usize;
        let missing = all_pieces(meta);
        for piece in missing.into_iter().filter(|piece| !vouched.has(*piece)) {
            let bytes = data.chunks(piece_len).nth(piece as usize);
            process.store(piece, 0, bytes.expect("a piece has bytes"));
            process.check(piece);
            process.drain_jobs();
        }
        process.leave();
        process.drain_jobs();
        if !std::iter::from_fn(|| process.poll()).any(|said| said == Said::Durable) {
            return Err("it does not end".to_owned());
        }
        drop(process);
        let mut next = Process::start(place, storage, Order::Good, Some(BOOT), meta);
        let begin = next.begin();
        let wrong = wrong_pieces(&place.root, meta, &Bitfield::full(begin.vouched.len()));
        match (begin.vouched.is_full(), &wrong[..]) {
            (true, []) => Ok(()),
            (is_full, wrong) => Err(format!(
                "in the end: all claimed {is_full}, wrong {wrong:?}"
            )),
        }
    }

    /// The pieces that have to be claimed after a crash, and those that somebody has spoilt.
    fn owed(&self, at: usize) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let (mut owed, mut spoilt) = (BTreeSet::new(), BTreeSet::new());
        for (_, note) in self.story.notes.iter().filter(|(noted, _)| *noted <= at) {
            match note {
                Note::Durable(pieces) => owed.extend(pieces),
                Note::Released(pieces) => owed.retain(|piece| !pieces.contains(piece)),
                Note::Spoilt(pieces) => spoilt.extend(pieces),
                Note::Mended => spoilt.clear(),
            }
        }
        (owed, spoilt)
    }

    /// Lays out the journal that was elsewhere: as it was, or without what was not synced.
    fn journal_of(&self, cut: Cut, rng: &mut Rng) -> PathBuf {
        let notes = self.story.notes.iter().filter(|(at, _)| *at <= cut.at);
        let mut said = notes.filter(|(_, note)| matches!(note, Note::Durable(_)));
        let safe_at = said.next_back().map_or(0, |(at, _)| *at);
        let count = |at: usize| {
            self.story
                .journals
                .partition_point(|(noted, _)| *noted <= at)
        };
        let (first, last) = (count(safe_at) - 1, count(cut.at) - 1);
        let chosen = match rng.below(2) {
            0 => last,
            _ => first + rng.below((last - first + 1) as u32) as usize,
        };
        let state = support::folder(&self.folder, "state");
        let root = PathBuf::new();
        let place = Place { root, state };
        let path = place.journal(&self.story.torrent.meta);
        match &self.story.journals[chosen].1 {
            Some(bytes) => fs::write(path, bytes).expect("writable"),
            None => drop(fs::remove_file(path)),
        }
        place.state
    }

    fn describe(&self, cut: Cut, what: &str) -> String {
        let plan = &self.story.plan;
        let len = self.story.log.len();
        format!(
            "{what}\n  {plan:?}\n  {cut:?} of {len} entries\n  \
             EVPEER_SEED={} cargo test --test power -- --exact {}",
            plan.seed, plan.test
        )
    }
}

/// What survives of the writes since the last flush, in the order in which it reaches the disk.
fn survivors<'a>(pending: &'a [Entry], loss: Loss, rng: &mut Rng) -> Vec<(u64, &'a [u8])> {
    let writes = pending.iter().filter_map(|entry| match entry {
        Entry::Write { offset, bytes } => Some((*offset, &bytes[..])),
        Entry::Flush => None,
    });
    let mut all: Vec<(u64, &[u8])> = match loss {
        Loss::Blocks | Loss::Order => writes.flat_map(|(at, bytes)| blocks(at, bytes)).collect(),
        Loss::Nothing | Loss::Everything | Loss::Writes => writes.collect(),
    };
    let kept_percent = match loss {
        Loss::Nothing => 100,
        Loss::Everything => 0,
        Loss::Writes | Loss::Blocks | Loss::Order => [5, 20, 50, 80, 95][rng.below(5) as usize],
    };
    all.retain(|_| rng.below(100) < kept_percent);
    if let Loss::Order = loss {
        rng.shuffle(&mut all);
    }
    all
}

/// A write, cut where blocks of the disk begin.
fn blocks(offset: u64, bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let place = offset + at as u64;
        let len = (BLOCK_LEN - place % BLOCK_LEN) as usize;
        let end = (at + len).min(bytes.len());
        found.push((place, &bytes[at..end]));
        at = end;
    }
    found
}

/// Of what is wrong, so much is shown.
const SHOWN: usize = 10;
/// What a disk writes as a whole.
const BLOCK_LEN: u64 = 4096;
/// Most of the time goes by waiting for mounts.
const WORKERS: usize = 6;
/// Another run of the machine than any.
const BOOT: BootId = BootId([0xb0; 16]);
