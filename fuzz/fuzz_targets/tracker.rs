//! What a tracker answers, and how it is called: any split gives the same answer, an address
//! never breaks its request.
//!
//! The first two bytes choose the split, the rest is the stream, and the address too.
#![no_main]

use evpeer::base::limits::{TRACKER_BODY_LEN_MAX, TRACKER_PEERS_MAX, TRACKER_TEXT_LEN_MAX};
use evpeer::base::rng::Rng;
use evpeer::wire::announce::{AnnounceError, AnnounceReply};
use evpeer::wire::http::{HttpError, Response, ResponseReader};
use evpeer::wire::url::{Scheme, TrackerUrl};
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
    if let Ok(response) = &whole {
        assert!(response.body.len() <= TRACKER_BODY_LEN_MAX);
        check_reply(&response.body);
    }
    check_reply(stream);
    if let Ok(text) = str::from_utf8(stream) {
        check_address(text);
    }
});

fn read(parts: &[&[u8]]) -> Result<Response, HttpError> {
    let mut reader = ResponseReader::default();
    for part in parts {
        if let Some(response) = reader.received(part)? {
            return Ok(response);
        }
    }
    reader.end_of_stream()
}

fn check_reply(body: &[u8]) {
    match AnnounceReply::decode(body) {
        Ok(reply) => {
            assert!(reply.peers.len() <= TRACKER_PEERS_MAX);
            assert!(reply.peers.iter().all(|addr| addr.port() != 0));
        }
        Err(AnnounceError::Refused { reason, .. }) => {
            assert!(reason.len() <= TRACKER_TEXT_LEN_MAX + '…'.len_utf8());
            assert!(!reason.contains(char::is_control));
        }
        Err(AnnounceError::Bencode(_) | AnnounceError::NotADictionary) => {}
    }
}

fn check_address(text: &str) {
    let ours = TrackerUrl::parse("http://tracker:81/announce?key=1").expect("an address");
    let addresses = [TrackerUrl::parse(text), ours.redirected(text)];
    for address in addresses.into_iter().flatten() {
        if address.scheme() == Scheme::Udp {
            assert!(address.url_data().is_ascii());
            continue;
        }
        let request = address.with_query("port=1").to_request();
        let request = String::from_utf8(request).expect("ASCII");
        assert!(request.is_ascii());
        let lines: Vec<&str> = request.split("\r\n").collect();
        let fields = lines.len() - 3;
        assert!((4..=5).contains(&fields), "{request:?}");
        assert_eq!(lines[0].split(' ').count(), 3, "{request:?}");
        assert!(
            !request.replace("\r\n", "").contains(char::is_control),
            "{request:?}"
        );
        let again = TrackerUrl::parse(&format!("http://{}:1/", bracketed(address.host())));
        assert_eq!(again.as_ref().map(TrackerUrl::host), Ok(address.host()));
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
