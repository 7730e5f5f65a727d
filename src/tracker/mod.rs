//! Both sides of announces: whom to ask for peers, when and how.

pub mod client;
pub mod guard;
pub mod udp;
