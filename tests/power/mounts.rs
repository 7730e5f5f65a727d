//! File systems in images.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A file system, and how it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As everybody has it (`data=ordered`).
    Ext4,
    /// Data may come after the metadata that makes it visible.
    Ext4Writeback,
    /// XFS.
    Xfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Ext4Writeback, Self::Xfs];

    /// The program that makes one.
    pub fn maker(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Writeback => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    /// Whether this machine can make one.
    pub fn is_here(self) -> bool {
        let output = Command::new(self.maker()).arg("-V").output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Makes one in the file `image`: with room for the data three times and a log.
    pub fn make(self, image: &Path) {
        match self {
            Self::Ext4 | Self::Ext4Writeback => self.make_sized(image, 16 << 20),
            Self::Xfs => self.make_sized(image, 32 << 20),
        }
    }

    /// Makes one of `len` bytes in the file `image`.
    pub fn make_sized(self, image: &Path, len: u64) {
        let file = File::create(image).expect("the folder is writable");
        file.set_len(len).expect("there is room");
        let args: &[&str] = match self {
            Self::Ext4 | Self::Ext4Writeback => &[
                "-q",
                "-F",
                "-b",
                "4096",
                "-m",
                "0",
                "-J",
                "size=4",
                "-O",
                "^resize_inode",
                "-E",
                "lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            ],
            // It makes none so small unless told that nobody will rely on it.
            Self::Xfs => &["-q", "-f", "-K", "--unsupported"],
        };
        run(Command::new(self.maker()).args(args).arg(image)).expect("a file system is made");
    }

    fn options(self) -> &'static str {
        match self {
            // Its own timer shall not commit for the process.
            Self::Ext4 => "loop,commit=300",
            Self::Ext4Writeback => "loop,commit=300,data=writeback",
            // Many images of one file system are mounted at the same time.
            Self::Xfs => "loop,nouuid",
        }
    }
}

/// A mounted image.
#[derive(Debug)]
pub struct Mount {
    folder: PathBuf,
}

impl Mount {
    /// Mounts `image` at `folder`, over a loop device that goes with the mount.
    pub fn new(kind: Kind, image: &Path, folder: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        command.args(["-o", kind.options()]).arg(image).arg(folder);
        let end = Instant::now() + LIMIT;
        loop {
            match run(&mut command) {
                Ok(()) => break,
                Err(error) if error.contains("loop device") && Instant::now() < end => {
                    std::thread::sleep(PAUSE); // others use them at the moment
                }
                Err(error) => return Err(error),
            }
        }
        let folder = folder.to_owned();
        Ok(Self { folder })
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let end = Instant::now() + LIMIT;
        while let Err(error) = run(Command::new("umount").arg(&self.folder)) {
            if Instant::now() > end {
                eprintln!("{error}");
                let _ = run(Command::new("umount").arg("-l").arg(&self.folder));
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Unmounts what is mounted at `folder` as soon as nobody uses it.
pub fn detach(folder: &Path) {
    run(Command::new("umount").arg("-l").arg(folder)).expect("it is mounted");
}

/// A new file system of `kind` with what `fill` puts in it, as bytes.
pub fn fresh(kind: Kind, scratch: &Path, fill: impl FnOnce(&Path)) -> Vec<u8> {
    let image = scratch.join("fresh.img");
    kind.make(&image);
    let folder = super::support::folder(scratch, "fresh");
    let mount = Mount::new(kind, &image, &folder).expect("a new file system can be mounted");
    fill(mount.folder());
    drop(mount);
    let bytes = fs::read(&image).expect("it is there");
    fs::remove_file(image).expect("it is ours");
    bytes
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// How long a device or a mount that is in use is waited for.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
