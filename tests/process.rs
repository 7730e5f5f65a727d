//! What a reactor makes of things that concern the whole process: its descriptors, its signals.
//! One test at a time.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use evpeer::config::Config;
use evpeer::reactor::{Reactor, ReactorOptions};
use evpeer::storage::Access;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

static ALONE: Mutex<()> = Mutex::new(());
const WAIT: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(20);

/// Goal: connections that cannot be accepted are closed, the loop sleeps, and others are served
/// as soon as there are descriptors again.
/// Method: let connections queue up, lower the limit below the next descriptor, run, raise it.
#[test]
fn reactor_without_descriptors_turns_connections_away_and_sleeps() {
    let _alone = ALONE.lock().unwrap();
    let mut reactor = reactor();
    let address = (Ipv4Addr::LOCALHOST, reactor.local_port());

    let mut away: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let before = getrlimit(Resource::Nofile);
    let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let none_left = Rlimit {
        current: Some(next),
        ..before
    };
    setrlimit(Resource::Nofile, none_left).unwrap();
    assert!(File::open("/dev/null").is_err());

    for client in &mut away {
        client.set_nonblocking(true).unwrap();
        run_until(&mut reactor, || matches!(client.read(&mut [0; 1]), Ok(0)));
    }
    reactor.turn(Duration::ZERO).unwrap();
    let started = Instant::now();
    reactor.turn(WAIT).unwrap();
    assert!(started.elapsed() >= WAIT, "the loop spins");

    setrlimit(Resource::Nofile, before).unwrap();
    let mut served = TcpStream::connect(address).unwrap();
    served.set_nonblocking(true).unwrap();
    for _ in 0..10 {
        reactor.turn(Duration::from_millis(5)).unwrap();
    }
    let error = served.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
}

/// Goal: the first signal is told, the second one too, and neither ends the process.
/// Method: send them to ourselves, between the passes of the loop.
#[test]
fn signals_are_counted_and_wake_the_loop() {
    let _alone = ALONE.lock().unwrap();
    let mut reactor = reactor();
    for (count, signal) in [(1, Signal::INT), (2, Signal::TERM)] {
        kill_process(getpid(), signal).unwrap();
        let started = Instant::now();
        while reactor.signals_seen() < count {
            reactor.turn(PATIENCE).unwrap();
            assert!(started.elapsed() < PATIENCE, "the loop was not woken");
        }
        assert_eq!(reactor.signals_seen(), count);
    }
}

/// A reactor on loopback that has no torrent and will write nothing.
fn reactor() -> Reactor {
    Reactor::new(ReactorOptions {
        config: Config {
            port: 0,
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            lsd: false,
            ..Config::default()
        },
        root: std::env::temp_dir(),
        access: Access::ReadOnly,
        state_dir: None,
        watch_signals: true,
    })
    .unwrap()
}

fn run_until(reactor: &mut Reactor, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "not done in {PATIENCE:?}");
        reactor.turn(Duration::from_millis(1)).unwrap();
    }
}
