//! Room on the disk of the state folder that nobody else can take: a full disk holds up downloads,
//! but not what is remembered of them.
//!
//! ```text
//!  whole ── a write of ours does not fit: cut by as much as that takes ──▶ cut ─ … ─▶ empty
//!    ▲                                                                      │
//!    └────────────── there is room again: made whole, before any data ──────┘
//! ```
//!
//! It is a file of 1 MiB of zeros. Whatever else has its name is somebody's, and left alone. Who
//! filled the disk may take at once what is given up, so that never more of it is than a write
//! needs. What is lacking of it is no room for data: a torrent that waits for space does not begin
//! on what was given up for its journal.
//!
//! Where a write finds no room although there is some, another thing is lacking, such as inodes.
//! Nothing is given up for that, but for two trials now and then.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
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
    /// Writes without room for which nothing is given up.
    rest: AtomicU32,
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
            rest: AtomicU32::new(0),
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
        let has_room =
            |folder: &Path| os::free_space(folder).is_ok_and(|free| free >= len + STEP_LEN);
        self.spend_where(len, &mut write, has_room)
    }

    fn spend_where<T>(
        &self,
        len: u64,
        mut write: impl FnMut() -> io::Result<T>,
        has_room: impl Fn(&Path) -> bool,
    ) -> io::Result<T> {
        let Some(kept) = &self.0 else {
            return write();
        };
        let mut written = write();
        if written.as_ref().is_err_and(is_lack_of_room) && kept.rests() {
            return written;
        }
        let (mut cuts, mut in_vain) = (0, 0);
        while written.as_ref().is_err_and(is_lack_of_room) && in_vain < IN_VAIN_MAX && kept.cut(len)
        {
            cuts += 1;
            let is_room = has_room(&kept.folder);
            written = write();
            in_vain += u32::from(is_room);
        }
        self.refill();
        match &written {
            Ok(_) => kept.rest.store(0, Relaxed),
            // It was not room that was lacking.
            Err(_) if cuts > 0 && (in_vain == IN_VAIN_MAX || !self.is_cut()) => {
                kept.rest.store(REST, Relaxed);
            }
            Err(_) => {}
        }
        written
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

    /// Whether a write that finds no room is to be left alone; counts it.
    fn rests(&self) -> bool {
        let less = |rest: u32| rest.checked_sub(1);
        self.rest.fetch_update(Relaxed, Relaxed, less).is_ok()
    }

    /// Opens it, and makes it if it is not there.
    ///
    /// # Errors
    /// Among others, it is something that no evpeer made.
    fn open(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(open(self.folder.join(NAME), flags | OFlags::CLOEXEC, mode)?);
        match is_ours(&file)? {
            true => Ok(file),
            false => Err(io::Error::other(format!("{NAME} there is not evpeer's"))),
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
            match file.sync_all() {
                Err(error) if !is_lack_of_room(&error) => Err(error),
                _ => Ok(()),
            }
        });
        let folder = shown(&self.folder);
        match cut {
            Ok(()) => {
                let level = match before {
                    RESERVE_LEN => log::Level::Warn,
                    _ => log::Level::Debug,
                };
                log::log!(
                    level,
                    "disk of the state folder is full, its reserve is used: folder={folder} \
                     left={left}"
                );
                *state = State::Held(left);
                true
            }
            Err(error) => {
                *state = state_after(&error, before, &self.folder);
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
            Err(error) => *state = state_after(&error, held, &self.folder),
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

/// What there is of it in `folder` after an error while `held` bytes of it were there.
fn state_after(error: &io::Error, held: u64, folder: &Path) -> State {
    match is_lack_of_room(error) {
        true => State::Held(held),
        false => refused(folder, error),
    }
}

/// Whether it is a file as it is left behind here: of zeros, and not too long.
fn is_ours(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > RESERVE_LEN {
        return Ok(false);
    }
    let mut bytes = vec![1; metadata.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.iter().all(|&byte| byte == 0))
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
const NAME: &str = "reserve.evpeer";
/// Bytes that are kept: a session of several thousand peers, or a dozen journals made anew.
const RESERVE_LEN: u64 = 1 << 20;
/// It is cut in steps of so many bytes, and one more than is asked for: file systems need some for
/// names and trees.
const STEP_LEN: u64 = 64 * 1024;

/// Trials of one write that may fail although there is room for it.
const IN_VAIN_MAX: u32 = 2;
/// Nothing is given up for so many writes without room after one that found none although there
/// was some: journal and session are tried again about once a second.
const REST: u32 = 30;

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
        let write = || {
            shortest = len(dir);
            match shortest <= left {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            }
        };
        let written = reserve.spend_where(asked, write, |_| false);
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
        let write = || -> io::Result<()> {
            count += 1;
            Err(io::ErrorKind::StorageFull.into())
        };
        let written = reserve.spend_where(1, write, |_| false);
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
            rest: AtomicU32::new(0),
        };
        assert_eq!(kept.lacking(dir.path()), 5000);
        assert_eq!(kept.lacking(Path::new("/proc")), 0);
        *kept.lock() = State::Refused;
        assert_eq!(kept.lacking(dir.path()), 0);
    }

    #[test]
    fn what_a_former_process_left_is_taken_up() {
        for before in [0, 5, RESERVE_LEN] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(NAME), vec![0; before as usize]).unwrap();
            assert!(!Reserve::of(dir.path()).is_cut());
            assert_eq!(len(dir.path()), RESERVE_LEN);
        }
    }

    /// Goal: a user's file of the same name is not touched, whatever is written.
    #[test]
    fn what_is_not_ours_is_left_alone() {
        let long = vec![0; RESERVE_LEN as usize + 1];
        let mut last = vec![0; 5000];
        last[4999] = 1;
        for content in [&b"mine!"[..], &long, &last] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(NAME);
            std::fs::write(&path, content).unwrap();
            let reserve = Reserve::of(dir.path());
            assert!(!spend_until(&reserve, dir.path(), 1, 0).0);
            assert!(!reserve.is_cut());
            assert!(std::fs::read(&path).unwrap() == content);
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(NAME)).unwrap();
        let reserve = Reserve::of(dir.path());
        assert!(!reserve.is_cut() && dir.path().join(NAME).is_dir());
        assert!(reserve.room(dir.path()).unwrap() > 0);
    }

    /// Goal: one that came in its place meanwhile is not cut either.
    #[test]
    fn what_came_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        let path = dir.path().join(NAME);
        std::fs::write(&path, [7; 300_000]).unwrap();
        assert!(!spend_until(&reserve, dir.path(), 1, 0).0);
        assert_eq!(std::fs::read(&path).unwrap(), [7; 300_000]);
    }

    /// Goal: where something else than room is lacking, such as inodes, the reserve is not cut to
    /// nothing for every write, but twice at most, and then not at all for a while.
    #[test]
    fn little_is_given_up_where_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(dir.path());
        let trials = |is_room: bool| {
            let mut count = 0;
            let write = || -> io::Result<()> {
                count += 1;
                Err(io::ErrorKind::StorageFull.into())
            };
            reserve.spend_where(1, write, |_| is_room).unwrap_err();
            count
        };
        assert_eq!([trials(true), trials(true), trials(true)], [3, 1, 1]);
        assert_eq!(len(dir.path()), RESERVE_LEN);
        // One that fits ends the rest.
        reserve.spend(1, || Ok(())).unwrap();
        assert_eq!([trials(true), trials(true)], [3, 1]);
        // Room does not show where a quota sets it, but the reserve is whole again at once.
        reserve.spend(1, || Ok(())).unwrap();
        assert_eq!([trials(false), trials(false)], [9, 1]);
        assert_eq!(len(dir.path()), RESERVE_LEN);
    }

    #[test]
    fn reserve_that_cannot_be_cut_for_lack_of_room_stays_known() {
        let dir = Path::new("/nowhere");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(state_after(&full, 70_000, dir), State::Held(70_000));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(state_after(&denied, 70_000, dir), State::Refused);
    }
}
