//! What a power cut leaves: crash images of real file systems, made from what really reached a
//! disk, and what the next start claims of them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`disk`]    | a disk that logs its writes and flushes: a file of a FUSE file system |
//! | [`mounts`]  | ext4 and XFS in images |
//! | [`process`] | the real storage, its jobs run by hand, in good and in broken orders |
//! | [`story`]   | what happens to a torrent on such a disk, and what is said meanwhile |
//! | [`images`]  | the disk after power cuts, and what the next start makes of it |
//! | [`kernel`]  | system calls that no safe crate has |
//! | `download`, `changed`, `broken`, `cut` | the tests |
//!
//! A flush of the disk makes safe what was written before it. Of what came later a power cut leaves
//! anything: some writes, some blocks of 4 KiB of each, and where one place was written several
//! times, any of those. Every image is mounted, so that the file system recovers as it would, and
//! a [`Storage`](evpeer::storage::Storage) starts on it that is told of another run of the machine.
//!
//! This takes root, FUSE and loop devices. Where they are missing the tests say that they are
//! skipped; for root with `EVPEER_REQUIRE_CLIENTS=1` it is a failure. `NIGHTLY=1` looks at ten
//! times as many images. What is wrong is told with the command that repeats it, except for what
//! the kernel does by itself.

use std::fs::{self, File};
use std::path::Path;

use evpeer::config::StorageKind;
use rustix::process::geteuid;

use images::Findings;
use mounts::Kind;
use story::Journal;
use support::sandbox;

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod changed;
mod cut;
mod disk;
mod download;
mod images;
mod kernel;
mod mounts;
mod process;
mod story;

const STORAGES: [StorageKind; 2] = [StorageKind::Map, StorageKind::Pwrite];
const JOURNALS: [Journal; 2] = [Journal::Beside, Journal::Elsewhere];

/// Runs `body` in a sandbox, with a folder in memory, if this machine has what it takes. `test` is
/// the full name of the calling test.
fn on_disks(test: &str, kind: Kind, body: impl FnOnce(&Path)) {
    sandbox::inside(test, |lan| {
        if let Some(missing) = missing(kind, lan.is_isolated) {
            let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
            assert!(
                !(required && is_root_of_the_machine()),
                "{missing}, and EVPEER_REQUIRE_CLIENTS=1"
            );
            return support::skip(&missing);
        }
        let scratch = support::scratch();
        let folder = support::folder(scratch.path(), "memory");
        lan.mount_tmpfs(&folder, MEMORY_LEN);
        body(&folder);
    });
}

/// What this machine lacks, if it lacks anything.
fn missing(kind: Kind, is_isolated: bool) -> Option<String> {
    if !is_isolated {
        return Some("mount namespaces are not allowed here".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = File::options().read(true).write(true).open(device) {
            return Some(format!("{device} cannot be used: {error}"));
        }
    }
    let is_here = kind.is_here();
    (!is_here).then(|| format!("{} is not installed", kind.maker()))
}

/// Whether root in here is root everywhere, not only in the sandbox of a user.
fn is_root_of_the_machine() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// The file systems that can be made here; says which cannot.
fn kinds() -> Vec<Kind> {
    let (here, missing): (Vec<Kind>, Vec<Kind>) =
        Kind::ALL.into_iter().partition(|kind| kind.is_here());
    for kind in missing {
        support::skip(&format!("{kind:?}: {} is not installed", kind.maker()));
    }
    here
}

/// How many images to look at where `count` is enough for a quick look.
fn scaled(count: u32) -> u32 {
    match support::is_nightly() {
        true => count * 10,
        false => count,
    }
}

fn print(what: &str, found: &Findings) {
    println!(
        "{what}: {} images in {:.1} s ({:.0} a second), {} claims, {} false; {} called durable, \
         missing in {}; {} images of no use",
        found.images,
        found.time.as_secs_f64(),
        found.images as f64 / found.time.as_secs_f64(),
        found.claims,
        found.lies.len(),
        found.owed,
        found.losses.len(),
        found.unusable.len(),
    );
}

/// Room for images: one disk, and one for each that looks.
const MEMORY_LEN: u64 = 512 << 20;
