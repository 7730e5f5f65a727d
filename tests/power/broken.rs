//! The tests must find what is wrong: three orders that lose data, each of which is caught.
//!
//! The journal is elsewhere in all of them. On the disk of the data the file system's own order
//! would hide two of them, as it brings names and extents to the disk no later than the journal.

use std::fs;
use std::path::Path;

use evpeer::base::bits::Bitfield;

use crate::images::{self, Findings};
use crate::mounts::Kind;
use crate::process::{Order, wrong_pieces};
use crate::story::{self, Journal, Plan, Stage, Torrent};
use crate::{STORAGES, kinds, on_disks, print, scaled};

#[test]
fn hostile_148_journal_before_the_data_is_caught() {
    let name = "broken::hostile_148_journal_before_the_data_is_caught";
    let found = |found: &Findings| !found.lies.is_empty();
    catch(name, Order::JournalFirst, |_, _| {}, download, found);
}

#[test]
fn hostile_148_sync_file_range_in_place_of_a_sync_is_caught() {
    let name = "broken::hostile_148_sync_file_range_in_place_of_a_sync_is_caught";
    let found = |found: &Findings| !found.lies.is_empty();
    catch(name, Order::RangeOnly, |_, _| {}, download, found);
}

#[test]
fn hostile_148_sync_without_folders_is_caught() {
    let name = "broken::hostile_148_sync_without_folders_is_caught";
    let found = |found: &Findings| !found.losses.is_empty();
    catch(name, Order::NoFolders, in_another_folder, renamed, found);
}

/// Goal: a broken order is found in each story, on each file system and with both backings; the
/// good order on the same story is right.
fn catch(
    name: &'static str,
    order: Order,
    prepare: fn(&Torrent, &Path),
    acts: fn(&mut Stage<'_>),
    is_found: fn(&Findings) -> bool,
) {
    on_disks(name, Kind::Ext4, |scratch| {
        for fs in kinds() {
            for storage in STORAGES {
                for seed in 1..=STORIES {
                    let plan = Plan {
                        test: name,
                        fs,
                        storage,
                        journal: Journal::Elsewhere,
                        order,
                        seed,
                    };
                    let story = story::tell(plan, scratch, prepare, acts);
                    let found = images::look(&story, scratch, scaled(IMAGES));
                    print(&format!("{order:?}, {fs:?}, {storage:?}, {seed}"), &found);
                    assert!(is_found(&found), "{plan:?} was not caught");
                }
                let plan = Plan {
                    test: name,
                    fs,
                    storage,
                    journal: Journal::Elsewhere,
                    order: Order::Good,
                    seed: 1,
                };
                let story = story::tell(plan, scratch, prepare, acts);
                let found = images::look(&story, scratch, scaled(IMAGES));
                found.assert_right();
            }
        }
    });
}

fn download(stage: &mut Stage<'_>) {
    stage.start();
    stage.download();
    stage.sync();
    stage.leave();
}

fn in_another_folder(torrent: &Torrent, root: &Path) {
    torrent.write(&root.join("other"));
}

/// The data is there, under another name.
fn renamed(stage: &mut Stage<'_>) {
    let root = stage.place.root.clone();
    // Somebody has looked at it: what is read later changes nothing.
    let other = root.join("other");
    let all = Bitfield::full(stage.torrent.meta.geometry().piece_count());
    assert!(wrong_pieces(&other, &stage.torrent.meta, &all).is_empty());
    stage.rest();
    fs::rename(root.join("other/t"), root.join("t")).expect("it is there");
    stage.start();
    stage.wait_for_checks();
    stage.leave();
}

const STORIES: u64 = 2;
const IMAGES: u32 = 24;
