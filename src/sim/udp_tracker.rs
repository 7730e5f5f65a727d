//! A UDP tracker (BEP 15) that answers as it was told to, and writes down what it is asked.
//!
//! Like the HTTP one beside it, it has a reader of its own, and tells the truth, lies, fails or is
//! silent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::actor::{Actor, Hands, Input};
use super::net::Datagram;
use crate::base::time::Instant;

/// What a tracker says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpAnswer {
    /// The other peers of the swarm, asked for again in so many seconds.
    Peers(u32),
    /// These instead of them, asked for again in a minute: a lie.
    Lie(Vec<SocketAddr>),
    /// Action 3 with this text.
    Error(String),
    /// The right answer to a transaction that nobody asked for.
    OtherTransaction,
    /// The right answer, but only its first bytes.
    Cut(usize),
    /// The right answer, but from another port of the host.
    OtherPort,
    /// These bytes.
    Raw(Vec<u8>),
    /// Nothing at all.
    Silence,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpAnnounce {
    /// When.
    pub at: Instant,
    /// Where from.
    pub from: SocketAddr,
    /// The swarm.
    pub info_hash: [u8; 20],
    /// Who asks.
    pub peer_id: [u8; 20],
    /// `downloaded`, `left`, `uploaded`, bytes.
    pub downloaded: u64,
    /// Bytes that are missing.
    pub left: u64,
    /// Bytes that were sent.
    pub uploaded: u64,
    /// 0 none, 1 completed, 2 started, 3 stopped.
    pub event: u32,
    /// The address that shall be listed; 0 is the one that asks.
    pub ip: u32,
    /// Tells the tracker that it is still the same peer.
    pub key: u32,
    /// Addresses wanted; -1 leaves it to the tracker.
    pub num_want: i32,
    /// Where the peer listens.
    pub port: u16,
}

/// A tracker on a host.
#[derive(Debug)]
pub struct UdpTracker {
    /// Answers to the next requests for a connection id; then they are answered rightly.
    pub connects: VecDeque<UdpAnswer>,
    /// Answers to the next announces, before `then`.
    pub first: VecDeque<UdpAnswer>,
    /// Answer to all others.
    pub then: UdpAnswer,
    seen: Vec<UdpAnnounce>,
    connected: Vec<(Instant, SocketAddr)>,
    refused: u32,
    ids: BTreeMap<u64, (SocketAddr, Instant)>,
    swarms: BTreeMap<[u8; 20], BTreeMap<SocketAddr, [u8; 20]>>,
}

impl UdpTracker {
    /// A tracker that always answers announces so.
    pub fn new(then: UdpAnswer) -> Self {
        Self {
            connects: VecDeque::new(),
            first: VecDeque::new(),
            then,
            seen: Vec::new(),
            connected: Vec::new(),
            refused: 0,
            ids: BTreeMap::new(),
            swarms: BTreeMap::new(),
        }
    }

    /// Every announce with a good connection id so far.
    pub fn seen(&self) -> &[UdpAnnounce] {
        &self.seen
    }

    /// When who asked for a connection id.
    pub fn connected(&self) -> &[(Instant, SocketAddr)] {
        &self.connected
    }

    /// Requests with a connection id that is not one, or too old, or another's.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    fn received(&mut self, datagram: &Datagram, hands: &mut Hands<'_>) {
        let bytes = &datagram.bytes[..];
        let (Some(id), Some(action), Some(transaction)) =
            (word64(bytes, 0), word(bytes, 8), word(bytes, 12))
        else {
            return;
        };
        let head = |action: u32| [action.to_be_bytes(), transaction.to_be_bytes()].concat();
        if action == 0 && id == CONNECT {
            self.connected.push((hands.now, datagram.from));
            let id = hands.rng.next_u64();
            self.ids.insert(id, (datagram.from, hands.now));
            let right = [head(0), id.to_be_bytes().to_vec()].concat();
            let answer = self.connects.pop_front();
            let answer = answer.unwrap_or(UdpAnswer::Peers(0));
            return self.send(answer, right, transaction, datagram, hands);
        }
        let is_good = self
            .ids
            .get(&id)
            .is_some_and(|&(of, since)| of == datagram.from && hands.now - since < CONNECTION_TIME);
        if !is_good {
            self.refused += 1;
            let text = [head(3), b"bad connection id".to_vec()].concat();
            return hands.send_datagram_as(datagram.to, datagram.from, &text[..16]);
        }
        if action != 1 || bytes.len() < 98 {
            return;
        }
        let announce = read(bytes, datagram.from, hands.now);
        let answer = self.first.pop_front().unwrap_or_else(|| self.then.clone());
        let right = match &answer {
            UdpAnswer::Lie(peers) => list(transaction, LIE_S, peers),
            UdpAnswer::Peers(interval) => {
                self.list(&announce);
                list(transaction, *interval, &self.others(&announce))
            }
            _ => list(transaction, 1800, &self.others(&announce)),
        };
        self.seen.push(announce);
        self.send(answer, right, transaction, datagram, hands);
    }

    fn list(&mut self, announce: &UdpAnnounce) {
        let addr = SocketAddr::new(announce.from.ip(), announce.port);
        let swarm = self.swarms.entry(announce.info_hash).or_default();
        if announce.event == 3 {
            swarm.remove(&addr);
        } else {
            swarm.insert(addr, announce.peer_id);
        }
    }

    fn others(&self, announce: &UdpAnnounce) -> Vec<SocketAddr> {
        let swarm = self.swarms.get(&announce.info_hash);
        let others = swarm.into_iter().flatten();
        let others = others.filter(|(_, id)| **id != announce.peer_id);
        let most = usize::try_from(announce.num_want).unwrap_or(50);
        others.map(|(addr, _)| *addr).take(most).collect()
    }

    fn send(
        &mut self,
        answer: UdpAnswer,
        mut right: Vec<u8>,
        transaction: u32,
        to: &Datagram,
        hands: &mut Hands<'_>,
    ) {
        let mut from = to.to;
        match answer {
            UdpAnswer::Peers(_) | UdpAnswer::Lie(_) => {}
            UdpAnswer::Error(text) => {
                right = 3_u32.to_be_bytes().to_vec();
                right.extend_from_slice(&transaction.to_be_bytes());
                right.extend_from_slice(text.as_bytes());
            }
            UdpAnswer::OtherTransaction => right[4] ^= 1,
            UdpAnswer::Cut(len) => right.truncate(len),
            UdpAnswer::OtherPort => from.set_port(from.port() ^ 1),
            UdpAnswer::Raw(bytes) => right = bytes,
            UdpAnswer::Silence => return,
        }
        hands.send_datagram_as(from, to.from, &right);
    }
}

impl Actor for UdpTracker {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>) {
        match input {
            Input::Datagram(datagram) => self.received(datagram, hands),
            Input::Accepted { conn, .. } => hands.close(conn),
            Input::Joined
            | Input::Connected { .. }
            | Input::Received { .. }
            | Input::Ended { .. }
            | Input::Multicast(_)
            | Input::Timer => {}
        }
    }

    fn is_honest(&self) -> bool {
        true
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at + 8)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*word))
}

/// Reads an announce of at least 98 bytes.
fn read(bytes: &[u8], from: SocketAddr, at: Instant) -> UdpAnnounce {
    let text = |begin: usize| {
        let text = bytes[begin..].first_chunk::<20>();
        *text.expect("an announce is long enough")
    };
    let (word, word64) = (
        |at| word(bytes, at).unwrap_or_default(),
        |at| word64(bytes, at).unwrap_or_default(),
    );
    UdpAnnounce {
        at,
        from,
        info_hash: text(16),
        peer_id: text(36),
        downloaded: word64(56),
        left: word64(64),
        uploaded: word64(72),
        event: word(80),
        ip: word(84),
        key: word(88),
        num_want: word(92) as i32,
        port: u16::from_be_bytes([bytes[96], bytes[97]]),
    }
}

/// An answer with these addresses; none of them counts as a seed.
fn list(transaction: u32, interval: u32, peers: &[SocketAddr]) -> Vec<u8> {
    let words = [1, transaction, interval, peers.len() as u32, 0];
    let mut answer: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    for peer in peers {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        answer.extend_from_slice(&ip.octets());
        answer.extend_from_slice(&peer.port().to_be_bytes());
    }
    answer
}

/// What a request for a connection id begins with.
const CONNECT: u64 = 0x417_2710_1980;
/// How long a connection id is good.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// When who was lied to asks again.
const LIE_S: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::sim::actor::{Deed, Stage};

    /// What a tracker sends to a datagram of `from`.
    fn ask(stage: &mut Stage, from: SocketAddr, bytes: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        let to: SocketAddr = ([10, 0, 0, 1], 6881).into();
        let bytes = bytes.into();
        let datagram = Datagram { from, to, bytes };
        stage.handle(Input::Datagram(&datagram), to, now);
        let sent = |deed| match deed {
            Deed::Datagram(datagram) => datagram.bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        stage.deeds.drain(..).map(sent).collect()
    }

    fn announce(id: &[u8], peer: u8) -> Vec<u8> {
        let mut bytes = [id, &[0, 0, 0, 1, 9, 9, 9, 9], &[7; 20], &[peer; 20]].concat();
        bytes.resize(92, 0);
        bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x1a, 0xe1]);
        bytes
    }

    #[test]
    fn swarm_is_told_to_who_has_a_connection_id_of_its_own() {
        let tracker = UdpTracker::new(UdpAnswer::Peers(60));
        let mut stage = Stage::new(Box::new(tracker), Rng::new(1));
        let (a, b) = (([10, 0, 0, 2], 6881).into(), ([10, 0, 0, 3], 6881).into());
        let hello = [&CONNECT.to_be_bytes()[..], &[0, 0, 0, 0, 1, 2, 3, 4]].concat();
        let now = Instant::from_micros(1);
        let id = |answer: &[Vec<u8>]| answer[0][8..16].to_vec();
        let of_a = id(&ask(&mut stage, a, hello.clone(), now));
        let of_b = id(&ask(&mut stage, b, hello, now));
        let alone = ask(&mut stage, a, announce(&of_a, 1), now);
        assert_eq!(alone[0].len(), 20, "nobody else is there");
        let refused = ask(&mut stage, a, announce(&of_b, 1), now);
        assert_eq!(refused[0].len(), 16, "another's id, and no long answer");
        let both = ask(&mut stage, b, announce(&of_b, 2), now);
        let expected = [0, 0, 0, 1, 9, 9, 9, 9, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(both[0][..20], expected);
        assert_eq!(both[0][20..], [10, 0, 0, 2, 0x1a, 0xe1]);
        let later = now + CONNECTION_TIME;
        assert_eq!(
            ask(&mut stage, b, announce(&of_b, 2), later)[0].len(),
            16,
            "too old"
        );
    }
}
