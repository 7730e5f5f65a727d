//! A network of hosts in virtual time: each runs the broadcast and the overlay as an engine would,
//! and nothing else. Streams between them are bytes with a delay.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use evpeer::base::address::{Interface, Interfaces};
use evpeer::base::id::{ConnId, InfoHash, PeerId};
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::discovery::overlay::{Action, Answer, Overlay, Purpose, Stream};
use evpeer::tracker::broadcast::{Broadcast, Event, List, Setup};
use evpeer::wire::ev_peers::{Message, Reason, Standing, is_hello};

use super::liar::Liar;

/// All hosts, what is on its way between them, and the time.
pub struct Net {
    pub now: Instant,
    pub hosts: Vec<Host>,
    pub rng: Rng,
    pub latency: Duration,
    streams: Vec<Wire>,
    at: BTreeMap<SocketAddr, usize>,
    coming: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<usize>,
    counted: u64,
    /// When an `ev_peers` message was last sent.
    pub last_sent: Instant,
}

pub struct Host {
    pub addr: SocketAddr,
    pub state: State,
    pub mind: Mind,
    /// Which part of a network that is split.
    pub side: u8,
    /// Bytes of messages with their heads, those of TCP and IP too.
    pub sent: u64,
    pub received: u64,
    /// Addresses dialled, by IP address, and when.
    pub dials: BTreeMap<IpAddr, Vec<Instant>>,
    streams: BTreeSet<u32>,
    armed: Instant,
    /// Timers in a row, and since when, that came sooner than a millisecond after another.
    hurried: (u32, Instant),
}

pub enum Mind {
    Honest(Box<Mate>),
    Liar(Box<Liar>),
    /// A host whose broadcast has a fault: it tells on what it hears, known or not.
    Echo(Box<Mate>),
}

/// What an engine holds of these parts.
pub struct Mate {
    pub broadcast: Broadcast,
    pub overlay: Overlay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// The process is gone, its machine answers.
    Killed,
    /// Nothing answers.
    Dark,
}

#[derive(Clone, Copy)]
struct Wire {
    ends: [usize; 2],
    /// The address that the first end dialled.
    dialled: SocketAddr,
    is_open: bool,
}

enum Happening {
    Dialled { from: usize, to: SocketAddr },
    Ready { wire: u32, host: usize },
    Arrived { wire: u32, host: usize, body: Bytes },
    Closed { wire: u32, host: usize },
    Failed { host: usize, to: SocketAddr },
    Timer { host: usize },
}

pub const UNIX_MS: u64 = 1_800_000_000_000;
pub const SWARM: InfoHash = InfoHash([7; 20]);
/// Length, id and extended id of a message, and the heads of TCP and IPv4.
const HEADS_LEN: u64 = 6 + 52;
/// Silence after which a host that went dark is noticed, and a dial given up.
const DARK_FOR: Duration = Duration::from_secs(30);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

impl Net {
    pub fn new(rng_seed: u64, latency: Duration) -> Self {
        Self {
            now: Instant::ZERO,
            hosts: Vec::new(),
            rng: Rng::new(rng_seed),
            latency,
            streams: Vec::new(),
            at: BTreeMap::new(),
            coming: BinaryHeap::new(),
            happenings: Vec::new(),
            free: Vec::new(),
            counted: 0,
            last_sent: Instant::ZERO,
        }
    }

    pub fn addr_of(n: usize) -> SocketAddr {
        let [_, b, c, d] = (n as u32 + 1).to_be_bytes();
        ([10, b, c, d], 6881).into()
    }

    /// One more honest host, in the swarm or in none, that knows these addresses.
    pub fn join(&mut self, swarm: Option<Standing>, known: &[SocketAddr]) -> usize {
        let n = self.hosts.len();
        let addr = Self::addr_of(n);
        let mate = self.new_mate(n, addr, swarm);
        self.add(addr, Mind::Honest(Box::new(mate)));
        self.know(n, known);
        n
    }

    /// A host can be reached at a further address, which it does not know of.
    pub fn alias(&mut self, n: usize, addr: SocketAddr) {
        self.at.insert(addr, n);
    }

    /// One more host that is not honest, or broken.
    pub fn add_mind(&mut self, mind: Mind) -> usize {
        let n = self.hosts.len();
        self.add(Self::addr_of(n), mind);
        self.arm(n, self.now);
        n
    }

    pub fn echo(&mut self, known: &[SocketAddr]) -> usize {
        let n = self.hosts.len();
        let addr = Self::addr_of(n);
        let mate = self.new_mate(n, addr, None);
        self.add(addr, Mind::Echo(Box::new(mate)));
        self.know(n, known);
        n
    }

    /// The same host again, after it was gone: a new process.
    pub fn rejoin(&mut self, n: usize, swarm: Option<Standing>, known: &[SocketAddr]) {
        let mate = self.new_mate(n, self.hosts[n].addr, swarm);
        let host = &mut self.hosts[n];
        host.mind = Mind::Honest(Box::new(mate));
        host.state = State::Up;
        host.streams.clear();
        host.armed = Instant::NEVER;
        self.know(n, known);
    }

    fn new_mate(&mut self, n: usize, addr: SocketAddr, swarm: Option<Standing>) -> Mate {
        let setup = Setup {
            unix_ms: UNIX_MS + self.now.as_micros() / 1000 + u64::from(self.rng.below(1000)),
            port: addr.port(),
            bind: None,
            secret: [n as u8; 16],
            rng: Rng::new(self.rng.next_u64()),
        };
        let interfaces = Interfaces::new(vec![Interface {
            index: 1,
            ip: addr.ip(),
            prefix_len: 8,
        }]);
        let mut broadcast = Broadcast::new(setup, self.now);
        broadcast.interfaces_found(&interfaces);
        if let Some(standing) = swarm {
            broadcast.swarm_joined(SWARM, standing, self.now);
        }
        let mut overlay = Overlay::new(peer_id(addr), Rng::new(self.rng.next_u64()));
        overlay.interfaces_found(&interfaces);
        Mate { broadcast, overlay }
    }

    fn add(&mut self, addr: SocketAddr, mind: Mind) {
        self.at.insert(addr, self.hosts.len());
        self.hosts.push(Host {
            addr,
            state: State::Up,
            mind,
            side: 0,
            sent: 0,
            received: 0,
            dials: BTreeMap::new(),
            streams: BTreeSet::new(),
            armed: Instant::NEVER,
            hurried: (0, Instant::ZERO),
        });
    }

    fn know(&mut self, n: usize, known: &[SocketAddr]) {
        let now = self.now;
        if let Some(mate) = self.hosts[n].mate_mut() {
            known.iter().for_each(|&addr| mate.overlay.heard(addr, now));
        }
        self.drive(n);
    }

    /// Runs until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(&Reverse((at, _, place))) = self.coming.peek() {
            if at > end {
                break;
            }
            self.coming.pop();
            self.now = at;
            let happening = self.happenings[place].take().expect("it comes once");
            self.free.push(place);
            self.happen(happening);
        }
        self.now = end;
    }

    pub fn run(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// A process ends, or a machine.
    pub fn kill(&mut self, n: usize, state: State) {
        self.hosts[n].state = state;
        let wires = std::mem::take(&mut self.hosts[n].streams);
        for wire in wires {
            let after = match state {
                State::Dark => DARK_FOR,
                State::Up | State::Killed => self.delay(wire),
            };
            self.cut(wire, after);
        }
    }

    /// A process says good bye, and ends.
    pub fn leave(&mut self, n: usize) {
        let now = self.now;
        if let Some(mate) = self.hosts[n].mate_mut() {
            mate.broadcast.leaving(now);
        }
        self.drive(n);
        self.kill(n, State::Killed);
    }

    /// From now on nothing crosses between hosts of different sides.
    pub fn split(&mut self, side_of: impl Fn(usize) -> u8) {
        for (n, host) in self.hosts.iter_mut().enumerate() {
            host.side = side_of(n);
        }
        for wire in 0..self.streams.len() {
            let [a, b] = self.streams[wire].ends;
            if self.streams[wire].is_open && self.hosts[a].side != self.hosts[b].side {
                self.cut(wire as u32, DARK_FOR);
            }
        }
    }

    pub fn join_sides(&mut self) {
        self.hosts.iter_mut().for_each(|host| host.side = 0);
    }

    /// Both ends of a stream see it closed after a while.
    fn cut(&mut self, wire: u32, after: Duration) {
        self.streams[wire as usize].is_open = false;
        for host in self.streams[wire as usize].ends {
            self.later(after, Happening::Closed { wire, host });
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Dialled { from, to } => self.dialled(from, to),
            Happening::Ready { wire, host } => self.ready(wire, host),
            Happening::Arrived { wire, host, body } => self.arrived(wire, host, &body),
            Happening::Closed { wire, host } => self.closed(wire, host),
            Happening::Failed { host, to } => self.failed(host, to),
            Happening::Timer { host } => {
                if self.hosts[host].armed <= self.now {
                    self.hosts[host].armed = Instant::NEVER;
                    self.hurry(host);
                    self.drive(host);
                }
            }
        }
    }

    /// A judge: deadlines that do not move would make an engine spin.
    fn hurry(&mut self, n: usize) {
        let (count, last) = self.hosts[n].hurried;
        let is_soon = self.now - last < Duration::from_millis(1);
        let count = if is_soon { count + 1 } else { 0 };
        self.hosts[n].hurried = (count, self.now);
        if count >= 100 {
            let (broadcast, overlay) = match &self.hosts[n].mind {
                Mind::Honest(mate) | Mind::Echo(mate) => {
                    (mate.broadcast.next_deadline(), mate.overlay.next_deadline())
                }
                Mind::Liar(_) => return,
            };
            panic!("host {n} spins at {}: {broadcast}, {overlay}", self.now);
        }
    }

    fn dialled(&mut self, from: usize, to: SocketAddr) {
        let found = self.at.get(&to).copied();
        if found == Some(from) {
            // Its own handshake comes back to it.
            if let Some(mate) = self.hosts[from].mate_mut() {
                mate.broadcast.own_address_found(to);
            }
            return self.later(self.latency, Happening::Failed { host: from, to });
        }
        let is_seen = |host: usize| self.hosts[host].side == self.hosts[from].side;
        match found.filter(|&host| is_seen(host)) {
            Some(host) if self.hosts[host].state == State::Up => {
                let wire = self.streams.len() as u32;
                let ends = [from, host];
                let is_open = self.hosts[from].state == State::Up;
                self.streams.push(Wire {
                    ends,
                    dialled: to,
                    is_open,
                });
                if is_open {
                    ends.into_iter().for_each(|end| {
                        self.hosts[end].streams.insert(wire);
                    });
                    // Its answer, then two handshakes each way; no message overtakes them.
                    let hop = self.delay(wire);
                    self.later(3 * hop, Happening::Ready { wire, host });
                    self.later(7 * hop / 2, Happening::Ready { wire, host: from });
                }
            }
            Some(host) if self.hosts[host].state == State::Killed => {
                self.later(self.latency, Happening::Failed { host: from, to });
            }
            _ => self.later(DIAL_TIMEOUT, Happening::Failed { host: from, to }),
        }
    }

    fn ready(&mut self, wire: u32, n: usize) {
        if !self.is_at(wire, n) {
            return;
        }
        let addr = self.seen(wire, n);
        let peer = peer_id(self.hosts[self.other(wire, n)].addr);
        let now = self.now;
        let stream = Stream {
            peer,
            addr,
            purpose: Purpose::Overlay,
        };
        match &mut self.hosts[n].mind {
            Mind::Honest(mate) | Mind::Echo(mate) => {
                mate.broadcast.met(addr, now);
                mate.overlay.stream_ready(conn(wire), stream, now);
            }
            Mind::Liar(liar) => liar.ready(wire, addr),
        }
        self.drive(n);
    }

    fn arrived(&mut self, wire: u32, n: usize, body: &Bytes) {
        if !self.is_at(wire, n) {
            return;
        }
        self.hosts[n].received += body.len() as u64 + HEADS_LEN;
        let addr = self.seen(wire, n);
        let now = self.now;
        let conn = conn(wire);
        match &mut self.hosts[n].mind {
            Mind::Honest(mate) => {
                if let Some(refusal) = mate.take(conn, addr, body, now) {
                    self.send(n, wire, refusal);
                }
            }
            // Nor does it end the link of one that floods it.
            Mind::Echo(mate) if mate.broadcast.has_link(conn) => {
                let _ = mate.broadcast.received(conn, body, now);
            }
            Mind::Echo(mate) => {
                mate.take(conn, addr, body, now);
            }
            Mind::Liar(liar) => liar.received(wire, body),
        }
        if matches!(self.hosts[n].mind, Mind::Echo(_))
            && let Ok(Message::Entries(_)) = Message::decode(body)
        {
            for other in self.hosts[n].streams.clone() {
                self.send(n, other, body.clone());
            }
        }
        self.drive(n);
    }

    fn closed(&mut self, wire: u32, n: usize) {
        let addr = self.seen(wire, n);
        if self.hosts[n].state != State::Up || !self.hosts[n].streams.remove(&wire) {
            return;
        }
        let now = self.now;
        match &mut self.hosts[n].mind {
            Mind::Honest(mate) | Mind::Echo(mate) => {
                mate.broadcast.link_closed(conn(wire), now);
                mate.broadcast.parted(addr);
                mate.overlay.stream_closed(conn(wire), now);
            }
            Mind::Liar(liar) => liar.closed(wire),
        }
        self.drive(n);
    }

    fn failed(&mut self, n: usize, to: SocketAddr) {
        let now = self.now;
        if self.hosts[n].state != State::Up {
            return;
        }
        if let Some(mate) = self.hosts[n].mate_mut() {
            mate.overlay.dial_failed(to, now);
            mate.broadcast.unreachable(to, now);
        }
        self.drive(n);
    }

    /// Asks a host for everything that it wants to do now.
    fn drive(&mut self, n: usize) {
        if self.hosts[n].state != State::Up {
            return;
        }
        let now = self.now;
        let mut out = Out::default();
        let next = match &mut self.hosts[n].mind {
            Mind::Honest(mate) | Mind::Echo(mate) => mate.drive(now, &mut out),
            Mind::Liar(liar) => liar.drive(now, &mut self.rng, &mut out),
        };
        for (wire, body) in out.bodies {
            self.send(n, wire, body);
        }
        for to in out.dials {
            self.hosts[n].dials.entry(to.ip()).or_default().push(now);
            self.later(self.latency, Happening::Dialled { from: n, to });
        }
        for wire in out.closes {
            self.close(n, wire);
        }
        self.arm(n, next);
    }

    fn close(&mut self, n: usize, wire: u32) {
        if !self.hosts[n].streams.remove(&wire) {
            return;
        }
        let other = self.other(wire, n);
        let addr = self.seen(wire, n);
        if let Some(mate) = self.hosts[n].mate_mut() {
            mate.broadcast.parted(addr);
        }
        self.streams[wire as usize].is_open = false;
        let delay = self.delay(wire);
        self.later(delay, Happening::Closed { wire, host: other });
    }

    fn send(&mut self, n: usize, wire: u32, body: Bytes) {
        self.hosts[n].sent += body.len() as u64 + HEADS_LEN;
        self.last_sent = self.now;
        if self.streams[wire as usize].is_open {
            let host = self.other(wire, n);
            let delay = self.delay(wire);
            self.later(delay, Happening::Arrived { wire, host, body });
        }
    }

    fn arm(&mut self, n: usize, at: Instant) {
        let at = at.max(self.now + Duration::from_micros(1));
        if at < self.hosts[n].armed && at != Instant::NEVER {
            self.hosts[n].armed = at;
            self.later(at - self.now, Happening::Timer { host: n });
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            self.happenings.len() - 1
        });
        self.happenings[place] = Some(happening);
        self.counted += 1;
        let at = self.now + after;
        self.coming.push(Reverse((at, self.counted, place)));
    }

    /// Whether a stream is still there, as `n` sees it. What was sent before a close arrives.
    fn is_at(&self, wire: u32, n: usize) -> bool {
        let [a, b] = self.streams[wire as usize].ends;
        let is_near = self.hosts[a].side == self.hosts[b].side;
        is_near && self.hosts[n].state == State::Up && self.hosts[n].streams.contains(&wire)
    }

    /// The address of the other end of a stream, as `n` knows it.
    fn seen(&self, wire: u32, n: usize) -> SocketAddr {
        let Wire { ends, dialled, .. } = self.streams[wire as usize];
        match ends[0] == n {
            true => dialled,
            false => self.hosts[ends[0]].addr,
        }
    }

    fn other(&self, wire: u32, n: usize) -> usize {
        let [a, b] = self.streams[wire as usize].ends;
        if a == n { b } else { a }
    }

    /// Up to a quarter more or less, the same for a pair at all times.
    fn delay(&self, wire: u32) -> Duration {
        let [a, b] = self.streams[wire as usize].ends;
        let spread = (a.min(b) * 31 + a.max(b) * 17) % 512;
        self.latency.mul_f64(0.75 + spread as f64 / 1024.0)
    }

    pub fn up(&self) -> Vec<usize> {
        let is_up = |n: &usize| {
            let host = &self.hosts[*n];
            host.state == State::Up && matches!(host.mind, Mind::Honest(_))
        };
        (0..self.hosts.len()).filter(is_up).collect()
    }

    /// Addresses of some hosts that are up.
    pub fn some(&mut self, count: usize) -> Vec<SocketAddr> {
        let mut up = self.up();
        self.rng.shuffle(&mut up);
        up.into_iter().take(count).map(Self::addr_of).collect()
    }

    /// Whether the network lists of all honest hosts are the truth about honest hosts. Looks no
    /// further than to the first that is not.
    pub fn are_lists_true(&self) -> bool {
        self.wrong_lists_iter().next().is_none()
    }

    /// How many honest hosts' network lists are not the truth; an example.
    pub fn wrong_lists(&self) -> (usize, String) {
        let wrong: Vec<String> = self.wrong_lists_iter().collect();
        (wrong.len(), wrong.last().cloned().unwrap_or_default())
    }

    /// What is wrong with each list that is not the truth.
    fn wrong_lists_iter(&self) -> impl Iterator<Item = String> {
        let up = self.up();
        let truth: BTreeSet<SocketAddr> = up.iter().map(|&n| Self::addr_of(n)).collect();
        up.into_iter().filter_map(move |n| {
            let broadcast = &self.mate(n).broadcast;
            let own = Self::addr_of(n);
            // Nearly always they are the same, and in the same order.
            let others = truth.iter().filter(|addr| **addr != own);
            if broadcast.network().eq(others.clone().copied()) {
                return None;
            }
            let gone = |addr: &SocketAddr| match self.at.get(addr) {
                Some(&n) => self.hosts[n].state != State::Up,
                None => false,
            };
            let missing = others.filter(|addr| !broadcast.is_in_network(**addr));
            let ghosts = broadcast.network().filter(gone);
            let (missing, ghosts) = (missing.count(), ghosts.count());
            (missing + ghosts > 0).then(|| format!("host {n} lacks {missing}, has {ghosts} ghosts"))
        })
    }

    pub fn mate(&self, n: usize) -> &Mate {
        match &self.hosts[n].mind {
            Mind::Honest(mate) | Mind::Echo(mate) => mate,
            Mind::Liar(_) => panic!("host {n} is a liar"),
        }
    }

    /// The graph of links between honest hosts that are up: size of the largest part, longest of
    /// the shortest ways in it (from a few hosts), most links of a host.
    pub fn graph(&self) -> Graph {
        let up = self.up();
        let mut links: BTreeMap<usize, Vec<usize>> = up.iter().map(|&n| (n, Vec::new())).collect();
        let mut links_max = 0;
        for &n in &up {
            let overlay = &self.mate(n).overlay;
            let ends: Vec<usize> = overlay
                .links()
                .filter(|(conn, _)| self.streams[conn.index as usize].is_open)
                .map(|(conn, _)| self.other(conn.index, n))
                .collect();
            links_max = links_max.max(overlay.links().count());
            links.insert(n, ends);
        }
        let mut left: BTreeSet<usize> = up.iter().copied().collect();
        let (mut largest, mut diameter, mut parts) = (0, 0, 0);
        while let Some(&start) = left.first() {
            let depths = depths(&links, start);
            depths.keys().for_each(|n| {
                left.remove(n);
            });
            parts += 1;
            if depths.len() > largest {
                largest = depths.len();
                let far = depths.iter().max_by_key(|(_, depth)| **depth);
                let (&far, _) = far.expect("the start at least");
                let starts = depths
                    .keys()
                    .step_by(depths.len().div_ceil(8))
                    .chain([&far]);
                let depth_of = |&start: &usize| depths_max(&links, start);
                diameter = starts.map(depth_of).max().unwrap_or(0);
            }
        }
        Graph {
            hosts: up.len(),
            parts,
            largest,
            diameter,
            links_max,
        }
    }

    /// Of those up, how many have heard of `addr` in the network.
    pub fn knowing(&self, addr: SocketAddr) -> usize {
        let knows = |n: &&usize| self.mate(**n).broadcast.is_in_network(addr);
        self.up().iter().filter(knows).count()
    }

    /// Runs until `is_done`, looking every `step`; how long it took, if it was within `most`.
    pub fn time_until(
        &mut self,
        step: Duration,
        most: Duration,
        mut is_done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        while !is_done(self) {
            if self.now - began >= most {
                return None;
            }
            self.run(step);
        }
        Some(self.now - began)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graph {
    pub hosts: usize,
    pub parts: usize,
    pub largest: usize,
    pub diameter: usize,
    pub links_max: usize,
}

fn depths(links: &BTreeMap<usize, Vec<usize>>, start: usize) -> BTreeMap<usize, usize> {
    let mut depths = BTreeMap::from([(start, 0)]);
    let mut queue = VecDeque::from([start]);
    while let Some(n) = queue.pop_front() {
        let depth = depths[&n] + 1;
        for &other in links.get(&n).into_iter().flatten() {
            if links.contains_key(&other) && !depths.contains_key(&other) {
                depths.insert(other, depth);
                queue.push_back(other);
            }
        }
    }
    depths
}

fn depths_max(links: &BTreeMap<usize, Vec<usize>>, start: usize) -> usize {
    depths(links, start).into_values().max().unwrap_or(0)
}

/// What a host wants to do: bodies by stream, dials, streams to close.
#[derive(Default)]
pub struct Out {
    pub bodies: Vec<(u32, Bytes)>,
    pub dials: Vec<SocketAddr>,
    pub closes: Vec<u32>,
}

impl Host {
    fn mate_mut(&mut self) -> Option<&mut Mate> {
        match &mut self.mind {
            Mind::Honest(mate) | Mind::Echo(mate) => Some(mate),
            Mind::Liar(_) => None,
        }
    }
}

/// One a host, as good as any.
fn peer_id(addr: SocketAddr) -> PeerId {
    let mut id = [0; 20];
    match addr.ip() {
        IpAddr::V4(ip) => id[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => id[..16].copy_from_slice(&ip.octets()),
    }
    // Not in the order of joining.
    id.rotate_left(3);
    PeerId(id)
}

impl Mate {
    /// An `ev_peers` message came; gives back what to send if it offers a link that is refused.
    fn take(&mut self, conn: ConnId, addr: SocketAddr, body: &[u8], now: Instant) -> Option<Bytes> {
        if !self.broadcast.has_link(conn) {
            let is_offer = is_hello(body);
            let Ok(Message::Hello(hello)) = Message::decode(body) else {
                assert!(!is_offer, "an offer that is none");
                return None;
            };
            if hello.is_drawn
                && self.overlay.lacks_room_for(conn, now)
                && let Some(worst) = self
                    .broadcast
                    .worst_link(|link| self.overlay.makes_room(link))
            {
                self.broadcast.link_dropped(worst, Reason::Surplus, now);
                self.overlay.distrusted(worst, now);
            }
            match self.overlay.offered(conn, hello.is_drawn, now) {
                Answer::Accept => self.broadcast.link_opened(conn, addr, false, now),
                Answer::Refuse(reason) => return Some(self.broadcast.refusal(addr, reason)),
                Answer::Ignore => return None,
            }
        }
        if self.broadcast.received(conn, body, now).is_err() {
            self.overlay.distrusted(conn, now);
        }
        None
    }

    fn drive(&mut self, now: Instant, out: &mut Out) -> Instant {
        loop {
            self.broadcast.poll(now);
            self.overlay.counted(self.broadcast.network_len());
            self.overlay.poll(now);
            let mut is_moving = false;
            while let Some(event) = self.broadcast.poll_event() {
                is_moving = true;
                self.obey(event, now, out);
            }
            while let Some(action) = self.overlay.poll_action() {
                is_moving = true;
                self.act(action, now, out);
            }
            if self.overlay.is_short_of_addresses(now) {
                let sample = self.broadcast.sample(64);
                self.overlay.refill(sample, now);
            }
            if !is_moving {
                return self
                    .broadcast
                    .next_deadline()
                    .min(self.overlay.next_deadline());
            }
        }
    }

    fn obey(&mut self, event: Event, now: Instant, out: &mut Out) {
        match event {
            Event::Send { link, body } => out.bodies.push((link.index, body)),
            Event::Met { link } => self.overlay.met(link),
            Event::Heard(heard) if heard.list == List::Network => {
                if heard.standing.is_here() {
                    self.overlay.heard(heard.addr, now);
                } else {
                    self.overlay.departed(heard.addr, now);
                }
            }
            Event::Heard(_) => {}
            Event::Ended { link, reason } => self.overlay.link_ended(link, reason, now),
            Event::Distrusted { link } => self.overlay.distrusted(link, now),
            Event::Doubted { addr } => {
                if !self.overlay.doubted(addr, now) {
                    self.broadcast.not_tried(addr, now);
                }
            }
            Event::Disputed { addr } => self.overlay.disputed(addr, now),
        }
    }

    fn act(&mut self, action: Action, now: Instant, out: &mut Out) {
        match action {
            Action::Dial(addr) => out.dials.push(addr),
            Action::Offer { conn, is_drawn } => {
                let mut links = self.overlay.links();
                let (_, stream) = links.find(|(link, _)| *link == conn).expect("offered");
                let addr = stream.addr;
                drop(links);
                self.broadcast.link_opened(conn, addr, is_drawn, now);
            }
            Action::Drop { conn, reason } => {
                self.broadcast.link_dropped(conn, reason, now);
                out.closes.push(conn.index);
            }
        }
    }
}

fn conn(wire: u32) -> ConnId {
    ConnId {
        index: wire,
        generation: 0,
    }
}
