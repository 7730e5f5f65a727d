//! What a torrent is: its files, pieces and names, read from hostile input or made anew.
//!
//! [`metainfo`] reads a .torrent file, [`text`] is its bytes, [`create`] makes one, [`magnet`]
//! reads and writes links. [`paths`] is the only way from a name in a torrent to a path on disk,
//! and [`geometry`] the only place that knows how pieces, blocks, bytes and files relate. Nothing
//! here does I/O.

pub mod choice;
pub mod create;
pub mod geometry;
pub mod magnet;
pub mod metainfo;
pub mod paths;
pub mod text;
pub mod trackers;
