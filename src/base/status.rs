//! How disk and loop are, as plain values that the core may be told.

use std::time::Duration;

/// What storage says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Payload that waits for its pages, bytes.
    pub waiting_bytes: u64,
    /// Payload stored but not hashed yet, bytes.
    pub hash_backlog_bytes: u64,
}

/// Why storage cannot go on with a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What is wrong, where, and what to do about it.
    pub message: String,
    /// It may go away without anybody touching the torrent: space, rights, a mount.
    pub may_pass: bool,
    /// It is the disk's: it is full, a quota is used up, or it is gone.
    pub is_of_disk: bool,
}

impl Trouble {
    /// Trouble that somebody has to end.
    pub fn lasting(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            message,
            may_pass: false,
            is_of_disk: false,
        }
    }
}

/// How long the turns of the loop held its thread, the waits between them aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStatus {
    /// Turns so far.
    pub turns: u64,
    /// The time that half of them did not exceed, up to a quarter too much.
    pub median: Duration,
    /// The same of 99 %.
    pub p99: Duration,
    /// The same of 99.9 %.
    pub p999: Duration,
    /// The longest of all.
    pub longest: Duration,
    /// What took most of that one.
    pub longest_in: Option<LoopWork>,
    /// Turns of more than 50 ms.
    pub stalls: u64,
}

/// What a turn of the loop is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopWork {
    /// Streams and datagrams, and what they bring and take.
    Sockets,
    /// What helper threads have done and shall do, and hashing.
    Storage,
    /// Deadlines.
    Timers,
    /// Clients of the control socket.
    Control,
    /// Whoever runs the loop: what the user is told.
    Caller,
}

impl LoopWork {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Sockets,
        Self::Storage,
        Self::Timers,
        Self::Control,
        Self::Caller,
    ];

    /// The word for it in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Storage => "storage",
            Self::Timers => "timers",
            Self::Control => "control",
            Self::Caller => "output",
        }
    }
}
