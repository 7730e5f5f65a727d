//! What comes on the group of local discovery: a packet, and a session of packets and clock steps.
//!
//! The whole input is a packet; its lines, each after a byte for sender and clock, are a session.
#![no_main]

use std::time::Duration;

use evpeer::base::address::{Family, Interface, Interfaces};
use evpeer::base::id::InfoHash;
use evpeer::base::limits::{LSD_HASHES_MAX, LSD_PACKETS_S_MAX};
use evpeer::base::rng::Rng;
use evpeer::base::time::Instant;
use evpeer::discovery::Privacy;
use evpeer::discovery::lsd::Lsd;
use evpeer::wire::lsd::{Announcement, Cookie, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(told) = Announcement::decode(input) {
        assert!(told.port != 0);
        assert!((1..=LSD_HASHES_MAX).contains(&told.info_hashes.len()));
        let first = told.info_hashes[0];
        let again = encode(Family::V6, told.port, first, Cookie::new(1));
        let again = Announcement::decode(&again).expect("ours is read");
        assert_eq!((again.port, again.info_hashes), (told.port, vec![first]));
    }
    session(input);
});

/// Whatever is heard, the pace holds, and a host is given once a minute.
fn session(input: &[u8]) {
    let ours = [InfoHash([1; 20]), InfoHash([2; 20])];
    let mut lsd = Lsd::new(6881, Rng::new(1));
    lsd.interfaces_found(&Interfaces::new(vec![Interface {
        index: 2,
        ip: [10, 0, 0, 1].into(),
        prefix_len: 24,
    }]));
    for info_hash in ours {
        lsd.add(info_hash, Privacy::Public);
    }
    let mut now = Instant::ZERO;
    let mut sent = Vec::new();
    let mut given = Vec::new();
    for (&step, rest) in input.iter().zip(0..STEPS_MAX) {
        now += Duration::from_millis(u64::from(step) * 37);
        let from = ([10, 0, 0, 2 + step % 8], 6771).into();
        let packet = match step % 3 {
            0 => input[rest..].to_vec(),
            n => encode(Family::V4, 7000, ours[usize::from(n - 1)], Cookie::new(5)),
        };
        for (info_hash, remote) in lsd.received(from, 2, &packet, now) {
            assert!(ours.contains(&info_hash) && remote.ip() == from.ip());
            given.push((info_hash, remote.ip(), now));
        }
        while lsd.poll(now).is_some() {
            sent.push(now);
        }
        assert!(lsd.next_deadline().is_some_and(|at| at > now));
    }
    for six in sent.windows(LSD_PACKETS_S_MAX as usize + 1) {
        assert!(six[six.len() - 1] - six[0] >= Duration::from_secs(1));
    }
    given.sort();
    for pair in given.windows(2) {
        let is_same = (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1);
        assert!(!is_same || pair[1].2 - pair[0].2 >= Duration::from_secs(60));
    }
}

/// Packets of a session at most: enough for ten minutes and more.
const STEPS_MAX: usize = 200;
