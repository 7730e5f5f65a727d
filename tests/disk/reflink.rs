//! Files that share their blocks with others, on disks without room for blocks of their own.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::slow::for_storages;
use super::support::data::DataSet;
use super::support::evpeer::{Evpeer, Setup, ctl};
use super::support::{folder, scratch, skip, torrent};
use super::{LIMIT, MIB, fill, wait_for_lack};

/// Mounts a file system that shares blocks at `folder`; `None` if this machine cannot.
fn mount(kind: &str, folder: &Path) -> Option<()> {
    let image = folder.with_extension("img");
    let file = File::create(&image).expect("writable");
    file.set_len(IMAGE_LEN).expect("room");
    let mut make = Command::new(format!("mkfs.{kind}"));
    make.arg("-q").arg(&image);
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(&image).arg(folder);
    for command in [&mut make, &mut mount] {
        let output = command.output();
        if !output.is_ok_and(|output| output.status.success()) {
            let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
            assert!(!required, "{command:?} fails, and EVPEER_REQUIRE_CLIENTS=1");
            skip(&format!("{command:?} does not work here"));
            return None;
        }
    }
    Some(())
}

/// Goal: row 130: every byte of the file has its place, and yet there is no room for what is
/// written to it: that is told as such, the torrent waits, the process lives.
/// Method: the torrent's file is a clone of one whose second half is wrong.
#[test]
fn hostile_130_file_of_shared_blocks_on_a_full_disk_waits_for_room() {
    let name = "reflink::hostile_130_file_of_shared_blocks_on_a_full_disk_waits_for_room";
    for_storages(name, |_, storage| {
        for kind in ["xfs", "btrfs"] {
            let scratch = scratch();
            let set = DataSet::file(&folder(scratch.path(), "data"), "clone", LEN, 97);
            let torrent = torrent::create(&set, None);
            let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
            let place = folder(scratch.path(), "disk");
            if mount(kind, &place).is_none() {
                continue;
            }
            let (base, clone) = (place.join("base"), place.join("clone"));
            fs::copy(set.root(), &base).expect("there is room");
            let half = File::options().write(true).open(&base).expect("there");
            let wrong = vec![0xaa; (LEN / 2) as usize];
            half.write_all_at(&wrong, LEN / 2).expect("there is room");
            half.sync_all().expect("there is room");
            let mut copy = Command::new("cp");
            copy.arg("--reflink=always").arg(&base).arg(&clone);
            assert!(copy.status().is_ok_and(|status| status.success()));
            let others = fill(&place);

            let state = folder(scratch.path(), "state");
            let setup = Setup {
                args: &[
                    "--storage",
                    storage,
                    "--state-dir",
                    state.to_str().expect("text"),
                ],
                peers: &[seed.address],
                ..Setup::new(&torrent, &place)
            };
            let mut peer = Evpeer::start("peer", &setup);
            let reason = wait_for_lack(&peer);
            assert!(reason.contains(place.to_str().expect("text")), "{reason}");
            assert!(peer.process.is_running(), "no signal ends it");

            fs::remove_file(others).expect("it is there");
            let resumed = ctl(
                &place,
                &[
                    "--state-dir",
                    state.to_str().expect("text"),
                    "resume",
                    "clone",
                ],
            );
            assert_eq!(resumed.code, Some(0), "{resumed:?}");
            peer.wait_for_event("complete", LIMIT);
            peer.leave();
            assert!(fs::read(&clone).ok() == fs::read(set.root()).ok(), "{kind}");
            let kept = fs::read(&base).expect("it is there");
            assert!(
                kept[LEN as usize / 2..] == wrong,
                "the other file is as it was"
            );
        }
    });
}

const LEN: u64 = 16 * MIB;
/// The least that mkfs.xfs takes.
const IMAGE_LEN: u64 = 300 * MIB;
