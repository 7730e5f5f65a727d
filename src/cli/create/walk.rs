//! The files below a path, in one order on every machine.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use crate::base::limits;
use crate::cli::error::CliError;
use crate::cli::output::printable_path;

/// What there is to share.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    /// The name of the torrent: that of the file or folder.
    pub name: String,
    /// Its files, by the bytes of their names; one without components if the path is a file.
    pub files: Vec<FoundFile>,
}

impl Tree {
    /// Bytes of all files.
    pub fn length(&self) -> u64 {
        self.files.iter().map(|f| f.len).sum()
    }
}

/// One file to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its folders below the root and its name; empty if it is the root.
    pub components: Vec<String>,
    /// Its size, bytes.
    pub len: u64,
    /// Whether somebody may run it.
    pub executable: bool,
}

/// Lists the regular files at or below `root`.
///
/// `root` may be a symbolic link; below it none is followed. Links and what is neither file nor
/// folder are left out with a warning.
///
/// # Errors
/// Something cannot be read, has no UTF-8 name, is too deep, too much, or nothing at all.
pub fn walk(root: &Path) -> Result<Tree, CliError> {
    let found = fs::metadata(root).map_err(|source| unreadable(root, source))?;
    let name = utf8(&name_of(root)?, root)?;
    let files = if found.is_file() {
        vec![file_at(root.to_owned(), Vec::new(), &found)]
    } else if found.is_dir() {
        walk_folders(root)?
    } else {
        return Err(CliError::NotShareable {
            path: root.to_owned(),
            why: "is neither a file nor a folder",
        });
    };
    let tree = Tree { name, files };
    if tree.length() == 0 {
        return Err(CliError::NoData {
            path: root.to_owned(),
        });
    }
    Ok(tree)
}

fn walk_folders(root: &Path) -> Result<Vec<FoundFile>, CliError> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_owned(), Vec::new())];
    while let Some((folder, components)) = folders.pop() {
        let not_readable = |source| unreadable(&folder, source);
        for entry in fs::read_dir(&folder).map_err(not_readable)? {
            let entry = entry.map_err(not_readable)?;
            let path = entry.path();
            let found = entry
                .metadata()
                .map_err(|source| unreadable(&path, source))?;
            if !found.is_file() && !found.is_dir() {
                let kind = if found.is_symlink() {
                    "a symbolic link"
                } else {
                    "neither a file nor a folder"
                };
                log::warn!("'{}' is {kind} and is left out", printable_path(&path));
                continue;
            }
            let mut components: Vec<String> = components.clone();
            components.push(utf8(Path::new(&entry.file_name()), &path)?);
            refuse_excess(&path, components.len(), files.len())?;
            if found.is_dir() {
                folders.push((path, components));
            } else {
                files.push(file_at(path, components, &found));
            }
        }
    }
    files.sort_by(|a, b| a.components.cmp(&b.components));
    Ok(files)
}

fn refuse_excess(path: &Path, depth: usize, count: usize) -> Result<(), CliError> {
    let why = if depth >= limits::PATH_DEPTH_MAX {
        "lies in too many folders inside one another for a .torrent"
    } else if count >= limits::FILES_MAX {
        "is one file too many for a .torrent"
    } else {
        return Ok(());
    };
    Err(CliError::NotShareable {
        path: path.to_owned(),
        why,
    })
}

fn file_at(path: PathBuf, components: Vec<String>, found: &Metadata) -> FoundFile {
    FoundFile {
        path,
        components,
        len: found.len(),
        executable: is_executable(found),
    }
}

#[cfg(unix)]
fn is_executable(found: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    found.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

/// The last part of `root`; that of the real folder for `.` and `..`.
fn name_of(root: &Path) -> Result<PathBuf, CliError> {
    if let Some(name) = root.file_name() {
        return Ok(name.into());
    }
    let real = fs::canonicalize(root).map_err(|source| unreadable(root, source))?;
    let name = real.file_name().ok_or_else(|| CliError::NotShareable {
        path: root.to_owned(),
        why: "has no name that the torrent could carry; name a folder below it",
    })?;
    Ok(name.into())
}

fn utf8(name: &Path, path: &Path) -> Result<String, CliError> {
    let name = name.to_str().ok_or_else(|| CliError::NotUtf8 {
        path: path.to_owned(),
    })?;
    Ok(name.to_owned())
}

fn unreadable(path: &Path, source: std::io::Error) -> CliError {
    CliError::Unreadable {
        path: path.to_owned(),
        source,
        remedy: "check the path and its permissions",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn write(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }

    #[test]
    fn files_come_in_the_order_of_their_bytes() {
        let dir = folder();
        let names = ["b", "a/z", "a/é", "a/b/c", "a-b", "B", "empty"];
        for name in names {
            write(dir.path(), name, if name == "empty" { b"" } else { b"x" });
        }
        let tree = walk(dir.path()).expect("walks");
        let order: Vec<String> = tree.files.iter().map(|f| f.components.join("/")).collect();
        assert_eq!(order, ["B", "a/b/c", "a/z", "a/é", "a-b", "b", "empty"]);
        assert_eq!(tree.length(), 6);
    }

    #[test]
    fn links_are_not_followed() {
        let (dir, outside) = (folder(), folder());
        write(outside.path(), "secret", b"x");
        write(dir.path(), "a", b"x");
        symlink(outside.path(), dir.path().join("folder")).expect("a link");
        symlink(outside.path().join("secret"), dir.path().join("file")).expect("a link");
        symlink("nowhere", dir.path().join("dangling")).expect("a link");
        let tree = walk(dir.path()).expect("walks");
        assert_eq!(tree.files.len(), 1);
        assert_eq!(tree.files[0].components, ["a"]);
    }

    #[test]
    fn link_that_is_named_itself_is_followed_under_its_own_name() {
        let (dir, links) = (folder(), folder());
        write(dir.path(), "a", b"x");
        symlink(dir.path(), links.path().join("link")).expect("a link");
        let tree = walk(&links.path().join("link")).expect("walks");
        assert_eq!((tree.name.as_str(), tree.files.len()), ("link", 1));
    }

    #[test]
    fn executable_bit_of_anybody_counts() {
        let dir = folder();
        for (name, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o610)] {
            write(dir.path(), name, b"x");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(dir.path().join(name), mode).expect("a mode");
        }
        let tree = walk(dir.path()).expect("walks");
        let bits: Vec<bool> = tree.files.iter().map(|f| f.executable).collect();
        assert_eq!(bits, [false, true, true]);
    }

    #[test]
    fn name_that_is_no_utf8_is_refused_by_name() {
        let dir = folder();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(dir.path().join(name), b"x").expect("a file");
        let error = walk(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("caf") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn nothing_to_share_is_an_error() {
        let dir = folder();
        assert!(matches!(walk(dir.path()), Err(CliError::NoData { .. })));
        write(dir.path(), "empty", b"");
        assert!(matches!(walk(dir.path()), Err(CliError::NoData { .. })));
        assert!(matches!(
            walk(Path::new("/dev/null")),
            Err(CliError::NotShareable { .. })
        ));
        assert!(matches!(
            walk(Path::new("/nowhere/x")),
            Err(CliError::Unreadable { .. })
        ));
    }

    #[test]
    fn folders_too_deep_are_refused() {
        let dir = folder();
        let mut deep = dir.path().to_owned();
        for _ in 0..limits::PATH_DEPTH_MAX {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("folders");
        let error = walk(dir.path()).expect_err("refused");
        assert!(matches!(error, CliError::NotShareable { .. }), "{error}");
    }
}
