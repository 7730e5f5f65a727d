//! Disks that go away while torrents lie on them, and come back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::faulty::{Faulty, Powers};
use super::slow::for_storages;
use super::support::data::{DataSet, Tolerance};
use super::support::evpeer::{Evpeer, Setup, ctl};
use super::support::relay::Relay;
use super::support::sandbox::Lan;
use super::support::{folder, scratch, torrent, wait_for};
use super::{LIMIT, MIB};

/// A disk that can be put in and pulled out: what it holds stays.
struct Disk {
    /// Where it always is.
    hidden: PathBuf,
    /// Where it is seen.
    place: PathBuf,
}

impl Disk {
    fn put_in(lan: Lan, scratch: &Path, place: PathBuf) -> Self {
        let hidden = folder(scratch, "hidden");
        lan.mount_tmpfs(&hidden, 200 * MIB);
        let disk = Self { hidden, place };
        disk.bring_back();
        disk
    }

    fn bring_back(&self) {
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(&self.hidden).arg(&self.place);
        assert!(mount.status().is_ok_and(|status| status.success()));
    }

    fn pull_out(&self) {
        let mut unmount = Command::new("umount");
        unmount.arg("-l").arg(&self.place);
        assert!(unmount.status().is_ok_and(|status| status.success()));
    }
}

/// Waits until a peer says that a torrent waits for the disk of `place`, as it has to soon, and
/// then until it has tried again, without any trace in what is left of the folder.
fn waits_and_makes_nothing(peer: &Evpeer, place: &Path) {
    let reason = peer.process.wait_for_line("a lost disk", SOON, |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let is_it = event["event"] == "state" && event["state"] == "error";
        is_it.then(|| event["reason"].as_str().map(str::to_owned))?
    });
    let folder = place.to_str().expect("text");
    assert!(
        reason.contains(folder) && reason.contains("is gone"),
        "{reason}"
    );
    let trials = || peer.process.text().matches("torrent waits").count();
    wait_for("it to be tried again", LIMIT, || trials() >= 3);
    let left: Vec<_> = fs::read_dir(place).expect("it is left").collect();
    assert!(left.is_empty(), "made where the disk was: {left:?}");
}

/// A seed of one stream, which is the relay's: evpeers that hear of each other would go round it.
fn seed_of(torrent: &Path, set: &DataSet) -> Evpeer {
    let setup = Setup {
        args: &["--max-peers", "1"],
        ..Setup::new(torrent, &set.folder)
    };
    Evpeer::start("seed", &setup)
}

/// Goal: row 152: the output folder's disk goes in the middle of a download.
#[test]
fn hostile_152_download_waits_for_its_disk_and_makes_nothing_in_its_place() {
    let name = "gone::hostile_152_download_waits_for_its_disk_and_makes_nothing_in_its_place";
    for_storages(name, |lan, storage| {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "away", 24 * MIB, 61);
        let torrent = torrent::create(&set, None);
        let seed = seed_of(&torrent, &set);
        let relay = Relay::start(seed.address, 12 * MIB);
        let place = folder(scratch.path(), "disk");
        let disk = Disk::put_in(lan, scratch.path(), place.clone());
        let setup = Setup {
            args: &["--storage", storage],
            peers: &[relay.address()],
            ..Setup::new(&torrent, &place)
        };
        let mut peer = Evpeer::start("peer", &setup);
        wait_for("something to be verified", LIMIT, || {
            relay.is_held() && peer.counter("done_bytes") > 4 * MIB
        });
        let verified = peer.counter("done_bytes");
        disk.pull_out();
        waits_and_makes_nothing(&peer, &place);
        relay.lift();
        assert!(peer.process.is_running());
        disk.bring_back();
        peer.wait_for_event("complete", LIMIT);
        let fetched = peer.counter("down_bytes");
        let most = set.len() + (12 * MIB - verified) + MIB;
        assert!(
            fetched <= most,
            "{fetched} B fetched, {verified} B were there"
        );
        peer.leave();
        set.assert_same_in(&place, Tolerance::NONE);
    });
}

/// Goal: row 152: a torrent's own disk, below the output folder, goes; another torrent goes on.
#[test]
fn hostile_152_torrent_on_another_disk_does_not_mind() {
    let name = "gone::hostile_152_torrent_on_another_disk_does_not_mind";
    for_storages(name, |lan, storage| {
        let scratch = scratch();
        let place = folder(scratch.path(), "out");
        let worlds = ["away", "well"].map(|name| {
            let data = folder(scratch.path(), &format!("data-{name}"));
            let set = DataSet::tree(&data, name, 8 * MIB, 71);
            let torrent = torrent::create(&set, None);
            let seed = seed_of(&torrent, &set);
            let relay = Relay::start(seed.address, 4 * MIB);
            (set, torrent, seed, relay)
        });
        let [
            (away, away_torrent, _seed, away_relay),
            (well, well_torrent, _other, well_relay),
        ] = &worlds;
        let disk = Disk::put_in(lan, scratch.path(), folder(&place, "away"));
        let setup = Setup {
            args: &[
                "--storage",
                storage,
                "-t",
                well_torrent.to_str().expect("text"),
            ],
            peers: &[away_relay.address(), well_relay.address()],
            ..Setup::new(away_torrent, &place)
        };
        let peer = Evpeer::start("peer", &setup);
        wait_for("both to be under way", LIMIT, || {
            away_relay.is_held() && well_relay.is_held()
        });
        disk.pull_out();
        waits_and_makes_nothing(&peer, &disk.place);
        well_relay.lift();
        let state_of = |name: &str| {
            let status = ctl(&place, &["status", "--json"]).object();
            let torrents = status["torrents"].as_array().expect("torrents").clone();
            let it = torrents
                .into_iter()
                .find(|torrent| torrent["torrent"] == name);
            it.expect("it is there")["state"].clone()
        };
        wait_for("the other one to be complete", LIMIT, || {
            state_of("well") == "seeding"
        });
        assert_eq!(state_of("away"), "error");
        away_relay.lift();
        disk.bring_back();
        wait_for("it to be complete too", LIMIT, || {
            state_of("away") == "seeding"
        });
        peer.leave();
        for set in [away, well] {
            for (path, _) in &set.files {
                let read = |folder: &Path| fs::read(folder.join(path)).ok();
                assert_eq!(read(&place), read(&set.folder), "{}", path.display());
            }
        }
    });
}

/// Goal: row 152: it is noticed although nobody asks for anything, and nothing is fetched.
/// Method: the second process knows the files from the journal and has opened none.
#[test]
fn hostile_152_seed_without_peers_notices_too() {
    let name = "gone::hostile_152_seed_without_peers_notices_too";
    for_storages(name, |lan, storage| {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "away", 4 * MIB, 73);
        let torrent = torrent::create(&set, None);
        let place = folder(scratch.path(), "disk");
        let disk = Disk::put_in(lan, scratch.path(), place.clone());
        set.copy_to(&place);
        let setup = Setup {
            args: &["--storage", storage],
            ..Setup::new(&torrent, &place)
        };
        let first = Evpeer::start("first", &setup);
        first.wait_for_event("durable", LIMIT);
        first.leave();
        let peer = Evpeer::start("peer", &setup);
        peer.wait_for_event("durable", LIMIT);
        disk.pull_out();
        waits_and_makes_nothing(&peer, &place);
        disk.bring_back();
        let is_seeding = |event: &&Value| event["event"] == "state" && event["state"] == "seeding";
        wait_for("it to seed again", LIMIT, || {
            peer.events().iter().filter(is_seeding).count() == 2
        });
        assert_eq!(peer.counter("down_bytes"), 0);
        peer.leave();
        set.assert_same_in(&place, Tolerance::NONE);
    });
}

/// Goal: row 152: a file system that ends takes with it what it was not yet given, and what the
/// journal says of that is not believed when it comes back.
#[test]
fn hostile_152_file_system_that_ends_is_waited_for_and_not_believed() {
    let name = "gone::hostile_152_file_system_that_ends_is_waited_for_and_not_believed";
    for_storages(name, |_, storage| {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "ended", 24 * MIB, 79);
        let torrent = torrent::create(&set, None);
        let seed = seed_of(&torrent, &set);
        let relay = Relay::start(seed.address, 12 * MIB);
        let place = folder(scratch.path(), "disk");
        let powers = Powers {
            allocates: storage == "map",
            no_locks: None,
        };
        let Some(mut disk) = Faulty::mount_or_skip(&place, powers) else {
            return;
        };
        let setup = Setup {
            args: &["--storage", storage],
            peers: &[relay.address()],
            ..Setup::new(&torrent, &place)
        };
        let mut peer = Evpeer::start("peer", &setup);
        wait_for("something to be verified", LIMIT, || {
            relay.is_held() && peer.counter("done_bytes") > 4 * MIB
        });
        disk.end(&place);
        waits_and_makes_nothing(&peer, &place);
        relay.lift();
        assert!(peer.process.is_running());
        disk.mount_again(&place).expect("it worked before");
        peer.wait_for_event("complete", LIMIT);
        peer.wait_for_event("durable", LIMIT);
        for (path, _) in &set.files {
            let original = fs::read(set.folder.join(path)).ok();
            assert_eq!(disk.content(path), original, "{}", path.display());
        }
        peer.leave();
        set.assert_same_in(&place, Tolerance::NONE);
    });
}

/// How soon a lost disk is told of.
const SOON: Duration = Duration::from_secs(5);
