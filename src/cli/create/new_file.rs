//! A file that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use crate::cli::error::CliError;

/// Whether a file that exists may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new file is refused.
    Keep,
    /// The new one takes its place.
    Replace,
}

impl Existing {
    /// What `--force`, given or not, says.
    pub fn of(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

/// The place of a file to be written: checked before the work begins, filled after it.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    folder: PathBuf,
    draft: PathBuf,
    existing: Existing,
    option: &'static str,
}

impl NewFile {
    /// Checks that a file can be made at `path`, as `option` of the command line wants it; leaves
    /// nothing behind.
    ///
    /// # Errors
    /// The folder is missing or read-only, or the file exists and is to be kept.
    pub fn plan(path: &Path, existing: Existing, option: &'static str) -> Result<Self, CliError> {
        let not_possible = |why: String, remedy: String| CliError::OutputFolder {
            path: folder_of(path),
            why,
            remedy,
        };
        let Some(name) = path.file_name() else {
            let why = "is a folder, not the name of a file".into();
            let remedy = format!("name the .torrent to write with {option} FILE");
            return Err(not_possible(why, remedy));
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}.tmp", process::id()));
        let folder = folder_of(path);
        let plan = Self {
            path: path.to_owned(),
            draft: folder.join(draft),
            folder,
            existing,
            option,
        };
        plan.refuse_existing()?;
        match plan.create_draft() {
            Ok(_) => {
                plan.remove_draft();
                Ok(plan)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(not_possible(
                "does not exist".into(),
                format!("make it, or choose another with {option}"),
            )),
            Err(error) => Err(not_possible(
                format!("cannot be written to: {error}"),
                format!("choose another with {option}"),
            )),
        }
    }

    /// Writes `bytes` beside the place, makes them durable, and moves them there.
    ///
    /// # Errors
    /// The first step that fails; the draft is removed then.
    pub fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        self.refuse_existing()?;
        self.write_draft(bytes).map_err(|source| {
            self.remove_draft();
            CliError::Unwritable {
                path: self.path.clone(),
                source,
                remedy: "free some space, or choose another place for it",
            }
        })
    }

    fn write_draft(&self, bytes: &[u8]) -> io::Result<()> {
        let mut draft = self.create_draft()?;
        draft.write_all(bytes)?;
        draft.sync_all()?;
        fs::rename(&self.draft, &self.path)?;
        // Some file systems cannot sync a folder; the file itself is whole in any case.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(())
    }

    fn create_draft(&self) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.draft)
    }

    fn remove_draft(&self) {
        // What cannot be removed was not made.
        let _ = fs::remove_file(&self.draft);
    }

    fn refuse_existing(&self) -> Result<(), CliError> {
        let (path, option) = (self.path.clone(), self.option);
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => Err(CliError::OutputFolder {
                path,
                why: "is a folder, not the name of a file".into(),
                remedy: format!("name the .torrent to write with {option} FILE"),
            }),
            Ok(_) if self.existing == Existing::Keep => {
                Err(CliError::OutputExists { path, option })
            }
            _ => Ok(()),
        }
    }
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => ".".into(),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn planning_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.torrent");
        let plan = NewFile::plan(&path, Existing::Keep, "-o").expect("possible");
        assert!(names(dir.path()).is_empty());
        plan.write(b"bytes").expect("written");
        assert_eq!(names(dir.path()), ["x.torrent"]);
        assert_eq!(fs::read(&path).expect("readable"), b"bytes");
    }

    #[test]
    fn existing_file_is_kept_unless_told_otherwise() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.torrent");
        fs::write(&path, b"old").expect("a file");
        let error = NewFile::plan(&path, Existing::Keep, "-o").expect_err("refused");
        assert!(matches!(error, CliError::OutputExists { .. }), "{error}");
        assert_eq!(fs::read(&path).expect("readable"), b"old");
        let plan = NewFile::plan(&path, Existing::Replace, "-o").expect("possible");
        plan.write(b"new").expect("written");
        assert_eq!(fs::read(&path).expect("readable"), b"new");
        assert_eq!(names(dir.path()), ["x.torrent"]);
    }

    #[test]
    fn file_that_appears_meanwhile_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.torrent");
        let plan = NewFile::plan(&path, Existing::Keep, "-o").expect("possible");
        fs::write(&path, b"other").expect("a file");
        plan.write(b"new").expect_err("refused");
        assert_eq!(fs::read(&path).expect("readable"), b"other");
        assert_eq!(names(dir.path()), ["x.torrent"]);
    }

    #[test]
    fn unusable_places_are_refused_before_the_work() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path();
        for path in [
            folder.join("no/x.torrent"),
            folder.into(),
            "/".into(),
            "/sys/x".into(),
        ] {
            for existing in [Existing::Keep, Existing::Replace] {
                let error = NewFile::plan(&path, existing, "-o").expect_err("refused");
                assert_eq!(error.exit_code(), 2, "{error}");
            }
        }
        assert!(names(folder).is_empty());
    }
}
