//! One swarm: its peers by address, their counts, and whom to name.

mod promise;
mod room;

use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::clients::{Clients, Has};
use super::hands::{Card, Hands, List, Place};
use super::news::{Change, ChangeKind, Counts, Entry, Families, Heard, Seeds, Sighting, Terms};
use super::open::Opened;
use crate::base::address::{Scope, scope};
use crate::base::few::Few;
use crate::base::id::{InfoHash, PeerId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::tracker::asker::{Ears, Nearness};
use crate::tracker::secret::ip_bits;
use crate::wire::answer::Peers;
pub(super) use promise::{INTERVAL_MAX, interval};

/// A swarm that is tracked.
#[derive(Debug)]
pub(super) struct Swarm {
    /// Its name.
    pub info_hash: InfoHash,
    /// Whom its peers may be told to.
    pub terms: Terms,
    /// Who made it by an announce; `None` if we were told to track it.
    pub opened: Option<Box<Opened>>,
    /// When the evpeers that we have links with were asked for it last.
    pub asked_at: Instant,
    /// Before this no peer expires.
    pub earliest: Instant,
    /// When peers that expired are looked for, as the registry has noted it.
    pub sweep_at: Instant,
    /// Where the order of its peers has its beginning.
    pub rng_seed: u64,
    /// Downloads that ended here, ever.
    pub downloaded: u32,
    peers: Slab<Peer>,
    by_addr: Few<Key, u32>,
    hands: Hands,
    clients: Clients,
    changed_at: Instant,
    hearsay_count: usize,
    our_id: Option<PeerId>,
}

/// A peer, and what the registry alone has to know of it.
#[derive(Debug)]
struct Peer {
    entry: Entry,
    /// The number of its client: the same for all of its addresses.
    client: u64,
    /// Whether its download is counted already.
    is_download_counted: bool,
}

/// An address in an order in which the ports of a host are neighbours, and the hosts of a net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// The most significant byte first.
    ip: [u8; 16],
    port: u16,
}

impl Key {
    fn new(ip_bits: u128, port: u16) -> Self {
        Self {
            ip: ip_bits.to_be_bytes(),
            port,
        }
    }
}

/// News of a peer, with what the registry adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct News<'a> {
    /// The news.
    pub sighting: &'a Sighting,
    /// The number of the peer's client.
    pub client: u64,
    /// How far away the peer is.
    pub nearness: Nearness,
    /// Whether the registry has room for one more.
    pub has_room: bool,
    /// Whether the peer says that its download has just ended.
    pub has_completed: bool,
    /// The shortest interval that peers are told, for all swarms.
    pub by_load: Duration,
}

/// What a sample is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    /// The asker's address, so that it is not told of itself.
    pub listed: Option<SocketAddr>,
    /// The asker's client, for the same reason.
    pub client: Option<u64>,
    pub count: usize,
    pub seeds: Seeds,
    pub families: Families,
}

impl Swarm {
    /// A swarm without peers, whose order comes from `rng_seed`.
    pub fn new(info_hash: InfoHash, terms: Terms, rng_seed: u64, now: Instant) -> Self {
        Self {
            info_hash,
            terms,
            opened: None,
            asked_at: now,
            earliest: Instant::NEVER,
            sweep_at: Instant::NEVER,
            rng_seed,
            downloaded: 0,
            peers: Slab::new(),
            by_addr: Few::default(),
            hands: Hands::new(rng_seed),
            clients: Clients::default(),
            changed_at: now,
            hearsay_count: 0,
            our_id: None,
        }
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody else is in it.
    pub fn is_ours_alone(&self) -> bool {
        self.len() <= 2 && self.entries().all(|entry| entry.heard == Heard::Ourselves)
    }

    /// When somebody came, changed or went last.
    pub fn changed_at(&self) -> Instant {
        self.changed_at
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.peers.iter().map(|(_, peer)| &peer.entry)
    }

    pub fn entry(&self, addr: SocketAddr) -> Option<&Entry> {
        let slot = *self.by_addr.get(&key_of(addr))?;
        Some(&self.peers[slot as usize].entry)
    }

    pub fn counts(&self) -> Counts {
        Counts {
            complete: self.clients.complete(),
            incomplete: self.clients.incomplete(),
            paused: self.clients.paused(),
            downloaded: self.downloaded,
        }
    }

    /// Takes note of news.
    pub fn heard(&mut self, news: &News<'_>, now: Instant) -> Option<Change> {
        if self.is_our_own(news.sighting) {
            return None;
        }
        match self.by_addr.get(&key_of(news.sighting.addr)) {
            Some(&slot) => self.heard_again(slot, news, now),
            None => self.heard_first(news, now),
        }
    }

    /// A peer left.
    pub fn left(&mut self, addr: SocketAddr, heard: Heard, now: Instant) -> Option<Change> {
        let slot = *self.by_addr.get(&key_of(addr))?;
        let known = self.peers[slot as usize].entry.heard;
        let is_believed = match known {
            Heard::Ourselves => heard == Heard::Ourselves,
            _ => heard.is_first_hand() || !known.is_first_hand(),
        };
        is_believed.then(|| self.remove(slot, now))
    }

    /// A peer has everything now; its download ended here.
    pub fn completed(&mut self, addr: SocketAddr, now: Instant) -> Option<Change> {
        let slot = *self.by_addr.get(&key_of(addr))?;
        self.count_download(slot);
        if self.peers[slot as usize].entry.is_seed {
            return None;
        }
        self.uncount(slot);
        self.peers[slot as usize].entry.is_seed = true;
        self.count(slot);
        Some(self.note(slot, ChangeKind::Completed, now))
    }

    /// Adds to `told` peers drawn at random, at most as many as wanted.
    pub fn sample(&self, draw: &Draw, ears: &Ears, rng: &mut Rng, told: &mut Peers) {
        let mut left = draw.count;
        let listed = draw.listed.map(Place::of);
        let families = match draw.families {
            Families::Own => &[ears.is_ipv4()][..],
            Families::Both => &[ears.is_ipv4(), !ears.is_ipv4()],
        };
        for &is_ipv4 in families {
            let leechers = List::of(is_ipv4, false);
            let mut drawing = match draw.seeds {
                Seeds::Told => self.hands.draw([leechers, List::of(is_ipv4, true)], rng),
                Seeds::Withheld => self.hands.draw_one(leechers, rng),
            };
            // Those that cannot be told cost a try: the rest of the list is not searched for.
            let mut tries = 2 * left + TRIES_MORE;
            while left > 0 && tries > 0 {
                tries -= 1;
                let Some(card) = self.hands.next(&mut drawing) else {
                    break;
                };
                let is_asker = draw.client.is_some_and(|client| card.is_of(client))
                    || listed == Some(card.place);
                if is_asker {
                    continue;
                }
                if let Some(addr) = ears.told(card.addr(), card.scope) {
                    told.push(addr, || self.peers[card.peer as usize].entry.peer_id);
                    left -= 1;
                }
            }
        }
    }

    /// Removes peers that have expired, in one bounded turn, and says which.
    pub fn sweep(&mut self, now: Instant) -> Vec<Change> {
        let mut expired = Vec::new();
        self.earliest = Instant::NEVER;
        for (slot, Peer { entry, .. }) in &self.peers {
            if entry.is_connected {
                continue;
            }
            match entry.expires_at <= now {
                true if expired.len() == EXPIRED_MAX => self.earliest = now,
                true => expired.push(slot as u32),
                false => self.earliest = self.earliest.min(entry.expires_at),
            }
        }
        let expired = expired.into_iter();
        expired.map(|slot| self.remove(slot, now)).collect()
    }

    fn heard_first(&mut self, news: &News<'_>, now: Instant) -> Option<Change> {
        let sighting = news.sighting;
        if !self.takes(sighting) || !self.has_room(news, now) {
            return None;
        }
        if sighting.heard == Heard::Ourselves {
            self.our_id = sighting.peer_id;
        }
        let is_seed = sighting.is_seed.unwrap_or(false);
        let entry = Entry {
            addr: canonical(sighting.addr),
            peer_id: sighting.peer_id,
            key: sighting.key,
            is_seed,
            is_paused: sighting.is_paused,
            heard: sighting.heard,
            is_connected: sighting.heard == Heard::Handshake,
            first_at: now,
            last_at: now,
            expires_at: now,
        };
        let slot = self.peers.insert(Peer {
            entry,
            client: news.client,
            // Who came as a seed has not downloaded here, unless it says so.
            is_download_counted: is_seed,
        }) as u32;
        self.by_addr.insert(key_of(sighting.addr), slot);
        self.count(slot);
        if news.has_completed {
            self.peers[slot as usize].is_download_counted = false;
            self.count_download(slot);
        }
        let change = self.note(slot, ChangeKind::Joined, now);
        self.heard_of(slot, news.by_load, now);
        Some(change)
    }

    fn heard_again(&mut self, slot: u32, news: &News<'_>, now: Instant) -> Option<Change> {
        let sighting = news.sighting;
        let peer = &self.peers[slot as usize];
        let (was_first_hand, was_seed) = (peer.entry.heard.is_first_hand(), peer.entry.is_seed);
        let is_ours = peer.entry.heard == Heard::Ourselves && sighting.heard != Heard::Ourselves;
        if is_ours || (was_first_hand && !sighting.heard.is_first_hand()) {
            return None;
        }
        let is_seed = sighting.is_seed.unwrap_or(was_seed);
        let client = sighting.peer_id.map_or(peer.client, |_| news.client);
        let is_counted_anew = was_first_hand != sighting.heard.is_first_hand()
            || (was_seed, peer.entry.is_paused) != (is_seed, sighting.is_paused)
            || peer.client != client;
        if is_counted_anew {
            self.uncount(slot);
        }
        let peer = &mut self.peers[slot as usize];
        if peer.client != client {
            // Another client came to this address: what was is not its past.
            peer.client = client;
            peer.is_download_counted = false;
            peer.entry.expires_at = now;
        }
        if !was_first_hand {
            peer.entry.expires_at = now; // hearsay promises nothing
        }
        let entry = &mut peer.entry;
        entry.addr = canonical(sighting.addr);
        entry.peer_id = sighting.peer_id.or(entry.peer_id);
        entry.key = sighting.key.or(entry.key);
        entry.is_seed = is_seed;
        entry.is_paused = sighting.is_paused;
        entry.heard = sighting.heard;
        entry.is_connected |= sighting.heard == Heard::Handshake;
        entry.last_at = now;
        if is_counted_anew {
            self.count(slot);
        }
        if news.has_completed {
            self.count_download(slot);
        }
        let kind = match (was_first_hand, was_seed) {
            (false, _) if sighting.heard.is_first_hand() => Some(ChangeKind::Joined),
            (_, false) if is_seed => Some(ChangeKind::Completed),
            _ => None,
        };
        let change = kind.map(|kind| self.note(slot, kind, now));
        self.heard_of(slot, news.by_load, now);
        change
    }

    /// Whether such an entry is of any use, and allowed.
    fn takes(&self, sighting: &Sighting) -> bool {
        let addr = sighting.addr;
        let is_an_address = match sighting.heard {
            Heard::Ourselves => addr.ip().is_unspecified(),
            _ => scope(addr.ip()) != Scope::Nowhere,
        };
        // BEP 27: what peers say of each other does not count in a private swarm.
        let is_gossip = matches!(sighting.heard, Heard::Pex | Heard::Lsd | Heard::Gossip);
        let is_allowed = !(self.terms.is_private && is_gossip);
        addr.port() != 0 && is_an_address && is_allowed
    }

    /// Whether this is news of ourselves, by another address than the one that stands for all.
    fn is_our_own(&self, sighting: &Sighting) -> bool {
        sighting.heard != Heard::Ourselves
            && self.our_id.is_some()
            && sighting.peer_id == self.our_id
    }

    fn remove(&mut self, slot: u32, now: Instant) -> Change {
        let change = self.note(slot, ChangeKind::Left, now);
        self.uncount(slot);
        let peer = self.peers.remove(slot as usize);
        self.by_addr.remove(&key_of(peer.entry.addr));
        change
    }

    fn note(&mut self, slot: u32, kind: ChangeKind, now: Instant) -> Change {
        let Entry { addr, heard, .. } = self.peers[slot as usize].entry;
        self.changed_at = now;
        Change { addr, kind, heard }
    }

    /// Puts a peer into the counts, and among those that are told.
    fn count(&mut self, slot: u32) {
        let peer = &self.peers[slot as usize];
        if !peer.entry.heard.is_first_hand() {
            self.hearsay_count += 1;
            return;
        }
        self.clients.add(peer.client, has(&peer.entry));
        if is_ever_told(peer.entry.addr) {
            let card = Card::new(slot, peer.client, peer.entry.addr);
            self.hands.put(card, list_of(&peer.entry));
        }
    }

    /// Undoes [`Self::count`].
    fn uncount(&mut self, slot: u32) {
        let peer = &self.peers[slot as usize];
        if !peer.entry.heard.is_first_hand() {
            self.hearsay_count -= 1;
            return;
        }
        self.clients.remove(peer.client, has(&peer.entry));
        self.hands.take(slot, list_of(&peer.entry));
    }

    fn count_download(&mut self, slot: u32) {
        let peer = &mut self.peers[slot as usize];
        if !std::mem::replace(&mut peer.is_download_counted, true) {
            self.downloaded = self.downloaded.saturating_add(1);
        }
    }
}

fn has(entry: &Entry) -> Has {
    Has {
        all: entry.is_seed,
        enough: entry.is_paused,
    }
}

fn list_of(entry: &Entry) -> List {
    List::of(entry.addr.is_ipv4(), entry.is_seed)
}

/// Whether anybody could be told of `addr`. Our own place holder is told as what the asker calls
/// us; link-local IPv6 is for nobody but ourselves.
fn is_ever_told(addr: SocketAddr) -> bool {
    addr.is_ipv4() || scope(addr.ip()) != Scope::LinkLocal
}

fn is_evpeer(entry: &Entry) -> bool {
    entry.peer_id.is_some_and(|id| id.is_evpeer())
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, addr.port()),
        // Keeps the scope of a link-local address.
        _ => addr,
    }
}

fn key_of(addr: SocketAddr) -> Key {
    Key::new(ip_bits(addr.ip()), addr.port())
}

/// Peers that one sweep removes at most: some 10 ms.
const EXPIRED_MAX: usize = 10_000;
/// Peers that a sample may draw for nothing.
const TRIES_MORE: usize = 16;
