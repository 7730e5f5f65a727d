//! Lists from which peers are drawn at random, in the time that the draw takes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::base::address::{Scope, scope};
use crate::base::rng::Rng;

/// Peers in four lists: IPv4 and IPv6, leechers and seeds.
///
/// Each list is in a random order from the beginning: who is put into it changes places with any
/// other. So a draw is a run of neighbours from a random place, as fast as memory is read; it
/// writes nothing, and nobody comes twice before all have come.
#[derive(Debug)]
pub(super) struct Hands {
    lists: [Vec<Card>; 4],
    /// Where in its list each peer stands, or [`NOWHERE`].
    places: Vec<u32>,
    rng: Rng,
}

/// What is to be known of a peer that was drawn: close together, since a draw of a big swarm is as
/// fast as memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// The number of the peer.
    pub peer: u32,
    /// Of the number of its client as much as tells two apart.
    pub client: u32,
    /// Where it is.
    pub place: Place,
    /// How far its address reaches.
    pub scope: Scope,
}

/// An address, in few bytes and quick to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    port: u16,
    /// IPv4 as IPv6 writes it.
    ip: Ipv6Addr,
}

impl Place {
    /// Where `addr` is.
    pub fn of(addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            port: addr.port(),
            ip,
        }
    }
}

impl Card {
    /// Of a peer of this number, client and address.
    pub fn new(peer: u32, client: u64, addr: SocketAddr) -> Self {
        Self {
            peer,
            client: client as u32,
            place: Place::of(addr),
            scope: scope(addr.ip()),
        }
    }

    /// The peer's address, without the scope that only link-local ones have.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.place.ip.to_canonical(), self.place.port)
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
    /// Empty lists, whose order comes from `rng_seed`.
    pub fn new(rng_seed: u64) -> Self {
        Self {
            lists: Default::default(),
            places: Vec::new(),
            rng: Rng::new(rng_seed),
        }
    }

    /// Puts a peer into a list.
    pub fn put(&mut self, card: Card, list: List) {
        let list = &mut self.lists[list.0];
        let index = card.peer as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, NOWHERE);
        }
        assert_eq!(self.places[index], NOWHERE, "a peer is in one list");
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.push(card);
        let last = list.len() - 1;
        let place = self.rng.below(list.len() as u32);
        list.swap(place as usize, last);
        self.places[list[last].peer as usize] = last as u32;
        self.places[index] = place;
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
        if list.is_empty() {
            *list = Vec::new(); // a peer that becomes a seed is in another list from then on
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
    pub fn next(&self, draw: &mut Draw) -> Option<&Card> {
        let (list, place) = draw.place()?;
        self.lists[list.0].get(place as usize)
    }
}

/// How far a draw got.
///
/// The two lists take turns as their lengths are, so that few seeds among many leechers are told
/// of evenly, and not all in one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    lists: [List; 2],
    lens: [u32; 2],
    /// The next place in each list.
    at: [u32; 2],
    /// Grows by the second list's length for each peer that is drawn; when it has reached the
    /// length of both, it is the second list's turn.
    due: u32,
    left: u32,
}

impl Draw {
    fn new(lists: [List; 2], lens: [u32; 2], rng: &mut Rng) -> Self {
        let left = lens[0] + lens[1];
        Self {
            lists,
            lens,
            at: lens.map(|len| rng.below(len.max(1))),
            due: rng.below(left.max(1)),
            left,
        }
    }

    /// The next list and place.
    fn place(&mut self) -> Option<(List, u32)> {
        self.left = self.left.checked_sub(1)?;
        self.due += self.lens[1];
        let both = self.lens[0] + self.lens[1];
        let which = usize::from(self.due >= both);
        if which == 1 {
            self.due -= both;
        }
        let place = self.at[which];
        self.at[which] = match place + 1 < self.lens[which] {
            true => place + 1,
            false => 0,
        };
        Some((self.lists[which], place))
    }
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
    fn list_that_a_peer_left_takes_no_room() {
        let mut hands = Hands::new(6);
        hands.put(card(0), LISTS[0]);
        hands.take(0, LISTS[0]);
        hands.put(card(0), LISTS[1]);
        assert_eq!(hands.lists.each_ref().map(Vec::capacity), [0, 1, 0, 0]);
    }

    #[test]
    fn draw_gives_each_once_and_leaves_all_in_place() {
        let mut rng = Rng::new(3);
        let mut hands = Hands::new(6);
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
                let Some(&Card { peer, .. }) = hands.next(&mut draw) else {
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

    /// Goal: all are told of equally often, and any two together as often as any others.
    /// Method: the lists are filled anew for each few draws, as neighbours stay neighbours.
    #[test]
    fn every_peer_of_both_lists_is_drawn_equally_often() {
        let mut rng = Rng::new(4);
        let mut times = [0; 20];
        let mut together = BTreeMap::<_, u32>::new();
        for _ in 0..5000 {
            let mut hands = Hands::new(rng.next_u64());
            for peer in 0..20 {
                hands.put(card(peer), LISTS[usize::from(peer >= 5)]);
            }
            for peer in [3, 7, 19, 0] {
                let list = LISTS[usize::from(peer >= 5)];
                hands.take(peer, list);
                hands.put(card(peer), list);
            }
            for _ in 0..4 {
                let mut draw = hands.draw(LISTS, &mut rng);
                let drawn: Vec<u32> = (0..4)
                    .map(|_| hands.next(&mut draw).expect("20 peers").peer)
                    .collect();
                assert_eq!(drawn.iter().filter(|&&peer| peer < 5).count(), 1);
                for &peer in &drawn {
                    times[peer as usize] += 1;
                    for &other in drawn.iter().filter(|&&other| other > peer) {
                        *together.entry((peer, other)).or_default() += 1;
                    }
                }
            }
        }
        // 4000 each is expected, with a standard deviation of 57.
        assert!(
            times.iter().all(|count| (3700..4300).contains(count)),
            "{times:?}"
        );
        // Two of the first list never come together, as one in four is from there.
        let of_both = together.iter().filter(|((a, b), _)| *a < 5 && *b >= 5);
        let of_second = together.iter().filter(|((a, _), _)| *a >= 5);
        assert_eq!(together.len(), 5 * 15 + 15 * 14 / 2);
        assert!(
            of_both.clone().all(|(_, count)| (650..950).contains(count)),
            "{together:?}"
        );
        assert!(
            of_second
                .clone()
                .all(|(_, count)| (420..720).contains(count)),
            "{together:?}"
        );
    }

    #[test]
    fn one_list_alone_gives_nothing_of_the_other() {
        let mut hands = Hands::new(6);
        hands.put(card(1), LISTS[0]);
        hands.put(card(2), LISTS[1]);
        let mut draw = hands.draw_one(LISTS[0], &mut Rng::new(5));
        assert_eq!(hands.next(&mut draw), Some(&card(1)));
        assert_eq!(hands.next(&mut draw), None);
    }
}
