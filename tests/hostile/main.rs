//! What a peer must survive: one test for each kind of hostile input, by number.
//!
//! `bencode` has rows 1 to 11 and `torrent` rows 12 to 28. Every input is refused for the right
//! reason or read without harm, and no time or memory is spent beyond the bounds given.

mod bencode;
mod torrent;
