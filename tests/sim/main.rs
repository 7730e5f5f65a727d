//! Scenarios in virtual time: whole peers without a socket, a file or a clock.

mod aims;
mod chance;
mod crash;
mod crowd;
mod datagrams;
mod discovery;
mod foreign;
mod full;
mod gossip;
mod hostile;
mod limits;
mod peer_connection;
mod resume;
mod rot;
mod swarm;
mod tracker;
mod transfer;
mod world;
