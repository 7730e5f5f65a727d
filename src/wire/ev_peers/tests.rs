//! Vectors, splits and random bytes of `ev_peers` bodies.

use super::*;
use crate::base::id::hex;
use crate::base::rng::Rng;

fn entry(addr: Option<&str>, epoch: u64, standing: Standing) -> Entry {
    Entry {
        addr: addr.map(|text| text.parse().expect("an address")),
        epoch,
        standing,
        is_evpeer: true,
    }
}

/// Reads `body` to its end and writes it again.
fn again(body: &[u8]) -> Result<Bytes, EvPeersError> {
    Ok(match Message::decode(body)? {
        Message::Hello(hello) => hello.encode(),
        Message::Swarms(swarms) => {
            let items = swarms.iter().collect::<Result<Vec<_>, _>>()?;
            Swarms::encode(swarms.epoch, items)
        }
        Message::Entries(entries) => {
            let writer = EntriesWriter::entries(entries.why, entries.records.newest());
            write(writer, entries.records())?
        }
        Message::Roots(roots) => Roots::encode(roots.iter()),
        Message::Digest(digest) => {
            Digest::encode(digest.handle, &digest.sums().collect::<Vec<_>>())
        }
        Message::Want(want) => {
            let wanted: Vec<_> = (0..1 << want.bits).map(|i| want.has(i)).collect();
            Want::encode(want.handle, &wanted, want.more)
        }
        Message::Bye(bye) => {
            let writer = EntriesWriter::bye(bye.reason, bye.records.newest());
            write(writer, bye.records())?
        }
    })
}

fn write(mut writer: EntriesWriter, records: Records<'_>) -> Result<Bytes, EvPeersError> {
    for record in records {
        let (handle, entry) = record?;
        writer.push(handle, &entry);
    }
    Ok(writer.finish())
}

/// One body of each kind.
fn bodies() -> Vec<Bytes> {
    let mut writer = EntriesWriter::entries(Why::News, 1000);
    writer.push(0, &entry(Some("10.0.0.5:6881"), 1000, Standing::Leecher));
    writer.push(0, &entry(Some("[fd00::5]:6881"), 800, Standing::Left));
    writer.push(7, &entry(None, 0, Standing::Seed));
    let mut bye = EntriesWriter::bye(Reason::Full, 5);
    bye.push(0, &entry(Some("10.0.0.6:1"), 5, Standing::Leecher));
    let membership = |handle, standing| Membership {
        handle,
        standing,
        epoch: 7,
        tag: [handle as u8; 8],
    };
    let root = |handle| Root {
        handle,
        count: 3,
        root: u64::MAX,
    };
    vec![
        Hello {
            salt: [9; 16],
            clock_ms: 1,
            is_drawn: true,
        }
        .encode(),
        Swarms::encode(7, (1..4).map(|handle| membership(handle, Standing::Seed))),
        writer.finish(),
        Roots::encode([root(0), root(1)]),
        Digest::encode(2, &[1, 2, 3, 4]),
        Want::encode(2, &[true, false, false, true], true),
        bye.finish(),
    ]
}

#[test]
fn entries_are_laid_out_as_the_module_says() {
    let expected = "0103000000000000\
           0003e8800000050a0000051ae100\
           0cfd0000000000000000000000000000051ae1c80180000716e807";
    assert_eq!(hex(&bodies()[2]), expected);
    let newest_v4 = 1 + compact::PEER_LEN + 1;
    assert!(newest_v4 <= 12, "an IPv4 entry of the last 100 ms");
}

#[test]
fn every_kind_reads_what_it_writes_and_no_cut_of_it() {
    for body in bodies() {
        assert_eq!(again(&body).as_ref(), Ok(&body), "{}", hex(&body));
        for len in 0..body.len() {
            // A list may end after any of its items; what is read is a front of the whole.
            if let Ok(cut) = again(&body[..len]) {
                assert!(body[..len].starts_with(&cut), "{}", hex(&body[..len]));
            }
        }
        assert_eq!(
            is_hello(&body),
            matches!(Message::decode(&body), Ok(Message::Hello(_)))
        );
    }
}

#[test]
fn what_the_format_rules_out_is_refused() {
    let body = |hex: &str| -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2);
        let digits = pairs.map(|pair| str::from_utf8(pair).expect("hex"));
        digits
            .map(|pair| u8::from_str_radix(pair, 16).expect("hex"))
            .collect()
    };
    #[rustfmt::skip]
       let cases = [
           // what it shows              body                              error
           ("no kind",                   "01",                             EvPeersError::Length),
           ("another version",           "0201",       EvPeersError::Version { version: 2 }),
           ("an unknown kind",           "0108",             EvPeersError::Kind { kind: 8 }),
           ("flags of hello",            "0101000000000000000000000000000000000000000000000000ff",
                                                         EvPeersError::Flags { flags: 255 }),
           ("network among swarms",      "01020000000000000000\
0000010000000000000000aabbccddeeff0011",
                                                                       EvPeersError::Handle),
           ("an entry of no list",       "0103000000000000000064040a0000051ae100",
                                                                       EvPeersError::Handle),
           ("standing 4",                "01020000000000000000\
0001040000000000000000aabbccddeeff0011",
                                                      EvPeersError::Standing { byte: 4 }),
           ("IPv6 and itself",           "01030000000000000000648000001800",
                                                       EvPeersError::Flags { flags: 0x18 }),
           ("older than time",           "01030000000000000000648000001065", EvPeersError::Age),
           ("a long zero",               "0103000000000000000064800000108000", EvPeersError::Age),
           ("an age of eleven bytes",    "010300ffffffffffffffff80000010\
                                           8080808080808080808001",          EvPeersError::Age),
           ("more than 64 bits",         "010300ffffffffffffffff80000010\
                                           ffffffffffffffffff02",            EvPeersError::Age),
           ("512 buckets",               "0105000009",    EvPeersError::Buckets { bits: 9 }),
           ("a digest cut short",        "010500000100",                  EvPeersError::Length),
           ("a want without buckets",    "010600000000",                  EvPeersError::Length),
       ];
    for (name, hex, error) in cases {
        assert_eq!(again(&body(hex)), Err(error), "{name}");
    }
    let long = vec![VERSION; BODY_LEN_MAX + 1];
    assert!(matches!(again(&long), Err(EvPeersError::TooLong { .. })));
}

#[test]
fn random_bodies_are_refused_or_read_to_the_same_values() {
    let mut rng = Rng::new(10);
    let seeds = bodies();
    let mut read = 0;
    for round in 0..20_000 {
        let mut body = seeds[round % seeds.len()].to_vec();
        for _ in 0..rng.below(4) {
            let place = rng.below(body.len() as u32) as usize;
            body[place] = rng.next_u64() as u8;
        }
        body.truncate(rng.below(body.len() as u32 + 1) as usize);
        if let Ok(first) = again(&body) {
            read += 1;
            assert_eq!(again(&first), Ok(first.clone()), "{}", hex(&body));
        }
    }
    assert!(read > 1000, "{read} of the bodies could be read");
}

#[test]
fn tag_is_of_one_link_and_one_direction() {
    let (a, b, swarm) = ([1; 16], [2; 16], InfoHash([3; 20]));
    let all = [
        tag(&a, &b, swarm),
        tag(&b, &a, swarm),
        tag(&a, &[4; 16], swarm),
        tag(&a, &b, InfoHash([4; 20])),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one));
    }
}

#[test]
fn full_writer_keeps_within_the_body() {
    let mut writer = EntriesWriter::entries(Why::Repair, u64::MAX);
    let mut handle = 0;
    while writer.has_room() {
        // The longest entries there are: a list each, IPv6, the oldest epoch.
        handle += 1;
        writer.push(handle, &entry(Some("[fd00::1]:1"), 0, Standing::Seed));
    }
    let body = writer.finish();
    assert!(body.len() <= BODY_LEN_MAX && body.len() > BODY_LEN_MAX - ENTRY_LEN_MAX);
    assert_eq!(again(&body), Ok(body));
}
