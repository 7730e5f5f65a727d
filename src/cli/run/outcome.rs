//! How far each torrent got.

use crate::cli::error::CliError;
use crate::engine::action::{Report, Snapshot, State};

/// How far a torrent got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It runs.
    Open,
    /// Everything is there and on disk.
    Durable,
    /// It cannot go on.
    Failed(Box<Failure>),
}

/// Which torrent cannot go on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    name: String,
    reason: String,
}

impl Outcome {
    /// What a report on a torrent with these figures means; `None` if nothing new.
    pub fn of(report: &Report, snapshot: Snapshot) -> Option<Self> {
        match report {
            Report::Durable { .. } => Some(Self::Durable),
            // It goes on by itself as soon as it can.
            Report::State {
                state: State::Error,
                ..
            } if snapshot.retry_in.is_some() => Some(Self::Open),
            Report::State {
                state: State::Error,
                reason,
                ..
            } => Some(Self::Failed(Box::new(Failure {
                name: snapshot.name,
                reason: reason.clone().unwrap_or_default(),
            }))),
            Report::State {
                state: State::Checking | State::Queued | State::Downloading,
                ..
            } => Some(Self::Open),
            _ => None,
        }
    }

    /// What to tell the user of one that cannot go on.
    pub fn error(&self) -> Option<CliError> {
        match self {
            Self::Failed(failure) => Some(CliError::TorrentFailed {
                name: failure.name.clone(),
                reason: failure.reason.clone(),
            }),
            Self::Open | Self::Durable => None,
        }
    }
}
