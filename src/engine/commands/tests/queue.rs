//! Torrents that wait for their turn to download.

use super::*;
use crate::base::choice::{Choice, PieceOrder, Priority};
use crate::engine::timers::TimerId;

/// An engine in which so many torrents may download at a time, and its torrents, the first of them
/// those that were added first.
pub(super) struct Line {
    pub script: Script,
    torrents: Vec<(TorrentId, Arc<Metainfo>)>,
}

impl Line {
    /// `count` torrents of which nothing is there.
    pub fn new(max_active: u32, count: usize) -> Self {
        let mut line = Self::added(max_active, count);
        for place in 0..count {
            line.at(place).scanned(Bitfield::new(PIECES));
        }
        line
    }

    /// `count` torrents that nobody has looked at yet.
    pub fn added(max_active: u32, count: usize) -> Self {
        let mut script = Script::new();
        script.engine.config.max_active = max_active;
        let mut torrents = vec![(script.id, Arc::clone(&script.meta))];
        for number in 1..count {
            let meta = named(&format!("content {number}"));
            let id = script.engine.add_torrent(spec(&meta), script.now);
            torrents.push((id.expect("another one"), meta));
        }
        script.settle();
        Self { script, torrents }
    }

    /// The script, about torrent `place` from now on.
    pub fn at(&mut self, place: usize) -> &mut Script {
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

/// A seed that sends little at a time.
struct Trickle {
    place: usize,
    conn: ConnId,
    bytes: Vec<u8>,
}

impl Trickle {
    fn new(line: &mut Line, place: usize) -> Self {
        Self {
            place,
            conn: line.at(place).join_seed(),
            bytes: Vec::new(),
        }
    }

    /// Sends the next bytes of what it was asked for, if it is still connected.
    fn send(&mut self, line: &mut Line) {
        let script = line.at(self.place);
        if script.engine.conn(self.conn).is_none() {
            return;
        }
        for request in script.requests(self.conn) {
            self.bytes.extend_from_slice(&(9 + BLOCK_LEN).to_be_bytes());
            self.bytes.push(7);
            self.bytes.extend_from_slice(&request);
            self.bytes.resize(self.bytes.len() + BLOCK_LEN as usize, 0);
        }
        let some = self.bytes.len().min(1000);
        let some: Vec<u8> = self.bytes.drain(..some).collect();
        script.feed(self.conn, &some);
    }
}

/// Lets these seeds send for so many seconds.
fn flow(line: &mut Line, seeds: &mut [Trickle], seconds: u64) {
    for _ in 0..seconds {
        for seed in seeds.iter_mut() {
            seed.send(line);
        }
        line.script.pass(Duration::from_secs(1));
    }
}

/// Goal: places are given in the order in which torrents were added, whichever check ends first,
/// but nobody waits for long for a check.
#[test]
fn places_are_given_in_the_order_of_adding_not_of_checks_that_end() {
    let mut line = Line::added(1, 4);
    line.at(3).scanned(Bitfield::new(PIECES));
    line.at(1).scanned(Bitfield::new(PIECES));
    assert_eq!(line.turn(), "cqcq");
    line.at(0).scanned(Bitfield::new(PIECES));
    assert_eq!(line.turn(), "dqcq");
    line.at(0).pause();
    assert_eq!(line.turn(), "pdcq", "who is behind does not matter");

    let mut line = Line::added(1, 3);
    line.at(1).scanned(Bitfield::new(PIECES));
    line.script.pass(Duration::from_secs(30));
    assert_eq!(line.states(), "cqc");
    line.script.pass(Duration::from_secs(50));
    assert_eq!(line.states(), "cdc", "a long check holds no place");
    line.at(0).scanned(Bitfield::new(PIECES));
    assert_eq!(line.turn(), "qdc");
}

/// Goal: when nobody has received anything for a while all begin; once all get on again, those that
/// were added first go on, and the others wait again, once.
#[test]
fn those_that_began_in_an_outage_wait_again_when_it_is_over() {
    let mut line = Line::new(2, 5);
    let mut seeds = vec![Trickle::new(&mut line, 0), Trickle::new(&mut line, 1)];
    flow(&mut line, &mut seeds, 90);
    assert_eq!(line.states(), "ddqqq");
    line.script.pass(Duration::from_secs(400));
    assert_eq!(line.states(), "ddddd", "nothing comes any more");

    line.script.reports.clear();
    let mut seeds: Vec<_> = (0..5).map(|n| Trickle::new(&mut line, n)).collect();
    flow(&mut line, &mut seeds, 30);
    assert_eq!(line.states(), "ddddd", "it may be for a moment only");
    flow(&mut line, &mut seeds, 60);
    assert_eq!(line.states(), "ddqqq");
    flow(&mut line, &mut seeds, 300);
    assert_eq!(line.states(), "ddqqq");
    let is_state = |r: &&Report| matches!(r, Report::State { .. });
    let changes = line.script.reports.iter().filter(is_state).count();
    assert_eq!(changes, 3, "{:?}", line.script.reports);
    // A place that becomes free is for the first of them.
    line.at(0).pause();
    assert_eq!(line.turn(), "pddqq");
}

#[test]
fn one_that_gets_on_for_a_moment_drives_nobody_out() {
    let mut line = Line::new(1, 2);
    line.script.pass(Duration::from_secs(70));
    assert_eq!(line.states(), "dd");
    let mut first = [Trickle::new(&mut line, 0)];
    let mut second = [Trickle::new(&mut line, 1)];
    for _ in 0..5 {
        flow(&mut line, &mut first, 1);
        flow(&mut line, &mut second, 75);
        assert_eq!(line.states(), "dd");
    }
}

/// Goal: a torrent that receives a little now and then does not have one wait again that gets on
/// well.
#[test]
fn trickle_drives_out_nobody_who_gets_on_well() {
    let mut line = Line::new(1, 2);
    line.script.pass(Duration::from_secs(70));
    assert_eq!(line.states(), "dd");
    let mut first = [Trickle::new(&mut line, 0)];
    let mut second = [Trickle::new(&mut line, 1)];
    for _ in 0..10 {
        flow(&mut line, &mut first, 1);
        flow(&mut line, &mut second, 29);
        assert_eq!(line.states(), "dd");
    }
}

/// Goal: a seed that has lost a piece fetches it again at once, and nobody gives way to it.
#[test]
fn seed_that_has_lost_something_takes_no_place() {
    let mut line = Line::added(1, 2);
    line.at(0).scanned(Bitfield::full(PIECES));
    line.at(0).check_all();
    line.at(1).scanned(Bitfield::new(PIECES));
    assert_eq!(line.turn(), "sd");
    let script = line.at(0);
    script
        .engine
        .piece_lost(script.id, PieceIndex(3), script.now);
    script.settle();
    assert_eq!(line.turn(), "dd");
    let mut seeds = vec![Trickle::new(&mut line, 0), Trickle::new(&mut line, 1)];
    flow(&mut line, &mut seeds, 15);
    // One that has its turn waits for it no more than it did before.
    line.at(1).pause();
    line.at(1).resume();
    assert_eq!(line.turn(), "dd");
    let mut seeds = vec![Trickle::new(&mut line, 1)];
    flow(&mut line, &mut seeds, 100);
    assert_eq!(line.states(), "dd");
}

#[test]
fn torrent_that_its_user_had_begin_does_not_wait_again() {
    let mut line = Line::new(1, 3);
    line.at(2).resume();
    assert_eq!(line.turn(), "dqd");
    let mut seeds = vec![Trickle::new(&mut line, 0), Trickle::new(&mut line, 2)];
    flow(&mut line, &mut seeds, 200);
    assert_eq!(line.states(), "dqd");
    // Unless it is paused: then it has had its turn.
    line.at(2).pause();
    line.at(2).resume();
    assert_eq!(line.turn(), "dqq");
}
