//! The list of files in the info dictionary (BEP 3, BEP 47).

use super::{MetainfoError, int};
use crate::base::limits::FILES_MAX;
use crate::meta::geometry::FileKind;
use crate::meta::paths::Listed;
use crate::wire::bencode::Value;

/// The files of the torrent, without links.
pub(super) struct Listing<'a> {
    pub(super) files: Vec<FileItem<'a>>,
    pub(super) links_skipped: u32,
}

/// A file as the torrent lists it.
pub(super) struct FileItem<'a> {
    pub(super) len: u64,
    /// Its names below the torrent's own, a list of strings; not there for a single file.
    path: Option<Value<'a>>,
    pub(super) kind: FileKind,
    pub(super) executable: bool,
}

impl<'a> Listing<'a> {
    pub(super) fn of_one_file(len: i64, attributes: &[u8]) -> Result<Self, MetainfoError> {
        let file = FileItem {
            len: file_len(0, len)?,
            path: None,
            kind: FileKind::Data,
            executable: attributes.contains(&b'x'),
        };
        Ok(Self {
            files: vec![file],
            links_skipped: 0,
        })
    }

    pub(super) fn read(files: Value<'a>) -> Result<Self, MetainfoError> {
        let items = files.as_list().ok_or(MetainfoError::WrongType {
            key: "files",
            expected: "a list",
        })?;
        let mut listing = Self {
            files: Vec::new(),
            links_skipped: 0,
        };
        for item in items {
            match FileItem::read(listing.files.len(), item)? {
                Some(_) if listing.files.len() == FILES_MAX => {
                    return Err(MetainfoError::TooManyFiles);
                }
                Some(file) => listing.files.push(file),
                None => listing.links_skipped += 1,
            }
        }
        if listing.files.is_empty() {
            return Err(MetainfoError::NoFiles);
        }
        Ok(listing)
    }
}

impl<'a> FileItem<'a> {
    /// File number `file` of the list; none if it is a link.
    fn read(file: usize, item: Value<'a>) -> Result<Option<Self>, MetainfoError> {
        let entries = item.as_dict().ok_or(MetainfoError::WrongType {
            key: "files",
            expected: "a list of dictionaries",
        })?;
        let (mut len, mut path, mut path_utf8) = (None, None, None);
        let mut attributes = &b""[..];
        for (key, value) in entries {
            match key {
                b"length" => len = Some(int("length", value)?),
                b"path" => path = Some(value),
                b"path.utf-8" => path_utf8 = Some(value),
                b"attr" => attributes = value.as_bytes().unwrap_or_default(),
                _ => {}
            }
        }
        if attributes.contains(&b'l') {
            return Ok(None);
        }
        let kind = match attributes.contains(&b'p') {
            true => FileKind::Pad,
            false => FileKind::Data,
        };
        let path = match kind {
            FileKind::Pad => None,
            FileKind::Data => Some(names(path_utf8.or(path))?),
        };
        let len = len.ok_or(MetainfoError::Missing { key: "length" })?;
        Ok(Some(Self {
            len: file_len(file, len)?,
            path,
            kind,
            executable: attributes.contains(&b'x'),
        }))
    }

    pub(super) fn listed(&self) -> Listed<'a> {
        let names = self.path.and_then(Value::as_list).into_iter().flatten();
        Listed {
            components: names.filter_map(Value::as_bytes).collect(),
            kind: self.kind,
        }
    }
}

/// The path of a file: a list of strings, and at least one.
fn names(path: Option<Value<'_>>) -> Result<Value<'_>, MetainfoError> {
    let path = path.ok_or(MetainfoError::Missing { key: "path" })?;
    let mut names = path.as_list().into_iter().flatten().peekable();
    if names.peek().is_none() || names.any(|name| name.as_bytes().is_none()) {
        return Err(MetainfoError::WrongType {
            key: "path",
            expected: "a list of names",
        });
    }
    Ok(path)
}

fn file_len(file: usize, len: i64) -> Result<u64, MetainfoError> {
    u64::try_from(len).map_err(|_| MetainfoError::NegativeLength { file, len })
}
