//! One host of the world, and how its engine and its storage hear of each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::HostId;
use super::disk::Disk;
use super::net::StreamId;
use crate::base::id::{ConnId, TorrentId};
use crate::base::time::Instant;
use crate::engine::{Engine, Report, StorageAction};
use crate::storage::{self, Storage};

/// A host: an engine, its storage and its disk.
pub(super) struct Host {
    pub engine: Engine,
    pub storage: Storage,
    pub disk: Disk,
    pub addr: SocketAddr,
    pub torrent: TorrentId,
    /// Which stream a connection of the engine is.
    pub streams: BTreeMap<ConnId, StreamId>,
    pub reports: Vec<Report>,
    /// Streams that wait for data from storage.
    pub waiting: Vec<ConnId>,
    /// When its earliest timer fires.
    pub timer: Instant,
}

/// Hands what the engine wants of storage to it.
pub(super) fn apply(storage: &mut Storage, action: StorageAction) {
    match action {
        StorageAction::Open { torrent, meta } => storage.add(torrent, meta),
        StorageAction::Begin { torrent } => storage.create_empty_files(torrent),
        StorageAction::Prepare { torrent, piece } => storage.prepare(torrent, piece),
        StorageAction::Store { slot, bytes } => storage.store(slot, &bytes),
        StorageAction::Check { torrent, piece } => storage.check(torrent, piece),
        StorageAction::Settle { torrent } => storage.settle(torrent),
        StorageAction::Sync { torrent } => storage.sync(torrent),
        StorageAction::Close { torrent } => storage.remove(torrent),
    }
}

/// Hands what storage says to the engine.
pub(super) fn tell(host: &mut Host, event: storage::Event, now: Instant) {
    use storage::Event;
    let engine = &mut host.engine;
    match event {
        Event::Scanned {
            torrent,
            candidates,
        } => engine.scanned(torrent, candidates, now),
        Event::Checked {
            torrent,
            piece,
            verdict,
        } => {
            engine.piece_checked(torrent, piece, verdict, now);
        }
        Event::Readable => {}
        Event::Settled { torrent } => engine.settled(torrent, now),
        Event::Durable { torrent } => engine.durable(torrent, now),
        Event::Failed { torrent, error } => engine.storage_failed(torrent, error.to_string(), now),
    }
}

/// Where a host listens.
pub(super) fn address(host: HostId) -> SocketAddr {
    let [_, b, c, d] = (host.0 + 1).to_be_bytes();
    ([10, b, c, d], 6881).into()
}
