//! From names in a torrent to paths that are safe to create: the only such way.
//!
//! A torrent's names are bytes that a stranger chose. [`place`] makes of them relative paths
//! below the output folder, or refuses: nothing climbs out, no name is a folder and a file,
//! no two files share a path even where the file system ignores case or composes accents.
//!
//! Two ways of naming exist. [`Naming::Portable`] also replaces what other systems forbid, so
//! that what arrives can be copied anywhere. [`Naming::Exact`] keeps every name that this
//! system can create, for data that is already there under its own name: a folder that was
//! shared from here may well hold `a:b`, `aux.c` or both `Readme` and `README`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use unicode_normalization::UnicodeNormalization;

use super::geometry::FileKind;
use crate::base::digest::sha1;
use crate::base::id::hex;
use crate::base::limits::{NAME_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX};

/// A relative path that stays below the folder it is joined to.
///
/// Every component is a plain name: not empty, not `.` or `..`, no separator, no NUL, at most
/// [`NAME_LEN_MAX`] bytes, valid UTF-8. `Display` escapes what could confuse a terminal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Box<str>);

/// How the names of a torrent become names on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// Names that every common system can create, different even without regard to case.
    #[default]
    Portable,
    /// The names of the torrent, as far as this system can create them.
    Exact,
}

/// A file as the torrent lists it.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// Its names below the torrent's own; none if the torrent is this one file.
    pub components: Vec<&'a [u8]>,
    /// A pad file needs no names: it never reaches a disk.
    pub kind: FileKind,
}

/// What [`place`] found.
#[derive(Clone, Debug)]
pub struct Placed {
    /// One path a file, in their order.
    pub paths: Vec<SafePath>,
    /// Whether some name on disk is not the name in the torrent.
    pub changed: bool,
}

/// Why the names of a torrent cannot become paths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The torrent's own name is no name.
    #[error("name of the torrent {fault}")]
    Name {
        /// What is wrong with it.
        fault: NameFault,
    },
    /// A name in the path of a file is no name.
    #[error("path of file {file} has a name that {fault}")]
    Component {
        /// Index of the file.
        file: usize,
        /// What is wrong with the name.
        fault: NameFault,
    },
    /// A file lies too deep.
    #[error("file {file} is {folders} folders deep, limit {PATH_DEPTH_MAX}")]
    TooDeep {
        /// Index of the file.
        file: usize,
        /// Folders that it is in.
        folders: usize,
    },
    /// A file has the path of a folder that another file is in.
    #[error("file {file} \"{path}\" is also a folder of another file")]
    FileIsFolder {
        /// Index of the file.
        file: usize,
        /// Its path.
        path: SafePath,
    },
}

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// There are no bytes.
    #[error("is empty")]
    Empty,
    /// It is `.` or `..`.
    #[error("is \".\" or \"..\"")]
    Dots,
    /// It holds a zero byte.
    #[error("contains a zero byte")]
    Nul,
}

impl SafePath {
    /// As a path, to be joined to the output folder.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// As text with `/` between the components; not for a terminal, see `Display`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names, the outermost folder first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write_printable(c, f))
    }
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafePath({self})")
    }
}

/// Gives every file of a torrent called `name` its path.
///
/// The first component is the torrent's name. Files whose paths would be the same get a
/// number, in the order of the list. The outcome depends on the arguments alone.
///
/// # Errors
/// Names that are no names, a file that is a folder too, and paths that are too deep.
pub fn place(name: &[u8], files: &[Listed<'_>], naming: Naming) -> Result<Placed, PathError> {
    check_name(name).map_err(|fault| PathError::Name { fault })?;
    let root = top_name(map_name(name, naming), naming);
    let mut wanted = Vec::with_capacity(files.len());
    let mut taken = Taken::new(naming);
    let mut changed = root.as_bytes() != name;
    for (file, listed) in files.iter().enumerate() {
        if listed.kind == FileKind::Pad {
            wanted.push(format!("{root}/.pad/{file}"));
            continue;
        }
        check_components(file, &listed.components)?;
        let path = join(&root, &listed.components, naming);
        let original = listed.components.iter().flat_map(|name| [b"/", *name]);
        changed |= !path
            .bytes()
            .skip(root.len())
            .eq(original.flatten().copied());
        taken.add_folders(&path);
        wanted.push(path);
    }
    let mut paths = Vec::with_capacity(files.len());
    for (file, (listed, path)) in files.iter().zip(wanted).enumerate() {
        let free = match listed.kind {
            FileKind::Pad => path,
            FileKind::Data => taken.add_file(file, path, &mut changed)?,
        };
        paths.push(SafePath(free.into()));
    }
    Ok(Placed { paths, changed })
}

/// Whether some file system takes the two names for one.
pub fn is_same_name(a: &str, b: &str) -> bool {
    folded(a) == folded(b)
}

/// The first of the files `ours` whose path is also one of `theirs`, or a folder of one, or in
/// such a file, on some file system.
pub fn first_in_common<'a>(
    ours: impl Iterator<Item = &'a SafePath>,
    theirs: impl Iterator<Item = &'a SafePath>,
) -> Option<&'a SafePath> {
    let mut files = HashSet::new();
    let mut folders = HashSet::new();
    for path in theirs {
        let mut key = 0;
        let mut names = path.components().peekable();
        while let Some(name) = names.next() {
            key = child_key(key, name, Naming::Portable);
            match names.peek() {
                Some(_) => folders.insert(key),
                None => files.insert(key),
            };
        }
    }
    let mut ours = ours;
    ours.find(|path| {
        let mut key = 0;
        let is_in_file = path.components().any(|name| {
            key = child_key(key, name, Naming::Portable);
            files.contains(&key)
        });
        is_in_file || folders.contains(&key)
    })
}

/// Text that a stranger wrote, fit for a terminal or a log: what is no UTF-8 and what could
/// steer a terminal or turn the direction of writing is shown as an escape.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_printable(c, &mut text).expect("writing to a String cannot fail");
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    text
}

/// The paths of one torrent while they are given out.
///
/// Paths are remembered by a hash of 64 bits: should two ever agree by chance (or by an
/// attacker's year of work), a file gets a number that it did not need, and nothing worse.
struct Taken {
    naming: Naming,
    folders_exact: HashSet<u64>,
    folders: HashSet<u64>,
    files: HashSet<u64>,
    /// The last number given to a file that wanted this path.
    numbers: HashMap<u64, u32>,
}

impl Taken {
    fn new(naming: Naming) -> Self {
        Self {
            naming,
            folders_exact: HashSet::new(),
            folders: HashSet::new(),
            files: HashSet::new(),
            numbers: HashMap::new(),
        }
    }

    /// Notes the folders that a file at `path` is in.
    fn add_folders(&mut self, path: &str) {
        let Some((parent, _)) = path.rsplit_once('/') else {
            return;
        };
        let (mut exact, mut folded) = (0, 0);
        for name in parent.split('/') {
            exact = child_key(exact, name, Naming::Exact);
            folded = child_key(folded, name, self.naming);
            self.folders_exact.insert(exact);
            self.folders.insert(folded);
        }
    }

    /// Takes `path` for file number `file`, or the next free one like it.
    fn add_file(
        &mut self,
        file: usize,
        path: String,
        changed: &mut bool,
    ) -> Result<String, PathError> {
        if self.folders_exact.contains(&path_key(&path, Naming::Exact)) {
            let path = SafePath(path.into());
            return Err(PathError::FileIsFolder { file, path });
        }
        let key = path_key(&path, self.naming);
        if self.take(key) {
            return Ok(path);
        }
        *changed = true;
        let name_start = path.rfind('/').map_or(0, |slash| slash + 1);
        let (parent, name) = path.split_at(name_start);
        loop {
            let number = self.numbers.entry(key).or_insert(1);
            *number += 1;
            let candidate = format!("{parent}{}", numbered(name, *number));
            if self.take(path_key(&candidate, self.naming)) {
                return Ok(candidate);
            }
        }
    }

    fn take(&mut self, key: u64) -> bool {
        !self.folders.contains(&key) && self.files.insert(key)
    }
}

fn path_key(path: &str, naming: Naming) -> u64 {
    path.split('/')
        .fold(0, |parent, name| child_key(parent, name, naming))
}

/// The key of the path of `name` in the folder with key `parent`: the same for all names that
/// some file system takes for the same.
fn child_key(parent: u64, name: &str, naming: Naming) -> u64 {
    let mut hasher = DefaultHasher::new();
    parent.hash(&mut hasher);
    match naming {
        Naming::Exact => name.hash(&mut hasher),
        Naming::Portable => folded(name).hash(&mut hasher),
    }
    hasher.finish()
}

/// `name` without regard to case, to how accents are composed, and to characters that HFS+
/// ignores: a little coarser than any one file system.
fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    name.nfd()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfd()
        .filter(|c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}'))
        .filter(|c| !matches!(c, '\u{206a}'..='\u{206f}' | '\u{feff}'))
        .collect()
}

fn check_components(file: usize, components: &[&[u8]]) -> Result<(), PathError> {
    let folders = components.len();
    if folders > PATH_DEPTH_MAX {
        return Err(PathError::TooDeep { file, folders });
    }
    let mut faults = components.iter().filter_map(|name| check_name(name).err());
    match faults.next() {
        Some(fault) => Err(PathError::Component { file, fault }),
        None => Ok(()),
    }
}

/// Says what makes `name` unfit to be one component of a path, whatever it is mapped to.
fn check_name(name: &[u8]) -> Result<(), NameFault> {
    match name {
        b"" => Err(NameFault::Empty),
        b"." | b".." => Err(NameFault::Dots),
        _ if name.contains(&0) => Err(NameFault::Nul),
        _ => Ok(()),
    }
}

/// The mapped path; if it is too long in all, every name is cut to an equal share.
fn join(root: &str, components: &[&[u8]], naming: Naming) -> String {
    let names = || {
        let below = components.iter().map(|name| map_name(name, naming));
        std::iter::once(root.to_owned()).chain(below)
    };
    let len: usize = names().map(|name| name.len() + 1).sum();
    let share = match len > PATH_LEN_MAX {
        true => PATH_LEN_MAX / (components.len() + 1) - 1,
        false => NAME_LEN_MAX,
    };
    let mut path = String::with_capacity(len.min(PATH_LEN_MAX));
    for name in names() {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&shortened(&name, share));
    }
    path
}

/// The name on disk of `name`; a name that needs no change stays as it is.
fn map_name(name: &[u8], naming: Naming) -> String {
    let mut mapped = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_kept(c, naming) {
                mapped.push(c);
            } else {
                push_percent(&mut mapped, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        push_percent(&mut mapped, chunk.invalid());
    }
    if naming == Naming::Portable {
        // Windows drops a dot or space at the end, so that two names would be one file.
        if let Some(last @ (b'.' | b' ')) = mapped.as_bytes().last().copied() {
            mapped.pop();
            push_percent(&mut mapped, &[last]);
        }
        if is_device(&mapped) {
            mapped.insert(0, '_');
        }
    }
    shortened(&mapped, NAME_LEN_MAX)
}

/// Keeps the torrent out of the folder in which a peer keeps its own state.
fn top_name(name: String, naming: Naming) -> String {
    match folded(&name) == STATE_FOLDER {
        true => map_name(format!("_{name}").as_bytes(), naming),
        false => name,
    }
}

fn is_kept(c: char, naming: Naming) -> bool {
    match naming {
        Naming::Exact => c != '/',
        Naming::Portable => is_printable(c) && !"<>:\"/\\|?*".contains(c),
    }
}

fn push_percent(name: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(name, "%{byte:02X}").expect("writing to a String cannot fail");
    }
}

/// Whether Windows takes `name` for a device, whatever follows the first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name);
    let stem = stem.trim_end_matches(' ').to_uppercase();
    let numbered = stem.strip_prefix("COM").or(stem.strip_prefix("LPT"));
    match numbered {
        Some(number) => {
            let mut digits = number.chars();
            let digit = digits.next();
            digits.next().is_none() && digit.is_some_and(|c| "0123456789¹²³".contains(c))
        }
        None => DEVICES.contains(&stem.as_str()),
    }
}

/// `name` in at most `len_max` bytes; what is cut away is replaced by a digest of the whole.
fn shortened(name: &str, len_max: usize) -> String {
    if name.len() <= len_max {
        return name.to_owned();
    }
    let tag = format!("~{}", hex(&sha1(name.as_bytes())[..4]));
    tagged(name, &tag, len_max)
}

/// `name` with a number, to tell it from another one.
fn numbered(name: &str, number: u32) -> String {
    tagged(name, &format!("~{number}"), NAME_LEN_MAX)
}

/// `name` with `tag` before its extension, cut to at most `len_max` bytes.
fn tagged(name: &str, tag: &str, len_max: usize) -> String {
    let dot = name.rfind('.').filter(|&dot| dot > 0);
    let dot = dot.filter(|dot| name.len() - dot <= EXTENSION_LEN_MAX);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let room = len_max - tag.len() - extension.len();
    let cut = (0..=room).rev().find(|&len| stem.is_char_boundary(len));
    let stem = &stem[..cut.unwrap_or(0)];
    format!("{stem}{tag}{extension}")
}

fn write_printable(c: char, out: &mut impl fmt::Write) -> fmt::Result {
    match is_printable(c) {
        true => out.write_char(c),
        false => write!(out, "{}", c.escape_default()),
    }
}

/// Whether `c` only ever shows itself: no control, no line break, no change of direction.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// The folder in the output folder that belongs to the peer itself.
const STATE_FOLDER: &str = ".evpeer";
/// Names that Windows gives to devices, besides `COM1` and its like.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
/// What follows the last dot of a name is kept if it is no longer than this with the dot, bytes.
const EXTENSION_LEN_MAX: usize = 12;

/// A dozen bytes for a tag, as many for an extension, and some for the name itself.
const _: () = assert!(PATH_LEN_MAX / (PATH_DEPTH_MAX + 1) > 28);

#[cfg(test)]
mod tests {
    use super::*;

    fn listed<'a>(path: &'a str) -> Listed<'a> {
        Listed {
            components: path.split('/').map(str::as_bytes).collect(),
            kind: FileKind::Data,
        }
    }

    fn placed(paths: &[&str], naming: Naming) -> Vec<String> {
        let files: Vec<_> = paths.iter().map(|path| listed(path)).collect();
        let placed = place(b"t", &files, naming).unwrap();
        let below = placed
            .paths
            .iter()
            .map(|path| path.as_str()[2..].to_owned());
        below.collect()
    }

    #[test]
    fn harmless_names_stay_as_they_are() {
        let names = [
            "a",
            "Ünïcödé.txt",
            "日本語",
            ".hidden",
            "a b",
            "100%41",
            "x~1",
            "...",
        ];
        assert_eq!(placed(&names[..7], Naming::Portable), names[..7]);
        assert_eq!(placed(&names, Naming::Exact), names);
    }

    #[test]
    fn each_naming_maps_what_it_must() {
        let cases: &[(&[u8], &str, &str)] = &[
            // in the torrent       portable             exact
            (b"a/b", "a%2Fb", "a%2Fb"),
            (b"a\\b", "a%5Cb", "a\\b"),
            (b"C:\\x", "C%3A%5Cx", "C:\\x"),
            (b"/etc/x", "%2Fetc%2Fx", "%2Fetc%2Fx"),
            (b"CON", "_CON", "CON"),
            (b"aux.c", "_aux.c", "aux.c"),
            (b"com1 .x.y", "_com1 .x.y", "com1 .x.y"),
            (b"com10", "com10", "com10"),
            (b"a.", "a%2E", "a."),
            (b"a ", "a%20", "a "),
            (b"...", "..%2E", "..."),
            (b"\x1b[2J\n", "%1B[2J%0A", "\x1b[2J\n"),
            (b"a\xff\xc0\xafb", "a%FF%C0%AFb", "a%FF%C0%AFb"),
            ("a\u{202e}b".as_bytes(), "a%E2%80%AEb", "a\u{202e}b"),
        ];
        for (name, portable, exact) in cases {
            assert_eq!(map_name(name, Naming::Portable), *portable);
            assert_eq!(map_name(name, Naming::Exact), *exact);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let cases: &[(&[u8], NameFault)] = &[
            (b"", NameFault::Empty),
            (b".", NameFault::Dots),
            (b"..", NameFault::Dots),
            (b"a\0", NameFault::Nul),
        ];
        for &(name, fault) in cases {
            for naming in [Naming::Portable, Naming::Exact] {
                let as_root = place(name, &[listed("x")], naming).unwrap_err();
                assert_eq!(as_root, PathError::Name { fault });
                let components = vec![&b"x"[..], name];
                let file = Listed {
                    components,
                    kind: FileKind::Data,
                };
                let below = place(b"t", &[listed("x"), file], naming).unwrap_err();
                assert_eq!(below, PathError::Component { file: 1, fault });
            }
        }
    }

    #[test]
    fn paths_that_some_disk_takes_for_one_get_numbers() {
        let cases: &[(&[&str], &[&str])] = &[
            (
                &["a.txt", "a.txt", "a.txt"],
                &["a.txt", "a~2.txt", "a~3.txt"],
            ),
            (&["a", "A"], &["a", "A~2"]),
            (&["é", "e\u{301}"], &["é", "e\u{301}~2"]),
            (&["straße", "STRASSE"], &["straße", "STRASSE~2"]),
            (&["x/a", "X/a"], &["x/a", "X/a~2"]),
            (&["a:b", "a%3Ab"], &["a%3Ab", "a%3Ab~2"]),
            (&["a~2", "a", "a"], &["a~2", "a", "a~3"]),
            (&["A", "a/b"], &["A~2", "a/b"]),
        ];
        for (wanted, given) in cases {
            assert_eq!(&placed(wanted, Naming::Portable), given);
        }
        assert_eq!(placed(&["a", "A", "a"], Naming::Exact), ["a", "A", "a~2"]);
    }

    #[test]
    fn no_file_is_a_folder() {
        for paths in [["a", "a/b"], ["a/b", "a"], ["a/b/c", "a/b"]] {
            let files: Vec<_> = paths.iter().map(|path| listed(path)).collect();
            let error = place(b"t", &files, Naming::Portable).unwrap_err();
            assert!(matches!(error, PathError::FileIsFolder { .. }), "{error}");
        }
    }

    #[test]
    fn long_names_and_paths_fit() {
        let long = "ä".repeat(150) + ".tar.gz";
        let path = vec!["d".repeat(250); 20].join("/");
        let twin = format!("{}x", &path[..path.len() - 1]);
        let given = placed(&[&long, &long, &path, &twin], Naming::Portable);
        assert!(given[0].len() <= NAME_LEN_MAX && given[0].ends_with(".gz"));
        assert!(given[1].len() <= NAME_LEN_MAX && given[1].ends_with("~2.gz"));
        assert!(given[2].len() <= PATH_LEN_MAX, "{} B", given[2].len());
        assert_ne!(given[2], given[3]);
    }

    #[test]
    fn no_torrent_is_placed_into_the_state_folder() {
        for naming in [Naming::Portable, Naming::Exact] {
            for name in [".evpeer", ".EvPeer"] {
                let placed = place(name.as_bytes(), &[listed("session")], naming).unwrap();
                assert_eq!(placed.paths[0].as_str(), format!("_{name}/session"));
                assert!(placed.changed);
            }
        }
        assert_eq!(placed(&[".evpeer/x"], Naming::Portable), [".evpeer/x"]);
    }

    #[test]
    fn changes_are_reported_and_only_changes() {
        let cases = [
            // what it shows    name          path    portable exact
            ("nothing", &b"t"[..], "a/b", false, false),
            ("the name", b"t:", "a", true, false),
            ("a file", b"t", "a:", true, false),
            ("bytes", b"t\xff", "a", true, true),
        ];
        for (what, name, path, portable, exact) in cases {
            let changed = |naming| place(name, &[listed(path)], naming).unwrap().changed;
            assert_eq!(changed(Naming::Portable), portable, "{what}");
            assert_eq!(changed(Naming::Exact), exact, "{what}");
        }
    }

    #[test]
    fn pad_files_take_no_path_from_others() {
        let pad = Listed {
            components: vec![],
            kind: FileKind::Pad,
        };
        let files = [pad.clone(), listed(".pad"), pad];
        let placed = place(b"t", &files, Naming::Portable).unwrap();
        assert_eq!(placed.paths[1].as_str(), "t/.pad");
        assert!(!placed.changed);
    }

    #[test]
    fn shown_text_cannot_steer_a_terminal() {
        let files = [listed("\x1b[2J\u{202e}x\u{2028}")];
        let placed = place(b"t", &files, Naming::Exact).unwrap();
        assert_eq!(placed.paths[0].to_string(), r"t/\u{1b}[2J\u{202e}x\u{2028}");
        assert_eq!(printable(b"a\xff\n\xc3\xa4"), "a\\xff\\n\u{e4}");
    }
}
