//! What a host sends by UDP, and whom it dials: nobody shall make it a weapon.
//!
//! Whoever writes another's address as the source of a datagram lets our answer hit that one. So
//! until an address has shown that it hears us, it gets no more bytes than came from it. It shows
//! that by sending something back that we alone have sent there: the connection id of our
//! tracker, or the transaction of what we asked (BEP 15).
//!
//! Whoever tells us of addresses lets us dial them. On our own link that is what they are for;
//! elsewhere no host and no network is dialled often because of what somebody says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Judges;
use crate::base::time::Instant;
use crate::sim::HostId;
use crate::sim::net::Datagram;
use crate::sim::net::datagram::{Amount, DatagramLedger};

/// What one host sent and heard by UDP.
#[derive(Debug, Default)]
pub(super) struct Meters {
    remotes: BTreeMap<SocketAddr, Meter>,
    /// Until when its multicasts fill the rate that they may have.
    groups_full: Instant,
    /// When addresses off-link were dialled, and networks of them.
    dialled: BTreeMap<IpAddr, VecDeque<Instant>>,
    networks: BTreeMap<[u8; 3], VecDeque<Instant>>,
}

/// What went to and came from one address.
#[derive(Debug, Default)]
struct Meter {
    bytes_in: u64,
    bytes_out: u64,
    /// Connection ids that were given to it.
    given: BTreeSet<[u8; 8]>,
    /// Transactions that it was asked to answer.
    asked: BTreeSet<[u8; 4]>,
    is_proven: bool,
}

impl Meter {
    fn heard(&mut self, bytes: &[u8]) {
        self.bytes_in += bytes.len() as u64;
        let id = bytes.first_chunk::<8>();
        let transaction = bytes.get(4..8).and_then(|rest| rest.first_chunk::<4>());
        self.is_proven |= id.is_some_and(|id| self.given.contains(id))
            || transaction.is_some_and(|of| self.asked.contains(of));
    }

    fn sent(&mut self, bytes: &[u8]) {
        if bytes.len() == 16 && bytes.starts_with(&CONNECT) {
            // Our own question, to a tracker that the user or the torrent named.
            self.asked.extend(bytes.last_chunk::<4>());
            return;
        }
        if let ([0, 0, 0, 0, _, _, _, _, id @ ..], 16) = (bytes, bytes.len()) {
            self.given.extend(id.first_chunk::<8>());
        }
        self.bytes_out += bytes.len() as u64;
    }
}

impl Judges {
    /// An engine sends a datagram.
    pub fn datagram_sent(
        &mut self,
        host: HostId,
        own: SocketAddr,
        datagram: &Datagram,
        clock: Instant,
    ) {
        let (to, bytes) = (datagram.to, &datagram.bytes);
        if datagram.from != own {
            let text = format!("sends from {}, which is not its own", datagram.from);
            self.blame("datagrams", Some(host), text);
        }
        if to.ip().is_multicast() || to.ip().is_unspecified() || to.port() == 0 {
            let text = format!("sends {} B to {to} at {clock}", bytes.len());
            return self.blame("datagrams", Some(host), text);
        }
        let Some(meters) = self.meters.get_mut(&host) else {
            return;
        };
        let meter = meters.remotes.entry(to).or_default();
        meter.sent(bytes);
        if !meter.is_proven && meter.bytes_out > meter.bytes_in {
            let (sent, heard) = (meter.bytes_out, meter.bytes_in);
            let text = format!("sent {sent} B to {to}, which proved nothing by its {heard} B");
            self.blame("amplify", Some(host), text);
        }
    }

    /// An engine is given a datagram.
    pub fn datagram_heard(&mut self, host: HostId, datagram: &Datagram) {
        if let Some(meters) = self.meters.get_mut(&host) {
            let meter = meters.remotes.entry(datagram.from).or_default();
            meter.heard(&datagram.bytes);
        }
    }

    /// An engine dials an address off-link that no user named.
    pub fn dialled(&mut self, host: HostId, remote: SocketAddr, clock: Instant) {
        let Some(meters) = self.meters.get_mut(&host) else {
            return;
        };
        let ip = remote.ip();
        let times = meters.dialled.entry(ip).or_default();
        let often = count_in(times, clock, DIALS_TIME);
        let network = match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                let times = meters.networks.entry([a, b, c]).or_default();
                count_in(times, clock, NETWORK_DIALS_TIME)
            }
            IpAddr::V6(_) => 0,
        };
        if often > DIALS_MAX || network > NETWORK_DIALS_MAX || remote.port() < 1024 {
            let text = format!("dials {remote}: {often} times, {network} in its network");
            self.blame("dials", Some(host), text);
        }
    }

    /// An engine sends to a group, by an interface that it has or by none.
    pub fn multicast_sent(&mut self, host: HostId, is_known: bool, bytes: &[u8], clock: Instant) {
        let name: String = self
            .meta
            .info_hash
            .0
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let said = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        if self.meta.private && said.contains(&name) {
            let text = "tells its link of a private swarm".to_owned();
            return self.blame("private", Some(host), text);
        }
        if !is_known {
            let text = "sends by an interface that it does not have".to_owned();
            return self.blame("groups", Some(host), text);
        }
        let Some(meters) = self.meters.get_mut(&host) else {
            return;
        };
        meters.groups_full = meters.groups_full.max(clock) + MULTICAST_TIME;
        if meters.groups_full - clock > MULTICAST_TIME * MULTICASTS_AT_ONCE_MAX {
            let text = "sends more than 5 multicasts a second".to_owned();
            self.blame("groups", Some(host), text);
        }
    }

    /// No datagram is made or lost but by the network.
    pub fn datagrams_conserved(&mut self, ledger: DatagramLedger, in_flight: Amount) {
        let made = ledger.sent.plus(ledger.doubled);
        let gone = ledger.delivered.plus(ledger.lost).plus(in_flight);
        if made != gone {
            self.blame(
                "datagrams",
                None,
                format!("{ledger:?}, {in_flight:?} under way"),
            );
        }
    }
}

/// Notes that something happened; how often it did in the last `time`.
fn count_in(times: &mut VecDeque<Instant>, now: Instant, time: Duration) -> usize {
    while times.front().is_some_and(|&at| now - at >= time) {
        times.pop_front();
    }
    times.push_back(now);
    times.len()
}

/// Attempts to dial one address off-link, and in which time.
const DIALS_MAX: usize = 3;
const DIALS_TIME: Duration = Duration::from_secs(600);
/// Attempts to dial addresses of one network (/24) off-link, and in which time.
const NETWORK_DIALS_MAX: usize = 20;
const NETWORK_DIALS_TIME: Duration = Duration::from_secs(60);
/// What a request for a connection id begins with (BEP 15): a fixed number, and action 0.
const CONNECT: [u8; 12] = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
/// Time between two multicasts of a host in the long run: 5 a second.
const MULTICAST_TIME: Duration = Duration::from_millis(200);
/// Multicasts that may leave at once after a silence: those of a second.
const MULTICASTS_AT_ONCE_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::sim::host::address;
    use crate::sim::spec::{Judged, Payload, tagged_torrent};

    const HOST: HostId = HostId(0);

    struct Court {
        judges: Judges,
        host: SocketAddr,
        other: SocketAddr,
    }

    impl Court {
        fn new() -> Self {
            let meta = tagged_torrent(1, 16 * 1024, &mut Rng::new(1));
            let mut judges = Judges::new(Judged::Strictly, meta, Payload::Tagged);
            judges.started(HOST);
            Self {
                judges,
                host: address(HOST),
                other: address(HostId(1)),
            }
        }

        fn hears(&mut self, bytes: &[u8]) {
            let datagram = self.datagram(self.other, self.host, bytes);
            self.judges.datagram_heard(HOST, &datagram);
        }

        /// Which judge finds fault with what the host sends.
        fn sends(&mut self, bytes: &[u8]) -> Option<&'static str> {
            let datagram = self.datagram(self.host, self.other, bytes);
            self.judges
                .datagram_sent(HOST, self.host, &datagram, Instant::ZERO);
            self.judges.take_fault().map(|fault| fault.judge)
        }

        fn datagram(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Datagram {
            Datagram {
                from,
                to,
                bytes: bytes.to_vec().into(),
            }
        }
    }

    #[test]
    fn who_proved_nothing_gets_no_more_than_it_sent() {
        let mut court = Court::new();
        assert_eq!(court.sends(&[7]), Some("amplify"));
        let mut court = Court::new();
        court.hears(&[0; 20]);
        assert_eq!(court.sends(&[1; 20]), None);
        assert_eq!(court.sends(&[1]), Some("amplify"));
    }

    #[test]
    fn who_sends_back_what_was_sent_there_has_proven_itself() {
        let connect = [&CONNECT[..], b"abcd"].concat();
        let answer = [&[0, 0, 0, 0][..], b"abcd", b"the-id--"].concat();
        let mut court = Court::new();
        court.hears(&connect);
        assert_eq!(court.sends(&answer), None);
        court.hears(&[&b"other-id"[..], &[0; 8]].concat());
        assert_eq!(court.sends(&[1; 20]), Some("amplify"), "a guess");
        court.hears(&[&b"the-id--"[..], &[0; 8]].concat());
        assert_eq!(court.sends(&[1; 1000]), None, "tracker");

        let mut court = Court::new();
        assert_eq!(court.sends(&connect), None, "a question of our own");
        assert_eq!(court.sends(&[1; 98]), Some("amplify"));
        court.hears(&answer);
        assert_eq!(court.sends(&[1; 98]), None, "tracker's client");
    }

    #[test]
    fn addresses_of_nobody_are_not_sent_to() {
        let mut court = Court::new();
        for nowhere in ["10.0.0.2:0", "0.0.0.0:9", "239.192.152.143:6771"] {
            court.other = nowhere.parse().expect("an address");
            court.hears(&[0; 20]);
            assert_eq!(court.sends(&[1]), Some("datagrams"), "{nowhere}");
        }
        court.other = address(HostId(1));
        court.hears(&[0; 20]);
        court.host = address(HostId(2));
        let lie = court.datagram(address(HostId(3)), court.other, &[1]);
        court
            .judges
            .datagram_sent(HOST, court.host, &lie, Instant::ZERO);
        assert!(court.judges.take_fault().is_some(), "another's address");
    }

    #[test]
    fn nobody_off_link_is_dialled_often() {
        let dials = |court: &mut Court, remote: &str, at_s: u64| {
            let at = Instant::from_micros(at_s * 1_000_000);
            let remote = remote.parse().expect("an address");
            court.judges.dialled(HOST, remote, at);
            court.judges.take_fault().map(|fault| fault.judge)
        };
        let mut court = Court::new();
        for at in [0, 10, 20, 600, 610, 620] {
            assert_eq!(dials(&mut court, "192.0.2.1:6881", at), None, "{at}");
        }
        let again = dials(&mut court, "192.0.2.1:7000", 630);
        assert_eq!(again, Some("dials"), "another port is the same host");
        let mut court = Court::new();
        for host in 1..=20 {
            let remote = format!("192.0.2.{host}:6881");
            assert_eq!(dials(&mut court, &remote, 0), None, "{remote}");
        }
        assert_eq!(dials(&mut court, "192.0.2.99:6881", 59), Some("dials"));
        let mut court = Court::new();
        assert_eq!(dials(&mut court, "192.0.2.1:80", 0), Some("dials"));
    }

    #[test]
    fn groups_hear_five_a_second_in_the_long_run() {
        let mut court = Court::new();
        let mut sends = |at_ms: u64, is_known| {
            let at = Instant::from_micros(at_ms * 1000);
            court.judges.multicast_sent(HOST, is_known, b"", at);
            court.judges.take_fault().map(|fault| fault.judge)
        };
        assert!((0..5).all(|_| sends(10_000, true).is_none()));
        assert!((1..100).all(|turn| sends(10_000 + turn * 200, true).is_none()));
        assert_eq!(sends(29_900, true), Some("groups"), "one more");
        assert_eq!(sends(90_000, false), Some("groups"), "a strange interface");
    }
}
