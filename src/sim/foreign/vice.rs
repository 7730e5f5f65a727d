//! What attackers do, and clients so broken that they might as well be.

use std::time::Duration;

use super::{Foreign, Lie, aim};
use crate::base::bits::Bitfield;
use crate::base::id::{ConnId, PieceIndex};
use crate::base::limits::BLOCK_LEN;
use crate::sim::actor::Hands;
use crate::sim::spec::Payload;
use crate::wire::message::{BlockRef, Outgoing};

/// A way to break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    /// Every so many blocks that it serves, one is wrong.
    Corrupts(u32),
    /// It claims every piece, unchokes everybody and answers nothing.
    Stalls,
    /// It claims every piece and rejects requests for those that it lacks.
    ClaimsAll,
    /// It sends so many of these ten times a second.
    Floods(Flood, u32),
    /// It sends blocks that nobody asked for.
    SendsUnasked,
    /// Its blocks are a byte short.
    CutsBlocks,
    /// It announces a message of 2 GiB.
    Oversizes,
    /// It claims a piece behind the last.
    Overreaches,
    /// Its handshake comes a byte a second, and never ends (slowloris).
    Drips,
    /// It serves nobody.
    FreeRides,
    /// It comes with so many names at a time.
    Sybil(u32),
    /// It goes for good after so many blocks, in the middle of whatever it does.
    Leaves(u32),
    /// It sends back what it hears.
    Echoes,
    /// Its streams break in the middle of a block.
    Resets,
    /// After the handshake it sends noise.
    Babbles,
    /// It sends so many datagrams ten times a second to each host that it dials, in the name of
    /// others: questions to trackers, uTP, noise.
    Spoofs(u32),
    /// It tells its peers of addresses off-link where a victim is (BEP 11), every second.
    AimsByPex,
    /// It tells its link of ports at which nobody is (BEP 14), twice a second.
    AimsByLsd,
    /// It has links with evpeers and tells them what is not so, every second.
    Lies(Lie),
}

/// What a flood consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// `have`s for the same piece.
    Haves,
    /// Requests, of the first piece.
    Requests,
    /// Messages of an id that nobody knows.
    Unknown,
    /// Chokes and unchokes.
    Chokes,
    /// Interest that comes and goes.
    Interest,
    /// Keep-alives.
    KeepAlives,
    /// Cancels of what was never asked for.
    Cancels,
    /// Rejects of what was never asked.
    Rejects,
    /// `allowed fast`.
    AllowedFast,
}

impl Foreign {
    fn has_vice(&self, vice: Vice) -> bool {
        self.vices.contains(&vice)
    }

    /// The pieces that it says it has.
    pub(super) fn claimed(&self) -> Bitfield {
        if self.has_vice(Vice::Stalls) || self.has_vice(Vice::ClaimsAll) {
            Bitfield::full(self.fetch.have.len())
        } else {
            self.fetch.have.clone()
        }
    }

    /// Streams that it has to each host.
    pub(super) fn sybils(&self) -> usize {
        let count = |vice: &Vice| match *vice {
            Vice::Sybil(count) => Some(count as usize),
            _ => None,
        };
        self.vices.iter().find_map(count).unwrap_or(1)
    }

    /// Whether it stays whatever happens.
    pub(super) fn is_patient(&self) -> bool {
        self.has_vice(Vice::Drips) || self.has_vice(Vice::Echoes)
    }

    /// Whether it does not listen to what came in.
    pub(super) fn hears_nothing(&self, conn: ConnId, bytes: &[u8], hands: &mut Hands<'_>) -> bool {
        if self.has_vice(Vice::Echoes) {
            hands.send(conn, bytes);
        }
        self.is_patient()
    }

    pub(super) fn ignores_requests(&self) -> bool {
        self.has_vice(Vice::Stalls)
    }

    pub(super) fn serves_nobody(&self) -> bool {
        self.has_vice(Vice::FreeRides)
    }

    /// A stream is up; whether no handshake shall be sent.
    pub(super) fn vice_begins(&mut self, _conn: ConnId, _hands: &mut Hands<'_>) -> bool {
        self.has_vice(Vice::Drips)
    }

    /// The handshakes are done.
    pub(super) fn vice_opens(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        for vice in self.vices.clone() {
            match vice {
                Vice::Stalls => self.unchoke(conn, hands),
                Vice::Oversizes => hands.send(conn, &[0x7f, 0xff, 0xff, 0xff, 20]),
                Vice::Overreaches => {
                    let last = PieceIndex(self.fetch.have.len());
                    self.say(conn, &Outgoing::Have(last), hands);
                }
                Vice::Babbles => {
                    let noise: Vec<u8> =
                        (0..NOISE_LEN).map(|_| hands.rng.next_u64() as u8).collect();
                    hands.send(conn, &noise);
                }
                _ => {}
            }
        }
    }

    /// Does what is done ten times a second.
    pub(super) fn act(&mut self, hands: &mut Hands<'_>) {
        if !self.liars.is_empty() && hands.rng.below(10) == 0 {
            self.lie(hands);
        }
        for vice in self.vices.clone() {
            match vice {
                Vice::Spoofs(count) => {
                    let dials: Vec<_> = self.manners.dials.clone();
                    let name = self.meta.info_hash.0;
                    (0..count).for_each(|_| aim::spoof(&dials, &name, hands));
                }
                Vice::Lies(_) => {}
                Vice::AimsByLsd if hands.rng.below(5) == 0 => {
                    let name = self.meta.info_hash.0;
                    aim::tell_link(&name, hands);
                }
                _ => {}
            }
            let conns: Vec<ConnId> = self.peers.keys().copied().collect();
            for conn in conns {
                let Some(peer) = self.peers.get(&conn) else {
                    continue;
                };
                let (is_met, served) = (peer.is_met, peer.served);
                match vice {
                    Vice::Resets if served > 0 => {
                        hands.reset(conn);
                        self.ended(conn, hands);
                    }
                    Vice::Drips => self.drip(conn, hands),
                    Vice::AimsByPex if is_met && hands.rng.below(10) == 0 => {
                        let pex = self.peers.get(&conn).map_or(0, |peer| peer.pex);
                        if let Some(message) = aim::pex(pex, hands) {
                            self.say(conn, &message, hands);
                        }
                    }
                    Vice::Floods(flood, count) if is_met => self.flood(conn, flood, count, hands),
                    Vice::SendsUnasked if is_met => {
                        let block = self.some_block(hands);
                        let payload = self.payload_of(block);
                        self.send_block(conn, block, &payload, hands);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The next byte of a handshake that lacks its last one for ever.
    fn drip(&mut self, conn: ConnId, hands: &mut Hands<'_>) {
        let bytes = self.handshake(conn);
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let due = (hands.now - peer.since).as_secs() as usize;
        if peer.dripped < due.min(bytes.len() - 1) {
            peer.dripped += 1;
            hands.send(conn, &bytes[peer.dripped - 1..peer.dripped]);
        }
    }

    fn flood(&mut self, conn: ConnId, flood: Flood, count: u32, hands: &mut Hands<'_>) {
        let block = self.some_block(hands);
        let mut bytes = Vec::new();
        for turn in 0..count {
            let first = BlockRef {
                piece: PieceIndex(0),
                begin: 0,
                len: block.len,
            };
            let message = match flood {
                Flood::Haves => Outgoing::Have(PieceIndex(0)),
                Flood::Requests => Outgoing::Request(first),
                Flood::Unknown => {
                    bytes.extend_from_slice(&[0, 0, 0, 2, 0xc8, 0]);
                    continue;
                }
                Flood::Chokes if turn % 2 == 0 => Outgoing::Choke,
                Flood::Chokes => Outgoing::Unchoke,
                Flood::Interest if turn % 2 == 0 => Outgoing::Interested,
                Flood::Interest => Outgoing::NotInterested,
                Flood::KeepAlives => Outgoing::KeepAlive,
                Flood::Cancels => Outgoing::Cancel(block),
                Flood::Rejects => Outgoing::Reject(block),
                Flood::AllowedFast => Outgoing::AllowedFast(block.piece),
            };
            message.encode(&mut bytes);
        }
        if hands.unsent(conn) < UNSENT_MAX {
            hands.send(conn, &bytes);
        }
    }

    fn some_block(&self, hands: &mut Hands<'_>) -> BlockRef {
        let geometry = self.meta.geometry();
        let piece = PieceIndex(hands.rng.below(geometry.piece_count()));
        let at = hands.rng.below(geometry.block_count(piece));
        BlockRef {
            piece,
            begin: at * BLOCK_LEN,
            len: geometry.block_len(piece, at),
        }
    }

    /// Serves a block as an attacker does; `false` if it is to be served in good order.
    pub(super) fn serve_viciously(
        &mut self,
        conn: ConnId,
        block: BlockRef,
        hands: &mut Hands<'_>,
    ) -> bool {
        for vice in self.vices.clone() {
            match vice {
                Vice::Corrupts(every) if self.counts.blocks_out.is_multiple_of(every) => {
                    let payload = self.wrong_payload_of(block);
                    self.send_block(conn, block, &payload, hands);
                }
                Vice::CutsBlocks => {
                    let block = BlockRef {
                        len: block.len - 1,
                        ..block
                    };
                    let payload = self.payload_of(block);
                    self.send_block(conn, block, &payload, hands);
                }
                Vice::Resets => {
                    let payload = self.payload_of(block);
                    self.send_block(conn, block, &payload[..payload.len() / 2], hands);
                }
                Vice::Leaves(after) if self.counts.blocks_out >= after => {
                    self.is_gone = true;
                    let conns: Vec<ConnId> = self.peers.keys().copied().collect();
                    for conn in conns {
                        self.drop_conn(conn, hands);
                    }
                }
                _ => continue,
            }
            return true;
        }
        false
    }

    fn wrong_payload_of(&self, block: BlockRef) -> Vec<u8> {
        let mut payload = self.payload_of(block);
        match self.payload {
            Payload::Real(_) => payload.iter_mut().for_each(|byte| *byte ^= 0x55),
            Payload::Tagged => payload.fill(1),
        }
        payload
    }
}

/// How often it acts.
pub(super) const ACT: Duration = Duration::from_millis(100);
/// Bytes of noise at a time.
const NOISE_LEN: usize = 4096;
/// Bytes of a flood that wait to leave.
const UNSENT_MAX: usize = 64 * 1024;
