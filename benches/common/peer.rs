//! A peer that a bench runs in its own process.

use std::net::Ipv4Addr;
use std::path::Path;

use evpeer::config::{Config, StorageKind};
use evpeer::reactor::{Reactor, ReactorOptions};
use evpeer::storage::Access;

/// One on loopback, at any port, that reads and writes in `root` and remembers nothing.
pub fn reactor(root: &Path, storage: StorageKind) -> Reactor {
    let config = Config {
        port: 0,
        bind: Some(Ipv4Addr::LOCALHOST.into()),
        storage,
        lsd: false,
        ..Config::default()
    };
    Reactor::new(ReactorOptions {
        config,
        root: root.to_path_buf(),
        access: Access::ReadWrite,
        state_dir: None,
        watch_signals: false,
    })
    .expect("loopback has a free port")
}
