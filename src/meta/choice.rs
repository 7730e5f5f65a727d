//! From what a user writes to files, and from files to pieces.
//!
//! A pattern is a glob, as in a `.gitignore`: `*`, `?`, `[…]` and `{a,b}` stay within one name,
//! `**` crosses folders. Without a slash it is about the name of a file or folder anywhere in the
//! torrent; with one, about a path, with or without the torrent's own folder in front. A folder
//! stands for all that is in it.
//!
//! A piece that several files share is wanted as much as the one that is wanted most: it can be
//! verified only as a whole.

use globset::{GlobBuilder, GlobMatcher};

use super::geometry::{FileKind, Geometry};
use super::metainfo::Metainfo;
use crate::base::bits::Bitfield;
use crate::base::choice::{Choice, PieceOrder, Priority};
use crate::base::limits::PATTERN_LEN_MAX;

/// Files of a torrent, as a user names them.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// One name, of a file or folder.
    Name(GlobMatcher),
    /// A path.
    Path(GlobMatcher),
    /// Files by their numbers, from 1; first and last of each run.
    Numbers(Vec<(u32, u32)>),
}

/// Why files cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// It is no glob.
    #[error("\"{pattern}\" is no glob: {reason}; put what is meant literally between [ and ]")]
    NoGlob {
        /// What was written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is longer than any path.
    #[error("a glob of {len} B, limit {PATTERN_LEN_MAX} B; write a shorter one with **")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// No file is meant.
    #[error(
        "\"{pattern}\" matches none of the {count} files of \"{name}\", such as {example}; see \
         their names with evpeer show or evpeer ctl files"
    )]
    NoMatch {
        /// What was written.
        pattern: String,
        /// The torrent's name.
        name: String,
        /// Files that it has.
        count: usize,
        /// One of them.
        example: String,
    },
}

impl Pattern {
    /// Reads a glob.
    ///
    /// # Errors
    /// It is none.
    pub fn glob(text: &str) -> Result<Self, ChoiceError> {
        let len = text.len();
        if len > PATTERN_LEN_MAX {
            return Err(ChoiceError::TooLong { len });
        }
        let bare = text.trim_end_matches('/').trim_start_matches("./");
        let bare = bare.strip_prefix('/').unwrap_or(bare);
        let glob = GlobBuilder::new(bare)
            .literal_separator(true)
            .empty_alternates(true)
            .build();
        let glob = glob.map_err(|error| ChoiceError::NoGlob {
            pattern: text.to_owned(),
            reason: error.kind().to_string(),
        })?;
        let is_path = text.trim_end_matches('/').contains('/') || bare.contains("**");
        let matcher = glob.compile_matcher();
        Ok(Self {
            text: text.to_owned(),
            kind: match is_path {
                true => Kind::Path(matcher),
                false => Kind::Name(matcher),
            },
        })
    }

    /// Reads numbers of files as they are listed, from 1, such as `1,3-5`; anything else is a glob.
    ///
    /// # Errors
    /// It is neither.
    pub fn numbers_or_glob(text: &str) -> Result<Self, ChoiceError> {
        let is_numbers = text
            .bytes()
            .all(|b| b.is_ascii_digit() || b",-".contains(&b));
        if text.is_empty() || !is_numbers || text.len() > PATTERN_LEN_MAX {
            return Self::glob(text);
        }
        let run = |run: &str| {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first > 0 && first <= last).then_some((first, last))
        };
        let runs: Option<Vec<_>> = text.split(',').map(run).collect();
        Ok(Self {
            text: text.to_owned(),
            kind: Kind::Numbers(runs.ok_or_else(|| ChoiceError::NoGlob {
                pattern: text.to_owned(),
                reason: "numbers of files are written as 1,3-5".to_owned(),
            })?),
        })
    }

    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The files of `meta` that are meant, by their index.
    ///
    /// # Errors
    /// There is none, or not for every number.
    pub fn files(&self, meta: &Metainfo) -> Result<Vec<u32>, ChoiceError> {
        let data = || {
            let files = (0..).zip(&meta.files);
            files.filter(|(_, file)| file.kind == FileKind::Data)
        };
        let count = data().count();
        let is_meant = |number: usize, path: &str| match &self.kind {
            Kind::Numbers(runs) => runs
                .iter()
                .any(|&(first, last)| (first as usize..=last as usize).contains(&number)),
            Kind::Name(glob) => inner(path).split('/').any(|name| glob.is_match(name)),
            Kind::Path(glob) => {
                let all = prefixes(path).chain(prefixes(inner(path)));
                let mut all = all.filter(|prefix| *prefix != folder(path));
                all.any(|prefix| glob.is_match(prefix))
            }
        };
        let numbered = (1..).zip(data());
        let meant = numbered.filter(|(number, (_, file))| is_meant(*number, file.path.as_str()));
        let meant: Vec<u32> = meant.map(|(_, (index, _))| index).collect();
        let is_beyond = match &self.kind {
            Kind::Numbers(runs) => runs.iter().any(|&(_, last)| last as usize > count),
            Kind::Name(_) | Kind::Path(_) => false,
        };
        if !meant.is_empty() && !is_beyond {
            return Ok(meant);
        }
        let example = data().next();
        Err(ChoiceError::NoMatch {
            pattern: self.text.clone(),
            name: meta.name.clone(),
            count,
            example: example.map_or_else(String::new, |(_, file)| file.path.to_string()),
        })
    }
}

/// Of `meta` only the files that one of `patterns` means; all of them if there is no pattern.
///
/// # Errors
/// A pattern means none.
pub fn only(
    meta: &Metainfo,
    patterns: &[Pattern],
    order: PieceOrder,
) -> Result<Choice, ChoiceError> {
    if patterns.is_empty() {
        return Ok(Choice::new(Vec::new(), order));
    }
    let mut files = vec![Priority::Skip; meta.files.len()];
    for pattern in patterns {
        for file in pattern.files(meta)? {
            files[file as usize] = Priority::Normal;
        }
    }
    follow(meta.geometry(), &mut files);
    Ok(Choice::new(files, order))
}

/// `choice` with other priorities for the files that patterns mean. Where several mean the same
/// file, the last one counts.
///
/// # Errors
/// A pattern means none; nothing is changed then.
pub fn changed(
    meta: &Metainfo,
    choice: &Choice,
    changes: &[(Pattern, Priority)],
) -> Result<Choice, ChoiceError> {
    let mut files: Vec<Priority> = (0..meta.files.len() as u32).map(|f| choice.of(f)).collect();
    for (pattern, priority) in changes {
        for file in pattern.files(meta)? {
            files[file as usize] = *priority;
        }
    }
    follow(meta.geometry(), &mut files);
    Ok(Choice::new(files, choice.order))
}

/// Pad files, which nobody sees, are wanted like the file that they follow, but never before
/// others.
fn follow(geometry: &Geometry, files: &mut [Priority]) {
    let mut before = Priority::Normal;
    for (index, priority) in (0..).zip(files) {
        match geometry.file_kind(index) {
            FileKind::Data => before = *priority,
            FileKind::Pad => *priority = before.min(Priority::Normal),
        }
    }
}

/// What a choice of files means for pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenPieces {
    /// Pieces with bytes of a file that is wanted.
    pub wanted: Bitfield,
    /// Those of them that come before the others.
    pub high: Bitfield,
}

/// The pieces that `choice` means; `None` if that is all of them, none before others.
pub fn pieces(geometry: &Geometry, choice: &Choice) -> Option<ChosenPieces> {
    if choice.is_everything() {
        return None;
    }
    let mut chosen = ChosenPieces {
        wanted: Bitfield::new(geometry.piece_count()),
        high: Bitfield::new(geometry.piece_count()),
    };
    for file in 0..geometry.file_count() {
        let priority = choice.of(file);
        for piece in geometry.pieces_of_file(file) {
            if priority > Priority::Skip {
                chosen.wanted.set(piece);
            }
            if priority == Priority::High {
                chosen.high.set(piece);
            }
        }
    }
    Some(chosen)
}

/// A path without the torrent's own folder: a torrent of one file has none.
fn inner(path: &str) -> &str {
    path.split_once('/').map_or(path, |(_, inner)| inner)
}

/// The torrent's own folder.
fn folder(path: &str) -> &str {
    path.split_once('/').map_or("", |(folder, _)| folder)
}

/// A path, and the folders on the way to it.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let slashes = path.match_indices('/').map(|(at, _)| &path[..at]);
    slashes.chain([path])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A torrent `album` of these files, in pieces of 10 bytes; those in `.pad` are pad files.
    fn album(files: &[(&str, u64)]) -> Metainfo {
        let mut list = String::new();
        let mut len = 0;
        for (path, bytes) in files {
            let attr = match path.starts_with(".pad") {
                true => "4:attr1:p",
                false => "",
            };
            let names = path.split('/').map(|name| format!("{}:{name}", name.len()));
            let names: String = names.collect();
            list += &format!("d{attr}6:lengthi{bytes}e4:pathl{names}ee");
            len += bytes;
        }
        let hashes = len.div_ceil(10) as usize * 20;
        let text = format!(
            "d4:infod5:filesl{list}e4:name5:album12:piece lengthi10e6:pieces{hashes}:{}ee",
            "x".repeat(hashes)
        );
        Metainfo::from_bytes(text.as_bytes()).expect("a torrent")
    }

    fn sample() -> Metainfo {
        album(&[
            ("a.mkv", 25),           // 0: pieces 0-2
            ("sub/b.mkv", 5),        // 1: piece 2
            ("sub/deep/c.txt", 14),  // 2: pieces 3-4
            (".pad/6", 6),           // 3: piece 4
            ("none.txt", 0),         // 4
            ("Album [1]/d.mkv", 10), // 5: piece 5
        ])
    }

    #[test]
    fn globs_mean_the_files_that_a_user_expects() {
        let meta = sample();
        let none: &[u32] = &[];
        let cases = [
            // glob              files
            ("*.mkv", &[0, 1, 5][..]),
            ("*", &[0, 1, 2, 4, 5]),
            ("b.mkv", &[1]),
            ("sub", &[1, 2]),
            ("sub/", &[1, 2]),
            ("sub/*.mkv", &[1]),
            ("album/sub/*.mkv", &[1]),
            ("/sub/b.mkv", &[1]),
            ("./sub/b.mkv", &[1]),
            ("sub/*", &[1, 2]),
            ("sub/**/*.txt", &[2]),
            ("**/*.txt", &[2, 4]),
            ("album/*.mkv", &[0]),
            ("album/**", &[0, 1, 2, 4, 5]),
            ("{a,d}.mkv", &[0, 5]),
            ("?.mkv", &[0, 1, 5]),
            ("[ab].mkv", &[0, 1]),
            ("Album [[]1[]]/*", &[5]),
            ("a*", &[0]), // not all, as the torrent's folder is called album
            ("A.MKV", none),
            ("6", none), // a pad file
            ("sub/deep", &[2]),
            ("*/b.mkv", &[1]),
            ("mkv", none),
        ];
        for (glob, files) in cases {
            let found = Pattern::glob(glob).expect(glob).files(&meta);
            match files {
                [] => {
                    let error = found.expect_err(glob).to_string();
                    assert!(error.contains(&format!("\"{glob}\"")), "{error}");
                    assert!(error.contains("5 files of \"album\""), "{error}");
                    assert!(error.contains("evpeer show"), "{error}");
                }
                files => assert_eq!(found.expect(glob), files, "{glob}"),
            }
        }
        for glob in ["[", "{a", "a**b[", &"x".repeat(PATTERN_LEN_MAX + 1)] {
            assert!(Pattern::glob(glob).is_err(), "{glob}");
        }
    }

    #[test]
    fn file_of_a_torrent_of_one_is_meant_by_its_name() {
        let text = format!(
            "d4:infod6:lengthi5e4:name5:x.iso12:piece lengthi10e6:pieces20:{}ee",
            "x".repeat(20)
        );
        let meta = Metainfo::from_bytes(text.as_bytes()).expect("a torrent");
        for glob in ["x.iso", "*.iso", "/x.iso", "*"] {
            assert_eq!(
                Pattern::glob(glob).unwrap().files(&meta),
                Ok(vec![0]),
                "{glob}"
            );
        }
    }

    #[test]
    fn numbers_count_the_files_that_are_listed() {
        let meta = sample();
        let numbers = |text| Pattern::numbers_or_glob(text).and_then(|p| p.files(&meta));
        assert_eq!(numbers("1"), Ok(vec![0]));
        assert_eq!(numbers("2-4,1"), Ok(vec![0, 1, 2, 4]));
        assert_eq!(numbers("5"), Ok(vec![5]), "pad files have no number");
        assert_eq!(numbers("*.txt"), Ok(vec![2, 4]));
        for wrong in ["0", "6", "1-9", "3-2", "1,,2", "-", "99999999999999999999"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }

    fn bits(count: u32, ones: &[u32]) -> Bitfield {
        let mut bits = Bitfield::new(count);
        ones.iter().for_each(|&one| {
            bits.set(one);
        });
        bits
    }

    #[test]
    fn shared_piece_is_wanted_as_much_as_the_file_that_is_wanted_most() {
        let meta = sample();
        let globs = [Pattern::glob("b.mkv").unwrap()];
        let order = PieceOrder::Sequential;
        let choice = only(&meta, &globs, order).expect("it is there");
        assert_eq!(choice.order, order);
        let chosen = pieces(meta.geometry(), &choice).expect("not all");
        assert_eq!(chosen.wanted, bits(6, &[2]));
        assert_eq!(chosen.high, bits(6, &[]));

        let high = (Pattern::glob("a.mkv").unwrap(), Priority::High);
        let want = (Pattern::glob("c.txt").unwrap(), Priority::Normal);
        let more = changed(&meta, &choice, &[high, want]).expect("they are there");
        let chosen = pieces(meta.geometry(), &more).expect("not all");
        assert_eq!(chosen.wanted, bits(6, &[0, 1, 2, 3, 4]));
        assert_eq!(chosen.high, bits(6, &[0, 1, 2]));

        let all = [
            (Pattern::glob("*").unwrap(), Priority::Skip),
            (Pattern::glob("*").unwrap(), Priority::Normal),
        ];
        let all = changed(&meta, &more, &all).expect("they are there");
        assert!(all.is_everything(), "pad files too");
        assert_eq!(pieces(meta.geometry(), &all), None);
        let none = [(Pattern::glob("nothing").unwrap(), Priority::Skip)];
        assert!(changed(&meta, &more, &none).is_err());
    }
}
