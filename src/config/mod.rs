//! What a user may set, as plain data.

use std::net::IpAddr;

use crate::base::limits;

pub mod session;

/// Everything that the core and its shell are configured by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one port of this peer, TCP and UDP; 0 lets the system choose.
    pub port: u16,
    /// Where any port will do: the one that is tried first; 0 is none.
    pub port_before: u16,
    /// Listen and connect from this address; all of them, IPv4 and IPv6, if not given.
    pub bind: Option<IpAddr>,
    /// Connections over all torrents.
    pub conns_max: u32,
    /// Connections that turned out to be HTTP, beside those of `conns_max`.
    pub http_conns_max: u32,
    /// Whether trackers are asked at all.
    pub trackers: bool,
    /// Whether our tracker serves any info hash, not only those of our torrents.
    pub open_tracker: bool,
    /// Whether peers are looked for on the local links (LSD, BEP 14).
    pub lsd: bool,
    /// Whether evpeers are told of each other at once, and linked.
    pub broadcast: bool,
    /// Whether addresses are exchanged with peers (PEX, BEP 11).
    pub pex: bool,
    /// Whether the fast extension (BEP 6) is offered.
    pub fast: bool,
    /// How pieces are written.
    pub storage: StorageKind,
    /// Torrents that download at a time, the others wait; 0 is no bound.
    pub max_active: u32,
    /// How much torrents are seeded.
    pub seed_goals: SeedGoals,
    /// What moves to and from all peers together, at most.
    pub limits: RateLimits,
    /// Whether the limits are for hosts on our own links too.
    pub limit_local: bool,
}

/// Limits of rate, bytes per second on the wire; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// What goes out.
    pub up: u64,
    /// What comes in.
    pub down: u64,
}

/// When torrents have been seeded enough; whatever is reached first ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeedGoals {
    /// Payload sent in all runs, thousandths of the torrent's size.
    pub ratio: Option<Goal>,
    /// Seconds in all runs.
    pub time: Option<Goal>,
}

/// One of them, as a user gave it; not given is never too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// It is never enough.
    Never,
    /// So much is.
    At(u64),
}

/// How pieces reach their files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    /// Mapped files; buffers and `pwrite` where mapping does not work or stalls the loop.
    #[default]
    Auto,
    /// Mapped files.
    Map,
    /// Buffers, written by `pwrite` on the disk lane.
    Pwrite,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 6881,
            port_before: 0,
            bind: None,
            conns_max: limits::CONNS_MAX_DEFAULT,
            http_conns_max: limits::HTTP_CONNS_MAX,
            trackers: true,
            open_tracker: false,
            lsd: true,
            broadcast: true,
            pex: true,
            fast: true,
            storage: StorageKind::Auto,
            max_active: 0,
            seed_goals: SeedGoals::default(),
            limits: RateLimits::default(),
            limit_local: true,
        }
    }
}
