//! Swarms in which nobody is but us: an idle torrent has one, and there are thousands of those.
//!
//! All that is to be known of such a swarm is what we said of ourselves. It wakes when anybody else
//! is heard of, or asks, and rests again when all others are gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::news::{Change, ChangeKind, Counts, Entry, Heard, Sighting, Terms};
use super::open::Opened;
use super::swarm::{News, Swarm, interval};
use crate::base::id::{InfoHash, PeerId};
use crate::base::time::Instant;
use crate::tracker::asker::Nearness;
use crate::tracker::secret::Secret;

/// A swarm that is tracked.
#[derive(Debug)]
pub(super) enum Tracked {
    /// Nobody is in it, or we alone.
    Resting(Resting),
    /// Others are.
    Awake(Box<Swarm>),
}

/// A swarm without others.
#[derive(Debug)]
pub(super) struct Resting {
    info_hash: InfoHash,
    terms: Terms,
    /// The order of those who come has its beginning in it.
    rng_seed: u64,
    changed_at: Instant,
    downloaded: u32,
    own: Own,
}

/// What we said of ourselves.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    peer_id: Option<PeerId>,
    key: Option<u32>,
    /// Our port by IPv4 and by IPv6; 0 if we are not in the swarm by that family.
    ports: [u16; 2],
    is_seed: bool,
    is_paused: bool,
}

impl Tracked {
    /// Its name.
    pub fn info_hash(&self) -> InfoHash {
        match self {
            Self::Resting(resting) => resting.info_hash,
            Self::Awake(swarm) => swarm.info_hash,
        }
    }

    /// Whom its peers may be told to.
    pub fn terms(&self) -> Terms {
        match self {
            Self::Resting(resting) => resting.terms,
            Self::Awake(swarm) => swarm.terms,
        }
    }

    /// Changes the terms.
    pub fn set_terms(&mut self, terms: Terms) {
        match self {
            Self::Resting(resting) => resting.terms = terms,
            Self::Awake(swarm) => swarm.terms = terms,
        }
    }

    /// Who made it by an announce, if anybody did.
    pub fn opened(&mut self) -> Option<&mut Opened> {
        self.awake()?.opened.as_deref_mut()
    }

    /// The swarm, if others are in it.
    pub fn awake(&mut self) -> Option<&mut Swarm> {
        match self {
            Self::Resting(_) => None,
            Self::Awake(swarm) => Some(swarm),
        }
    }

    /// Addresses that are listed, ours too.
    pub fn len(&self) -> usize {
        match self {
            Self::Resting(resting) => resting.own.sightings().count(),
            Self::Awake(swarm) => swarm.len(),
        }
    }

    /// How many are in it.
    pub fn counts(&self) -> Counts {
        match self {
            Self::Resting(resting) => resting.counts(),
            Self::Awake(swarm) => swarm.counts(),
        }
    }

    /// When a peer shall announce itself again, see [`Swarm::interval`].
    pub fn interval(&self, by_load: Duration, now: Instant) -> Duration {
        match self {
            Self::Resting(resting) => interval(resting.counts(), resting.changed_at, by_load, now),
            Self::Awake(swarm) => swarm.interval(by_load, now),
        }
    }

    /// All others that are known.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let swarm = match self {
            Self::Resting(_) => None,
            Self::Awake(swarm) => Some(swarm),
        };
        let entries = swarm.into_iter().flat_map(|swarm| swarm.entries());
        entries.filter(|entry| entry.heard != Heard::Ourselves)
    }

    /// What is known of somebody else.
    pub fn entry(&self, addr: SocketAddr) -> Option<&Entry> {
        match self {
            Self::Resting(_) => None,
            Self::Awake(swarm) => swarm.entry(addr),
        }
    }

    /// Wakes the swarm, if it rests: somebody else comes.
    pub fn wake(&mut self, secret: &Secret) -> &mut Swarm {
        if let Self::Resting(resting) = self {
            *self = Self::Awake(Box::new(resting.wake(secret)));
        }
        match self {
            Self::Awake(swarm) => swarm,
            Self::Resting(_) => unreachable!("woken above"),
        }
    }

    /// Lets the swarm rest if nobody else is in it any more: says when it was to be swept, which is
    /// over.
    pub fn rest(&mut self) -> Option<Instant> {
        let swarm = self.awake()?;
        if swarm.opened.is_some() || !swarm.is_ours_alone() {
            return None;
        }
        let sweep_at = swarm.sweep_at;
        *self = Self::Resting(Resting::of(swarm));
        Some(sweep_at)
    }

    /// Takes note of news. Those of others wake it before.
    pub fn heard(&mut self, news: &News<'_>, now: Instant) -> Option<Change> {
        match self {
            Self::Resting(resting) => resting.heard(news.sighting, now),
            Self::Awake(swarm) => swarm.heard(news, now),
        }
    }

    /// A peer left, see [`Swarm::left`].
    pub fn left(&mut self, addr: SocketAddr, heard: Heard, now: Instant) -> Option<Change> {
        match self {
            Self::Resting(resting) => match heard {
                Heard::Ourselves => resting.left(addr, now),
                _ => None,
            },
            Self::Awake(swarm) => swarm.left(addr, heard, now),
        }
    }
}

impl Resting {
    /// A swarm in which nobody is.
    pub fn new(info_hash: InfoHash, terms: Terms, rng_seed: u64, now: Instant) -> Self {
        Self {
            info_hash,
            terms,
            rng_seed,
            changed_at: now,
            downloaded: 0,
            own: Own::default(),
        }
    }

    fn of(swarm: &Swarm) -> Self {
        let mut own = Own::default();
        for entry in swarm.entries() {
            let sighting = Sighting {
                addr: entry.addr,
                peer_id: entry.peer_id,
                key: entry.key,
                is_seed: Some(entry.is_seed),
                is_paused: entry.is_paused,
                heard: Heard::Ourselves,
            };
            own.say(&sighting);
        }
        Self {
            info_hash: swarm.info_hash,
            terms: swarm.terms,
            rng_seed: swarm.rng_seed,
            changed_at: swarm.changed_at(),
            downloaded: swarm.downloaded,
            own,
        }
    }

    /// The swarm for when others come.
    fn wake(&self, secret: &Secret) -> Swarm {
        let mut swarm = Swarm::new(self.info_hash, self.terms, self.rng_seed, self.changed_at);
        swarm.downloaded = self.downloaded;
        for sighting in self.own.sightings() {
            let news = News {
                sighting: &sighting,
                client: secret.client(sighting.peer_id, sighting.addr),
                nearness: Nearness::ThisHost,
                has_room: true,
                has_completed: false,
                by_load: Duration::ZERO,
            };
            swarm.heard(&news, self.changed_at);
        }
        swarm
    }

    /// We say something of ourselves.
    fn heard(&mut self, sighting: &Sighting, now: Instant) -> Option<Change> {
        let addr = sighting.addr;
        if addr.port() == 0 || !addr.ip().is_unspecified() {
            return None;
        }
        let (was_listed, was_seed) = (self.own.lists(addr), self.own.is_seed);
        self.own.say(sighting);
        let kind = match was_listed {
            false => ChangeKind::Joined,
            true if self.own.is_seed && !was_seed => ChangeKind::Completed,
            true => return None,
        };
        Some(self.note(addr, kind, now))
    }

    /// We leave the swarm, as far as an address goes.
    fn left(&mut self, addr: SocketAddr, now: Instant) -> Option<Change> {
        if !self.own.lists(addr) {
            return None;
        }
        self.own.ports[family(addr)] = 0;
        Some(self.note(addr, ChangeKind::Left, now))
    }

    fn note(&mut self, addr: SocketAddr, kind: ChangeKind, now: Instant) -> Change {
        self.changed_at = now;
        let heard = Heard::Ourselves;
        Change { addr, kind, heard }
    }

    fn counts(&self) -> Counts {
        let is_listed = self.own.sightings().next().is_some();
        let of = |is_so: bool| u32::from(is_listed && is_so);
        let Own {
            is_seed, is_paused, ..
        } = self.own;
        Counts {
            complete: of(is_seed),
            incomplete: of(!is_seed),
            paused: of(!is_seed && is_paused),
            downloaded: self.downloaded,
        }
    }
}

impl Own {
    fn say(&mut self, sighting: &Sighting) {
        self.peer_id = sighting.peer_id.or(self.peer_id);
        self.key = sighting.key.or(self.key);
        self.ports[family(sighting.addr)] = sighting.addr.port();
        self.is_seed = sighting.is_seed.unwrap_or(self.is_seed);
        self.is_paused = sighting.is_paused;
    }

    fn lists(&self, addr: SocketAddr) -> bool {
        addr.ip().is_unspecified() && addr.port() != 0 && self.ports[family(addr)] == addr.port()
    }

    /// The same, as it was said.
    fn sightings(self) -> impl Iterator<Item = Sighting> {
        let families = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let addrs = families.into_iter().zip(self.ports);
        let addrs = addrs.filter(|(_, port)| *port != 0);
        addrs.map(move |(ip, port)| Sighting {
            addr: SocketAddr::new(ip, port),
            peer_id: self.peer_id,
            key: self.key,
            is_seed: Some(self.is_seed),
            is_paused: self.is_paused,
            heard: Heard::Ourselves,
        })
    }
}

fn family(addr: SocketAddr) -> usize {
    usize::from(addr.is_ipv6())
}
