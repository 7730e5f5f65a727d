//! Both sides of announces: whom to ask for peers, when and how, and the tracker that this peer
//! is.

pub mod asker;
pub mod broadcast;
pub mod budget;
pub mod client;
pub mod guard;
pub mod registry;
pub mod secret;
pub mod server;
pub mod udp;
