//! Formats: bytes from the network to values and back. No policy, no clock, no I/O.

pub mod announce;
pub mod answer;
pub mod bencode;
pub mod compact;
pub mod decoder;
pub mod ev_peers;
pub mod extended;
pub mod handshake;
pub mod http;
pub mod lsd;
pub mod message;
pub mod pex;
pub mod query;
pub mod request;
pub mod udp_tracker;
pub mod url;
pub mod utp;
