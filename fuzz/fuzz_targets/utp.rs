//! Datagrams that may open a uTP connection: an answer is never longer, and asks for none.
#![no_main]

use evpeer::wire::utp::{is_syn, reset_for};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let reset = reset_for(input, 7);
    assert_eq!(reset.is_some(), is_syn(input));
    if let Some(reset) = reset {
        assert!(reset.len() <= input.len());
        assert_eq!(reset[2..4], input[2..4], "the connection's id");
        assert_eq!(reset[18..20], input[16..18], "its number");
        assert_eq!(reset_for(&reset, 7), None);
    }
});
