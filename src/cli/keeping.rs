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
use crate::meta::text::Room;
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
    places.all().iter().any(|folder| is_session_in(folder))
}

/// Whether there is a session in this state folder.
pub fn is_session_in(folder: &Path) -> bool {
    folder.join(SESSION).exists()
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
    if !is_session_in(state.path()) {
        // The output folder could not be written then, and now it can.
        for other in places.all().iter().filter(|folder| is_session_in(folder)) {
            log::warn!(
                "a session of this folder is elsewhere and is not taken up, name its folder with \
                 --state-dir: path={}",
                printable_path(other)
            );
        }
    }
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
            let aside = put_aside(folder, &text)?;
            let torrents = kept_torrents(folder);
            log::warn!(
                "session not readable, its torrents are taken up without their options: {error} \
                 path={} copied_to={} torrents={}",
                printable_path(&path),
                printable_path(&aside),
                torrents.len()
            );
            Ok(Session {
                torrents,
                ..Session::default()
            })
        }
    }
}

/// Keeps a copy of a damaged session, beside those of earlier ones; the session itself stays until
/// it is replaced, so that a crash before that changes nothing.
fn put_aside(folder: &Path, text: &[u8]) -> Result<PathBuf, CliError> {
    let mut place = folder.join(format!("{SESSION}.damaged"));
    for number in 2..=DAMAGED_MAX {
        match state::read(&place, text.len() as u64) {
            Ok(None) => break,
            Ok(Some(kept)) if kept == text => return Ok(place),
            Ok(Some(_)) | Err(_) => place = folder.join(format!("{SESSION}.damaged.{number}")),
        }
    }
    state::replace(&place, text)?;
    Ok(place)
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
    hashes.into_iter().map(SessionTorrent::new).collect()
}

/// The metainfo that was kept of a torrent. If it is lost, that is said, and the torrent stays in
/// the session until somebody brings it back.
pub fn kept_torrent(
    memory: &SessionTorrent,
    state_dir: Option<&Path>,
    root: &Path,
    room: &mut Room,
) -> Option<Arc<Metainfo>> {
    let path = torrent_path(state_dir?, memory.info_hash);
    let loaded = match keep::load(&path) {
        Ok(meta) if meta.info_hash == memory.info_hash => Ok(meta),
        Ok(_) => Err(format!("{} is of another torrent", printable_path(&path))),
        Err(error) => Err(error),
    };
    match loaded {
        Ok(mut meta) => {
            meta.move_text(room);
            Some(keep::named_as_in(root, &Arc::new(meta)))
        }
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

/// Damaged sessions that are kept; a further one replaces the last of them.
const DAMAGED_MAX: u32 = 9;
/// Largest session that is read, bytes: some kilobytes for each torrent.
const SESSION_LEN_MAX: u64 = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damaged_session_is_kept_once_and_their_number_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("session.damaged.3")).expect("writable");
        for round in 0..2 {
            for (text, name) in [
                ("first", "session.damaged"),
                ("", "session.damaged.2"),
                ("a third", "session.damaged.4"),
            ] {
                let place = put_aside(dir.path(), text.as_bytes()).expect("writable");
                assert_eq!(place, dir.path().join(name), "{round}");
                assert_eq!(fs::read_to_string(place).expect("it is there"), text);
            }
        }
        for number in 0..20 {
            put_aside(dir.path(), format!("number {number}").as_bytes()).expect("writable");
        }
        let last = fs::read(dir.path().join("session.damaged.9")).expect("it is there");
        assert_eq!(last, b"number 19");
        let names = fs::read_dir(dir.path()).expect("it is there");
        assert_eq!(names.count(), DAMAGED_MAX as usize);
    }
}
