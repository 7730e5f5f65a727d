//! Row 148: the power goes while a torrent is downloaded.

use crate::images::{self, Findings};
use crate::mounts::Kind;
use crate::process::Order;
use crate::story::{self, Plan, Stage};
use crate::{JOURNALS, STORAGES, on_disks, print, support};

#[test]
fn hostile_148_power_cut_while_downloading_to_ext4() {
    let name = "download::hostile_148_power_cut_while_downloading_to_ext4";
    download(name, Kind::Ext4);
}

#[test]
fn hostile_148_power_cut_while_downloading_to_ext4_with_data_writeback() {
    let name = "download::hostile_148_power_cut_while_downloading_to_ext4_with_data_writeback";
    download(name, Kind::Ext4Writeback);
}

#[test]
fn hostile_148_power_cut_while_downloading_to_xfs() {
    let name = "download::hostile_148_power_cut_while_downloading_to_xfs";
    download(name, Kind::Xfs);
}

/// Goal: whenever the power goes, every claim of the next start is true, and everything is claimed
/// that was called durable.
/// Method: a download in which pieces come in any order and by halves, some of them wrong, is
/// killed now and then, syncs now and then, and ends well; its disk is cut off at any time.
fn download(name: &'static str, fs: Kind) {
    on_disks(name, fs, |scratch| {
        let mut all = Findings::default();
        let mut seed = 148_000;
        let (stories, images) = match support::is_nightly() {
            true => (10, 90),
            false => (2, 45),
        };
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
                    let story = story::tell(plan, scratch, |_, _| {}, to_the_end);
                    all.add(images::look(&story, scratch, images));
                }
            }
        }
        print(&format!("{fs:?}"), &all);
        all.assert_right();
    });
}

fn to_the_end(stage: &mut Stage<'_>) {
    stage.start();
    stage.download();
    if stage.rng.below(2) == 0 {
        stage.sync();
    }
    stage.leave();
}
