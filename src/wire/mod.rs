//! Formats: bytes from the network to values and back. No policy, no clock, no I/O.

pub mod bencode;
pub mod decoder;
pub mod message;
