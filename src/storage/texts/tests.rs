//! Torrents at rest, with real files in the state folder and a clock of ours.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::base::verdict::Verdict;
use crate::config::StorageKind;
use crate::meta::metainfo::Metainfo;
use crate::storage::memory::tests::{ID, World};

/// A torrent of which one piece is there, and whose text is kept.
fn world() -> World {
    let mut world = World::new(StorageKind::Map);
    keep(&world);
    world.add();
    world.store_piece(1);
    world.sync();
    world
}

fn path(world: &World) -> PathBuf {
    torrent_path(&world.dir.path().join("state"), world.meta.info_hash)
}

fn keep(world: &World) {
    let text = world.meta.text().expect("it was read");
    fs::write(path(world), text.source()).expect("the folder takes it");
}

fn is_held(world: &World) -> bool {
    world.storage.texts.of(world.meta.info_hash).is_some()
}

/// The verdict on the piece that is there.
fn checked(world: &mut World) -> Option<Verdict> {
    world.storage.check(ID, PieceIndex(1));
    let said = world.drive();
    let verdict = |event| match event {
        Event::Checked { verdict, .. } => Some(verdict),
        _ => None,
    };
    said.into_iter().find_map(verdict)
}

#[test]
fn text_of_a_torrent_at_rest_is_let_go_and_read_again_when_needed() {
    let mut world = world();
    for _ in 0..2 {
        assert!(is_held(&world));
        world.pass(2 * REST_TIME);
        assert!(!is_held(&world));
        world.ran.clear();
        let good = checked(&mut world);
        assert!(matches!(good, Some(Verdict::Good { .. })), "{good:?}");
        assert!(world.ran.contains(&"read text"));
    }
    world.pass(2 * REST_TIME);
    world.ran.clear();
    world.pass(Duration::from_secs(3600));
    assert!(
        !world.ran.contains(&"find text"),
        "nothing is left to look for"
    );
}

#[test]
fn text_is_given_to_who_asks_held_or_not() {
    let mut world = world();
    let info_hash = world.meta.info_hash;
    for is_at_hand in [true, false] {
        assert_eq!(is_held(&world), is_at_hand);
        world.storage.text(info_hash);
        world.storage.text(info_hash);
        let mut texts = world.drive().into_iter().filter_map(|event| match event {
            Event::Text { result, .. } => Some(result.expect("it is there")),
            _ => None,
        });
        let text = world.meta.text().expect("it was read");
        assert_eq!(texts.next().as_ref(), Some(text.source()));
        drop(texts);
        world.pass(2 * REST_TIME);
    }
}

#[test]
fn text_that_is_not_kept_stays_until_it_is() {
    let mut world = world();
    fs::remove_file(path(&world)).expect("it was there");
    world.pass(Duration::from_secs(600));
    assert!(is_held(&world));
    fs::write(path(&world), "d4:infod").expect("writable");
    world.pass(Duration::from_secs(600));
    assert!(is_held(&world), "what is kept is another");
    keep(&world);
    world.pass(2 * KEPT_TIME);
    assert!(!is_held(&world));
}

#[test]
fn text_stays_while_pieces_wait_to_be_hashed() {
    let mut world = world();
    world.pass(REST_TIME / 2);
    world.storage.check(ID, PieceIndex(1));
    let jobs: Vec<_> = std::iter::from_fn(|| world.storage.poll_job()).collect();
    for _ in 0..10 {
        world.now += REST_TIME;
        world.storage.tick(world.now);
        while let Some(job) = world.storage.poll_job() {
            let is_find = matches!(job.work, Work::FindText { .. });
            assert!(!is_find, "nobody looks for it");
        }
    }
    for job in jobs {
        world.storage.job_done(crate::storage::jobs::run(job));
    }
    assert!(is_held(&world));
}

/// Goal: a torrent whose text is lost has failed, with words, and comes back with it.
/// Method: the file is removed, damaged, or another's, while the torrent rests.
#[test]
fn lost_text_fails_who_needs_it_and_nobody_else() {
    type Meddle = fn(&mut Vec<u8>);
    let cases: [(&str, Option<Meddle>); 4] = [
        ("there is none", None),
        ("not a torrent", Some(|text| text.truncate(100))),
        (
            "another torrent",
            Some(|text| *text.iter_mut().nth_back(4).expect("it is long enough") ^= 1),
        ),
        ("not a torrent", Some(Vec::clear)),
    ];
    for (words, meddle) in cases {
        let mut world = world();
        world.pass(2 * REST_TIME);
        let mut text = fs::read(path(&world)).expect("it is kept");
        match meddle {
            Some(meddle) => {
                meddle(&mut text);
                fs::write(path(&world), text).expect("writable");
            }
            None => fs::remove_file(path(&world)).expect("it was there"),
        }
        world.storage.text(world.meta.info_hash);
        let said = world.drive();
        assert!(
            matches!(&said[..], [Event::Text { result: Err(_), .. }]),
            "{words}: the torrent goes on: {said:?}"
        );
        world.storage.check(ID, PieceIndex(1));
        let said = world.drive();
        let [Event::Failed { error, .. }] = &said[..] else {
            panic!("{words}: {said:?}");
        };
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("put it back"), "{error}");

        keep(&world);
        let (light, _) = Metainfo::apart(Arc::clone(&world.meta));
        world.storage.add(ID, light);
        world.drive();
        assert!(checked(&mut world).is_some(), "{words}");
    }
}

#[test]
fn pieces_are_read_back_only_with_their_hashes_at_hand() {
    let mut world = world();
    world.die();
    let (light, _) = Metainfo::apart(Arc::clone(&world.meta));
    world.storage.add(ID, light);
    world.ran.clear();
    let said = world.pass(Duration::from_secs(5));
    let place = |name| world.ran.iter().position(|ran| *ran == name);
    assert!(place("read text").is_some() && place("read text") < place("prove"));
    assert!(matches!(said[..], [Event::Scanned { .. }]), "{said:?}");
}

#[test]
fn memory_goes_back_to_the_system_soon_and_then_seldom() {
    let mut world = world();
    let times = |world: &World| world.ran.iter().filter(|ran| **ran == "give back").count();
    world.pass(2 * REST_TIME);
    assert_eq!(times(&world), 1);
    for _ in 0..8 {
        world.storage.text(world.meta.info_hash);
        world.pass(2 * REST_TIME);
        assert!(!is_held(&world));
    }
    assert_eq!(times(&world), 1, "four minutes");
    world.pass(Duration::from_secs(3600));
    assert_eq!(times(&world), 2);
}

#[test]
fn removed_torrent_leaves_no_text_behind() {
    let mut world = world();
    let info_hash = world.meta.info_hash;
    world.pass(2 * REST_TIME);
    world.storage.text(info_hash);
    let jobs: Vec<_> = std::iter::from_fn(|| world.storage.poll_job()).collect();
    world.storage.remove(ID);
    world.storage.forget_text(info_hash);
    for job in jobs {
        world.storage.job_done(crate::storage::jobs::run(job));
    }
    let said = world.drive();
    let is_told = |event: &Event| match event {
        Event::Text { result, .. } => *result == Err(StorageError::TextRemoved),
        _ => false,
    };
    assert!(said.len() == 1 && is_told(&said[0]), "{said:?}");
    assert!(!is_held(&world));
}

#[test]
fn torrent_that_comes_while_its_text_is_read_gives_its_own() {
    let mut world = world();
    let info_hash = world.meta.info_hash;
    world.pass(2 * REST_TIME);
    fs::remove_file(path(&world)).expect("it was there");
    world.storage.text(info_hash);
    world.storage.remove(ID);
    world.storage.add(ID, Arc::clone(&world.meta));
    let said = world.drive();
    let is_given = |event: &Event| matches!(event, Event::Text { result: Ok(_), .. });
    assert!(said.iter().any(is_given), "{said:?}");
}

#[test]
fn without_a_state_folder_texts_stay() {
    let mut world = world();
    world.storage.state_dir = None;
    world.pass(Duration::from_secs(3600));
    assert!(is_held(&world) && checked(&mut world).is_some());
    world.storage.forget_text(world.meta.info_hash);
    world.storage.check(ID, PieceIndex(1));
    let said = world.drive();
    let is_told = |event: &Event| match event {
        Event::Failed { error, .. } => *error == StorageError::TextNotKept,
        _ => false,
    };
    assert!(said.iter().any(is_told), "{said:?}");
}
