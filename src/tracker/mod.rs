//! Both sides of announces: whom to ask for peers and when, and the tracker that this peer is.

pub mod asker;
pub mod budget;
pub mod client;
pub mod registry;
pub mod secret;
pub mod server;
