//! A BitTorrent peer for the LAN: client and server in one binary, on one port, in one thread.
//!
//! The one idea of this house: **a pure core that is told the time and the bytes, and answers
//! with actions; a thin shell that owns sockets, files and the clock**. The same core runs under
//! the reactor (real sockets, real files) and under the simulator (virtual time, memory).
//!
//! ```text
//!    sockets   timers   files               virtual clock   pipes   disk
//!       │        │        │                       │           │       │
//!    ┌──▼────────▼────────▼──┐  same calls  ┌─────▼───────────▼───────▼──┐
//!    │   reactor + storage   │ ◀──────────▶ │        sim (World)         │
//!    └───────────┬───────────┘              └─────────────┬──────────────┘
//!                ▼   inputs(bytes, now)  ▲ actions        ▼
//!  ┌──────────────────────────────────────────────────────────────────────┐
//!  │ control       requests and answers, figures, the session: as JSON    │
//!  │ engine        connections, timers; carries values between siblings   │
//!  │ swarm (exchange)  │  tracker (both sides)  │  discovery (pex, lsd)   │
//!  │ meta          metainfo, geometry, safe paths, create                 │
//!  │ wire          formats: bytes ↔ values                                │
//!  │ base          ids, Instant, bitfield, timers, rng, limits            │
//!  └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # The law
//!
//! Everything from [`base`] to control is *pure*: no file, socket, thread, clock or
//! environment, no iteration over hash tables, randomness only from [`base::rng`]. A layer knows
//! those below it; [`swarm`], [`tracker`] and [`discovery`] never know each other; [`engine`] and
//! [`storage`] never see each other and share the values [`Slot`](base::slot::Slot),
//! [`WritePlan`](base::plan::WritePlan) and [`Verdict`](base::verdict::Verdict).
//! `tests/tidy.rs` reads every path in the sources and keeps this true.
//!
//! # Walk one: a block, from socket to `have`
//!
//! 1. [`reactor`]: a socket is readable; the connection joins the ring of those with work and
//!    gets a turn, in which the one receive buffer is filled.
//! 2. [`Engine::received`](engine::Engine::received) takes one step of the bytes: the
//!    [`Decoder`](wire::decoder::Decoder) says "so many bytes of payload of this block", and
//!    [`Swarm::payload`](swarm::Swarm::payload) where they go: the block's one writer stores
//!    straight away.
//! 3. [`Storage::store`](storage::Storage::store) copies them, once, into the window of the file.
//! 4. The block is whole: [`Picker::block_done`](swarm::picker::Picker::block_done) marks it, the
//!    peer's queue of requests is filled up, and with the last block of a piece
//!    [`Effect::Check`](swarm::Effect::Check) leaves.
//! 5. [`Storage::work`](storage::Storage::work) hashes up to four pieces at once; the
//!    [`Verdict`](base::verdict::Verdict) comes back through
//!    [`Engine::piece_checked`](engine::Engine::piece_checked).
//! 6. A good piece is set and logged; every connection hears of it in its next
//!    [`write_plan`](engine::Engine::write_plan). For a bad one
//!    [`Blame`](swarm::blame::Blame) finds who sent it.
//!
//! # Walk two: an announce, from a stranger's request to a new peer
//!
//! 1. [`reactor`] accepts a stream on the peer port. Its first bytes are those of an HTTP request,
//!    so the [`engine`] makes it one of [`engine::http`]; a
//!    [`RequestReader`](wire::request::RequestReader) takes what comes, within limits of size and
//!    time.
//! 2. [`Server::http`](tracker::server::Server::http) answers; what comes by UDP takes the same way
//!    through [`Engine::datagram`](engine::Engine::datagram) and
//!    [`Server::datagram`](tracker::server::Server::datagram), which believes nobody who has not
//!    shown a connection id.
//! 3. The announcer is entered in the [`Registry`](tracker::registry::Registry), with all that were
//!    seen in handshakes; the answer is a sample of those whom the asker can reach.
//! 4. It becomes one of the [`Candidates`](discovery::candidates::Candidates) too: the torrent's
//!    timer takes those that are due, the [`Gate`](discovery::gate::Gate) permitting, and dials,
//!    until the torrent has enough peers.
//! 5. Peers that are connected are on the [`Roster`](discovery::pex::Roster), and so known to all
//!    others within a minute (BEP 11); on the links [`Lsd`](discovery::lsd::Lsd) calls them out
//!    (BEP 14).
//!
//! # Walk three: an announce of ours
//!
//! 1. [`tracker::client::Client`] says that an announce is due, to which tracker, with which
//!    event; [`engine::Action::Resolve`] asks for the address of its name.
//! 2. [`Engine::resolved`](engine::Engine::resolved) opens a stream like any other; the request
//!    of [`wire::url`] is what waits to be written.
//! 3. The response is parsed as it comes, within limits; its peers become
//!    [`Candidates`](discovery::candidates::Candidates).
//!
//! # Walk four: what outlives the process
//!
//! 1. A peer joins, or a torrent changes its state: the [`reactor`] hears of it in a
//!    [`Report`](engine::action::Report), and soon after asks
//!    [`Engine::remembered`](engine::Engine::remembered) of each torrent.
//! 2. [`Session::update`](config::session::Session::update) keeps those who were seen for a month;
//!    [`control::session`] makes text of it.
//! 3. If that has changed, a helper thread replaces the file as a whole with
//!    [`storage::keep`]; the .torrent of each torrent lies beside it. On a full disk
//!    [`storage::reserve`] has room for them.
//! 4. The next start, under the lock of [`storage::state`], reads it, and
//!    [`Engine::recall`](engine::Engine::recall) hands the peers to the
//!    [`Candidates`](discovery::candidates::Candidates) again.
//!
//! # Walk five: a new peer, to every evpeer
//!
//! 1. Somebody is met or announced: [`engine`] tells the
//!    [`Broadcast`](tracker::broadcast::Broadcast), which gives the news an epoch. Evpeers speak
//!    for themselves.
//! 2. Its news leave in the same turn, or in the next window, as
//!    [`ev_peers`](wire::ev_peers) messages on the links that the
//!    [`Overlay`](discovery::overlay::Overlay) holds: on streams of swarms, or on streams for links
//!    alone.
//! 3. Where they come in the higher epoch wins. What is new is told on to the other links, and to
//!    the overlay and the torrent's [`Candidates`](discovery::candidates::Candidates); what is
//!    known ends there.
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::iter_over_hash_type)
)]

pub mod base;
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is a shell too: it may look at clock and environment"
)]
pub mod cli;
pub mod config;
pub mod control;
pub mod discovery;
pub mod engine;
pub mod meta;
pub mod reactor;
pub mod sim;
pub mod storage;
pub mod swarm;
pub mod tracker;
pub mod wire;
