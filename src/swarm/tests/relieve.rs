//! A peer of which nothing is asked relieves another.

use super::*;
use crate::swarm::peer::{Incoming, Reception, Request};
use crate::swarm::pieces::Alone;

/// A peer on our own link that has the pieces `have` of 64 and serves us.
fn giver(script: &mut Script, have: std::ops::Range<u32>) -> PeerKey {
    let key = script.join(FAST);
    script.swarm.set_near(key, true, script.own);
    let mut pieces = Bitfield::new(64);
    have.for_each(|piece| assert!(pieces.set(piece)));
    let bitfield = Message::Bitfield(pieces.as_bytes());
    script.say(key, bitfield).expect("allowed");
    script.say(key, Message::Unchoke).expect("allowed");
    key
}

fn asked(script: &Script, key: PeerKey) -> Vec<BlockRef> {
    script.swarm.peer(key).requested().collect()
}

/// Who comes with nothing but what is asked of another already gets the end of that one's queue,
/// and each block is asked of one of the two.
#[test]
fn newcomer_is_asked_for_what_stands_last_in_a_long_queue() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    let before = asked(&script, busy);
    assert_eq!(before.len(), 16, "all that it has");
    // Somebody who chokes us has something else, so it is not the endgame.
    let other = script.join(FAST);
    script.swarm.set_near(other, true, script.own);
    let have = Message::Have(PieceIndex(9));
    script.say(other, have).expect("allowed");
    script.effects();
    let idle = giver(&mut script, 0..4);
    let cancels: Vec<BlockRef> = before[12..].iter().rev().copied().collect();
    let told = script.sent(busy);
    let told = told.into_iter().filter(|m| !matches!(m, Outgoing::Have(_)));
    let expected = cancels.iter().map(|&block| Outgoing::Cancel(block));
    assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(asked(&script, busy), before[..12]);
    assert_eq!(asked(&script, idle), before[12..]);

    // Served, it takes over more, as long as the queue is long.
    for (left, until) in [(8, 12), (7, 8)] {
        for block in asked(&script, idle) {
            script.whole(idle, block);
        }
        assert_eq!(asked(&script, busy), before[..left]);
        assert_eq!(asked(&script, idle), before[left..until]);
    }
    assert_eq!(script.swarm.wasted_bytes(), 0);
}

/// A block that was sent all the same is used, and the other one need not send it.
#[test]
fn block_that_crossed_its_cancel_is_stored() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    let idle = giver(&mut script, 0..4);
    let moved = asked(&script, idle)[0];
    script.effects();
    assert!(script.whole(busy, moved).is_some());
    assert!(!asked(&script, idle).contains(&moved));
    assert!(script.sent(idle).contains(&Outgoing::Cancel(moved)));
    assert_eq!(script.swarm.wasted_bytes(), 0);
}

#[test]
fn nobody_is_relieved_by_who_cannot_help() {
    type Change = fn(&mut Script, PeerKey, (PeerKey, &[BlockRef]));
    let cases: [(&str, u32, Change); 8] = [
        ("it can", 12, |_, _, _| {}),
        ("it is far", 16, |script, key, _| {
            let own = script.own;
            script.swarm.set_near(key, false, own);
        }),
        ("it is snubbed", 16, |script, key, _| {
            script.swarm.peer_mut(key).snubbed = true;
        }),
        ("it answers later", 16, |script, key, _| {
            script.say(key, Message::Unchoke).expect("allowed");
            script.swarm.peer_mut(key).latency = Some(Duration::from_millis(1));
        }),
        ("there is a limit of rate", 16, |script, _, _| {
            script.limit(1000);
        }),
        ("it is sending", 16, |script, key, _| {
            script.swarm.peer_mut(key).incoming = Some(Incoming {
                block: block(9, 0),
                since: script.now,
                reception: Reception::Drop,
                counted: false,
            });
        }),
        ("it has what comes soon", 16, |script, key, (_, queue)| {
            let first = Message::Have(queue[0].piece);
            script.say(key, first).expect("allowed");
        }),
        ("the last piece is fetched alone", 16, |script, _, busy| {
            let mut alone = Alone::new(4);
            (alone.owner, alone.next) = (Some(busy.0), 4);
            script.swarm.live.alone.insert(busy.1[15].piece, alone);
        }),
    ];
    for (what, left, change) in cases {
        let mut script = Script::new(64);
        let busy = giver(&mut script, 0..4);
        let before = asked(&script, busy);
        let other = script.join(FAST);
        script.swarm.set_near(other, true, script.own);
        change(&mut script, other, (busy, &before));
        if script.swarm.peer(other).offers == 0 {
            let last = Message::Have(before[15].piece);
            script.say(other, last).expect("allowed");
        }
        script.say(other, Message::Unchoke).expect("allowed");
        assert_eq!(asked(&script, busy), before[..left as usize], "{what}");
    }
}

/// Goal: more is asked ahead of a peer whose queue others may relieve.
#[test]
fn queues_are_longer_where_all_are_near() {
    for (far, queue) in [(false, 16), (true, 8)] {
        let mut script = Script::new(64);
        if far {
            script.join(FAST);
        }
        giver(&mut script, 0..20);
        let second = giver(&mut script, 0..20);
        assert_eq!(asked(&script, second).len(), queue, "somebody far: {far}");
    }
}

/// Goal: an empty block, BitComet's reject, that answers what was taken back is none that nobody
/// asked for.
#[test]
fn empty_block_for_what_was_taken_back_is_no_nuisance() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    let nothing = BlockRef {
        len: 0,
        ..block(9, 0)
    };
    for _ in 0..50 {
        let now = script.now;
        let request = Request {
            block: block(9, 0),
            at: now,
        };
        script.swarm.withdraw(busy, request, now);
        script.effects();
        let answer = script.swarm.block_begins(busy, nothing, now);
        answer.expect("an answer");
    }
    let many = (0..50).map(|_| script.swarm.block_begins(busy, nothing, script.now));
    assert!(
        many.collect::<Vec<_>>().iter().any(Result::is_err),
        "unasked"
    );
}

/// Bad input: a block that answers what was taken back, but has another length, is one that nobody
/// asked for.
#[test]
fn block_of_another_length_than_was_taken_back_is_dropped() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    let now = script.now;
    let request = Request {
        block: block(9, 0),
        at: now,
    };
    script.swarm.withdraw(busy, request, now);
    let short = BlockRef {
        len: BLOCK_LEN - 1,
        ..block(9, 0)
    };
    assert_eq!(script.whole(busy, short), None);
    assert_eq!(script.swarm.peer(busy).nuisance.unasked, 1);
}

/// Goal: what was taken back twice is as late as the second time.
#[test]
fn latest_withdrawal_counts() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    let first = script.now;
    let second = first + Duration::from_secs(100);
    let request = Request {
        block: block(9, 0),
        at: first,
    };
    let peer = script.swarm.peer_mut(busy);
    peer.withdraw(request, first);
    peer.withdraw(request, second);
    assert_eq!(
        peer.take_withdrawn(|gone| gone == block(9, 0)),
        Some(second)
    );
    assert_eq!(peer.take_withdrawn(|gone| gone == block(9, 0)), Some(first));
    assert_eq!(peer.take_withdrawn(|gone| gone == block(9, 0)), None);
}

/// Goal: what was taken back may be rejected as often as it was.
#[test]
fn reject_of_what_was_taken_back_is_no_nuisance() {
    let mut script = Script::new(64);
    let busy = giver(&mut script, 0..4);
    for _ in 0..5000 {
        let (gone, now) = (block(9, 0), script.now);
        let request = Request {
            block: gone,
            at: now,
        };
        script.swarm.withdraw(busy, request, now);
        script.effects();
        script.say(busy, Message::Reject(gone)).expect("an answer");
    }
}
