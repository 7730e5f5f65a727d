//! The write plan: how long it takes to say what a connection sends next.
//!
//! `cargo bench --bench plan`. One round queues sixteen blocks (256 KiB of payload) and some
//! requests, plans them and counts them as sent; no payload is touched.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

use evpeer::base::id::{PieceIndex, TorrentId};
use evpeer::base::limits::BLOCK_LEN;
use evpeer::base::plan::WritePlan;
use evpeer::engine::outbox::Outbox;
use evpeer::wire::message::{BlockRef, Outgoing};

const BLOCKS: u32 = 16;

fn block(index: u32) -> BlockRef {
    BlockRef {
        piece: PieceIndex(7),
        begin: index * BLOCK_LEN,
        len: BLOCK_LEN,
    }
}

/// Makes a message about a block.
type Make = fn(BlockRef) -> Outgoing;

fn filled(message: Make) -> Outbox {
    let mut outbox = Outbox::default();
    (0..BLOCKS).for_each(|index| outbox.push(message(block(index))));
    outbox
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    group.throughput(Throughput::Elements(BLOCKS.into()));
    let kinds: [(&str, Make); 2] = [("blocks", Outgoing::Piece), ("requests", Outgoing::Request)];
    for (name, message) in kinds {
        let mut plan = WritePlan::default();
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || filled(message),
                |outbox| {
                    plan.clear();
                    outbox.plan(TorrentId(0), usize::MAX, &mut plan);
                    outbox.sent(plan.len)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
