//! What a start needs of the system: port, descriptors, signals, secrets.

use std::io;

use mio::{Interest, Poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::listen::{self, ListenError, Port};
use super::os;
use super::slots::Source;
use crate::base::id::PeerId;
use crate::base::limits;
use crate::config::Config;
use crate::engine::Secrets;

/// Why a reactor cannot start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Peer ids and keys that others can guess are not acceptable.
    #[error("the system gives no random numbers: {0}")]
    Entropy(getrandom::Error),
    /// Something that every process gets, unless a limit is reached.
    #[error("the system refuses {what}: {source}; raise the limit on open files or threads")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the port that is wanted; where any will do, that of the last run if it is free.
pub(super) fn open_port(config: &Config) -> Result<Port, ListenError> {
    if config.port == 0
        && config.port_before != 0
        && let Ok(port) = listen::open(config.port_before, config.bind)
    {
        return Ok(port);
    }
    listen::open(config.port, config.bind)
}

/// Counts SIGINT and SIGTERM from now on.
pub(super) fn watch_signals(poll: &Poll) -> io::Result<Signals> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let token = Source::Signals.token();
    poll.registry()
        .register(&mut signals, token, Interest::READABLE)?;
    Ok(signals)
}

/// Raises the soft limit of descriptors, and lowers the connections to what it allows: those to
/// peers come first.
pub(super) fn limit_conns(config: &mut Config) {
    let (wanted, http) = (
        u64::from(config.conns_max),
        u64::from(config.http_conns_max),
    );
    let needed = wanted + http + DESCRIPTORS_OTHER;
    let limit = os::raise_descriptor_limit(needed);
    if limit >= needed {
        return;
    }
    let allowed = limit.saturating_sub(DESCRIPTORS_OTHER).max(limit / 3);
    let conns = allowed.min(wanted);
    let left = limit.saturating_sub(DESCRIPTORS_OTHER + conns);
    let http = left.max(limit / 16).min(http);
    if conns < wanted {
        log::warn!("fewer connections than wanted wanted={wanted} allowed={conns} nofile={limit}");
    }
    // Neither is more than what it was.
    (config.conns_max, config.http_conns_max) = (conns as u32, http as u32);
}

/// What only this process knows, from the system's generator.
pub(super) fn secrets() -> Result<Secrets, getrandom::Error> {
    let mut id = [0; 12];
    getrandom::fill(&mut id)?;
    let mut tracker = [0; 16];
    getrandom::fill(&mut tracker)?;
    Ok(Secrets {
        rng_seed: getrandom::u64()?,
        peer_id: PeerId::ours(id),
        key: getrandom::u32()?,
        tracker,
    })
}

/// Says what the system refused at the start.
pub(super) fn refused(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

/// Descriptors for everything but connections to peers and HTTP connections: streams that
/// have not said what they are, files, the port, standard streams.
const DESCRIPTORS_OTHER: u64 = limits::UNDECIDED_MAX as u64 + 256;
