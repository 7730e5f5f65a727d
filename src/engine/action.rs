//! What the engine asks of its shell, and what it tells the user.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use crate::base::address::Family;
use crate::base::id::{ConnId, InfoHash, PeerId, PieceIndex, Ticket, TorrentId};
use crate::base::slot::Slot;
use crate::meta::metainfo::Metainfo;
use crate::meta::text::Text;

/// Something that the shell shall do. After each input the shell drains all of them.
#[derive(Clone, Debug)]
pub enum Action {
    /// Open a TCP stream to `remote`; answer with `connected` or `closed`.
    Connect {
        /// The id that the new stream has from now on.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
    },
    /// Drop the socket of `conn`; the engine has forgotten it already.
    Close {
        /// The stream.
        conn: ConnId,
    },
    /// `conn` has something to write.
    Flush {
        /// The stream.
        conn: ConnId,
    },
    /// `conn`, which was not to be read for a while, may be read again: see
    /// [`Engine::read_room`](super::Engine::read_room).
    Read {
        /// The stream.
        conn: ConnId,
    },
    /// The system shall take up no more than `most` bytes from `conn` before they are read; `None`:
    /// as it sees fit, as far as it does that again.
    BoundBuffer {
        /// The stream.
        conn: ConnId,
        /// Bytes.
        most: Option<usize>,
    },
    /// Send a datagram from our port. Nobody hears whether it left.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// From which of our addresses: the one that was asked. The system chooses if not given.
        from: Option<IpAddr>,
        /// What.
        bytes: Bytes,
    },
    /// Send a datagram to the group of local discovery (BEP 14), out of one interface.
    Multicast {
        /// The interface's index.
        interface: u32,
        /// Which of the two groups: IPv4's or IPv6's.
        family: Family,
        /// What.
        bytes: Bytes,
    },
    /// Look up a name; answer with `resolved`.
    Resolve {
        /// Goes back with the answer.
        lookup: LookupId,
        /// A name or an address.
        host: String,
        /// Port of the addresses in the answer.
        port: u16,
    },
    /// Something for storage.
    Storage(StorageAction),
    /// Something that the user may want to know.
    Report(Report),
}

/// What storage shall do.
#[derive(Clone, Debug)]
pub enum StorageAction {
    /// Take up a torrent and look at its files; answered by `scanned`.
    Open {
        /// The torrent's id from now on.
        torrent: TorrentId,
        /// What its files are.
        meta: Arc<Metainfo>,
        /// Whether they may be written, or what is there only be served.
        writable: bool,
    },
    /// See whether the files of a torrent that is served only can be written by now; answered by
    /// `storage_probed`.
    Probe {
        /// The torrent.
        torrent: TorrentId,
    },
    /// If the files of a torrent were not opened for a disk that was there in an earlier run and is
    /// not now, they are to be without it.
    DoWithoutDisk {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// The bytes of a torrent that is about to be opened for the first time.
    Hold {
        /// The torrent.
        info_hash: InfoHash,
        /// Its bytes.
        text: Text,
    },
    /// Somebody wants the .torrent file; answered by `text_read`.
    Text {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// These files of a torrent are not wanted, all others are: from now on, or from its opening.
    Choose {
        /// The torrent.
        torrent: TorrentId,
        /// Their indices.
        skipped: Vec<u32>,
    },
    /// Create the wanted files that have no bytes: a download begins.
    Begin {
        /// The torrent.
        torrent: TorrentId,
    },
    /// `piece` will be written soon.
    Prepare {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: PieceIndex,
    },
    /// Store a block that was collected aside.
    Store {
        /// Where the block belongs.
        slot: Slot,
        /// The whole block.
        bytes: Bytes,
    },
    /// Hash `piece`; answered by `piece_checked`.
    Check {
        /// The torrent.
        torrent: TorrentId,
        /// The piece.
        piece: PieceIndex,
    },
    /// Say when every stored byte is with the kernel; answered by `settled`.
    Settle {
        /// The torrent.
        torrent: TorrentId,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Make everything stored durable; answered by `durable`.
    Sync {
        /// The torrent.
        torrent: TorrentId,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Make everything that this process stored durable, as it is about to end; answered by
    /// `durable`.
    Leave {
        /// The torrent.
        torrent: TorrentId,
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Let go of the torrent's files.
    Close {
        /// The torrent.
        torrent: TorrentId,
    },
}

/// Names one question to the resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// News for the user: the terminal, the log, `--json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A torrent is in another state now.
    State {
        /// The torrent.
        torrent: TorrentId,
        /// The new state.
        state: State,
        /// Why, where that is not plain: the message of an error.
        reason: Option<String>,
    },
    /// A download ended: every byte that is wanted is verified and with the kernel.
    Complete {
        /// The torrent.
        torrent: TorrentId,
    },
    /// Every byte of a torrent that has all that is wanted is synced to disk.
    Durable {
        /// The torrent.
        torrent: TorrentId,
    },
    /// A torrent was removed. Nothing else is told of it.
    Removed {
        /// The torrent.
        torrent: TorrentId,
        /// Its name.
        name: String,
        /// Its info hash.
        info_hash: InfoHash,
    },
    /// A tracker did not answer, or refused.
    TrackerFailed {
        /// The torrent.
        torrent: TorrentId,
        /// The tracker's address, without credentials.
        url: String,
        /// What went wrong, and when it is tried again.
        message: String,
    },
    /// A tracker answered.
    TrackerAnswered {
        /// The torrent.
        torrent: TorrentId,
        /// The tracker's address, without credentials.
        url: String,
        /// Addresses that it named.
        peers: u32,
        /// Its warning, if it sent one.
        warning: Option<String>,
    },
    /// A name given by the user cannot be looked up.
    NameFailed {
        /// The name.
        host: String,
        /// The resolver's answer.
        message: String,
    },
    /// Limits of rate have changed.
    Limited {
        /// Those of this torrent; `None`: those of all together.
        torrent: Option<TorrentId>,
    },
    /// Its user wants other files of a torrent, or in another order.
    Chosen {
        /// The torrent.
        torrent: TorrentId,
    },
    /// A peer finished its handshake.
    PeerJoined {
        /// The torrent.
        torrent: TorrentId,
        /// Its address.
        remote: SocketAddr,
        /// Its id, which names the client.
        peer_id: PeerId,
    },
    /// A peer is gone.
    PeerLeft {
        /// The torrent.
        torrent: TorrentId,
        /// Its address.
        remote: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A peer sent data that is not what the metainfo says; it is refused from now on.
    PeerBanned {
        /// The torrent.
        torrent: TorrentId,
        /// Its address.
        remote: SocketAddr,
        /// The piece that was wrong.
        piece: PieceIndex,
    },
}

/// What a torrent does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Data that is already there is hashed.
    Checking,
    /// Pieces that are wanted are missing, and other torrents have their turn.
    Queued,
    /// Pieces that are wanted are missing.
    Downloading,
    /// Everything that is wanted is there.
    Seeding,
    /// Stopped by the user, or by a goal that the user set.
    Paused,
    /// Stopped by a fault; the report carries the reason.
    Error,
}

impl State {
    /// The word for it in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Seeding => "seeding",
            Self::Paused => "paused",
            Self::Error => "error",
        }
    }
}

/// A torrent's figures at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Its info hash.
    pub info_hash: InfoHash,
    /// What it does.
    pub state: State,
    /// Why, in state `error`, or if nobody but a goal of its user paused it.
    pub reason: Option<String>,
    /// In state `error`: when it is tried again, if it is. What is verified is served meanwhile.
    pub retry_in: Option<Duration>,
    /// Bytes of all files.
    pub length: u64,
    /// Bytes of the pieces that are wanted: all, unless files are not.
    pub wanted_bytes: u64,
    /// Bytes of those that are not verified yet.
    pub left_bytes: u64,
    /// Bytes that are verified.
    pub done_bytes: u64,
    /// While checking: bytes looked at so far.
    pub checked_bytes: u64,
    /// Payload sent since the start.
    pub up_bytes: u64,
    /// Payload received since the start.
    pub down_bytes: u64,
    /// Payload sent per second at present.
    pub up_bytes_s: u64,
    /// Payload received per second at present.
    pub down_bytes_s: u64,
    /// Payload received that was of no use, since the start.
    pub wasted_bytes: u64,
    /// Connected peers, seeds among them.
    pub peers: u32,
    /// Connected peers that have everything.
    pub seeds: u32,
}

impl Snapshot {
    /// Bytes of the pieces that are wanted and there.
    pub fn wanted_done_bytes(&self) -> u64 {
        self.wanted_bytes.saturating_sub(self.left_bytes)
    }

    /// Seconds until the download ends at the present rate; `None` if that is not foreseeable.
    pub fn eta_s(&self) -> Option<u64> {
        let left = self.left_bytes;
        match self.state {
            State::Downloading if left > 0 => left.checked_div(self.down_bytes_s),
            _ => None,
        }
    }
}
