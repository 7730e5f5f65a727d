//! What makes others fire at a victim: forged sources, and addresses of others.

use std::net::{IpAddr, SocketAddr};

use crate::engine::action::Family;
use crate::sim::actor::Hands;
use crate::wire::bencode::Encoder;
use crate::wire::message::Outgoing;

/// The number under which a peer wants to hear of others, out of the body of its extension
/// handshake (BEP 10, BEP 11).
pub(super) fn pex_id(body: &[u8]) -> Option<u8> {
    let key = b"6:ut_pexi";
    let at = body.windows(key.len()).position(|part| part == key)? + key.len();
    let digits = body[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let digits: Vec<u8> = digits.copied().collect();
    str::from_utf8(&digits).ok()?.parse().ok()
}

/// A message of 50 addresses of one network, some of them of one host.
pub(super) fn pex(id: u8, hands: &mut Hands<'_>) -> Option<Outgoing> {
    if id == 0 {
        return None;
    }
    let mut added = Vec::new();
    for _ in 0..50 {
        let host = if hands.rng.below(2) == 0 {
            7
        } else {
            hands.rng.below(256) as u8
        };
        added.extend_from_slice(&[198, 51, 100, host]);
        added.extend_from_slice(&(hands.rng.below(65_536) as u16).to_be_bytes());
    }
    let mut encoder = Encoder::default();
    encoder.dict_begin();
    encoder.key(b"added").bytes(&added);
    encoder.key(b"added.f").bytes(&[0; 50]);
    encoder.key(b"dropped").bytes(b"");
    encoder.end();
    let body = encoder.finish().into();
    Some(Outgoing::Extended { id, body })
}

/// Tells the link that somebody has the torrent, at a port of ours where nobody listens, or at
/// none.
pub(super) fn tell_link(info_hash: &[u8; 20], hands: &mut Hands<'_>) {
    let hash: String = info_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let port = hands.rng.below(65_540);
    let packet = format!(
        "BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: {port}\r\n\
         Infohash: {hash}\r\ncookie: {}\r\n\r\n\r\n",
        hands.rng.below(1_000_000)
    );
    hands.multicast(Family::V4, packet.as_bytes());
}

/// Sends one datagram of some kind to some host, in the name of another, or of nobody here.
pub(super) fn spoof(hosts: &[SocketAddr], info_hash: &[u8; 20], hands: &mut Hands<'_>) {
    if hosts.is_empty() {
        return;
    }
    let some = |hands: &mut Hands<'_>| hosts[hands.rng.below(hosts.len() as u32) as usize];
    let (to, mut from) = (some(hands), some(hands));
    if hands.rng.below(4) == 0 {
        from.set_ip(IpAddr::from([198, 51, 100, 7]));
    }
    if hands.rng.below(2) == 0 {
        from.set_port(hands.rng.below(65_536) as u16);
    }
    let number = |hands: &mut Hands<'_>| hands.rng.next_u64().to_be_bytes();
    let transaction = hands.rng.next_u64().to_be_bytes();
    let connect = 0x417_2710_1980_u64.to_be_bytes();
    let bytes = match hands.rng.below(6) {
        0 => [&connect[..], &[0; 4], &transaction[..4]].concat(),
        1 => {
            let head = [&number(hands)[..], &[0, 0, 0, 1], &transaction[..4]].concat();
            let mut announce = [&head[..], info_hash, &[b'-'; 20]].concat();
            announce.resize(98, 0xff);
            announce
        }
        2 => {
            let head = [&number(hands)[..], &[0, 0, 0, 2], &transaction[..4]].concat();
            let count = 1 + hands.rng.below(70) as usize;
            [&head[..], &info_hash.repeat(count)].concat()
        }
        3 => [&[0x41, 0][..], &[7; 18]].concat(),
        4 => b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q4:ping1:t2:xx1:y1:qe".to_vec(),
        _ => {
            let len = hands.rng.below(1473) as usize;
            (0..len).map(|_| hands.rng.next_u64() as u8).collect()
        }
    };
    hands.send_datagram_as(from, to, &bytes);
}
