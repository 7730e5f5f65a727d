//! The tracker over UDP (BEP 15): no state but the swarms', no answer to who may be somebody else.

use bytes::Bytes;

use super::{Announce, NOT_TRACKED, Server, told_count};
use crate::base::id::InfoHash;
use crate::base::limits::{TOLD_PEERS_MAX, TOLD_PEERS6_DATAGRAM_MAX};
use crate::base::time::Instant;
use crate::tracker::asker::{Asker, Nearness};
use crate::tracker::registry::Families;
use crate::wire::query::Form;
use crate::wire::udp_tracker::{Reply, Request, ScrapeEntry, UdpAnnounce};

impl Server {
    /// Answers a datagram (BEP 15), if it is to be answered: not what is no tracker's request,
    /// has no valid connection id, or is too much.
    ///
    /// uTP and DHT datagrams can be told apart before: the first byte of a tracker request is 0,
    /// or has `e` as its second hex digit.
    pub fn datagram(&mut self, bytes: &[u8], asker: &Asker<'_>, now: Instant) -> Option<Bytes> {
        let request = Request::decode(bytes).ok()?;
        let nearness = asker.nearness();
        let connection = match request {
            Request::Connect { transaction } => {
                return self.connect(transaction, asker, nearness, now);
            }
            Request::Announce { connection, .. } | Request::Scrape { connection, .. } => connection,
        };
        let ip = asker.ip();
        let is_proved = self.secret.is_connection_id(connection, ip, now);
        if !is_proved || !self.budget.take(ip, nearness, &self.secret, now) {
            return None;
        }
        match request {
            Request::Connect { .. } => None,
            Request::Announce {
                transaction,
                ref announce,
                ..
            } => Some(self.udp_announce(transaction, announce, asker, nearness, now)),
            Request::Scrape {
                transaction,
                hashes,
                ..
            } => Some(self.udp_scrape(transaction, hashes)),
        }
    }

    /// Gives the connection id that proves the asker's address when it comes back. The answer has
    /// as many bytes as the shortest request.
    fn connect(
        &mut self,
        transaction: u32,
        asker: &Asker<'_>,
        nearness: Nearness,
        now: Instant,
    ) -> Option<Bytes> {
        if !self.budget.take_unproved(nearness, now) {
            return None;
        }
        let connection = self.secret.connection_id(asker.ip(), now);
        Some(encode(
            16,
            Reply::Connect {
                transaction,
                connection,
            },
        ))
    }

    fn udp_announce(
        &mut self,
        transaction: u32,
        announce: &UdpAnnounce,
        asker: &Asker<'_>,
        nearness: Nearness,
        now: Instant,
    ) -> Bytes {
        let told_max = match asker.ip().is_ipv4() {
            true => TOLD_PEERS_MAX,
            false => TOLD_PEERS6_DATAGRAM_MAX,
        };
        let announce = Announce {
            info_hash: announce.info_hash,
            peer_id: announce.peer_id,
            claimed: [announce.ip.map(Into::into), None, None],
            port: announce.port,
            key: Some(announce.key),
            left: Some(announce.left),
            event: announce.event,
            is_paused: announce.is_paused,
            count: told_count(announce.numwant, told_max),
            families: Families::Own,
            form: Form::Compact,
        };
        let Some((counts, interval)) = self.announce(&announce, asker, nearness, now) else {
            let message = NOT_TRACKED.as_bytes();
            return encode(
                8 + message.len(),
                Reply::Error {
                    transaction,
                    message,
                },
            );
        };
        let peers = match asker.ip().is_ipv4() {
            true => self.told.v4(),
            false => self.told.v6(),
        };
        let reply = Reply::Announce {
            transaction,
            interval: u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
            leechers: counts.incomplete,
            seeders: counts.complete,
            peers,
        };
        encode(20 + peers.len(), reply)
    }

    /// The sizes in the order of the request; those of swarms that are not tracked here are 0.
    fn udp_scrape(&self, transaction: u32, hashes: &[[u8; 20]]) -> Bytes {
        let entry = |hash: &[u8; 20]| {
            let counts = self.registry.scraped(InfoHash(*hash)).unwrap_or_default();
            let entry = ScrapeEntry {
                seeders: counts.complete,
                completed: counts.downloaded,
                leechers: counts.incomplete,
            };
            entry.to_bytes()
        };
        let entries: Vec<_> = hashes.iter().map(entry).collect();
        let reply = Reply::Scrape {
            transaction,
            entries: &entries,
        };
        encode(8 + ScrapeEntry::LEN * entries.len(), reply)
    }
}

fn encode(len: usize, reply: Reply<'_>) -> Bytes {
    let mut out = Vec::with_capacity(len);
    reply.encode(&mut out);
    out.into()
}
