//! .torrent files: made by the binary under test, or by hand where a test needs to know every byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha1::{Digest, Sha1};

use super::data::DataSet;

/// A torrent made by hand: what a peer made by hand must know of it.
#[derive(Clone, Debug)]
pub struct HandMade {
    /// The .torrent file.
    pub path: PathBuf,
    /// SHA-1 of the info dictionary.
    pub info_hash: [u8; 20],
    /// Bytes of a piece; the last may be shorter.
    pub piece_len: u32,
    /// The content of all files, one after another.
    pub content: Vec<u8>,
}

impl HandMade {
    /// Makes a v1 torrent of `set` beside `set.folder`, which must be small enough for memory.
    pub fn of(set: &DataSet, piece_len: u32, tracker: Option<&str>) -> Self {
        let content = set.bytes();
        let mut info = Vec::from(*b"d");
        let is_single = set.files.len() == 1 && set.files[0].0 == Path::new(&set.name);
        if is_single {
            push_bytes(&mut info, b"length");
            push_int(&mut info, set.files[0].1);
        } else {
            push_bytes(&mut info, b"files");
            info.push(b'l');
            for (path, len) in &set.files {
                push_file(&mut info, path, *len);
            }
            info.push(b'e');
        }
        push_bytes(&mut info, b"name");
        push_bytes(&mut info, set.name.as_bytes());
        push_bytes(&mut info, b"piece length");
        push_int(&mut info, piece_len.into());
        push_bytes(&mut info, b"pieces");
        let hashes: Vec<u8> = content
            .chunks(piece_len as usize)
            .flat_map(|piece| <[u8; 20]>::from(Sha1::digest(piece)))
            .collect();
        push_bytes(&mut info, &hashes);
        info.push(b'e');

        let mut all = Vec::from(*b"d");
        if let Some(tracker) = tracker {
            push_bytes(&mut all, b"announce");
            push_bytes(&mut all, tracker.as_bytes());
        }
        push_bytes(&mut all, b"info");
        all.extend(&info);
        all.push(b'e');
        let path = set
            .folder
            .with_file_name(format!("{}.hand.torrent", set.name));
        fs::write(&path, all).expect("the scratch folder is writable");
        Self {
            path,
            info_hash: Sha1::digest(&info).into(),
            piece_len,
            content,
        }
    }

    /// Pieces of the torrent.
    pub fn piece_count(&self) -> u32 {
        (self.content.len() as u64).div_ceil(self.piece_len.into()) as u32
    }

    /// Bytes of piece `piece`.
    pub fn piece_len_of(&self, piece: u32) -> u32 {
        let begin = u64::from(piece) * u64::from(self.piece_len);
        (self.content.len() as u64 - begin).min(self.piece_len.into()) as u32
    }

    /// The content of a block.
    pub fn block(&self, piece: u32, begin: u32, len: u32) -> &[u8] {
        let from = piece as usize * self.piece_len as usize + begin as usize;
        &self.content[from..from + len as usize]
    }
}

/// Makes a .torrent of `set` with `evpeer create`, beside `set.folder`; returns its path.
pub fn create(set: &DataSet, tracker: Option<&str>) -> PathBuf {
    let path = set.folder.with_file_name(format!("{}.torrent", set.name));
    let mut command = Command::new(super::evpeer::BINARY);
    command.arg("create").arg(set.root()).arg("-o").arg(&path);
    if let Some(tracker) = tracker {
        command.arg("--tracker").arg(tracker);
    }
    let output = command.output().expect("the binary was built");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {errors}",
        output.status
    );
    path
}

/// A .torrent of one file of `len` zeros, a multiple of `piece_len`.
pub fn of_zeros(name: &str, len: u64, piece_len: u32) -> Vec<u8> {
    let hash: [u8; 20] = Sha1::digest(vec![0; piece_len as usize]).into();
    let mut all = Vec::from(*b"d4:infod");
    push_bytes(&mut all, b"length");
    push_int(&mut all, len);
    push_bytes(&mut all, b"name");
    push_bytes(&mut all, name.as_bytes());
    push_bytes(&mut all, b"piece length");
    push_int(&mut all, piece_len.into());
    push_bytes(&mut all, b"pieces");
    push_bytes(
        &mut all,
        &hash.repeat((len / u64::from(piece_len)) as usize),
    );
    all.extend(b"ee");
    all
}

fn push_file(info: &mut Vec<u8>, path: &Path, len: u64) {
    info.push(b'd');
    push_bytes(info, b"length");
    push_int(info, len);
    push_bytes(info, b"path");
    info.push(b'l');
    for component in path.components().skip(1) {
        push_bytes(info, component.as_os_str().as_encoded_bytes());
    }
    info.extend(b"ee");
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(format!("{}:", bytes.len()).bytes());
    out.extend(bytes);
}

fn push_int(out: &mut Vec<u8>, value: u64) {
    out.extend(format!("i{value}e").bytes());
}
