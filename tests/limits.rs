//! Limits of rate, measured on the wire between real processes: a relay counts what passes.
//!
//! `NIGHTLY=1` measures twenty seconds of each of many rates; otherwise a few seconds of two, with
//! room for a machine that has other things to do.

mod support;

use std::time::{Duration, Instant};

use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup};
use support::relay::Relay;
use support::{folder, is_nightly, scratch, torrent, wait_for};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const LIMIT: Duration = Duration::from_secs(60);

/// Which side is told the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Seed,
    Leecher,
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
    let torrent = torrent::create(&set, None);
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
        false => (Duration::from_secs(3), Duration::from_secs(6)),
    };
    let scratch = scratch();
    let whole = warm + time;
    let len = (rate * (whole.as_secs() + 5)).max(MIB);
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", len, 7);
    let torrent = torrent::create(&set, None);
    let source = folder(scratch.path(), "source");
    set.copy_to(&source);
    let limit = rate.to_string();
    let args_of = |its: Side| match (its == side, its) {
        (false, _) => vec![],
        (true, Side::Seed) => vec!["--up-limit", &limit],
        (true, Side::Leecher) => vec!["--down-limit", &limit],
    };
    let seed_args = args_of(Side::Seed);
    let mut setup = Setup::new(&torrent, &source);
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
    // What passes at once is a block or so.
    let grain = 20.0 * KIB as f64 / (rate as f64 * took.as_secs_f64());
    let (least, most) = match is_nightly() {
        true => (0.98, 1.02),
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
