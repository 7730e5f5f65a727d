//! Files that are cut, removed or replaced while real peers use them, and disks that fill: the
//! process lives, nothing wrong is served, and what is missing is fetched again, or when there is
//! room.

mod denied;
mod faulty;
mod full;
mod gone;
mod nth;
mod reflink;
mod slow;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use support::data::{DataSet, Tolerance, flip_bit};
use support::evpeer::{Evpeer, Setup, ctl};
use support::relay::Relay;
use support::sandbox::{self, Lan};
use support::{folder, scratch, torrent, wait_for};

const STORAGES: [&str; 2] = ["map", "pwrite"];

/// A seed whose files are in use, and a peer that has fetched everything from it.
struct World {
    set: DataSet,
    torrent: PathBuf,
    victim: Evpeer,
    friend: Evpeer,
    /// Where the victim's files are.
    folder: PathBuf,
    /// The largest of them.
    file: PathBuf,
    scratch: tempfile::TempDir,
}

impl World {
    fn new(storage: &str) -> Self {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "used", 12 * MIB, 31);
        let torrent = torrent::create(&set, None);
        let place = folder(scratch.path(), "victim");
        set.copy_to(&place);
        let args = ["--storage", storage];
        let setup = Setup {
            args: &args,
            ..Setup::new(&torrent, &place)
        };
        let victim = Evpeer::start("victim", &setup);
        victim.wait_for_state("seeding", LIMIT);
        let friend = Evpeer::start(
            "friend",
            &Setup {
                peers: &[victim.address],
                ..Setup::new(&torrent, &folder(scratch.path(), "friend"))
            },
        );
        friend.wait_for_event("complete", LIMIT);
        Self {
            set,
            torrent,
            victim,
            friend,
            file: largest_in(&place),
            folder: place,
            scratch,
        }
    }

    /// Somebody fetches everything, from the victim at first.
    fn reader(&self, name: &str) -> Evpeer {
        let place = folder(self.scratch.path(), name);
        let setup = Setup {
            peers: &[self.victim.address, self.friend.address],
            ..Setup::new(&self.torrent, &place)
        };
        Evpeer::start(name, &setup)
    }

    /// Waits until the victim has noticed, has got back what it lost and nothing else, and a
    /// reader has got everything.
    fn heals(&mut self, lost_len: u64) {
        let reader = self.reader("reader");
        self.victim.wait_for_text("is checked again", LIMIT);
        reader.wait_for_event("complete", LIMIT);
        let (ours, theirs) = (self.file.clone(), self.folder.clone());
        let name = ours.strip_prefix(&theirs).expect("below its folder");
        let original = self.set.folder.join(name);
        wait_for("the victim's file is whole again", LIMIT, || {
            fs::read(&ours).ok() == fs::read(&original).ok()
        });
        assert!(self.victim.process.is_running());
        let fetched = self.victim.counter("down_bytes");
        assert!(
            fetched <= lost_len + 2 * MIB,
            "{fetched} B fetched for {lost_len} B that were lost"
        );
        let read = self.scratch.path().join("reader");
        self.set.assert_same_in(&read, Tolerance::NONE);
    }
}

fn largest_in(folder: &Path) -> PathBuf {
    let mut files = Vec::new();
    collect(folder, &mut files);
    let largest = files.into_iter().max_by_key(|path| len_of(path));
    largest.expect("there are files")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true if path.ends_with(".evpeer") => {}
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn hostile_131_file_cut_while_it_is_served_costs_its_bytes_and_not_the_process() {
    for storage in STORAGES {
        for is_halved in [false, true] {
            let mut world = World::new(storage);
            let len = len_of(&world.file);
            let file = File::options().write(true).open(&world.file);
            let file = file.expect("it is there");
            file.set_len(if is_halved { len / 2 } else { 0 })
                .expect("cut");
            world.heals(len);
        }
    }
}

#[test]
fn hostile_132_file_removed_or_renamed_or_replaced_by_another_is_noticed_and_fetched_again() {
    for storage in STORAGES {
        let changes: [fn(&Path); 3] = [
            |path| fs::remove_file(path).expect("removed"),
            |path| fs::rename(path, path.with_extension("away")).expect("renamed"),
            |path| {
                let len = len_of(path);
                fs::remove_file(path).expect("removed");
                fs::write(path, vec![0; len as usize]).expect("written");
            },
        ];
        for change in changes {
            let mut world = World::new(storage);
            let len = len_of(&world.file);
            change(&world.file);
            world.heals(len);
        }
    }
}

#[test]
fn hostile_132_file_replaced_by_what_is_no_file_stops_the_torrent_with_its_name() {
    type Change = (fn(&Path), &'static str);
    let changes: [Change; 2] = [
        (|path| fs::create_dir(path).expect("made"), "not a file"),
        (
            |path| symlink("/nowhere", path).expect("made"),
            "symbolic link",
        ),
    ];
    for storage in STORAGES {
        for (change, text) in changes {
            let mut world = World::new(storage);
            fs::remove_file(&world.file).expect("removed");
            change(&world.file);
            let _reader = world.reader("reader");
            world.victim.wait_for_state("error", LIMIT);
            let name = world.file.file_name().expect("a name");
            let line = world.victim.wait_for_text(text, LIMIT);
            assert!(line.contains(&*name.to_string_lossy()), "{line}");
            // It ends by itself, as no torrent is left that can go on, and by no signal.
            assert_eq!(world.victim.wait_for_exit(LIMIT), Some(1), "{text}");
        }
    }
}

/// Runs `body` where file systems can be mounted, if this machine allows that. `test` is the full
/// name of the calling test.
fn with_mounts(test: &str, body: impl FnOnce(Lan)) {
    sandbox::inside(test, |lan| {
        if lan.is_isolated {
            return body(lan);
        }
        let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
        assert!(!required, "no mounts here, and EVPEER_REQUIRE_CLIENTS=1");
        support::skip("mount namespaces are not allowed here");
    });
}

/// A disk of `len` bytes at `folder`.
#[derive(Clone, Copy, Debug)]
enum Small {
    Tmpfs,
    /// In an image, over a loop device.
    Ext4,
}

impl Small {
    /// Mounts it; `None` if this machine cannot.
    fn mount(self, lan: Lan, folder: &Path, len: u64) -> Option<()> {
        match self {
            Self::Tmpfs => lan.mount_tmpfs(folder, len),
            Self::Ext4 => {
                let image = folder.with_extension("img");
                File::create(&image)
                    .expect("writable")
                    .set_len(len)
                    .expect("room");
                let mut make = Command::new("mkfs.ext4");
                make.args(["-q", "-F", "-m", "0"]).arg(&image);
                let mut mount = Command::new("mount");
                mount.args(["-o", "loop"]).arg(&image).arg(folder);
                for command in [&mut make, &mut mount] {
                    let output = command.output();
                    if !output.is_ok_and(|output| output.status.success()) {
                        support::skip(&format!("{command:?} does not work here"));
                        return None;
                    }
                }
            }
        }
        Some(())
    }
}

/// Takes all space that is left at `folder`; gives it back when its file is removed.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("somebody-elses");
    let mut file = File::create(&path).expect("there is room for a name");
    for len in [1 << 20, 4096, 1] {
        let bytes = vec![1; len];
        while file.write_all(&bytes).is_ok() {}
    }
    let _ = file.sync_all(); // ext4 gives room away late
    path
}

/// The reason that a peer waits for, which it is to tell with figures.
fn wait_for_lack(peer: &Evpeer) -> String {
    peer.process
        .wait_for_line("a lack of space", LIMIT, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let reason = event["reason"].as_str()?;
            let is_it = event["state"] == "error" && event["retry_s"].is_u64();
            let is_told = reason.contains("no space for") && reason.contains(" needed, ");
            (is_it && is_told).then(|| reason.to_owned())
        })
}

#[test]
fn hostile_139_bytes_that_change_under_a_seed_are_noticed_and_fetched_again() {
    for storage in STORAGES {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "rotten", 12 * MIB, 53);
        let torrent = torrent::create(&set, None);
        let place = folder(scratch.path(), "victim");
        set.copy_to(&place);
        let args = ["--storage", storage];
        let setup = Setup {
            args: &args,
            ..Setup::new(&torrent, &place)
        };
        // The second process knows the files from the journal and has no byte in its memory.
        let first = Evpeer::start("first", &setup);
        first.wait_for_event("durable", LIMIT);
        first.leave();
        let mut victim = Evpeer::start("victim", &setup);
        victim.wait_for_state("seeding", LIMIT);
        let file = largest_in(&place);
        flip_bit(&file, len_of(&file) / 2);

        let reader = Evpeer::start(
            "reader",
            &Setup {
                peers: &[victim.address],
                ..Setup::new(&torrent, &folder(scratch.path(), "reader"))
            },
        );
        victim.wait_for_text("piece on disk is wrong", LIMIT);
        victim.wait_for_state("downloading", LIMIT);
        assert!(!reader.has_event("complete") && victim.process.is_running());

        let friend = Evpeer::start(
            "friend",
            &Setup {
                peers: &[victim.address, reader.address],
                ..Setup::new(&torrent, &set.folder)
            },
        );
        victim.wait_for_event("complete", LIMIT);
        reader.wait_for_event("complete", LIMIT);
        let fetched = victim.counter("down_bytes");
        assert!(fetched <= 2 * MIB, "{fetched} B fetched for one bit");
        victim.leave();
        drop((reader, friend));
        set.assert_same_in(&place, Tolerance::NONE);
        set.assert_same_in(&scratch.path().join("reader"), Tolerance::NONE);
    }
}

#[test]
fn hostile_127_torrent_that_does_not_fit_waits_with_figures_and_begins_when_it_does() {
    let name = "hostile_127_torrent_that_does_not_fit_waits_with_figures_and_begins_when_it_does";
    with_mounts(name, |lan| {
        for storage in STORAGES {
            let scratch = scratch();
            let set = DataSet::tree(&folder(scratch.path(), "data"), "large", 30 * MIB, 41);
            let torrent = torrent::create(&set, None);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
            let place = folder(scratch.path(), "disk");
            lan.mount_tmpfs(&place, 20 * MIB);
            let setup = Setup {
                args: &["--storage", storage, "--exit-on-complete"],
                peers: &[seed.address],
                ..Setup::new(&torrent, &place)
            };
            let mut peer = Evpeer::start("peer", &setup);
            let reason = wait_for_lack(&peer);
            assert!(reason.contains("30.0 MiB needed"), "{reason}");
            assert!(!place.join("large").exists(), "no space is taken");
            let status = ctl(&place, &["status", "--json"]).object();
            let shown = &status["torrents"][0];
            assert_eq!(shown["state"], "error", "{status}");
            assert!(
                shown["retry_s"].as_u64().is_some_and(|s| s <= 60),
                "{status}"
            );
            let why = ctl(&place, &["why", "large"]);
            assert!(why.out.contains("it waits: no space"), "{why:?}");
            assert!(peer.process.is_running(), "it does not give up");

            let more = format!("remount,size={}", 80 * MIB);
            let status = Command::new("mount")
                .args(["-o", &more])
                .arg(&place)
                .status();
            assert!(status.is_ok_and(|status| status.success()), "remounted");
            let resumed = ctl(&place, &["resume", "large"]);
            assert_eq!(resumed.code, Some(0), "{resumed:?}");
            assert_eq!(peer.wait_for_exit(LIMIT), Some(0));
            set.assert_same_in(&place, Tolerance::NONE);
        }
    });
}

#[test]
fn hostile_128_disk_filled_by_others_holds_the_download_up_and_nothing_else() {
    let name = "hostile_128_disk_filled_by_others_holds_the_download_up_and_nothing_else";
    with_mounts(name, |lan| {
        for (disk, storage) in [
            (Small::Tmpfs, "map"),
            (Small::Tmpfs, "pwrite"),
            (Small::Ext4, "map"),
            (Small::Ext4, "pwrite"),
        ] {
            let scratch = scratch();
            let set = DataSet::tree(&folder(scratch.path(), "data"), "shared", 64 * MIB, 43);
            let torrent = torrent::create(&set, None);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
            let relay = Relay::start(seed.address, 3 * MIB);
            let place = folder(scratch.path(), "disk");
            if disk.mount(lan, &place, 100 * MIB).is_none() {
                continue;
            }
            let setup = Setup {
                args: &["--storage", storage],
                peers: &[relay.address()],
                ..Setup::new(&torrent, &place)
            };
            let mut peer = Evpeer::start("peer", &setup);
            wait_for("something to be verified", LIMIT, || {
                relay.is_held() && peer.counter("done_bytes") > 0
            });
            let others = fill(&place);
            relay.lift();
            wait_for_lack(&peer);
            let verified = || {
                let status = ctl(&place, &["status", "--json"]).object();
                status["torrents"][0]["done_bytes"]
                    .as_u64()
                    .expect("a number")
            };
            let before = peer.counter("done_bytes");
            wait_for("what was verified to be looked at", LIMIT, || {
                verified() >= before
            });

            // What it has it gives away: nobody else has anything.
            let port = seed.address.port();
            seed.leave();
            let reader = Evpeer::start(
                "reader",
                &Setup {
                    peers: &[peer.address],
                    ..Setup::new(&torrent, &folder(scratch.path(), "reader"))
                },
            );
            wait_for("all that is verified to be served", LIMIT, || {
                reader.counter("done_bytes") == verified()
            });
            assert!(!reader.has_event("complete") && peer.process.is_running());

            fs::remove_file(others).expect("it is there");
            let setup = Setup {
                port,
                ..Setup::new(&torrent, &set.folder)
            };
            let _seed = Evpeer::start("seed", &setup);
            peer.wait_for_event("complete", LIMIT);
            reader.wait_for_event("complete", LIMIT);
            set.assert_same_in(&place, Tolerance::NONE);
            peer.leave();
        }
    });
}

#[test]
fn hostile_153_torrent_of_a_tebibyte_is_told_what_it_lacks_and_others_go_on() {
    let name = "hostile_153_torrent_of_a_tebibyte_is_told_what_it_lacks_and_others_go_on";
    with_mounts(name, |lan| {
        for storage in STORAGES {
            let scratch = scratch();
            let huge = scratch.path().join("huge.torrent");
            fs::write(&huge, torrent::of_zeros("huge", 1 << 40, 16 << 20)).expect("writable");
            let set = DataSet::tree(&folder(scratch.path(), "data"), "small", 5 * MIB, 47);
            let torrent = torrent::create(&set, None);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
            let place = folder(scratch.path(), "disk");
            lan.mount_tmpfs(&place, 20 * MIB);
            let huge = huge.to_str().expect("text");
            let setup = Setup {
                args: &["--storage", storage, "-t", huge],
                peers: &[seed.address],
                ..Setup::new(&torrent, &place)
            };
            let mut peer = Evpeer::start("peer", &setup);
            let reason = wait_for_lack(&peer);
            assert!(reason.contains("1.0 TiB needed"), "{reason}");
            peer.wait_for_event("complete", LIMIT);
            assert!(!place.join("huge").exists(), "nothing is made of it");
            set.assert_same_in(&place, Tolerance::NONE);
            assert!(peer.process.is_running());
            peer.leave();
        }
    });
}

const MIB: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);
