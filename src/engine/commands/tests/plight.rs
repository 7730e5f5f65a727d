//! Files that cannot be written for a while.

use super::*;

fn no_space(free: u64) -> Trouble {
    Trouble {
        message: format!("no space: {free} free"),
        may_pass: true,
        is_of_disk: true,
    }
}

/// Goal: who is told that a torrent waits and has it resumed does without the disk; who resumes one
/// that he paused was told nothing.
#[test]
fn resume_of_a_torrent_that_waits_does_without_its_disk() {
    let is_it = |a: &StorageAction| matches!(a, StorageAction::DoWithoutDisk { .. });
    let mut script = Script::in_plight();
    script.pause();
    script.resume();
    assert_eq!(script.state(), State::Error);
    assert_eq!(script.count(is_it), 0);
    script.storage.clear();
    script.resume();
    assert_eq!(script.count(is_it), 1);
    assert!(is_it(&script.storage[0]), "before it is tried again");
}

impl Script {
    /// One that has half of the pieces when its disk is full.
    fn in_plight() -> Self {
        let mut script = Self::downloading();
        script.fill_disk();
        assert!(matches!(
            script.storage[..],
            [StorageAction::Open {
                writable: false,
                ..
            }]
        ));
        script.scanned(half());
        assert_eq!(script.check_all(), PIECES as usize / 2);
        script.storage.clear();
        script
    }

    fn fill_disk(&mut self) {
        self.storage.clear();
        self.engine.storage_failed(self.id, no_space(0), self.now);
        self.settle();
    }

    fn probed(&mut self, result: Result<(), Trouble>) {
        self.engine.storage_probed(self.id, result, self.now);
        self.settle();
    }

    /// Time until storage is asked whether it can write, up to two minutes.
    fn time_to_probe(&mut self) -> Option<Duration> {
        let start = self.now;
        let end = start + Duration::from_secs(120);
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.engine.timers_fired(self.now);
            self.settle();
            if self.count(|a| matches!(a, StorageAction::Probe { .. })) > 0 {
                self.storage.clear();
                return Some(self.now - start);
            }
        }
        None
    }

    fn reason(&mut self) -> (Option<String>, bool) {
        let snapshot = self.engine.snapshot(self.id, self.now);
        let snapshot = snapshot.expect("it is there");
        (snapshot.reason, snapshot.retry_in.is_some())
    }
}

fn half() -> Bitfield {
    let mut half = Bitfield::new(PIECES);
    (0..PIECES / 2).for_each(|piece| {
        half.set(piece);
    });
    half
}

/// How often a message of `id` stands in what was written.
fn messages(written: &[u8], id: u8) -> usize {
    let mut rest = match written.first() {
        Some(&19) => &written[68..],
        _ => written,
    };
    let mut count = 0;
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (message, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
        count += usize::from(message.first() == Some(&id));
        rest = tail;
    }
    count
}

#[test]
fn what_is_verified_is_served_and_nothing_is_asked_for_until_there_is_room() {
    let mut script = Script::in_plight();
    assert_eq!(script.state(), State::Error);
    assert_eq!(script.reason(), (Some("no space: 0 free".to_owned()), true));
    let conn = script.join_seed();
    script.feed(conn, &[0, 0, 0, 1, 2]); // interested
    let written = script.written(conn);
    let (bitfields, unchokes) = (messages(&written, 5), messages(&written, 1));
    let (interests, requests) = (messages(&written, 2), messages(&written, 6));
    assert_eq!((bitfields, unchokes, interests, requests), (1, 1, 0, 0));

    script.time_to_probe().expect("storage is asked");
    script.probed(Err(no_space(5)));
    assert_eq!(script.reason(), (Some("no space: 5 free".to_owned()), true));
    assert_eq!(messages(&script.written(conn), 6), 0);

    script.time_to_probe().expect("storage is asked again");
    script.probed(Ok(()));
    assert_eq!(script.state(), State::Downloading);
    assert_eq!(script.reason(), (None, false));
    let begins = script.count(|a| matches!(a, StorageAction::Begin { .. }));
    assert_eq!(begins, 1, "{:?}", script.storage);
    assert!(script.serve(conn) > 0, "the peer that stayed is asked");
}

#[test]
fn room_is_asked_for_less_and_less_often_and_at_once_by_resume() {
    let mut script = Script::in_plight();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let pause = script.time_to_probe().expect("storage is asked");
        pauses.push(pause.as_secs());
        script.probed(Err(no_space(0)));
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    script.resume();
    assert_eq!(
        script.count(|a| matches!(a, StorageAction::Probe { .. })),
        1
    );
    script.storage.clear();
    script.probed(Err(no_space(0)));
    assert_eq!(script.time_to_probe(), Some(Duration::from_secs(2)));
}

#[test]
fn storage_is_not_asked_twice_at_a_time_nor_while_the_torrent_is_paused() {
    let mut script = Script::in_plight();
    script.time_to_probe().expect("storage is asked");
    assert_eq!(script.time_to_probe(), None, "no answer came yet");
    script.pause();
    script.storage.clear();
    script.probed(Ok(()));
    assert_eq!(script.state(), State::Paused);
    assert_eq!(script.time_to_probe(), None);
    script.resume();
    assert_eq!(script.state(), State::Error);
    assert!(matches!(script.storage[..], [StorageAction::Probe { .. }]));
    script.probed(Ok(()));
    assert_eq!(script.state(), State::Downloading);
    let conn = script.join_seed();
    assert!(script.serve(conn) > 0);
}

#[test]
fn files_that_cannot_even_be_read_are_opened_again_after_a_pause() {
    let mut script = Script::downloading();
    script.fill_disk();
    script.fill_disk();
    assert!(
        script.storage.is_empty(),
        "not at once: {:?}",
        script.storage
    );
    assert_eq!(script.state(), State::Error);
    script.join_refused();
    script.pass(Duration::from_secs(2));
    assert_eq!(script.count(|a| matches!(a, StorageAction::Open { .. })), 1);
    script.scanned(Bitfield::full(PIECES));
    script.check_all();
    // Everything is there: whether it could be written is of no interest any more.
    script.pass(Duration::ZERO);
    script.probed(Ok(()));
    assert_eq!(script.state(), State::Seeding);
}

#[test]
fn disk_that_is_full_again_soon_is_tried_less_often_and_one_that_was_good_is_not() {
    for (good_for, pause) in [(1, 8), (61, 2)] {
        let mut script = Script::in_plight();
        script.time_to_probe().expect("storage is asked");
        script.probed(Err(no_space(0)));
        script.time_to_probe().expect("storage is asked");
        script.probed(Ok(()));
        script.pass(Duration::from_secs(good_for));
        script.fill_disk();
        script.scanned(half());
        script.check_all();
        let next = script.time_to_probe();
        assert_eq!(next, Some(Duration::from_secs(pause)), "{good_for} s");
    }
}

#[test]
fn end_and_removal_do_not_wait_for_room() {
    let mut script = Script::in_plight();
    script.engine.shutdown(script.now);
    script.settle();
    script.durable();
    assert_eq!(script.time_to_probe(), None);
    assert!(
        script
            .engine
            .is_finished(script.now + Duration::from_secs(2))
    );

    let mut script = Script::in_plight();
    script.time_to_probe().expect("storage is asked");
    assert!(script.engine.remove_torrent(script.id, script.now));
    script.probed(Ok(()));
    assert_eq!(
        script.count(|a| matches!(a, StorageAction::Close { .. })),
        1
    );
    assert_eq!(script.engine.torrents().count(), 0);
}

#[test]
fn folder_that_cannot_be_used_is_waited_for_once_there_is_something_in_it() {
    let read_only = || Trouble {
        message: "read-only file system".to_owned(),
        may_pass: true,
        is_of_disk: false,
    };
    let mut script = Script::downloading();
    script
        .engine
        .storage_failed(script.id, read_only(), script.now);
    script.settle();
    assert_eq!(script.state(), State::Error);
    assert!(!script.reason().1, "nobody waits for a mistake to pass");

    let mut script = Script::in_plight();
    script.time_to_probe().expect("storage is asked");
    script.probed(Ok(()));
    script
        .engine
        .storage_failed(script.id, read_only(), script.now);
    script.settle();
    assert_eq!(script.state(), State::Error);
    assert!(script.reason().1, "it goes on when that is writable again");
}

#[test]
fn disk_that_could_not_even_be_read_is_asked_as_soon_as_it_is_back() {
    let mut script = Script::downloading();
    script.fill_disk();
    script.fill_disk(); // what was opened to be served only has failed too
    script.pass(Duration::from_secs(2));
    let opens = script.count(|a| matches!(a, StorageAction::Open { .. }));
    assert_eq!(opens, 1, "{:?}", script.storage);
    script.scanned(half());
    script.check_all();
    assert_eq!(script.time_to_probe(), Some(Duration::ZERO));
}
