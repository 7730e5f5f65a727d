//! Files that are not wanted, as peers, trackers and storage see it.

use super::*;
use crate::base::choice::{Choice, PieceOrder, Priority};

/// Blocks of the first file, whose last is shared with the second.
const FIRST: u32 = 4;

/// The same content as [`metainfo`]'s, in two files.
fn two_files() -> Arc<Metainfo> {
    let first = u64::from(FIRST) * u64::from(BLOCK_LEN) - 100;
    let files = [("a", first), ("b", LEN - first)];
    let files = files.map(|(name, len)| file(vec![name.to_owned()], len));
    let tracker = format!("http://{HOST}/announce");
    metainfo_of("content", files.into(), vec![tracker])
}

fn first_only() -> Choice {
    Choice::new(
        vec![Priority::Normal, Priority::Skip],
        PieceOrder::Sequential,
    )
}

impl Script {
    fn choose(&mut self, choice: Choice) {
        assert!(self.engine.choose(self.id, choice, self.now));
        self.settle();
    }

    /// The files that storage was told last that nobody wants.
    fn skipped(&self) -> Option<Vec<u32>> {
        let mut told = self.storage.iter().rev();
        told.find_map(|action| match action {
            StorageAction::Choose { skipped, .. } => Some(skipped.clone()),
            _ => None,
        })
    }

    /// Lets the seed `conn` send all that it is asked for, and storage find it right.
    fn fetch(&mut self, conn: ConnId) -> usize {
        let mut count = 0;
        loop {
            let served = self.serve(conn);
            if served == 0 {
                return count;
            }
            count += served;
            self.check_all();
        }
    }

    fn all_settled(&mut self) {
        let settles = self.count(|action| matches!(action, StorageAction::Settle { .. }));
        assert!(settles > 0, "storage is asked for it");
        self.settled();
        self.durable();
    }

    /// Waits for the next announce.
    fn next_announce(&mut self) -> String {
        let is_asked = |action: &Action| matches!(action, Action::Resolve { .. });
        for _ in 0..7200 {
            if self.other.iter().any(is_asked) {
                break;
            }
            self.pass(Duration::from_secs(1));
        }
        self.announced()
    }

    fn told(&self, is_it: fn(&Report) -> bool) -> usize {
        self.reports.iter().filter(|report| is_it(report)).count()
    }

    /// A leecher with the extension protocol, which wants to hear `upload_only` as message 3.
    fn join_leecher(&mut self) -> ConnId {
        let local = ([10, 0, 0, 1], 6881).into();
        let remote = ([10, 0, 0, 7], 50_000).into();
        let conn = self.engine.accepted(remote, local, self.now);
        let conn = conn.expect("there is room");
        let handshake = Handshake {
            reserved: Reserved {
                fast: true,
                extended: true,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id: PeerId([8; 20]),
        };
        self.feed(conn, &handshake.encode());
        let body = b"\x14\x00d1:md11:upload_onlyi3eee";
        self.feed(conn, &(body.len() as u32).to_be_bytes());
        self.feed(conn, body);
        self.feed(conn, &[0, 0, 0, 1, 15]); // have none
        self.written(conn);
        conn
    }
}

fn is_in(written: &[u8], message: &[u8]) -> bool {
    written
        .windows(message.len())
        .any(|window| window == message)
}

/// Goal: a torrent with all that is wanted of it is a partial seed to everybody, not a seed; when
/// more is wanted it is a leecher again, and complete once and only once.
#[test]
fn torrent_is_a_partial_seed_until_more_is_wanted() {
    let mut script = Script::of(two_files());
    script.scanned(Bitfield::new(PIECES));
    script.choose(first_only());
    assert_eq!(script.skipped(), Some(vec![1]));
    assert!(script.next_announce().contains("event=started"));
    let leecher = script.join_leecher();
    let seed = script.join_seed();
    assert_eq!(script.fetch(seed), FIRST as usize);
    script.all_settled();

    assert_eq!(script.state(), State::Seeding);
    assert!(!script.engine.is_whole_seed(script.id));
    assert_eq!(script.told(|r| matches!(r, Report::Complete { .. })), 1);
    assert_eq!(script.told(|r| matches!(r, Report::Durable { .. })), 1);
    let figures = script
        .engine
        .snapshot(script.id, script.now)
        .expect("it is there");
    let wanted = u64::from(FIRST) * u64::from(BLOCK_LEN);
    assert_eq!((figures.wanted_bytes, figures.left_bytes), (wanted, 0));
    assert!(
        is_in(&script.written(leecher), &[0, 0, 0, 3, 20, 3, 1]),
        "upload_only"
    );
    assert!(
        script.engine.conn(seed).is_none(),
        "neither wants anything of the other"
    );
    let memory = script
        .engine
        .remembered(script.id, script.now)
        .expect("it is there");
    assert!(!memory.was_complete && memory.untold.is_empty());
    assert_eq!(memory.choice, first_only());
    let request = script.next_announce();
    assert!(
        request.contains("event=paused") && !request.contains("left=0&"),
        "{request}"
    );
    {
        let mut listed = script.engine.registry().peers(script.meta.info_hash);
        assert!(listed.all(|entry| !entry.is_seed));
    }

    script.choose(Choice::default());
    assert_eq!(script.state(), State::Downloading);
    assert_eq!(script.skipped(), Some(Vec::new()));
    assert!(
        is_in(&script.written(leecher), &[0, 0, 0, 3, 20, 3, 0]),
        "upload_only no more"
    );
    let request = script.next_announce();
    assert!(!request.contains("event="), "{request}");
    let seed = script.join_seed();
    assert_eq!(script.fetch(seed), (PIECES - FIRST) as usize);
    script.all_settled();
    assert_eq!(script.state(), State::Seeding);
    assert_eq!(script.told(|r| matches!(r, Report::Complete { .. })), 2);
    let request = script.next_announce();
    assert!(
        request.contains("event=completed") && request.contains("left=0&"),
        "{request}"
    );

    script.choose(first_only());
    assert_eq!(script.state(), State::Seeding);
    assert!(
        script.engine.is_whole_seed(script.id),
        "what is there is there"
    );
    assert!(!script.next_announce().contains("event="));
}

/// Goal: what was chosen holds from the start, before anything is looked at, after a pause, and
/// when files are opened anew.
#[test]
fn choice_holds_from_the_start_and_through_pauses_and_faults() {
    let meta = two_files();
    let mut script = Script::with(
        &meta,
        TorrentSpec {
            choice: first_only(),
            ..spec(&meta)
        },
    );
    let place = |is_it: fn(&StorageAction) -> bool| script.storage.iter().position(is_it);
    let told = place(|action| matches!(action, StorageAction::Choose { .. }));
    let opened = place(|action| matches!(action, StorageAction::Open { .. }));
    assert!(
        told.is_some() && told < opened,
        "storage knows for what it needs room"
    );
    let mut all = Bitfield::new(PIECES);
    (0..FIRST).for_each(|piece| {
        all.set(piece);
    });
    script.scanned(all.clone());
    script.check_all();
    assert_eq!(script.state(), State::Seeding);
    script.pause();
    script.choose(Choice::default());
    assert_eq!(script.state(), State::Paused);
    script.choose(first_only());
    script.resume();
    assert_eq!(script.state(), State::Seeding);
    script.pause();
    script.choose(Choice::default());
    script.resume();
    assert_eq!(script.state(), State::Downloading);
    script.choose(first_only());
    script.all_settled();
    assert_eq!(script.state(), State::Seeding, "at once");
    let trouble = Trouble {
        message: "somebody changed the files".to_owned(),
        may_pass: false,
        is_of_disk: false,
    };
    script.engine.storage_lapsed(script.id, trouble, script.now);
    script.settle();
    script.scanned(all);
    script.check_all();
    assert_eq!(script.state(), State::Seeding);
    let nothing = Choice::new(vec![Priority::Skip; 2], PieceOrder::RarestFirst);
    script.choose(nothing);
    assert_eq!(script.state(), State::Seeding);
}
