//! Which folders files are reached through, so that none is made where a disk was mounted.
//!
//! A disk that is unmounted, or pulled out, leaves its mount point behind: an ordinary folder,
//! empty, on another disk. The output folder is remembered from the first time it is opened, and
//! so is every mount point on the way to a file. Whatever is found there later has to be the same
//! folder, or at least one on the same mount: somebody may make a folder anew.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::storage::error::StorageError;

/// The folders that are remembered, by their whole paths: the output folder and mount points.
#[derive(Debug, Default)]
pub(in crate::storage) struct Places(Mutex<BTreeMap<PathBuf, Place>>);

/// Which folder something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    device: u64,
    inode: u64,
    /// When it was made, nanoseconds; 0 where that is not known.
    birth: u64,
    /// Through which mount it is seen; 0 where that is not known.
    mount: u64,
}

impl Place {
    /// Whether this may stand where `before` was. A disk may come back with another number.
    fn may_replace(&self, before: &Self) -> bool {
        let is_same = (self.inode, self.birth) == (before.inode, before.birth);
        is_same || (self.device, self.mount) == (before.device, before.mount)
    }

    /// Whether a mount begins at this folder, which is open as `folder`.
    fn is_mount_point(&self, folder: impl AsFd) -> bool {
        let above = openat(folder, "..", LOOK, Mode::empty()).and_then(see);
        above.is_ok_and(|above| self.is_mounted_in(&above))
    }

    /// Whether a mount begins here. Parts of one file system may have devices of their own.
    fn is_mounted_in(&self, parent: &Self) -> bool {
        match self.mount {
            0 => self.device != parent.device,
            mount => mount != parent.mount,
        }
    }
}

impl Places {
    /// The output folder `root`, opened as `folder`.
    ///
    /// # Errors
    /// It is the bare mount point of a disk that is gone.
    pub(super) fn enter_root(&self, root: &Path, folder: impl AsFd) -> Result<Place, StorageError> {
        self.enter(root, folder, None)
    }

    /// The folder `path` inside another one that is `parent`, opened as `folder`.
    ///
    /// # Errors
    /// It is the bare mount point of a disk that is gone.
    pub(super) fn enter_below(
        &self,
        path: &Path,
        folder: impl AsFd,
        parent: &Place,
    ) -> Result<Place, StorageError> {
        self.enter(path, folder, Some(parent))
    }

    fn enter(
        &self,
        path: &Path,
        folder: impl AsFd,
        parent: Option<&Place>,
    ) -> Result<Place, StorageError> {
        let look = |errno: Errno| StorageError::from_io(path, "look at", &errno.into());
        let place = see(folder).map_err(look)?;
        let mut known = self.lock();
        if known
            .get(path)
            .is_some_and(|before| !place.may_replace(before))
        {
            let path = path.to_owned();
            return Err(StorageError::Gone { path });
        }
        let is_mount_point = parent.is_none_or(|parent| place.is_mounted_in(parent));
        if is_mount_point || known.contains_key(path) {
            known.insert(path.to_owned(), place);
        }
        Ok(place)
    }

    /// What was found at `path` was not what it should have been.
    pub(super) fn forget(&self, path: &Path) {
        self.lock().remove(path);
    }

    /// Whether a disk was found at `path` before.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.lock().contains_key(path)
    }

    /// The mount points below `root`, relative to it.
    pub(in crate::storage) fn mounts_below(&self, root: &Path) -> Vec<PathBuf> {
        let known = self.lock();
        let below = known.keys().filter_map(|path| path.strip_prefix(root).ok());
        below
            .filter(|path| !path.as_os_str().is_empty())
            .map(Path::to_path_buf)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mount points on the way to the folder `real`, which no link leads to, and itself.
pub(super) fn mounts_above(real: &Path) -> Vec<PathBuf> {
    let is_mount_point = |folder: &&Path| {
        let opened = openat(CWD, *folder, LOOK, Mode::empty());
        opened.is_ok_and(|fd| see(&fd).is_ok_and(|place| place.is_mount_point(&fd)))
    };
    let above = real.ancestors().filter(is_mount_point);
    above.map(Path::to_path_buf).collect()
}

/// How a folder is opened of which only is asked which one it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LOOK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LOOK: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn see(folder: impl AsFd) -> Result<Place, Errno> {
    use rustix::fs::{AtFlags, StatxFlags, statx};

    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    match statx(&folder, "", AtFlags::EMPTY_PATH, wanted) {
        Ok(stat) => {
            let told = StatxFlags::from_bits_retain(stat.stx_mask);
            let birth = super::seen::nanos(stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec.into());
            let if_told = |flag, value| if told.contains(flag) { value } else { 0 };
            Ok(Place {
                device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
                inode: stat.stx_ino,
                birth: if_told(StatxFlags::BTIME, birth),
                mount: if_told(StatxFlags::MNT_ID, stat.stx_mnt_id),
            })
        }
        Err(Errno::NOSYS | Errno::PERM) => see_without_mount(folder),
        Err(errno) => Err(errno),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn see(folder: impl AsFd) -> Result<Place, Errno> {
    see_without_mount(folder)
}

fn see_without_mount(folder: impl AsFd) -> Result<Place, Errno> {
    let stat = rustix::fs::fstat(folder)?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "their types differ between systems"
    )]
    let (device, inode) = (stat.st_dev as u64, stat.st_ino as u64);
    Ok(Place {
        device,
        inode,
        birth: 0,
        mount: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a disk shows from any folder on it, not only from its first one.
    #[test]
    #[cfg(target_os = "linux")]
    fn mount_points_above_a_folder_are_found() {
        assert_eq!(mounts_above(Path::new("/proc/self")), [Path::new("/proc")]);
        assert_eq!(mounts_above(Path::new("/proc")), [Path::new("/proc")]);
        assert!(mounts_above(Path::new("/")).is_empty());
        assert!(mounts_above(Path::new("/proc/not/there")).contains(&"/proc".into()));
    }

    const DISK: Place = Place {
        device: 7,
        inode: 2,
        birth: 1000,
        mount: 40,
    };

    #[test]
    fn folder_is_the_same_one_or_on_the_same_mount() {
        let made_anew = Place {
            inode: 3,
            birth: 2000,
            ..DISK
        };
        let mounted_again = Place {
            device: 9,
            mount: 41,
            ..DISK
        };
        let bare = Place {
            device: 1,
            inode: 77,
            birth: 10,
            mount: 20,
        };
        // What a bind mount leaves behind is on the same device.
        let bare_of_bind = Place { device: 7, ..bare };
        assert!(DISK.may_replace(&DISK));
        assert!(made_anew.may_replace(&DISK));
        assert!(mounted_again.may_replace(&DISK));
        assert!(!bare.may_replace(&DISK));
        assert!(!bare_of_bind.may_replace(&DISK));
    }

    #[test]
    fn output_folder_is_remembered_and_what_is_on_its_disk_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let places = Places::default();
        let open = |path: &Path| std::fs::File::open(path).unwrap();
        let root = places.enter_root(dir.path(), open(dir.path())).unwrap();
        places.enter_below(&inner, open(&inner), &root).unwrap();
        assert!(places.knows(dir.path()) && !places.knows(&inner));
        assert!(places.mounts_below(dir.path()).is_empty());
        // What another mount shows, such as /proc, is remembered, and nothing else goes there.
        places
            .enter_below(&inner, open(Path::new("/proc")), &root)
            .unwrap();
        assert_eq!(places.mounts_below(dir.path()), [Path::new("inner")]);
        let error = places.enter_below(&inner, open(&inner), &root).unwrap_err();
        assert_eq!(error, StorageError::Gone { path: inner });
    }
}
