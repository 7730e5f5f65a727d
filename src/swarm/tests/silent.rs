//! Peers that died without a word, when nothing else is left to ask for.

use super::*;

/// The last block is asked of a peer that gave the others, one in so many milliseconds, and of one
/// that gave nothing. There is somebody else.
fn last_block(pause_ms: u64) -> (Script, [PeerKey; 3], BlockRef) {
    let mut script = Script::new(1);
    let quick = script.seed();
    let asked = script.requests(quick);
    assert_eq!(asked.len(), 4);
    for &block in &asked[..3] {
        script.now += Duration::from_millis(pause_ms);
        script.whole(quick, block).expect("it is wanted");
    }
    let (mute, helper) = (script.seed(), script.seed());
    assert_eq!(script.requests(mute), [asked[3]]);
    assert_eq!(script.requests(helper), [], "two are enough");
    for key in [quick, mute, helper] {
        script.swarm.set_near(key, true, script.own);
    }
    (script, [quick, mute, helper], asked[3])
}

/// Goal: the crowd does not wait for long for one that died, however long it takes others.
#[test]
fn who_was_quick_is_not_waited_for_long() {
    for (pause_ms, is_given_up) in [(10, true), (1000, false)] {
        let (mut script, [quick, _, helper], last) = last_block(pause_ms);
        script.wait(3);
        assert_eq!(script.swarm.peer(quick).snubbed, is_given_up, "{pause_ms}");
        let to_helper = if is_given_up { vec![last] } else { vec![] };
        assert_eq!(script.requests(helper), to_helper, "{pause_ms}");
        script.swarm.audit().expect("all is in order");
    }
}

/// Goal: a block in the midst of which its sender died is one that nobody was asked for.
#[test]
fn block_that_stands_still_is_given_up() {
    let (mut script, [quick, mute, helper], last) = last_block(10);
    script.part(quick, last, 0, 100).expect("it is wanted");
    assert_eq!(script.swarm.peer(quick).open_requests(), 0);
    script.wait(1);
    assert!(script.swarm.peer(quick).incoming.is_some());
    script.wait(2);
    let peer = script.swarm.peer(quick);
    assert!(peer.snubbed && peer.incoming.as_ref().is_none_or(|i| !i.counted));
    assert!(!script.swarm.peer(mute).snubbed, "it may be slow");
    assert_eq!(script.requests(helper), [last]);
    script.swarm.audit().expect("all is in order");
}
