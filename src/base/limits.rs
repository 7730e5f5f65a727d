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
/// Longest glob that names files of a torrent, bytes: longer than any path that it may match.
pub const PATTERN_LEN_MAX: usize = 4096;
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

/// Lowest limit of rate, bytes per second: under a lower one nothing would get on.
pub const RATE_LIMIT_MIN: u64 = 1024;
/// Highest limit of rate, bytes per second: no line carries as much.
pub const RATE_LIMIT_MAX: u64 = 1 << 40;

/// Connections over all torrents (interface: `--max-peers`).
pub const CONNS_MAX_DEFAULT: u32 = 500;
/// Connections that turned out to be HTTP at most; they do not count against `--max-peers`.
pub const HTTP_CONNS_MAX: u32 = 1024;
/// Outgoing connections that are not established yet at most.
pub const HALF_OPEN_MAX: u32 = 50;
/// Beyond those, outgoing connections for links alone: peers that do not answer keep none of them.
pub const HALF_OPEN_LINKS_MAX: u32 = 8;
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
/// Time for an announce with look-ups, redirects and all addresses of the tracker.
pub const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(120);
/// Announces of one torrent that are under way at most.
pub const TORRENT_ANNOUNCES_MAX: usize = 10;
/// Announces of all torrents that are under way at most.
pub const ANNOUNCES_MAX: usize = 30;
/// Bytes that may wait for a tracker's reply at most: body.
pub const TRACKER_BODY_LEN_MAX: usize = 2 * 1024 * 1024;
/// Bytes of an HTTP head at most.
pub const HTTP_HEAD_LEN_MAX: usize = 16 * 1024;
/// Fields of an HTTP head at most.
pub const HTTP_FIELDS_MAX: usize = 64;
/// Bytes of the head of a request to our tracker at most (wire-facts: what others take).
pub const REQUEST_HEAD_LEN_MAX: usize = 8 * 1024;
/// Bytes of the body of a request to our tracker at most; they are passed over.
pub const REQUEST_BODY_LEN_MAX: usize = 4 * 1024;
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
/// Evpeers of a swarm that are kept to be asked for peers when its own trackers are silent.
pub const LAST_RESORT_MAX: usize = 32;
/// Peers taken from one tracker reply at most.
pub const TRACKER_PEERS_MAX: usize = 200;

/// Longest line of the control language, bytes, each way.
pub const CONTROL_LINE_LEN_MAX: usize = 1024 * 1024;
/// Bytes that may wait for a client of the control socket, after which it is dropped.
pub const CONTROL_UNREAD_LEN_MAX: usize = 1024 * 1024;
/// Clients of the control socket at a time; one more takes the place of the one idle longest.
pub const CONTROL_CLIENTS_MAX: usize = 32;

/// Time for an HTTP request to be whole, and for its answer to be read on.
pub const HTTP_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP stream may stay open between two requests.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of answers that may wait on one HTTP stream: the largest .torrent file, and more.
pub const HTTP_UNSENT_LEN_MAX: usize = TORRENT_FILE_LEN_MAX as usize + 1024 * 1024;
/// Addresses known of one torrent at most.
pub const CANDIDATES_MAX: usize = 2000;
/// Peers read from each list of a PEX message at most (BEP 11: 50).
pub const PEX_DECODED_MAX: usize = 50;
/// Peers told in one PEX message at most, and as many dropped (BEP 11: 50, both families).
pub const PEX_TOLD_MAX: usize = 50;
/// The same for the first message to a peer (BEP 11 sets no limit; libtorrent sends 100).
pub const PEX_FIRST_MAX: usize = 100;
/// Streams for links alone between evpeers at most, beside those that are being dialled.
pub const LINK_STREAMS_MAX: usize = 48;
/// Bytes that may wait on a stream, payload too, when one more message of evpeers shall.
pub const LINK_UNSENT_LEN_MAX: usize = 512 * 1024;
/// Bytes of a local discovery packet that are read (BEP 14: it has 1400 at most).
pub const LSD_PACKET_LEN_MAX: usize = 1400;
/// Info hashes read from one local discovery packet at most.
pub const LSD_HASHES_MAX: usize = 10;
/// Packets of local discovery per second on one interface at most (Transmission drops all above
/// 10 per second from all hosts).
pub const LSD_PACKETS_S_MAX: u32 = 5;
/// Requests a second of one host off our links that our tracker answers.
pub const TRACKED_OFF_LINK_HOST_PER_SEC: u32 = 20;
/// Requests a second of one host on our links that our tracker answers.
pub const TRACKED_ON_LINK_HOST_PER_SEC: u32 = 2000;
/// Requests a second of all hosts off our links that our tracker answers.
pub const TRACKED_OFF_LINK_PER_SEC: u32 = 2000;
/// Requests a second of this machine and all hosts on our links that our tracker answers.
pub const TRACKED_ON_LINK_PER_SEC: u32 = 20_000;
/// How many times as many it answers of hosts on our links while we have no torrent, so that there
/// is no transfer to be slowed down.
pub const TRACKED_ALONE_FACTOR: u32 = 20;
/// Peers that our tracker tells who does not say how many it wants (wire-facts: as qBittorrent).
pub const TOLD_PEERS_DEFAULT: usize = 50;
/// Peers that our tracker tells at most (BEP 15: 200 of IPv4 in a datagram of 1,220 B).
pub const TOLD_PEERS_MAX: usize = 200;
/// IPv6 peers that our tracker tells in a datagram at most, to stay below 1,400 B.
pub const TOLD_PEERS6_DATAGRAM_MAX: usize = 76;
/// Peers of one swarm that are known by address at most; the last quarter is for on-link ones.
pub const PEERS_PER_SWARM_MAX: usize = 50_000;
/// Peers of all swarms that are known by address at most (some 200 B each); the same quarter.
pub const PEERS_KNOWN_MAX: usize = 200_000;
/// Peers of one swarm that are known by hearsay at most.
pub const HEARSAY_MAX: usize = 10_000;
/// Ports in one swarm of one address off our links at most.
pub const PORTS_OFF_LINK_MAX: usize = 3;
/// Addresses in one swarm of one IPv6 /64 off our links at most.
pub const OFF_LINK_NET6_MAX: usize = 64;
/// Ports in one swarm of one address on our links at most.
pub const PORTS_ON_LINK_MAX: usize = 64;
/// Ports in one swarm of one address of this machine at most.
pub const PORTS_LOOPBACK_MAX: usize = 1024;
/// Swarms of others that an open tracker keeps at most.
pub const OPEN_SWARMS_MAX: usize = 20_000;
/// Of them those that one net off our links made (IPv4 /24, IPv6 /48).
pub const OPEN_SWARMS_NET_MAX: usize = 500;

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

const _: () = assert!(TOLD_PEERS_DEFAULT <= TOLD_PEERS6_DATAGRAM_MAX);
const _: () = assert!(20 + 6 * TOLD_PEERS_MAX < 1400);
const _: () = assert!(20 + 18 * TOLD_PEERS6_DATAGRAM_MAX < 1400);
const _: () = assert!(PEERS_KNOWN_MAX > PEERS_PER_SWARM_MAX);
const _: () = assert!(HEARSAY_MAX < PEERS_PER_SWARM_MAX / 2);
const _: () = assert!(OPEN_SWARMS_NET_MAX < OPEN_SWARMS_MAX / 10);
const _: () = assert!(MESSAGE_LEN_MAX > BLOCK_LEN + 9, "a block fits a message");
const _: () = assert!(MESSAGE_LEN_MAX > EXTENDED_LEN_MAX);
const _: () = assert!(TORRENT_ANNOUNCES_MAX < ANNOUNCES_MAX);
const _: () = assert!(TRACKER_TIMEOUT.as_secs() < ANNOUNCE_TIMEOUT.as_secs());
const _: () = assert!(KEEPALIVE_INTERVAL.as_secs() < 120);
const _: () = assert!(IDLE_TIMEOUT.as_secs() > 120);
const _: () = assert!(WINDOW_LEN.is_multiple_of(BLOCK_LEN as u64));
const _: () = assert!(HASH_BACKLOG_MAX + WAITING_LEN_MAX < WINDOWS_LEN_MAX);
