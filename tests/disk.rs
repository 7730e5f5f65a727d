//! Files that are cut, removed or replaced while real peers use them: the process lives, nothing
//! wrong is served, and what is missing is fetched again.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup};
use support::{folder, scratch, torrent, wait_for};

const STORAGES: [&str; 2] = ["map", "pwrite"];

/// A seed whose files are in use, and a peer that has fetched everything from it.
struct World {
    set: DataSet,
    torrent: PathBuf,
    victim: Evpeer,
    friend: Evpeer,
    /// Where the victim's files are.
    folder: PathBuf,
    /// The largest of them.
    file: PathBuf,
    scratch: tempfile::TempDir,
}

impl World {
    fn new(storage: &str) -> Self {
        let scratch = scratch();
        let set = DataSet::tree(&folder(scratch.path(), "data"), "used", 12 * MIB, 31);
        let torrent = torrent::create(&set, None);
        let place = folder(scratch.path(), "victim");
        set.copy_to(&place);
        let args = ["--storage", storage];
        let setup = Setup {
            args: &args,
            ..Setup::new(&torrent, &place)
        };
        let victim = Evpeer::start("victim", &setup);
        victim.wait_for_state("seeding", LIMIT);
        let friend = Evpeer::start(
            "friend",
            &Setup {
                peers: &[victim.address],
                ..Setup::new(&torrent, &folder(scratch.path(), "friend"))
            },
        );
        friend.wait_for_event("complete", LIMIT);
        let mut files = Vec::new();
        collect(&place, &mut files);
        let file = files.into_iter().max_by_key(|path| len_of(path));
        Self {
            set,
            torrent,
            victim,
            friend,
            folder: place,
            file: file.expect("there are files"),
            scratch,
        }
    }

    /// Somebody fetches everything, from the victim at first.
    fn reader(&self, name: &str) -> Evpeer {
        let place = folder(self.scratch.path(), name);
        let setup = Setup {
            peers: &[self.victim.address, self.friend.address],
            ..Setup::new(&self.torrent, &place)
        };
        Evpeer::start(name, &setup)
    }

    /// Waits until the victim has noticed, has got back what it lost and nothing else, and a
    /// reader has got everything.
    fn heals(&mut self, lost_len: u64) {
        let reader = self.reader("reader");
        self.victim.wait_for_text("is checked again", LIMIT);
        reader.wait_for_event("complete", LIMIT);
        let (ours, theirs) = (self.file.clone(), self.folder.clone());
        let name = ours.strip_prefix(&theirs).expect("below its folder");
        let original = self.set.folder.join(name);
        wait_for("the victim's file is whole again", LIMIT, || {
            fs::read(&ours).ok() == fs::read(&original).ok()
        });
        assert!(self.victim.process.is_running());
        let fetched = self.victim.counter("down_bytes");
        assert!(
            fetched <= lost_len + 2 * MIB,
            "{fetched} B fetched for {lost_len} B that were lost"
        );
        let read = self.scratch.path().join("reader");
        self.set.assert_same_in(&read, Tolerance::NONE);
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true if path.ends_with(".evpeer") => {}
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn hostile_131_file_cut_while_it_is_served_costs_its_bytes_and_not_the_process() {
    for storage in STORAGES {
        for is_halved in [false, true] {
            let mut world = World::new(storage);
            let len = len_of(&world.file);
            let file = File::options().write(true).open(&world.file);
            let file = file.expect("it is there");
            file.set_len(if is_halved { len / 2 } else { 0 })
                .expect("cut");
            world.heals(len);
        }
    }
}

#[test]
fn hostile_132_file_removed_or_renamed_or_replaced_by_another_is_noticed_and_fetched_again() {
    for storage in STORAGES {
        let changes: [fn(&Path); 3] = [
            |path| fs::remove_file(path).expect("removed"),
            |path| fs::rename(path, path.with_extension("away")).expect("renamed"),
            |path| {
                let len = len_of(path);
                fs::remove_file(path).expect("removed");
                fs::write(path, vec![0; len as usize]).expect("written");
            },
        ];
        for change in changes {
            let mut world = World::new(storage);
            let len = len_of(&world.file);
            change(&world.file);
            world.heals(len);
        }
    }
}

#[test]
fn hostile_132_file_replaced_by_what_is_no_file_stops_the_torrent_with_its_name() {
    type Change = (fn(&Path), &'static str);
    let changes: [Change; 2] = [
        (|path| fs::create_dir(path).expect("made"), "not a file"),
        (
            |path| symlink("/nowhere", path).expect("made"),
            "symbolic link",
        ),
    ];
    for storage in STORAGES {
        for (change, text) in changes {
            let mut world = World::new(storage);
            fs::remove_file(&world.file).expect("removed");
            change(&world.file);
            let _reader = world.reader("reader");
            world.victim.wait_for_state("error", LIMIT);
            let name = world.file.file_name().expect("a name");
            let line = world.victim.wait_for_text(text, LIMIT);
            assert!(line.contains(&*name.to_string_lossy()), "{line}");
            assert!(world.victim.process.is_running());
        }
    }
}

const MIB: u64 = 1024 * 1024;
const LIMIT: Duration = Duration::from_secs(120);
