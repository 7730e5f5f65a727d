//! Rows about files: links in the way, many files, full and read-only disks.
//!
//! Storage runs here without a peer, its jobs one after the other in this thread.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::bits::Bitfield;
use evpeer::base::id::{PieceIndex, Ticket, TorrentId};
use evpeer::base::limits::WINDOWS_LEN_MAX;
use evpeer::base::plan::WritePlan;
use evpeer::base::slot::Slot;
use evpeer::base::verdict::Verdict;
use evpeer::config::StorageKind;
use evpeer::meta::metainfo::Metainfo;
use evpeer::storage::error::StorageError;
use evpeer::storage::{Access, Event, Lent, Pace, Storage, StorageOptions, jobs};
use rustix::time::{ClockId, clock_gettime};
use sha1::{Digest, Sha1};

use crate::support::{self, sandbox};

const TORRENT: TorrentId = TorrentId(1);
const KINDS: [StorageKind; 3] = [StorageKind::Auto, StorageKind::Map, StorageKind::Pwrite];

/// A torrent named `t` of files with these paths, lengths and attributes.
fn torrent(piece_len: u32, files: &[(String, u64, &str)], hashes: &[u8]) -> Arc<Metainfo> {
    let mut bytes = b"d4:infod5:filesl".to_vec();
    for (path, len, attributes) in files {
        let names: String = path
            .split('/')
            .map(|name| format!("{}:{name}", name.len()))
            .collect();
        let attributes = format!("{}:{attributes}", attributes.len());
        bytes.extend(format!("d4:attr{attributes}6:lengthi{len}e4:pathl{names}ee").into_bytes());
    }
    let tail = format!("e4:name1:t12:piece lengthi{piece_len}e6:pieces");
    bytes.extend(format!("{tail}{}:", hashes.len()).into_bytes());
    bytes.extend_from_slice(hashes);
    bytes.extend_from_slice(b"ee");
    Arc::new(Metainfo::from_bytes(&bytes).expect("a torrent"))
}

/// One file `d/a` of `len` bytes, all of them 7.
fn sevens(len: usize) -> (Arc<Metainfo>, Vec<u8>) {
    let data = vec![7; len];
    let hashes: Vec<u8> = data.chunks(1 << 20).flat_map(Sha1::digest).collect();
    let files = [("d/a".to_owned(), len as u64, "")];
    (torrent(1 << 20, &files, &hashes), data)
}

fn storage(root: &Path, kind: StorageKind) -> Storage {
    Storage::new(StorageOptions {
        root: root.to_owned(),
        kind,
        access: Access::ReadWrite,
        windows_len_max: WINDOWS_LEN_MAX,
        state_dir: None,
    })
}

/// Runs jobs and hashes until nothing is left to do; returns what storage said.
fn drive(storage: &mut Storage) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let mut is_idle = true;
        while let Some(job) = storage.poll_job() {
            storage.job_done(jobs::run(job));
            is_idle = false;
        }
        storage.work(64 << 20, Pace::AtOnce);
        while let Some(event) = storage.poll_event() {
            events.push(event);
            is_idle = false;
        }
        if is_idle && !storage.has_work() {
            return events;
        }
    }
}

fn add(storage: &mut Storage, meta: &Arc<Metainfo>) -> Result<Bitfield, StorageError> {
    storage.add(TORRENT, Arc::clone(meta));
    match drive(storage).pop() {
        Some(Event::Scanned { candidates, .. }) => Ok(candidates),
        Some(Event::Failed { error, .. }) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn store(storage: &mut Storage, piece: u32, bytes: &[u8]) -> Result<(), StorageError> {
    let slot = Slot {
        torrent: TORRENT,
        piece: PieceIndex(piece),
        begin: 0,
        len: bytes.len() as u32,
    };
    storage.store(slot, bytes);
    storage.settle(TORRENT, Ticket(0));
    match drive(storage).pop() {
        Some(Event::Settled { .. }) => Ok(()),
        Some(Event::Failed { error, .. }) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn check(storage: &mut Storage, piece: u32) -> Verdict {
    storage.check(TORRENT, PieceIndex(piece));
    match drive(storage).pop() {
        Some(Event::Checked { verdict, .. }) => verdict,
        other => panic!("{other:?}"),
    }
}

fn good() -> Verdict {
    Verdict::Good { blocks: vec![] }
}

/// Everything below `folder`, with lengths.
fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let stat = path.symlink_metadata().expect("an entry");
        if stat.is_dir() {
            found.extend(tree(&path));
        }
        found.push((path, stat.len()));
    }
    found.sort();
    found
}

#[test]
fn hostile_018_links_on_disk_are_not_followed() {
    type Make = fn(root: &Path, outside: &Path);
    let cases: [(&str, Make); 5] = [
        ("the file, to a file", |root, outside| {
            fs::create_dir_all(root.join("t/d")).unwrap();
            symlink(outside.join("a"), root.join("t/d/a")).unwrap();
        }),
        ("the file, to nothing", |root, outside| {
            fs::create_dir_all(root.join("t/d")).unwrap();
            symlink(outside.join("new"), root.join("t/d/a")).unwrap();
        }),
        ("its folder", |root, outside| {
            fs::create_dir_all(root.join("t")).unwrap();
            symlink(outside, root.join("t/d")).unwrap();
        }),
        ("the torrent's folder", |root, outside| {
            symlink(outside, root.join("t")).unwrap();
        }),
        ("a loop", |root, _| {
            fs::create_dir_all(root.join("t")).unwrap();
            symlink("d", root.join("t/d")).unwrap();
        }),
    ];
    let (meta, data) = sevens(100_000);
    for (name, make) in cases {
        for kind in KINDS {
            for is_late in [false, true] {
                let scratch = support::scratch();
                let (root, outside) = (scratch.path().join("out"), scratch.path().join("x"));
                fs::create_dir_all(outside.join("d")).unwrap();
                fs::create_dir_all(&root).unwrap();
                fs::write(outside.join("a"), vec![1; 100_000]).unwrap();
                fs::write(outside.join("d/a"), vec![1; 100_000]).unwrap();
                let before = tree(&outside);
                let mut storage = storage(&root, kind);
                let error = if is_late {
                    add(&mut storage, &meta).unwrap();
                    make(&root, &outside);
                    store(&mut storage, 0, &data).unwrap_err()
                } else {
                    make(&root, &outside);
                    add(&mut storage, &meta).unwrap_err()
                };
                assert!(
                    matches!(error, StorageError::Symlink { .. }),
                    "{name} late={is_late}: {error}"
                );
                assert_eq!(tree(&outside), before, "{name} late={is_late}");
                assert_eq!(fs::read(outside.join("a")).unwrap(), vec![1; 100_000]);
            }
        }
    }
}

/// What this thread has worked: other than a clock's time it is the same on a busy machine.
fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

#[test]
fn hostile_023_many_files_need_few_descriptors_and_maps() {
    const FILES: usize = 100_000;
    const SPANNED: usize = 5_000;
    let files: Vec<(String, u64, &str)> = (0..FILES)
        .map(|i| (format!("{:02}/{i}", i % 100), 10, ""))
        .collect();
    let data: Vec<u8> = (0..SPANNED * 10).map(|i| (i % 251) as u8).collect();
    let hashes: Vec<u8> = (0..FILES / SPANNED)
        .flat_map(|_| Sha1::digest(&data))
        .collect();
    let meta = torrent(data.len() as u32, &files, &hashes);
    // Kept to the end: ext4 is slow to make files while it remembers many that went.
    let scratches = KINDS.map(|kind| (kind, support::scratch()));
    for (kind, scratch) in &scratches {
        let mut storage = storage(scratch.path(), *kind);
        let begun = cpu_time();
        assert_eq!(add(&mut storage, &meta).unwrap().count_ones(), 0);
        let took = cpu_time() - begun;
        assert!(
            took < Duration::from_secs(2),
            "added in {took:?} of this thread"
        );

        let slot = Slot {
            torrent: TORRENT,
            piece: PieceIndex(3),
            begin: 0,
            len: data.len() as u32,
        };
        storage.prepare(TORRENT, PieceIndex(3));
        storage.store(slot, &data);
        storage.check(TORRENT, PieceIndex(3));
        let (mut files_max, mut maps_max) = (0, 0);
        let mut events = Vec::new();
        for turn in 0.. {
            let job = storage.poll_job();
            let is_idle = job.is_none();
            if let Some(job) = job {
                storage.job_done(jobs::run(job));
            }
            let hashed = storage.work(1 << 20, Pace::AtOnce);
            events.extend(std::iter::from_fn(|| storage.poll_event()));
            if turn % 256 == 0 {
                let (files, maps) = in_use(scratch.path());
                (files_max, maps_max) = (files_max.max(files), maps_max.max(maps));
            }
            if is_idle && hashed == 0 {
                break;
            }
        }
        assert!(
            matches!(&events[..], [Event::Checked { verdict, .. }] if *verdict == good()),
            "{events:?}"
        );
        assert!(files_max > 0 && files_max <= 512, "{files_max} files open");
        assert!(maps_max <= 1000, "{maps_max} maps");
        assert_eq!(check(&mut storage, 4), Verdict::Missing);
        storage.sync(TORRENT, Ticket(0));
        let events = drive(&mut storage);
        assert!(matches!(events[..], [Event::Durable { .. }]), "{events:?}");
    }
}

/// Descriptors and maps of this process below `folder`.
fn in_use(folder: &Path) -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").expect("Linux has it");
    let files = descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(folder))
        .count();
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let name = folder.to_str().expect("a readable name");
    (files, maps.matches(name).count())
}

#[test]
fn hostile_026_pad_files_are_zeros_without_a_disk() {
    const PIECE_LEN: u32 = 256 << 20;
    let zeros = vec![0; PIECE_LEN as usize];
    let digest = Sha1::digest(&zeros);
    let hashes: Vec<u8> = (0..4096).flat_map(|_| digest).collect();
    let files = [(".pad/1".to_owned(), 1 << 40, "p")];
    let meta = torrent(PIECE_LEN, &files, &hashes);
    let scratch = support::scratch();
    let mut storage = storage(scratch.path(), StorageKind::Auto);
    assert!(add(&mut storage, &meta).unwrap().is_full());
    storage.create_empty_files(TORRENT);
    storage.prepare(TORRENT, PieceIndex(9));
    store(&mut storage, 9, &[7; 1000]).unwrap();
    assert_eq!(check(&mut storage, 9), good());
    let mut plan = WritePlan::default();
    plan.push_data(Slot {
        torrent: TORRENT,
        piece: PieceIndex(9),
        begin: 100,
        len: 16_384,
    });
    let lent = storage.lend(&plan, |slices| {
        slices.iter().all(|s| s.iter().all(|byte| *byte == 0))
            && slices.iter().map(|s| s.len()).sum::<usize>() == 16_384
    });
    assert_eq!(lent, Lent::Done(true));
    assert_eq!(tree(scratch.path()), []);
}

#[test]
fn hostile_127_disk_too_small_is_told_with_figures_and_left_as_it_was() {
    sandbox::inside(
        "storage::hostile_127_disk_too_small_is_told_with_figures_and_left_as_it_was",
        |lan| {
            if !lan.is_isolated {
                return support::skip("no mounts on this machine");
            }
            let (meta, _) = sevens(100 << 20);
            let (small, small_data) = sevens(15 << 20);
            for kind in KINDS {
                let scratch = support::scratch();
                let root = support::folder(scratch.path(), "disk");
                lan.mount_tmpfs(&root, 20 << 20);
                let mut all = storage(&root, kind);
                let error = add(&mut all, &meta).unwrap_err();
                assert_space(&error, 100 << 20, 19 << 20..=20 << 20);
                assert_eq!(tree(&root), []);

                // Somebody else takes the space between the look and the first piece.
                let mut late = storage(&root, kind);
                add(&mut late, &small).unwrap();
                fs::write(root.join("other"), vec![1; 10 << 20]).unwrap();
                let error = store(&mut late, 3, &small_data[..1 << 20]).unwrap_err();
                assert_space(&error, 15 << 20, 9 << 20..=10 << 20);
                let left = tree(&root);
                let files: Vec<_> = left.iter().filter(|(path, _)| path.is_file()).collect();
                assert_eq!(files, [&(root.join("other"), 10 << 20)], "{kind:?}");

                // With space again, the same torrent goes on in a new attempt.
                fs::remove_file(root.join("other")).unwrap();
                let mut again = storage(&root, kind);
                add(&mut again, &small).unwrap();
                store(&mut again, 3, &small_data[..1 << 20]).unwrap();
                assert_eq!(check(&mut again, 3), good());
            }
        },
    );
}

fn assert_space(error: &StorageError, needed: u64, left: std::ops::RangeInclusive<u64>) {
    match error {
        StorageError::NoSpace { need, free, .. } => {
            assert_eq!(*need, needed);
            assert!(left.contains(free), "{free} B free");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn hostile_133_read_only_disk_is_told_and_still_serves() {
    sandbox::inside(
        "storage::hostile_133_read_only_disk_is_told_and_still_serves",
        |lan| {
            if !lan.is_isolated {
                return support::skip("no mounts on this machine");
            }
            let (meta, data) = sevens(3 << 20);
            for kind in KINDS {
                let scratch = support::scratch();
                let root = support::folder(scratch.path(), "disk");
                lan.mount_tmpfs(&root, 20 << 20);
                lan.remount_read_only(&root);
                let error = add(&mut storage(&root, kind), &meta).unwrap_err();
                assert!(matches!(error, StorageError::ReadOnly { .. }), "{error}");
                assert!(error.to_string().contains(root.to_str().unwrap()));

                let root = support::folder(scratch.path(), "full");
                lan.mount_tmpfs(&root, 20 << 20);
                fs::create_dir_all(root.join("t/d")).unwrap();
                fs::write(root.join("t/d/a"), &data).unwrap();
                lan.remount_read_only(&root);
                let mut seed = storage(&root, kind);
                assert!(add(&mut seed, &meta).unwrap().is_full());
                for piece in 0..3 {
                    assert_eq!(check(&mut seed, piece), good(), "{kind:?}");
                }
                let error = store(&mut seed, 0, &data[..1 << 20]).unwrap_err();
                assert!(matches!(error, StorageError::ReadOnly { .. }), "{error}");
            }
        },
    );
}
