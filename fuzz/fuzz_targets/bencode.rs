//! One bencoded value: every accessor holds what the decoder promised.
#![no_main]

use evpeer::wire::bencode::{Encoder, Limits, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for limits in [Limits::FILE, Limits::WIRE] {
        check(input, limits);
    }
});

fn check(input: &[u8], limits: Limits) {
    let prefix = Value::decode_prefix(input, limits);
    let whole = Value::decode(input, limits);
    let Ok((value, end)) = prefix else {
        assert!(whole.is_err(), "whole, but without a front");
        return;
    };
    assert_eq!(value.raw(), &input[..end]);
    assert_eq!(whole.is_ok(), end == input.len());
    assert_eq!(Value::decode(&input[..end], limits).ok(), Some(value));
    for len in [0, end / 2, end - 1] {
        assert!(Value::decode(&input[..len], limits).is_err(), "a cut value");
    }
    let mut encoder = Encoder::default();
    if encode(value, &mut encoder) == Keys::Ascend {
        assert_eq!(encoder.finish(), value.raw());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Ascend,
    Mixed,
}

/// Walks through `value` by its accessors and writes what they give, while keys ascend.
fn encode(value: Value<'_>, encoder: &mut Encoder) -> Keys {
    if let Some(int) = value.as_int() {
        encoder.int(int);
    } else if let Some(bytes) = value.as_bytes() {
        encoder.bytes(bytes);
    } else if let Some(items) = value.as_list() {
        encoder.list_begin();
        for item in items {
            if encode(item, encoder) == Keys::Mixed {
                return Keys::Mixed;
            }
        }
        encoder.end();
    } else {
        let entries = value.as_dict().expect("one of four kinds");
        encoder.dict_begin();
        let mut last = None;
        for (key, value) in entries {
            if last.is_some_and(|last| last >= key) {
                return Keys::Mixed;
            }
            last = Some(key);
            if encode(value, encoder.key(key)) == Keys::Mixed {
                return Keys::Mixed;
            }
        }
        encoder.end();
    }
    Keys::Ascend
}
