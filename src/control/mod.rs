//! What the outside is told of a peer, as JSON: the objects that `--json` prints, one a line.
//!
//! Pure: values in, values out. Who prints or sends them is the shell's business.

pub mod api;
