//! Whom the client asks and when, without a network.

use super::*;
use crate::base::time::Instant;

const START: Instant = Instant::from_micros(5_000_000);
const FAR: Nearness = Nearness::Far;
const NEAR: Nearness = Nearness::Near;

/// One string a tier, names separated by spaces.
fn client(tiers: &[&str], rng_seed: u64) -> Client {
    let urls = |tier: &&str| {
        tier.split(' ')
            .map(|n| format!("http://{n}/announce"))
            .collect()
    };
    Client::new(tiers.iter().map(urls).collect(), Rng::new(rng_seed), START)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn reply(interval: u64) -> AnnounceReply {
    AnnounceReply {
        interval: Some(secs(interval)),
        ..AnnounceReply::default()
    }
}

fn refused(retry: Option<Retry>) -> AnnounceFailure {
    AnnounceFailure::Answer(AnnounceError::Refused {
        reason: "no".to_owned(),
        retry,
    })
}

fn dead() -> AnnounceFailure {
    AnnounceFailure::Unreachable("connection refused".to_owned())
}

fn name(wanted: &AnnounceWanted) -> &str {
    wanted.url.host()
}

/// What is asked next, at the moment when it is due.
fn ask(client: &mut Client) -> (AnnounceWanted, Instant) {
    let now = client.next_deadline().expect("something to come");
    let just_before = Instant::from_micros(now.as_micros() - 1);
    assert_eq!(client.poll(just_before), None, "not before its time");
    let wanted = client.poll(now).expect("what the deadline promised");
    assert!(client.is_asking(wanted.id));
    (wanted, now)
}

/// Everything that is to be asked at `now`.
fn ask_all(client: &mut Client, now: Instant) -> Vec<AnnounceWanted> {
    std::iter::from_fn(|| client.poll(now)).collect()
}

fn names(all: &[AnnounceWanted]) -> Vec<&str> {
    all.iter().map(name).collect()
}

/// The next announce, answered at once.
fn ask_and_answer(client: &mut Client, interval: u64) -> (AnnounceWanted, Instant) {
    let (wanted, now) = ask(client);
    let outcome = client.answered(wanted.id, reply(interval), FAR, now);
    assert!(matches!(outcome, Some(Outcome::Answered { .. })));
    (wanted, now)
}

/// The next announce, which fails at once.
fn ask_and_fail(client: &mut Client) -> (AnnounceWanted, Instant) {
    let (wanted, now) = ask(client);
    client
        .failed(wanted.id, &dead(), now)
        .expect("a failure is told");
    (wanted, now)
}

#[test]
fn first_announce_is_at_once_and_names_the_event() {
    let mut client = client(&["a"], 1);
    let (wanted, now) = ask_and_answer(&mut client, 1800);
    assert_eq!(now, START);
    assert_eq!(
        (wanted.event, wanted.numwant),
        (Some(Event::Started), tier::NUMWANT)
    );
    let (wanted, now) = ask(&mut client);
    assert_eq!((wanted.event, now), (None, START + secs(1800)));
    assert_eq!(client.poll(now), None, "one at a time");
}

/// Row 80 of the hostile inputs.
#[test]
fn intervals_are_clamped() {
    let huge = 1 << 63;
    let day = 24 * 3600;
    #[rustfmt::skip]
    let cases = [
        // what it shows         interval    min         from  next
        ("as told",              Some(1800), None,       FAR,  1800),
        ("not told",             None,       None,       FAR,  1800),
        ("zero",                 Some(0),    None,       FAR,  60),
        ("zero, near",           Some(0),    None,       NEAR, 5),
        ("seven, near",          Some(7),    None,       NEAR, 7),
        ("huge",                 Some(huge), None,       FAR,  day),
        ("huge, near",           Some(huge), None,       NEAR, day),
        ("minimum below it",     Some(1800), Some(300),  FAR,  1800),
        ("minimum above it",     Some(120),  Some(900),  FAR,  900),
        ("minimum is huge",      Some(120),  Some(huge), FAR,  day),
        ("minimum alone, short", Some(0),    Some(0),    FAR,  60),
    ];
    for (name, interval, min_interval, nearness, next) in cases {
        let mut client = client(&["a"], 1);
        let (wanted, now) = ask(&mut client);
        let reply = AnnounceReply {
            interval: interval.map(secs),
            min_interval: min_interval.map(secs),
            ..AnnounceReply::default()
        };
        client.answered(wanted.id, reply, nearness, now);
        assert_eq!(client.next_deadline(), Some(START + secs(next)), "{name}");
    }
}

#[test]
fn pauses_double_up_to_half_an_hour() {
    let mut client = client(&["a"], 7);
    for shortest in [15, 30, 60, 120, 240, 480, 960, 1800, 1800, 1800] {
        let (wanted, now) = ask_and_fail(&mut client);
        assert_eq!(wanted.event, Some(Event::Started), "it never answered");
        let pause = client.next_deadline().expect("a next try") - now;
        assert!(
            pause >= secs(shortest) && pause < secs(shortest) * 5 / 4,
            "{pause:?}"
        );
    }
    ask_and_answer(&mut client, 600);
    let (wanted, now) = ask_and_fail(&mut client);
    assert_eq!(wanted.event, None);
    let pause = client.next_deadline().expect("a next try") - now;
    assert!(
        pause < secs(20),
        "an answer forgives earlier failures: {pause:?}"
    );
}

/// Row 86 of the hostile inputs; BEP 31.
#[test]
fn refusals_decide_how_long_a_tracker_rests() {
    let after = |minutes: u64| refused(Some(Retry::After(secs(minutes * 60))));
    #[rustfmt::skip]
    let cases = [
        // what it shows         failure                          rest, seconds
        ("no reason to wait",    refused(None),                   Some(15)),
        ("retry in 5 minutes",   after(5),                        Some(300)),
        ("retry in 0 minutes",   after(0),                        Some(15)),
        ("retry in ages",        after(1 << 50),                  Some(24 * 3600)),
        ("retry never",          refused(Some(Retry::Never)),     None),
        ("gone",                 AnnounceFailure::Status(410),    None),
        ("forbidden",            AnnounceFailure::Status(403),    Some(1800)),
        ("too many requests",    AnnounceFailure::Status(429),    Some(120)),
        ("overloaded",           AnnounceFailure::Status(503),    Some(120)),
        ("server error",         AnnounceFailure::Status(500),    Some(15)),
        ("a web page",           AnnounceError::NotADictionary.into(), Some(15)),
    ];
    for (name, failure, rest) in cases {
        let mut client = client(&["a"], 1);
        let (wanted, now) = ask(&mut client);
        let outcome = client.failed(wanted.id, &failure, now);
        let Some(Outcome::Failed { message, .. }) = outcome else {
            panic!("{name}: a failure is reported");
        };
        let rested = client.next_deadline().map(|at| (at - START).as_secs());
        match (rest, rested) {
            (None, None) => assert!(message.ends_with("not asked again"), "{message}"),
            (Some(rest), Some(rested)) => {
                assert!(
                    rested >= rest && rested < rest + rest.min(1800) / 4 + 1,
                    "{name}"
                );
                assert!(
                    message.ends_with(&format!("next try in {rested} s")),
                    "{message}"
                );
            }
            _ => panic!("{name}: {rested:?}"),
        }
    }
}

#[test]
fn every_tier_announces_at_once_on_its_own() {
    let mut client = client(&["a", "b", "c"], 1);
    let all = ask_all(&mut client, START);
    assert_eq!(names(&all), ["a", "b", "c"]);
    assert!(all.iter().all(|w| w.event == Some(Event::Started)));
    client.answered(all[1].id, reply(100), FAR, START);
    client.failed(all[0].id, &dead(), START);
    client.answered(all[2].id, reply(60), FAR, START);
    let (wanted, now) = ask_and_answer(&mut client, 60);
    assert_eq!(name(&wanted), "a");
    assert!(now - START >= secs(15), "after its pause");
    let rounds: Vec<(String, u64)> = (0..5)
        .map(|_| {
            let (wanted, now) = ask_and_answer(&mut client, 60);
            (name(&wanted).to_owned(), (now - START).as_secs())
        })
        .filter(|(name, _)| name != "a")
        .collect();
    let expected = [("c", 60), ("b", 100), ("c", 120)].map(|(name, at)| (name.to_owned(), at));
    assert_eq!(rounds, expected);
}

#[test]
fn next_tracker_of_a_tier_is_asked_at_once_when_one_fails() {
    let mut client = client(&["a b c"], 1);
    let (first, _) = ask_and_fail(&mut client);
    let (second, now) = ask_and_fail(&mut client);
    let (third, later) = ask_and_answer(&mut client, 600);
    assert_eq!((now, later), (START, START));
    let mut all = [name(&first), name(&second), name(&third)];
    all.sort_unstable();
    assert_eq!(all, ["a", "b", "c"]);
    let (wanted, now) = ask_and_fail(&mut client);
    assert_eq!((name(&wanted), now), (name(&third), START + secs(600)));
    let (wanted, now) = ask(&mut client);
    assert_eq!((name(&wanted), now), (name(&first), START + secs(600)));
}

#[test]
fn silent_tracker_is_helped_out_by_the_next_of_its_tier() {
    let mut client = client(&["a b c d"], 1);
    let asked: Vec<(AnnounceWanted, Instant)> = (0..3).map(|_| ask(&mut client)).collect();
    let times: Vec<u64> = asked
        .iter()
        .map(|(_, at)| (*at - START).as_secs())
        .collect();
    assert_eq!(times, [0, 3, 6]);
    assert_eq!(client.poll(START + secs(60)), None, "three at a time");
    // The second one answers first: it is the tier's tracker from now on.
    let now = START + secs(7);
    client.answered(asked[1].0.id, reply(100), FAR, now);
    assert_eq!(ask_all(&mut client, now + secs(99)), []);
    client
        .answered(asked[0].0.id, reply(10), FAR, now + secs(1))
        .expect("late, and of use");
    client.failed(asked[2].0.id, &dead(), now + secs(1));
    let (wanted, at) = ask_and_answer(&mut client, 100);
    assert_eq!((name(&wanted), at), (name(&asked[1].0), now + secs(100)));
    assert_eq!(wanted.event, None);
}

#[test]
fn working_tracker_moves_to_the_front_of_its_tier() {
    let mut client = client(&["a b c"], 3);
    let (first, _) = ask_and_fail(&mut client);
    let (second, _) = ask_and_answer(&mut client, 60);
    for _ in 0..5 {
        let (wanted, _) = ask_and_answer(&mut client, 60);
        assert_eq!(name(&wanted), name(&second));
    }
    ask_and_fail(&mut client);
    let (wanted, _) = ask(&mut client);
    assert_eq!(
        name(&wanted),
        name(&first),
        "then those that were in front of it"
    );
}

#[test]
fn order_inside_a_tier_is_random() {
    let first = |rng_seed| name(&ask(&mut client(&["a b c", "d"], rng_seed)).0).to_owned();
    let mut firsts: Vec<String> = (0..60).map(first).collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts, ["a", "b", "c"]);
}

#[test]
fn completed_is_told_at_once_and_once() {
    let mut client = client(&["a"], 1);
    ask_and_answer(&mut client, 1800);
    let end = START + secs(77);
    client.completed(end);
    let (wanted, now) = ask_and_fail(&mut client);
    assert_eq!((wanted.event, now), (Some(Event::Completed), end));
    let (wanted, now) = ask_and_answer(&mut client, 1800);
    assert_eq!(wanted.event, Some(Event::Completed), "nobody heard it");
    let (wanted, later) = ask(&mut client);
    assert_eq!((wanted.event, later), (None, now + secs(1800)));
}

#[test]
fn completed_is_told_to_every_tracker_that_lists_us() {
    let mut client = client(&["a", "b", "c", "d e"], 1);
    let all = ask_all(&mut client, START);
    client.answered(all[0].id, reply(1800), FAR, START);
    client.answered(all[1].id, reply(1800), FAR, START);
    client.failed(all[2].id, &dead(), START);
    let (listed, waiting) = (name(&all[3]), all[3].id);
    let end = START + secs(1);
    client.completed(end);
    let told = ask_all(&mut client, end);
    assert_eq!(names(&told), ["a", "b"]);
    assert!(told.iter().all(|w| w.event == Some(Event::Completed)));
    client.answered(told[0].id, reply(1800), FAR, end);
    client.answered(told[1].id, reply(1800), FAR, end);
    // It may list us: once it says so, it hears of the end.
    client.answered(waiting, reply(1800), FAR, end);
    let (wanted, now) = ask_and_answer(&mut client, 1800);
    assert_eq!(
        (name(&wanted), wanted.event, now),
        (listed, Some(Event::Completed), end)
    );
    // It failed, but may have heard of the start.
    let (wanted, _) = ask_and_answer(&mut client, 1800);
    assert_eq!((name(&wanted), wanted.event), ("c", Some(Event::Started)));
    let (wanted, _) = ask_and_answer(&mut client, 1800);
    assert_eq!((name(&wanted), wanted.event), ("c", Some(Event::Completed)));
    for _ in 0..8 {
        let (wanted, _) = ask_and_answer(&mut client, 1800);
        assert_eq!(wanted.event, None, "each once");
    }
}

/// Goal: whom a run could not tell of the end, the next one tells, after its start; and so does one
/// that was paused meanwhile.
#[test]
fn completed_is_told_by_the_next_run_to_those_who_have_not_heard() {
    let mut first = client(&["a", "b"], 1);
    let all = ask_all(&mut first, START);
    first.answered(all[0].id, reply(1800), FAR, START);
    first.answered(all[1].id, reply(1800), FAR, START);
    assert!(first.untold().is_empty());
    let end = START + secs(1);
    first.completed(end);
    let told = ask_all(&mut first, end);
    first.answered(told[0].id, reply(1800), FAR, end);
    first.failed(told[1].id, &dead(), end);
    let untold = first.untold();
    assert_eq!(untold, [told[1].url.to_string()]);

    let mut next = client(&["a", "b"], 2);
    next.owe(&untold, START);
    let mut paused = first;
    paused.stopped(end);
    while paused.poll(end).is_some() {}
    paused.resumed(end + secs(100));
    for mut client in [next, paused] {
        let mut events = Vec::new();
        for _ in 0..6 {
            let (wanted, _) = ask_and_answer(&mut client, 1800);
            events.push((name(&wanted).to_owned(), wanted.event));
        }
        for url in ["a", "b"] {
            let of_it = events.iter().filter(|(name, _)| name == url);
            let told: Vec<Event> = of_it.filter_map(|(_, event)| *event).collect();
            let expected: &[Event] = match untold[0].contains(&format!("//{url}/")) {
                true => &[Event::Started, Event::Completed],
                false => &[Event::Started],
            };
            assert_eq!(told, expected, "{url}: {events:?}");
        }
        assert!(client.untold().is_empty());
    }
}

#[test]
fn news_of_the_end_do_not_wait_for_a_slow_tracker() {
    let mut client = client(&["a", "b"], 1);
    let all = ask_all(&mut client, START);
    client.answered(all[0].id, reply(1800), FAR, START);
    let end = START + secs(20);
    client.completed(end);
    let (wanted, now) = ask_and_answer(&mut client, 1800);
    assert_eq!((name(&wanted), now), ("a", end));
    assert!(client.is_asking(all[1].id));
}

#[test]
fn stop_is_told_to_those_who_know_us_and_answer() {
    let mut client = client(&["a", "b", "c", "d", "e f"], 1);
    let all = ask_all(&mut client, START);
    assert_eq!(names(&all[..4]), ["a", "b", "c", "d"]);
    for wanted in &all[..3] {
        client.answered(wanted.id, reply(60), FAR, START);
    }
    client.failed(all[4].id, &dead(), START); // one of the last tier fails, the other answers
    let (other, _) = ask_and_answer(&mut client, 1800);
    let now = START + secs(60);
    let again = ask_all(&mut client, now);
    assert_eq!(names(&again)[..3], ["a", "b", "c"]);
    client.failed(again[0].id, &dead(), now); // a fails later
    client.answered(again[1].id, reply(60), FAR, now); // b answers, c and d are being asked
    client.stopped(now);
    assert!(!client.is_asking(again[2].id));
    assert_eq!(
        client.answered(again[2].id, reply(0), FAR, now),
        None,
        "of no interest"
    );

    let mut told = Vec::new();
    while let Some(wanted) = client.poll(now) {
        assert_eq!((wanted.event, wanted.numwant), (Some(Event::Stopped), 0));
        told.push(name(&wanted).to_owned());
        assert!(!client.is_asking(wanted.id));
        match told.len() {
            1 => assert_eq!(client.failed(wanted.id, &dead(), now), None),
            _ => assert_eq!(client.answered(wanted.id, reply(0), FAR, now), None),
        }
    }
    assert_eq!(
        told,
        ["b", "c", "d", name(&other)],
        "each once, whatever it answers"
    );
    assert!(client.is_finished());
    assert_eq!(client.next_deadline(), None);
}

#[test]
fn tracker_that_never_heard_of_us_is_told_nothing() {
    let mut unheard = client(&["a"], 1);
    assert!(!unheard.is_finished());
    unheard.stopped(START);
    assert!(unheard.is_finished());
    assert_eq!(unheard.poll(START), None);
}

#[test]
fn tracker_id_goes_back_to_its_tracker_only() {
    let mut client = client(&["a", "b"], 1);
    let all = ask_all(&mut client, START);
    let named = AnnounceReply {
        tracker_id: Some(b"id of a".to_vec()),
        ..reply(60)
    };
    client.answered(all[0].id, named, FAR, START);
    client.answered(all[1].id, reply(60), FAR, START);
    for _ in 0..6 {
        let (wanted, _) = ask_and_answer(&mut client, 60);
        let expected = (name(&wanted) == "a").then_some(b"id of a".to_vec());
        assert_eq!(wanted.tracker_id, expected, "kept until replaced");
    }
}

#[test]
fn addresses_that_cannot_be_asked_are_reported_without_secrets() {
    let tier = [
        "udp://u:secret@t.example/announce?passkey=secret",
        "https://t.example/secret/announce",
        "http://t.example/announce",
        "http://t.example/announce",
        "\u{1b}[2J",
    ];
    let tiers = vec![tier.map(str::to_owned).to_vec(), Vec::new()];
    let mut client = Client::new(tiers, Rng::new(1), START);
    let rejected: Vec<Rejected> = std::iter::from_fn(|| client.poll_rejected()).collect();
    let shown: Vec<&str> = rejected.iter().map(|r| &*r.url).collect();
    assert_eq!(
        shown,
        ["udp://t.example", "https://t.example", "\\u{1b}[2J"]
    );
    assert_eq!(names(&ask_all(&mut client, START)), ["t.example"]);
    let mut none = Client::new(Vec::new(), Rng::new(1), START);
    assert_eq!((none.next_deadline(), none.poll(START)), (None, None));
}

#[test]
fn number_of_trackers_is_limited() {
    let tiers = (0..1000).map(|n| vec![format!("http://t{n}/"), "nonsense".to_owned()]);
    let mut client = Client::new(tiers.collect(), Rng::new(1), START);
    let rejected = std::iter::from_fn(|| client.poll_rejected()).count();
    let kept: usize = client.tiers.iter().map(Tier::len).sum();
    assert_eq!(kept + rejected, TRACKERS_MAX);
}

#[test]
fn number_of_announces_under_way_is_limited() {
    let tiers: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    let tiers: Vec<&str> = tiers.iter().map(|tier| &**tier).collect();
    let mut client = client(&tiers, 1);
    let all = ask_all(&mut client, START);
    assert_eq!(all.len(), TORRENT_ANNOUNCES_MAX);
    assert_eq!(client.next_deadline(), Some(START + ANNOUNCE_TIMEOUT));
    client.failed(all[0].id, &dead(), START);
    let more = ask_all(&mut client, START);
    assert_eq!(names(&more), ["t10"], "who waits longest comes next");
}

#[test]
fn announce_that_takes_too_long_has_failed() {
    let mut client = client(&["a"], 1);
    let (wanted, _) = ask(&mut client);
    let late = START + ANNOUNCE_TIMEOUT;
    let just_before = Instant::from_micros(late.as_micros() - 1);
    assert_eq!(client.poll_overdue(just_before), None);
    assert_eq!(client.next_deadline(), Some(late));
    let (id, outcome) = client.poll_overdue(late).expect("it is too late");
    assert_eq!(id, wanted.id);
    assert!(matches!(outcome, Some(Outcome::Failed { .. })));
    assert_eq!(client.poll_overdue(late), None, "said once");
    assert_eq!(client.answered(id, reply(60), FAR, late), None);
    let (_, again) = ask(&mut client);
    assert!(again - late >= PAUSE_MIN);
}

fn evpeers(count: u8) -> Vec<SocketAddr> {
    let addr = |n| SocketAddr::from(([10, 0, 0, n], 6881));
    (1..=count).map(addr).collect()
}

/// The evpeers asked at each moment up to `end`; every one of them fails with `failure`.
fn choices(client: &mut Client, failure: &AnnounceFailure, end: Instant) -> Vec<(String, Instant)> {
    let mut chosen = Vec::new();
    while let Some(now) = client.next_deadline()
        && now < end
    {
        let now = now.max(START);
        let wanted = client.poll(now).expect("what the deadline promised");
        chosen.push((wanted.url.to_string(), now));
        client.failed(wanted.id, failure, now);
    }
    chosen
}

#[test]
fn evpeers_are_asked_when_the_torrent_has_no_tracker() {
    let mut client = Client::new(Vec::new(), Rng::new(1), START);
    client.set_last_resort(evpeers(10));
    let mut asked = Vec::new();
    while let Some(now) = client.next_deadline()
        && now < START + secs(10)
    {
        let wanted = client.poll(now).expect("what the deadline promised");
        assert_eq!(wanted.event, Some(Event::Started));
        asked.push((wanted, now));
    }
    assert_eq!(asked.len(), 3, "a few of them");
    for (wanted, _) in &asked {
        let url = wanted.url.to_string();
        assert!(url.starts_with("http://10.0.0.") && url.ends_with(":6881/announce"));
    }
    let now = START + secs(10);
    let (first, _) = &asked[0];
    let outcome = client.answered(first.id, reply(5), FAR, now);
    assert!(matches!(outcome, Some(Outcome::Answered { .. })));
    let (again, at) = ask(&mut client);
    assert_eq!(
        (&again.url, at),
        (&first.url, now + secs(5)),
        "as near ones"
    );
    assert_eq!(again.event, None);
    client.completed(at);
    client.stopped(at);
    let told = ask_all(&mut client, at);
    assert_eq!(told.len(), 3, "who may list us hears that we leave");
}

#[test]
fn evpeer_that_refuses_is_dropped_and_one_that_is_away_rests() {
    let mut client = Client::new(Vec::new(), Rng::new(1), START);
    client.set_last_resort(evpeers(10));
    let end = START + secs(3600);
    let mut chosen = choices(&mut client, &refused(None), end);
    let times: Vec<Instant> = chosen.iter().map(|(_, at)| *at).collect();
    assert!(
        times
            .windows(2)
            .all(|pair| pair[1] - pair[0] >= Duration::from_millis(500)),
        "no burst: {times:?}"
    );
    chosen.sort();
    chosen.dedup_by(|a, b| a.0 == b.0);
    assert_eq!((chosen.len(), times.len()), (10, 10), "each once");
    client.set_last_resort(evpeers(10));
    assert_eq!(client.next_deadline(), None, "still dropped");

    let mut client = Client::new(Vec::new(), Rng::new(1), START);
    client.set_last_resort(evpeers(1));
    let chosen = choices(&mut client, &dead(), START + secs(3600));
    assert_eq!(chosen.len(), 12, "every five minutes");
    let shown = client.failed(AnnounceId(0), &dead(), START);
    assert_eq!(shown, None, "nobody needs to hear of it");
}

#[test]
fn evpeers_are_left_alone_while_an_own_tracker_works() {
    let mut client = client(&["a b", "c"], 1);
    client.set_last_resort(evpeers(10));
    let is_own = |wanted: &AnnounceWanted| !name(wanted).starts_with("10.");
    let all = ask_all(&mut client, START);
    assert!(all.iter().all(is_own), "{:?}", names(&all));
    client.failed(all[1].id, &dead(), START);
    assert!(client.poll(START).is_none());
    client.failed(all[0].id, &dead(), START);
    let (second, now) = ask(&mut client);
    assert!(is_own(&second) && now == START);
    // It is silent: after 5 s nobody counts on it.
    let (wanted, now) = ask(&mut client);
    assert!(!is_own(&wanted));
    assert_eq!(now, START + secs(5));
    client.answered(wanted.id, reply(5), NEAR, now);
    client.answered(second.id, reply(1800), FAR, now);
    let end = START + secs(1000);
    while let Some(now) = client.next_deadline()
        && now < end
    {
        let wanted = client.poll(now).expect("what the deadline promised");
        assert_eq!(name(&wanted), "c", "the one that failed is tried again");
        client.failed(wanted.id, &dead(), now);
    }
}

#[test]
fn number_of_known_evpeers_is_limited() {
    let mut client = Client::new(Vec::new(), Rng::new(1), START);
    let many = (0..5000u16).map(|n| SocketAddr::from(([10, 0, 0, 1], n)));
    let scoped = "[fe80::1%2]:6881".parse().expect("an address");
    client.set_last_resort(many.chain([scoped]).collect());
    let chosen = choices(&mut client, &refused(None), START + secs(36_000));
    assert_eq!(chosen.len(), 64);
}

/// Goal: whatever trackers answer, none is asked more often than the limits allow, and the
/// client always comes to an end when it is stopped.
/// Method: a day of random answers and silence; every announce is checked against the last ones.
#[test]
fn no_answer_makes_the_client_ask_too_often() {
    for rng_seed in 0..60 {
        let mut rng = Rng::new(rng_seed);
        let mut client = client(&["a b", "c", "d e f g"], rng_seed);
        let mut last: Vec<(String, Instant)> = Vec::new();
        let mut under_way = Vec::new();
        let (mut asked, mut now) = (0, START);
        while let Some(at) = client.next_deadline()
            && at < START + INTERVAL_MAX
        {
            now = at.max(now);
            while let Some((id, _)) = client.poll_overdue(now) {
                under_way.retain(|&other| other != id);
            }
            while let Some(wanted) = client.poll(now) {
                asked += 1;
                let name = name(&wanted).to_owned();
                if let Some(place) = last.iter().position(|(other, _)| *other == name) {
                    let (_, before) = last.swap_remove(place);
                    let is_news = wanted.event == Some(Event::Completed);
                    assert!(is_news || now - before >= PAUSE_MIN, "{name}");
                }
                last.push((name, now));
                under_way.push(wanted.id);
                assert!(under_way.len() <= TORRENT_ANNOUNCES_MAX);
            }
            while !under_way.is_empty() && rng.below(10) > 0 {
                let place = rng.below(under_way.len() as u32) as usize;
                let id = under_way.swap_remove(place);
                answer_by_chance(&mut client, id, &mut rng, now);
            }
            if rng.below(50) == 0 {
                client.completed(now);
            }
        }
        assert!(
            asked < 7 * 24 * 60,
            "{asked} announces, rng_seed {rng_seed}"
        );
        client.stopped(START);
        assert!(ask_all(&mut client, START).len() <= 7);
        assert!(client.is_finished());
    }
}

fn answer_by_chance(client: &mut Client, id: AnnounceId, rng: &mut Rng, now: Instant) {
    let length = Duration::from_secs(rng.next_u64() >> rng.below(64));
    let outcome = match rng.below(8) {
        0 => client.failed(id, &refused(Some(Retry::After(length))), now),
        1 => client.failed(
            id,
            &AnnounceFailure::Status(rng.below(400) as u16 + 411),
            now,
        ),
        2..=4 => client.failed(id, &dead(), now),
        choice => {
            let reply = AnnounceReply {
                interval: (choice != 5).then_some(length),
                min_interval: (choice == 7).then_some(length / 2),
                ..AnnounceReply::default()
            };
            client.answered(id, reply, FAR, now)
        }
    };
    assert!(outcome.is_some(), "it was under way");
}
