//! A seed that steps back once each piece has left it.

use std::collections::BTreeSet;

use super::*;

const PIECES: u32 = 64;

/// A seed, and leechers on its own link.
struct Crowd {
    script: Script,
    keys: Vec<PeerKey>,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let mut script = Script::new(PIECES);
        (0..PIECES).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
        let join = |_| {
            let key = script.join(FAST);
            script.swarm.set_near(key, true, script.own);
            script.say(key, Message::Interested).expect("allowed");
            key
        };
        let keys = (0..count).map(join).collect();
        Self { script, keys }
    }

    /// What was named to whom since the last call.
    fn named(&mut self) -> Vec<(PeerKey, PieceIndex)> {
        let effects = self.script.effects();
        let conn_of = |key: &PeerKey| (self.script.swarm.peer(*key).conn, *key);
        let keys: Vec<_> = self.keys.iter().map(conn_of).collect();
        let named = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send(to, Outgoing::Suggest(piece)) => {
                let (_, key) = keys.iter().find(|(conn, _)| *conn == to)?;
                Some((*key, piece))
            }
            _ => None,
        });
        named.collect()
    }

    fn has(&mut self, key: PeerKey, piece: PieceIndex) {
        self.script.say(key, Message::Have(piece)).expect("allowed");
    }

    fn serve(&mut self, key: PeerKey) {
        while let Some(block) = self.script.swarm.next_upload(key) {
            let (len, now) = (block.len.into(), self.script.now);
            self.script.swarm.uploaded(key, len, now);
        }
    }

    /// A peer asks for a piece, gets it and says so.
    fn takes(&mut self, key: PeerKey, piece: PieceIndex) {
        for index in 0..4 {
            let request = Message::Request(block(piece.0, index));
            self.script.say(key, request).expect("allowed");
        }
        self.serve(key);
        self.has(key, piece);
    }

    fn pass(&mut self, ms: u64) {
        self.script.now += Duration::from_millis(ms);
    }

    /// Every piece that is named is taken, and is with `copies` others but who took it soon after.
    fn spread(&mut self, copies: usize) {
        loop {
            let named = self.named();
            if named.is_empty() {
                break;
            }
            for (key, piece) in named {
                self.pass(1);
                self.takes(key, piece);
                let at = self.keys.iter().position(|of| *of == key).expect("known");
                for step in 1..=copies {
                    self.has(self.keys[(at + step) % self.keys.len()], piece);
                }
            }
        }
        self.look();
    }

    /// A look at a crowd in which all gained something lately.
    fn look(&mut self) {
        self.pass(LOOK);
        self.are_moving(0);
        self.gain();
    }

    /// All but the first `still` gained something just now.
    fn are_moving(&mut self, still: usize) {
        for &key in &self.keys[still..] {
            self.script.swarm.peer_mut(key).gained_at = self.script.now;
        }
    }

    /// Somebody gains something, and it is looked at.
    fn gain(&mut self) {
        let key = self.keys[self.keys.len() - 1];
        let have = &self.script.swarm.peer(key).have;
        let lacking = (0..PIECES).find(|piece| !have.has(*piece));
        self.has(key, PieceIndex(lacking.expect("it lacks some")));
    }

    fn served(&self) -> Vec<PeerKey> {
        let keys = self.keys.iter().copied();
        let is_served = |key: &PeerKey| !self.script.swarm.peer(*key).choked;
        keys.filter(is_served).collect()
    }
}

/// Longer than the pause between two looks.
const LOOK: u64 = 11;

/// Goal: the seed sends each piece once, and nothing more while the crowd can give the rest.
#[test]
fn nobody_is_served_once_each_piece_is_with_others() {
    let mut crowd = Crowd::new(40);
    assert!(!crowd.served().is_empty());
    crowd.spread(1);
    assert_eq!(crowd.served(), []);
    let sent = crowd.script.swarm.uploaded_bytes();
    assert_eq!(sent, u64::from(PIECES * 4 * BLOCK_LEN));
    // Nor is it later, at a round or when somebody has a wish.
    let newcomer = crowd.script.join(FAST);
    crowd
        .script
        .swarm
        .set_near(newcomer, true, crowd.script.own);
    crowd
        .script
        .say(newcomer, Message::Interested)
        .expect("allowed");
    crowd.keys.push(newcomer);
    for _ in 0..20 {
        crowd.pass(400);
        crowd.are_moving(0);
        crowd.script.swarm.tick(crowd.script.now);
        assert_eq!(crowd.served(), []);
    }
}

/// Goal: what is with one other alone is named to somebody else, after a while and not before, and
/// what its holder takes away too.
#[test]
fn what_too_few_have_is_named_again() {
    let mut crowd = Crowd::new(40);
    crowd.spread(0);
    assert_eq!(crowd.served(), [], "it was named just now");
    crowd.pass(100);
    crowd.gain();
    let named = crowd.named();
    let pieces: BTreeSet<PieceIndex> = named.iter().map(|(_, piece)| *piece).collect();
    assert!(
        !named.is_empty() && pieces.len() == named.len(),
        "{named:?}"
    );
    let (key, piece) = named[0];
    assert!(!crowd.script.swarm.peer(key).have.has(piece.0));
    let served = crowd.served();
    assert!(served.contains(&key) && served.len() <= crowd.script.swarm.slot_count());
    for (key, piece) in named {
        crowd.takes(key, piece);
    }
    crowd.spread(1);
    crowd.pass(200);
    crowd.look();
    crowd.spread(1);
    assert_eq!(crowd.served(), []);

    // All that have one of them leave but one.
    let holders = crowd.keys.iter().copied();
    let has = |key: &PeerKey| crowd.script.swarm.peer(*key).have.has(piece.0);
    let holders: Vec<_> = holders.filter(has).collect();
    for &holder in &holders[1..] {
        crowd.script.swarm.left(holder, crowd.script.now);
    }
    crowd.keys.retain(|key| !holders[1..].contains(key));
    crowd.named();
    crowd.look();
    assert!(crowd.named().iter().any(|(_, again)| *again == piece));
}

/// Goal: who gains nothing from others is served, and goes on to be; a plain client too.
#[test]
fn who_gains_nothing_is_served() {
    let mut crowd = Crowd::new(40);
    crowd.spread(2);
    let late = crowd.keys[0];
    for _ in 0..3 {
        crowd.pass(400);
        crowd.are_moving(1);
        crowd.gain();
    }
    assert_eq!(crowd.served(), [late]);
    let lacking = |crowd: &Crowd| {
        let have = &crowd.script.swarm.peer(late).have;
        (0..PIECES).map(PieceIndex).find(|piece| !have.has(piece.0))
    };
    for _ in 0..2 {
        let piece = lacking(&crowd).expect("it lacks some");
        crowd.takes(late, piece);
        crowd.look();
        assert_eq!(crowd.served(), [late]);
    }
}

/// Goal: who dies with what was named to it, or takes nothing of it, changes nothing for others:
/// that goes to somebody else.
#[test]
fn what_was_named_in_vain_is_named_to_another() {
    let mut crowd = Crowd::new(45);
    crowd.spread(0);
    crowd.pass(100);
    crowd.gain();
    let named = crowd.named();
    let (gone, lost) = named[0];
    let other = named.iter().find(|(key, _)| *key != gone);
    let &(idle, kept) = other.expect("named to some");
    for &(key, piece) in &named {
        if key != gone && key != idle {
            crowd.takes(key, piece);
        }
    }
    crowd.script.swarm.left(gone, crowd.script.now);
    crowd.keys.retain(|key| *key != gone);
    crowd.look();
    let again = crowd.named();
    let to = again.iter().find(|(_, piece)| *piece == lost);
    assert!(to.is_some_and(|(key, _)| *key != idle), "{again:?}");
    let named_to = |crowd: &Crowd, key: PeerKey| crowd.script.swarm.peer(key).is_named();
    let is_named = |key: &PeerKey| named_to(&crowd, *key);
    assert!(crowd.served().iter().all(is_named), "nobody else");

    crowd.spread(1);
    crowd.keys.retain(|key| *key != idle);
    for _ in 0..3 {
        crowd.pass(200);
        crowd.look();
    }
    let choked = crowd.script.swarm.peer(idle).choked;
    assert!(choked && crowd.named().iter().any(|(_, piece)| *piece == kept));
}

/// Goal: who comes and goes does not have the others choked and unchoked each time.
#[test]
fn crowd_is_left_to_itself_again_after_a_while() {
    let mut crowd = Crowd::new(32);
    crowd.spread(1);
    assert_eq!(crowd.served(), []);
    let key = crowd.keys[0];
    for wish in [Message::NotInterested, Message::Interested] {
        crowd.pass(LOOK);
        crowd.script.say(key, wish).expect("allowed");
    }
    crowd.spread(1);
    assert!(!crowd.served().is_empty());
    crowd.pass(10_000);
    crowd.look();
    crowd.spread(1);
    assert_eq!(crowd.served(), []);
}

/// Goal: a small crowd is served, and one that gets nowhere, and we are no seed any more if
/// something is lost.
#[test]
fn everybody_is_served_again() {
    type Step = fn(&mut Crowd);
    let steps: [(&str, Step); 4] = [
        ("few want anything", |crowd| {
            for key in crowd.keys.clone().into_iter().take(10) {
                crowd.pass(LOOK);
                crowd
                    .script
                    .say(key, Message::NotInterested)
                    .expect("allowed");
            }
        }),
        ("many leave", |crowd| {
            for key in crowd.keys.drain(..10).collect::<Vec<_>>() {
                crowd.pass(LOOK);
                crowd.script.swarm.left(key, crowd.script.now);
            }
        }),
        ("nobody gains anything", |crowd| crowd.script.wait(1)),
        ("a piece is lost", |crowd| {
            crowd.script.swarm.lost(PieceIndex(3));
            crowd.script.wait(1);
        }),
    ];
    for (name, step) in steps {
        let mut crowd = Crowd::new(40);
        crowd.spread(1);
        assert_eq!(crowd.served(), [], "{name}");
        step(&mut crowd);
        assert!(crowd.served().len() >= 4, "{name}: {:?}", crowd.served());
    }
    let mut few = Crowd::new(20);
    few.spread(1);
    assert!(!few.served().is_empty(), "never stepped back");
}

/// Goal: a seed of our link hears what we got, soon and not at once; others do not.
#[test]
fn seed_hears_what_became_of_its_pieces() {
    let mut script = Script::new(PIECES);
    script.own = PeerId(*b"-EV0100-ourselves...");
    let seeds: Vec<PeerKey> = [*b"-EV0100-neighbour...", *b"-EV0100-far away....", [7; 20]]
        .into_iter()
        .map(|id| {
            let key = script.seed();
            script.swarm.peer_mut(key).origin.peer_id = PeerId(id);
            key
        })
        .collect();
    script.swarm.set_near(seeds[0], true, script.own);
    script.swarm.set_near(seeds[2], true, script.own);
    script.effects();
    script.swarm.found(PieceIndex(5), script.now);
    script.swarm.found(PieceIndex(9), script.now);
    let alarm = |effect: &Effect| match effect {
        Effect::News(at) => Some(*at),
        _ => None,
    };
    let alarms: Vec<_> = script.effects().iter().filter_map(alarm).collect();
    assert_eq!(alarms, [script.now + Duration::from_millis(20)]);
    script.now = alarms[0];
    script.swarm.news_due(script.now);
    let conn = script.swarm.peer(seeds[0]).conn;
    let effects = script.effects();
    let is_flush = |effect: &&Effect| matches!(effect, Effect::Flush(_));
    let flushed: Vec<_> = effects.iter().filter(is_flush).collect();
    assert!(
        matches!(flushed[..], [Effect::Flush(of)] if *of == conn),
        "{flushed:?}"
    );
    let told = |script: &mut Script, key| {
        std::iter::from_fn(|| script.swarm.next_have(key)).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut script, seeds[0]), [PieceIndex(5), PieceIndex(9)]);
    assert_eq!(told(&mut script, seeds[1]), []);
    assert_eq!(told(&mut script, seeds[2]), []);
}

/// Goal: there is an alarm for each time that somebody has to be told, and no more.
#[test]
fn alarms_of_news_do_not_multiply() {
    let mut script = Script::new(400);
    (0..100).for_each(|piece| script.swarm.found(PieceIndex(piece), script.now));
    let seed = script.seed();
    script.swarm.peer_mut(seed).origin.peer_id = PeerId(*b"-EV0100-neighbour...");
    script.swarm.set_near(seed, true, script.own);
    script.join(FAST); // lacks all that we have
    let (mut alarms, mut count) = (Vec::new(), 0);
    for piece in 100..300 {
        script.now += Duration::from_millis(1);
        script.swarm.found(PieceIndex(piece), script.now);
        let due = alarms.extract_if(.., |at| *at <= script.now).count();
        (0..due).for_each(|_| script.swarm.news_due(script.now));
        for effect in script.effects() {
            if let Effect::News(at) = effect {
                alarms.push(at);
                count += 1;
            }
        }
    }
    assert!((45..=60).contains(&count), "{count}");
}
