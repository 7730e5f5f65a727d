//! The shell around the engine: owns poll, sockets, clock, storage and helper threads, turns
//! readiness into inputs of the engine, and its actions into system calls. Decides nothing.
//!
//! ```text
//!            events                     inputs
//! poll ──▶ slots, ready ──▶ turns ──────────────▶ engine
//!  ▲                          │ store, lend          │ actions
//!  │ Waker                    ▼                      ▼
//! lanes ◀──── jobs ──── storage ◀──────────── sockets, storage, lanes, reports
//! ```
//!
//! One pass of the loop is [`Reactor::turn`]. Every part of it has a budget of bytes or events
//! (see `ready`); what is left over waits for the next pass, which then polls without waiting.
//!
//! | file      | owns |
//! |-----------|------|
//! | `slots`   | the sockets, by connection; what a token stands for |
//! | `ready`   | who is next, and budgets |
//! | `stream`  | turns of a connection: connect, read, write |
//! | `dial`    | streams that are waited for |
//! | `accept`  | listening sockets in service |
//! | `udp`     | datagrams, in batches |
//! | `groups`  | multicast groups of local discovery |
//! | `interfaces` | this machine's addresses |
//! | `listen`  | opening the one port |
//! | `start`   | what a start needs of the system |
//! | `lanes`   | helper threads |
//! | `control` | the control socket |
//! | `memory`  | what survives the process |
//! | `meter`   | how long each pass holds the thread |
//! | `actions` | carrying out what engine and storage ask for |

mod accept;
mod actions;
mod clock;
pub mod control;
mod dial;
mod groups;
mod hash;
mod interfaces;
mod lanes;
pub mod listen;
mod memory;
mod meter;
mod os;
mod ready;
mod slots;
mod start;
mod stream;
mod udp;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Waker};
use signal_hook_mio::v1_0::Signals;

use crate::base::burst::take_first;
use crate::base::id::TorrentId;
use crate::base::limits;
use crate::base::plan::WritePlan;
use crate::base::status::LoopWork;
use crate::base::time::Instant;
use crate::config::Config;
use crate::engine::action::{Report, Snapshot};
use crate::engine::{AddError, Engine, TorrentSpec};
use crate::storage::reserve::Reserve;
use crate::storage::{Access, Storage, StorageOptions};

pub use dial::dial;
pub use memory::Keeping;
pub use start::StartError;

use accept::Acceptor;
use actions::Lanes;
use clock::Clock;
use control::Control;
use groups::Groups;
use hash::CheckShare;
use interfaces::Known;
use lanes::LaneDied;
use listen::Port;
use memory::Memory;
use meter::Meter;
use ready::{Ready, TURN_LEN_MAX};
use slots::{Slots, Source};
use start::{limit_conns, open_port, refused, secrets, watch_signals};
use udp::{Batch, Udp};

/// Runs one engine over real sockets and files, on the thread that calls [`Reactor::turn`].
pub struct Reactor {
    engine: Engine,
    storage: Storage,
    clock: Clock,
    meter: Meter,
    poll: Poll,
    events: Events,
    lanes: Lanes,
    signals: Option<Signals>,
    signals_seen: u32,
    port: u16,
    bind: Option<IpAddr>,
    acceptor: Acceptor,
    udp: Vec<Udp>,
    groups: Groups,
    interfaces: Known,
    slots: Slots,
    /// Connections with something to do now.
    ready: Ready,
    /// Connections with bytes to read, while storage has enough on its plate.
    paused: Ready,
    /// Connections whose next block to send is not in memory yet.
    parked: Ready,
    /// Whether the last pass left something to hash that does not wait for quiet times.
    has_hash_work: bool,
    /// Whether data on disk could be checked.
    has_checks: bool,
    check_share: CheckShare,
    receive_buffer: Box<[u8]>,
    batch: Batch,
    plan: WritePlan,
    reports: VecDeque<Report>,
    waker: Arc<Waker>,
    control: Option<Control>,
    memory: Option<Memory>,
    /// Somebody asked for the end of the process.
    is_stop_wanted: bool,
    /// The end has begun.
    is_stopping: bool,
}

/// What a reactor is made of.
#[derive(Clone, Debug)]
pub struct ReactorOptions {
    /// What the user set.
    pub config: Config,
    /// The folder of the data.
    pub root: PathBuf,
    /// Whether the data may be written.
    pub access: Access,
    /// The folder of what outlives the process; without one nothing does.
    pub state_dir: Option<PathBuf>,
    /// Whether SIGINT and SIGTERM are counted instead of ending the process.
    pub watch_signals: bool,
}

/// Why the loop cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReactorError {
    /// The system's readiness queue fails.
    #[error("cannot wait for events: {0}")]
    Poll(io::Error),
    /// A helper thread is gone.
    #[error(transparent)]
    Lane(#[from] LaneDied),
}

impl Reactor {
    /// Opens the port and starts the helper threads; nothing is read or written before the
    /// first torrent is added.
    ///
    /// # Errors
    /// See [`StartError`]; its text names address and remedy.
    pub fn new(options: ReactorOptions) -> Result<Self, StartError> {
        let mut config = options.config;
        limit_conns(&mut config);
        let bind = config.bind;
        let secrets = secrets().map_err(StartError::Entropy)?;
        let port = open_port(&config)?;

        let poll = Poll::new().map_err(refused("an event queue"))?;
        let waker = Waker::new(poll.registry(), Source::Waker.token());
        let waker = Arc::new(waker.map_err(refused("an event queue"))?);
        let reserve = options.state_dir.as_deref().map(Reserve::of);
        let lanes =
            Lanes::start(&waker, reserve.unwrap_or_default()).map_err(refused("a thread"))?;
        let signals = if options.watch_signals {
            Some(watch_signals(&poll).map_err(refused("signals"))?)
        } else {
            None
        };
        let Port { number, tcp, udp } = port;
        let acceptor = Acceptor::new(tcp, poll.registry()).map_err(refused("an event queue"))?;
        let udp = (0..).zip(udp);
        let udp = udp.map(|(place, udp)| Udp::new(udp, Source::Udp(place), poll.registry()));
        let udp = udp.collect::<io::Result<Vec<Udp>>>();
        let udp = udp.map_err(refused("an event queue"))?;

        let groups = if config.lsd {
            Groups::open(bind, poll.registry())
        } else {
            Groups::default()
        };

        let mut storage = Storage::new(StorageOptions {
            root: options.root,
            kind: config.storage,
            access: options.access,
            windows_len_max: limits::WINDOWS_LEN_MAX,
            state_dir: options.state_dir,
        });
        storage.watch_disks();
        let clock = Clock::start();
        let mut engine = Engine::new(config, secrets, clock.now());
        engine.clock_told(clock::unix_ms(), clock.now());
        engine.listening(number, clock.now());
        let mut reactor = Self {
            engine,
            storage,
            clock,
            meter: Meter::new(),
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            lanes,
            signals,
            signals_seen: 0,
            port: number,
            bind,
            acceptor,
            udp,
            groups,
            interfaces: Known::default(),
            slots: Slots::default(),
            ready: Ready::default(),
            paused: Ready::default(),
            parked: Ready::default(),
            has_hash_work: false,
            has_checks: false,
            check_share: CheckShare::new(Instant::ZERO),
            receive_buffer: vec![0; TURN_LEN_MAX].into(),
            batch: Batch::new(),
            plan: WritePlan::default(),
            reports: VecDeque::new(),
            waker,
            control: None,
            memory: None,
            is_stop_wanted: false,
            is_stopping: false,
        };
        reactor.look_at_interfaces(clock.now());
        reactor.run_actions(clock.now());
        log::info!("listening port={number}");
        Ok(reactor)
    }

    /// Takes up a torrent.
    ///
    /// # Errors
    /// The engine's, for instance that it is there already.
    pub fn add_torrent(&mut self, spec: TorrentSpec) -> Result<TorrentId, AddError> {
        let now = self.clock.now();
        let kept = spec.clone();
        let added = self.engine.add_torrent(spec, now);
        if added.is_ok() {
            self.keep_torrent(&kept);
        }
        self.settle_call(now);
        added
    }

    /// Begins to end in good order; [`Reactor::is_finished`] tells when that is done.
    pub fn shutdown(&mut self) {
        let now = self.clock.now();
        self.remember(now); // before those who are connected go
        self.is_stopping = true;
        self.engine.shutdown(now);
        self.settle_call(now);
    }

    /// Whether the shutdown is through, as far as others are concerned.
    pub fn is_finished(&self) -> bool {
        self.engine.is_finished(self.clock.now())
    }

    /// A torrent's figures; `None` if there is no such torrent.
    pub fn snapshot(&mut self, torrent: TorrentId) -> Option<Snapshot> {
        self.engine.snapshot(torrent, self.clock.now())
    }

    /// The next news for the user.
    pub fn poll_report(&mut self) -> Option<Report> {
        take_first(&mut self.reports)
    }

    /// The port that is open, also if any was asked for.
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// How often SIGINT or SIGTERM came. Several within one pass count once.
    pub fn signals_seen(&self) -> u32 {
        self.signals_seen
    }

    /// Whether a client of the control socket asked for the end of the process.
    pub fn is_stop_wanted(&self) -> bool {
        self.is_stop_wanted
    }

    /// The engine, for questions that need no answer in actions.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Waits for something to happen, `max_wait` at most, and deals with it.
    ///
    /// Returns early whenever there was an event; call it in a loop.
    ///
    /// # Errors
    /// The loop cannot go on; see [`ReactorError`].
    pub fn turn(&mut self, max_wait: Duration) -> Result<(), ReactorError> {
        self.wait(max_wait).map_err(ReactorError::Poll)?;
        let now = self.clock.now();
        self.take_lane_results(now)?;
        self.spent_on(LoopWork::Storage);
        self.accept_turns(now);
        self.udp_turns(now);
        self.group_turns(now);
        self.spent_on(LoopWork::Sockets);
        self.control_turn(now);
        self.spent_on(LoopWork::Control);
        let streams_began = self.clock.now();
        let (received, sent) = self.conn_turns();
        let streams_took = self.clock.now() - streams_began;
        self.spent_on(LoopWork::Sockets);
        self.hash(received, sent, streams_took);
        let now = self.clock.now();
        self.take_storage_events(now);
        self.spent_on(LoopWork::Storage);
        if self.engine.next_deadline().is_some_and(|at| at <= now) {
            self.engine.timers_fired(now);
            self.run_actions(now);
        }
        self.look_at_interfaces(now);
        self.remember_due(now);
        self.spent_on(LoopWork::Timers);
        // Last, as a job may take the windows that a connection was promised for its turn.
        self.storage.tick(now);
        self.submit_jobs();
        self.spent_on(LoopWork::Storage);
        self.meter.slept(self.storage.take_time_asleep());
        Ok(())
    }

    fn spent_on(&mut self, work: LoopWork) {
        self.meter.lap(work, self.clock.now());
    }

    /// Does what a call from outside led to, so that the next pass may wait for events.
    fn settle_call(&mut self, now: Instant) {
        self.run_actions(now);
        self.take_storage_events(now);
        self.submit_jobs();
    }

    /// Polls, and notes in the slots what is ready.
    fn wait(&mut self, max_wait: Duration) -> io::Result<()> {
        if !self.is_reading_paused() {
            self.paused.move_to(&mut self.ready);
        }
        let timeout = self.timeout(max_wait);
        self.meter.end(self.clock.now());
        let polled = self.poll.poll(&mut self.events, Some(timeout));
        self.meter.begin(self.clock.now());
        match polled {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        }
        for event in &self.events {
            match Source::from_token(event.token()) {
                Source::Conn(conn) => {
                    if let Some(stream) = self.slots.get_mut(conn) {
                        note(stream, event);
                        self.ready.push(conn);
                    }
                }
                Source::Waker => {} // results are looked for in every pass
                Source::Signals => {
                    let signals = self.signals.iter_mut().flat_map(Signals::pending);
                    self.signals_seen += signals.count() as u32;
                }
                Source::Listener(place) => self.acceptor.set_acceptable(place),
                Source::Udp(place) => self.udp[place].set_readable(),
                Source::Group(place) => self.groups.set_readable(place),
                Source::Control => {
                    if let Some(control) = &mut self.control {
                        control.set_acceptable();
                    }
                }
                Source::ControlClient(place) => {
                    if let Some(control) = &mut self.control {
                        control.note(place, event);
                    }
                }
            }
        }
        Ok(())
    }

    /// How long to wait for events: not at all while work is left.
    fn timeout(&self, max_wait: Duration) -> Duration {
        let has_work = !self.ready.is_empty()
            || self.has_hash_work
            || self.acceptor.has_work()
            || self.udp.iter().any(Udp::is_readable)
            || self.groups.is_readable()
            || self.control.as_ref().is_some_and(Control::has_work);
        if has_work {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let deadlines = [
            self.engine.next_deadline(),
            self.storage.next_deadline(),
            self.acceptor.resumes_at(),
            self.memory_due(),
            self.checks_due(now),
        ];
        deadlines
            .into_iter()
            .flatten()
            .chain([self.interfaces.due()])
            .map(|at| at.since(now))
            .fold(max_wait, Duration::min)
    }

    /// Whether payload has to wait for storage. Only while something is under way that will end
    /// the pause by itself: results of helper threads, or hashing in the next passes.
    fn is_reading_paused(&self) -> bool {
        let status = self.storage.status();
        (status.waiting_bytes > limits::WAITING_LEN_MAX && self.lanes.is_disk_busy())
            || (status.hash_backlog_bytes > limits::HASH_BACKLOG_MAX && self.has_hash_work)
    }

    /// Does what storage's events say.
    fn take_storage_events(&mut self, now: Instant) {
        while let Some(event) = self.storage.poll_event() {
            self.storage_event(event, now);
            self.run_actions(now);
        }
    }
}

/// Notes in `stream` what `event` says. Errors are found by reading and writing.
fn note(stream: &mut slots::Stream, event: &Event) {
    stream.is_read_closed |= event.is_read_closed();
    stream.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
    stream.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
}

/// Events taken from the system at a time; further ones wait there.
const EVENTS_MAX: usize = 1024;
