//! A slot more while nobody asks for anything.

use super::*;
use crate::swarm::choker::{SLOTS_FIRST, SLOTS_MAX};

/// A peer on our own link that has the first `count` of a seed's pieces and wants the others.
fn leecher(script: &mut Script, count: u32) -> PeerKey {
    let key = script.join(FAST);
    (0..count).for_each(|piece| {
        let have = Message::Have(PieceIndex(piece));
        script.say(key, have).expect("allowed");
    });
    script.say(key, Message::Interested).expect("allowed");
    script.swarm.set_near(key, true, script.own);
    key
}

/// A seed, and so many leechers, each of which has one piece more than the one before.
fn crowd(count: usize) -> (Script, Vec<PeerKey>) {
    let mut script = Script::new(64);
    (0..64).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
    let keys = (0..count).map(|have| leecher(&mut script, have as u32));
    let keys = keys.collect::<Vec<_>>();
    (script, keys)
}

/// A peer with a slot asks for its `number`th block, and gets it.
fn ask(script: &mut Script, key: PeerKey, number: u32) {
    let block = BlockRef {
        piece: PieceIndex(62 - number / 4),
        begin: number % 4 * BLOCK_LEN,
        len: BLOCK_LEN,
    };
    script.say(key, Message::Request(block)).expect("allowed");
}

fn serve(script: &mut Script, key: PeerKey) {
    while let Some(block) = script.swarm.next_upload(key) {
        script.swarm.uploaded(key, u64::from(block.len), script.now);
    }
}

fn served(script: &Script, keys: &[PeerKey]) -> Vec<PeerKey> {
    let keys = keys.iter().copied();
    keys.filter(|&key| !script.swarm.peer(key).choked).collect()
}

#[test]
fn somebody_gets_a_slot_more_when_nobody_asks_for_anything() {
    let (mut script, keys) = crowd(12);
    let before = served(&script, &keys);
    assert_eq!(before.len(), SLOTS_FIRST);

    ask(&mut script, before[0], 0);
    serve(&mut script, before[0]);
    assert_eq!(served(&script, &keys).len(), SLOTS_FIRST + 1);

    ask(&mut script, before[0], 1);
    serve(&mut script, before[0]);
    assert_eq!(served(&script, &keys).len(), SLOTS_FIRST + 1, "too soon");
    script.now += Duration::from_millis(2);
    ask(&mut script, before[0], 2);
    serve(&mut script, before[0]);
    let after = served(&script, &keys);
    assert_eq!(after.len(), SLOTS_FIRST + 2);
    assert!(before.iter().all(|key| after.contains(key)));
    assert_eq!(script.swarm.slot_count(), SLOTS_FIRST + 2);
}

#[test]
fn no_slot_more_while_somebody_is_to_be_served() {
    let (mut script, keys) = crowd(12);
    let before = served(&script, &keys);
    ask(&mut script, before[0], 0);
    ask(&mut script, before[1], 0);
    serve(&mut script, before[0]);
    assert_eq!(served(&script, &keys), before);
    serve(&mut script, before[1]);
    assert_eq!(served(&script, &keys).len(), SLOTS_FIRST + 1);
}

#[test]
fn block_that_has_not_left_keeps_the_line_busy() {
    let (mut script, keys) = crowd(12);
    let before = served(&script, &keys);
    ask(&mut script, before[0], 0);
    ask(&mut script, before[1], 0);
    let block = script
        .swarm
        .next_upload(before[1])
        .expect("one is asked for");
    serve(&mut script, before[0]);
    let len = u64::from(block.len);
    assert!(!script.swarm.uploaded(before[1], len - 1, script.now));
    assert_eq!(served(&script, &keys), before);
    assert!(script.swarm.uploaded(before[1], 1, script.now));
    assert_eq!(served(&script, &keys).len(), SLOTS_FIRST + 1);
}

#[test]
fn slots_are_no_more_than_the_most_and_go_when_the_line_is_busy() {
    let (mut script, keys) = crowd(40);
    let first = served(&script, &keys)[0];
    for number in 0..40 {
        script.now += Duration::from_millis(2);
        ask(&mut script, first, number);
        serve(&mut script, first);
    }
    assert_eq!(served(&script, &keys).len(), SLOTS_MAX);
    script.wait(1);
    assert_eq!(served(&script, &keys).len(), SLOTS_MAX, "the line was idle");
    script.wait(1);
    let most = SLOTS_FIRST + (SLOTS_MAX - SLOTS_FIRST) / 2;
    assert_eq!(served(&script, &keys).len(), most);
    script.wait(120);
    assert!(script.swarm.slot_count() <= SLOTS_FIRST + 1);
}

/// Goal: who has had much and gives nothing gets no slot beyond the first ones from a leecher.
/// Method: a leecher of 63 pieces of 64, of which each of twelve has had as much as half of them.
#[test]
fn leecher_has_no_slot_more_for_those_who_owe_much() {
    let mut script = Script::new(64);
    (0..63).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
    let keys: Vec<PeerKey> = (0..12).map(|have| leecher(&mut script, have)).collect();
    let len = script.swarm.geometry().length();
    for &key in &keys {
        script.swarm.peer_mut(key).up.add(len / 2, script.now);
    }
    let before = served(&script, &keys);
    assert_eq!(before.len(), SLOTS_FIRST);
    ask(&mut script, before[0], 4);
    serve(&mut script, before[0]);
    assert_eq!(served(&script, &keys), before);
    script.wait(2);
    assert_eq!(served(&script, &keys).len(), SLOTS_FIRST);

    // Who would let us fetch something gets one.
    let fair = keys.iter().copied().find(|key| !before.contains(key));
    let fair = fair.expect("four wait");
    script.say(fair, Message::Unchoke).expect("allowed");
    let first = served(&script, &keys)[0];
    ask(&mut script, first, 5);
    serve(&mut script, first);
    assert!(served(&script, &keys).contains(&fair));
}

#[test]
fn far_peers_get_no_slot_more() {
    let (mut script, keys) = crowd(12);
    let before = served(&script, &keys);
    let waiting = keys.iter().copied().filter(|key| !before.contains(key));
    let waiting: Vec<PeerKey> = waiting.collect();
    let own = script.own;
    waiting[1..]
        .iter()
        .for_each(|&key| script.swarm.set_near(key, false, own));
    for number in 0..3 {
        script.now += Duration::from_millis(2);
        ask(&mut script, before[0], number);
        serve(&mut script, before[0]);
    }
    let after = served(&script, &keys);
    assert_eq!(after.len(), SLOTS_FIRST + 1);
    assert!(after.contains(&waiting[0]));
}

/// Goal: among hosts of one link nobody is in debt who has had a little more of one than of others.
#[test]
fn debts_are_larger_where_all_are_near() {
    for far in [false, true] {
        let mut script = Script::new(64);
        (0..63).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
        let keys: Vec<PeerKey> = (0..12).map(|have| leecher(&mut script, have)).collect();
        if far {
            script.join(FAST);
        }
        let len = script.swarm.geometry().length();
        for &key in &keys {
            script.swarm.peer_mut(key).up.add(len / 8, script.now);
        }
        let before = served(&script, &keys);
        ask(&mut script, before[0], 4);
        serve(&mut script, before[0]);
        let more = usize::from(!far);
        assert_eq!(
            served(&script, &keys).len(),
            SLOTS_FIRST + more,
            "far: {far}"
        );
    }
}
