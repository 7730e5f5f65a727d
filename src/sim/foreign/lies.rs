//! What a liar tells evpeers, and how it comes to be listened to.

use std::net::SocketAddr;

use bytes::Bytes;

use super::Foreign;
use crate::base::id::{ConnId, InfoHash};
use crate::base::rng::Rng;
use crate::sim::actor::Hands;
use crate::wire::ev_peers::{
    BUCKET_BITS_MAX, Digest, EntriesWriter, Entry, Hello, Membership, Message, NETWORK, Root,
    Roots, Salt, Standing, Swarms, Want, Why, tag,
};
use crate::wire::extended::EV_PEERS_ID;
use crate::wire::message::Outgoing;

/// A way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Peers that were never there.
    Invents,
    /// Epochs of the day after tomorrow, and of just not too far.
    Future,
    /// Departures of others.
    Buries,
    /// The same again and again, as much as it can.
    Floods,
    /// Of one epoch to each link something else.
    Contradicts,
    /// A victim off the link, on every port, and one on it.
    Aims,
    /// Digests, roots and wants that fit nothing.
    Digests,
}

/// All of them.
pub const LIES: [Lie; 7] = [
    Lie::Invents,
    Lie::Future,
    Lie::Buries,
    Lie::Floods,
    Lie::Contradicts,
    Lie::Aims,
    Lie::Digests,
];

/// The victim off the links of all hosts, and the one on them.
pub const VICTIMS: [[u8; 4]; 2] = [[93, 184, 215, 14], [10, 200, 200, 200]];

/// Makes up lies about `honest` hosts, and others.
#[derive(Clone, Debug)]
pub struct Liar {
    /// How it lies.
    pub lie: Lie,
    honest: Vec<SocketAddr>,
    count: u32,
}

impl Liar {
    /// One that knows these hosts.
    pub fn new(lie: Lie, honest: Vec<SocketAddr>) -> Self {
        let count = 0;
        Self { lie, honest, count }
    }

    /// What it tells of a list next, as bodies of `ev_peers` messages; `clock_ms` is the hosts'.
    pub fn next(&mut self, list: u16, clock_ms: u64, rng: &mut Rng) -> Vec<Bytes> {
        self.count = self.count.wrapping_add(1);
        let turn = self.count;
        let hour_ms = 3600 * 1000;
        let mut any = || self.honest[rng.below(self.honest.len() as u32) as usize];
        match self.lie {
            Lie::Invents => {
                let entries = (0..100).map(|n| {
                    let number = turn.wrapping_mul(100).wrapping_add(n);
                    let [_, b, c, d] = number.wrapping_mul(7919).to_be_bytes();
                    let addr = ([10, 128 | b, c, d], 6881).into();
                    entry(addr, clock_ms, Standing::Leecher)
                });
                vec![news(list, entries.collect())]
            }
            Lie::Future => {
                let far = (0..50).map(|_| entry(any(), clock_ms + 48 * hour_ms, Standing::Left));
                let far = news(list, far.collect());
                let near = (0..2).map(|_| entry(any(), clock_ms + 11 * hour_ms, Standing::Seed));
                vec![far, news(list, near.collect())]
            }
            Lie::Buries => {
                let graves = (0..5).map(|_| entry(any(), clock_ms + 60_000, Standing::Left));
                vec![news(list, graves.collect())]
            }
            Lie::Floods => {
                let epoch = clock_ms / hour_ms * hour_ms;
                let same = (0..1500).map(|_| entry(any(), epoch, Standing::Leecher));
                vec![news(list, same.collect()); 30]
            }
            Lie::Contradicts => {
                let standing = [Standing::Left, Standing::Leecher, Standing::Seed];
                let standing = standing[turn as usize % 3];
                let entries = (0..5).map(|_| entry(any(), clock_ms / 1000 * 1000, standing));
                vec![news(list, entries.collect())]
            }
            Lie::Aims => {
                let entries = (0..100_u16).flat_map(|n| {
                    let port = 1025 + (turn as u16).wrapping_mul(100) % 60_000 + n;
                    VICTIMS.map(|ip| entry((ip, port).into(), clock_ms, Standing::Leecher))
                });
                vec![news(list, entries.collect())]
            }
            Lie::Digests => {
                let sums: Vec<u64> = (0..256).map(|n| n * u64::from(turn)).collect();
                let root = Root {
                    handle: list,
                    count: 100_000,
                    root: turn.into(),
                };
                vec![
                    Roots::encode([root]),
                    Digest::encode(list, &sums[..1 << BUCKET_BITS_MAX]),
                    Digest::encode(list, &sums[..1]),
                    Want::encode(list, &[true; 256], true),
                ]
            }
        }
    }
}

fn entry(addr: SocketAddr, epoch: u64, standing: Standing) -> Entry {
    Entry {
        addr: Some(addr),
        epoch,
        standing,
        is_evpeer: true,
    }
}

fn news(list: u16, entries: Vec<Entry>) -> Bytes {
    let newest = entries.iter().map(|entry| entry.epoch).max().unwrap_or(0);
    let mut writer = EntriesWriter::entries(Why::News, newest);
    for entry in &entries {
        if writer.has_room() {
            writer.push(list, entry);
        }
    }
    writer.finish()
}

impl Foreign {
    /// What is said of it in its extension handshake, if it lies to evpeers.
    pub(super) fn lies_id(&self) -> String {
        match self.liars.is_empty() {
            true => String::new(),
            false => format!("8:ev_peersi{EV_PEERS_ID}e"),
        }
    }

    /// The other end's extension handshake came: if it wants to hear of evpeers, it is offered a
    /// link.
    pub(super) fn offer_lies(&mut self, conn: ConnId, body: &[u8], hands: &mut Hands<'_>) {
        let key = b"8:ev_peersi";
        let wants = body.windows(key.len()).any(|part| part == key);
        if self.liars.is_empty() || !wants {
            return;
        }
        let clock_ms = hands.now.as_micros() / 1000;
        let hello = Hello {
            salt: SALT,
            clock_ms,
            is_drawn: true,
        };
        self.lie_to(conn, hello.encode(), hands);
    }

    /// An evpeer said something: if it is the answer to an offer, or an offer, there is a link.
    pub(super) fn hear_of_evpeers(&mut self, conn: ConnId, body: &[u8], hands: &mut Hands<'_>) {
        let is_linked = self.peers.get(&conn).is_some_and(|peer| peer.is_told_lies);
        match Message::decode(body) {
            Ok(Message::Hello(hello)) if !is_linked => {
                let epoch = hands.now.as_micros() / 1000;
                let swarm = InfoHash(self.meta.info_hash.0);
                let membership = Membership {
                    handle: SWARM,
                    standing: Standing::Leecher,
                    epoch,
                    tag: tag(&SALT, &hello.salt, swarm),
                };
                self.lie_to(conn, Swarms::encode(epoch, [membership]), hands);
                self.set_told_lies(conn, true);
            }
            Ok(Message::Bye(_)) => self.set_told_lies(conn, false),
            _ => {}
        }
    }

    fn set_told_lies(&mut self, conn: ConnId, is_told: bool) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.is_told_lies = is_told;
        }
    }

    /// Tells the next lies to everybody who listens.
    pub(super) fn lie(&mut self, hands: &mut Hands<'_>) {
        let told = self.peers.iter().filter(|(_, peer)| peer.is_told_lies);
        let conns: Vec<ConnId> = told.map(|(&conn, _)| conn).collect();
        let clock_ms = hands.now.as_micros() / 1000;
        for conn in conns {
            let list = [NETWORK, SWARM][hands.rng.below(2) as usize];
            let mut liars = std::mem::take(&mut self.liars);
            for liar in &mut liars {
                for body in liar.next(list, clock_ms, hands.rng) {
                    if hands.unsent(conn) < UNSENT_MAX {
                        self.lie_to(conn, body, hands);
                    }
                }
            }
            self.liars = liars;
        }
    }

    fn lie_to(&mut self, conn: ConnId, body: Bytes, hands: &mut Hands<'_>) {
        let id = EV_PEERS_ID;
        self.say(conn, &Outgoing::Extended { id, body }, hands);
    }
}

/// Its number for the swarm.
const SWARM: u16 = 1;
const SALT: Salt = [1; 16];
/// Bytes of lies that wait to leave.
const UNSENT_MAX: usize = 512 * 1024;
