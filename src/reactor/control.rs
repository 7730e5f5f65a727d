//! The control socket: a Unix socket in the state folder, served by the loop beside all else.
//!
//! ```text
//! listener ─▶ client: bytes ─▶ lines ─▶ control::answer ─▶ bytes to write
//!                                          └ a .torrent to read ─▶ helper thread ─▶ answer
//! ```
//!
//! Whoever may open the socket file may give orders: it is for its owner alone. Each pass of the
//! loop reads and answers a bounded amount. There are at most [`CONTROL_CLIENTS_MAX`] clients, and
//! one more takes the place of the one that was idle longest; one that does not read is dropped
//! when [`CONTROL_UNREAD_LEN_MAX`] bytes wait for it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::{Path, PathBuf};

use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry};
use rustix::fs::{FileType, Mode, OFlags, chmod, fchmod, lstat, unlink};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Reactor;
use super::accept::BOTH;
use super::slots::Source;
use crate::base::id::TorrentId;
use crate::base::limits::{CONTROL_CLIENTS_MAX, CONTROL_UNREAD_LEN_MAX};
use crate::base::time::Instant;
use crate::control::answer::{self, Answer, Id, Refusal, Shell, Work};
use crate::control::choose;
use crate::control::lines::Lines;
use crate::control::request::Addition;
use crate::engine::{AddError, TorrentSpec};

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct Control {
    listener: UnixListener,
    place: Place,
    is_acceptable: bool,
    clients: Vec<Option<Client>>,
    /// Counts what clients do, to tell who was idle longest.
    uses: u64,
    /// Additions whose .torrent is being read.
    additions: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    lines: Lines,
    out: Vec<u8>,
    is_readable: bool,
    is_writable: bool,
    /// It will send no more, or nothing that we read.
    has_ended: bool,
    /// It waits for the answer to an addition; what it sends meanwhile waits too.
    is_waiting: bool,
    /// Names it: places are used again.
    born: u64,
    used: u64,
}

/// Who asked for an addition, and for what.
#[derive(Debug)]
struct Waiting {
    place: usize,
    born: u64,
    id: Id,
    addition: Addition,
}

/// Where a socket file is, as the system can be told.
///
/// The names of sockets are short (108 bytes on Linux). A longer one is reached through the open
/// folder, where the system has `/proc`.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    _folder: Option<OwnedFd>,
}

impl Place {
    /// The control socket in a state folder.
    ///
    /// # Errors
    /// The folder cannot be opened, or the name is too long for this system.
    pub fn of(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(NAME);
        if path.as_os_str().len() <= PATH_LEN_MAX {
            return Ok(Self {
                path,
                _folder: None,
            });
        }
        if !cfg!(target_os = "linux") {
            let text = format!(
                "the path has {} B, and {PATH_LEN_MAX} B are the limit: choose a shorter one with \
                 --state-dir",
                path.as_os_str().len()
            );
            return Err(io::Error::new(ErrorKind::InvalidFilename, text));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(state_dir, flags, Mode::empty())?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        Ok(Self {
            path: format!("/proc/self/fd/{number}/{NAME}").into(),
            _folder: Some(folder),
        })
    }

    /// Whether the name had to be shortened.
    pub fn is_shortened(&self) -> bool {
        self._folder.is_some()
    }

    /// Connects to the peer that serves the socket; blocks while that has no time.
    ///
    /// # Errors
    /// The system's: nobody serves it, or we may not.
    pub fn connect(&self) -> io::Result<net::UnixStream> {
        net::UnixStream::connect(&self.path)
    }

    /// Makes the socket, in the place of one that nobody serves.
    fn bind(&self) -> io::Result<UnixListener> {
        self.make_way()?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Before it has a name (Linux), and for other systems right after.
        fchmod(&socket, OWNER_ONLY).or_else(|errno| match cfg!(target_os = "linux") {
            true => Err(errno),
            false => Ok(()),
        })?;
        socket.bind(&SockAddr::unix(&self.path)?)?;
        chmod(&self.path, OWNER_ONLY)?;
        socket.listen(BACKLOG)?;
        Ok(UnixListener::from_std(socket.into()))
    }

    /// Removes the socket of a process that is gone.
    fn make_way(&self) -> io::Result<()> {
        match lstat(&self.path) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => {
                return Err(io::Error::other(
                    "something that is no socket is in its place",
                ));
            }
            Ok(_) => {}
        }
        match UnixStream::connect(&self.path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                unlink(&self.path).map_err(Into::into)
            }
            Ok(_) | Err(_) => Err(io::Error::other("another process serves it")),
        }
    }
}

impl Control {
    /// Opens the socket in `state_dir`.
    pub fn open(state_dir: &Path, registry: &Registry) -> io::Result<Self> {
        let place = Place::of(state_dir)?;
        let mut listener = place.bind()?;
        registry.register(&mut listener, Source::Control.token(), Interest::READABLE)?;
        if place.is_shortened() {
            log::info!(
                "control socket has a long name, other programs than evpeer ctl may not reach it"
            );
        }
        Ok(Self {
            listener,
            place,
            is_acceptable: false,
            clients: Vec::new(),
            uses: 0,
            additions: BTreeMap::new(),
        })
    }

    /// An event says that somebody wants to connect.
    pub fn set_acceptable(&mut self) {
        self.is_acceptable = true;
    }

    /// Notes what an event says of the client in `place`; it may be another one by now.
    pub fn note(&mut self, place: usize, event: &Event) {
        if let Some(Some(client)) = self.clients.get_mut(place) {
            client.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            client.is_writable |= event.is_writable() || event.is_write_closed();
        }
    }

    /// Whether a turn now would get something done.
    pub fn has_work(&self) -> bool {
        let mut clients = self.clients.iter().flatten();
        self.is_acceptable || clients.any(Client::has_work)
    }

    fn accept(&mut self, registry: &Registry) {
        for _ in 0..ACCEPTS_MAX {
            if !self.is_acceptable {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.is_acceptable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of descriptors, most likely: the next event tries again.
                    log::warn!("control client not accepted error={e}");
                    self.is_acceptable = false;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream, registry: &Registry) {
        let free = self.clients.iter().position(Option::is_none);
        let place = match free {
            Some(place) => place,
            None if self.clients.len() < CONTROL_CLIENTS_MAX => {
                self.clients.push(None);
                self.clients.len() - 1
            }
            None => self.dismiss_idlest(registry),
        };
        let token = Source::ControlClient(place).token();
        if let Err(e) = registry.register(&mut stream, token, BOTH) {
            log::warn!("control client not accepted error={e}");
            return;
        }
        self.uses += 1;
        self.clients[place] = Some(Client {
            stream,
            lines: Lines::default(),
            out: Vec::new(),
            is_readable: true,
            is_writable: true,
            has_ended: false,
            is_waiting: false,
            born: self.uses,
            used: self.uses,
        });
    }

    /// Makes room by dropping the client that was idle longest; returns its place.
    fn dismiss_idlest(&mut self, registry: &Registry) -> usize {
        let clients = self.clients.iter().enumerate();
        let used = |(place, client): (usize, &Option<Client>)| Some((client.as_ref()?.used, place));
        let (_, place) = clients
            .filter_map(used)
            .min()
            .expect("all places are taken");
        if let Some(client) = &mut self.clients[place] {
            let line = answer::refused(&Default::default(), &Refusal::Busy);
            client.out.extend_from_slice(line.as_bytes());
            client.write(); // if it is read or not
        }
        self.drop_client(place, registry);
        place
    }

    fn drop_client(&mut self, place: usize, registry: &Registry) {
        if let Some(mut client) = self.clients[place].take() {
            // Closing takes it out of the queue of events in any case.
            let _ = registry.deregister(&mut client.stream);
        }
    }

    /// The client in `place`, if it is still the one that was `born` then.
    fn client(&mut self, place: usize, born: u64) -> Option<&mut Client> {
        let client = self.clients.get_mut(place)?.as_mut();
        client.filter(|client| client.born == born)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Best effort: whoever comes next replaces what is left.
        let _ = unlink(&self.place.path);
    }
}

impl Client {
    fn has_work(&self) -> bool {
        let may_read = self.is_readable && !self.has_ended && self.lines.room() > 0;
        let may_answer = !self.is_waiting && self.lines.has_line();
        (may_read && !self.is_waiting) || may_answer || (self.is_writable && !self.out.is_empty())
    }

    /// Reads what is there, as far as a line may be long and a turn may take.
    fn read(&mut self, buffer: &mut [u8]) {
        let mut left = READ_LEN_MAX;
        while self.is_readable && !self.has_ended && left > 0 && self.lines.room() > 0 {
            let len = buffer.len().min(left).min(self.lines.room());
            match self.stream.read(&mut buffer[..len]) {
                Ok(0) => self.has_ended = true,
                Ok(n) => {
                    self.lines.push(&buffer[..n]);
                    left -= n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.is_readable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.fail(),
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn write(&mut self) {
        let mut done = 0;
        while self.is_writable && done < self.out.len() {
            match self.stream.write(&self.out[done..]) {
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.fail(),
            }
        }
        self.out.drain(..done);
    }

    /// The stream is of no use any more.
    fn fail(&mut self) {
        self.has_ended = true;
        self.lines = Lines::default();
        self.out = Vec::new();
        self.is_waiting = false;
    }

    /// Whether nothing is left to do for it, or it does not read.
    fn is_over(&self) -> bool {
        let is_done = self.has_ended && !self.is_waiting && !self.lines.has_line();
        (is_done && self.out.is_empty()) || self.out.len() > CONTROL_UNREAD_LEN_MAX
    }
}

impl Reactor {
    /// Serves the control socket.
    pub(super) fn control_turn(&mut self, now: Instant) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        control.accept(self.poll.registry());
        for place in 0..control.clients.len() {
            if control.clients[place]
                .as_ref()
                .is_some_and(Client::has_work)
            {
                control.uses += 1;
                self.client_turn(&mut control, place, now);
            }
            if control.clients[place].as_ref().is_some_and(Client::is_over) {
                control.drop_client(place, self.poll.registry());
            }
        }
        self.control = Some(control);
    }

    fn client_turn(&mut self, control: &mut Control, place: usize, now: Instant) {
        let Some(client) = &mut control.clients[place] else {
            return;
        };
        client.used = control.uses;
        if !client.is_waiting {
            client.read(&mut self.receive_buffer);
        }
        for _ in 0..LINES_MAX {
            if client.is_waiting {
                break;
            }
            let line = match client.lines.poll() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(too_long) => {
                    let refusal = Refusal::Malformed(too_long.to_string());
                    let line = answer::refused(&Default::default(), &refusal);
                    client.out.extend_from_slice(line.as_bytes());
                    client.lines = Lines::default();
                    client.has_ended = true;
                    break;
                }
            };
            let shell = self.shell(now);
            let answer = answer::answer(&line, &mut self.engine, &shell, now);
            self.run_actions(now);
            match answer {
                Answer::Line(line) => client.out.extend_from_slice(line.as_bytes()),
                Answer::Work(id, Work::Shutdown) => {
                    self.is_stop_wanted = true;
                    let line = answer::done(&id, &Default::default());
                    client.out.extend_from_slice(line.as_bytes());
                }
                Answer::Work(id, Work::Add(addition)) => {
                    let waiting = Waiting {
                        place,
                        born: client.born,
                        id,
                        addition,
                    };
                    match self.load_torrent(waiting.addition.source.clone().into()) {
                        Some(ticket) => {
                            client.is_waiting = true;
                            control.additions.insert(ticket, waiting);
                        }
                        None => {
                            let line = answer::refused(&waiting.id, &Refusal::Stopping);
                            client.out.extend_from_slice(line.as_bytes());
                        }
                    }
                }
            }
            if client.out.len() > CONTROL_UNREAD_LEN_MAX {
                break;
            }
        }
        client.write();
    }

    /// A .torrent was read for a client.
    pub(super) fn torrent_loaded(
        &mut self,
        ticket: u64,
        spec: Result<TorrentSpec, String>,
        now: Instant,
    ) {
        let Some(waiting) = self
            .control
            .as_mut()
            .and_then(|c| c.additions.remove(&ticket))
        else {
            return;
        };
        let added: Result<TorrentId, Refusal> = match spec {
            Ok(mut spec) => {
                spec.peers = waiting.addition.peers;
                spec.trackers = waiting.addition.trackers;
                match choose::chosen(&spec.meta, &waiting.addition.choosing) {
                    Ok(choice) => {
                        spec.choice = choice;
                        let added = self.add_torrent(spec);
                        added.map_err(|error: AddError| error.into())
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Err(message) => Err(Refusal::Unusable(message)),
        };
        let shell = self.shell(now);
        let line = match added {
            Ok(id) => {
                let object = answer::torrent_now(&mut self.engine, &shell, id, now);
                answer::done(&waiting.id, &object)
            }
            Err(refusal) => answer::refused(&waiting.id, &refusal),
        };
        let control = self.control.as_mut();
        let client = control.and_then(|c| c.client(waiting.place, waiting.born));
        if let Some(client) = client {
            client.is_waiting = false;
            client.out.extend_from_slice(line.as_bytes());
        }
    }

    fn shell(&self, now: Instant) -> Shell {
        let (output, state_dir) = self.folders();
        Shell {
            port: self.port,
            output,
            state_dir,
            uptime: now - Instant::ZERO,
            disk: self.storage.status(),
            storage: self.storage.kind(),
            buffered: self.storage.buffered(),
            turns: self.meter.status(),
            is_stopping: self.is_stopping,
        }
    }
}

/// The socket's name in the state folder.
const NAME: &str = "control.sock";
/// Longest path of a socket, bytes: 108 with a zero on Linux, 104 elsewhere.
const PATH_LEN_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);
/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;
/// Clients that are accepted in a pass of the loop at most.
const ACCEPTS_MAX: u32 = 16;
/// Bytes that are read from one client in a pass of the loop at most.
const READ_LEN_MAX: usize = 64 * 1024;
/// Lines of one client that are answered in a pass of the loop at most.
const LINES_MAX: u32 = 4;
