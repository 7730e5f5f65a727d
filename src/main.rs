//! The `evpeer` binary: arguments to command to exit code.

fn main() {}
