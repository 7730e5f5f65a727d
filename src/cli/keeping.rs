//! What a peer finds of its last run, and where.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::output::printable_path;
use crate::base::id::InfoHash;
use crate::config::session::{Session, SessionTorrent};
use crate::control::session::{self, SessionError};
use crate::engine::TorrentSpec;
use crate::meta::metainfo::Metainfo;
use crate::reactor::Keeping;
use crate::storage::keep::{self, SESSION, torrent_path};
use crate::storage::state::{self, Places, StateDir, StateError};

/// Where the state of an output folder may be.
pub fn places(output: &Path, chosen: Option<&Path>) -> Places {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let common = match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(common), _) => Some(PathBuf::from(common)),
        (None, Some(home)) => Some(PathBuf::from(home).join(".local/state")),
        (None, None) => None,
    };
    Places {
        output: output.to_owned(),
        chosen: chosen.map(Path::to_owned),
        fallback: common.map(|common| common.join("evpeer")),
    }
}

/// Whether something ran there before.
pub fn has_session(places: &Places) -> bool {
    let all = places.all();
    all.iter().any(|folder| folder.join(SESSION).exists())
}

/// Opens the state folder and reads the session. `None`: nothing can be kept, and nothing is.
///
/// # Errors
/// Another process runs there, the folder that the user chose cannot be used, or the session is
/// that of a newer version.
pub fn open(places: &Places) -> Result<Option<Keeping>, CliError> {
    let state = match StateDir::open(places) {
        Ok(state) => state,
        Err(error @ StateError::Unusable { .. }) if places.chosen.is_none() => {
            log::warn!("nothing is remembered, and evpeer ctl does not work: {error}");
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let session = read_session(state.path())?;
    Ok(Some(Keeping {
        state,
        output: state::whole(&places.output),
        session,
    }))
}

fn read_session(folder: &Path) -> Result<Session, CliError> {
    let path = folder.join(SESSION);
    let Some(text) = state::read(&path, SESSION_LEN_MAX)? else {
        return Ok(Session::default());
    };
    match session::decode(&text) {
        Ok(session) => Ok(session),
        Err(source @ SessionError::Newer { .. }) => Err(CliError::NewerSession { path, source }),
        Err(error @ SessionError::Damaged(_)) => {
            let aside = folder.join(format!("{SESSION}.damaged"));
            let torrents = kept_torrents(folder);
            log::warn!(
                "session not readable, its torrents are taken up without their options: {error} \
                 path={} moved_to={} torrents={}",
                printable_path(&path),
                printable_path(&aside),
                torrents.len()
            );
            if let Err(error) = fs::rename(&path, &aside) {
                log::warn!("damaged session not moved: {error}");
            }
            Ok(Session {
                torrents,
                ..Session::default()
            })
        }
    }
}

/// Torrents whose metainfo lies in the state folder, by info hash.
fn kept_torrents(folder: &Path) -> Vec<SessionTorrent> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let hash = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".torrent")?.parse::<InfoHash>().ok()
    };
    let mut hashes: Vec<InfoHash> = names.filter_map(hash).collect();
    hashes.sort_unstable();
    let torrents = hashes.into_iter().map(|info_hash| SessionTorrent {
        info_hash,
        is_paused: false,
        trackers: Vec::new(),
        peers: Vec::new(),
        up_bytes: 0,
        down_bytes: 0,
        known: Vec::new(),
    });
    torrents.collect()
}

/// The metainfo that was kept of a torrent. If it is lost, that is said, and the torrent stays in
/// the session until somebody brings it back.
pub fn kept_torrent(
    memory: &SessionTorrent,
    state_dir: Option<&Path>,
    root: &Path,
) -> Option<Arc<Metainfo>> {
    let path = torrent_path(state_dir?, memory.info_hash);
    let loaded = match keep::load(&path) {
        Ok(meta) if meta.info_hash == memory.info_hash => Ok(meta),
        Ok(_) => Err(format!("{} is of another torrent", printable_path(&path))),
        Err(error) => Err(error),
    };
    match loaded {
        Ok(meta) => Some(keep::named_as_in(root, &Arc::new(meta))),
        Err(error) => {
            log::warn!(
                "torrent of the session not taken up info_hash={}: {error}; name its .torrent \
                 with -t",
                memory.info_hash
            );
            None
        }
    }
}

/// `spec` with the peers and trackers that the user named in earlier runs.
pub fn joined(mut spec: TorrentSpec, memory: &SessionTorrent) -> TorrentSpec {
    for peer in &memory.peers {
        if !spec.peers.contains(peer) {
            spec.peers.push(peer.clone());
        }
    }
    for tracker in &memory.trackers {
        if !spec.trackers.contains(tracker) {
            spec.trackers.push(tracker.clone());
        }
    }
    spec
}

/// Largest session that is read, bytes: some kilobytes for each torrent.
const SESSION_LEN_MAX: u64 = 1024 * 1024 * 1024;
