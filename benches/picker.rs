//! What the picker costs: blocks of begun and of new pieces, haves, bitfields, the endgame; in a
//! torrent of 4,096 pieces and in one of the largest size.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use evpeer::base::bits::Bitfield;
use evpeer::base::id::PieceIndex;
use evpeer::base::limits::{BLOCK_LEN, PIECES_MAX};
use evpeer::base::rng::Rng;
use evpeer::swarm::picker::Picker;
use evpeer::wire::message::BlockRef;

const SIZES: [u32; 2] = [4096, PIECES_MAX];
const BLOCKS: u32 = 64;

/// A torrent of pieces of 1 MiB, four of them there, with so many peers that have half of it.
fn picker(piece_count: u32, peers: u64) -> Picker {
    let piece_len = BLOCKS * BLOCK_LEN;
    let length = u64::from(piece_count) * u64::from(piece_len);
    let mut picker = Picker::new(Bitfield::new(piece_count), piece_len, length, Rng::new(1));
    (0..4).for_each(|index| picker.have(PieceIndex(index)));
    for rng_seed in 0..peers {
        let _ = picker.peer_joined(&half(piece_count, rng_seed));
    }
    picker
}

fn half(piece_count: u32, rng_seed: u64) -> Bitfield {
    let mut rng = Rng::new(rng_seed);
    let mut bits = Bitfield::new(piece_count);
    for index in 0..piece_count {
        if rng.below(2) == 0 {
            bits.set(index);
        }
    }
    bits
}

/// The steady state: sixteen blocks are done, sixteen others are asked for.
fn refill(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker: 16 blocks done, 16 picked");
    for piece_count in SIZES {
        let theirs = half(piece_count, 0);
        let mut picker = picker(piece_count, 20);
        let mut open = Vec::new();
        picker.pick(&theirs, 512, &mut open);
        let mut rng = Rng::new(9);
        group.bench_function(BenchmarkId::from_parameter(piece_count), |b| {
            b.iter(|| {
                for _ in 0..16 {
                    let block = open.swap_remove(rng.below(open.len() as u32) as usize);
                    picker.block_begun(block);
                    if picker.block_done(block).piece_complete {
                        // Begin anew: the torrent must not end during the measurement.
                        picker.piece_failed(block.piece);
                    }
                }
                picker.pick(&theirs, 16, &mut open);
            });
        });
    }
    group.finish();
}

/// Sixteen blocks of a piece that is begun, and given back.
fn active(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker: 16 blocks of a begun piece, released");
    for piece_count in SIZES {
        let theirs = half(piece_count, 0);
        let mut picker = picker(piece_count, 20);
        let mut out: Vec<BlockRef> = Vec::new();
        picker.pick(&theirs, 1, &mut out);
        group.bench_function(BenchmarkId::from_parameter(piece_count), |b| {
            b.iter(|| {
                out.clear();
                picker.pick(&theirs, 16, &mut out);
                out.iter().for_each(|&block| picker.block_released(block));
            });
        });
    }
    group.finish();
}

/// A new piece is begun by a peer that has half of them, or a single one.
fn begin(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker: begin a piece and drop it");
    for piece_count in SIZES {
        let mut single = Bitfield::new(piece_count);
        single.set(piece_count - 1);
        let nothing_new = {
            let mut bits = Bitfield::new(piece_count);
            bits.set(0);
            bits
        };
        let cases = [
            ("half", half(piece_count, 0)),
            ("single", single),
            ("none", nothing_new),
        ];
        let mut picker = picker(piece_count, 20);
        for (name, theirs) in cases {
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(name, piece_count), |b| {
                b.iter(|| {
                    out.clear();
                    picker.pick(&theirs, 1, &mut out);
                    out.iter().for_each(|&block| picker.block_released(block));
                });
            });
        }
    }
    group.finish();
}

fn gained(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker: a have");
    for piece_count in SIZES {
        let mut picker = picker(piece_count, 20);
        let mut out = Vec::new();
        picker.pick(&half(piece_count, 0), 1, &mut out);
        let mut rng = Rng::new(3);
        group.bench_function(BenchmarkId::from_parameter(piece_count), |b| {
            b.iter(|| picker.peer_gained(PieceIndex(rng.below(piece_count))));
        });
    }
    group.finish();
}

/// A peer comes, one block is picked, and it leaves, and another is picked.
fn joined(c: &mut Criterion) {
    let mut group = c.benchmark_group("picker: join, pick, leave, pick");
    group.sample_size(20);
    for piece_count in SIZES {
        let mut few = Bitfield::new(piece_count);
        (0..100).for_each(|n| assert!(few.set(n * (piece_count / 100))));
        let kinds = [
            ("half", half(piece_count, 77)),
            ("100 pieces", few),
            ("seed", Bitfield::full(piece_count)),
        ];
        for (name, theirs) in kinds {
            let mut picker = picker(piece_count, 20);
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::new(name, piece_count), |b| {
                b.iter(|| {
                    out.clear();
                    let counted = picker.peer_joined(&theirs);
                    picker.pick(&theirs, 1, &mut out);
                    out.iter().for_each(|&block| picker.block_released(block));
                    out.clear();
                    picker.peer_left(&theirs, counted);
                    picker.pick(&theirs, 1, &mut out);
                    out.iter().for_each(|&block| picker.block_released(block));
                });
            });
        }
    }
    group.finish();
}

/// The last 100 MiB are asked for; a peer looks for sixteen blocks to ask for once more.
fn endgame(c: &mut Criterion) {
    let mut picker = picker(104, 0);
    let seed = Bitfield::full(104);
    let _ = picker.peer_joined(&seed);
    let mut open = Vec::new();
    picker.pick(&seed, usize::from(u16::MAX), &mut open);
    assert!(picker.is_endgame());
    c.bench_function("picker: 16 of 6,400 blocks in the endgame", |b| {
        b.iter_batched(
            Vec::new,
            |mut out| {
                picker.pick_endgame(&seed, |_| false, 16, 3, &mut out);
                out.iter().for_each(|&block| picker.block_released(block));
                out
            },
            BatchSize::SmallInput,
        );
    });
    c.bench_function("picker: no more of 6,400 blocks in the endgame", |b| {
        let mut out = Vec::new();
        b.iter(|| picker.pick_endgame(&seed, |_| true, 16, 3, black_box(&mut out)));
    });
}

criterion_group!(benches, refill, active, begin, gained, joined, endgame);
criterion_main!(benches);
