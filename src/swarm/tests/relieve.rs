//! A peer of which nothing is asked relieves another.

use super::*;

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
fn nobody_is_relieved_by_who_cannot_give_or_is_far() {
    type Change = fn(&mut Script, PeerKey);
    let cases: [(&str, Change); 3] = [
        ("far", |script, key| {
            let own = script.own;
            script.swarm.set_near(key, false, own);
        }),
        ("choking", |script, key| {
            script.say(key, Message::Choke).expect("allowed");
        }),
        ("snubbed", |script, key| {
            script.swarm.peer_mut(key).snubbed = true;
        }),
    ];
    for (what, change) in cases {
        let mut script = Script::new(64);
        let busy = giver(&mut script, 0..4);
        let before = asked(&script, busy);
        let other = script.join(FAST);
        script.swarm.set_near(other, true, script.own);
        script.say(other, Message::Unchoke).expect("allowed");
        change(&mut script, other);
        for piece in 0..4 {
            let have = Message::Have(PieceIndex(piece));
            script.say(other, have).expect("allowed");
        }
        assert_eq!(asked(&script, busy), before, "{what}");
    }
}
