//! The law of the house: which room may name which, what pure code may touch, how files look.
//!
//! The law is the tables below; [`complaints`] holds a set of sources against them. It is tried
//! on snippets that break each rule, so that its silence about `src` means something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use reader::{Mention, Named, Source, module_of, read};

#[path = "tidy/reader.rs"]
mod reader;

/// A row a room (a folder or top-level file of `src`) and a list of words for each.
type Table = &'static [(&'static str, &'static str)];

/// The rooms that a room may name, besides itself. All rooms are here.
#[rustfmt::skip]
const ROOMS: Table = &[
    ("base",      ""),
    ("config",    "base"),
    ("wire",      "base"),
    ("meta",      "base wire"),
    ("swarm",     "base config wire meta"),
    ("tracker",   "base config wire meta"),
    ("discovery", "base config wire meta"),
    ("engine",    "base config wire meta swarm tracker discovery"),
    ("control",   "base config wire meta swarm tracker discovery engine"),
    ("storage",   "base config meta"),
    ("sim",       "base config wire meta swarm engine storage"),
    ("reactor",   "base config engine control storage"),
    ("cli",       "base config wire meta swarm tracker discovery engine control
                   storage sim reactor"),
    ("main",      "cli"),
    ("lib",       "base config wire meta swarm tracker discovery engine control
                   storage sim reactor cli"),
];

/// The crates that a room may name, besides [`CRATES_EVERYWHERE`].
#[rustfmt::skip]
const CRATES: Table = &[
    ("base",      "sha1 siphasher crc32c"),
    ("wire",      "httparse"),
    ("meta",      "globset unicode_normalization"),
    ("control",   "serde_json"),
    ("storage",   "memmap2 rustix libc sha1"),
    ("reactor",   "mio socket2 quinn_udp getifaddrs signal_hook signal_hook_mio getrandom
                   rustix"),
    ("cli",       "clap clap_complete clap_mangen simplelog indicatif serde_json
                   plotters getrandom"),
];

/// What a room may use of [`IMPURE`]. A room without a row is pure.
#[rustfmt::skip]
const DOORS: Table = &[
    ("storage",   "fs io os process"),
    ("reactor",   "io net os thread time"),
    ("cli",       "env fs io net os process thread time"),
    ("main",      "env process"),
];

/// Parts of an allowed room that stay closed: the simulator has its own disk.
const CLOSED: &[(&str, &[&str])] = &[(
    "sim",
    &["storage::map", "storage::os", "storage::jobs::run"],
)];
const CRATES_EVERYWHERE: &str = "bytes log slab thiserror";
/// Crates for code under `#[cfg(test)]`, which is also free of the rules about `std`.
const CRATES_IN_TESTS: &str = "sha1 tempfile";

/// What of `std` reaches out of the process. The first segment is the door's name.
const IMPURE: &str = "env fs io net os process thread time::Instant time::SystemTime \
    time::UNIX_EPOCH random hash::RandomState collections::hash_map::RandomState";
/// Addresses are data.
const PURE_ALL_THE_SAME: &str = "net::AddrParseError net::IpAddr net::Ipv4Addr net::Ipv6Addr \
    net::SocketAddr net::SocketAddrV4 net::SocketAddrV6";
/// Methods of plain values that ask the file system or the resolver.
const IMPURE_METHODS: &str =
    "canonicalize exists try_exists read_dir read_link symlink_metadata to_socket_addrs";
const IMPURE_MACROS: &str = "dbg eprint eprintln print println";

const UNSAFE_FILES: &[&str] = &[
    "src/storage/lanes.rs",
    "src/storage/map.rs",
    "src/storage/map/guard.rs",
    "src/storage/os/heap.rs",
];
/// Names that fit everything and so collect everything.
const VAGUE_NAMES: &str = "common helper helpers manager misc types util utils";
const COLUMNS_MAX: usize = 100;
const CODE_LINES_MAX: usize = 500;
/// Files that may be longer, each with its own limit and the reason why it is one file.
const LONG_FILES: &[(&str, usize, &str)] = &[];

#[test]
fn the_house_keeps_its_law() {
    let mut sources = Vec::new();
    for folder in ["benches", "src", "tests"] {
        collect(folder, &mut sources);
    }
    assert!(
        sources.iter().any(|source| source.file == "src/lib.rs"),
        "the sources are here"
    );
    let found = [complaints(&sources), orphans(&sources)].concat();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// The names that clippy watches for us: it knows the type of what a method is called on.
#[test]
fn clippy_is_told_to_watch_clock_environment_and_hash_tables() {
    for file in ["src/lib.rs", "src/main.rs"] {
        let text = read_text(file);
        for lint in ["clippy::disallowed_methods", "clippy::iter_over_hash_type"] {
            assert!(text.contains(lint), "{file} does not switch {lint} on");
        }
    }
}

/// All that is wrong with `sources`, a line each: file, place, what and why.
fn complaints(sources: &[Source]) -> Vec<String> {
    let crates = crates_of(&read_text("Cargo.toml"));
    let mut found = Vec::new();
    let mut readings = Vec::new();
    for source in sources {
        check_columns(source, &mut found);
        if source.file.starts_with("src/") {
            match read(source, &crates) {
                Ok(reading) => readings.push((source, reading)),
                Err(error) => found.push(error),
            }
        }
    }
    let files = readings
        .iter()
        .flat_map(|(_, reading)| reading.files.clone());
    let test_modules: BTreeSet<_> = files.filter(|(_, in_test)| *in_test).collect();
    for (source, mut reading) in readings {
        let module = module_of(&source.file);
        let is_for_tests = |depth| test_modules.contains(&(module[..depth].to_vec(), true));
        if (0..=module.len()).any(is_for_tests) {
            reading.code_lines = 0;
            reading
                .mentions
                .iter_mut()
                .for_each(|mention| mention.in_test = true);
        }
        check_shape(source, &reading, &mut found);
        check_mentions(source, &reading.mentions, &mut found);
    }
    found
}

/// Files of `src` that no module declares: the compiler, and so no test, ever sees them.
fn orphans(sources: &[Source]) -> Vec<String> {
    let in_src = || {
        sources
            .iter()
            .filter(|source| source.file.starts_with("src/"))
    };
    let readings = in_src().filter_map(|source| read(source, &BTreeSet::new()).ok());
    let declared: BTreeSet<_> = readings
        .flat_map(|reading| reading.files)
        .map(|(module, _)| module)
        .collect();
    in_src()
        .map(|source| (module_of(&source.file), &source.file))
        .filter(|(module, _)| !module.is_empty() && !declared.contains(module))
        .map(|(_, file)| format!("{file}: no `mod` declares this file"))
        .collect()
}

fn check_columns(source: &Source, found: &mut Vec<String>) {
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let place = format!("{}:{}", source.file, index + 1);
            found.push(format!(
                "{place}: {columns} columns, {COLUMNS_MAX} are the limit"
            ));
        }
    }
}

/// Module docs, names, length and the word `unsafe`.
fn check_shape(source: &Source, reading: &reader::Reading, found: &mut Vec<String>) {
    let file = &source.file;
    if !source.text.starts_with("//!") {
        found.push(format!(
            "{file}:1: does not begin with the module's documentation (//!)"
        ));
    }

    let exception = LONG_FILES.iter().find(|(name, ..)| name == file);
    let limit = exception.map_or(CODE_LINES_MAX, |(_, limit, _)| *limit);
    if reading.code_lines > limit {
        let lines = reading.code_lines;
        found.push(format!(
            "{file}: {lines} lines outside its tests, {limit} are the limit"
        ));
    }

    let own_names = module_of(file).into_iter().map(|name| (1, name));
    for (line, name) in own_names.chain(reading.modules.iter().cloned()) {
        if is_in(VAGUE_NAMES, &name) {
            found.push(format!(
                "{file}:{line}: the name `{name}` collects everything"
            ));
        }
    }

    if !UNSAFE_FILES.contains(&file.as_str()) {
        for line in &reading.unsafe_lines {
            found.push(format!(
                "{file}:{line}: `unsafe` outside {}",
                UNSAFE_FILES.join(", ")
            ));
        }
    }
}

/// The table, applied to what a file names; each thing is reported where it is first named.
fn check_mentions(source: &Source, mentions: &[Mention], found: &mut Vec<String>) {
    let module = module_of(&source.file);
    let name = match source.file.as_str() {
        "src/lib.rs" => "lib",
        "src/main.rs" => "main",
        _ => &module[0],
    };
    if !ROOMS.iter().any(|(room, _)| *room == name) {
        found.push(format!("{}: the law has no room `{name}`", source.file));
        return;
    }
    let mut broken = BTreeMap::new();
    for mention in mentions {
        if let Some(why) = breach(name, mention) {
            broken.entry(why).or_insert(mention.line);
        }
    }
    for (why, line) in broken {
        found.push(format!("{}:{line}: `{name}` {why}", source.file));
    }
}

/// What `mention` does that `room` may not.
fn breach(room: &str, mention: &Mention) -> Option<String> {
    let is_pure = row(DOORS, room).is_empty() && !mention.in_test;
    match &mention.what {
        Named::Ours(path) => {
            let shown = path.join("::");
            let closed = CLOSED.iter().filter(|(name, _)| *name == room);
            match path.first() {
                None => Some("names the root of the crate, not a room".to_owned()),
                Some(first) if first == "*" => Some("imports the whole crate".to_owned()),
                Some(first) if first == room => None,
                Some(first) if !is_in(row(ROOMS, room), first) => Some(format!("names {shown}")),
                Some(_) => closed
                    .flat_map(|(_, parts)| *parts)
                    .find(|part| begins_with(path, part))
                    .map(|part| format!("names {shown}, but {part} is closed to it")),
            }
        }
        Named::Foreign(path) if path[0] == "std" => {
            let door = impure_door(&path[1..])?;
            let allowed = mention.in_test || is_in(row(DOORS, room), door);
            (!allowed).then(|| format!("uses {}", path.join("::")))
        }
        Named::Foreign(path) => {
            let allowed = is_in(CRATES_EVERYWHERE, &path[0])
                || is_in(row(CRATES, room), &path[0])
                || (mention.in_test && is_in(CRATES_IN_TESTS, &path[0]));
            (!allowed).then(|| format!("names the crate {}", path[0]))
        }
        Named::Method(name) => (is_pure && is_in(IMPURE_METHODS, name))
            .then(|| format!("calls .{name}(), which asks the system")),
        Named::Macro(name) => {
            (is_pure && is_in(IMPURE_MACROS, name)).then(|| format!("prints with {name}!"))
        }
        Named::Detour(how) => Some(format!("has {how}, which this test cannot follow")),
    }
}

/// The door of `std` that `path` goes through, if any; a glob goes through all below it.
fn impure_door(path: &[String]) -> Option<&'static str> {
    if PURE_ALL_THE_SAME
        .split_whitespace()
        .any(|data| begins_with(path, data))
    {
        return None;
    }
    let (glob, above) = match path.split_last() {
        Some((last, above)) if last == "*" => (true, above),
        _ => (false, path),
    };
    IMPURE.split_whitespace().find_map(|impure| {
        let reaches = begins_with(path, impure)
            || (glob && impure.split("::").zip(above).all(|(a, b)| a == b));
        reaches.then(|| impure.split("::").next().unwrap_or(impure))
    })
}

fn begins_with(path: &[String], beginning: &str) -> bool {
    let count = beginning.split("::").count();
    path.len() >= count && beginning.split("::").zip(path).all(|(a, b)| a == b)
}

/// The words of `room` in `table`.
fn row(table: Table, room: &str) -> &'static str {
    table
        .iter()
        .find(|(name, _)| *name == room)
        .map_or("", |(_, words)| words)
}

fn is_in(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|each| each == word)
}

/// The names by which a source can call the dependencies of `manifest`.
fn crates_of(manifest: &str) -> BTreeSet<String> {
    let mut in_dependencies = false;
    let mut crates = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && let Some((name, _)) = line.split_once('=') {
            crates.insert(name.trim().replace('-', "_"));
        }
    }
    crates
}

fn collect(folder: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(in_repository(folder)).expect("folder of sources is readable");
    for entry in entries {
        let entry = entry.expect("folder of sources is readable");
        let name = entry
            .file_name()
            .into_string()
            .expect("sources have plain names");
        let file = format!("{folder}/{name}");
        if entry.path().is_dir() {
            collect(&file, sources);
        } else if name.ends_with(".rs") {
            let text = read_text(&file);
            sources.push(Source { file, text });
        }
    }
}

fn read_text(file: &str) -> String {
    fs::read_to_string(in_repository(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn in_repository(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Goal: each rule of the law reports what breaks it, and nothing else.
/// Method: one file each, a line of module doc and the code; `""` expects silence.
#[test]
fn what_breaks_the_law_is_reported() {
    #[rustfmt::skip]
    let cases = [
        // file              code                                            complaint
        // Rooms of the crate, however they are named.
        ("swarm/mod.rs",     "use crate::base::id::PieceIndex;",              ""),
        ("swarm/mod.rs",     "use crate::tracker::client::Client;",
                                                                   "names tracker::client::Client"),
        ("tracker/mod.rs",   "use crate::{base::id, discovery::{pex, lsd}};",
                                                                            "names discovery::lsd"),
        ("discovery/pex.rs", "use super::super::swarm::Swarm;",               "names swarm::Swarm"),
        ("discovery/pex.rs", "use super::lsd::Lsd;",                          ""),
        ("base/id.rs",       "fn f() { crate::engine::start() }",
                                                                             "names engine::start"),
        ("base/id.rs",       "fn f(_: &[crate::wire::Message]) {}",
                                                                             "names wire::Message"),
        ("wire/http.rs",     "fn f() { assert!(1 < crate::meta::MAX) }",      "names meta::MAX"),
        ("wire/http.rs",     "#[derive(crate::meta::Magic)] struct S;",       "names meta::Magic"),
        ("wire/http.rs",     "macro_rules! m { () => { $crate::swarm::f() } }", "names swarm::f"),
        ("engine/mod.rs",    "use crate as house; use house::storage::map;",  "names storage::map"),
        ("engine/mod.rs",    "fn f() { use crate::reactor as r; r::turn() }", "names reactor"),
        ("engine/mod.rs",    "mod conn; use conn::Conn;",                     ""),
        ("engine/mod.rs",    "pub(crate) struct S; pub(in crate::engine) struct T;", ""),
        ("storage/mod.rs",   "use crate::engine::Engine;",
                                                                            "names engine::Engine"),
        ("storage/mod.rs",   "#[cfg(test)] mod tests { use crate::engine; }", "names engine"),
        ("reactor/mod.rs",   "use crate::swarm::Swarm;",                      "names swarm::Swarm"),
        ("sim/mod.rs",       "use crate::storage::{Storage, jobs::Done};",    ""),
        ("sim/mod.rs",       "use crate::storage::{Storage, map::Map};",
                                                                          "storage::map is closed"),
        ("sim/mod.rs",       "use crate::storage; fn f() { storage::jobs::run() }",
                                                                    "storage::jobs::run is closed"),
        ("base/id.rs",       "use crate::*;",
                                                                         "imports the whole crate"),
        ("base/mod.rs",      "use super::*;",
                                                                         "imports the whole crate"),
        ("base/mod.rs",      "mod tests { use super::*; }",                   ""),
        ("main.rs",          "fn main() { evpeer::cli::main() }",             ""),
        ("main.rs",          "fn main() { evpeer::engine::main() }",          "names engine::main"),
        ("lobby/mod.rs",     "",                                              "no room `lobby`"),
        // Other crates.
        ("reactor/mod.rs",   "use mio::Poll;",                                ""),
        ("engine/mod.rs",    "use mio::Poll;",
                                                                             "names the crate mio"),
        ("engine/mod.rs",    "fn f() { log::info!(\"{}\", ::rustix::f()) }",
                                                                          "names the crate rustix"),
        ("engine/mod.rs",    "#[derive(thiserror::Error)] struct E;",         ""),
        ("engine/mod.rs",    "use crate::base::bits as mio; fn f() { mio::f() }", ""),
        ("meta/mod.rs",      "#[cfg(test)] use tempfile::TempDir;",           ""),
        ("meta/mod.rs",      "use tempfile::TempDir;",
                                                                        "names the crate tempfile"),
        ("meta/mod.rs",      "extern crate mio as io;",                       "extern crate"),
        ("meta/mod.rs",      "#[path = \"../cli/a.rs\"] mod a;",              "#[path]"),
        // The world outside of pure code.
        ("wire/http.rs",     "use std::time::Duration; use std::net::IpAddr;", ""),
        ("wire/http.rs",     "use std::net::{IpAddr, TcpStream};",
                                                                        "uses std::net::TcpStream"),
        ("wire/http.rs",     "use std::{collections::BTreeMap, fs};",         "uses std::fs"),
        ("wire/http.rs",     "use std::io::Read;",                            "uses std::io::Read"),
        ("wire/http.rs",     "use core::net::*;",                             "uses std::net::*"),
        ("wire/http.rs",     "use std::time::*;",                             "uses std::time::*"),
        ("wire/http.rs",     "use std::time as t; fn f() { t::Instant::now(); }",
                                                                         "uses std::time::Instant"),
        ("wire/http.rs",     "use std::time as t; mod a { use super::*; type T = t::SystemTime; }",
                                                                      "uses std::time::SystemTime"),
        ("wire/http.rs",     "fn f() { std::thread::yield_now() }",           "uses std::thread"),
        ("wire/http.rs",     "fn f() { vec![std::env::args()]; }",
                                                                             "uses std::env::args"),
        ("wire/http.rs",     "fn f() { println!(\"x\") }",
                                                                            "prints with println!"),
        ("wire/http.rs",     "fn f() { vec![dbg!(1)]; }",                     "prints with dbg!"),
        ("meta/paths.rs",    "fn f(p: &Path) -> bool { p.exists() }",         "calls .exists()"),
        ("meta/paths.rs",    "fn f(p: &Path) { assert!(p.exists()) }",        "calls .exists()"),
        ("meta/paths.rs",    "fn exists() -> bool { exists() }",              ""),
        ("meta/paths.rs",    "#[cfg(test)] mod tests { use std::fs; }",       ""),
        ("meta/paths.rs",    "#[cfg(all(test, unix))] fn f() { std::fs::f() }", ""),
        ("meta/paths.rs",    "#[cfg(not(test))] fn f() { std::fs::f() }",     "uses std::fs::f"),
        ("storage/os.rs",    "use std::fs::File;",                            ""),
        ("storage/os.rs",    "use std::thread;",                              "uses std::thread"),
        ("sim/mod.rs",       "use std::time::Instant;",
                                                                         "uses std::time::Instant"),
        // The look of a file.
        ("base/id.rs",       "fn f() { unsafe { g() } }",                     "`unsafe` outside"),
        ("base/id.rs",       "#![allow(unsafe_code)]",                        "`unsafe` outside"),
        ("storage/map.rs",   "fn f() { unsafe { g() } }",                     ""),
        ("base/id.rs",       "// unsafe is a word",                           ""),
        ("base/util.rs",     "",                                              "the name `util`"),
        ("helpers/id.rs",    "",                                              "the name `helpers`"),
        ("base/id.rs",       "mod common { }",                                "the name `common`"),
        ("base/id.rs",       "fn f() { let }",                                "src/base/id.rs: "),
    ];
    for (file, code, complaint) in cases {
        let text = format!("//! Doc.\n{code}\n");
        let found = complaints(&[Source {
            file: format!("src/{file}"),
            text,
        }]);
        if complaint.is_empty() {
            assert!(found.is_empty(), "{file}: {code}\n{found:?}");
        } else {
            let is_reported = found.iter().any(|line| line.contains(complaint));
            assert!(
                is_reported,
                "{file}: {code}\nexpected: {complaint}\nfound: {found:?}"
            );
        }
    }
}

#[test]
fn a_file_must_look_like_the_others() {
    let lines = |count: usize| "//! Doc.\n".to_owned() + &"fn f() {}\n".repeat(count - 1);
    let columns = |count: usize| format!("//! {}\n", "ü".repeat(count - 4));
    let with_tests = lines(400) + "#[cfg(test)]\nmod tests {\n" + &lines(400) + "}\n";
    let cases = [
        (
            "no module doc",
            "fn f() {}\n".to_owned(),
            "begin with the module's doc",
        ),
        ("100 columns", columns(100), ""),
        ("101 columns", columns(101), ":1: 101 columns"),
        ("500 lines", lines(500), ""),
        ("501 lines", lines(501), "501 lines"),
        ("800 lines, half of them tests", with_tests, ""),
    ];
    for (name, text, complaint) in cases {
        let found = complaints(&[source("src/base/id.rs", &text)]).join("\n");
        assert_eq!(found.is_empty(), complaint.is_empty(), "{name}: {found}");
        assert!(found.contains(complaint), "{name}: {found}");
    }
}

#[test]
fn a_file_of_tests_is_known_by_its_declaration() {
    let tests = source(
        "src/meta/tests.rs",
        &format!("//! Doc.\nuse std::fs;\n{}", "\n".repeat(600)),
    );
    let parent = |code: &str| source("src/meta/mod.rs", &format!("//! Doc.\n{code}\n"));
    for (code, count) in [("#[cfg(test)]\nmod tests;", 0), ("mod tests;", 2)] {
        let found = complaints(&[parent(code), source(&tests.file, &tests.text)]);
        assert_eq!(found.len(), count, "{code}: {found:?}");
    }
}

#[test]
fn a_file_that_nobody_declares_is_reported() {
    let root = source("src/lib.rs", "//! Doc.\npub mod meta;\n");
    let meta = source("src/meta/mod.rs", "//! Doc.\nmod paths;\nmod tests { }\n");
    let paths = source("src/meta/paths.rs", "//! Doc.\n");
    let tests = source("src/meta/tests.rs", "//! Doc.\n");
    let found = orphans(&[root, meta, paths, tests]);
    assert_eq!(found, ["src/meta/tests.rs: no `mod` declares this file"]);
}

fn source(file: &str, text: &str) -> Source {
    Source {
        file: file.to_owned(),
        text: text.to_owned(),
    }
}
