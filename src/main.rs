//! The `evpeer` binary: arguments to command to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    evpeer::cli::main(std::env::args_os())
}
