//! A folder that is watched for .torrent files (`--watch`).
//!
//! A thread of its own looks into the folder once a second: a slow disk stalls that thread alone.
//! A file is read when two looks in a row found it the same, so that one which is being written is
//! left in peace; one that is no .torrent is told of once, and read again when it has changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::error::CliError;
use super::output::printable_path;
use super::source::{self, Source};

/// The folder, and what was found in it and not yet taken.
#[derive(Debug)]
pub struct Watch {
    found: Receiver<Source>,
    /// Its end is the thread's.
    _end: Sender<()>,
}

impl Watch {
    /// Watches `folder` from now on; what is found has its data in `output`.
    ///
    /// # Errors
    /// It is no folder that can be read, or there is no thread for it.
    pub fn start(folder: &Path, output: &Path) -> Result<Self, CliError> {
        fs::read_dir(folder).map_err(|source| CliError::WatchFolder {
            path: folder.to_owned(),
            source,
        })?;
        let mut watcher = Watcher::new(folder);
        let output = output.to_owned();
        let (tell, found) = mpsc::sync_channel(WAITING_MAX);
        let (end, ended) = mpsc::channel::<()>();
        let look = move || {
            let mut is_wanted = true;
            while is_wanted {
                watcher.look(&mut |looked| match looked {
                    Looked::Found(mut source) => {
                        source.meta = source::named_as_in(&output, &source.meta);
                        is_wanted = is_wanted && tell.send(source).is_ok();
                    }
                    Looked::Problem(problem) => log::warn!("{problem}"),
                });
                is_wanted &= ended.recv_timeout(LOOK_PAUSE) == Err(RecvTimeoutError::Timeout);
            }
        };
        let thread = thread::Builder::new().name("watch".into());
        thread.spawn(look).map_err(CliError::NoThread)?;
        Ok(Self { found, _end: end })
    }

    /// The next torrent that was found.
    pub fn poll(&self) -> Option<Source> {
        self.found.try_recv().ok()
    }
}

/// What was seen of the files so far.
#[derive(Debug)]
struct Watcher {
    folder: PathBuf,
    files: BTreeMap<PathBuf, Seen>,
    /// What was told of the folder itself.
    told: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    as_it_was: Shape,
    /// Whether that was read, and need not be read again.
    is_read: bool,
    /// Whether it was told what is wrong with it.
    is_told: bool,
}

/// By what a file is known to be the same: its number, its length, and the times of the last change
/// of its bytes and of what else there is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    inode: u64,
    len: u64,
    changed: [(i64, i64); 2],
}

impl Shape {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            len: found.len(),
            changed: [
                (found.mtime(), found.mtime_nsec()),
                (found.ctime(), found.ctime_nsec()),
            ],
        }
    }
}

/// What came of a look.
#[derive(Debug)]
enum Looked {
    Found(Source),
    Problem(String),
}

impl Watcher {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            told: None,
        }
    }

    /// Looks at the folder, and tells of each file as soon as it is read.
    fn look(&mut self, tell: &mut dyn FnMut(Looked)) {
        let folder = printable_path(&self.folder);
        let (there, problem) = match self.shapes() {
            Ok((there, false)) => (there, None),
            Ok((there, true)) => {
                let problem = format!(
                    "watched folder '{folder}' has more than {FILES_MAX} .torrent files: some are \
                     left out"
                );
                (there, Some(problem))
            }
            Err(error) => {
                let problem = format!("watched folder '{folder}' cannot be read: {error}");
                (BTreeMap::new(), Some(problem))
            }
        };
        if let Some(problem) = problem.clone().filter(|_| problem != self.told) {
            tell(Looked::Problem(problem));
        }
        self.told = problem;
        self.files.retain(|path, _| there.contains_key(path));
        for (path, shape) in there {
            let seen = self.files.get(&path).copied();
            let seen = seen.filter(|seen| seen.as_it_was == shape);
            let mut next = seen.unwrap_or(Seen {
                as_it_was: shape,
                is_read: false,
                is_told: false,
            });
            if seen.is_some() && !next.is_read {
                self.read(&path, &mut next, tell);
            }
            self.files.insert(path, next);
        }
    }

    fn read(&self, path: &Path, seen: &mut Seen, tell: &mut dyn FnMut(Looked)) {
        match source::read(path) {
            Ok(meta) => {
                seen.is_read = true;
                tell(Looked::Found(Source {
                    path: path.to_owned(),
                    meta: Arc::new(meta),
                    peers: Vec::new(),
                }));
            }
            Err(error) => {
                // What the system refuses now it may grant later.
                seen.is_read = !matches!(error, CliError::Unreadable { .. });
                if !std::mem::replace(&mut seen.is_told, true) {
                    tell(Looked::Problem(format!(
                        "left out of the watched folder until it changes: {error}"
                    )));
                }
            }
        }
    }

    /// The `*.torrent` of the folder, and whether there are more than are watched.
    fn shapes(&self) -> std::io::Result<(BTreeMap<PathBuf, Shape>, bool)> {
        let mut shapes = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|end| end != "torrent") {
                continue;
            }
            // What is gone already was somebody's who replaces files.
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            if shapes.len() == FILES_MAX {
                return Ok((shapes, true));
            }
            if !found.is_dir() {
                shapes.insert(path, Shape::of(&found));
            }
        }
        Ok((shapes, false))
    }
}

/// Torrents that wait to be taken up at most.
const WAITING_MAX: usize = 4;
/// Time between two looks.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Files of a folder that are watched at most.
const FILES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::TORRENT_FILE_LEN_MAX;

    /// A .torrent of one piece of 5 bytes.
    fn torrent(name: &str) -> Vec<u8> {
        let head = format!("d4:infod6:lengthi5e4:name{}:{name}", name.len());
        let piece = "12:piece lengthi16384e6:pieces20:01234567890123456789ee";
        format!("{head}{piece}").into_bytes()
    }

    impl Watcher {
        /// The names of what a look finds, and the problems.
        fn finds(&mut self) -> (Vec<String>, Vec<String>) {
            let (mut names, mut problems) = (Vec::new(), Vec::new());
            self.look(&mut |looked| match looked {
                Looked::Found(source) => names.push(source.meta.name.clone()),
                Looked::Problem(problem) => problems.push(problem),
            });
            (names, problems)
        }
    }

    #[test]
    fn file_is_read_once_and_when_it_rests() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut watcher = Watcher::new(folder.path());
        let path = folder.path().join("a.torrent");
        let nothing = (vec![], vec![]);
        let found = (vec!["a".to_owned()], vec![]);
        let whole = torrent("a");
        fs::write(&path, &whole[..30]).expect("the folder is ours");
        assert_eq!(watcher.finds(), nothing, "it may be written still");
        fs::write(&path, &whole[..40]).expect("the folder is ours");
        assert_eq!(watcher.finds(), nothing);
        let (names, problems) = watcher.finds();
        assert!(names.is_empty() && problems.len() == 1, "{problems:?}");
        assert_eq!(watcher.finds(), nothing, "told once");
        fs::write(&path, &whole).expect("the folder is ours");
        assert_eq!(watcher.finds(), nothing);
        assert_eq!(watcher.finds(), found);
        assert_eq!(watcher.finds(), nothing, "read once");

        // Another file in its place, with the same length and the same time.
        let as_it_was = fs::metadata(&path)
            .and_then(|m| m.modified())
            .expect("ours");
        let other = folder.path().join("other");
        fs::write(&other, torrent("b")).expect("the folder is ours");
        let file = fs::File::options().write(true).open(&other).expect("ours");
        file.set_modified(as_it_was).expect("ours");
        fs::rename(&other, &path).expect("the folder is ours");
        assert_eq!(watcher.finds(), nothing);
        assert_eq!(watcher.finds().0, ["b"]);

        fs::remove_file(&path).expect("it is there");
        assert_eq!(watcher.finds(), nothing);
        fs::write(&path, &whole).expect("the folder is ours");
        assert_eq!(watcher.finds(), nothing);
        assert_eq!(watcher.finds(), found, "it came again");
    }

    #[test]
    fn what_is_no_torrent_is_told_of_and_harms_no_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("folder.torrent")).expect("the folder is ours");
        fs::write(place("other.txt"), torrent("other")).expect("the folder is ours");
        fs::write(place("hostile.torrent"), b"d4:infod6:lengthi-5e").expect("ours");
        fs::write(place("z.torrent"), torrent("z")).expect("the folder is ours");
        let huge = fs::File::create(place("huge.torrent")).expect("the folder is ours");
        huge.set_len(TORRENT_FILE_LEN_MAX + 1)
            .expect("a sparse file");
        std::os::unix::net::UnixListener::bind(place("pipe.torrent")).expect("a socket");
        let mut watcher = Watcher::new(folder.path());
        watcher.finds();
        let (names, told) = watcher.finds();
        assert_eq!(names, ["z"]);
        let problems = told.join("\n");
        for name in ["hostile.torrent", "huge.torrent", "pipe.torrent"] {
            assert!(problems.contains(name), "{name} in {problems}");
        }
        assert_eq!(told.len(), 3, "{problems}");
    }

    #[test]
    fn folder_that_is_gone_is_told_of_once_and_watched_again() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("watched");
        let mut watcher = Watcher::new(&folder);
        assert_eq!(watcher.finds().1.len(), 1);
        assert!(watcher.finds().1.is_empty());
        fs::create_dir(&folder).expect("the folder is ours");
        fs::write(folder.join("a.torrent"), torrent("a")).expect("the folder is ours");
        watcher.finds();
        assert_eq!(watcher.finds().0, ["a"]);
        fs::remove_dir_all(&folder).expect("the folder is ours");
        assert_eq!(watcher.finds().1.len(), 1);
    }
}
