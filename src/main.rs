//! The `evpeer` binary: arguments to command to exit code.
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::iter_over_hash_type)
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    evpeer::cli::main(std::env::args_os())
}
