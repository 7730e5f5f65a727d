//! File systems over FUSE: poor ones, slow ones, and those that lose what they were given.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use evpeer::base::limits;
use fuser::Errno;

use super::faulty::{Call, Fault, Faulty, Part, Powers};
use super::support::data::{DataSet, Tolerance};
use super::support::evpeer::{Evpeer, Setup, ctl};
use super::support::relay::Relay;
use super::support::sandbox::Lan;
use super::support::{folder, proc, scratch, torrent, wait_for};
use super::{LIMIT, MIB, STORAGES, with_mounts};

/// A seed on an ordinary disk, and a faulty one for its leecher.
struct World {
    set: DataSet,
    torrent: std::path::PathBuf,
    seed: Evpeer,
    place: std::path::PathBuf,
    disk: Faulty,
    _scratch: tempfile::TempDir,
}

impl World {
    /// `None` if FUSE does not work here.
    fn new(name: &str, len: u64) -> Option<Self> {
        Self::with(Powers::default(), |folder| {
            let set = DataSet::tree(folder, name, len, 59);
            let torrent = torrent::create(&set, None);
            (set, torrent)
        })
    }

    /// The same for what `make` makes in a folder.
    fn with(
        powers: Powers,
        make: impl FnOnce(&Path) -> (DataSet, std::path::PathBuf),
    ) -> Option<Self> {
        let scratch = scratch();
        let (set, torrent) = make(&folder(scratch.path(), "data"));
        let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
        let place = folder(scratch.path(), "disk");
        let disk = Faulty::mount_or_skip(&place, powers)?;
        Some(Self {
            set,
            torrent,
            seed,
            place,
            disk,
            _scratch: scratch,
        })
    }

    fn leecher(&self, storage: &str, peer: std::net::SocketAddr) -> Evpeer {
        let setup = Setup {
            args: &["--storage", storage],
            peers: &[peer],
            ..Setup::new(&self.torrent, &self.place)
        };
        Evpeer::start("leecher", &setup)
    }
}

/// Maps are used where files can be allocated.
fn powers_for(storage: &str) -> Powers {
    Powers {
        allocates: storage == "map",
        no_locks: None,
    }
}

pub(super) fn for_storages(test: &str, body: impl Fn(Lan, &'static str)) {
    with_mounts(test, |lan| {
        for storage in STORAGES {
            body(lan, storage);
        }
    });
}

/// Goal: rows 129 and 138: a file system that cannot allocate, over FUSE, is as good as another.
#[test]
fn hostile_129_file_system_that_cannot_allocate_holds_the_data_all_the_same() {
    let name = "slow::hostile_129_file_system_that_cannot_allocate_holds_the_data_all_the_same";
    for_storages(name, |_, storage| {
        let Some(world) = World::new("poor", 24 * MIB) else {
            return;
        };
        let leecher = world.leecher(storage, world.seed.address);
        leecher.wait_for_event("complete", LIMIT);
        leecher.leave();
        world.set.assert_same_in(&world.place, Tolerance::NONE);
        let again = world.leecher(storage, world.seed.address);
        again.wait_for_state("seeding", LIMIT);
        assert_eq!(again.counter("down_bytes"), 0, "it is all there");
        again.leave();
    });
}

/// Goal: row 150: with write-back that takes half a second and syncs that take five, the loop does
/// not wait, peers stay, memory is bounded, and all of it arrives.
#[test]
fn hostile_150_slow_disk_slows_the_download_and_nothing_else() {
    let name = "slow::hostile_150_slow_disk_slows_the_download_and_nothing_else";
    for_storages(name, |_, storage| {
        let Some(world) = World::new("slow", 256 * MIB) else {
            return;
        };
        let relay = Relay::paced(world.seed.address, 32 * MIB);
        let late = |millis| Fault::Takes(Duration::from_millis(millis));
        world.disk.disturb(Call::Write, late(500), 12);
        world.disk.disturb(Call::Sync, late(5000), 3);
        let leecher = world.leecher(storage, relay.address());
        wait_for("a sync that takes its time", LIMIT, || {
            world.disk.hits(Call::Sync) > 0
        });
        leecher.wait_for_event("complete", LIMIT);
        let status = ctl(&world.place, &["status", "--json"]).object();
        let longest = status["loop"]["longest_us"].as_u64().expect("a number");
        println!("{storage}: longest turn of the loop {longest} us");
        // Were it to wait for one of those syncs, or two write-backs, it would be longer; a busy
        // machine alone can make it longer than the goal of 50 ms.
        assert!(longest < 1_000_000, "the loop waits for the disk: {status}");
        let is_lost = |event: &serde_json::Value| {
            event["change"] == "left" && event["reason"] != "both sides have everything"
        };
        assert!(!leecher.events().iter().any(is_lost), "the seed stayed");
        let memory = proc::memory_kib(leecher.process.pid(), "RssAnon:");
        let most = limits::WINDOWS_LEN_MAX + limits::WAITING_LEN_MAX + 32 * MIB;
        assert!(memory * 1024 < most, "{memory} KiB of memory");
        leecher.leave();
        world.set.assert_same_in(&world.place, Tolerance::NONE);
    });
}

/// Goal: row 135: a sync that fails once means that what was written since the last good one is
/// looked at again, whatever the next sync says.
/// Method: the disk refuses one write-back, so that the sync fails; it has not got those bytes.
#[test]
fn hostile_135_failed_sync_is_not_made_good_by_the_next_one() {
    let name = "slow::hostile_135_failed_sync_is_not_made_good_by_the_next_one";
    for_storages(name, |_, storage| {
        let Some(world) = World::new("lost", 24 * MIB) else {
            return;
        };
        world.disk.disturb(Call::Sync, Fault::Fails(Errno::EIO), 1);
        let leecher = world.leecher(storage, world.seed.address);
        wait_for("the sync that fails", LIMIT, || {
            world.disk.hits(Call::Sync) == 1
        });
        leecher.wait_for_event("complete", LIMIT);
        leecher.wait_for_text("is checked again", LIMIT);
        leecher.leave();
        world.set.assert_same_in(&world.place, Tolerance::NONE);
    });
}

/// Goal: row 136: a written file that is closed to make room for others is synced first, and what
/// that sync says counts.
/// Method: more files than may be open, each of one piece, so that a new file sees `fdatasync` only
/// when it is closed; one of those fails. The disk counts files closed with bytes unsynced.
#[test]
fn hostile_136_written_file_that_makes_room_for_others_is_synced_and_checked_first() {
    let name =
        "slow::hostile_136_written_file_that_makes_room_for_others_is_synced_and_checked_first";
    for_storages(name, |_, storage| {
        let make = |place: &Path| {
            let files = (0..FILES_COUNT).map(|number| {
                let name = format!("{number:03}");
                DataSet::file(&folder(place, "many"), &name, PIECE_LEN.into(), number);
                (Path::new("many").join(name), PIECE_LEN.into())
            });
            let files = files.collect();
            let set = DataSet {
                folder: place.into(),
                name: "many".into(),
                files,
            };
            let torrent = torrent::HandMade::of(&set, PIECE_LEN, None).path;
            (set, torrent)
        };
        let Some(world) = World::with(powers_for(storage), make) else {
            return;
        };
        let lost = Fault::Fails(Errno::EIO);
        let what = (Part::Data, Call::SyncData);
        world.disk.disturb_later(what, lost, 40, 1);
        let leecher = world.leecher(storage, world.seed.address);
        // Once it has failed the torrent is given up, and whatever is not synced is hashed again.
        let mut unsynced = 0;
        wait_for("the sync that fails", LIMIT, || {
            let closed = world.disk.unsynced_closes();
            let has_failed = world.disk.hits_of(what) == 1;
            unsynced = if has_failed { unsynced } else { closed };
            has_failed
        });
        assert_eq!(unsynced, 0, "closed without a sync");
        leecher.wait_for_text("is checked again", LIMIT);
        leecher.wait_for_event("durable", LIMIT);
        for (path, _) in &world.set.files {
            let original = std::fs::read(world.set.folder.join(path)).ok();
            assert_eq!(world.disk.content(path), original, "{}", path.display());
        }
        leecher.leave();
    });
}

/// Goal: row 151: when nothing leaves the page cache in time, the receive window closes, memory
/// stays what it is, and the peer stays.
/// Method: every write takes its time, for more data than all buffers hold together; what the seed
/// gets rid of is compared with what the disk takes.
#[test]
fn hostile_151_page_cache_that_does_not_empty_closes_the_receive_window() {
    let name = "slow::hostile_151_page_cache_that_does_not_empty_closes_the_receive_window";
    for_storages(name, |_, storage| {
        let make = |place: &Path| {
            let set = DataSet::file(place, "wide", 256 * MIB, 67);
            let torrent = torrent::create(&set, None);
            (set, torrent)
        };
        let Some(world) = World::with(powers_for(storage), make) else {
            return;
        };
        let relay = Relay::start(world.seed.address, u64::MAX);
        let slow = Fault::Takes(Duration::from_millis(200));
        world.disk.disturb(Call::Write, slow, u64::MAX);
        let leecher = world.leecher(storage, relay.address());
        wait_for("some writes", LIMIT, || world.disk.hits(Call::Write) > 0);
        let pid = leecher.process.pid();
        let mut seen = VecDeque::new();
        wait_for(
            "the receive window to close, with memory as it is",
            LIMIT,
            || {
                let hits = world.disk.hits(Call::Write);
                seen.push_back((hits, relay.passed(), proc::memory_kib(pid, "VmRSS:")));
                while seen.front().is_some_and(|(before, ..)| before + 15 < hits) {
                    seen.pop_front();
                }
                let (first, before, _) = seen[0];
                let sizes = seen.iter().map(|(_, _, size)| *size);
                let (least, most) = (sizes.clone().min(), sizes.max());
                let is_flat = most.unwrap_or(0) - least.unwrap_or(0) < 4 * 1024;
                let is_closed = relay.passed() - before <= (hits - first) * WRITE_LEN_MAX;
                hits - first >= 12 && is_closed && is_flat
            },
        );
        let most = proc::memory_kib(pid, "VmHWM:");
        println!("{storage}: {} B passed, {most} KiB", relay.passed());
        assert!(relay.passed() < world.set.len(), "all of it is in memory");
        let limit = limits::WINDOWS_LEN_MAX + limits::WAITING_LEN_MAX + limits::HASH_BACKLOG_MAX;
        assert!(most * 1024 < limit + 48 * MIB, "{most} KiB of memory");
        world.disk.calm();
        leecher.wait_for_event("complete", LIMIT);
        let is_lost = |event: &serde_json::Value| {
            event["change"] == "left" && event["reason"] != "both sides have everything"
        };
        assert!(!leecher.events().iter().any(is_lost), "the seed stayed");
        leecher.leave();
        world.set.assert_same_in(&world.place, Tolerance::NONE);
    });
}

/// More files than are open at a time.
const FILES_COUNT: u64 = limits::FILES_OPEN_MAX as u64 + 200;
const PIECE_LEN: u32 = 16 * 1024;
/// More than the kernel hands over at once.
const WRITE_LEN_MAX: u64 = MIB / 4;
