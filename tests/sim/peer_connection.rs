//! Streams whose other end says what no peer should, or nothing (libtorrent's simulations
//! `peer_connection`, `timeout` and `fast_extensions`, by name where they have one).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evpeer::base::id::{InfoHash, PeerId, PieceIndex};
use evpeer::base::limits;
use evpeer::engine::Report;
use evpeer::meta::metainfo::Metainfo;
use evpeer::sim::foreign::reader::Heard;
use evpeer::sim::foreign::script::{Line, Script};
use evpeer::sim::{Have, HostId, World};
use evpeer::wire::handshake::Reserved;
use evpeer::wire::message::{BlockRef, Outgoing};

use crate::world::{LAN, for_seeds, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const FAST: Reserved = Reserved {
    fast: true,
    extended: false,
    dht: false,
};
const PLAIN: Reserved = Reserved {
    fast: false,
    ..FAST
};
const STRANGER: PeerId = PeerId(*b"-XX0100-a-stranger--");

/// A host of ours, seed or leecher, and a scripted peer that dials it.
struct Pair {
    world: World,
    ours: HostId,
    script: HostId,
}

impl Pair {
    fn new(rng_seed: u64, have: Have, lines: impl FnOnce(&Metainfo) -> Vec<Line>) -> Self {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[1_000_001]);
        let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), content);
        let ours = world.add_peer(have, &[]);
        // A peer that is still checking does not take streams yet.
        world.run_until(Duration::from_secs(3), |_| false);
        let script = Script::dialling(world.addr(ours), lines(&meta));
        let script = world.add_actor(Box::new(script), None);
        Self {
            world,
            ours,
            script,
        }
    }

    fn script(&self) -> &Script {
        self.world.actor(self.script).expect("a script")
    }

    /// Runs until the stream ends; how long it was open.
    fn ends(&mut self, what: &str) -> Duration {
        let script = self.script;
        let is_over = |w: &mut World| {
            let script: &Script = w.actor(script).expect("a script");
            script.ended_at().is_some()
        };
        let ended = self.world.run_until(MINUTES, is_over);
        assert!(
            ended,
            "{what}: the stream is still open: {:?}",
            self.script().heard()
        );
        self.world
            .audit()
            .unwrap_or_else(|failure| panic!("{failure}"));
        let script = self.script();
        let begun = script.begun_at().expect("it was established");
        script.ended_at().expect("seen above") - begun
    }

    /// Why our end closed the stream.
    fn reason(&self) -> String {
        let reason = |report: &Report| match report {
            Report::PeerLeft { reason, .. } => Some(reason.clone()),
            _ => None,
        };
        let reasons = self.world.reports(self.ours).iter().rev();
        reasons.clone().find_map(reason).unwrap_or_default()
    }
}

fn shake(meta: &Metainfo, reserved: Reserved) -> Line {
    Line::Shake(reserved, meta.info_hash, STRANGER)
}

fn block(piece: u32, begin: u32, len: u32) -> BlockRef {
    BlockRef {
        piece: PieceIndex(piece),
        begin,
        len,
    }
}

fn bits(meta: &Metainfo, len_more: i32) -> Line {
    let len = meta.geometry().piece_count().div_ceil(8) as i32 + len_more;
    Line::Say(Outgoing::Bitfield(Bytes::from(vec![0x80; len as usize])))
}

/// `handshake_timeout`: who says nothing is closed after 10 s, and so is who says half of it.
#[test]
fn handshake_timeout() {
    let half = |_: &Metainfo| vec![Line::Bytes(b"\x13BitTorrent prot".to_vec())];
    let nothing = |_: &Metainfo| Vec::new();
    for_seeds(3, |rng_seed| {
        let mut silent = Pair::new(rng_seed, Have::All, nothing);
        let mut faltering = Pair::new(rng_seed, Have::All, half);
        for open in [silent.ends("nothing"), faltering.ends("half")] {
            let late = open.saturating_sub(limits::HANDSHAKE_TIMEOUT);
            assert!(
                open >= limits::HANDSHAKE_TIMEOUT && late < Duration::from_millis(100),
                "{open:?}"
            );
        }
    });
}

/// `peer_idle_timeout`: who is silent after its handshake hears a keep-alive, and is closed when
/// its own is overdue; who sends keep-alives stays.
#[test]
fn peer_idle_timeout() {
    for_seeds(2, |rng_seed| {
        let silent = |meta: &Metainfo| vec![shake(meta, FAST), Line::Say(Outgoing::HaveNone)];
        let mut pair = Pair::new(rng_seed, Have::All, silent);
        let open = pair.ends("silent");
        let late = open.saturating_sub(limits::IDLE_TIMEOUT);
        assert!(
            open >= limits::IDLE_TIMEOUT && late < Duration::from_secs(2),
            "{open:?}"
        );
        assert_eq!(pair.script().count(|heard| *heard == Heard::KeepAlive), 1);

        let alive = |meta: &Metainfo| {
            let pause = || {
                [
                    Line::Pause(limits::KEEPALIVE_INTERVAL),
                    Line::Bytes(vec![0; 4]),
                ]
            };
            let mut lines = vec![shake(meta, FAST), Line::Say(Outgoing::HaveNone)];
            lines.extend((0..4).flat_map(|_| pause()));
            lines
        };
        let open = Pair::new(rng_seed, Have::All, alive).ends("keep-alives");
        assert!(
            open >= limits::KEEPALIVE_INTERVAL * 4 + limits::IDLE_TIMEOUT,
            "{open:?}"
        );
    });
}

/// `disconnect_unknown_info_hash`.
#[test]
fn disconnect_unknown_info_hash() {
    for_seeds(2, |rng_seed| {
        let other = |_: &Metainfo| vec![Line::Shake(FAST, InfoHash([7; 20]), STRANGER)];
        let mut pair = Pair::new(rng_seed, Have::All, other);
        let open = pair.ends("another swarm");
        assert!(open < Duration::from_secs(1), "{open:?}");
        assert!(
            pair.script().heard().is_empty(),
            "nothing is said to a stranger"
        );
    });
}

/// What ends a stream at once, and what our end says of it: `alternating_have_all_have_none`,
/// `bitfield_and_have_none`, `bitfield_and_have_all`, `full_bitfield_and_have_none`,
/// `have_all_invalid_msg`, `short_bitfield`, `long_bitfield`, `invalid_request`, `large_message`.
#[test]
fn messages_that_end_a_stream() {
    type Rows = [(&'static str, fn(&Metainfo) -> Vec<Line>, &'static str)];
    let rows: &Rows = &[
        (
            "have_all, have_none",
            |m| {
                vec![
                    shake(m, FAST),
                    Line::Say(Outgoing::HaveAll),
                    Line::Say(Outgoing::HaveNone),
                ]
            },
            "bitfield after other messages",
        ),
        (
            "bitfield, have_none",
            |m| vec![shake(m, FAST), bits(m, 0), Line::Say(Outgoing::HaveNone)],
            "bitfield after other messages",
        ),
        (
            "have_all without agreement",
            |m| vec![shake(m, PLAIN), Line::Say(Outgoing::HaveAll)],
            "without negotiation",
        ),
        (
            "reject without agreement",
            |m| {
                vec![
                    shake(m, PLAIN),
                    Line::Say(Outgoing::Reject(block(0, 0, 16384))),
                ]
            },
            "without negotiation",
        ),
        (
            "short bitfield",
            |m| vec![shake(m, FAST), bits(m, -1)],
            "does not fit",
        ),
        (
            "long bitfield",
            |m| vec![shake(m, FAST), bits(m, 1)],
            "does not fit",
        ),
        (
            "request past the last piece",
            |m| {
                let piece = m.geometry().piece_count();
                vec![
                    shake(m, FAST),
                    Line::Say(Outgoing::Request(block(piece, 0, 16384))),
                ]
            },
            "of a torrent of",
        ),
        (
            "request past the end of a piece",
            |m| {
                vec![
                    shake(m, FAST),
                    Line::Say(Outgoing::Request(block(0, 32 * 1024, 16384))),
                ]
            },
            "is not inside piece",
        ),
        (
            "request of 16 KiB and a byte",
            |m| {
                vec![
                    shake(m, FAST),
                    Line::Say(Outgoing::Request(block(0, 0, 16385))),
                ]
            },
            "limit 16384 B",
        ),
        (
            "have past the last piece",
            |m| {
                let piece = PieceIndex(m.geometry().piece_count());
                vec![shake(m, FAST), Line::Say(Outgoing::Have(piece))]
            },
            "of a torrent of",
        ),
        (
            "large message",
            |m| {
                vec![
                    shake(m, FAST),
                    Line::Bytes(vec![0x7f, 0xff, 0xff, 0xff, 20]),
                ]
            },
            "limit",
        ),
        (
            "choke with a payload",
            |m| vec![shake(m, FAST), Line::Bytes(vec![0, 0, 0, 2, 0, 0])],
            "",
        ),
    ];
    for_seeds(1, |rng_seed| {
        for have in [Have::All, Have::Nothing] {
            for (what, lines, why) in rows {
                let mut pair = Pair::new(rng_seed, have, lines);
                let open = pair.ends(what);
                assert!(open < Duration::from_secs(1), "{what}: {open:?}");
                let reason = pair.reason();
                let is_known = reason.contains(why) && !reason.is_empty();
                // Two seeds part before the second message is read.
                let is_redundant = have == Have::All && reason == "both sides have everything";
                assert!(is_known || is_redundant, "{what}: {reason}");
            }
        }
    });
}

/// `allow_fast` and `allow_fast_stress`: a stranger that is left choked is granted some pieces,
/// gets their blocks, and cannot drain more than three times that out of us.
#[test]
fn allow_fast_stress() {
    for_seeds(3, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[1_000_001]);
        let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), content);
        let ours = world.add_peer(Have::All, &[]);
        world.run_until(Duration::from_secs(3), |_| false);
        let script = |world: &mut World, id: PeerId, more: Vec<Line>| {
            let mut lines = vec![Line::Shake(FAST, meta.info_hash, id)];
            lines.extend([Outgoing::HaveNone, Outgoing::Interested].map(Line::Say));
            lines.extend(more);
            let script = Script::dialling(world.addr(ours), lines);
            world.add_actor(Box::new(script), None)
        };
        // They take the slots and ask for nothing.
        for n in 0..40 {
            script(&mut world, PeerId([n; 20]), Vec::new());
        }
        world.run_until(Duration::from_millis(500), |_| false);
        let geometry = meta.geometry();
        let requests = (0..geometry.piece_count()).flat_map(|piece| {
            let piece = PieceIndex(piece);
            (0..geometry.block_count(piece)).map(move |index| {
                let len = geometry.block_len(piece, index);
                Outgoing::Request(block(piece.0, index * limits::BLOCK_LEN, len))
            })
        });
        let requests: Vec<Line> = requests.map(Line::Say).collect();
        let wave = |_| {
            [
                vec![Line::Pause(Duration::from_millis(50))],
                requests.clone(),
            ]
            .concat()
        };
        let waves: Vec<Line> = (0..10).flat_map(wave).collect();
        let stranger = script(&mut world, STRANGER, waves);
        world.run_until(Duration::from_secs(5), |_| false);
        let script: &Script = world.actor(stranger).expect("a script");
        let count = |is_it: fn(&Heard) -> bool| script.count(is_it);
        assert_eq!(
            count(|heard| *heard == Heard::Unchoke),
            0,
            "a slot was left"
        );
        let granted = count(|heard| matches!(heard, Heard::AllowedFast(_)));
        let served = count(|heard| matches!(heard, Heard::Block(..)));
        let rejected = count(|heard| matches!(heard, Heard::Reject(_)));
        assert!((1..=5).contains(&granted), "{granted} pieces are granted");
        assert!(
            served >= granted && served <= granted * 2 * 3,
            "{served} of {granted} grants"
        );
        assert_eq!(
            served + rejected,
            10 * requests.len(),
            "each request is answered once"
        );
    });
}

/// `self_connect`: a host that is told its own address does not talk to itself, and downloads.
#[test]
fn self_connect() {
    for_seeds(3, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[500_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let host = world.add_peer(Have::Nothing, &[HostId(1), seed]);
        assert!(world.run_until(MINUTES, |w| w.is_complete(host)));
        let own = world.addr(host);
        let is_own = |report: &Report| match report {
            Report::PeerJoined { remote, .. } => remote.ip() == own.ip(),
            _ => false,
        };
        assert!(!world.reports(host).iter().any(is_own));
    });
}

/// `dead_peers`: a host that knows two hundred addresses where nobody is finds the one that lives.
#[test]
fn dead_peers() {
    for_seeds(2, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[500_000]);
        let mut world = World::new(rng_seed, LAN, meta, content);
        let dead: Vec<HostId> = (0..200)
            .map(|_| world.add_peer(Have::Nothing, &[]))
            .collect();
        dead.iter().for_each(|&host| world.cut(host));
        let seed = world.add_peer(Have::All, &[]);
        let known = [&dead[..], &[seed]].concat();
        let host = world.add_peer(Have::Nothing, &known);
        assert!(world.run_until(MINUTES, |w| w.is_complete(host)));
    });
}

/// `allow_multiple_connections_per_pid`, switched off: of two streams of one peer, one stays.
#[test]
fn one_stream_a_peer_id() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[500_000]);
        let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), content);
        let ours = world.add_peer(Have::All, &[]);
        world.run_until(Duration::from_secs(3), |_| false);
        let lines = || vec![shake(&meta, FAST), Line::Say(Outgoing::HaveNone)];
        let scripts = [(); 2].map(|()| {
            let script = Script::dialling(world.addr(ours), lines());
            world.add_actor(Box::new(script), None)
        });
        world.run_until(Duration::from_secs(20), |_| false);
        let is_open = |&&host: &&HostId| {
            let script: &Script = world.actor(host).expect("a script");
            script.ended_at().is_none()
        };
        assert_eq!(scripts.iter().filter(is_open).count(), 1);
    });
}
