//! Torrents of a watched folder join those that run.

use super::{Outcome, Peer};
use crate::base::choice::Choice;
use crate::cli::choosing::ChoosingArgs;
use crate::cli::output::{printable, printable_path};
use crate::cli::source::Source;
use crate::cli::watch::Watch;
use crate::engine::{AddError, HostPort, TorrentSpec};

/// A folder that is watched, and what its torrents are given.
pub(super) struct Watched {
    pub watch: Watch,
    /// As many were taken as one turn takes.
    pub may_have_more: bool,
    pub peers: Vec<HostPort>,
    pub trackers: Vec<String>,
    pub choosing: ChoosingArgs,
}

impl Peer {
    /// Takes up what was found in the watched folder, unless it is there already.
    pub(super) fn add_watched(&mut self) {
        let Some(watched) = &mut self.watched else {
            return;
        };
        let found: Vec<Source> = std::iter::from_fn(|| watched.watch.poll())
            .take(WATCHED_PER_TURN)
            .collect();
        watched.may_have_more = found.len() == WATCHED_PER_TURN;
        let choosing = watched.choosing.clone();
        for found in found {
            let engine = self.reactor.engine_mut();
            if engine.torrent_of(found.meta.info_hash).is_some() {
                continue; // as after each start
            }
            let choice = match choosing.choice(&found.meta, &Choice::default()) {
                Ok(choice) => choice,
                Err(error) => {
                    let path = printable_path(&found.path);
                    let error = printable(&error.to_string());
                    log::warn!("'{path}' of the watched folder is left out: {error}");
                    continue;
                }
            };
            let Some(watched) = &self.watched else {
                return;
            };
            let spec = TorrentSpec {
                meta: found.meta,
                peers: watched.peers.clone(),
                trackers: watched.trackers.clone(),
                choice,
            };
            match self.reactor.add_torrent(spec) {
                Ok(torrent) => {
                    self.torrents.insert(torrent, Outcome::Open);
                    self.sum = None;
                }
                Err(AddError::Duplicate { .. }) => {}
                Err(error) => {
                    let path = printable_path(&found.path);
                    log::warn!("'{path}' of the watched folder is left out: {error}");
                }
            }
        }
    }
}

/// Torrents of a watched folder that one turn takes up.
const WATCHED_PER_TURN: usize = 4;
