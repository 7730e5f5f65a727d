//! The exchange with scripted peers: messages in, effects out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::choice::PieceOrder;
use crate::base::id::PeerId;
use crate::base::limits::BLOCK_LEN;
use crate::base::slot::Slot;
use crate::base::verdict::Verdict;
use crate::meta::choice::ChosenPieces;
use crate::meta::create::{CreateOptions, Creator, NewFile};

mod near;
mod relieve;
mod rest;
mod silent;
mod spare;
mod step_back;
mod suggest;

const FAST: Caps = Caps { fast: true };
const PLAIN: Caps = Caps { fast: false };

/// A swarm of `pieces` pieces of four blocks that may ask for them, and what it wants done.
struct Script {
    swarm: Swarm,
    now: Instant,
    peers: u8,
    own: PeerId,
}

impl Script {
    fn new(pieces: u32) -> Self {
        let len = u64::from(pieces) * 4 * u64::from(BLOCK_LEN);
        let options = CreateOptions {
            name: "content".to_owned(),
            files: vec![NewFile {
                path: Vec::new(),
                len,
                executable: false,
            }],
            piece_len: Some(4 * BLOCK_LEN),
            ..CreateOptions::default()
        };
        let mut creator = Creator::new(options).expect("the options are sound");
        creator
            .feed(&vec![0; len as usize])
            .expect("as long as said");
        let torrent = creator.finish().expect("all of it was fed");
        let meta = Metainfo::from_bytes(&torrent).expect("what is created can be read");
        let now = Instant::from_micros(1_000_000);
        let mut swarm = Swarm::new(TorrentId(0), Arc::new(meta), Rng::new(1), now);
        swarm.begin_exchange(now);
        Self {
            swarm,
            now,
            peers: 0,
            own: PeerId([99; 20]),
        }
    }

    /// A limit of rate, as so many blocks that may be asked for ahead.
    fn limit(&mut self, blocks: u32) {
        let rate = u64::from(blocks * BLOCK_LEN) / 2;
        self.swarm.set_down_limit(Some(DownLimit { rate, blocks }));
    }

    fn join(&mut self, caps: Caps) -> PeerKey {
        self.peers += 1;
        let conn = ConnId {
            index: self.peers.into(),
            generation: 1,
        };
        let remote = ([10, 0, 0, self.peers], 6881).into();
        let origin = Origin {
            remote,
            peer_id: PeerId([self.peers; 20]),
        };
        self.swarm.joined(conn, origin, caps, self.now)
    }

    /// A peer that has everything and does not choke us.
    fn seed(&mut self) -> PeerKey {
        let key = self.join(FAST);
        self.say(key, Message::HaveAll).expect("allowed");
        self.say(key, Message::Unchoke).expect("allowed");
        key
    }

    fn say(&mut self, key: PeerKey, message: Message<'_>) -> Result<(), Fault> {
        self.swarm.message(key, message, self.now)
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.swarm.poll_effect(self.now)).collect()
    }

    /// The messages that wait for a peer.
    fn sent(&mut self, key: PeerKey) -> Vec<Outgoing> {
        let conn = self.swarm.peer(key).conn;
        let to_peer = |effect| match effect {
            Effect::Send(to, message) if to == conn => Some(message),
            _ => None,
        };
        self.effects().into_iter().filter_map(to_peer).collect()
    }

    fn requests(&mut self, key: PeerKey) -> Vec<BlockRef> {
        let request = |message| match message {
            Outgoing::Request(block) => Some(block),
            _ => None,
        };
        self.sent(key).into_iter().filter_map(request).collect()
    }

    /// `key` sends `len` bytes of `block`, from `done` on; returns where they are stored.
    fn part(&mut self, key: PeerKey, block: BlockRef, done: u32, len: u32) -> Option<Slot> {
        if done == 0 {
            self.swarm
                .block_begins(key, block, self.now)
                .expect("a block that was asked for");
        }
        self.swarm
            .payload(key, done, &vec![0; len as usize], self.now)
    }

    fn whole(&mut self, key: PeerKey, block: BlockRef) -> Option<Slot> {
        self.part(key, block, 0, block.len)
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.swarm.tick(self.now);
        }
    }
}

fn block(piece: u32, index: u32) -> BlockRef {
    BlockRef {
        piece: PieceIndex(piece),
        begin: index * BLOCK_LEN,
        len: BLOCK_LEN,
    }
}

#[test]
fn choked_peer_gets_no_block() {
    for (caps, answer) in [(FAST, vec![Outgoing::Reject(block(0, 0))]), (PLAIN, vec![])] {
        let mut script = Script::new(40);
        script.swarm.found(PieceIndex(0), script.now);
        let key = script.join(caps);
        script.effects();
        script
            .say(key, Message::Request(block(0, 0)))
            .expect("a choke may have crossed it");
        assert_eq!(script.sent(key), answer, "{caps:?}");
        assert_eq!(script.swarm.next_upload(key), None);
    }
}

#[test]
fn interested_peer_is_unchoked_and_served_in_order() {
    let mut script = Script::new(2);
    script.swarm.found(PieceIndex(0), script.now);
    let key = script.join(FAST);
    script.say(key, Message::Interested).expect("allowed");
    assert!(
        script.sent(key).contains(&Outgoing::Unchoke),
        "a slot is free"
    );
    for index in [2, 0, 1] {
        script
            .say(key, Message::Request(block(0, index)))
            .expect("allowed");
    }
    script
        .say(key, Message::Cancel(block(0, 0)))
        .expect("allowed");
    assert_eq!(script.sent(key), [Outgoing::Reject(block(0, 0))]);
    let ahead = |script: &Script, piece| script.swarm.upload_ahead(key, PieceIndex(piece));
    assert_eq!(ahead(&script, 0), None);
    assert_eq!(ahead(&script, 1), Some(block(0, 2)));
    assert_eq!(script.swarm.next_upload(key), Some(block(0, 2)));
    assert_eq!(script.swarm.next_upload(key), Some(block(0, 1)));
    assert_eq!(script.swarm.next_upload(key), None);
}

#[test]
fn second_sender_of_a_block_is_collected_aside_and_the_first_complete_one_wins() {
    let mut script = Script::new(1);
    let (slow, quick) = (script.seed(), script.seed());
    let asked = script.effects();
    let copies = |b: BlockRef| {
        asked
            .iter()
            .filter(|e| matches!(e, Effect::Send(_, Outgoing::Request(r)) if *r == b))
            .count()
    };
    let shared = (0..4).map(|i| block(0, i)).find(|b| copies(*b) == 2);
    let shared = shared.expect("with everything asked for, the endgame asks twice");

    assert!(
        script.part(slow, shared, 0, 100).is_some(),
        "the first one writes"
    );
    assert_eq!(
        script.whole(quick, shared),
        None,
        "the second one is collected"
    );
    let stored = script.effects().into_iter().find_map(|e| match e {
        Effect::Store(slot, bytes) => Some((slot.begin, bytes.len())),
        _ => None,
    });
    assert_eq!(stored, Some((shared.begin, BLOCK_LEN as usize)));
    let rest = BLOCK_LEN - 100;
    assert_eq!(
        script.part(slow, shared, 100, rest),
        None,
        "a complete block is not written"
    );
    assert_eq!(script.swarm.wasted_bytes(), u64::from(rest));
}

#[test]
fn block_that_begins_while_its_writer_is_silent_gets_the_pen() {
    let mut script = Script::new(1);
    let (silent, other) = (script.seed(), script.seed());
    script.effects();
    script.part(silent, block(0, 0), 0, 100);
    script.now += Duration::from_secs(3);
    assert!(
        script.part(other, block(0, 0), 0, 50).is_some(),
        "silent for more than 2 s"
    );
    assert_eq!(
        script.part(silent, block(0, 0), 100, 50),
        None,
        "one writer a block"
    );
}

#[test]
fn stalled_peer_loses_its_requests_to_others() {
    let mut script = Script::new(30);
    let stalled = script.seed();
    let asked = script.requests(stalled);
    assert!(!asked.is_empty());
    script.wait(15);
    let helper = script.seed();
    script.effects();
    script.wait(6);
    assert!(
        script.swarm.peer(stalled).requests.len() <= 1,
        "one is left to try it with"
    );
    assert!(
        script.whole(stalled, asked[0]).is_some(),
        "a late answer is welcome"
    );
    let mut taken_over = Vec::new();
    loop {
        let answered: Vec<BlockRef> = script
            .swarm
            .peer(helper)
            .requests
            .iter()
            .map(|r| r.block)
            .collect();
        if answered.is_empty() {
            break;
        }
        for &block in &answered {
            script.whole(helper, block);
        }
        taken_over.extend(answered);
        script.effects();
    }
    assert!(
        asked[1..].iter().all(|b| taken_over.contains(b)),
        "{taken_over:?}"
    );
}

#[test]
fn choke_frees_requests_only_without_the_fast_extension() {
    for (caps, open) in [(FAST, true), (PLAIN, false)] {
        let mut script = Script::new(30);
        let key = script.join(caps);
        script
            .say(key, Message::Bitfield(&[0xff, 0xff, 0xff, 0xfc]))
            .expect("30 pieces");
        script.say(key, Message::Unchoke).expect("allowed");
        assert!(!script.requests(key).is_empty());
        script.say(key, Message::Choke).expect("allowed");
        assert_eq!(
            !script.swarm.peer(key).requests.is_empty(),
            open,
            "{caps:?}"
        );
    }
}

#[test]
fn what_the_protocol_forbids_is_a_fault() {
    let huge = BlockRef {
        piece: PieceIndex(0),
        begin: u32::MAX,
        len: BLOCK_LEN,
    };
    let outside = PieceIndex(20);
    let ask = |begin, len| {
        Message::Request(BlockRef {
            piece: PieceIndex(0),
            begin,
            len,
        })
    };
    let cases = [
        ("have past the end", FAST, Message::Have(outside)),
        (
            "have far past the end",
            FAST,
            Message::Have(PieceIndex(u32::MAX)),
        ),
        ("short bitfield", FAST, Message::Bitfield(&[0xff])),
        (
            "long bitfield",
            FAST,
            Message::Bitfield(&[0xff, 0xff, 0xf0, 0]),
        ),
        ("spare bits", FAST, Message::Bitfield(&[0xff, 0xff, 0xf8])),
        ("have-all unagreed", PLAIN, Message::HaveAll),
        ("have-none unagreed", PLAIN, Message::HaveNone),
        ("reject unagreed", PLAIN, Message::Reject(block(0, 0))),
        (
            "allowed-fast unagreed",
            PLAIN,
            Message::AllowedFast(PieceIndex(0)),
        ),
        ("allowed-fast outside", FAST, Message::AllowedFast(outside)),
        ("suggest outside", FAST, Message::Suggest(outside)),
        ("request overflows", FAST, Message::Request(huge)),
        ("request of nothing", FAST, ask(0, 0)),
        ("request too long", FAST, ask(0, BLOCK_LEN + 1)),
        ("request past the piece", FAST, ask(4 * BLOCK_LEN - 1, 2)),
        (
            "request of no piece",
            FAST,
            Message::Request(BlockRef {
                piece: outside,
                ..block(0, 0)
            }),
        ),
    ];
    for (name, caps, message) in cases {
        let mut script = Script::new(20);
        let key = script.join(caps);
        assert!(script.say(key, message).is_err(), "{name}");
    }
}

#[test]
fn late_bitfield_may_only_add_pieces() {
    let cases = [
        // what it shows        late message                  allowed
        ("adds four", Message::Bitfield(&[0xff]), true),
        ("adds all the rest", Message::HaveAll, true),
        ("brings nothing new", Message::Bitfield(&[0x0f]), false),
        ("takes some back", Message::Bitfield(&[0xf7]), false),
        ("takes all back", Message::HaveNone, false),
    ];
    for (name, late, allowed) in cases {
        let mut script = Script::new(8);
        let key = script.join(FAST);
        script
            .say(key, Message::Bitfield(&[0x0f]))
            .expect("the first message");
        script
            .say(key, Message::Have(PieceIndex(4)))
            .expect("held already");
        assert_eq!(script.say(key, late).is_ok(), allowed, "{name}");
    }
}

#[test]
fn wrong_blocks_are_faults_or_refusals() {
    let mut script = Script::new(30);
    let key = script.seed();
    let asked = script.requests(key);
    let now = script.now;
    let long = BlockRef {
        len: BLOCK_LEN - 1,
        ..asked[0]
    };
    let fault = script.swarm.block_begins(key, long, now);
    assert_eq!(
        fault,
        Err(Fault::WrongBlockLen {
            len: BLOCK_LEN - 1,
            asked: BLOCK_LEN
        })
    );

    let nothing = BlockRef { len: 0, ..asked[1] };
    script
        .swarm
        .block_begins(key, nothing, now)
        .expect("BitComet's way to reject");
    assert!(
        !script
            .swarm
            .peer(key)
            .requests
            .iter()
            .any(|r| r.block == asked[1])
    );
}

#[test]
fn sender_of_too_much_that_nobody_asked_for_is_closed() {
    let mut script = Script::new(30);
    let key = script.join(FAST);
    let outcomes: Vec<_> = (0..30)
        .map(|piece| {
            script
                .swarm
                .block_begins(key, block(piece, 0), script.now)
                .map(|()| {
                    let stored = script
                        .swarm
                        .payload(key, 0, &[0; BLOCK_LEN as usize], script.now);
                    assert_eq!(stored, None, "nothing that was not asked for is stored");
                })
        })
        .collect();
    assert!(outcomes[..20].iter().all(Result::is_ok));
    assert!(
        matches!(outcomes[20], Err(Fault::Unasked { blocks: 21, .. })),
        "{outcomes:?}"
    );
}

#[test]
fn floods_end_the_connection() {
    type Nth = fn(u32) -> Message<'static>;
    let cases: [(&str, Nth, u32); 4] = [
        ("unknown ids", |_| Message::Unknown { id: 99, len: 1 }, 100),
        (
            "interest flapping",
            |n| {
                if n % 2 == 0 {
                    Message::Interested
                } else {
                    Message::NotInterested
                }
            },
            600,
        ),
        (
            "requests of what we lack",
            |_| Message::Request(block(1, 0)),
            50,
        ),
        (
            "requests while choked",
            |_| Message::Request(block(0, 0)),
            4000,
        ),
    ];
    for (name, message, borne) in cases {
        let mut script = Script::new(60);
        script.swarm.found(PieceIndex(0), script.now);
        let key = script.join(PLAIN);
        let ended = (0..10_000).find(|&n| script.say(key, message(n)).is_err());
        assert_eq!(ended, Some(borne), "{name}");
        script.effects();
    }
}

/// Goal: the liar among several senders is found within two failures, the others stay.
/// Method: five seeds serve; what one of them sends of piece after piece is called bad.
#[test]
fn liar_is_banned_and_honest_senders_are_not() {
    let mut script = Script::new(2);
    let seeds: Vec<PeerKey> = (0..5).map(|_| script.seed()).collect();
    let liar = seeds[2];
    let liar_origin = script.swarm.peer(liar).origin;
    let mut lied = std::collections::BTreeMap::<PieceIndex, u64>::new();
    let (mut banned, mut failures) = (Vec::new(), 0);
    for _ in 0..20 {
        let effects = script.effects();
        for effect in effects {
            match effect {
                Effect::Send(conn, Outgoing::Request(block)) => {
                    let Some(key) = seeds
                        .iter()
                        .copied()
                        .find(|k| !banned.contains(k) && script.swarm.peer(*k).conn == conn)
                    else {
                        continue;
                    };
                    if script
                        .swarm
                        .peer(key)
                        .requests
                        .iter()
                        .any(|r| r.block == block)
                    {
                        script.whole(key, block);
                        if key == liar {
                            let index = block.begin / BLOCK_LEN;
                            *lied.entry(block.piece).or_default() |= 1 << index;
                        }
                    }
                }
                Effect::Check(piece) => {
                    let wrong = lied.remove(&piece).unwrap_or(0);
                    let blocks = (0..4)
                        .map(|i| if wrong >> i & 1 == 1 { 1000 + i } else { i })
                        .collect();
                    failures += u32::from(wrong != 0);
                    let verdict = if wrong == 0 {
                        Verdict::Good { blocks }
                    } else {
                        Verdict::Bad { blocks }
                    };
                    script.swarm.piece_checked(piece, verdict, script.now);
                }
                Effect::Ban(origin, _) => {
                    assert_eq!(origin, liar_origin, "an honest sender is charged");
                    if !banned.contains(&liar) {
                        banned.push(liar);
                        script.swarm.left(liar, script.now);
                    }
                }
                _ => {}
            }
        }
    }
    assert!(script.swarm.is_complete());
    assert_eq!(banned, if failures > 0 { vec![liar] } else { vec![] });
    assert!(failures <= 3, "{failures} failures");
}

#[test]
fn peers_hear_of_new_pieces_that_they_lack() {
    let mut script = Script::new(8);
    let (has, lacks) = (script.join(FAST), script.join(FAST));
    script
        .say(has, Message::Have(PieceIndex(3)))
        .expect("allowed");
    let good = Verdict::Good { blocks: Vec::new() };
    script.swarm.piece_checked(PieceIndex(3), good, script.now);
    assert_eq!(script.swarm.next_have(has), None);
    assert_eq!(script.swarm.next_have(lacks), Some(PieceIndex(3)));
    assert_eq!(script.swarm.next_have(lacks), None);
}

#[test]
fn news_are_kept_only_while_there_is_somebody_to_hear_them() {
    let mut script = Script::new(4);
    for piece in 0..2 {
        script.swarm.found(PieceIndex(piece), script.now);
    }
    assert_eq!(script.swarm.live.news.len(), 0, "nobody is there");
    let key = script.join(FAST);
    script.swarm.found(PieceIndex(2), script.now);
    assert_eq!(script.swarm.next_have(key), Some(PieceIndex(2)));
    assert_eq!(
        script.swarm.next_have(key),
        None,
        "it was told of the others"
    );
    script.swarm.left(key, script.now);
    assert_eq!(script.swarm.live.news.len(), 0);
}

/// Goal: who lacks little hears of each piece at once, who lacks many of several together, all in
/// the end, and nobody of what it has.
#[test]
fn news_comes_at_once_to_those_who_have_little_to_ask_for() {
    let mut script = Script::new(80);
    for piece in 0..60 {
        script.swarm.found(PieceIndex(piece), script.now);
    }
    let (poor, rich) = (script.join(PLAIN), script.join(PLAIN));
    for piece in (0..58).chain([62]) {
        script
            .say(rich, Message::Have(PieceIndex(piece)))
            .expect("allowed");
    }
    script.wait(1);
    script.effects();
    let conns = [poor, rich].map(|key| script.swarm.peer(key).conn);
    let woken = |script: &mut Script| {
        let effects = script.effects();
        conns.map(|conn| {
            effects
                .iter()
                .any(|e| matches!(e, Effect::Flush(of) if *of == conn))
        })
    };
    script.swarm.found(PieceIndex(60), script.now);
    assert_eq!(
        woken(&mut script),
        [true, true],
        "nobody heard anything lately"
    );
    for key in [poor, rich] {
        assert_eq!(script.swarm.next_have(key), Some(PieceIndex(60)));
    }
    script.now += Duration::from_millis(1);
    script.swarm.found(PieceIndex(61), script.now);
    let effects = script.effects();
    let ([Effect::News(_), Effect::Flush(of)] | [Effect::Flush(of), Effect::News(_)]) = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(of, conns[1]);
    assert_eq!(script.swarm.next_have(rich), Some(PieceIndex(61)));
    script.swarm.found(PieceIndex(62), script.now);
    assert_eq!(woken(&mut script), [false, false], "one alarm is enough");
    script.swarm.news_due(script.now);
    assert_eq!(woken(&mut script), [false, false], "not yet");
    script.now += Duration::from_millis(3);
    script.swarm.news_due(script.now);
    assert_eq!(woken(&mut script), [true, false]);
    let told = std::iter::from_fn(|| script.swarm.next_have(poor));
    assert_eq!(told.collect::<Vec<_>>(), [PieceIndex(61), PieceIndex(62)]);
    assert_eq!(script.swarm.next_have(rich), None);
    script.swarm.audit().expect("all is in order");
}

#[test]
fn piece_that_was_lost_before_it_was_told_of_is_not_told_of() {
    let mut script = Script::new(80);
    for piece in 0..60 {
        script.swarm.found(PieceIndex(piece), script.now);
    }
    let poor = script.join(PLAIN);
    script.wait(1);
    for piece in 60..63 {
        script.swarm.found(PieceIndex(piece), script.now);
    }
    script.swarm.lost(PieceIndex(61));
    let told = std::iter::from_fn(|| script.swarm.next_have(poor));
    assert_eq!(told.collect::<Vec<_>>(), [PieceIndex(60), PieceIndex(62)]);
}

/// Goal: under a limit of rate so many blocks are asked for and no more, of all peers together, but
/// for those to whom it does not apply; and what came is asked for anew.
#[test]
fn blocks_asked_for_are_few_under_a_limit() {
    let mut script = Script::new(100);
    script.limit(5);
    let (a, b, exempt) = (script.seed(), script.seed(), script.seed());
    let asked = script.requests(a).len() + script.requests(b).len();
    assert_eq!(asked, 5, "of both");
    script.swarm.set_limited(exempt, false);
    script.wait(2);
    assert!(script.requests(exempt).len() > 5);
    script.swarm.set_down_limit(None);
    script.wait(2);
    script.effects();
    let open = [a, b].map(|key| script.swarm.peer(key).open_requests());
    assert!(open.iter().all(|count| *count > 5), "{open:?}");
}

/// Goal: what a limit lets be asked for is shared by those who join later too, and one who lets
/// through less than a block at a time is not taken for silent.
#[test]
fn what_may_be_asked_for_is_shared_by_all_who_have_something() {
    let mut script = Script::new(100);
    script.limit(8);
    let first = script.seed();
    let asked = script.requests(first);
    assert_eq!(asked.len(), 8, "nobody else is there");
    let second = script.seed();
    assert_eq!(script.requests(second), [], "there is no room");
    for &block in &asked[..4] {
        script.part(first, block, 0, BLOCK_LEN);
        script.effects();
    }
    let open = |key| script.swarm.peer(key).open_requests();
    assert_eq!((open(first), open(second)), (4, 4), "half each");
    // A block in 80 seconds: nothing is taken back, nobody is snubbed.
    let slow = DownLimit {
        rate: 205,
        blocks: 1,
    };
    script.swarm.set_down_limit(Some(slow));
    let begun = asked[4];
    for part in 0..16 {
        script.wait(5);
        script.part(first, begun, part * 1024, 1024);
    }
    assert!(!script.swarm.peer(first).snubbed);
    let cancels = script
        .sent(first)
        .into_iter()
        .filter(|m| matches!(m, Outgoing::Cancel(_)));
    assert!(cancels.count() <= 3, "only what waited behind it");
}

/// Goal: under a limit that lets one block be asked for at a time, one who begins it and does not
/// go on, or hardly, keeps it from the others for a while only.
#[test]
fn block_that_does_not_go_on_is_taken_back_under_a_limit() {
    for (silence, most_s) in [(1000, 30), (15, 100)] {
        let mut script = Script::new(100);
        script.limit(1);
        let stalls = script.seed();
        let begun = script.requests(stalls)[0];
        let other = script.seed();
        assert_eq!(script.requests(other), [], "there is no room");
        let (mut asked, mut done) = (None, 0);
        script.part(stalls, begun, 0, 0);
        let mut trickle = |script: &mut Script, second: u64| {
            if second.is_multiple_of(silence) {
                script.part(stalls, begun, done + 1, 1);
                done += 1;
            }
        };
        for second in 1..=most_s {
            script.wait(1);
            trickle(&mut script, second);
            asked = asked.or(script.requests(other).first().copied());
        }
        let mut next = asked.expect("it is asked");
        // From now on nobody waits for the first, though it is still in the middle of its block.
        for second in most_s..most_s + 100 {
            script.whole(other, next);
            next = script.requests(other)[0];
            script.wait(1);
            trickle(&mut script, second);
        }
        script.swarm.audit().expect("all is in order");
    }
}

/// Goal: those who let requests time out take nothing from one who delivers.
#[test]
fn silent_peers_take_no_share_under_a_limit() {
    let mut script = Script::new(100);
    script.limit(4);
    let silent = [(); 6].map(|()| script.seed());
    for _ in 0..150 {
        script.wait(1);
        script.effects();
    }
    assert!(silent.iter().all(|&key| script.swarm.peer(key).snubbed));
    let honest = script.seed();
    let mut asked = script.requests(honest);
    for _ in 0..60 {
        assert_eq!(open(&script, honest), 4, "all that may be asked for");
        script.whole(honest, asked.remove(0));
        script.wait(1);
        asked.extend(script.requests(honest));
    }
    let open: usize = silent.iter().map(|&key| open(&script, key)).sum();
    assert!(open <= 4, "{open} on top of it");
}

#[test]
fn two_seeds_have_nothing_to_say_to_each_other() {
    let mut script = Script::new(1);
    script.swarm.found(PieceIndex(0), script.now);
    let key = script.join(FAST);
    script.say(key, Message::HaveAll).expect("allowed");
    let closes = |e: &Effect| matches!(e, Effect::Close(_, Departure::Redundant));
    assert!(script.effects().iter().any(closes));
}

#[test]
fn peer_that_rejects_whatever_it_is_asked_for_is_closed() {
    let mut script = Script::new(30);
    let key = script.seed();
    let mut rejected = 0;
    let fault = loop {
        let asked = script.requests(key);
        assert!(!asked.is_empty(), "there is nobody else to ask");
        let outcome = asked.iter().try_for_each(|&block| {
            rejected += 1;
            script.say(key, Message::Reject(block))
        });
        if let Err(fault) = outcome {
            break fault;
        }
    };
    assert_eq!((fault, rejected), (Fault::RejectFlood, 4001));
}

impl Script {
    /// One whose only piece came from two peers and was wrong: one of them, the first that is
    /// returned, is asked for all of it now.
    fn fetching_alone() -> (Self, PeerKey, PeerKey) {
        let mut script = Self::new(1);
        let (first, second) = (script.seed(), script.seed());
        script.effects();
        let of = |index| if index == 0 { first } else { second };
        (0..4).for_each(|index| {
            script.whole(of(index), block(0, index));
        });
        let blocks = vec![9, 1, 2, 3];
        let (bad, now) = (Verdict::Bad { blocks }, script.now);
        script.swarm.piece_checked(PieceIndex(0), bad, now);
        script.effects();
        let is_asked = |key: &PeerKey| !script.swarm.peer(*key).requests.is_empty();
        let owner = [first, second].into_iter().find(is_asked);
        let owner = owner.expect("one of them is asked for the whole piece");
        let other = if owner == first { second } else { first };
        (script, owner, other)
    }
}

#[test]
fn piece_fetched_alone_goes_to_another_peer_when_its_owner_chokes_us() {
    let (mut script, owner, other) = Script::fetching_alone();
    script.say(owner, Message::Choke).expect("allowed");
    assert_eq!(script.requests(other).len(), 4, "all of it, from one peer");
}

/// Goal: an owner that delivered its piece and left is forgotten before the verdict, and nobody
/// else is asked for a piece that is being hashed.
#[test]
fn piece_fetched_alone_waits_for_nobody_while_it_is_hashed() {
    let (mut script, owner, other) = Script::fetching_alone();
    (0..4).for_each(|index| {
        script.whole(owner, block(0, index));
    });
    script.swarm.left(owner, script.now);
    script.swarm.audit().expect("it waits for a verdict alone");
    assert_eq!(script.requests(other), []);
    let good = Verdict::Good { blocks: Vec::new() };
    script.swarm.piece_checked(PieceIndex(0), good, script.now);
    assert!(script.swarm.is_complete());
}

/// Goal: who never delivers a piece that is fetched alone does not keep those from it who had a
/// part in its failure, though one of them is the liar.
/// Method: three that take turns, or newcomers with ever new names, choke us when they are asked.
#[test]
fn piece_fetched_alone_is_not_left_to_peers_that_never_deliver() {
    for names_are_new in [false, true] {
        let mut script = Script::new(1);
        let honest = [script.seed(), script.seed()];
        (0..4).for_each(|index| {
            script.whole(honest[index as usize / 2], block(0, index));
        });
        let blocks = vec![9, 1, 2, 3];
        let bad = Verdict::Bad { blocks };
        let plain_seed = |script: &mut Script| {
            let key = script.join(PLAIN);
            script
                .say(key, Message::Bitfield(&[0x80]))
                .expect("allowed");
            script.say(key, Message::Unchoke).expect("allowed");
            key
        };
        let mut others = [(); 3].map(|()| plain_seed(&mut script));
        script.swarm.piece_checked(PieceIndex(0), bad, script.now);
        script.effects();
        let is_asked = |script: &Script| honest.iter().any(|&key| open(script, key) > 0);
        for turn in 0.. {
            if is_asked(&script) {
                break;
            }
            assert!(
                turn < 20,
                "names are new: {names_are_new}: never an honest one"
            );
            let is_owner = |key: &&mut PeerKey| open(&script, **key) > 0;
            let owner = others.iter_mut().find(is_owner).expect("somebody is asked");
            if names_are_new {
                script.swarm.left(*owner, script.now);
                *owner = plain_seed(&mut script);
            } else {
                script.say(*owner, Message::Choke).expect("allowed");
                script.effects();
                script.say(*owner, Message::Unchoke).expect("allowed");
            }
            script.effects();
        }
    }
}

fn open(script: &Script, key: PeerKey) -> usize {
    script.swarm.peer(key).open_requests()
}

fn chosen(piece_count: u32, wanted: &[u32]) -> Option<ChosenPieces> {
    let mut pieces = Bitfield::new(piece_count);
    for &piece in wanted {
        pieces.set(piece);
    }
    Some(ChosenPieces {
        wanted: pieces,
        high: Bitfield::new(piece_count),
    })
}

impl Script {
    fn choose(&mut self, wanted: Option<ChosenPieces>) {
        let order = PieceOrder::Sequential;
        self.swarm.choose(wanted, order, self.now);
        self.swarm.audit().expect("what is counted is there");
    }
}

/// Whether one of `effects` is written like this.
fn has(effects: &[Effect], text: &str) -> bool {
    effects
        .iter()
        .any(|effect| format!("{effect:?}").contains(text))
}

/// Goal: what is under way of pieces that are not wanted any more is taken back, nothing of them
/// is stored, and it all comes when they are wanted again.
#[test]
fn unwanted_pieces_are_taken_back_and_come_when_they_are_wanted() {
    let mut script = Script::new(2);
    script.choose(None);
    let key = script.seed();
    let asked = script.requests(key);
    assert_eq!(asked.len(), 8);
    assert!(script.part(key, asked[0], 0, 100).is_some(), "it is wanted");
    script.choose(chosen(2, &[1]));
    let told = script.sent(key);
    for block in &asked[1..4] {
        assert!(told.contains(&Outgoing::Cancel(*block)), "{told:?}");
    }
    assert!(!told.contains(&Outgoing::NotInterested));
    let rest = vec![0; BLOCK_LEN as usize - 100];
    assert_eq!(script.swarm.payload(key, 100, &rest, script.now), None);
    assert_eq!(
        script.whole(key, asked[1]),
        None,
        "it was sent before it was taken back"
    );
    for block in &asked[4..] {
        assert!(script.whole(key, *block).is_some());
    }
    let effects = script.effects();
    assert!(has(&effects, "Check(PieceIndex(1))"), "{effects:?}");
    let good = || Verdict::Good { blocks: vec![0; 4] };
    script
        .swarm
        .piece_checked(PieceIndex(1), good(), script.now);
    assert!(script.swarm.has_all_wanted() && !script.swarm.is_complete());
    assert_eq!(script.swarm.left_bytes(), 0);
    assert_eq!(script.swarm.wanted_bytes(), 4 * u64::from(BLOCK_LEN));
    let effects = script.effects();
    assert!(has(&effects, "Completed"), "{effects:?}");
    assert!(
        has(&effects, "Redundant"),
        "neither is of use to the other: {effects:?}"
    );
    script.swarm.left(key, script.now);

    script.choose(None);
    let key = script.seed();
    assert_eq!(script.requests(key), asked[..4]);
    for block in &asked[..4] {
        assert!(script.whole(key, *block).is_some());
    }
    script.effects();
    script
        .swarm
        .piece_checked(PieceIndex(0), good(), script.now);
    assert!(script.swarm.is_complete());
    assert!(has(&script.effects(), "Completed"));
}

/// Goal: a peer that has nothing that is wanted does not interest us, until that is wanted.
#[test]
fn interest_is_in_what_is_wanted() {
    let mut script = Script::new(2);
    script.choose(chosen(2, &[1]));
    let key = script.join(FAST);
    script
        .say(key, Message::Bitfield(&[0x80]))
        .expect("allowed");
    script.say(key, Message::Unchoke).expect("allowed");
    assert_eq!(script.sent(key), [Outgoing::HaveNone]);
    script.choose(chosen(2, &[0, 1]));
    let told = script.sent(key);
    assert!(told.contains(&Outgoing::Interested), "{told:?}");
    let requests = told.iter().filter(|m| matches!(m, Outgoing::Request(_)));
    assert_eq!(requests.count(), 4);
    script.choose(chosen(2, &[1]));
    assert!(script.sent(key).contains(&Outgoing::NotInterested));
    script
        .say(key, Message::Have(PieceIndex(1)))
        .expect("allowed");
    assert!(script.sent(key).contains(&Outgoing::Interested));
    script.swarm.audit().expect("what is counted is there");
}

/// Goal: a piece that failed and is fetched from one peer alone is not while it is not wanted.
#[test]
fn piece_that_failed_is_not_asked_for_while_it_is_not_wanted() {
    let mut script = Script::new(1);
    let key = script.seed();
    for block in script.requests(key) {
        script.whole(key, block);
    }
    script.effects();
    let bad = Verdict::Bad { blocks: vec![1; 4] };
    script.choose(chosen(1, &[]));
    script.swarm.piece_checked(PieceIndex(0), bad, script.now);
    assert_eq!(script.requests(key), []);
    script.swarm.left(key, script.now);
    script.choose(None);
    let other = script.seed();
    assert_eq!(script.requests(other).len(), 4);
    script.choose(chosen(1, &[]));
    script.effects();
    script.choose(None);
    assert_eq!(script.requests(other).len(), 4, "all of it, again");
}
