//! Disks that fill: what is verified stays and is served, nothing else happens until there is room
//! (hostile rows 127 and 128).

use std::time::Duration;

use evpeer::engine::{Report, State};
use evpeer::sim::disk::DiskFaults;
use evpeer::sim::{Have, HostId, World};

use crate::world::{LAN, for_seeds, private_torrent, torrent};

const MINUTES: Duration = Duration::from_secs(600);
const PIECE_LEN: u32 = 32 * 1024;
/// Many files: each takes its space when its first byte comes.
const LENGTHS: [u64; 60] = [100_001; 60];

/// Nothing more than `capacity` bytes fits on the disk of `host` from now on.
fn limit(world: &mut World, host: HostId, capacity: Option<u64>) {
    let faults = DiskFaults {
        capacity,
        ..DiskFaults::default()
    };
    world.disk(host).expect("it has one").set_faults(faults);
}

fn done(world: &mut World, host: HostId) -> u64 {
    world.snapshot(host).map_or(0, |figures| figures.done_bytes)
}

fn is_waiting(world: &mut World, host: HostId) -> bool {
    let figures = world.snapshot(host).expect("it runs");
    let reason = figures.reason.unwrap_or_default();
    let is_told = reason.contains("no space") && reason.contains("needed, ");
    figures.state == State::Error && figures.retry_in.is_some() && is_told
}

fn finish(world: &mut World, hosts: &[HostId]) {
    for &host in hosts {
        if !world.run_until(MINUTES, |w| w.is_complete(host) && w.is_content_right(host)) {
            panic!("{}", world.unfinished(host, "not complete".to_owned()));
        }
    }
    world.audit().expect("nothing is left over");
}

/// Row 128: a disk that others fill while it is downloaded to.
#[test]
fn disk_that_fills_holds_up_what_is_missing_and_nothing_else() {
    for_seeds(12, |rng_seed| {
        // Private, so that nobody hears of others.
        let (meta, content) = private_torrent(rng_seed, PIECE_LEN, &LENGTHS);
        let total = meta.geometry().length();
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let host = world.add_peer(Have::Nothing, &[seed]);
        let share = 200_000 + rng_seed * 50_000;
        assert!(world.run_until(MINUTES, |w| done(w, host) >= share));
        let used = world.disk(host).expect("it has one").used();
        limit(&mut world, host, Some(used));
        assert!(
            world.run_until(MINUTES, |w| is_waiting(w, host)),
            "it waits"
        );
        let verified = done_when_settled(&mut world, host);
        assert!(verified >= share, "{verified} B of {share} B are left");

        // A newcomer who knows this host only gets all that it has.
        let other = world.add_peer(Have::Nothing, &[host]);
        let jobs = world.disk(host).expect("it has one").tally().jobs;
        let received = world.traffic(host).1;
        world.run_until(MINUTES, |_| false);
        assert!(is_waiting(&mut world, host), "it waits on");
        assert_eq!(done(&mut world, host), verified);
        assert_eq!(done(&mut world, other), verified, "all is served");
        assert_eq!(world.traffic(host).1, received, "nothing is asked for");
        let jobs = world.disk(host).expect("it has one").tally().jobs - jobs;
        assert!(jobs < 200, "{jobs} jobs in ten minutes");

        limit(&mut world, host, None);
        finish(&mut world, &[host, other]);
        let received = world.traffic(host).1 - received;
        let most = total - verified;
        assert!(received <= most, "{received} B fetched, {most} B missing");
    });
}

/// What it has once it has looked at all that is there.
fn done_when_settled(world: &mut World, host: HostId) -> u64 {
    world.run_until(Duration::from_secs(1), |_| false);
    done(world, host)
}

/// Row 127: a torrent that does not fit is told with figures, takes no space, and begins when it
/// does fit.
#[test]
fn torrent_that_does_not_fit_waits_and_begins_by_itself() {
    for_seeds(4, |rng_seed| {
        let (meta, content) = torrent(rng_seed, PIECE_LEN, &LENGTHS);
        let total = meta.geometry().length();
        let mut world = World::new(rng_seed, LAN, meta, content);
        let seed = world.add_peer(Have::All, &[]);
        let host = world.add_peer(Have::Nothing, &[seed]);
        world.kill(host);
        limit(&mut world, host, Some(total - 1));
        world.restart(host);
        world.run_until(MINUTES, |_| false);
        assert!(is_waiting(&mut world, host));
        let used = world.disk(host).expect("it has one").used();
        assert!(used < 4096, "{used} B taken");
        // Room for the torrent, and for what is remembered of it.
        limit(&mut world, host, Some(total + 64 * 1024));
        finish(&mut world, &[host]);
    });
}

/// A disk that looks as if there were room and has none is tried less and less often.
#[test]
fn disk_that_promises_too_much_is_not_tried_all_the_time() {
    let (meta, content) = torrent(3, PIECE_LEN, &LENGTHS);
    let mut world = World::new(3, LAN, meta, content);
    let seed = world.add_peer(Have::All, &[]);
    let host = world.add_peer(Have::Nothing, &[seed]);
    let faults = DiskFaults {
        capacity: Some(400_000),
        hides_lack: true,
        ..DiskFaults::default()
    };
    world.disk(host).expect("it has one").set_faults(faults);
    world.run_until(MINUTES, |_| false);
    let is_stop = |r: &&Report| matches!(r, Report::State { state, .. } if *state == State::Error);
    let stops = world.reports(host).iter().filter(is_stop).count();
    assert!((5..20).contains(&stops), "{stops} attempts");
    limit(&mut world, host, None);
    finish(&mut world, &[host]);
}
