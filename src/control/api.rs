//! Reports, figures and metainfo as JSON objects. Keys say their unit.
//!
//! Every object about a running torrent has the same figures, whatever its `event` is, so a
//! reader needs one kind of line only. Absent values are `null`, never left out.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::action::{Report, Snapshot};
use crate::meta::magnet::Magnet;
use crate::meta::metainfo::{FileKind, Metainfo};
use crate::meta::paths::SafePath;

/// The figures of a torrent at one moment, as event `progress`.
pub fn progress(snapshot: &Snapshot) -> Value {
    event_with("progress", snapshot)
}

/// The port that this peer listens on, as event `listening`: the first line of a run.
pub fn listening(port: u16) -> Value {
    json!({ "event": "listening", "port": port })
}

/// What others need to get the torrent that is shared here, as event `share`: the addresses of
/// its .torrent, the best first, and what to type. A private torrent has no address; its .torrent
/// is `file`.
pub fn share(meta: &Metainfo, urls: &[String], file: Option<&str>, command: &str) -> Value {
    json!({
        "event": "share",
        "torrent": meta.name,
        "info_hash": meta.info_hash.to_string(),
        "length": meta.geometry().length(),
        "urls": urls,
        "file": file,
        "command": command,
    })
}

/// The addresses at which any swarm is tracked, the best first, as event `tracker`.
pub fn tracker(urls: &[String]) -> Value {
    json!({ "event": "tracker", "urls": urls })
}

/// All other peers of a swarm that are known, so many, have everything, as event `spread`: how long
/// that took from the first that came, and how many copies of the data were sent meanwhile.
pub fn spread(snapshot: &Snapshot, known_peers: usize, time: Duration, copies: f64) -> Value {
    let mut object = event_with("spread", snapshot);
    object["known_peers"] = json!(known_peers);
    object["last_s"] = json!((time.as_secs_f64() * 1000.0).round() / 1000.0);
    object["copies_sent"] = json!((copies * 1000.0).round() / 1000.0);
    object
}

/// What a report tells; `None` for those that only the log carries.
///
/// `snapshot` is that of the torrent the report is about.
pub fn event(report: &Report, snapshot: &Snapshot) -> Option<Value> {
    Some(match report {
        Report::State { state, reason, .. } => {
            let mut object = event_with("state", snapshot);
            object["state"] = json!(state.name());
            object["reason"] = json!(reason);
            object
        }
        Report::Complete { .. } => event_with("complete", snapshot),
        Report::Durable { .. } => event_with("durable", snapshot),
        Report::PeerJoined {
            remote, peer_id, ..
        } => {
            let mut object = peer(snapshot, remote, "joined");
            object["client"] = json!(peer_id.to_string());
            object
        }
        Report::PeerLeft { remote, reason, .. } => {
            let mut object = peer(snapshot, remote, "left");
            object["reason"] = json!(reason);
            object
        }
        Report::PeerBanned { remote, piece, .. } => {
            let mut object = peer(snapshot, remote, "banned");
            object["reason"] = json!(format!("sent wrong data for piece {piece}"));
            object
        }
        Report::Removed { .. }
        | Report::Limited { .. }
        | Report::Chosen { .. }
        | Report::TrackerFailed { .. }
        | Report::TrackerAnswered { .. }
        | Report::NameFailed { .. } => return None,
    })
}

/// What a .torrent says.
pub fn metainfo(meta: &Metainfo) -> Value {
    let files = meta.files.iter().filter(|f| f.kind == FileKind::Data);
    let files: Vec<Value> = files
        .map(|file| {
            json!({
                "path": file.path.as_str(),
                "length": file.len,
                "executable": file.executable,
            })
        })
        .collect();
    let remarks = meta.remarks().cloned().unwrap_or_default();
    json!({
        "name": meta.name,
        "info_hash": meta.info_hash.to_string(),
        "piece_length": meta.geometry().nominal_piece_len(),
        "pieces": meta.geometry().piece_count(),
        "length": meta.geometry().length(),
        "files": files,
        "trackers": meta.trackers,
        "private": meta.private,
        "comment": remarks.comment,
        "created_by": remarks.created_by,
        "creation_date": remarks.creation_date,
        "magnet": Magnet::of(meta).to_string(),
    })
}

/// What a magnet link says: the keys of [`metainfo`], as far as it knows them.
pub fn magnet(link: &Magnet) -> Value {
    let tiers: Vec<[&String; 1]> = link.trackers.iter().map(|url| [url]).collect();
    let peers: Vec<String> = link.peers.iter().map(ToString::to_string).collect();
    json!({
        "name": link.name,
        "info_hash": link.info_hash.to_string(),
        "trackers": tiers,
        "peers": peers,
        "magnet": link.to_string(),
    })
}

/// What hashing the data of a torrent found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Pieces of the torrent.
    pub pieces: u32,
    /// Pieces that are what the torrent says.
    pub good_pieces: u32,
    /// Pieces that are there and are something else; the rest is missing.
    pub wrong_pieces: u32,
    /// Bytes of the good pieces.
    pub good_bytes: u64,
    /// The files that are not whole.
    pub files: Vec<FileVerdict>,
}

impl Verified {
    /// Pieces some of whose bytes are not there.
    pub fn missing_pieces(&self) -> u32 {
        self.pieces - self.good_pieces - self.wrong_pieces
    }

    /// Whether everything is there, and right.
    pub fn is_right(&self) -> bool {
        self.good_pieces == self.pieces && self.files.is_empty()
    }
}

/// A file that is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVerdict {
    /// Its path below the output folder.
    pub path: SafePath,
    /// Its pieces that are wrong.
    pub wrong_pieces: u32,
    /// Its pieces that are missing.
    pub missing_pieces: u32,
}

/// The outcome of `verify` for one torrent.
pub fn verified(meta: &Metainfo, found: &Verified) -> Value {
    let files = found.files.iter().map(|file| {
        json!({
            "path": file.path.as_str(),
            "wrong_pieces": file.wrong_pieces,
            "missing_pieces": file.missing_pieces,
        })
    });
    json!({
        "torrent": meta.name,
        "info_hash": meta.info_hash.to_string(),
        "right": found.is_right(),
        "pieces": found.pieces,
        "good_pieces": found.good_pieces,
        "wrong_pieces": found.wrong_pieces,
        "missing_pieces": found.missing_pieces(),
        "length": meta.geometry().length(),
        "good_bytes": found.good_bytes,
        "files": files.collect::<Vec<_>>(),
    })
}

fn event_with(event: &str, snapshot: &Snapshot) -> Value {
    let mut object = figures(snapshot);
    object["event"] = json!(event);
    object
}

/// The figures of a torrent at one moment.
pub(super) fn figures(snapshot: &Snapshot) -> Value {
    json!({
        "torrent": snapshot.name,
        "info_hash": snapshot.info_hash.to_string(),
        "state": snapshot.state.name(),
        "reason": snapshot.reason,
        "retry_s": snapshot.retry_in.map(|time| time.as_secs()),
        "length": snapshot.length,
        "wanted_bytes": snapshot.wanted_bytes,
        "left_bytes": snapshot.left_bytes,
        "done_bytes": snapshot.done_bytes,
        "checked_bytes": snapshot.checked_bytes,
        "up_bytes": snapshot.up_bytes,
        "down_bytes": snapshot.down_bytes,
        "wasted_bytes": snapshot.wasted_bytes,
        "up_bytes_s": snapshot.up_bytes_s,
        "down_bytes_s": snapshot.down_bytes_s,
        "peers": snapshot.peers,
        "seeds": snapshot.seeds,
        "eta_s": snapshot.eta_s(),
    })
}

fn peer(snapshot: &Snapshot, remote: &SocketAddr, change: &str) -> Value {
    let mut object = event_with("peer", snapshot);
    object["peer"] = json!(remote.to_string());
    object["change"] = json!(change);
    object["client"] = Value::Null;
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{InfoHash, PeerId, PieceIndex, TorrentId};
    use crate::engine::action::State;

    fn snapshot() -> Snapshot {
        Snapshot {
            name: "a \"b\"\n".into(),
            info_hash: InfoHash([0xab; 20]),
            state: State::Downloading,
            reason: None,
            retry_in: None,
            length: 1000,
            wanted_bytes: 900,
            left_bytes: 600,
            done_bytes: 400,
            checked_bytes: 0,
            up_bytes: 7,
            down_bytes: 410,
            up_bytes_s: 1,
            down_bytes_s: 100,
            wasted_bytes: 10,
            peers: 3,
            seeds: 1,
        }
    }

    const TORRENT: TorrentId = TorrentId(0);

    #[test]
    fn progress_has_every_key_of_the_contract() {
        let object = progress(&snapshot());
        let expected = json!({
            "event": "progress", "torrent": "a \"b\"\n", "info_hash": "ab".repeat(20),
            "state": "downloading", "reason": null, "retry_s": null,
            "length": 1000, "wanted_bytes": 900, "left_bytes": 600, "done_bytes": 400,
            "checked_bytes": 0, "up_bytes": 7, "down_bytes": 410, "wasted_bytes": 10,
            "up_bytes_s": 1, "down_bytes_s": 100, "peers": 3, "seeds": 1, "eta_s": 6,
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn every_object_is_one_line() {
        assert_eq!(progress(&snapshot()).to_string().lines().count(), 1);
    }

    #[test]
    fn time_left_is_unknown_while_nothing_arrives() {
        let stalled = Snapshot {
            down_bytes_s: 0,
            ..snapshot()
        };
        assert_eq!(progress(&stalled)["eta_s"], Value::Null);
    }

    #[test]
    fn events_carry_what_they_are_about() {
        let remote = "10.0.0.1:6881".parse().expect("an address");
        let (torrent, peer_id) = (TORRENT, PeerId(*b"-XX0000-000000000000"));
        let piece = PieceIndex(9);
        let failed = Report::State {
            torrent,
            state: State::Error,
            reason: Some("disk full".into()),
        };
        let left = Report::PeerLeft {
            torrent,
            remote,
            reason: "idle".into(),
        };
        let joined = Report::PeerJoined {
            torrent,
            remote,
            peer_id,
        };
        let banned = Report::PeerBanned {
            torrent,
            remote,
            piece,
        };
        let cases = [
            // report                          event      key       value
            (failed.clone(), "state", "state", "error"),
            (failed, "state", "reason", "disk full"),
            (
                Report::Complete { torrent },
                "complete",
                "state",
                "downloading",
            ),
            (
                Report::Durable { torrent },
                "durable",
                "state",
                "downloading",
            ),
            (joined.clone(), "peer", "change", "joined"),
            (joined, "peer", "client", "-XX0000-000000000000"),
            (left.clone(), "peer", "peer", "10.0.0.1:6881"),
            (left, "peer", "reason", "idle"),
            (banned, "peer", "reason", "sent wrong data for piece 9"),
        ];
        for (report, name, key, value) in cases {
            let object = event(&report, &snapshot()).expect("an event");
            assert_eq!(object["event"], name, "{report:?}");
            assert_eq!(object[key], value, "{report:?}");
        }
    }

    #[test]
    fn trackers_are_the_logs_business() {
        let failed = Report::TrackerFailed {
            torrent: TORRENT,
            url: "http://h/a".into(),
            message: "refused".into(),
        };
        assert_eq!(event(&failed, &snapshot()), None);
    }
}
