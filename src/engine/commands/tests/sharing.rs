//! What torrents of one peer share: places for streams, and for those that are being opened.

use super::queue::Line;
use super::*;
use crate::base::limits;
use crate::discovery::candidates::Source;

impl Script {
    /// A peer of the torrent comes in from host `number`; whether it is let in.
    fn comes(&mut self, number: u8) -> Option<ConnId> {
        let remote = ([10, 0, 1, number], 40_000).into();
        let local = ([10, 0, 0, 1], 6881).into();
        let conn = self.engine.accepted(remote, local, self.now);
        let conn = conn.expect("there is room to be heard");
        let theirs = self.handshake_of(number);
        self.feed(conn, &theirs);
        self.engine.conn(conn).is_some().then_some(conn)
    }

    fn handshake_of(&self, number: u8) -> Vec<u8> {
        self.handshake_by(PeerId([0x80 | number; 20]))
    }

    fn handshake_by(&self, peer_id: PeerId) -> Vec<u8> {
        let handshake = Handshake {
            reserved: Reserved {
                fast: true,
                extended: false,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id,
        };
        handshake.encode().to_vec()
    }

    fn knows(&mut self, host: [u8; 4]) {
        let peer = HostPort {
            host: std::net::IpAddr::from(host).to_string(),
            port: 6881,
        };
        self.engine.find_peer(self.id, peer, self.now);
        self.settle();
    }

    fn peers_of_it(&self) -> usize {
        self.engine.swarm(self.id).map_or(0, Swarm::peer_count)
    }

    /// Who was called since the last time.
    fn calls(&mut self) -> Vec<(ConnId, SocketAddr)> {
        let mut calls = Vec::new();
        self.other.retain(|action| match action {
            Action::Connect { conn, remote } => {
                calls.push((*conn, *remote));
                false
            }
            _ => true,
        });
        calls
    }
}

/// Lets time pass in which nobody who is called answers; who was called.
fn pass_in_vain(line: &mut Line, time: Duration) -> Vec<(Instant, SocketAddr)> {
    let end = line.script.now + time;
    let mut called = Vec::new();
    while line.script.now < end {
        line.script.pass(Duration::from_millis(100));
        let now = line.script.now;
        let calls = line.script.calls();
        called.extend(calls.into_iter().map(|(_, remote)| (now, remote)));
    }
    called
}

/// Goal: a torrent whose peers take all places does not keep the peers of another one out, nor the
/// other one from calling some; those that are of no use go.
#[test]
fn connections_are_shared_over_torrents_once_all_are_taken() {
    let mut line = Line::new(0, 3);
    line.script.engine.config.conns_max = 12;
    for number in 1..=12 {
        assert!(line.at(0).comes(number).is_some());
    }
    assert_eq!(line.at(0).comes(13), None, "nobody of the same torrent");
    for number in 21..=24 {
        assert!(line.at(1).comes(number).is_some(), "{number}");
    }
    assert_eq!(line.at(0).peers_of_it(), 8);

    // The third one calls.
    for host in 1..=8 {
        line.at(2).knows([10, 0, 2, host]);
    }
    let mut number = 100;
    for _ in 0..20 {
        line.script.pass(Duration::from_millis(500));
        for (conn, _) in line.at(2).calls() {
            let script = line.at(2);
            let local = ([10, 0, 0, 1], 50_000).into();
            script.engine.connected(conn, local, script.now);
            script.settle();
            number += 1;
            let theirs = script.handshake_of(number);
            script.feed(conn, &theirs);
        }
    }
    let counts = [0, 1, 2].map(|place| line.at(place).peers_of_it());
    assert_eq!(counts, [4, 4, 4]);
    // Nobody is driven out again by those who were.
    for number in 1..=12 {
        line.at(0).comes(number);
    }
    assert_eq!(
        [0, 1, 2].map(|place| line.at(place).peers_of_it()),
        [4, 4, 4]
    );
}

#[test]
fn peer_that_is_of_use_is_the_last_to_make_room() {
    let mut line = Line::new(0, 2);
    line.script.engine.config.conns_max = 4;
    let conns: Vec<ConnId> = (1..=4)
        .map(|number| line.at(0).comes(number).expect("there is room"))
        .collect();
    line.at(0).feed(conns[3], &[0, 0, 0, 1, 14, 0, 0, 0, 1, 1]); // have all, unchoke
    line.at(0).feed(conns[1], &[0, 0, 0, 1, 14]);
    for number in 21..=23 {
        line.at(1).comes(number);
    }
    let engine = &line.script.engine;
    let is_there: Vec<bool> = conns.iter().map(|&c| engine.conn(c).is_some()).collect();
    assert_eq!(is_there, [false, true, false, true]);
}

/// Goal: those with whom data moves give way to the first peer of another torrent, not to more of
/// them, who may be of no use.
#[test]
fn peers_with_whom_data_moves_give_way_to_one_of_another_torrent() {
    let mut line = Line::new(0, 2);
    line.script.engine.config.conns_max = 6;
    for number in 1..=6 {
        let script = line.at(0);
        let conn = script.comes(number).expect("there is room");
        script.feed(conn, &[0, 0, 0, 1, 14, 0, 0, 0, 1, 1]); // have all, unchoke
        assert!(script.serve(conn) > 0);
    }
    line.at(1).knows([10, 0, 2, 1]);
    line.script.pass(Duration::from_millis(500));
    assert_eq!(line.script.calls().len(), 1, "it has nobody");
    assert!(line.at(1).comes(21).is_some());
    assert_eq!(line.at(0).peers_of_it(), 5);
    line.at(1).knows([10, 0, 2, 2]);
    line.script.pass(Duration::from_millis(500));
    assert_eq!(line.script.calls(), [], "it has somebody");
    assert_eq!(line.at(1).comes(22), None);
    // They give way once they are idle.
    line.script.pass(Duration::from_secs(30));
    assert!(line.at(1).comes(23).is_some());
    assert_eq!(line.at(0).peers_of_it(), 4);
}

#[test]
fn torrent_that_lacks_nothing_calls_nobody_when_all_places_are_taken() {
    let mut line = Line::added(0, 2);
    line.script.engine.config.conns_max = 4;
    line.at(0).scanned(Bitfield::new(PIECES));
    line.at(1).scanned(Bitfield::full(PIECES));
    line.at(1).check_all();
    assert_eq!(line.script.state(), State::Seeding);
    for number in 1..=4 {
        assert!(line.at(0).comes(number).is_some());
    }
    line.script.calls();
    line.at(1).knows([10, 0, 2, 1]);
    assert_eq!(pass_in_vain(&mut line, Duration::from_secs(5)), []);
    assert!(
        line.at(1).comes(21).is_some(),
        "who comes may want something"
    );
}

/// Goal: a peer that has two streams to us keeps one of them where all places are taken.
#[test]
fn stream_in_the_place_of_its_twin_needs_no_room() {
    let mut line = Line::new(0, 2);
    line.script.engine.config.conns_max = 2;
    line.at(0).knows([10, 0, 1, 1]);
    line.script.pass(Duration::from_millis(500));
    let script = line.at(0);
    let [(called, _)] = script.calls()[..] else {
        panic!("it is called")
    };
    let local = ([10, 0, 0, 1], 50_000).into();
    script.engine.connected(called, local, script.now);
    script.settle();
    // Of the two the one stays that the smaller id has dialled.
    let theirs = script.handshake_by(PeerId([0; 20]));
    script.feed(called, &theirs);
    assert!(script.comes(2).is_some());
    line.at(1).knows([10, 0, 2, 1]);
    line.script.pass(Duration::from_millis(500));
    assert_eq!(line.script.calls().len(), 1, "one more than may stay");

    let script = line.at(0);
    let remote = ([10, 0, 1, 1], 40_000).into();
    let conn = script.engine.accepted(remote, local, script.now);
    let conn = conn.expect("there is room to be heard");
    script.feed(conn, &theirs);
    assert!(script.engine.conn(called).is_none());
    assert!(script.engine.conn(conn).is_some());
}

impl Script {
    /// Another evpeer tells of somebody.
    fn hears_of(&mut self, host: [u8; 4]) {
        let (addr, sender) = ((host, 6881).into(), [10, 0, 0, 9].into());
        let source = Source::Evpeer { sender };
        self.engine.heard_of(self.id, addr, source, self.now);
        self.settle();
    }
}

/// A torrent with 32 peers on our own link, of which the first has everything.
fn crowded() -> (Line, Vec<ConnId>) {
    let mut line = Line::new(0, 1);
    let conns = (1..=32).map(|number| line.at(0).comes(number));
    let conns: Vec<ConnId> = conns.map(|conn| conn.expect("there is room")).collect();
    line.at(0).feed(conns[0], &[0, 0, 0, 1, 14, 0, 0, 0, 1, 1]); // have all, unchoke
    (line, conns)
}

/// Goal: a torrent with many peers calls nobody else as long as data comes, but for one now and
/// then and those whom its user named, and all once nothing comes.
#[test]
fn torrent_with_enough_peers_calls_others_only_if_nothing_comes() {
    let (mut line, conns) = crowded();
    line.script.pass(Duration::from_secs(1));
    let script = line.at(0);
    assert!(script.serve(conns[0]) > 0);
    (1..=4).for_each(|host| script.hears_of([10, 0, 2, host]));
    script.knows([10, 0, 3, 1]);
    let called = pass_in_vain(&mut line, Duration::from_secs(4));
    assert_eq!(called.len(), 1, "{called:?}");
    assert_eq!(called[0].1, ([10, 0, 3, 1], 6881).into());
    let called = pass_in_vain(&mut line, Duration::from_secs(4));
    assert_eq!(called.len(), 4, "{called:?}");
}

#[test]
fn torrent_with_enough_peers_calls_one_more_now_and_then() {
    let (mut line, conns) = crowded();
    (1..=4).for_each(|host| line.at(0).hears_of([10, 0, 2, host]));
    let mut called = Vec::new();
    for _ in 0..25 {
        line.at(0).serve(conns[0]);
        called.extend(pass_in_vain(&mut line, Duration::from_secs(1)));
    }
    assert_eq!(called.len(), 2, "{called:?}");
}

#[test]
fn torrent_calls_again_when_a_peer_has_left() {
    let (mut line, conns) = crowded();
    line.at(0).hears_of([10, 0, 2, 1]);
    assert_eq!(pass_in_vain(&mut line, Duration::from_secs(2)), []);
    let script = line.at(0);
    script
        .engine
        .closed(conns[7], "closed by the peer", script.now);
    script.settle();
    let called = pass_in_vain(&mut line, Duration::from_secs(2));
    assert_eq!(called.len(), 1, "{called:?}");
}

/// The engine's audit looks at who stands in line.
#[test]
fn torrent_that_is_paused_or_removed_leaves_the_line_of_callers() {
    let mut line = Line::new(0, 6);
    for place in 0..6 {
        for host in 0..60 {
            line.at(place).knows([10, 1, place as u8, host]);
        }
    }
    pass_in_vain(&mut line, Duration::from_secs(3));
    for place in [3, 4] {
        line.at(place).pause();
    }
    let script = line.at(5);
    assert!(script.engine.remove_torrent(script.id, script.now));
    script.settle();
    let called = pass_in_vain(&mut line, Duration::from_secs(30));
    let goes_on = |(_, remote): &(Instant, SocketAddr)| remote.to_string().starts_with("10.1.2.");
    assert!(called.iter().any(goes_on), "{called:?}");
}

/// Goal: hundreds of addresses of one torrent at which nobody answers do not keep another torrent
/// from calling its only peer.
#[test]
fn torrent_with_dead_addresses_leaves_others_places_to_call() {
    let mut line = Line::new(0, 2);
    for host in 0..=250 {
        line.at(0).knows([10, 0, 2, host]);
    }
    let called = pass_in_vain(&mut line, Duration::from_secs(5));
    assert!(
        called.len() >= limits::HALF_OPEN_MAX as usize / 2,
        "{}",
        called.len()
    );
    line.at(1).knows([10, 0, 3, 1]);
    let called = pass_in_vain(&mut line, Duration::from_secs(2));
    let other = SocketAddr::from(([10, 0, 3, 1], 6881));
    assert!(
        called.iter().any(|(_, remote)| *remote == other),
        "{called:?}"
    );
}

/// Goal: where more torrents have dead addresses than may be called at a time, all have their turn.
#[test]
fn torrents_call_in_turn_where_places_are_few() {
    const TORRENTS: usize = 70;
    let mut line = Line::new(0, TORRENTS);
    for place in 0..TORRENTS {
        for host in 0..20 {
            line.at(place).knows([10, 1, place as u8, host]);
        }
    }
    let called = pass_in_vain(&mut line, Duration::from_secs(40));
    let mut counts = vec![0; TORRENTS];
    for (_, remote) in &called {
        let std::net::IpAddr::V4(ip) = remote.ip() else {
            continue;
        };
        counts[ip.octets()[2] as usize] += 1;
    }
    // The first of them were alone for a moment.
    let (least, most) = (counts.iter().min(), counts[5..].iter().max());
    assert!(least >= Some(&2) && most <= Some(&6), "{counts:?}");
    assert!(called.len() >= 150, "{}", called.len());
}
