//! What the outside asks of a peer and is told of it, as JSON objects, one a line.
//!
//! Pure: values in, values out. Who prints or sends them is the shell's business.
//!
//! ```text
//! bytes ─▶ lines ─▶ request ─▶ answer (asks the engine) ─▶ a line
//!                              └ work for the shell ─▶ done, refused
//! ```

pub mod answer;
pub mod api;
pub mod choose;
pub mod lines;
pub mod request;
pub mod session;
