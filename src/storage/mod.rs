//! Where payload lies: files, the windows of them that are in memory, and their digests.

pub mod lanes;
