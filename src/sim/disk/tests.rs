//! What survives, what fails, and the real storage on top of it.

use super::*;
use crate::base::bits::Bitfield;
use crate::base::id::{PieceIndex, Ticket, TorrentId};
use crate::base::slot::Slot;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::sim::chance::Plan;
use crate::storage::{Access, Event, Pace, Storage, StorageOptions};

const NOW: Instant = Instant::from_micros(1);
const TORRENT: TorrentId = TorrentId(0);

fn storage() -> Storage {
    Storage::new(StorageOptions {
        root: PathBuf::from("/"),
        kind: StorageKind::Pwrite,
        access: Access::ReadWrite,
        windows_len_max: 4 << 20,
        state_dir: None,
    })
}

/// Lets storage and disk work until neither has anything to do; what storage said.
fn settle(storage: &mut Storage, disk: &mut Disk) -> Vec<Event> {
    let mut said = Vec::new();
    loop {
        let mut idle = true;
        while let Some(job) = storage.poll_job() {
            idle = false;
            let (done, _) = disk.run(job, NOW);
            storage.job_done(done);
        }
        idle &= storage.work(u64::MAX, Pace::AtOnce) == 0;
        while let Some(event) = storage.poll_event() {
            idle = false;
            said.push(event);
        }
        if idle {
            return said;
        }
    }
}

fn store(storage: &mut Storage, meta: &Metainfo, content: &[u8], piece: u32) {
    let geometry = meta.geometry();
    let piece = PieceIndex(piece);
    for block in 0..geometry.block_count(piece) {
        let slot = Slot {
            torrent: TORRENT,
            piece,
            begin: block * crate::base::limits::BLOCK_LEN,
            len: geometry.block_len(piece, block),
        };
        let first = geometry.offset(piece, slot.begin) as usize;
        storage.store(slot, &content[first..first + slot.len as usize]);
    }
}

/// Goal: what storage calls durable survives a power cut, whatever else does not.
/// Method: some pieces, a sync, more pieces, the power goes; a new storage hashes what is left.
#[test]
fn what_is_durable_survives_the_power() {
    let mut lost_later = 0;
    for rng_seed in 0..300 {
        let (meta, content) = Plan::draw(rng_seed).torrent();
        let mut rng = Rng::new(rng_seed);
        let count = meta.geometry().piece_count();
        let mut disk = Disk::new(Rng::new(rng.next_u64()));
        let mut first = storage();
        first.add(TORRENT, Arc::clone(&meta));
        settle(&mut first, &mut disk);
        let mut pieces: Vec<u32> = (0..count).collect();
        rng.shuffle(&mut pieces);
        let (early, late) = pieces.split_at(rng.below(count + 1) as usize);
        for &piece in early {
            store(&mut first, &meta, &content, piece);
        }
        settle(&mut first, &mut disk);
        first.sync(TORRENT, Ticket(0));
        let said = settle(&mut first, &mut disk);
        let is_durable = |event: &Event| matches!(event, Event::Durable { .. });
        assert!(said.iter().any(is_durable), "rng_seed {rng_seed}");
        for &piece in late {
            store(&mut first, &meta, &content, piece);
        }
        first.settle(TORRENT, Ticket(0));
        settle(&mut first, &mut disk);
        disk.power_cut();

        let right = right_pieces(&meta, &mut disk);
        for &piece in early {
            assert!(
                right.has(piece),
                "rng_seed {rng_seed}: piece {piece} was durable"
            );
        }
        lost_later += late.iter().filter(|&&piece| !right.has(piece)).count();
    }
    assert!(
        lost_later > 100,
        "only {lost_later} pieces were lost: power cuts do nothing"
    );
}

/// The pieces that a new storage finds right.
fn right_pieces(meta: &Arc<Metainfo>, disk: &mut Disk) -> Bitfield {
    let count = meta.geometry().piece_count();
    let mut storage = storage();
    storage.add(TORRENT, Arc::clone(meta));
    settle(&mut storage, disk);
    (0..count).for_each(|piece| storage.check(TORRENT, PieceIndex(piece)));
    let mut right = Bitfield::new(count);
    for event in settle(&mut storage, disk) {
        if let Event::Checked {
            piece,
            verdict: Verdict::Good { .. },
            ..
        } = event
        {
            right.set(piece.0);
        }
    }
    right
}

#[test]
fn killed_process_loses_nothing_that_the_kernel_has() {
    let (meta, content) = Plan::draw(3).torrent();
    let mut disk = Disk::new(Rng::new(1));
    let mut first = storage();
    first.add(TORRENT, Arc::clone(&meta));
    settle(&mut first, &mut disk);
    let count = meta.geometry().piece_count();
    (0..count).for_each(|piece| store(&mut first, &meta, &content, piece));
    first.settle(TORRENT, Ticket(0));
    settle(&mut first, &mut disk);
    disk.let_go();
    assert!(right_pieces(&meta, &mut disk).is_full());
}

#[test]
fn full_disk_and_failing_disk_are_told_by_their_errors() {
    let cases = [
        (
            DiskFaults {
                capacity: Some(10),
                ..DiskFaults::default()
            },
            "no space",
        ),
        (
            DiskFaults {
                writes_ppm: 1_000_000,
                ..DiskFaults::default()
            },
            "cannot write",
        ),
        (
            DiskFaults {
                syncs_ppm: 1_000_000,
                ..DiskFaults::default()
            },
            "cannot sync",
        ),
    ];
    for (faults, words) in cases {
        let (meta, content) = Plan::draw(3).torrent();
        let mut disk = Disk::new(Rng::new(1));
        let mut storage = storage();
        storage.add(TORRENT, Arc::clone(&meta));
        settle(&mut storage, &mut disk);
        disk.set_faults(faults);
        store(&mut storage, &meta, &content, 0);
        storage.sync(TORRENT, Ticket(0));
        let said = settle(&mut storage, &mut disk);
        let error = said.iter().find_map(|event| match event {
            Event::Failed { error, .. } => Some(error.to_string()),
            _ => None,
        });
        let error = error.unwrap_or_else(|| panic!("{faults:?}: {said:?}"));
        assert!(error.contains(words), "{faults:?}: {error}");
        let tally = disk.tally();
        assert!(tally.errors + tally.refused > 0, "{tally:?}");
    }
}

#[test]
fn slow_sync_holds_up_its_own_lane_only() {
    let (meta, content) = Plan::draw(3).torrent();
    let mut disk = Disk::new(Rng::new(1));
    disk.fill(&meta, &content);
    disk.set_faults(DiskFaults {
        slow_sync: Duration::from_secs(5),
        ..DiskFaults::default()
    });
    let root: Arc<Path> = Path::new("/").into();
    let job = |work| Job {
        id: crate::storage::jobs::JobId(1),
        work,
    };
    let sync = || Work::Sync {
        root: Arc::clone(&root),
        files: Vec::new(),
        found: Vec::new(),
        dirs: Vec::new(),
        anchor: None,
    };
    let (_, first) = disk.run(job(sync()), NOW);
    let (_, second) = disk.run(job(sync()), NOW);
    assert!(first - NOW >= Duration::from_secs(5) && second - first >= Duration::from_secs(5));
    let open = Work::Open {
        root: Arc::clone(&root),
        meta: Arc::clone(&meta),
        file: meta.files.iter().position(|f| f.len > 0).expect("a file") as u32,
        mode: OpenMode::Read,
    };
    let (_, opened) = disk.run(job(open), NOW);
    assert!(opened - NOW < Duration::from_millis(1), "{opened}");
}

#[test]
fn closed_journal_is_opened_again_only_as_it_was_left() {
    let mut disk = Disk::new(Rng::new(1));
    let path = PathBuf::from("state/x.journal");
    let made = disk.make_first_journal(path.clone(), b"journal.");
    let file = made.expect("nothing fails");
    let left = disk.leave_journal(&file, 8).expect("nothing fails");
    assert!(disk.open_journal(path.clone(), left).is_ok());
    disk.append(&file, 0, b"JOURNAL.").expect("nothing fails");
    assert!(disk.open_journal(path.clone(), left).is_err(), "written");
    assert!(disk.leave_journal(&file, 9).is_err(), "cut");
    disk.make_first_journal(path.clone(), b"journal.")
        .expect("nothing fails");
    assert!(disk.open_journal(path, left).is_err(), "another one");
}
