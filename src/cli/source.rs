//! From what a user names to metainfo: a .torrent file, a folder of them, or an address of one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::fetch::{Fetched, fetch};
use super::output::printable_path;
use crate::base::limits;
use crate::engine::HostPort;
use crate::meta::metainfo::Metainfo;
use crate::meta::text::Room;
use crate::meta::trackers;
use crate::wire::url::TrackerUrl;

pub use crate::storage::keep::named_as_in;

/// One .torrent and where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file or the address.
    pub path: PathBuf,
    /// What it says.
    pub meta: Arc<Metainfo>,
    /// Peers that handed it out.
    pub peers: Vec<HostPort>,
}

/// Reads every .torrent that `inputs` name, those of the web from the address `bind` if one is
/// given. A swarm that is named twice is there once, with all its peers.
///
/// # Errors
/// The first input that cannot be used; nothing but reading has happened.
pub fn read_all<'a>(
    inputs: impl Iterator<Item = &'a PathBuf>,
    bind: Option<IpAddr>,
) -> Result<Vec<Source>, CliError> {
    let mut sources: Vec<Source> = Vec::new();
    let mut room = Room::default();
    for input in inputs {
        for path in torrent_files(input)? {
            let found = read_one(path, bind, &mut room)?;
            let is_same = |s: &&mut Source| s.meta.info_hash == found.meta.info_hash;
            let Some(first) = sources.iter_mut().find(is_same) else {
                sources.push(found);
                continue;
            };
            if found.peers.is_empty() {
                log::warn!(
                    "'{}' is the same torrent as '{}' and is left out",
                    printable_path(&found.path),
                    printable_path(&first.path)
                );
            }
            first.peers.extend(found.peers);
        }
    }
    Ok(sources)
}

/// Reads one .torrent, from a file or the web.
fn read_one(path: PathBuf, bind: Option<IpAddr>, room: &mut Room) -> Result<Source, CliError> {
    let (mut meta, peers) = if is_address(&path, &["http://", "https://"]) {
        let Fetched { meta, peer } = fetch(&path.to_string_lossy(), bind)?;
        (meta, peer.into_iter().collect())
    } else {
        (read(&path)?, Vec::new())
    };
    meta.move_text(room);
    Ok(Source {
        path,
        meta: Arc::new(meta),
        peers,
    })
}

/// Reads one .torrent file.
///
/// # Errors
/// The file cannot be read, is no regular file, is too long, or is no .torrent.
pub fn read(path: &Path) -> Result<Metainfo, CliError> {
    Metainfo::from_bytes(&read_bytes(path)?).map_err(|source| CliError::NotATorrent {
        path: path.to_owned(),
        source,
    })
}

/// Refuses trackers that cannot be asked.
///
/// # Errors
/// [`CliError::BadTracker`] for the first.
pub fn refuse_unusable_trackers(urls: &[String]) -> Result<(), CliError> {
    for url in urls {
        TrackerUrl::parse(url).map_err(|error| CliError::BadTracker {
            url: url.clone(),
            why: error.to_string(),
        })?;
    }
    Ok(())
}

/// Refuses what is no address of a tracker at all.
///
/// # Errors
/// [`CliError::BadTracker`].
pub fn refuse_malformed_tracker(url: &str) -> Result<(), CliError> {
    if trackers::accepted(url.as_bytes()).is_some() {
        return Ok(());
    }
    Err(CliError::BadTracker {
        url: url.to_owned(),
        why: "write it like http://HOST:PORT/announce".into(),
    })
}

/// Refuses an output folder that does not exist or is something else.
///
/// # Errors
/// [`CliError::OutputFolder`].
pub fn refuse_unusable_folder(path: &Path) -> Result<(), CliError> {
    let (why, remedy) = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => ("is not a folder".into(), "name a folder with -o"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            ("does not exist".into(), "make it, or name another with -o")
        }
        Err(error) => (
            format!("cannot be used: {error}"),
            "check its permissions, or name another with -o",
        ),
    };
    Err(CliError::OutputFolder {
        path: path.to_owned(),
        why,
        remedy: remedy.into(),
    })
}

/// What one input stands for: itself, or the `*.torrent` of a folder by name.
fn torrent_files(input: &Path) -> Result<Vec<PathBuf>, CliError> {
    if is_address(input, &["magnet:"]) {
        return Err(CliError::NotBuilt {
            input: input.to_string_lossy().into_owned(),
            what: "joining by magnet link is not built yet",
            instead: "get the .torrent file and name it with -t FILE",
        });
    }
    if !input.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    let unreadable = |source| unreadable(input, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(input).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "torrent") && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(CliError::NoTorrentIn {
            path: input.to_owned(),
        });
    }
    files.sort();
    Ok(files)
}

/// Whether an input is an address that begins like one of `beginnings`, and no file.
fn is_address(input: &Path, beginnings: &[&str]) -> bool {
    let text = input.to_string_lossy();
    beginnings.iter().any(|beginning| {
        let head = text.get(..beginning.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(beginning))
    })
}

/// The bytes of a regular file within the limit. Looks before it opens, so that a FIFO is refused
/// and not waited for, and again at what it opened.
fn read_bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    let unreadable = |source| unreadable(path, source);
    refuse_other_kinds(path, &fs::metadata(path).map_err(unreadable)?)?;
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    refuse_other_kinds(path, &found)?;
    let mut bytes = Vec::new();
    if found.len() <= limits::TORRENT_FILE_LEN_MAX {
        let mut limited = file.take(limits::TORRENT_FILE_LEN_MAX + 1);
        limited.read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 <= limits::TORRENT_FILE_LEN_MAX {
            return Ok(bytes);
        }
    }
    Err(CliError::TooLong {
        path: path.to_owned(),
    })
}

fn refuse_other_kinds(path: &Path, found: &fs::Metadata) -> Result<(), CliError> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() {
        "a folder"
    } else {
        "a device, a pipe or a socket"
    };
    Err(CliError::NotAFile {
        path: path.to_owned(),
        kind,
    })
}

fn unreadable(path: &Path, source: io::Error) -> CliError {
    let remedy = match source.kind() {
        ErrorKind::NotFound if path.components().count() == 1 && path.extension().is_none() => {
            "there is no such file and no such command (see evpeer --help)"
        }
        ErrorKind::NotFound => "check the path, or make the file with evpeer create",
        ErrorKind::PermissionDenied => "ask its owner for read permission",
        _ => "check the file and its disk",
    };
    CliError::Unreadable {
        path: path.to_owned(),
        source,
        remedy,
    }
}
