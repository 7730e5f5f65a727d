//! Questions to trackers over HTTP (BEP 3): look-up, stream, response, redirects.
//!
//! When to ask, and whom, is the business of [`tracker::client`](crate::tracker::client); here
//! an announce becomes a stream like any other.

use std::net::SocketAddr;

use bytes::Bytes;

use super::conn::{Purpose, Stage};
use super::{Ending, Engine, Lookup, Report, State, Taken};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Source;
use crate::tracker::client::{AnnounceFailure, AnnounceWanted, Outcome};
use crate::wire::announce::{self, AnnounceReply};
use crate::wire::http::{HttpError, Response, ResponseReader};
use crate::wire::message::Outgoing;
use crate::wire::url::TrackerUrl;

/// An announce that is under way.
#[derive(Debug)]
pub struct Announce {
    torrent: TorrentId,
    /// With the query; another one after a redirect.
    url: TrackerUrl,
    response: ResponseReader,
    redirects: u32,
    /// Addresses of the tracker's host that were not tried yet.
    addresses: Vec<SocketAddr>,
    /// It tells that we leave: the answer is of no interest.
    farewell: bool,
}

impl Engine {
    /// Starts an announce of this torrent if one is due.
    pub(super) fn announce_due(&mut self, id: TorrentId, now: Instant) {
        self.report_rejected_trackers(id);
        if !self.config.trackers {
            return;
        }
        let port = self.port;
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if !matches!(torrent.state, State::Downloading | State::Seeding) {
            return;
        }
        if let Some(wanted) = torrent.tracker.poll(now) {
            let farewell = wanted.event == Some(announce::Event::Stopped);
            let url = self.announce_url(id, wanted, port);
            let Some(url) = url else { return };
            self.ask(Announce {
                torrent: id,
                url,
                response: ResponseReader::default(),
                redirects: 0,
                addresses: Vec::new(),
                farewell,
            });
        }
    }

    /// Tells the trackers that know us that this torrent stops.
    pub(super) fn stop_announcing(&mut self, id: TorrentId, now: Instant) {
        let under_way =
            |(conn, state): (ConnId, Option<&super::Conn>)| match state.map(|s| &s.stage) {
                Some(Stage::Announce(a) | Stage::Dialling(Purpose::Announce(a)))
                    if a.torrent == id && !a.farewell =>
                {
                    Some(conn)
                }
                _ => None,
            };
        let conns = self
            .conn_ids()
            .into_iter()
            .map(|conn| (conn, self.conn(conn)));
        let stale: Vec<ConnId> = conns.filter_map(under_way).collect();
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.tracker.stopped(now);
        for conn in stale {
            self.close(conn, Ending::Local("the torrent stops"), now);
        }
        if !self.config.trackers {
            return;
        }
        let port = self.port;
        while let Some(torrent) = self.torrents.get_mut(&id)
            && let Some(wanted) = torrent.tracker.poll(now)
        {
            // One farewell after the other is taken and sent beside the others: time is short.
            torrent.tracker.farewell_sent();
            if let Some(url) = self.announce_url(id, wanted, port) {
                self.ask(Announce {
                    torrent: id,
                    url,
                    response: ResponseReader::default(),
                    redirects: 0,
                    addresses: Vec::new(),
                    farewell: true,
                });
            }
        }
    }

    fn announce_url(&self, id: TorrentId, wanted: AnnounceWanted, port: u16) -> Option<TrackerUrl> {
        let torrent = self.torrents.get(&id)?;
        let swarm = &torrent.swarm;
        let announce = announce::Announce {
            info_hash: swarm.meta().info_hash,
            peer_id: self.secrets.peer_id,
            port,
            key: self.secrets.key,
            uploaded: swarm.uploaded_bytes(),
            downloaded: swarm.downloaded_bytes(),
            left: swarm.meta().geometry().length() - swarm.done_bytes(),
            event: wanted.event,
            numwant: wanted.numwant,
            tracker_id: wanted.tracker_id,
        };
        Some(wanted.url.with_query(&announce.query()))
    }

    /// Trackers of the metainfo or the user that cannot be asked: said once.
    fn report_rejected_trackers(&mut self, id: TorrentId) {
        while let Some(torrent) = self.torrents.get_mut(&id)
            && let Some(rejected) = torrent.tracker.poll_rejected()
        {
            let message = rejected.error.to_string();
            log::warn!("tracker not usable url={}: {message}", rejected.url);
            self.report(Report::TrackerFailed {
                torrent: id,
                url: rejected.url,
                message,
            });
        }
    }

    fn ask(&mut self, announce: Announce) {
        let (host, port) = (announce.url.host().to_owned(), announce.url.port());
        self.look_up(
            Lookup::Tracker(announce.torrent, Box::new(announce)),
            host,
            port,
        );
    }

    pub(super) fn tracker_resolved(
        &mut self,
        id: TorrentId,
        mut announce: Box<Announce>,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        match answer {
            Ok(addresses) => {
                announce.addresses = addresses;
                announce.addresses.truncate(limits::TRACKER_ADDRESSES_MAX);
                announce.addresses.reverse();
                self.dial_tracker(announce, "its name has no address", now);
            }
            Err(message) => {
                let host = announce.url.host();
                let message = format!("cannot look up {host}: {message}");
                self.announce_failed_for(id, announce.farewell, unreachable(message), now);
            }
        }
    }

    /// Tries the next address of the tracker; `why` tells what became of the last one.
    fn dial_tracker(&mut self, mut announce: Box<Announce>, why: &str, now: Instant) {
        match announce.addresses.pop() {
            Some(remote) => {
                self.open(remote, Purpose::Announce(announce), now);
            }
            None => {
                let (id, farewell) = (announce.torrent, announce.farewell);
                self.announce_failed_for(id, farewell, unreachable(why.to_owned()), now);
            }
        }
    }

    /// The stream to the tracker is up: the request goes out.
    pub(super) fn ask_tracker(&mut self, conn: ConnId, announce: Box<Announce>) {
        let Some(state) = self.conn_mut(conn) else {
            return;
        };
        state
            .outbox
            .push(Outgoing::Raw(Bytes::from(announce.url.to_request())));
        state.stage = Stage::Announce(announce);
        self.flush(conn);
    }

    /// Bytes of the tracker's response.
    pub(super) fn tracker_said(&mut self, conn: ConnId, bytes: &[u8], now: Instant) -> Taken {
        if let Some(announce) = self.announce_mut(conn) {
            let outcome = announce.response.received(bytes);
            if let Some(outcome) = outcome.transpose() {
                self.response_ended(conn, outcome, now);
            }
        }
        Taken {
            used: bytes.len(),
            store: None,
        }
    }

    /// The tracker closed the stream.
    pub(super) fn tracker_finished(&mut self, conn: ConnId, now: Instant) {
        if let Some(announce) = self.announce_mut(conn) {
            let outcome = announce.response.end_of_stream();
            self.response_ended(conn, outcome, now);
        }
    }

    fn announce_mut(&mut self, conn: ConnId) -> Option<&mut Announce> {
        match &mut self.conn_mut(conn)?.stage {
            Stage::Announce(announce) => Some(announce),
            _ => None,
        }
    }

    fn response_ended(&mut self, conn: ConnId, outcome: Result<Response, HttpError>, now: Instant) {
        let Some(announce) = self.take_announce(conn) else {
            return;
        };
        let (id, farewell) = (announce.torrent, announce.farewell);
        let Some(remote) = self.conn(conn).map(|c| c.remote) else {
            return;
        };
        self.close(conn, Ending::Local("answered"), now);
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                return self.announce_failed_for(id, farewell, unreachable(error.to_string()), now);
            }
        };
        if response.is_redirect() && announce.redirects < limits::TRACKER_REDIRECTS_MAX {
            let location = response.location.as_deref().unwrap_or_default();
            return match announce.url.redirected(location) {
                Ok(url) => self.ask(Announce {
                    url,
                    response: ResponseReader::default(),
                    redirects: announce.redirects + 1,
                    ..announce
                }),
                Err(error) => {
                    let message = format!("it redirects to an unusable address: {error}");
                    self.announce_failed_for(id, farewell, unreachable(message), now);
                }
            };
        }
        if response.status != 200 {
            let failure = AnnounceFailure::Status(response.status);
            return self.announce_failed_for(id, farewell, failure, now);
        }
        match AnnounceReply::decode(&response.body) {
            Ok(reply) => self.announce_answered(id, farewell, reply, remote, now),
            Err(error) => self.announce_failed_for(id, farewell, error.into(), now),
        }
    }

    /// Takes the announce out of its stream, which is closed next.
    fn take_announce(&mut self, conn: ConnId) -> Option<Announce> {
        let state = self.conn_mut(conn)?;
        let closed = Stage::Closing;
        match std::mem::replace(&mut state.stage, closed) {
            Stage::Announce(announce) => Some(*announce),
            other => {
                state.stage = other;
                None
            }
        }
    }

    fn announce_answered(
        &mut self,
        id: TorrentId,
        farewell: bool,
        reply: AnnounceReply,
        from: SocketAddr,
        now: Instant,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if farewell {
            return;
        }
        let Outcome::Answered { url, reply } = torrent.tracker.answered(reply, from.ip(), now)
        else {
            return;
        };
        let peers = reply.peers.len() as u32;
        for &remote in &reply.peers {
            self.heard_of(id, remote, Source::Tracker, now);
        }
        log::debug!("tracker answered url={url} peers={peers}");
        self.report(Report::TrackerAnswered {
            torrent: id,
            url,
            peers,
            warning: reply.warning,
        });
        self.rearm_torrent(id, now);
    }

    /// The stream of an announce was lost, or never came up: another address, or failure.
    pub(super) fn announce_failed(&mut self, announce: Box<Announce>, why: &str, now: Instant) {
        let asked = self
            .torrents
            .get(&announce.torrent)
            .is_some_and(|t| t.tracker.is_asking());
        if asked || announce.farewell {
            self.dial_tracker(announce, why, now);
        }
    }

    fn announce_failed_for(
        &mut self,
        id: TorrentId,
        farewell: bool,
        failure: AnnounceFailure,
        now: Instant,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if farewell || !torrent.tracker.is_asking() {
            return;
        }
        let Outcome::Failed { url, message, .. } = torrent.tracker.failed(&failure, now) else {
            return;
        };
        log::warn!("tracker failed url={url}: {message}");
        self.report(Report::TrackerFailed {
            torrent: id,
            url,
            message,
        });
        self.rearm_torrent(id, now);
    }
}

fn unreachable(message: String) -> AnnounceFailure {
    AnnounceFailure::Unreachable(message)
}
