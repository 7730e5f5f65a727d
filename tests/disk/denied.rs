//! Folders that cannot be written, and file systems without locks.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use fuser::Errno;
use serde_json::Value;

use super::faulty::{Call, Fault, Faulty, Part, Powers};
use super::slow::for_storages;
use super::support::data::{DataSet, Tolerance};
use super::support::evpeer::{Evpeer, Setup, ctl};
use super::support::sandbox::Lan;
use super::support::{folder, scratch, torrent, wait_for};
use super::{LIMIT, MIB};

/// Two seeds, and an output folder in which one of the torrents has a folder of its own already.
struct World {
    sets: [DataSet; 2],
    torrents: [PathBuf; 2],
    seeds: [Evpeer; 2],
    place: PathBuf,
    ill: PathBuf,
    _scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let scratch = scratch();
        let sets = ["ill", "well"].map(|name| {
            let data = folder(scratch.path(), &format!("data-{name}"));
            DataSet::tree(&data, name, 3 * MIB, 83)
        });
        let torrents = [0, 1].map(|which: usize| torrent::create(&sets[which], None));
        let seed = |which: usize| {
            Evpeer::start("seed", &Setup::new(&torrents[which], &sets[which].folder))
        };
        let place = folder(scratch.path(), "out");
        Self {
            seeds: [seed(0), seed(1)],
            ill: folder(&place, "ill"),
            sets,
            torrents,
            place,
            _scratch: scratch,
        }
    }

    /// A peer that fetches both; as somebody else than root, if wanted.
    fn peer(&self, storage: &str, user: Option<u32>) -> Evpeer {
        let second = self.torrents[1].to_str().expect("text");
        let setup = Setup {
            args: &["--storage", storage, "-t", second],
            peers: &[self.seeds[0].address, self.seeds[1].address],
            ..Setup::new(&self.torrents[0], &self.place)
        };
        let mut command = setup.command();
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Evpeer::start_command("peer", &mut command, setup.ip)
    }

    fn state_of(&self, name: &str) -> Value {
        let status = ctl(&self.place, &["status", "--json"]).object();
        let torrents = status["torrents"].as_array().expect("torrents").clone();
        let it = torrents
            .into_iter()
            .find(|torrent| torrent["torrent"] == name);
        it.expect("it is there")["state"].clone()
    }

    /// The one says what is wrong with its folder, with `text`, and the other one does not mind.
    fn is_told_and_the_other_completes(&self, peer: &mut Evpeer, text: &str) {
        let reason = peer.process.wait_for_line(text, LIMIT, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_it = event["event"] == "state" && event["state"] == "error";
            is_it.then(|| event["reason"].as_str().map(str::to_owned))?
        });
        let folder = self.ill.to_str().expect("text");
        assert!(reason.contains(folder) && reason.contains(text), "{reason}");
        wait_for("the other one to be complete", LIMIT, || {
            self.state_of("well") == "seeding"
        });
        // It may be on trial again, where the file system tells only when it is written to.
        assert_ne!(self.state_of("ill"), "seeding");
        assert!(peer.process.is_running());
        self.assert_whole(&self.sets[1]);
    }

    /// What was in the way is gone: it goes on when it is told to, if not by itself.
    fn goes_on(&self) {
        let resumed = ctl(&self.place, &["resume", "ill"]);
        assert_eq!(resumed.code, Some(0), "{resumed:?}");
        wait_for("it to be complete too", LIMIT, || {
            self.state_of("ill") == "seeding"
        });
        self.assert_whole(&self.sets[0]);
    }

    fn assert_whole(&self, set: &DataSet) {
        for (path, _) in &set.files {
            let read = |folder: &Path| fs::read(folder.join(path)).ok();
            assert_eq!(read(&self.place), read(&set.folder), "{}", path.display());
        }
    }
}

/// Goal: row 133: whatever the file system has against a file is told with its path, and another
/// torrent goes on.
#[test]
fn hostile_133_refusals_of_a_file_system_are_told_by_kind_and_path() {
    let name = "denied::hostile_133_refusals_of_a_file_system_are_told_by_kind_and_path";
    let refusals = [
        (Call::Make, Errno::EACCES, 0, "no permission to"),
        (Call::Make, Errno::EROFS, 0, "is read-only"),
        (Call::Make, Errno::EDQUOT, 3, "disk quota exceeded"),
        (Call::Write, Errno::EROFS, 2, "is read-only"),
        (Call::Write, Errno::EDQUOT, 2, "disk quota exceeded"),
    ];
    for_storages(name, |_, storage| {
        for (call, errno, skip, text) in refusals {
            let world = World::new();
            let Some(disk) = Faulty::mount_or_skip(&world.ill, Powers::default()) else {
                return;
            };
            let fault = Fault::Fails(errno);
            disk.disturb_later((Part::Data, call), fault, skip, u64::MAX);
            let mut peer = world.peer(storage, None);
            world.is_told_and_the_other_completes(&mut peer, text);
            disk.calm();
            world.goes_on();
            peer.leave();
        }
    });
}

/// Goal: row 133: a read-only mount, and a folder of somebody else.
#[test]
fn hostile_133_read_only_and_foreign_folders_stop_their_torrent_alone() {
    let name = "denied::hostile_133_read_only_and_foreign_folders_stop_their_torrent_alone";
    for_storages(name, |lan: Lan, storage| {
        let world = World::new();
        lan.mount_tmpfs(&world.ill, 20 * MIB);
        lan.remount_read_only(&world.ill);
        let mut peer = world.peer(storage, None);
        world.is_told_and_the_other_completes(&mut peer, "is read-only");
        peer.leave();

        let world = World::new();
        if chown(&world.place, Some(NOBODY), Some(NOBODY)).is_err() {
            return super::support::skip("files cannot be given to others here");
        }
        let mut peer = world.peer(storage, Some(NOBODY));
        world.is_told_and_the_other_completes(&mut peer, "no permission to");
        chown(&world.ill, Some(NOBODY), Some(NOBODY)).expect("it went well before");
        world.goes_on();
        peer.leave();
    });
}

/// Goal: row 138: a file system without locks is used all the same, and says so.
#[test]
fn hostile_138_file_system_without_locks_is_used_and_the_log_says_so() {
    let name = "denied::hostile_138_file_system_without_locks_is_used_and_the_log_says_so";
    for_storages(name, |_, storage| {
        for errno in [Errno::ENOSYS, Errno::ENOTSUP, Errno::ENOLCK] {
            let scratch = scratch();
            let set = DataSet::tree(&folder(scratch.path(), "data"), "free", 3 * MIB, 89);
            let torrent = torrent::create(&set, None);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
            let place = folder(scratch.path(), "disk");
            let powers = Powers {
                allocates: true,
                no_locks: Some(errno),
            };
            let Some(_disk) = Faulty::mount_or_skip(&place, powers) else {
                return;
            };
            let setup = Setup {
                args: &["--storage", storage],
                peers: &[seed.address],
                ..Setup::new(&torrent, &place)
            };
            let peer = Evpeer::start("peer", &setup);
            let line = peer.wait_for_text("cannot be locked", LIMIT);
            assert!(line.contains(place.to_str().expect("text")), "{line}");
            peer.wait_for_event("durable", LIMIT);
            peer.leave();
            set.assert_same_in(&place, Tolerance::NONE);
            let again = Evpeer::start("again", &setup);
            again.wait_for_state("seeding", LIMIT);
            assert_eq!(again.counter("down_bytes"), 0, "it is all there");
            again.leave();
        }
    });
}

/// Somebody who owns nothing.
const NOBODY: u32 = 65534;
