//! Carries out what the engine and storage ask for, and carries answers back.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use mio::Waker;

use crate::base::slot::Slot;
use crate::base::time::Instant;
use crate::engine::OnDisk;
use crate::engine::action::{Action, LookupId, Report, StorageAction};
use crate::storage::reserve::Reserve;
use crate::storage::{self, jobs};

use super::lanes::{self, Answer, Ending, Lane, LaneDied, Question};
use super::{Reactor, os};

/// The helper threads.
pub struct Lanes {
    names: Lane<Question, Answer>,
    paging: Lane<jobs::Job, jobs::Done>,
    disk: Lane<jobs::Job, jobs::Done>,
    journal: Lane<jobs::Job, jobs::Done>,
    /// Helps those who write to the state folder.
    pub reserve: Arc<Reserve>,
}

impl Lanes {
    /// Starts the threads, which write to the state folder of `reserve`.
    pub fn start(waker: &Arc<Waker>, reserve: Reserve) -> io::Result<Self> {
        let reserve = Arc::new(reserve);
        let runner = jobs::Runner::new(Arc::clone(&reserve));
        let lane = |name| {
            let runner = runner.clone();
            Lane::start(name, move |job| runner.run(job), Ending::Finish, waker)
        };
        Ok(Self {
            names: Lane::start("names", lanes::resolve, Ending::Abandon, waker)?,
            paging: lane("paging")?,
            disk: lane("disk")?,
            journal: lane("journal")?,
            reserve,
        })
    }

    /// Whether storage will hear of a job.
    pub fn is_disk_busy(&self) -> bool {
        self.paging.is_busy() || self.disk.is_busy()
    }
}

impl Reactor {
    /// Does everything that the engine asks for. Due after each of its inputs.
    pub(super) fn run_actions(&mut self, now: Instant) {
        self.take_actions(now);
        self.flush_datagrams();
    }

    /// Does what the engine asks for, but for datagrams that wait for company until
    /// [`Reactor::flush_datagrams`].
    pub(super) fn take_actions(&mut self, now: Instant) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect { conn, remote } => self.connect(conn, remote, now),
                Action::Close { conn } => self.drop_stream(conn),
                Action::Flush { conn } => self.flush(conn),
                Action::Read { conn } => self.ready.push(conn),
                Action::BoundBuffer { conn, most } => {
                    if let Some(stream) = self.slots.get_mut(conn) {
                        os::bound_receive_buffer(&stream.socket, most);
                    }
                }
                Action::Resolve { lookup, host, port } => self.resolve(lookup, host, port, now),
                Action::Datagram { to, from, bytes } => self.send_datagram(to, from, bytes),
                Action::Multicast {
                    interface,
                    family,
                    bytes,
                } => self.send_to_group(interface, family, &bytes, now),
                Action::Storage(action) => self.storage_action(action),
                Action::Report(report) => self.report(report),
            }
        }
    }

    /// Looks `host` up: addresses at once, names on their lane.
    fn resolve(&mut self, lookup: LookupId, host: String, port: u16, now: Instant) {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(ip) => {
                let addresses = vec![(ip, port).into()];
                self.engine.resolved(lookup, Ok(addresses), now);
            }
            Err(_) => self.lanes.names.submit(Question { lookup, host, port }),
        }
    }

    /// Stores payload, and tells storage how long that took.
    pub(super) fn store(&mut self, slot: Slot, bytes: &[u8]) {
        let began = self.clock.now();
        self.storage.store(slot, bytes);
        self.storage.took(self.clock.now() - began);
    }

    /// Hands the result of a job to storage, which may store payload that waited for it.
    fn job_done(&mut self, done: jobs::Done) {
        let began = self.clock.now();
        self.storage.job_done(done);
        self.storage.took(self.clock.now() - began);
    }

    fn storage_action(&mut self, action: StorageAction) {
        let storage = &mut self.storage;
        match action {
            StorageAction::Open {
                torrent,
                meta,
                writable: true,
            } => storage.add(torrent, meta),
            StorageAction::Open { torrent, meta, .. } => storage.add_to_serve(torrent, meta),
            StorageAction::Probe { torrent } => storage.probe(torrent),
            StorageAction::DoWithoutDisk { info_hash } => storage.do_without_disk(info_hash),
            StorageAction::Hold { info_hash, text } => storage.hold(info_hash, text),
            StorageAction::Text { info_hash } => storage.text(info_hash),
            StorageAction::Choose { torrent, skipped } => storage.choose(torrent, skipped),
            StorageAction::Begin { torrent } => storage.create_empty_files(torrent),
            StorageAction::Prepare { torrent, piece } => storage.prepare(torrent, piece),
            StorageAction::Store { slot, bytes } => self.store(slot, &bytes),
            StorageAction::Check { torrent, piece } => storage.check(torrent, piece),
            StorageAction::Settle { torrent, ticket } => storage.settle(torrent, ticket),
            StorageAction::Sync { torrent, ticket } => storage.sync(torrent, ticket),
            StorageAction::Leave { torrent, ticket } => storage.leave(torrent, ticket),
            StorageAction::Close { torrent } => storage.remove(torrent),
        }
    }

    /// Tells the engine what storage says.
    pub(super) fn storage_event(&mut self, event: storage::Event, now: Instant) {
        use storage::Event;
        let engine = &mut self.engine;
        match event {
            Event::Scanned {
                torrent,
                candidates,
                vouched,
                filled,
            } => {
                let found = OnDisk {
                    candidates,
                    vouched,
                    filled,
                };
                engine.scanned(torrent, found, now);
            }
            Event::Lost { torrent, piece } => engine.piece_lost(torrent, piece, now),
            Event::Lapsed { torrent, error } => {
                engine.storage_lapsed(torrent, error.trouble(), now);
            }
            Event::Checked {
                torrent,
                piece,
                verdict,
            } => engine.piece_checked(torrent, piece, verdict, now),
            Event::Probed { torrent, result } => {
                let result = result.map_err(|error| error.trouble());
                engine.storage_probed(torrent, result, now);
            }
            Event::Text { info_hash, result } => {
                let result = result.map_err(|error| error.to_string());
                engine.text_read(info_hash, result, now);
            }
            Event::Readable => self.parked.move_to(&mut self.ready),
            Event::Settled { torrent, ticket } => engine.settled(torrent, ticket, now),
            Event::Durable { torrent, ticket } => engine.durable(torrent, ticket, now),
            Event::Failed { torrent, error } => {
                engine.storage_failed(torrent, error.trouble(), now);
            }
        }
    }

    /// Gives storage's jobs to the threads that may block.
    pub(super) fn submit_jobs(&mut self) {
        while let Some(job) = self.storage.poll_job() {
            match job.lane() {
                jobs::Lane::Paging => self.lanes.paging.submit(job),
                jobs::Lane::Disk => self.lanes.disk.submit(job),
                jobs::Lane::Journal => self.lanes.journal.submit(job),
            }
        }
    }

    /// Carries home what the threads have done.
    pub(super) fn take_lane_results(&mut self, now: Instant) -> Result<(), LaneDied> {
        while let Some(Answer { lookup, result }) = self.lanes.names.poll_done()? {
            self.engine.resolved(lookup, result, now);
            self.run_actions(now);
        }
        while let Some(done) = self.lanes.paging.poll_done()? {
            self.job_done(done);
        }
        while let Some(done) = self.lanes.disk.poll_done()? {
            self.job_done(done);
        }
        while let Some(done) = self.lanes.journal.poll_done()? {
            self.job_done(done);
        }
        self.take_kept(now)?;
        self.take_storage_events(now);
        Ok(())
    }

    /// Keeps `report` for the user. If nobody listens, news of peers and trackers are dropped
    /// rather than kept without bound; those of torrents are few.
    fn report(&mut self, report: Report) {
        self.note_for_memory(&report);
        if self.reports.len() >= REPORTS_MAX && is_passing_news(&report) {
            log::debug!("report dropped reports={}", self.reports.len());
        } else {
            self.reports.push_back(report);
        }
    }
}

/// Whether the network can make any number of such reports.
fn is_passing_news(report: &Report) -> bool {
    match report {
        Report::State { .. }
        | Report::Complete { .. }
        | Report::Durable { .. }
        | Report::Removed { .. }
        | Report::Limited { .. }
        | Report::Chosen { .. } => false,
        Report::TrackerFailed { .. }
        | Report::TrackerAnswered { .. }
        | Report::NameFailed { .. }
        | Report::PeerJoined { .. }
        | Report::PeerLeft { .. }
        | Report::PeerBanned { .. } => true,
    }
}

/// Reports that wait for the user before news of peers are dropped.
const REPORTS_MAX: usize = 4096;
