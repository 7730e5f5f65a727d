//! SHA-1 of pieces of 1 MiB: one, two, three and four lanes, against the `sha1` crate.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evpeer::storage::lanes::{Sha1State, update_lanes};
use sha1::{Digest, Sha1};

const PIECE_LEN: usize = 1 << 20;

fn hash(c: &mut Criterion) {
    let pieces: [_; 4] = std::array::from_fn(|piece| vec![piece as u8 + 1; PIECE_LEN]);
    let pieces = pieces.each_ref().map(Vec::as_slice);
    let mut group = c.benchmark_group("hash");

    group.throughput(Throughput::Bytes(PIECE_LEN as u64));
    group.bench_function("sha1 crate", |b| {
        b.iter(|| Sha1::digest(black_box(pieces[0])));
    });
    for count in 1..=pieces.len() {
        group.throughput(Throughput::Bytes((count * PIECE_LEN) as u64));
        group.bench_function(BenchmarkId::new("lanes", count), |b| {
            b.iter(|| {
                let mut states = vec![Sha1State::new(); count];
                let mut lanes: Vec<_> = states.iter_mut().collect();
                update_lanes(&mut lanes, black_box(&pieces[..count]));
                states.into_iter().map(|state| state.finish(&[])[0]).max()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, hash);
criterion_main!(benches);
