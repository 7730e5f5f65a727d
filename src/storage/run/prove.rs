//! Hashing a piece as the disk has it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::MmapMut;
use sha1::{Digest, Sha1};

use crate::base::id::PieceIndex;
use crate::meta::metainfo::Metainfo;
use crate::storage::error::StorageError;
use crate::storage::lend::ZEROS;
use crate::storage::os::{self, DIRECT_ALIGN, Places, Walker};

/// Whether `piece`, read from the disk past the page cache where that is possible, has its hash.
///
/// # Errors
/// The disk cannot be read.
pub(super) fn prove(
    root: &Path,
    meta: &Metainfo,
    (piece, expected): (PieceIndex, &[u8; 20]),
    places: &Places,
) -> Result<bool, StorageError> {
    let geometry = meta.geometry();
    let mut walker = Walker::new(root, places)?;
    let mut hasher = Sha1::new();
    let buffer = Buffer::new();
    let mut buffer =
        buffer.map_err(|error| StorageError::from_io(root, "get memory to read", &error))?;
    for span in geometry.spans(piece, 0, geometry.piece_len(piece)) {
        if span.pad {
            let mut left = span.len as usize;
            while left > 0 {
                let len = left.min(ZEROS.len());
                hasher.update(&ZEROS[..len]);
                left -= len;
            }
            continue;
        }
        let name = meta.files[span.file as usize].path.as_path();
        let Some(file) = walker.open_for_reading(name)? else {
            return Ok(false);
        };
        let read = hash(
            &file,
            span.offset,
            u64::from(span.len),
            &mut buffer,
            &mut hasher,
        );
        match read {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(StorageError::from_io(&root.join(name), "read", &error)),
        }
    }
    Ok(<[u8; 20]>::from(hasher.finalize()) == *expected)
}

/// Hashes `len` bytes from `offset` on.
fn hash(
    file: &File,
    offset: u64,
    len: u64,
    buffer: &mut Buffer,
    hasher: &mut Sha1,
) -> io::Result<()> {
    if os::set_direct(file, true) {
        let mut attempt = hasher.clone();
        match hash_aligned(file, offset, len, buffer, &mut attempt) {
            Ok(()) => {
                *hasher = attempt;
                return Ok(());
            }
            // Some file systems say only now that they cannot do it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                os::set_direct(file, false);
            }
            Err(error) => return Err(error),
        }
    }
    os::forget_cached(file);
    hash_aligned(file, offset, len, buffer, hasher)
}

/// The same by reads that begin and end where direct reads may.
fn hash_aligned(
    file: &File,
    offset: u64,
    len: u64,
    buffer: &mut Buffer,
    hasher: &mut Sha1,
) -> io::Result<()> {
    let align = DIRECT_ALIGN as u64;
    let end = offset + len;
    let mut at = offset / align * align;
    while at < end {
        let wanted = (end - at).next_multiple_of(align).min(BUFFER_LEN as u64);
        let bytes = &mut buffer.aligned()[..wanted as usize];
        let got = read_full(file, bytes, at)?;
        let first = offset.saturating_sub(at).min(wanted) as usize;
        let last = (end - at).min(wanted) as usize;
        if got < last {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&bytes[first..last]);
        at += wanted;
    }
    Ok(())
}

/// Fills `bytes` as far as the file goes; how far that is.
fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match file.read_at(&mut bytes[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !got.is_multiple_of(DIRECT_ALIGN) {
            break; // the end of the file: what follows could not be asked for directly
        }
    }
    Ok(got)
}

/// Memory that direct reads accept: whole pages, which the system takes back when it is over.
struct Buffer(MmapMut);

impl Buffer {
    fn new() -> io::Result<Self> {
        let pages = MmapMut::map_anon(BUFFER_LEN)?;
        assert_eq!(pages.as_ptr().align_offset(DIRECT_ALIGN), 0, "whole pages");
        Ok(Self(pages))
    }

    fn aligned(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Bytes read at once.
const BUFFER_LEN: usize = 1024 * 1024;

const _: () = assert!(BUFFER_LEN.is_multiple_of(DIRECT_ALIGN));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_run_of_a_file_is_hashed_either_way() {
        let content: Vec<u8> = (0..3_000_001_u32).map(|i| (i % 251) as u8).collect();
        // Beside the sources, as the folder for temporary files may be in memory.
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).expect("a file");
        file.write_all_at(&content, 0).expect("written");
        file.sync_all().expect("synced");
        let runs = [
            (0, 3_000_001),
            (1, 4096),
            (4095, 2),
            (2_999_999, 2),
            (1_048_576, 1_048_577),
        ];
        for (offset, len) in runs {
            let expected: [u8; 20] = Sha1::digest(&content[offset..offset + len]).into();
            let mut hasher = Sha1::new();
            let mut buffer = Buffer::new().expect("memory");
            hash(&file, offset as u64, len as u64, &mut buffer, &mut hasher).expect("read");
            assert_eq!(
                <[u8; 20]>::from(hasher.finalize()),
                expected,
                "{offset}, {len}"
            );
            os::set_direct(&file, false);
            let mut hasher = Sha1::new();
            hash_aligned(&file, offset as u64, len as u64, &mut buffer, &mut hasher).expect("read");
            assert_eq!(
                <[u8; 20]>::from(hasher.finalize()),
                expected,
                "{offset}, {len}"
            );
        }
        let mut hasher = Sha1::new();
        let past = hash(
            &file,
            2_999_999,
            3,
            &mut Buffer::new().expect("memory"),
            &mut hasher,
        )
        .unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    }
}
