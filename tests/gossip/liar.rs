//! Hosts that lie, each in its own way, to as many others as will listen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::wire::ev_peers::{
    BUCKET_BITS_MAX, Digest, EntriesWriter, Entry, Hello, Message, NETWORK, Root, Roots, Standing,
    Swarms, Want, Why, is_hello,
};

use super::net::{Out, UNIX_MS};

/// What a liar does every second on each of its links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
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

pub const VICES: [Vice; 7] = [
    Vice::Invents,
    Vice::Future,
    Vice::Buries,
    Vice::Floods,
    Vice::Contradicts,
    Vice::Aims,
    Vice::Digests,
];

/// The victim off our links, and the one on them.
pub const VICTIMS: [[u8; 4]; 2] = [[93, 184, 215, 14], [10, 200, 200, 200]];

pub struct Liar {
    vice: Vice,
    /// Whom it knows: everybody.
    honest: Vec<SocketAddr>,
    /// Its links, and whether the other side said hello.
    links: BTreeMap<u32, bool>,
    dialling: usize,
    next: Instant,
    count: u32,
    /// It stops at this moment.
    until: Instant,
    answers: Vec<(u32, Bytes)>,
    /// Times that a link of it was ended.
    pub ended: u32,
}

impl Liar {
    pub fn new(vice: Vice, honest: Vec<SocketAddr>, until: Instant) -> Self {
        Self {
            vice,
            honest,
            links: BTreeMap::new(),
            dialling: 0,
            next: Instant::ZERO,
            count: 0,
            until,
            answers: Vec::new(),
            ended: 0,
        }
    }

    pub fn ready(&mut self, wire: u32, _: SocketAddr) {
        self.dialling = self.dialling.saturating_sub(1);
        self.links.insert(wire, false);
        self.answers.push((wire, hello()));
    }

    pub fn received(&mut self, wire: u32, body: &[u8]) {
        let is_new = self.links.get(&wire) == Some(&false);
        if is_new && is_hello(body) {
            self.links.insert(wire, true);
            self.answers.push((wire, Swarms::encode(UNIX_MS, [])));
        }
        if let Ok(Message::Bye(_)) = Message::decode(body) {
            self.links.insert(wire, false);
        }
    }

    pub fn closed(&mut self, wire: u32) {
        self.links.remove(&wire);
        self.ended += 1;
    }

    pub fn drive(&mut self, now: Instant, rng: &mut Rng, out: &mut Out) -> Instant {
        out.bodies.append(&mut self.answers);
        if now >= self.until {
            out.closes
                .extend(std::mem::take(&mut self.links).into_keys());
            return Instant::NEVER;
        }
        if now < self.next {
            return self.next;
        }
        self.next = now + Duration::from_secs(1);
        let links: Vec<u32> = self
            .links
            .iter()
            .filter(|(_, met)| **met)
            .map(|(w, _)| *w)
            .collect();
        for wire in links {
            let lies = self.lies(now, rng);
            out.bodies.extend(lies.into_iter().map(|body| (wire, body)));
        }
        for _ in self.links.len()..8 {
            let victim = self.honest[rng.below(self.honest.len() as u32) as usize];
            out.dials.push(victim);
        }
        self.next
    }

    fn lies(&mut self, now: Instant, rng: &mut Rng) -> Vec<Bytes> {
        let clock_ms = UNIX_MS + now.as_micros() / 1000;
        let hour_ms = 3600 * 1000;
        let mut any = || self.honest[rng.below(self.honest.len() as u32) as usize];
        match self.vice {
            Vice::Invents => {
                let entries = (0..100).map(|_| {
                    self.count += 1;
                    let [_, b, c, d] = (self.count * 7919).to_be_bytes();
                    entry(
                        ([10, 128 | b, c, d], 6881).into(),
                        clock_ms,
                        Standing::Leecher,
                    )
                });
                vec![news(entries.collect())]
            }
            Vice::Future => {
                let far = (0..50).map(|_| entry(any(), clock_ms + 48 * hour_ms, Standing::Left));
                let far = news(far.collect());
                let near = (0..2).map(|_| entry(any(), clock_ms + 11 * hour_ms, Standing::Seed));
                vec![far, news(near.collect())]
            }
            Vice::Buries => {
                let graves = (0..5).map(|_| entry(any(), clock_ms + 60_000, Standing::Left));
                vec![news(graves.collect())]
            }
            Vice::Floods => {
                let same = (0..1500).map(|_| entry(any(), UNIX_MS, Standing::Leecher));
                let same = news(same.collect());
                vec![same; 30]
            }
            Vice::Contradicts => {
                self.count += 1;
                let standing = [Standing::Left, Standing::Leecher, Standing::Seed];
                let standing = standing[self.count as usize % 3];
                let entries = (0..5).map(|_| entry(any(), clock_ms / 1000 * 1000, standing));
                vec![news(entries.collect())]
            }
            Vice::Aims => {
                let entries = (0..100_u16).flat_map(|n| {
                    let port = 1025 + (self.count as u16).wrapping_mul(100) % 60_000 + n;
                    VICTIMS.map(|ip| entry((ip, port).into(), clock_ms, Standing::Leecher))
                });
                let entries = entries.collect();
                self.count += 1;
                vec![news(entries)]
            }
            Vice::Digests => {
                self.count += 1;
                let sums: Vec<u64> = (0..256).map(|n| n * u64::from(self.count)).collect();
                let root = Root {
                    handle: NETWORK,
                    count: 100_000,
                    root: u64::from(self.count),
                };
                vec![
                    Roots::encode([root]),
                    Digest::encode(NETWORK, &sums[..1 << BUCKET_BITS_MAX]),
                    Digest::encode(NETWORK, &sums[..1]),
                    Want::encode(NETWORK, &[true; 256], true),
                ]
            }
        }
    }
}

fn hello() -> Bytes {
    let hello = Hello {
        salt: [1; 16],
        clock_ms: UNIX_MS,
        is_drawn: true,
    };
    hello.encode()
}

fn entry(addr: SocketAddr, epoch: u64, standing: Standing) -> Entry {
    Entry {
        addr: Some(addr),
        epoch,
        standing,
        is_evpeer: true,
    }
}

fn news(entries: Vec<Entry>) -> Bytes {
    let newest = entries.iter().map(|entry| entry.epoch).max().unwrap_or(0);
    let mut writer = EntriesWriter::entries(Why::News, newest);
    for entry in &entries {
        if writer.has_room() {
            writer.push(NETWORK, entry);
        }
    }
    writer.finish()
}
