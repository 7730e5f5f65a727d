//! The peer wire decoder: a download's stream of blocks, a seed's stream of requests, and the
//! same requests cut where reads end.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use evpeer::base::id::PieceIndex;
use evpeer::base::limits::BLOCK_LEN;
use evpeer::wire::decoder::{Decoder, Step};
use evpeer::wire::message::{BlockRef, Outgoing};

/// Blocks in the download's stream: 4 MiB.
const BLOCK_COUNT: u32 = 256;
/// Messages in the other streams.
const MESSAGE_COUNT: u32 = 10_000;

fn decoder(c: &mut Criterion) {
    let mut group = c.benchmark_group("decoder");

    let blocks = download();
    group.throughput(Throughput::Bytes(blocks.len() as u64));
    for read_len in [1448, 64 * 1024, 256 * 1024] {
        group.bench_with_input(
            BenchmarkId::new("blocks", read_len),
            &read_len,
            |b, &read_len| {
                b.iter(|| decode(black_box(&blocks), read_len));
            },
        );
    }

    group.throughput(Throughput::Elements(MESSAGE_COUNT.into()));
    let requests = upload();
    for read_len in [100, 1448, 64 * 1024] {
        group.bench_with_input(
            BenchmarkId::new("requests", read_len),
            &read_len,
            |b, &read_len| {
                b.iter(|| decode(black_box(&requests), read_len));
            },
        );
    }
    let haves = messages((0..MESSAGE_COUNT).map(|piece| Outgoing::Have(PieceIndex(piece))));
    group.bench_function("haves", |b| b.iter(|| decode(black_box(&haves), 64 * 1024)));
    let body = Bytes::from(vec![b'x'; 300]);
    let extended = (0..MESSAGE_COUNT).map(|_| Outgoing::Extended {
        id: 1,
        body: body.clone(),
    });
    let extended = messages(extended);
    group.bench_function("extended", |b| {
        b.iter(|| decode(black_box(&extended), 1448))
    });
    group.finish();
}

/// Decodes `stream` in reads of `read_len`; counts the steps, so that none is left out.
fn decode(stream: &[u8], read_len: usize) -> u64 {
    let mut decoder = Decoder::default();
    let mut steps = 0;
    for mut input in stream.chunks(read_len) {
        while !input.is_empty() {
            let (used, step) = decoder.step(input).expect("a valid stream");
            steps += u64::from(black_box(step) != Step::NeedMore);
            input = &input[used..];
        }
    }
    steps
}

/// Blocks in order, as a seed answers requests.
fn download() -> Vec<u8> {
    let mut stream = Vec::new();
    for block in blocks(BLOCK_COUNT) {
        Outgoing::Piece(block).encode(&mut stream);
        stream.resize(stream.len() + BLOCK_LEN as usize, 0xa5);
    }
    stream
}

fn upload() -> Vec<u8> {
    messages(blocks(MESSAGE_COUNT).map(Outgoing::Request))
}

fn blocks(count: u32) -> impl Iterator<Item = BlockRef> {
    (0..count).map(|block| BlockRef {
        piece: PieceIndex(block / 16),
        begin: block % 16 * BLOCK_LEN,
        len: BLOCK_LEN,
    })
}

fn messages(messages: impl Iterator<Item = Outgoing>) -> Vec<u8> {
    let mut stream = Vec::new();
    messages.for_each(|message| message.encode(&mut stream));
    stream
}

criterion_group!(benches, decoder);
criterion_main!(benches);
