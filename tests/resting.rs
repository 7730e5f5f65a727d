//! Torrents that nobody asked for in a while: what they have let go of comes again when needed.

mod support;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup, ctl};
use support::{folder, scratch, torrent, wait_for};

/// It takes a quarter of a minute, twice at most, until a torrent is at rest.
const LIMIT: Duration = Duration::from_secs(120);

/// A seed at rest, where its text is kept, and the set that it has.
struct Resting {
    scratch: tempfile::TempDir,
    set: DataSet,
    torrent: PathBuf,
    seed: Evpeer,
    kept: PathBuf,
    hash: String,
}

impl Resting {
    fn start() -> Self {
        let scratch = scratch();
        let data = folder(scratch.path(), "data");
        let set = DataSet::file(&folder(scratch.path(), "origin"), "file", 3_000_000, 1);
        let torrent = torrent::create(&set, None);
        // A peer all of whose torrents have failed ends.
        let other = DataSet::file(&folder(scratch.path(), "others"), "other", 30_000, 2);
        torrent::create(&other, None);
        set.copy_to(&data);
        other.copy_to(&data);
        let mut setup = Setup::new(torrent.parent().expect("a folder"), &data);
        setup.args = &["-v"];
        let seed = Evpeer::start("seed", &setup);
        let kept = wait_for_text_of(&torrent, &data.join(".evpeer"));
        let hash = kept.file_stem().and_then(|name| name.to_str());
        let hash = hash.expect("the info hash").to_owned();
        seed.wait_for_text(&format!("text let go info_hash={}", &hash[..8]), LIMIT);
        Self {
            scratch,
            set,
            torrent,
            seed,
            kept,
            hash,
        }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// What the seed answers to who wants its .torrent.
    fn asked(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.seed.address).expect("it listens");
        let path = format!("/torrents/{}.torrent", self.hash);
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        answer
    }

    fn leecher(&self, name: &str) -> (PathBuf, Evpeer) {
        let home = folder(self.scratch.path(), name);
        let peers = [self.seed.address];
        let mut setup = Setup::new(&self.torrent, &home);
        setup.peers = &peers;
        let leecher = Evpeer::start(name, &setup);
        (home, leecher)
    }
}

/// Waits until a .torrent is kept in a state folder; where.
fn wait_for_text_of(torrent: &Path, state_dir: &Path) -> PathBuf {
    let text = fs::read(torrent).expect("it was made");
    let find = || {
        let mut entries = fs::read_dir(state_dir).ok()?.flatten();
        entries.find_map(|entry| {
            let path = entry.path(); // others are on their way to that name
            let is_text = path.extension().is_some_and(|end| end == "torrent");
            let is_it = is_text && fs::read(&path).is_ok_and(|bytes| bytes == text);
            is_it.then_some(path)
        })
    };
    wait_for("its text is kept", LIMIT, || find().is_some());
    find().expect("it was there")
}

#[test]
fn torrent_at_rest_serves_and_obeys_as_any_other() {
    let resting = Resting::start();
    for args in [
        &["files", "file"][..],
        &["pause", "file"],
        &["resume", "file"],
    ] {
        let said = ctl(&resting.data(), args);
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.err);
    }
    let answer = resting.asked();
    let text = fs::read(&resting.kept).expect("it is kept");
    assert!(answer.ends_with(&text), "the text is read again");
    let (home, leecher) = resting.leecher("leecher");
    leecher.wait_for_event("complete", LIMIT);
    leecher.leave();
    resting.set.assert_same_in(&home, Tolerance::NONE);
    resting.seed.leave();
}

/// Goal: a text that is lost is told of, when it is needed, and can be brought back.
/// Method: text and data are damaged while the torrent rests, so that its pieces have to be hashed
/// again when a leecher comes.
#[test]
fn lost_text_is_told_of_and_can_be_brought_back() {
    let resting = Resting::start();
    let text = fs::read(&resting.kept).expect("it is kept");
    fs::write(&resting.kept, &text[..text.len() / 2]).expect("writable");
    let answer = resting.asked();
    assert!(
        answer.starts_with(b"HTTP/1.1 404"),
        "{}",
        answer.escape_ascii()
    );
    let status = ctl(&resting.data(), &["status", "--json"]).object();
    assert_eq!(
        status["torrents"][0]["state"], "seeding",
        "nothing else needs it"
    );

    let file = OpenOptions::new()
        .write(true)
        .open(resting.data().join("file"));
    let file = file.expect("the data");
    file.set_len(2_000_000).expect("writable");
    let (_, leecher) = resting.leecher("leecher");
    resting.seed.wait_for_state("error", LIMIT);
    let why = ctl(&resting.data(), &["why", "file"]).out;
    assert!(why.contains("put it back there"), "{why}");

    fs::write(&resting.kept, &text).expect("writable");
    let said = ctl(&resting.data(), &["resume", "file"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    resting.seed.wait_for_state("downloading", LIMIT);
    leecher.leave();
    resting.seed.leave();
}
