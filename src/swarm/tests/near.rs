//! Peers on our own link, and others.

use super::*;

/// A peer on our link that has the first `count` of 64 pieces and serves us.
fn neighbour(script: &mut Script, count: u32) -> PeerKey {
    let key = script.join(FAST);
    script.swarm.set_near(key, true, script.own);
    let mut have = Bitfield::new(64);
    (0..count).for_each(|piece| assert!(have.set(piece)));
    script
        .say(key, Message::Bitfield(have.as_bytes()))
        .expect("allowed");
    script.say(key, Message::Unchoke).expect("allowed");
    key
}

fn pieces(asked: &[BlockRef]) -> Vec<u32> {
    let mut pieces: Vec<u32> = asked.iter().map(|block| block.piece.0).collect();
    pieces.dedup();
    pieces
}

/// Answers all that is asked of this peer, again and again, and says which pieces that was of.
fn drain(script: &mut Script, key: PeerKey) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let asked = script.swarm.peer(key).requested().collect::<Vec<_>>();
        if asked.is_empty() {
            return all;
        }
        all.extend(pieces(&asked));
        for block in asked {
            script.whole(key, block);
        }
        script.effects();
    }
}

#[test]
fn far_peer_is_asked_for_what_no_near_one_has() {
    let mut script = Script::new(64);
    let near = neighbour(&mut script, 3);
    let far = script.seed();
    let mut asked = drain(&mut script, far);
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, (3..64).collect::<Vec<_>>());
    assert!(!script.swarm.peer(near).requests.is_empty());
}

#[test]
fn far_peer_is_asked_for_everything_while_no_near_one_serves_us() {
    let mut script = Script::new(64);
    let near = neighbour(&mut script, 64);
    let far = script.seed();
    script.effects();
    assert_eq!(script.swarm.peer(far).open_requests(), 0);
    script.say(near, Message::Choke).expect("allowed");
    script.effects();
    assert!(script.swarm.peer(far).open_requests() > 0);
}

/// One neighbour serves us and has nothing, the other has everything and does not.
#[test]
fn who_gets_nothing_for_a_second_asks_far_peers_too() {
    let mut script = Script::new(64);
    neighbour(&mut script, 0);
    let near = neighbour(&mut script, 64);
    script.say(near, Message::Choke).expect("allowed");
    drain(&mut script, near);
    let far = script.seed();
    script.effects();
    assert_eq!(script.swarm.peer(far).open_requests(), 0);
    script.wait(2);
    script.effects();
    assert!(script.swarm.peer(far).open_requests() > 0);
}

/// With enough to ask for, a host fetches from afar only its share.
#[test]
fn far_peer_is_asked_for_our_share() {
    let mut asked = 0;
    for id in 0..40 {
        let mut script = Script::new(64);
        script.own = PeerId([100 + id; 20]);
        for _ in 0..5 {
            neighbour(&mut script, 63);
        }
        let open: usize = script.swarm.peers().map(|(_, p)| p.open_requests()).sum();
        assert!(open >= 32, "{open}");
        let far = script.seed();
        script.effects();
        asked += u32::from(script.swarm.peer(far).open_requests() > 0);
    }
    assert!((1..20).contains(&asked), "one of six hosts: {asked} of 40");
}
