//! `evpeer create`: hashes a file or folder into a new .torrent.
//!
//! The place for the result is checked before the first byte is hashed, and filled after the
//! last: an interrupted run leaves nothing behind.

pub mod hashing;
pub mod new_file;
pub mod walk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::hashing::Hashing;
use self::new_file::{Existing, NewFile};
use self::walk::walk;
use super::args::CreateArgs;
use super::error::CliError;
use super::meter::Meter;
use super::output::{print, printable_path};
use super::source;
use super::units::{show_count, show_len};
use crate::control::api;
use crate::meta::metainfo::Metainfo;

/// Makes the .torrent and says what it made.
///
/// # Errors
/// Nothing is written then, not even in part.
pub fn create(args: &CreateArgs) -> Result<ExitCode, CliError> {
    let meter = Meter::start(&args.talk)?;
    for url in &args.torrent.trackers {
        source::refuse_malformed_tracker(url)?;
    }
    let tree = walk(&args.path)?;
    let output = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.torrent", tree.name)),
    };
    refuse_output_inside(&output, &args.path, "-o")?;
    let place = NewFile::plan(&output, Existing::of(args.force), "-o")?;
    let trackers = args.torrent.trackers.clone();
    let mut hashing = Hashing::start(&tree, &args.path, &args.torrent, trackers, &meter)?;
    while hashing.step()? {}
    let bytes = hashing.finish()?;
    place.write(&bytes)?;

    let meta = Metainfo::from_bytes(&bytes).expect("what we make, we can read");
    if args.json {
        print(&format!("{}\n", api::metainfo(&meta)))?;
    } else if !args.talk.quiet {
        print(&report(&meta, &output, &args.path))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses an output that is the data, or would be part of it for the next run.
///
/// # Errors
/// [`CliError::OutputInside`], which names the `option` that led to it.
pub fn refuse_output_inside(
    output: &Path,
    root: &Path,
    option: &'static str,
) -> Result<(), CliError> {
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
        option,
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
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@=".contains(c);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
