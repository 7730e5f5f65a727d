//! Scenarios in virtual time: whole peers without a socket, a file or a clock.

mod chance;
mod foreign;
mod transfer;
mod world;
