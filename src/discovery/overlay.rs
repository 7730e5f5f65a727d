//! The overlay: to which evpeers this host holds links.
//!
//! Links belong to hosts, not to swarms. Each host draws [`DRAWN`] others at random from all that it
//! ever heard of, whatever swarms they are in, and holds a link to each; so all hosts together are a
//! random graph in which everybody reaches everybody in a few hops, and which does not fall apart
//! when half of it dies. Nobody is preferred: whoever is drawn too often refuses, naming others. A
//! draw that a swarm's stream reaches already is carried by that stream; for others a stream for
//! links alone is dialled.
//!
//! ```text
//!                       ┌── 5 drawn by us
//!  at most 16 links ────┼── 11 at most that others drew, or that fill up
//!                       └── (fill up: below 4 links, any evpeer at hand will do)
//! ```
//!
//! *Which stream.* Two hosts have at most one link. Either may offer one, on any stream they have;
//! if both offer at once on different streams, the offer of the smaller peer id stands and the other
//! side takes its own back: both come to the same without a further message.
//!
//! *Who is gone.* A link that broke without a good bye is dialled again at once; the failure of
//! that is the departure that the broadcast tells, and its success the link. After that it is tried
//! ever more rarely for hours: so two halves of a network find each other again after they were
//! apart, and a host that lost everybody keeps trying everybody it knew. With each departure that is
//! heard of, eight random hosts of the network try one random address each: so those who died
//! together with all their neighbours are found out too, while a quiet network stays quiet.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::address::Interfaces;
use crate::base::id::{ConnId, PeerId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::ev_peers::Reason;

use addresses::Addresses;

mod addresses;
#[cfg(test)]
mod tests;

/// The links of this host, and the addresses from which it draws others.
#[derive(Debug)]
pub struct Overlay {
    own: PeerId,
    rng: Rng,
    addresses: Addresses,
    streams: BTreeMap<ConnId, Held>,
    dialling: BTreeMap<SocketAddr, Cause>,
    anchors: BTreeMap<SocketAddr, Anchor>,
    audits: VecDeque<SocketAddr>,
    /// When there may be something to do.
    next: Instant,
    actions: VecDeque<Action>,
}

/// A stream to another evpeer, after both extension handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The host at the other end: a peer id is of one process.
    pub peer: PeerId,
    /// Where that host accepts connections: what we dialled, or its port at the address from
    /// which it came.
    pub addr: SocketAddr,
    /// What the stream is for.
    pub purpose: Purpose,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A swarm: it is there whether it carries a link or not.
    Swarm,
    /// Links alone: it is closed when it carries none.
    Overlay,
}

/// What to do with an offer of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Open the link.
    Accept,
    /// Say good bye.
    Refuse(Reason),
    /// Say nothing: the other side takes the offer back by itself.
    Ignore,
}

/// What the overlay wants of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial this address for a stream of [`Purpose::Overlay`].
    Dial(SocketAddr),
    /// Open a link on this stream: the first hello is ours.
    Offer {
        /// Which.
        conn: ConnId,
        /// Whether we drew the other side at random.
        is_drawn: bool,
    },
    /// End the link on this stream, if it carries one, and close it if it is for links alone. The
    /// overlay forgets a stream for links alone with this.
    Drop {
        /// Which.
        conn: ConnId,
        /// What to tell the other side.
        reason: Reason,
    },
}

/// A stream, and the link that it carries if it does.
#[derive(Debug)]
struct Held {
    stream: Stream,
    link: Option<Carried>,
    /// Since when it carries none.
    idle_since: Instant,
    /// No offer on it before this moment.
    refused_until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Carried {
    /// Whether we drew the other side.
    is_drawn: bool,
    /// Whether the other side said hello too.
    is_met: bool,
}

/// Why an address is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Draw,
    Anchor,
    Audit,
}

/// Somebody to whom there was a link, or who is all that we know.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Instant,
    pause: Duration,
}

impl Overlay {
    /// A host without links; `own` is the peer id that it uses in all handshakes.
    pub fn new(own: PeerId, rng: Rng) -> Self {
        Self {
            own,
            rng,
            addresses: Addresses::new(),
            streams: BTreeMap::new(),
            dialling: BTreeMap::new(),
            anchors: BTreeMap::new(),
            audits: VecDeque::new(),
            next: Instant::NEVER,
            actions: VecDeque::new(),
        }
    }

    /// The interfaces of this machine, at the start and after each change.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.addresses.interfaces_found(interfaces);
    }

    /// An evpeer is there, by whatever road it was heard of. Not to be called for ourselves.
    pub fn heard(&mut self, addr: SocketAddr, now: Instant) {
        self.addresses.heard(addr, &mut self.rng);
        if let Some(anchor) = self.anchors.get_mut(&addr) {
            *anchor = Anchor::new(now);
            self.addresses.resume(addr);
            self.next = now;
        } else if self.wants_draw() {
            self.next = self.next.min(now);
        }
    }

    /// An evpeer is gone.
    pub fn departed(&mut self, addr: SocketAddr, now: Instant) {
        self.addresses.departed(addr);
        let present = self.addresses.present().max(1);
        if self.audits.len() < AUDITS_MAX && self.rng.below(present) < AUDITS_A_DEPARTURE {
            if let Some(suspect) = self.addresses.any(&mut self.rng) {
                self.doubted(suspect, now);
            }
        }
    }

    /// Whether an address is alive is of interest.
    pub fn doubted(&mut self, addr: SocketAddr, now: Instant) {
        if self.audits.len() < AUDITS_MAX {
            self.audits.push_back(addr);
            self.next = self.next.min(now);
        }
    }

    /// Whether some more addresses, a fair sample, would help; see [`Overlay::refill`].
    pub fn is_short_of_addresses(&self) -> bool {
        self.addresses.is_short()
    }

    /// Takes addresses of evpeers from a fair sample.
    pub fn refill(&mut self, addrs: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        addrs
            .into_iter()
            .for_each(|addr| self.addresses.refilled(addr));
        if self.wants_draw() {
            self.next = self.next.min(now);
        }
    }

    /// A stream to an evpeer is ready. One call a stream, before any of its messages.
    pub fn stream_ready(&mut self, conn: ConnId, stream: Stream, now: Instant) {
        let addr = stream.addr;
        let cause = self.dialling.remove(&addr);
        self.anchors.remove(&addr);
        self.addresses.resume(addr);
        let known = self.link_of(stream.peer);
        self.streams.insert(
            conn,
            Held {
                stream,
                link: None,
                idle_since: now,
                refused_until: now,
            },
        );
        self.next = self.next.min(now);
        if stream.peer == self.own || known.is_some() {
            // The same host by another address, or a stream too many; one side closes it.
            if cause.is_some() {
                self.addresses.pause(addr, now + TWIN_PAUSE, now);
            }
            if stream.purpose == Purpose::Overlay && self.own <= stream.peer {
                self.drop(conn, Reason::Surplus);
            }
            return;
        }
        let has_room = self.link_count() < LINKS_MAX;
        match cause {
            Some(Cause::Draw | Cause::Anchor) if has_room => self.offer(conn, true),
            Some(_) if self.link_count() >= FILL => self.drop(conn, Reason::Surplus),
            _ => {}
        }
    }

    /// The other end of a stream offers a link. `is_drawn` is what its hello says.
    pub fn offered(&mut self, conn: ConnId, is_drawn: bool, now: Instant) -> Answer {
        let Some(held) = self.streams.get(&conn) else {
            return Answer::Refuse(Reason::Surplus);
        };
        let stream = held.stream;
        if stream.peer == self.own || self.addresses.is_barred(stream.addr, now) {
            return Answer::Refuse(Reason::Surplus);
        }
        if let Some((other, carried)) = self.link_of(stream.peer) {
            if carried.is_met {
                return Answer::Refuse(Reason::Surplus);
            }
            if self.own < stream.peer {
                return Answer::Ignore;
            }
            self.drop(other, Reason::Surplus);
        }
        let accepted = self
            .links_held()
            .filter(|(_, carried)| !carried.is_drawn)
            .count();
        let is_full = accepted >= ACCEPTED_MAX || self.link_count() >= LINKS_MAX;
        if is_full || (!is_drawn && self.link_count() >= FILLED) {
            return Answer::Refuse(Reason::Full);
        }
        let held = self.streams.get_mut(&conn).expect("looked up above");
        held.link = Some(Carried {
            is_drawn: false,
            is_met: true,
        });
        Answer::Accept
    }

    /// The other side answered our hello: the link is there.
    pub fn met(&mut self, conn: ConnId) {
        if let Some(link) = self
            .streams
            .get_mut(&conn)
            .and_then(|held| held.link.as_mut())
        {
            link.is_met = true;
        }
    }

    /// The other side ended the link on a stream, or refused it.
    pub fn link_ended(&mut self, conn: ConnId, reason: Reason, now: Instant) {
        let Some(held) = self.streams.get_mut(&conn) else {
            return;
        };
        held.link = None;
        held.idle_since = now;
        held.refused_until = now + REFUSED_PAUSE;
        let stream = held.stream;
        match reason {
            Reason::Leaving => self.addresses.remove(stream.addr),
            Reason::Surplus | Reason::Full => {
                self.addresses.pause(stream.addr, now + REFUSED_PAUSE, now);
            }
        }
        if stream.purpose == Purpose::Overlay {
            self.drop(conn, Reason::Surplus);
        }
        self.next = self.next.min(now);
    }

    /// The other side of a link broke the rules, or tells what is not so: no link for an hour.
    pub fn distrusted(&mut self, conn: ConnId, now: Instant) {
        if let Some(held) = self.streams.get_mut(&conn) {
            held.link = None;
            held.idle_since = now;
            self.addresses.bar(held.stream.addr, now);
            self.drop(conn, Reason::Surplus);
            self.next = self.next.min(now);
        }
    }

    /// A stream is closed.
    pub fn stream_closed(&mut self, conn: ConnId, now: Instant) {
        let Some(held) = self.streams.remove(&conn) else {
            return;
        };
        let addr = held.stream.addr;
        self.next = self.next.min(now);
        match held.link {
            Some(link) if link.is_met => self.anchor(addr, Anchor::new(now)),
            Some(_) => self.addresses.pause(addr, now + REFUSED_PAUSE, now),
            None => {}
        }
    }

    /// A dial that we asked for led to no stream that is ready.
    pub fn dial_failed(&mut self, addr: SocketAddr, now: Instant) {
        self.next = self.next.min(now);
        if self.dialling.remove(&addr).is_none() {
            return;
        }
        self.addresses.failed(addr, now);
        let is_alone = self.link_count() == 0;
        if let Some(anchor) = self.anchors.get_mut(&addr) {
            anchor.pause = (anchor.pause * 2).min(2 * ANCHOR_PAUSE_MAX);
            let most = if is_alone {
                ALONE_PAUSE
            } else {
                ANCHOR_PAUSE_MAX
            };
            if anchor.pause > ANCHOR_PAUSE_MAX && !is_alone {
                self.anchors.remove(&addr);
            } else {
                let pause = anchor.pause.min(most);
                anchor.at = now + pause + pause.mul_f64(f64::from(self.rng.below(256)) / 1024.0);
            }
        } else if is_alone {
            let pause = FIRST_PAUSE;
            let at = now + pause;
            self.anchor(addr, Anchor { at, pause });
        } else {
            self.addresses.remove(addr);
            self.addresses.pause(addr, now + FAILED_PAUSE, now);
        }
    }

    /// A dial that we asked for may not be before `until`.
    pub fn dial_postponed(&mut self, addr: SocketAddr, until: Instant, now: Instant) {
        self.dialling.remove(&addr);
        self.addresses.pause(addr, until, now);
        if let Some(anchor) = self.anchors.get_mut(&addr) {
            anchor.at = until;
        }
        self.next = self.next.min(now);
    }

    /// Does what is due. To be called after each input, or after some of them in a row.
    pub fn poll(&mut self, now: Instant) {
        if self.next > now {
            return;
        }
        self.close_idle(now);
        self.draw(now);
        self.fill(now);
        self.try_anchors(now);
        self.try_suspects(now);
        self.next = self.deadline(now);
    }

    /// When [`Overlay::poll`] has something to do again.
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// The next thing that the owner shall do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The links, those that are only offered too: stream, and whose.
    pub fn links(&self) -> impl Iterator<Item = (ConnId, Stream)> {
        self.links_held()
            .map(|(conn, _)| (conn, self.streams[&conn].stream))
    }

    fn links_held(&self) -> impl Iterator<Item = (ConnId, Carried)> {
        let streams = self.streams.iter();
        streams.filter_map(|(&conn, held)| Some((conn, held.link?)))
    }

    fn link_count(&self) -> usize {
        self.links_held().count()
    }

    /// The link with a host, if there is one.
    fn link_of(&self, peer: PeerId) -> Option<(ConnId, Carried)> {
        let mut links = self.links_held();
        links.find(|(conn, _)| self.streams[conn].stream.peer == peer)
    }

    fn drawn_count(&self) -> usize {
        let drawn = self
            .links_held()
            .filter(|(_, carried)| carried.is_drawn)
            .count();
        let draws = self
            .dialling
            .values()
            .filter(|cause| **cause == Cause::Draw)
            .count();
        drawn + draws
    }

    fn wants_draw(&self) -> bool {
        self.drawn_count() < DRAWN
    }

    /// Draws others until there are enough, or nobody is left to draw.
    fn draw(&mut self, now: Instant) {
        while self.wants_draw() && self.link_count() < LINKS_MAX {
            if self.dialling.len() >= DIALS_MAX {
                return;
            }
            let linked: Vec<_> = self.links().map(|(_, stream)| stream.addr).collect();
            let fits = |addr| {
                let is_known = linked.contains(&addr) || self.dialling.contains_key(&addr);
                !is_known && !self.anchors.contains_key(&addr)
            };
            let mut rng = self.rng.clone();
            let drawn = self.addresses.draw(&mut rng, now, fits);
            self.rng = rng;
            let Some(addr) = drawn else { return };
            let mut streams = self.streams.iter();
            match streams.find(|(_, held)| held.stream.addr == addr) {
                Some((_, held)) if self.link_of(held.stream.peer).is_some() => {
                    self.addresses.pause(addr, now + TWIN_PAUSE, now);
                }
                Some((&conn, held)) if held.refused_until <= now => self.offer(conn, true),
                Some((_, held)) => {
                    let until = held.refused_until;
                    self.addresses.pause(addr, until, now);
                }
                None => self.dial(addr, Cause::Draw),
            }
        }
    }

    /// Below a few links, any stream will do.
    fn fill(&mut self, now: Instant) {
        let wanted = FILL.saturating_sub(self.link_count());
        if wanted == 0 {
            return;
        }
        let spare = self.streams.iter().filter(|(_, held)| {
            let is_strange =
                held.stream.peer != self.own && self.link_of(held.stream.peer).is_none();
            let may = !self.addresses.is_barred(held.stream.addr, now);
            held.link.is_none() && held.refused_until <= now && is_strange && may
        });
        let mut peers = Vec::new();
        let mut chosen = Vec::new();
        for (&conn, held) in spare {
            if chosen.len() < wanted && !peers.contains(&held.stream.peer) {
                peers.push(held.stream.peer);
                chosen.push(conn);
            }
        }
        chosen.into_iter().for_each(|conn| self.offer(conn, false));
    }

    fn try_anchors(&mut self, now: Instant) {
        let due = self.anchors.iter().filter(|(addr, anchor)| {
            let may = self.addresses.may_dial(**addr, now);
            anchor.at <= now && !self.dialling.contains_key(addr) && may
        });
        let free = DIALS_MAX.saturating_sub(self.dialling.len());
        let due: Vec<_> = due.map(|(&addr, _)| addr).take(free).collect();
        due.into_iter()
            .for_each(|addr| self.dial(addr, Cause::Anchor));
    }

    fn try_suspects(&mut self, now: Instant) {
        while self.dialling.len() < DIALS_MAX {
            let Some(addr) = self.audits.pop_front() else {
                return;
            };
            let is_held = self.streams.values().any(|held| held.stream.addr == addr);
            let is_busy = is_held || self.dialling.contains_key(&addr);
            if !is_busy && self.addresses.may_dial(addr, now) {
                self.dial(addr, Cause::Audit);
            }
        }
    }

    /// Closes streams for links that carry none.
    fn close_idle(&mut self, now: Instant) {
        let idle = self.streams.iter().filter(|(_, held)| {
            let is_due = held.idle_since + IDLE_MAX <= now;
            held.stream.purpose == Purpose::Overlay && held.link.is_none() && is_due
        });
        let idle: Vec<_> = idle.map(|(&conn, _)| conn).collect();
        idle.into_iter()
            .for_each(|conn| self.drop(conn, Reason::Surplus));
    }

    fn deadline(&self, now: Instant) -> Instant {
        let idle = self
            .streams
            .values()
            .filter(|held| held.stream.purpose == Purpose::Overlay && held.link.is_none());
        let idle = idle.map(|held| held.idle_since + IDLE_MAX).min();
        let can_dial = self.dialling.len() < DIALS_MAX;
        let anchors = self
            .anchors
            .iter()
            .filter(|(addr, _)| can_dial && !self.dialling.contains_key(addr));
        let anchors = anchors.map(|(&addr, anchor)| {
            if anchor.at > now || self.addresses.may_dial(addr, now) {
                anchor.at
            } else {
                now + FAILED_PAUSE
            }
        });
        let few = self.wants_draw() || self.link_count() < FILL;
        let resumed = few.then(|| self.addresses.next_resumed(now));
        let refused = self.streams.values().map(|held| held.refused_until);
        let refused = refused.filter(|until| few && *until > now).min();
        let all = [idle, anchors.min(), resumed, refused];
        all.into_iter().flatten().min().unwrap_or(Instant::NEVER)
    }

    fn anchor(&mut self, addr: SocketAddr, anchor: Anchor) {
        if self.anchors.len() < ANCHORS_MAX || self.anchors.contains_key(&addr) {
            self.anchors.insert(addr, anchor);
            self.addresses.resume(addr);
        }
    }

    fn dial(&mut self, addr: SocketAddr, cause: Cause) {
        self.dialling.insert(addr, cause);
        self.actions.push_back(Action::Dial(addr));
    }

    fn offer(&mut self, conn: ConnId, is_drawn: bool) {
        if let Some(held) = self.streams.get_mut(&conn) {
            held.link = Some(Carried {
                is_drawn,
                is_met: false,
            });
            self.actions.push_back(Action::Offer { conn, is_drawn });
        }
    }

    /// Ends the link on a stream, and the stream if it is for links alone.
    fn drop(&mut self, conn: ConnId, reason: Reason) {
        let Some(held) = self.streams.get_mut(&conn) else {
            return;
        };
        held.link = None;
        if held.stream.purpose == Purpose::Overlay {
            self.streams.remove(&conn);
        }
        self.actions.push_back(Action::Drop { conn, reason });
    }
}

impl Anchor {
    fn new(now: Instant) -> Self {
        Self {
            at: now,
            pause: FIRST_PAUSE / 2,
        }
    }
}

/// Links of a host at most.
pub const LINKS_MAX: usize = 16;
/// Others that a host draws. A graph of so many draws a node is connected, and stays so when half
/// of its nodes go, but for a few that draw again.
pub const DRAWN: usize = 5;
/// Links that others drew, at most: there is always room for our own draws.
const ACCEPTED_MAX: usize = LINKS_MAX - DRAWN;
/// Links below which any stream will do.
const FILL: usize = 4;
/// Links at which we need not be anybody's fill.
const FILLED: usize = 8;
/// Dials at a time at most.
const DIALS_MAX: usize = 8;
/// Addresses at most that are tried because somebody else departed, a departure, all hosts
/// together.
const AUDITS_A_DEPARTURE: u32 = 8;
/// Addresses that wait to be tried at most.
const AUDITS_MAX: usize = 8;
/// Lost neighbours that are tried again at most.
const ANCHORS_MAX: usize = 64;
/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Pause after which a lost neighbour is given up.
const ANCHOR_PAUSE_MAX: Duration = Duration::from_secs(2 * 3600);
/// Longest pause of who has no link at all.
const ALONE_PAUSE: Duration = Duration::from_secs(30);
/// Pause of an address that refused a link.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Pause of an address that did not answer.
const FAILED_PAUSE: Duration = Duration::from_secs(600);
/// Pause of an address of a host that we have a link with by another.
const TWIN_PAUSE: Duration = Duration::from_secs(3600);
/// Time after which a stream for links alone that carries none is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(FILL < DRAWN && DRAWN < FILLED && FILLED < LINKS_MAX);
