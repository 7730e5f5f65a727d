//! One connected peer of one torrent, as the exchange sees it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::doubt::Served;
use super::suggest::Suggestions;
use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PeerId, PieceIndex};
use crate::base::limits;
use crate::base::rate::Rate;
use crate::base::time::Instant;
use crate::swarm::picker::Counted;
use crate::wire::message::BlockRef;

/// Place of a peer in its swarm; used again after the peer has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u32);

/// Who sent something, beyond the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The other end of the stream.
    pub remote: SocketAddr,
    /// The id in its handshake.
    pub peer_id: PeerId,
}

/// What both ends agreed on in their handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// The fast extension (BEP 6) is on.
    pub fast: bool,
}

/// State of the exchange with one peer.
#[derive(Debug)]
pub struct Peer {
    /// Its stream.
    pub conn: ConnId,
    /// Who it is.
    pub origin: Origin,
    /// What was agreed.
    pub caps: Caps,
    /// Whether limits of rate apply to it.
    pub is_limited: bool,
    /// It is on our own link.
    pub is_near: bool,
    /// Pieces that it has.
    pub have: Bitfield,
    /// Pieces that it has and we lack.
    pub offers: u32,
    /// Pieces of ours that it does not have.
    pub lacks: u32,
    /// It said (BEP 21) that it will download nothing.
    pub upload_only: bool,
    /// It chokes us.
    pub chokes_us: bool,
    /// It wants something of us.
    pub wants_us: bool,
    /// We choke it.
    pub choked: bool,
    /// We told it that we want something.
    pub wanted: bool,
    /// When it joined.
    pub joined: Instant,
    /// When it was last unchoked, if ever.
    pub unchoked_at: Option<Instant>,
    /// Payload received from it.
    pub down: Rate,
    /// Payload sent to it.
    pub up: Rate,
    pub(super) counted: Counted,
    /// Messages that may only come first (`bitfield` and its like) are still allowed.
    pub(super) opening: bool,
    /// Requests that we have open with it, oldest first.
    pub(super) requests: VecDeque<Request>,
    /// Requests that we gave up; the answer is still welcome for a while.
    pub(super) withdrawn: VecDeque<Request>,
    /// The block that is arriving.
    pub(super) incoming: Option<Incoming>,
    /// Requests that we may have open with it: its `reqq`, or a default.
    pub(super) requests_max: u32,
    /// The least time from a request to the head of its block, since it unchoked us.
    pub(super) latency: Option<Duration>,
    /// Last payload byte, or when it unchoked us.
    pub(super) heard: Instant,
    /// It let requests time out and has not delivered since.
    pub(super) snubbed: bool,
    /// Pieces that we may ask for while choked (BEP 6).
    pub(super) allowed_fast: Vec<PieceIndex>,
    /// Pieces that it may ask for while choked, and blocks served so.
    pub(super) granted_fast: Vec<(PieceIndex, u32)>,
    /// Pieces that it said it had best be asked for (BEP 6).
    pub(super) suggestions: Suggestions,
    /// Pieces that were suggested to it and that it has not asked for.
    pub(super) suggested: VecDeque<PieceIndex>,
    /// Of those that were, the pieces that it asked for, and bytes of them that
    /// have not left.
    pub(super) firsts: Vec<(PieceIndex, u32)>,
    /// Requests of its that wait for an answer, oldest first.
    pub(super) uploads: VecDeque<BlockRef>,
    /// Bytes of blocks that were taken from there and have not left.
    pub(super) leaving: u64,
    /// How much of the swarm's log of new pieces it was told.
    pub(super) news_told: usize,
    /// It was said that this peer has everything.
    pub(super) seed_told: bool,
    /// What it was sent and may have found wrong.
    pub(super) served: Served,
    /// When payload last went out to it.
    pub(super) served_at: Instant,
    /// When it last got a piece, as far as it said.
    pub(super) gained_at: Instant,
    /// It gained nothing for long while others were to serve it.
    pub(super) is_late: bool,
    /// It had everything from the beginning.
    pub(super) came_as_seed: bool,
    pub(super) nuisance: Nuisance,
}

/// Who else there is to ask beside a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Nobody.
    None,
    /// Peers on our own link, as it is.
    Near,
    /// Some of them are not, or it is not.
    Far,
}

/// A request that is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub block: BlockRef,
    pub at: Instant,
}

/// The block that a connection is in the middle of.
#[derive(Debug)]
pub(super) struct Incoming {
    pub block: BlockRef,
    pub since: Instant,
    pub reception: Reception,
    /// The picker counts a request for it that is settled or released with it.
    pub counted: bool,
}

/// Where the payload of an arriving block goes.
#[derive(Debug)]
pub(super) enum Reception {
    /// Straight to storage: this connection is the block's one writer.
    Write,
    /// Into a buffer, as another connection is writing the block.
    Aside(Vec<u8>),
    /// Nowhere: the block is not needed any more, or never was.
    Drop,
}

/// Counts what a well-behaved peer does seldom.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nuisance {
    /// Start of the current minute.
    minute: Instant,
    unknown: u32,
    flips: u32,
    refused: u32,
    rejects: u32,
    /// Since the beginning: requests for pieces that we lack.
    pub lacking: u32,
    /// Since the beginning: blocks that nobody asked for, and their bytes.
    pub unasked: u32,
    pub unasked_bytes: u64,
}

impl Nuisance {
    /// Counts a message of unknown id; says whether it is one too many for a minute.
    pub fn unknown(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.unknown += 1;
        self.unknown > UNKNOWN_PER_MIN_MAX
    }

    /// Counts a choke, unchoke or change of interest.
    pub fn flip(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.flips += 1;
        self.flips > FLIPS_PER_MIN_MAX
    }

    /// Counts a request that was refused for being too many or while choked.
    pub fn refused(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.refused += 1;
        self.refused > REFUSED_PER_MIN_MAX
    }

    /// Counts a reject of one of our requests.
    pub fn rejects(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.rejects += 1;
        self.rejects > REJECTS_PER_MIN_MAX
    }

    fn turn(&mut self, now: Instant) {
        if now - self.minute >= Duration::from_secs(60) {
            self.minute = now;
            (self.unknown, self.flips, self.refused, self.rejects) = (0, 0, 0, 0);
        }
    }
}

impl Peer {
    /// A peer that finished its handshake at `now`: both sides choke, nobody is interested.
    pub(super) fn new(
        conn: ConnId,
        origin: Origin,
        caps: Caps,
        piece_count: u32,
        now: Instant,
    ) -> Self {
        Self {
            conn,
            origin,
            caps,
            is_limited: true,
            is_near: false,
            have: Bitfield::new(piece_count),
            offers: 0,
            lacks: 0,
            upload_only: false,
            chokes_us: true,
            wants_us: false,
            choked: true,
            wanted: false,
            joined: now,
            unchoked_at: None,
            down: Rate::new(now),
            up: Rate::new(now),
            counted: Counted::Pieces,
            opening: true,
            requests: VecDeque::new(),
            withdrawn: VecDeque::new(),
            incoming: None,
            requests_max: limits::REQUESTS_OUT_DEFAULT,
            latency: None,
            heard: now,
            snubbed: false,
            allowed_fast: Vec::new(),
            granted_fast: Vec::new(),
            suggestions: Suggestions::default(),
            suggested: VecDeque::new(),
            firsts: Vec::new(),
            uploads: VecDeque::new(),
            leaving: 0,
            news_told: 0,
            seed_told: false,
            served: Served::default(),
            served_at: now,
            gained_at: now,
            is_late: false,
            came_as_seed: false,
            nuisance: Nuisance::default(),
        }
    }

    /// Requests that we have open with it.
    pub fn open_requests(&self) -> usize {
        self.requests.len()
    }

    /// The blocks that these requests are for, oldest first.
    pub fn requested(&self) -> impl Iterator<Item = BlockRef> + '_ {
        self.requests.iter().map(|request| request.block)
    }

    /// Whether it has something for us, and lets us have it.
    pub fn may_be_asked(&self) -> bool {
        self.wanted && !self.chokes_us
    }

    /// Whether it gives what it has when it is asked.
    pub(super) fn may_give(&self) -> bool {
        !self.chokes_us && !self.snubbed
    }

    /// Whether it lets us have nothing, and has had more than `credit` bytes more than it gave.
    pub fn owes(&self, credit: u64) -> bool {
        self.chokes_us && self.up.total() > self.down.total().saturating_add(credit)
    }

    /// Blocks that it was asked for and that are not whole, the one that is arriving among them.
    pub(super) fn blocks_under_way(&self) -> usize {
        let arriving = self.incoming.as_ref().is_some_and(|i| i.counted);
        self.requests.len() + usize::from(arriving)
    }

    /// Whether others come first where not all can be asked: it was silent, or is in the middle of
    /// a block that nobody waits for any more.
    pub(super) fn is_last_to_ask(&self) -> bool {
        self.snubbed || self.incoming.as_ref().is_some_and(|i| !i.counted)
    }

    /// Whether a piece was named to it that has not left for it yet. It has a slot then.
    pub(super) fn is_named(&self) -> bool {
        !self.firsts.is_empty() || !self.suggested.is_empty()
    }

    /// Whether it is a seed of our own link, which wants to know what becomes of its pieces.
    pub(super) fn hears_all(&self) -> bool {
        self.came_as_seed && self.is_near && self.origin.peer_id.is_evpeer()
    }

    /// Whether payload came from it or went to it lately.
    pub fn is_moving(&self, now: Instant) -> bool {
        self.down.is_moving(now) || self.up.is_moving(now)
    }

    /// Whether it has every piece.
    pub fn is_seed(&self) -> bool {
        self.have.is_full() && !self.have.is_empty()
    }

    /// Whether it owes answers and has not sent payload for longer than a request is borne.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.snubbed || now - self.heard >= PATIENCE_MIN
    }

    /// Requests that should be open with it: what it delivers in [`QUEUE_TIME`], within its `reqq`.
    pub(super) fn queue_target(&mut self, others: Others, now: Instant) -> usize {
        if self.snubbed {
            return 1;
        }
        let least_near = match others {
            Others::Near => QUEUE_MIN_FLAT,
            Others::None | Others::Far => QUEUE_MIN_NEAR,
        };
        let (ahead, least) = match self.latency {
            _ if others == Others::None => (QUEUE_TIME, QUEUE_MIN),
            None => (QUEUE_TIME, least_near),
            Some(latency) if latency <= NEAR => (NEAR * QUEUE_LATENCIES, least_near),
            Some(latency) => ((latency * QUEUE_LATENCIES).min(QUEUE_TIME), QUEUE_MIN),
        };
        let by_rate = self.down.bytes_per_sec(now) * ahead.as_millis() as u64
            / 1000
            / u64::from(limits::BLOCK_LEN);
        let most = self.requests_max.clamp(1, limits::REQUESTS_OUT_MAX) as usize;
        (by_rate as usize).max(least).min(most)
    }

    /// How long an answer may take before its request counts as lost.
    pub(super) fn patience(&mut self, now: Instant) -> Duration {
        let rate = self.down.bytes_per_sec(now);
        let queued = self.blocks_under_way() as u64 * u64::from(limits::BLOCK_LEN);
        let expected = (queued * 1000)
            .checked_div(rate)
            .map_or(PATIENCE_MAX, Duration::from_millis);
        (expected * 2).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    /// How long it may be silent when nothing else is left to ask for. On our own link that is so
    /// many times as long as it took it, on the whole, from one block to the next; or the `others`,
    /// if it gave none yet. From afar a lost packet takes a second.
    pub(super) fn endgame_patience(&self, others: Option<Duration>) -> Duration {
        let gap = gap(self.heard - self.joined, self.down.total());
        let usual = gap.or(others).map(|gap| gap.saturating_mul(ENDGAME_GAPS));
        let usual = usual.filter(|_| self.is_near).unwrap_or(ENDGAME_PATIENCE);
        usual.clamp(ENDGAME_PATIENCE_MIN, ENDGAME_PATIENCE)
    }

    /// Remembers that `request` was given up, for late answers.
    pub(super) fn withdraw(&mut self, request: Request, now: Instant) {
        if self.withdrawn.len() >= limits::REQUESTS_OUT_MAX as usize {
            self.withdrawn.pop_front();
        }
        self.withdrawn.push_back(Request { at: now, ..request });
    }

    /// Takes the latest block that `fits` from what was given up; since when it was.
    pub(super) fn take_withdrawn(&mut self, fits: impl Fn(BlockRef) -> bool) -> Option<Instant> {
        let place = self.withdrawn.iter().rposition(|r| fits(r.block))?;
        self.withdrawn.remove(place).map(|request| request.at)
    }
}

/// The mean time from one block to the next, if `bytes` came in so much time.
pub(super) fn gap(time: Duration, bytes: u64) -> Option<Duration> {
    let blocks = bytes / u64::from(limits::BLOCK_LEN);
    time.checked_div(u32::try_from(blocks).unwrap_or(u32::MAX))
}

/// How much of a peer's delivery is asked for ahead at most; so much of one that is alone.
const QUEUE_TIME: Duration = Duration::from_secs(1);
/// The same where there are others: what one will deliver late, another might deliver soon. In
/// times that an answer takes.
const QUEUE_LATENCIES: u32 = 4;
/// A peer is near if it answers so soon: then the loops at both ends take most of that time.
const NEAR: Duration = Duration::from_millis(5);
/// Requests with a peer whose rate is not known yet, and with one that is near or just began.
const QUEUE_MIN: usize = 32;
const QUEUE_MIN_NEAR: usize = 8;
/// The same where all are on our own link: what stands too long in one's queue is moved to another
/// (see `relieve`).
const QUEUE_MIN_FLAT: usize = 16;
/// A request is never given up sooner.
const PATIENCE_MIN: Duration = Duration::from_secs(4);
/// A request is given up at the latest.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(20);
/// Time after which a silent peer loses its requests when nothing else is left to ask for, at most
/// and at least.
pub(super) const ENDGAME_PATIENCE: Duration = Duration::from_secs(5);
const ENDGAME_PATIENCE_MIN: Duration = Duration::from_secs(1);
/// In times that it takes from one block to the next.
const ENDGAME_GAPS: u32 = 32;
/// Messages of unknown id a minute that are skipped.
const UNKNOWN_PER_MIN_MAX: u32 = 100;
/// Changes of choke and interest a minute that are borne.
const FLIPS_PER_MIN_MAX: u32 = 600;
/// Rejects a minute that are borne: two full queues, as when it chokes us twice. A peer that
/// rejects what it offers would be asked again and again.
const REJECTS_PER_MIN_MAX: u32 = 2 * limits::REQUESTS_OUT_MAX;
/// Refused requests a minute that are borne; enough for a queue that crossed our choke.
const REFUSED_PER_MIN_MAX: u32 = limits::REQUESTS_IN_CLOSE;
