//! Reactors against each other and against rude sockets, over loopback, each in its own folder.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time;

use std::sync::Arc;
use std::time::Duration;

use evpeer::base::digest::sha1;
use evpeer::base::id::TorrentId;
use evpeer::base::rng::Rng;
use evpeer::config::{Config, StorageKind};
use evpeer::engine::action::{Report, State};
use evpeer::engine::{HostPort, TorrentSpec};
use evpeer::meta::metainfo::Metainfo;
use evpeer::reactor::{Reactor, ReactorOptions};
use evpeer::storage::Access;

/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
const PIECE_LEN: usize = 64 * 1024;

fn reactor(root: &Path, kind: StorageKind) -> Reactor {
    Reactor::new(ReactorOptions {
        config: Config {
            port: 0,
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            storage: kind,
            lsd: false, // swarms of other tests have the same info hash
            ..Config::default()
        },
        root: root.into(),
        access: Access::ReadWrite,
        state_dir: None,
        watch_signals: false,
    })
    .unwrap()
}

fn payload(len: usize) -> Vec<u8> {
    let mut rng = Rng::new(len as u64);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// A torrent of one file `name`.
fn metainfo(name: &str, bytes: &[u8]) -> Arc<Metainfo> {
    let pieces: Vec<u8> = bytes.chunks(PIECE_LEN).flat_map(sha1).collect();
    let mut text = format!(
        "d4:infod6:lengthi{}e4:name{}:{name}12:piece lengthi{PIECE_LEN}e6:pieces{}:",
        bytes.len(),
        name.len(),
        pieces.len(),
    )
    .into_bytes();
    text.extend(pieces);
    text.extend(b"ee");
    Arc::new(Metainfo::from_bytes(&text).unwrap())
}

fn spec(meta: &Arc<Metainfo>, peers: &[u16]) -> TorrentSpec {
    let local = |&port: &u16| HostPort {
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
    };
    TorrentSpec {
        meta: Arc::clone(meta),
        peers: peers.iter().map(local).collect(),
        trackers: Vec::new(),
        choice: evpeer::base::choice::Choice::default(),
    }
}

/// Turns all `reactors` in this thread until `done`.
fn run_until(reactors: &mut [&mut Reactor], mut done: impl FnMut(&mut [&mut Reactor]) -> bool) {
    let started = time::Instant::now();
    while !done(reactors) {
        assert!(started.elapsed() < PATIENCE, "not done in {PATIENCE:?}");
        for reactor in &mut *reactors {
            reactor.turn(Duration::from_millis(1)).unwrap();
        }
    }
}

fn state(reactor: &mut Reactor, torrent: TorrentId) -> State {
    reactor.snapshot(torrent).unwrap().state
}

#[test]
fn leecher_gets_the_file_of_a_seed_with_either_backing() {
    for kind in [StorageKind::Map, StorageKind::Pwrite] {
        let bytes = payload(40 * PIECE_LEN + 12_345);
        let meta = metainfo("data.bin", &bytes);
        let (seed_dir, leech_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(seed_dir.path().join("data.bin"), &bytes).unwrap();

        let mut seed = reactor(seed_dir.path(), kind);
        let mut leecher = reactor(leech_dir.path(), kind);
        let seeding = seed.add_torrent(spec(&meta, &[])).unwrap();
        run_until(&mut [&mut seed], |r| state(r[0], seeding) == State::Seeding);
        let leeching = leecher
            .add_torrent(spec(&meta, &[seed.local_port()]))
            .unwrap();
        let mut reports = Vec::new();
        run_until(&mut [&mut seed, &mut leecher], |r| {
            reports.extend(std::iter::from_fn(|| r[1].poll_report()));
            reports.contains(&Report::Durable { torrent: leeching })
        });
        assert!(reports.contains(&Report::Complete { torrent: leeching }));
        assert_eq!(state(&mut leecher, leeching), State::Seeding);
        let copy = fs::read(leech_dir.path().join("data.bin")).unwrap();
        assert!(copy == bytes, "{kind:?}");

        leecher.shutdown();
        run_until(&mut [&mut leecher], |r| r[0].is_finished());
    }
}

#[test]
fn chain_of_reactors_passes_a_file_on() {
    let bytes = payload(20 * PIECE_LEN);
    let meta = metainfo("data.bin", &bytes);
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    fs::write(dirs[0].path().join("data.bin"), &bytes).unwrap();
    let mut reactors: Vec<_> = dirs
        .iter()
        .map(|dir| reactor(dir.path(), StorageKind::Auto))
        .collect();
    let mut torrents = Vec::new();
    let mut before = None;
    for reactor in &mut reactors {
        let peers: Vec<u16> = before.into_iter().collect();
        torrents.push(reactor.add_torrent(spec(&meta, &peers)).unwrap());
        before = Some(reactor.local_port());
    }
    let mut all: Vec<&mut Reactor> = reactors.iter_mut().collect();
    run_until(&mut all, |all| {
        all.iter_mut()
            .zip(&torrents)
            .all(|(reactor, torrent)| state(reactor, *torrent) == State::Seeding)
    });
    for dir in &dirs {
        assert!(fs::read(dir.path().join("data.bin")).unwrap() == bytes);
    }
}

#[test]
fn rude_sockets_do_not_disturb_a_transfer() {
    let bytes = payload(20 * PIECE_LEN);
    let meta = metainfo("data.bin", &bytes);
    let (seed_dir, leech_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(seed_dir.path().join("data.bin"), &bytes).unwrap();
    let mut seed = reactor(seed_dir.path(), StorageKind::Auto);
    let mut leecher = reactor(leech_dir.path(), StorageKind::Auto);
    seed.add_torrent(spec(&meta, &[])).unwrap();
    let port = seed.local_port();
    let leeching = leecher.add_torrent(spec(&meta, &[port])).unwrap();

    let to: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let rude = thread::spawn(move || {
        let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(to).unwrap()).collect();
        for length in 0..40 {
            // Garbage of all lengths, some of it closed with our answer unread.
            let mut stream = TcpStream::connect(to).unwrap();
            let _ = stream.write_all(&vec![0x13; length]);
        }
        let mut garbage = TcpStream::connect(to).unwrap();
        let _ = garbage.write_all(&[0xff; 100_000]);
        let mut end = Vec::new();
        let _ = garbage.read_to_end(&mut end); // the seed closes it
        drop(silent);
    });
    run_until(&mut [&mut seed, &mut leecher], |r| {
        state(r[1], leeching) == State::Seeding && rude.is_finished()
    });
    rude.join().unwrap();
    assert!(fs::read(leech_dir.path().join("data.bin")).unwrap() == bytes);
}

#[test]
fn peer_that_does_not_exist_is_tried_in_vain_and_harms_nobody() {
    let bytes = payload(PIECE_LEN);
    let meta = metainfo("data.bin", &bytes);
    let (seed_dir, leech_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(seed_dir.path().join("data.bin"), &bytes).unwrap();
    let mut seed = reactor(seed_dir.path(), StorageKind::Auto);
    let mut leecher = reactor(leech_dir.path(), StorageKind::Auto);
    seed.add_torrent(spec(&meta, &[])).unwrap();
    let vacant = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = vacant.local_addr().unwrap().port();
    drop(vacant);
    let peers = [nobody, seed.local_port()];
    let leeching = leecher.add_torrent(spec(&meta, &peers)).unwrap();
    run_until(&mut [&mut seed, &mut leecher], |r| {
        state(r[1], leeching) == State::Seeding
    });
}

#[test]
fn second_reactor_on_the_same_port_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = reactor(dir.path(), StorageKind::Auto);
    let second = Reactor::new(ReactorOptions {
        config: Config {
            port: first.local_port(),
            lsd: false,
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            ..Config::default()
        },
        root: dir.path().into(),
        access: Access::ReadWrite,
        state_dir: None,
        watch_signals: false,
    });
    let text = second.err().unwrap().to_string();
    let port = first.local_port();
    assert!(text.starts_with(&format!("port {port} is in use (TCP 127.0.0.1:{port})")));
}

#[test]
fn idle_reactor_waits_as_long_as_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut reactor = reactor(dir.path(), StorageKind::Auto);
    let wait = Duration::from_millis(50);
    reactor.turn(Duration::ZERO).unwrap(); // the first events of fresh sockets
    let started = time::Instant::now();
    reactor.turn(wait).unwrap();
    assert!(started.elapsed() >= wait, "woke up for nothing");
}
