//! An exchange without peers, which has let go of what it does not need.

use super::*;

impl Script {
    /// One that has everything and nobody to give it to.
    fn resting(pieces: u32) -> Self {
        let mut script = Self::new(pieces);
        for piece in 0..pieces {
            script.swarm.found(PieceIndex(piece), script.now);
        }
        assert!(script.swarm.live.is_at_rest());
        script.audit();
        script
    }

    fn audit(&self) {
        self.swarm.audit().expect("what is counted is there");
    }

    /// All that is asked of a seed comes, as blocks of one piece.
    fn fetch(&mut self, seed: PeerKey, piece: u32) {
        let requests = self.requests(seed);
        let all: Vec<BlockRef> = (0..4).map(|index| block(piece, index)).collect();
        assert_eq!(requests, all);
        for asked in requests {
            self.whole(seed, asked);
        }
    }

    /// Storage has hashed a piece.
    fn hashed(&mut self, piece: u32, verdict: fn(Vec<u64>) -> Verdict) {
        let verdict = verdict(Vec::new());
        self.swarm
            .piece_checked(PieceIndex(piece), verdict, self.now);
    }

    fn leaves(&mut self, key: PeerKey) -> Vec<Effect> {
        self.swarm.left(key, self.now);
        self.effects()
    }
}

fn good(blocks: Vec<u64>) -> Verdict {
    Verdict::Good { blocks }
}

fn bad(blocks: Vec<u64>) -> Verdict {
    Verdict::Bad { blocks }
}

#[test]
fn seed_rests_while_nobody_is_there_and_serves_who_comes() {
    let mut script = Script::resting(6);
    for _ in 0..3 {
        let leecher = script.join(FAST);
        assert_eq!(script.sent(leecher), [Outgoing::HaveAll]);
        assert!(!script.swarm.live.is_at_rest());
        script.audit();
        script.say(leecher, Message::HaveNone).expect("allowed");
        script.say(leecher, Message::Interested).expect("allowed");
        assert!(script.sent(leecher).contains(&Outgoing::Unchoke));
        script.wait(30);
        script.audit();
        script.swarm.left(leecher, script.now);
        script.effects();
        assert!(script.swarm.live.is_at_rest());
        script.audit();
        script.wait(30);
        script.swarm.news_due(script.now);
        assert_eq!(script.swarm.left_bytes(), 0);
        assert!(script.swarm.live.is_at_rest(), "no look at it wakes it");
    }
}

/// Goal: a leecher that was alone asks the next one for what it lacks, and only for that.
#[test]
fn leecher_that_was_alone_goes_on_where_it_stopped() {
    let mut script = Script::new(6);
    for piece in 0..3 {
        script.swarm.found(PieceIndex(piece), script.now);
        let seed = script.seed();
        assert!(!script.requests(seed).is_empty());
        script.audit();
        script.swarm.left(seed, script.now);
        script.effects();
        assert!(script.swarm.live.is_at_rest());
        script.audit();
    }
    let seed = script.seed();
    let mut asked = script.requests(seed);
    asked.sort_unstable_by_key(|block| (block.piece, block.begin));
    assert!(!asked.is_empty() && asked.iter().all(|block| block.piece.0 >= 3));
}

#[test]
fn piece_that_a_seed_at_rest_loses_is_fetched_again_and_nothing_else() {
    let mut script = Script::resting(6);
    script.swarm.lost(PieceIndex(3));
    assert_eq!(script.swarm.pieces().count_ones(), 5);
    script.audit();
    let seed = script.seed();
    script.fetch(seed, 3);
    script.hashed(3, good);
    assert!(script.swarm.is_complete());
    script.audit();
    script.leaves(seed);
    assert!(script.swarm.live.is_at_rest());
}

/// It is what it would ask for first, once something is lost.
#[test]
fn order_that_the_user_chose_outlasts_the_rest() {
    let mut script = Script::resting(6);
    let now = script.now;
    script.swarm.choose(None, PieceOrder::Sequential, now);
    for piece in [5, 1, 4] {
        script.swarm.lost(PieceIndex(piece));
    }
    let seed = script.seed();
    let pieces: Vec<u32> = script
        .requests(seed)
        .iter()
        .map(|block| block.piece.0)
        .collect();
    assert!(
        pieces.starts_with(&[1, 1, 1, 1]) && pieces.is_sorted(),
        "{pieces:?}"
    );
}

/// Goal: what failed once is as good as any other piece when it is there, and when it is lost.
#[test]
fn piece_that_failed_and_passed_then_is_fetched_again_when_it_is_lost() {
    let mut script = Script::resting(6);
    for _ in 0..2 {
        let seed = script.seed();
        // Once with the seed that it was fetched from before, and once after a rest.
        for _ in 0..2 {
            script.swarm.lost(PieceIndex(3));
            for verdict in [bad, good] {
                script.fetch(seed, 3);
                script.hashed(3, verdict);
                script.audit();
            }
        }
        script.leaves(seed);
        assert!(script.swarm.live.is_at_rest());
    }
}

/// Goal: a piece that waits to be hashed is not forgotten.
#[test]
fn nothing_rests_while_a_piece_is_hashed() {
    let mut script = Script::resting(6);
    script.swarm.lost(PieceIndex(3));
    let seed = script.seed();
    script.fetch(seed, 3);
    script.leaves(seed);
    assert!(!script.swarm.live.is_at_rest());
    script.hashed(3, good);
    assert!(script.swarm.live.is_at_rest());
}

/// Goal: whether a piece is right that a peer left for is not forgotten, nor taken for a new one.
#[test]
fn nothing_rests_while_a_piece_is_hashed_again() {
    let mut script = Script::resting(6);
    let leecher = script.join(FAST);
    script.say(leecher, Message::HaveNone).expect("allowed");
    script.say(leecher, Message::Interested).expect("allowed");
    for index in 0..4 {
        let asked = Message::Request(block(3, index));
        script.say(leecher, asked).expect("allowed");
        let sent = script.swarm.next_upload(leecher).expect("it was asked for");
        script.swarm.uploaded(leecher, sent.len.into(), script.now);
    }
    let wanted = script.leaves(leecher);
    assert!(has(&wanted, "Check(PieceIndex(3))"), "{wanted:?}");
    assert!(!script.swarm.live.is_at_rest());
    script.hashed(3, bad);
    let wanted = script.effects();
    assert!(has(&wanted, "Spoilt(PieceIndex(3))"), "{wanted:?}");
    assert!(script.swarm.live.is_at_rest());
}
