//! A folder that is watched for .torrent files (`--watch`).
//!
//! A thread of its own looks into the folder once a second: a slow disk stalls that thread alone.
//! A file is read when two looks in a row found it the same, so that one which is being written is
//! left in peace; one that is no .torrent is told of once, and read again when it has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

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
    /// Watches `folder` from now on.
    ///
    /// # Errors
    /// It is no folder that can be read, or there is no thread for it.
    pub fn start(folder: &Path) -> Result<Self, CliError> {
        fs::read_dir(folder).map_err(|source| CliError::WatchFolder {
            path: folder.to_owned(),
            source,
        })?;
        let mut watcher = Watcher::new(folder);
        let (tell, found) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let look = move || {
            loop {
                let looked = watcher.look();
                for problem in looked.problems {
                    log::warn!("{problem}");
                }
                if looked.found.into_iter().any(|s| tell.send(s).is_err()) {
                    return;
                }
                if ended.recv_timeout(LOOK_PAUSE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
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
    /// Whether the last look failed, and was told of.
    is_lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    as_it_was: Shape,
    /// Whether that was read.
    is_read: bool,
}

/// By what a file is known to be the same: length and time of the last change.
type Shape = (u64, Option<SystemTime>);

/// What came of a look.
#[derive(Debug, Default)]
struct Looked {
    found: Vec<Source>,
    problems: Vec<String>,
}

impl Watcher {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            files: BTreeMap::new(),
            is_lost: false,
        }
    }

    fn look(&mut self) -> Looked {
        let mut looked = Looked::default();
        let there = match self.shapes() {
            Ok(there) => there,
            Err(error) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    let path = printable_path(&self.folder);
                    let problem = format!(
                        "watched folder '{path}' cannot be read: {error}; looking on for it"
                    );
                    looked.problems.push(problem);
                }
                return looked;
            }
        };
        self.is_lost = false;
        self.files.retain(|path, _| there.contains_key(path));
        for (path, shape) in there {
            let seen = self.files.get(&path).copied();
            let is_same = seen.is_some_and(|seen| seen.as_it_was == shape);
            let was_read = is_same && seen.is_some_and(|seen| seen.is_read);
            if is_same && !was_read {
                match source::read(&path) {
                    Ok(meta) => looked.found.push(Source {
                        path: path.clone(),
                        meta: Arc::new(meta),
                        peers: Vec::new(),
                    }),
                    Err(error) => looked.problems.push(format!(
                        "left out of the watched folder until it changes: {error}"
                    )),
                }
            }
            let seen = Seen {
                as_it_was: shape,
                is_read: is_same,
            };
            self.files.insert(path, seen);
        }
        looked
    }

    /// The `*.torrent` of the folder, the first [`FILES_MAX`] that it names.
    fn shapes(&self) -> std::io::Result<BTreeMap<PathBuf, Shape>> {
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
            if !found.is_dir() && shapes.len() < FILES_MAX {
                shapes.insert(path, (found.len(), found.modified().ok()));
            }
        }
        Ok(shapes)
    }
}

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

    fn names(looked: &Looked) -> Vec<&str> {
        looked.found.iter().map(|s| s.meta.name.as_str()).collect()
    }

    #[test]
    fn file_is_read_once_and_when_it_rests() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut watcher = Watcher::new(folder.path());
        let path = folder.path().join("a.torrent");
        let whole = torrent("a");
        fs::write(&path, &whole[..30]).expect("the folder is ours");
        assert!(names(&watcher.look()).is_empty(), "it may be written still");
        fs::write(&path, &whole[..40]).expect("the folder is ours");
        let looked = watcher.look();
        assert!(looked.found.is_empty() && looked.problems.is_empty());
        let looked = watcher.look();
        assert!(looked.found.is_empty());
        assert_eq!(looked.problems.len(), 1, "{:?}", looked.problems);
        assert!(watcher.look().problems.is_empty(), "told once");
        fs::write(&path, &whole).expect("the folder is ours");
        assert!(names(&watcher.look()).is_empty());
        assert_eq!(names(&watcher.look()), ["a"]);
        assert!(names(&watcher.look()).is_empty(), "read once");

        fs::remove_file(&path).expect("it is there");
        watcher.look();
        fs::write(&path, &whole).expect("the folder is ours");
        watcher.look();
        assert_eq!(names(&watcher.look()), ["a"], "it came again");
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
        rustix::fs::mkfifoat(rustix::fs::CWD, place("pipe.torrent"), 0o600.into()).expect("a pipe");
        let mut watcher = Watcher::new(folder.path());
        watcher.look();
        let looked = watcher.look();
        assert_eq!(names(&looked), ["z"]);
        let problems = looked.problems.join("\n");
        for name in ["hostile.torrent", "huge.torrent", "pipe.torrent"] {
            assert!(problems.contains(name), "{name} in {problems}");
        }
        assert_eq!(looked.problems.len(), 3, "{problems}");
    }

    #[test]
    fn folder_that_is_gone_is_told_of_once_and_watched_again() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("watched");
        let mut watcher = Watcher::new(&folder);
        assert_eq!(watcher.look().problems.len(), 1);
        assert!(watcher.look().problems.is_empty());
        fs::create_dir(&folder).expect("the folder is ours");
        fs::write(folder.join("a.torrent"), torrent("a")).expect("the folder is ours");
        watcher.look();
        assert_eq!(names(&watcher.look()), ["a"]);
        fs::remove_dir_all(&folder).expect("the folder is ours");
        assert_eq!(watcher.look().problems.len(), 1);
    }
}
