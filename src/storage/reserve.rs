//! Room on the disk of the state folder that nobody else can take: a full disk holds up downloads,
//! but not what is remembered of them.
//!
//! ```text
//!  whole ── a write of ours does not fit: cut by as much as that takes ──▶ cut ─ … ─▶ empty
//!    ▲                                                                      │
//!    └────────────── there is room again: made whole, before any data ──────┘
//! ```
//!
//! It is a file of 1 MiB. Who filled the disk may take at once what is given up, so that never more
//! of it is than a write needs. What is lacking of it is no room for data: a torrent that waits for
//! space does not begin on what was given up for its journal.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, open};

use super::error::{StorageError, shown};
use super::os;

/// The reserve of a state folder. The default is none: writes that do not fit fail.
#[derive(Debug, Default)]
pub struct Reserve(Option<Kept>);

#[derive(Debug)]
struct Kept {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of the disk are ours.
    Held(u64),
    /// The file system does not give any, for another reason than a lack of room.
    Refused,
}

impl Reserve {
    /// The reserve of the state folder `folder`: what a former process left of it, made whole if
    /// there is room. Blocks.
    pub fn of(folder: &Path) -> Self {
        let kept = Kept {
            folder: folder.to_owned(),
            state: Mutex::new(State::Held(0)),
        };
        let found = kept.open().and_then(|file| file.metadata());
        let state = match found {
            Ok(found) => State::Held(found.len().min(512 * found.blocks()).min(RESERVE_LEN)),
            Err(error) => refused(folder, &error),
        };
        *kept.lock() = state;
        kept.fill(&mut kept.lock());
        Self(Some(kept))
    }

    /// Puts about `len` bytes into the state folder by `write`, which is tried again with more of
    /// the reserve given up as long as there is no room and some is left. Blocks.
    ///
    /// # Errors
    /// What `write` said last.
    pub(super) fn spend<T>(
        &self,
        len: u64,
        mut write: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match (write(), &self.0) {
                (Err(error), Some(kept)) if is_lack_of_room(&error) && kept.cut(len) => {}
                (result, _) => {
                    self.refill();
                    return result;
                }
            }
        }
    }

    /// Makes it whole again if there is room by now. Blocks.
    pub(super) fn refill(&self) {
        if let Some(kept) = &self.0 {
            kept.fill(&mut kept.lock());
        }
    }

    /// Bytes that the file system of `root` has left for data. Blocks.
    ///
    /// # Errors
    /// It does not tell.
    pub(super) fn room(&self, root: &Path) -> Result<u64, StorageError> {
        self.refill();
        let lacking = self.0.as_ref().map_or(0, |kept| kept.lacking(root));
        Ok(os::free_space(root)?.saturating_sub(lacking))
    }

    /// Whether anything is lacking of it, so that it has to be asked how much room there is before
    /// some is taken.
    pub(super) fn is_cut(&self) -> bool {
        let kept = self.0.as_ref();
        kept.is_some_and(|kept| matches!(*kept.lock(), State::Held(len) if len < RESERVE_LEN))
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(open(self.folder.join(NAME), flags | OFlags::CLOEXEC, mode)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    /// Gives up room for `len` bytes; says whether there was any.
    fn cut(&self, len: u64) -> bool {
        let mut state = self.lock();
        let State::Held(before) = *state else {
            return false;
        };
        if before == 0 {
            return false;
        }
        let left = before.saturating_sub(len.next_multiple_of(STEP_LEN) + STEP_LEN);
        let cut = self.open().and_then(|file| {
            file.set_len(left)?;
            // Until this is on the disk, ext4 gives the blocks to nobody.
            file.sync_all()
        });
        match cut {
            Ok(()) => {
                let level = match before {
                    RESERVE_LEN => log::Level::Warn,
                    _ => log::Level::Debug,
                };
                let folder = shown(&self.folder);
                log::log!(
                    level,
                    "disk of the state folder is full, its reserve is used: folder={folder} \
                     left={left}"
                );
                *state = State::Held(left);
                true
            }
            Err(error) => {
                *state = refused(&self.folder, &error);
                false
            }
        }
    }

    /// Makes it whole if there is room for more than it lacks: it is not to go to and fro.
    fn fill(&self, state: &mut State) {
        let State::Held(held) = *state else {
            return;
        };
        let lacking = RESERVE_LEN - held;
        if lacking == 0 || os::free_space(&self.folder).is_ok_and(|free| free < lacking + STEP_LEN)
        {
            return;
        }
        match self.open().and_then(|file| fill(&file, held)) {
            Ok(()) => {
                log::debug!("reserve is whole folder={}", shown(&self.folder));
                *state = State::Held(RESERVE_LEN);
            }
            Err(error) if is_lack_of_room(&error) => {}
            Err(error) => *state = refused(&self.folder, &error),
        }
    }

    /// Bytes on the disk of `root` that it lacks.
    fn lacking(&self, root: &Path) -> u64 {
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
        let lacking = match *self.lock() {
            State::Held(held) => RESERVE_LEN - held,
            State::Refused => 0,
        };
        match lacking > 0 && device(root) == device(&self.folder) {
            true => lacking,
            false => 0,
        }
    }
}

/// Gives all bytes of `file` from `held` on their place, or none of them.
fn fill(file: &File, held: u64) -> io::Result<()> {
    static ZEROS: [u8; STEP_LEN as usize] = [0; STEP_LEN as usize];
    let filled = match os::allocate(file, RESERVE_LEN) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => (held..RESERVE_LEN)
            .step_by(ZEROS.len())
            .try_for_each(|offset| {
                let len = (RESERVE_LEN - offset).min(STEP_LEN) as usize;
                file.write_all_at(&ZEROS[..len], offset)
            }),
        result => result,
    };
    filled.inspect_err(|_| {
        // Best effort: if it stays longer than it is known to be, more is there than is used.
        let _ = file.set_len(held);
    })
}

fn refused(folder: &Path, error: &io::Error) -> State {
    let folder = shown(folder);
    log::warn!(
        "no reserve for a full disk, what is remembered may not be written then: folder={folder} \
         error={error}"
    );
    State::Refused
}

fn is_lack_of_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Its name in the state folder.
const NAME: &str = "reserve";
/// Bytes that are kept: a session of several thousand peers, or a dozen journals made anew.
const RESERVE_LEN: u64 = 1 << 20;
/// It is cut in steps of so many bytes, and one more than is asked for: file systems need some for
/// names and trees.
const STEP_LEN: u64 = 64 * 1024;

const _: () = assert!(RESERVE_LEN.is_multiple_of(STEP_LEN));

#[cfg(test)]
mod tests {
    use super::*;

    fn len(dir: &Path) -> u64 {
        dir.join(NAME).metadata().unwrap().len()
    }

    /// A write that finds room only when the reserve is `left` bytes long.
    fn spend_until(reserve: &Reserve, dir: &Path, asked: u64, left: u64) -> (bool, u64) {
        let mut shortest = u64::MAX;
        let written = reserve.spend(asked, || {
            shortest = len(dir);
            match shortest <= left {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        });
        (written.is_ok(), shortest)
    }

    #[test]
    fn no_more_is_given_up_than_a_write_needs_and_it_is_made_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        assert_eq!(len(dir.path()), RESERVE_LEN);
        assert!(!reserve.is_cut());
        let cases = [
            // what it shows          bytes     fits at           given up
            ("it fits", 4096, RESERVE_LEN, 0),
            ("one step", 1, RESERVE_LEN - 1, 2 * STEP_LEN),
            ("as asked", 3 * STEP_LEN, RESERVE_LEN - 1, 4 * STEP_LEN),
            ("again", 1, RESERVE_LEN - 2 * STEP_LEN - 1, 4 * STEP_LEN),
            ("all of it", 1, 0, RESERVE_LEN),
        ];
        for (name, asked, left, given) in cases {
            let spent = spend_until(&reserve, dir.path(), asked, left);
            assert_eq!(spent, (true, RESERVE_LEN - given), "{name}");
            assert_eq!(len(dir.path()), RESERVE_LEN, "{name}: there is room");
        }
    }

    #[test]
    fn write_that_finds_no_room_at_all_fails_with_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        let mut count = 0;
        let written: io::Result<()> = reserve.spend(1, || {
            count += 1;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(count, 1 + RESERVE_LEN / (2 * STEP_LEN));
        let denied: io::Result<()> =
            reserve.spend(1, || Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(denied.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let nothing: io::Result<()> =
            Reserve::default().spend(1, || Err(io::ErrorKind::StorageFull.into()));
        assert!(nothing.is_err());
    }

    #[test]
    fn what_is_lacking_is_no_room_for_data_on_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept {
            folder: dir.path().to_owned(),
            state: Mutex::new(State::Held(RESERVE_LEN - 5000)),
        };
        assert_eq!(kept.lacking(dir.path()), 5000);
        assert_eq!(kept.lacking(Path::new("/proc")), 0);
        *kept.lock() = State::Refused;
        assert_eq!(kept.lacking(dir.path()), 0);
    }

    #[test]
    fn what_a_former_process_left_is_taken_up_and_what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), [1; 5]).unwrap();
        assert!(!Reserve::of(dir.path()).is_cut());
        assert_eq!(len(dir.path()), RESERVE_LEN);
        let other = dir.path().join("other");
        std::fs::create_dir_all(other.join(NAME)).unwrap();
        let reserve = Reserve::of(&other);
        assert!(!reserve.is_cut() && other.join(NAME).is_dir());
        assert!(reserve.room(&other).unwrap() > 0);
    }
}
