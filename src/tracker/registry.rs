//! Who is in which swarm: fed by every road, read by our tracker.
//!
//! The registry owns all that is known of other peers by address. Every road leads here:
//! handshakes, announces, PEX, LSD, what the user said. It keeps apart what this peer saw itself
//! (*first hand*) from what others said (*hearsay*): strangers are told first-hand entries only,
//! so that no liar can aim them at a victim.

mod clients;
mod hands;
mod news;
mod open;
mod resting;
mod swarm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;

use super::asker::{Asker, Ears, Nearness};
use super::secret::Secret;
use crate::base::address::Interfaces;
use crate::base::id::InfoHash;
use crate::base::limits::PEERS_KNOWN_MAX;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::announce::Event;
use crate::wire::answer::Peers;
pub use news::{
    Change, ChangeKind, Counts, Entry, Families, Heard, Seeds, Sighting, Terms, Wanted,
};
use open::{Net, OpenSwarms};
use resting::{Resting, Tracked};
use swarm::{Draw, INTERVAL_MAX, News};

/// Whose swarms are tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Openness {
    /// Those that the registry was told to track.
    #[default]
    Closed,
    /// Any that is announced to us.
    Open,
}

/// All swarms that are tracked here.
#[derive(Debug)]
pub struct Registry {
    swarms: Slab<Tracked>,
    by_hash: BTreeMap<InfoHash, u32>,
    /// Every swarm with peers that can expire, at the time to look for them.
    sweeps: BTreeSet<(Instant, u32)>,
    openness: Openness,
    open: OpenSwarms,
    peer_count: usize,
    secret: Secret,
    rng: Rng,
}

/// An announce that a swarm is tracked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    pub sighting: Sighting,
    pub event: Option<Event>,
    /// Peers that are wanted.
    pub count: usize,
    pub families: Families,
}

/// What to answer to an announce, besides the peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub change: Option<Change>,
    pub counts: Counts,
    pub interval: Duration,
    /// Whether the peer is on the list now; who left is not.
    pub is_listed: bool,
}

impl Registry {
    /// Without swarms.
    pub fn new(secret: &Secret, openness: Openness) -> Self {
        Self {
            swarms: Slab::new(),
            by_hash: BTreeMap::new(),
            sweeps: BTreeSet::new(),
            openness,
            open: OpenSwarms::default(),
            peer_count: 0,
            rng: secret.rng(),
            secret: secret.clone(),
        }
    }

    /// Tracks the swarm from now on, or changes its terms.
    pub fn track(&mut self, info_hash: InfoHash, terms: Terms, now: Instant) {
        let index = match self.by_hash.get(&info_hash) {
            Some(&index) => index,
            None => {
                let rng_seed = self.rng.next_u64();
                let resting = Resting::new(info_hash, terms, rng_seed, now);
                self.add(info_hash, Tracked::Resting(resting))
            }
        };
        let swarm = &mut self.swarms[index as usize];
        swarm.set_terms(terms);
        if let Some(opened) = swarm.awake().and_then(|swarm| swarm.opened.take()) {
            self.open.remove(index, *opened);
        }
    }

    /// Forgets the swarm and its peers.
    pub fn untrack(&mut self, info_hash: InfoHash) {
        if let Some(&index) = self.by_hash.get(&info_hash) {
            self.remove(index);
        }
    }

    /// Whether the swarm is tracked here, or was announced to an open tracker.
    pub fn is_tracked(&self, info_hash: InfoHash) -> bool {
        self.by_hash.contains_key(&info_hash)
    }

    /// On which terms the swarm is tracked.
    pub fn terms(&self, info_hash: InfoHash) -> Option<Terms> {
        self.swarm(info_hash).map(Tracked::terms)
    }

    /// Takes note of news of a peer. Returns what changed by it: nothing if it was known as it
    /// is, if the swarm is not tracked, or if a limit or the swarm's terms forbid.
    ///
    /// A connection is told by [`Heard::Handshake`] and makes the entry connected, until
    /// [`Registry::disconnected`].
    pub fn heard(
        &mut self,
        info_hash: InfoHash,
        sighting: &Sighting,
        interfaces: &Interfaces,
        now: Instant,
    ) -> Option<Change> {
        let index = *self.by_hash.get(&info_hash)?;
        let nearness = Nearness::of(sighting.addr.ip(), interfaces);
        self.heard_in(index, sighting, None, nearness, now)
    }

    /// The peer's connection has ended; it may be dialled again until it expires.
    pub fn disconnected(&mut self, info_hash: InfoHash, addr: SocketAddr, now: Instant) {
        if let Some(&index) = self.by_hash.get(&info_hash)
            && let Some(swarm) = self.swarms[index as usize].awake()
        {
            swarm.disconnected(addr, now);
            self.schedule(index, now);
        }
    }

    /// The peer left, as `heard` tells. Hearsay does not remove what was seen at first hand.
    pub fn left(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        heard: Heard,
        now: Instant,
    ) -> Option<Change> {
        let index = *self.by_hash.get(&info_hash)?;
        self.change(index, |swarm| swarm.left(addr, heard, now))
    }

    /// The peer has everything now: its download ended here, and is counted once.
    pub fn completed(
        &mut self,
        info_hash: InfoHash,
        addr: SocketAddr,
        now: Instant,
    ) -> Option<Change> {
        let index = *self.by_hash.get(&info_hash)?;
        self.change(index, |swarm| swarm.awake()?.completed(addr, now))
    }

    /// Forgets who was silent for too long, in one bounded turn, and says who that was, swarm by
    /// swarm. To be called again at [`Registry::next_deadline`], which may be now.
    pub fn expire(&mut self, now: Instant) -> Vec<(InfoHash, Vec<Change>)> {
        let mut seen = 0;
        let mut expired = Vec::new();
        while let Some(&(at, index)) = self.sweeps.first()
            && at <= now
            && seen < SWEEP_PEERS_MAX
        {
            seen += self.swarms[index as usize].len();
            self.sweeps.remove(&(at, index));
            let sweep = |swarm: &mut Tracked| {
                let swarm = swarm.awake().expect("who rests is not swept");
                swarm.sweep_at = Instant::NEVER;
                swarm.sweep(now)
            };
            let gone = self.change(index, sweep);
            let swarm = &mut self.swarms[index as usize];
            if !gone.is_empty() {
                expired.push((swarm.info_hash(), gone));
            }
            match swarm.len() == 0 && swarm.opened().is_some() {
                true => self.remove(index),
                false => self.schedule(index, now),
            }
        }
        expired
    }

    /// When [`Registry::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sweeps.first().map(|&(at, _)| at)
    }

    /// Adds to `told` a random sample of the peers that the asker can use, all different and
    /// none of them the asker. Costs what is wanted, not what is there.
    ///
    /// Those who are known by hearsay alone are never told.
    pub fn sample(
        &mut self,
        info_hash: InfoHash,
        asker: &Asker<'_>,
        wanted: &Wanted,
        told: &mut Peers,
    ) {
        let Some(&index) = self.by_hash.get(&info_hash) else {
            return;
        };
        let draw = Draw {
            listed: wanted.listed,
            client: wanted
                .listed
                .map(|addr| self.secret.client(wanted.peer_id, addr)),
            count: wanted.count,
            seeds: wanted.seeds,
            families: wanted.families,
        };
        let swarm = self.swarms[index as usize].wake(&self.secret);
        swarm.sample(&draw, &asker.ears(), &mut self.rng, told);
        self.rest(index);
    }

    /// The size of the swarm, if it is tracked.
    pub fn counts(&self, info_hash: InfoHash) -> Option<Counts> {
        self.swarm(info_hash).map(Tracked::counts)
    }

    /// When a peer of the swarm shall announce itself again: seconds while the swarm changes,
    /// minutes when it is calm, or nobody in it lacks anything.
    pub fn interval(&self, info_hash: InfoHash, now: Instant) -> Duration {
        match self.swarm(info_hash) {
            Some(swarm) => swarm.interval(self.by_load(), now),
            None => INTERVAL_MAX,
        }
    }

    /// What is known of all others in the swarm.
    pub fn peers(&self, info_hash: InfoHash) -> impl Iterator<Item = &Entry> {
        self.swarm(info_hash).into_iter().flat_map(Tracked::entries)
    }

    /// What is known of one of them.
    pub fn peer(&self, info_hash: InfoHash, addr: SocketAddr) -> Option<&Entry> {
        self.swarm(info_hash)?.entry(addr)
    }

    /// All swarms, in the order of their info hashes.
    pub fn swarms(&self) -> impl Iterator<Item = InfoHash> {
        self.by_hash.keys().copied()
    }

    /// Peers of all swarms that are known by address.
    pub fn peer_count(&self) -> usize {
        self.peer_count
    }

    /// Takes note of an announce, whose sender has proved its address, and adds to `told` the
    /// peers for the answer. `None` if the swarm is not tracked for it.
    pub(super) fn announced(
        &mut self,
        info_hash: InfoHash,
        announced: &Announced,
        asker: (&Ears, Nearness),
        now: Instant,
        told: &mut Peers,
    ) -> Option<Outcome> {
        let (ears, nearness) = asker;
        let sighting = &announced.sighting;
        let is_leaving = announced.event == Some(Event::Stopped);
        let index = match self.by_hash.get(&info_hash) {
            Some(&index) => index,
            None if self.openness == Openness::Open && !is_leaving => {
                self.open_for(info_hash, Net::of(ears.ip(), nearness), now)
            }
            None => return None,
        };
        let swarm = &mut self.swarms[index as usize];
        if !swarm.terms().allow_announces() {
            return None;
        }
        if let Some(opened) = swarm.opened() {
            self.open.used(index, opened, now);
        }
        let change = match is_leaving {
            true => self.leaves(index, sighting, now),
            false => self.heard_in(index, sighting, announced.event, nearness, now),
        };
        if !is_leaving && announced.count > 0 {
            let draw = announced.draw(self.secret.client(sighting.peer_id, sighting.addr));
            let swarm = self.swarms[index as usize].wake(&self.secret);
            swarm.sample(&draw, ears, &mut self.rng, told);
            self.rest(index);
        }
        let swarm = &self.swarms[index as usize];
        Some(Outcome {
            change,
            counts: swarm.counts(),
            interval: swarm.interval(self.by_load(), now),
            is_listed: !is_leaving && swarm.entry(sighting.addr).is_some(),
        })
    }

    /// The size of the swarm, if its size may be told.
    pub(super) fn scraped(&self, info_hash: InfoHash) -> Option<Counts> {
        let swarm = self.swarm(info_hash)?;
        let may = swarm.terms().allow_announces();
        may.then(|| swarm.counts())
    }

    fn swarm(&self, info_hash: InfoHash) -> Option<&Tracked> {
        let index = *self.by_hash.get(&info_hash)?;
        Some(&self.swarms[index as usize])
    }

    /// Who says that it leaves is believed if it is who is listed: a late word of a client that
    /// had this address before is not.
    fn leaves(&mut self, index: u32, sighting: &Sighting, now: Instant) -> Option<Change> {
        let entry = self.swarms[index as usize].entry(sighting.addr)?;
        let is_same = entry.peer_id.is_none()
            || entry.peer_id == sighting.peer_id
            || (entry.key.is_some() && entry.key == sighting.key);
        if !is_same {
            return None;
        }
        self.change(index, |swarm| {
            swarm.left(sighting.addr, Heard::Announce, now)
        })
    }

    fn heard_in(
        &mut self,
        index: u32,
        sighting: &Sighting,
        event: Option<Event>,
        nearness: Nearness,
        now: Instant,
    ) -> Option<Change> {
        let room = match nearness {
            Nearness::ThisHost | Nearness::OnLink => PEERS_KNOWN_MAX,
            Nearness::OffLink => PEERS_KNOWN_MAX / 4 * 3,
        };
        let news = News {
            sighting,
            client: self.secret.client(sighting.peer_id, sighting.addr),
            nearness,
            has_room: self.peer_count < room,
            has_completed: event == Some(Event::Completed),
            by_load: self.by_load(),
        };
        if sighting.heard != Heard::Ourselves {
            self.swarms[index as usize].wake(&self.secret);
        }
        let change = self.change(index, |swarm| swarm.heard(&news, now));
        self.schedule(index, now);
        change
    }

    /// Lets `change` work on a swarm, and counts its peers anew. If nobody else is in it then, it
    /// rests.
    fn change<T>(&mut self, index: u32, change: impl FnOnce(&mut Tracked) -> T) -> T {
        let swarm = &mut self.swarms[index as usize];
        self.peer_count -= swarm.len();
        let changed = change(swarm);
        self.peer_count += swarm.len();
        self.rest(index);
        changed
    }

    /// Lets a swarm rest if nobody else is in it.
    fn rest(&mut self, index: u32) {
        if let Some(sweep_at) = self.swarms[index as usize].rest() {
            self.sweeps.remove(&(sweep_at, index));
        }
    }

    /// The shortest interval that so many peers allow.
    fn by_load(&self) -> Duration {
        Duration::from_secs((self.peer_count / ANNOUNCES_PER_SEC) as u64)
    }

    /// Notes when the swarm has to be swept, if that is earlier than what is noted.
    fn schedule(&mut self, index: u32, now: Instant) {
        let Some(swarm) = self.swarms[index as usize].awake() else {
            return; // we do not expire
        };
        if swarm.earliest >= swarm.sweep_at || swarm.earliest == Instant::NEVER {
            return;
        }
        // Not for each peer alone.
        let at = swarm.earliest.max(now + SWEEP_STEP);
        if at < swarm.sweep_at {
            self.sweeps.remove(&(swarm.sweep_at, index));
            self.sweeps.insert((at, index));
            swarm.sweep_at = at;
        }
    }

    fn add(&mut self, info_hash: InfoHash, swarm: Tracked) -> u32 {
        let index = self.swarms.insert(swarm) as u32;
        self.by_hash.insert(info_hash, index);
        index
    }

    fn remove(&mut self, index: u32) {
        let mut swarm = self.swarms.remove(index as usize);
        self.by_hash.remove(&swarm.info_hash());
        self.peer_count -= swarm.len();
        if let Some(swarm) = swarm.awake() {
            self.sweeps.remove(&(swarm.sweep_at, index));
            if let Some(opened) = swarm.opened.take() {
                self.open.remove(index, *opened);
            }
        }
    }
}

impl Terms {
    /// Whether strangers may announce themselves (BEP 27: to the torrent's own trackers alone).
    fn allow_announces(self) -> bool {
        !self.is_private || self.names_us
    }
}

impl Announced {
    fn draw(&self, client: u64) -> Draw {
        let Sighting {
            addr,
            peer_id,
            is_seed,
            is_paused,
            ..
        } = self.sighting;
        // Who wants nothing has no use for those who want nothing; evpeers form one net of all.
        let wants_nothing = is_seed == Some(true) || is_paused;
        let seeds = match peer_id {
            Some(id) if wants_nothing && !id.is_evpeer() => Seeds::Withheld,
            _ => Seeds::Told,
        };
        Draw {
            listed: Some(addr),
            client: Some(client),
            count: self.count,
            seeds,
            families: self.families,
        }
    }
}

/// Announces a second, of all peers together, that intervals aim at, at most.
const ANNOUNCES_PER_SEC: usize = 500;
/// How often a swarm is searched for expired peers at most.
const SWEEP_STEP: Duration = Duration::from_secs(5);
/// Peers that one turn of expiry looks at, before the last swarm of the turn.
const SWEEP_PEERS_MAX: usize = 50_000;

#[cfg(test)]
mod tests;
