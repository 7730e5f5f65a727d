//! What a peer remembers from one run to the next, as plain data.
//!
//! The shell keeps it up to date, `control` makes text of it, storage writes that to the disk.

use std::net::{IpAddr, SocketAddr};

use super::{Config, Goal, RateLimits, SeedGoals, StorageKind};
use crate::base::address::HostPort;
use crate::base::choice::Choice;
use crate::base::id::InfoHash;

/// The memory of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// What the user chose.
    pub given: Given,
    /// The port that was open last; 0 if none was.
    pub port: u16,
    /// The torrents that ran, in the order in which they were added.
    pub torrents: Vec<SessionTorrent>,
    /// Evpeers that were met, whatever their torrents, the one seen last first.
    pub evpeers: Vec<KnownPeer>,
}

/// Options that the user gave, in this run or an earlier one; `None` is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// See [`Config::port`].
    pub port: Option<u16>,
    /// See [`Config::bind`].
    pub bind: Option<IpAddr>,
    /// See [`Config::conns_max`].
    pub conns_max: Option<u32>,
    /// See [`Config::trackers`].
    pub trackers: Option<bool>,
    /// See [`Config::open_tracker`].
    pub open_tracker: Option<bool>,
    /// See [`Config::lsd`].
    pub lsd: Option<bool>,
    /// See [`Config::pex`].
    pub pex: Option<bool>,
    /// See [`Config::storage`].
    pub storage: Option<StorageKind>,
    /// See [`Config::max_active`].
    pub max_active: Option<u32>,
    /// See [`Config::seed_goals`].
    pub seed_ratio: Option<Goal>,
    /// See [`Config::seed_goals`].
    pub seed_time: Option<Goal>,
    /// See [`Config::limits`].
    pub up_limit: Option<u64>,
    /// See [`Config::limits`].
    pub down_limit: Option<u64>,
    /// See [`Config::limit_local`].
    pub limit_local: Option<bool>,
}

/// A torrent of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTorrent {
    /// Which; its .torrent lies in the state folder.
    pub info_hash: InfoHash,
    /// Whether its user paused it.
    pub is_paused: bool,
    /// Trackers that the user named beside its own.
    pub trackers: Vec<String>,
    /// Peers that the user named.
    pub peers: Vec<HostPort>,
    /// Payload sent in all runs, bytes.
    pub up_bytes: u64,
    /// Payload received in all runs, bytes.
    pub down_bytes: u64,
    /// The mount points on the way to its files, by their whole paths.
    pub mounts: Vec<String>,
    /// Whether it was complete once.
    pub was_complete: bool,
    /// Trackers that have heard of it and will have to hear when it is complete.
    pub listed: Vec<String>,
    /// Trackers that have to hear that it is complete, and have not yet.
    pub untold: Vec<String>,
    /// Limits of its own.
    pub limits: RateLimits,
    /// How long it was seeded in all runs, seconds, as far as that matters to its user.
    pub seeded_s: u64,
    /// Whether its user resumed it at its goal.
    pub seeds_on: bool,
    /// Which of its files are wanted.
    pub choice: Choice,
    /// Peers that it was connected to, the one seen last first.
    pub known: Vec<KnownPeer>,
}

/// A peer that was there once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Where it accepts connections.
    pub addr: SocketAddr,
    /// When it was last connected, seconds since 1970.
    pub last_seen: u64,
    /// Whether it is an evpeer.
    pub is_evpeer: bool,
}

impl Given {
    /// What is given here, and for the rest what was given `before`.
    pub fn or(self, before: Self) -> Self {
        Self {
            port: self.port.or(before.port),
            bind: self.bind.or(before.bind),
            conns_max: self.conns_max.or(before.conns_max),
            trackers: self.trackers.or(before.trackers),
            open_tracker: self.open_tracker.or(before.open_tracker),
            lsd: self.lsd.or(before.lsd),
            pex: self.pex.or(before.pex),
            storage: self.storage.or(before.storage),
            max_active: self.max_active.or(before.max_active),
            seed_ratio: self.seed_ratio.or(before.seed_ratio),
            seed_time: self.seed_time.or(before.seed_time),
            up_limit: self.up_limit.or(before.up_limit),
            down_limit: self.down_limit.or(before.down_limit),
            limit_local: self.limit_local.or(before.limit_local),
        }
    }

    /// The settings that follow, with the default for what is not given.
    pub fn config(&self) -> Config {
        let other = Config::default();
        Config {
            port: self.port.unwrap_or(other.port),
            bind: self.bind,
            conns_max: self.conns_max.unwrap_or(other.conns_max),
            trackers: self.trackers.unwrap_or(other.trackers),
            open_tracker: self.open_tracker.unwrap_or(other.open_tracker),
            lsd: self.lsd.unwrap_or(other.lsd),
            pex: self.pex.unwrap_or(other.pex),
            storage: self.storage.unwrap_or(other.storage),
            max_active: self.max_active.unwrap_or(other.max_active),
            seed_goals: SeedGoals {
                ratio: self.seed_ratio.or(other.seed_goals.ratio),
                time: self.seed_time.or(other.seed_goals.time),
            },
            limits: RateLimits {
                up: self.up_limit.unwrap_or(other.limits.up),
                down: self.down_limit.unwrap_or(other.limits.down),
            },
            limit_local: self.limit_local.unwrap_or(other.limit_local),
            ..other
        }
    }
}

impl SessionTorrent {
    /// A torrent of which nothing but its name is known.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            is_paused: false,
            trackers: Vec::new(),
            peers: Vec::new(),
            up_bytes: 0,
            down_bytes: 0,
            mounts: Vec::new(),
            was_complete: false,
            listed: Vec::new(),
            untold: Vec::new(),
            limits: RateLimits::default(),
            seeded_s: 0,
            seeds_on: false,
            choice: Choice::default(),
            known: Vec::new(),
        }
    }
}

impl Session {
    /// The memory of one torrent.
    pub fn torrent(&self, info_hash: InfoHash) -> Option<&SessionTorrent> {
        self.torrents.iter().find(|t| t.info_hash == info_hash)
    }

    /// Takes in how a torrent is at `now`, seconds since 1970. Its `known` are the peers that are
    /// connected; those that were known before stay known for a while.
    pub fn update(&mut self, mut torrent: SessionTorrent, now: u64) {
        let evpeers = torrent.known.iter().filter(|peer| peer.is_evpeer);
        see(&mut self.evpeers, evpeers, EVPEERS_MAX, now);
        let seen = std::mem::take(&mut torrent.known);
        let is_it = |known: &&mut SessionTorrent| known.info_hash == torrent.info_hash;
        match self.torrents.iter_mut().find(is_it) {
            Some(known) => {
                torrent.known = std::mem::take(&mut known.known);
                see(&mut torrent.known, seen.iter(), KNOWN_PER_TORRENT_MAX, now);
                *known = torrent;
            }
            None => {
                see(&mut torrent.known, seen.iter(), KNOWN_PER_TORRENT_MAX, now);
                self.torrents.push(torrent);
            }
        }
    }

    /// Takes in evpeers that are connected at `now`, seconds since 1970, whatever they share.
    pub fn met(&mut self, evpeers: &[KnownPeer], now: u64) {
        see(&mut self.evpeers, evpeers.iter(), EVPEERS_MAX, now);
    }

    /// Forgets a torrent.
    pub fn remove(&mut self, info_hash: InfoHash) {
        self.torrents.retain(|t| t.info_hash != info_hash);
    }
}

/// Adds those that were seen at `now`, and drops who was not seen for long or is one too many.
///
/// Who is connected for days is written down once an hour, so that an idle peer need not write.
fn see<'a>(
    known: &mut Vec<KnownPeer>,
    seen: impl Iterator<Item = &'a KnownPeer>,
    count_max: usize,
    now: u64,
) {
    for peer in seen {
        let last_seen = match known.iter().find(|other| other.addr == peer.addr) {
            Some(other) if other.last_seen <= now && now - other.last_seen < FRESH_S => {
                other.last_seen
            }
            _ => now,
        };
        known.retain(|other| other.addr != peer.addr);
        known.push(KnownPeer { last_seen, ..*peer });
    }
    known.retain(|peer| now.saturating_sub(peer.last_seen) < FORGOTTEN_AFTER_S);
    known.sort_by_key(|peer| (u64::MAX - peer.last_seen, peer.addr));
    known.truncate(count_max);
}

/// Torrents of a session at most.
pub const TORRENTS_MAX: usize = 100_000;
/// Peers that are remembered for one torrent at most.
pub const KNOWN_PER_TORRENT_MAX: usize = 200;
/// Mount points that are remembered for one torrent at most.
pub const MOUNTS_MAX: usize = 64;
/// Evpeers that are remembered at most.
pub const EVPEERS_MAX: usize = 200;
/// How exactly is remembered when a peer was last seen, seconds.
const FRESH_S: u64 = 3600;
/// A peer that was not seen for so long is forgotten, seconds.
const FORGOTTEN_AFTER_S: u64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: InfoHash = InfoHash([7; 20]);

    fn peer(n: u16, last_seen: u64) -> KnownPeer {
        KnownPeer {
            addr: ([10, 0, (n >> 8) as u8, n as u8], 6881).into(),
            last_seen,
            is_evpeer: n.is_multiple_of(2),
        }
    }

    fn torrent(known: Vec<KnownPeer>) -> SessionTorrent {
        SessionTorrent {
            known,
            ..SessionTorrent::new(HASH)
        }
    }

    fn seen(session: &Session) -> Vec<(u8, u64)> {
        let known = session.torrent(HASH).expect("it is there").known.iter();
        let last = |peer: &KnownPeer| match peer.addr.ip() {
            IpAddr::V4(ip) => (ip.octets()[3], peer.last_seen),
            IpAddr::V6(ip) => panic!("{ip}"),
        };
        known.map(last).collect()
    }

    #[test]
    fn peers_stay_known_after_they_went_and_are_forgotten_after_a_month() {
        let mut session = Session::default();
        let start = 1_000_000_000;
        session.update(torrent(vec![peer(1, 0), peer(2, 0)]), start);
        session.update(torrent(vec![peer(2, 0), peer(3, 0)]), start + 5000);
        let later = start + 5000;
        assert_eq!(seen(&session), [(2, later), (3, later), (1, start)]);
        assert_eq!(session.evpeers.len(), 1);
        // Within the hour nothing changes, so nothing has to be written.
        let before = session.clone();
        session.update(torrent(vec![peer(2, 0), peer(3, 0)]), later + 3599);
        assert_eq!(session, before);
        session.met(&[peer(4, 0)], later + 3599);
        assert_eq!(session.evpeers.len(), 2, "whatever it shares");
        session.update(torrent(Vec::new()), start + FORGOTTEN_AFTER_S);
        assert_eq!(seen(&session), [(2, later), (3, later)]);
        session.remove(HASH);
        assert_eq!(session.torrents, []);
    }

    #[test]
    fn number_of_peers_is_bounded_and_the_newest_stay() {
        let mut session = Session::default();
        for n in 0..1000 {
            session.update(torrent(vec![peer(n, 0)]), 10_000 * u64::from(n) / 10 + 5000);
        }
        let known = &session.torrent(HASH).expect("it is there").known;
        assert_eq!(
            (known.len(), session.evpeers.len()),
            (KNOWN_PER_TORRENT_MAX, EVPEERS_MAX)
        );
        assert_eq!(known[0].addr, peer(999, 0).addr);
    }

    #[test]
    fn clock_that_went_back_leaves_nobody_in_the_future() {
        let mut session = Session::default();
        session.update(torrent(vec![peer(1, 0)]), 2_000_000_000);
        session.update(torrent(vec![peer(1, 0)]), 1_000_000_000);
        assert_eq!(seen(&session), [(1, 1_000_000_000)]);
    }

    #[test]
    fn what_is_given_now_wins_and_the_rest_is_as_before() {
        let before = Given {
            port: Some(7000),
            lsd: Some(false),
            storage: Some(StorageKind::Pwrite),
            ..Given::default()
        };
        let now = Given {
            port: Some(0),
            trackers: Some(false),
            ..Given::default()
        };
        let config = now.or(before).config();
        assert_eq!(
            (config.port, config.lsd, config.trackers),
            (0, false, false)
        );
        assert_eq!(config.storage, StorageKind::Pwrite);
        assert_eq!(config.conns_max, Config::default().conns_max);
    }
}
