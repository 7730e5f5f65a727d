//! Limits of rate, measured on the wire between real processes: a relay counts what passes.
//!
//! `NIGHTLY=1` measures twenty seconds of each of many rates; otherwise a few seconds of two, with
//! room for a machine that has other things to do.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::data::{DataSet, Tolerance};
use support::evpeer::{BINARY, Evpeer, Setup, ctl};
use support::relay::Relay;
use support::{folder, is_nightly, scratch, wait_for};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const LIMIT: Duration = Duration::from_secs(60);

/// Which side is told the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Seed,
    Leecher,
}

/// A torrent of `set` whose peers find no other way to each other than the one that they are given:
/// evpeers would dial each other past the relay for a link.
fn private(set: &DataSet) -> PathBuf {
    let path = set.folder.with_file_name("private.torrent");
    let mut command = Command::new(BINARY);
    command.args(["create", "--private", "-o"]).arg(&path);
    let output = command.arg(set.root()).output().expect("it was built");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    path
}

#[test]
fn up_limit_is_what_passes_on_the_wire() {
    for rate in rates() {
        measure(Side::Seed, rate);
    }
}

#[test]
fn down_limit_is_what_passes_on_the_wire() {
    for rate in rates() {
        measure(Side::Leecher, rate);
    }
}

/// Goal: peers on our own links are exempt if the user says so.
#[test]
fn limits_are_not_for_local_peers_if_the_user_says_so() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 16 * MIB, 7);
    let torrent = private(&set);
    let source = folder(scratch.path(), "source");
    set.copy_to(&source);
    let args = [
        "--up-limit",
        "10KiB",
        "--down-limit",
        "10KiB",
        "--limit-local",
        "no",
    ];
    let mut setup = Setup::new(&torrent, &source);
    setup.args = &args;
    let seed = Evpeer::start("seed", &setup);
    seed.wait_for_state("seeding", LIMIT);
    let into = folder(scratch.path(), "into");
    let peers = [seed.address];
    let mut setup = Setup::new(&torrent, &into);
    (setup.args, setup.peers) = (&args, &peers);
    let leecher = Evpeer::start("leecher", &setup);
    leecher.wait_for_event("complete", LIMIT);
    set.assert_same_in(&into, Tolerance::default());
}

/// Goal: limits change while peers run, of the whole peer and of one torrent, hold at once on the
/// wire, are shown, and outlive the process.
#[test]
fn limits_change_while_a_peer_runs_and_are_remembered() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 64 * MIB, 7);
    let torrent = private(&set);
    let source = folder(scratch.path(), "source");
    set.copy_to(&source);
    let seed = Evpeer::start("seed", &Setup::new(&torrent, &source));
    seed.wait_for_state("seeding", LIMIT);
    let relay = Relay::start(seed.address, u64::MAX);
    let into = folder(scratch.path(), "into");
    let peers = [relay.address()];
    let mut setup = Setup::new(&torrent, &into);
    (setup.peers, setup.args) = (&peers, &["--down-limit", "64KiB"]);
    let leecher = Evpeer::start("leecher", &setup);
    wait_for("the first bytes", LIMIT, || relay.passed() > 0);

    let said = ctl(&into, &["limit", "--down", "1MiB", "--json"]).object();
    assert_eq!(said["down_limit_bytes_s"], MIB, "{said}");
    assert_near(&relay, 64 * KIB, MIB);
    let said = ctl(&into, &["limit", "content", "--down", "256KiB", "--json"]).object();
    assert_eq!(said["down_limit_bytes_s"], 256 * KIB, "{said}");
    assert_near(&relay, MIB, 256 * KIB);

    let status = ctl(&into, &["status"]);
    let lines = [
        "limits: up no limit, down 1.00 MiB/s\n",
        "limits: up no limit, down 256 KiB/s",
    ];
    for line in lines {
        assert!(status.out.contains(line), "{}", status.out);
    }
    let local = ctl(&into, &["limit", "--local", "no", "--up", "3MiB"]);
    let line = "limits: up 3.00 MiB/s, down 1.00 MiB/s, but for peers on the local network\n";
    assert_eq!((local.code, local.out.as_str()), (Some(0), line));
    leecher.wait_for_event("complete", LIMIT);
    leecher.leave();
    set.assert_same_in(&into, Tolerance::default());

    let again = Evpeer::start("again", &Setup::new(&torrent, &into));
    again.wait_for_state("seeding", LIMIT);
    let status = ctl(&into, &["status", "--json"]).object();
    assert_eq!(
        (
            &status["up_limit_bytes_s"],
            &status["down_limit_bytes_s"],
            &status["limit_local"]
        ),
        (&json!(3 * MIB), &json!(MIB), &json!(false)),
    );
    assert_eq!(status["torrents"][0]["down_limit_bytes_s"], 256 * KIB);
    assert_eq!(status["torrents"][0]["up_limit_bytes_s"], Value::Null);
    let said = ctl(&into, &["limit", "content", "--down", "0"]);
    assert_eq!(said.out, "content: limits: up no limit, down no limit\n");
    again.leave();
}

/// Goal: a limit that cannot be kept is an error that says so, on the command line and to a running
/// peer, and changes nothing.
#[test]
fn limits_that_cannot_be_kept_are_refused() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", 1000, 7);
    let torrent = private(&set);
    let rows = [
        ("1", "too low to get on"),
        ("1023", "too low to get on"),
        ("2000GiB", "more than any line carries"),
        ("99999999999999999999", "is no rate"),
        ("-1", "is no rate"),
        ("fast", "is no rate"),
    ];
    for (rate, reason) in rows {
        for option in ["--up-limit", "--down-limit"] {
            let mut command = Command::new(BINARY);
            command
                .arg("-t")
                .arg(&torrent)
                .arg("-o")
                .arg(scratch.path());
            let out = command
                .arg(format!("{option}={rate}"))
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(
                said.contains(reason) && out.status.code() == Some(2),
                "{rate}: {said}"
            );
        }
    }
    assert!(
        !scratch.path().join(".evpeer").exists(),
        "nothing was started"
    );

    let home = folder(scratch.path(), "home");
    let mut setup = Setup::new(&torrent, &home);
    setup.args = &["--up-limit", "5MiB", "--down-limit", "0"];
    let peer = Evpeer::start("peer", &setup);
    peer.wait_for_state("downloading", LIMIT);
    for (rate, reason) in rows {
        let said = ctl(&home, &["limit", &format!("--up={rate}")]);
        assert!(
            said.err.contains(reason) && said.code == Some(2),
            "{rate}: {said:?}"
        );
    }
    let said = ctl(&home, &["limit", "nothing", "--up", "1MiB"]);
    assert!(
        said.err.contains("no torrent here") && said.code == Some(1),
        "{said:?}"
    );
    assert_eq!(
        ctl(&home, &["limit"]).out,
        "limits: up 5.00 MiB/s, down no limit\n"
    );
    peer.leave();
}

/// After five seconds about `rate` bytes a second pass, once those are read that were on their
/// way: up to two seconds' worth of the rate before.
fn assert_near(relay: &Relay, before: u64, rate: u64) {
    let pause = |time: Duration| {
        let begun = Instant::now();
        wait_for("time passes", LIMIT, || begun.elapsed() >= time);
        begun.elapsed()
    };
    let under_way = Duration::from_secs(2 * before).div_f64(rate as f64);
    pause(Duration::from_secs(5) + under_way);
    let first = relay.passed();
    let took = pause(Duration::from_secs(4));
    let ratio = (relay.passed() - first) as f64 / (rate as f64 * took.as_secs_f64());
    assert!(
        (0.85..1.05).contains(&ratio),
        "{rate} B/s: {ratio:.4} of it"
    );
}

fn rates() -> Vec<u64> {
    match is_nightly() {
        true => vec![64 * KIB, 500 * KIB, 4 * MIB, 32 * MIB, 256 * MIB],
        false => vec![128 * KIB, 16 * MIB],
    }
}

/// Measures a transfer with a limit of `rate` bytes a second: the mean after the first seconds.
fn measure(side: Side, rate: u64) {
    let (warm, time) = match is_nightly() {
        true => (Duration::from_secs(5), Duration::from_secs(20)),
        false => (Duration::from_secs(5), Duration::from_secs(6)),
    };
    let scratch = scratch();
    let whole = warm + time;
    let len = (rate * (whole.as_secs() + 5)).max(MIB);
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", len, 7);
    let torrent = private(&set);
    let limit = rate.to_string();
    let args_of = |its: Side| match (its == side, its) {
        (false, _) => vec![],
        (true, Side::Seed) => vec!["--up-limit", &limit],
        (true, Side::Leecher) => vec!["--down-limit", &limit],
    };
    let seed_args = args_of(Side::Seed);
    let mut setup = Setup::new(&torrent, &set.folder);
    setup.args = &seed_args;
    let seed = Evpeer::start("seed", &setup);
    seed.wait_for_state("seeding", 2 * LIMIT);
    let relay = Relay::start(seed.address, u64::MAX);
    let into = folder(scratch.path(), "into");
    let (peers, leecher_args) = ([relay.address()], args_of(Side::Leecher));
    let mut setup = Setup::new(&torrent, &into);
    (setup.peers, setup.args) = (&peers, &leecher_args);
    let _leecher = Evpeer::start("leecher", &setup);

    wait_for("the first bytes", LIMIT, || relay.passed() > 0);
    let begun = Instant::now();
    wait_for("the first seconds", LIMIT, || begun.elapsed() >= warm);
    let (first, from) = (relay.passed(), Instant::now());
    wait_for("the time of the measurement", LIMIT, || {
        from.elapsed() >= time
    });
    let (last, took) = (relay.passed(), from.elapsed());
    let mean = (last - first) as f64 / took.as_secs_f64();
    let ratio = mean / rate as f64;
    println!("{side:?}, {rate} B/s: {ratio:.4} of it, {first} B in the first {warm:?}");
    // What passes at once is what was asked for at once: four blocks, where a limit is low.
    let grain = 68.0 * KIB as f64 / (rate as f64 * took.as_secs_f64());
    let (least, most) = match is_nightly() {
        true => (0.98 - grain, 1.02 + grain),
        false => (0.85, 1.02 + grain),
    };
    assert!(
        (least..most).contains(&ratio),
        "{side:?}, {rate} B/s: {ratio:.4} of it"
    );
    // Two seconds' worth may be under way at the beginning, and what makes the limit smooth.
    let ahead = rate * (warm.as_secs() + 3) + 64 * KIB;
    assert!(
        first <= ahead,
        "{side:?}, {rate} B/s: {first} B in the first {warm:?}"
    );
}
