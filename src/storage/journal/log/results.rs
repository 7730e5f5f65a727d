//! What came of a log's work.

use super::{Log, LogWork, Next, REST_TIME, RETRY_DELAY, SYNC_DELAY, Sink, SinkFile, SinkId};
use crate::base::time::Instant;
use crate::storage::error::StorageError;
use crate::storage::jobs::{Handle, Left};
use crate::storage::journal::Record;

impl Log {
    /// The result of making a file.
    pub fn made(&mut self, result: Result<Handle, StorageError>, now: Instant) {
        let Some(Next::Making {
            mark,
            chain,
            len,
            since,
        }) = self.next.take().map(|next| *next)
        else {
            return;
        };
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                self.is_first = false;
                return self.fail_next(error, now);
            }
        };
        let id = SinkId(self.sinks_made);
        self.sinks_made += 1;
        let sink = Sink::new(id, file, chain, len, mark);
        self.rest_at = now + REST_TIME;
        if std::mem::take(&mut self.is_first) {
            self.active = Some(sink);
            self.pending = since;
            self.sync_at = self.sync_at.min(now + SYNC_DELAY);
        } else {
            self.next = Some(Box::new(Next::Ready {
                sink,
                queue: since,
                installing: None,
                failure: None,
            }));
        }
    }

    /// The result of an append.
    pub fn appended(&mut self, id: SinkId, result: Result<(), StorageError>, now: Instant) {
        let next = match self.next.as_deref_mut() {
            Some(Next::Ready { sink, .. }) => Some(sink),
            None | Some(Next::Making { .. }) => None,
        };
        let is_next = next.as_ref().is_some_and(|sink| sink.id == id);
        let mut all = next.into_iter().chain(&mut self.active);
        let Some(sink) = all.find(|sink| sink.id == id) else {
            return; // it was given up meanwhile
        };
        match (result, sink.in_flight.take()) {
            (Ok(()), Some(end)) => {
                (sink.offset, sink.chain, sink.holds) = *end;
                sink.takes_back = false;
            }
            (Ok(()), None) => {}
            (Err(error), _) if is_next => self.fail_next(error, now),
            (Err(error), _) => self.fail_active(&error, now),
        }
    }

    /// The result of giving the other file the journal's name.
    ///
    /// # Panics
    /// If it was not being given the name.
    pub fn installed(&mut self, result: Result<(), StorageError>, now: Instant) {
        let Some(Next::Ready {
            mut sink,
            queue,
            installing: Some(holds),
            failure,
        }) = self.next.take().map(|next| *next)
        else {
            panic!("no file was being given the name");
        };
        if let Err(error) = result.and(failure.map_or(Ok(()), Err)) {
            // Either may have the name, and lack what the other says: neither is written to any
            // more.
            self.lies |= sink.takes_back || queue.iter().any(Record::takes_back);
            self.leftover.extend(sink.file.into_open());
            return self.fail_active(&error, now);
        }
        sink.synced = holds;
        self.rest_at = now + REST_TIME;
        if sink.synced < self.pushed {
            self.sync_at = self.sync_at.min(now + SYNC_DELAY);
        }
        self.pending = queue;
        self.is_named = true;
        self.make_at = Instant::NEVER;
        self.has_failed = false;
        self.lies = false;
        let before = self.active.replace(sink);
        self.leftover
            .extend(before.and_then(|sink| sink.file.into_open()));
    }

    /// The result of a sync.
    pub fn synced(&mut self, result: Result<(), StorageError>, now: Instant) {
        let syncing = self.syncing.take();
        match result {
            Ok(()) => {
                if let Some(sink) = &mut self.active
                    && let Some((id, mark)) = syncing
                    && id == sink.id
                {
                    sink.synced = mark;
                    self.is_named = true;
                }
            }
            Err(error) => self.fail_active(&error, now),
        }
    }

    /// The active file was closed, and left like this.
    pub fn rested(&mut self, result: Result<Left, StorageError>, now: Instant) {
        let active = self.active.as_mut();
        let Some(sink) = active.filter(|sink| matches!(sink.file, SinkFile::Resting)) else {
            return;
        };
        match result {
            Ok(left) => sink.file = SinkFile::Closed(left),
            Err(error) => self.fail_active(&error, now),
        }
    }

    /// The result of opening the active file again.
    pub fn opened(&mut self, id: SinkId, result: Result<Handle, StorageError>, now: Instant) {
        let active = self.active.as_mut().filter(|sink| sink.id == id);
        match (active, result) {
            (Some(sink), Ok(file)) => sink.file = SinkFile::Open(file),
            (Some(_), Err(error)) => self.fail_active(&error, now),
            (None, result) => self.leftover.extend(result.ok()),
        }
    }

    /// The journal was removed, or cannot be.
    pub fn removed(&mut self, result: &Result<(), StorageError>) {
        self.is_removing = false;
        self.lies = false;
        if let Err(error) = result {
            log::error!("journal says what is no longer true and cannot be removed: {error}");
        }
    }

    /// Nothing more is written to the active file.
    fn fail_active(&mut self, error: &StorageError, now: Instant) {
        self.let_active_go();
        self.retry(error, now);
    }

    fn let_active_go(&mut self) {
        if let Some(sink) = self.active.take() {
            self.lies |= sink.takes_back || self.pending.iter().any(Record::takes_back);
            self.leftover.extend(sink.file.into_open());
        }
        self.pending = Vec::new();
        self.sync_at = Instant::NEVER;
    }

    /// The other file does not take the place of the active one.
    fn fail_next(&mut self, error: StorageError, now: Instant) {
        if let Some(Next::Ready {
            installing: Some(_),
            failure,
            ..
        }) = self.next.as_deref_mut()
        {
            *failure = Some(error);
            return;
        }
        if let Some(Next::Ready { sink, .. }) = self.next.take().map(|next| *next) {
            self.leftover.extend(sink.file.into_open());
        }
        self.retry(&error, now);
    }

    /// Another file is tried: the first time at once, then now and then.
    fn retry(&mut self, error: &StorageError, now: Instant) {
        if std::mem::replace(&mut self.has_failed, true) {
            self.is_resigned = true;
            self.make_at = self.make_at.min(now + RETRY_DELAY);
        } else {
            self.make_at = self.make_at.min(now);
            let info_hash = self.binding.info_hash.short();
            log::warn!("journal cannot be written info_hash={info_hash}: {error}");
        }
    }

    /// Whether the file under the name has to go, as it lies and no other takes its place.
    pub fn poll_removal(&mut self) -> Option<LogWork> {
        let is_due = self.lies && self.is_given_up() && !self.is_removing;
        is_due.then(|| {
            self.is_removing = true;
            LogWork::Remove
        })
    }
}
