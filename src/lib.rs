//! skeleton
pub mod base;
pub mod config;
pub mod cli;
