//! The session as text: a line that names the format, then one JSON object.
//!
//! ```text
//! evpeer session 1 <40 hex digits: SHA-1 of all that follows>
//! {"given":{…},"port":6881,"torrents":[…],"evpeers":[…]}
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::base::choice::{Choice, PieceOrder, Priority};
use crate::base::digest::sha1;
use crate::base::id::{InfoHash, hex};
use crate::base::limits::{FILES_MAX, TRACKERS_MAX};
use crate::config::session::{
    EVPEERS_MAX, Given, KNOWN_PER_TORRENT_MAX, KnownPeer, MOUNTS_MAX, Session, SessionTorrent,
    TORRENTS_MAX,
};
use crate::config::{Goal, RateLimits, StorageKind};
use crate::engine::HostPort;

/// Why a text is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A later evpeer wrote it.
    #[error("it is of format {version}, which a newer evpeer wrote; this one reads {VERSION}")]
    Newer {
        /// Its format.
        version: u64,
    },
    /// It is not what an evpeer wrote.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The text of a session.
pub fn encode(session: &Session) -> Vec<u8> {
    let given = &session.given;
    let object = json!({
        "given": {
            "port": given.port,
            "bind": given.bind.map(|ip| ip.to_string()),
            "conns_max": given.conns_max,
            "trackers": given.trackers,
            "open_tracker": given.open_tracker,
            "lsd": given.lsd,
            "pex": given.pex,
            "storage": given.storage.map(storage_name),
            "max_active": given.max_active,
            "seed_ratio_thousandths": given.seed_ratio.map(goal_value),
            "seed_time_s": given.seed_time.map(goal_value),
            "up_limit": given.up_limit,
            "down_limit": given.down_limit,
            "limit_local": given.limit_local,
        },
        "port": session.port,
        "evpeers": known_value(&session.evpeers),
    });
    let mut body = format!("{object:#}");
    body.truncate(body.trim_end_matches('}').trim_end().len());
    body.push_str(",\n  \"torrents\": [");
    // One after the other: as values, thousands take a multiple of the text's room.
    for (index, torrent) in session.torrents.iter().enumerate() {
        let text = format!("\n{:#}", torrent_value(torrent));
        let comma = if index > 0 { "," } else { "" };
        body.push_str(comma);
        body.push_str(&text.replace('\n', "\n    "));
    }
    body.push_str(match session.torrents.is_empty() {
        true => "]\n}\n",
        false => "\n  ]\n}\n",
    });
    let digest = hex(&sha1(body.as_bytes()));
    format!("{MAGIC} {VERSION} {digest}\n{body}").into_bytes()
}

/// Reads the text of a session.
///
/// # Errors
/// A newer evpeer wrote it, or it is not whole.
pub fn decode(text: &[u8]) -> Result<Session, SessionError> {
    let damaged = SessionError::Damaged;
    let end = text.iter().position(|&b| b == b'\n');
    let (head, body) = text.split_at(end.ok_or(damaged("its first line is not whole"))?);
    let head = std::str::from_utf8(head).map_err(|_| damaged("its first line is no text"))?;
    let rest = head
        .strip_prefix(MAGIC)
        .ok_or(damaged("its first line is none of a session"))?;
    let mut words = rest.split_whitespace();
    let version: Option<u64> = words.next().and_then(|word| word.parse().ok());
    match version.ok_or(damaged("it names no format"))? {
        VERSION => {}
        version => return Err(SessionError::Newer { version }),
    }
    let body = &body[1..];
    let digest = hex(&sha1(body));
    // To the letter: a space that became a digit would pass otherwise.
    if head != format!("{MAGIC} {VERSION} {digest}") {
        return Err(damaged("its digest is not that of what follows"));
    }
    // What has the right digest is what some evpeer wrote: only what is absent remains to be seen.
    let no_json = |_| damaged("it is no JSON");
    let body = std::str::from_utf8(body).map_err(|_| damaged("it is no text"))?;
    let parts: BTreeMap<String, &RawValue> = serde_json::from_str(body).map_err(no_json)?;
    let part = |name: &str| parts.get(name).copied().map_or(Value::Null, value_of);
    let all = parts
        .get("torrents")
        .map_or("[]", |torrents| torrents.get());
    let all: Vec<&RawValue> = serde_json::from_str(all).unwrap_or_default();
    let mut torrents = Vec::with_capacity(all.len().min(TORRENTS_MAX));
    // One after the other, as when they were written.
    let each = all.into_iter().take(TORRENTS_MAX).map(value_of);
    torrents.extend(each.filter_map(|value| torrent(&value)));
    Ok(Session {
        given: given(&part("given")),
        port: port(&part("port")).unwrap_or(0),
        torrents,
        evpeers: known(&part("evpeers"), EVPEERS_MAX),
    })
}

/// A part of the text as a value; null if it has too many levels to be ours.
fn value_of(text: &RawValue) -> Value {
    serde_json::from_str(text.get()).unwrap_or_default()
}

fn torrent_value(torrent: &SessionTorrent) -> Value {
    let peers = torrent.peers.iter();
    let peers: Vec<Value> = peers
        .map(|peer| json!({ "host": peer.host, "port": peer.port }))
        .collect();
    json!({
        "info_hash": torrent.info_hash.to_string(),
        "paused": torrent.is_paused,
        "trackers": torrent.trackers,
        "peers": peers,
        "up_bytes": torrent.up_bytes,
        "down_bytes": torrent.down_bytes,
        "mounts": torrent.mounts.iter().take(MOUNTS_MAX).collect::<Vec<_>>(),
        "was_complete": torrent.was_complete,
        "listed": torrent.listed,
        "untold": torrent.untold,
        "up_limit": torrent.limits.up,
        "down_limit": torrent.limits.down,
        "seeded_s": torrent.seeded_s,
        "seeds_on": torrent.seeds_on,
        "files": files_value(&torrent.choice),
        "sequential": torrent.choice.order == PieceOrder::Sequential,
        "known": known_value(&torrent.known),
    })
}

/// Files that are not wanted as usual: `[first, last, how much]`, the first file being 0.
fn files_value(choice: &Choice) -> Value {
    let runs = choice.runs().into_iter();
    runs.map(|(run, priority)| json!([run.start, run.end - 1, priority.name()]))
        .collect()
}

fn choice(value: &Value) -> Choice {
    let mut files: Vec<Priority> = Vec::new();
    for run in list(&value["files"]).iter().take(FILES_MAX) {
        let place = |at: usize| {
            let place = u32::try_from(run[at].as_u64()?).ok()?;
            ((place as usize) < FILES_MAX).then_some(place)
        };
        let known = [Priority::Skip, Priority::High];
        let priority = known.into_iter().find(|p| run[2] == p.name());
        if let (Some(first), Some(last), Some(priority)) = (place(0), place(1), priority) {
            let len = files.len().max(last as usize + 1);
            files.resize(len, Priority::Normal);
            if let Some(run) = files.get_mut(first as usize..=last as usize) {
                run.fill(priority);
            }
        }
    }
    let order = match value["sequential"] == true {
        true => PieceOrder::Sequential,
        false => PieceOrder::RarestFirst,
    };
    Choice::new(files, order)
}

fn goal_value(goal: Goal) -> Value {
    match goal {
        Goal::Never => json!("never"),
        Goal::At(amount) => json!(amount),
    }
}

fn goal(value: &Value) -> Option<Goal> {
    match value.as_str() {
        Some("never") => Some(Goal::Never),
        _ => value.as_u64().map(Goal::At),
    }
}

fn known_value(known: &[KnownPeer]) -> Value {
    let known = known.iter().map(|peer| {
        json!({
            "address": peer.addr.to_string(),
            "last_seen_unix_s": peer.last_seen,
            "evpeer": peer.is_evpeer,
        })
    });
    known.collect()
}

fn number(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn given(value: &Value) -> Given {
    let storage = value["storage"].as_str();
    let kinds = [StorageKind::Auto, StorageKind::Map, StorageKind::Pwrite];
    Given {
        port: port(&value["port"]),
        bind: value["bind"].as_str().and_then(|ip| ip.parse().ok()),
        conns_max: number(&value["conns_max"]),
        trackers: value["trackers"].as_bool(),
        open_tracker: value["open_tracker"].as_bool(),
        lsd: value["lsd"].as_bool(),
        pex: value["pex"].as_bool(),
        storage: kinds
            .into_iter()
            .find(|&kind| storage == Some(storage_name(kind))),
        max_active: number(&value["max_active"]),
        seed_ratio: goal(&value["seed_ratio_thousandths"]),
        seed_time: goal(&value["seed_time_s"]),
        up_limit: value["up_limit"].as_u64(),
        down_limit: value["down_limit"].as_u64(),
        limit_local: value["limit_local"].as_bool(),
    }
}

fn torrent(value: &Value) -> Option<SessionTorrent> {
    let peers = list(&value["peers"]).iter().take(TRACKERS_MAX);
    let urls = |value: &Value| {
        let urls = list(value).iter().take(TRACKERS_MAX);
        urls.filter_map(|url| Some(url.as_str()?.to_owned()))
            .collect()
    };
    let peer = |peer: &Value| {
        Some(HostPort {
            host: peer["host"].as_str()?.to_owned(),
            port: port(&peer["port"])?,
        })
    };
    Some(SessionTorrent {
        info_hash: value["info_hash"].as_str()?.parse::<InfoHash>().ok()?,
        is_paused: value["paused"].as_bool().unwrap_or(false),
        trackers: urls(&value["trackers"]),
        peers: peers.filter_map(peer).collect(),
        up_bytes: value["up_bytes"].as_u64().unwrap_or(0),
        down_bytes: value["down_bytes"].as_u64().unwrap_or(0),
        mounts: list(&value["mounts"])
            .iter()
            .take(MOUNTS_MAX)
            .filter_map(|mount| Some(mount.as_str()?.to_owned()))
            .filter(|mount| Path::new(mount).is_absolute())
            .collect(),
        was_complete: value["was_complete"].as_bool().unwrap_or(false),
        listed: urls(&value["listed"]),
        untold: urls(&value["untold"]),
        limits: RateLimits {
            up: value["up_limit"].as_u64().unwrap_or(0),
            down: value["down_limit"].as_u64().unwrap_or(0),
        },
        seeded_s: value["seeded_s"].as_u64().unwrap_or(0),
        seeds_on: value["seeds_on"].as_bool().unwrap_or(false),
        choice: choice(value),
        known: known(&value["known"], KNOWN_PER_TORRENT_MAX),
    })
}

fn known(value: &Value, count_max: usize) -> Vec<KnownPeer> {
    let peer = |peer: &Value| {
        Some(KnownPeer {
            addr: peer["address"].as_str()?.parse::<SocketAddr>().ok()?,
            last_seen: peer["last_seen_unix_s"].as_u64().unwrap_or(0),
            is_evpeer: peer["evpeer"].as_bool().unwrap_or(false),
        })
    };
    list(value)
        .iter()
        .filter_map(peer)
        .take(count_max)
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn port(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn storage_name(kind: StorageKind) -> &'static str {
    match kind {
        StorageKind::Auto => "auto",
        StorageKind::Map => "map",
        StorageKind::Pwrite => "pwrite",
    }
}

const MAGIC: &str = "evpeer session";
/// The format that is written, and the only one that is read.
const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn session() -> Session {
        let known = KnownPeer {
            addr: "[fe80::1%2]:6881".parse().expect("an address"),
            last_seen: 1_700_000_000,
            is_evpeer: true,
        };
        let torrent = SessionTorrent {
            info_hash: InfoHash([0xab; 20]),
            is_paused: true,
            trackers: vec!["http://h/a \"ü\"".to_owned()],
            peers: vec![HostPort {
                host: "host.lan".to_owned(),
                port: 1,
            }],
            up_bytes: u64::MAX,
            down_bytes: 7,
            mounts: vec!["/mnt".to_owned(), "/mnt/a/ü".to_owned()],
            was_complete: true,
            listed: vec!["http://h/b".to_owned()],
            untold: vec!["http://h/a".to_owned()],
            limits: RateLimits { up: 5000, down: 0 },
            seeded_s: 77,
            seeds_on: true,
            choice: Choice::new(
                vec![
                    Priority::Skip,
                    Priority::Normal,
                    Priority::High,
                    Priority::High,
                ],
                PieceOrder::Sequential,
            ),
            known: vec![known],
        };
        Session {
            given: Given {
                port: Some(0),
                bind: Some("::1".parse().expect("an address")),
                conns_max: Some(9),
                trackers: Some(false),
                open_tracker: Some(true),
                lsd: Some(false),
                pex: Some(true),
                storage: Some(StorageKind::Pwrite),
                max_active: Some(3),
                seed_ratio: Some(Goal::At(1500)),
                seed_time: Some(Goal::Never),
                up_limit: Some(10_000),
                down_limit: Some(0),
                limit_local: Some(false),
            },
            port: 50_000,
            torrents: vec![torrent],
            evpeers: vec![known],
        }
    }

    #[test]
    fn every_session_is_read_as_it_was_written() {
        for session in [session(), Session::default()] {
            assert_eq!(decode(&encode(&session)), Ok(session));
        }
    }

    /// Goal: of what is relative it is not known to which folder: it is nothing to wait for.
    #[test]
    fn mounts_without_their_whole_path_are_dropped() {
        let mut session = session();
        let whole = session.torrents[0].mounts.clone();
        session.torrents[0]
            .mounts
            .extend([String::new(), "a/b".to_owned()]);
        let read = decode(&encode(&session)).expect("a session");
        assert_eq!(read.torrents[0].mounts, whole);
    }

    #[test]
    fn cut_or_flipped_text_is_damaged_wherever_that_is() {
        let text = encode(&session());
        for len in 0..text.len() {
            let error = decode(&text[..len]).expect_err("a part");
            assert!(
                matches!(error, SessionError::Damaged(_)),
                "{len} B: {error}"
            );
        }
        let mut rng = Rng::new(3);
        let head = (0..100 * 8).map(|bit| (bit / 8, bit % 8));
        let anywhere = (0..3000).map(|_| (rng.below(text.len() as u32), rng.below(8)));
        for (place, bit) in head.chain(anywhere) {
            let mut flipped = text.clone();
            flipped[place as usize] ^= 1 << bit;
            // A flipped digit of the version is another version.
            decode(&flipped).expect_err("one bit is wrong");
        }
        let mut longer = text;
        longer.push(b' ');
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn newer_format_is_told_from_damage() {
        let text = String::from_utf8(encode(&session())).expect("text");
        let newer = text.replacen("session 1 ", "session 2 ", 1);
        assert_eq!(
            decode(newer.as_bytes()),
            Err(SessionError::Newer { version: 2 })
        );
        let other = text.replacen("session 1 ", "session x ", 1);
        assert!(matches!(
            decode(other.as_bytes()),
            Err(SessionError::Damaged(_))
        ));
    }
}
