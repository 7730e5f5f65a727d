//! Who asks for the .torrent file of a torrent, and gets it or is told why not.

use super::*;

impl Script {
    fn ask_for_text(&mut self) -> ConnId {
        let local = ([10, 0, 0, 1], 6881).into();
        let conn = self.engine.accepted(SEED, local, self.now);
        let conn = conn.expect("there is room");
        let hash = self.meta.info_hash;
        let request = format!("GET /torrents/{hash}.torrent HTTP/1.1\r\nHost: x\r\n\r\n");
        self.feed(conn, request.as_bytes());
        conn
    }

    /// Storage answers, and what the one who asked gets to read.
    fn text_read(&mut self, conn: ConnId, text: Result<&'static [u8], &str>) -> String {
        let text = text.map(bytes::Bytes::from_static).map_err(str::to_owned);
        let hash = self.meta.info_hash;
        self.engine.text_read(hash, text, self.now);
        self.settle();
        String::from_utf8_lossy(&self.written(conn)).into_owned()
    }
}

#[test]
fn text_is_told_as_storage_has_it() {
    let mut script = Script::new();
    let conn = script.ask_for_text();
    assert!(script.written(conn).is_empty(), "it is being read");
    let answer = script.text_read(conn, Ok(b"d4:infodee"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nd4:infodee"), "{answer}");
}

#[test]
fn text_that_cannot_be_read_is_lost_here() {
    let mut script = Script::new();
    let conn = script.ask_for_text();
    let answer = script.text_read(conn, Err("the disk is broken"));
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("its text is lost here\n"), "{answer}");
}

/// Nothing is lost: the user took it away.
#[test]
fn text_of_a_torrent_that_was_removed_meanwhile_is_not_here() {
    let mut script = Script::new();
    let conn = script.ask_for_text();
    assert!(script.engine.remove_torrent(script.id, script.now));
    script.settle();
    let answer = script.text_read(conn, Err("the torrent was removed"));
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("no such torrent here\n"), "{answer}");
}
