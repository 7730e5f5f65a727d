//! Streams that stand in line under a limit of rate, with peers that do nothing.

use super::*;
use crate::base::limits;
use crate::config::RateLimits;

/// What a peer does, apart from what is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It sends all the time, and reads nothing.
    ReadsNothing,
    /// It reads all the time, and sends nothing.
    SendsNothing,
}

impl Script {
    /// Lets time pass until the stream is closed, 400 s at most; how long that was.
    fn time_to_close(&mut self, conn: ConnId, peer: Peer) -> Option<Duration> {
        let start = self.now;
        let end = start + Duration::from_secs(400);
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= end) {
            match peer {
                Peer::ReadsNothing => self.read_all(conn),
                Peer::SendsNothing => while self.write(conn) > 0 {},
            }
            self.now = self.now.max(at);
            self.engine.timers_fired(self.now);
            self.settle();
            if self
                .engine
                .conn(conn)
                .is_none_or(|c| c.exchange().is_none())
            {
                return Some(self.now - start);
            }
        }
        None
    }

    /// The stream brings keep-alives until it has to wait.
    fn read_all(&mut self, conn: ConnId) {
        while let room @ 1.. = self.engine.read_room(conn) {
            for _ in 0..room.div_ceil(4).min(1024) {
                self.engine.received(conn, &[0; 4], self.now);
            }
            self.settle();
        }
    }

    /// Writes the next portion; how much it is.
    fn write(&mut self, conn: ConnId) -> usize {
        let mut plan = WritePlan::default();
        self.engine.write_plan(conn, usize::MAX, &mut plan);
        self.engine.sent(conn, plan.len, self.now);
        self.settle();
        plan.len
    }

    fn limit(&mut self, up: u64, down: u64) {
        let limits = RateLimits { up, down };
        self.engine.set_limits(limits, self.now);
        self.settle();
    }
}

/// Goal: that its stream stands in line for what comes in does not excuse a peer that reads
/// nothing.
#[test]
fn peer_that_reads_nothing_is_closed_though_it_waits_to_be_read() {
    let mut script = Script::downloading();
    script.limit(0, 1024);
    let conn = script.join_seed();
    let time = script.time_to_close(conn, Peer::ReadsNothing);
    let time = time.expect("it is closed");
    assert!(time < Duration::from_secs(300), "{time:?}");
}

/// Goal: that its stream stands in line for what leaves does not excuse a peer that sends nothing.
#[test]
fn peer_that_sends_nothing_is_closed_though_it_waits_to_be_written_to() {
    let mut script = Script::new();
    let mut all = Bitfield::new(PIECES);
    for piece in 0..PIECES {
        all.set(piece);
    }
    script.scanned(all);
    script.check_all();
    script.limit(1024, 0);
    let conn = script.join(&[0, 0, 0, 1, 15, 0, 0, 0, 1, 2]); // have none, interested
    script.pass(Duration::from_secs(30));
    for piece in 0..100_u32 {
        let mut request = vec![0, 0, 0, 13, 6];
        for number in [piece, 0, BLOCK_LEN] {
            request.extend(number.to_be_bytes());
        }
        script.feed(conn, &request);
    }
    while script.write(conn) > 0 {}
    assert!(script.engine.waits_to_write(conn, script.now));
    let time = script.time_to_close(conn, Peer::SendsNothing);
    let time = time.expect("it is closed");
    assert!(
        time < limits::IDLE_TIMEOUT + Duration::from_secs(5),
        "{time:?}"
    );
}
