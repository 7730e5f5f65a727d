//! skeleton
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::iter_over_hash_type)
)]

pub mod base;
pub mod config;
pub mod meta;
pub mod storage;
pub mod wire;
