//! What a peer must survive: one test for each kind of hostile input, by number.
//!
//! `bencode` has rows 1 to 11, `torrent` rows 12 to 28, `wire` rows from 33 on, `tracker_client`
//! rows 78 to 86, `tracker_server` rows 87 to 98, `storage` what concerns files, `journal` what is
//! remembered of them and `discovery` how peers are found. Every input is refused for the right
//! reason or read without harm, and no time or memory is spent beyond the bounds given.

#[path = "../support/mod.rs"]
mod support;

mod bencode;
mod discovery;
mod journal;
mod storage;
mod torrent;
mod tracker_client;
mod tracker_server;
mod wire;
