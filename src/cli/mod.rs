//! The command line: arguments in, exit code out.
//!
//! ```text
//! args ─▶ run      source, fetch, watch ─▶ reactor turns ─▶ progress (bars, plain lines, JSON)
//!      ├▶ share    walk ─▶ hash ─▶ as run
//!      ├▶ create   walk ─▶ hash ─▶ new file
//!      ├▶ show     source ─▶ text, JSON
//!      ├▶ verify   source ─▶ storage jobs ─▶ progress
//!      ├▶ simulate forecast ─▶ table, JSON, plot
//!      ├▶ ctl      a line to the control socket of a running peer ─▶ its answer
//!      ├▶ soak     worlds of chance on all cores
//!      └▶ completions, man
//! ```
//!
//! Every command returns its exit code or a [`CliError`], which names the thing that failed and
//! what to do; only here is it printed. Codes: 0 done, 1 failed while running, 2 unusable input.

pub mod args;
mod choosing;
mod create;
mod ctl;
mod error;
mod fetch;
mod keeping;
mod logging;
mod meter;
mod output;
mod pages;
mod plot;
mod progress;
mod run;
mod share;
mod show;
mod simulate;
mod soak;
mod source;
mod units;
mod verify;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Command, CommandLine};
pub use self::error::CliError;
use self::output::print_error;

/// Does what the command line asks for; the result is the exit code of the process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(message) => {
            // Help and version go to standard output, the rest to standard error; if nobody
            // reads it, there is nobody to tell.
            let _ = message.print();
            return ExitCode::from(message.exit_code().clamp(0, 2) as u8);
        }
    };
    dispatch(&line).unwrap_or_else(|error| {
        print_error(&format!("error: {error}"));
        if matches!(error, CliError::NoSource) {
            print_error(&format!("\n{}", CommandLine::command().render_help()));
        }
        ExitCode::from(error.exit_code())
    })
}

fn dispatch(line: &CommandLine) -> Result<ExitCode, CliError> {
    match &line.command {
        None => run::run(&line.run),
        Some(Command::Share(args)) => share::share(args),
        Some(Command::Create(args)) => create::create(args),
        Some(Command::Show(args)) => show::show(args),
        Some(Command::Verify(args)) => verify::verify(args),
        Some(Command::Simulate(args)) => simulate::simulate(args),
        Some(Command::Soak(args)) => soak::soak(args),
        Some(Command::Ctl(args)) => ctl::ctl(args),
        Some(Command::Completions { shell }) => pages::completions(*shell),
        Some(Command::Man) => pages::man(),
    }
}
