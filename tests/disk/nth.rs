//! A disk on which one call fails, whichever it is.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fuser::Errno;

use super::faulty::{Call, Fault, Faulty, Part, Powers};
use super::support::data::DataSet;
use super::support::evpeer::{Evpeer, Setup};
use super::support::process::Process;
use super::support::{folder, scratch, torrent, wait_for};
use super::{LIMIT, with_mounts};

/// A small torrent, a seed of it, and a folder for disks.
struct World {
    set: DataSet,
    torrent: PathBuf,
    seed: SocketAddr,
    storage: &'static str,
    scratch: PathBuf,
}

/// What became of a peer.
#[derive(Debug)]
enum End {
    /// It says that all is on the disk.
    Durable,
    /// The torrent is in error.
    Stopped(String),
    /// The process has ended.
    Ended,
}

impl World {
    fn start(&self, place: &Path) -> Evpeer {
        let setup = Setup {
            args: &["--storage", self.storage],
            peers: &[self.seed],
            ..Setup::new(&self.torrent, place)
        };
        let mut command = setup.command();
        command.env("XDG_STATE_HOME", place.with_extension("state"));
        Evpeer {
            process: Process::spawn("peer", &mut command),
            address: self.seed, // not asked for
        }
    }

    /// What the disk holds is the torrent.
    fn assert_on_disk(&self, disk: &Faulty, what: &str) {
        for (path, _) in &self.set.files {
            let original = fs::read(self.set.folder.join(path)).ok();
            let is_there = disk.content(path) == original;
            assert!(is_there, "{what}: a false claim of {}", path.display());
        }
    }

    /// Lets call number `n` of this kind fail, kills the peer when it has come to an end, and
    /// starts it again. Says whether there was such a call.
    fn fails_at(&self, what: (Part, Call), n: u64) -> bool {
        let name = format!("{:?}-{:?}-{n}", what.0, what.1).to_lowercase();
        let place = folder(&self.scratch, &name);
        let powers = Powers {
            allocates: self.storage == "map",
            no_locks: None,
        };
        let Some(disk) = Faulty::mount_or_skip(&place, powers) else {
            return false;
        };
        if [(Part::Data, Call::Read), (Part::Data, Call::Open)].contains(&what) {
            for (path, _) in &self.set.files {
                disk.put(
                    path,
                    fs::read(self.set.folder.join(path)).expect("it is there"),
                );
            }
        }
        if what == (Part::State, Call::Open) {
            let mut former = self.start(&place); // it leaves something to be opened
            let end = end_of(&mut former);
            assert!(matches!(end, End::Durable), "undisturbed: {end:?}");
            former.leave();
        }
        disk.disturb_later(what, Fault::Fails(Errno::EIO), n, 1);
        let mut peer = self.start(&place);
        let end = end_of(&mut peer);
        let is_hit = disk.hits_of(what) > 0;
        let text = peer.process.text();
        match &end {
            End::Durable => self.assert_on_disk(&disk, &name),
            End::Stopped(reason) => {
                let is_named = reason.contains(place.to_str().expect("text"));
                assert!(is_named, "{name}: {reason}");
            }
            End::Ended => assert!(
                text.contains(place.to_str().expect("text")),
                "{name}: {text}"
            ),
        }
        if is_hit && !matches!(end, End::Durable) {
            assert!(text.contains("Input/output error"), "{name}: {text}");
        }
        peer.assert_sane();
        drop(peer); // by SIGKILL: the journal is what it is
        disk.calm();
        let mut again = self.start(&place);
        let end = end_of(&mut again);
        let text = again.process.text();
        assert!(
            matches!(end, End::Durable),
            "{name}, again: {end:?}\n{text}"
        );
        self.assert_on_disk(&disk, &name);
        again.leave();
        is_hit
    }
}

fn end_of(peer: &mut Evpeer) -> End {
    let mut end = None;
    wait_for("an end of it", LIMIT, || {
        let is_running = peer.process.is_running(); // before its last words
        for event in peer.events() {
            if event["event"] == "durable" {
                end = Some(End::Durable);
            } else if event["event"] == "state" && event["state"] == "error" {
                end = Some(End::Stopped(
                    event["reason"].as_str().unwrap_or("").to_owned(),
                ));
            }
        }
        if !is_running && end.is_none() {
            end = Some(End::Ended);
        }
        end.is_some()
    });
    end.expect("it was waited for")
}

/// Fails every call of every kind once.
fn every_call_fails_once(name: &str, storage: &'static str) {
    with_mounts(name, |_| {
        let scratch = scratch();
        let data = folder(scratch.path(), "data");
        let files = ["one", "two"].map(|name| {
            DataSet::file(&folder(&data, "small"), name, 80_000, 101);
            (Path::new("small").join(name), 80_000)
        });
        let set = DataSet {
            folder: data,
            name: "small".into(),
            files: files.into(),
        };
        let torrent = torrent::HandMade::of(&set, 64 * 1024, None).path;
        let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
        let world = World {
            set,
            torrent,
            seed: seed.address,
            storage,
            scratch: scratch.path().into(),
        };
        let kinds = Mutex::new(KINDS.to_vec());
        let next = || kinds.lock().unwrap_or_else(PoisonError::into_inner).pop();
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(kind) = next() {
                        let count = (0..CALLS_MAX)
                            .take_while(|&n| world.fails_at(kind, n))
                            .count();
                        println!("{storage}: {kind:?}: {count} calls");
                        assert!(count > 0, "{kind:?} is a call that fails");
                        assert!(count < CALLS_MAX as usize, "{kind:?} has an end");
                    }
                });
            }
        });
    });
}

/// Goal: row 134: whichever call of a small download fails, nothing false is claimed, then or after
/// a kill, and without the fault all ends well.
#[test]
fn hostile_134_call_that_fails_makes_no_false_claim_with_maps() {
    let name = "nth::hostile_134_call_that_fails_makes_no_false_claim_with_maps";
    every_call_fails_once(name, "map");
}

/// The same with the other way to write.
#[test]
fn hostile_134_call_that_fails_makes_no_false_claim_with_writes() {
    let name = "nth::hostile_134_call_that_fails_makes_no_false_claim_with_writes";
    every_call_fails_once(name, "pwrite");
}

/// What fails.
const KINDS: [(Part, Call); 10] = [
    (Part::State, Call::Open),
    (Part::State, Call::Make),
    (Part::State, Call::Rename),
    (Part::State, Call::Write),
    (Part::State, Call::Sync),
    (Part::Data, Call::Open),
    (Part::Data, Call::Make),
    (Part::Data, Call::Read),
    (Part::Data, Call::Write),
    (Part::Data, Call::Sync),
];
/// Far more calls than there are of any kind.
const CALLS_MAX: u64 = 60;
/// Kinds at a time: most of it is waiting.
const AT_ONCE: usize = 4;
