//! What a hostile world sends, row by row.

#[path = "../support/mod.rs"]
mod support;
mod wire;
