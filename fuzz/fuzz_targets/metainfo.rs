//! A .torrent file: what is accepted adds up, and no path leaves the output folder.
#![no_main]

use std::collections::HashSet;
use std::path::Component;

use evpeer::base::digest::sha1;
use evpeer::base::id::PieceIndex;
use evpeer::meta::metainfo::{FileKind, Metainfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(meta) = Metainfo::from_bytes(input) else {
        return;
    };
    let text = meta.text().expect("it was read a moment ago");
    assert_eq!(meta.info_hash.0, sha1(text.info()));
    check_files(&meta);
    check_pieces(&meta);
});

fn check_files(meta: &Metainfo) {
    let geometry = meta.geometry();
    assert_eq!(meta.files.len(), geometry.file_count() as usize);
    let mut end = 0_u64;
    let mut paths = HashSet::new();
    for (index, file) in (0..).zip(&meta.files) {
        assert_eq!(file.offset, end, "files follow one another");
        assert_eq!(
            (file.offset, file.len),
            (geometry.file_offset(index), geometry.file_len(index))
        );
        end += file.len;
        let pieces = geometry.pieces_of_file(index);
        assert!(pieces.end <= geometry.piece_count());
        assert_eq!(pieces.is_empty(), file.len == 0);
        if file.kind == FileKind::Data {
            let path = file.path.as_path();
            let is_plain = |part| matches!(part, Component::Normal(_));
            assert!(path.components().all(is_plain), "{path:?}");
            assert!(path.components().count() > 0);
            assert!(
                !file.path.as_str().chars().any(char::is_control),
                "{path:?}"
            );
            assert!(
                paths.insert(file.path.as_str().to_lowercase()),
                "{path:?} twice"
            );
        }
    }
    assert_eq!(end, geometry.length());
}

fn check_pieces(meta: &Metainfo) {
    let geometry = meta.geometry();
    let text = meta.text().expect("it was read a moment ago");
    let count = geometry.piece_count();
    let looked_at = (0..count.min(100)).chain(count.saturating_sub(100).max(100)..count);
    for piece in looked_at.map(PieceIndex) {
        text.piece_hash(piece);
        let len = geometry.piece_len(piece);
        let blocks: u64 = (0..geometry.block_count(piece).min(100))
            .map(|block| u64::from(geometry.block_len(piece, block)))
            .sum();
        assert!(blocks == u64::from(len) || geometry.block_count(piece) > 100);
        assert!(geometry.contains(piece, 0, len) && !geometry.contains(piece, 1, len));
        let mut at = geometry.offset(piece, 0);
        for span in geometry.spans(piece, 0, len) {
            let file = &meta.files[span.file as usize];
            assert!(span.len > 0 && span.offset + u64::from(span.len) <= file.len);
            assert_eq!(file.offset + span.offset, at, "spans follow one another");
            assert_eq!(span.pad, file.kind == FileKind::Pad);
            at += u64::from(span.len);
        }
        assert_eq!(at, geometry.offset(piece, 0) + u64::from(len));
    }
    let whole: u64 = match count {
        0 => 0,
        _ => {
            let last = PieceIndex(count - 1);
            geometry.offset(last, 0) + u64::from(geometry.piece_len(last))
        }
    };
    assert_eq!(whole, geometry.length());
}
