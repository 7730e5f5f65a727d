//! Makes .torrent files (BEP 3, 12, 27, 47): the same input gives the same bytes.
//!
//! The files themselves are read elsewhere: [`Creator`] is fed their bytes, one file after the
//! other in the order of [`CreateOptions::files`], and hashes piece by piece.

use super::geometry::{FileKind, Geometry, GeometryError};
use super::paths::{self, Listed, Naming, PathError};
use super::trackers;
use crate::base::digest::Sha1Stream;
use crate::base::id::PieceIndex;
use crate::base::limits::{FILES_MAX, PIECE_LEN_MAX, PIECES_MAX, TRACKERS_MAX};
use crate::wire::bencode::Encoder;

/// What to make a torrent of.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// What the torrent is called: the file, or the folder that holds the files.
    pub name: String,
    /// The files in the order of their bytes, which is also that of their order in the torrent.
    pub files: Vec<NewFile>,
    /// Bytes of a piece; chosen by [`piece_len_for`] if not given.
    pub piece_len: Option<u32>,
    /// Tracker addresses, each a tier of its own (BEP 12).
    pub trackers: Vec<String>,
    /// Whether only these trackers may give peers (BEP 27).
    pub private: bool,
    /// What the maker says.
    pub comment: Option<String>,
    /// The program that makes the torrent.
    pub created_by: Option<String>,
    /// Now, seconds since 1970.
    pub creation_date: Option<i64>,
}

/// One file of a torrent to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFile {
    /// Its names below the torrent's own; none if the torrent is this one file.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
    /// Whether it is a program.
    pub executable: bool,
}

/// Why no torrent can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// A piece length that other clients would not take.
    #[error("piece length {len} is no power of two from {PIECE_LEN_MIN} to {PIECE_LEN_MAX}")]
    PieceLen {
        /// The length given.
        len: u32,
    },
    /// Lengths that make no torrent.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Names that make no paths.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A name with a separator inside.
    #[error("\"{name}\" is not one name but a path")]
    Separator {
        /// The name.
        name: String,
    },
    /// There is nothing to make a torrent of.
    #[error("no files")]
    NoFiles,
    /// More files than we would read back.
    #[error("{count} files, limit {FILES_MAX}")]
    TooManyFiles {
        /// Number of files.
        count: usize,
    },
    /// One of several files has no path.
    #[error("file {file} of a folder has no name")]
    FileWithoutName {
        /// Index of the file.
        file: usize,
    },
    /// An address that no client would ask.
    #[error("\"{url}\" is not the address of a tracker (http, https or udp with a port)")]
    Tracker {
        /// The address.
        url: String,
    },
    /// More trackers than we would read back.
    #[error("{count} trackers, limit {TRACKERS_MAX}")]
    TooManyTrackers {
        /// Number of trackers.
        count: usize,
    },
    /// The files had other lengths when they were read.
    #[error("files changed while they were read: {fed} B, but {length} B were expected")]
    LengthChanged {
        /// Bytes that were fed, or at least so many.
        fed: u64,
        /// Bytes that the files were to have.
        length: u64,
    },
}

/// Hashes the bytes of the files and writes the .torrent file.
#[derive(Debug)]
pub struct Creator {
    options: CreateOptions,
    geometry: Geometry,
    /// The hashes of the pieces that are whole, 20 bytes each.
    hashes: Vec<u8>,
    piece: Sha1Stream,
    fed: u64,
}

impl Creator {
    /// Checks everything but the bytes, so that whoever reads the result takes it.
    ///
    /// # Errors
    /// The first option that makes no torrent.
    pub fn new(options: CreateOptions) -> Result<Self, CreateError> {
        check_files(&options)?;
        check_trackers(&options.trackers)?;
        let length = options
            .files
            .iter()
            .try_fold(0_u64, |sum, file| sum.checked_add(file.len));
        let length = length.ok_or(GeometryError::LengthOverflow)?;
        let piece_len = match options.piece_len {
            Some(len) => checked_piece_len(len)?,
            None => piece_len_for(length),
        };
        let lens = options.files.iter().map(|file| (file.len, FileKind::Data));
        let geometry = Geometry::new(i64::from(piece_len), lens)?;
        Ok(Self {
            hashes: Vec::with_capacity(geometry.piece_count() as usize * 20),
            piece: Sha1Stream::default(),
            fed: 0,
            geometry,
            options,
        })
    }

    /// How the files will be cut.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Bytes fed so far, for progress; all are [`Geometry::length`].
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Takes the bytes that follow those before.
    ///
    /// # Errors
    /// If the files turn out longer than they were to be.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CreateError> {
        let length = self.geometry.length();
        if bytes.len() as u64 > length - self.fed {
            let fed = self.fed + bytes.len() as u64;
            return Err(CreateError::LengthChanged { fed, length });
        }
        while !bytes.is_empty() {
            let piece_len = u64::from(self.geometry.nominal_piece_len());
            let piece = PieceIndex((self.fed / piece_len) as u32);
            let left = u64::from(self.geometry.piece_len(piece)) - self.fed % piece_len;
            let len = left.min(bytes.len() as u64);
            let (run, rest) = bytes.split_at(len as usize);
            self.piece.update(run);
            self.fed += len;
            bytes = rest;
            if len == left {
                self.hashes.extend_from_slice(&self.piece.finish());
            }
        }
        Ok(())
    }

    /// The .torrent file.
    ///
    /// # Errors
    /// If fewer bytes were fed than the files were to have.
    pub fn finish(self) -> Result<Vec<u8>, CreateError> {
        let (fed, length) = (self.fed, self.geometry.length());
        if fed != length {
            return Err(CreateError::LengthChanged { fed, length });
        }
        assert_eq!(self.hashes.len(), self.geometry.piece_count() as usize * 20);
        let mut out = Encoder::default();
        out.dict_begin();
        self.write_trackers(&mut out);
        if let Some(comment) = &self.options.comment {
            out.key(b"comment").bytes(comment.as_bytes());
        }
        if let Some(created_by) = &self.options.created_by {
            out.key(b"created by").bytes(created_by.as_bytes());
        }
        if let Some(date) = self.options.creation_date {
            out.key(b"creation date").int(date);
        }
        out.key(b"info");
        self.write_info(&mut out);
        out.end();
        Ok(out.finish())
    }

    fn write_trackers(&self, out: &mut Encoder) {
        let [first, rest @ ..] = self.options.trackers.as_slice() else {
            return;
        };
        out.key(b"announce").bytes(first.as_bytes());
        if rest.is_empty() {
            return;
        }
        out.key(b"announce-list").list_begin();
        for url in &self.options.trackers {
            out.list_begin().bytes(url.as_bytes()).end();
        }
        out.end();
    }

    fn write_info(&self, out: &mut Encoder) {
        let only = self
            .options
            .files
            .first()
            .filter(|file| file.path.is_empty());
        out.dict_begin();
        match only {
            Some(file) => write_len(file, out),
            None => {
                out.key(b"files").list_begin();
                self.options
                    .files
                    .iter()
                    .for_each(|file| write_file(file, out));
                out.end();
            }
        }
        out.key(b"name").bytes(self.options.name.as_bytes());
        out.key(b"piece length")
            .int(i64::from(self.geometry.nominal_piece_len()));
        out.key(b"pieces").bytes(&self.hashes);
        if self.options.private {
            out.key(b"private").int(1);
        }
        out.end();
    }
}

/// Bytes of a piece for a torrent of `length` bytes: the smallest power of two that makes at
/// most 2,000 pieces, and so over 1,000, but from 16 KiB to 16 MiB as long as that is possible.
pub fn piece_len_for(length: u64) -> u32 {
    let mut piece_len = PIECE_LEN_MIN;
    while length.div_ceil(u64::from(piece_len)) > pieces_wanted(piece_len)
        && piece_len < PIECE_LEN_MAX
    {
        piece_len *= 2;
    }
    piece_len
}

fn pieces_wanted(piece_len: u32) -> u64 {
    if piece_len < PIECE_LEN_CHOSEN_MAX {
        2000
    } else {
        u64::from(PIECES_MAX)
    }
}

fn checked_piece_len(len: u32) -> Result<u32, CreateError> {
    match len.is_power_of_two() && (PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&len) {
        true => Ok(len),
        false => Err(CreateError::PieceLen { len }),
    }
}

fn check_files(options: &CreateOptions) -> Result<(), CreateError> {
    let files = &options.files;
    match files.len() {
        0 => return Err(CreateError::NoFiles),
        1 => {}
        count if count > FILES_MAX => return Err(CreateError::TooManyFiles { count }),
        _ => {
            if let Some(file) = files.iter().position(|file| file.path.is_empty()) {
                return Err(CreateError::FileWithoutName { file });
            }
        }
    }
    let mut names = files.iter().flat_map(|file| &file.path);
    if let Some(name) = std::iter::once(&options.name)
        .chain(&mut names)
        .find(|name| name.contains('/'))
    {
        return Err(CreateError::Separator { name: name.clone() });
    }
    let listed: Vec<_> = files.iter().map(NewFile::listed).collect();
    paths::place(options.name.as_bytes(), &listed, Naming::Exact)?;
    Ok(())
}

fn check_trackers(urls: &[String]) -> Result<(), CreateError> {
    if urls.len() > TRACKERS_MAX {
        return Err(CreateError::TooManyTrackers { count: urls.len() });
    }
    let bad = urls
        .iter()
        .find(|url| trackers::accepted(url.as_bytes()).is_none());
    match bad {
        Some(url) => Err(CreateError::Tracker { url: url.clone() }),
        None => Ok(()),
    }
}

impl NewFile {
    fn listed(&self) -> Listed<'_> {
        Listed {
            components: self.path.iter().map(String::as_bytes).collect(),
            kind: FileKind::Data,
        }
    }
}

fn write_file(file: &NewFile, out: &mut Encoder) {
    out.dict_begin();
    write_len(file, out);
    out.key(b"path").list_begin();
    for name in &file.path {
        out.bytes(name.as_bytes());
    }
    out.end().end();
}

fn write_len(file: &NewFile, out: &mut Encoder) {
    if file.executable {
        out.key(b"attr").bytes(b"x");
    }
    let len = i64::try_from(file.len).expect("the geometry checked the sum of lengths");
    out.key(b"length").int(len);
}

/// Shortest piece that we make, bytes: one block.
const PIECE_LEN_MIN: u32 = 16 * 1024;
/// Longest piece that we choose, bytes: some clients take no longer ones. Only a torrent that
/// would have more than [`PIECES_MAX`] of them (32 TiB) gets longer ones.
const PIECE_LEN_CHOSEN_MAX: u32 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::sha1;
    use crate::meta::metainfo::Metainfo;

    fn file(path: &str, len: u64) -> NewFile {
        let path = path.split('/').filter(|name| !name.is_empty());
        NewFile {
            path: path.map(str::to_owned).collect(),
            len,
            executable: false,
        }
    }

    fn options(files: Vec<NewFile>) -> CreateOptions {
        CreateOptions {
            name: "t".to_owned(),
            files,
            ..CreateOptions::default()
        }
    }

    #[test]
    fn single_file_torrent_is_exactly_this() {
        let made = CreateOptions {
            trackers: vec!["http://a/announce".to_owned()],
            private: true,
            comment: Some("c".to_owned()),
            created_by: Some("evpeer".to_owned()),
            creation_date: Some(7),
            files: vec![NewFile {
                executable: true,
                ..file("", 3)
            }],
            ..options(vec![])
        };
        let mut creator = Creator::new(made).unwrap();
        creator.feed(b"abc").unwrap();
        let text = creator.finish().unwrap();
        let expected = [
            &b"d8:announce17:http://a/announce7:comment1:c10:created by6:evpeer"[..],
            b"13:creation datei7e4:infod4:attr1:x6:lengthi3e4:name1:t",
            b"12:piece lengthi16384e6:pieces20:",
            &sha1(b"abc"),
            b"7:privatei1eee",
        ];
        assert_eq!(text, expected.concat(), "{}", text.escape_ascii());
    }

    #[test]
    fn what_is_made_is_read_back() {
        let files = vec![
            file("bin/run", 20_000),
            file("empty", 0),
            file("z/ü", 30_000),
        ];
        let mut made = options(files.clone());
        made.files[0].executable = true;
        made.trackers = vec!["http://a/x".to_owned(), "udp://b:1".to_owned()];
        let mut creator = Creator::new(made).unwrap();
        let bytes: Vec<u8> = (0..50_000_u32).map(|i| (i % 251) as u8).collect();
        let mut runs = bytes.chunks(7777);
        runs.try_for_each(|run| creator.feed(run)).unwrap();
        let meta = Metainfo::from_bytes(&creator.finish().unwrap()).unwrap();
        let found: Vec<_> = meta
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.len))
            .collect();
        assert_eq!(
            found,
            [("t/bin/run", 20_000), ("t/empty", 0), ("t/z/ü", 30_000)]
        );
        assert!(meta.files[0].executable && !meta.files[2].executable);
        assert_eq!(meta.trackers, [["http://a/x"], ["udp://b:1"]]);
        assert_eq!(meta.geometry().piece_count(), 4);
        for (piece, run) in (0..).zip(bytes.chunks(16_384)) {
            assert_eq!(
                meta.text()
                    .expect("it was read")
                    .piece_hash(PieceIndex(piece)),
                &sha1(run),
                "piece {piece}"
            );
        }
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same_torrent() {
        let make = |split: usize| {
            let mut creator =
                Creator::new(options(vec![file("a", 16_380), file("b", 10)])).unwrap();
            let bytes = [9; 16_390];
            creator.feed(&bytes[..split]).unwrap();
            creator.feed(&bytes[split..]).unwrap();
            creator.finish().unwrap()
        };
        let whole = make(0);
        for split in (1..16_000).step_by(1999).chain(16_370..=16_390) {
            assert_eq!(make(split), whole, "split at {split}");
        }
    }

    #[test]
    fn files_that_change_while_being_read_are_noticed() {
        let mut creator = Creator::new(options(vec![file("", 3)])).unwrap();
        creator.feed(b"ab").unwrap();
        let longer = CreateError::LengthChanged { fed: 4, length: 3 };
        assert_eq!(creator.feed(b"cd"), Err(longer));
        let shorter = CreateError::LengthChanged { fed: 2, length: 3 };
        assert_eq!(creator.finish(), Err(shorter));
    }

    #[test]
    fn chosen_piece_length_makes_one_to_two_thousand_pieces() {
        const MIB: u64 = 1024 * 1024;
        let cases = [
            (0, 16 * 1024),
            (2000 * 16 * 1024, 16 * 1024),
            (2000 * 16 * 1024 + 1, 32 * 1024),
            (1024 * MIB, MIB as u32),
            (2000 * 16 * MIB + 1, 16 * MIB as u32),
            (u64::from(PIECES_MAX) * 16 * MIB, 16 * MIB as u32),
            (u64::from(PIECES_MAX) * 16 * MIB + 1, 32 * MIB as u32),
            (u64::MAX, PIECE_LEN_MAX),
        ];
        for (length, piece_len) in cases {
            assert_eq!(piece_len_for(length), piece_len, "{length} B");
        }
        for length in (32 * MIB..20_000 * MIB).step_by(77_777_777) {
            let pieces = length.div_ceil(u64::from(piece_len_for(length)));
            assert!(
                (1000..=2000).contains(&pieces),
                "{length} B in {pieces} pieces"
            );
        }
    }

    #[test]
    fn options_that_make_no_torrent_are_refused() {
        let good = options(vec![file("a", 1)]);
        let piece_len = |len| CreateOptions {
            piece_len: Some(len),
            ..good.clone()
        };
        let named = |name: &str| CreateOptions {
            name: name.to_owned(),
            ..good.clone()
        };
        let tracked = |url: &str| CreateOptions {
            trackers: vec![url.to_owned()],
            ..good.clone()
        };
        let cases = [
            (options(vec![]), "no files"),
            (
                options(vec![file("a", 1), file("", 1)]),
                "file 1 of a folder has no name",
            ),
            (
                options(vec![file("a", u64::MAX), file("b", 1)]),
                "lengths of the files add up to",
            ),
            (
                options(vec![file("a", 1 << 63)]),
                "lengths of the files add up to",
            ),
            (
                options(vec![file("a", 1), file("a/b", 1)]),
                "file 0 \"t/a\" is also a folder",
            ),
            (named(""), "name of the torrent is empty"),
            (named(".."), "name of the torrent is \".\""),
            (named("a/b"), "\"a/b\" is not one name but a path"),
            (piece_len(0), "piece length 0 is no power of two"),
            (
                piece_len(8192),
                "piece length 8192 is no power of two from 16384",
            ),
            (
                piece_len(48 * 1024),
                "piece length 49152 is no power of two",
            ),
            (
                piece_len(PIECE_LEN_MAX * 2),
                "piece length 536870912 is no power of two",
            ),
            (
                tracked("file:///x"),
                "\"file:///x\" is not the address of a tracker",
            ),
        ];
        for (bad, message) in cases {
            let error = Creator::new(bad).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        assert!(Creator::new(piece_len(PIECE_LEN_MAX)).is_ok());
    }
}
