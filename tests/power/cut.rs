//! Row 148 with the binary: its file system is cut off from the disk while it downloads from a
//! real peer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evpeer::base::bits::Bitfield;
use evpeer::base::rng::Rng;
use evpeer::meta::metainfo::Metainfo;
use evpeer::storage::journal::{Binding, Claim, replay};

use crate::mounts::{Kind, Mount};
use crate::process::wrong_pieces;
use crate::support::data::{DataSet, Tolerance};
use crate::support::evpeer::{BINARY, Evpeer, Setup};
use crate::support::process::Process;
use crate::support::relay::Relay;
use crate::support::{folder, torrent};
use crate::{kernel, on_disks, scaled};

#[test]
fn hostile_148_ext4_is_cut_off_under_the_binary() {
    let name = "cut::hostile_148_ext4_is_cut_off_under_the_binary";
    storm(name, Kind::Ext4);
}

#[test]
fn hostile_148_xfs_is_cut_off_under_the_binary() {
    storm(
        "cut::hostile_148_xfs_is_cut_off_under_the_binary",
        Kind::Xfs,
    );
}

/// What is downloaded, and where.
struct World {
    set: DataSet,
    torrent: PathBuf,
    meta: Metainfo,
    image: PathBuf,
    mountpoint: PathBuf,
    fs: Kind,
    boots: u64,
}

/// Goal: whenever the power goes, what the journal calls durable is there; no more is fetched again
/// than what came since the last commit, and the files are right in the end.
/// Method: a relay lets the data come at a known rate and counts it; the file system is cut off at
/// random, mounted again, and the binary told of another run of the machine.
fn storm(name: &str, fs: Kind) {
    on_disks(name, fs, |scratch| {
        let cuts = u64::from(scaled(CUTS));
        let set = DataSet::tree(&folder(scratch, "data"), "set", LEN, 5);
        let torrent = torrent::create(&set, None);
        let bytes = fs::read(&torrent).expect("just made");
        let mut world = World {
            meta: Metainfo::from_bytes(&bytes).expect("a torrent"),
            image: scratch.join("image"),
            mountpoint: folder(scratch, "fs"),
            fs,
            boots: 0,
            set,
            torrent,
        };
        fs.make_sized(&world.image, 2 * LEN);
        world.hide_boot_id(&scratch.join("boot"));
        let seed = Evpeer::start("seed", &Setup::new(&world.torrent, &world.set.folder));
        seed.wait_for_state("seeding", LIMIT);
        let relay = Relay::paced(seed.address, RATE);

        let mut rng = Rng::new(148);
        for cut in 0..cuts {
            world.next_boot(&scratch.join("boot"));
            let storage = ["map", "pwrite"][cut as usize % 2];
            // Most of them when a share of the data has come.
            let target = LEN * (cut + 1) / cuts * 9 / 10;
            let pause = Duration::from_millis(u64::from(rng.below(1500)));
            world.download_until(&relay, storage, target, pause);
            let mount = world.mount();
            println!("cut {cut}: {} B are durable", world.durable(mount.folder()));
        }
        world.next_boot(&scratch.join("boot"));
        let mount = world.mount();
        world.finish(mount.folder(), &relay);
        let twice = relay.passed().saturating_sub(LEN + LEN / 500);
        println!(
            "{fs:?}: fetched twice: {} B a cut, of {RATE} B/s",
            twice / cuts
        );
        assert!(twice / cuts <= 3 * RATE, "{twice} B twice in {cuts} cuts");
        drop(mount);
    });
}

impl World {
    fn mount(&self) -> Mount {
        Mount::new(self.fs, &self.image, &self.mountpoint).expect("it can be mounted again")
    }

    /// Puts a file of ours in the place of the one that tells one run of the machine from another,
    /// as nobody but this sandbox sees.
    fn hide_boot_id(&self, file: &Path) {
        fs::write(file, "0").expect("writable");
        let status = Command::new("mount")
            .arg("--bind")
            .arg(file)
            .arg(BOOT_ID)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "it is hidden");
    }

    fn next_boot(&mut self, file: &Path) {
        self.boots += 1;
        fs::write(file, format!("{:032x}\n", self.boots)).expect("writable");
    }

    fn leecher(&self, folder: &Path, relay: &Relay, storage: &str, args: &[&str]) -> Process {
        // A session would tell it of the seed.
        for name in ["session", "session.new"] {
            let _ = fs::remove_file(folder.join(".evpeer").join(name));
        }
        let peers = [relay.address()];
        let always = ["--no-tracker", "--no-pex", "--storage", storage];
        let args = [&always[..], args].concat();
        let setup = Setup {
            peers: &peers,
            args: &args,
            ..Setup::new(&self.torrent, folder)
        };
        Process::spawn("leecher", &mut setup.command())
    }

    /// Downloads until so much has come, then for a while, then until the power goes.
    fn download_until(&self, relay: &Relay, storage: &str, target: u64, pause: Duration) {
        let mount = self.mount();
        let begin = Instant::now();
        let mut leecher = self.leecher(mount.folder(), relay, storage, &[]);
        while relay.passed() < target && begin.elapsed() < ROUND {
            assert!(leecher.is_running(), "it left: {}", leecher.text());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(pause);
        assert!(leecher.is_running(), "it left: {}", leecher.text());
        let folder = File::open(mount.folder()).expect("it is mounted");
        kernel::cut_off(&folder).expect("it can be cut off");
        drop(folder);
        drop(leecher); // by SIGKILL
    }

    /// Bytes that the journal calls durable, all of which are there.
    fn durable(&self, folder: &Path) -> u64 {
        let name = format!(".evpeer/{}.journal", self.meta.info_hash);
        let Ok(journal) = fs::read(folder.join(name)) else {
            return 0;
        };
        let Ok(replayed) = replay(&journal, &Binding::of(&self.meta)) else {
            return 0; // the first one, torn
        };
        let claims = &replayed.knowledge.claims;
        let mut durable = Bitfield::new(claims.len());
        for piece in claims.of(Claim::Durable) {
            durable.set(piece);
        }
        let wrong = wrong_pieces(folder, &self.meta, &durable);
        assert!(wrong.is_empty(), "{wrong:?} are called durable and wrong");
        let piece_len = u64::from(self.meta.geometry().nominal_piece_len());
        u64::from(durable.count_ones()) * piece_len
    }

    fn finish(&self, folder: &Path, relay: &Relay) {
        let mut last = self.leecher(folder, relay, "map", &["--exit-on-complete"]);
        let status = last.wait(LIMIT);
        assert_eq!(status.code(), Some(0), "{}", last.errors());
        let mut verify = Command::new(BINARY);
        verify
            .arg("verify")
            .arg("-t")
            .arg(&self.torrent)
            .arg("-o")
            .arg(folder);
        let output = verify.output().expect("the binary was built");
        assert!(output.status.success(), "{output:?}");
        let lost_and_found = folder.join("lost+found");
        let _ = fs::remove_dir(lost_and_found); // comes with ext4
        self.set.assert_same_in(folder, Tolerance::NONE);
    }
}

const LEN: u64 = 96 << 20;
/// What comes in a second.
const RATE: u64 = 12 << 20;
const CUTS: u32 = 8;
/// A round in which less comes than it should ends all the same.
const ROUND: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(120);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
