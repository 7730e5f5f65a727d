//! Hosts that lie, each in its own way, to as many others as will listen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::sim::foreign::{Liar as Lies, Lie};
use evpeer::wire::ev_peers::{Hello, Message, NETWORK, Swarms, is_hello};

use super::net::{Out, UNIX_MS};

/// A host that lies.
pub struct Liar {
    lies: Lies,
    /// Whom it knows: everybody.
    honest: Vec<SocketAddr>,
    /// Its links, and whether the other side said hello.
    links: BTreeMap<u32, bool>,
    dialling: usize,
    next: Instant,
    /// It stops at this moment.
    until: Instant,
    answers: Vec<(u32, Bytes)>,
    /// Times that a link of it was ended.
    pub ended: u32,
}

impl Liar {
    pub fn new(lie: Lie, honest: Vec<SocketAddr>, until: Instant) -> Self {
        Self {
            lies: Lies::new(lie, honest.clone()),
            honest,
            links: BTreeMap::new(),
            dialling: 0,
            next: Instant::ZERO,
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
            let clock_ms = UNIX_MS + now.as_micros() / 1000;
            let lies = self.lies.next(NETWORK, clock_ms, rng);
            out.bodies.extend(lies.into_iter().map(|body| (wire, body)));
        }
        for _ in self.links.len()..8 {
            let victim = self.honest[rng.below(self.honest.len() as u32) as usize];
            out.dials.push(victim);
        }
        self.next
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
