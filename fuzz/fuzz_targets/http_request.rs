//! A client's stream to our tracker: any split gives the same requests, and the tracker answers
//! each of them in bounds, whatever it asks.
//!
//! The first two bytes choose the split, the rest is the stream.
#![no_main]

use evpeer::base::address::Interfaces;
use evpeer::base::id::InfoHash;
use evpeer::base::limits::TOLD_PEERS_MAX;
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::tracker::asker::Asker;
use evpeer::tracker::registry::{Openness, Terms};
use evpeer::tracker::secret::Secret;
use evpeer::tracker::server::{HttpReply, Server};
use evpeer::wire::request::{Request, RequestError, RequestReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[high, low], stream)) = input.split_first_chunk() else {
        return;
    };
    let whole = read(&[stream]);
    let mut rng = Rng::new(u16::from_be_bytes([high, low]).into());
    let mut parts = Vec::new();
    let mut left = stream;
    while !left.is_empty() {
        let (part, rest) = left.split_at(left.len().min(1 + rng.below(30) as usize));
        parts.push(part);
        left = rest;
    }
    assert_eq!(read(&parts), whole);
    answer(&whole.0);
    if let Some(error) = whole.1 {
        assert!(error.respond().starts_with(b"HTTP/1.1 "));
    }
});

fn read(parts: &[&[u8]]) -> (Vec<Request>, Option<RequestError>) {
    let mut reader = RequestReader::default();
    let mut requests = Vec::new();
    for part in parts {
        let mut bytes = *part;
        while !bytes.is_empty() {
            match reader.received(bytes) {
                Ok((used, request)) => {
                    assert!(used > 0 && used <= bytes.len());
                    requests.extend(request);
                    bytes = &bytes[used..];
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn answer(requests: &[Request]) {
    let mut server = Server::new(Secret::new([1; 16]), Openness::Open);
    let now = Instant::from_micros(1);
    let terms = Terms::default();
    server.registry.track(InfoHash([b'a'; 20]), terms, now);
    let interfaces = Interfaces::default();
    let asker = Asker {
        remote: ([10, 0, 0, 2], 5).into(),
        local: Some([10, 0, 0, 1].into()),
        interfaces: &interfaces,
        links: None,
    };
    for request in requests {
        match server.http(request, &asker, now) {
            HttpReply::Whole { bytes, .. } => {
                assert!(bytes.len() < 1024 + TOLD_PEERS_MAX * 100, "{} B", bytes.len());
            }
            HttpReply::Torrent(info_hash) => assert!(server.registry.is_tracked(info_hash)),
        }
    }
    // Whoever is listed has the address that it came from.
    for info_hash in server.registry.swarms() {
        for entry in server.registry.peers(info_hash) {
            assert_eq!(entry.addr.ip(), asker.remote.ip());
        }
    }
}
