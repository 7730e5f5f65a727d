//! What a seed suggests, and what becomes of suggestions.

use std::collections::BTreeSet;

use super::*;

/// A seed of 50 pieces.
fn seed() -> Script {
    let mut script = Script::new(50);
    for piece in 0..50 {
        script.swarm.found(PieceIndex(piece), script.now);
    }
    script
}

/// One more leecher, and what it is told at once.
fn newcomer(script: &mut Script, caps: Caps) -> (PeerKey, Vec<Outgoing>) {
    let key = script.join(caps);
    script.say(key, Message::Interested).expect("allowed");
    (key, script.sent(key))
}

fn suggested(messages: &[Outgoing]) -> Vec<PieceIndex> {
    let suggestion = |message: &Outgoing| match message {
        Outgoing::Suggest(piece) => Some(*piece),
        _ => None,
    };
    messages.iter().filter_map(suggestion).collect()
}

#[test]
fn seed_suggests_each_piece_to_one_peer_and_grants_none_meanwhile() {
    let mut script = seed();
    let (a, to_a) = newcomer(&mut script, FAST);
    let (b, to_b) = newcomer(&mut script, FAST);
    let (_, to_plain) = newcomer(&mut script, PLAIN);
    let (named_a, named_b) = (suggested(&to_a), suggested(&to_b));
    // 64 blocks of a piece's four, and two pieces.
    assert_eq!((named_a.len(), named_b.len()), (18, 18));
    let mut named: BTreeSet<PieceIndex> = named_a.iter().copied().collect();
    assert!(named_b.iter().all(|piece| named.insert(*piece)), "twice");
    assert_eq!(to_a.last(), Some(&Outgoing::Unchoke), "they come first");
    assert_eq!(suggested(&to_plain), [], "it would not know what that is");
    let is_grant = |message: &&Outgoing| matches!(message, Outgoing::AllowedFast(_));
    assert_eq!(to_a.iter().chain(&to_b).filter(is_grant).count(), 0);

    script
        .say(a, Message::Request(block(named_a[0].0, 0)))
        .expect("allowed");
    let more = suggested(&script.sent(a));
    assert_eq!(more.len(), 1, "one for the one that it asks for");
    assert!(named.insert(more[0]), "twice");

    // Whoever has it now gives it: 50 less 37, less these.
    let unnamed: Vec<_> = (0..50)
        .map(PieceIndex)
        .filter(|p| !named.contains(p))
        .collect();
    for piece in &unnamed[..3] {
        script.say(b, Message::Have(*piece)).expect("allowed");
    }
    script.swarm.left(a, script.now);
    script.effects();
    let (_, to_c) = newcomer(&mut script, FAST);
    let named_c = suggested(&to_c);
    assert_eq!(named_c.len(), 18);
    let is_taken = |piece: &PieceIndex| {
        named_b.contains(piece) || *piece == named_a[0] || unnamed[..3].contains(piece)
    };
    assert!(!named_c.iter().any(is_taken), "{named_c:?}");
}

/// Goal: nobody has all pieces named to itself by asking for a bit of each; whoever gets what was
/// named to it is named more.
#[test]
fn who_only_begins_with_pieces_is_named_no_more() {
    let mut script = Script::new(400);
    (0..400).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
    let (a, to_a) = newcomer(&mut script, FAST);
    let mut named = suggested(&to_a);
    let mut asked = 0;
    while let Some(&piece) = named.get(asked) {
        asked += 1;
        script
            .say(a, Message::Request(block(piece.0, 0)))
            .expect("allowed");
        while let Some(block) = script.swarm.next_upload(a) {
            script.swarm.uploaded(a, block.len.into(), script.now);
        }
        named.extend(suggested(&script.sent(a)));
    }
    assert!((36..40).contains(&asked), "{asked}");
    for &piece in &named {
        script.say(a, Message::Have(piece)).expect("allowed");
    }
    assert_eq!(suggested(&script.sent(a)).len(), 18);
}

#[test]
fn lost_piece_ends_the_suggestions() {
    let mut script = seed();
    newcomer(&mut script, FAST);
    script.swarm.lost(PieceIndex(9));
    script.effects();
    let (_, to_b) = newcomer(&mut script, FAST);
    assert_eq!(suggested(&to_b), []);
}

#[test]
fn suggested_pieces_are_asked_for_first_unless_the_user_named_an_order() {
    for (order, first) in [
        (PieceOrder::RarestFirst, [7, 3]),
        (PieceOrder::Sequential, [0, 1]),
    ] {
        let mut script = Script::new(50);
        script.swarm.choose(None, order, script.now);
        let key = script.join(FAST);
        script.say(key, Message::HaveAll).expect("allowed");
        for piece in [7, 3] {
            let message = Message::Suggest(PieceIndex(piece));
            script.say(key, message).expect("allowed");
        }
        script.say(key, Message::Unchoke).expect("allowed");
        let asked = script.requests(key);
        let expected: Vec<BlockRef> = first
            .iter()
            .flat_map(|&piece| (0..4).map(move |index| block(piece, index)))
            .collect();
        assert_eq!(asked[..8], expected, "{order:?}");
        script.swarm.audit().expect("all is in order");
    }
}

#[test]
fn suggested_piece_that_its_peer_has_not_told_of_is_not_asked_for() {
    let mut script = Script::new(50);
    let key = script.join(FAST);
    script
        .say(key, Message::Have(PieceIndex(1)))
        .expect("allowed");
    script
        .say(key, Message::Suggest(PieceIndex(5)))
        .expect("allowed");
    script.say(key, Message::Unchoke).expect("allowed");
    let asked = script.requests(key);
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|block| block.piece == PieceIndex(1)));
}

/// Goal: little is asked ahead of one of several peers that has just begun, or answers soon; much
/// of one that is alone or far.
#[test]
fn queue_of_requests_follows_what_an_answer_takes() {
    let mut script = Script::new(200);
    let alone = script.seed();
    assert_eq!(script.requests(alone).len(), 32);
    // Of 32 one is free, which is too few to ask for more.
    for (millis, open) in [(2, 8), (80, 31)] {
        let peer = script.seed();
        let asked = script.requests(peer);
        assert_eq!(asked.len(), 8, "nothing is known of it");
        script.now += Duration::from_millis(millis);
        for block in &asked[..2] {
            script.part(peer, *block, 0, BLOCK_LEN);
        }
        script.effects();
        assert_eq!(script.swarm.peer(peer).open_requests(), open, "{millis} ms");
    }
}
