//! Hashes a tree of files into a .torrent, a part at a time.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::walk::{FoundFile, Tree};
use crate::cli::args::TorrentArgs;
use crate::cli::error::CliError;
use crate::cli::meter::Meter;
use crate::meta::create::{self, CreateError, CreateOptions, Creator};

/// Work that goes on in steps, so that something else can be done in between.
pub struct Hashing<'a> {
    path: &'a Path,
    files: std::slice::Iter<'a, FoundFile>,
    creator: Creator,
    open: Option<OpenFile<'a>>,
    buffer: Box<[u8]>,
    bar: ProgressBar,
}

/// The file that is being read.
struct OpenFile<'a> {
    found: &'a FoundFile,
    file: File,
    before: Metadata,
    left: u64,
}

impl<'a> Hashing<'a> {
    /// Prepares the .torrent of `tree`, found at `path`, with `trackers`, each in a tier of its
    /// own, and what else `args` say.
    ///
    /// # Errors
    /// Options and data that make no torrent.
    pub fn start(
        tree: &'a Tree,
        path: &'a Path,
        args: &TorrentArgs,
        trackers: Vec<String>,
        meter: &Meter,
    ) -> Result<Self, CliError> {
        let creator = Creator::new(options(tree, args, trackers));
        Ok(Self {
            path,
            files: tree.files.iter(),
            creator: creator.map_err(|e| cannot_create(path, e))?,
            open: None,
            buffer: vec![0; READ_LEN].into(),
            bar: meter.task(&tree.name, tree.length()),
        })
    }

    /// Hashes the next part, about [`READ_LEN`] bytes; says whether there is more.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it was when the tree was walked.
    pub fn step(&mut self) -> Result<bool, CliError> {
        if self.open.is_none() {
            let Some(found) = self.files.next() else {
                return Ok(false);
            };
            self.open = Some(OpenFile::open(found)?);
        }
        if let Some(open) = &mut self.open {
            match open.read(&mut self.buffer)? {
                0 => {
                    open.refuse_change()?;
                    self.open = None;
                }
                n => {
                    let fed = self.creator.feed(&self.buffer[..n]);
                    fed.map_err(|_| changed(open.found))?;
                    self.bar.inc(n as u64);
                }
            }
        }
        Ok(true)
    }

    /// The bytes of the .torrent, when there is nothing more to hash.
    ///
    /// # Errors
    /// Data that makes no torrent.
    pub fn finish(self) -> Result<Vec<u8>, CliError> {
        self.bar.finish_and_clear();
        let made = self.creator.finish();
        made.map_err(|e| cannot_create(self.path, e))
    }
}

impl<'a> OpenFile<'a> {
    fn open(found: &'a FoundFile) -> Result<Self, CliError> {
        let file = File::open(&found.path).map_err(|e| unreadable(&found.path, e))?;
        let before = file.metadata().map_err(|e| unreadable(&found.path, e))?;
        if !before.is_file() || before.len() != found.len {
            return Err(changed(found));
        }
        Ok(Self {
            found,
            file,
            before,
            left: found.len,
        })
    }

    /// The next bytes, none at the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, CliError> {
        loop {
            match self.file.read(buffer) {
                Ok(n) => {
                    let left = self.left.checked_sub(n as u64);
                    self.left = left.ok_or_else(|| changed(self.found))?;
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(unreadable(&self.found.path, e)),
            }
        }
    }

    /// The file must be what the walk saw from its first to its last byte.
    fn refuse_change(&self) -> Result<(), CliError> {
        let path = &self.found.path;
        let after = self.file.metadata().map_err(|e| unreadable(path, e))?;
        if self.left > 0 || after.modified().ok() != self.before.modified().ok() {
            return Err(changed(self.found));
        }
        Ok(())
    }
}

/// Nothing of the time or the machine goes in: the same data makes the same .torrent.
fn options(tree: &Tree, args: &TorrentArgs, trackers: Vec<String>) -> CreateOptions {
    let files = tree.files.iter().map(|file| create::NewFile {
        path: file.components.clone(),
        len: file.len,
        executable: file.executable,
    });
    CreateOptions {
        name: tree.name.clone(),
        files: files.collect(),
        piece_len: args.piece_length,
        trackers,
        private: args.private,
        comment: args.comment.clone(),
        created_by: Some(concat!("evpeer ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: None,
    }
}

fn cannot_create(path: &Path, source: CreateError) -> CliError {
    CliError::CannotCreate {
        path: path.to_owned(),
        source,
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> CliError {
    CliError::Unreadable {
        path: path.to_owned(),
        source,
        remedy: "check its permissions and its disk",
    }
}

fn changed(found: &FoundFile) -> CliError {
    let path: &PathBuf = &found.path;
    CliError::Changed { path: path.clone() }
}

/// Bytes of a file that are read at once.
const READ_LEN: usize = 1 << 20;
