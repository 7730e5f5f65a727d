//! Finding peers: addresses that might be dialled, from wherever they come.

pub mod candidates;
pub mod overlay;
