//! Every limit that more than one module relies on, with unit and source.

use std::time::Duration;

/// Size of a block, bytes: what we ask for (BEP 3: 2^14).
pub const BLOCK_LEN: u32 = 16 * 1024;
/// Largest block that we serve, bytes; larger requests close the connection (wire-facts: libtorrent
/// and Transmission do the same).
pub const REQUEST_LEN_MAX: u32 = BLOCK_LEN;
/// Longest peer wire message that we accept, bytes: the bitfield of [`PIECES_MAX`] pieces and
/// its id.
pub const MESSAGE_LEN_MAX: u32 = PIECES_MAX / 8 + 1;
/// Longest extended message (BEP 10) that we accept, bytes.
pub const EXTENDED_LEN_MAX: u32 = 64 * 1024;
/// Longest info dictionary that we believe a peer to have (BEP 9 `metadata_size`), bytes.
pub const METADATA_LEN_MAX: u32 = 32 * 1024 * 1024;
/// Bytes of a peer's client name (BEP 10 `v`) that are kept and shown.
pub const CLIENT_NAME_LEN_MAX: usize = 64;
/// Requests that a peer may have queued with us (BEP 10 `reqq`).
pub const REQUESTS_IN_MAX: u32 = 2000;
/// Requests beyond which a peer that ignores our `reqq` is closed.
pub const REQUESTS_IN_CLOSE: u32 = 2 * REQUESTS_IN_MAX;
/// Requests that we have open with one peer at most.
pub const REQUESTS_OUT_MAX: u32 = 2000;
/// Requests that we open with a peer that names no `reqq` (BEP 10 suggests 250 as default).
pub const REQUESTS_OUT_DEFAULT: u32 = 250;

/// Pieces of a torrent at most.
pub const PIECES_MAX: u32 = 2_097_152;
/// Longest piece, bytes.
pub const PIECE_LEN_MAX: u32 = 256 * 1024 * 1024;
/// Largest .torrent file that is read, bytes.
pub const TORRENT_FILE_LEN_MAX: u64 = 64 * 1024 * 1024;
/// Files of a torrent at most.
pub const FILES_MAX: usize = 1_000_000;
/// Folders inside one another in a file's path at most.
pub const PATH_DEPTH_MAX: usize = 100;
/// Longest name of a file or folder, bytes (ext4, XFS, btrfs, NTFS: 255 units of theirs).
pub const NAME_LEN_MAX: usize = 255;
/// Longest path of a file below the output folder, bytes; leaves a quarter of Linux' 4096 to that.
pub const PATH_LEN_MAX: usize = 3072;
/// Tracker addresses of a torrent at most; further ones are dropped.
pub const TRACKERS_MAX: usize = 100;
/// Peer addresses taken from one magnet link at most.
pub const MAGNET_PEERS_MAX: usize = 50;
/// Containers inside one another in a .torrent file at most.
pub const BENCODE_DEPTH_FILE_MAX: usize = 32;
/// Containers inside one another in what a peer or tracker sends at most.
pub const BENCODE_DEPTH_WIRE_MAX: usize = 16;
/// Values in one bencoded text at most.
pub const BENCODE_TOKENS_MAX: usize = 2_500_000;

/// Connections over all torrents (interface: `--max-peers`).
pub const CONNS_MAX_DEFAULT: u32 = 500;
/// Outgoing connections that are not established yet at most.
pub const HALF_OPEN_MAX: u32 = 50;
/// Incoming streams that have not said yet what they are at most.
pub const UNDECIDED_MAX: u32 = 200;
/// Time for an outgoing connection to be established.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a stream to finish its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which we send a keep-alive (wire-facts: libtorrent closes at 120 s).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(90);
/// Silence after which a peer is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// Time in which a peer reads nothing of what waits for it, after which it is closed.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Time for a tracker to answer an HTTP request, from the moment of dialling.
pub const TRACKER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that may wait for a tracker's reply at most: body.
pub const TRACKER_BODY_LEN_MAX: usize = 2 * 1024 * 1024;
/// Bytes of an HTTP head at most.
pub const HTTP_HEAD_LEN_MAX: usize = 16 * 1024;
/// Fields of an HTTP head at most.
pub const HTTP_FIELDS_MAX: usize = 64;
/// Interim answers (100 to 199) before an HTTP response at most.
pub const HTTP_INTERIM_MAX: u32 = 8;
/// Longest tracker address, bytes.
pub const TRACKER_URL_LEN_MAX: usize = 2048;
/// Bytes of a tracker's failure reason or warning that are kept and shown.
pub const TRACKER_TEXT_LEN_MAX: usize = 256;
/// Longest `trackerid` that is sent back to its tracker, bytes.
pub const TRACKER_ID_LEN_MAX: usize = 256;
/// Addresses of a tracker's name that are tried, one after the other.
pub const TRACKER_ADDRESSES_MAX: usize = 8;
/// Redirects of one announce that are followed.
pub const TRACKER_REDIRECTS_MAX: u32 = 5;
/// Peers taken from one tracker reply at most.
pub const TRACKER_PEERS_MAX: usize = 200;

/// Longest line of the control language, bytes, each way.
pub const CONTROL_LINE_LEN_MAX: usize = 1024 * 1024;
/// Bytes that may wait for a client of the control socket, after which it is dropped.
pub const CONTROL_UNREAD_LEN_MAX: usize = 1024 * 1024;
/// Clients of the control socket at a time; one more takes the place of the one idle longest.
pub const CONTROL_CLIENTS_MAX: usize = 32;

/// Bytes of mapped (or buffered) windows over all torrents at most.
pub const WINDOWS_LEN_MAX: u64 = 128 * 1024 * 1024;
/// Size of one window into a file, bytes.
pub const WINDOW_LEN: u64 = 1024 * 1024;
/// Windows over all torrents at most: they may be small, and each may be of another file.
pub const WINDOWS_COUNT_MAX: usize = 192;
/// Files of torrents that are open at a time at most.
pub const FILES_OPEN_MAX: usize = 256;
/// Payload that may wait for pages at most, bytes.
pub const WAITING_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Payload stored but not hashed at which reading pauses, bytes.
pub const HASH_BACKLOG_MAX: u64 = 8 * 1024 * 1024;

const _: () = assert!(MESSAGE_LEN_MAX > BLOCK_LEN + 9, "a block fits a message");
const _: () = assert!(MESSAGE_LEN_MAX > EXTENDED_LEN_MAX);
const _: () = assert!(KEEPALIVE_INTERVAL.as_secs() < 120);
const _: () = assert!(IDLE_TIMEOUT.as_secs() > 120);
const _: () = assert!(WINDOW_LEN.is_multiple_of(BLOCK_LEN as u64));
const _: () = assert!(HASH_BACKLOG_MAX + WAITING_LEN_MAX < WINDOWS_LEN_MAX);
