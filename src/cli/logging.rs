//! Where log lines go: standard error, above the progress lines of a terminal, or a file.

use std::env;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};

use indicatif::MultiProgress;
use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ColorChoice, Config, ConfigBuilder, TermLogger, TerminalMode, WriteLogger};

use super::args::TalkArgs;
use super::error::CliError;

/// Starts logging as `talk` asks; lines on standard error move `bars` out of their way.
///
/// # Errors
/// The log file cannot be opened.
pub fn start(talk: &TalkArgs, bars: Option<MultiProgress>) -> Result<(), CliError> {
    let terminal = talk.log_file.is_none() && io::stderr().is_terminal();
    let level = level(talk, terminal);
    let config = line_format(terminal);
    let logger: Box<dyn Log> = match &talk.log_file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|source| CliError::LogFile {
                path: path.clone(),
                source,
            })?;
            WriteLogger::new(level, config, file)
        }
        None => {
            let colours = if terminal && env::var_os("NO_COLOR").is_none() {
                ColorChoice::Auto
            } else {
                ColorChoice::Never
            };
            let inner = TermLogger::new(level, config, TerminalMode::Stderr, colours);
            Box::new(AboveBars { inner, bars })
        }
    };
    // A second call changes nothing: the process has its logger already.
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// A person at a terminal sees every change on standard output already.
fn level(talk: &TalkArgs, terminal: bool) -> LevelFilter {
    match talk.verbose {
        0 if talk.quiet || terminal => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// A person reads the time of day; a file keeps the date, in UTC.
fn line_format(terminal: bool) -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    if terminal {
        // Without a time zone the lines are in UTC; nothing else is lost.
        let _ = config.set_time_offset_to_local();
    } else {
        config.set_time_format_rfc3339();
    }
    config.build()
}

/// Takes the progress lines away while a log line is written.
struct AboveBars {
    inner: Box<TermLogger>,
    bars: Option<MultiProgress>,
}

impl Log for AboveBars {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        match &self.bars {
            Some(bars) if self.enabled(record.metadata()) => {
                bars.suspend(|| self.inner.log(record));
            }
            _ => self.inner.log(record),
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}
