//! Datagrams to our tracker: without a valid connection id no answer is longer than what asked
//! for it and nothing is remembered; with one, answers are in bounds.
//!
//! The first byte says whether the connection id of what follows is made valid. The secret is the
//! same in each run, so the fuzzer, which sees what is compared, finds the id by itself too.
#![no_main]

use evpeer::base::address::Interfaces;
use evpeer::base::id::InfoHash;
use evpeer::base::time::Instant;
use evpeer::tracker::asker::Asker;
use evpeer::tracker::registry::{Openness, Terms};
use evpeer::tracker::secret::Secret;
use evpeer::tracker::server::Server;
use evpeer::wire::udp_tracker::Reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let secret = Secret::new([1; 16]);
    let mut server = Server::new(secret.clone(), Openness::Open);
    let now = Instant::from_micros(1);
    let terms = Terms::default();
    server.registry.track(InfoHash([b'a'; 20]), terms, now);
    let interfaces = Interfaces::default();
    let remote = match first & 2 {
        0 => "10.0.0.2:5".parse().expect("an address"),
        _ => "[2001:db8::2]:5".parse().expect("an address"),
    };
    let asker = Asker {
        remote,
        local: None,
        interfaces: &interfaces,
        links: None,
    };
    let mut bytes = bytes.to_vec();
    let id = secret.connection_id(remote.ip(), now).to_be_bytes();
    if first & 1 == 1 && bytes.len() >= 8 {
        bytes[..8].copy_from_slice(&id);
    }
    let is_proved = bytes.starts_with(&id);
    let reply = server.datagram(&bytes, &asker, now);
    if let Some(reply) = &reply {
        assert!(Reply::decode(reply).is_ok());
        assert!(reply.len() < 1400);
        assert!(is_proved || reply.len() <= bytes.len());
    }
    assert!(is_proved || server.registry.peer_count() == 0);
    for info_hash in server.registry.swarms() {
        for entry in server.registry.peers(info_hash) {
            assert_eq!(entry.addr.ip(), remote.ip());
        }
    }
});
