//! A few broadcasts with wires between them.

use std::collections::BTreeMap;

use super::*;
use crate::base::address::Interface;
use crate::base::id::hex;
use crate::wire::ev_peers::{
    Digest, Entry, Membership, Message, Root, Roots, Swarms, Want, Why, tag,
};

const SWARM: InfoHash = InfoHash([7; 20]);
const OTHER: InfoHash = InfoHash([8; 20]);
const UNIX_MS: u64 = 1_800_000_000_000;

/// Hosts, all links between them of no length; what each told its owner.
struct Hosts {
    all: Vec<Broadcast>,
    heard: Vec<Vec<Event>>,
    /// Bodies that crossed each link, with their sender.
    bodies: Vec<(usize, Bytes)>,
    open: BTreeMap<(usize, usize), ()>,
    /// Digests that the other end is too busy to answer, from now on.
    ignored_digests: usize,
    now: Instant,
}

impl Hosts {
    fn new(count: usize) -> Self {
        let now = Instant::from_micros(5_000_000);
        Self {
            all: (0..count).map(|n| host(n, now)).collect(),
            heard: vec![Vec::new(); count],
            bodies: Vec::new(),
            open: BTreeMap::new(),
            ignored_digests: 0,
            now,
        }
    }

    /// Host 0 connects to a peer for a moment.
    fn proves(&mut self, peer: SocketAddr) {
        self.all[0].met(peer, self.now);
        self.all[0].parted(peer);
    }

    fn link(&mut self, a: usize, b: usize) {
        self.open.insert((a, b), ());
        for (own, other) in [(a, b), (b, a)] {
            let (id, remote) = (conn(a, b), addr(other));
            self.all[own].link_opened(id, remote, true, self.now);
            self.all[own].met(remote, self.now);
        }
        self.carry();
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.open.remove(&(a, b));
        for (own, other) in [(a, b), (b, a)] {
            self.all[own].link_closed(conn(a, b), self.now);
            self.all[own].parted(addr(other));
        }
        self.carry();
    }

    /// Hands bodies over until nobody has one more for this moment.
    fn carry(&mut self) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for n in 0..self.all.len() {
                self.all[n].poll(self.now);
                while let Some(event) = self.all[n].poll_event() {
                    is_moving = true;
                    self.take(n, event);
                }
            }
        }
    }

    fn take(&mut self, from: usize, event: Event) {
        let Event::Send { link, ref body } = event else {
            self.heard[from].push(event);
            return;
        };
        self.bodies.push((from, body.clone()));
        if matches!(Message::decode(body), Ok(Message::Digest(_))) && self.ignored_digests > 0 {
            self.ignored_digests -= 1;
            return;
        }
        let ends = (link.index as usize / 100, link.index as usize % 100);
        if self.open.contains_key(&ends) {
            let to = if ends.0 == from { ends.1 } else { ends.0 };
            let taken = self.all[to].received(link, body, self.now);
            assert_eq!(taken, Ok(()), "{from} to {to}: {}", hex(body));
        }
    }

    /// Lets time pass, deadline by deadline.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadlines = self.all.iter().map(Broadcast::next_deadline);
            let next = deadlines.min().expect("a host");
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            self.carry();
        }
        self.now = end;
    }

    fn standing(&self, host: usize, of: usize) -> Option<Standing> {
        let mut peers = self.all[host].swarm(SWARM);
        peers
            .find(|(at, ..)| *at == addr(of))
            .map(|(_, standing, _)| standing)
    }

    fn network(&self, host: usize) -> Vec<SocketAddr> {
        self.all[host].network().collect()
    }

    /// Bodies that left `from` since the last call.
    fn bodies_of(&mut self, from: usize) -> Vec<Bytes> {
        let bodies = std::mem::take(&mut self.bodies).into_iter();
        bodies
            .filter(|(sender, _)| *sender == from)
            .map(|(_, body)| body)
            .collect()
    }
}

fn host(n: usize, now: Instant) -> Broadcast {
    let setup = Setup {
        unix_ms: UNIX_MS + n as u64,
        port: 6881,
        bind: None,
        secret: [n as u8; 16],
        rng: Rng::new(n as u64),
    };
    let mut host = Broadcast::new(setup, now);
    host.interfaces_found(&Interfaces::new(vec![Interface {
        index: 1,
        ip: addr(n).ip(),
        prefix_len: 8,
    }]));
    host
}

fn addr(n: usize) -> SocketAddr {
    ([10, 0, (n / 250) as u8, (n % 250 + 1) as u8], 6881).into()
}

fn conn(a: usize, b: usize) -> ConnId {
    ConnId {
        index: (a * 100 + b) as u32,
        generation: 0,
    }
}

fn entry(addr: SocketAddr, epoch: u64, standing: Standing) -> Entry {
    Entry {
        addr: Some(addr),
        epoch,
        standing,
        is_evpeer: true,
    }
}

/// A host has heard of so many others, long ago.
fn crowd(host: &mut Broadcast, count: u32) {
    for n in 0..count {
        let [_, b, c, d] = n.to_be_bytes();
        let record = Record {
            epoch: UNIX_MS,
            changed_s: 5,
            teller: NOBODY,
            standing: Standing::Leecher,
            before: None,
            is_evpeer: true,
        };
        let peer = SocketAddr::from(([10, 64 + b, c, d], 7000));
        host.network.put(peer.into(), record);
    }
}

/// A body of news in the network list.
fn news(entries: &[Entry]) -> Bytes {
    let newest = entries.iter().map(|entry| entry.epoch).max().unwrap_or(0);
    let mut writer = EntriesWriter::entries(Why::News, newest);
    entries.iter().for_each(|entry| writer.push(NETWORK, entry));
    writer.finish()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Goal: who joins at one end is known at the other, in the network and in the swarm; a host
/// between them that is in no swarm hears of all in the network, and of no swarm.
#[test]
fn a_chain_of_hosts_learns_who_is_there() {
    let mut hosts = Hosts::new(4);
    let now = hosts.now;
    for n in [0, 1, 3] {
        hosts.all[n].swarm_joined(SWARM, Standing::Leecher, now);
    }
    hosts.link(0, 1);
    hosts.link(2, 1);
    hosts.link(3, 1);
    hosts.run(MINUTE);
    for n in 0..4 {
        assert_eq!(hosts.network(n).len(), 3, "host {n}");
    }
    assert_eq!(hosts.standing(0, 1), Some(Standing::Leecher));
    assert_eq!(hosts.standing(3, 0), Some(Standing::Leecher));
    assert_eq!(hosts.standing(2, 0), None);

    hosts.all[0].standing_changed(SWARM, Standing::Seed, hosts.now);
    hosts.carry();
    assert_eq!(
        hosts.standing(3, 0),
        Some(Standing::Seed),
        "in the same moment"
    );

    // The one in the middle joins the swarm later and is told who is in it.
    hosts.all[2].swarm_joined(SWARM, Standing::Leecher, hosts.now);
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(2, 0), Some(Standing::Seed));
    assert_eq!(hosts.standing(0, 2), Some(Standing::Leecher));
    hosts.all[2].swarm_left(SWARM, hosts.now);
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(0, 2), None);
    assert_eq!(hosts.network(0).len(), 3, "but it is in the network");
}

#[test]
fn departure_of_one_that_said_good_bye_and_of_one_that_could_not() {
    let mut hosts = Hosts::new(4);
    let now = hosts.now;
    (0..4).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    for (a, b) in [(0, 1), (1, 2), (1, 3), (2, 3)] {
        hosts.link(a, b);
    }
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(0, 3), Some(Standing::Seed));

    hosts.all[3].leaving(hosts.now);
    hosts.carry();
    assert_eq!(hosts.standing(0, 3), None, "its word, in the same moment");
    assert!(!hosts.network(0).contains(&addr(3)));
    hosts.cut(1, 3);
    hosts.cut(2, 3);

    hosts.run(MINUTE);
    hosts.cut(1, 2);
    hosts.run(MINUTE);
    assert_eq!(
        hosts.standing(0, 2),
        Some(Standing::Seed),
        "a lost link is no departure"
    );
    hosts.all[1].unreachable(addr(2), hosts.now);
    hosts.carry();
    assert_eq!(hosts.standing(0, 2), None);

    // It was no departure, but a broken cable.
    hosts.link(1, 2);
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(0, 2), Some(Standing::Seed));
    assert!(hosts.network(2).contains(&addr(0)));
    hosts.all[1].unreachable(addr(9), hosts.now);
    hosts.carry();
    assert_eq!(
        hosts.network(0),
        [addr(1), addr(2)],
        "a stranger's absence is no news"
    );
}

/// Goal: a departure is not believed of an evpeer that said something in a swarm after it, and
/// neither list keeps a tombstone of it that is newer than the evpeer's own word.
#[test]
fn departure_from_before_its_last_word_in_a_swarm_is_refuted() {
    let mut hosts = Hosts::new(2);
    let now = hosts.now;
    for n in 0..2 {
        hosts.all[n].swarm_joined(SWARM, Standing::Leecher, now);
    }
    hosts.link(0, 1);
    hosts.run(MINUTE);
    let key = Key::from(addr(1));
    let then = hosts.all[0].network.get(key).expect("known").epoch;
    hosts.all[1].standing_changed(SWARM, Standing::Seed, hosts.now);
    hosts.run(MINUTE);
    hosts.cut(0, 1);
    let word = *hosts.all[0].swarms[&1].roster.get(key).expect("known");
    assert!(word.epoch > then + 1, "it said so after a while");

    let stranger = Stranger::meets(&mut hosts, 5);
    hosts.run(MINUTE);
    hosts.bodies.clear();
    let gone = |epoch| news(&[entry(addr(1), epoch, Standing::Left)]);
    for epoch in [then + 1, word.epoch] {
        stranger.says(&mut hosts, &gone(epoch)).expect("news");
        hosts.run(MINUTE);
        assert_eq!(hosts.standing(0, 1), Some(Standing::Seed));
        assert_eq!(hosts.network(0), [addr(1), addr(5)]);
        assert_eq!(hosts.all[0].swarms[&1].roster.get(key), Some(&word));
    }
    let here = news(&[entry(addr(1), word.epoch, Standing::Leecher)]);
    assert_eq!(hosts.bodies_of(0), [here], "who told it hears better, once");
    let disputed = Event::Disputed { addr: addr(1) };
    let looks = hosts.heard[0].iter().filter(|event| **event == disputed);
    assert_eq!(looks.count(), 1, "and we look whether it is there at all");

    stranger
        .says(&mut hosts, &gone(word.epoch + 1))
        .expect("news");
    assert_eq!(hosts.standing(0, 1), None);
    assert_eq!(hosts.network(0), [addr(5)]);
    let known = hosts.all[0].swarms[&1].roster.get(key).expect("known");
    assert_eq!(known.epoch, word.epoch + 1, "no newer than what was said");
}

/// Goal: one event crosses each link at most once in each direction, and then there is silence.
#[test]
fn news_cross_a_link_once_and_end() {
    let mut hosts = Hosts::new(6);
    for a in 0..5 {
        for b in a + 1..5 {
            hosts.link(a, b);
        }
    }
    hosts.run(MINUTE);
    hosts.bodies.clear();
    hosts.run(MINUTE);
    assert_eq!(hosts.bodies, [], "silence");
    hosts.link(0, 5);
    hosts.run(MINUTE);
    let mentions = |(_, body): &(usize, Bytes)| match Message::decode(body) {
        Ok(Message::Entries(entries)) => entries
            .records()
            .filter(|record| matches!(record, Ok((_, e)) if e.addr == Some(addr(5))))
            .count(),
        _ => 0,
    };
    // Five are fully connected: 10 links, both directions, without the way back to host 0.
    let told: usize = hosts.bodies.iter().map(mentions).sum();
    assert!((4..=16).contains(&told), "{told} times");
    hosts.bodies.clear();
    hosts.run(MINUTE);
    assert_eq!(hosts.bodies, [], "silence again");
}

/// Issue 5: 1,000 announces in a burst make a handful of broadcasts.
#[test]
fn burst_of_announces_is_a_handful_of_flushes_and_encoded_once() {
    let mut hosts = Hosts::new(9);
    let now = hosts.now;
    (0..9).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    (1..9).for_each(|n| hosts.link(0, n));
    hosts.run(MINUTE);
    let before = hosts.all[0].counts();
    for n in 0..1000_u16 {
        let peer = ([10, 1, (n / 250) as u8, (n % 250) as u8 + 1], 7000).into();
        hosts.all[0].seen(SWARM, peer, Standing::Leecher, hosts.now);
        hosts.all[0].poll(hosts.now);
    }
    hosts.run(MINUTE);
    let after = hosts.all[0].counts();
    assert!(
        (2..=3).contains(&(after.flushes - before.flushes)),
        "{after:?}"
    );
    let (bodies, sent) = (
        after.bodies - before.bodies,
        after.bodies_sent - before.bodies_sent,
    );
    assert_eq!(sent, 8 * bodies, "all links share them");
    for n in 1..9 {
        assert_eq!(hosts.all[n].swarm(SWARM).count(), 1008, "host {n}");
        assert_eq!(hosts.all[n].counts().flushes, 0, "nobody else to tell");
    }
}

/// Goal: an outsider on a link learns addresses of the network alone, and cannot hand our own
/// proofs back to us.
#[test]
fn outsider_proves_no_swarm_by_repeating_our_tags() {
    let mut hosts = Hosts::new(2);
    let now = hosts.now;
    for n in 0..2 {
        hosts.all[n].swarm_joined(SWARM, Standing::Seed, now);
    }
    hosts.link(0, 1);
    let (id, outsider) = (conn(0, 9), addr(9));
    hosts.all[0].link_opened(id, outsider, true, now);
    let hello = Hello {
        salt: [3; 16],
        clock_ms: UNIX_MS,
        is_drawn: true,
    };
    hosts.all[0]
        .received(id, &hello.encode(), now)
        .expect("a hello");
    let mut named = Vec::new();
    while let Some(event) = hosts.all[0].poll_event() {
        let Event::Send { body, .. } = event else {
            continue;
        };
        assert!(!body.windows(20).any(|part| part == SWARM.0));
        match Message::decode(&body).expect("our own body") {
            Message::Swarms(swarms) => named.extend(swarms.iter().map(|s| s.expect("ours"))),
            Message::Entries(entries) => {
                assert!(
                    entries
                        .records()
                        .all(|record| record.expect("ours").0 == NETWORK)
                );
            }
            _ => {}
        }
    }
    assert_eq!(named.len(), 1);
    let body = Swarms::encode(UNIX_MS, named);
    hosts.all[0].received(id, &body, now).expect("well formed");
    hosts.all[0].standing_changed(SWARM, Standing::Leecher, now);
    hosts.now += MINUTE;
    hosts.all[0].poll(hosts.now);
    while let Some(event) = hosts.all[0].poll_event() {
        let Event::Send { link, body } = event else {
            continue;
        };
        if let (true, Ok(Message::Entries(entries))) = (link == id, Message::decode(&body)) {
            assert!(
                entries
                    .records()
                    .all(|record| record.expect("ours").0 == NETWORK)
            );
        }
    }
}

/// The other end of a link of host 0, in our hands.
struct Stranger {
    id: ConnId,
}

impl Stranger {
    fn meets(hosts: &mut Hosts, n: usize) -> Self {
        let id = conn(0, n);
        hosts.all[0].link_opened(id, addr(n), true, hosts.now);
        let stranger = Self { id };
        let hello = Hello {
            salt: [n as u8; 16],
            clock_ms: UNIX_MS,
            is_drawn: true,
        };
        stranger.says(hosts, &hello.encode()).expect("a hello");
        stranger
            .says(hosts, &Swarms::encode(UNIX_MS, []))
            .expect("no swarms");
        stranger
    }

    fn says(&self, hosts: &mut Hosts, body: &[u8]) -> Result<(), Violation> {
        hosts.all[0].received(self.id, body, hosts.now)
    }
}

#[test]
fn untrue_word_about_us_is_answered_with_a_higher_epoch() {
    let mut hosts = Hosts::new(2);
    hosts.link(0, 1);
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 5);
    let lie = UNIX_MS + 3600 * 1000;
    let body = news(&[entry(addr(0), lie, Standing::Left)]);
    liar.says(&mut hosts, &body).expect("a lie is no violation");
    hosts.run(MINUTE);
    assert_eq!(hosts.network(1), [addr(0), addr(5)]);
    let told = hosts.all[1]
        .network
        .get(addr(0).into())
        .map(|record| record.epoch);
    assert!(told > Some(lie), "{told:?}");
}

/// Goal: nobody believes what is of a far future; who answered it would be believed no more.
#[test]
fn untrue_word_of_a_far_future_about_us_is_not_answered() {
    let mut hosts = Hosts::new(3);
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 5);
    for hours in [48, 11] {
        let lie = UNIX_MS + hours * 3600 * 1000;
        let body = news(&[entry(addr(0), lie, Standing::Left)]);
        liar.says(&mut hosts, &body).expect("a lie is no violation");
        hosts.run(MINUTE);
        let told = hosts.all[2].network.get(addr(0).into());
        let epoch = told.expect("it is known").epoch;
        assert_eq!(epoch > lie, hours == 11, "{hours} hours");
    }
    hosts.all[0].assert_all(hosts.now);
    hosts.run(MINUTE);
    let mine = hosts.all[0].network_epoch;
    let told = hosts.all[2].network.get(addr(0).into());
    assert_eq!(told.expect("it is known").epoch, mine, "all hear of it");
}

/// Goal: of a host that a liar gave an epoch of many hours ahead all hear that it is gone, though
/// nobody believes departures of such a time otherwise; and of one that is there, that it is.
#[test]
fn departure_of_a_host_that_was_put_ahead_is_heard() {
    let mut hosts = Hosts::new(5);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (2, 4)] {
        hosts.link(a, b);
    }
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 5);
    let ahead = UNIX_MS + 20 * 3600 * 1000;
    let says = |hosts: &mut Hosts, entries: &[Entry]| {
        liar.says(hosts, &news(entries))
            .expect("a lie is no violation");
        hosts.run(Duration::from_secs(2));
    };
    let here = [3, 4].map(|n| entry(addr(n), ahead, Standing::Leecher));
    says(&mut hosts, &here);
    let alone = [entry(addr(1), ahead, Standing::Left)];
    says(&mut hosts, &alone);
    assert!(
        hosts.network(0).contains(&addr(1)),
        "far from its last word"
    );

    hosts.cut(2, 3);
    let now = hosts.now;
    hosts.all[2].unreachable(addr(3), now);
    hosts.run(Duration::from_secs(2));
    for n in [0, 1, 2, 4] {
        assert!(!hosts.network(n).contains(&addr(3)), "host {n}");
    }

    for _ in 0..3 {
        let known = hosts.all[0].network.get(addr(4).into()).expect("listed");
        let lie = entry(addr(4), known.epoch + 1, Standing::Left);
        says(&mut hosts, &[lie]);
        for n in [0, 1, 2] {
            assert!(hosts.network(n).contains(&addr(4)), "host {n}");
        }
    }
}

/// Goal: an evpeer that is dead is declared so as often as others bring it back; one that is there
/// for others, and not for us, ever more rarely.
#[test]
fn departure_that_is_gainsaid_is_looked_at_and_declared_again() {
    let mut hosts = Hosts::new(2);
    hosts.link(0, 1);
    let gossip = Stranger::meets(&mut hosts, 5);
    let dead = ([10, 3, 0, 1], 7000).into();
    let mut epoch = UNIX_MS;
    let mut pauses = Vec::new();
    for round in 0..10 {
        epoch += 100;
        let here = news(&[entry(dead, epoch, Standing::Leecher)]);
        gossip.says(&mut hosts, &here).expect("news");
        hosts.run(Duration::from_secs(1));
        assert!(hosts.network(1).contains(&dead), "round {round}");
        let disputed = Event::Disputed { addr: dead };
        assert_eq!(hosts.heard[0].contains(&disputed), round == 1, "{round}");
        hosts.heard[0].clear();
        let began = hosts.now;
        loop {
            hosts.all[0].unreachable(dead, hosts.now);
            hosts.carry();
            if !hosts.network(0).contains(&dead) {
                break;
            }
            hosts.run(Duration::from_secs(1));
        }
        pauses.push((hosts.now - began).as_secs());
        hosts.run(Duration::from_secs(1));
        assert!(!hosts.network(1).contains(&dead), "{pauses:?}");
    }
    assert_eq!(pauses[..5], [0, 0, 28, 58, 118]);
    assert!(pauses[9] <= 3840, "{pauses:?}");
    // It is met: what was before counts no more.
    hosts.proves(dead);
    epoch += 100;
    let here = news(&[entry(dead, epoch, Standing::Leecher)]);
    gossip.says(&mut hosts, &here).expect("news");
    hosts.all[0].unreachable(dead, hosts.now);
    assert!(!hosts.network(0).contains(&dead));
}

/// Goal: hosts of a swarm whose news came by way of another know the same of the network as who
/// met the newcomer itself: one that comes back, and one that renews its word.
#[test]
fn news_of_a_swarm_leave_nobody_behind_in_the_network() {
    let mut hosts = Hosts::new(3);
    let now = hosts.now;
    for host in &mut hosts.all {
        host.swarm_joined(SWARM, Standing::Leecher, now);
    }
    hosts.link(0, 1);
    hosts.link(0, 2);
    hosts.run(MINUTE);

    // It starts anew before anybody saw that it was gone.
    hosts.cut(0, 2);
    let mut again = host(2, hosts.now);
    again.epoch += 60_000;
    again.network_epoch += 60_000;
    again.swarm_joined(SWARM, Standing::Seed, hosts.now);
    hosts.all[2] = again;
    hosts.link(0, 2);
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(1, 2), Some(Standing::Seed));
    let word = |hosts: &Hosts, at: usize| hosts.all[at].network.get(addr(2).into()).copied();
    let epoch = |hosts: &Hosts, at: usize| word(hosts, at).map(|record| record.epoch);
    assert_eq!(epoch(&hosts, 1), epoch(&hosts, 0));

    let before = epoch(&hosts, 0);
    hosts.run(RENEWAL + 2 * SWEEP_INTERVAL);
    assert!(epoch(&hosts, 0) > before, "renewed");
    assert_eq!(epoch(&hosts, 1), epoch(&hosts, 0));
}

/// Goal: a host is new among others from its first link on, however many open at once.
#[test]
fn company_begins_with_the_first_link_that_is_met() {
    let mut hosts = Hosts::new(4);
    hosts.run(10 * MINUTE);
    let opened = hosts.now;
    for other in [0, 2] {
        hosts.open.insert((other, 1), ());
        for (own, far) in [(other, 1), (1, other)] {
            hosts.all[own].link_opened(conn(other, 1), addr(far), true, opened);
        }
    }
    hosts.carry();
    assert_eq!(hosts.all[1].in_company_since, opened);
    hosts.run(MINUTE);
    hosts.link(3, 1);
    assert_eq!(hosts.all[1].in_company_since, opened, "it had company");
}

/// Goal: hearsay never overrides an open connection; the one at its other end hears of it.
#[test]
fn hearsay_of_a_departure_is_not_believed_of_who_is_connected() {
    let mut hosts = Hosts::new(3);
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 5);
    let lies: Vec<_> = (1..3)
        .map(|n| entry(addr(n), UNIX_MS + 90_000, Standing::Left))
        .collect();
    liar.says(&mut hosts, &news(&lies))
        .expect("a lie is no violation");
    assert!(hosts.network(0).contains(&addr(1)), "connected");
    assert!(
        !hosts.network(0).contains(&addr(2)),
        "hearsay is all we have of it"
    );
    hosts.run(MINUTE);
    let disputed = Event::Disputed { addr: addr(1) };
    assert!(hosts.heard[0].contains(&disputed), "if it ends, we look");
    for n in 0..3 {
        let others: Vec<_> = (0..3).filter(|&m| m != n).map(addr).collect();
        let network = hosts.network(n);
        assert!(
            others.iter().all(|other| network.contains(other)),
            "{n}: {network:?}"
        );
    }
}

/// Goal: a host that stands still hears what is said of it when it goes on, of whom it is linked
/// with by then: what was told it in the meantime is lost with the streams of that time.
#[test]
fn who_stood_still_hears_later_that_it_was_declared_gone() {
    let mut hosts = Hosts::new(3);
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    assert!(hosts.network(0).contains(&addr(2)));
    // All that is on its way to it from here on is lost.
    hosts.open.remove(&(1, 2));
    hosts.all[0].unreachable(addr(2), hosts.now);
    hosts.run(MINUTE);
    assert!(hosts.network(1).contains(&addr(2)), "connected");
    assert!(!hosts.network(0).contains(&addr(2)));
    hosts.cut(1, 2);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let known = |hosts: &Hosts| [0, 1].map(|n| hosts.network(n).contains(&addr(2)));
    assert_eq!(known(&hosts), [true; 2]);
    // It is answered, and nobody repeats it.
    hosts.bodies.clear();
    hosts.cut(1, 2);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let told = hosts.bodies_of(1).into_iter().filter(|body| {
        let Ok(Message::Entries(entries)) = Message::decode(body) else {
            return false;
        };
        let mut records = entries.records();
        records.any(|record| record.is_ok_and(|(_, entry)| entry.addr == Some(addr(2))))
    });
    assert_eq!(told.count(), 0);
    assert_eq!(known(&hosts), [true; 2]);
}

#[test]
fn foreign_peer_has_a_witness() {
    let mut hosts = Hosts::new(3);
    let now = hosts.now;
    (0..3).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let foreign = addr(40);
    hosts.all[0].met(foreign, hosts.now);
    hosts.all[0].seen(SWARM, foreign, Standing::Leecher, hosts.now);
    hosts.carry();
    assert_eq!(hosts.standing(2, 40), Some(Standing::Leecher));
    hosts.bodies.clear();
    hosts.all[2].seen(SWARM, foreign, Standing::Leecher, hosts.now);
    hosts.run(MINUTE);
    assert_eq!(hosts.bodies, [], "a second witness of the same is no news");

    // Another host lost sight of it, but its witness did not.
    hosts.all[2].left(SWARM, foreign, hosts.now);
    hosts.run(2 * MINUTE);
    assert_eq!(hosts.standing(2, 40), Some(Standing::Leecher));
    hosts.all[0].parted(foreign);
    hosts.all[0].left(SWARM, foreign, hosts.now);
    hosts.run(MINUTE);
    assert_eq!(hosts.standing(2, 40), None);
    assert!(
        !hosts.network(2).contains(&foreign),
        "it never was an evpeer"
    );
}

/// Goal: of all that once saw a foreign peer, who saw it last says that it is gone.
#[test]
fn only_the_last_witness_says_that_a_foreign_peer_fell_silent() {
    let mut hosts = Hosts::new(3);
    let now = hosts.now;
    (0..3).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let foreign = addr(40);
    hosts.all[0].seen(SWARM, foreign, Standing::Leecher, hosts.now);
    hosts.run(MINUTE);
    hosts.all[2].met(foreign, hosts.now);
    hosts.all[2].seen(SWARM, foreign, Standing::Seed, hosts.now);
    hosts.run(MINUTE);
    for n in 0..2 {
        hosts.bodies.clear();
        hosts.all[n].expired(SWARM, foreign, hosts.now);
        hosts.run(2 * MINUTE);
        assert_eq!(hosts.bodies, [], "{n} is not its witness any more");
        assert_eq!(hosts.standing(1, 40), Some(Standing::Seed));
    }
    hosts.all[2].parted(foreign);
    hosts.all[2].expired(SWARM, foreign, hosts.now);
    hosts.run(MINUTE);
    assert!((0..3).all(|n| hosts.standing(n, 40).is_none()));
    hosts.bodies.clear();
    hosts.all[2].expired(SWARM, foreign, hosts.now);
    hosts.run(MINUTE);
    assert_eq!(hosts.bodies, [], "once is enough");
}

/// Goal: two parts of a network that changed apart have the same lists after they meet.
#[test]
fn lists_converge_after_a_partition() {
    let mut hosts = Hosts::new(4);
    let now = hosts.now;
    (0..4).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    for (a, b) in [(0, 1), (2, 3), (1, 2)] {
        hosts.link(a, b);
    }
    let peer = |half: u8, n: u16| ([10, half, (n / 250) as u8, (n % 250) as u8 + 1], 7000).into();
    for n in 0..700 {
        hosts.all[0].seen(SWARM, peer(1, n), Standing::Leecher, hosts.now);
        hosts.all[0].poll(hosts.now);
    }
    hosts.run(MINUTE);
    hosts.cut(1, 2);
    for n in 0..700 {
        hosts.all[0].seen(SWARM, peer(2, n), Standing::Leecher, hosts.now);
        hosts.all[3].seen(SWARM, peer(3, n), Standing::Leecher, hosts.now);
        if n % 7 == 0 {
            hosts.all[0].left(SWARM, peer(1, n), hosts.now);
        }
    }
    hosts.run(10 * MINUTE);
    assert_eq!(hosts.all[1].swarm(SWARM).count(), 3 + 1300);
    hosts.bodies.clear();
    hosts.link(1, 2);
    let began = hosts.now;
    while hosts
        .all
        .iter()
        .any(|host| host.swarm(SWARM).count() != 3 + 2000)
    {
        hosts.run(Duration::from_millis(100));
        assert!(hosts.now - began < MINUTE, "not within a minute");
    }
    hosts.run(MINUTE);
    let bytes: usize = hosts.bodies.iter().map(|(_, body)| body.len()).sum();
    assert!(
        bytes < 128 * 1024,
        "{bytes} B for 1,500 entries over three links"
    );
    hosts.bodies.clear();
    hosts.run(10 * MINUTE);
    assert_eq!(hosts.bodies, [], "silence");
}

/// Goal: who comes new to a large network knows all of it soon, and does not tell it all again.
#[test]
fn newcomer_learns_a_large_list_at_once() {
    let mut hosts = Hosts::new(4);
    let now = hosts.now;
    (0..4).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    hosts.link(0, 1);
    for n in 0..5000_u16 {
        let peer = ([10, 1, (n / 250) as u8, (n % 250) as u8 + 1], 7000).into();
        hosts.all[0].seen(SWARM, peer, Standing::Leecher, hosts.now);
    }
    hosts.run(MINUTE);
    assert_eq!(hosts.all[1].swarm(SWARM).count(), 5001);
    hosts.bodies.clear();
    hosts.link(1, 2);
    hosts.link(0, 2);
    hosts.run(Duration::from_secs(3));
    assert_eq!(hosts.all[2].swarm(SWARM).count(), 5002);
    hosts.run(MINUTE);
    let told: usize = hosts.bodies_of(2).iter().map(Bytes::len).sum();
    assert!(told < 32 * 1024, "{told} B from the newcomer");
}

/// Row of issue 5: epochs from the future, floods, oversize digests.
#[test]
fn limits_of_a_link_are_reached_and_kept() {
    let mut hosts = Hosts::new(1);
    let liar = Stranger::meets(&mut hosts, 5);
    let day_ms = 24 * 3600 * 1000;
    let of = |n: u16, epoch| entry(([10, 2, 0, 1], n).into(), epoch, Standing::Leecher);
    let future = UNIX_MS + day_ms + 60_000;
    liar.says(&mut hosts, &news(&[of(7000, future)]))
        .expect("ignored");
    assert_eq!(hosts.network(0), [addr(5)], "a future epoch");

    let of = |n: u16| {
        let at = ([10, 3, (n / 250) as u8, (n % 250) as u8 + 1], 7000).into();
        entry(at, UNIX_MS, Standing::Leecher)
    };
    let many: Vec<_> = (0..1000).map(of).collect();
    liar.says(&mut hosts, &news(&many)).expect("no flood yet");
    assert_eq!(hosts.network(0).len(), 17, "strangers of an unproven link");
    hosts.now += Duration::from_secs(1);
    liar.says(&mut hosts, &news(&many)).expect("no flood yet");
    assert_eq!(hosts.network(0).len(), 19, "and a second later");
    hosts.proves(many[3].addr.expect("told by address"));
    liar.says(&mut hosts, &news(&many)).expect("no flood yet");
    let known = 19 + 256 + 32;
    assert_eq!(hosts.network(0).len(), known, "one of them is there");

    let ports: Vec<_> = (0..100)
        .map(|n| entry(([10, 4, 0, 1], 7000 + n).into(), UNIX_MS, Standing::Leecher))
        .collect();
    hosts.now += Duration::from_secs(60);
    liar.says(&mut hosts, &news(&ports)).expect("no flood yet");
    assert_eq!(hosts.network(0).len(), known + PORTS_ON_LINK_MAX);
    let victim: Vec<_> = (0..100)
        .map(|n| {
            entry(
                ([93, 184, 215, 14], 7000 + n).into(),
                UNIX_MS,
                Standing::Leecher,
            )
        })
        .collect();
    liar.says(&mut hosts, &news(&victim)).expect("no flood yet");
    assert_eq!(
        hosts.network(0).len(),
        known + PORTS_ON_LINK_MAX + PORTS_OFF_LINK_MAX
    );

    let digest = Digest::encode(NETWORK, &[1; 256]);
    while hosts.all[0].poll_event().is_some() {}
    for _ in 0..100 {
        liar.says(&mut hosts, &digest).expect("no flood yet");
    }
    let mut sent = 0;
    while let Some(Event::Send { body, .. }) = hosts.all[0].poll_event() {
        sent += body.len();
    }
    assert!(
        sent < 17 * 1024,
        "{sent} B for a digest that differs everywhere"
    );

    let flood = std::iter::repeat_with(|| liar.says(&mut hosts, &digest)).take(1000);
    let violation = flood.into_iter().find_map(Result::err);
    assert_eq!(violation, Some(Violation::Flood));
    assert!(!hosts.all[0].has_link(liar.id));
}

/// Goal: lists become the same although the other side is too busy to compare at first; one that
/// never answers is not asked for ever.
#[test]
fn list_is_compared_again_if_nobody_answered() {
    for (ignored, agree) in [(3, true), (usize::MAX, false)] {
        let mut hosts = Hosts::new(2);
        crowd(&mut hosts.all[1], 600);
        hosts.ignored_digests = ignored;
        hosts.link(0, 1);
        hosts.run(2 * MINUTE);
        assert_eq!(hosts.network(0).len() == 601, agree, "{ignored} ignored");
        hosts.run(58 * MINUTE);
        let bodies = hosts.bodies.iter();
        let digests = bodies.filter(|(_, b)| matches!(Message::decode(b), Ok(Message::Digest(_))));
        let count = digests.count();
        assert!(count <= 16, "{count} digests in an hour, {ignored} ignored");
    }
}

/// Goal: comparing long lists again and again costs us a bounded part of each second, whoever of
/// both sides begins.
#[test]
fn walks_over_long_lists_are_few() {
    let mut hosts = Hosts::new(1);
    let liar = Stranger::meets(&mut hosts, 5);
    crowd(&mut hosts.all[0], 8000);
    let root = Root {
        handle: NETWORK,
        count: 100_000,
        root: 1,
    };
    let asks = [Roots::encode([root]), Want::encode(NETWORK, &[true], true)];
    for (name, bodies) in [
        ("we answer", vec![Digest::encode(NETWORK, &[1; 256])]),
        ("we ask", asks.to_vec()),
    ] {
        let mut rounds = 0;
        for _ in 0..300 {
            hosts.now += Duration::from_millis(200);
            for body in &bodies {
                liar.says(&mut hosts, body).expect("no flood yet");
                hosts.all[0].poll(hosts.now);
            }
            while let Some(event) = hosts.all[0].poll_event() {
                let Event::Send { body, .. } = event else {
                    continue;
                };
                let message = Message::decode(&body);
                rounds += usize::from(matches!(message, Ok(Message::Want(_) | Message::Digest(_))));
            }
        }
        // A minute of 32 Ki records a second, and at first as many as half a minute has.
        assert!((100..=156).contains(&rounds), "{name}: {rounds}");
    }
}

/// Goal: what the last message on a link named is news at once, not with a later message.
#[test]
fn news_of_a_good_bye_are_told_once() {
    let mut hosts = Hosts::new(2);
    hosts.link(0, 1);
    hosts.run(MINUTE);
    let stranger = Stranger::meets(&mut hosts, 5);
    hosts.run(MINUTE);
    let named = ([10, 2, 0, 1], 7000).into();
    let mut writer = EntriesWriter::bye(Reason::Full, UNIX_MS);
    writer.push(NETWORK, &entry(named, UNIX_MS, Standing::Leecher));
    stranger.says(&mut hosts, &writer.finish()).expect("a bye");
    assert_eq!(hosts.all[0].fresh, []);
    hosts.carry();
    assert!(hosts.network(1).contains(&named));
    hosts.all[0].unreachable(named, hosts.now);
    hosts.run(MINUTE);
    assert!(!hosts.network(1).contains(&named));
    hosts.bodies.clear();
    Stranger::meets(&mut hosts, 6);
    hosts.run(MINUTE);
    let tells = |body: &Bytes| match Message::decode(body) {
        Ok(Message::Entries(entries)) if entries.why == Why::News => entries
            .records()
            .any(|record| record.is_ok_and(|(_, entry)| entry.addr == Some(named))),
        _ => false,
    };
    assert!(!hosts.bodies_of(0).iter().any(tells));
}

#[test]
fn messages_out_of_order_end_the_link() {
    let digest = Digest::encode(NETWORK, &[1]);
    let hello = Hello {
        salt: [3; 16],
        clock_ms: UNIX_MS,
        is_drawn: true,
    };
    for bodies in [vec![digest], vec![hello.encode(), hello.encode()]] {
        let mut hosts = Hosts::new(1);
        let id = conn(0, 5);
        hosts.all[0].link_opened(id, addr(5), true, hosts.now);
        let mut results = bodies
            .iter()
            .map(|body| hosts.all[0].received(id, body, hosts.now));
        assert_eq!(results.find_map(Result::err), Some(Violation::Order));
        assert!(!hosts.all[0].has_link(id));
    }
}

/// Goal: a link whose departures are all refuted is ended. One whose addresses are dead is not
/// believed soon, without proof, and ended after many.
#[test]
fn lies_cost_the_liar_its_link() {
    let mut hosts = Hosts::new(5);
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 5);
    let distrusted = Event::Distrusted { link: liar.id };
    let mut lies = 0;
    while !hosts.heard[0].contains(&distrusted) {
        lies += 1;
        assert!(lies < 40, "never distrusted");
        let epoch = UNIX_MS + 100_000 * lies;
        let lie = entry(addr(2), epoch, Standing::Left);
        liar.says(&mut hosts, &news(&[lie]))
            .expect("a lie is no violation");
        hosts.run(Duration::from_secs(2));
        assert!(hosts.network(0).contains(&addr(2)), "refuted");
    }
    assert!(!hosts.all[0].has_link(liar.id));
    assert!(
        hosts.all[0].has_link(conn(0, 1)),
        "the relay of the refutations is not blamed"
    );

    hosts.link(0, 3);
    hosts.link(0, 4);
    hosts.run(MINUTE);
    let liar = Stranger::meets(&mut hosts, 6);
    let second = Duration::from_secs(1);
    let tell = |hosts: &mut Hosts, addr: SocketAddr| {
        let told = news(&[entry(addr, UNIX_MS, Standing::Leecher)]);
        liar.says(hosts, &told).expect("a lie is no violation");
        hosts.run(second);
    };
    for n in 0..64 {
        let invented = ([10, 2, 0, n + 1], 7000).into();
        assert!(hosts.all[0].has_link(liar.id), "{n} dead");
        tell(&mut hosts, invented);
        let is_told_on = hosts.network(1).contains(&invented);
        assert_eq!(is_told_on, n < 4, "{n}: it is known by then");
        let doubted = Event::Doubted { addr: invented };
        assert!(n < 4 || hosts.heard[0].contains(&doubted), "{n}: is tried");
        hosts.all[0].unreachable(invented, hosts.now);
        hosts.run(second);
        assert!(!hosts.network(1).contains(&invented), "all hear of it");
        if n == 30 {
            let true_one = ([10, 3, 0, 1], 7000).into();
            tell(&mut hosts, true_one);
            assert!(!hosts.network(0).contains(&true_one), "not believed");
            hosts.proves(true_one);
            hosts.run(second);
            assert!((0..=1).all(|at| hosts.network(at).contains(&true_one)));
        }
    }
    assert!(!hosts.all[0].has_link(liar.id));
}

#[test]
fn lists_are_bounded_and_what_a_liar_made_up_goes_first() {
    let mut hosts = Hosts::new(3);
    let now = hosts.now;
    (0..3).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    hosts.link(0, 1);
    hosts.run(MINUTE);
    for n in 0..5000_u16 {
        let peer = ([10, 1, (n / 250) as u8, (n % 250) as u8 + 1], 7000).into();
        hosts.all[1].seen(SWARM, peer, Standing::Leecher, hosts.now);
    }
    hosts.run(3 * MINUTE);
    assert_eq!(hosts.all[0].swarm(SWARM).count(), 5001);
    let salt = [5; 16];
    let liar = Stranger::meets(&mut hosts, 5);
    let ours = hosts.all[0].link(hosts.all[0].by_conn[&liar.id]).our_salt;
    let membership = Membership {
        handle: 1,
        standing: Standing::Seed,
        epoch: UNIX_MS,
        tag: tag(&salt, &ours, SWARM),
    };
    let body = Swarms::encode(UNIX_MS, [membership]);
    liar.says(&mut hosts, &body).expect("it knows the swarm");
    let first = ([10, 2, 0, 1], 7000).into();
    let body = news(&[entry(first, UNIX_MS, Standing::Seed)]);
    liar.says(&mut hosts, &body).expect("it is so");
    hosts.proves(first);
    let mut made_up = 0_u32;
    while made_up < 40_000 {
        let mut writer = EntriesWriter::entries(Why::News, UNIX_MS);
        for _ in 0..1000 {
            made_up += 1;
            let [_, a, b, c] = made_up.to_be_bytes();
            writer.push(
                1,
                &entry(([10, 64 + a, b, c], 7000).into(), UNIX_MS, Standing::Seed),
            );
        }
        hosts.now += Duration::from_secs(40);
        liar.says(&mut hosts, &writer.finish())
            .expect("within its bytes");
        let count = hosts.all[0].swarm(SWARM).count();
        assert!(count <= LIST_LEN_MAX, "{count}");
    }
    let honest = |(at, ..): &(SocketAddr, Standing, bool)| match at.ip() {
        IpAddr::V4(ip) => ip.octets()[1] == 1,
        IpAddr::V6(_) => false,
    };
    let count = hosts.all[0].swarm(SWARM).filter(honest).count();
    assert_eq!(count, 5000, "nothing of the honest link's was dropped");
    assert!(
        hosts.all[0].swarm(SWARM).count() > LIST_LEN_MAX / 2,
        "the limit was reached"
    );
}

/// Goal: silence for days forgets who died with all its neighbours, and nobody else.
#[test]
fn who_is_never_renewed_is_forgotten() {
    let mut hosts = Hosts::new(3);
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    let ghost = Stranger::meets(&mut hosts, 5);
    let never_there = addr(99);
    let body = news(&[entry(never_there, UNIX_MS, Standing::Leecher)]);
    ghost
        .says(&mut hosts, &body)
        .expect("a lie is no violation");
    hosts.all[0].link_closed(ghost.id, hosts.now);
    hosts.run(MINUTE);
    assert!(hosts.network(2).contains(&never_there));
    hosts.run(Duration::from_secs(3 * 24 * 3600));
    assert_eq!(hosts.network(2), [addr(0), addr(1)]);
    assert_eq!(hosts.all[2].network.len(), 2, "nor the tombstones");
    let renewals = hosts.all[2].counts().news;
    assert!((2..80).contains(&renewals), "{renewals} news in three days");
}

#[test]
fn addresses_that_the_hearer_cannot_use_are_not_told() {
    let mut hosts = Hosts::new(2);
    let now = hosts.now;
    (0..2).for_each(|n| hosts.all[n].swarm_joined(SWARM, Standing::Seed, now));
    hosts.link(0, 1);
    for told in [
        "127.0.0.1:7000",
        "[fe80::1]:7000",
        "169.254.1.1:7000",
        "10.9.9.9:7000",
    ] {
        let told: SocketAddr = told.parse().expect("an address");
        hosts.all[0].seen(SWARM, told, Standing::Leecher, hosts.now);
    }
    hosts.run(MINUTE);
    let at_1: Vec<_> = hosts.all[1]
        .swarm(SWARM)
        .map(|(at, ..)| at.to_string())
        .collect();
    assert_eq!(at_1, ["10.0.0.1:6881", "10.9.9.9:7000"]);
    hosts.bodies.clear();
    hosts.cut(0, 1);
    hosts.link(0, 1);
    hosts.run(MINUTE);
    assert_eq!(
        hosts.all[0].counts().repairs + hosts.all[1].counts().repairs,
        0
    );
}

#[test]
fn swarms_of_different_hosts_stay_apart() {
    let mut hosts = Hosts::new(3);
    let now = hosts.now;
    for (n, swarm) in [(0, SWARM), (1, SWARM), (1, OTHER), (2, OTHER)] {
        hosts.all[n].swarm_joined(swarm, Standing::Seed, now);
    }
    hosts.link(0, 1);
    hosts.link(1, 2);
    hosts.run(MINUTE);
    assert_eq!(hosts.all[2].swarm(OTHER).count(), 1);
    assert_eq!(hosts.all[1].swarm(OTHER).count(), 1);
    assert_eq!(hosts.all[0].swarm(SWARM).count(), 1);
    assert_eq!(hosts.network(0).len(), 2);
}
