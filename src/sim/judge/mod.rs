//! What must hold after every step, in one place.
//!
//! The judges see what the world sees: bytes that leave and arrive ([`Tap`]), stores, verdicts,
//! reports. From these they keep books of their own (`stream`, `pieces`) and compare; what
//! engines say of themselves ([`Engine::audit`]) is asked as well, but never believed alone.
//!
//! | judge | finds |
//! |---|---|
//! | `have` | a piece claimed twice to the same peer |
//! | `claim` | a piece claimed, or asked to be served, that was not hashed right |
//! | `choke` | payload for a peer that is choked |
//! | `unasked` | payload that was not asked for |
//! | `payload` | wrong bytes from an honest host |
//! | `request` | a request for what we have, for what the peer lacks, while choked, or twice |
//! | `lost request` | a block that counts as asked for and is not, on the wire |
//! | `store` | a byte outside of what was asked of this peer |
//! | `writer` | two writers of a block, a complete block written again |
//! | `holders` | a peer's pieces as the engine counts them are not those that it was told of |
//! | `audit` | whatever the engine itself counts wrong, and limits exceeded |
//! | `pieces` | a piece counted as its own that was not hashed right, or hashed right twice |
//! | `books` | payload received, wasted and sent that is not what came and left |
//! | `private` | addresses or the name of a private swarm told to anybody |
//! | `dials` | one address or network off-link dialled too often, or a port of the system there |
//! | `slots` | more peers unchoked than there are slots |
//! | `bytes` | bytes sent are not those delivered, lost and under way |
//! | `datagrams` | datagrams sent and doubled are not those delivered, lost and under way |
//! | `amplify` | more bytes by UDP to a source that has proven nothing than came from it |
//! | `groups` | multicast more often than a LAN bears |
//! | `ban` | an honest peer banned |
//! | `gossip` | the same news told twice on a link, or told on without end |
//! | `network` | evpeers that do not come to know exactly who is there |
//! | `end` | an honest leecher that could have everything has not |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::HostId;
use super::disk::Disk;
use super::host::{address, host_of_ip};
use super::net::{Chunk, Ledger, Network, Side, StreamId};
use super::spec::{Judged, Payload};
use super::tap::{Said, Tap};
use crate::base::id::{ConnId, PieceIndex};
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::engine::{Engine, StorageAction};
use crate::meta::metainfo::Metainfo;
use crate::storage::Event;

mod datagrams;
mod gossip;
mod journal;
mod pieces;
mod stream;

use datagrams::Meters;
use gossip::Gossip;
use pieces::Pieces;
use stream::Talk;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which judge says so.
    pub judge: &'static str,
    /// Whose fault it is.
    pub host: Option<HostId>,
    /// What it is.
    pub text: String,
    /// The last that was said on the stream, if it is about one.
    pub talk: Vec<String>,
}

/// A run that broke a rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was broken.
    pub fault: Fault,
    /// The seed of the run.
    pub rng_seed: u64,
    /// Virtual time.
    pub at: Instant,
    /// Events until then.
    pub steps: u64,
    /// The last of them, in words.
    pub last: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            judge,
            host,
            text,
            talk,
        } = &self.fault;
        for line in self.last.iter().chain(talk) {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "judge \"{judge}\" at {} after {} steps",
            self.at, self.steps
        )?;
        if let Some(HostId(host)) = host {
            write!(f, ", host {host}")?;
        }
        write!(f, ": {text} (seed {})", self.rng_seed)
    }
}

impl std::error::Error for Failure {}

/// All judges and their books.
pub(super) struct Judges {
    judged: Judged,
    meta: Arc<Metainfo>,
    payload: Payload,
    fault: Option<Fault>,
    talks: BTreeMap<StreamId, Both>,
    hosts: BTreeMap<HostId, Pieces>,
    meters: BTreeMap<HostId, Meters>,
    /// Hosts whose storage has taken the torrent up in this life.
    taken_up: BTreeSet<HostId>,
    /// Hosts that once said that something is durable. Of a torrent that is not taken up that says
    /// nothing: there is no journal of it yet.
    durable: BTreeSet<HostId>,
    /// Hosts whose disks gave way under them: they send what is wrong, and are banned for it.
    rotten: BTreeSet<HostId>,
    next_audit: u64,
    /// The host that told others of evpeers last, but for those that it met just then, and when.
    pub gossiped: Option<(HostId, Instant)>,
    /// The host that met another last, and when.
    pub greeted: Option<(HostId, Instant)>,
    /// Events between two costly looks.
    pub audit_interval: u64,
}

/// The two ends of a stream, as far as they are judged, and what was read in each direction.
struct Both {
    hosts: [HostId; 2],
    /// What each end has said and heard.
    talks: [Talk; 2],
    /// What each end told of others.
    gossips: [Gossip; 2],
    /// Reads what leaves towards each end, and what arrives there.
    leaving: [Tap; 2],
    arriving: [Tap; 2],
}

impl Judges {
    pub fn new(judged: Judged, meta: Arc<Metainfo>, payload: Payload) -> Self {
        Self {
            judged,
            meta,
            payload,
            fault: None,
            talks: BTreeMap::new(),
            hosts: BTreeMap::new(),
            meters: BTreeMap::new(),
            taken_up: BTreeSet::new(),
            durable: BTreeSet::new(),
            rotten: BTreeSet::new(),
            next_audit: 0,
            gossiped: None,
            greeted: None,
            audit_interval: AUDIT_INTERVAL,
        }
    }

    fn is_strict(&self) -> bool {
        self.judged == Judged::Strictly && self.fault.is_none()
    }

    fn blame(&mut self, judge: &'static str, host: Option<HostId>, text: String) {
        self.fault.get_or_insert(Fault {
            judge,
            host,
            text,
            talk: Vec::new(),
        });
    }

    /// The first fault, if any was found.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    /// Whether it is time for what is costly.
    pub fn wants_audit(&mut self, steps: u64) -> bool {
        if !self.is_strict() || steps < self.next_audit {
            return false;
        }
        self.next_audit = steps + self.audit_interval;
        true
    }

    /// An engine begins on a host.
    pub fn started(&mut self, host: HostId) {
        let count = self.meta.geometry().piece_count();
        self.hosts.insert(host, Pieces::new(count));
        self.meters.insert(host, Meters::default());
    }

    /// It ends.
    pub fn stopped(&mut self, host: HostId) {
        self.hosts.remove(&host);
        self.meters.remove(&host);
        self.taken_up.remove(&host);
        for both in self.talks.values_mut() {
            for (of, talk) in both.hosts.iter().zip(&mut both.talks) {
                talk.is_judged &= *of != host;
            }
        }
    }

    /// A stream is established.
    pub fn opened(&mut self, stream: StreamId, acceptor: HostId, dialler: HostId) {
        if !self.is_strict() {
            return;
        }
        let count = self.meta.geometry().piece_count();
        let runs_engine = |host| self.hosts.contains_key(&host);
        let talk = |host, other| Talk::new(runs_engine(host), runs_engine(other), count);
        let both = Both {
            talks: [talk(dialler, acceptor), talk(acceptor, dialler)],
            gossips: Default::default(),
            hosts: [dialler, acceptor],
            leaving: Default::default(),
            arriving: Default::default(),
        };
        self.talks.insert(stream, both);
    }

    /// A chunk leaves towards `side`.
    pub fn sent(&mut self, stream: StreamId, side: Side, chunk: &Chunk, now: Instant) {
        if !self.is_strict() {
            return;
        }
        let Some(both) = self.talks.get_mut(&stream) else {
            return;
        };
        let speaker = side.other() as usize;
        let host = both.hosts[speaker];
        let talk = &mut both.talks[speaker];
        let Some(pieces) = self.hosts.get_mut(&host).filter(|_| talk.is_judged) else {
            return;
        };
        let gossip = &mut both.gossips[speaker];
        let hearer = address(both.hosts[side as usize]);
        let (mut fault, mut payload) = (None, 0);
        both.leaving[side as usize].read(chunk, |said| {
            payload += said.payload_len();
            if fault.is_some() {
                return;
            }
            if let Said::Extended(body) = &said
                && let Err(text) = gossip.say(body, hearer, now)
            {
                fault = Some(("gossip", text));
                return;
            }
            fault = talk.say(now, said, pieces, &self.meta, &self.payload).err();
        });
        if gossip.spoke == Some(now) {
            self.gossiped = Some((host, now));
        }
        if gossip.greeted == Some(now) {
            self.greeted = Some((host, now));
            // Who stood still answers late.
            both.gossips[side as usize].greeted = Some(now);
        }
        pieces.said += payload;
        let is_excused = self.rotten.contains(&host);
        let fault = fault.filter(|(judge, _)| *judge != "payload" || !is_excused);
        if let Some((judge, text)) = fault {
            self.fault = Some(Fault {
                judge,
                host: Some(host),
                text,
                talk: talk.last(),
            });
        }
    }

    /// A chunk arrives at `side`.
    pub fn delivered(&mut self, stream: StreamId, side: Side, chunk: &Chunk, now: Instant) {
        if !self.is_strict() {
            return;
        }
        if let Some(both) = self.talks.get_mut(&stream) {
            let host = both.hosts[side as usize];
            let talk = &mut both.talks[side as usize];
            if talk.is_judged
                && let Some(pieces) = self.hosts.get_mut(&host)
            {
                both.arriving[side as usize].read(chunk, |said| {
                    pieces.heard += said.payload_len();
                    talk.hear(now, said);
                });
            }
        }
    }

    /// Payload that came on `stream` is stored.
    pub fn stored(&mut self, host: HostId, stream: StreamId, slot: Slot) {
        if !self.is_strict() {
            return;
        }
        if let Some(both) = self.talks.get_mut(&stream)
            && let Some(end) = both.hosts.iter().position(|of| *of == host)
        {
            both.talks[end].store(slot);
        }
        let Some(pieces) = self.hosts.get_mut(&host) else {
            return;
        };
        if let Err(text) = pieces.write(Some(stream), slot, self.meta.geometry()) {
            self.blame("writer", Some(host), text);
        }
    }

    /// The engine asks storage for something.
    pub fn asked_storage(&mut self, host: HostId, action: &StorageAction) {
        let is_strict = self.is_strict();
        let Some(pieces) = self.hosts.get_mut(&host) else {
            return;
        };
        match action {
            StorageAction::Check { piece, .. } => pieces.asked(*piece),
            _ if !is_strict => {}
            // It begins from the beginning: all that it knows is what storage will say.
            StorageAction::Open { .. } => *pieces = Pieces::new(self.meta.geometry().piece_count()),
            StorageAction::Store { slot, .. } => {
                if let Err(text) = pieces.write(None, *slot, self.meta.geometry()) {
                    self.blame("writer", Some(host), text);
                }
            }
            _ => {}
        }
    }

    /// Storage answers.
    pub fn storage_said(&mut self, host: HostId, event: &Event) {
        let Some(pieces) = self.hosts.get_mut(&host) else {
            return;
        };
        match event {
            Event::Checked { piece, verdict, .. } => match verdict {
                Verdict::Good { .. } => {
                    if !pieces.verified(*piece) && !pieces.is_asked_again(*piece) {
                        let text = format!("piece {piece} was hashed right a second time");
                        self.blame("pieces", Some(host), text);
                    }
                }
                Verdict::Bad { .. } | Verdict::Missing => {
                    if pieces.is_asked_again(*piece) {
                        self.lost(host, *piece);
                    } else {
                        pieces.failed(*piece);
                    }
                }
            },
            Event::Scanned { vouched, .. } => {
                self.taken_up.insert(host);
                for piece in vouched.ones().map(PieceIndex) {
                    pieces.verified(piece);
                }
            }
            Event::Lost { piece, .. } => self.lost(host, *piece),
            Event::Durable { .. } if self.taken_up.contains(&host) => {
                self.durable.insert(host);
            }
            Event::Lapsed { .. } | Event::Failed { .. } => {
                self.taken_up.remove(&host);
            }
            Event::Durable { .. } | Event::Settled { .. } | Event::Probed { .. } => {}
            Event::Readable | Event::Text { .. } => {}
        }
    }

    /// A piece of a host is not there any more.
    fn lost(&mut self, host: HostId, piece: PieceIndex) {
        if let Some(pieces) = self.hosts.get_mut(&host) {
            pieces.lost(piece);
        }
        for both in self.talks.values_mut() {
            for (of, talk) in both.hosts.iter().zip(&mut both.talks) {
                if *of == host {
                    talk.lost(piece);
                }
            }
        }
    }

    /// What a host sends may be wrong from now on, by no fault of its own.
    pub fn excuse(&mut self, host: HostId) {
        self.rotten.insert(host);
    }

    /// A host has stopped: what its journal claims must be on its disk.
    pub fn left_behind(&mut self, host: HostId, disk: &Disk) {
        if self.judged != Judged::Strictly {
            return;
        }
        let Payload::Real(content) = &self.payload else {
            return;
        };
        let was_durable = self.durable.contains(&host);
        if let Err(text) = journal::compare(disk, &self.meta, content, was_durable) {
            self.blame("journal", Some(host), text);
        }
    }

    /// A host banned a peer; whether that one is honest.
    pub fn banned(&mut self, host: HostId, remote: SocketAddr, is_honest: bool) {
        let is_rotten = host_of_ip(remote.ip()).is_some_and(|host| self.rotten.contains(&host));
        if is_honest && !is_rotten {
            self.blame(
                "ban",
                Some(host),
                format!("{remote} is honest and was banned"),
            );
        }
    }

    /// An engine is asked about itself, and compared with what it has said.
    pub fn audit(
        &mut self,
        host: HostId,
        engine: &Engine,
        clock: Instant,
        streams: &[(ConnId, StreamId)],
        network: &Network,
    ) {
        if let Err(text) = engine.audit(clock) {
            return self.blame("audit", Some(host), text);
        }
        for torrent in engine.torrents() {
            let Some(swarm) = engine.swarm(torrent) else {
                continue;
            };
            if self.judged == Judged::Strictly
                && let Some(pieces) = self.hosts.get(&host)
                && let Err((judge, text)) = pieces.compare(swarm)
            {
                return self.blame(judge, Some(host), text);
            }
            let slots = swarm.peers().filter(|(_, peer)| !peer.choked).count();
            // One without peers may be at rest, and is left so.
            if slots > 0 && slots > swarm.slot_count() {
                let text = format!("{slots} peers are unchoked, of {}", swarm.slot_count());
                return self.blame("slots", Some(host), text);
            }
            for (_, peer) in swarm.peers() {
                let stream = streams.iter().find(|(conn, _)| *conn == peer.conn);
                let Some(&(conn, stream)) = stream else {
                    continue;
                };
                let Some(side) = network.side_of(stream, host, conn) else {
                    continue;
                };
                let Some(both) = self.talks.get(&stream) else {
                    continue;
                };
                let talk = &both.talks[side as usize];
                if let Err((judge, text)) = talk.compare(peer, engine.unsent(conn) == 0) {
                    let fault = Fault {
                        judge,
                        host: Some(host),
                        text,
                        talk: talk.last(),
                    };
                    self.fault.get_or_insert(fault);
                    return;
                }
            }
        }
    }

    /// No byte is made or lost on the way.
    pub fn conservation(&mut self, ledger: Ledger, in_flight: u64) {
        let Ledger {
            sent,
            delivered,
            lost,
        } = ledger;
        if sent != delivered + lost + in_flight {
            let text =
                format!("{sent} B sent, {delivered} delivered, {lost} lost, {in_flight} under way");
            self.blame("bytes", None, text);
        }
    }
}

/// Events between two costly looks.
const AUDIT_INTERVAL: u64 = 1000;
