//! The broadcast: who is in the network and in our swarms, told to every evpeer at once.
//!
//! One of these is in each host. It holds the *network list* (evpeers, whatever they share) and a
//! list a swarm, and gossips about them over the links that [the overlay][overlay] decides on, by
//! [`ev_peers`](crate::wire::ev_peers) messages. It is told what happens and the time, and is asked
//! for [`Event`]s; whatever is worth telling leaves in the same [`Broadcast::poll`], if it was
//! quiet before.
//!
//! ```text
//!  first hand: seen, left, unreachable,            link: received
//!  standing_changed, the other end's own word           │ hearsay
//!          │ a new epoch                                ▼
//!          └──────────────▶ roster: the higher epoch wins ──▶ Heard, to registry and candidates
//!                                │ news only
//!                                ▼
//!              pending ── poll: at once, then every 0.1 to 1 s ──▶ Send, on every other link
//! ```
//!
//! *What ends the gossip.* Only what is new here is told on, once, on each link that did not tell
//! it itself in the meantime; a repetition is dropped where it arrives. So an event crosses each
//! link at most once in each direction. Nothing is ever refreshed by hearsay: when an entry was
//! heard of and when it expires is local. Repairs (see `repair`) end when two sides agree or a
//! round changes nothing.
//!
//! *Whose word counts.* An evpeer sets its own epoch, which begins with the wall clock and grows
//! with each change; a foreign peer's is set by who met it. A departure that an evpeer could not
//! announce is declared by whoever fails to reach it, with the next epoch: all its neighbours
//! declare the same entry, which is one in the network. A host that hears something untrue about
//! itself says so with a higher epoch; while we hold a connection to a peer, hearsay that it left
//! is not believed but carried to it, and again when it says something older of itself, as it may
//! have stood still. A departure in the network is one in every swarm. Whoever does not believe a
//! departure looks for itself, at once or when its connection ends.
//!
//! *What lies cost.* A link brings so many bytes and so many strangers a second and no more;
//! lists are bounded, and what one link made up is dropped first; epochs of a far future are
//! ignored; a link whose news are mostly refuted, or whose addresses are mostly dead when tried, is
//! ended. Who relays lies relays their refutations too, and keeps its credit.
//!
//! *Long silence.* An evpeer renews its epoch every four hours, and what was not renewed for
//! nine is gone: so nothing that died together with all its neighbours stays for ever.
//!
//! [overlay]: ../../discovery/overlay/index.html

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use crate::base::address::{Interfaces, Scope, may_be_told, scope};
use crate::base::digest::sha1;
use crate::base::id::{ConnId, InfoHash};
use crate::base::rng::Rng;
use crate::base::seldom::Seldom;
use crate::base::time::Instant;
use crate::base::timers::TimerQueue;
use crate::wire::ev_peers::{EntriesWriter, Hello, NETWORK, Reason, Salt, Standing, tag};

pub use event::{Counts, Event, Heard, List, Setup, Violation};

use clock::Clock;
use first_hand::Denial;
use flush::{Item, Pace, Pending, Rumour};
use link::Link;
use roster::{Key, NOBODY, Record, Roster};
use unproven::Unproven;

mod clock;
mod event;
mod first_hand;
mod flush;
mod hear;
mod link;
mod repair;
mod roster;
#[cfg(test)]
mod tests;
mod unproven;
mod weigh;

/// The lists of this host, and its links to other evpeers.
#[derive(Debug)]
pub struct Broadcast {
    port: u16,
    bind: Option<IpAddr>,
    secret: [u8; 16],
    clock: Clock,
    interfaces: Option<Interfaces>,
    /// Addresses by which others know us, beside those of the interfaces.
    aliases: BTreeSet<SocketAddr>,
    rng: Rng,

    /// The highest epoch that we used, and the one of our entry in the network.
    epoch: u64,
    network_epoch: u64,
    network: Roster,
    swarms: BTreeMap<u16, Box<Swarm>>,
    by_hash: BTreeMap<InfoHash, u16>,
    last_handle: u16,
    /// Peers to which connections are open, and how many.
    held: BTreeMap<Key, u32>,
    /// Evpeers that we declared gone.
    denied: BTreeMap<Key, Denial>,
    /// Evpeers that others declare gone and we do not: the epoch of that, and when we heard it.
    gainsaid: BTreeMap<Key, (u64, Instant)>,

    links: Vec<Option<Link>>,
    by_conn: BTreeMap<ConnId, usize>,
    links_opened: u32,
    /// Links that broke lately, and when the first of them did.
    broken: (u32, Instant),

    /// What the message at hand brought.
    fresh: Vec<Item>,
    /// Lists in which it says of us what is not so.
    untrue_of_us: BTreeSet<u16>,
    pending: Pending,
    rumours: Vec<Rumour>,
    unproven: Unproven,
    pace: Pace,
    repairs_due: TimerQueue<(u32, u16)>,
    /// Lists that are being repaired: over which link, and until when no other begins.
    repairing: BTreeMap<u16, (u32, Instant)>,
    next_sweep: Instant,
    /// When we last said that we are here, on our own accord.
    renewed: Instant,
    /// Since when there were links without a break: before, others may know much that we do not.
    in_company_since: Instant,
    events: VecDeque<Event>,
    counts: Counts,
}

/// A swarm that we are in.
#[derive(Debug)]
struct Swarm {
    info_hash: InfoHash,
    standing: Standing,
    epoch: u64,
    /// Who else is in it; most torrents have nobody.
    roster: Seldom<Roster>,
    /// Foreign peers of which we were a witness, and the epoch that we gave them.
    witnessed: BTreeMap<Key, u64>,
}

impl Broadcast {
    /// A host that knows nobody.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let clock = Clock::new(setup.unix_ms, now);
        Self {
            port: setup.port,
            bind: setup.bind,
            secret: setup.secret,
            clock,
            interfaces: None,
            aliases: BTreeSet::new(),
            rng: setup.rng,
            epoch: setup.unix_ms,
            network_epoch: setup.unix_ms,
            network: Roster::default(),
            swarms: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            last_handle: NETWORK,
            held: BTreeMap::new(),
            denied: BTreeMap::new(),
            gainsaid: BTreeMap::new(),
            links: (0..LINKS_MAX).map(|_| None).collect(),
            by_conn: BTreeMap::new(),
            links_opened: NOBODY,
            broken: (0, now),
            fresh: Vec::new(),
            untrue_of_us: BTreeSet::new(),
            pending: Pending::default(),
            rumours: Vec::new(),
            unproven: Unproven::default(),
            pace: Pace::default(),
            repairs_due: TimerQueue::default(),
            repairing: BTreeMap::new(),
            next_sweep: now + SWEEP_INTERVAL,
            renewed: now,
            in_company_since: now,
            events: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// The interfaces of this machine, at the start and after each change. Everything is on-link
    /// until they are told.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = Some(interfaces.clone());
    }

    /// We are known to others by this address too (a connection to it ended at ourselves).
    pub fn own_address_found(&mut self, addr: SocketAddr) {
        if self.aliases.len() < ALIASES_MAX {
            self.aliases.insert(addr);
        }
        let key = Key::from(addr);
        self.network.remove(key);
        let swarms = self.swarms.values_mut();
        swarms.for_each(|swarm| swarm.strike(key));
    }

    /// A link shall be on this stream, to the host that accepts connections at `remote`: we say
    /// hello, first or in answer. `is_drawn` is for our hello, see [`Hello`].
    pub fn link_opened(&mut self, link: ConnId, remote: SocketAddr, is_drawn: bool, now: Instant) {
        let free = self.links.iter().position(Option::is_none);
        let (Some(slot), false) = (free, self.by_conn.contains_key(&link)) else {
            let reason = Reason::Full;
            self.events.push_back(Event::Ended { link, reason });
            return;
        };
        self.links_opened += 1;
        let our_salt = self.next_salt();
        let serial = self.links_opened;
        self.links[slot] = Some(Link::new(link, serial, remote, our_salt, now));
        self.by_conn.insert(link, slot);
        let hello = Hello {
            salt: our_salt,
            clock_ms: self.clock.raw_ms(now),
            is_drawn,
        };
        let body = hello.encode();
        self.events.push_back(Event::Send { link, body });
    }

    /// Whether this stream carries a link: what comes in on it is for [`Broadcast::received`].
    pub fn has_link(&self, link: ConnId) -> bool {
        self.by_conn.contains_key(&link)
    }

    /// The stream of a link is closed. Does nothing if it carries none.
    pub fn link_closed(&mut self, link: ConnId, now: Instant) {
        let is_met = self
            .remove_link(link, now)
            .is_some_and(|link| link.met.is_some());
        if is_met {
            let (count, since) = self.broken;
            let is_long_ago = now - since >= BREAKDOWN;
            self.broken = if is_long_ago {
                (1, now)
            } else {
                (count + 1, since)
            };
        }
    }

    /// We end a link and tell the other side; the stream may live on.
    pub fn link_dropped(&mut self, link: ConnId, reason: Reason, now: Instant) {
        if self.remove_link(link, now).is_some() {
            let body = EntriesWriter::bye(reason, self.network_epoch).finish();
            self.events.push_back(Event::Send { link, body });
        }
    }

    /// What to send on a stream instead of accepting a link: a good bye, and some hosts that may
    /// have room.
    pub fn refusal(&mut self, remote: SocketAddr, reason: Reason) -> Bytes {
        let hearer = Key::from(remote);
        let may = |key: Key| key != hearer && may_be_told(key.addr(), remote.ip());
        let sample = self.network.sample(REFUSAL_SAMPLE, &mut self.rng, may);
        let newest = sample.iter().map(|(_, record)| record.epoch).max();
        let mut writer = EntriesWriter::bye(reason, newest.unwrap_or(0));
        for (key, record) in &sample {
            writer.push(NETWORK, &record.entry(*key));
        }
        writer.finish()
    }

    /// We leave the network: all links are told at once, and end.
    pub fn leaving(&mut self, now: Instant) {
        self.network_epoch = self.next_epoch(now);
        let links: Vec<ConnId> = self.by_conn.keys().copied().collect();
        for link in links {
            self.link_dropped(link, Reason::Leaving, now);
        }
    }

    /// Does what is due. To be called after each input, or after some of them in a row.
    pub fn poll(&mut self, now: Instant) {
        if self.news_due(now) {
            self.flush(now);
        }
        while let Some((serial, list)) = self.repairs_due.poll(now) {
            self.repair_due(serial, list, now);
        }
        self.try_unproven(now);
        if self.next_sweep <= now {
            self.sweep(now);
            self.next_sweep = now + SWEEP_INTERVAL;
        }
    }

    /// When [`Broadcast::poll`] has something to do again.
    pub fn next_deadline(&self) -> Instant {
        let repair = self.repairs_due.next_deadline().unwrap_or(Instant::NEVER);
        let news = if self.pending.is_empty() && self.rumours.is_empty() {
            Instant::NEVER
        } else {
            self.pace.due()
        };
        let all = [repair, news, self.unproven.due(), self.next_sweep];
        all.into_iter().min().unwrap_or(Instant::NEVER)
    }

    /// The next thing that the owner shall do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The evpeers that are there, as far as we know.
    pub fn network(&self) -> impl Iterator<Item = SocketAddr> {
        self.network.here().map(|(key, _)| key.addr())
    }

    /// How many these are.
    pub fn network_len(&self) -> usize {
        self.network.here_count()
    }

    /// Whether an evpeer is there, as far as we know.
    pub fn is_in_network(&self, addr: SocketAddr) -> bool {
        let record = self.network.get(addr.into());
        record.is_some_and(|record| record.standing.is_here())
    }

    /// The peers of a swarm that are there, as far as we know: address, standing, evpeer or not.
    pub fn swarm(&self, swarm: InfoHash) -> impl Iterator<Item = (SocketAddr, Standing, bool)> {
        let handle = self.by_hash.get(&swarm);
        let roster = handle.map(|handle| &*self.swarms[handle].roster);
        roster.into_iter().flat_map(|roster| {
            let peer =
                |(key, record): (Key, &Record)| (key.addr(), record.standing, record.is_evpeer);
            roster.here().map(peer)
        })
    }

    /// The evpeers that we have a link with and that proved to be in `swarm`, whether we are in it
    /// or not: address and standing. Costs a hash a link.
    pub fn linked_in(&self, swarm: InfoHash) -> impl Iterator<Item = (SocketAddr, Standing)> {
        let links = self.slots().into_iter().map(|slot| self.link(slot));
        links.filter_map(move |link| {
            let membership = link.named_by(&tag(&link.met?.salt, &link.our_salt, swarm))?;
            Some((link.remote, membership.standing))
        })
    }

    /// Of the links that `is_one` accepts the one whose word is worth least, if it is worth
    /// nothing: it is the one to end if there is no room for another.
    pub fn worst_link(&self, is_one: impl Fn(ConnId) -> bool) -> Option<ConnId> {
        let links = self.slots().into_iter().map(|slot| self.link(slot));
        let bad = links.filter(|link| link.trust.is_worthless() && is_one(link.id));
        bad.max_by_key(|link| link.trust.dead()).map(|link| link.id)
    }

    /// Up to `count` evpeers, each with the same chance.
    pub fn sample(&mut self, count: usize) -> Vec<SocketAddr> {
        let sample = self.network.sample(count, &mut self.rng, |_| true);
        sample.into_iter().map(|(key, _)| key.addr()).collect()
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn remove_link(&mut self, link: ConnId, now: Instant) -> Option<Link> {
        let slot = self.by_conn.remove(&link)?;
        let link = self.links[slot].take()?;
        self.pending.forget_link(slot);
        self.unproven.forget_link(link.serial);
        self.rumours.retain(|rumour| rumour.slot != slot);
        self.repairing
            .retain(|_, (serial, _)| *serial != link.serial);
        self.set_clock(now);
        Some(link)
    }

    fn link(&self, slot: usize) -> &Link {
        self.links[slot].as_ref().expect("the slot of a link")
    }

    fn link_mut(&mut self, slot: usize) -> &mut Link {
        self.links[slot].as_mut().expect("the slot of a link")
    }

    fn slots(&self) -> Vec<usize> {
        self.by_conn.values().copied().collect()
    }

    /// The slot of the link that once told something, if it is still there.
    fn teller(&mut self, serial: u32) -> Option<&mut Link> {
        let links = self.links.iter_mut().flatten();
        links.into_iter().find(|link| link.serial == serial)
    }

    fn send(&mut self, slot: usize, body: Bytes) {
        let link = self.link(slot).id;
        self.events.push_back(Event::Send { link, body });
    }

    fn roster(&self, list: u16) -> Option<&Roster> {
        match list {
            NETWORK => Some(&self.network),
            list => self.swarms.get(&list).map(|swarm| &*swarm.roster),
        }
    }

    fn roster_mut(&mut self, list: u16) -> Option<&mut Roster> {
        match list {
            NETWORK => Some(&mut self.network),
            list => self.swarms.get_mut(&list).map(|swarm| &mut *swarm.roster),
        }
    }

    fn name_of(&self, list: u16) -> List {
        match self.swarms.get(&list) {
            Some(swarm) => List::Swarm(swarm.info_hash),
            None => List::Network,
        }
    }

    /// An epoch for a change of ours: later than all before, and the clock if that is later.
    fn next_epoch(&mut self, now: Instant) -> u64 {
        self.epoch = self.clock.unix_ms(now).max(self.epoch.saturating_add(1));
        self.epoch
    }

    fn next_salt(&self) -> Salt {
        let mut text = self.secret.to_vec();
        text.extend(self.links_opened.to_be_bytes());
        let [salt @ .., _, _, _, _] = sha1(&text);
        salt
    }

    fn is_own(&self, addr: SocketAddr) -> bool {
        let is_ours = |ip: IpAddr| match (self.bind, &self.interfaces) {
            (Some(bind), _) => bind == ip,
            (None, Some(interfaces)) => interfaces.is_ours(ip),
            (None, None) => false,
        };
        (addr.port() == self.port && is_ours(addr.ip())) || self.aliases.contains(&addr)
    }

    fn is_on_link(&self, ip: IpAddr) -> bool {
        let interfaces = self.interfaces.as_ref();
        interfaces.is_none_or(|interfaces| interfaces.is_on_link(ip))
    }

    /// Whether `remote` may tell us of `addr`: we can use it, and so could `remote`.
    fn may_hear(&self, addr: SocketAddr, remote: SocketAddr) -> bool {
        let is_far = |ip| !self.is_on_link(ip);
        let is_service = addr.port() < 1024 && is_far(addr.ip());
        let is_inside = scope(addr.ip()) == Scope::Site;
        let from_outside = scope(remote.ip()) == Scope::Global && is_far(remote.ip());
        may_be_told(addr, remote.ip()) && !is_service && !(is_inside && from_outside)
    }

    /// Ports of one IP address that a list holds at most.
    fn ports_max(&self, ip: IpAddr) -> usize {
        match scope(ip) {
            Scope::Loopback => PORTS_LOOPBACK_MAX,
            _ if self.is_on_link(ip) => PORTS_ON_LINK_MAX,
            _ => PORTS_OFF_LINK_MAX,
        }
    }
}

/// Links at most; the overlay holds half of them.
const LINKS_MAX: usize = 32;
/// Swarms of one host at most that are told of; further ones are not.
const SWARMS_MAX: usize = link::SWARMS_MAX;
/// Records of one list at most, tombstones too.
const LIST_LEN_MAX: usize = 16_384;
/// Records of all lists at most.
const ALL_LEN_MAX: usize = 131_072;
/// Ports of one IP address in a list at most.
const PORTS_LOOPBACK_MAX: usize = 1024;
const PORTS_ON_LINK_MAX: usize = 64;
const PORTS_OFF_LINK_MAX: usize = 3;
/// Addresses of our own that are remembered at most.
const ALIASES_MAX: usize = 64;
/// Links that break in [`BREAKDOWN`] which show that many hosts went at once: who told of them
/// before did not lie.
const BREAKDOWN_LINKS: u32 = 2;
const BREAKDOWN: Duration = Duration::from_secs(60);
/// Hosts named in a refusal at most.
const REFUSAL_SAMPLE: usize = 16;
/// How often an evpeer renews its epoch, and a witness those of foreign peers that it holds.
const RENEWAL: Duration = Duration::from_secs(4 * 3600);
/// Silence after which a peer is taken for gone: two renewals, and time to travel.
const EXPIRY: Duration = Duration::from_secs(9 * 3600);
/// How long departures are remembered.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(2 * 9 * 3600);
/// How often the lists are searched for what is over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1800);

const _: () = assert!(LINKS_MAX <= u32::BITS as usize, "a set of links is 32 bits");
const _: () = assert!(EXPIRY.as_secs() > 2 * RENEWAL.as_secs() + SWEEP_INTERVAL.as_secs());
