//! What happens in the world, in order of time.

use super::HostId;
use super::net::{Side, StreamId};
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::storage::jobs::Done;

/// An event and its time; those of the same moment happen in the order of their numbers.
#[derive(Debug)]
pub(super) struct Scheduled {
    pub at: Instant,
    pub number: u64,
    pub event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Something that happens at a host.
#[derive(Debug)]
pub(super) enum Event {
    /// A stream from elsewhere arrives.
    Arrive(HostId, StreamId),
    /// A dialled stream is established.
    Established(HostId, ConnId),
    /// A dialled host does not answer.
    Refused(HostId, ConnId),
    /// The front of a stream's bytes reaches its other end.
    Deliver(StreamId, Side),
    /// The other end of a stream closed it.
    Ended(StreamId, Side),
    /// A timer of the engine may be due.
    Timer(HostId),
    /// The disk has done something.
    Disk(HostId, Box<Done>),
}
