//! Why a torrent does not get on, in plain words.

use std::fmt::Write as _;

use super::conn::{Purpose, Stage};
use super::torrent::Torrent;
use super::view::Heard;
use super::{Engine, State};
use crate::base::bits::Bitfield;
use crate::base::id::TorrentId;
use crate::base::limits;
use crate::base::status::DiskStatus;
use crate::base::time::Instant;

impl Engine {
    /// What keeps a torrent from being complete, the weightiest first; `None` if there is no such
    /// torrent. `disk` is how storage is at present.
    pub fn why(&mut self, id: TorrentId, disk: DiskStatus, now: Instant) -> Option<Vec<String>> {
        let torrent = self.torrents.get_mut(&id)?;
        let rate = torrent.swarm.down().bytes_per_sec(now);
        let torrent = self.torrents.get(&id)?;
        let meta = torrent.swarm.meta();
        Some(match torrent.state {
            State::Queued => vec![
                format!(
                    "it waits for its turn: {}",
                    torrent.reason.as_deref().unwrap_or_default()
                ),
                "evpeer ctl resume has it begin at once".to_owned(),
            ],
            State::Paused => vec!["it is paused; evpeer ctl resume goes on".to_owned()],
            State::Error if torrent.plight.is_some() => vec![
                format!(
                    "it waits: {}",
                    torrent.reason.as_deref().unwrap_or_default()
                ),
                match torrent.retry_in(now) {
                    Some(time) => format!(
                        "it is tried again in {} s; evpeer ctl resume tries at once",
                        time.as_secs()
                    ),
                    None => "it is being tried again".to_owned(),
                },
                "what is verified is served meanwhile".to_owned(),
            ],
            State::Error => vec![
                format!(
                    "it stopped: {}",
                    torrent.reason.as_deref().unwrap_or("no reason known")
                ),
                "evpeer ctl resume tries again and checks what is there".to_owned(),
            ],
            State::Checking => vec![format!(
                "what is on disk is being checked: {} of {} B so far",
                torrent.check.as_ref().map_or(0, |check| check.bytes),
                meta.geometry().length()
            )],
            State::Seeding if torrent.swarm.is_complete() => {
                vec!["nothing is missing: it seeds".to_owned()]
            }
            State::Seeding => vec![
                "all that is wanted of it is here: it seeds that; evpeer ctl files shows the rest"
                    .to_owned(),
            ],
            State::Downloading if torrent.swarm.has_all_wanted() => {
                vec!["every piece is here; the last bytes are on their way to the disk".to_owned()]
            }
            State::Downloading => {
                let mut reasons = Vec::new();
                if rate > 0 {
                    reasons.push(format!("it gets on: {rate} B/s arrive"));
                }
                reasons.extend(why_disk(disk));
                if torrent.swarm.peer_count() > 0 {
                    reasons.extend(why_peers(torrent, now));
                }
                reasons.extend(self.why_few(id, torrent, now));
                reasons
            }
        })
    }

    /// Why there are no more peers.
    fn why_few(&self, id: TorrentId, torrent: &Torrent, now: Instant) -> Vec<String> {
        let mut reasons = Vec::new();
        let tally = torrent.candidates.tally(now);
        let is_dialled = |conn: &super::Conn| match &conn.stage {
            Stage::Dialling(Purpose::Peer(torrent)) | Stage::Greeting(torrent, _) => *torrent == id,
            _ => false,
        };
        let dialled = self
            .conns
            .iter()
            .filter(|(_, (_, c))| is_dialled(c))
            .count();
        if tally.known == 0 {
            reasons.push("no addresses of peers are known".to_owned());
        } else {
            let mut text = format!("{} addresses of peers are known", tally.known);
            for (count, what) in [
                (dialled, "being called"),
                (tally.failed, "not reached or lost, called again later"),
                (
                    tally.never,
                    "not called again: they broke the rules, or are ourselves",
                ),
            ] {
                if count > 0 {
                    let _ = write!(text, "; {count} {what}");
                }
            }
            reasons.push(text);
        }
        if self.conns.len() >= self.config.conns_max as usize {
            reasons.push(format!(
                "there is no room for more connections: {} are open, --max-peers allows no more",
                self.conns.len()
            ));
        } else if self.dialling >= limits::HALF_OPEN_MAX {
            reasons.push("many calls are under way, others wait for their end".to_owned());
        }
        reasons.extend(self.why_trackers(torrent));
        reasons
    }

    fn why_trackers(&self, torrent: &Torrent) -> Vec<String> {
        if !self.config.trackers {
            return vec!["trackers are switched off (--no-tracker)".to_owned()];
        }
        let named = torrent.swarm.meta().trackers.iter().flatten().count();
        if named + torrent.contacts.trackers.len() == 0 {
            return vec!["no tracker is named that could tell of more peers".to_owned()];
        }
        let heard = torrent
            .contacts
            .heard
            .iter()
            .map(|(url, heard)| match heard {
                Heard::Failed { message } => format!("tracker {url}: {message}"),
                Heard::Answered { peers, .. } => format!("tracker {url}: named {peers} peers"),
            });
        let heard: Vec<String> = heard.take(TRACKERS_SHOWN).collect();
        match heard.is_empty() {
            true => vec!["no tracker has answered yet".to_owned()],
            false => heard,
        }
    }
}

fn why_disk(disk: DiskStatus) -> Option<String> {
    let DiskStatus {
        waiting_bytes,
        hash_backlog_bytes,
    } = disk;
    if waiting_bytes > limits::WAITING_LEN_MAX {
        return Some(format!(
            "the disk is behind: {waiting_bytes} B wait to be written"
        ));
    }
    (hash_backlog_bytes > limits::HASH_BACKLOG_MAX)
        .then(|| format!("the processor is behind: {hash_backlog_bytes} B wait to be hashed"))
}

/// What the connected peers lack, or do not give.
fn why_peers(torrent: &Torrent, now: Instant) -> Vec<String> {
    let swarm = &torrent.swarm;
    let mut reasons = Vec::new();
    let (count, mut offering, mut choking, mut asked, mut silent) =
        (swarm.peer_count(), 0, 0, 0, 0);
    for (_, peer) in swarm.peers() {
        offering += u32::from(peer.offers > 0);
        choking += u32::from(peer.offers > 0 && peer.chokes_us);
        asked += peer.open_requests();
        silent += u32::from(peer.open_requests() > 0 && peer.is_silent(now));
    }
    reasons.push(match (offering, choking) {
        (0, _) => format!("none of {count} connected peers has a piece that is missing here"),
        (_, 0) => {
            format!("{offering} of {count} connected peers have pieces that are missing here")
        }
        _ if choking == offering => format!("all {offering} peers that have pieces choke us"),
        _ => format!("{choking} of {offering} peers that have pieces choke us"),
    });
    if silent > 0 {
        reasons.push(format!(
            "{silent} peers do not answer; {asked} requests are open"
        ));
    }
    reasons.extend(why_missing(torrent));
    reasons
}

/// The pieces that nobody has.
fn why_missing(torrent: &Torrent) -> Option<String> {
    let swarm = &torrent.swarm;
    let holders: Vec<&Bitfield> = swarm.peers().map(|(_, peer)| &peer.have).collect();
    let all = 0..swarm.pieces().len();
    let missing = all.filter(|&piece| !swarm.pieces().has(piece));
    let nobodys = missing.filter(|&piece| !holders.iter().any(|have| have.has(piece)));
    let (mut count, mut first) = (0, Vec::new());
    for piece in nobodys {
        count += 1;
        if first.len() < PIECES_SHOWN {
            first.push(piece.to_string());
        }
    }
    (count > 0).then(|| {
        let more = if count > first.len() { ", …" } else { "" };
        format!(
            "{count} missing pieces are with no connected peer: {}{more}",
            first.join(", ")
        )
    })
}

/// Pieces that are named.
const PIECES_SHOWN: usize = 8;
/// Trackers that are named.
const TRACKERS_SHOWN: usize = 8;
