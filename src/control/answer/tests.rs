//! An engine with torrents, and lines as a client would send them.

use std::sync::Arc;

use super::*;
use crate::base::bits::Bitfield;
use crate::base::id::PeerId;
use crate::base::limits::CONTROL_LINE_LEN_MAX;
use crate::config::Config;
use crate::config::session::KnownPeer;
use crate::control::choose::chosen;
use crate::control::request::Choosing;
use crate::engine::{OnDisk, Secrets, TorrentSpec};
use crate::meta::create::{CreateOptions, Creator, NewFile};
use crate::meta::metainfo::Metainfo;

const NOW: Instant = Instant::from_micros(5_000_000);

fn engine() -> Engine {
    let secrets = Secrets {
        rng_seed: 1,
        peer_id: PeerId([1; 20]),
        key: 7,
        tracker: [3; 16],
    };
    Engine::new(Config::default(), secrets, NOW)
}

/// A torrent of small files; `mark` makes it another one.
fn metainfo(name: &str, files: usize, mark: u8) -> Arc<Metainfo> {
    let file = |place: usize| NewFile {
        path: vec![format!("{place:06}-{mark:03}{}", "x".repeat(197))],
        len: 3,
        executable: false,
    };
    let options = CreateOptions {
        name: name.to_owned(),
        files: (0..files).map(file).collect(),
        piece_len: Some(1 << 20),
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    creator
        .feed(&vec![mark; 3 * files])
        .expect("as long as said");
    let torrent = creator.finish().expect("all of it was fed");
    Arc::new(Metainfo::from_bytes(&torrent).expect("what is created can be read"))
}

fn add(engine: &mut Engine, meta: &Arc<Metainfo>) -> TorrentId {
    let spec = TorrentSpec {
        meta: Arc::clone(meta),
        peers: Vec::new(),
        trackers: vec!["http://h/announce".to_owned()],
        choice: crate::base::choice::Choice::default(),
    };
    engine.add_torrent(spec, NOW).expect("it is new")
}

/// The answer to `command` as an object; its line keeps the limit.
fn ask(engine: &mut Engine, command: Command) -> Value {
    let id = json!("q");
    let request = Request { id, command };
    let line = request.to_line();
    match answer(line.trim_end().as_bytes(), engine, &Shell::default(), NOW) {
        Answer::Line(line) => {
            let line = line.strip_suffix('\n').expect("a whole line");
            assert!(line.len() <= CONTROL_LINE_LEN_MAX && !line.contains('\n'));
            let value: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((&value["v"], &value["id"]), (&json!(1), &json!("q")));
            value
        }
        Answer::Work(_, work) => panic!("work for the shell: {work:?}"),
    }
}

fn result(engine: &mut Engine, command: Command) -> Value {
    let mut answer = ask(engine, command);
    assert_eq!(answer["ok"], true, "{answer}");
    answer["result"].take()
}

/// Goal: limits are set for all together and for torrents, each way by itself, and are told
/// wherever figures are.
#[test]
fn limits_are_set_and_told() {
    let mut engine = engine();
    add(&mut engine, &metainfo("debian", 1, 1));
    add(&mut engine, &metainfo("fedora", 1, 2));
    let mut limit = |torrent: Option<&str>, up, down, local| {
        let torrent = torrent.map(str::to_owned);
        let limiting = Limiting {
            torrent,
            up,
            down,
            local,
        };
        result(&mut engine, Command::Limit(limiting))
    };
    let none = json!({
        "up_limit_bytes_s": null, "down_limit_bytes_s": null, "limit_local": true,
    });
    assert_eq!(limit(None, None, None, None), none);
    let all = limit(None, Some(5000), None, Some(false));
    let expected = json!({
        "up_limit_bytes_s": 5000, "down_limit_bytes_s": null, "limit_local": false,
    });
    assert_eq!(all, expected);
    let own = limit(Some("deb"), None, Some(7000), None);
    assert_eq!(
        (&own["torrent"], &own["down_limit_bytes_s"]),
        (&json!("debian"), &json!(7000))
    );
    let own = limit(Some("deb"), Some(9000), None, None);
    assert_eq!(
        (&own["up_limit_bytes_s"], &own["down_limit_bytes_s"]),
        (&json!(9000), &json!(7000))
    );
    assert_eq!(limit(None, Some(0), None, Some(true)), none);

    let status = result(&mut engine, Command::Status { from: 0 });
    assert_eq!(status["up_limit_bytes_s"], Value::Null);
    assert_eq!(status["limit_local"], true);
    let [debian, fedora] = [0, 1].map(|place| &status["torrents"][place]);
    assert_eq!(
        (&debian["up_limit_bytes_s"], &debian["down_limit_bytes_s"]),
        (&json!(9000), &json!(7000))
    );
    assert_eq!(
        (&fedora["up_limit_bytes_s"], &fedora["down_limit_bytes_s"]),
        (&json!(null), &json!(null))
    );
    let nobody = Limiting {
        torrent: Some("suse".to_owned()),
        ..Limiting::default()
    };
    let answer = ask(&mut engine, Command::Limit(nobody));
    assert_eq!(answer["error"]["kind"], "no_such_torrent");
}

#[test]
fn torrent_is_found_by_name_hash_and_unique_beginnings() {
    let mut engine = engine();
    let metas = [
        metainfo("debian", 1, 1),
        metainfo("debian-live", 1, 2),
        metainfo("fedora", 1, 3),
        metainfo("fedora", 2, 4),
        metainfo("Ünï", 1, 5),
    ];
    for meta in &metas {
        add(&mut engine, meta);
    }
    let hash = |place: usize| metas[place].info_hash.to_string();
    let rows = [
        // what is asked for          whose name or which error
        ("debian".to_owned(), Ok(0)),
        ("debian-".to_owned(), Ok(1)),
        ("deb".to_owned(), Err("ambiguous")),
        ("fedora".to_owned(), Err("ambiguous")),
        ("Ü".to_owned(), Ok(4)),
        ("ü".to_owned(), Err("no_such_torrent")),
        ("suse".to_owned(), Err("no_such_torrent")),
        (hash(2), Ok(2)),
        (hash(3).to_uppercase(), Ok(3)),
        (hash(3)[..12].to_owned(), Ok(3)),
        (hash(3)[1..].to_owned(), Err("no_such_torrent")),
    ];
    for (torrent, expected) in rows {
        let why = Command::Why {
            torrent: torrent.clone(),
        };
        let answer = ask(&mut engine, why);
        match expected {
            Ok(place) => assert_eq!(answer["result"]["info_hash"], hash(place), "{torrent}"),
            Err(kind) => assert_eq!(answer["error"]["kind"], kind, "{torrent}: {answer}"),
        }
    }
}

#[test]
fn orders_change_the_state_and_say_so() {
    let mut engine = engine();
    let meta = metainfo("data", 2, 1);
    let id = add(&mut engine, &meta);
    engine.scanned(
        id,
        OnDisk::unknown(Bitfield::new(meta.geometry().piece_count())),
        NOW,
    );
    let torrent = || "data".to_owned();
    let rows = [
        (Command::Pause { torrent: torrent() }, "paused"),
        (Command::Pause { torrent: torrent() }, "paused"),
        (Command::Resume { torrent: torrent() }, "downloading"),
        (Command::Resume { torrent: torrent() }, "downloading"),
        (Command::Remove { torrent: torrent() }, "removed"),
    ];
    for (command, state) in rows {
        let answer = result(&mut engine, command.clone());
        assert_eq!(answer["state"], state, "{command:?}");
        assert_eq!(answer["torrent"], "data");
        assert_eq!(answer["down_total_bytes"], 0);
    }
    let answer = ask(&mut engine, Command::Remove { torrent: torrent() });
    assert_eq!(answer["error"]["kind"], "no_such_torrent");
    assert_eq!(
        result(&mut engine, Command::Status { from: 0 })["torrents"],
        json!([])
    );
}

#[test]
fn long_lists_come_in_pages_without_gaps() {
    let mut engine = engine();
    let count = 6000;
    add(&mut engine, &metainfo("many", count, 1));
    let mut paths = Vec::new();
    let mut from = Some(0);
    let mut pages = 0;
    while let Some(place) = from {
        let torrent = "many".to_owned();
        let page = result(
            &mut engine,
            Command::Files {
                torrent,
                from: place,
            },
        );
        let files = page["files"].as_array().expect("a list").iter();
        paths.extend(files.map(|file| file["path"].as_str().expect("a path").to_owned()));
        from = page["next"].as_u64().map(|next| next as usize);
        pages += 1;
    }
    assert!(pages > 4, "{pages} pages");
    assert_eq!(paths.len(), count);
    assert!(paths.is_sorted() && paths[count - 1].starts_with("many/005999-"));
}

#[test]
fn status_lists_torrents_page_by_page() {
    let mut engine = engine();
    for mark in 0..5 {
        add(&mut engine, &metainfo(&format!("t{mark}"), 1, mark));
    }
    let names = |page: &Value| -> Vec<String> {
        let torrents = page["torrents"].as_array().expect("a list").iter();
        let names = torrents.map(|t| t["torrent"].as_str().expect("a name").to_owned());
        names.collect()
    };
    let all = result(&mut engine, Command::Status { from: 0 });
    assert_eq!(names(&all), ["t0", "t1", "t2", "t3", "t4"]);
    assert_eq!(all["next"], Value::Null);
    let some = result(&mut engine, Command::Status { from: 3 });
    assert_eq!(names(&some), ["t3", "t4"]);
    assert_eq!(
        result(&mut engine, Command::Status { from: 9 })["torrents"],
        json!([])
    );
}

#[test]
fn lists_end_wherever_one_begins() {
    let mut engine = engine();
    add(&mut engine, &metainfo("data", 3, 1));
    let torrent = || "data".to_owned();
    for from in [0, 1, 2, 3, 1 << 40, usize::MAX] {
        for (command, key) in [
            (Command::Status { from }, "torrents"),
            (Command::Network { from }, "network"),
            (
                Command::Peers {
                    torrent: torrent(),
                    from,
                },
                "peers",
            ),
            (
                Command::Files {
                    torrent: torrent(),
                    from,
                },
                "files",
            ),
        ] {
            let answer = result(&mut engine, command);
            assert_eq!(answer["next"], Value::Null, "{key} from {from}");
            assert!(
                answer[key].as_array().is_none_or(|list| list.len() <= 3),
                "{key}"
            );
        }
    }
}

#[test]
fn closer_looks_have_every_key() {
    let mut engine = engine();
    add(&mut engine, &metainfo("data", 1, 1));
    let torrent = || "data".to_owned();
    let trackers = result(&mut engine, Command::Trackers { torrent: torrent() });
    let expected = json!([{
        "url": "http://h/announce", "tier": 0, "status": null, "peers": null, "message": null,
    }]);
    assert_eq!(trackers["trackers"], expected);
    let peers = result(
        &mut engine,
        Command::Peers {
            torrent: torrent(),
            from: 0,
        },
    );
    assert_eq!(peers["peers"], json!([]));
    engine.recall_evpeers(&[KnownPeer {
        addr: ([10, 0, 0, 1], 6881).into(),
        last_seen: 1,
        is_evpeer: true,
    }]);
    let network = result(&mut engine, Command::Network { from: 0 });
    let expected = json!([{
        "address": "10.0.0.1:6881", "source": "session", "here": false, "connected": false,
        "last_heard_s": null,
    }]);
    assert_eq!(network["network"], expected);
    let why = result(&mut engine, Command::Why { torrent: torrent() });
    assert!(
        why["reasons"][0]
            .as_str()
            .is_some_and(|r| r.contains("being checked")),
        "{why}"
    );
}

#[test]
fn files_and_the_end_are_left_to_the_shell() {
    let mut engine = engine();
    let addition = Addition {
        source: "/x.torrent".to_owned(),
        ..Addition::default()
    };
    for (command, work) in [
        (Command::Add(addition.clone()), Work::Add(addition)),
        (Command::Shutdown, Work::Shutdown),
    ] {
        let request = Request {
            id: json!(3),
            command,
        };
        let line = request.to_line();
        let answer = answer(line.as_bytes(), &mut engine, &Shell::default(), NOW);
        assert_eq!(answer, Answer::Work(json!(3), work));
    }
}

#[test]
fn refusal_is_a_line_too() {
    let mut engine = engine();
    let Answer::Line(line) = answer(b"{\"id\":5}", &mut engine, &Shell::default(), NOW) else {
        panic!("nothing to do");
    };
    let value: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&value["ok"], &value["id"]), (&json!(false), &json!(5)));
    assert_eq!(value["error"]["kind"], "malformed");
}

#[test]
fn files_are_chosen_by_number_and_glob_all_or_none() {
    let mut engine = engine();
    let id = add(&mut engine, &metainfo("data", 4, 1));
    let choose = |engine: &mut Engine, skip: &[&str], high: &[&str]| {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let choosing = Choosing {
            skip: texts(skip),
            high: texts(high),
            ..Choosing::default()
        };
        let torrent = "data".to_owned();
        ask(engine, Command::Choose { torrent, choosing })
    };
    let priorities = |engine: &mut Engine| -> Vec<String> {
        let torrent = "data".to_owned();
        let files = result(engine, Command::Files { torrent, from: 0 });
        let files = files["files"].as_array().expect("a list").iter();
        let shown = files.map(|file| {
            assert_eq!(file["wanted"], file["priority"] != "skip");
            format!(
                "{}{}",
                file["number"],
                file["priority"].as_str().expect("a word")
            )
        });
        shown.collect()
    };
    let answer = choose(&mut engine, &["1-2", "000003-*"], &["2"]);
    assert_eq!(answer["ok"], true, "{answer}");
    let expected = ["1skip", "2high", "3normal", "4skip"];
    assert_eq!(priorities(&mut engine), expected);
    for wrong in ["5", "*.mkv", "["] {
        let answer = choose(&mut engine, &["3", wrong], &[]);
        assert_eq!(answer["error"]["kind"], "unusable");
        let message = answer["error"]["message"].as_str().expect("a text");
        assert!(message.contains(&format!("\"{wrong}\"")), "{message}");
        assert_eq!(priorities(&mut engine), expected, "nothing was done");
    }
    assert!(engine.choice(id).is_some_and(|choice| choice.is_partial()));
    let meta = Arc::clone(engine.metainfo(id).expect("it is there"));
    let choosing = Choosing {
        only: vec!["000001-*".to_owned()],
        sequential: Some(true),
        ..Choosing::default()
    };
    let choice = chosen(&meta, &choosing).expect("it is there");
    assert_eq!(choice.skipped(), [0, 2, 3]);
    assert_eq!(choice.order, PieceOrder::Sequential);
    let none = Choosing {
        only: vec!["*.iso".to_owned()],
        ..Choosing::default()
    };
    assert!(chosen(&meta, &none).is_err());
}
