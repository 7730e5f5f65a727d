//! Who is known, who is dialled and when.

use super::*;
use crate::base::address::Interface;

fn addr(n: u8) -> SocketAddr {
    ([10, 0, 0, n], 6881).into()
}

#[test]
fn unreachable_address_is_tried_ever_later_and_then_forgotten() {
    let mut candidates = Candidates::new(Privacy::Public, Rng::new(1));
    let mut now = Instant::ZERO;
    assert!(candidates.add(addr(1), Source::Tracker, now));
    let mut pauses = Vec::new();
    while let Some(at) = candidates.next_deadline(Reach::Everywhere) {
        pauses.push((at - now).as_secs());
        now = at;
        assert_eq!(
            candidates.take_due(Reach::Everywhere, &mut Gate::new(500), now),
            Some(addr(1))
        );
        assert_eq!(
            candidates.take_due(Reach::Everywhere, &mut Gate::new(500), now),
            None,
            "one connection an address"
        );
        candidates.ended(addr(1), End::Unreachable, Duration::ZERO, now);
    }
    assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 64, 128]);
    assert!(candidates.is_empty());
}

#[test]
fn address_of_the_user_is_never_given_up_but_for_a_fault() {
    let mut candidates = Candidates::new(Privacy::Public, Rng::new(1));
    let mut now = Instant::ZERO;
    candidates.add(addr(1), Source::Tracker, now);
    candidates.add(addr(1), Source::User, now);
    for _ in 0..50 {
        now = candidates
            .next_deadline(Reach::Everywhere)
            .expect("still known");
        candidates
            .take_due(Reach::Everywhere, &mut Gate::new(500), now)
            .expect("due at its deadline");
        candidates.ended(addr(1), End::Lost, Duration::ZERO, now);
    }
    now += Duration::from_secs(60);
    candidates
        .take_due(Reach::Everywhere, &mut Gate::new(500), now)
        .expect("due");
    candidates.ended(addr(1), End::Never, Duration::ZERO, now);
    assert_eq!(candidates.next_deadline(Reach::Everywhere), None);
    assert!(
        !candidates.add(addr(1), Source::User, now),
        "it stays known as bad"
    );
}

#[test]
fn number_of_candidates_is_bounded() {
    let mut candidates = Candidates::new(Privacy::Public, Rng::new(1));
    for n in 0..3000_u16 {
        candidates.add(([10, 0, 0, 1], n).into(), Source::Tracker, Instant::ZERO);
    }
    assert_eq!(candidates.len(), CANDIDATES_MAX);
}

fn secs(secs: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(secs)
}

fn parsed(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn home() -> Interfaces {
    Interfaces::new(vec![Interface {
        index: 2,
        ip: [10, 0, 0, 1].into(),
        prefix_len: 24,
    }])
}

/// Candidates and gate of a machine on 10.0.0.0/24.
fn at_home() -> (Candidates, Gate) {
    let mut candidates = Candidates::new(Privacy::Public, Rng::new(1));
    let mut gate = Gate::new(500);
    candidates.interfaces_found(&home());
    gate.interfaces_found(&home());
    (candidates, gate)
}

fn pex(n: u8) -> Source {
    let sender = IpAddr::from([10, 0, 0, n]);
    Source::Pex { sender }
}

/// An address on the internet, each in a network of its own.
fn far(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    ([203, high, low, 1], 6881).into()
}

/// What the indexes say must be what the addresses are.
fn audit(candidates: &Candidates) {
    let mut twin = Candidates::new(candidates.privacy, Rng::new(0));
    for (&remote, &candidate) in &candidates.all.known {
        twin.put_in(remote, candidate);
    }
    assert_eq!(twin.all.waiting, candidates.all.waiting);
    assert_eq!(twin.all.due, candidates.all.due);
    assert_eq!(twin.all.expendable, candidates.all.expendable);
    assert_eq!(twin.all.told_by, candidates.all.told_by);
    assert_eq!(twin.all.ports, candidates.all.ports);
}

#[test]
fn trusted_and_near_addresses_are_dialled_first() {
    let (mut candidates, mut gate) = at_home();
    let near = |n: u8| addr(n);
    let sender = IpAddr::from([10, 0, 0, 9]);
    let order = [
        (far(1), Source::User),
        (near(1), Source::Lsd),
        (far(2), Source::Incoming),
        (near(2), Source::Evpeer { sender }),
        (far(3), Source::Tracker),
    ];
    for (remote, source) in order.into_iter().rev() {
        assert!(candidates.add(remote, source, secs(0)), "{remote}");
    }
    for (remote, source) in order {
        let taken = candidates.take_due(Reach::Everywhere, &mut gate, secs(0));
        assert_eq!(taken, Some(remote), "{source:?}");
    }
    assert_eq!(
        candidates.take_due(Reach::Everywhere, &mut gate, secs(0)),
        None
    );
    audit(&candidates);
}

#[test]
fn addresses_out_of_reach_stay_due() {
    let (mut candidates, mut gate) = at_home();
    let far_apart = |n: u16| far(300 * n);
    let sources = [Source::Incoming, Source::Tracker, pex(9)];
    for (n, source) in (1..).zip(sources) {
        assert!(candidates.add(addr(n as u8), source, secs(0)));
        assert!(candidates.add(far_apart(n), source, secs(0)));
    }
    candidates.ripen(secs(0));
    assert_eq!(
        candidates.take_due(Reach::Nowhere, &mut gate, secs(1)),
        None
    );
    assert_eq!(candidates.next_deadline(Reach::Nowhere), None);
    for (reach, is_near) in [(Reach::OffLink, false), (Reach::OnLink, true)] {
        let mut taken = Vec::new();
        while let Some(remote) = candidates.take_due(reach, &mut gate, secs(1)) {
            taken.push(remote);
            audit(&candidates);
        }
        let wanted = |n: u8| match is_near {
            true => addr(n),
            false => far_apart(n.into()),
        };
        assert_eq!(taken[0], wanted(1), "first-hand before what others told");
        taken.sort_unstable();
        let mut all: Vec<_> = (1..=3).map(wanted).collect();
        all.sort_unstable();
        assert_eq!(taken, all, "{reach:?}");
        assert_eq!(candidates.next_deadline(reach), None);
    }
}

#[test]
fn address_of_the_user_is_within_any_reach() {
    let (mut candidates, mut gate) = at_home();
    candidates.add(addr(1), Source::Incoming, secs(0));
    candidates.add(far(1), Source::User, secs(0));
    candidates.ripen(secs(0));
    assert_eq!(candidates.next_deadline(Reach::Nowhere), Some(secs(0)));
    let taken = candidates.take_due(Reach::Nowhere, &mut gate, secs(1));
    assert_eq!(taken, Some(far(1)));
    assert_eq!(candidates.next_deadline(Reach::Nowhere), None);
}

#[test]
fn address_without_failures_is_dialled_before_one_that_failed() {
    let (mut candidates, mut gate) = at_home();
    candidates.add(addr(1), Source::Tracker, secs(0));
    candidates.take_due(Reach::Everywhere, &mut gate, secs(0));
    candidates.ended(addr(1), End::Unreachable, Duration::ZERO, secs(0));
    for n in 2..30 {
        candidates.add(addr(n), Source::Tracker, secs(0));
    }
    let order: Vec<_> = (1..30)
        .map(|_| candidates.take_due(Reach::Everywhere, &mut gate, secs(10)))
        .collect();
    assert_eq!(order.last(), Some(&Some(addr(1))));
    assert_ne!(order[0], Some(addr(2)), "among equals chance decides");
}

#[test]
fn who_speaks_himself_is_dialled_again_at_once() {
    #[rustfmt::skip]
    let cases = [
        // source             dialled
        (Source::Lsd,         true),
        (Source::Incoming,    true),
        (Source::Tracker,     false),
        (pex(9),              false),
    ];
    for (source, is_dialled) in cases {
        let (mut candidates, mut gate) = at_home();
        candidates.add(addr(1), pex(9), secs(0));
        for _ in 0..6 {
            let at = candidates
                .next_deadline(Reach::Everywhere)
                .expect("it waits");
            candidates
                .take_due(Reach::Everywhere, &mut gate, at)
                .expect("it is due");
            candidates.ended(addr(1), End::Unreachable, Duration::ZERO, at);
        }
        let soon = secs(64);
        assert_eq!(
            candidates.take_due(Reach::Everywhere, &mut gate, soon),
            None
        );
        assert!(!candidates.add(addr(1), source, soon), "not new");
        let taken = candidates.take_due(Reach::Everywhere, &mut gate, soon);
        assert_eq!(taken.is_some(), is_dialled, "{source:?}");
        audit(&candidates);
    }
    // A connection of no use was no failure: no word makes it useful.
    let (mut candidates, mut gate) = at_home();
    candidates.add(addr(1), Source::Lsd, secs(0));
    candidates.take_due(Reach::Everywhere, &mut gate, secs(0));
    candidates.ended(addr(1), End::Redundant, Duration::ZERO, secs(0));
    candidates.add(addr(1), Source::Lsd, secs(300));
    assert_eq!(candidates.next_deadline(Reach::Everywhere), Some(secs(600)));
}

#[test]
fn full_list_of_dead_hearsay_gives_way_to_better_sources() {
    let (mut candidates, mut gate) = at_home();
    for n in 0..CANDIDATES_MAX as u16 {
        assert!(candidates.add(far(n), pex((n / 500) as u8), secs(0)));
    }
    let newcomer = far(5000);
    assert!(!candidates.add(newcomer, pex(9), secs(0)), "no better");
    let failed = candidates
        .take_due(Reach::Everywhere, &mut gate, secs(0))
        .expect("all are due");
    candidates.ended(failed, End::Unreachable, Duration::ZERO, secs(0));
    assert!(candidates.add(newcomer, pex(9), secs(0)));
    assert!(
        candidates.add(failed, Source::Tracker, secs(0)),
        "it had to go"
    );
    for n in 0..100 {
        let busy = candidates
            .take_due(Reach::Everywhere, &mut gate, secs(0))
            .expect("all are due");
        assert!(candidates.add(far(6000 + n), Source::Tracker, secs(0)));
        assert!(!candidates.add(busy, pex(9), secs(0)), "who is busy stays");
    }
    for n in 0..200 {
        assert!(candidates.add(addr(n), Source::Lsd, secs(0)));
        assert!(candidates.add(([10, 0, 0, n], 7000).into(), pex(8), secs(0)));
    }
    assert_eq!(candidates.len(), CANDIDATES_MAX);
    audit(&candidates);
}

#[test]
fn what_the_user_named_never_gives_way() {
    let (mut candidates, _) = at_home();
    for n in 0..CANDIDATES_MAX as u16 {
        candidates.add(far(n), Source::User, secs(0));
    }
    for source in [Source::Lsd, Source::User] {
        assert!(!candidates.add(addr(1), source, secs(0)), "{source:?}");
    }
    assert_eq!(candidates.len(), CANDIDATES_MAX);
}

#[test]
fn hearsay_fills_neither_the_list_nor_the_ports_of_a_host() {
    let (mut candidates, _) = at_home();
    let from_one = (0..2000).filter(|&n| candidates.add(far(n), pex(1), secs(0)));
    assert_eq!(from_one.count(), HEARSAY_MAX);
    assert!(
        candidates.add(far(2000), pex(2), secs(0)),
        "another may tell"
    );
    assert!(candidates.add(far(2001), Source::Tracker, secs(0)));
    #[rustfmt::skip]
    let cases = [
        // host          ports taken of 1500
        ([10, 0, 0, 7],  PORTS_MAX),
        ([127, 0, 0, 1], LOOPBACK_PORTS_MAX),
    ];
    for (host, taken) in cases {
        let (mut candidates, _) = at_home();
        let told = (2000..3500).filter(|&port| {
            let source = pex((port % 10) as u8);
            candidates.add((host, port).into(), source, secs(0))
        });
        assert_eq!(told.count(), taken, "{host:?}");
        let own_word = (host, 9999).into();
        assert!(candidates.add(own_word, Source::Incoming, secs(0)));
    }
    // Whose word is replaced by a better one has room again.
    candidates.add(far(0), Source::Tracker, secs(0));
    assert!(candidates.add(far(3000), pex(1), secs(0)));
    audit(&candidates);
}

#[test]
fn addresses_that_nobody_has_or_that_are_services_are_not_taken() {
    #[rustfmt::skip]
    let cases = [
        // address                      tracker   user
        ("203.0.113.1:6881",            true,     true),
        ("203.0.113.1:1024",            true,     true),
        ("203.0.113.1:1023",            false,    true),
        ("203.0.113.1:0",               false,    false),
        ("10.0.0.7:80",                 true,     true),
        ("127.0.0.1:80",                true,     true),
        ("[fe80::1%2]:80",              true,     true),
        ("0.0.0.0:6881",                false,    false),
        ("224.0.0.1:6881",              false,    true),
        ("255.255.255.255:6881",        false,    true),
        ("[::ffff:203.0.113.1]:1023",   false,    true),
    ];
    for (text, by_tracker, by_user) in cases {
        for (source, taken) in [(Source::Tracker, by_tracker), (Source::User, by_user)] {
            let (mut candidates, _) = at_home();
            let is_taken = candidates.add(parsed(text), source, secs(0));
            assert_eq!(is_taken, taken, "{text} {source:?}");
        }
    }
    // When a link is gone, its services are off-link.
    let (mut candidates, _) = at_home();
    candidates.add(parsed("10.0.0.7:80"), Source::Tracker, secs(0));
    candidates.add(parsed("10.0.0.7:6881"), Source::Tracker, secs(0));
    candidates.interfaces_found(&Interfaces::default());
    assert_eq!(candidates.len(), 1);
    audit(&candidates);
}

#[test]
fn private_torrent_takes_nobody_from_peers_or_the_link() {
    let sender = IpAddr::from([10, 0, 0, 9]);
    #[rustfmt::skip]
    let cases = [
        (Source::User, true), (Source::Tracker, true), (Source::Incoming, true),
        (Source::Lsd, false), (pex(9), false),         (Source::Evpeer { sender }, false),
    ];
    for (source, is_taken) in cases {
        let mut candidates = Candidates::new(Privacy::Private, Rng::new(1));
        assert_eq!(
            candidates.add(addr(1), source, secs(0)),
            is_taken,
            "{source:?}"
        );
    }
}

#[test]
fn address_has_one_form_and_keeps_its_scope() {
    let (mut candidates, mut gate) = at_home();
    candidates.add(parsed("[::ffff:10.0.0.5]:6881"), Source::Tracker, secs(0));
    assert!(!candidates.add(addr(5), Source::Tracker, secs(0)));
    assert_eq!(
        candidates.take_due(Reach::Everywhere, &mut gate, secs(0)),
        Some(addr(5))
    );
    for text in ["[fe80::1%2]:6881", "[fe80::1%3]:6881"] {
        assert!(candidates.add(parsed(text), Source::Lsd, secs(0)), "{text}");
        assert_eq!(
            candidates.take_due(Reach::Everywhere, &mut gate, secs(0)),
            Some(parsed(text))
        );
    }
}

#[test]
fn what_the_gate_refuses_waits_and_what_the_user_named_passes() {
    let (mut candidates, mut gate) = at_home();
    let victim = |port| SocketAddr::from(([203, 0, 113, 1], port));
    for port in 2000..2010 {
        candidates.add(victim(port), Source::Tracker, secs(0));
    }
    candidates.add(victim(53), Source::User, secs(0));
    assert_eq!(
        candidates.take_due(Reach::Everywhere, &mut gate, secs(0)),
        Some(victim(53))
    );
    for _ in 0..3 {
        assert!(
            candidates
                .take_due(Reach::Everywhere, &mut gate, secs(0))
                .is_some()
        );
    }
    assert_eq!(
        candidates.take_due(Reach::Everywhere, &mut gate, secs(0)),
        None
    );
    let next = candidates
        .next_deadline(Reach::Everywhere)
        .expect("seven wait");
    assert!(next >= secs(600) && next < secs(601), "{next}");
    assert!(
        candidates
            .take_due(Reach::Everywhere, &mut gate, next)
            .is_some()
    );
    audit(&candidates);
}

/// Goal: the indexes never differ from what they index, and the limits hold.
/// Method: random calls on few addresses and a small clock.
#[test]
fn indexes_stay_true_under_random_calls() {
    for rng_seed in 0..20 {
        let mut rng = Rng::new(rng_seed);
        let (mut candidates, mut gate) = at_home();
        let mut now = secs(0);
        let sender = IpAddr::from([10, 0, 0, 9]);
        let sources = [
            Source::User,
            Source::Tracker,
            Source::Incoming,
            Source::Lsd,
            pex(1),
            pex(2),
            Source::Evpeer { sender },
        ];
        let ends = [End::Unreachable, End::Lost, End::Redundant, End::Never];
        for step in 0..3000 {
            now += Duration::from_millis(rng.below(3000).into());
            let remote = match rng.below(2) {
                0 => far(rng.below(60) as u16),
                _ => addr(rng.below(60) as u8),
            };
            match rng.below(10) {
                0..4 => {
                    let source = sources[rng.below(sources.len() as u32) as usize];
                    candidates.add(remote, source, now);
                }
                4..6 => _ = candidates.take_due(Reach::Everywhere, &mut gate, now),
                6 => candidates.connected(remote),
                7..9 => {
                    // Bad ends are rare, or soon nobody would be left.
                    let last = if rng.below(50) == 0 { 4 } else { 3 };
                    let end = ends[rng.below(last) as usize];
                    let age = Duration::from_secs(rng.below(60).into());
                    candidates.ended(remote, end, age, now);
                }
                _ => match rng.below(2) {
                    0 => candidates.interfaces_found(&home()),
                    _ => candidates.interfaces_found(&Interfaces::default()),
                },
            }
            if step % 50 == 0 {
                audit(&candidates);
            }
        }
        assert!(candidates.len() > 20, "rng_seed {rng_seed}");
    }
}
