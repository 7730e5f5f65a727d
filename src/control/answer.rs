//! What a running peer answers: requests in, engine asked, JSON out.
//!
//! ```text
//! {"v":1,"id":7,"ok":true,"result":{…}}
//! {"v":1,"id":7,"ok":false,"error":{"kind":"no_such_torrent","message":"…"}}
//! ```
//!
//! What needs more than the engine (files, the end of the process) leaves as [`Work`] for the
//! shell, which answers with [`done`] or [`refused`] later.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::api;
use super::choose::choose;
use super::request::{Addition, Command, Limiting, Request, VERSION};
use crate::base::choice::{PieceOrder, Priority};
use crate::base::id::TorrentId;
use crate::base::status::{Buffered, DiskStatus, LoopStatus, LoopWork};
use crate::base::time::Instant;
use crate::config::{RateLimits, StorageKind};
use crate::engine::view::{Direction, FileView, Heard, HostView, PeerView, TrackerView};
use crate::engine::{AddError, Engine};

/// What goes back with an answer.
pub type Id = Value;

/// What the shell knows and the engine does not.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    /// The open port.
    pub port: u16,
    /// The output folder.
    pub output: String,
    /// The state folder.
    pub state_dir: String,
    /// How long the process has run.
    pub uptime: Duration,
    /// How storage is.
    pub disk: DiskStatus,
    /// How bytes reach files where nothing else is said.
    pub storage: StorageKind,
    /// Torrents that are not mapped although they might have been.
    pub buffered: BTreeMap<TorrentId, Buffered>,
    /// How the loop is.
    pub turns: LoopStatus,
    /// The process is about to end.
    pub is_stopping: bool,
}

/// What came of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A line to send back.
    Line(String),
    /// Something for the shell to do; the id goes back with its answer.
    Work(Value, Work),
}

/// What the shell has to do itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Read a .torrent and add it.
    Add(Addition),
    /// End in good order.
    Shutdown,
}

/// Why a request is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("not a request: {0}")]
    Malformed(String),
    /// It is of another version.
    #[error("this peer does not speak version {0} of the control language, but {VERSION}")]
    Version(String),
    /// Its command is not known.
    #[error("no such command: {0}")]
    UnknownCommand(String),
    /// No torrent has that name.
    #[error("no torrent here is called \"{name}\", and no name or info hash begins with that")]
    NoSuchTorrent {
        /// What was asked for.
        name: String,
    },
    /// Several torrents have that name.
    #[error("\"{name}\" may be any of {count} torrents, such as {example}; write more of it")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many are meant.
        count: usize,
        /// Two of them.
        example: String,
    },
    /// A source cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// There are more clients than are served.
    #[error("too many clients at a time; try again")]
    Busy,
    /// The process is about to end.
    #[error("the peer is stopping")]
    Stopping,
}

impl Refusal {
    /// The word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Version(_) => "version",
            Self::UnknownCommand(_) => "unknown_command",
            Self::NoSuchTorrent { .. } => "no_such_torrent",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Unusable(_) => "unusable",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
        }
    }
}

impl From<AddError> for Refusal {
    fn from(error: AddError) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The line that says that a request is fulfilled.
pub fn done(id: &Value, result: &Value) -> String {
    format!(
        "{}\n",
        json!({ "v": VERSION, "id": id, "ok": true, "result": result })
    )
}

/// The line that says that a request is not fulfilled.
pub fn refused(id: &Value, refusal: &Refusal) -> String {
    let error = json!({ "kind": refusal.kind(), "message": refusal.to_string() });
    format!(
        "{}\n",
        json!({ "v": VERSION, "id": id, "ok": false, "error": error })
    )
}

/// Does what a line asks for, as far as the engine can.
pub fn answer(line: &[u8], engine: &mut Engine, shell: &Shell, now: Instant) -> Answer {
    let (id, outcome) = match Request::parse(line) {
        Ok(request) => (request.id, act(request.command, engine, shell, now)),
        Err((id, refusal)) => (id, Err(refusal)),
    };
    match outcome {
        Ok(Done::Result(result)) => Answer::Line(done(&id, &result)),
        Ok(Done::Work(work)) => Answer::Work(id, work),
        Err(refusal) => Answer::Line(refused(&id, &refusal)),
    }
}

enum Done {
    Result(Value),
    Work(Work),
}

fn act(
    command: Command,
    engine: &mut Engine,
    shell: &Shell,
    now: Instant,
) -> Result<Done, Refusal> {
    if shell.is_stopping && command.is_order() {
        return Err(Refusal::Stopping);
    }
    Ok(Done::Result(match command {
        Command::Status { from } => status(engine, shell, from, now),
        Command::Network { from } => network(engine, from, now),
        Command::Peers { torrent, from } => {
            let id = find(engine, &torrent, now)?;
            let peers = engine.peers(id, now).unwrap_or_default();
            let peers = peers.iter().enumerate().skip(from);
            let page = page(peers.map(|(place, view)| (place, peer(view))));
            listed(engine, id, "peers", page, now)
        }
        Command::Files { torrent, from } => {
            let id = find(engine, &torrent, now)?;
            let page = page(
                engine
                    .files(id, from)
                    .map(|(place, view)| (place, file(&view))),
            );
            listed(engine, id, "files", page, now)
        }
        Command::Choose { torrent, choosing } => {
            let id = find(engine, &torrent, now)?;
            choose(engine, id, &choosing, now)?;
            torrent_now(engine, shell, id, now)
        }
        Command::Trackers { torrent } => {
            let id = find(engine, &torrent, now)?;
            let trackers = engine.trackers(id).unwrap_or_default();
            let page = page(trackers.iter().map(tracker).enumerate());
            listed(engine, id, "trackers", page, now)
        }
        Command::Why { torrent } => {
            let id = find(engine, &torrent, now)?;
            let mut object = torrent_now(engine, shell, id, now);
            object["reasons"] = json!(engine.why(id, shell.disk, now));
            object
        }
        Command::Remove { torrent } => {
            let id = find(engine, &torrent, now)?;
            let mut object = torrent_now(engine, shell, id, now);
            engine.remove_torrent(id, now);
            object["state"] = json!("removed");
            object
        }
        Command::Pause { torrent } => {
            let id = find(engine, &torrent, now)?;
            engine.pause(id, now);
            torrent_now(engine, shell, id, now)
        }
        Command::Resume { torrent } => {
            let id = find(engine, &torrent, now)?;
            engine.resume(id, now);
            torrent_now(engine, shell, id, now)
        }
        Command::Limit(limiting) => limit(engine, shell, &limiting, now)?,
        Command::Add(addition) => return Ok(Done::Work(Work::Add(addition))),
        Command::Shutdown => return Ok(Done::Work(Work::Shutdown)),
    }))
}

/// Sets limits of rate, and says what they are now.
fn limit(
    engine: &mut Engine,
    shell: &Shell,
    limiting: &Limiting,
    now: Instant,
) -> Result<Value, Refusal> {
    let with = |before: RateLimits| RateLimits {
        up: limiting.up.unwrap_or(before.up),
        down: limiting.down.unwrap_or(before.down),
    };
    if let Some(torrent) = &limiting.torrent {
        let id = find(engine, torrent, now)?;
        let limits = with(engine.torrent_limits(id));
        engine.set_torrent_limits(id, limits, now);
        return Ok(torrent_now(engine, shell, id, now));
    }
    engine.set_limits(with(engine.limits()), now);
    if let Some(local) = limiting.local {
        engine.set_limits_local(local, now);
    }
    let mut object = limits(engine.limits());
    object["limit_local"] = json!(engine.limits_local());
    Ok(object)
}

/// Limits of rate; null is none.
fn limits(limits: RateLimits) -> Value {
    let shown = |rate: u64| (rate > 0).then_some(rate);
    json!({
        "up_limit_bytes_s": shown(limits.up),
        "down_limit_bytes_s": shown(limits.down),
    })
}

/// The torrent that `name` means: its name or info hash, or a beginning of one that no other has.
fn find(engine: &mut Engine, name: &str, now: Instant) -> Result<TorrentId, Refusal> {
    let by_hash = name.parse().ok();
    if let Some(id) = by_hash.and_then(|info_hash| engine.torrent_of(info_hash)) {
        return Ok(id);
    }
    let lower = name.to_ascii_lowercase();
    let ids: Vec<TorrentId> = engine.torrents().collect();
    let mut exact = Vec::new();
    let mut begun = Vec::new();
    for id in ids {
        let Some(snapshot) = engine.snapshot(id, now) else {
            continue;
        };
        let hash = snapshot.info_hash.to_string();
        let shown = format!("\"{}\" ({})", snapshot.name, snapshot.info_hash.short());
        if snapshot.name == name {
            exact.push((id, shown));
        } else if snapshot.name.starts_with(name) || hash.starts_with(&lower) {
            begun.push((id, shown));
        }
    }
    let meant = if exact.is_empty() { begun } else { exact };
    match &meant[..] {
        [] => Err(Refusal::NoSuchTorrent {
            name: name.to_owned(),
        }),
        [(id, _)] => Ok(*id),
        [(_, first), (_, second), ..] => Err(Refusal::Ambiguous {
            name: name.to_owned(),
            count: meant.len(),
            example: format!("{first} and {second}"),
        }),
    }
}

/// How the peer is, and a page of its torrents.
fn status(engine: &mut Engine, shell: &Shell, from: usize, now: Instant) -> Value {
    let ids: Vec<TorrentId> = engine.torrents().skip(from).collect();
    let torrents = ids.into_iter().enumerate();
    let torrents = torrents.map(|(place, id)| (from + place, torrent_now(engine, shell, id, now)));
    let (torrents, next) = page(torrents);
    let mut object = limits(engine.limits());
    let rest = json!({
        "limit_local": engine.limits_local(),
        "version": env!("CARGO_PKG_VERSION"),
        "port": shell.port,
        "output": shell.output,
        "state_dir": shell.state_dir,
        "uptime_s": shell.uptime.as_secs(),
        "connections": engine.conn_count(),
        "disk_waiting_bytes": shell.disk.waiting_bytes,
        "hash_backlog_bytes": shell.disk.hash_backlog_bytes,
        "loop": turns(&shell.turns),
        "torrents": torrents,
        "next": next,
    });
    add(&mut object, rest);
    object
}

/// Adds the values of `more` to those of `object`.
fn add(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

/// How long the turns of the loop held its thread.
fn turns(status: &LoopStatus) -> Value {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "turns": status.turns,
        "median_us": micros(status.median),
        "p99_us": micros(status.p99),
        "p999_us": micros(status.p999),
        "longest_us": micros(status.longest),
        "longest_in": status.longest_in.map(LoopWork::name),
        "over_50_ms": status.stalls,
        "over_50_ms_asleep": status.stalls_asleep,
    })
}

/// The figures of a torrent, with what was transferred in all runs, and how its files are written.
pub fn torrent_now(engine: &mut Engine, shell: &Shell, id: TorrentId, now: Instant) -> Value {
    let Some(snapshot) = engine.snapshot(id, now) else {
        return Value::Null;
    };
    let mut object = api::figures(&snapshot);
    let totals = engine.totals(id).unwrap_or_default();
    object["up_total_bytes"] = json!(totals.up);
    object["down_total_bytes"] = json!(totals.down);
    let buffered = shell.buffered.get(&id);
    object["storage"] = json!(match (shell.storage, buffered.map(|of| of.is_all)) {
        (StorageKind::Pwrite, _) | (_, Some(true)) => "pwrite",
        (_, Some(false)) => "map and pwrite",
        (_, None) => "map",
    });
    let reason = buffered.filter(|_| shell.storage != StorageKind::Pwrite);
    object["storage_reason"] = json!(reason.map(|of| of.reason.as_str()));
    add(&mut object, limits(engine.torrent_limits(id)));
    object
}

/// A page of the evpeers that are known, whatever they share.
fn network(engine: &Engine, from: usize, now: Instant) -> Value {
    let hosts = engine.network(now);
    let hosts = hosts.iter().enumerate().skip(from);
    let (hosts, next) = page(hosts.map(|(place, view)| (place, host(view))));
    json!({ "network": hosts, "next": next })
}

fn listed(
    engine: &mut Engine,
    id: TorrentId,
    key: &str,
    (items, next): (Vec<Value>, Option<usize>),
    now: Instant,
) -> Value {
    let mut object = json!({ key: items, "next": next });
    if let Some(snapshot) = engine.snapshot(id, now) {
        object["torrent"] = json!(snapshot.name);
        object["info_hash"] = json!(snapshot.info_hash.to_string());
        object["state"] = json!(snapshot.state.name());
    }
    let order = engine.choice(id).map(|choice| choice.order);
    object["sequential"] = json!(order == Some(PieceOrder::Sequential));
    object
}

/// As many items as a line has room for, and the place of the first that does not fit.
fn page(items: impl Iterator<Item = (usize, Value)>) -> (Vec<Value>, Option<usize>) {
    let mut page = Vec::new();
    let mut len = 0;
    for (place, item) in items {
        len += item.to_string().len();
        if len > PAGE_LEN_MAX && !page.is_empty() {
            return (page, Some(place));
        }
        page.push(item);
    }
    (page, None)
}

fn peer(view: &PeerView) -> Value {
    json!({
        "address": view.remote.to_string(),
        "listens": view.listens.map(|at| at.to_string()),
        "client": view.client,
        "peer_id": view.peer_id.to_string(),
        "evpeer": view.peer_id.is_evpeer(),
        "source": view.source.map(|source| source.name()),
        "incoming": view.direction == Direction::Incoming,
        "seed": view.is_seed,
        "pieces": view.pieces,
        "last_heard_s": view.silent_for.as_secs_f64(),
        "connected_s": view.age.as_secs(),
        "down_bytes_s": view.down_bytes_s,
        "up_bytes_s": view.up_bytes_s,
        "down_bytes": view.down_bytes,
        "up_bytes": view.up_bytes,
        "chokes_us": view.chokes_us,
        "wants_us": view.wants_us,
        "choked": view.choked,
        "wanted": view.wanted,
    })
}

fn host(view: &HostView) -> Value {
    json!({
        "address": view.addr.to_string(),
        "source": view.source.map(|source| source.name()),
        "here": view.is_here,
        "connected": view.silent_for.is_some(),
        "last_heard_s": view.silent_for.map(|silent| silent.as_secs_f64()),
    })
}

fn file(view: &FileView) -> Value {
    json!({
        "number": view.number,
        "path": view.path,
        "length": view.length,
        "done_bytes": view.done_bytes,
        "wanted": view.priority > Priority::Skip,
        "priority": view.priority.name(),
    })
}

fn tracker(view: &TrackerView) -> Value {
    let (status, peers, message) = match &view.heard {
        None => (None, None, None),
        Some(Heard::Answered { peers, warning }) => {
            (Some("answered"), Some(peers), warning.clone())
        }
        Some(Heard::Failed { message }) => (Some("failed"), None, Some(message.clone())),
    };
    json!({
        "url": view.url,
        "tier": view.tier,
        "status": status,
        "peers": peers,
        "message": message,
    })
}

/// Bytes of the items of one answer, but for a single item that is longer.
const PAGE_LEN_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests;
