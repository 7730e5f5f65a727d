//! Torrents that wait for their turn to download.

use super::*;
use crate::base::choice::{Choice, PieceOrder, Priority};
use crate::engine::timers::TimerId;

/// An engine in which so many torrents may download at a time, and its torrents, the first of them
/// those that were added first.
struct Line {
    script: Script,
    torrents: Vec<(TorrentId, Arc<Metainfo>)>,
}

impl Line {
    /// `count` torrents of which nothing is there.
    fn new(max_active: u32, count: usize) -> Self {
        let mut script = Script::new();
        script.engine.config.max_active = max_active;
        let mut torrents = vec![(script.id, Arc::clone(&script.meta))];
        for number in 1..count {
            let meta = named(&format!("content {number}"));
            let id = script.engine.add_torrent(spec(&meta), script.now);
            torrents.push((id.expect("another one"), meta));
        }
        script.settle();
        let mut line = Self { script, torrents };
        for place in 0..count {
            line.at(place).scanned(Bitfield::new(PIECES));
        }
        line
    }

    /// The script, about torrent `place` from now on.
    fn at(&mut self, place: usize) -> &mut Script {
        let (id, meta) = &self.torrents[place];
        (self.script.id, self.script.meta) = (*id, Arc::clone(meta));
        &mut self.script
    }

    /// The states of all, a letter each.
    fn states(&mut self) -> String {
        let name = |(id, _): &(TorrentId, _)| {
            let state = self.script.engine.state(*id).expect("it is there");
            char::from(state.name().as_bytes()[0])
        };
        self.torrents.iter().map(name).collect()
    }

    /// Time for what is due now.
    fn turn(&mut self) -> String {
        self.script.pass(Duration::ZERO);
        self.states()
    }
}

/// The torrent that all scripts are about, under another name and without a tracker.
fn named(name: &str) -> Arc<Metainfo> {
    metainfo_of(name, vec![file(Vec::new(), LEN)], Vec::new())
}

#[test]
fn as_many_download_as_may_and_the_first_in_line_is_next() {
    let mut line = Line::new(2, 5);
    assert_eq!(line.turn(), "ddqqq");
    line.at(2).join_refused();

    // One becomes complete.
    let script = line.at(0);
    let conn = script.join_seed();
    let checks = script.download_all(conn);
    script.answer(&checks);
    script.settled();
    assert_eq!(line.turn(), "sddqq");
    // One is paused, and one is removed.
    line.at(1).pause();
    assert_eq!(line.turn(), "spddq");
    let (gone, _) = line.torrents.remove(2);
    let now = line.script.now;
    assert!(line.script.engine.remove_torrent(gone, now));
    line.script.settle();
    assert_eq!(line.turn(), "spdd");
    // Who comes back waits until there is room.
    line.at(1).resume();
    assert_eq!(line.turn(), "sqdd");
    line.at(3).pause();
    assert_eq!(line.turn(), "sddp");
}

#[test]
fn user_has_a_queued_torrent_begin_at_once() {
    let mut line = Line::new(1, 3);
    assert_eq!(line.turn(), "dqq");
    line.at(2).resume();
    assert_eq!(line.turn(), "dqd");
    // It can be paused as it waits, and waits again then.
    line.at(1).pause();
    assert_eq!(line.turn(), "dpd");
    line.at(1).resume();
    assert_eq!(line.turn(), "dqd");
}

#[test]
fn torrent_that_gets_nothing_holds_up_nobody() {
    let mut line = Line::new(1, 3);
    line.script.pass(Duration::from_secs(50));
    assert_eq!(line.states(), "dqq");
    line.script.pass(Duration::from_secs(20));
    assert_eq!(line.states(), "ddq", "nothing came of the first");
    let script = line.at(0);
    let conn = script.join_seed();
    assert!(script.serve(conn) > 0);
    line.script.pass(Duration::from_secs(30));
    assert_eq!(line.states(), "ddq", "now it gets on");
    line.script.pass(Duration::from_secs(60));
    assert_eq!(line.states(), "ddd");
}

#[test]
fn who_has_everything_waits_for_nobody() {
    let mut line = Line::new(1, 2);
    assert_eq!(line.turn(), "dq");
    let meta = named("there already");
    let script = &mut line.script;
    let id = script.engine.add_torrent(spec(&meta), script.now);
    line.torrents.push((id.expect("another one"), meta));
    line.at(2).scanned(Bitfield::full(PIECES));
    line.at(2).check_all();
    assert_eq!(line.turn(), "dqs");
    // And who wants no more than it has.
    let choice = Choice::new(vec![Priority::Skip], PieceOrder::RarestFirst);
    let now = line.script.now;
    let (id, _) = line.torrents[1];
    line.script.engine.choose(id, choice, now);
    line.script.settle();
    assert_eq!(line.turn(), "dss");
}

#[test]
fn queued_torrent_whose_files_lapse_announces_itself_when_its_turn_comes() {
    let mut line = Line::new(1, 2);
    line.at(0).pause();
    assert_eq!(line.turn(), "pd");
    line.at(0).resume();
    assert_eq!(line.turn(), "qd");
    line.script.other.clear();
    let script = line.at(0);
    let trouble = Trouble::lasting("somebody changed it");
    script.engine.storage_lapsed(script.id, trouble, script.now);
    script.settle();
    script.scanned(Bitfield::new(PIECES));
    assert_eq!(line.turn(), "qd");
    line.at(1).pause();
    assert_eq!(line.turn(), "dp");
    assert!(line.at(0).announced().contains("event=started"));
}

#[test]
fn torrent_whose_last_bytes_came_as_it_was_queued_is_told_as_complete() {
    let mut line = Line::new(1, 2);
    let script = line.at(0);
    let conn = script.join_seed();
    let checks = script.download_all(conn);
    script.pause();
    assert_eq!(line.turn(), "pd");
    line.at(0).resume();
    assert_eq!(line.turn(), "qd");
    let script = line.at(0);
    script.answer(&checks);
    script.settled();
    script.settled();
    assert_eq!(line.turn(), "sd");
    assert_eq!(line.script.completions(), 1);
}

#[test]
fn torrent_that_wants_no_more_since_it_was_queued_can_fetch_more_later() {
    let mut line = Line::new(1, 2);
    assert_eq!(line.turn(), "dq");
    line.at(1).pause();
    let now = line.script.now;
    let (id, _) = line.torrents[1];
    let nothing = Choice::new(vec![Priority::Skip], PieceOrder::RarestFirst);
    assert!(line.script.engine.choose(id, nothing, now));
    line.at(1).resume();
    assert_eq!(line.turn(), "ds");
    assert!(line.script.engine.choose(id, Choice::default(), now));
    line.script.settle();
    assert_eq!(line.turn(), "dd");
    let script = line.at(1);
    let conn = script.join_seed();
    assert!(script.serve(conn) > 0, "it asks for blocks");
}

/// Goal: what waits for the queue is one deadline, however often something changed.
#[test]
fn changes_while_others_wait_leave_no_deadlines_behind() {
    let mut line = Line::new(1, 4);
    for _ in 0..50 {
        line.at(3).pause();
        line.at(3).resume();
        line.turn();
    }
    line.script.pass(Duration::from_secs(30));
    let mut count = 0;
    let soon = line.script.now + Duration::from_secs(6);
    while let Some(id) = line.script.engine.timers.poll(soon) {
        count += u32::from(id == TimerId::Queue);
    }
    assert_eq!(count, 1);
}
