//! Lines of hosts and racks: rates, delays, and which ways are cut.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::sim::HostId;

/// A host's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What the host can send, bytes per second, headers included.
    pub up_bytes_s: u64,
    /// What it can receive, bytes per second, headers included.
    pub down_bytes_s: u64,
    /// Time from one host with this line to another.
    pub latency: Duration,
    /// What is added to that at random, at most.
    pub jitter: Duration,
    /// Datagrams lost, of a million.
    pub loss_ppm: u32,
    /// Datagrams that arrive twice, of a million.
    pub doubles_ppm: u32,
    /// Bytes of a packet at most, IP, TCP and UDP headers included; longer datagrams are lost.
    pub mtu: u32,
}

impl Link {
    /// A line of a LAN: so many bytes per second each way, 0.2 ms, nothing lost.
    pub const fn lan(bytes_s: u64) -> Self {
        Self {
            up_bytes_s: bytes_s,
            down_bytes_s: bytes_s,
            latency: Duration::from_micros(200),
            jitter: Duration::ZERO,
            loss_ppm: 0,
            doubles_ppm: 0,
            mtu: 1500,
        }
    }

    /// Bytes on the wire for `len` bytes of a stream.
    pub fn wire_len(&self, len: usize) -> u64 {
        let segment = u64::from(self.mtu)
            .saturating_sub(STREAM_HEADERS_LEN)
            .max(1);
        let len = len as u64;
        len + len.div_ceil(segment) * (STREAM_HEADERS_LEN + FRAME_LEN)
    }

    /// Bytes on the wire for a datagram of `len` bytes.
    pub fn datagram_wire_len(len: usize) -> u64 {
        len as u64 + DATAGRAM_HEADERS_LEN + FRAME_LEN
    }

    /// Share of the rate that is left for the bytes of streams, in full packets.
    pub fn goodput(&self) -> f64 {
        let segment = f64::from(self.mtu) - STREAM_HEADERS_LEN as f64;
        segment / (segment + (STREAM_HEADERS_LEN + FRAME_LEN) as f64)
    }
}

/// What joins a rack to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// What the rack can send, bytes per second.
    pub up_bytes_s: u64,
    /// What it can receive, bytes per second.
    pub down_bytes_s: u64,
    /// What crossing between two racks adds to the latency.
    pub latency: Duration,
}

/// A rack: hosts behind one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RackId(pub u32);

/// All lines.
#[derive(Debug, Default)]
pub struct Lines {
    hosts: Vec<HostLine>,
    racks: Vec<RackLine>,
    /// Ways that are cut, each in one direction.
    cut: BTreeSet<(HostId, HostId)>,
    /// Some way may be cut.
    has_cuts: bool,
}

#[derive(Debug)]
struct HostLine {
    link: Link,
    rack: Option<RackId>,
    /// Hosts of one number hear each other's multicast.
    lan: u32,
    up_free: Nanos,
    down_free: Nanos,
    /// When the line in would be free if it carried datagrams alone.
    datagrams_free: Nanos,
    /// Hosts of different islands do not reach each other.
    island: u32,
    is_up: bool,
}

#[derive(Debug)]
struct RackLine {
    uplink: Uplink,
    up_free: Nanos,
    down_free: Nanos,
    up_bytes: u64,
    down_bytes: u64,
}

/// Nanoseconds since virtual time began: a small message takes less than a microsecond.
type Nanos = u64;

impl Lines {
    /// A host with its line. Each rack is a LAN of its own, and the hosts in none are another.
    pub fn add_host(&mut self, link: Link, rack: Option<RackId>) {
        self.hosts.push(HostLine {
            link,
            rack,
            lan: rack.map_or(0, |rack| rack.0 + 1),
            up_free: 0,
            down_free: 0,
            datagrams_free: 0,
            island: 0,
            is_up: true,
        });
    }

    /// A rack.
    pub fn add_rack(&mut self, uplink: Uplink) -> RackId {
        self.racks.push(RackLine {
            uplink,
            up_free: 0,
            down_free: 0,
            up_bytes: 0,
            down_bytes: 0,
        });
        RackId(self.racks.len() as u32 - 1)
    }

    /// A host's line.
    pub fn link(&self, host: HostId) -> &Link {
        &self.host(host).link
    }

    /// Changes a host's line from now on.
    pub fn set_link(&mut self, host: HostId, link: Link) {
        self.host_mut(host).link = link;
    }

    /// A host's rack.
    pub fn rack(&self, host: HostId) -> Option<RackId> {
        self.host(host).rack
    }

    /// The LAN of a host: multicast reaches those of the same number.
    pub fn lan(&self, host: HostId) -> u32 {
        self.host(host).lan
    }

    /// Puts a host into another LAN.
    pub fn set_lan(&mut self, host: HostId, lan: u32) {
        self.host_mut(host).lan = lan;
    }

    /// The others that are on a host's LAN, and itself: its system loops multicast back.
    pub fn neighbours(&self, host: HostId) -> impl Iterator<Item = HostId> + '_ {
        let lan = self.lan(host);
        let all = (0..).map(HostId).zip(&self.hosts);
        all.filter(move |(_, other)| other.lan == lan)
            .map(|(id, _)| id)
    }

    /// Bytes that crossed a rack's uplink so far, out and in.
    pub fn crossed(&self, rack: RackId) -> (u64, u64) {
        let rack = &self.racks[rack.0 as usize];
        (rack.up_bytes, rack.down_bytes)
    }

    /// When the host can send the next chunk.
    pub fn free_at(&self, host: HostId) -> Instant {
        Instant::from_micros(self.host(host).up_free.div_ceil(1000))
    }

    /// Time from one host to the other.
    pub fn delay(&self, from: HostId, to: HostId) -> Duration {
        let (a, b) = (self.host(from), self.host(to));
        let racks = match (a.rack, b.rack) {
            (Some(x), Some(y)) if x != y => {
                (self.racks[x.0 as usize].uplink.latency + self.racks[y.0 as usize].uplink.latency)
                    / 2
            }
            _ => Duration::ZERO,
        };
        (a.link.latency + b.link.latency) / 2 + racks
    }

    /// What chance adds to that.
    pub fn jitter(&self, from: HostId, to: HostId, rng: &mut Rng) -> Duration {
        let most = (self.link(from).jitter + self.link(to).jitter) / 2;
        match most.as_micros() as u32 {
            0 => Duration::ZERO,
            micros => Duration::from_micros(u64::from(rng.below(micros))),
        }
    }

    /// Sends so many bytes; when the last of them has left.
    pub fn leave(&mut self, from: HostId, len: usize, now: Instant) -> Instant {
        let line = self.host_mut(from);
        let wire = line.link.wire_len(len);
        line.up_free = line.up_free.max(nanos(now)) + takes(wire, line.link.up_bytes_s);
        Instant::from_micros(line.up_free.div_ceil(1000))
    }

    /// When the last of so many bytes that left at `left` arrives. Each line on the way carries
    /// one chunk after the other, in the order of leaving.
    pub fn arrive(&mut self, from: HostId, to: HostId, len: usize, left: Instant) -> Instant {
        let wire = self.link(to).wire_len(len);
        let at = self.cross(from, to, wire, nanos(left));
        let sending = takes(wire, self.link(from).up_bytes_s);
        let line = self.host_mut(to);
        // A chunk arrives while it is still leaving: its first byte is that much earlier.
        let taken = takes(wire, line.link.down_bytes_s);
        line.down_free = line.down_free.max(at - sending.min(taken)) + taken;
        Instant::from_micros(line.down_free.div_ceil(1000))
    }

    /// When the last of so many bytes on the wire reaches the line of its receiver.
    fn cross(&mut self, from: HostId, to: HostId, wire: u64, left: Nanos) -> Nanos {
        let delay = self.delay(from, to);
        let mut at = left;
        if let (Some(x), Some(y)) = (self.rack(from), self.rack(to))
            && x != y
        {
            let line = &mut self.racks[x.0 as usize];
            line.up_bytes += wire;
            line.up_free = line.up_free.max(at) + takes(wire, line.uplink.up_bytes_s);
            at = line.up_free;
            let line = &mut self.racks[y.0 as usize];
            line.down_bytes += wire;
            line.down_free = line.down_free.max(at) + takes(wire, line.uplink.down_bytes_s);
            at = line.down_free;
        }
        at + delay.as_nanos() as u64
    }

    /// Sends a datagram; when it has left, or `None` if more wait already than a socket holds.
    pub fn leave_datagram(&mut self, from: HostId, len: usize, now: Instant) -> Option<Instant> {
        let line = self.host_mut(from);
        let rate = line.link.up_bytes_s;
        if line.up_free > nanos(now) + takes(DATAGRAMS_WAITING_LEN, rate) {
            return None;
        }
        line.up_free = line.up_free.max(nanos(now)) + takes(Link::datagram_wire_len(len), rate);
        Some(Instant::from_micros(line.up_free.div_ceil(1000)))
    }

    /// When a datagram that left at `left` arrives; `None` if the line in has more of them than
    /// it carries. What streams have under way delays it by the length of a queue at most: more
    /// than that waits at their senders.
    pub fn arrive_datagram(
        &mut self,
        from: HostId,
        to: HostId,
        len: usize,
        left: Instant,
    ) -> Option<Instant> {
        let wire = Link::datagram_wire_len(len);
        let at = self.cross(from, to, wire, nanos(left));
        let line = self.host_mut(to);
        let (taken, queue) = (
            takes(wire, line.link.down_bytes_s),
            takes(DATAGRAMS_WAITING_LEN, line.link.down_bytes_s),
        );
        if line.datagrams_free > at + queue {
            return None;
        }
        line.datagrams_free = line.datagrams_free.max(at) + taken;
        line.down_free = line.down_free.max(at) + taken;
        let arrival = line.down_free.min(line.datagrams_free + queue);
        Some(Instant::from_micros(arrival.div_ceil(1000)))
    }

    /// Whether a datagram is lost: by chance, or as it fits into no packet.
    pub fn loses(&self, from: HostId, to: HostId, len: usize, rng: &mut Rng) -> bool {
        let (a, b) = (self.link(from), self.link(to));
        let chance = a.loss_ppm / 2 + b.loss_ppm / 2;
        let fits = len as u64 + DATAGRAM_HEADERS_LEN <= u64::from(a.mtu.min(b.mtu));
        !fits || (chance > 0 && rng.below(1_000_000) < chance)
    }

    /// Whether a datagram arrives twice.
    pub fn doubles(&self, from: HostId, to: HostId, rng: &mut Rng) -> bool {
        let chance = self.link(from).doubles_ppm / 2 + self.link(to).doubles_ppm / 2;
        chance > 0 && rng.below(1_000_000) < chance
    }

    /// Puts hosts on an island: they reach each other and nobody else.
    pub fn set_island(&mut self, host: HostId, island: u32) {
        self.host_mut(host).island = island;
        self.has_cuts = true;
    }

    /// Cuts or opens the way from one host to another, not the way back.
    pub fn set_cut(&mut self, from: HostId, to: HostId, is_cut: bool) {
        if is_cut {
            self.cut.insert((from, to));
            self.has_cuts = true;
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Opens all ways.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.has_cuts = false;
        self.hosts.iter_mut().for_each(|host| host.island = 0);
    }

    /// Switches a host on or off.
    pub fn set_up(&mut self, host: HostId, is_up: bool) {
        self.host_mut(host).is_up = is_up;
    }

    /// Whether a host is switched on.
    pub fn is_up(&self, host: HostId) -> bool {
        self.hosts.get(host.0 as usize).is_some_and(|h| h.is_up)
    }

    /// Whether what one host sends reaches the other's line.
    pub fn is_open(&self, from: HostId, to: HostId) -> bool {
        !self.has_cuts
            || (self.host(from).island == self.host(to).island && !self.cut.contains(&(from, to)))
    }

    fn host(&self, host: HostId) -> &HostLine {
        &self.hosts[host.0 as usize]
    }

    fn host_mut(&mut self, host: HostId) -> &mut HostLine {
        &mut self.hosts[host.0 as usize]
    }
}

fn nanos(at: Instant) -> Nanos {
    at.as_micros() * 1000
}

/// How long a line is busy with so many bytes.
fn takes(len: u64, bytes_s: u64) -> Nanos {
    len.saturating_mul(1_000_000_000) / bytes_s.max(1)
}

/// IPv4 and TCP headers of a segment, bytes.
const STREAM_HEADERS_LEN: u64 = 40;
/// Ethernet header, checksum, preamble and gap of a packet, bytes.
const FRAME_LEN: u64 = 38;
/// IPv4 and UDP headers of a datagram, bytes.
const DATAGRAM_HEADERS_LEN: u64 = 28;
/// Bytes of datagrams that wait for a line at most: what Linux grants a socket.
const DATAGRAMS_WAITING_LEN: u64 = 212_992;

#[cfg(test)]
mod tests {
    use super::*;

    fn two(bytes_s: u64) -> Lines {
        let mut lines = Lines::default();
        (0..2).for_each(|_| lines.add_host(Link::lan(bytes_s), None));
        lines
    }

    #[test]
    fn a_line_carries_its_rate_and_no_more() {
        let mut lines = two(1_000_000);
        let (a, b) = (HostId(0), HostId(1));
        let mut last = Instant::ZERO;
        for _ in 0..100 {
            let left = lines.leave(a, 14_600, Instant::ZERO);
            last = lines.arrive(a, b, 14_600, left);
        }
        let wire = Link::lan(1).wire_len(14_600) * 100;
        let expected = wire + 200; // microseconds at a byte each, and the latency
        assert_eq!(last.as_micros(), expected);
    }

    #[test]
    fn two_racks_share_one_uplink() {
        let mut lines = Lines::default();
        let uplink = Uplink {
            up_bytes_s: 1_000_000,
            down_bytes_s: 1_000_000,
            latency: Duration::from_millis(1),
        };
        let (x, y) = (lines.add_rack(uplink), lines.add_rack(uplink));
        for rack in [x, x, y, y] {
            lines.add_host(Link::lan(1_000_000_000), Some(rack));
        }
        let mut last = Instant::ZERO;
        for (from, to) in [(0, 2), (1, 3)] {
            let left = lines.leave(HostId(from), 500_000, Instant::ZERO);
            last = last.max(lines.arrive(HostId(from), HostId(to), 500_000, left));
        }
        let wire = Link::lan(1).wire_len(500_000);
        assert_eq!(lines.crossed(x), (2 * wire, 0));
        assert!(
            last.as_micros() >= 2 * wire,
            "both went over one uplink: {last}"
        );
        let left = lines.leave(HostId(0), 500_000, last);
        let near = lines.arrive(HostId(0), HostId(1), 500_000, left);
        assert!(
            near - last < Duration::from_millis(2),
            "inside a rack: {near}"
        );
    }

    #[test]
    fn islands_and_one_way_cuts_hold_until_healed() {
        let mut lines = two(1);
        let (a, b) = (HostId(0), HostId(1));
        lines.set_cut(a, b, true);
        assert!(!lines.is_open(a, b) && lines.is_open(b, a));
        lines.set_island(a, 7);
        assert!(!lines.is_open(b, a));
        lines.heal();
        assert!(lines.is_open(a, b) && lines.is_open(b, a));
    }

    #[test]
    fn datagrams_are_lost_as_often_as_said_and_always_when_too_long() {
        let mut lines = Lines::default();
        let link = Link {
            loss_ppm: 250_000,
            ..Link::lan(1)
        };
        (0..2).for_each(|_| lines.add_host(link, None));
        let mut rng = Rng::new(5);
        let lost = (0..10_000).filter(|_| lines.loses(HostId(0), HostId(1), 100, &mut rng));
        let lost = lost.count();
        assert!((2_000..3_000).contains(&lost), "{lost} of 10000");
        assert!(lines.loses(HostId(0), HostId(1), 1473, &mut rng));
    }

    #[test]
    fn a_line_full_of_datagrams_loses_the_rest() {
        let mut lines = two(1_000_000);
        let (a, b) = (HostId(0), HostId(1));
        let left = (0..1000).map_while(|_| lines.leave_datagram(a, 934, Instant::ZERO));
        let left: Vec<Instant> = left.collect();
        assert_eq!(left.len(), 213, "a thousand bytes each on the wire");
        let last = left.last().map(|at| at.as_micros());
        assert_eq!(last, Some(213_000), "one after the other");
        let arrivals = (0..1000).map_while(|_| lines.arrive_datagram(a, b, 934, Instant::ZERO));
        assert_eq!(
            arrivals.count(),
            213,
            "its receiver's line has as much room"
        );
    }

    #[test]
    fn streams_delay_a_datagram_by_a_queue_at_most() {
        let mut lines = two(1_000_000);
        let (a, b) = (HostId(0), HostId(1));
        let left = Instant::from_micros(20_000_000);
        for _ in 0..2 {
            lines.arrive(a, b, 10_000_000, left);
        }
        let arrival = lines.arrive_datagram(a, b, 100, left);
        let late = arrival.expect("there is room") - left;
        let late = late.as_micros();
        assert!((212_000..214_000).contains(&late), "{late} µs");
    }

    #[test]
    fn a_rack_is_a_lan_of_its_own_unless_told_otherwise() {
        let mut lines = two(1);
        let uplink = Uplink {
            up_bytes_s: 1,
            down_bytes_s: 1,
            latency: Duration::ZERO,
        };
        let rack = lines.add_rack(uplink);
        (0..2).for_each(|_| lines.add_host(Link::lan(1), Some(rack)));
        let of = |lines: &Lines, host| lines.neighbours(HostId(host)).collect::<Vec<_>>();
        assert_eq!(of(&lines, 0), [HostId(0), HostId(1)]);
        assert_eq!(of(&lines, 3), [HostId(2), HostId(3)]);
        lines.set_lan(HostId(3), 0);
        assert_eq!(of(&lines, 3), [HostId(0), HostId(1), HostId(3)]);
    }
}
