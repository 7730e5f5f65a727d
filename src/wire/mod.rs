//! Bytes to values and back, no policy: what peers and trackers say on the wire.

pub mod bencode;
