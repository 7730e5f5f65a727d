//! Questions to trackers over HTTP (BEP 3): look-up, stream, response, redirects.
//!
//! When to ask, and whom, is the business of [`tracker::client`](crate::tracker::client); here
//! an announce becomes a stream like any other, or an exchange of datagrams.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::action::Family;
use super::announce_udp::UdpQuestion;
use super::conn::{Purpose, Stage};
use super::{Ending, Engine, Lookup, Report, Taken};
use crate::base::address::{Scope, scope};
use crate::base::id::{ConnId, TorrentId};
use crate::base::limits;
use crate::base::time::Instant;
use crate::discovery::candidates::Source;
use crate::tracker::client::{AnnounceFailure, AnnounceId, AnnounceWanted, Nearness, Outcome};
use crate::tracker::guard::{self, Origin};
use crate::wire::announce::{self, AnnounceReply};
use crate::wire::http::{HttpError, Response, ResponseReader};
use crate::wire::message::Outgoing;
use crate::wire::udp_tracker::UdpAnnounce;
use crate::wire::url::{Scheme, TrackerUrl};

/// An announce over HTTP that is under way.
#[derive(Debug)]
pub struct Announce {
    torrent: TorrentId,
    id: AnnounceId,
    /// With the query; another one after a redirect.
    url: TrackerUrl,
    /// Who gave `url`.
    origin: Origin,
    response: ResponseReader,
    redirects: u32,
    /// Addresses of the tracker's host that were not tried yet.
    addresses: Vec<SocketAddr>,
    /// It tells that we leave: the answer is of no interest.
    farewell: bool,
}

impl Announce {
    /// Whether this is the announce `id` of `torrent`.
    pub fn is(&self, torrent: TorrentId, id: AnnounceId) -> bool {
        self.torrent == torrent && self.id == id
    }
}

impl Engine {
    /// Our own address as trackers see it (BEP 24), one of each family: their word, not checked.
    pub fn external_ip(&self, family: Family) -> Option<IpAddr> {
        self.external_ips.get(&family).copied()
    }

    /// Evpeers that are asked for peers of this torrent while its own trackers are silent, in
    /// place of those given before. A private torrent asks nobody (BEP 27).
    pub fn set_last_resort(&mut self, id: TorrentId, known: Vec<SocketAddr>, now: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id)
            && !torrent.swarm.meta().private
        {
            torrent.tracker.set_last_resort(known);
            self.rearm_torrent(id, now);
        }
    }

    /// Starts the announces of this torrent that are due, as many as may be under way.
    pub(super) fn announce_due(&mut self, id: TorrentId, now: Instant) {
        self.report_rejected_trackers(id);
        if !self.config.trackers {
            return;
        }
        self.drop_overdue(id, now);
        while let Some(torrent) = self.torrents.get_mut(&id)
            && torrent.is_taking_part()
            && torrent.tracker.next_deadline().is_some_and(|at| at <= now)
            && self.may_announce()
            && let Some(wanted) = self.poll_tracker(id, now)
        {
            self.begin_announce(id, wanted);
        }
    }

    /// Whether there is room for one more announce.
    pub(super) fn may_announce(&self) -> bool {
        let is_announce = |(_, (_, conn)): &(usize, &(u32, super::Conn))| {
            matches!(
                conn.stage,
                Stage::Announce(_) | Stage::Dialling(Purpose::Announce(_))
            )
        };
        let streams = self.conns.iter().filter(is_announce).count();
        let lookups = self.lookups.values();
        let lookups = lookups.filter(|lookup| !matches!(lookup, Lookup::Peer(..)));
        streams + lookups.count() + self.udp_trackers.len() < limits::ANNOUNCES_MAX
    }

    /// When a torrent that begins now announces itself first. A single one does at once; a
    /// thousand that begin together do not fall upon their tracker in one instant, and neither do
    /// their later announces, as they keep the distance.
    pub(super) fn announce_turn(&mut self, now: Instant) -> Instant {
        let turns = self.announce_turns.max(now);
        self.announce_turns = turns + ANNOUNCE_DISTANCE;
        let ahead = turns - now;
        now + ahead.saturating_sub(ANNOUNCE_DISTANCE * ANNOUNCES_TOGETHER)
    }

    fn poll_tracker(&mut self, id: TorrentId, now: Instant) -> Option<AnnounceWanted> {
        self.torrents.get_mut(&id)?.tracker.poll(now)
    }

    /// Lets go of announces that take too long.
    fn drop_overdue(&mut self, id: TorrentId, now: Instant) {
        while let Some(torrent) = self.torrents.get_mut(&id)
            && let Some((overdue, outcome)) = torrent.tracker.poll_overdue(now)
        {
            self.report_failure(id, outcome);
            self.udp_trackers.forget(id, overdue);
            self.lookups.retain(|_, lookup| match lookup {
                Lookup::Peer(..) => true,
                Lookup::Tracker(announce) => !announce.is(id, overdue),
                Lookup::UdpTracker(question) => (question.torrent, question.id) != (id, overdue),
            });
            for conn in self.announcing_conns(|announce| announce.is(id, overdue)) {
                self.close(conn, Ending::Local("no answer in time"), now);
            }
        }
    }

    /// Streams of announces, or to be, that are of this kind.
    fn announcing_conns(&self, is_meant: impl Fn(&Announce) -> bool) -> Vec<ConnId> {
        let is_one = |conn: &ConnId| match self.conn(*conn).map(|c| &c.stage) {
            Some(Stage::Announce(announce) | Stage::Dialling(Purpose::Announce(announce))) => {
                is_meant(announce)
            }
            _ => false,
        };
        self.conn_ids().into_iter().filter(is_one).collect()
    }

    /// Tells the trackers that know us that this torrent stops.
    pub(super) fn stop_announcing(&mut self, id: TorrentId, now: Instant) {
        let stale = self.announcing_conns(|a| a.torrent == id && !a.farewell);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.tracker.stopped(now);
        self.udp_trackers.forget_torrent(id);
        for conn in stale {
            self.close(conn, Ending::Local("the torrent stops"), now);
        }
        if !self.config.trackers {
            return;
        }
        while let Some(wanted) = self.poll_tracker(id, now) {
            self.begin_announce(id, wanted);
        }
    }

    fn begin_announce(&mut self, torrent: TorrentId, wanted: AnnounceWanted) {
        let Some(running) = self.torrents.get(&torrent) else {
            return;
        };
        let swarm = &running.swarm;
        let AnnounceWanted { id, url, event, .. } = wanted;
        let farewell = event == Some(announce::Event::Stopped);
        let announce = announce::Announce {
            info_hash: swarm.meta().info_hash,
            peer_id: self.secrets.peer_id,
            port: self.port,
            key: self.secrets.key,
            uploaded: swarm.uploaded_bytes(),
            downloaded: swarm.downloaded_bytes(),
            left: swarm.meta().geometry().length() - swarm.done_bytes(),
            event,
            is_paused: running.is_partial_seed(),
            numwant: wanted.numwant,
            tracker_id: wanted.tracker_id,
        };
        match url.scheme() {
            Scheme::Http => self.ask(Announce {
                torrent,
                id,
                url: url.with_query(&announce.query()),
                origin: Origin::Given,
                response: ResponseReader::default(),
                redirects: 0,
                addresses: Vec::new(),
                farewell,
            }),
            Scheme::Udp => self.ask_by_udp(UdpQuestion {
                torrent,
                id,
                farewell,
                url,
                announce: UdpAnnounce::of(&announce),
            }),
        }
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
        self.look_up(Lookup::Tracker(Box::new(announce)), host, port);
    }

    /// Whether the tracker's client waits for what comes of this announce.
    pub(super) fn is_announcing(&self, torrent: TorrentId, id: AnnounceId) -> bool {
        let torrent = self.torrents.get(&torrent);
        torrent.is_some_and(|torrent| torrent.tracker.is_asking(id))
    }

    pub(super) fn tracker_resolved(
        &mut self,
        mut announce: Box<Announce>,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        match usable_addresses(&announce.url, answer, announce.origin) {
            Ok(addresses) => {
                announce.addresses = addresses;
                announce.addresses.reverse();
                self.dial_tracker(announce, "its name has no address", now);
            }
            Err(message) => {
                let (torrent, id) = (announce.torrent, announce.id);
                self.announce_failed_for(torrent, id, unreachable(message), now);
            }
        }
    }

    /// Tries the next address of the tracker; `why` tells what became of the last one.
    fn dial_tracker(&mut self, mut announce: Box<Announce>, why: &str, now: Instant) {
        let (torrent, id) = (announce.torrent, announce.id);
        if !announce.farewell && !self.is_announcing(torrent, id) {
            return;
        }
        match announce.addresses.pop() {
            Some(remote) => {
                self.open(remote, Purpose::Announce(announce), now);
            }
            None => self.announce_failed_for(torrent, id, unreachable(why.to_owned()), now),
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
        let (torrent, id) = (announce.torrent, announce.id);
        let Some(remote) = self.conn(conn).map(|c| c.remote) else {
            return;
        };
        self.close(conn, Ending::Local("answered"), now);
        let failure = match outcome {
            Ok(response)
                if response.is_redirect() && announce.redirects < limits::TRACKER_REDIRECTS_MAX =>
            {
                return self.redirected(announce, &response, remote.ip(), now);
            }
            Ok(response) if response.status == 200 => match AnnounceReply::decode(&response.body) {
                Ok(reply) => return self.announce_answered(torrent, id, reply, remote, now),
                Err(error) => error.into(),
            },
            Ok(response) => AnnounceFailure::Status(response.status),
            Err(error) => unreachable(error.to_string()),
        };
        self.announce_failed_for(torrent, id, failure, now);
    }

    /// The tracker at `by` sends us elsewhere.
    fn redirected(&mut self, announce: Announce, response: &Response, by: IpAddr, now: Instant) {
        let location = response.location.as_deref().unwrap_or_default();
        match announce.url.redirected(location) {
            Ok(url) => self.ask(Announce {
                url,
                origin: guard::origin_of_redirect(by, announce.origin),
                response: ResponseReader::default(),
                redirects: announce.redirects + 1,
                ..announce
            }),
            Err(error) => {
                let message = format!("it redirects to an unusable address: {error}");
                let (torrent, id) = (announce.torrent, announce.id);
                self.announce_failed_for(torrent, id, unreachable(message), now);
            }
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

    pub(super) fn announce_answered(
        &mut self,
        id: TorrentId,
        announce: AnnounceId,
        reply: AnnounceReply,
        from: SocketAddr,
        now: Instant,
    ) {
        let is_near = self.interfaces.is_on_link(from.ip()) || scope(from.ip()) < Scope::Global;
        let nearness = if is_near {
            Nearness::Near
        } else {
            Nearness::Far
        };
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let answered = torrent.tracker.answered(announce, reply, nearness, now);
        let Some(Outcome::Answered { url, reply }) = answered else {
            return;
        };
        self.seen_from_outside(reply.external_ip);
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

    /// A tracker says which address of ours it sees.
    fn seen_from_outside(&mut self, ip: Option<IpAddr>) {
        let Some(ip) = ip.map(|ip| ip.to_canonical()) else {
            return;
        };
        if scope(ip) > Scope::LinkLocal {
            let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
            self.external_ips.insert(family, ip);
        }
    }

    /// The stream of an announce was lost, or never came up: another address, or failure.
    pub(super) fn announce_failed(&mut self, announce: Box<Announce>, why: &str, now: Instant) {
        self.dial_tracker(announce, why, now);
    }

    pub(super) fn announce_failed_for(
        &mut self,
        id: TorrentId,
        announce: AnnounceId,
        failure: AnnounceFailure,
        now: Instant,
    ) {
        if !self.is_announcing(id, announce) {
            return;
        }
        if let Some(torrent) = self.torrents.get_mut(&id) {
            let outcome = torrent.tracker.failed(announce, &failure, now);
            self.report_failure(id, outcome);
        }
        self.rearm_torrent(id, now);
    }

    fn report_failure(&mut self, id: TorrentId, outcome: Option<Outcome>) {
        if let Some(Outcome::Failed { url, message }) = outcome {
            log::warn!("tracker failed url={url}: {message}");
            self.report(Report::TrackerFailed {
                torrent: id,
                url,
                message,
            });
        }
    }
}

pub(super) fn unreachable(message: String) -> AnnounceFailure {
    AnnounceFailure::Unreachable(message)
}

/// Those addresses of an answer of the resolver at which the tracker may be asked, or why there
/// is none.
pub(super) fn usable_addresses(
    url: &TrackerUrl,
    answer: Result<Vec<SocketAddr>, String>,
    origin: Origin,
) -> Result<Vec<SocketAddr>, String> {
    let mut addresses = answer.map_err(|why| format!("cannot look up {}: {why}", url.host()))?;
    let mut forbidden = None;
    addresses.retain(|addr| match guard::check(url, addr.ip(), origin) {
        Ok(()) => true,
        Err(error) => {
            forbidden = Some(error);
            false
        }
    });
    addresses.truncate(limits::TRACKER_ADDRESSES_MAX);
    match forbidden {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(error) => Err(error.to_string()),
        None => Err("its name has no address".to_owned()),
    }
}

/// First announces that are made at once.
const ANNOUNCES_TOGETHER: u32 = 25;
/// Time between any two of those beyond.
const ANNOUNCE_DISTANCE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::PeerId;
    use crate::config::Config;
    use crate::engine::Secrets;

    #[test]
    fn torrents_that_begin_together_announce_themselves_one_after_the_other() {
        let secrets = Secrets {
            rng_seed: 1,
            peer_id: PeerId([1; 20]),
            key: 7,
            tracker: [3; 16],
        };
        let begin = Instant::from_micros(1_000_000);
        let mut engine = Engine::new(Config::default(), secrets, begin);
        let turns: Vec<Instant> = (0..1000).map(|_| engine.announce_turn(begin)).collect();
        assert_eq!(turns[0], begin, "a single one waits for nobody");
        let in_second = |second: u64| {
            let from = begin + Duration::from_secs(second);
            let is_in = |at: &&Instant| **at >= from && **at < from + Duration::from_secs(1);
            turns.iter().filter(is_in).count()
        };
        assert_eq!(in_second(0), 75);
        assert!((1..19).all(|second| in_second(second) == 50));
        let last = turns[999];
        let later = last + Duration::from_secs(1);
        assert_eq!(engine.announce_turn(later), later, "the crowd is over");
    }
}
