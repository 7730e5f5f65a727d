//! Peers of evpeer alone, as processes over real sockets on loopback: swarms, restarts, bad data,
//! bad surroundings.
//!
//! The measurements that take minutes run with `NIGHTLY=1`.

mod support;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use support::data::{DataSet, Tolerance, flip_bit, names_below};
use support::evpeer::{Evpeer, Setup};
use support::proc::{cpu_time, memory_kib};
use support::process::Process;
use support::relay::Relay;
use support::sandbox;
use support::tracker::Tracker;
use support::{folder, free_port, is_nightly, scratch, skip, torrent, wait_for};

#[test]
fn one_seed_and_eight_leechers_complete_256_mib_of_many_files() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "swarm", 256 * MIB, 1);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = torrent::create(&set, Some(&tracker.url()));

    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let folders: Vec<_> = (0..8)
        .map(|i| folder(scratch.path(), &format!("leecher-{i}")))
        .collect();
    let leechers: Vec<Evpeer> = folders
        .iter()
        .enumerate()
        .map(|(i, folder)| {
            let known = [seed.address];
            // half of them know the seed, the others only the tracker
            let peers = if i % 2 == 0 { &known[..] } else { &[] };
            let setup = Setup {
                peers,
                ..Setup::new(&torrent, folder)
            };
            Evpeer::start(&format!("leecher {i}"), &setup)
        })
        .collect();
    for leecher in &leechers {
        leecher.wait_for_event("complete", SWARM_LIMIT);
    }
    let count = |event: &str| {
        let announces = tracker.announces().into_iter();
        announces.filter(|announce| announce.event == event).count()
    };
    wait_for("the tracker hears of eight downloads", LIMIT, || {
        count("completed") == 8
    });
    for (leecher, folder) in leechers.into_iter().zip(&folders) {
        leecher.leave();
        set.assert_same_in(folder, Tolerance::NONE);
    }
    seed.leave();
    set.assert_same_in(&set.folder, Tolerance::NONE);
    assert_eq!(count("stopped"), 9, "everybody says goodbye");
}

#[test]
fn each_storage_backing_downloads_and_serves_the_same_bytes() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "backings", 24 * MIB, 2);
    let torrent = torrent::create(&set, None);
    for serving in ["map", "pwrite"] {
        let args = ["--storage", serving];
        let seed = Evpeer::start(
            serving,
            &Setup {
                args: &args,
                ..Setup::new(&torrent, &set.folder)
            },
        );
        seed.wait_for_state("seeding", LIMIT);
        for fetching in ["map", "pwrite"] {
            let folder = folder(scratch.path(), &format!("{serving}-to-{fetching}"));
            download(&torrent, &folder, seed.address, &["--storage", fetching]);
            set.assert_same_in(&folder, Tolerance::NONE);
        }
        seed.leave();
    }
}

#[test]
fn peers_find_each_other_over_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip("this machine has no ::1");
    }
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "six", 3 * MIB + 17, 3);
    let torrent = torrent::create(&set, None);
    let ip = Ipv6Addr::LOCALHOST.into();
    let seed = Evpeer::start(
        "seed",
        &Setup {
            ip,
            ..Setup::new(&torrent, &set.folder)
        },
    );
    seed.wait_for_state("seeding", LIMIT);
    let folder = folder(scratch.path(), "leecher");
    let (peers, args) = ([seed.address], ["--exit-on-complete"]);
    let setup = Setup {
        ip,
        peers: &peers,
        args: &args,
        ..Setup::new(&torrent, &folder)
    };
    assert_eq!(
        Evpeer::start("leecher", &setup).wait_for_exit(LIMIT),
        Some(0)
    );
    set.assert_same_in(&folder, Tolerance::NONE);
    seed.leave();
}

#[test]
fn half_finished_leecher_goes_on_where_it_stopped() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "half", 64 * MIB, 4);
    let torrent = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    for storage in ["map", "pwrite"] {
        let folder = folder(scratch.path(), storage);
        let relay = Relay::start(seed.address, set.len() * 45 / 100);
        let peers = [relay.address()];
        let args = [&ALONE[..], &["--storage", storage]].concat();
        let setup = Setup {
            peers: &peers,
            args: &args,
            ..Setup::new(&torrent, &folder)
        };
        let leecher = Evpeer::start("leecher", &setup);
        // what the relay let pass may still be in the kernel's buffers
        wait_for("45 % came through the relay", LIMIT, || {
            relay.is_held() && leecher.counter("down_bytes") >= set.len() * 44 / 100
        });
        assert!(!leecher.has_event("complete"));
        leecher.leave();
        drop(relay);

        let relay = Relay::start(seed.address, u64::MAX);
        let peers = [relay.address()];
        let args = [&args[..], &["--exit-on-complete"]].concat();
        let setup = Setup {
            peers: &peers,
            args: &args,
            ..Setup::new(&torrent, &folder)
        };
        let mut again = Evpeer::start("leecher again", &setup);
        assert_eq!(again.wait_for_exit(LIMIT), Some(0));
        set.assert_same_in(&folder, Tolerance::NONE);
        let percent = relay.passed() * 100 / set.len();
        assert!(
            percent <= 60,
            "after 45 % were there, {percent} % were fetched ({storage})"
        );
    }
    seed.leave();
}

#[test]
fn pieces_that_turned_bad_on_disk_are_fetched_again() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "rot", 32 * MIB, 5);
    let torrent = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let folder = folder(scratch.path(), "leecher");
    set.copy_to(&folder);
    let large: Vec<_> = set.files.iter().filter(|(_, len)| *len > MIB).collect();
    flip_bit(&folder.join(&large[0].0), 0);
    flip_bit(&folder.join(&large[3].0), large[3].1 - 1);
    fs::remove_file(folder.join(&large[5].0)).expect("it was copied");

    let relay = Relay::start(seed.address, u64::MAX);
    let peers = [relay.address()];
    let args = [&ALONE[..], &["--exit-on-complete"]].concat();
    let setup = Setup {
        peers: &peers,
        args: &args,
        ..Setup::new(&torrent, &folder)
    };
    assert_eq!(
        Evpeer::start("leecher", &setup).wait_for_exit(LIMIT),
        Some(0)
    );
    set.assert_same_in(&folder, Tolerance::NONE);
    let fetched = relay.passed();
    assert!(
        fetched < set.len() / 2,
        "{fetched} bytes were fetched for three bad places"
    );
    seed.leave();
}

#[test]
fn exit_on_complete_leaves_with_zero_after_complete_and_durable() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "leave", 8 * MIB, 6);
    let torrent = torrent::create(&set, None);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    let folder = folder(scratch.path(), "leecher");
    let leecher = download(&torrent, &folder, seed.address, &[]);
    let names: Vec<String> = leecher
        .events()
        .iter()
        .filter_map(|event| event["event"].as_str().map(String::from))
        .collect();
    let place = |name: &str| names.iter().position(|other| other == name);
    let (complete, durable) = (place("complete"), place("durable"));
    assert!(complete.is_some(), "there is a `complete` event: {names:?}");
    assert!(
        complete < durable,
        "`durable` comes after `complete`: {names:?}"
    );
    set.assert_same_in(&folder, Tolerance::NONE);

    // all there already: it leaves without a peer
    let args = ["--exit-on-complete"];
    let setup = Setup {
        args: &args,
        ..Setup::new(&torrent, &folder)
    };
    assert_eq!(
        Evpeer::start("complete one", &setup).wait_for_exit(LIMIT),
        Some(0)
    );
    seed.leave();
}

#[test]
fn idle_leecher_leaves_with_zero_on_sigterm() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "idle", MIB, 7);
    let torrent = torrent::create(&set, None);
    let folder = folder(scratch.path(), "leecher");
    let leecher = Evpeer::start("leecher", &Setup::new(&torrent, &folder));
    leecher.wait_for_state("downloading", LIMIT);
    let begin = Instant::now();
    leecher.leave();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "nothing holds it up"
    );
}

#[test]
fn port_in_use_is_named_and_nothing_is_written() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "port", MIB, 8);
    let torrent = torrent::create(&set, None);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
    let port = taken.local_addr().expect("it is bound").port();
    let folder = folder(scratch.path(), "leecher");
    let setup = Setup {
        port,
        ..Setup::new(&torrent, &folder)
    };
    let errors = fails(&setup, 1);
    assert!(
        errors.contains(&port.to_string()),
        "the port is named: {errors}"
    );
    assert_no_data(&folder);
}

#[test]
fn dead_tracker_is_named_and_the_transfer_goes_on() {
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "dead tracker", 4 * MIB, 9);
    let dead = format!("127.0.0.1:{}", free_port(Ipv4Addr::LOCALHOST));
    let torrent = torrent::create(&set, Some(&format!("http://{dead}/announce")));
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.process
        .wait_for_line("a line that names the tracker", LIMIT, |line| {
            line.contains(&dead).then_some(())
        });
    let folder = folder(scratch.path(), "leecher");
    download(&torrent, &folder, seed.address, &[]);
    set.assert_same_in(&folder, Tolerance::NONE);
    seed.leave();
}

#[test]
fn missing_output_folder_is_named() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "nowhere", MIB, 10);
    let torrent = torrent::create(&set, None);
    let folder = scratch.path().join("no such folder");
    let errors = fails(&Setup::new(&torrent, &folder), 2);
    assert!(
        errors.contains("no such folder"),
        "the folder is named: {errors}"
    );
    assert!(!folder.exists(), "a typing error makes no folder");
}

#[test]
fn read_only_folder_refuses_a_download_and_serves_a_complete_one() {
    in_sandbox(
        "read_only_folder_refuses_a_download_and_serves_a_complete_one",
        |lan| {
            let scratch = scratch();
            let set = DataSet::tree(&folder(scratch.path(), "data"), "read only", 4 * MIB, 13);
            let torrent = torrent::create(&set, None);
            let empty = folder(scratch.path(), "empty disk");
            lan.mount_tmpfs(&empty, 8 * MIB);
            lan.remount_read_only(&empty);
            let errors = fails(&Setup::new(&torrent, &empty), 1);
            assert!(
                errors.contains("empty disk"),
                "the folder is named: {errors}"
            );

            let full = folder(scratch.path(), "full disk");
            lan.mount_tmpfs(&full, 8 * MIB);
            set.copy_to(&full);
            lan.remount_read_only(&full);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &full));
            seed.wait_for_state("seeding", LIMIT);
            let copy = folder(scratch.path(), "copy");
            download(&torrent, &copy, seed.address, &[]);
            set.assert_same_in(&copy, Tolerance::NONE);
            seed.leave();
        },
    );
}

#[test]
fn download_of_4_gib_stays_below_256_mib_of_memory() {
    if !is_nightly() {
        return skip("the 4 GiB download, which runs with NIGHTLY=1");
    }
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "large", 4096 * MIB, 14);
    let torrent = torrent::create(&set, None);
    for storage in ["map", "pwrite"] {
        let args = ["--storage", storage];
        let setup = Setup {
            args: &args,
            ..Setup::new(&torrent, &set.folder)
        };
        let seed = Evpeer::start("seed", &setup);
        seed.wait_for_state("seeding", SWARM_LIMIT);
        let folder = folder(scratch.path(), storage);
        let peers = [seed.address];
        let setup = Setup {
            peers: &peers,
            args: &args,
            ..Setup::new(&torrent, &folder)
        };
        let leecher = Evpeer::start("leecher", &setup);
        leecher.wait_for_event("complete", SWARM_LIMIT);
        for peer in [&seed, &leecher] {
            let peak = memory_kib(peer.process.pid(), "VmHWM:") / 1024;
            println!(
                "{} with --storage {storage}: peak {peak} MiB",
                peer.process.name()
            );
            assert!(peak < 256, "{} took {peak} MiB", peer.process.name());
        }
        leecher.leave();
        seed.leave();
        set.assert_same_in(&folder, Tolerance::NONE);
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}

#[test]
fn idle_peers_take_less_than_half_a_percent_of_a_core() {
    if !is_nightly() {
        return skip("the idle minute, which runs with NIGHTLY=1");
    }
    let scratch = scratch();
    let set = DataSet::tree(&folder(scratch.path(), "data"), "calm", 16 * MIB, 15);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = torrent::create(&set, Some(&tracker.url()));
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
    seed.wait_for_state("seeding", LIMIT);
    // held short of the end: connected, interested, and nothing comes
    let relay = Relay::start(seed.address, set.len() / 2);
    let peers = [relay.address()];
    let held_folder = folder(scratch.path(), "held");
    let setup = Setup {
        peers: &peers,
        args: &ALONE,
        ..Setup::new(&torrent, &held_folder)
    };
    let held = Evpeer::start("held leecher", &setup);
    let alone_folder = folder(scratch.path(), "alone");
    let setup = Setup {
        args: &ALONE,
        ..Setup::new(&torrent, &alone_folder)
    };
    let alone = Evpeer::start("lonely leecher", &setup);
    wait_for("half came through the relay", LIMIT, || relay.is_held());
    let idle = [&seed, &held, &alone];
    let before = idle.map(|peer| cpu_time(peer.process.pid()));
    let begin = Instant::now();
    wait_for("a minute is over", LIMIT, || {
        begin.elapsed() >= Duration::from_secs(60)
    });
    for (peer, before) in idle.into_iter().zip(before) {
        let used = cpu_time(peer.process.pid()) - before;
        let percent = 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64();
        println!("{}: {percent:.3} % of a core", peer.process.name());
        assert!(
            percent < 0.5,
            "{} takes {percent:.2} % of a core",
            peer.process.name()
        );
    }
}

/// Downloads everything from `seed` into `folder` and leaves; returns the ended peer.
fn download(torrent: &Path, folder: &Path, seed: SocketAddr, args: &[&str]) -> Evpeer {
    let args = [args, &["--exit-on-complete"]].concat();
    let setup = Setup {
        peers: &[seed],
        args: &args,
        ..Setup::new(torrent, folder)
    };
    let mut leecher = Evpeer::start("leecher", &setup);
    assert_eq!(
        leecher.wait_for_exit(LIMIT),
        Some(0),
        "it leaves when it is complete"
    );
    leecher.assert_sane();
    leecher
}

/// Starts a peer that must fail with `code`; returns what it says on standard error.
fn fails(setup: &Setup<'_>, code: i32) -> String {
    let mut peer = Process::spawn("evpeer", &mut setup.command());
    let status = peer.wait(LIMIT);
    let errors = peer.errors();
    assert_eq!(status.code(), Some(code), "exit code; it said: {errors}");
    assert!(!errors.contains("panicked at"), "no panic: {errors}");
    errors
}

/// Nothing but the state folder is in `folder`.
fn assert_no_data(folder: &Path) {
    let mut names = names_below(folder);
    names.retain(|path| !path.starts_with(".evpeer"));
    assert!(
        names.is_empty(),
        "nothing was written, but there is {names:?}"
    );
}

/// Runs `body` in a sandbox with mounts of its own, or says that it cannot.
fn in_sandbox(test: &str, body: impl FnOnce(sandbox::Lan)) {
    sandbox::inside(test, |lan| match lan.is_isolated {
        true => body(lan),
        false => skip(&format!("{test}: mounts need root or user namespaces")),
    });
}

const MIB: u64 = 1024 * 1024;
/// For what takes seconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);
/// For what takes up to minutes on one.
const SWARM_LIMIT: Duration = Duration::from_secs(600);
/// A peer that knows only whom it is told of: a relay must not be bypassed.
const ALONE: [&str; 2] = ["--no-tracker", "--no-pex"];
