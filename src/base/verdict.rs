//! What hashing a piece told.

/// The outcome of checking one piece against the metainfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The piece is what the metainfo says.
    Good {
        /// One truncated digest a block, if the piece had failed before in this process; else
        /// empty. Compared with those of the failure, they name the blocks that were wrong.
        blocks: Vec<u64>,
    },
    /// The piece is not what the metainfo says.
    Bad {
        /// One truncated digest a block.
        blocks: Vec<u64>,
    },
    /// Some file of the piece does not exist or is too short: there was nothing to hash.
    Missing,
}
