//! What a peer tells of others, and who may be dialled for it.
#![no_main]

use std::net::IpAddr;

use evpeer::base::address::{Interface, Interfaces, Scope, scope};
use evpeer::base::limits::PEX_DECODED_MAX;
use evpeer::base::time::Instant;
use evpeer::discovery::pex::{Ourselves, PexIn};
use evpeer::wire::pex::Pex;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(told) = Pex::decode(input) else {
        return;
    };
    assert!(told.added.len() <= PEX_DECODED_MAX && told.dropped.len() <= PEX_DECODED_MAX);
    let again = Pex::decode(&told.encode()).expect("ours is read");
    assert_eq!(again.added.len(), told.added.len());
    assert_eq!(again.dropped.len(), told.dropped.len());
    let interfaces = Interfaces::new(vec![Interface {
        index: 2,
        ip: [10, 0, 0, 1].into(),
        prefix_len: 24,
    }]);
    let ourselves = Ourselves {
        interfaces: &interfaces,
        port: 6881,
    };
    for sender in [[10, 0, 0, 9], [127, 0, 0, 1], [198, 51, 100, 7]] {
        let sender = IpAddr::from(sender);
        let mut peer = PexIn::default();
        let given = peer.received(&told, sender, ourselves, Instant::ZERO);
        for (addr, _) in given.expect("one message is not too many") {
            assert!(addr.port() >= 1024 && scope(addr.ip()) != Scope::Nowhere);
            assert!(scope(addr.ip()) != Scope::Loopback || scope(sender) == Scope::Loopback);
            assert!(scope(addr.ip()) == Scope::Global || scope(sender) != Scope::Global);
            assert!(!told.dropped.contains(&addr));
        }
    }
});
