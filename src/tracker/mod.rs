//! Both sides of announces: whom to ask for peers, and when.

pub mod broadcast;
pub mod client;
