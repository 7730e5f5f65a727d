//! `evpeer create`: hashes a file or folder into a new .torrent.
//!
//! The place for the result is checked before the first byte is hashed, and filled after the
//! last: an interrupted run leaves nothing behind.

mod new_file;
mod walk;

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::ProgressBar;

use self::new_file::{Existing, NewFile};
use self::walk::{FoundFile, Tree, walk};
use super::args::CreateArgs;
use super::error::CliError;
use super::meter::Meter;
use super::output::{print, printable_path};
use super::source;
use super::units::{show_count, show_len};
use crate::control::api;
use crate::meta::create::{self, CreateError, CreateOptions, Creator};
use crate::meta::metainfo::Metainfo;

/// Makes the .torrent and says what it made.
///
/// # Errors
/// Nothing is written then, not even in part.
pub fn create(args: &CreateArgs) -> Result<ExitCode, CliError> {
    let meter = Meter::start(&args.talk)?;
    for url in &args.trackers {
        source::refuse_malformed_tracker(url)?;
    }
    let tree = walk(&args.path)?;
    let output = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.torrent", tree.name)),
    };
    refuse_output_inside(&output, &args.path)?;
    let existing = if args.force {
        Existing::Replace
    } else {
        Existing::Keep
    };
    let place = NewFile::plan(&output, existing)?;
    let bytes = hash(&tree, args, &meter)?;
    place.write(&bytes)?;

    let meta = Metainfo::from_bytes(&bytes).expect("what we make, we can read");
    if args.json {
        print(&format!("{}\n", api::metainfo(&meta)))?;
    } else if !args.talk.quiet {
        print(&report(&meta, &output, &args.path))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The bytes of the .torrent.
fn hash(tree: &Tree, args: &CreateArgs, meter: &Meter) -> Result<Vec<u8>, CliError> {
    let cannot_create = |source: CreateError| CliError::CannotCreate {
        path: args.path.clone(),
        source,
    };
    let mut creator = Creator::new(options(tree, args)).map_err(cannot_create)?;
    let bar = meter.task(&tree.name, tree.length());
    for file in &tree.files {
        hash_file(file, &mut creator, &bar)?;
    }
    bar.finish_and_clear();
    creator.finish().map_err(cannot_create)
}

/// Nothing of the time or the machine goes in: the same data makes the same .torrent.
fn options(tree: &Tree, args: &CreateArgs) -> CreateOptions {
    let files = tree.files.iter().map(|file| create::NewFile {
        path: file.components.clone(),
        len: file.len,
        executable: file.executable,
    });
    CreateOptions {
        name: tree.name.clone(),
        files: files.collect(),
        piece_len: args.piece_length,
        trackers: args.trackers.clone(),
        private: args.private,
        comment: args.comment.clone(),
        created_by: Some(concat!("evpeer ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: None,
    }
}

/// Feeds one file to the creator; it must be what the walk saw from its first to its last byte.
fn hash_file(file: &FoundFile, creator: &mut Creator, bar: &ProgressBar) -> Result<(), CliError> {
    let unreadable = |source| CliError::Unreadable {
        path: file.path.clone(),
        source,
        remedy: "check its permissions and its disk",
    };
    let changed = || CliError::Changed {
        path: file.path.clone(),
    };
    let mut open = File::open(&file.path).map_err(unreadable)?;
    let before = open.metadata().map_err(unreadable)?;
    if !before.is_file() || before.len() != file.len {
        return Err(changed());
    }
    let mut buffer = vec![0; READ_LEN];
    let mut left = file.len;
    loop {
        let n = match open.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        left = left.checked_sub(n as u64).ok_or_else(changed)?;
        creator.feed(&buffer[..n]).map_err(|_| changed())?;
        bar.inc(n as u64);
    }
    let after = open.metadata().map_err(unreadable)?;
    if left > 0 || after.modified().ok() != before.modified().ok() {
        return Err(changed());
    }
    Ok(())
}

/// Bytes of a file that are read at once.
const READ_LEN: usize = 1 << 20;

/// Refuses an output that is the data, or would be part of it for the next run.
fn refuse_output_inside(output: &Path, root: &Path) -> Result<(), CliError> {
    let real_root = fs::canonicalize(root);
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent),
        _ => fs::canonicalize("."),
    };
    let (Ok(real_root), Ok(folder), Some(name)) = (real_root, folder, output.file_name()) else {
        return Ok(()); // what does not exist is found out, and named, where it is used
    };
    if !folder.join(name).starts_with(real_root) {
        return Ok(());
    }
    Err(CliError::OutputInside {
        output: output.to_owned(),
        root: root.to_owned(),
    })
}

/// What was made, and how to seed it.
fn report(meta: &Metainfo, output: &Path, root: &Path) -> String {
    let geometry = meta.geometry();
    let parent = match (root.file_name(), root.parent()) {
        (Some(_), Some(parent)) if parent != Path::new("") => parent,
        (Some(_), _) => Path::new("."),
        (None, _) if root == Path::new(".") => Path::new(".."),
        (None, _) => &root.join(".."),
    };
    let shown = printable_path(output);
    format!(
        "wrote '{shown}': {}, {}, {} of {}\ninfo hash {}\n\
         seed it with: evpeer -t {} -o {}\n",
        show_count(meta.files.len(), "file"),
        show_len(geometry.length()),
        show_count(geometry.piece_count() as usize, "piece"),
        show_len(u64::from(geometry.nominal_piece_len())),
        meta.info_hash,
        quoted(&shown),
        quoted(&printable_path(parent)),
    )
}

/// `word` as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@=".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
