//! Peers that break the peer wire protocol, against the real binary: rows 33 to 47.
//!
//! Every row has the same judge. Beside the attack an honest download goes on: half of it passed
//! before, the other half passes after, on the same connection. Then the attacked peer must still
//! run, must not have panicked, must hold no descriptor more and no 8 MiB more of memory, and must
//! leave in good order. Where the attacked peer is itself the leecher, an honest seed comes after
//! the attack, and the download must become complete and right.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support::data::flip_bit;
use crate::support::rawpeer::{Fast, Message, NoMessage, RawPeer, id, message, words};
use stage::{
    BLOCK_LEN, CLOSE_LIMIT, Conduct, LIMIT, LeecherStage, PIECE_LEN, SeedStage, start_sources,
};

mod stage;

#[test]
fn hostile_033_absurd_length_prefix_closes_at_the_header() {
    let stage = SeedStage::new();
    for len in [u32::MAX, 1 << 31] {
        let mut peer = stage.attacker(Fast::Offered);
        peer.send(&len.to_be_bytes())
            .expect("the connection is open");
        peer.assert_closed(&format!("length {len:#x}"), CLOSE_LIMIT);
    }
    for id in 0..=23 {
        let mut peer = stage.attacker(Fast::Offered);
        let head = [&words(&[1024 * 1024 + 1])[..], &[id]].concat();
        peer.send(&head).expect("the connection is open");
        peer.assert_closed(&format!("1 MiB announced for id {id}"), CLOSE_LIMIT);
    }
    stage.judge();
}

#[test]
fn hostile_034_million_keep_alives_are_borne() {
    let stage = SeedStage::new();
    let mut peer = stage.attacker(Fast::Offered);
    peer.become_unchoked();
    for _ in 0..100 {
        peer.send(&[0; 4 * 10_000]).expect("keep-alives are free");
    }
    stage.assert_serves(&mut peer);
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_035_unknown_ids_are_skipped_until_they_become_a_flood() {
    let stage = SeedStage::new();
    let mut peer = stage.attacker(Fast::Offered);
    peer.become_unchoked();
    let known = [
        id::SUGGEST,
        id::HAVE_ALL,
        id::HAVE_NONE,
        id::REJECT,
        id::ALLOWED_FAST,
    ];
    let mut unknown = (10..=255).filter(|id| !known.contains(id) && *id != id::EXTENDED);
    for (i, id) in unknown.by_ref().take(90).enumerate() {
        peer.say(id, &vec![0xAB; i * 100]);
    }
    stage.assert_serves(&mut peer);
    for id in unknown.take(40) {
        if peer.send(&message(id, b"more")).is_err() {
            break;
        }
    }
    peer.assert_closed("130 unknown messages in a minute", CLOSE_LIMIT);
    stage.judge();
}

#[test]
fn hostile_036_message_one_byte_too_short_or_too_long_closes() {
    let stage = SeedStage::new();
    let bitfield_len = stage.torrent.piece_count().div_ceil(8) as usize;
    #[rustfmt::skip]
    let cases = [
        // id                 lengths of the body that are wrong
        (id::CHOKE,           vec![1]),
        (id::UNCHOKE,         vec![1]),
        (id::INTERESTED,      vec![1]),
        (id::NOT_INTERESTED,  vec![1]),
        (id::HAVE,            vec![3, 5]),
        (id::BITFIELD,        vec![bitfield_len - 1, bitfield_len + 1]),
        (id::REQUEST,         vec![11, 13]),
        (id::PIECE,           vec![7]),
        (id::CANCEL,          vec![11, 13]),
        (id::PORT,            vec![1, 3]),
        (id::SUGGEST,         vec![3, 5]),
        (id::HAVE_ALL,        vec![1]),
        (id::HAVE_NONE,       vec![1]),
        (id::REJECT,          vec![11, 13]),
        (id::ALLOWED_FAST,    vec![3, 5]),
        (id::EXTENDED,        vec![0]),
    ];
    for (id, lens) in cases {
        for len in lens {
            let mut peer = stage.attacker(Fast::Offered);
            peer.say(id, &vec![0; len]);
            peer.assert_closed(&format!("id {id} with {len} bytes"), CLOSE_LIMIT);
        }
    }
    stage.judge();
}

#[test]
fn hostile_037_bitfield_of_wrong_size_or_that_takes_back_closes() {
    let stage = SeedStage::new();
    let len = stage.torrent.piece_count().div_ceil(8) as usize;
    let first_two = [&[0xC0][..], &vec![0; len - 1]].concat();
    let mut spare = vec![0; len];
    spare[len - 1] = 1;
    let none = message(id::BITFIELD, &vec![0; len]);
    let have = message(id::HAVE, &words(&[0]));
    #[rustfmt::skip]
    let cases = [
        ("one byte short",           message(id::BITFIELD, &vec![0; len - 1])),
        ("one byte long",            message(id::BITFIELD, &vec![0; len + 1])),
        ("a spare bit is set",       message(id::BITFIELD, &spare)),
        ("takes back a bitfield",    [message(id::BITFIELD, &first_two), none.clone()].concat()),
        ("takes back a have",        [have.clone(), none].concat()),
    ];
    for (name, bytes) in cases {
        let mut peer = stage.attacker(Fast::Absent);
        peer.send(&bytes).expect("the connection is open");
        peer.assert_closed(name, CLOSE_LIMIT);
    }
    // aria2 1.36 packs haves into a bitfield when it has 20 at a time, at any moment
    let mut peer = stage.attacker(Fast::Absent);
    peer.become_unchoked();
    peer.send(&have).expect("the connection is open");
    peer.say(id::BITFIELD, &first_two);
    stage.assert_serves(&mut peer);
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_038_have_out_of_range_closes_and_duplicates_are_borne() {
    let stage = SeedStage::new();
    for piece in [stage.torrent.piece_count(), 1 << 31, u32::MAX] {
        let mut peer = stage.attacker(Fast::Offered);
        peer.say(id::HAVE, &words(&[piece]));
        peer.assert_closed(&format!("have {piece}"), CLOSE_LIMIT);
    }
    let mut peer = stage.attacker(Fast::Offered);
    peer.become_unchoked();
    let thousand = message(id::HAVE, &words(&[1])).repeat(1000);
    for _ in 0..1000 {
        peer.send(&thousand).expect("duplicates are free");
    }
    stage.assert_serves(&mut peer);
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_039_have_all_and_have_none_out_of_place_close() {
    let stage = SeedStage::new();
    for id in [id::HAVE_ALL, id::HAVE_NONE] {
        let mut peer = stage.attacker(Fast::Absent);
        peer.say(id, &[]);
        peer.assert_closed(&format!("id {id} without the fast extension"), CLOSE_LIMIT);
    }
    let mut peer = stage.attacker(Fast::Offered);
    let both = [message(id::HAVE_NONE, &[]), message(id::HAVE_ALL, &[])].concat();
    for _ in 0..5000 {
        if peer.send(&both).is_err() {
            break;
        }
    }
    peer.assert_closed("have_none and have_all by turns", CLOSE_LIMIT);
    stage.judge();
}

/// aria2 1.36 sends have_all in place of haves when it has got everything.
#[test]
fn hostile_039_have_all_after_have_none_is_believed() {
    let stage = LeecherStage::new(PIECE_LEN, &[], |_, _| {});
    let mut peer = stage.attacker(Fast::Offered);
    peer.say(id::HAVE_NONE, &[]);
    peer.say(id::HAVE_ALL, &[]);
    peer.read_until("interest", CLOSE_LIMIT, |message| {
        message.id == id::INTERESTED
    });
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_040_request_outside_the_torrent_closes() {
    let stage = SeedStage::new();
    let count = stage.torrent.piece_count();
    let last = count - 1;
    let last_len = stage.torrent.piece_len_of(last);
    #[rustfmt::skip]
    let cases = [
        // what                                piece     begin              length
        ("piece past the end",               [count,    0,                 BLOCK_LEN]),
        ("largest piece index",              [u32::MAX, 0,                 BLOCK_LEN]),
        ("begin at the end of the piece",    [0,        PIECE_LEN,         BLOCK_LEN]),
        ("one byte over the piece's end",    [0,        PIECE_LEN - 1,     2]),
        ("begin + length wraps to 0",        [0,        0u32.wrapping_sub(BLOCK_LEN), BLOCK_LEN]),
        ("largest begin",                    [0,        u32::MAX,          BLOCK_LEN]),
        ("no length",                        [0,        0,                 0]),
        ("one byte over a block",            [0,        0,                 BLOCK_LEN + 1]),
        ("128 KiB",                          [0,        0,                 131_072]),
        ("whole block where less is left",   [last,     BLOCK_LEN,         BLOCK_LEN]),
        ("one byte past the last piece",     [last,     last_len,          1]),
    ];
    let mut peers: Vec<RawPeer> = cases
        .iter()
        .map(|_| stage.attacker(Fast::Offered))
        .collect();
    for peer in &mut peers {
        peer.say(id::INTERESTED, &[]);
    }
    for ((name, request), mut peer) in cases.into_iter().zip(peers) {
        peer.read_until("an unchoke", UNCHOKE_LIMIT, |message| {
            message.id == id::UNCHOKE
        });
        peer.say(id::REQUEST, &words(&request));
        peer.assert_closed(name, CLOSE_LIMIT);
    }
    stage.judge();
}

#[test]
fn hostile_041_requests_for_a_piece_that_is_not_there_are_rejected_then_close() {
    let bad_piece = 5;
    let offset = u64::from(bad_piece) * u64::from(PIECE_LEN);
    let stage = LeecherStage::new(PIECE_LEN, &[], |set, folder| {
        set.copy_to(folder);
        flip_bit(&folder.join(&set.files[0].0), offset);
    });
    let request = message(id::REQUEST, &words(&[bad_piece, 0, BLOCK_LEN]));
    for fast in [Fast::Offered, Fast::Absent] {
        let mut peer = stage.attacker(fast);
        peer.become_unchoked();
        peer.send(&request.repeat(10))
            .expect("the connection is open");
        if fast == Fast::Offered {
            for _ in 0..10 {
                let reject = peer.read_until("a reject", CLOSE_LIMIT, |m| m.id == id::REJECT);
                assert_eq!(reject.words(), Some([bad_piece, 0, BLOCK_LEN]));
            }
        }
        peer.assert_serves(0, 0, stage.torrent.block(0, 0, BLOCK_LEN));
        let _ = peer.send(&request.repeat(60));
        peer.assert_closed(&format!("70 requests for it, fast {fast:?}"), CLOSE_LIMIT);
    }
    stage.judge();
}

#[test]
fn hostile_042_request_floods_stay_bounded() {
    let stage = SeedStage::new();
    let count = 100_000;
    // choked: all are rejected, none is served
    let mut peer = stage.attacker(Fast::Offered);
    let mut writer = peer.writer();
    let flood = message(id::REQUEST, &words(&[7, 0, BLOCK_LEN])).repeat(1000);
    let writing = {
        let flood = flood.clone();
        std::thread::spawn(move || (0..count / 1000).all(|_| writer.write_all(&flood).is_ok()))
    };
    let (mut rejects, mut allowed) = (0, false);
    while rejects < count {
        match peer.read(CLOSE_LIMIT) {
            Ok(Message { id: id::REJECT, .. }) => rejects += 1,
            Ok(Message {
                id: id::ALLOWED_FAST,
                body,
            }) => allowed |= body == words(&[7]),
            Ok(Message { id: id::PIECE, .. }) => assert!(allowed, "a choked peer gets no block"),
            Ok(_) => {}
            Err(NoMessage::Closed) => break,
            Err(NoMessage::Silence) if allowed => break,
            Err(NoMessage::Silence) => panic!("{rejects} of {count} were rejected, then silence"),
        }
    }
    drop(peer);
    let _ = writing.join();

    // unchoked, and nothing is read: beyond what it may queue the attacker is closed
    let mut peer = stage.attacker(Fast::Offered);
    peer.become_unchoked();
    for _ in 0..count / 1000 {
        if peer.send(&flood).is_err() {
            break;
        }
    }
    peer.assert_closed("100,000 requests open at once", CLOSE_LIMIT);
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_043_cancels_of_nothing_are_ignored() {
    let stage = SeedStage::new();
    let mut peer = stage.attacker(Fast::Offered);
    peer.become_unchoked();
    let thousand = message(id::CANCEL, &words(&[3, 0, BLOCK_LEN])).repeat(1000);
    for _ in 0..1000 {
        peer.send(&thousand).expect("cancels are free");
    }
    stage.assert_serves(&mut peer);
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_044_blocks_never_asked_for_are_dropped_and_close_at_twenty() {
    let stage = LeecherStage::new(PIECE_LEN, &[], |_, _| {});
    let answer = |peer: &mut RawPeer, piece| peer.send(&stage.answer(piece, 0, BLOCK_LEN));
    let mut patient = stage.source(Fast::Offered);
    for piece in 0..10 {
        answer(&mut patient, piece).expect("some are borne");
    }
    patient.say(id::UNCHOKE, &[]);
    patient.read_until("a request", CLOSE_LIMIT, |message| {
        message.id == id::REQUEST
    });
    drop(patient);

    let mut flooding = stage.source(Fast::Offered);
    for piece in 0..30 {
        if answer(&mut flooding, piece).is_err() {
            break;
        }
    }
    flooding.assert_closed("30 blocks that nobody asked for", CLOSE_LIMIT);
    stage.judge();
}

#[test]
fn hostile_044_block_sent_again_and_again_closes() {
    let stage = LeecherStage::new(PIECE_LEN, &[], |_, _| {});
    let mut peer = stage.source(Fast::Offered);
    peer.say(id::UNCHOKE, &[]);
    let [piece, begin, len] = peer.next_request();
    for _ in 0..31 {
        if peer.send(&stage.answer(piece, begin, len)).is_err() {
            break;
        }
    }
    peer.assert_closed("the same block 31 times", CLOSE_LIMIT);
    stage.judge();
}

#[test]
fn hostile_044_late_answers_to_withdrawn_requests_are_welcome() {
    let stage = LeecherStage::new(PIECE_LEN, &[], |_, _| {});
    let mut peer = stage.source(Fast::Absent);
    // Without the fast extension a choke withdraws every open request. What the leecher gets here
    // comes after such a choke, all of it.
    let end = Instant::now() + LIMIT;
    while !stage.victim.has_event("complete") {
        assert!(
            Instant::now() < end,
            "late answers alone complete the download"
        );
        if peer.send(&message(id::UNCHOKE, &[])).is_err() {
            break; // complete: a seed has no use for us
        }
        let mut requests = Vec::new();
        let mut patience = Duration::from_secs(5);
        while let Ok(message) = peer.read(patience) {
            if message.id == id::REQUEST {
                requests.push(message.words().expect("a request has three numbers"));
                patience = Duration::from_millis(50);
            }
        }
        let mut late = message(id::CHOKE, &[]);
        for [piece, begin, len] in requests {
            late.extend(stage.answer(piece, begin, len));
        }
        if peer.send(&late).is_err() {
            break;
        }
    }
    stage.victim.wait_for_event("complete", LIMIT);
    stage.judge();
}

#[test]
fn hostile_045_block_of_another_length_closes_and_an_empty_one_is_a_reject() {
    let stage = LeecherStage::new(PIECE_LEN, &[], |_, _| {});
    for len_wrong in [BLOCK_LEN - 100, BLOCK_LEN + 1] {
        let mut peer = stage.source(Fast::Offered);
        peer.say(id::UNCHOKE, &[]);
        let [piece, begin, _] = peer.next_request();
        let content = vec![0; len_wrong as usize];
        let body = [&words(&[piece, begin])[..], &content].concat();
        peer.say(id::PIECE, &body);
        peer.assert_closed(
            &format!("{len_wrong} bytes instead of a block"),
            CLOSE_LIMIT,
        );
    }
    let mut peer = stage.source(Fast::Absent);
    peer.say(id::UNCHOKE, &[]);
    let [piece, begin, _] = peer.next_request();
    peer.say(id::PIECE, &words(&[piece, begin]));
    // it goes on asking this peer for something
    for _ in 0..3 {
        let [piece, begin, len] = peer.next_request();
        peer.send(&stage.answer(piece, begin, len))
            .expect("an empty block does not close");
    }
    peer.next_request();
    drop(peer);
    stage.judge();
}

#[test]
fn hostile_046_liar_among_five_is_found_and_only_the_liar() {
    lies_are_found(&[
        Conduct::Liar,
        Conduct::Honest,
        Conduct::Honest,
        Conduct::Honest,
        Conduct::Honest,
    ]);
}

#[test]
fn hostile_047_two_liars_with_the_same_lie_are_both_found() {
    lies_are_found(&[
        Conduct::Honest,
        Conduct::Liar,
        Conduct::Honest,
        Conduct::Liar,
        Conduct::Honest,
    ]);
}

/// Sources of which some lie, each at an address of its own: the download becomes right, and
/// afterwards exactly the liars are refused.
fn lies_are_found(conducts: &[Conduct]) {
    let listeners: Vec<TcpListener> = (0..conducts.len())
        .map(|i| TcpListener::bind((Ipv4Addr::new(127, 0, 1, 1 + i as u8), 0)))
        .collect::<Result<_, _>>()
        .expect("127/8 is ours");
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("it is bound"))
        .collect();
    let stage = LeecherStage::new(4 * PIECE_LEN, &addresses, |_, _| {});
    let sources = start_sources(&stage.torrent, listeners, conducts);
    stage.victim.wait_for_event("complete", LIMIT);
    assert!(sources[0].lies() > 0, "the liars had their say");
    for source in &sources {
        let is_welcome = source.is_welcome_at(stage.victim.address);
        assert_eq!(
            is_welcome,
            source.conduct == Conduct::Honest,
            "{:?}",
            source.conduct
        );
    }
    drop(sources);
    stage.judge();
}

/// The slots go round every 10 s.
const UNCHOKE_LIMIT: Duration = Duration::from_secs(60);
