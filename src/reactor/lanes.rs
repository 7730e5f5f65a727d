//! Helper threads for calls that can block: name lookups, page faults, disks.
//!
//! A lane is one thread with a bounded queue. It owns no state and sees neither connections
//! nor torrents: a job comes in, its result goes out, and the loop is woken.
//!
//! ```text
//! loop ──submit──▶ waiting ──▶ queue (bounded) ──▶ thread: run(job)
//!   ▲                                                    │
//!   └────── poll_done ◀──── results ◀───── Waker ────────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError};
use std::thread::{self, JoinHandle};

use mio::Waker;

use crate::engine::action::LookupId;

/// One helper thread that turns jobs into results, in the order in which they come.
#[derive(Debug)]
pub struct Lane<J, D> {
    name: &'static str,
    /// `None` only while the lane ends.
    queue: Option<SyncSender<J>>,
    results: Receiver<D>,
    /// Jobs that the queue has no room for. Whoever submits bounds their number: storage by its
    /// windows, the engine by its lookups.
    waiting: VecDeque<J>,
    /// Jobs whose result has not been taken yet, those waiting among them.
    open: usize,
    thread: Option<JoinHandle<()>>,
    ending: Ending,
}

/// What becomes of the thread when its lane is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything submitted is done first: it may be somebody's data.
    Finish,
    /// Nobody waits for it: a lookup may hang for minutes and changes nothing.
    Abandon,
}

/// A lane's thread is gone: one of its jobs panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the helper thread `{name}` has died")]
pub struct LaneDied {
    /// Which lane.
    pub name: &'static str,
}

impl<J: Send + 'static, D: Send + 'static> Lane<J, D> {
    /// Starts the thread `name`, which answers `run(job)` for every job and wakes the loop.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        name: &'static str,
        run: impl Fn(J) -> D + Send + 'static,
        ending: Ending,
        waker: &Arc<Waker>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::sync_channel::<J>(QUEUE_LEN_MAX);
        let (answers, results) = mpsc::channel();
        let alarm = Alarm(Arc::clone(waker));
        let work = move || {
            for job in jobs {
                if answers.send(run(job)).is_err() {
                    break;
                }
                alarm.ring();
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(work)?;
        Ok(Self {
            name,
            queue: Some(queue),
            results,
            waiting: VecDeque::new(),
            open: 0,
            thread: Some(thread),
            ending,
        })
    }

    /// Hands `job` to the thread, now or when its queue has room.
    ///
    /// If the thread is gone, `poll_done` will say so.
    pub fn submit(&mut self, job: J) {
        self.open += 1;
        self.waiting.push_back(job);
        self.refill();
    }

    /// Takes the next result, if there is one.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn poll_done(&mut self) -> Result<Option<D>, LaneDied> {
        match self.results.try_recv() {
            Ok(done) => {
                self.open -= 1;
                self.refill();
                Ok(Some(done))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(LaneDied { name: self.name }),
        }
    }

    /// Whether a result is still to come.
    pub fn is_busy(&self) -> bool {
        self.open > 0
    }

    /// Moves waiting jobs into the queue while it has room.
    fn refill(&mut self) {
        let queue = self.queue.as_ref().expect("only `drop` takes the queue");
        while let Some(job) = self.waiting.pop_front() {
            match queue.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                    self.waiting.push_front(job);
                    return;
                }
            }
        }
        if self.waiting.capacity() > QUEUE_LEN_MAX {
            self.waiting = VecDeque::new(); // the room of a burst, as at the start
        }
    }
}

impl<J, D> Drop for Lane<J, D> {
    fn drop(&mut self) {
        let queue = self.queue.take();
        if self.ending == Ending::Abandon {
            return;
        }
        if let Some(queue) = queue {
            for job in self.waiting.drain(..) {
                if queue.send(job).is_err() {
                    break;
                }
            }
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("helper thread panicked name={}", self.name);
        }
    }
}

/// Wakes the loop for every result, and when the thread ends, be it by a panic: else the loop
/// would wait for a result that never comes.
struct Alarm(Arc<Waker>);

impl Alarm {
    fn ring(&self) {
        if let Err(e) = self.0.wake() {
            log::error!("loop cannot be woken error={e}");
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.ring();
    }
}

/// A name to look up.
#[derive(Debug)]
pub struct Question {
    /// Goes back with the answer.
    pub lookup: LookupId,
    /// A host name.
    pub host: String,
    /// Port of the addresses in the answer.
    pub port: u16,
}

/// What became of a [`Question`].
#[derive(Debug)]
pub struct Answer {
    /// Which question.
    pub lookup: LookupId,
    /// At least one address, or the resolver's words.
    pub result: Result<Vec<SocketAddr>, String>,
}

/// Asks the system's resolver; may block for as long as that likes.
pub fn resolve(question: Question) -> Answer {
    let Question { lookup, host, port } = question;
    let result = match (host.as_str(), port).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.take(ADDRESSES_MAX).collect();
            if addresses.is_empty() {
                Err(format!("{host} has no address"))
            } else {
                Ok(addresses)
            }
        }
        Err(e) => Err(e.to_string()),
    };
    Answer { lookup, result }
}

/// Jobs in a lane's queue at most; further ones wait with the loop.
const QUEUE_LEN_MAX: usize = 64;
/// Addresses of one name that are used at most.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::Sender;
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(20);

    fn poll_and_waker() -> (Poll, Arc<Waker>) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        (poll, waker)
    }

    /// Waits for the waker until `lane` gives `count` results.
    fn collect<J: Send + 'static, D: Send + 'static>(
        lane: &mut Lane<J, D>,
        poll: &mut Poll,
        count: usize,
    ) -> Vec<D> {
        let mut events = Events::with_capacity(4);
        let mut results = Vec::new();
        loop {
            while let Some(done) = lane.poll_done().unwrap() {
                results.push(done);
            }
            if results.len() >= count {
                return results;
            }
            poll.poll(&mut events, Some(WAIT_MAX)).unwrap();
            assert!(!events.is_empty(), "the waker is silent");
        }
    }

    #[test]
    fn results_come_in_order_and_the_queue_is_bounded() {
        let (mut poll, waker) = poll_and_waker();
        let (gate, gate_end) = mpsc::sync_channel::<()>(0);
        let mut lane = Lane::start(
            "test",
            |(number, gate): (u32, Option<Receiver<()>>)| {
                if let Some(gate) = gate {
                    gate.recv().unwrap();
                }
                number
            },
            Ending::Finish,
            &waker,
        )
        .unwrap();

        let count = 3 * QUEUE_LEN_MAX as u32;
        lane.submit((0, Some(gate_end)));
        for number in 1..count {
            lane.submit((number, None));
        }
        // The thread holds the first job at most, the queue as many as it may.
        assert!(lane.waiting.len() >= 2 * QUEUE_LEN_MAX - 1);
        assert!(lane.is_busy());

        gate.send(()).unwrap();
        let results = collect(&mut lane, &mut poll, count as usize);
        assert_eq!(results, (0..count).collect::<Vec<_>>());
        assert!(!lane.is_busy() && lane.waiting.is_empty());
    }

    #[test]
    fn dropped_lane_finishes_everything_that_was_submitted() {
        static DONE: AtomicU32 = AtomicU32::new(0);
        let (_poll, waker) = poll_and_waker();
        let run = |()| {
            DONE.fetch_add(1, Ordering::Relaxed);
        };
        let mut lane = Lane::start("test", run, Ending::Finish, &waker).unwrap();
        let count = 5 * QUEUE_LEN_MAX as u32;
        for _ in 0..count {
            lane.submit(());
        }
        drop(lane);
        assert_eq!(DONE.load(Ordering::Relaxed), count);
    }

    #[test]
    fn abandoned_lane_does_not_hold_up_its_owner() {
        let (_poll, waker) = poll_and_waker();
        let (gate, gate_end) = mpsc::channel::<()>();
        let (told, tells) = mpsc::channel();
        type Job = (Receiver<()>, Sender<()>);
        let run = |(gate, told): Job| {
            gate.recv().unwrap();
            told.send(()).unwrap();
        };
        let mut lane = Lane::start("test", run, Ending::Abandon, &waker).unwrap();
        lane.submit((gate_end, told));
        drop(lane); // with the thread at the gate
        gate.send(()).unwrap();
        tells.recv_timeout(WAIT_MAX).unwrap();
    }

    #[test]
    fn lane_whose_job_panics_wakes_the_loop_and_is_reported() {
        let (mut poll, waker) = poll_and_waker();
        let run = |()| -> u32 { panic!("a job that panics, as the test wants") };
        let mut lane: Lane<(), u32> = Lane::start("test", run, Ending::Finish, &waker).unwrap();
        lane.submit(());
        let mut events = Events::with_capacity(4);
        let died = loop {
            match lane.poll_done() {
                Ok(done) => assert_eq!(done, None),
                Err(died) => break died,
            }
            poll.poll(&mut events, Some(WAIT_MAX)).unwrap();
        };
        assert_eq!(died, LaneDied { name: "test" });
    }

    #[test]
    fn name_of_this_machine_resolves_and_nonsense_does_not() {
        let ask = |host: &str| {
            let question = Question {
                lookup: LookupId(5),
                host: host.into(),
                port: 80,
            };
            resolve(question).result
        };
        let addresses = ask("127.0.0.1").unwrap();
        assert_eq!(addresses, [(Ipv4Addr::LOCALHOST, 80).into()]);
        assert!(ask("not a name").is_err());
    }
}
