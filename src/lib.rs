//! skeleton
pub mod base;
pub mod cli;
pub mod config;
pub mod meta;
pub mod storage;
pub mod wire;
