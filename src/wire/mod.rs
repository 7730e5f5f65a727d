//! Formats: bytes from the network to values and back. No policy, no clock, no I/O.

pub mod decoder;
pub mod message;
