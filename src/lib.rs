//! skeleton
pub mod base;
pub mod config;
pub mod discovery;
pub mod engine;
pub mod swarm;
pub mod tracker;
pub mod wire;
