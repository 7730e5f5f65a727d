//! The picker by examples, one column per piece, and against a model that knows no shortcuts.

use super::*;
use crate::meta::choice::ChosenPieces;

impl Picker {
    /// Counts everything again.
    fn check(&self) {
        self.rarity.check();
        assert!(self.open.is_sorted());
        for piece in (0..self.missing.len()).map(PieceIndex) {
            let is_wanted = self.wanted.has(piece.0) && self.is_chosen(piece);
            let is_missing = is_wanted && !self.have.has(piece.0);
            assert_eq!(self.missing.has(piece.0), is_missing, "piece {piece}");
            let active = self.active.get(&piece);
            assert_eq!(self.rarity.is_listed(piece), is_missing && active.is_none());
            let is_open = self.open.iter().any(|&(_, open)| open == piece);
            let Some(active) = active else {
                assert!(!is_open, "piece {piece} is open, but not begun");
                continue;
            };
            let count = |wanted: fn(u8) -> bool| {
                active.blocks.iter().filter(|&&state| wanted(state)).count() as u32
            };
            assert!(!self.have.has(piece.0) && active.free < active.blocks.len() as u32);
            assert_eq!(is_open, is_missing && active.free > 0, "piece {piece}");
            assert_eq!(active.free, count(|state| state == FREE));
            assert_eq!(active.done, count(|state| state == DONE));
            assert!(!active.blocks[..active.first_free].contains(&FREE));
        }
    }
}

/// `#` is a piece held.
fn bits(columns: &str) -> Bitfield {
    let mut bits = Bitfield::new(columns.len() as u32);
    for (index, column) in (0..).zip(columns.chars()) {
        if column == '#' {
            bits.set(index);
        }
    }
    bits
}

/// Pieces of one block; `peers` counts the holders of each.
fn picker(ours: &str, peers: &str) -> Picker {
    let piece_count = ours.len() as u32;
    let length = u64::from(piece_count) * u64::from(BLOCK_LEN);
    let mut picker = Picker::new(Bitfield::new(piece_count), BLOCK_LEN, length, Rng::new(1));
    for (index, holders) in (0..).map(PieceIndex).zip(peers.chars()) {
        for _ in 0..holders.to_digit(10).unwrap() {
            picker.peer_gained(index);
        }
    }
    bits(ours)
        .ones()
        .for_each(|index| picker.have(PieceIndex(index)));
    picker.check();
    picker
}

/// Pieces of `blocks` blocks each, all of them offered by one seed.
fn seeded_picker(piece_count: u32, blocks: u32) -> Picker {
    let length = u64::from(piece_count * blocks * BLOCK_LEN);
    let mut picker = Picker::new(
        Bitfield::new(piece_count),
        blocks * BLOCK_LEN,
        length,
        Rng::new(1),
    );
    assert_eq!(
        picker.peer_joined(&Bitfield::full(piece_count)),
        Counted::Seed
    );
    picker
}

fn pick(picker: &mut Picker, theirs: &Bitfield, count: usize) -> Vec<BlockRef> {
    let mut out = Vec::new();
    picker.pick(theirs, count, &mut out);
    picker.check();
    out
}

fn pieces(blocks: &[BlockRef]) -> Vec<u32> {
    blocks.iter().map(|block| block.piece.0).collect()
}

#[test]
fn nothing_is_kept_of_peers_when_the_last_has_left() {
    let mut picker = picker("....", "0000");
    let theirs = bits("##.#");
    for _ in 0..2 {
        let counted = picker.peer_joined(&theirs);
        let picked = pick(&mut picker, &theirs, 2);
        assert_eq!(picked.len(), 2);
        assert_eq!(picker.availability(PieceIndex(3)), 1);
        for block in picked {
            picker.block_released(block);
        }
        picker.peer_left(&theirs, counted);
        picker.last_peer_left();
        picker.check();
        assert_eq!(picker.availability(PieceIndex(3)), 0);
        assert_eq!(picker.missing(), 4, "what is wanted stays known");
    }
}

/// One column per piece: `ours` and `theirs` mark pieces held, `peers` counts holders.
#[test]
fn picks_the_rarest_piece_the_peer_can_give() {
    #[rustfmt::skip]
    let cases = [
        // what it shows                  ours        peers       theirs      picked
        ("rarest first",                  "####....", "11113214", "########", Some(6)),
        ("theirs only",                   "####....", "11113214", "######.#", Some(5)),
        ("ours is not wanted",            "####..#.", "11113214", "########", Some(5)),
        ("nothing left to give",          "######..", "11111100", "######..", None),
        ("they have nothing",             "####....", "11111111", "........", None),
        ("a holder nobody counted",       "####....", "11113200", "......#.", Some(6)),
        ("what nobody else has can wait", "####....", "11112200", "....#.#.", Some(4)),
    ];
    for (name, ours, peers, theirs, picked) in cases {
        let blocks = pick(&mut picker(ours, peers), &bits(theirs), 1);
        assert_eq!(pieces(&blocks).first().copied(), picked, "{name}");
    }
}

/// `wanted` and `high` mark pieces that the user chose.
fn choose(picker: &mut Picker, wanted: &str, high: &str, order: PieceOrder) {
    let chosen = ChosenPieces {
        wanted: bits(wanted),
        high: bits(high),
    };
    picker.choose(Some(chosen), order);
    picker.check();
}

#[test]
fn user_says_which_pieces_come_and_which_first() {
    use PieceOrder::{RarestFirst, Sequential};
    #[rustfmt::skip]
    let cases = [
        // what it shows          wanted      high        order        theirs      picked
        ("wanted only",             ".....##.", "........", RarestFirst, "########", &[6, 5][..]),
        ("wanted and theirs only",  ".....##.", "........", RarestFirst, "######.#", &[5]),
        ("high first, then rarest", "....####", "....#.#.", RarestFirst, "########", &[6, 4, 5, 7]),
        ("high that they lack",     "....####", "....#.#.", RarestFirst, "#####..#", &[4, 7]),
        ("in order",                "########", "........", Sequential,  "########", &[4, 5, 6, 7]),
        ("in order, high first",    "########", "......#.", Sequential,  "########", &[6, 4, 5, 7]),
    ];
    for (name, wanted, high, order, theirs, picked) in cases {
        let mut picker = picker("####....", "11114325");
        choose(&mut picker, wanted, high, order);
        let blocks = pick(&mut picker, &bits(theirs), 8);
        assert_eq!(pieces(&blocks), picked, "{name}");
        assert!(picker.is_endgame() || theirs != "########", "{name}");
    }
}

#[test]
fn first_pieces_are_in_order_too_if_the_user_says_so() {
    let mut picker = seeded_picker(50, 2);
    picker.choose(None, PieceOrder::Sequential);
    let blocks = pick(&mut picker, &Bitfield::full(50), 100);
    let expected: Vec<u32> = (0..50).flat_map(|piece| [piece, piece]).collect();
    assert_eq!(pieces(&blocks), expected);
}

#[test]
fn what_came_of_a_piece_that_was_not_wanted_for_a_while_is_not_asked_for_again() {
    let mut picker = seeded_picker(2, 4);
    let full = Bitfield::full(2);
    let asked = pick(&mut picker, &full, 4);
    let piece = asked[0].piece;
    assert!(picker.block_done(asked[0]).is_new);
    for block in &asked[1..] {
        picker.block_released(*block);
    }
    let other = ["#.", ".#"][1 - piece.as_usize()];
    choose(&mut picker, other, "..", PieceOrder::RarestFirst);
    let others = pieces(&pick(&mut picker, &full, 9));
    assert_eq!(others, [1 - piece.0; 4]);
    picker.choose(None, PieceOrder::RarestFirst);
    picker.check();
    let rest = pick(&mut picker, &full, 9);
    assert_eq!(rest, asked[1..]);
    assert_eq!(picker.block_state(asked[0]), BlockState::Done);
}

#[test]
fn seed_and_peers_that_come_and_go_are_counted_as_they_came() {
    let mut picker = picker("....", "0123");
    let grown = bits("##..");
    let seed = picker.peer_joined(&Bitfield::full(4));
    let pieces = picker.peer_joined(&grown);
    let mut grown = grown;
    for index in [2, 3] {
        grown.set(index);
        picker.peer_gained(PieceIndex(index));
    }
    let shown = |picker: &Picker| (0..4).map(|i| picker.availability(PieceIndex(i))).collect();
    let with_both: Vec<u32> = shown(&picker);
    assert_eq!(with_both, [2, 3, 4, 5]);
    picker.peer_left(&grown, pieces);
    picker.peer_left(&Bitfield::full(4), seed);
    picker.check();
    let without: Vec<u32> = shown(&picker);
    assert_eq!(without, [0, 1, 2, 3]);
}

#[test]
fn equally_rare_pieces_come_in_random_order() {
    let mut first_picks = [0u32; 8];
    for rng_seed in 0..800 {
        let length = 12 * u64::from(BLOCK_LEN);
        let mut picker = Picker::new(Bitfield::new(12), BLOCK_LEN, length, Rng::new(rng_seed));
        (0..4).for_each(|index| picker.have(PieceIndex(index)));
        let _ = picker.peer_joined(&bits("############"));
        let blocks = pick(&mut picker, &Bitfield::full(12), 1);
        first_picks[blocks[0].piece.as_usize() - 4] += 1;
    }
    assert!(
        first_picks.iter().all(|n| (60..=140).contains(n)),
        "{first_picks:?}"
    );
}

#[test]
fn first_pieces_are_random_not_rarest() {
    let mut picks = [0u32; 8];
    for rng_seed in 0..800 {
        let length = 8 * u64::from(BLOCK_LEN);
        let mut picker = Picker::new(Bitfield::new(8), BLOCK_LEN, length, Rng::new(rng_seed));
        let _ = picker.peer_joined(&bits("#######."));
        let _ = picker.peer_joined(&Bitfield::full(8));
        let blocks = pick(&mut picker, &Bitfield::full(8), 1);
        picks[blocks[0].piece.as_usize()] += 1;
    }
    assert!(picks.iter().all(|n| (60..=140).contains(n)), "{picks:?}");
}

#[test]
fn begun_pieces_are_finished_before_new_ones() {
    let mut picker = seeded_picker(6, 4);
    let first = pick(&mut picker, &Bitfield::full(6), 2);
    assert_eq!(first[0].piece, first[1].piece);
    assert_eq!([first[0].begin, first[1].begin], [0, BLOCK_LEN]);

    let then = pick(&mut picker, &Bitfield::full(6), 4);
    assert_eq!(pieces(&then)[..2], pieces(&first)[..]);
    assert_eq!(
        [then[0].begin, then[1].begin],
        [2 * BLOCK_LEN, 3 * BLOCK_LEN]
    );
    assert_ne!(then[2].piece, first[0].piece);
    assert_eq!(picker.active_pieces().count(), 2);
}

#[test]
fn last_piece_and_last_block_are_short() {
    let length = u64::from(2 * BLOCK_LEN) + u64::from(BLOCK_LEN) + 7;
    let mut picker = Picker::new(Bitfield::new(2), 2 * BLOCK_LEN, length, Rng::new(1));
    let mut blocks = pick(&mut picker, &Bitfield::full(2), 99);
    blocks.sort_unstable();
    let shapes: Vec<_> = blocks.iter().map(|b| (b.piece.0, b.begin, b.len)).collect();
    let expected = [
        (0, 0, BLOCK_LEN),
        (0, BLOCK_LEN, BLOCK_LEN),
        (1, 0, BLOCK_LEN),
        (1, BLOCK_LEN, 7),
    ];
    assert_eq!(shapes, expected);
    assert_eq!(picker.missing_len(), length);
    picker.have(PieceIndex(1));
    assert_eq!(picker.missing_len(), u64::from(2 * BLOCK_LEN));
    picker.have(PieceIndex(0));
    assert_eq!(picker.missing_len(), 0);
}

#[test]
fn only_whole_aligned_blocks_are_blocks() {
    let picker = Picker::new(
        Bitfield::new(2),
        2 * BLOCK_LEN,
        u64::from(3 * BLOCK_LEN) + 7,
        Rng::new(1),
    );
    #[rustfmt::skip]
    let cases = [
        // what it shows    piece     begin          len        is a block
        ("first",           0,        0,             BLOCK_LEN, true),
        ("short tail",      1,        BLOCK_LEN,     7,         true),
        ("long tail",       1,        BLOCK_LEN,     8,         false),
        ("not aligned",     0,        1,             BLOCK_LEN, false),
        ("half",            0,        0,             1,         false),
        ("empty",           0,        0,             0,         false),
        ("behind piece",    0,        2 * BLOCK_LEN, BLOCK_LEN, false),
        ("far behind",      0,        u32::MAX,      BLOCK_LEN, false),
        ("no such piece",   2,        0,             BLOCK_LEN, false),
        ("absurd piece",    u32::MAX, 0,             BLOCK_LEN, false),
    ];
    for (name, piece, begin, len, is_block) in cases {
        let piece = PieceIndex(piece);
        assert_eq!(
            picker.is_block(BlockRef { piece, begin, len }),
            is_block,
            "{name}"
        );
    }
}

#[test]
fn released_block_is_picked_again() {
    let mut picker = seeded_picker(6, 4);
    let blocks = pick(&mut picker, &Bitfield::full(6), 5);
    picker.block_released(blocks[1]);
    assert_eq!(picker.block_state(blocks[1]), BlockState::Free);
    assert_eq!(pick(&mut picker, &Bitfield::full(6), 1), [blocks[1]]);
}

#[test]
fn piece_of_which_nothing_is_under_way_is_no_longer_begun() {
    let mut picker = seeded_picker(6, 4);
    let blocks = pick(&mut picker, &Bitfield::full(6), 4);
    blocks
        .iter()
        .for_each(|&block| picker.block_released(block));
    picker.check();
    assert_eq!(picker.active_pieces().count(), 0);
    assert_eq!(picker.missing(), 6);
}

#[test]
fn block_has_one_writer_until_it_stops() {
    let mut picker = seeded_picker(6, 4);
    let block = pick(&mut picker, &Bitfield::full(6), 1)[0];
    assert_eq!(picker.block_begun(block), Arrival::Writer);
    assert_eq!(picker.block_begun(block), Arrival::Second);
    picker.block_released(block);
    assert_eq!(picker.block_state(block), BlockState::Begun { by: 0 });
    picker.block_abandoned(block);
    assert_eq!(picker.block_state(block), BlockState::Free);
    assert_eq!(picker.block_begun(block), Arrival::Writer);
    assert!(picker.block_done(block).is_new);
    assert_eq!(picker.block_begun(block), Arrival::Unneeded);
    assert!(!picker.block_done(block).is_new);
    picker.check();
}

#[test]
fn last_block_completes_the_piece_also_when_nobody_asked_for_it() {
    let mut picker = seeded_picker(6, 2);
    let blocks = pick(&mut picker, &Bitfield::full(6), 2);
    picker.block_released(blocks[1]);
    assert!(!picker.block_done(blocks[0]).piece_complete);
    assert!(picker.block_done(blocks[1]).piece_complete);
    picker.have(blocks[0].piece);
    assert!(!picker.block_done(blocks[1]).piece_complete);
    assert_eq!((picker.missing(), picker.active_pieces().count()), (5, 0));
    picker.check();
}

#[test]
fn failed_and_lost_pieces_are_picked_again() {
    let mut picker = seeded_picker(1, 2);
    let theirs = Bitfield::full(1);
    for round in 0..3 {
        let blocks = pick(&mut picker, &theirs, 9);
        assert_eq!(blocks.len(), 2, "round {round}");
        assert!(picker.is_endgame());
        blocks
            .iter()
            .for_each(|&block| assert!(picker.block_done(block).is_new));
        match round {
            0 => picker.piece_failed(PieceIndex(0)),
            _ => {
                picker.have(PieceIndex(0));
                assert!(!picker.is_interesting(&theirs) && !picker.is_endgame());
                picker.lose(PieceIndex(0));
            }
        }
        assert!(picker.is_interesting(&theirs));
    }
}

#[test]
fn unwanted_piece_is_not_picked_but_its_blocks_still_count() {
    let mut picker = seeded_picker(2, 2);
    let theirs = Bitfield::full(2);
    let block = pick(&mut picker, &theirs, 1)[0];
    picker.set_wanted(block.piece, Wanted::No);
    let others = pick(&mut picker, &theirs, 9);
    assert!(others.iter().all(|other| other.piece != block.piece));
    assert!(picker.is_endgame());
    assert!(picker.block_done(block).is_new);
    picker.set_wanted(block.piece, Wanted::Yes);
    assert_eq!(pick(&mut picker, &theirs, 9).len(), 1);
}

#[test]
fn endgame_begins_when_no_peer_can_give_a_free_block() {
    let mut picker = picker("####....", "00001110");
    assert!(!picker.is_endgame());
    let blocks = pick(&mut picker, &bits("....###."), 9);
    assert_eq!(blocks.len(), 3);
    assert!(picker.is_endgame(), "nobody has the last piece");
    picker.block_released(blocks[0]);
    assert!(!picker.is_endgame());
}

#[test]
fn endgame_spreads_over_the_least_requested_blocks() {
    let mut picker = seeded_picker(2, 2);
    let theirs = Bitfield::full(2);
    let blocks = pick(&mut picker, &theirs, 4);
    let mut out = Vec::new();
    picker.pick_endgame(&theirs, |_| true, 9, 3, &mut out);
    assert_eq!(out, [], "asked of this peer already");

    picker.pick_endgame(&theirs, |block| block == blocks[0], 2, 3, &mut out);
    picker.pick_endgame(&theirs, |block| block == blocks[0], 1, 3, &mut out);
    let second: Vec<BlockRef> = out.clone();
    out.sort_unstable();
    let mut rest = blocks[1..].to_vec();
    rest.sort_unstable();
    assert_eq!(out, rest, "each once before any twice");

    let writer = second[0];
    assert_eq!(picker.block_begun(writer), Arrival::Writer);
    assert!(picker.block_done(second[1]).is_new);
    out.clear();
    picker.pick_endgame(&theirs, |_| false, 9, 3, &mut out);
    picker.check();
    assert_eq!(
        out,
        [blocks[0], second[2], writer],
        "fewest requests first, writers last"
    );
    out.clear();
    picker.pick_endgame(&theirs, |_| false, 9, 3, &mut out);
    assert_eq!(out, [blocks[0]]);
    assert_eq!(picker.block_state(writer), BlockState::Begun { by: 3 });
    out.clear();
    picker.pick_endgame(&theirs, |_| false, 9, 3, &mut out);
    assert_eq!(out, [], "no more than three requests for a block");
}

/// With [`Picker`]s that keep all pieces in order, and with one of more pieces than that.
#[test]
fn peer_that_lacks_all_rare_pieces_of_a_large_torrent_gets_one_it_has() {
    for piece_count in [10_000, 100_000, 300_000] {
        let mut picker = Picker::new(
            Bitfield::new(piece_count),
            BLOCK_LEN,
            u64::from(piece_count) * u64::from(BLOCK_LEN),
            Rng::new(1),
        );
        (0..4).for_each(|index| picker.have(PieceIndex(index)));
        let (mut common, mut lonely) = (Bitfield::new(piece_count), Bitfield::new(piece_count));
        for index in piece_count / 2..piece_count {
            common.set(index);
        }
        lonely.set(piece_count - 1);
        let mut rare = Bitfield::full(piece_count);
        rare.clear(0);
        let _ = (picker.peer_joined(&rare), picker.peer_joined(&common));
        for theirs in [&common, &lonely, &rare, &common] {
            let blocks = pick(&mut picker, theirs, 1);
            assert!(theirs.has(blocks[0].piece.0), "{piece_count}");
        }
        assert_eq!(pick(&mut picker, &lonely, 1), []);
    }
}

#[test]
fn sample_of_a_huge_torrent_prefers_the_rare_and_is_random() {
    let piece_count = 300_000;
    let mut picks = Vec::new();
    for rng_seed in 0..40 {
        let length = u64::from(piece_count) * u64::from(BLOCK_LEN);
        let mut picker = Picker::new(
            Bitfield::new(piece_count),
            BLOCK_LEN,
            length,
            Rng::new(rng_seed),
        );
        (0..4).for_each(|index| picker.have(PieceIndex(index)));
        let (mut common, mut half) = (Bitfield::new(piece_count), Bitfield::new(piece_count));
        for index in (0..piece_count).filter(|index| index % 100 != 0) {
            common.set(index);
        }
        for index in piece_count / 2..piece_count {
            half.set(index);
        }
        let _ = (picker.peer_joined(&common), picker.peer_joined(&half));
        picks.push(pick(&mut picker, &half, 1)[0].piece.0);
    }
    assert!(
        picks.iter().all(|piece| piece % 100 == 0),
        "one of a hundred is rare: {picks:?}"
    );
    picks.sort_unstable();
    picks.dedup();
    assert!(
        picks.len() > 30,
        "no edge of what they have is preferred: {picks:?}"
    );
}

mod model {
    //! The same questions, answered by looking at everything.

    use super::*;

    /// A torrent, its blocks and its peers, each block as the caller knows it.
    pub struct Model {
        pub blocks: Vec<Vec<Block>>,
        pub have: Vec<bool>,
        pub wanted: Vec<bool>,
        pub peers: Vec<(Bitfield, Counted)>,
    }

    #[derive(Clone, Copy, Default)]
    pub struct Block {
        pub requests: u32,
        pub is_begun: bool,
        pub is_done: bool,
    }

    impl Block {
        pub fn is_free(self) -> bool {
            self.requests == 0 && !self.is_begun && !self.is_done
        }
    }

    impl Model {
        pub fn holders(&self, piece: usize) -> u32 {
            self.peers
                .iter()
                .filter(|(theirs, _)| theirs.has(piece as u32))
                .count() as u32
        }

        pub fn is_missing(&self, piece: usize) -> bool {
            self.wanted[piece] && !self.have[piece]
        }

        pub fn is_active(&self, piece: usize) -> bool {
            self.blocks[piece].iter().any(|block| !block.is_free())
        }

        pub fn free(&self, piece: usize) -> usize {
            self.blocks[piece]
                .iter()
                .filter(|block| block.is_free())
                .count()
        }

        pub fn is_endgame(&self) -> bool {
            let missing = (0..self.have.len()).filter(|&piece| self.is_missing(piece));
            let mut missing = missing.peekable();
            missing.peek().is_some()
                && missing.all(|piece| self.free(piece) == 0 || self.holders(piece) == 0)
        }

        pub fn state(&self, piece: usize, index: usize) -> BlockState {
            let block = self.blocks[piece][index];
            let by = block.requests;
            match block {
                _ if self.have[piece] || block.is_done => BlockState::Done,
                _ if block.is_begun => BlockState::Begun { by },
                _ if by > 0 => BlockState::Requested { by },
                _ => BlockState::Free,
            }
        }

        /// Checks a pick and carries it out.
        pub fn picked(&mut self, theirs: &Bitfield, count: usize, out: &[BlockRef]) {
            let gives = |piece: usize| theirs.has(piece as u32);
            let offered = (0..self.have.len()).filter(|&p| self.is_missing(p) && gives(p));
            let offered: Vec<usize> = offered.collect();
            let free: usize = offered.iter().map(|&piece| self.free(piece)).sum();
            assert_eq!(out.len(), free.min(count), "as many as there are");
            let has_seed = self
                .peers
                .iter()
                .any(|(_, counted)| *counted == Counted::Seed);
            for block in out {
                let (piece, index) = (block.piece.as_usize(), (block.begin / BLOCK_LEN) as usize);
                assert!(offered.contains(&piece) && self.blocks[piece][index].is_free());
                if !self.is_active(piece) {
                    let has_open = |&p: &usize| self.is_active(p) && self.free(p) > 0;
                    assert!(!offered.iter().any(has_open), "begun pieces first");
                    let listed = offered.iter().filter(|&&p| !self.is_active(p));
                    let rarity = |p: usize| match self.holders(p) {
                        0 if !has_seed => u32::MAX,
                        holders => holders,
                    };
                    let rarest = listed.map(|&p| rarity(p)).min();
                    let is_random = self.have.iter().filter(|&&have| have).count() < 4;
                    assert!(is_random || Some(rarity(piece)) == rarest, "rarest first");
                }
                self.blocks[piece][index].requests += 1;
            }
        }

        /// Checks a pick of up to three blocks in the endgame and carries it out.
        pub fn picked_endgame(
            &mut self,
            theirs: &Bitfield,
            not: BlockRef,
            max_dup: u32,
            out: &[BlockRef],
        ) {
            let mut fit = Vec::new();
            for piece in (0..self.have.len()).filter(|&p| self.is_missing(p)) {
                for (index, block) in (0..).zip(&self.blocks[piece]) {
                    let is_not = not.piece.as_usize() == piece && not.begin == index * BLOCK_LEN;
                    let is_fit = !block.is_done && (1..max_dup).contains(&block.requests);
                    if is_fit && !is_not && theirs.has(piece as u32) {
                        fit.push((block.is_begun, block.requests));
                    }
                }
            }
            fit.sort_unstable();
            fit.truncate(3);
            let mut taken: Vec<&BlockRef> = Vec::new();
            for block in out {
                assert!(*block != not && !taken.contains(&block), "twice");
                taken.push(block);
                let (piece, index) = (block.piece.as_usize(), (block.begin / BLOCK_LEN) as usize);
                assert!(self.is_missing(piece) && theirs.has(block.piece.0));
                let block = &mut self.blocks[piece][index];
                assert!(!block.is_done);
                assert_eq!(
                    (block.is_begun, block.requests),
                    fit.remove(0),
                    "fewest first"
                );
                block.requests += 1;
            }
            assert!(fit.is_empty(), "as many as there are");
        }

        pub fn clear(&mut self, piece: usize) {
            self.blocks[piece].fill(Block::default());
        }

        pub fn assert_same(&self, picker: &Picker) {
            for piece in 0..self.have.len() {
                let at = PieceIndex(piece as u32);
                assert_eq!(picker.availability(at), self.holders(piece));
                assert_eq!(picker.is_missing(at), self.is_missing(piece));
                for index in 0..self.blocks[piece].len() {
                    let block = picker.cut.block(at, index as u32);
                    assert_eq!(
                        picker.block_state(block),
                        self.state(piece, index),
                        "{block:?}"
                    );
                }
            }
            assert_eq!(picker.is_endgame(), self.is_endgame());
            for (theirs, _) in &self.peers {
                let is_interesting = theirs.ones().any(|piece| self.is_missing(piece as usize));
                assert_eq!(picker.is_interesting(theirs), is_interesting);
            }
            let active = picker.active_pieces().map(PieceIndex::as_usize);
            let slow = (0..self.have.len()).filter(|&piece| self.is_active(piece));
            assert!(active.eq(slow), "the begun pieces");
        }
    }
}

/// Goal: no sequence of events makes the picker's shortcuts differ from looking at everything.
/// Method: random operations on small torrents, each also carried out on the model.
#[test]
fn picker_agrees_with_a_naive_model() {
    for rng_seed in 0..150 {
        let mut rng = Rng::new(rng_seed);
        let piece_count = 1 + rng.below(40);
        let piece_len = BLOCK_LEN * (1 + rng.below(4));
        let short = rng.below(piece_len);
        let length = u64::from(piece_count) * u64::from(piece_len) - u64::from(short);
        let mut have = Bitfield::new(piece_count);
        for piece in 0..piece_count {
            if rng_seed % 2 == 1 && rng.below(2) == 0 {
                have.set(piece);
            }
        }
        let mut picker = Picker::new(have.clone(), piece_len, length, Rng::new(rng_seed));
        let block_count = |piece| picker.cut.block_count(PieceIndex(piece)) as usize;
        let mut model = model::Model {
            blocks: (0..piece_count)
                .map(|p| vec![Default::default(); block_count(p)])
                .collect(),
            have: (0..piece_count).map(|piece| have.has(piece)).collect(),
            wanted: vec![true; piece_count as usize],
            peers: Vec::new(),
        };
        for _ in 0..400 {
            random_operation(&mut picker, &mut model, &mut rng);
            picker.check();
            model.assert_same(&picker);
        }
    }
}

fn random_operation(picker: &mut Picker, model: &mut model::Model, rng: &mut Rng) {
    let at = PieceIndex(rng.below(model.have.len() as u32));
    let piece = at.as_usize();
    let index = rng.below(model.blocks[piece].len() as u32);
    let block = picker.cut.block(at, index);
    let known = &mut model.blocks[piece][index as usize];
    match rng.below(24) {
        0..=1 => join(picker, model, rng),
        2 => leave(picker, model, rng),
        3..=5 => gain(picker, model, rng),
        6..=10 => {
            let theirs = random_peer(model, rng);
            let count = rng.below(7) as usize;
            let out = pick(picker, &theirs, count);
            model.picked(&theirs, count, &out);
        }
        11..=12 => {
            let theirs = random_peer(model, rng);
            let (max_dup, mut out) = (1 + rng.below(4), Vec::new());
            picker.pick_endgame(&theirs, |other| other == block, 3, max_dup, &mut out);
            model.picked_endgame(&theirs, block, max_dup, &out);
        }
        13..=15 => {
            picker.block_released(block);
            known.requests = known.requests.saturating_sub(1);
        }
        16 => {
            let arrival = picker.block_begun(block);
            if !model.have[piece] && !known.is_done {
                let expected = [Arrival::Writer, Arrival::Second][usize::from(known.is_begun)];
                assert_eq!(arrival, expected);
                known.is_begun = true;
            } else {
                assert_eq!(arrival, Arrival::Unneeded);
            }
        }
        17 => {
            picker.block_abandoned(block);
            known.is_begun = false;
        }
        18..=20 => {
            let done = picker.block_done(block);
            assert_eq!(done.is_new, !model.have[piece] && !known.is_done);
            if done.is_new {
                *known = model::Block {
                    is_done: true,
                    ..Default::default()
                };
            }
            let is_complete = model.blocks[piece].iter().all(|block| block.is_done);
            assert_eq!(done.piece_complete, done.is_new && is_complete);
        }
        21 => {
            picker.have(at);
            model.have[piece] = true;
            model.clear(piece);
        }
        22 => {
            match rng.below(2) {
                0 => picker.lose(at),
                _ if model.have[piece] => return,
                _ => picker.piece_failed(at),
            }
            model.have[piece] = false;
            model.clear(piece);
        }
        _ => {
            model.wanted[piece] = !model.wanted[piece];
            let wanted = [Wanted::No, Wanted::Yes][usize::from(model.wanted[piece])];
            picker.set_wanted(at, wanted);
        }
    }
}

fn random_bits(len: u32, rng: &mut Rng) -> Bitfield {
    match rng.below(4) {
        0 => Bitfield::full(len),
        share => {
            let mut bits = Bitfield::new(len);
            for _ in 0..len * share / 4 {
                bits.set(rng.below(len));
            }
            bits
        }
    }
}

/// The pieces of a peer that was counted, or, rarely, of one that was not.
fn random_peer(model: &model::Model, rng: &mut Rng) -> Bitfield {
    let among = rng.below(model.peers.len() as u32 * 4 + 1) as usize;
    match model.peers.get(among / 4) {
        Some((theirs, _)) => theirs.clone(),
        None => random_bits(model.have.len() as u32, rng),
    }
}

fn join(picker: &mut Picker, model: &mut model::Model, rng: &mut Rng) {
    let theirs = random_bits(model.have.len() as u32, rng);
    let counted = picker.peer_joined(&theirs);
    model.peers.push((theirs, counted));
}

fn leave(picker: &mut Picker, model: &mut model::Model, rng: &mut Rng) {
    if !model.peers.is_empty() {
        let peer = rng.below(model.peers.len() as u32) as usize;
        let (theirs, counted) = model.peers.swap_remove(peer);
        picker.peer_left(&theirs, counted);
    }
}

fn gain(picker: &mut Picker, model: &mut model::Model, rng: &mut Rng) {
    if !model.peers.is_empty() {
        let peer = rng.below(model.peers.len() as u32) as usize;
        let piece = rng.below(model.have.len() as u32);
        if model.peers[peer].0.set(piece) {
            picker.peer_gained(PieceIndex(piece));
        }
    }
}
