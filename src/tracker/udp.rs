//! One announce to a UDP tracker (BEP 15): two questions, asked again while nobody answers.
//!
//! ```text
//!   2, 4, 8, … s: again, at the next address     2, 4, 8, … s: again
//!      ┌────┐                                       ┌────┐
//!      ▼    │            connection id              ▼    │  answer, refusal
//!    Connecting ──────────────────────────────▶ Announcing ─────────────────▶ over
//!         ▲                                            │
//!         └── an id of an earlier announce is no good ─┘
//! ```
//!
//! No I/O: [`UdpExchange::poll_datagram`] says what is to be sent, [`UdpExchange::received`] looks
//! at what came. BEP 15 lets a client wait 15 s for the first answer; where trackers answer in
//! milliseconds that is an age, so the first tries follow sooner, and after [`PATIENCE`] the
//! announce has failed: the pauses of [`Client`](super::client::Client) do the rest.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::limits::TRACKER_TEXT_LEN_MAX;
use crate::base::rng::Rng;
use crate::base::text::printable;
use crate::base::time::Instant;
use crate::wire::announce::{AnnounceError, AnnounceReply};
use crate::wire::udp_tracker::{Reply, Request, UdpAnnounce};

/// An announce that is under way.
#[derive(Debug)]
pub struct UdpExchange {
    announce: UdpAnnounce,
    /// Path and query of the tracker's address, if they say something (BEP 41).
    url_data: String,
    /// Where the tracker may be; they take turns until one answers.
    addresses: Vec<SocketAddr>,
    stage: Stage,
    /// The tracker refused it as that of one who waits, and was asked again without that.
    is_plain: bool,
    /// Of the question that is open.
    transaction: u32,
    /// Datagrams that asked it.
    tries: u32,
    send_at: Instant,
    ends_at: Instant,
    rng: Rng,
}

/// The word of a tracker that proves to it where we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    id: u64,
    since: Instant,
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is not for this exchange.
    Foreign,
    /// It is, and says nothing of use.
    Useless,
    /// The tracker at this address gave a connection id, good for other announces as well.
    Connected(SocketAddr, Connection),
    /// The tracker at this address answered: the exchange is over.
    Ended(SocketAddr, Result<AnnounceReply, AnnounceError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Announcing {
        tracker: SocketAddr,
        connection: Connection,
        /// The id was not made for this announce: the tracker may have forgotten it.
        is_reused: bool,
    },
}

impl Connection {
    /// Whether the id may be used at `now`.
    pub fn is_good(&self, now: Instant) -> bool {
        now < self.since + CONNECTION_LIFE
    }
}

impl UdpExchange {
    /// An exchange that begins at once, with a tracker at one of `addresses`. If one of them gave a
    /// connection id lately, the first question is saved.
    ///
    /// # Panics
    /// If there is no address.
    pub fn new(
        addresses: Vec<SocketAddr>,
        announce: UdpAnnounce,
        url_data: &str,
        known: Option<(SocketAddr, Connection)>,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        assert!(!addresses.is_empty(), "a tracker is somewhere");
        let stage = match known.filter(|(_, connection)| connection.is_good(now)) {
            Some((tracker, connection)) => Stage::Announcing {
                tracker,
                connection,
                is_reused: true,
            },
            None => Stage::Connecting,
        };
        Self {
            announce,
            url_data: url_data.to_owned(),
            addresses,
            stage,
            is_plain: false,
            transaction: rng.next_u64() as u32,
            tries: 0,
            send_at: now,
            ends_at: now + PATIENCE,
            rng,
        }
    }

    /// When [`Self::poll_datagram`] has something, or [`Self::is_over`] is.
    pub fn next_deadline(&self) -> Instant {
        self.send_at.min(self.ends_at)
    }

    /// Whether the tracker had time enough, and did not answer.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at <= now
    }

    /// Whether the tracker takes announces of one who waits (BEP 21) for faulty: it refused such a
    /// one, and was asked again without that.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// What is to be sent now, and where to.
    pub fn poll_datagram(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if self.send_at > now || self.is_over(now) {
            return None;
        }
        if let Stage::Announcing {
            is_reused: true, ..
        } = self.stage
            && self.tries > 0
        {
            self.enter(Stage::Connecting, now);
        }
        let transaction = self.transaction;
        let (to, request) = match self.stage {
            Stage::Connecting => {
                let place = self.tries as usize % self.addresses.len();
                (self.addresses[place], Request::Connect { transaction })
            }
            Stage::Announcing {
                tracker,
                connection,
                ..
            } => {
                let request = Request::Announce {
                    connection: connection.id,
                    transaction,
                    announce: self.announce,
                    url_data: &self.url_data,
                };
                (tracker, request)
            }
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        self.send_at = now + FIRST_WAIT * 2u32.pow(self.tries.min(TRIES_DOUBLED));
        self.tries += 1;
        Some((to, bytes))
    }

    /// Looks at a datagram. Only an answer to the open question, from where it was asked, counts.
    pub fn received(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Received {
        let Ok(reply) = Reply::decode(bytes) else {
            return Received::Foreign;
        };
        let Some(tracker) = self.asked(from) else {
            return Received::Foreign;
        };
        if self.tries == 0 || reply.transaction() != self.transaction {
            return Received::Foreign;
        }
        match (self.stage, reply) {
            (Stage::Connecting, Reply::Connect { connection, .. }) => {
                let connection = Connection {
                    id: connection,
                    since: now,
                };
                let announcing = Stage::Announcing {
                    tracker,
                    connection,
                    is_reused: false,
                };
                self.enter(announcing, now);
                Received::Connected(tracker, connection)
            }
            (
                Stage::Announcing {
                    is_reused: true, ..
                },
                Reply::Error { .. },
            ) => {
                self.enter(Stage::Connecting, now);
                Received::Useless
            }
            // Some trackers refuse whatever event BEP 15 does not have.
            (Stage::Announcing { .. }, Reply::Error { .. }) if self.announce.says_paused() => {
                self.announce.is_paused = false;
                self.is_plain = true;
                self.enter(self.stage, now);
                Received::Useless
            }
            (_, Reply::Error { message, .. }) => {
                let reason = printable(message, TRACKER_TEXT_LEN_MAX);
                let refused = AnnounceError::Refused {
                    reason,
                    retry: None,
                };
                Received::Ended(tracker, Err(refused))
            }
            (
                Stage::Announcing { .. },
                Reply::Announce {
                    interval,
                    leechers,
                    seeders,
                    peers,
                    ..
                },
            ) => {
                let from = tracker.ip();
                let reply = AnnounceReply::from_udp(from, interval, leechers, seeders, peers);
                Received::Ended(tracker, Ok(reply))
            }
            (Stage::Connecting, Reply::Announce { .. })
            | (Stage::Announcing { .. }, Reply::Connect { .. })
            | (_, Reply::Scrape { .. }) => Received::Useless,
        }
    }

    /// The other question, with a transaction of its own, at once.
    fn enter(&mut self, stage: Stage, now: Instant) {
        self.stage = stage;
        self.transaction = self.rng.next_u64() as u32;
        self.tries = 0;
        self.send_at = now;
    }

    /// The address among those asked that `from` is.
    fn asked(&self, from: SocketAddr) -> Option<SocketAddr> {
        let is_from = |asked: &&SocketAddr| {
            asked.port() == from.port() && asked.ip().to_canonical() == from.ip().to_canonical()
        };
        match &self.stage {
            Stage::Connecting => {
                let asked = self.addresses.iter().take(self.tries as usize);
                asked.copied().find(|asked| is_from(&asked))
            }
            Stage::Announcing { tracker, .. } => Some(tracker).filter(is_from).copied(),
        }
    }
}

/// How long a connection id may be used (BEP 15: one minute).
pub const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// How long an announce may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first datagram waits for its answer; each further one twice as long,
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// for so many times.
const TRIES_DOUBLED: u32 = 4;

const _: () = assert!(
    PATIENCE.as_secs() < CONNECTION_LIFE.as_secs(),
    "an id does not grow too old within the announce that it was made for"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{InfoHash, PeerId};
    use crate::wire::announce::Event;
    use crate::wire::udp_tracker::{ANNOUNCE_LEN, CONNECT_LEN};

    const START: Instant = Instant::from_micros(70_000_000);

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn exchange(addresses: &[&str], known: Option<(SocketAddr, Connection)>) -> UdpExchange {
        let announce = UdpAnnounce {
            info_hash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            downloaded: 3,
            left: 4,
            uploaded: 5,
            event: Some(Event::Started),
            is_paused: false,
            ip: None,
            key: 6,
            numwant: Some(50),
            port: 6881,
        };
        let addresses = addresses.iter().map(|text| addr(text)).collect();
        UdpExchange::new(addresses, announce, "/k", known, Rng::new(15), START)
    }

    /// Every datagram that leaves while nobody answers: time since the start, where to, and whether
    /// it is an announce.
    fn sent_in_silence(exchange: &mut UdpExchange) -> Vec<(u64, SocketAddr, bool)> {
        let mut sent = Vec::new();
        loop {
            let now = exchange.next_deadline();
            if exchange.is_over(now) {
                assert_eq!(exchange.poll_datagram(now), None);
                assert_eq!(now, START + PATIENCE);
                return sent;
            }
            let just_before = Instant::from_micros(now.as_micros() - 1);
            assert_eq!(
                exchange.poll_datagram(just_before),
                None,
                "not before its time"
            );
            let (to, bytes) = exchange.poll_datagram(now).expect("it is due");
            sent.push(((now - START).as_secs(), to, bytes.len() > CONNECT_LEN));
            assert_eq!(exchange.poll_datagram(now), None, "once");
        }
    }

    fn ask(exchange: &mut UdpExchange, now: Instant) -> u32 {
        let (_, bytes) = exchange.poll_datagram(now).expect("something to be sent");
        match Request::decode(&bytes).expect("a request") {
            Request::Connect { transaction } | Request::Announce { transaction, .. } => transaction,
            Request::Scrape { .. } => panic!("nobody scrapes"),
        }
    }

    fn encoded(reply: Reply<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        bytes
    }

    fn connected(transaction: u32) -> Vec<u8> {
        encoded(Reply::Connect {
            transaction,
            connection: 0xc0ffee,
        })
    }

    fn answered(transaction: u32) -> Vec<u8> {
        encoded(Reply::Announce {
            transaction,
            interval: 60,
            leechers: 2,
            seeders: 1,
            peers: &[10, 0, 0, 5, 0x1a, 0xe1],
        })
    }

    fn refused(transaction: u32) -> Vec<u8> {
        encoded(Reply::Error {
            transaction,
            message: b"no\x1b[2J",
        })
    }

    #[test]
    fn connect_comes_first_then_the_announce_with_the_id() {
        let mut exchange = exchange(&["10.0.0.1:80"], None);
        let tracker = addr("10.0.0.1:80");
        let first = ask(&mut exchange, START);
        let Received::Connected(from, connection) =
            exchange.received(tracker, &connected(first), START)
        else {
            panic!("a connection was expected");
        };
        assert_eq!(from, tracker);
        assert!(connection.is_good(START + secs(59)) && !connection.is_good(START + secs(60)));
        let (to, bytes) = exchange.poll_datagram(START).expect("the announce");
        assert_eq!(to, tracker);
        let decoded = Request::decode(&bytes).expect("a request");
        let Request::Announce {
            connection,
            transaction,
            announce,
            ..
        } = decoded
        else {
            panic!("{decoded:?}");
        };
        assert_eq!(
            (connection, announce.key, announce.numwant),
            (0xc0ffee, 6, Some(50))
        );
        assert_ne!(transaction, first);
        assert_eq!(bytes[ANNOUNCE_LEN..], *b"\x02\x02/k\0");
        let Received::Ended(from, Ok(reply)) =
            exchange.received(tracker, &answered(transaction), START)
        else {
            panic!("an answer was expected");
        };
        assert_eq!((from, reply.interval), (tracker, Some(secs(60))));
        assert_eq!(reply.peers, [addr("10.0.0.5:6881")]);
    }

    #[test]
    fn silence_is_answered_by_few_datagrams_and_ends() {
        let tracker = addr("10.0.0.1:80");
        let mut silent = exchange(&["10.0.0.1:80"], None);
        let expected = [0, 2, 6, 14].map(|at| (at, tracker, false));
        assert_eq!(sent_in_silence(&mut silent), expected);

        let mut half = exchange(&["10.0.0.1:80"], None);
        let transaction = ask(&mut half, START);
        half.received(tracker, &connected(transaction), START);
        let expected = [0, 2, 6, 14].map(|at| (at, tracker, true));
        assert_eq!(sent_in_silence(&mut half), expected);
    }

    #[test]
    fn addresses_of_a_tracker_take_turns_until_one_answers() {
        let (dead, alive) = (addr("[fd00::1]:80"), addr("10.0.0.1:80"));
        let names = ["[fd00::1]:80", "10.0.0.1:80"];
        let expected = [
            (0, dead, false),
            (2, alive, false),
            (6, dead, false),
            (14, alive, false),
        ];
        assert_eq!(sent_in_silence(&mut exchange(&names, None)), expected);

        let mut exchange = exchange(&names, None);
        let transaction = ask(&mut exchange, START);
        let early = exchange.received(alive, &connected(transaction), START);
        assert_eq!(early, Received::Foreign, "it was not asked yet");
        ask(&mut exchange, START + secs(2));
        let reply = exchange.received(alive, &connected(transaction), START + secs(2));
        assert!(matches!(reply, Received::Connected(from, _) if from == alive));
        let (to, _) = exchange
            .poll_datagram(START + secs(2))
            .expect("the announce");
        assert_eq!(to, alive);
    }

    #[test]
    fn known_id_saves_a_question_and_is_given_up_when_it_does_not_work() {
        let tracker = addr("10.0.0.1:80");
        let id = |since| Connection { id: 1, since };
        let mut fresh = exchange(&["10.0.0.1:80"], Some((tracker, id(START))));
        let silent = sent_in_silence(&mut fresh);
        let kinds = silent
            .iter()
            .map(|(at, _, is_announce)| (*at, *is_announce));
        let expected = [(0, true), (2, false), (4, false), (8, false), (16, false)];
        assert!(kinds.eq(expected), "{silent:?}");

        let mut told = exchange(&["10.0.0.1:80"], Some((tracker, id(START))));
        let transaction = ask(&mut told, START);
        let reply = told.received(tracker, &refused(transaction), START);
        assert_eq!(reply, Received::Useless, "it may have forgotten the id");
        let again = ask(&mut told, START);
        let reply = told.received(tracker, &refused(again), START);
        assert!(matches!(reply, Received::Ended(_, Err(_))));

        let old = Instant::from_micros(START.as_micros() - 60_000_000);
        let mut stale = exchange(&["10.0.0.1:80"], Some((tracker, id(old))));
        let (_, bytes) = stale.poll_datagram(START).expect("a question");
        assert_eq!(bytes.len(), CONNECT_LEN);
    }

    /// Row 84 of the hostile inputs.
    #[test]
    fn replies_that_do_not_fit_are_ignored() {
        let tracker = addr("10.0.0.1:80");
        for is_announcing in [false, true] {
            let mut exchange = exchange(&["10.0.0.1:80"], None);
            let mut transaction = ask(&mut exchange, START);
            let old = transaction;
            if is_announcing {
                exchange.received(tracker, &connected(transaction), START);
                transaction = ask(&mut exchange, START);
            }
            let (right, wrong) = match is_announcing {
                false => (connected(transaction), answered(transaction)),
                true => (answered(transaction), connected(transaction)),
            };
            let deadline = exchange.next_deadline();
            let scrape = encoded(Reply::Scrape {
                transaction,
                entries: &[],
            });
            for reply in [&wrong, &scrape] {
                let received = exchange.received(tracker, reply, START);
                assert_eq!(received, Received::Useless, "wrong action");
            }
            for reply in [connected(old ^ 1), answered(old ^ 1), refused(old ^ 1)] {
                let received = exchange.received(tracker, &reply, START);
                assert_eq!(received, Received::Foreign, "wrong transaction");
            }
            for from in ["10.0.0.2:80", "10.0.0.1:81", "[fd00::1]:80"] {
                for reply in [&right, &refused(transaction)] {
                    let received = exchange.received(addr(from), reply, START);
                    assert_eq!(received, Received::Foreign, "{from}");
                }
            }
            let whole = if is_announcing { 20 } else { 16 };
            for len in 0..whole {
                let received = exchange.received(tracker, &right[..len], START);
                assert_eq!(received, Received::Foreign, "{len} B");
            }
            assert_eq!(exchange.next_deadline(), deadline, "nothing has changed");
            let mapped = addr("[::ffff:10.0.0.1]:80");
            let received = exchange.received(mapped, &right, START);
            assert!(
                matches!(received, Received::Connected(..) | Received::Ended(..)),
                "{received:?}"
            );
            if !is_announcing {
                let again = exchange.received(tracker, &right, START);
                assert_eq!(again, Received::Foreign, "duplicated");
            }
        }
    }

    #[test]
    fn late_answer_to_an_earlier_try_counts() {
        let tracker = addr("10.0.0.1:80");
        let mut exchange = exchange(&["10.0.0.1:80"], None);
        let first = ask(&mut exchange, START);
        assert_eq!(ask(&mut exchange, START + secs(2)), first);
        let reply = exchange.received(tracker, &connected(first), START + secs(5));
        assert!(matches!(reply, Received::Connected(..)));
    }

    #[test]
    fn refusal_is_shown_escaped() {
        let tracker = addr("10.0.0.1:80");
        let mut exchange = exchange(&["10.0.0.1:80"], None);
        let transaction = ask(&mut exchange, START);
        let reply = exchange.received(tracker, &refused(transaction), START);
        let reason = "no\\u{1b}[2J".to_owned();
        let refused = AnnounceError::Refused {
            reason,
            retry: None,
        };
        assert_eq!(reply, Received::Ended(tracker, Err(refused)));
    }

    /// Goal: a tracker that takes event 4 for a fault (chihaya) is asked again at once without it.
    #[test]
    fn announce_that_is_refused_for_its_event_is_repeated_without_it() {
        let mut exchange = exchange(&["10.0.0.8:80"], None);
        exchange.announce.event = None;
        exchange.announce.is_paused = true;
        let tracker = addr("10.0.0.8:80");
        let say = |exchange: &mut UdpExchange, reply: Reply<'_>| {
            let mut bytes = Vec::new();
            reply.encode(&mut bytes);
            exchange.received(tracker, &bytes, START)
        };
        let event = |exchange: &mut UdpExchange| {
            let (_, bytes) = exchange.poll_datagram(START).expect("it is due");
            match Request::decode(&bytes).expect("a request") {
                Request::Announce {
                    transaction,
                    announce,
                    ..
                } => (transaction, announce.is_paused),
                other => panic!("{other:?}"),
            }
        };
        let transaction = ask(&mut exchange, START);
        let connection = 7;
        let connect = Reply::Connect {
            transaction,
            connection,
        };
        say(&mut exchange, connect);
        let (transaction, is_paused) = event(&mut exchange);
        assert!(is_paused);
        let message = b"malformed event ID".as_slice();
        let error = |transaction| Reply::Error {
            transaction,
            message,
        };
        assert_eq!(say(&mut exchange, error(transaction)), Received::Useless);
        let (transaction, is_paused) = event(&mut exchange);
        assert!(!is_paused && exchange.is_plain());
        let ended = say(&mut exchange, error(transaction));
        assert!(matches!(ended, Received::Ended(_, Err(_))), "{ended:?}");
    }
}
