//! The binary, killed at every moment there is: nothing finished is fetched twice, no file is
//! corrupt, and its journal claims what is there.
//!
//! The large sizes run with `NIGHTLY=1`.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evpeer::base::id::PieceIndex;
use evpeer::base::rng::Rng;
use evpeer::meta::metainfo::Metainfo;
use evpeer::storage::journal::{Binding, BootId, Claim, Knowledge, encode_snapshot, replay};
use sha1::{Digest, Sha1};
use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup};
use support::process::Process;
use support::relay::Relay;
use support::{folder, is_nightly, scratch, skip, torrent, wait_for};

const STORAGES: [&str; 2] = ["map", "pwrite"];

/// A data set, its seed, and what is known of the torrent.
struct World {
    set: DataSet,
    torrent: PathBuf,
    meta: Metainfo,
    seed: Evpeer,
    _scratch: tempfile::TempDir,
    scratch: PathBuf,
}

impl World {
    fn new(name: &str, len: u64) -> Self {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), name, len, 11);
        Self::of(scratch, set)
    }

    fn of(scratch: tempfile::TempDir, set: DataSet) -> Self {
        let torrent = torrent::create(&set, None);
        let bytes = fs::read(&torrent).expect("just made");
        let meta = Metainfo::from_bytes(&bytes).expect("a torrent");
        let seed = Evpeer::start("seed", &Setup::new(&torrent, &set.folder));
        seed.wait_for_state("seeding", LIMIT);
        Self {
            set,
            torrent,
            meta,
            seed,
            scratch: scratch.path().to_owned(),
            _scratch: scratch,
        }
    }

    fn length(&self) -> u64 {
        self.meta.geometry().length()
    }

    fn journal_path(&self, folder: &Path) -> PathBuf {
        let name = format!("{}.journal", self.meta.info_hash);
        folder.join(".evpeer").join(name)
    }

    /// What the journal in `folder` says, if there is one yet.
    fn journal(&self, folder: &Path) -> Option<Knowledge> {
        let bytes = fs::read(self.journal_path(folder)).ok()?;
        let replayed = replay(&bytes, &Binding::of(&self.meta));
        Some(replayed.expect("no crash makes it unusable").knowledge)
    }

    /// Checks that every piece that the journal claims hashes right; says how many bytes those are.
    fn assert_claims(&self, folder: &Path, is_claimed: impl Fn(Claim) -> bool) -> u64 {
        self.assert_claims_beside(&mut BTreeSet::new(), folder, is_claimed)
    }

    /// Like [`World::assert_claims`], but takes those in `seen` to be right, and adds to them.
    fn assert_claims_beside(
        &self,
        seen: &mut BTreeSet<u32>,
        folder: &Path,
        is_claimed: impl Fn(Claim) -> bool,
    ) -> u64 {
        let Some(known) = self.journal(folder) else {
            return 0;
        };
        let mut len = 0;
        for piece in known.claims.held().ones() {
            let claim = known.claims.get(piece);
            if is_claimed(claim) {
                assert!(
                    !seen.insert(piece) || self.is_right(folder, PieceIndex(piece)),
                    "piece {piece} is {claim:?} and wrong"
                );
                len += u64::from(self.meta.geometry().piece_len(PieceIndex(piece)));
            }
        }
        len
    }

    fn is_right(&self, folder: &Path, piece: PieceIndex) -> bool {
        let geometry = self.meta.geometry();
        let mut hasher = Sha1::new();
        for span in geometry.spans(piece, 0, geometry.piece_len(piece)) {
            let mut bytes = vec![0; span.len as usize];
            let path = self.meta.files[span.file as usize].path.as_path();
            let read = File::open(folder.join(path))
                .and_then(|file| file.read_exact_at(&mut bytes, span.offset));
            if !span.pad && read.is_err() {
                return false;
            }
            hasher.update(&bytes);
        }
        <[u8; 20]>::from(hasher.finalize())
            == *self.meta.text().expect("it was read").piece_hash(piece)
    }

    /// The command of a leecher that knows the relay alone: a session would tell it of the seed.
    fn leecher(&self, folder: &Path, relay: &Relay, storage: &str, args: &[&str]) -> Command {
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
        setup.command()
    }

    /// Lets a leecher finish in good order.
    fn finish(&self, folder: &Path, relay: &Relay, storage: &str) {
        let args = ["--exit-on-complete"];
        let mut command = self.leecher(folder, relay, storage, &args);
        let mut last = Process::spawn("last leecher", &mut command);
        let status = last.wait(LIMIT);
        assert_eq!(status.code(), Some(0), "{}", last.errors());
        self.set.assert_same_in(folder, Tolerance::NONE);
        let all = self.assert_claims(folder, |claim| claim == Claim::Durable);
        assert_eq!(all, self.length(), "a good end makes everything durable");
    }
}

/// Goal: row 147: whatever moment the process is killed at, it goes on where it was: a kill costs
/// what was on the wire and what came in the last 100 ms, and the files are right in the end.
/// Method: a relay lets the data come at a known rate and counts it; kills come at random. After
/// each one every piece that is newly claimed is hashed, and fifty times each that is claimed at
/// all.
#[test]
fn hostile_147_storm_of_kills() {
    let (len, kills) = match is_nightly() {
        true => (1024 * MIB, 5000),
        false => (48 * MIB, 50),
    };
    let world = World::new("storm", len);
    let folder = folder(&world.scratch, "leecher");
    let relay = Relay::paced(world.seed.address, RATE);
    let mut rng = Rng::new(47);
    let mut done = 0;
    let mut seen = BTreeSet::new();
    for kill in 1..=kills {
        let storage = STORAGES[rng.below(2) as usize];
        let mut command = world.leecher(&folder, &relay, storage, &[]);
        let mut leecher = Process::spawn("leecher", &mut command);
        // Some die while they start, most of them when a share of the data has come.
        let target = world.length() * kill / kills * 9 / 10;
        let end = Instant::now() + Duration::from_secs(2);
        if rng.below(5) > 0 {
            while relay.passed() < target && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::thread::sleep(Duration::from_millis(u64::from(rng.below(150))));
        assert!(
            leecher.is_running(),
            "it left by itself: {}",
            leecher.text()
        );
        drop(leecher); // by SIGKILL
        if kill % (kills / 50) == 0 {
            seen.clear();
        }
        let claimed = world.assert_claims_beside(&mut seen, &folder, |_| true);
        assert!(
            claimed >= done,
            "kill {kill}: {claimed} B claimed after {done} B"
        );
        done = claimed;
    }
    world.finish(&folder, &relay, "map");
    let overhead = world.length() / 500; // headers of messages, bitfields
    let twice = relay.passed().saturating_sub(world.length() + overhead);
    let each = twice / kills;
    println!("fetched twice: {each} B a kill, of {RATE} B/s");
    assert!(
        each <= RATE / 10 + WIRE,
        "{each} B were fetched twice a kill"
    );
}

/// Goal: what is left of a killed process is taken up at once: nothing is hashed, and half pieces
/// are not fetched again.
/// Method: the relay stops the data within a piece; the process dies 300 ms later.
#[test]
fn half_pieces_of_a_killed_process_are_not_fetched_again() {
    let scratch = scratch();
    let set = DataSet::file(
        &support::folder(scratch.path(), "data"),
        "half",
        64 * MIB,
        3,
    );
    let world = World::of(scratch, set);
    for storage in STORAGES {
        let folder = folder(&world.scratch, storage);
        let relay = Relay::start(world.seed.address, 20 * MIB + 300_000);
        let mut command = world.leecher(&folder, &relay, storage, &[]);
        let leecher = Process::spawn("leecher", &mut command);
        wait_for("the mark", LIMIT, || relay.is_held());
        std::thread::sleep(Duration::from_millis(300));
        drop(leecher); // by SIGKILL
        let first = relay.passed();
        drop(relay);
        let relay = Relay::start(world.seed.address, u64::MAX);
        world.finish(&folder, &relay, storage);
        let twice = (first + relay.passed()).saturating_sub(world.length());
        println!("{storage}: {twice} B fetched twice, headers included");
        let overhead = world.length() / 500;
        // Each open connection was in the middle of one block at most.
        assert!(twice <= overhead + 64 * 1024, "{storage}: {twice} B twice");
    }
}

/// Goal: row 146: killed at any of its system calls, the next process claims only what is right,
/// has every piece that was noted, and finishes.
/// Method: strace kills at the n-th call of a kind, for each kind and n until none comes.
#[test]
fn hostile_146_kill_at_every_system_call() {
    if !Command::new("strace")
        .arg("-V")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return skip("strace is not installed");
    }
    let scratch = scratch();
    let set = DataSet::file(
        &support::folder(scratch.path(), "data"),
        "small",
        5 << 14,
        3,
    );
    let world = World::of(scratch, set);
    let mut runs = 0;
    for (index, call) in CALLS.iter().enumerate() {
        let storage = STORAGES[index % 2];
        for n in 1.. {
            let folder = folder(&world.scratch, &format!("{call}-{n}"));
            let relay = Relay::start(world.seed.address, u64::MAX);
            let inner = world.leecher(&folder, &relay, storage, &["--exit-on-complete"]);
            let mut command = Command::new("strace");
            command.args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
            ]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]);
            command.arg(inner.get_program()).args(inner.get_args());
            let status = Process::spawn("strace", &mut command).wait(LIMIT);
            let was_killed = status.code() != Some(0);
            let noted = world.assert_claims(&folder, |_| true);
            drop(relay);
            let relay = Relay::start(world.seed.address, u64::MAX);
            world.finish(&folder, &relay, storage);
            let fetched = relay.passed();
            let left = world.length() - noted;
            assert!(
                fetched <= left + TALK_LEN,
                "{call} {n}: {fetched} B were fetched where {left} B were missing"
            );
            runs += 1;
            fs::remove_dir_all(&folder).expect("ours");
            // Calls of the loop come by the thousand: every one of them in the large size alone.
            let is_enough = n >= 6 && !is_nightly();
            if !was_killed || is_enough {
                break;
            }
        }
    }
    assert!(runs > CALLS.len() as u64 * 2, "{runs} runs");
}

/// Goal: a machine that went down leaves the durable claims: what came later is hashed again, and
/// only that.
/// Method: the boot id in the journal of a killed process is changed, as if it was another run.
#[test]
fn durable_claims_alone_outlive_the_machine() {
    let scratch = scratch();
    let set = DataSet::file(
        &support::folder(scratch.path(), "data"),
        "boot",
        64 * MIB,
        3,
    );
    let world = World::of(scratch, set);
    for storage in STORAGES {
        let folder = folder(&world.scratch, storage);
        let relay = Relay::start(world.seed.address, 40 * MIB);
        let mut command = world.leecher(&folder, &relay, storage, &[]);
        let leecher = Process::spawn("leecher", &mut command);
        wait_for("a commit", LIMIT, || {
            let known = world.journal(&folder);
            known.is_some_and(|known| known.claims.of(Claim::Durable).next().is_some())
        });
        drop(leecher); // by SIGKILL
        drop(relay);
        let mut known = world.journal(&folder).expect("there is a commit");
        known.boot = Some(BootId([1; 16]));
        let (bytes, _) = encode_snapshot(&Binding::of(&world.meta), &known);
        fs::write(world.journal_path(&folder), bytes).expect("ours");
        let relay = Relay::start(world.seed.address, u64::MAX);
        world.finish(&folder, &relay, storage);
        let held = u64::from(known.claims.held().count_ones());
        let held = held * u64::from(world.meta.geometry().nominal_piece_len());
        let most = world.length() - held + world.length() / 500;
        assert!(
            relay.passed() <= most,
            "pieces that were there were fetched"
        );
    }
}

/// Goal: a torrent of a tebibyte is ready 200 ms after it was killed.
/// Method: a file of holes, a journal that says that all of it is there, and the time from the
/// start of the process to its first `seeding`.
#[test]
fn tebibyte_is_ready_in_200_ms_after_a_kill() {
    let scratch = scratch();
    for (name, len) in [
        ("1 GiB", 1 << 30),
        ("100 GiB", 100 << 30),
        ("1 TiB", 1_u64 << 40),
    ] {
        let piece_len: u32 = 4 << 20;
        let root = folder(scratch.path(), name);
        let file = File::create(root.join("big")).expect("writable");
        if let Err(error) = file.set_len(len) {
            skip(&format!("no file of {name} here: {error}"));
            continue;
        }
        let torrent = root.join("big.torrent");
        fs::write(&torrent, holes_torrent(len, piece_len)).expect("writable");
        let setup = Setup::new(&torrent, &root);
        // The first process makes a journal, which then says what a full check would have told.
        let first = Evpeer::start("first", &setup);
        let bytes = fs::read(&torrent).expect("just made");
        let meta = Metainfo::from_bytes(&bytes).expect("a torrent");
        let path = root.join(format!(".evpeer/{}.journal", meta.info_hash));
        wait_for("a journal", LIMIT, || path.exists());
        drop(first); // by SIGKILL
        let binding = Binding::of(&meta);
        let journal = fs::read(&path).expect("just seen");
        let mut known = replay(&journal, &binding).expect("usable").knowledge;
        (0..binding.piece_count).for_each(|piece| known.claims.set(piece, Claim::Checked));
        fs::write(&path, encode_snapshot(&binding, &known).0).expect("writable");

        let mut best = Duration::MAX;
        for _ in 0..5 {
            let begun = Instant::now();
            let again = Process::spawn("again", &mut setup.command());
            again.wait_for_line("seeding", LIMIT, |line| {
                line.contains("\"seeding\"").then_some(())
            });
            best = best.min(begun.elapsed());
            drop(again);
        }
        println!("{name}: ready after {best:?}");
        let limit = if is_nightly() { 200 } else { 1000 };
        assert!(best < Duration::from_millis(limit), "{name}: {best:?}");
    }
}

/// A .torrent of one file `big` full of zeros.
fn holes_torrent(len: u64, piece_len: u32) -> Vec<u8> {
    let zeros = Sha1::digest(vec![0; piece_len as usize]);
    let pieces = len / u64::from(piece_len);
    let hashes: Vec<u8> = (0..pieces).flat_map(|_| zeros).collect();
    let head = format!(
        "d4:infod6:lengthi{len}e4:name3:big12:piece lengthi{piece_len}e6:pieces{}:",
        hashes.len()
    );
    [head.as_bytes(), &hashes, b"ee"].concat()
}

#[test]
fn hostile_137_second_process_on_a_folder_is_refused_and_a_killed_one_does_not_stay() {
    let world = World::new("lock", 4 * MIB);
    let setup = Setup::new(&world.torrent, &world.set.folder);
    let mut second = Process::spawn("second", &mut setup.command());
    assert_eq!(second.wait(LIMIT).code(), Some(1));
    let text = second.errors();
    let pid = world.seed.process.pid().to_string();
    assert!(text.contains("in use") && text.contains(&pid), "{text}");
    let torrent = world.torrent.clone();
    let folder = world.set.folder.clone();
    let World { seed, _scratch, .. } = world;
    drop(seed); // by SIGKILL: its lock goes with it
    let third = Evpeer::start("third", &Setup::new(&torrent, &folder));
    third.wait_for_state("seeding", LIMIT);
    third.leave();
}

#[test]
fn two_torrents_with_one_file_are_refused_by_name() {
    let scratch = scratch();
    let torrents = ["a", "b"].map(|name| {
        let data = folder(scratch.path(), &format!("{name}/data"));
        let seed = u64::from(name.as_bytes()[0]);
        torrent::create(&DataSet::file(&data, "same", MIB, seed), None)
    });
    let out = folder(scratch.path(), "out");
    let mut command = Setup::new(&torrents[0], &out).command();
    command.arg("-t").arg(&torrents[1]);
    let mut peer = Process::spawn("peer", &mut command);
    assert_eq!(peer.wait(LIMIT).code(), Some(2));
    let text = peer.errors();
    assert!(text.matches("'same'").count() == 2, "{text}");
}

const MIB: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);
/// What the storm's relay lets through, bytes a second.
const RATE: u64 = 30 * MIB;
/// What may be on the wire when a process dies: the buffers of its sockets, one turn's worth.
const WIRE: u64 = 512 * 1024;
/// The calls at which a process is killed: what files and journals are made of, and the loop's.
const CALLS: [&str; 22] = [
    "openat",
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename",
    "fallocate",
    "mmap",
    "munmap",
    "close",
    "unlink",
    "mkdir",
    "flock",
    "statx",
    "fstat",
    "ftruncate",
    "madvise",
    "write",
    "recvfrom",
    "epoll_wait",
    "connect",
    "fcntl",
    "futex",
];

/// What is said beside the data while five blocks are fetched: less than another block.
const TALK_LEN: u64 = 12_000;
