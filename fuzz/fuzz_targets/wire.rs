//! A peer's stream: any split gives the same steps, every message encodes back to its bytes.
//!
//! The first two bytes choose the split, the rest is the stream.
#![no_main]

use evpeer::base::rng::Rng;
use evpeer::wire::decoder::{Decoder, Step, WireError};
use evpeer::wire::extended::ExtHandshake;
use evpeer::wire::handshake::{HANDSHAKE_LEN, Handshake, Sniff, sniff};
use evpeer::wire::message::{BlockRef, Message, Outgoing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&[high, low], stream)) = input.split_first_chunk() else {
        return;
    };
    check_handshake(stream);
    let whole = decode(&[stream]);
    check_encoding(stream, &whole);
    let parts = split(stream, u16::from_be_bytes([high, low]));
    assert_eq!(decode(&parts), whole);
});

/// A step that outlives its input.
#[derive(Debug, PartialEq)]
enum Seen {
    /// The message, encoded again; of an unknown one the head and how much follows.
    Message(Vec<u8>, u32),
    Block(BlockRef),
    /// Payload of the block before, joined.
    Payload(Vec<u8>),
    Error(WireError),
}

fn split(stream: &[u8], seed: u16) -> Vec<&[u8]> {
    let mut rng = Rng::new(seed.into());
    let part_len_max = 1 + rng.below(40);
    let mut parts = Vec::new();
    let mut left = stream;
    while !left.is_empty() {
        let len = left.len().min(rng.below(part_len_max + 1) as usize);
        let (part, rest) = left.split_at(len);
        parts.push(part);
        left = rest;
    }
    parts
}

fn decode(parts: &[&[u8]]) -> Vec<Seen> {
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    let mut came = 0;
    for part in parts {
        let mut input = *part;
        loop {
            let (used, step) = match decoder.step(input) {
                Ok(step) => step,
                Err(error) => {
                    seen.push(Seen::Error(error));
                    return seen;
                }
            };
            match step {
                Step::NeedMore => {
                    assert_eq!(used, input.len());
                    break;
                }
                Step::Message(message) => seen.push(encoded(message)),
                Step::BlockBegins(block) => seen.push(Seen::Block(block)),
                Step::Payload { block, done, len } => {
                    assert!(len > 0 && done + len <= block.len);
                    let chunk = &input[used - len as usize..used];
                    match seen.last_mut() {
                        Some(Seen::Payload(bytes)) => {
                            assert_eq!(bytes.len(), done as usize);
                            bytes.extend_from_slice(chunk);
                        }
                        Some(Seen::Block(begun)) if *begun == block && done == 0 => {
                            seen.push(Seen::Payload(chunk.to_vec()));
                        }
                        before => panic!("payload of {block:?} after {before:?}"),
                    }
                }
            }
            assert!(used > 0 && used <= input.len());
            input = &input[used..];
        }
        came += part.len();
        assert!(decoder.held_len() <= came, "held more than came");
    }
    seen
}

fn encoded(message: Message<'_>) -> Seen {
    let outgoing = match message {
        Message::KeepAlive => Outgoing::KeepAlive,
        Message::Choke => Outgoing::Choke,
        Message::Unchoke => Outgoing::Unchoke,
        Message::Interested => Outgoing::Interested,
        Message::NotInterested => Outgoing::NotInterested,
        Message::Have(piece) => Outgoing::Have(piece),
        Message::Bitfield(bits) => Outgoing::Bitfield(bits.to_vec().into()),
        Message::Request(block) => Outgoing::Request(block),
        Message::Cancel(block) => Outgoing::Cancel(block),
        Message::Port(port) => Outgoing::Port(port),
        Message::HaveAll => Outgoing::HaveAll,
        Message::HaveNone => Outgoing::HaveNone,
        Message::Reject(block) => Outgoing::Reject(block),
        Message::AllowedFast(piece) => Outgoing::AllowedFast(piece),
        Message::Extended { id, body } => {
            check_extended(id, body);
            let body = body.to_vec().into();
            Outgoing::Extended { id, body }
        }
        Message::Suggest(piece) => {
            let mut bytes = vec![0, 0, 0, 5, 13];
            bytes.extend(piece.0.to_be_bytes());
            return Seen::Message(bytes, 0);
        }
        Message::Unknown { id, len } => {
            let mut bytes = (len + 1).to_be_bytes().to_vec();
            bytes.push(id);
            return Seen::Message(bytes, len);
        }
    };
    let mut bytes = Vec::new();
    outgoing.encode(&mut bytes);
    assert_eq!(bytes.len(), outgoing.wire_len());
    Seen::Message(bytes, 0)
}

/// What was seen, encoded again, is the front of the stream.
fn check_encoding(stream: &[u8], seen: &[Seen]) {
    let mut rest = stream;
    for seen in seen {
        let (bytes, skipped) = match seen {
            Seen::Message(bytes, skipped) => (bytes.clone(), *skipped as usize),
            Seen::Block(block) => {
                let mut bytes = Vec::new();
                Outgoing::Piece(*block).encode(&mut bytes);
                (bytes, 0)
            }
            Seen::Payload(bytes) => (bytes.clone(), 0),
            Seen::Error(_) => return,
        };
        rest = rest
            .strip_prefix(&bytes[..])
            .expect("the bytes that were decoded");
        rest = &rest[rest.len().min(skipped)..];
    }
}

fn check_extended(id: u8, body: &[u8]) {
    if id == 0
        && let Ok(told) = ExtHandshake::decode(body)
    {
        assert_eq!(ExtHandshake::decode(&told.encode()), Ok(told));
    }
}

fn check_handshake(stream: &[u8]) {
    let mut verdict = Sniff::NeedMore;
    for len in 0..=stream.len().min(24) {
        let next = sniff(&stream[..len]);
        assert!(
            verdict == Sniff::NeedMore || verdict == next,
            "a verdict changed"
        );
        verdict = next;
    }
    if let Some(bytes) = stream.first_chunk::<HANDSHAKE_LEN>() {
        let decoded = Handshake::decode(bytes);
        assert_eq!(decoded.is_ok(), verdict == Sniff::Peer);
        if let Ok(handshake) = decoded {
            assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
        }
    }
}
