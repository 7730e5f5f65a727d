//! An HTTP tracker that answers as it was told to, and writes down what it is asked.
//!
//! It has a reader of its own for what the product's client sends, and tells the truth, lies,
//! fails, dawdles or is silent.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::actor::{Actor, Hands, Input};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::wire::bencode::Encoder;

/// What a tracker says to an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A list of peers, as BEP 3 and BEP 23 have it.
    Peers(Terms),
    /// `failure reason`, and perhaps `retry in` (BEP 31).
    Failure(String, Option<String>),
    /// A bare status, such as 404 or 500.
    Status(u16),
    /// A redirect with this status to this address; the query goes with it.
    Redirect(u16, String),
    /// This body under status 200, whatever it is.
    Body(Vec<u8>),
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// The beginning of a response, byte by byte, one in this time, and no end.
    Drip(Duration),
    /// Nothing at all.
    Silence,
    /// The stream is closed without a word.
    HangUp,
}

/// What goes with a list of peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// `interval`, seconds.
    pub interval: i64,
    /// `min interval`, seconds.
    pub min_interval: Option<i64>,
    /// `tracker id`.
    pub tracker_id: Option<Vec<u8>>,
    /// `warning message`.
    pub warning: Option<String>,
    /// Addresses that are named instead of those of the swarm: a lie.
    pub lie: Option<Vec<SocketAddr>>,
}

impl Terms {
    /// The truth, every `interval` seconds.
    pub fn every(interval: i64) -> Self {
        Self {
            interval,
            ..Self::default()
        }
    }
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// When.
    pub at: Instant,
    /// Where from.
    pub from: SocketAddr,
    /// The path, without the query.
    pub path: String,
    /// The query as it came.
    pub query: String,
    /// The query's pairs, decoded.
    pub pairs: BTreeMap<String, Vec<u8>>,
    /// The fields of the head, names in lower case.
    pub fields: BTreeMap<String, String>,
}

impl Announce {
    /// A value as text; empty if it is not there.
    pub fn text(&self, key: &str) -> String {
        let value = self.pairs.get(key);
        value.map_or(String::new(), |value| {
            String::from_utf8_lossy(value).into_owned()
        })
    }

    /// A value as a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }

    /// `event`; empty for a regular announce.
    pub fn event(&self) -> String {
        self.text("event")
    }
}

/// A tracker on a host.
#[derive(Debug)]
pub struct Tracker {
    /// Answers to the next announces, before `then`.
    pub first: VecDeque<Answer>,
    /// Answer to all others.
    pub then: Answer,
    seen: Vec<Announce>,
    swarm: BTreeMap<Vec<u8>, SocketAddr>,
    streams: BTreeMap<ConnId, Stream>,
    dripping: BTreeMap<ConnId, (Duration, Instant)>,
}

#[derive(Debug)]
struct Stream {
    from: SocketAddr,
    head: Vec<u8>,
}

impl Tracker {
    /// A tracker that always answers so.
    pub fn new(then: Answer) -> Self {
        Self {
            first: VecDeque::new(),
            then,
            seen: Vec::new(),
            swarm: BTreeMap::new(),
            streams: BTreeMap::new(),
            dripping: BTreeMap::new(),
        }
    }

    /// A tracker whose first answers are others.
    pub fn after(first: impl IntoIterator<Item = Answer>, then: Answer) -> Self {
        Self {
            first: first.into_iter().collect(),
            ..Self::new(then)
        }
    }

    /// Every announce so far.
    pub fn seen(&self) -> &[Announce] {
        &self.seen
    }

    /// The events of the announces so far, with those of one peer only if it is named.
    pub fn events(&self, of: Option<IpAddr>) -> Vec<String> {
        let is_of = |a: &&Announce| of.is_none_or(|ip| a.from.ip() == ip);
        self.seen
            .iter()
            .filter(is_of)
            .map(Announce::event)
            .collect()
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    fn received(&mut self, conn: ConnId, bytes: &[u8], hands: &mut Hands<'_>) {
        let Some(stream) = self.streams.get_mut(&conn) else {
            return;
        };
        stream.head.extend_from_slice(bytes);
        if !stream.head.ends_with(b"\r\n\r\n") {
            return;
        }
        let Some(announce) = read(&stream.head, stream.from, hands.now) else {
            hands.send(conn, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            return hands.finish(conn);
        };
        stream.head.clear();
        let answer = self.first.pop_front().unwrap_or_else(|| self.then.clone());
        if let Answer::Peers(_) = answer {
            self.list(&announce);
        }
        self.answer(conn, &announce, answer, hands);
        self.seen.push(announce);
    }

    /// Keeps the swarm.
    fn list(&mut self, announce: &Announce) {
        let id = announce.pairs.get("peer_id").cloned().unwrap_or_default();
        let port = announce.number("port").unwrap_or_default() as u16;
        if announce.event() == "stopped" {
            self.swarm.remove(&id);
        } else {
            self.swarm
                .insert(id, SocketAddr::new(announce.from.ip(), port));
        }
    }

    fn answer(&mut self, conn: ConnId, announce: &Announce, answer: Answer, hands: &mut Hands<'_>) {
        match answer {
            Answer::Peers(terms) => {
                let body = self.peers(announce, &terms);
                self.respond(conn, 200, "", &body, hands);
            }
            Answer::Failure(reason, retry) => {
                let mut encoder = Encoder::default();
                encoder.dict_begin();
                encoder.key(b"failure reason").bytes(reason.as_bytes());
                if let Some(retry) = retry {
                    encoder.key(b"retry in").bytes(retry.as_bytes());
                }
                encoder.end();
                self.respond(conn, 200, "", &encoder.finish(), hands);
            }
            Answer::Status(status) => self.respond(conn, status, "", b"no", hands),
            Answer::Redirect(status, to) => {
                let to = format!("Location: {to}?{}\r\n", announce.query);
                self.respond(conn, status, &to, b"", hands);
            }
            Answer::Body(body) => self.respond(conn, 200, "", &body, hands),
            Answer::Raw(bytes) => {
                hands.send(conn, &bytes);
                self.done(conn, hands);
            }
            Answer::Drip(pause) => {
                self.dripping.insert(conn, (pause, hands.now));
            }
            Answer::Silence => {}
            Answer::HangUp => {
                hands.close(conn);
                self.streams.remove(&conn);
            }
        }
    }

    fn respond(
        &mut self,
        conn: ConnId,
        status: u16,
        fields: &str,
        body: &[u8],
        hands: &mut Hands<'_>,
    ) {
        let len = body.len();
        let head = format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: {len}\r\n\r\n");
        hands.send(conn, head.as_bytes());
        hands.send(conn, body);
        self.done(conn, hands);
    }

    fn done(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        hands.finish(conn);
        self.streams.remove(&conn);
    }

    /// The body for an announce: the others of the swarm, or a lie.
    fn peers(&self, announce: &Announce, terms: &Terms) -> Vec<u8> {
        let asker = announce.pairs.get("peer_id");
        let others = self.swarm.iter().filter(|(id, _)| Some(*id) != asker);
        let peers: Vec<SocketAddr> = match &terms.lie {
            Some(lie) => lie.clone(),
            None => others.map(|(_, &addr)| addr).collect(),
        };
        let wanted = announce.number("numwant").unwrap_or(50) as usize;
        let mut compact = Vec::new();
        for peer in peers.iter().take(wanted) {
            if let IpAddr::V4(ip) = peer.ip() {
                compact.extend_from_slice(&ip.octets());
                compact.extend_from_slice(&peer.port().to_be_bytes());
            }
        }
        let mut encoder = Encoder::default();
        encoder.dict_begin();
        encoder.key(b"interval").int(terms.interval);
        if let Some(least) = terms.min_interval {
            encoder.key(b"min interval").int(least);
        }
        encoder.key(b"peers").bytes(&compact);
        if let Some(id) = &terms.tracker_id {
            encoder.key(b"tracker id").bytes(id);
        }
        if let Some(warning) = &terms.warning {
            encoder.key(b"warning message").bytes(warning.as_bytes());
        }
        encoder.end();
        encoder.finish()
    }

    /// Sends the bytes that are due on slow streams.
    fn drip(&mut self, hands: &mut Hands<'_>) {
        for (&conn, (pause, next)) in &mut self.dripping {
            while *next <= hands.now {
                hands.send(conn, b"H");
                *next += *pause;
            }
            hands.wake_at(*next);
        }
    }
}

impl Actor for Tracker {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>) {
        match input {
            Input::Accepted { conn, from } => {
                let head = Vec::new();
                self.streams.insert(conn, Stream { from, head });
            }
            Input::Received { conn, bytes } => self.received(conn, bytes, hands),
            Input::Ended { conn } => {
                self.streams.remove(&conn);
                self.dripping.remove(&conn);
            }
            Input::Joined
            | Input::Connected { .. }
            | Input::Datagram(_)
            | Input::Multicast(_)
            | Input::Timer => {}
        }
        self.drip(hands);
    }

    fn is_honest(&self) -> bool {
        true
    }
}

/// Reads a request.
fn read(head: &[u8], from: SocketAddr, at: Instant) -> Option<Announce> {
    let text = str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let target = lines.next()?.strip_prefix("GET ")?;
    let target = target.strip_suffix(" HTTP/1.1")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), percent_decoded(value))
    };
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Announce {
        at,
        from,
        path: path.to_owned(),
        query: query.to_owned(),
        pairs: query.split('&').map(pair).collect(),
        fields: lines.filter_map(field).collect(),
    })
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::new();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| first == b'%');
        let code = code.and_then(|code| str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_is_read_with_raw_bytes_in_its_query() {
        let head = b"GET /announce?info_hash=%124V&left=7&event= HTTP/1.1\r\nHost: a:1\r\n\r\n";
        let from = ([10, 0, 0, 1], 5).into();
        let announce = read(head, from, Instant::ZERO).expect("a request");
        assert_eq!(announce.path, "/announce");
        assert_eq!(announce.pairs["info_hash"], b"\x124V");
        assert_eq!(announce.number("left"), Some(7));
        assert_eq!(announce.event(), "");
        assert_eq!(announce.fields["host"], "a:1");
    }
}
