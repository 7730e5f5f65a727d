//! The file of a journal while its torrent runs: what is appended, and when it is written anew.
//!
//! A log asks for work and is told what came of it; it touches no file itself. The file that has
//! the journal's name is *active*. Before it is too long, another is made beside it that says the
//! same in less room, gets every record from then on as the active one does, and takes its name:
//!
//! ```text
//!                  made, synced           as much as the active one        has the name
//!  none ──▶ Making ─────────────▶ Ready ──────────────────────────▶ installing ────▶ active
//! ```
//!
//! The very first one gets the name at once, unsynced: there is nothing that it could replace, and
//! until it is synced a power cut leaves nothing, or a torn file, which is as good as nothing.
//!
//! So whenever the process dies, the file under the name says all that was appended, and whenever
//! the power goes, one that was whole is there. If a file cannot be written, none is until another
//! one can be made: claims that are not written are only missing later, and claims that were taken
//! back are no lie as long as the old file is removed.
//!
//! A file that nothing is written to *rests* after a while: an idle torrent holds no descriptor.
//! All of it and its name are on the disk by then, so no error of a write-back can get lost with
//! the descriptor. Before anything else is written it is opened again, and must be the file that
//! was closed, as it was then. Any other is as one that cannot be written: nothing is appended to
//! it, and a new one that says everything takes its place.
//!
//! ```text
//!        all on the disk, 15 s       closed             a record
//!  Open ────────────────────▶ Resting ─────▶ Closed ──────────────▶ Opening ──▶ Open
//! ```

use std::time::Duration;

use super::{Binding, Chain, Knowledge, Record, encode_snapshot};
use crate::base::time::Instant;
use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, Left};

mod results;
mod sink;

use sink::{Sink, SinkFile};

/// Something to do about the files.
#[derive(Debug)]
pub(in crate::storage) enum LogWork {
    /// Make another file beside the journal, with these bytes, and sync it.
    Make(Vec<u8>),
    /// Make the first journal, with these bytes.
    MakeFirst(Vec<u8>),
    /// Write bytes behind the others.
    Append {
        sink: SinkId,
        file: Handle,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Sync the other file and give it the journal's name, for good.
    Install(Handle),
    /// Sync the journal.
    Sync(Handle),
    /// Sync the first journal and its folder.
    SyncFirst(Handle),
    /// Remove the journal: it says what is not true any more.
    Remove,
    /// Close a file.
    Close(Handle),
    /// Close the journal, which has so many bytes at least, and say what it was like.
    Rest(Handle, u64),
    /// Open the journal again, if it is what was closed.
    Open(SinkId, Left),
}

/// Names one of the files that a log ever had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage) struct SinkId(u64);

/// Counts the records so far: what [`Log::is_synced`] is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::storage) struct Mark(u64);

/// A journal that is kept.
#[derive(Debug)]
pub(in crate::storage) struct Log {
    binding: Binding,
    known: Knowledge,
    active: Option<Sink>,
    /// The other file, if there is one. Seldom: apart from the rest.
    next: Option<Box<Next>>,
    /// There is no file under the name that is worth anything.
    is_first: bool,
    /// The name of the active file is on the disk.
    is_named: bool,
    /// Records that the active file has not been given.
    pending: Vec<Record>,
    pushed: Mark,
    sinks_made: u64,
    /// The sync under way: of which file, up to where.
    syncing: Option<(SinkId, Mark)>,
    /// Somebody waits for a sync up to here.
    wanted: Mark,
    /// When the active file is to be synced.
    sync_at: Instant,
    /// When another file is to be made.
    make_at: Instant,
    /// When the active file is closed if nothing happens to it until then.
    rest_at: Instant,
    /// Files to close.
    leftover: Vec<Handle>,
    /// The file under the name claims what was taken back.
    lies: bool,
    is_removing: bool,
    /// A failure was told.
    has_failed: bool,
    /// It is tried again after a while.
    is_resigned: bool,
}

/// What there is under a journal's name when a torrent is taken up.
#[derive(Debug)]
pub(in crate::storage) enum Before {
    /// Nothing, or nothing of any use.
    Nothing,
    /// A journal that says something else.
    Other,
    /// A journal that says exactly what is known, and goes on there, behind so many bytes.
    Same(Handle, Chain, u64),
}

#[derive(Debug)]
enum Next {
    Making {
        mark: Mark,
        chain: Chain,
        len: u64,
        since: Vec<Record>,
    },
    Ready {
        sink: Sink,
        queue: Vec<Record>,
        /// It is being given the name, and was synced up to here.
        installing: Option<Mark>,
        /// It could not be written to while it was being given the name. Until that is done
        /// nobody knows which file has it, and no other may be made beside it.
        failure: Option<StorageError>,
    },
}

impl Log {
    /// A log of what is `known`, which goes on in the file `before` if that says exactly this, or
    /// else makes a file.
    pub fn new(binding: Binding, known: Knowledge, before: Before) -> Self {
        let start = Mark(0);
        let is_first = matches!(before, Before::Nothing);
        let active = match before {
            Before::Nothing | Before::Other => None,
            Before::Same(file, chain, offset) => {
                Some(Sink::new(SinkId(0), file, chain, offset, start))
            }
        };
        let make_at = match active {
            Some(_) => Instant::NEVER,
            None => Instant::ZERO,
        };
        Self {
            binding,
            known,
            active,
            next: None,
            is_first,
            // A former process may have died before it synced the first one.
            is_named: false,
            pending: Vec::new(),
            pushed: start,
            sinks_made: 1,
            syncing: None,
            wanted: start,
            sync_at: Instant::NEVER,
            make_at,
            rest_at: Instant::ZERO,
            leftover: Vec::new(),
            lies: false,
            is_removing: false,
            has_failed: false,
            is_resigned: false,
        }
    }

    /// The file, to be closed, of a log that is done.
    pub fn into_file(self) -> Option<Handle> {
        self.active.and_then(|sink| sink.file.into_open())
    }

    /// Everything that is known, written or not.
    pub fn known(&self) -> &Knowledge {
        &self.known
    }

    /// The torrent.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Takes in what is known from now on; it is written as soon as the file can take it.
    pub fn push(&mut self, record: Record, now: Instant) {
        self.known.apply(&record, &self.binding);
        self.pushed.0 += 1;
        let delay = match record {
            Record::Filled(_) => REST_TIME, // it is worth little, but what rests is on the disk
            _ => SYNC_DELAY,
        };
        self.sync_at = self.sync_at.min(now + delay);
        if record.takes_back() {
            self.sync_at = self.sync_at.min(now);
            self.lies |= self.active.is_none();
        }
        if let Some(Next::Making { since: queue, .. } | Next::Ready { queue, .. }) =
            self.next.as_deref_mut()
        {
            append_to(queue, record.clone());
        }
        if self.active.is_some() {
            append_to(&mut self.pending, record);
        }
    }

    /// Asks for everything so far to be on the disk soon; [`is_synced`](Self::is_synced) tells.
    pub fn sync(&mut self, now: Instant) -> Mark {
        self.sync_at = self.sync_at.min(now);
        self.wanted = self.pushed;
        self.pushed
    }

    /// Whether everything up to `mark` will be found after a power cut, or the attempt failed.
    pub fn is_synced(&self, mark: Mark) -> bool {
        let is_active = |sink: &Sink| sink.synced >= mark && self.is_named && self.next.is_none();
        self.is_given_up() || self.active.as_ref().is_some_and(is_active)
    }

    /// Whether there is nothing to do, or no use in trying.
    pub fn is_idle(&self) -> bool {
        let is_active_idle = match &self.active {
            Some(sink) => !sink.has_job() && self.pending.is_empty(),
            None => self.is_given_up(),
        };
        is_active_idle
            && self.next.is_none()
            && self.syncing.is_none()
            && self.leftover.is_empty()
            && !self.is_removing
    }

    fn is_given_up(&self) -> bool {
        self.active.is_none() && self.is_resigned && self.next.is_none()
    }

    /// When [`poll_work`](Self::poll_work) may have something that it has not now.
    pub fn next_deadline(&self) -> Option<Instant> {
        let can_sync = self.active.as_ref().is_some_and(|sink| self.can_sync(sink));
        let can_make = self.next.is_none() && !self.is_removing;
        let sync_at = Some(self.sync_at).filter(|_| can_sync);
        let make_at = Some(self.make_at).filter(|_| can_make);
        let rest_at = Some(self.rest_at).filter(|_| self.can_rest());
        let due = sync_at.into_iter().chain(make_at).chain(rest_at).min();
        due.filter(|&at| at < Instant::NEVER)
    }

    /// The next thing to do.
    pub fn poll_work(&mut self, now: Instant) -> Option<LogWork> {
        if let Some(file) = self.leftover.pop() {
            return Some(LogWork::Close(file));
        }
        self.append(now)
            .or_else(|| self.make(now))
            .or_else(|| self.advance_next(now))
            .or_else(|| self.start_sync(now))
            .or_else(|| self.rest(now))
    }

    /// Gives the active file what it does not have yet.
    fn append(&mut self, now: Instant) -> Option<LogWork> {
        let sink = self.active.as_mut()?;
        if self.pending.is_empty() || sink.in_flight.is_some() {
            return None;
        }
        self.rest_at = now + REST_TIME;
        let len_max = self.binding.journal_len_max();
        match &sink.file {
            SinkFile::Open(_) => {}
            SinkFile::Closed(_) => return sink.open_again(),
            SinkFile::Resting | SinkFile::Opening => return None,
        }
        match sink.append(&self.pending, self.pushed, len_max) {
            Some(work) => {
                self.pending = Vec::new();
                Some(work)
            }
            None => {
                self.make_at = self.make_at.min(now);
                None
            }
        }
    }

    /// Makes another file where there is none, or where the active one gets too long.
    fn make(&mut self, now: Instant) -> Option<LogWork> {
        if self.next.is_some() || self.is_removing {
            return None;
        }
        let soft_max = self.binding.journal_len_max() - SPARE_LEN;
        let is_long = self.active.as_ref().is_some_and(|a| a.offset > soft_max);
        if !is_long && self.make_at > now {
            return None;
        }
        self.make_at = Instant::NEVER;
        self.is_resigned = false;
        self.known.generation += 1;
        let (bytes, chain) = encode_snapshot(&self.binding, &self.known);
        self.next = Some(Box::new(Next::Making {
            mark: self.pushed,
            chain,
            len: bytes.len() as u64,
            since: Vec::new(),
        }));
        Some(match self.is_first {
            true => LogWork::MakeFirst(bytes),
            false => LogWork::Make(bytes),
        })
    }

    /// Brings the next file up to date, and then to its name.
    fn advance_next(&mut self, now: Instant) -> Option<LogWork> {
        let Some(Next::Ready {
            sink,
            queue,
            installing,
            failure,
        }) = self.next.as_deref_mut()
        else {
            return None;
        };
        if sink.in_flight.is_some() || failure.is_some() {
            return None;
        }
        if queue.is_empty() {
            if installing.is_some() {
                return None;
            }
            let file = sink.file.open()?.clone();
            *installing = Some(sink.holds);
            return Some(LogWork::Install(file));
        }
        let len_max = self.binding.journal_len_max();
        match sink.append(queue, self.pushed, len_max) {
            Some(work) => {
                queue.clear();
                Some(work)
            }
            None if installing.is_some() => None, // it is made anew when it has the name
            None => {
                self.leftover.extend(sink.file.open().cloned());
                self.next = None;
                self.make(now)
            }
        }
    }

    fn start_sync(&mut self, now: Instant) -> Option<LogWork> {
        let sink = self.active.as_ref()?;
        if self.sync_at > now || !self.can_sync(sink) {
            return None;
        }
        // What is closed needs none.
        let file = sink.file.open()?.clone();
        self.sync_at = Instant::NEVER;
        self.rest_at = now + REST_TIME;
        self.syncing = Some((sink.id, sink.holds));
        Some(match self.is_named {
            true => LogWork::Sync(file),
            false => LogWork::SyncFirst(file),
        })
    }

    /// Closes the active file if nothing happened to it for long.
    fn rest(&mut self, now: Instant) -> Option<LogWork> {
        if self.rest_at > now || !self.can_rest() {
            return None;
        }
        self.active.as_mut()?.rest()
    }

    /// Whether the active file is open for nothing: all of it is on the disk, its name too, and no
    /// other is to take its place. So a file that is closed stays alone under its name.
    fn can_rest(&self) -> bool {
        let is_safe = |sink: &Sink| sink.in_flight.is_none() && sink.synced == sink.holds;
        let active = self.active.as_ref();
        active.is_some_and(|sink| sink.file.open().is_some() && is_safe(sink))
            && self.is_named
            && self.pending.is_empty()
            && self.syncing.is_none()
            && self.next.is_none()
            && self.make_at == Instant::NEVER
    }

    /// Whether a sync would do what it is for.
    fn can_sync(&self, sink: &Sink) -> bool {
        let is_dirty = sink.holds > sink.synced || !self.is_named;
        self.syncing.is_none() && is_dirty && sink.holds >= self.wanted
    }
}

/// Appends a record; one more of the kind of the last is no record of its own.
fn append_to(queue: &mut Vec<Record>, record: Record) {
    use Record::{Checked, Doubted, Dropped, Durable};
    match (queue.last_mut(), record) {
        (Some(Checked(all)), Checked(more))
        | (Some(Durable(all)), Durable(more))
        | (Some(Doubted(all)), Doubted(more))
        | (Some(Dropped(all)), Dropped(more)) => all.extend(more),
        (_, record) => queue.push(record),
    }
}

/// How long a record may be with the kernel only.
const SYNC_DELAY: Duration = Duration::from_secs(1);
/// After this time it is tried again to make a file where that failed.
const RETRY_DELAY: Duration = Duration::from_secs(30);
/// How long nothing must have been written before the file is closed.
const REST_TIME: Duration = Duration::from_secs(15);
/// When a journal has less room left than this, bytes, another is made, so that records need not
/// wait for it.
const SPARE_LEN: u64 = 12 * 1024;

#[cfg(test)]
mod tests;
