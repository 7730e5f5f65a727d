//! Trees of seeded content and their comparison, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file or tree on disk that a torrent is made of.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// The folder that holds it: what a seed is given as output folder.
    pub folder: PathBuf,
    /// Its name in that folder, and the torrent's name.
    pub name: String,
    /// Files in the order of a torrent made by hand: path below `folder`, length in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

/// What a comparison lets pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Empty files may be missing (Transmission 3.00 never makes them).
    pub empty_files: bool,
    /// Executable bits may be missing (Transmission and aria2 do not know them).
    pub executable_bits: bool,
    /// There may be a control file beside the data (aria2 keeps one until it leaves).
    pub control_file: bool,
}

impl Tolerance {
    /// Nothing may differ.
    pub const NONE: Self = Self {
        empty_files: false,
        executable_bits: false,
        control_file: false,
    };
}

impl DataSet {
    /// One file of `len` bytes in `folder`.
    pub fn file(folder: &Path, name: &str, len: u64, content_seed: u64) -> Self {
        write_content(&folder.join(name), len, content_seed);
        Self {
            folder: folder.into(),
            name: name.into(),
            files: vec![(name.into(), len)],
        }
    }

    /// About 30 files of `len` bytes together: nested folders, names in Unicode and with spaces,
    /// empty files at the start, inside and at the end, sizes around the block, an executable.
    pub fn tree(folder: &Path, name: &str, len: u64, content_seed: u64) -> Self {
        let odd_len: u64 = ODD_FILES.iter().map(|(_, len)| len).sum();
        assert!(
            len > odd_len + 1024 * 1024,
            "a tree is larger than its odd files"
        );
        let mut files: Vec<(PathBuf, u64)> = Vec::new();
        for (path, len) in ODD_FILES {
            files.push((Path::new(name).join(path), len));
        }
        let weights: Vec<u64> = (0..BULK_FILES).map(|i| 1 + (i * 7919) % 13).collect();
        let total: u64 = weights.iter().sum();
        let mut rest = len - odd_len;
        for (i, weight) in weights.iter().enumerate() {
            let is_last = i + 1 == weights.len();
            let share = if is_last {
                rest
            } else {
                (len - odd_len) * weight / total
            };
            rest -= share;
            let path = format!("bulk/{:02}/part-{i:03}.bin", i % 5);
            files.push((Path::new(name).join(path), share));
        }
        files.push((Path::new(name).join("zz/empty-at-the-end"), 0));
        for (i, (path, len)) in files.iter().enumerate() {
            write_content(&folder.join(path), *len, content_seed + i as u64);
        }
        let set = Self {
            folder: folder.into(),
            name: name.into(),
            files,
        };
        let executable = set.root().join(EXECUTABLE);
        fs::set_permissions(&executable, fs::Permissions::from_mode(0o755)).expect("it is ours");
        set
    }

    /// The file or folder itself.
    pub fn root(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Bytes of all files.
    pub fn len(&self) -> u64 {
        self.files.iter().map(|(_, len)| len).sum()
    }

    /// Puts a copy of everything into `folder`.
    pub fn copy_to(&self, folder: &Path) {
        for (path, _) in &self.files {
            let copy = folder.join(path);
            fs::create_dir_all(copy.parent().expect("it has a folder")).expect("writable");
            fs::copy(self.folder.join(path), copy).expect("writable");
        }
    }

    /// Panics unless `folder` holds this set and nothing else but evpeer's state folder.
    pub fn assert_same_in(&self, folder: &Path, tolerance: Tolerance) {
        let mut actual = files_below(folder);
        actual.retain(|path, _| !path.starts_with(".evpeer"));
        if tolerance.control_file {
            actual.remove(Path::new(&format!("{}.aria2", self.name)));
        }
        let mut expected = files_below(&self.folder);
        expected.retain(|path, _| !path.starts_with(".evpeer"));
        for (path, expected) in &expected {
            let Some(actual) = actual.remove(path) else {
                let may_miss = tolerance.empty_files && expected.len == 0;
                assert!(
                    may_miss,
                    "{} is missing in {}",
                    path.display(),
                    folder.display()
                );
                continue;
            };
            let place = folder.join(path);
            assert_eq!(actual.len, expected.len, "length of {}", place.display());
            if !tolerance.executable_bits {
                let mode = (actual.is_executable, expected.is_executable);
                assert_eq!(mode.0, mode.1, "executable bit of {}", place.display());
            }
            assert_same_bytes(&self.folder.join(path), &place);
        }
        assert!(
            actual.is_empty(),
            "{} holds more: {actual:?}",
            folder.display()
        );
    }

    /// The bytes of the whole torrent, for small sets.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (path, _) in &self.files {
            all.extend(fs::read(self.folder.join(path)).expect("it is there"));
        }
        all
    }
}

/// Turns over one bit at `offset` of a file.
pub fn flip_bit(path: &Path, offset: u64) {
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("it is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).expect("it is that long");
    file.read_exact(&mut byte).expect("it is that long");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(offset)).expect("it is that long");
    file.write_all(&byte).expect("it is writable");
}

/// Names of everything below `folder`, for "nothing was written" checks.
pub fn names_below(folder: &Path) -> Vec<PathBuf> {
    files_below(folder).into_keys().collect()
}

#[derive(Debug)]
struct Facts {
    len: u64,
    is_executable: bool,
}

fn files_below(folder: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = fs::read_dir(&next);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", next.display()));
        for entry in entries {
            let entry = entry.expect("the folder stays");
            // A peer replaces its state files by temporary ones, which may be gone by now.
            let facts = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                facts => facts.unwrap_or_else(|e| panic!("{}: {e}", entry.path().display())),
            };
            if facts.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry
                .path()
                .strip_prefix(folder)
                .expect("it is below")
                .to_path_buf();
            let is_executable = facts.permissions().mode() & 0o111 != 0;
            found.insert(
                path,
                Facts {
                    len: facts.len(),
                    is_executable,
                },
            );
        }
    }
    found
}

fn assert_same_bytes(expected: &Path, actual: &Path) {
    let mut files = [expected, actual]
        .map(|path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let mut chunks = [vec![0; CHUNK_LEN], vec![0; CHUNK_LEN]];
    let mut offset = 0;
    loop {
        let mut lens = [0; 2];
        for i in 0..2 {
            lens[i] = read_full(&mut files[i], &mut chunks[i]);
        }
        assert_eq!(lens[0], lens[1], "length of {}", actual.display());
        if chunks[0][..lens[0]] != chunks[1][..lens[1]] {
            let at = (0..lens[0])
                .find(|&i| chunks[0][i] != chunks[1][i])
                .expect("they differ");
            panic!("{} differs first at byte {}", actual.display(), offset + at);
        }
        if lens[0] == 0 {
            return;
        }
        offset += lens[0];
    }
}

fn read_full(file: &mut File, chunk: &mut [u8]) -> usize {
    let mut len = 0;
    while len < chunk.len() {
        match file.read(&mut chunk[len..]).expect("the disk works") {
            0 => break,
            n => len += n,
        }
    }
    len
}

fn write_content(path: &Path, len: u64, content_seed: u64) {
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("writable");
    let mut file = BufWriter::with_capacity(CHUNK_LEN, File::create(path).expect("writable"));
    let mut state = content_seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1;
    let mut rest = len;
    let mut chunk = [0u8; 8192];
    while rest > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64*, which no hash and no compressing file system sees through
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            word.copy_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        let now = rest.min(chunk.len() as u64);
        file.write_all(&chunk[..now as usize])
            .expect("the disk has room");
        rest -= now;
    }
    file.flush().expect("the disk has room");
}

/// Files that every tree begins with: path below its root and length.
const ODD_FILES: [(&str, u64); 8] = [
    ("aa-empty-at-the-start", 0),
    (EXECUTABLE, 4321),
    ("deep/er/and/deeper/still/block-less-one.bin", 16 * 1024 - 1),
    ("deep/er/empty-inside", 0),
    ("one-byte", 1),
    ("spaces and 'quotes' & more.bin", 70_001),
    ("ünïcödé ☃/日本語.txt", 16 * 1024 + 1),
    ("ünïcödé ☃/空", 0),
];
const EXECUTABLE: &str = "bin/run-me.sh";
const BULK_FILES: u64 = 20;
const CHUNK_LEN: usize = 1024 * 1024;
