//! Lists from which peers are drawn at random, in the time that the draw takes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::base::rng::Rng;

/// Peers in four lists: IPv4 and IPv6, leechers and seeds.
///
/// A draw goes over the lists from a place and by steps that are chosen at random: it writes
/// nothing, and nobody comes twice before all have come.
#[derive(Debug, Default)]
pub(super) struct Hands {
    lists: [Vec<Card>; 4],
    /// Where in its list each peer stands, or [`NOWHERE`].
    places: Vec<u32>,
}

/// What is to be known of a peer that was drawn: close together, since a draw of a big swarm is as
/// fast as memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// The number of the peer.
    pub peer: u32,
    /// Of the number of its client as much as tells two apart.
    pub client: u32,
    port: u16,
    /// IPv4 as IPv6 writes it.
    ip: Ipv6Addr,
}

impl Card {
    /// Of a peer of this number, client and address.
    pub fn new(peer: u32, client: u64, addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            peer,
            client: client as u32,
            port: addr.port(),
            ip,
        }
    }

    /// The peer's address, without the scope that only link-local ones have.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip.to_canonical(), self.port)
    }

    /// Whether the client is this one.
    pub fn is_of(&self, client: u64) -> bool {
        self.client == client as u32
    }
}

/// One of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List(usize);

impl List {
    /// The list of such peers.
    pub fn of(is_ipv4: bool, is_seed: bool) -> Self {
        Self(2 * usize::from(!is_ipv4) + usize::from(is_seed))
    }
}

impl Hands {
    /// Puts a peer into a list.
    pub fn put(&mut self, card: Card, list: List) {
        let list = &mut self.lists[list.0];
        let index = card.peer as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, NOWHERE);
        }
        assert_eq!(self.places[index], NOWHERE, "a peer is in one list");
        self.places[index] = list.len() as u32;
        list.push(card);
    }

    /// Takes a peer out of a list, if it is there.
    pub fn take(&mut self, peer: u32, list: List) {
        let Some(place) = self.places.get_mut(peer as usize) else {
            return;
        };
        let place = std::mem::replace(place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        let list = &mut self.lists[list.0];
        assert_eq!(
            list[place as usize].peer, peer,
            "a peer is in the list that is said"
        );
        list.swap_remove(place as usize);
        if let Some(moved) = list.get(place as usize) {
            self.places[moved.peer as usize] = place;
        }
    }

    /// Begins to draw from `lists`.
    pub fn draw(&self, lists: [List; 2], rng: &mut Rng) -> Draw {
        let lens = lists.map(|list| self.lists[list.0].len() as u32);
        Draw::new(lists, lens, rng)
    }

    /// Begins to draw from one list alone.
    pub fn draw_one(&self, list: List, rng: &mut Rng) -> Draw {
        let lens = [self.lists[list.0].len() as u32, 0];
        Draw::new([list, list], lens, rng)
    }

    /// The next peer of `draw`, which is any of those that are left. Between the first and the last
    /// of a draw nothing may be put or taken.
    pub fn next(&self, draw: &mut Draw) -> Option<Card> {
        draw.left = draw.left.checked_sub(1)?;
        let at = draw.place();
        Some(match at.checked_sub(draw.lens[0]) {
            None => self.lists[draw.lists[0].0][at as usize],
            Some(at) => self.lists[draw.lists[1].0][at as usize],
        })
    }
}

/// How far a draw got.
///
/// Its places are those of `start + n × step` in the field of a prime that is no less than the
/// lists are long: all of them once, and any two of them together about as often as any others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    lists: [List; 2],
    lens: [u32; 2],
    prime: u32,
    at: u32,
    step: u32,
    left: u32,
}

impl Draw {
    fn new(lists: [List; 2], lens: [u32; 2], rng: &mut Rng) -> Self {
        let left = lens[0] + lens[1];
        let prime = prime_from(left);
        Self {
            lists,
            lens,
            prime,
            at: rng.below(prime),
            step: 1 + rng.below(prime - 1),
            left,
        }
    }

    /// The next place, counted over both lists.
    fn place(&mut self) -> u32 {
        loop {
            let at = self.at;
            let to_end = self.prime - at;
            self.at = self.step.checked_sub(to_end).unwrap_or(at + self.step);
            if at < self.lens[0] + self.lens[1] {
                return at;
            }
        }
    }
}

/// The smallest prime that is no less than `n`. A list of a million takes some microseconds.
fn prime_from(n: u32) -> u32 {
    let is_prime = |n: &u32| {
        let mut divisors = (2..).take_while(|d| d * d <= *n);
        divisors.all(|d| n % d != 0)
    };
    (n.max(2)..)
        .find(is_prime)
        .expect("there is always another")
}

const NOWHERE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const LISTS: [List; 2] = [List(0), List(1)];

    fn card(peer: u32) -> Card {
        let ip = [10, 0, 0, peer as u8];
        Card::new(peer, 0x7_0000_0000 + u64::from(peer), (ip, 6881).into())
    }

    #[test]
    fn card_has_the_address_and_tells_clients_apart() {
        for addr in [
            "10.0.0.1:7",
            "0.0.0.0:9",
            "[fd00::1]:8",
            "[::]:9",
            "[::1]:1",
        ] {
            let addr: SocketAddr = addr.parse().expect("an address");
            let card = Card::new(3, 0x5_1234_5678, addr);
            assert_eq!((card.peer, card.addr()), (3, addr));
            assert!(card.is_of(0x5_1234_5678) && !card.is_of(0x5_1234_5679));
        }
    }

    #[test]
    fn draw_gives_each_once_and_leaves_all_in_place() {
        let mut rng = Rng::new(3);
        let mut hands = Hands::default();
        let mut expected = BTreeSet::new();
        for round in 0..2000 {
            let peer = rng.below(40);
            let list = LISTS[(peer % 2) as usize];
            match expected.insert(peer) {
                true => hands.put(card(peer), list),
                false => {
                    expected.remove(&peer);
                    hands.take(peer, list);
                    hands.take(peer, list);
                }
            }
            let mut draw = hands.draw(LISTS, &mut rng);
            let mut seen = BTreeSet::new();
            let count = rng.below(45);
            for _ in 0..count {
                let Some(Card { peer, .. }) = hands.next(&mut draw) else {
                    assert_eq!(seen, expected, "round {round}");
                    break;
                };
                assert!(seen.insert(peer), "round {round}: {peer} is drawn twice");
            }
            assert!(seen.is_subset(&expected), "round {round}");
            assert_eq!(
                seen.len(),
                expected.len().min(count as usize),
                "round {round}"
            );
        }
    }

    #[test]
    fn every_peer_of_both_lists_is_drawn_equally_often() {
        let mut rng = Rng::new(4);
        let mut hands = Hands::default();
        for peer in 0..20 {
            hands.put(card(peer), LISTS[usize::from(peer >= 5)]);
        }
        let mut times = [0; 20];
        let mut together = BTreeMap::<_, u32>::new();
        for _ in 0..20_000 {
            let mut draw = hands.draw(LISTS, &mut rng);
            let drawn: Vec<u32> = (0..4)
                .map(|_| hands.next(&mut draw).expect("20 peers").peer)
                .collect();
            for &peer in &drawn {
                times[peer as usize] += 1;
                for &other in drawn.iter().filter(|&&other| other > peer) {
                    *together.entry((peer, other)).or_default() += 1;
                }
            }
        }
        // 4000 each is expected, with a standard deviation of 57.
        assert!(
            times.iter().all(|count| (3700..4300).contains(count)),
            "{times:?}"
        );
        // 632 each would be even; steps over the three places of 23 where nobody stands are not.
        assert_eq!(together.len(), 190);
        assert!(
            together.values().all(|count| (420..950).contains(count)),
            "{together:?}"
        );
    }

    #[test]
    fn primes_are_found() {
        let cases = [
            (0, 2),
            (2, 2),
            (4, 5),
            (20, 23),
            (100, 101),
            (65_536, 65_537),
        ];
        for (n, prime) in cases {
            assert_eq!(prime_from(n), prime);
        }
    }

    #[test]
    fn one_list_alone_gives_nothing_of_the_other() {
        let mut hands = Hands::default();
        hands.put(card(1), LISTS[0]);
        hands.put(card(2), LISTS[1]);
        let mut draw = hands.draw_one(LISTS[0], &mut Rng::new(5));
        assert_eq!(hands.next(&mut draw), Some(card(1)));
        assert_eq!(hands.next(&mut draw), None);
    }
}
