//! `evpeer verify`: hashes the data of torrents and names what is wrong or missing.
//!
//! Drives storage read-only and by itself: its jobs run here, one after the other.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::ProgressBar;

use super::args::VerifyArgs;
use super::error::CliError;
use super::meter::Meter;
use super::output::{print, printable_path};
use super::source::{self, Source};
use super::units::show_len;
use crate::base::bits::Bitfield;
use crate::base::id::{PieceIndex, TorrentId};
use crate::base::limits;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::control::api::{self, FileVerdict, Verified};
use crate::meta::metainfo::{FileKind, Metainfo};
use crate::storage::error::StorageError;
use crate::storage::{Access, Event, Pace, Storage, StorageOptions, jobs};

/// Verifies every torrent; the exit code is 1 if any has wrong or missing data.
///
/// # Errors
/// An input cannot be used, and nothing was verified; or the data cannot be read.
pub fn verify(args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let meter = Meter::start(&args.talk)?;
    let sources = source::read_all(args.all_sources(), None)?;
    source::refuse_unusable_folder(&args.output)?;
    let mut storage = Storage::new(StorageOptions {
        root: args.output.clone(),
        kind: StorageKind::Auto,
        access: Access::ReadOnly,
        windows_len_max: limits::WINDOWS_LEN_MAX,
        state_dir: None,
    });
    let mut code = ExitCode::SUCCESS;
    for (index, source) in (0..).zip(&sources) {
        let meta = source::named_as_in(&args.output, &source.meta);
        let verified = verify_one(TorrentId(index), &meta, &args.output, &mut storage, &meter)?;
        if !verified.is_right() {
            code = ExitCode::FAILURE;
        }
        if args.json {
            print(&format!("{}\n", api::verified(&meta, &verified)))?;
        } else if !args.talk.quiet || !verified.is_right() {
            print(&report(source, &verified, &args.output))?;
        }
    }
    Ok(code)
}

fn verify_one(
    torrent: TorrentId,
    meta: &Arc<Metainfo>,
    root: &Path,
    storage: &mut Storage,
    meter: &Meter,
) -> Result<Verified, CliError> {
    let bar = meter.task(&meta.name, meta.geometry().length());
    let mut check = Check {
        storage,
        torrent,
        meta,
        bar: &bar,
    };
    let found = check.run().map_err(|source| CliError::DataUnreadable {
        name: meta.name.clone(),
        source,
    })?;
    storage.remove(torrent);
    run_jobs(storage);
    bar.finish_and_clear();
    Ok(sum_up(meta, &found, root))
}

/// Which pieces are right, and which have bytes that are not.
struct Found {
    good: Bitfield,
    bad: Bitfield,
}

/// One torrent on its way through storage.
struct Check<'a> {
    storage: &'a mut Storage,
    torrent: TorrentId,
    meta: &'a Arc<Metainfo>,
    bar: &'a ProgressBar,
}

impl Check<'_> {
    /// Hashes every piece whose files are there.
    fn run(&mut self) -> Result<Found, StorageError> {
        self.storage.add(self.torrent, Arc::clone(self.meta));
        let count = self.meta.geometry().piece_count();
        let mut found = Found {
            good: Bitfield::new(count),
            bad: Bitfield::new(count),
        };
        let candidates = self.scan()?;
        let mut under_way = 0;
        let mut next = candidates.ones();
        loop {
            while under_way < CHECKS_MAX
                && let Some(piece) = next.next()
            {
                self.storage.check(self.torrent, PieceIndex(piece));
                under_way += 1;
            }
            if under_way == 0 {
                return Ok(found);
            }
            let has_run = run_jobs(self.storage);
            let hashed = self.storage.work(WORK_LEN, Pace::AtOnce);
            let mut told = 0;
            while let Some(event) = self.storage.poll_event() {
                told += self.take(event, &mut found)?;
            }
            under_way -= told;
            assert!(
                has_run || hashed > 0 || told > 0,
                "storage neither works nor waits, {under_way} pieces under way"
            );
        }
    }

    fn scan(&mut self) -> Result<Bitfield, StorageError> {
        loop {
            let has_run = run_jobs(self.storage);
            match self.storage.poll_event() {
                Some(Event::Scanned { candidates, .. }) => {
                    let geometry = self.meta.geometry();
                    let absent = (0..geometry.piece_count()).filter(|&p| !candidates.has(p));
                    let absent = absent.map(|p| u64::from(geometry.piece_len(PieceIndex(p))));
                    self.bar.inc(absent.sum());
                    return Ok(candidates);
                }
                Some(Event::Failed { error, .. }) => return Err(error),
                Some(_) => {}
                None => assert!(has_run, "storage does not answer a scan"),
            }
        }
    }

    /// Notes what an event says; returns the number of pieces that it ends.
    fn take(&self, event: Event, found: &mut Found) -> Result<usize, StorageError> {
        match event {
            Event::Checked { piece, verdict, .. } => {
                match verdict {
                    Verdict::Good { .. } => found.good.set(piece.0),
                    Verdict::Bad { .. } => found.bad.set(piece.0),
                    Verdict::Missing => false,
                };
                let len = self.meta.geometry().piece_len(piece);
                self.bar.inc(u64::from(len));
                Ok(1)
            }
            Event::Failed { error, .. } => Err(error),
            _ => Ok(0),
        }
    }
}

/// Executes what storage waits for; says whether there was anything.
fn run_jobs(storage: &mut Storage) -> bool {
    let mut has_run = false;
    while let Some(job) = storage.poll_job() {
        storage.job_done(jobs::run(job));
        has_run = true;
    }
    has_run
}

/// Pieces that are asked for at a time: enough to hash several at once.
const CHECKS_MAX: usize = 4;
/// Bytes hashed between two looks at the jobs.
const WORK_LEN: u64 = 8 << 20;

/// Counts pieces, and names the files that are not whole.
fn sum_up(meta: &Metainfo, found: &Found, root: &Path) -> Verified {
    let geometry = meta.geometry();
    let good_bytes = found.good.ones().map(PieceIndex);
    let good_bytes = good_bytes.map(|p| u64::from(geometry.piece_len(p))).sum();
    let mut files = Vec::new();
    for (index, file) in (0..).zip(&meta.files) {
        let pieces = geometry.pieces_of_file(index);
        let wrong = pieces.clone().filter(|&p| found.bad.has(p)).count();
        let good = pieces.clone().filter(|&p| found.good.has(p)).count();
        let missing = pieces.len() - wrong - good;
        let is_absent = file.len == 0 && !root.join(file.path.as_path()).is_file();
        if file.kind == FileKind::Data && (wrong + missing > 0 || is_absent) {
            files.push(FileVerdict {
                path: file.path.clone(),
                wrong_pieces: wrong as u32,
                missing_pieces: missing as u32,
            });
        }
    }
    Verified {
        pieces: geometry.piece_count(),
        good_pieces: found.good.count_ones(),
        wrong_pieces: found.bad.count_ones(),
        good_bytes,
        files,
    }
}

fn report(source: &Source, verified: &Verified, root: &Path) -> String {
    let path = printable_path(&source.path);
    let count = verified.pieces;
    if verified.is_right() {
        let len = show_len(source.meta.geometry().length());
        return format!("{path}: all {count} pieces are right ({len})\n");
    }
    let mut text = format!(
        "{path}: of {count} pieces {} are right, {} wrong, {} missing in '{}'\n",
        verified.good_pieces,
        verified.wrong_pieces,
        verified.missing_pieces(),
        printable_path(root),
    );
    for file in verified.files.iter().take(FILES_SHOWN_MAX) {
        let what = match (file.wrong_pieces, file.missing_pieces) {
            (0, _) => "missing or short",
            (_, 0) => "wrong",
            (_, _) => "wrong and missing",
        };
        writeln!(text, "  {what:18} {}", file.path).expect("a String takes everything");
    }
    if let Some(more @ 1..) = verified.files.len().checked_sub(FILES_SHOWN_MAX) {
        writeln!(text, "  and {more} more files").expect("a String takes everything");
    }
    text
}

/// Files that plain text lists; JSON has them all.
const FILES_SHOWN_MAX: usize = 20;
