//! The overlay: to which evpeers this host holds links.
//!
//! Links belong to hosts, not to swarms. Each host draws [`DRAWN`] others at random from all that
//! it ever heard of, whatever swarms they are in, and holds a link to each; so all hosts together
//! are a random graph in which everybody reaches everybody in a few hops, and which does not fall
//! apart when half of it dies. Nobody is preferred: whoever is drawn too often refuses, naming
//! others. A draw that a swarm's stream reaches already is carried by that stream; for others a
//! stream for links alone is dialled.
//!
//! ```text
//!                       ┌── 5 drawn by us
//!  at most 16 links ────┼── 11 at most that others drew, or that fill up
//!                       └── (fill up: below 4 links, any evpeer at hand will do)
//! ```
//!
//! *Which stream.* Two hosts have at most one link. Either may offer one, on any stream they have;
//! if both offer at once on different streams, the offer of the smaller peer id stands and the
//! other side takes its own back: both come to the same without a further message.
//!
//! *Who is gone.* A link that broke without a good bye is dialled again at once; the failure of
//! that is the departure that the broadcast tells, and its success the link. After that it is tried
//! ever more rarely for hours: so two halves of a network find each other again after they were
//! apart, and a host that lost everybody keeps trying all that were its neighbours. With each
//! departure that is heard of, eight random hosts of the network try one random address each: so
//! those who died together with all their neighbours are found out too, while a quiet network stays
//! quiet.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::address::Interfaces;
use crate::base::id::{ConnId, PeerId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::ev_peers::Reason;

pub use action::{Action, Answer, Purpose, Stream};

use addresses::Addresses;
use anchors::Anchor;
use suspects::TWIN_PAUSE;

mod action;
mod addresses;
mod anchors;
mod choose;
mod suspects;
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
    /// Neighbours that said good bye, the latest last.
    parted: VecDeque<SocketAddr>,
    /// Further addresses of hosts that we have links with, and by which those links are.
    twins: BTreeMap<SocketAddr, SocketAddr>,
    audits: VecDeque<SocketAddr>,
    /// The same, of whom there is more than a chance that they are gone.
    suspects: VecDeque<SocketAddr>,
    /// Draws of one second that were in vain, and when it began.
    vain_draws: (u32, Instant),
    /// When there may be something to do.
    next: Instant,
    actions: VecDeque<Action>,
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
    /// No offer of the other side's is accepted on it before this moment.
    accepts_from: Instant,
    /// Its end is a reason to look whether the host is still there.
    is_suspect: bool,
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
            parted: VecDeque::new(),
            twins: BTreeMap::new(),
            audits: VecDeque::new(),
            suspects: VecDeque::new(),
            vain_draws: (0, Instant::ZERO),
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
        let is_drawable = self.addresses.heard(addr, &mut self.rng);
        self.addresses.resume(addr);
        if let Some(anchor) = self.anchors.get_mut(&addr) {
            *anchor = Anchor::new(now);
            self.next = now;
        } else if is_drawable && self.wants_draw() && self.addresses.may_dial(addr, now) {
            self.next = self.next.min(now);
        }
    }

    /// So many evpeers are there, as far as the owner knows. To be told before other changes of
    /// the network.
    pub fn counted(&mut self, present: usize) {
        self.addresses.counted(present);
    }

    /// Whether some more addresses, a fair sample, would help; see [`Overlay::refill`].
    pub fn is_short_of_addresses(&self, now: Instant) -> bool {
        self.addresses.refill_at() <= now
    }

    /// Takes addresses of evpeers from a fair sample.
    pub fn refill(&mut self, addrs: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        if self.addresses.refill(addrs, now) && self.wants_draw() {
            self.next = self.next.min(now);
        }
    }

    /// A stream to an evpeer is ready. One call a stream, before any of its messages.
    pub fn stream_ready(&mut self, conn: ConnId, stream: Stream, now: Instant) {
        let addr = stream.addr;
        let cause = self.dialling.remove(&addr);
        if cause.is_some() {
            self.addresses.not_in_vain(addr.ip());
        }
        self.anchors.remove(&addr);
        self.addresses.met(addr);
        let known = self.link_of(stream.peer);
        self.streams.insert(
            conn,
            Held {
                stream,
                link: None,
                idle_since: now,
                refused_until: now,
                accepts_from: now,
                is_suspect: false,
            },
        );
        self.next = self.next.min(now);
        if stream.peer == self.own || known.is_some() {
            // The same host by another address, or a stream too many; one side closes it.
            match known.map(|(conn, _)| self.streams[&conn].stream.addr) {
                Some(linked) if linked != addr => self.twin(addr, linked, now),
                Some(_) => {}
                None if cause.is_some() => self.addresses.pause(addr, now + TWIN_PAUSE),
                None => {}
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
        let is_soon = held.accepts_from > now;
        if stream.peer == self.own || self.addresses.is_barred(stream.addr, now) {
            return Answer::Refuse(Reason::Surplus);
        }
        if let Some((other, carried)) = self.link_of(stream.peer) {
            if other == conn {
                // Both offered on the same stream, and ours has not left yet.
                self.met(conn);
                return Answer::Accept;
            }
            if carried.is_met || is_soon {
                return Answer::Refuse(Reason::Surplus);
            }
            if self.own < stream.peer {
                return Answer::Ignore;
            }
            let former = self.streams[&other].stream.addr;
            self.drop(other, Reason::Surplus);
            self.twin(former, stream.addr, now);
        }
        if is_soon || self.is_full() || (!is_drawn && self.link_count() >= FILLED) {
            return Answer::Refuse(Reason::Full);
        }
        let held = self.streams.get_mut(&conn).expect("looked up above");
        held.accepts_from = now + ACCEPTED_PAUSE;
        held.link = Some(Carried {
            is_drawn: false,
            is_met: true,
        });
        Answer::Accept
    }

    /// Whether a link that the other side drew would be accepted on a stream if one of those that
    /// [`Overlay::makes_room`] names ended before.
    pub fn lacks_room_for(&self, conn: ConnId, now: Instant) -> bool {
        let may = |held: &Held| {
            let is_stranger =
                held.stream.peer != self.own && self.link_of(held.stream.peer).is_none();
            let is_soon = held.accepts_from > now;
            is_stranger && !is_soon && !self.addresses.is_barred(held.stream.addr, now)
        };
        self.is_full() && self.streams.get(&conn).is_some_and(may)
    }

    /// Whether the end of the link on this stream would make room for one that others drew.
    pub fn makes_room(&self, conn: ConnId) -> bool {
        let is_full = self.link_count() >= LINKS_MAX;
        let link = self.streams.get(&conn).and_then(|held| held.link);
        link.is_some_and(|link| is_full || !link.is_drawn)
    }

    fn is_full(&self) -> bool {
        let links = self.links_held();
        let accepted = links.filter(|(_, carried)| !carried.is_drawn).count();
        accepted >= ACCEPTED_MAX || self.link_count() >= LINKS_MAX
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
        let stream = held.stream;
        let until = self.refused(stream, now);
        if let Some(held) = self.streams.get_mut(&conn) {
            held.refused_until = until;
        }
        let twins = self.twins_of(stream.addr);
        if reason == Reason::Leaving {
            self.addresses.forget(stream.addr);
            self.parted_with(stream.addr);
            twins.into_iter().for_each(|addr| self.disputed(addr, now));
        }
        self.look_lonely(now);
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
        if held.is_suspect {
            self.disputed(addr, now);
        }
        if held.link.is_some() {
            let twins = self.twins_of(addr);
            twins.into_iter().for_each(|addr| self.disputed(addr, now));
        }
        match held.link {
            Some(link) if link.is_met => self.anchor(addr, Anchor::new(now)),
            Some(_) if held.stream.purpose == Purpose::Overlay => {
                self.refused(held.stream, now);
            }
            // The swarm had no use for its stream, which says nothing about links.
            Some(_) | None => {}
        }
        self.look_lonely(now);
    }

    /// A dial that we asked for may not be before `until`. After some of these nobody is drawn for
    /// a moment: it may be that there is no room for dials, and addresses without end.
    pub fn dial_postponed(&mut self, addr: SocketAddr, until: Instant, now: Instant) {
        if self.dialling.remove(&addr).is_some() {
            self.addresses.not_in_vain(addr.ip());
        }
        self.addresses.pause(addr, until);
        self.drew_in_vain(now);
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

    /// The host at the other end of a stream wants no link on it: until when it is left alone.
    fn refused(&mut self, stream: Stream, now: Instant) -> Instant {
        let until = match self.link_count() {
            FILL.. => now + REFUSED_PAUSE,
            _ => now + REFUSED_PAUSE / 10,
        };
        // If there is a link with it, this one was the second.
        if self.link_of(stream.peer).is_none() {
            self.addresses.pause(stream.addr, until);
        }
        until
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
/// Draws that may be in vain in [`DRAWS_REST`], postponed or without an answer, before nobody is
/// drawn for the rest of it: who is told of invented addresses without end shall not dial without
/// end. Of a network of which half died at once, ten draws find five others.
const VAIN_DRAWS_MAX: u32 = 16;
const DRAWS_REST: Duration = Duration::from_secs(1);
/// Pause of an address that refused a link; a tenth of it for who has few.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Time between two links on one stream that the other side offers, as each begins with a walk
/// over our lists: who was refused waits longer.
const ACCEPTED_PAUSE: Duration = Duration::from_secs(1);
/// Pause of an address that did not answer.
const FAILED_PAUSE: Duration = Duration::from_secs(600);
/// Time after which a stream for links alone that carries none is closed.
const IDLE_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(ACCEPTED_PAUSE.as_millis() < REFUSED_PAUSE.as_millis() / 10);
const _: () = assert!(FILL < DRAWN && DRAWN < FILLED && FILLED < LINKS_MAX);
