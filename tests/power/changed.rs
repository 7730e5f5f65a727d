//! Row 149: the power goes after files were deleted, renamed or changed by somebody else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::images::{self, Findings};
use crate::mounts::Kind;
use crate::process::{Order, all_pieces};
use crate::story::{self, Note, Plan, Stage, TWINS, Torrent};
use crate::{JOURNALS, STORAGES, kinds, on_disks, print, support};

/// Goal: no claim on data that is missing.
/// Method: files of a complete torrent are deleted, and downloaded again, several times.
#[test]
fn hostile_149_power_cut_after_files_were_deleted() {
    let name = "changed::hostile_149_power_cut_after_files_were_deleted";
    change(name, |stage| {
        for _ in 0..ROUNDS {
            for _ in 0..=stage.rng.below(2) {
                let file = stage.rng.below(stage.torrent.meta.files.len() as u32) as usize;
                stage.before_deletion(stage.torrent.pieces_of(file));
                let _ = fs::remove_file(stage.path_of(file));
            }
            download_again(stage);
        }
    });
}

/// Goal: no claim on data that was swapped.
/// Method: two files of the same length change their names, several times.
#[test]
fn hostile_149_power_cut_after_files_changed_their_names() {
    let name = "changed::hostile_149_power_cut_after_files_changed_their_names";
    change(name, |stage| {
        for _ in 0..ROUNDS {
            let [one, other] = TWINS.map(|file| stage.path_of(file));
            for file in TWINS {
                stage.note(Note::Released(stage.torrent.pieces_of(file)));
            }
            let aside = one.with_extension("aside");
            fs::rename(&one, &aside).expect("it is there");
            fs::rename(&other, &one).expect("it is there");
            fs::rename(&aside, &other).expect("it is there");
            download_again(stage);
        }
    });
}

/// Goal: no claim on data of another folder.
/// Method: the torrent's folder is replaced by one with files of the same names and lengths.
#[test]
fn hostile_149_power_cut_after_the_folder_was_replaced() {
    let name = "changed::hostile_149_power_cut_after_the_folder_was_replaced";
    change(name, |stage| {
        let root = stage.place.root.clone();
        let mut other = stage.torrent.clone();
        other.data.fill(0);
        other.write(&root.join("other"));
        stage.rest();
        stage.note(Note::Released(all_pieces(&other.meta)));
        fs::rename(root.join("t"), root.join("old")).expect("it is there");
        fs::rename(root.join("other/t"), root.join("t")).expect("it is there");
        download_again(stage);
        stage.rest();
        stage.before_deletion(all_pieces(&other.meta));
        fs::remove_dir_all(root.join("t")).expect("it is there");
        fs::rename(root.join("old"), root.join("t")).expect("it is there");
        download_again(stage);
    });
}

/// Goal: what a recheck found wrong is not claimed any more.
/// Method: somebody writes into files, which are then rechecked and downloaded again.
#[test]
fn hostile_149_power_cut_after_a_recheck() {
    let name = "changed::hostile_149_power_cut_after_a_recheck";
    change(name, |stage| {
        for _ in 0..ROUNDS {
            let count = stage.torrent.meta.geometry().piece_count();
            let pieces: BTreeSet<u32> = (0..6).map(|_| stage.rng.below(count)).collect();
            stage.spoil(&pieces);
            stage.start();
            stage.recheck();
            stage.sync();
            stage.note(Note::Mended);
            stage.download();
            stage.sync();
            stage.leave();
        }
    });
}

/// Lets the torrent be downloaded, then `acts` happen; the power goes during the latter.
fn change(name: &'static str, acts: fn(&mut Stage<'_>)) {
    on_disks(name, Kind::Ext4, |scratch| {
        let mut all = Findings::default();
        let mut seed = 149_000;
        let (stories, images) = match support::is_nightly() {
            true => (5, 20),
            false => (1, 10),
        };
        for fs in kinds() {
            for storage in STORAGES {
                for journal in JOURNALS {
                    for _ in 0..stories {
                        seed += 1;
                        let plan = Plan {
                            test: name,
                            fs,
                            storage,
                            journal,
                            order: Order::Good,
                            seed,
                        };
                        if !plan.is_wanted() {
                            continue;
                        }
                        let story = story::tell(plan, scratch, whole, |stage| {
                            stage.start();
                            stage.wait_for_checks();
                            stage.leave();
                            stage.curtain();
                            acts(stage);
                        });
                        all.add(images::look(&story, scratch, images));
                    }
                }
            }
        }
        print(name, &all);
        all.assert_right();
    });
}

fn whole(torrent: &Torrent, root: &Path) {
    torrent.write(root);
}

fn download_again(stage: &mut Stage<'_>) {
    stage.start();
    stage.download();
    stage.sync();
    stage.note(Note::Mended);
    stage.leave();
}

const ROUNDS: usize = 3;
