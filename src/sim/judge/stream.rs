//! What one end of a stream has said and heard, and whether it may say more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::pieces::Pieces;
use crate::base::bits::Bitfield;
use crate::base::id::PieceIndex;
use crate::base::limits::BLOCK_LEN;
use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::meta::metainfo::Metainfo;
use crate::sim::spec;
use crate::sim::tap::{Payload, Said};
use crate::swarm::Peer;
use crate::wire::extended::EV_PEERS_ID;
use crate::wire::message::BlockRef;

/// One end's book of a stream.
#[derive(Debug)]
pub(super) struct Talk {
    /// This end runs an engine that is held to the rules.
    pub is_judged: bool,
    /// So does the other: what is made of a liar's answers is nobody's fault.
    is_among_engines: bool,
    /// Both ends offered the fast extension, as far as they have spoken.
    offered_fast: bool,
    hears_fast: bool,
    /// Pieces that it claimed, and that it was told of.
    claimed: Bitfield,
    told: Bitfield,
    /// It chokes; it is choked.
    chokes: bool,
    is_choked: bool,
    /// Pieces that it may be asked for all the same.
    granted: BTreeSet<PieceIndex>,
    /// Its requests that are open, and all that it ever made.
    open: BTreeSet<BlockRef>,
    /// Those that it took back, until they are answered all the same.
    taken_back: BTreeMap<BlockRef, u32>,
    /// Those that it ever took back: an answer may come just before it asks again.
    ever_taken_back: BTreeSet<BlockRef>,
    asked: BTreeSet<BlockRef>,
    /// What was stored before a request for it left: one that is about to leave explains it.
    unexplained: BTreeSet<(PieceIndex, u32)>,
    /// A choke made requests void before they left, and which those were cannot be seen.
    had_void: bool,
    /// Requests that it has heard and not answered.
    owes: BTreeMap<BlockRef, u32>,
    /// The block that it is sending.
    sending: Option<BlockRef>,
    /// The last that it said and heard.
    last: VecDeque<(Instant, &'static str, Said)>,
}

type Broken = (&'static str, String);

impl Talk {
    /// Nothing was said.
    pub fn new(is_judged: bool, is_among_engines: bool, pieces: u32) -> Self {
        Self {
            is_judged,
            is_among_engines,
            offered_fast: false,
            hears_fast: false,
            claimed: Bitfield::new(pieces),
            told: Bitfield::new(pieces),
            chokes: true,
            is_choked: true,
            granted: BTreeSet::new(),
            open: BTreeSet::new(),
            taken_back: BTreeMap::new(),
            ever_taken_back: BTreeSet::new(),
            asked: BTreeSet::new(),
            unexplained: BTreeSet::new(),
            had_void: false,
            owes: BTreeMap::new(),
            sending: None,
            last: VecDeque::new(),
        }
    }

    fn fast(&self) -> bool {
        self.offered_fast && self.hears_fast
    }

    fn note(&mut self, now: Instant, verb: &'static str, said: &Said) {
        if matches!(said, Said::Payload(_)) {
            return;
        }
        if self.last.len() == LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back((now, verb, said.clone()));
    }

    /// The last that it said and heard, in words.
    pub fn last(&self) -> Vec<String> {
        let line = |(at, verb, said): &(Instant, &str, Said)| format!("{at} {verb} {said:?}");
        self.last.iter().map(line).collect()
    }

    /// This end has lost a piece: it will claim it anew.
    pub fn lost(&mut self, piece: PieceIndex) {
        self.claimed.clear(piece.0);
    }

    /// This end says something.
    pub fn say(
        &mut self,
        now: Instant,
        said: Said,
        pieces: &Pieces,
        meta: &Metainfo,
        payload: &spec::Payload,
    ) -> Result<(), Broken> {
        self.note(now, "says", &said);
        match said {
            Said::Handshake { fast } => self.offered_fast = fast,
            Said::Have(piece) => {
                if !pieces.is_verified(piece) {
                    return Err(("claim", format!("claims piece {piece}, which it lacks")));
                }
                if !self.claimed.set(piece.0) {
                    return Err(("have", format!("claims piece {piece} a second time")));
                }
            }
            Said::Bitfield(bytes) => {
                let all = Bitfield::from_bytes(&bytes, self.claimed.len());
                let all = all.ok_or(("claim", "sends a bitfield of wrong length".to_owned()))?;
                self.claim_all(all, pieces)?;
            }
            Said::HaveAll => self.claim_all(Bitfield::full(self.claimed.len()), pieces)?,
            // A request may come between deciding to choke and saying it: without BEP 6 nobody
            // knows whether it still stands after the next unchoke.
            Said::Choke => self.chokes = true,
            Said::Unchoke => self.chokes = false,
            Said::AllowedFast(piece) => {
                self.granted.insert(piece);
            }
            Said::Request(block) => return self.ask(block),
            Said::Cancel(block) => {
                // Its answer may be there, and not read yet.
                self.ever_taken_back.insert(block);
                if self.open.remove(&block) {
                    *self.taken_back.entry(block).or_default() += 1;
                }
            }
            Said::Reject(block) => {
                count_down(&mut self.owes, block);
            }
            Said::Block(block) => {
                if !self.owes.contains_key(&block) {
                    return Err(("unasked", format!("sends {block:?}, not asked for")));
                }
                if self.chokes && !self.granted.contains(&block.piece) {
                    return Err(("choke", format!("sends {block:?} to a choked peer")));
                }
                count_down(&mut self.owes, block);
                self.sending = Some(block);
            }
            Said::Payload(part) => return self.check_payload(&part, meta, payload),
            Said::Extended(body) => return check_secrecy(&body, meta),
            Said::Interested | Said::NotInterested | Said::HaveNone | Said::Other(_) => {}
        }
        Ok(())
    }

    fn claim_all(&mut self, all: Bitfield, pieces: &Pieces) -> Result<(), Broken> {
        if let Some(piece) = all.ones().find(|&p| !pieces.is_verified(PieceIndex(p))) {
            return Err(("claim", format!("claims piece {piece}, which it lacks")));
        }
        self.claimed = all;
        Ok(())
    }

    fn ask(&mut self, block: BlockRef) -> Result<(), Broken> {
        if !self.told.has(block.piece.0) {
            return Err((
                "request",
                format!("asks for {block:?}, which the peer lacks"),
            ));
        }
        self.asked.insert(block);
        self.unexplained.remove(&(block.piece, block.begin));
        // A choke may have come since the engine decided: without BEP 6 that ends the request, and
        // it may be made again while the first is on its way.
        let is_void = self.is_choked && !self.fast();
        let is_plain = self.fast() && self.is_among_engines;
        let is_again = !is_void && !self.open.insert(block);
        if is_again && is_plain && !self.ever_taken_back.contains(&block) {
            return Err((
                "request",
                format!("asks for {block:?}, which is open already"),
            ));
        }
        Ok(())
    }

    /// Whether what it sends is what the torrent says.
    fn check_payload(
        &self,
        part: &Payload,
        meta: &Metainfo,
        payload: &spec::Payload,
    ) -> Result<(), Broken> {
        let Some(block) = self.sending else {
            return Ok(());
        };
        let is_right = match (part, payload) {
            (Payload::Bytes(done, bytes), spec::Payload::Real(content)) => {
                let first = meta.geometry().offset(block.piece, block.begin + done) as usize;
                content[first..first + bytes.len()] == bytes[..]
            }
            (Payload::Bytes(_, bytes), spec::Payload::Tagged) => bytes.iter().all(|&b| b == 0),
            (Payload::Tag(slot, is_right), _) => {
                let end = block.begin + block.len;
                *is_right && slot.piece == block.piece && slot.begin + slot.len <= end
            }
        };
        if is_right {
            Ok(())
        } else {
            Err(("payload", format!("sends wrong bytes of {block:?}")))
        }
    }

    /// This end hears something.
    pub fn hear(&mut self, now: Instant, said: Said) {
        self.note(now, "hears", &said);
        match said {
            Said::Handshake { fast } => self.hears_fast = fast,
            Said::Have(piece) if piece.0 < self.told.len() => {
                self.told.set(piece.0);
            }
            Said::Bitfield(bytes) => {
                if let Some(all) = Bitfield::from_bytes(&bytes, self.told.len()) {
                    self.told = all;
                }
            }
            Said::HaveAll => self.told = Bitfield::full(self.told.len()),
            Said::Choke => {
                self.is_choked = true;
                self.had_void |= !self.fast();
                if !self.fast() {
                    self.open.clear();
                }
            }
            Said::Unchoke => self.is_choked = false,
            Said::Request(block) => *self.owes.entry(block).or_default() += 1,
            Said::Reject(block) => {
                if !count_down(&mut self.taken_back, block) {
                    self.open.remove(&block);
                }
            }
            Said::Block(block) => {
                if !self.open.remove(&block) {
                    count_down(&mut self.taken_back, block);
                }
            }
            Said::Have(_)
            | Said::AllowedFast(_)
            | Said::Cancel(_)
            | Said::Payload(_)
            | Said::Interested
            | Said::NotInterested
            | Said::HaveNone
            | Said::Extended(_)
            | Said::Other(_) => {}
        }
    }

    /// Payload of `slot` is stored: all of it lies in a block that was asked for here, or the
    /// request for that is about to leave.
    pub fn store(&mut self, slot: Slot) {
        let begin = slot.begin - slot.begin % BLOCK_LEN;
        let from = BlockRef {
            piece: slot.piece,
            begin,
            len: 0,
        };
        let found = self.asked.range(from..).next();
        let is_asked = found.is_some_and(|block| {
            let end = u64::from(slot.begin) + u64::from(slot.len);
            block.piece == slot.piece
                && block.begin == begin
                && end <= u64::from(begin) + u64::from(block.len)
        });
        if !is_asked {
            self.unexplained.insert((slot.piece, begin));
        }
    }

    /// Compares the engine's books of this peer with these; `all_said` if nothing of what the
    /// engine has decided to say is still on its way to the stream.
    pub fn compare(&self, peer: &Peer, all_said: bool) -> Result<(), Broken> {
        if !self.is_judged {
            return Ok(());
        }
        let remote = peer.origin.remote;
        if peer.have != self.told {
            let (counted, told) = (peer.have.count_ones(), self.told.count_ones());
            let text = format!("{remote} claimed {told} pieces, the engine knows {counted}");
            return Err(("holders", text));
        }
        if peer.chokes_us != self.is_choked {
            let text = format!("{remote} chokes us: {}, noted otherwise", self.is_choked);
            return Err(("audit", text));
        }
        let is_plain = all_said && !self.had_void;
        if is_plain && let Some((piece, begin)) = self.unexplained.first() {
            let text = format!("stored of piece {piece} at {begin} what it did not ask for");
            return Err(("store", text));
        }
        if all_said && let Some(block) = peer.requested().find(|b| !self.open.contains(b)) {
            let text = format!("waits for {block:?} of {remote}, which is not asked for");
            return Err(("lost request", text));
        }
        Ok(())
    }
}

/// Whoever is in a private swarm tells no peer of another (BEP 27).
fn check_secrecy(body: &[u8], meta: &Metainfo) -> Result<(), Broken> {
    let has = |key: &[u8]| body.windows(key.len()).any(|part| part == key);
    let tells = [&b"5:added"[..], b"6:added6"].iter().any(|key| has(key));
    if meta.private && body.first() != Some(&0) && tells {
        return Err(("private", "tells a peer of others".to_owned()));
    }
    if meta.private && body.first() == Some(&EV_PEERS_ID) {
        return Err(("private", "speaks with an evpeer of evpeers".to_owned()));
    }
    Ok(())
}

/// One of these fewer; whether there was one.
fn count_down(counts: &mut BTreeMap<BlockRef, u32>, block: BlockRef) -> bool {
    let Some(count) = counts.get_mut(&block) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(&block);
    }
    true
}

/// Messages that are kept for people.
const LAST_MAX: usize = 60;
