//! Rows 12 to 28: what a .torrent file says.
//!
//! Row 18 (a link that is on disk already) and the file descriptors of row 23 are about the file
//! system and are tested with storage.

use std::collections::HashSet;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use evpeer::base::id::PieceIndex;
use evpeer::base::limits::{NAME_LEN_MAX, PATH_LEN_MAX, PIECES_MAX, TRACKERS_MAX};
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use evpeer::meta::geometry::GeometryError;
use evpeer::meta::metainfo::{FileKind, Metainfo, MetainfoError};
use evpeer::meta::paths::{NameFault, Naming, PathError};
use evpeer::meta::trackers;
use evpeer::wire::bencode::Encoder;

/// A torrent to be written down, with as many hashes as its lengths need.
struct Torrent<'a> {
    name: &'a [u8],
    files: Vec<File<'a>>,
    piece_len: i64,
    /// Bytes of all hashes, if not as many as there should be.
    hashes_len: Option<usize>,
}

#[derive(Clone)]
struct File<'a> {
    path: Vec<&'a [u8]>,
    len: i64,
    attributes: &'a [u8],
    /// The target of a link.
    target: Option<&'a [u8]>,
}

impl Default for Torrent<'_> {
    fn default() -> Self {
        Self {
            name: b"t",
            files: Vec::new(),
            piece_len: 16_384,
            hashes_len: None,
        }
    }
}

impl<'a> Torrent<'a> {
    /// Files of one byte each at `paths`.
    fn of(paths: &[&'a str]) -> Self {
        let files = paths.iter().map(|path| file(path, 1)).collect();
        Self {
            files,
            ..Self::default()
        }
    }

    fn of_lens(lens: &[i64]) -> Self {
        const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let files = NAMES
            .iter()
            .zip(lens)
            .map(|(name, &len)| file(name, len))
            .collect();
        Self {
            files,
            ..Self::default()
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.dict_begin().key(b"info").dict_begin();
        out.key(b"files").list_begin();
        for file in &self.files {
            file.write(&mut out);
        }
        out.end().key(b"name").bytes(self.name);
        out.key(b"piece length").int(self.piece_len);
        out.key(b"pieces").bytes(&vec![b'h'; self.hashes_len()]);
        out.end().end();
        out.finish()
    }

    fn hashes_len(&self) -> usize {
        let length: i128 = self.files.iter().map(|file| i128::from(file.len)).sum();
        let piece_len = i128::from(self.piece_len.max(1));
        let needed = ((length + piece_len - 1) / piece_len).clamp(0, 4_000_000) * 20;
        self.hashes_len.unwrap_or(needed as usize)
    }

    fn read(&self) -> Result<Metainfo, MetainfoError> {
        Metainfo::from_bytes(&self.text())
    }

    fn paths(&self, naming: Naming) -> Result<Vec<String>, PathError> {
        match Metainfo::from_bytes_named(&self.text(), naming) {
            Ok(meta) => {
                let paths = meta.files.iter().map(|file| file.path.as_path());
                Ok(paths
                    .map(|path| path.to_str().expect("UTF-8").to_owned())
                    .collect())
            }
            Err(MetainfoError::Path(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

impl File<'_> {
    fn write(&self, out: &mut Encoder) {
        out.dict_begin();
        if !self.attributes.is_empty() {
            out.key(b"attr").bytes(self.attributes);
        }
        out.key(b"length").int(self.len).key(b"path").list_begin();
        for name in &self.path {
            out.bytes(name);
        }
        out.end();
        if let Some(target) = self.target {
            out.key(b"symlink path").list_begin();
            for name in target.split(|&byte| byte == b'/') {
                out.bytes(name);
            }
            out.end();
        }
        out.end();
    }
}

/// A file at `path`, whose names are between the slashes.
fn file(path: &str, len: i64) -> File<'_> {
    let path = path.split('/').map(str::as_bytes).collect();
    File {
        path,
        len,
        attributes: b"",
        target: None,
    }
}

fn pad(len: i64) -> File<'static> {
    File {
        attributes: b"p",
        ..file(".pad/1", len)
    }
}

/// Fails unless `path`, joined to any folder, stays below it, and every name can be created.
fn assert_safe(path: &str) {
    assert!(!path.contains('\0'), "{path:?}");
    for component in Path::new(path).components() {
        let Component::Normal(name) = component else {
            panic!("{path:?} has {component:?}");
        };
        assert!(name.len() <= NAME_LEN_MAX, "{path:?}");
    }
    assert_eq!(
        Path::new(path).components().count(),
        path.split('/').count(),
        "{path:?}"
    );
}

#[test]
fn hostile_012_no_path_leads_out_of_the_folder() {
    let refused: &[(&[u8], NameFault)] = &[
        (b"..", NameFault::Dots),
        (b".", NameFault::Dots),
        (b"", NameFault::Empty),
    ];
    let mapped: [&[u8]; 8] = [
        b"a/b",
        b"a\\b",
        b"/etc/x",
        b"C:\\x",
        b"\\\\h\\s",
        b"../../x",
        b"/",
        b"a/../../b",
    ];
    for naming in [Naming::Portable, Naming::Exact] {
        for &(name, fault) in refused {
            let as_name = Torrent {
                name,
                ..Torrent::of(&["x"])
            };
            assert_eq!(as_name.paths(naming), Err(PathError::Name { fault }));
            let mut below = Torrent::of(&["x/y"]);
            below.files[0].path[0] = name;
            assert_eq!(
                below.paths(naming),
                Err(PathError::Component { file: 0, fault })
            );
        }
        for name in mapped {
            let paths = Torrent {
                name,
                ..Torrent::of(&["x"])
            }
            .paths(naming)
            .unwrap();
            assert_safe(&paths[0]);
            assert_eq!(paths[0].split('/').count(), 2, "{paths:?}");
            let mut below = Torrent::of(&["x/y"]);
            below.files[0].path[1] = name;
            let paths = below.paths(naming).unwrap();
            assert_safe(&paths[0]);
            assert_eq!(paths[0].split('/').count(), 3, "{paths:?}");
        }
    }
}

#[test]
fn hostile_013_no_name_steers_a_terminal() {
    let nul = Torrent::of(&["a\0b"]).paths(Naming::Exact);
    let fault = NameFault::Nul;
    assert_eq!(nul, Err(PathError::Component { file: 0, fault }));
    for steering in [
        "\n", "\r", "\x1b[2J", "\x7f", "\u{85}", "\u{202e}", "\u{2028}", "\u{2066}",
    ] {
        let name = format!("a{steering}b");
        let torrent = Torrent {
            name: name.as_bytes(),
            ..Torrent::of(&[&name])
        };
        let meta = torrent.read().unwrap();
        let exact = Metainfo::from_bytes_named(&torrent.text(), Naming::Exact).unwrap();
        let stored = meta.files[0].path.as_str().to_owned();
        let shown = exact.files[0].path.to_string();
        for text in [stored, shown, meta.name] {
            assert!(!text.contains(steering.chars().next().unwrap()), "{text:?}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let escaped = exact.files[0].path.as_str();
        assert!(
            escaped.contains(steering),
            "the exact name keeps {steering:?}"
        );
    }
}

#[test]
fn hostile_014_names_can_be_created_everywhere() {
    let long = "n".repeat(300);
    let long_twin = format!("{}m", "n".repeat(299));
    let deep = vec!["d".repeat(250); 20].join("/");
    let names = [
        "CON", "NUL.txt", "con", "a.", "a ", "a", "a:b", "a*b", &long, &long_twin, &deep,
    ];
    let paths = Torrent::of(&names).paths(Naming::Portable).unwrap();
    let forbidden = |c: char| c.is_control() || "<>:\"\\|?*".contains(c);
    for path in &paths {
        assert_safe(path);
        assert!(
            path.len() <= PATH_LEN_MAX && !path.contains(forbidden),
            "{path}"
        );
        for name in path.split('/') {
            let stem = name.split('.').next().unwrap().trim_end().to_uppercase();
            assert!(!["CON", "NUL"].contains(&stem.as_str()), "{path}");
            assert!(!name.ends_with(['.', ' ']), "{path}");
        }
    }
    let different: HashSet<_> = paths.iter().map(|path| path.to_lowercase()).collect();
    assert_eq!(different.len(), names.len(), "{paths:#?}");
}

#[test]
fn hostile_015_no_two_files_share_a_path() {
    let cases = [
        ("the same path", ["x/a.txt", "x/a.txt"], true),
        ("but for case", ["x/a", "X/A"], false),
        ("but for case, not ASCII", ["Ä", "ä"], false),
        ("after mapping", ["a:", "a%3A"], false),
        ("composed or not", ["\u{e9}", "e\u{301}"], false),
        ("composed or not, and case", ["\u{c9}", "e\u{301}"], false),
    ];
    for (what, names, exact_too) in cases {
        let torrent = Torrent::of(&names);
        let paths = torrent.paths(Naming::Portable).unwrap();
        assert!(paths[1].contains("~2"), "{what}: {paths:?}");
        assert!(!paths[0].contains("~2"), "{what}: {paths:?}");
        let paths = torrent.paths(Naming::Exact).unwrap();
        assert_ne!(paths[0], paths[1], "{what}");
        assert_eq!(paths[1].contains("~2"), exact_too, "{what}: {paths:?}");
    }
    let same = vec!["a"; 1000];
    let paths = Torrent::of(&same).paths(Naming::Portable).unwrap();
    assert_eq!(paths.iter().collect::<HashSet<_>>().len(), 1000);
}

#[test]
fn hostile_016_no_file_is_a_folder() {
    for (paths, file) in [
        (["a", "a/b"], 0),
        (["a/b", "a"], 1),
        (["x/a/b/c", "x/a"], 1),
    ] {
        for naming in [Naming::Portable, Naming::Exact] {
            let error = Torrent::of(&paths).paths(naming).unwrap_err();
            let PathError::FileIsFolder { file: found, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(found, file, "{paths:?}");
        }
    }
}

#[test]
fn hostile_017_links_are_left_out() {
    let targets: [&[u8]; 4] = [b"../../etc/passwd", b"/etc/passwd", b"link", b"nowhere"];
    for target in targets {
        for name in ["link", "..", "a"] {
            let link = File {
                attributes: b"l",
                target: Some(target),
                ..file(name, 0)
            };
            let files = vec![file("a", 5), link, file("b", 7)];
            let meta = Torrent {
                files,
                ..Torrent::default()
            }
            .read()
            .unwrap();
            let found: Vec<_> = meta
                .files
                .iter()
                .map(|file| (file.path.as_str(), file.offset))
                .collect();
            assert_eq!(found, [("t/a", 0), ("t/b", 5)]);
            assert_eq!(meta.links_skipped, 1);
        }
    }
}

#[test]
fn hostile_019_lengths_that_overflow_are_refused() {
    let huge = [i64::MAX, 1];
    let hashes_len = Some(20);
    let refusal = |lens: &[i64]| {
        let torrent = Torrent {
            hashes_len,
            piece_len: 1 << 28,
            ..Torrent::of_lens(lens)
        };
        torrent.read().unwrap_err()
    };
    let overflow = MetainfoError::Geometry(GeometryError::LengthOverflow);
    assert_eq!(refusal(&huge), overflow);
    assert_eq!(
        refusal(&[i64::MAX, i64::MAX, 2]),
        overflow,
        "not even modulo 2^64"
    );
    assert_eq!(
        refusal(&[1, -1]),
        MetainfoError::NegativeLength { file: 1, len: -1 }
    );
    let min = MetainfoError::NegativeLength {
        file: 0,
        len: i64::MIN,
    };
    assert_eq!(refusal(&[i64::MIN]), min);
    let too_many = GeometryError::TooManyPieces {
        length: i64::MAX as u64,
        piece_len: 1 << 28,
        count: 1 << 35,
    };
    assert_eq!(refusal(&[i64::MAX]), MetainfoError::Geometry(too_many));
}

#[test]
fn hostile_020_any_piece_length_up_to_256_mib_works() {
    for piece_len in [0, -1, (1 << 28) + 1, 1 << 31, i64::MAX, i64::MIN] {
        let torrent = Torrent {
            piece_len,
            ..Torrent::of_lens(&[100])
        };
        let bad = GeometryError::PieceLen { len: piece_len };
        assert_eq!(torrent.read().unwrap_err(), MetainfoError::Geometry(bad));
    }
    for piece_len in [1, 3, 16_383, 16_384, 100_000, 1 << 28] {
        let torrent = Torrent {
            piece_len,
            ..Torrent::of_lens(&[70_000, 50_001])
        };
        let meta = torrent.read().unwrap();
        let geometry = meta.geometry();
        let mut bytes = 0;
        for piece in (0..geometry.piece_count()).map(PieceIndex) {
            let blocks = 0..geometry.block_count(piece);
            let len: u32 = blocks.map(|block| geometry.block_len(piece, block)).sum();
            assert_eq!(len, geometry.piece_len(piece));
            let spans = geometry.spans(piece, 0, len);
            assert_eq!(spans.map(|span| span.len).sum::<u32>(), len);
            bytes += u64::from(len);
        }
        assert_eq!(bytes, 120_001, "piece length {piece_len}");
    }
}

#[test]
fn hostile_021_hashes_are_counted() {
    let cases = [
        (0, "0 piece hashes, but 40000 B in pieces of 16384 B need 3"),
        (
            40,
            "2 piece hashes, but 40000 B in pieces of 16384 B need 3",
        ),
        (
            80,
            "4 piece hashes, but 40000 B in pieces of 16384 B need 3",
        ),
        (59, "\"pieces\" has 59 B, which is no multiple of 20"),
        (61, "\"pieces\" has 61 B, which is no multiple of 20"),
    ];
    for (len, message) in cases {
        let torrent = Torrent {
            hashes_len: Some(len),
            ..Torrent::of_lens(&[40_000])
        };
        assert_eq!(torrent.read().unwrap_err().to_string(), message);
    }
    let missing = b"d4:infod6:lengthi1e4:name1:a12:piece lengthi1eee";
    let error = Metainfo::from_bytes(missing).unwrap_err();
    assert_eq!(error, MetainfoError::Missing { key: "pieces" });
    assert!(
        Torrent::of_lens(&[40_000]).read().is_ok(),
        "three are right"
    );
}

#[test]
fn hostile_022_empty_files_own_nothing_and_are_kept() {
    let meta = Torrent::of_lens(&[0, 16_384, 0, 5, 0]).read().unwrap();
    assert_eq!(meta.files.len(), 5);
    let geometry = meta.geometry();
    let owners: Vec<_> = (0..5).map(|file| geometry.pieces_of_file(file)).collect();
    assert_eq!(owners, [0..0, 0..1, 1..1, 1..2, 1..1]);
    let spans = geometry.spans(PieceIndex(1), 0, 5);
    assert_eq!(
        spans.map(|span| (span.file, span.len)).collect::<Vec<_>>(),
        [(3, 5)]
    );

    let meta = Torrent::of_lens(&[0, 0]).read().unwrap();
    assert_eq!((meta.files.len(), meta.geometry().piece_count()), (2, 0));
    assert!(!meta.geometry().contains(PieceIndex(0), 0, 1));
}

#[test]
fn hostile_023_many_files_are_read_in_time() {
    let names: Vec<_> = (0..100_000)
        .map(|i| format!("folder {}/file {i}", i / 100))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut torrent = Torrent {
        piece_len: 5000,
        ..Torrent::of(&names)
    };
    torrent.files[50_000].len = 0;
    let text = torrent.text();
    let start = Instant::now();
    let meta = Metainfo::from_bytes(&text).unwrap();
    let time = start.elapsed();
    println!("100,000 files read in {time:?}");
    assert!(time < Duration::from_secs(2), "{time:?}");
    let geometry = meta.geometry();
    assert_eq!(
        (geometry.file_count(), geometry.piece_count()),
        (100_000, 20)
    );
    assert_eq!(geometry.spans(PieceIndex(3), 0, 5000).count(), 5000);
    assert_eq!(
        geometry
            .spans(PieceIndex(10), 0, 5000)
            .next()
            .map(|span| span.file),
        Some(50_001)
    );
}

#[test]
fn hostile_024_pieces_are_counted_up_to_the_limit() {
    let most = i64::from(PIECES_MAX);
    let meta = Torrent {
        piece_len: 3,
        ..Torrent::of_lens(&[3 * most])
    }
    .read()
    .unwrap();
    assert_eq!(meta.geometry().piece_count(), 2_097_152);
    assert_eq!(
        meta.text()
            .expect("it was read")
            .piece_hash(PieceIndex(2_097_151)),
        &[b'h'; 20]
    );
    let error = Torrent {
        piece_len: 3,
        ..Torrent::of_lens(&[3 * most + 1])
    }
    .read()
    .unwrap_err();
    let too_many = GeometryError::TooManyPieces {
        length: 3 * most as u64 + 1,
        piece_len: 3,
        count: 2_097_153,
    };
    assert_eq!(error, MetainfoError::Geometry(too_many));
}

#[test]
fn hostile_025_what_must_be_there_is_there_once() {
    let tail = "12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    let file = "d6:lengthi1e4:pathl1:aee";
    let cases = [
        (format!("d6:lengthi1e{tail}e"), "torrent without \"name\""),
        (
            format!("d6:lengthi1e4:name0:{tail}e"),
            "name of the torrent is empty",
        ),
        (
            format!("d6:lengthi1e4:name1:.{tail}e"),
            "name of the torrent is \".\" or \"..\"",
        ),
        (
            format!("d6:lengthi1e4:namei1e{tail}e"),
            "\"name\" in the torrent is not a string",
        ),
        (
            "le".to_owned(),
            "\"info\" in the torrent is not a dictionary",
        ),
        (
            "0:".to_owned(),
            "\"info\" in the torrent is not a dictionary",
        ),
        (
            format!("d5:filesl{file}e6:lengthi1e4:name1:a{tail}e"),
            "torrent with both \"length\" and \"files\"",
        ),
        (
            format!("d4:name1:a{tail}e"),
            "torrent without \"length\" or \"files\"",
        ),
        (
            format!("d5:filesle4:name1:a{tail}e"),
            "torrent without files",
        ),
        (
            format!("d5:filesde4:name1:a{tail}e"),
            "\"files\" in the torrent is not a list",
        ),
        (
            format!("d5:filesli1ee4:name1:a{tail}e"),
            "\"files\" in the torrent is not a list of dictionaries",
        ),
        (
            format!("d5:filesld6:lengthi1eee4:name1:a{tail}e"),
            "torrent without \"path\"",
        ),
        (
            format!("d5:filesld6:lengthi1e4:pathleee4:name1:a{tail}e"),
            "\"path\" in the torrent is not a list of names",
        ),
        (
            format!("d5:filesld6:lengthi1e4:path1:aee4:name1:a{tail}e"),
            "\"path\" in the torrent is not a list of names",
        ),
        (
            format!("d5:filesld6:lengthi1e4:pathli1eeee4:name1:a{tail}e"),
            "\"path\" in the torrent is not a list of names",
        ),
        (
            format!("d5:filesld4:pathl1:aeee4:name1:a{tail}e"),
            "torrent without \"length\"",
        ),
    ];
    for (info, message) in &cases {
        let error = Metainfo::from_bytes(format!("d4:info{info}e").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}: {info}");
    }
}

#[test]
fn hostile_025_what_is_outside_of_the_info_is_there_too() {
    let roots: [(&[u8], _); 3] = [
        (b"le", "\"torrent\" in the torrent is not a dictionary"),
        (b"de", "torrent without \"info\""),
        (b"", "not a torrent file: bencode ends too early, after 0 B"),
    ];
    for (text, message) in roots {
        assert_eq!(Metainfo::from_bytes(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn hostile_026_pad_files_count_but_need_no_disk() {
    let files = vec![file("a", 10), pad(1 << 40), file("b", 10)];
    let torrent = Torrent {
        files,
        piece_len: 1 << 28,
        ..Torrent::default()
    };
    let meta = torrent.read().unwrap();
    let geometry = meta.geometry();
    assert_eq!(meta.files[1].kind, FileKind::Pad);
    assert_eq!(geometry.length(), (1 << 40) + 20);
    assert_eq!(geometry.data_len(), 20, "what a disk must hold");
    assert_eq!(geometry.piece_count(), 4097);
    let middle = geometry.spans(PieceIndex(7), 0, 1 << 28);
    assert!(middle.map(|span| span.pad).eq([true]), "all zeros");
    let first: Vec<_> = geometry
        .spans(PieceIndex(0), 0, 20)
        .map(|span| span.pad)
        .collect();
    assert_eq!(
        first,
        [false, true],
        "the pad follows the data and overlaps none of it"
    );

    // What is refused is refused before a disk hears of it: a pad counts into the sum.
    let files = vec![file("a", 10), pad(i64::MAX)];
    let error = Torrent {
        files,
        hashes_len: Some(20),
        ..Torrent::default()
    }
    .read()
    .unwrap_err();
    assert_eq!(
        error,
        MetainfoError::Geometry(GeometryError::LengthOverflow)
    );
    // Nor does a path of a pad lead anywhere.
    let outside = File {
        attributes: b"p",
        ..file("../../x", 4)
    };
    let files = vec![outside, file("a", 4)];
    let paths = Torrent {
        files,
        ..Torrent::default()
    }
    .paths(Naming::Portable)
    .unwrap();
    paths.iter().for_each(|path| assert_safe(path));
}

#[test]
fn hostile_027_folders_are_a_hundred_deep_at_most() {
    // The torrent's own folder is the first of them.
    let path = |folders: usize| format!("{}f", "d/".repeat(folders - 1));
    assert!(Torrent::of(&[&path(100)]).read().is_ok());
    let error = Torrent::of(&[&path(101)])
        .paths(Naming::Portable)
        .unwrap_err();
    assert_eq!(
        error,
        PathError::TooDeep {
            file: 0,
            folders: 101
        }
    );
}

#[test]
fn hostile_028_trackers_are_few_and_real() {
    let with_trackers = |urls: &[String]| {
        let mut out = Encoder::default();
        out.dict_begin().key(b"announce-list").list_begin();
        for url in urls {
            out.list_begin().bytes(url.as_bytes()).end();
        }
        out.end()
            .key(b"info")
            .dict_begin()
            .key(b"length")
            .int(0)
            .key(b"name")
            .bytes(b"a");
        out.key(b"piece length")
            .int(1)
            .key(b"pieces")
            .bytes(b"")
            .end()
            .end();
        let meta = Metainfo::from_bytes(&out.finish()).unwrap();
        meta.trackers.concat()
    };
    let many: Vec<_> = (0..10_000)
        .map(|i| format!("http://host{i}/announce"))
        .collect();
    assert_eq!(with_trackers(&many), many[..TRACKERS_MAX]);

    let bad = [
        format!("http://host/{}", "a".repeat(1 << 20)),
        "file:///etc/passwd".to_owned(),
        "gopher://host/announce".to_owned(),
        "http://host:0/announce".to_owned(),
        "http://host:70000/announce".to_owned(),
        "http://bücher.example/announce".to_owned(),
        "http://host/\r\nX-Header: y".to_owned(),
        "http:///announce".to_owned(),
    ];
    assert!(with_trackers(&bad).is_empty());
    let good = [
        "http://me:secret@host:6969/announce".to_owned(),
        "http://xn--bcher-kva.example/announce".to_owned(),
    ];
    let kept = with_trackers(&[&bad[..], &good].concat());
    assert_eq!(kept, good);
    assert_eq!(
        trackers::redacted(&kept[0]),
        "http://***@host:6969/announce"
    );
}

/// A torrent that was made here is read back, whatever its files are called: what `create`
/// takes of a folder must be found again in that very folder.
#[test]
fn names_that_are_mapped_for_others_are_kept_where_they_exist() {
    let names = [
        "aux.c",
        "a:b",
        "Readme",
        "README",
        "dot.",
        "tab\there",
        "x\\y",
    ];
    let files = names.iter().map(|name| NewFile {
        path: vec![(*name).to_owned()],
        ..NewFile::default()
    });
    let options = CreateOptions {
        name: "t".to_owned(),
        files: files.collect(),
        ..CreateOptions::default()
    };
    let text = Creator::new(options).unwrap().finish().unwrap();
    let exact = Metainfo::from_bytes_named(&text, Naming::Exact).unwrap();
    let kept: Vec<_> = exact
        .files
        .iter()
        .map(|file| &file.path.as_str()[2..])
        .collect();
    assert_eq!(kept, names);
    assert!(!exact.names_changed);
    assert!(Metainfo::from_bytes(&text).unwrap().names_changed);
}
