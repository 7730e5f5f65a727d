//! Trackers that tell the truth, fail, dawdle and lie (libtorrent's simulation `tracker`, by name
//! where it has one).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evpeer::base::time::Instant;
use evpeer::sim::tracker::{Announce, Answer, Terms, Tracker};
use evpeer::sim::{Have, HostId, PeerSpec, World};

use crate::world::{LAN, for_seeds, torrent};

mod tiered;
mod tiers;
mod udp;

const MINUTES: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

struct Swarm {
    world: World,
    trackers: Vec<HostId>,
}

impl Swarm {
    /// A world with these trackers and no peer yet.
    fn new(rng_seed: u64, trackers: impl IntoIterator<Item = Tracker>) -> Self {
        let (meta, content) = torrent(rng_seed, 32 * 1024, &[600_000]);
        let mut world = World::new(rng_seed, LAN, Arc::clone(&meta), content);
        let add = |tracker| world.add_actor(Box::new(tracker), None);
        let trackers = trackers.into_iter().map(add).collect();
        Self { world, trackers }
    }

    fn url(&self, tracker: usize) -> String {
        format!(
            "http://{}/announce",
            self.world.addr(self.trackers[tracker])
        )
    }

    /// A peer that knows all trackers, in order, a tier each.
    fn peer(&mut self, have: Have, known: &[HostId]) -> HostId {
        let mut spec = PeerSpec::new(have, known);
        spec.trackers = (0..self.trackers.len()).map(|n| self.url(n)).collect();
        self.world.add(spec)
    }

    fn tracker(&self, index: usize) -> &Tracker {
        self.world.actor(self.trackers[index]).expect("a tracker")
    }

    /// What a peer asked a tracker.
    fn asked(&self, tracker: usize, of: HostId) -> Vec<&Announce> {
        let ip = self.world.addr(of).ip();
        let seen = self.tracker(tracker).seen().iter();
        seen.filter(|announce| announce.from.ip() == ip).collect()
    }

    fn finish(&mut self, hosts: &[HostId], what: &str) {
        let done = |w: &mut World| hosts.iter().all(|&host| w.is_complete(host));
        if !self.world.run_until(MINUTES, done) {
            let late = hosts.iter().find(|&&host| !self.world.is_complete(host));
            let text = format!("{what}: not complete");
            panic!(
                "{}",
                self.world.unfinished(*late.expect("one is not"), text)
            );
        }
        self.world
            .audit()
            .unwrap_or_else(|failure| panic!("{failure}"));
    }

    fn wait(&mut self, time: Duration) {
        self.world.run_until(time, |_| false);
    }
}

/// `event_completed`: hosts that know a tracker only find each other; each says `started` first
/// and `completed` once, when nothing is left, and one that had everything never does.
#[test]
fn event_completed() {
    for_seeds(4, |rng_seed| {
        let mut swarm = Swarm::new(rng_seed, [Tracker::new(Answer::Peers(Terms::every(60)))]);
        let seed = swarm.peer(Have::All, &[]);
        let hosts: Vec<HostId> = (0..5).map(|_| swarm.peer(Have::Nothing, &[])).collect();
        swarm.finish(&hosts, "by tracker");
        swarm.wait(Duration::from_secs(300));
        let events = |host| {
            let asked = swarm.asked(0, host);
            asked
                .iter()
                .map(|announce| announce.event())
                .collect::<Vec<_>>()
        };
        for &host in hosts.iter().chain([&seed]) {
            let events = events(host);
            assert_eq!(events[0], "started");
            assert!(
                events[1..].iter().all(|event| event != "started"),
                "{events:?}"
            );
            let completed = events.iter().filter(|event| *event == "completed").count();
            assert_eq!(completed, usize::from(host != seed), "{events:?}");
            for announce in swarm.asked(0, host) {
                let left = announce.number("left").expect("it is always said");
                assert!(announce.event() != "completed" || left == 0);
                assert_eq!(announce.path, "/announce");
                assert_eq!(announce.number("port"), Some(6881));
                assert_eq!(announce.pairs["info_hash"].len(), 20);
            }
        }
    });
}

/// `announce_interval_440`, `_1200`, `_1800`: a tracker is asked as often as it says, not more.
#[test]
fn announce_interval() {
    for_seeds(2, |rng_seed| {
        for interval in [440, 1200, 1800] {
            let terms = Terms::every(interval);
            let mut swarm = Swarm::new(rng_seed, [Tracker::new(Answer::Peers(terms))]);
            let seed = swarm.peer(Have::All, &[]);
            swarm.wait(2 * HOUR);
            let asked = swarm.asked(0, seed);
            let times = asked.iter().map(|announce| announce.at);
            let pauses = times.clone().skip(1).zip(times).map(|(next, at)| next - at);
            let pauses: Vec<u64> = pauses.map(|pause| pause.as_secs()).collect();
            let interval = interval as u64;
            assert!(
                pauses.len() as u64 >= 7200 / interval - 1,
                "{interval}: {pauses:?}"
            );
            let is_right = |pause: &u64| (interval..interval + interval / 5 + 60).contains(pause);
            assert!(pauses.iter().all(is_right), "{interval}: {pauses:?}");
        }
    });
}

/// Answers that help nobody, by name.
fn failures() -> Vec<(&'static str, Answer)> {
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec();
    vec![
        ("a failure", Answer::Failure("no".to_owned(), None)),
        ("status 404", Answer::Status(404)),
        ("status 500", Answer::Status(500)),
        ("a closed stream", Answer::HangUp),
        ("silence", Answer::Silence),
        ("a drip", Answer::Drip(Duration::from_secs(1))),
        ("bad bencoding", Answer::Body(b"d8:intervali".to_vec())),
        ("a list", Answer::Body(b"le".to_vec())),
        ("an empty body", Answer::Body(Vec::new())),
        ("noise", Answer::Raw(vec![0xfe; 5000])),
        ("a body without end", Answer::Raw(endless)),
        (
            "a redirect to itself",
            Answer::Redirect(302, "/announce".to_owned()),
        ),
    ]
}

/// `tracker_error`, `http_status`, `bad_bencoding`, `no_path` and more: a tracker that fails is
/// asked again, ever more seldom, harms no download, and is used once it works.
#[test]
fn failing_trackers_are_borne_and_come_back() {
    for_seeds(1, |rng_seed| {
        for (name, answer) in failures() {
            // With a peer that is known anyway, nobody waits for the tracker.
            let mut swarm = Swarm::new(rng_seed, [Tracker::new(answer.clone())]);
            let seed = swarm.peer(Have::All, &[]);
            let host = swarm.peer(Have::Nothing, &[seed]);
            swarm.finish(&[host], name);
            assert!(
                swarm.world.now() < Instant::ZERO + Duration::from_secs(60),
                "{name}"
            );
            swarm.wait(HOUR);
            let count = swarm.asked(0, host).len();
            let most = if matches!(answer, Answer::Redirect(..)) {
                240
            } else {
                40
            };
            assert!(
                (2..most).contains(&count),
                "{name}: asked {count} times in an hour"
            );
            assert!(swarm.tracker(0).open_streams() <= 2, "{name}");

            // Without, it is what brings them together in the end.
            let first = vec![answer; 4];
            let truth = Answer::Peers(Terms::every(60));
            let mut swarm = Swarm::new(rng_seed, [Tracker::after(first, truth)]);
            swarm.peer(Have::All, &[]);
            let host = swarm.peer(Have::Nothing, &[]);
            swarm.finish(&[host], name);
        }
    });
}

/// `try_next`: when the trackers of the first tiers fail, the next is asked at once.
#[test]
fn try_next() {
    for_seeds(1, |rng_seed| {
        for (name, answer) in failures() {
            let truth = Answer::Peers(Terms::every(60));
            let trackers = [Tracker::new(answer.clone()), Tracker::new(truth)];
            let mut swarm = Swarm::new(rng_seed, trackers);
            swarm.peer(Have::All, &[]);
            let host = swarm.peer(Have::Nothing, &[]);
            swarm.finish(&[host], name);
            // Silence costs the time-out, everything else next to nothing.
            let secs = swarm.world.now().as_micros() / 1_000_000;
            let is_slow = matches!(answer, Answer::Silence | Answer::Drip(_) | Answer::Raw(_));
            assert!(secs < if is_slow { 200 } else { 70 }, "{name}: {secs} s");
        }
    });
}

/// A redirect is followed, to another host as well; the swarm meets there.
#[test]
fn redirects_are_followed() {
    for_seeds(2, |rng_seed| {
        for status in [301, 302, 303, 307, 308] {
            let truth = || Tracker::new(Answer::Peers(Terms::every(60)));
            let mut swarm = Swarm::new(rng_seed, [truth(), truth()]);
            let to = swarm.url(1);
            swarm.trackers.pop();
            let redirects = Tracker::new(Answer::Redirect(status, to));
            swarm.trackers[0] = swarm.world.add_actor(Box::new(redirects), None);
            swarm.peer(Have::All, &[]);
            let host = swarm.peer(Have::Nothing, &[]);
            swarm.finish(&[host], "redirect");
        }
    });
}

/// A tracker that names two hundred addresses where nobody is, the asker's own, and port 0 harms
/// nobody; the next answer, which is true, is used.
#[test]
fn lies_of_a_tracker_are_borne() {
    for_seeds(3, |rng_seed| {
        let nobody = (0..200u8).map(|n| SocketAddr::from(([10, 200, 0, n], 6881)));
        let odd = [
            ([10, 0, 0, 2], 0),
            ([10, 0, 0, 3], 6881),
            ([0, 0, 0, 0], 6881),
            ([255, 255, 255, 255], 6881),
            ([224, 0, 0, 1], 6881),
        ];
        let lie = nobody.chain(odd.map(SocketAddr::from)).collect();
        let lies = Answer::Peers(Terms {
            lie: Some(lie),
            ..Terms::every(30)
        });
        let truth = Answer::Peers(Terms::every(30));
        let first = vec![lies; 4];
        let mut swarm = Swarm::new(rng_seed, [Tracker::after(first, truth)]);
        swarm.peer(Have::All, &[]);
        let hosts: Vec<HostId> = (0..2).map(|_| swarm.peer(Have::Nothing, &[])).collect();
        swarm.finish(&hosts, "lies");
    });
}

/// A tracker that is cut from the net for a while is found again.
#[test]
fn tracker_that_was_away_is_asked_again() {
    for_seeds(2, |rng_seed| {
        let mut swarm = Swarm::new(rng_seed, [Tracker::new(Answer::Peers(Terms::every(60)))]);
        let tracker = swarm.trackers[0];
        swarm.world.isolate(&[tracker], 1);
        swarm.peer(Have::All, &[]);
        let host = swarm.peer(Have::Nothing, &[]);
        swarm.wait(Duration::from_secs(120));
        assert!(!swarm.world.is_complete(host));
        swarm.world.heal();
        swarm.finish(&[host], "back again");
    });
}
