//! What is known of a torrent's bytes on disk, and how that outlives the process and the machine.
//!
//! Three kinds of knowledge are kept apart, beside the mere suspicion that something may be there:
//!
//! | claim    | says                                                  | trusted in            |
//! |----------|-------------------------------------------------------|-----------------------|
//! | doubtful | perhaps the piece is there: worth hashing             | no case               |
//! | filled   | this block was stored, unverified                     | one run of the machine |
//! | checked  | the piece hashed right, its bytes are with the kernel | one run of the machine |
//! | durable  | as checked, and synced after its last byte was stored | all cases             |
//!
//! [`Knowledge`] is all of that for one torrent. A journal is a file that holds it: a snapshot and
//! the [`Record`]s that came later (`format` draws the bytes, `replay` reads them back). It belongs
//! to one torrent ([`Binding`]) and to the files that its claims are about ([`Stamp`]): a file that
//! was replaced, cut or copied from elsewhere has another stamp, and its pieces are doubtful.
//!
//! Everything here but `log` is bytes and values: no file is touched.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::base::bits::Bitfield;
use crate::base::digest::{crc32c, mix};
use crate::base::id::{InfoHash, PieceIndex};
use crate::meta::geometry::{FileKind, Geometry};
use crate::meta::metainfo::Metainfo;

mod format;
pub(in crate::storage) mod log;
mod replay;
mod resume;

pub(in crate::storage) use format::runs;
pub use format::{Chain, VERSION, encode_snapshot};
pub use replay::{Replayed, Unusable, replay};
pub use resume::{Found, Resumed, resume, time_of_group};

/// What is claimed of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// Nothing.
    Absent,
    /// Perhaps it is there: hashing will tell.
    Doubtful,
    /// It hashed right, and all its bytes are with the kernel.
    Checked,
    /// It hashed right, and its files and their folders were synced after its last byte was
    /// stored.
    Durable,
}

/// A claim for each piece, in two rows of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Checked or durable.
    held: Bitfield,
    /// Doubtful if not held, durable if held.
    marked: Bitfield,
}

impl Claims {
    /// All pieces absent.
    pub fn new(piece_count: u32) -> Self {
        Self {
            held: Bitfield::new(piece_count),
            marked: Bitfield::new(piece_count),
        }
    }

    /// What is claimed of `piece`.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn get(&self, piece: u32) -> Claim {
        match (self.held.has(piece), self.marked.has(piece)) {
            (false, false) => Claim::Absent,
            (false, true) => Claim::Doubtful,
            (true, false) => Claim::Checked,
            (true, true) => Claim::Durable,
        }
    }

    /// Changes the claim of `piece`.
    ///
    /// # Panics
    /// If there is no such piece.
    pub fn set(&mut self, piece: u32, claim: Claim) {
        let (held, marked) = match claim {
            Claim::Absent => (false, false),
            Claim::Doubtful => (false, true),
            Claim::Checked => (true, false),
            Claim::Durable => (true, true),
        };
        put(&mut self.held, piece, held);
        put(&mut self.marked, piece, marked);
    }

    /// The pieces that are checked or durable.
    pub fn held(&self) -> &Bitfield {
        &self.held
    }

    /// The pieces of which `claim` is claimed, ascending.
    ///
    /// # Panics
    /// If asked for absent ones, which nobody needs.
    pub fn of(&self, claim: Claim) -> impl Iterator<Item = u32> + '_ {
        assert!(claim != Claim::Absent, "absent pieces are not listed");
        let row = match claim {
            Claim::Absent | Claim::Doubtful => &self.marked,
            Claim::Checked | Claim::Durable => &self.held,
        };
        row.ones().filter(move |&piece| self.get(piece) == claim)
    }

    /// Number of pieces.
    pub fn len(&self) -> u32 {
        self.held.len()
    }

    /// Whether there are no pieces at all.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn put(row: &mut Bitfield, piece: u32, value: bool) {
    if value {
        row.set(piece);
    } else {
        row.clear(piece);
    }
}

/// Names one run of the machine, from its start until it goes down. Page caches live no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

/// Which file this is, as far as it can be told without reading it.
///
/// Two numbers that depend on inode, size and time of birth; the second also on the device, whose
/// number means something only until the machine goes down. All zeros: there is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Inode, size and time of birth.
    pub lasting: u64,
    /// These and the device.
    pub in_boot: u64,
}

impl Stamp {
    /// The stamp of a file with these properties; `birth` in nanoseconds, 0 where it is not known.
    pub fn new(device: u64, inode: u64, size: u64, birth: u64) -> Self {
        Self {
            lasting: mix([inode, size, birth]),
            in_boot: mix([inode, size, birth, device]),
        }
    }

    /// One stamp for several files.
    pub fn of_group(files: impl Iterator<Item = Self> + Clone) -> Self {
        Self {
            lasting: mix(files.clone().map(|stamp| stamp.lasting)),
            in_boot: mix(files.map(|stamp| stamp.in_boot)),
        }
    }
}

/// The torrent that a journal is about, and how it is cut: with any other the bits would mean
/// something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Bytes of all files.
    pub length: u64,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Number of pieces.
    pub piece_count: u32,
    /// Number of files.
    pub file_count: u32,
    /// Depends on the path, length and kind of every file.
    pub layout: u64,
}

impl Binding {
    /// What binds a journal to `meta` and to the names that its files have on disk.
    pub fn of(meta: &Metainfo) -> Self {
        let geometry = meta.geometry();
        let layout = mix(meta.files.iter().flat_map(|file| {
            let path = file.path.as_str().as_bytes();
            let is_pad = u64::from(file.kind == FileKind::Pad);
            let path = (path.len() as u64) << 32 | u64::from(crc32c(0, path));
            [file.len, is_pad, path]
        }));
        Self {
            info_hash: meta.info_hash,
            length: geometry.length(),
            piece_len: geometry.nominal_piece_len(),
            piece_count: geometry.piece_count(),
            file_count: geometry.file_count(),
            layout,
        }
    }

    /// The longest journal of such a torrent, bytes: two bits a piece, and room for the rest.
    pub fn journal_len_max(&self) -> u64 {
        2 * u64::from(self.piece_count.div_ceil(8)) + 64 * 1024
    }

    /// Files are stamped in this many groups, so that stamps take little room.
    pub fn group_count(&self) -> u32 {
        self.file_count.div_ceil(self.group_len())
    }

    /// The group that a file belongs to.
    pub fn group_of(&self, file: u32) -> u32 {
        file / self.group_len()
    }

    /// The files of a group.
    pub fn files_of(&self, group: u32) -> Range<u32> {
        let first = group * self.group_len();
        first..(first + self.group_len()).min(self.file_count)
    }

    fn group_len(&self) -> u32 {
        self.file_count.div_ceil(GROUPS_MAX).max(1)
    }

    /// Blocks of `piece`.
    fn block_count(&self, piece: u32) -> u32 {
        let begin = u64::from(piece) * u64::from(self.piece_len);
        let len = (self.length - begin).min(u64::from(self.piece_len)) as u32;
        len.div_ceil(crate::base::limits::BLOCK_LEN)
    }
}

/// Everything that is known of one torrent's bytes on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// The run of the machine in which it was written; `None` if the system does not tell.
    pub boot: Option<BootId>,
    /// Counts the snapshots, so that what is left of an older one does not continue a newer one.
    pub generation: u64,
    /// The files, in groups.
    pub stamps: Vec<Stamp>,
    /// When each group was last written, as of the last good end: a number that is another one if
    /// any of its files was written since. 0: there was no good end.
    pub times: Vec<u64>,
    /// The pieces.
    pub claims: Claims,
    /// Blocks that are stored, of pieces that are not held.
    pub filled: BTreeMap<PieceIndex, Bitfield>,
}

/// A change of what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These pieces hashed right, and their bytes are with the kernel.
    Checked(Vec<u32>),
    /// A commit point: these pieces, all of them checked, were synced.
    Durable(Vec<u32>),
    /// These pieces have to be hashed again before anything is claimed of them.
    Doubted(Vec<u32>),
    /// Nothing is claimed of these pieces and their blocks any more.
    Dropped(Vec<u32>),
    /// These blocks were stored.
    Filled(Vec<(PieceIndex, Vec<Range<u32>>)>),
    /// Groups of files have other stamps now.
    Stamped(Vec<(u32, Stamp)>),
    /// A good end: when groups of files were last written.
    Timed(Vec<(u32, u64)>),
}

impl Record {
    /// Whether it takes a claim back, so that forgetting it would be a lie.
    pub fn takes_back(&self) -> bool {
        match self {
            Self::Doubted(_) | Self::Dropped(_) => true,
            Self::Checked(_)
            | Self::Durable(_)
            | Self::Filled(_)
            | Self::Stamped(_)
            | Self::Timed(_) => false,
        }
    }
}

impl Knowledge {
    /// Nothing is known of `binding`'s files.
    pub fn nothing(binding: &Binding, boot: Option<BootId>) -> Self {
        Self {
            boot,
            generation: 0,
            stamps: vec![Stamp::default(); binding.group_count() as usize],
            times: vec![0; binding.group_count() as usize],
            claims: Claims::new(binding.piece_count),
            filled: BTreeMap::new(),
        }
    }

    /// Takes a change in.
    ///
    /// # Panics
    /// If it is about pieces, blocks or groups that are not `binding`'s.
    pub fn apply(&mut self, record: &Record, binding: &Binding) {
        match record {
            Record::Checked(pieces) => {
                for &piece in pieces {
                    if self.claims.get(piece) != Claim::Durable {
                        self.claims.set(piece, Claim::Checked);
                    }
                    self.filled.remove(&PieceIndex(piece));
                }
            }
            Record::Durable(pieces) => {
                for &piece in pieces {
                    if self.claims.get(piece) == Claim::Checked {
                        self.claims.set(piece, Claim::Durable);
                    }
                }
            }
            Record::Doubted(pieces) => self.set_all(pieces, Claim::Doubtful),
            Record::Dropped(pieces) => self.set_all(pieces, Claim::Absent),
            Record::Filled(blocks) => self.fill(blocks, binding),
            Record::Stamped(stamps) => {
                for &(group, stamp) in stamps {
                    self.stamps[group as usize] = stamp;
                }
            }
            Record::Timed(times) => {
                for &(group, time) in times {
                    self.times[group as usize] = time;
                }
            }
        }
    }

    pub(in crate::storage) fn set_all(&mut self, pieces: &[u32], claim: Claim) {
        for &piece in pieces {
            self.claims.set(piece, claim);
            self.filled.remove(&PieceIndex(piece));
        }
    }

    fn fill(&mut self, blocks: &[(PieceIndex, Vec<Range<u32>>)], binding: &Binding) {
        for (piece, runs) in blocks {
            if self.claims.held().has(piece.0) {
                continue;
            }
            let count = binding.block_count(piece.0);
            let filled = self
                .filled
                .entry(*piece)
                .or_insert_with(|| Bitfield::new(count));
            for block in runs.iter().cloned().flatten() {
                filled.set(block);
            }
        }
    }

    /// What of this can be trusted in the run `boot` of the machine: nothing that only the page
    /// cache knew, if it went down since.
    pub fn trusted_in(mut self, boot: Option<BootId>) -> Self {
        if self.boot.is_none() || self.boot != boot {
            let unsafe_pieces: Vec<u32> = self.claims.of(Claim::Checked).collect();
            self.set_all(&unsafe_pieces, Claim::Doubtful);
            self.filled.clear();
        }
        self
    }
}

/// The pieces that have bytes in the files `files`, ascending.
pub fn pieces_of_files(geometry: &Geometry, files: Range<u32>) -> Range<u32> {
    let mut spanned = 0..0;
    for pieces in files.map(|file| geometry.pieces_of_file(file)) {
        if !pieces.is_empty() {
            spanned = match spanned.is_empty() {
                true => pieces,
                false => spanned.start..pieces.end,
            };
        }
    }
    spanned
}

/// Groups of files at most.
const GROUPS_MAX: u32 = 512;
