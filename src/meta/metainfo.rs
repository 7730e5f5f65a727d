//! What a .torrent file says (BEP 3, with BEP 12, 23, 27 and 47), read with suspicion.
//!
//! The info hash is that of the info dictionary's bytes as they were found. A hybrid torrent
//! (BEP 52) is read as the version 1 torrent that it also is; one of version 2 alone is refused.
//! Links (BEP 47) are not created and own no bytes: they are left out and counted.

mod listing;

use std::sync::Arc;

use bytes::Bytes;

use listing::{FileItem, Listing};

use super::geometry::{Geometry, GeometryError};
use super::paths::{self, Naming, PathError, SafePath};
use super::text::{Room, Text};
use super::trackers;
use crate::base::digest::sha1;
use crate::base::id::InfoHash;
use crate::base::limits::{FILES_MAX, TORRENT_FILE_LEN_MAX};
use crate::wire::bencode::{BencodeError, Limits, Value};

pub use super::geometry::FileKind;

/// A torrent, checked: every number in it agrees with every other, every path is safe.
#[derive(Clone, Debug)]
pub struct Metainfo {
    /// SHA-1 of `info`: what the swarm is called.
    pub info_hash: InfoHash,
    /// What the torrent is called, for people: what could steer a terminal is escaped.
    pub name: String,
    /// Whether only the torrent's own trackers may give peers (BEP 27).
    pub private: bool,
    /// Tracker addresses by tier (BEP 12); none of the tiers is empty.
    pub trackers: Vec<Vec<String>>,
    /// The files in the order of their bytes; empty and pad files included.
    pub files: Vec<FileEntry>,
    /// Links that the torrent lists and that are not among `files`.
    pub links_skipped: u32,
    /// Whether some path differs from the names in the torrent; then the data may also be on
    /// disk under the names of [`Naming::Exact`].
    pub names_changed: bool,
    geometry: Geometry,
    /// What one that runs does without.
    aside: Option<Box<Aside>>,
}

/// The bytes of a torrent, and what of them is for people.
#[derive(Clone, Debug)]
struct Aside {
    text: Text,
    remarks: Remarks,
}

/// What the maker of a torrent says of it, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What it is.
    pub comment: Option<String>,
    /// The program that made it.
    pub created_by: Option<String>,
    /// When it was made, seconds since 1970.
    pub creation_date: Option<i64>,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it is, below the output folder. For a pad file only a label.
    pub path: SafePath,
    /// Bytes.
    pub len: u64,
    /// Where its first byte lies in the torrent.
    pub offset: u64,
    /// Whether it is on disk.
    pub kind: FileKind,
    /// Whether it is a program (BEP 47, `attr` with `x`).
    pub executable: bool,
}

/// Why a file is not a torrent that we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// The file is larger than any torrent that we read.
    #[error("torrent file of {len} B, limit {TORRENT_FILE_LEN_MAX} B")]
    TooLong {
        /// Bytes of the file.
        len: usize,
    },
    /// It is not bencode.
    #[error("not a torrent file: {0}")]
    Bencode(#[from] BencodeError),
    /// Something that must be there is not.
    #[error("torrent without \"{key}\"")]
    Missing {
        /// What is missing.
        key: &'static str,
    },
    /// Something is there, but is not what it should be.
    #[error("\"{key}\" in the torrent is not {expected}")]
    WrongType {
        /// What is wrong.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A torrent of version 2 only.
    #[error("torrent of version 2 (BEP 52) without the version 1 part that this program needs")]
    OnlyVersion2,
    /// It says both that it is one file and that it has a list of files.
    #[error("torrent with both \"length\" and \"files\"")]
    LengthAndFiles,
    /// The list of files has no file.
    #[error("torrent without files")]
    NoFiles,
    /// The list of files is too long.
    #[error("torrent of more than {FILES_MAX} files")]
    TooManyFiles,
    /// A file has less than no bytes.
    #[error("file {file} has length {len}")]
    NegativeLength {
        /// Index of the file.
        file: usize,
        /// Its length.
        len: i64,
    },
    /// Lengths that make no torrent.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Piece hashes are cut off.
    #[error("\"pieces\" has {len} B, which is no multiple of 20")]
    HashesCut {
        /// Bytes of all hashes.
        len: usize,
    },
    /// There are not as many piece hashes as pieces.
    #[error("{found} piece hashes, but {length} B in pieces of {piece_len} B need {expected}")]
    HashCount {
        /// Hashes that there are.
        found: usize,
        /// Hashes that there should be.
        expected: u32,
        /// Bytes of all files.
        length: u64,
        /// Bytes of a piece.
        piece_len: u32,
    },
    /// A name that makes no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Metainfo {
    /// Reads a .torrent file and gives its files portable names.
    ///
    /// # Errors
    /// The first fact that makes it no torrent, or none that we take.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MetainfoError> {
        Self::from_bytes_named(bytes, Naming::Portable)
    }

    /// Reads a .torrent file; `naming` decides what its files are called on disk.
    ///
    /// # Errors
    /// As [`Metainfo::from_bytes`].
    pub fn from_bytes_named(bytes: &[u8], naming: Naming) -> Result<Self, MetainfoError> {
        if bytes.len() as u64 > TORRENT_FILE_LEN_MAX {
            return Err(MetainfoError::TooLong { len: bytes.len() });
        }
        let source = Bytes::copy_from_slice(bytes);
        let root = Value::decode(&source, Limits::FILE)?;
        let root_entries = root.as_dict().ok_or(MetainfoError::WrongType {
            key: "torrent",
            expected: "a dictionary",
        })?;
        let mut outer = Outer::default();
        root_entries.for_each(|(key, value)| outer.take(key, value));
        let info = outer.info.ok_or(MetainfoError::Missing { key: "info" })?;
        let InfoParts {
            name,
            listing,
            geometry,
            hashes,
            private,
        } = InfoParts::read(info)?;
        let listed: Vec<_> = listing.files.iter().map(FileItem::listed).collect();
        let placed = paths::place(name, &listed, naming)?;
        Ok(Self {
            info_hash: InfoHash(sha1(info.raw())),
            name: paths::printable(name),
            private,
            trackers: outer.trackers(),
            files: entries(&listing.files, placed.paths, &geometry),
            links_skipped: listing.links_skipped,
            names_changed: placed.changed,
            geometry,
            aside: Some(Box::new(Aside {
                text: Text::new(source.clone(), info.raw(), hashes),
                remarks: Remarks {
                    comment: outer.comment.map(paths::printable),
                    created_by: outer.created_by.map(paths::printable),
                    creation_date: outer.creation_date,
                },
            })),
        })
    }

    /// How the data is cut into pieces and files.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// A file of this torrent that cannot be on a disk together with those of `other`.
    pub fn file_in_common<'a>(&'a self, other: &'a Self) -> Option<&'a SafePath> {
        let top = |meta: &'a Self| meta.files.first()?.path.components().next();
        if !paths::is_same_name(top(self)?, top(other)?) {
            return None; // all files of a torrent lie below its name
        }
        let data = |file: &&FileEntry| file.kind == FileKind::Data;
        let ours = self.files.iter().filter(data).map(|file| &file.path);
        let theirs = other.files.iter().filter(data).map(|file| &file.path);
        paths::first_in_common(ours, theirs)
    }

    /// Its bytes, if it has them: one that was read has, one that runs may not.
    pub fn text(&self) -> Option<&Text> {
        self.aside.as_ref().map(|aside| &aside.text)
    }

    /// Puts its bytes, if it has them, where others lie that will go when they do.
    pub fn move_text(&mut self, room: &mut Room) {
        self.aside = self.aside.take().map(|mut aside| {
            aside.text = room.take_in(aside.text);
            aside
        });
    }

    /// What its maker says of it, if it has its bytes.
    pub fn remarks(&self) -> Option<&Remarks> {
        self.aside.as_ref().map(|aside| &aside.remarks)
    }

    /// The torrent without its bytes, and these, if it has them.
    pub fn apart(meta: Arc<Self>) -> (Arc<Self>, Option<Text>) {
        if meta.aside.is_none() {
            return (meta, None);
        }
        let mut meta = Arc::unwrap_or_clone(meta);
        let aside = meta.aside.take();
        (Arc::new(meta), aside.map(|aside| aside.text))
    }

    /// Its name and its bytes alone.
    pub(super) fn into_text(self) -> (InfoHash, Option<Text>) {
        (self.info_hash, self.aside.map(|aside| aside.text))
    }
}

fn entries(items: &[FileItem<'_>], paths: Vec<SafePath>, geometry: &Geometry) -> Vec<FileEntry> {
    let files = items.iter().zip(paths).zip(0..);
    files
        .map(|((item, path), file)| FileEntry {
            path,
            len: item.len,
            offset: geometry.file_offset(file),
            kind: item.kind,
            executable: item.executable,
        })
        .collect()
}

/// What stands beside the info dictionary; of the wrong type is as good as not there.
#[derive(Default)]
struct Outer<'a> {
    info: Option<Value<'a>>,
    announce: Option<&'a [u8]>,
    announce_list: Option<Value<'a>>,
    comment: Option<&'a [u8]>,
    created_by: Option<&'a [u8]>,
    creation_date: Option<i64>,
}

impl<'a> Outer<'a> {
    fn take(&mut self, key: &[u8], value: Value<'a>) {
        match key {
            b"info" => self.info = Some(value),
            b"announce" => self.announce = value.as_bytes(),
            b"announce-list" => self.announce_list = Some(value),
            b"comment" => self.comment = value.as_bytes(),
            b"created by" => self.created_by = value.as_bytes(),
            b"creation date" => self.creation_date = value.as_int(),
            _ => {}
        }
    }

    /// The usable addresses by tier, each once; `announce` counts if the list has none (BEP 12).
    fn trackers(&self) -> Vec<Vec<String>> {
        let mut kept = trackers::Tiers::default();
        for tier in self
            .announce_list
            .and_then(Value::as_list)
            .into_iter()
            .flatten()
        {
            match tier.as_list() {
                Some(urls) => kept.add_tier(urls.filter_map(Value::as_bytes)),
                // Some makers write a flat list.
                None => kept.add_tier(tier.as_bytes()),
            }
        }
        if kept.is_empty() {
            kept.add_tier(self.announce);
        }
        kept.into_tiers()
    }
}

/// What the info dictionary says, checked but for the names.
struct InfoParts<'a> {
    name: &'a [u8],
    listing: Listing<'a>,
    geometry: Geometry,
    hashes: &'a [u8],
    private: bool,
}

impl<'a> InfoParts<'a> {
    fn read(info: Value<'a>) -> Result<Self, MetainfoError> {
        let fields = InfoFields::read(info)?;
        let has_version_1 = fields.hashes.is_some();
        if fields.version == Some(2) && !has_version_1 {
            return Err(MetainfoError::OnlyVersion2);
        }
        let name = fields.name.ok_or(MetainfoError::Missing { key: "name" })?;
        let piece_len = fields.piece_len.ok_or(MetainfoError::Missing {
            key: "piece length",
        })?;
        let hashes = fields
            .hashes
            .ok_or(MetainfoError::Missing { key: "pieces" })?;
        let listing = match (fields.len, fields.files) {
            (Some(_), Some(_)) => return Err(MetainfoError::LengthAndFiles),
            (Some(len), None) => Listing::of_one_file(len, fields.attributes)?,
            (None, Some(files)) => Listing::read(files)?,
            (None, None) => {
                return Err(MetainfoError::Missing {
                    key: "length\" or \"files",
                });
            }
        };
        let lens = listing.files.iter().map(|file| (file.len, file.kind));
        let geometry = Geometry::new(piece_len, lens)?;
        check_hashes(hashes, &geometry)?;
        let private = fields.private;
        Ok(Self {
            name,
            listing,
            geometry,
            hashes,
            private,
        })
    }
}

fn check_hashes(hashes: &[u8], geometry: &Geometry) -> Result<(), MetainfoError> {
    let len = hashes.len();
    if !len.is_multiple_of(20) {
        return Err(MetainfoError::HashesCut { len });
    }
    let expected = geometry.piece_count();
    if len / 20 != expected as usize {
        return Err(MetainfoError::HashCount {
            found: len / 20,
            expected,
            length: geometry.length(),
            piece_len: geometry.nominal_piece_len(),
        });
    }
    Ok(())
}

/// The info dictionary as it is, each field of the right type.
#[derive(Default)]
struct InfoFields<'a> {
    name: Option<&'a [u8]>,
    piece_len: Option<i64>,
    hashes: Option<&'a [u8]>,
    len: Option<i64>,
    files: Option<Value<'a>>,
    attributes: &'a [u8],
    private: bool,
    version: Option<i64>,
}

impl<'a> InfoFields<'a> {
    fn read(info: Value<'a>) -> Result<Self, MetainfoError> {
        let entries = info.as_dict().ok_or(MetainfoError::WrongType {
            key: "info",
            expected: "a dictionary",
        })?;
        let mut fields = Self::default();
        let mut name_utf8 = None;
        for (key, value) in entries {
            match key {
                b"name" => fields.name = Some(bytes("name", value)?),
                // Makers that write another encoding into `name` put UTF-8 here.
                b"name.utf-8" => name_utf8 = value.as_bytes(),
                b"piece length" => fields.piece_len = Some(int("piece length", value)?),
                b"pieces" => fields.hashes = Some(bytes("pieces", value)?),
                b"length" => fields.len = Some(int("length", value)?),
                b"files" => fields.files = Some(value),
                b"attr" => fields.attributes = value.as_bytes().unwrap_or_default(),
                b"private" => fields.private = value.as_int() == Some(1),
                b"meta version" => fields.version = value.as_int(),
                _ => {}
            }
        }
        fields.name = name_utf8.or(fields.name);
        Ok(fields)
    }
}

fn bytes<'a>(key: &'static str, value: Value<'a>) -> Result<&'a [u8], MetainfoError> {
    let expected = "a string";
    value
        .as_bytes()
        .ok_or(MetainfoError::WrongType { key, expected })
}

fn int(key: &'static str, value: Value<'_>) -> Result<i64, MetainfoError> {
    let expected = "an integer";
    value
        .as_int()
        .ok_or(MetainfoError::WrongType { key, expected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PieceIndex;

    /// The text of a torrent whose info dictionary has `info` inside and nothing beside it.
    fn torrent(info: &str) -> Vec<u8> {
        format!("d4:infod{info}ee").into_bytes()
    }

    const SINGLE: &str = "6:lengthi5e4:name1:a12:piece lengthi4e6:pieces40:\
                          aaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn torrents_that_cannot_be_on_one_disk_are_told_by_the_file() {
        let single = |name: &str| {
            let len = name.len();
            let info = format!("6:lengthi5e4:name{len}:{name}12:piece lengthi8e6:pieces20:");
            Metainfo::from_bytes(&torrent(&(info + "aaaaaaaaaaaaaaaaaaaa"))).unwrap()
        };
        let tree = |path: &[&str]| {
            let names: String = path.iter().map(|n| format!("{}:{n}", n.len())).collect();
            let info = format!(
                "5:filesld6:lengthi5e4:pathl{names}eee4:name1:d12:piece lengthi8e6:pieces20:"
            );
            Metainfo::from_bytes(&torrent(&(info + "aaaaaaaaaaaaaaaaaaaa"))).unwrap()
        };
        let cases = [
            ("other names", single("a"), single("b"), None),
            ("the same file", single("a"), single("a"), Some("a")),
            ("but for case", single("A"), single("a"), Some("A")),
            (
                "other files of one folder",
                tree(&["x"]),
                tree(&["y"]),
                None,
            ),
            (
                "the same in a folder",
                tree(&["x", "y"]),
                tree(&["x", "y"]),
                Some("d/x/y"),
            ),
            (
                "a file where a folder is",
                single("d"),
                tree(&["x"]),
                Some("d"),
            ),
            (
                "a folder where a file is",
                tree(&["x", "y"]),
                tree(&["x"]),
                Some("d/x/y"),
            ),
        ];
        for (name, ours, theirs, expected) in cases {
            let found = ours.file_in_common(&theirs).map(SafePath::as_str);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn single_file_is_read() {
        let meta = Metainfo::from_bytes(&torrent(SINGLE)).unwrap();
        assert_eq!(meta.name, "a");
        assert_eq!(meta.files.len(), 1);
        assert_eq!(meta.files[0].path.as_str(), "a");
        assert_eq!(meta.files[0].len, 5);
        assert_eq!(meta.geometry().piece_count(), 2);
        let text = meta.text().expect("it was read a moment ago");
        assert_eq!(text.piece_hash(PieceIndex(1)), &[b'b'; 20]);
        assert_eq!(text.info(), format!("d{SINGLE}e").as_bytes());
        assert_eq!(meta.info_hash.0, sha1(text.info()));
        assert!(!meta.private && meta.trackers.is_empty() && !meta.names_changed);
    }

    #[test]
    fn list_of_files_is_read_in_order_with_attributes() {
        let files = "d4:attr1:x6:lengthi3e4:pathl3:bin1:aee\
                     d4:attr1:p6:lengthi1ee\
                     d4:attr1:l6:lengthi0e4:pathl4:linke12:symlink pathl2:..ee\
                     d6:lengthi0e4:pathl5:emptyee";
        let info = format!(
            "5:filesl{files}e4:name1:t12:piece lengthi4e6:pieces20:{}",
            [' '; 20].iter().collect::<String>()
        );
        let meta = Metainfo::from_bytes(&torrent(&info)).unwrap();
        let shown: Vec<_> = meta
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.offset, f.len, f.kind, f.executable))
            .collect();
        assert_eq!(
            shown,
            [
                ("t/bin/a", 0, 3, FileKind::Data, true),
                ("t/.pad/1", 3, 1, FileKind::Pad, false),
                ("t/empty", 4, 0, FileKind::Data, false),
            ]
        );
        assert_eq!(meta.links_skipped, 1);
        assert_eq!(meta.geometry().data_len(), 3);
    }

    #[test]
    fn what_stands_beside_the_info_is_read_or_left() {
        let beside = "8:announce8:http://a\
                      13:announce-listll8:http://b8:http://bel8:http://c4:junkel3:badee\
                      7:comment3:x\x1by10:created by6:evpeer13:creation datei9e";
        let text = format!("d{beside}4:infod{SINGLE}7:privatei1eee");
        let meta = Metainfo::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(meta.trackers, [["http://b"], ["http://c"]]);
        let remarks = meta.remarks().expect("it was read");
        assert_eq!(remarks.comment.as_deref(), Some("x\\u{1b}y"));
        assert_eq!(remarks.created_by.as_deref(), Some("evpeer"));
        assert_eq!(remarks.creation_date, Some(9));
        assert!(meta.private);

        let text = format!("d8:announce8:http://a13:announce-listlee4:infod{SINGLE}ee");
        assert!(Metainfo::from_bytes(text.as_bytes()).is_err(), "an extra e");
        let text = format!("d8:announce8:http://a13:announce-listle4:infod{SINGLE}ee");
        let meta = Metainfo::from_bytes(text.as_bytes()).unwrap();
        assert_eq!(meta.trackers, [["http://a"]]);
    }

    #[test]
    fn utf8_names_are_preferred() {
        let info = SINGLE.replace("4:name1:a", "4:name1:a10:name.utf-82:\u{e4}");
        assert_eq!(
            Metainfo::from_bytes(&torrent(&info)).unwrap().name,
            "\u{e4}"
        );
    }

    #[test]
    fn version_2_needs_a_version_1_part() {
        let only_2 = "12:meta versioni2e4:name1:a12:piece lengthi16384e";
        let error = Metainfo::from_bytes(&torrent(only_2)).unwrap_err();
        assert_eq!(error, MetainfoError::OnlyVersion2);
        let hybrid = format!(
            "9:file treede{}",
            SINGLE.replace("4:name", "12:meta versioni2e4:name")
        );
        assert_eq!(
            Metainfo::from_bytes(&torrent(&hybrid)).unwrap().files.len(),
            1
        );
    }

    #[test]
    fn errors_name_the_fact_with_its_numbers() {
        let cases = [
            (
                SINGLE.replace("i5e", "i4e"),
                "2 piece hashes, but 4 B in pieces of 4 B need 1",
            ),
            (SINGLE.replace("i5e", "i-5e"), "file 0 has length -5"),
            (
                SINGLE.replace("i4e", "i0e"),
                "piece length 0, allowed are 1 to 268435456",
            ),
            (
                SINGLE.replace("i5e", "1:5"),
                "\"length\" in the torrent is not an integer",
            ),
            (SINGLE.replace("4:name1:a", ""), "torrent without \"name\""),
            (
                SINGLE.replace("6:lengthi5e", ""),
                "torrent without \"length\" or \"files\"",
            ),
            (
                SINGLE.replace("40:aa", "38:"),
                "\"pieces\" has 38 B, which is no multiple of 20",
            ),
            (
                SINGLE.replace("1:a", "2:.."),
                "name of the torrent is \".\" or \"..\"",
            ),
        ];
        for (info, message) in cases {
            let error = Metainfo::from_bytes(&torrent(&info)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let error = Metainfo::from_bytes(b"<html>").unwrap_err();
        let message = "not a torrent file: bencode value at byte 0 begins with 0x3c";
        assert_eq!(error.to_string(), message);
    }
}
