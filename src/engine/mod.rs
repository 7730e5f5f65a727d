//! The protocol core: connections, timers, torrents; carries values between its siblings.

pub mod action;
