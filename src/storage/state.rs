//! The state folder: where it is, who owns it, and files in it that are replaced as a whole.
//!
//! A running peer owns its output folder by a lock in `<output>/.evpeer/lock`, wherever its state
//! is, and the state folder by one of its own if that lies elsewhere. The kernel drops the locks
//! with the process, however that ends, so the files stay and mean nothing by themselves.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdir, open};
use rustix::io::Errno;

use super::error::shown;
use super::reserve::Reserve;
use crate::base::digest::sha1;
use crate::base::id::hex;

/// Where the state of a peer may be.
#[derive(Clone, Debug)]
pub struct Places {
    /// The output folder.
    pub output: PathBuf,
    /// The folder that the user chose.
    pub chosen: Option<PathBuf>,
    /// Where the state of output folders that cannot be written goes, each in a folder of its own.
    pub fallback: Option<PathBuf>,
}

impl Places {
    /// The state folders of this output folder, the one that is used if it can be first.
    pub fn all(&self) -> Vec<PathBuf> {
        if let Some(chosen) = &self.chosen {
            return vec![chosen.clone()];
        }
        let usual = self.output.join(FOLDER);
        [usual].into_iter().chain(self.fallback()).collect()
    }

    /// The folder for this output folder's state below the common one.
    fn fallback(&self) -> Option<PathBuf> {
        let name = hex(&sha1(whole(&self.output).as_os_str().as_encoded_bytes())[..10]);
        self.fallback.as_ref().map(|common| common.join(name))
    }
}

/// An open state folder, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    is_fallback: bool,
    _locks: Vec<File>,
}

/// Why there is no state folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error(
        "{} is in use by {}: stop that one, talk to it with evpeer ctl, or choose another folder \
         with -o",
        shown(folder), Holder(*pid)
    )]
    InUse {
        /// What is locked: an output folder or a state folder.
        folder: PathBuf,
        /// The process, if it can be told.
        pid: Option<u32>,
    },
    /// It cannot be written.
    #[error(
        "the state folder {} cannot be used: {message}; make it writable or name another with \
         --state-dir",
        shown(path)
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// A file in it cannot be read or written.
    #[error(
        "cannot {action} {}: {message}; check the disk and the file",
        shown(path)
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        message: String,
    },
    /// A file in it is longer than any of ours.
    #[error(
        "{} is longer than {len_max} B: it is none of evpeer's, move it away",
        shown(path)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit, bytes.
        len_max: u64,
    },
}

/// Names the process that holds a lock.
struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "another evpeer, process {pid}"),
            None => f.write_str("another evpeer"),
        }
    }
}

impl StateDir {
    /// Makes the first of `places` that can be written, and takes the locks.
    ///
    /// # Errors
    /// Another process has the output folder or the state folder, or no place can be written.
    pub fn open(places: &Places) -> Result<Self, StateError> {
        let usual = places.output.join(FOLDER);
        if let Some(chosen) = &places.chosen {
            let mut locks = Vec::new();
            match lock(&usual, &places.output) {
                Ok(file) => locks.push(file),
                Err(Refusal::InUse(error)) => return Err(error),
                // Nobody can lock what nobody can write; the state folder has its own.
                Err(Refusal::Unwritable(error)) => {
                    log::debug!("output folder not locked: {error}");
                }
            }
            if !is_same_folder(chosen, &usual) {
                locks.push(lock(chosen, chosen).map_err(|refusal| refusal.for_good(chosen))?);
            }
            return Ok(Self {
                path: whole(chosen),
                is_fallback: false,
                _locks: locks,
            });
        }
        let (path, locked, is_fallback) = match (lock(&usual, &places.output), places.fallback()) {
            (Err(Refusal::Unwritable(error)), Some(path)) => {
                log::debug!("state folder elsewhere cause=\"{error}\"");
                let locked = lock(&path, &places.output);
                (path, locked, true)
            }
            (locked, _) => (usual, locked, false),
        };
        Ok(Self {
            _locks: vec![locked.map_err(|refusal| refusal.for_good(&path))?],
            path: whole(&path),
            is_fallback,
        })
    }

    /// Where it is, from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is elsewhere because the output folder cannot be written.
    pub fn is_fallback(&self) -> bool {
        self.is_fallback
    }
}

/// Why a lock was not taken.
enum Refusal {
    InUse(StateError),
    Unwritable(io::Error),
}

impl Refusal {
    fn for_good(self, folder: &Path) -> StateError {
        match self {
            Self::InUse(error) => error,
            Self::Unwritable(error) => StateError::Unusable {
                path: folder.to_owned(),
                message: error.to_string(),
            },
        }
    }
}

/// Makes the folder and locks it, on behalf of `what`.
fn lock(folder: &Path, what: &Path) -> Result<File, Refusal> {
    make_folder(folder).map_err(Refusal::Unwritable)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = folder.join(LOCK);
    let file = open(&path, flags, PRIVATE).map_err(|e| Refusal::Unwritable(e.into()))?;
    let mut file = File::from(file);
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Only for the message of whoever comes second.
            let text = format!("{}\n", rustix::process::getpid().as_raw_nonzero());
            let _ = file
                .set_len(0)
                .and_then(|()| file.write_all(text.as_bytes()));
            Ok(file)
        }
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file
                .rewind()
                .and_then(|()| file.take(32).read_to_string(&mut text));
            Err(Refusal::InUse(StateError::InUse {
                folder: what.to_owned(),
                pid: text.trim().parse().ok(),
            }))
        }
        Err(errno) => {
            log::warn!(
                "folder cannot be locked, run one evpeer in it only: path={} error={errno}",
                shown(folder)
            );
            Ok(file)
        }
    }
}

/// A folder for its owner alone, with those above it.
fn make_folder(path: &Path) -> io::Result<()> {
    match mkdir(path, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) if path.is_dir() => return Ok(()),
        Err(Errno::NOENT) => {
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                fs::create_dir_all(parent)?;
            }
            mkdir(path, Mode::RWXU)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    // Best effort: what is written into it shall be found after a loss of power.
    let _ = sync_folder_of(path);
    Ok(())
}

/// The path from the root, if the folder is there.
pub fn whole(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Reads a file that is `len_max` bytes at most; `None` if there is none.
///
/// # Errors
/// It is longer, is no regular file, or cannot be read.
pub fn read(path: &Path, len_max: u64) -> Result<Option<Vec<u8>>, StateError> {
    let failed = failed(path, "read");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno.into())),
    };
    if !file.metadata().map_err(&failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(len_max + 1)
        .read_to_end(&mut bytes)
        .map_err(&failed)?;
    if bytes.len() as u64 > len_max {
        return Err(StateError::TooLong {
            path: path.to_owned(),
            len_max,
        });
    }
    Ok(Some(bytes))
}

/// Replaces a file as a whole: after a crash at any instant it is the old or the new one.
///
/// # Errors
/// It cannot be written and synced; the old one stands.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace_with(&Reserve::default(), path, bytes)
}

/// The same for a file in the state folder of `reserve`, which helps where there is no room.
///
/// # Errors
/// As above.
pub fn replace_with(reserve: &Reserve, path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let write = || {
        write_new(&new, bytes)?;
        fs::rename(&new, path)?;
        sync_folder_of(path)
    };
    reserve.spend(bytes.len() as u64, write).map_err(|error| {
        // Best effort: what is half written is of no use, and the next attempt replaces it.
        let _ = fs::remove_file(&new);
        failed(path, "write")(error)
    })
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(open(path, flags, PRIVATE)?);
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes a file; that it is not there is no error.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, "remove")(error)),
        Err(_) => Ok(()),
        Ok(()) => sync_folder_of(path).map_err(failed(path, "remove")),
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(folder.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    rustix::fs::fsync(folder).map_err(Into::into)
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> StateError {
    move |error| StateError::File {
        path: path.to_owned(),
        action,
        message: error.to_string(),
    }
}

/// The state folder's name inside the output folder.
const FOLDER: &str = ".evpeer";
const LOCK: &str = "lock";
/// What is written here is for its owner alone: it names peers and trackers.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn places(output: &Path) -> Places {
        Places {
            output: output.to_owned(),
            chosen: None,
            fallback: None,
        }
    }

    #[test]
    fn second_owner_of_an_output_folder_is_refused_wherever_its_state_is() {
        let dir = tempfile::tempdir().unwrap();
        let (output, elsewhere) = (dir.path().join("out"), dir.path().join("a/b/state"));
        fs::create_dir(&output).unwrap();
        let chosen = Places {
            chosen: Some(elsewhere.clone()),
            ..places(&output)
        };
        for (first, second) in [
            (places(&output), chosen.clone()),
            (chosen.clone(), places(&output)),
            (chosen.clone(), chosen.clone()),
        ] {
            let held = StateDir::open(&first).unwrap();
            let error = StateDir::open(&second).unwrap_err();
            let pid = Some(std::process::id());
            assert!(
                matches!(&error, StateError::InUse { pid: by, .. } if *by == pid),
                "{error}"
            );
            assert!(error.to_string().contains("out"), "{error}");
            drop(held);
            drop(StateDir::open(&second).unwrap());
        }
        // Another output folder, the same state folder.
        let _held = StateDir::open(&chosen).unwrap();
        let other = Places {
            output: dir.path().to_owned(),
            ..chosen
        };
        let error = StateDir::open(&other).unwrap_err();
        assert!(matches!(error, StateError::InUse { folder, .. } if folder == elsewhere));
    }

    #[test]
    fn lock_file_of_a_dead_process_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FOLDER)).unwrap();
        fs::write(dir.path().join(".evpeer/lock"), "4194305\n").unwrap();
        let state = StateDir::open(&places(dir.path())).unwrap();
        assert_eq!(state.path(), dir.path().join(FOLDER));
        assert!(!state.is_fallback());
        let text = fs::read_to_string(dir.path().join(".evpeer/lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn state_of_an_output_folder_that_cannot_be_written_is_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        fs::create_dir(&output).unwrap();
        // A file in the place of the folder stands in for media that nobody, not even root, can
        // write to.
        fs::write(output.join(FOLDER), "").unwrap();
        let error = StateDir::open(&places(&output)).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
        let both = Places {
            fallback: Some(dir.path().join("state/evpeer")),
            ..places(&output)
        };
        let state = StateDir::open(&both).unwrap();
        assert!(state.is_fallback());
        assert_eq!(both.all(), [output.join(FOLDER), state.path().to_owned()]);
        assert!(matches!(
            StateDir::open(&both),
            Err(StateError::InUse { .. })
        ));
        let mode = fs::metadata(state.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn file_is_replaced_as_a_whole_and_read_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        assert_eq!(read(&path, 10).unwrap(), None);
        remove(&path).unwrap();
        fs::write(dir.path().join("session.new"), "left by a crash").unwrap();
        for text in ["first", "second!"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path, 10).unwrap().unwrap(), text.as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(matches!(read(&path, 6), Err(StateError::TooLong { .. })));
        assert!(read(dir.path(), 6).is_err(), "a folder");
        remove(&path).unwrap();
        assert_eq!(read(&path, 10).unwrap(), None);
        assert!(replace(&dir.path().join("no/session"), b"").is_err());
    }
}
