//! Disks that are full while something is to be remembered.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::data::{DataSet, Tolerance};
use super::support::evpeer::{BINARY, Evpeer, Setup, ctl};
use super::support::relay::Relay;
use super::support::{folder, scratch, torrent, wait_for};
use super::{LIMIT, MIB, Small, fill, with_mounts};

/// The peer of `place` as its session says, with further arguments.
pub(super) fn start_again(name: &str, place: &Path, args: &[&str]) -> Evpeer {
    let mut command = Command::new(BINARY);
    command.args(["--json", "--bind", "127.0.0.1", "-p", "0", "--no-dht"]);
    command.arg("--no-lsd").arg("-o").arg(place).args(args);
    Evpeer::start_command(name, &mut command, [127, 0, 0, 1].into())
}

/// Bytes of the disk that a peer keeps for a time when it is full.
fn reserve(place: &Path) -> u64 {
    let metadata = fs::metadata(place.join(".evpeer/reserve.evpeer"));
    metadata.map_or(0, |metadata| metadata.len().min(512 * metadata.blocks()))
}

/// What a peer says of a torrent.
fn status_of(place: &Path, name: &str) -> serde_json::Value {
    let status = ctl(place, &["status", "--json"]).object();
    let torrents = status["torrents"].as_array().expect("torrents").clone();
    let it = torrents.into_iter().find(|it| it["torrent"] == name);
    it.unwrap_or_default()
}

/// Has the peer of `place` take up a torrent of one small file, whose seed is returned.
fn add_small(place: &Path, scratch: &Path) -> (DataSet, Evpeer) {
    let set = DataSet::file(&folder(scratch, "data-small"), "small", 2000, 87);
    let torrent: PathBuf = torrent::create(&set, None);
    let seed = Evpeer::start("small-seed", &Setup::new(&torrent, &set.folder));
    let path = torrent.to_str().expect("text");
    let added = ctl(place, &["add", path, "--peer", &seed.address.to_string()]);
    assert_eq!(added.code, Some(0), "{added:?}");
    (set, seed)
}

/// Goal: row 128: what is verified on a full disk, and what is asked for meanwhile, is remembered
/// over a kill and a restart; no download begins in the room that is given up for that.
/// Method: the data has its room before the disk is filled, and 4,096 pieces, so that the journal
/// needs several blocks more.
#[test]
fn hostile_128_full_disk_holds_up_neither_journal_nor_session() {
    let name = "full::hostile_128_full_disk_holds_up_neither_journal_nor_session";
    with_mounts(name, |lan| {
        for (disk, storage) in [
            (Small::Tmpfs, "map"),
            (Small::Tmpfs, "pwrite"),
            (Small::Ext4, "map"),
            (Small::Ext4, "pwrite"),
        ] {
            let scratch = scratch();
            let set = DataSet::file(&folder(scratch.path(), "data"), "large", 64 * MIB, 83);
            let torrent = torrent::HandMade::of(&set, 16 * 1024, None).path;
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
            let peer = Evpeer::start("peer", &setup);
            wait_for("something to be verified", LIMIT, || {
                relay.is_held() && peer.counter("done_bytes") > 0
            });
            assert_eq!(reserve(&place), RESERVE_LEN);
            let others = fill(&place);
            relay.lift();
            peer.wait_for_event("complete", LIMIT);
            let (small, _small_seed) = add_small(&place, scratch.path());
            peer.wait_for_text("no space for", LIMIT);
            wait_for("the session to be written", LIMIT, || {
                let session = fs::read_to_string(place.join(".evpeer/session"));
                session.is_ok_and(|text| text.matches("info_hash").count() == 2)
            });
            // The figure of a record in the journal follows within a second, as of all others.
            peer.wait_for_event("durable", LIMIT);
            let left = reserve(&place);
            println!("{disk:?}, {storage}: {left} B of the reserve are left");
            assert!(0 < left && left < RESERVE_LEN, "{left} B");
            drop(peer); // by SIGKILL

            for round in ["killed", "stopped"] {
                let again = start_again(round, &place, &[]);
                again.wait_for_state("seeding", LIMIT);
                wait_for("the small one to wait", LIMIT, || {
                    status_of(&place, "small")["state"] == "error"
                });
                let fetched = again.counter("down_bytes");
                assert_eq!(fetched, 0, "{round}: it was all there");
                again.leave();
            }
            let last = start_again("last", &place, &[]);
            last.wait_for_state("seeding", LIMIT);
            fs::remove_file(others).expect("it is there");
            wait_for("the small one to come", LIMIT, || {
                status_of(&place, "small")["state"] == "seeding"
            });
            wait_for("the reserve to be whole", LIMIT, || {
                reserve(&place) == RESERVE_LEN
            });
            last.leave();
            let read = |folder: &Path| fs::read(folder.join("small")).ok();
            assert_eq!(read(&place), read(&small.folder));
            fs::remove_file(place.join("small")).expect("it is there");
            set.assert_same_in(&place, Tolerance::NONE);
        }
    });
}

/// What is kept.
const RESERVE_LEN: u64 = MIB;
