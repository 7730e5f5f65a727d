//! What a peer is to others, and how they hear when that changes: a remote peer by hand, a tracker,
//! and the user.

mod support;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use support::data::{DataSet, Tolerance};
use support::evpeer::{Evpeer, Setup, ctl};
use support::rawpeer::{self, Fast, Message, RawPeer, id};
use support::torrent::HandMade;
use support::tracker::{Announce, Tracker};
use support::{folder, scratch, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const PIECE_LEN: u32 = 64 * 1024;
const PIECES: u32 = 16;
const LEN: u64 = PIECE_LEN as u64 * PIECES as u64;
/// Under which number a witness wants to hear `upload_only`.
const UPLOAD_ONLY: u8 = 3;

/// A peer that has piece 0, chokes everybody, and notes what it hears.
struct Witness {
    peer: RawPeer,
    heard: Vec<Message>,
}

impl Witness {
    fn meets(at: SocketAddr, info_hash: &[u8; 20]) -> Self {
        let mut peer = RawPeer::dial(at, info_hash, Fast::Offered);
        let shake = format!("d1:md11:upload_onlyi{UPLOAD_ONLY}eee");
        peer.say(id::EXTENDED, &[&[0], shake.as_bytes()].concat());
        peer.say(id::BITFIELD, &[0x80, 0]);
        let heard = Vec::new();
        Self { peer, heard }
    }

    /// Listens until `is_enough` of all that was heard since the last call.
    fn hears(&mut self, what: &str, is_enough: impl Fn(&[Message]) -> bool) {
        let end = Instant::now() + LIMIT;
        while !is_enough(&self.heard) {
            match self
                .peer
                .read(end.saturating_duration_since(Instant::now()))
            {
                Ok(message) => self.heard.push(message),
                Err(reason) => panic!("{reason:?} instead of {what}: {:?}", self.heard),
            }
        }
        self.heard.clear();
    }
}

/// Whether one of these is a message of this kind.
fn says(kind: u8) -> impl Fn(&[Message]) -> bool {
    move |heard| heard.iter().any(|message| message.id == kind)
}

/// Whether it was said that the other side only uploads, or not any more.
fn tells_upload_only(is_so: bool) -> impl Fn(&[Message]) -> bool {
    move |heard| {
        let body = [UPLOAD_ONLY, u8::from(is_so)];
        heard.iter().any(|m| m.id == id::EXTENDED && m.body == body)
    }
}

/// What the extension handshake says of `upload_only`.
fn shakes_as_seed(heard: &[Message]) -> Option<bool> {
    let shake = heard
        .iter()
        .find(|m| m.id == id::EXTENDED && m.body[0] == 0)?;
    let key = b"11:upload_onlyi1e";
    Some(shake.body.windows(key.len()).any(|part| part == key))
}

/// Announces of a torrent by the peer at `port`.
fn announces_of(tracker: &Tracker, port: u16) -> Vec<Announce> {
    let all = tracker.announces().into_iter();
    all.filter(|announce| announce.peer.port() == port)
        .collect()
}

/// The tracker hears so, as the last that it hears.
fn tracker_hears(tracker: &Tracker, port: u16, event: &str, left: u64) {
    wait_for(&format!("{event:?}, {left} B left"), LIMIT, || {
        let all = announces_of(tracker, port);
        all.last()
            .is_some_and(|a| (a.event.as_str(), a.left) == (event, left))
    });
}

fn command(home: &Path, what: &str) {
    let said = ctl(home, &[what, "content"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// Goal: whoever is connected, the tracker and the user hear of each change at once and of nothing
/// else: leecher, seed, paused, seed, damaged, seed again, gone.
#[test]
fn everybody_hears_of_each_change_of_role() {
    let scratch = scratch();
    let set = DataSet::file(&folder(scratch.path(), "data"), "content", LEN, 1);
    let tracker = Tracker::start(Ipv4Addr::LOCALHOST);
    let torrent = HandMade::of(&set, PIECE_LEN, Some(&tracker.url()));
    let home = folder(scratch.path(), "home");
    let mut setup = Setup::new(&torrent.path, &home);
    setup.args = &["--no-pex"];
    let peer = Evpeer::start("peer", &setup);
    let (at, port) = (peer.address, peer.address.port());
    let seed_beside = || {
        let known = [at];
        let mut setup = Setup::new(&torrent.path, &set.folder);
        (setup.peers, setup.args) = (&known, &["--no-tracker"]);
        Evpeer::start("seed", &setup)
    };

    // A leecher: it has nothing, and wants what the witness has.
    peer.wait_for_state("downloading", LIMIT);
    tracker_hears(&tracker, port, "started", LEN);
    let mut witness = Witness::meets(at, &torrent.info_hash);
    witness.hears("a leecher", |heard| {
        says(id::HAVE_NONE)(heard)
            && says(id::INTERESTED)(heard)
            && shakes_as_seed(heard) == Some(false)
    });

    // It becomes a seed.
    let seed = seed_beside();
    witness.hears("the end of a download", |heard| {
        let haves = heard.iter().filter(|message| message.id == id::HAVE);
        haves.count() == PIECES as usize - 1 // but the one that the witness has
            && says(id::NOT_INTERESTED)(heard)
            && tells_upload_only(true)(heard)
    });
    peer.wait_for_state("seeding", LIMIT);
    tracker_hears(&tracker, port, "completed", 0);
    witness.peer.become_unchoked();
    let block = torrent.block(5, 0, 16_384);
    witness.peer.assert_serves(5, 0, block);
    seed.leave();

    // It is paused: it leaves.
    command(&home, "pause");
    witness.peer.assert_closed("it is paused", LIMIT);
    tracker_hears(&tracker, port, "stopped", 0);
    let stream = TcpStream::connect(at).expect("its port is open");
    let hello = rawpeer::handshake(&torrent.info_hash, Fast::Offered, &rawpeer::new_peer_id());
    assert!(RawPeer::shake(stream, &hello).is_err(), "nobody is let in");

    // It goes on as a seed from the first word on.
    command(&home, "resume");
    tracker_hears(&tracker, port, "started", 0);
    let mut witness = Witness::meets(at, &torrent.info_hash);
    witness.hears("a seed", |heard| {
        says(id::HAVE_ALL)(heard) && shakes_as_seed(heard) == Some(true)
    });

    // Its file is cut: it is a leecher, and keeps what is left.
    let file = File::options().write(true).open(home.join("content"));
    file.and_then(|file| file.set_len(LEN / 2))
        .expect("it can be cut");
    witness
        .peer
        .assert_closed("what it said is not true any more", LIMIT);
    wait_for("it is a leecher", LIMIT, || {
        let status = ctl(&home, &["status", "--json"]).object();
        status["torrents"][0]["state"] == "downloading"
    });
    wait_for("the tracker hears", LIMIT, || {
        let all = announces_of(&tracker, port);
        all.last().is_some_and(|a| a.left == LEN / 2)
    });
    let mut witness = Witness::meets(at, &torrent.info_hash);
    witness.hears("half a seed", |heard| {
        let half = |m: &Message| m.id == id::BITFIELD && m.body == [0xff, 0];
        heard.iter().any(half) && shakes_as_seed(heard) == Some(false)
    });

    // It fetches just that, and the tracker does not hear of another end of the download.
    let seed = seed_beside();
    witness.hears("a seed again", |heard| {
        let haves = heard.iter().filter(|message| message.id == id::HAVE);
        haves.count() == PIECES as usize / 2 && tells_upload_only(true)(heard)
    });
    assert!(
        peer.counter("down_bytes") <= LEN + LEN / 2,
        "no more than was lost"
    );
    wait_for("the tracker hears", LIMIT, || {
        announces_of(&tracker, port)
            .last()
            .is_some_and(|a| a.left == 0)
    });
    let completions = announces_of(&tracker, port);
    let completions = completions.iter().filter(|a| a.event == "completed");
    assert_eq!(completions.count(), 1);

    // It is removed.
    command(&home, "remove");
    witness.peer.assert_closed("it is removed", LIMIT);
    tracker_hears(&tracker, port, "stopped", 0);
    set.assert_same_in(&home, Tolerance::NONE);
    seed.leave();
    peer.leave();
}
