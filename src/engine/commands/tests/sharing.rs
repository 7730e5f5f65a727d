//! What torrents of one peer share: places for streams, and for those that are being opened.

use super::queue::Line;
use super::*;
use crate::base::limits;

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
        let handshake = Handshake {
            reserved: Reserved {
                fast: true,
                extended: false,
                dht: false,
            },
            info_hash: self.meta.info_hash,
            peer_id: PeerId([0x80 | number; 20]),
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
