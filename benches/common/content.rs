//! The torrent of a bench of whole peers.

use std::path::Path;
use std::sync::Arc;

use evpeer::base::rng::Rng;
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use evpeer::meta::metainfo::Metainfo;

/// Writes `len` bytes of content into `root` and makes their metainfo, with pieces of this length
/// if one is given.
pub fn content(root: &Path, len: u64, piece_len: Option<u32>) -> Arc<Metainfo> {
    content_named(root, "content", len, piece_len)
}

/// The same as a file of that name: a torrent of its own.
pub fn content_named(root: &Path, name: &str, len: u64, piece_len: Option<u32>) -> Arc<Metainfo> {
    let mut rng = Rng::new(1);
    let mut bytes = vec![0; len as usize];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    std::fs::write(root.join(name), &bytes).expect("the temporary folder takes the content");
    let options = CreateOptions {
        name: name.to_owned(),
        files: vec![NewFile {
            path: Vec::new(),
            len,
            executable: false,
        }],
        piece_len,
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    creator.feed(&bytes).expect("as long as said");
    let torrent = creator.finish().expect("all of it was fed");
    Arc::new(Metainfo::from_bytes(&torrent).expect("what is created can be read"))
}
