//! Files of the state folder as work for a helper thread: the session, and a .torrent for each
//! torrent, so that the original may go away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::shown;
use super::reserve::Reserve;
use super::state::{self, StateError};
use crate::base::id::InfoHash;
use crate::base::limits::TORRENT_FILE_LEN_MAX;
use crate::meta::metainfo::{FileKind, Metainfo};
use crate::meta::paths::Naming;
use crate::meta::text::Text;

/// One piece of work that may block. Jobs are done in the order in which they are given.
#[derive(Debug)]
pub enum KeepJob {
    /// Replace the session.
    Session {
        /// Its file.
        path: PathBuf,
        /// Its text.
        text: Vec<u8>,
    },
    /// Keep a torrent's text.
    Torrent {
        /// Its file.
        path: PathBuf,
        /// The text.
        text: Text,
    },
    /// Remove the files that were kept for a torrent.
    Forget {
        /// Its files.
        paths: Vec<PathBuf>,
    },
    /// Read a .torrent.
    Load {
        /// Goes back with the result.
        ticket: u64,
        /// Its file.
        path: PathBuf,
        /// The output folder.
        root: PathBuf,
    },
}

/// What came of a job.
#[derive(Debug)]
pub enum KeepDone {
    /// Of `Session`.
    Session(Result<(), StateError>),
    /// Of `Torrent` and `Forget`.
    Files(Result<(), StateError>),
    /// Of `Load`.
    Loaded {
        /// Of the job.
        ticket: u64,
        /// The torrent, or why there is none.
        result: Result<Arc<Metainfo>, String>,
    },
}

/// Does a job, in a state folder with this reserve. Blocks.
pub fn run(job: KeepJob, reserve: &Reserve) -> KeepDone {
    match job {
        KeepJob::Session { path, text } => {
            KeepDone::Session(state::replace_with(reserve, &path, &text))
        }
        KeepJob::Torrent { path, text } => KeepDone::Files(keep(&path, &text, reserve)),
        KeepJob::Forget { paths } => {
            let gone = paths.iter().map(|path| state::remove(path));
            KeepDone::Files(gone.collect())
        }
        KeepJob::Load { ticket, path, root } => KeepDone::Loaded {
            ticket,
            result: load(&path).map(|meta| named_as_in(&root, &Arc::new(meta))),
        },
    }
}

/// The session's name in the state folder.
pub const SESSION: &str = "session";

/// Where the metainfo of a torrent is kept.
pub fn torrent_path(state_dir: &Path, info_hash: InfoHash) -> PathBuf {
    state_dir.join(format!("{info_hash}.torrent"))
}

/// Where a torrent's journal is kept.
pub(super) fn journal_path(state_dir: &Path, info_hash: InfoHash) -> PathBuf {
    state_dir.join(format!("{info_hash}.journal"))
}

/// All files that are kept for a torrent.
pub fn kept_paths(state_dir: &Path, info_hash: InfoHash) -> Vec<PathBuf> {
    vec![
        torrent_path(state_dir, info_hash),
        journal_path(state_dir, info_hash),
    ]
}

/// Reads a .torrent, within the limit.
///
/// # Errors
/// A text that names the file and what to do.
pub fn load(path: &Path) -> Result<Metainfo, String> {
    let bytes = state::read(path, TORRENT_FILE_LEN_MAX).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| format!("there is no {}", shown(path)))?;
    Metainfo::from_bytes(&bytes)
        .map_err(|error| format!("{} is not a usable .torrent: {error}", shown(path)))
}

fn keep(path: &Path, text: &Text, reserve: &Reserve) -> Result<(), StateError> {
    let before = state::read(path, TORRENT_FILE_LEN_MAX).ok().flatten();
    if before.is_some_and(|bytes| bytes == **text.source()) {
        return Ok(());
    }
    state::replace_with(reserve, path, text.source())
}

/// The same torrent with its files called what they are called in `root`.
///
/// Names that other systems forbid are replaced when data is fetched. Data that was there before,
/// such as that of whoever made the .torrent, still has the names of the torrent: they are used
/// if more of its files are found under them.
pub fn named_as_in(root: &Path, meta: &Arc<Metainfo>) -> Arc<Metainfo> {
    let Some(text) = meta.text().filter(|_| meta.names_changed) else {
        return Arc::clone(meta);
    };
    let found = |meta: &Metainfo| {
        let paths = meta.files.iter().filter(|f| f.kind == FileKind::Data);
        let there = paths.filter(|f| root.join(f.path.as_path()).is_file());
        there.count()
    };
    match Metainfo::from_bytes_named(text.source(), Naming::Exact) {
        Ok(exact) if found(&exact) > found(meta) => Arc::new(exact),
        _ => Arc::clone(meta),
    }
}
