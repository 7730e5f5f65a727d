//! Scenarios in virtual time: whole peers without a socket, a file or a clock.

mod chance;
mod crash;
mod crowd;
mod datagrams;
mod foreign;
mod hostile;
mod peer_connection;
mod tracker;
mod transfer;
mod world;
