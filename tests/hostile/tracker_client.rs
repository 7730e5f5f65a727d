//! Rows 78 to 86: what trackers do to those who ask them, at an engine without a network.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use desk::Desk;
use evpeer::base::address::{Interface, Interfaces};
use evpeer::base::limits::{
    ANNOUNCE_TIMEOUT, HTTP_HEAD_LEN_MAX, TRACKER_ADDRESSES_MAX, TRACKER_BODY_LEN_MAX,
    TRACKER_PEERS_MAX, TRACKER_REDIRECTS_MAX, TRACKER_TEXT_LEN_MAX, TRACKER_TIMEOUT,
};
use evpeer::wire::udp_tracker::{Reply, Request};

#[path = "tracker_client/desk.rs"]
mod desk;

const NEAR: &str = "http://10.0.0.1/announce";
const FAR: &str = "http://93.184.215.14/announce";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A way to answer: what comes first, what is repeated after it, and what may be taken of it.
struct Bomb {
    name: &'static str,
    first: &'static [u8],
    then: &'static [u8],
    taken_max: usize,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
const BODY_TAKEN_MAX: usize = TRACKER_BODY_LEN_MAX + HTTP_HEAD_LEN_MAX + 64 * 1024;

/// Answers that would go on for ever, or have no good reading.
#[rustfmt::skip]
const BOMBS: &[Bomb] = &[
    Bomb { name: "1 GiB body", first: b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
           then: b"d8:intervali60e", taken_max: 4096 },
    Bomb { name: "a body without end", first: b"HTTP/1.1 200 OK\r\n\r\n",
           then: &[b'x'; 1024], taken_max: BODY_TAKEN_MAX },
    Bomb { name: "chunks without end",
           first: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
           then: b"10\r\n0123456789abcdef\r\n", taken_max: 2 * BODY_TAKEN_MAX },
    Bomb { name: "endless headers", first: OK, then: b"X: yyyyyyyyyyyyyyyyyyyyyyyyy",
           taken_max: HTTP_HEAD_LEN_MAX + 4096 },
    Bomb { name: "10,000 headers", first: OK, then: b"X: y\r\n",
           taken_max: HTTP_HEAD_LEN_MAX + 4096 },
    Bomb { name: "100-continue loop", first: b"", then: b"HTTP/1.1 100 Continue\r\n\r\n",
           taken_max: 4096 },
    Bomb { name: "chunk size overflow",
           first: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
           then: b"", taken_max: 0 },
    Bomb { name: "negative length", first: b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
           then: b"", taken_max: 0 },
    Bomb { name: "two lengths",
           first: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
           then: b"", taken_max: 0 },
    Bomb { name: "gzip", first: b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
           then: b"", taken_max: 0 },
];

#[test]
fn hostile_078_responses_are_capped_in_every_way() {
    for bomb in BOMBS {
        let name = bomb.name;
        let mut desk = Desk::new(&[NEAR]);
        let conn = desk.connect();
        assert!(
            desk.request(conn).contains("Accept-Encoding: identity\r\n"),
            "nothing compressed is asked for"
        );
        desk.say(conn, bomb.first);
        let mut taken = 0;
        while desk.is_open(conn) {
            assert!(taken <= bomb.taken_max, "{name}: {taken} B");
            desk.say(conn, bomb.then);
            taken += bomb.then.len();
        }
        assert_eq!(desk.failures().len(), 1, "{name}");
        // It is asked again after its pause, and may have come to its senses.
        desk.pass(secs(19));
        let conn = desk.connect();
        desk.respond(conn, 200, "", b"d8:intervali60e5:peers0:e");
        assert_eq!(desk.answers(), [0], "{name}");
    }
}

/// A byte a second, no body, no word at all: a minute, whatever the tracker does.
#[test]
fn hostile_078_slow_and_silent_responses_have_a_minute() {
    for pause in [Some(1), Some(20), None] {
        let mut desk = Desk::new(&[NEAR]);
        let conn = desk.connect();
        let began = desk.now;
        let text =
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nd8:intervali60e5:peers0:".iter();
        for byte in text.cycle() {
            if !desk.is_open(conn) {
                break;
            }
            desk.pass(secs(pause.unwrap_or(5)));
            if pause.is_some() {
                desk.say(conn, &[*byte]);
            }
        }
        let lasted = desk.now - began;
        assert!(
            lasted <= TRACKER_TIMEOUT + secs(20),
            "{pause:?}: {lasted:?}"
        );
        assert!(lasted >= TRACKER_TIMEOUT, "{pause:?}: {lasted:?}");
        assert_eq!(desk.failures().len(), 1, "{pause:?}");
    }
    let mut desk = Desk::new(&[NEAR]);
    let conn = desk.connect();
    desk.respond(conn, 200, "", b"");
    assert_eq!(desk.failures().len(), 1, "no body");
}

#[test]
fn hostile_079_redirect_loops_end() {
    let mut desk = Desk::new(&[FAR]);
    let mut dialled = 0;
    while desk.failures().is_empty() {
        let conn = desk.connect();
        dialled += 1;
        desk.respond(conn, 302, "Location: /announce\r\n", b"");
    }
    assert_eq!(dialled, 1 + TRACKER_REDIRECTS_MAX);
    assert_eq!(desk.dialled.len() as u32, dialled, "nobody else was asked");
}

/// What was dialled after a tracker at `first` has redirected to `location`.
fn redirected(first: &str, location: &str) -> Option<SocketAddr> {
    let mut desk = Desk::new(&[&format!("http://{first}/announce")]);
    desk.names
        .insert("inside.example".to_owned(), vec![ip("192.168.1.1")]);
    desk.names
        .insert("this.example".to_owned(), vec![ip("127.0.0.1")]);
    let conn = desk.connect();
    desk.respond(conn, 302, &format!("Location: {location}\r\n"), b"");
    let failures = desk.failures().len();
    let dialled = desk.dialled.get(1).map(|(_, to, _)| *to);
    assert_eq!(
        failures,
        usize::from(dialled.is_none()),
        "{location}: it is told"
    );
    dialled
}

/// R30.
#[test]
fn hostile_079_redirects_do_not_lead_inside() {
    let far = "93.184.215.14";
    #[rustfmt::skip]
    let cases = [
        // tracker     location                             dialled
        (far,          "http://1.1.1.1/announce",           Some("1.1.1.1:80")),
        (far,          "//1.1.1.1:81/x",                    Some("1.1.1.1:81")),
        (far,          "http://127.0.0.1/announce",         None),
        (far,          "http://[::1]/announce",             None),
        (far,          "http://[::ffff:127.0.0.1]/announce", None),
        (far,          "http://0.0.0.0/announce",           None),
        (far,          "http://10.0.0.1/announce",          None),
        (far,          "http://192.168.1.1/cgi?reboot=1",   None),
        (far,          "http://169.254.169.254/latest",     None),
        (far,          "http://[fd00::1]/announce",         None),
        (far,          "http://[fe80::1]/announce",         None),
        (far,          "http://inside.example/announce",    None),
        (far,          "http://this.example/announce",      None),
        (far,          "file:///etc/passwd",                None),
        (far,          "https://1.1.1.1/announce",          None),
        (far,          "udp://1.1.1.1:80",                  None),
        (far,          "gopher://1.1.1.1/",                 None),
        ("10.0.0.1",   "http://10.0.0.2/x",                 Some("10.0.0.2:80")),
        ("10.0.0.1",   "http://inside.example/x",           Some("192.168.1.1:80")),
        ("10.0.0.1",   "http://127.0.0.1/json",             None),
        ("10.0.0.1",   "http://127.0.0.1/announce",         Some("127.0.0.1:80")),
    ];
    for (first, location, expected) in cases {
        let dialled = redirected(first, location);
        assert_eq!(dialled, expected.map(addr), "{first} to {location}");
    }
}

/// A tracker outside sends on to another one outside, and that one inside.
#[test]
fn hostile_079_second_redirect_does_not_lead_inside_either() {
    let mut desk = Desk::new(&[FAR]);
    for location in ["http://1.1.1.1/announce", "http://10.0.0.1/announce"] {
        let conn = desk.connect();
        desk.respond(conn, 302, &format!("Location: {location}\r\n"), b"");
    }
    assert_eq!(desk.dialled.len(), 2);
    assert_eq!(desk.failures().len(), 1);
}

/// R30: what a torrent can make us ask on this machine.
#[test]
fn hostile_079_only_trackers_are_asked_on_this_machine() {
    let cases = [
        ("http://127.0.0.1:9091/announce", true),
        ("http://[::1]:9091/announce?key=1", true),
        ("http://127.0.0.1:9091/transmission/rpc", false),
        ("http://127.9.9.9:80/announce/../json", false),
        ("http://[::1]:631/", false),
        ("http://[::ffff:127.0.0.1]/json", false),
        ("http://0.0.0.0:9091/announce", false),
        ("http://[::]:9091/announce", false),
        ("http://224.0.0.1/announce", false),
        ("http://this.example/json", false),
        ("http://192.168.1.1/tracker/announce.php", true),
    ];
    for (url, may) in cases {
        let mut desk = Desk::new(&[url]);
        if !desk.asked.is_empty() {
            desk.resolve(Ok(vec![addr("127.0.0.1:80")]));
        }
        assert_eq!(desk.dialled.len(), usize::from(may), "{url}");
        assert_eq!(desk.failures().len(), usize::from(!may), "{url}");
    }
}

#[test]
fn hostile_080_intervals_are_clamped() {
    let day = 24 * 3600;
    #[rustfmt::skip]
    let cases = [
        // tracker  body                                                           shortest, longest
        (FAR,  "d8:intervali0e5:peers0:e",                                          60,   61),
        (FAR,  "d8:intervali-1e5:peers0:e",                                         60,   61),
        (FAR,  "d8:intervali9223372036854775807e5:peers0:e",                        day,  day + 1),
        (FAR,  "d8:intervali9223372036854775808e5:peers0:e",                        15,   19),
        (FAR,  "d8:intervali60e12:min intervali120e5:peers0:e",                     120,  121),
        (FAR,  "d8:intervali60e12:min intervali9223372036854775807e5:peers0:e",     day,  day + 1),
        (NEAR, "d8:intervali0e5:peers0:e",                                          5,    6),
        (NEAR, "d8:intervali-1e5:peers0:e",                                         5,    6),
        (NEAR, "d8:intervali9223372036854775807e5:peers0:e",                        day,  day + 1),
    ];
    for (tracker, body, shortest, longest) in cases {
        let mut desk = Desk::new(&[tracker]);
        let conn = desk.connect();
        desk.respond(conn, 200, "", body.as_bytes());
        desk.pass(secs(shortest) - Duration::from_millis(1));
        assert_eq!(desk.dialled.len(), 1, "{tracker} {body}: too early");
        desk.pass(secs(longest - shortest) + Duration::from_millis(1));
        assert_eq!(desk.dialled.len(), 2, "{tracker} {body}: too late");
    }
}

/// An address outside of this site, but on a link of this machine, is as near.
#[test]
fn hostile_080_trackers_on_the_link_may_be_asked_often() {
    for (prefix_len, expected) in [(24, 2), (30, 1)] {
        let mut desk = Desk::new(&["http://203.0.113.77/announce"]);
        let interfaces = Interfaces::new(vec![Interface {
            index: 2,
            ip: ip("203.0.113.1"),
            prefix_len,
        }]);
        desk.engine.interfaces_found(interfaces, desk.now);
        let conn = desk.connect();
        desk.respond(conn, 200, "", b"d8:intervali0e5:peers0:e");
        desk.pass(secs(6));
        let dialled = desk.dials_of(ip("203.0.113.77")).len();
        assert_eq!(dialled, expected, "/{prefix_len}");
    }
}

#[test]
fn hostile_081_odd_and_endless_peer_lists_are_cut() {
    let mut compact = b"d8:intervali60e5:peers1800000:".to_vec();
    compact.extend((0..300_000u32).flat_map(|n| [10, 1, (n >> 8) as u8, n as u8, 0x1a, 0xe1]));
    compact.push(b'e');
    let mut listed = b"d8:intervali60e5:peersl".to_vec();
    listed.extend((0..60_000).flat_map(|_| *b"d2:ip8:10.1.2.34:porti6881ee"));
    listed.extend(b"ee");
    let most = TRACKER_PEERS_MAX as u32;
    let cases: [(&str, &[u8], u32); 6] = [
        (
            "7 bytes",
            b"d8:intervali60e5:peers7:\x0a\0\0\x05\x1a\xe1xe",
            1,
        ),
        (
            "19 bytes",
            b"d8:intervali60e6:peers619:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\x1a\xe1xe",
            1,
        ),
        (
            "ports as text",
            b"d8:intervali60e5:peersld2:ip8:10.0.0.54:port4:6881eee",
            0,
        ),
        ("port 0", b"d8:intervali60e5:peers6:\x0a\0\0\x05\0\0e", 0),
        ("a long list", &compact, most),
        ("a long list of dictionaries", &listed, most),
    ];
    for (name, body, expected) in cases {
        let mut desk = Desk::new(&[NEAR]);
        let conn = desk.connect();
        desk.respond(conn, 200, "", body);
        assert_eq!(desk.answers(), [expected], "{name}");
        desk.pass(secs(60));
        let hosts: BTreeSet<SocketAddr> = desk.dialled.iter().map(|(_, to, _)| *to).collect();
        assert!(hosts.len() <= 1 + TRACKER_PEERS_MAX, "{name}");
    }
}

#[test]
fn hostile_082_failure_reasons_are_escaped_and_cut() {
    let refused = |reason: &[u8]| {
        let mut body = format!("d14:failure reason{}:", reason.len()).into_bytes();
        body.extend_from_slice(reason);
        body.push(b'e');
        let mut desk = Desk::new(&[NEAR]);
        let conn = desk.connect();
        desk.respond(conn, 200, "", &body);
        desk.failures().pop().expect("it is told")
    };
    for reason in [
        &b"\x1b]0;owned\x07\x1b[2J\r\n\0"[..],
        b"\xff\xfe\x80",
        "\u{202e}gpj".as_bytes(),
    ] {
        let shown = refused(reason);
        let is_plain = |c: char| !c.is_control() && c != '\u{202e}';
        assert!(shown.chars().all(is_plain), "{shown:?}");
    }
    let shown = refused(&vec![b'x'; 1 << 20]);
    assert!(
        shown.len() < TRACKER_TEXT_LEN_MAX + 100,
        "{} B",
        shown.len()
    );
}

/// R54: as one of a thousand who are told so, we dial the victim three times in ten minutes.
#[test]
fn hostile_083_victim_of_a_tracker_is_left_alone() {
    let victim = ip("203.0.113.5");
    let mut body = b"d8:intervali60e5:peers1200:".to_vec();
    body.extend((0..200u8).flat_map(|n| [203, 0, 113, 5, 0x1a, n]));
    body.push(b'e');
    let mut desk = Desk::new(&[FAR]);
    for _ in 0..10 {
        let announces = desk.dialled.iter().rposition(|(_, to, _)| to.port() == 80);
        let announce = desk
            .dialled
            .remove(announces.expect("the tracker is asked"));
        desk.dialled.push(announce);
        let conn = desk.connect();
        desk.respond(conn, 200, "", &body);
        desk.pass(secs(60));
    }
    let dialled = desk.dials_of(victim).len();
    assert!((1..=3).contains(&dialled), "{dialled} times in ten minutes");
}

/// The request in the datagram that left last, and where it went.
fn last_request(desk: &Desk) -> (SocketAddr, Request<'_>) {
    let (to, bytes) = desk.datagrams.last().expect("a datagram left");
    (*to, Request::decode(bytes).expect("a request"))
}

fn transaction(request: Request<'_>) -> u32 {
    match request {
        Request::Connect { transaction }
        | Request::Announce { transaction, .. }
        | Request::Scrape { transaction, .. } => transaction,
    }
}

fn encoded(reply: Reply<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    bytes
}

fn connected(transaction: u32) -> Vec<u8> {
    encoded(Reply::Connect {
        transaction,
        connection: 0x1234,
    })
}

fn answered(transaction: u32) -> Vec<u8> {
    encoded(Reply::Announce {
        transaction,
        interval: 60,
        leechers: 1,
        seeders: 1,
        peers: &[10, 0, 0, 5, 0x1a, 0xe1],
    })
}

const UDP: &str = "udp://10.0.0.1:6969/announce";

#[test]
fn hostile_084_udp_replies_that_do_not_fit_are_ignored() {
    let tracker = addr("10.0.0.1:6969");
    let mut desk = Desk::new(&[UDP]);
    for is_announcing in [false, true] {
        let (to, request) = last_request(&desk);
        assert_eq!(to, tracker);
        assert_eq!(matches!(request, Request::Announce { .. }), is_announcing);
        let asked = transaction(request);
        let (right, wrong) = match is_announcing {
            false => (connected(asked), answered(asked)),
            true => (answered(asked), connected(asked)),
        };
        let before = desk.datagrams.len();
        desk.deliver(tracker, &wrong);
        desk.deliver(tracker, &connected(asked ^ 1));
        desk.deliver(tracker, &answered(asked ^ 1));
        desk.deliver(
            tracker,
            &encoded(Reply::Error {
                transaction: asked ^ 1,
                message: b"no",
            }),
        );
        for from in ["10.0.0.2:6969", "10.0.0.1:6970", "[fd00::1]:6969"] {
            desk.deliver(addr(from), &right);
            let refusal = Reply::Error {
                transaction: asked,
                message: b"no",
            };
            desk.deliver(addr(from), &encoded(refusal));
        }
        let whole = if is_announcing { 20 } else { 16 };
        for len in 0..whole {
            desk.deliver(tracker, &right[..len]);
        }
        assert_eq!(desk.datagrams.len(), before, "nothing was answered");
        assert!(desk.failures().is_empty() && desk.dialled.is_empty());
        desk.deliver(tracker, &right);
        desk.deliver(tracker, &right); // duplicated, and so too late
    }
    assert_eq!(desk.answers(), [1]);
    assert_eq!(desk.datagrams.len(), 2, "one question each");
    desk.pass(secs(1));
    assert_eq!(desk.dials_of(ip("10.0.0.5")).len(), 1);
    desk.pass(secs(58));
    desk.datagrams.clear();
    desk.pass(secs(2));
    let (_, request) = last_request(&desk);
    assert!(
        matches!(request, Request::Connect { .. }),
        "the id is a minute old"
    );
}

#[test]
fn hostile_084_silence_is_borne_and_blocks_nobody() {
    let mut desk = Desk::new(&[UDP, NEAR]);
    assert_eq!(
        desk.dialled.len(),
        1,
        "the other tracker is asked meanwhile"
    );
    let conn = desk.connect();
    desk.respond(conn, 200, "", b"d8:intervali1800e5:peers0:e");
    assert_eq!(desk.answers(), [0]);
    desk.pass(secs(29));
    assert_eq!(desk.datagrams.len(), 4, "a few tries");
    assert!(desk.failures().is_empty());
    desk.pass(secs(2));
    assert_eq!(desk.failures().len(), 1);
    let tried = transaction(last_request(&desk).1);
    desk.deliver(addr("10.0.0.1:6969"), &connected(tried));
    assert_eq!(desk.datagrams.len(), 4, "an answer that comes late is none");
    desk.pass(secs(3600));
    let announces = (desk.datagrams.len() - 4) / 4;
    assert!(
        (3..12).contains(&announces),
        "{announces} announces in an hour"
    );
}

#[test]
fn hostile_084_refusal_by_udp_is_a_failure() {
    let tracker = addr("10.0.0.1:6969");
    let mut desk = Desk::new(&[UDP]);
    let asked = transaction(last_request(&desk).1);
    let refusal = Reply::Error {
        transaction: asked,
        message: b"banned\x1b[2J",
    };
    desk.deliver(tracker, &encoded(refusal));
    let failures = desk.failures();
    assert!(
        failures[0].contains("the tracker says: banned\\u{1b}[2J"),
        "{failures:?}"
    );
}

#[test]
fn hostile_085_resolver_that_never_answers_blocks_nobody() {
    let mut desk = Desk::new(&[
        "http://never.example/announce",
        "udp://never.example:1",
        NEAR,
    ]);
    assert_eq!(desk.asked.len(), 2);
    let conn = desk.connect();
    desk.respond(conn, 200, "", b"d8:intervali1800e5:peers0:e");
    assert_eq!(desk.answers(), [0]);
    desk.pass(ANNOUNCE_TIMEOUT + secs(1));
    assert_eq!(desk.failures().len(), 2, "it took too long");
    // An answer that comes after that leads nowhere.
    for _ in 0..2 {
        desk.resolve(Ok(vec![addr("10.0.0.7:80")]));
    }
    assert!(desk.dials_of(ip("10.0.0.7")).is_empty());
    assert!(desk.datagrams.is_empty());
    desk.pass(secs(4 * 3600));
    assert!(
        desk.asked.len() < 40,
        "{} questions in four hours",
        desk.asked.len()
    );
}

#[test]
fn hostile_085_name_with_a_thousand_addresses_is_tried_at_a_few() {
    let many = |port| {
        (0..1000u16).map(move |n| SocketAddr::from(([10, 9, (n >> 8) as u8, n as u8], port)))
    };
    let mut desk = Desk::new(&["http://many.example/announce"]);
    desk.resolve(Ok(many(80).collect()));
    while desk.failures().is_empty() {
        desk.refuse();
    }
    assert_eq!(desk.dialled.len(), TRACKER_ADDRESSES_MAX);

    let mut desk = Desk::new(&["udp://many.example:1"]);
    desk.resolve(Ok(many(1).collect()));
    desk.pass(secs(31));
    assert_eq!(desk.failures().len(), 1);
    assert!(desk.datagrams.len() <= TRACKER_ADDRESSES_MAX);
}

/// A name that means a host outside first, and this machine a moment later.
#[test]
fn hostile_085_rebinding_does_not_lead_inside() {
    let mut desk = Desk::new(&["http://rebind.example/json"]);
    desk.resolve(Ok(vec![addr("93.184.215.14:80")]));
    let conn = desk.connect();
    desk.respond(conn, 500, "", b"");
    desk.pass(secs(30));
    desk.resolve(Ok(vec![
        addr("127.0.0.1:80"),
        addr("0.0.0.0:80"),
        addr("[::1]:80"),
    ]));
    assert_eq!(desk.dialled.len(), 1, "the answer is checked anew");
    assert!(
        desk.failures()
            .pop()
            .expect("it is told")
            .contains("/announce")
    );

    let mut mixed = Desk::new(&["http://rebind.example/json"]);
    mixed.resolve(Ok(vec![addr("127.0.0.1:80"), addr("93.184.215.14:80")]));
    assert_eq!(mixed.dialled.len(), 1);
    assert_eq!(mixed.dialled[0].1, addr("93.184.215.14:80"));

    // By way of a redirect to the same name.
    let mut desk = Desk::new(&["http://rebind.example/announce"]);
    desk.resolve(Ok(vec![addr("93.184.215.14:80")]));
    let conn = desk.connect();
    desk.respond(conn, 302, "Location: /announce\r\n", b"");
    desk.resolve(Ok(vec![addr("192.168.1.1:80")]));
    assert_eq!(desk.dialled.len(), 1);
    assert_eq!(desk.failures().len(), 1);
}

#[test]
fn hostile_086_refusals_rest_the_tracker() {
    let never = b"d14:failure reason2:no8:retry in5:nevere";
    #[rustfmt::skip]
    let cases: [(&str, u16, &[u8], Option<u64>); 6] = [
        // what it shows    status  body    rest at least, seconds
        ("gone",            410,    b"",    None),
        ("retry in never",  200,    never,  None),
        ("forbidden",       403,    b"",    Some(1800)),
        ("unauthorized",    401,    b"",    Some(1800)),
        ("too many",        429,    b"",    Some(120)),
        ("overloaded",      503,    b"",    Some(120)),
    ];
    for (name, status, body, rest) in cases {
        let mut desk = Desk::new(&[NEAR]);
        let conn = desk.connect();
        desk.respond(conn, status, "", body);
        assert_eq!(desk.failures().len(), 1, "{name}");
        desk.pass(secs(rest.unwrap_or(7 * 24 * 3600) - 1));
        assert_eq!(desk.dialled.len(), 1, "{name}: too early");
        if let Some(rest) = rest {
            desk.pass(secs(rest / 4 + 2));
            // Nobody answers then: it may have been dialled more than once since.
            assert!(desk.dialled.len() >= 2, "{name}: too late");
        }
    }
}
