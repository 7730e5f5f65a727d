//! What can go wrong with files: the path, the fact, and what the user can do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::Unusable;
use crate::base::status::Trouble;

/// Why a torrent's files cannot be used. Ends that torrent's storage; others go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The output folder is not there.
    #[error("output folder {} does not exist; create it or name another with -o", shown(.path))]
    NoFolder {
        /// The output folder.
        path: PathBuf,
    },
    /// The output folder is something else.
    #[error("{} is not a folder; name another output folder with -o", shown(.path))]
    NotAFolder {
        /// What was named as output folder.
        path: PathBuf,
    },
    /// What was mounted there is not any more, or cannot be reached.
    #[error("the disk that holds {} is gone; mount it again", shown(.path))]
    Gone {
        /// The folder that was on it, or the file.
        path: PathBuf,
    },
    /// What was mounted there in an earlier run is not now.
    #[error(
        "the disk of {} is gone; mount it, or fetch all anew without it by evpeer ctl resume",
        shown(.path)
    )]
    NotMounted {
        /// Where it was mounted.
        path: PathBuf,
    },
    /// The folder, or the whole file system, takes no new files.
    #[error("{} is read-only; make it writable or name another folder with -o", shown(.path))]
    ReadOnly {
        /// The folder or file.
        path: PathBuf,
    },
    /// The permissions forbid it.
    #[error("no permission to {action} {}; change its mode or owner", shown(.path))]
    Denied {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// The file system cannot hold what is still to come.
    #[error(
        "no space for {}: {} needed, {} free; free some or name another folder with -o",
        shown(.path), Size(*.need), Size(*.free)
    )]
    NoSpace {
        /// The folder or file that does not fit.
        path: PathBuf,
        /// Bytes still to allocate.
        need: u64,
        /// Bytes that the file system has left for us.
        free: u64,
    },
    /// The user's quota is used up.
    #[error("disk quota exceeded at {}; free some space or raise the quota", shown(.path))]
    Quota {
        /// The file that does not fit.
        path: PathBuf,
    },
    /// The file system does not hold files of this size.
    #[error(
        "{} of {} is too large for its file system; name another folder with -o",
        shown(.path), Size(*.len)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in the torrent.
        len: u64,
    },
    /// A folder, device, pipe or socket is where a file should be.
    #[error("{} is a {kind}, not a file; move it away", shown(.path))]
    NotAFile {
        /// Where the file should be.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// Something that is not a folder is where a folder should be.
    #[error("{} is a {kind}, not a folder; move it away", shown(.path))]
    NotADir {
        /// Where the folder should be.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// A symbolic link on the way could lead out of the output folder.
    #[error("{} is a symbolic link, which is not followed; move it away", shown(.path))]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// A file that was there is gone, or shorter than it was.
    #[error("{} is missing or too short; bring it back and check again", shown(.path))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file became shorter than the torrent needs while it was in use.
    #[error("{} was cut short while in use; check the torrent again", shown(.path))]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// A file is another one than that whose pieces were verified.
    #[error("{} was replaced or changed while in use; check the torrent again", shown(.path))]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A later version of the program wrote what is remembered of the torrent.
    #[error(
        "{} {source}; use the evpeer that wrote it, or remove the file and have all data checked",
        shown(.path)
    )]
    JournalTooNew {
        /// The journal.
        path: PathBuf,
        /// Which version.
        source: Unusable,
    },
    /// The .torrent that was kept of a torrent, with the hashes of its pieces, cannot be used.
    #[error(
        "the .torrent kept in {} is lost ({message}); put it back there and resume the torrent, \
         or remove the torrent and add it anew",
        shown(.path)
    )]
    TextLost {
        /// Where it was kept.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The hashes of a torrent's pieces are needed, and it brought none.
    #[error("the torrent's piece hashes are not known, and there is no state folder to read them")]
    TextNotKept,
    /// Somebody waits for the .torrent file of a torrent that was removed meanwhile.
    #[error("the torrent was removed while its text was read")]
    TextRemoved,
    /// The file system does not map files, and only maps were asked for.
    #[error("{} cannot be mapped ({message}); use --storage pwrite", shown(.path))]
    Unmappable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// Whatever else the system says.
    #[error("cannot {action} {}: {message}; check the disk and the file", shown(.path))]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        message: String,
    },
}

impl StorageError {
    /// What the core has to know of it.
    pub fn trouble(&self) -> Trouble {
        Trouble {
            message: self.to_string(),
            may_pass: self.may_pass(),
            is_of_disk: self.is_of_disk(),
        }
    }

    /// Whether the disk has no room for what is to be written, or is gone.
    pub fn is_of_disk(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Quota { .. }) || self.is_lost_disk()
    }

    /// Whether the disk is gone.
    pub fn is_lost_disk(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::NotMounted { .. })
    }

    /// Whether what is in the way may go away, so that it is worth trying again: space, rights, a
    /// disk that is mounted. What is wrong with the files themselves stays so.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoFolder { .. }
            | Self::NotAFolder { .. }
            | Self::Gone { .. }
            | Self::NotMounted { .. }
            | Self::ReadOnly { .. }
            | Self::Denied { .. }
            | Self::NoSpace { .. }
            | Self::Quota { .. } => true,
            Self::TooLarge { .. }
            | Self::NotAFile { .. }
            | Self::NotADir { .. }
            | Self::Symlink { .. }
            | Self::Missing { .. }
            | Self::Truncated { .. }
            | Self::Replaced { .. }
            | Self::JournalTooNew { .. }
            | Self::TextLost { .. }
            | Self::TextNotKept
            | Self::TextRemoved
            | Self::Unmappable { .. }
            | Self::Io { .. } => false,
        }
    }

    /// What the system's answer to `action` on `path` means.
    ///
    /// A lack of space is no such answer: [`Self::NoSpace`] tells it with figures.
    pub fn from_io(path: &Path, action: &'static str, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Denied { path, action },
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            io::ErrorKind::QuotaExceeded => Self::Quota { path },
            io::ErrorKind::UnexpectedEof => Self::Truncated { path },
            _ if is_of_lost_disk(error) => Self::Gone { path },
            _ => Self::Io {
                path,
                action,
                message: error.to_string(),
            },
        }
    }
}

/// Whether the file system that was asked is not there any more: a disk that was pulled out, a
/// server that is gone, FUSE without its process.
fn is_of_lost_disk(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::NOTCONN
                | Errno::CONNABORTED
                | Errno::STALE
                | Errno::NODEV
                | Errno::NXIO
                | Errno::SHUTDOWN
        )
    )
}

/// A path as it may go to terminals and logs: control characters are escaped.
pub fn shown(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if c.is_control() || is_bidi_control(c) {
            text.extend(c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}

fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes with a binary unit.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_path_figures_and_remedy() {
        let error = StorageError::NoSpace {
            path: "/data/x".into(),
            need: 100 << 20,
            free: 20 << 20,
        };
        assert_eq!(
            error.to_string(),
            "no space for /data/x: 100.0 MiB needed, 20.0 MiB free; \
             free some or name another folder with -o"
        );
    }

    #[test]
    fn control_characters_of_a_path_do_not_reach_the_terminal() {
        let text = shown(Path::new("a\u{1b}[2J\n\u{202e}b"));
        assert!(!text.contains('\u{1b}') && !text.contains('\n') && !text.contains('\u{202e}'));
    }
}
