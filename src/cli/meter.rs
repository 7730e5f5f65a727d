//! A live line on standard error for work that has an end: hashing files.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::TalkArgs;
use super::error::CliError;
use super::logging;
use super::output::printable;

/// The line of one command. It shows itself on a terminal only, and not at all when quiet.
pub struct Meter {
    lines: MultiProgress,
}

impl Meter {
    /// Starts logging, and a meter that log lines do not disturb.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn start(talk: &TalkArgs) -> Result<Self, CliError> {
        Self::start_among(talk, None)
    }

    /// The same, among the live `lines` that the command has already.
    ///
    /// # Errors
    /// The log file cannot be opened.
    pub fn start_among(talk: &TalkArgs, lines: Option<MultiProgress>) -> Result<Self, CliError> {
        let own = || {
            MultiProgress::with_draw_target(if talk.quiet {
                ProgressDrawTarget::hidden()
            } else {
                ProgressDrawTarget::stderr_with_hz(10)
            })
        };
        let lines = lines.unwrap_or_else(own);
        logging::start(talk, Some(lines.clone()))?;
        Ok(Self { lines })
    }

    /// A line for `bytes` of work on `name`; it vanishes when it is finished.
    pub fn task(&self, name: &str, bytes: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{prefix:24!} {wide_bar} {binary_bytes} of {binary_total_bytes}, \
             {binary_bytes_per_sec}, {eta} left",
        )
        .expect("the template is right")
        .progress_chars("=> ");
        let bar = ProgressBar::new(bytes)
            .with_style(style)
            .with_prefix(printable(name));
        let bar = self.lines.add(bar);
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }
}
