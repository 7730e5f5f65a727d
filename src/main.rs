//! The `evpeer` binary: arguments to command to exit code.
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::iter_over_hash_type)
)]

use std::process::ExitCode;

#[allow(
    clippy::disallowed_methods,
    reason = "the arguments have to be read somewhere"
)]
fn main() -> ExitCode {
    evpeer::cli::main(std::env::args_os())
}
