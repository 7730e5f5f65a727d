//! What the integration tests share: processes, data sets, trackers, peers made by hand.
//!
//! | module | what it holds |
//! |---|---|
//! | [`process`] | a child process whose output is kept and that dies with its guard |
//! | [`proc`]    | memory, CPU time and descriptors of a process |
//! | [`evpeer`]  | the binary under test, started and read as a user's script would |
//! | [`clients`] | Transmission, aria2 and libtorrent behind one face |
//! | [`sandbox`] | a test inside network, mount and process namespaces of its own |
//! | [`data`]    | trees of seeded content and their comparison, byte for byte |
//! | [`torrent`] | .torrent files, made by evpeer or by hand |
//! | [`tracker`] | an HTTP tracker on a thread |
//! | [`relay`]   | a TCP relay that counts and holds what a seed sends |
//! | [`rawpeer`] | the peer wire protocol spoken by hand, honest or not |
//!
//! Nothing here waits a fixed time: every wait has a condition and a limit.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

pub mod clients;
pub mod data;
pub mod evpeer;
pub mod proc;
pub mod process;
pub mod rawpeer;
pub mod relay;
pub mod sandbox;
pub mod torrent;
pub mod tracker;

/// How long a condition that is not notified of anything waits between two looks.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; panics with `what` after `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A folder that vanishes with its guard, on the disk that holds the build.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("evpeer-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("the build folder is writable")
}

/// A folder `name` inside `parent`, made now; returns its path.
pub fn folder(parent: &Path, name: &str) -> std::path::PathBuf {
    let path = parent.join(name);
    std::fs::create_dir_all(&path).expect("the scratch folder is writable");
    path
}

/// A TCP port of `ip` that was free a moment ago, for clients that cannot choose one themselves.
pub fn free_port(ip: impl Into<IpAddr>) -> u16 {
    let listener = TcpListener::bind((ip.into(), 0)).expect("the address is ours");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}

/// Says on the terminal that a test, or a part of one, is left out and why.
///
/// The test harness keeps back what tests print, but not what they write to standard error.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Whether the long measurements were asked for (`NIGHTLY=1`).
pub fn is_nightly() -> bool {
    std::env::var_os("NIGHTLY").is_some_and(|value| value == "1")
}
