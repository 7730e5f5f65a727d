//! Scenarios in virtual time: whole peers without a socket, a file or a clock.

mod chance;
mod crash;
mod crowd;
mod foreign;
mod hostile;
mod transfer;
mod world;
