//! Decisions of one overlay; networks of them are in `tests/gossip.rs`.

use super::anchors::ALONE_PAUSE;
use super::suspects::SUSPECTS_MAX;
use super::*;
use crate::base::rng::Rng;

fn addr(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    ([10, 0, high, low], 6881).into()
}

fn peer(n: u16) -> PeerId {
    let mut id = [0; 20];
    id[..2].copy_from_slice(&n.to_be_bytes());
    PeerId(id)
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

fn stream(n: u16) -> Stream {
    Stream {
        peer: peer(n),
        addr: addr(n),
        purpose: Purpose::Overlay,
    }
}

/// The host with peer id 100.
fn overlay() -> Overlay {
    Overlay::new(peer(100), Rng::new(1))
}

fn actions(overlay: &mut Overlay, now: Instant) -> Vec<Action> {
    overlay.counted(overlay.addresses.present());
    overlay.poll(now);
    std::iter::from_fn(|| overlay.poll_action()).collect()
}

fn dials(actions: &[Action]) -> usize {
    let is_dial = |action: &&Action| matches!(action, Action::Dial(_));
    actions.iter().filter(is_dial).count()
}

const NOW: Instant = Instant::from_micros(1_000_000);

#[test]
fn as_many_are_dialled_as_are_drawn_and_no_more() {
    let mut overlay = overlay();
    for n in 1..=50 {
        overlay.counted(n.into());
        overlay.heard(addr(n), NOW);
    }
    let dialled = actions(&mut overlay, NOW);
    assert_eq!(dials(&dialled), DRAWN);
    assert_eq!(dials(&actions(&mut overlay, NOW)), 0);

    // A stream to one of them is offered a link, as drawn.
    let Action::Dial(first) = dialled[0] else {
        panic!("{:?}", dialled[0]);
    };
    let its = Stream {
        addr: first,
        ..stream(200)
    };
    overlay.stream_ready(conn(1), its, NOW);
    let is_drawn = true;
    let offer = Action::Offer {
        conn: conn(1),
        is_drawn,
    };
    assert_eq!(actions(&mut overlay, NOW), [offer]);
}

/// Goal: who hears of addresses without end looks for somebody to dial only if one of them can be
/// dialled.
#[test]
fn address_that_is_not_in_the_sample_wakes_nobody() {
    let mut overlay = overlay();
    for n in 1..=512 {
        overlay.addresses.pause(addr(n), NOW + FAILED_PAUSE, NOW);
        overlay.addresses.heard(addr(n), &mut overlay.rng);
    }
    overlay.counted(512);
    overlay.poll(NOW);
    let soon = overlay.next_deadline();
    assert!(soon > NOW);
    overlay.counted(1 << 20);
    let mut woken = 0;
    for n in 1000..3000 {
        overlay.heard(addr(n), NOW);
        if overlay.next_deadline() <= NOW {
            woken += 1;
            assert!(dials(&actions(&mut overlay, NOW)) > 0, "in vain");
        }
    }
    assert!(woken <= DIALS_MAX, "{woken}");
}

/// Goal: where every dial is postponed, and there are more addresses than pauses are remembered
/// of, drawing comes to an end all the same, and goes on later.
/// Method: first 600 addresses fail and wait, then there is no room for any dial of 500 others.
#[test]
fn postponed_dials_end_the_draws_of_a_moment() {
    let mut overlay = overlay();
    for n in 1..=600 {
        overlay.addresses.pause(addr(n), NOW + FAILED_PAUSE, NOW);
    }
    for n in 1001..=1500 {
        overlay.counted(n.into());
        overlay.heard(addr(n), NOW);
    }
    let mut now = NOW;
    for second in 0..5 {
        let mut asked = 0;
        loop {
            let dialled = actions(&mut overlay, now);
            if dialled.is_empty() {
                break;
            }
            asked += dials(&dialled);
            assert!(asked <= (POSTPONED_MAX as usize) + DRAWN, "without end");
            for action in dialled {
                if let Action::Dial(addr) = action {
                    overlay.dial_postponed(addr, now + POSTPONED_REST, now);
                }
            }
        }
        assert!(asked >= POSTPONED_MAX as usize, "{second}: {asked}");
        assert_eq!(overlay.next_deadline(), now + POSTPONED_REST);
        now = overlay.next_deadline();
    }
    assert_eq!(dials(&actions(&mut overlay, now)), DRAWN, "there is room");
}

#[test]
fn of_two_offers_at_once_that_of_the_smaller_peer_id_stands() {
    for (other, expected) in [(50, Answer::Accept), (150, Answer::Ignore)] {
        let mut overlay = overlay();
        overlay.stream_ready(conn(1), stream(other), NOW);
        actions(&mut overlay, NOW); // it fills up with whoever is there
        let second = Stream {
            purpose: Purpose::Swarm,
            ..stream(other)
        };
        overlay.stream_ready(conn(2), second, NOW);
        assert_eq!(overlay.offered(conn(2), true, NOW), expected, "{other}");
        let links: Vec<_> = overlay.links().map(|(conn, _)| conn).collect();
        let kept = if other < 100 { conn(2) } else { conn(1) };
        assert_eq!(links, [kept], "one link with {other}");
    }
}

#[test]
fn two_offers_on_one_stream_are_one_link() {
    let mut overlay = overlay();
    overlay.stream_ready(conn(1), stream(50), NOW);
    overlay.poll(NOW); // our own offer waits to be taken
    assert_eq!(overlay.offered(conn(1), true, NOW), Answer::Accept);
    assert_eq!(overlay.links().count(), 1);
}

#[test]
fn links_are_bounded_and_there_is_room_for_our_own_draws() {
    let mut overlay = overlay();
    let mut accepted = 0;
    for n in 1..=40 {
        overlay.stream_ready(conn(n.into()), stream(n), NOW);
        match overlay.offered(conn(n.into()), true, NOW) {
            Answer::Accept => accepted += 1,
            Answer::Refuse(reason) => assert_eq!(reason, Reason::Full),
            Answer::Ignore => panic!("nothing was offered"),
        }
    }
    assert_eq!(accepted, ACCEPTED_MAX);
    // Who only fills up has to look elsewhere sooner.
    assert_eq!(
        overlay.offered(conn(40), false, NOW),
        Answer::Refuse(Reason::Full)
    );
}

/// Goal: who offers a link, ends it and offers it again makes us tell it what we know once a
/// second.
#[test]
fn link_that_is_offered_anew_at_once_is_refused() {
    let mut overlay = overlay();
    overlay.stream_ready(
        conn(1),
        Stream {
            purpose: Purpose::Swarm,
            ..stream(1)
        },
        NOW,
    );
    let mut accepted = 0;
    for ms in 0..3000 {
        let now = NOW + Duration::from_millis(ms);
        if overlay.offered(conn(1), true, now) == Answer::Accept {
            accepted += 1;
            overlay.link_ended(conn(1), Reason::Surplus, now);
        }
    }
    assert_eq!(accepted, 3);
}

#[test]
fn ourselves_and_whom_we_do_not_believe_get_no_link() {
    let mut overlay = overlay();
    overlay.stream_ready(conn(1), stream(100), NOW);
    assert_eq!(
        overlay.offered(conn(1), true, NOW),
        Answer::Refuse(Reason::Surplus)
    );
    overlay.stream_ready(conn(2), stream(7), NOW);
    assert_eq!(overlay.offered(conn(2), true, NOW), Answer::Accept);
    overlay.distrusted(conn(2), NOW);
    let drop = Action::Drop {
        conn: conn(2),
        reason: Reason::Surplus,
    };
    assert!(actions(&mut overlay, NOW).contains(&drop));
    overlay.stream_ready(conn(3), stream(7), NOW);
    assert_eq!(
        overlay.offered(conn(3), true, NOW),
        Answer::Refuse(Reason::Surplus)
    );
}

#[test]
fn lost_neighbour_is_dialled_at_once_and_then_ever_more_rarely() {
    let mut overlay = overlay();
    overlay.stream_ready(conn(1), stream(7), NOW);
    overlay.stream_ready(conn(2), stream(8), NOW);
    for index in [1, 2] {
        assert_eq!(overlay.offered(conn(index), true, NOW), Answer::Accept);
    }
    overlay.stream_closed(conn(1), NOW);
    let mut now = NOW;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let expected = [Action::Dial(addr(7))];
        assert_eq!(actions(&mut overlay, now), expected, "{pauses:?}");
        overlay.dial_failed(addr(7), now);
        assert_eq!(dials(&actions(&mut overlay, now)), 0);
        let next = overlay.next_deadline();
        pauses.push((next - now).as_secs());
        now = next;
    }
    assert!(pauses[0] <= 2, "{pauses:?}");
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert!(pauses[7] > 16 * pauses[2].max(1), "{pauses:?}");
    // News of it is reason enough to try at once.
    overlay.heard(addr(7), now);
    assert_eq!(actions(&mut overlay, now), [Action::Dial(addr(7))]);
}

/// Goal: who is left alone calls all that were its neighbours, those that said good bye too, and
/// goes on with it; who has another neighbour does not.
#[test]
fn who_is_left_alone_keeps_calling_its_neighbours() {
    let mut overlay = overlay();
    for n in 1..=3 {
        overlay.stream_ready(conn(n.into()), stream(n), NOW);
        assert_eq!(overlay.offered(conn(n.into()), true, NOW), Answer::Accept);
    }
    let mut now = NOW;
    for n in 1..=3_u16 {
        assert_eq!(dials(&actions(&mut overlay, now)), 0, "there are others");
        now += Duration::from_secs(1000);
        overlay.link_ended(conn(n.into()), Reason::Leaving, now);
        overlay.stream_closed(conn(n.into()), now);
    }
    let mut calls = [0; 3];
    let end = now + Duration::from_secs(3600);
    while now < end {
        for action in actions(&mut overlay, now) {
            if let Action::Dial(called) = action {
                let n = (1..=3).find(|n| addr(*n) == called).expect("one of them");
                calls[usize::from(n) - 1] += 1;
                overlay.dial_failed(called, now);
            }
        }
        now = overlay.next_deadline().max(now + Duration::from_millis(1));
    }
    let hourly = 3600 / ALONE_PAUSE.as_secs();
    for count in calls {
        assert!((hourly / 4..2 * hourly).contains(&count), "{calls:?}");
    }
}

/// Goal: a host that is known by two addresses has a link at one of them, and nobody at the other;
/// when the link breaks, or its good bye comes, the other is looked at as well.
#[test]
fn second_address_of_a_neighbour_is_looked_at_when_it_is_lost() {
    for is_leaving in [false, true] {
        for stays_open in [false, true] {
            let mut overlay = overlay();
            overlay.stream_ready(conn(1), stream(7), NOW);
            assert_eq!(overlay.offered(conn(1), true, NOW), Answer::Accept);
            overlay.heard(addr(8), NOW);
            assert_eq!(actions(&mut overlay, NOW), [Action::Dial(addr(8))]);
            let second = Stream {
                addr: addr(8),
                purpose: Purpose::Swarm,
                ..stream(7)
            };
            overlay.stream_ready(conn(2), second, NOW);
            if !stays_open {
                overlay.stream_closed(conn(2), NOW);
            }
            assert_eq!(dials(&actions(&mut overlay, NOW)), 0, "it is linked");
            if is_leaving {
                overlay.link_ended(conn(1), Reason::Leaving, NOW);
            }
            overlay.stream_closed(conn(1), NOW);
            let mut dialled = actions(&mut overlay, NOW);
            if stays_open {
                assert!(!dialled.contains(&Action::Dial(addr(8))), "it may be alive");
                overlay.stream_closed(conn(2), NOW);
                dialled = actions(&mut overlay, NOW);
            }
            assert!(dialled.contains(&Action::Dial(addr(8))), "{dialled:?}");
        }
    }
}

/// Goal: an address that is in dispute is dialled although it waits, and as soon as it makes sense.
#[test]
fn disputed_address_is_dialled_at_once_or_when_its_stream_ends() {
    let mut overlay = overlay();
    overlay.addresses.pause(addr(7), NOW + FAILED_PAUSE, NOW);
    overlay.disputed(addr(7), NOW);
    assert_eq!(actions(&mut overlay, NOW), [Action::Dial(addr(7))]);
    let swarm = Stream {
        purpose: Purpose::Swarm,
        ..stream(7)
    };
    overlay.stream_ready(conn(1), swarm, NOW);
    overlay.disputed(addr(7), NOW);
    assert_eq!(dials(&actions(&mut overlay, NOW)), 0, "it is connected");
    overlay.link_ended(conn(1), Reason::Full, NOW);
    overlay.stream_closed(conn(1), NOW);
    assert_eq!(actions(&mut overlay, NOW), [Action::Dial(addr(7))]);
    overlay.dial_failed(addr(7), NOW);
    for n in 0..200 {
        overlay.disputed(addr(n), NOW);
    }
    let dialled = actions(&mut overlay, NOW);
    assert!(dials(&dialled) <= DIALS_MAX, "{dialled:?}");
    assert!(overlay.suspects.len() <= SUSPECTS_MAX);
}

#[test]
fn stream_for_links_alone_that_carries_none_is_closed() {
    let mut overlay = overlay();
    overlay.stream_ready(conn(1), stream(7), NOW);
    assert!(matches!(
        actions(&mut overlay, NOW)[..],
        [Action::Offer { .. }]
    ));
    overlay.link_ended(conn(1), Reason::Full, NOW);
    let drop = Action::Drop {
        conn: conn(1),
        reason: Reason::Surplus,
    };
    assert_eq!(actions(&mut overlay, NOW), [drop]);

    // One of a swarm stays, and is offered a link again later.
    let swarm = Stream {
        purpose: Purpose::Swarm,
        ..stream(8)
    };
    overlay.stream_ready(conn(2), swarm, NOW);
    assert!(matches!(
        actions(&mut overlay, NOW)[..],
        [Action::Offer { .. }]
    ));
    overlay.link_ended(conn(2), Reason::Full, NOW);
    assert_eq!(actions(&mut overlay, NOW), []);
    let next = overlay.next_deadline();
    assert!(next > NOW && next <= NOW + REFUSED_PAUSE);
    assert!(matches!(
        actions(&mut overlay, next)[..],
        [Action::Offer { .. }]
    ));
}
