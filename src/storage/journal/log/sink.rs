//! A file that records are appended to, open or not.

use super::{LogWork, Mark, SinkId};
use crate::storage::jobs::{Handle, Left};
use crate::storage::journal::{Chain, Record};

#[derive(Debug)]
pub(super) struct Sink {
    pub id: SinkId,
    pub file: SinkFile,
    pub offset: u64,
    pub chain: Chain,
    /// Where it will be when the append under way is done.
    pub in_flight: Option<Box<(u64, Chain, Mark)>>,
    /// The append under way takes claims back.
    pub takes_back: bool,
    /// It says everything up to here.
    pub holds: Mark,
    /// That much of it is on the disk.
    pub synced: Mark,
}

/// The file of a sink.
#[derive(Debug)]
pub(super) enum SinkFile {
    Open(Handle),
    /// It is being closed.
    Resting,
    /// Nothing was written for a while.
    Closed(Left),
    /// It is being opened again.
    Opening,
}

impl SinkFile {
    /// The file, if it is open.
    pub fn open(&self) -> Option<&Handle> {
        match self {
            Self::Open(file) => Some(file),
            Self::Resting | Self::Closed(_) | Self::Opening => None,
        }
    }

    /// The same, to be closed.
    pub fn into_open(self) -> Option<Handle> {
        match self {
            Self::Open(file) => Some(file),
            Self::Resting | Self::Closed(_) | Self::Opening => None,
        }
    }
}

impl Sink {
    /// A file that is open, holds `offset` bytes and says everything up to `mark`.
    pub fn new(id: SinkId, file: Handle, chain: Chain, offset: u64, mark: Mark) -> Self {
        Self {
            id,
            file: SinkFile::Open(file),
            offset,
            chain,
            in_flight: None,
            takes_back: false,
            holds: mark,
            synced: mark,
        }
    }

    /// Whether something is being done with it.
    pub fn has_job(&self) -> bool {
        self.in_flight.is_some() || matches!(self.file, SinkFile::Resting | SinkFile::Opening)
    }

    /// The work of closing it.
    pub fn rest(&mut self) -> Option<LogWork> {
        let file = std::mem::replace(&mut self.file, SinkFile::Resting);
        file.into_open()
            .map(|file| LogWork::Rest(file, self.offset))
    }

    /// The work of opening it again, if it is closed.
    pub fn open_again(&mut self) -> Option<LogWork> {
        let SinkFile::Closed(left) = self.file else {
            return None;
        };
        self.file = SinkFile::Opening;
        Some(LogWork::Open(self.id, left))
    }

    /// The work of appending `records`, the last of which is at `mark`; `None` if the file would
    /// be longer than `len_max`, or is not open.
    pub fn append(&mut self, records: &[Record], mark: Mark, len_max: u64) -> Option<LogWork> {
        let file = self.file.open()?.clone();
        let mut chain = self.chain;
        let mut bytes = Vec::new();
        for record in records {
            chain.encode(record, &mut bytes);
        }
        let end = self.offset + bytes.len() as u64;
        if end > len_max {
            return None;
        }
        self.in_flight = Some(Box::new((end, chain, mark)));
        self.takes_back = records.iter().any(Record::takes_back);
        Some(LogWork::Append {
            sink: self.id,
            file,
            offset: self.offset,
            bytes,
        })
    }
}
