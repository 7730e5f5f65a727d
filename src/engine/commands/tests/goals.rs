//! Torrents that are seeded until a goal is reached, and what trackers hear over several runs.

use super::*;
use crate::config::session::SessionTorrent;
use crate::config::{Goal, SeedGoals};

const HOUR: Duration = Duration::from_secs(3600);

/// A torrent whose files are all there.
fn seeding(goals: SeedGoals, memory: Option<&SessionTorrent>) -> Script {
    let mut script = Script::new();
    script.engine.config.seed_goals = goals;
    if let Some(memory) = memory {
        script.engine.recall(script.id, memory, script.now);
    }
    let mut all = Bitfield::new(PIECES);
    for piece in 0..PIECES {
        all.set(piece);
    }
    script.scanned(all);
    script.check_all();
    assert_eq!(script.state(), State::Seeding);
    script
}

impl Script {
    fn synced(&mut self) {
        self.durable();
    }

    fn memory(&self) -> SessionTorrent {
        let memory = self.engine.remembered(self.id, self.now);
        memory.expect("it is there")
    }

    fn stopped_for(&mut self) -> Option<String> {
        let snapshot = self.engine.snapshot(self.id, self.now);
        snapshot.and_then(|snapshot| snapshot.reason)
    }
}

fn time(seconds: u64) -> SeedGoals {
    SeedGoals {
        ratio: Some(Goal::Never),
        time: Some(Goal::At(seconds)),
    }
}

fn ratio(milli: u64) -> SeedGoals {
    SeedGoals {
        ratio: Some(Goal::At(milli)),
        time: None,
    }
}

/// Goal: a torrent is paused when its time is over, counted over all runs and not while it is
/// paused, but not before everything is on disk; who resumes it then wants it seeded on.
#[test]
fn torrent_is_paused_when_its_time_is_over() {
    let mut script = seeding(time(7200), None);
    script.pass(3 * HOUR);
    assert_eq!(script.state(), State::Seeding, "not everything is on disk");
    script.synced();
    script.pass(Duration::from_secs(1));
    assert_eq!(script.state(), State::Paused);
    assert!(script.stopped_for().is_some_and(|r| r.contains("7200 s")));
    script.resume();
    assert_eq!(
        (script.state(), script.stopped_for()),
        (State::Seeding, None)
    );
    script.pass(24 * HOUR);
    assert_eq!(script.state(), State::Seeding);
    let memory = script.memory();
    assert!(memory.seeds_on && !memory.is_paused);
    let mut again = seeding(time(7200), Some(&memory));
    again.synced();
    again.pass(HOUR);
    assert_eq!(again.state(), State::Seeding, "the next run does too");

    let mut script = seeding(time(7200), None);
    script.synced();
    script.pass(HOUR);
    script.pause();
    script.pass(HOUR);
    script.resume();
    script.pass(HOUR / 2);
    let memory = script.memory();
    assert_eq!((memory.seeded_s, memory.seeds_on), (5400, false));
    let mut again = seeding(time(7200), Some(&memory));
    again.synced();
    again.pass(HOUR / 2 - Duration::from_secs(1));
    assert_eq!(again.state(), State::Seeding);
    again.pass(Duration::from_secs(1));
    assert_eq!(again.state(), State::Paused);
}

/// Goal: who resumes a torrent in a later run than that in which its goal paused it wants it seeded
/// on, and has to say so once.
#[test]
fn torrent_paused_by_its_goal_is_seeded_on_when_it_is_resumed_in_a_later_run() {
    let mut script = seeding(time(7200), None);
    script.synced();
    script.pass(3 * HOUR);
    assert_eq!(script.state(), State::Paused);
    let memory = script.memory();
    let mut again = Script::new();
    again.engine.config.seed_goals = time(7200);
    again.engine.recall(again.id, &memory, again.now);
    again.settle();
    assert_eq!(again.state(), State::Paused);
    again.resume();
    let mut all = Bitfield::new(PIECES);
    for piece in 0..PIECES {
        all.set(piece);
    }
    again.scanned(all);
    again.check_all();
    again.synced();
    again.pass(HOUR);
    assert_eq!(again.state(), State::Seeding);
}

/// Goal: no time that a session names is too long.
#[test]
fn remembered_time_may_be_of_any_length() {
    let mut memory = seeding(time(7200), None).memory();
    memory.seeded_s = u64::MAX;
    let mut script = seeding(time(u64::MAX), Some(&memory));
    script.pass(HOUR);
    assert_eq!(script.memory().seeded_s, u64::MAX);
    script.synced();
    script.pass(HOUR);
    assert_eq!(script.state(), State::Paused);
}

/// Goal: what was sent in all runs counts.
#[test]
fn torrent_is_paused_when_its_ratio_is_reached() {
    let len = u64::from(PIECES) * u64::from(BLOCK_LEN);
    let mut memory = seeding(ratio(1500), None).memory();
    for (up, state) in [
        (len * 3 / 2 - 1, State::Seeding),
        (len * 3 / 2, State::Paused),
    ] {
        memory.up_bytes = up;
        let mut script = seeding(ratio(1500), Some(&memory));
        script.synced();
        script.pass(HOUR);
        assert_eq!(script.state(), state, "{up} of {len}");
    }
    let mut script = seeding(SeedGoals::default(), Some(&memory));
    script.synced();
    script.pass(24 * HOUR);
    assert_eq!(
        script.state(),
        State::Seeding,
        "without a goal nothing ends it"
    );
    assert_eq!(
        script.memory().seeded_s,
        0,
        "nor is anything written again and again"
    );
}

/// Goal: a torrent that was complete once is so for its trackers.
#[test]
fn torrent_that_was_complete_from_the_start_owes_nobody_news_of_it() {
    let script = seeding(SeedGoals::default(), None);
    let memory = script.memory();
    assert!(memory.was_complete && memory.untold.is_empty());
    let mut again = Script::new();
    again.engine.recall(again.id, &memory, again.now);
    again.scanned(Bitfield::new(PIECES));
    assert_eq!(again.state(), State::Downloading, "its data is gone");
    assert!(again.memory().was_complete);
}

/// Goal: trackers hear once that a download ended, also if the run ended before it had remembered
/// that: what the run before had told them says who has to hear.
#[test]
fn end_of_a_download_is_told_by_the_next_run_if_nothing_was_remembered_of_it() {
    let all = Bitfield::full(PIECES);
    let mut script = Script::downloading();
    assert!(script.announced_soon().contains("event=started"));
    let memory = script.memory(); // and then it is killed, its last piece on the disk
    assert!(!memory.was_complete && memory.untold.is_empty());

    let mut again = Script::new();
    again.engine.recall(again.id, &memory, again.now);
    again.scanned(all.clone());
    again.check_all();
    assert_eq!(again.state(), State::Seeding);
    let memory = again.memory();
    assert!(memory.was_complete && memory.untold.len() == 1);
    assert!(again.announced_soon().contains("event=started"));
    assert!(again.announced_soon().contains("event=completed"));
    let memory = again.memory();
    assert!(memory.was_complete && memory.untold.is_empty());

    let mut last = seeding(SeedGoals::default(), Some(&memory));
    assert!(last.announced_soon().contains("event=started"));
    last.other.clear();
    last.pass(HOUR / 60);
    let is_asked = |a: &Action| matches!(a, Action::Resolve { .. });
    assert!(!last.other.iter().any(is_asked), "it was told");
}

#[test]
fn end_of_a_download_in_a_pause_is_told_to_those_who_had_heard_of_its_beginning() {
    let mut script = Script::downloading();
    assert!(script.announced_soon().contains("event=started"));
    let conn = script.join_seed();
    let checks = script.download_all(conn);
    script.pause();
    assert!(script.announced().contains("event=stopped"));
    script.answer(&checks);
    script.resume();
    script.settled();
    assert_eq!(script.state(), State::Seeding);
    assert!(script.announced_soon().contains("event=started"));
    assert!(script.announced_soon().contains("event=completed"));
}
