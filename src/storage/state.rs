//! The folder in which a peer keeps what a restart needs, and the locks that keep others out.
//!
//! It lies in the output folder, unless another is named or that one takes no files. The lock in
//! the output folder guards the data; one in the state folder guards what is remembered. Both last
//! until the process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::error::shown;
use crate::base::digest::sha1;
use crate::base::id::hex;
use crate::meta::metainfo::Metainfo;

/// A state folder that belongs to this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    is_fallback: bool,
    /// Held as long as this lives.
    _locks: Vec<File>,
}

/// Why a process cannot begin in a folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process works there.
    #[error(
        "folder {} is in use by another evpeer{}; stop that one, or name another folder with -o",
        shown(.path),
        .process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process id, if it says so.
        process: Option<u32>,
    },
    /// The folder takes no files.
    #[error(
        "cannot keep state in {}: {source}; name a folder that can be written with --state-dir",
        shown(.path)
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDir {
    /// Takes the output folder `output` and a state folder: `named`, or else the one in the output
    /// folder, or else, if that takes no files, one for this output folder in `home`.
    ///
    /// # Errors
    /// Another process has one of them, or none can be written.
    pub fn open(
        output: &Path,
        named: Option<&Path>,
        home: Option<&Path>,
    ) -> Result<Self, StateError> {
        let own = output.join(NAME);
        let mut locks = Vec::new();
        let is_own_usable = match take(&own) {
            Ok(lock) => {
                locks.push(lock);
                Ok(())
            }
            Err(StateError::Unusable { source, .. }) => Err(source),
            Err(in_use @ StateError::InUse { .. }) => return Err(in_use),
        };
        let (path, is_fallback) = match (named, is_own_usable) {
            (Some(named), _) => (named.to_owned(), false),
            (None, Ok(())) => (own.clone(), false),
            (None, Err(source)) => match home {
                Some(home) => (home.join("evpeer").join(name_for(output)), true),
                None => return Err(StateError::Unusable { path: own, source }),
            },
        };
        if locks.is_empty() || !is_same_folder(&path, &own) {
            locks.push(take(&path)?);
        }
        Ok(Self {
            path,
            is_fallback,
            _locks: locks,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies elsewhere because the output folder takes no files.
    pub fn is_fallback(&self) -> bool {
        self.is_fallback
    }

    /// Keeps the metainfo, so that its file may go away.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep(&self, meta: &Metainfo) -> io::Result<()> {
        let path = self.path.join(format!("{}.torrent", meta.info_hash));
        if fs::read(&path).is_ok_and(|kept| kept == meta.source[..]) {
            return Ok(());
        }
        let beside = path.with_extension("torrent.new");
        let mut file = open(
            &beside,
            OpenOptions::new().write(true).create(true).truncate(true),
        )?;
        file.write_all(&meta.source)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.path)?.sync_all()
    }
}

/// Makes a folder if need be, and locks it.
fn take(folder: &Path) -> Result<File, StateError> {
    let unusable = |source: io::Error| StateError::Unusable {
        path: folder.to_owned(),
        source,
    };
    make(folder).map_err(unusable)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut lock = open(&folder.join("lock"), &mut options).map_err(unusable)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // For the message to others: if it cannot be written, they do without.
            let told = lock.set_len(0).and_then(|()| {
                let id = rustix::process::getpid().as_raw_nonzero();
                writeln!(lock, "{id}")
            });
            drop(told);
        }
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let process = lock.take(32).read_to_string(&mut text).ok();
            let process = process.and_then(|_| text.trim().parse().ok());
            let path = folder.to_owned();
            return Err(StateError::InUse { path, process });
        }
        Err(errno) => log::warn!(
            "folder cannot be locked, see to it that no other evpeer uses it path={}: {errno}",
            shown(folder)
        ),
    }
    Ok(lock)
}

/// Makes a folder whose name survives a power cut.
fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let mut missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.is_dir())
        .collect();
    missing.retain(|path| !path.as_os_str().is_empty());
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result?,
        }
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    options.mode(0o600).custom_flags(flags).open(path)
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// The name of the state folder of an output folder that takes no files.
fn name_for(output: &Path) -> String {
    let path = output.canonicalize().unwrap_or_else(|_| output.to_owned());
    hex(&sha1(path.as_os_str().as_encoded_bytes())[..10])
}

/// The state folder in an output folder.
const NAME: &str = ".evpeer";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::torrent;

    #[test]
    fn second_process_is_refused_and_told_who_was_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(dir.path(), None, None).expect("free");
        assert_eq!(first.path(), dir.path().join(".evpeer"));
        let error = StateDir::open(dir.path(), None, None).expect_err("taken");
        let text = error.to_string();
        let process = format!("(process {})", std::process::id());
        assert!(text.contains(&process) && text.contains("-o"), "{text}");
        // Whatever the state folder is.
        let other = tempfile::tempdir().expect("a folder");
        let error = StateDir::open(dir.path(), Some(other.path()), None).expect_err("taken");
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
        drop(first);
        let named = other.path().join("a/b");
        let second = StateDir::open(dir.path(), Some(&named), None).expect("free again");
        assert_eq!(second.path(), named);
        // Nor can two share a state folder.
        let third = tempfile::tempdir().expect("a folder");
        let error = StateDir::open(third.path(), Some(&named), None).expect_err("taken");
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
    }

    #[test]
    fn output_folder_that_takes_no_files_has_its_state_elsewhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let home = tempfile::tempdir().expect("a folder");
        // A file where the folder should be: nobody can make it, not even root.
        fs::write(dir.path().join(".evpeer"), b"").expect("written");
        let error = StateDir::open(dir.path(), None, None).expect_err("no place");
        assert!(error.to_string().contains("--state-dir"), "{error}");
        let state = StateDir::open(dir.path(), None, Some(home.path())).expect("a place");
        assert!(state.is_fallback() && state.path().starts_with(home.path()));
        let error = StateDir::open(dir.path(), None, Some(home.path())).expect_err("taken");
        assert!(matches!(error, StateError::InUse { .. }), "{error}");
    }

    #[test]
    fn metainfo_is_kept_as_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = StateDir::open(dir.path(), None, None).expect("free");
        let (meta, _) = torrent(16_384, &[("a", 40_000, "")]);
        let path = state.path().join(format!("{}.torrent", meta.info_hash));
        for before in [None, Some(b"half a tor")] {
            if let Some(before) = before {
                fs::write(&path, before).expect("written");
            }
            state.keep(&meta).expect("kept");
            assert_eq!(fs::read(&path).expect("there"), meta.source);
        }
        state.keep(&meta).expect("there already");
    }
}
