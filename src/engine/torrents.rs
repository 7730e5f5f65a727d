//! Torrents as a whole: adding, checking, states, what storage answers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::action::StorageAction;
use super::choosing;
use super::conn::{Purpose, Stage};
use super::goals::Seeded;
use super::torrent::{
    AddError, Check, Contacts, HostPort, OnDisk, Torrent, TorrentSpec, Transferred,
};
use super::view::Heard;
use super::{Action, Engine, Lookup, LookupId, Report, Snapshot, State};
use crate::base::id::{ConnId, InfoHash, PieceIndex, Ticket, TorrentId};
use crate::base::rng::Rng;
use crate::base::seldom::Seldom;
use crate::base::status::Trouble;
use crate::base::time::Instant;
use crate::base::verdict::Verdict;
use crate::discovery::Privacy;
use crate::discovery::candidates::{Candidates, Source};
use crate::discovery::pex::Roster;
use crate::meta::metainfo::Metainfo;
use crate::swarm::Swarm;
use crate::tracker::budget::Rates;
use crate::tracker::client::Client;
use crate::wire::message::Outgoing;

impl Engine {
    /// Takes up a torrent: its files are looked at, what is there is checked, then it runs.
    ///
    /// # Errors
    /// A torrent with the same info hash, or with one of its files, is there already.
    pub fn add_torrent(&mut self, spec: TorrentSpec, now: Instant) -> Result<TorrentId, AddError> {
        let (meta, text) = Metainfo::apart(spec.meta);
        if self.by_hash.contains_key(&meta.info_hash) {
            return Err(AddError::Duplicate {
                name: meta.name.clone(),
                info_hash: meta.info_hash,
            });
        }
        for other in self.torrents.values().map(|other| other.swarm.meta()) {
            if let Some(path) = meta.file_in_common(other) {
                return Err(AddError::SamePath {
                    name: meta.name.clone(),
                    other: other.name.clone(),
                    path: path.clone(),
                });
            }
        }
        let id = TorrentId(self.torrents_added);
        self.torrents_added += 1;
        self.by_hash.insert(meta.info_hash, id);
        let mut tiers = meta.trackers.clone();
        tiers.extend(spec.trackers.iter().map(|url| vec![url.clone()]));
        let mut candidates = Candidates::new(Privacy::of(&meta), Rng::new(self.rng.next_u64()));
        candidates.interfaces_found(&self.interfaces);
        let mut swarm = Swarm::new(id, meta.clone(), Rng::new(self.rng.next_u64()), now);
        choosing::apply_to_new(&mut swarm, &spec.choice, now);
        let announce_at = match tiers.is_empty() {
            true => now,
            false => self.announce_turn(now),
        };
        let mut contacts = Seldom::<Contacts>::default();
        if !spec.trackers.is_empty() || !spec.peers.is_empty() {
            contacts.trackers = spec.trackers;
            contacts.peers = spec.peers.clone();
        }
        let torrent = Torrent {
            swarm,
            choice: spec.choice,
            state: State::Checking,
            reason: None,
            check: None,
            candidates,
            roster: Roster::new(Privacy::of(&meta)),
            contacts,
            tracker: Client::new(tiers, Rng::new(self.rng.next_u64()), announce_at),
            durable: false,
            settling: Ticket::default(),
            syncing: Ticket::default(),
            lapsed_at: None,
            plight: None,
            cure: None,
            ticked: now,
            mixed_at: now,
            armed: Instant::NEVER,
            paused_from: None,
            is_open: true,
            before: Transferred::default(),
            former: Transferred::default(),
            was_complete: false,
            seeded: Seeded::default(),
        };
        self.torrents.insert(id, Box::new(torrent));
        self.server.set_rates(Rates::BESIDE_TORRENTS);
        self.track(id, now);
        self.set_state(id, State::Checking, None, now);
        self.choice_before_opening(id);
        if let Some(text) = text {
            let info_hash = meta.info_hash;
            self.storage(StorageAction::Hold { info_hash, text });
        }
        self.storage(StorageAction::Open {
            torrent: id,
            meta,
            writable: true,
        });
        for peer in spec.peers {
            self.find_peer(id, peer, now);
        }
        Ok(id)
    }

    /// The torrents, in the order in which they were added.
    pub fn torrents(&self) -> impl Iterator<Item = TorrentId> + '_ {
        self.torrents.keys().copied()
    }

    /// Torrents whose figures may change without a report: those that are being checked, or
    /// have peers, or fetch.
    pub fn moving(&self) -> impl Iterator<Item = TorrentId> + '_ {
        let is_moving = |torrent: &Torrent| {
            let is_under_way = matches!(torrent.state, State::Checking | State::Downloading);
            is_under_way || torrent.swarm.peer_count() > 0
        };
        let torrents = self.torrents.iter();
        torrents.filter_map(move |(&id, torrent)| is_moving(torrent).then_some(id))
    }

    /// The torrent with this info hash.
    pub fn torrent_of(&self, info_hash: InfoHash) -> Option<TorrentId> {
        self.by_hash.get(&info_hash).copied()
    }

    /// What a torrent does at present; `None` if there is no such torrent.
    pub fn state(&self, id: TorrentId) -> Option<State> {
        self.torrents.get(&id).map(|torrent| torrent.state)
    }

    /// A torrent's figures; `None` if there is no such torrent.
    pub fn snapshot(&mut self, id: TorrentId, now: Instant) -> Option<Snapshot> {
        self.torrents
            .get_mut(&id)
            .map(|torrent| torrent.snapshot(now))
    }

    /// Storage looked at the files, and at what it remembers of them.
    pub fn scanned(&mut self, id: TorrentId, found: OnDisk, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        for piece in found.vouched.ones() {
            torrent.swarm.found(PieceIndex(piece), now);
        }
        torrent.check = Some(Box::new(Check {
            candidates: found.candidates,
            filled: found.filled,
            next: 0,
            running: 0,
            bytes: 0,
        }));
        self.check_more(id, now);
    }

    /// A piece that was there is not: it has to be fetched again.
    pub fn piece_lost(&mut self, id: TorrentId, piece: PieceIndex, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.swarm.lost(piece);
        if torrent.state == State::Seeding && !torrent.swarm.has_all_wanted() {
            self.become_leecher(id, now);
        }
        self.run_effects(id, now);
        self.rearm_torrent(id, now);
    }

    /// A sync failed, or somebody changed the files, and what was stored may be lost: all that is
    /// not vouched for is checked again. Files that lapse again soon are not trusted.
    pub fn storage_lapsed(&mut self, id: TorrentId, trouble: Trouble, now: Instant) {
        if trouble.may_pass {
            return self.storage_failed(id, trouble, now);
        }
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        let before = torrent.lapsed_at.replace(now);
        let is_again = before.is_some_and(|before| now - before < LAPSE_INTERVAL);
        if is_again || self.ending.is_some() {
            return self.storage_failed(id, trouble, now);
        }
        let message = trouble.message;
        log::warn!("what is not on disk for sure is checked again torrent={id}: {message}");
        if torrent.state == State::Paused {
            torrent.is_open = false; // it is opened again when it is resumed
            return;
        }
        self.leave_queue(id, now);
        self.part_with_peers(id, "data is checked again", now);
        self.open_again(id, now);
    }

    /// Storage hashed a piece.
    pub fn piece_checked(
        &mut self,
        id: TorrentId,
        piece: PieceIndex,
        verdict: Verdict,
        now: Instant,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if let Some(check) = &mut torrent.check {
            check.running -= 1;
            check.bytes += u64::from(torrent.swarm.meta().geometry().piece_len(piece));
            if let Verdict::Good { .. } = verdict {
                torrent.swarm.found(piece, now);
            }
            self.check_more(id, now);
        } else {
            torrent.swarm.piece_checked(piece, verdict, now);
        }
        self.run_effects(id, now);
    }

    /// Storage cannot go on with this torrent; the others do.
    pub fn storage_failed(&mut self, id: TorrentId, trouble: Trouble, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.is_open = false;
        self.last_syncs.remove(&id);
        // A folder that could not be used from the start is a mistake to be told of.
        let has_begun = torrent.plight.is_some() || torrent.swarm.done_bytes() > 0;
        let is_worth_waiting = trouble.may_pass && (trouble.is_of_disk || has_begun);
        if is_worth_waiting && self.ending.is_none() {
            return self.cannot_write(id, trouble.message, now);
        }
        torrent.plight = None;
        let message = trouble.message;
        log::error!("torrent stopped torrent={id}: {message}");
        self.set_state(id, State::Error, Some(message), now);
        self.part_with_peers(id, "the torrent has failed", now);
        self.stop_announcing(id, now);
    }

    /// Hands further pieces to storage, or ends the check.
    pub(super) fn check_more(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.state != State::Checking && !torrent.is_waiting() {
            return; // it is paused, and goes on when it is resumed
        }
        let Some(check) = &mut torrent.check else {
            return;
        };
        let piece_len = u64::from(torrent.swarm.meta().geometry().nominal_piece_len());
        let most = (CHECK_AHEAD_LEN / piece_len.max(1)).clamp(4, 1024) as u32;
        let mut next = Vec::new();
        while check.running < most
            && let Some(piece) = check.take_next()
        {
            check.running += 1;
            next.push(piece);
        }
        if check.running == 0 {
            let filled = std::mem::take(&mut check.filled);
            torrent.check = None;
            for (piece, blocks) in filled {
                torrent.swarm.took_up(piece, &blocks);
            }
            self.start(id, now);
        }
        for piece in next {
            self.storage(StorageAction::Check { torrent: id, piece });
        }
    }

    /// What is on disk is known: fetch what is missing, or seed.
    pub(super) fn start(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        if torrent.plight.is_some() {
            return self.serve_meanwhile(id, now);
        }
        // A seed that has lost something needs no turn.
        let is_leecher = !torrent.swarm.has_all_wanted() && !torrent.was_complete;
        if is_leecher && !self.has_place(id, now) {
            return self.queue(id, now);
        }
        self.begin(id, now);
    }

    /// Takes part in the exchange.
    pub(super) fn begin(&mut self, id: TorrentId, now: Instant) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.swarm.begin_exchange(now);
        let has_all = torrent.swarm.has_all_wanted();
        let was_seed = torrent.was_complete && torrent.lapsed_at.is_some();
        self.storage(StorageAction::Begin { torrent: id });
        match has_all {
            true => self.become_seed(id, now),
            false if was_seed => self.become_leecher(id, now), // as others believe otherwise
            false => self.set_state(id, State::Downloading, None, now),
        }
        self.run_effects(id, now);
        self.rearm_torrent(id, now);
    }

    /// Everything that is wanted is there: tells the peers that this one only uploads from now on,
    /// and the trackers, if that is not all, that it waits (BEP 21), or that it does so again.
    pub(super) fn become_seed(&mut self, id: TorrentId, now: Instant) {
        if let Some(torrent) = self.torrents.get_mut(&id) {
            let is_again = torrent.was_complete && torrent.state == State::Downloading;
            // A former run may have fetched the last piece and not have come to say so.
            if torrent.swarm.is_complete() && !std::mem::replace(&mut torrent.was_complete, true) {
                torrent.tracker.completed(now);
            }
            if is_again || !torrent.swarm.is_complete() {
                torrent.tracker.hurry(now);
            }
        }
        self.set_state(id, State::Seeding, None, now);
        self.track(id, now);
        self.sync(id);
        self.tell_upload_only(id, true);
        self.rearm_torrent(id, now);
    }

    /// Tells the peers whether this one only uploads (BEP 21).
    pub(super) fn tell_upload_only(&mut self, id: TorrentId, is_upload_only: bool) {
        for conn in self.conns_of(id) {
            let Some(state) = self.conn_mut(conn) else {
                continue;
            };
            let Some(exchange) = state.exchange() else {
                continue;
            };
            let (extended, upload_only_id) = (exchange.extended, exchange.upload_only_id);
            if upload_only_id != 0 {
                let body = bytes::Bytes::copy_from_slice(&[u8::from(is_upload_only)]);
                state.outbox.push(Outgoing::Extended {
                    id: upload_only_id,
                    body,
                });
            } else if extended {
                self.send_extended(conn, id);
            }
            self.flush(conn);
        }
    }

    pub(super) fn set_state(
        &mut self,
        id: TorrentId,
        state: State,
        reason: Option<String>,
        now: Instant,
    ) {
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.state = state;
        torrent.seeded.state_changed(state, now);
        self.state_begins(id, Some(state));
        self.queue_changed(now);
        let Some(torrent) = self.torrents.get_mut(&id) else {
            return;
        };
        torrent.reason.clone_from(&reason);
        log::info!(
            "torrent {} name=\"{}\" info_hash={}",
            state.name(),
            torrent.swarm.meta().name.escape_debug(),
            torrent.swarm.meta().info_hash.short(),
        );
        self.report(Report::State {
            torrent: id,
            state,
            reason,
        });
        self.tell_lsd(id);
        self.network_stands(id, state);
        self.share_requests_soon();
    }

    /// Streams to peers of a torrent, those that are being opened too.
    pub(super) fn conns_of(&self, id: TorrentId) -> Vec<ConnId> {
        let belongs = |conn: &ConnId| match self.conn(*conn).map(|c| &c.stage) {
            Some(Stage::Exchange(exchange)) => exchange.torrent == id,
            Some(Stage::Greeting(torrent, _) | Stage::Dialling(Purpose::Peer(torrent))) => {
                *torrent == id
            }
            _ => false,
        };
        self.conn_ids().into_iter().filter(belongs).collect()
    }

    /// Keeps what a tracker said last. Trackers that are told of are those of the torrent, so
    /// their number is bounded with those.
    pub(super) fn note_what_trackers_say(&mut self, report: &Report) {
        let (torrent, url, heard) = match report {
            Report::TrackerAnswered {
                torrent,
                url,
                peers,
                warning,
            } => {
                let (peers, warning) = (*peers, warning.clone());
                (torrent, url, Heard::Answered { peers, warning })
            }
            Report::TrackerFailed {
                torrent,
                url,
                message,
            } => {
                let message = message.clone();
                (torrent, url, Heard::Failed { message })
            }
            _ => return,
        };
        if let Some(torrent) = self.torrents.get_mut(torrent) {
            torrent.contacts.heard.insert(url.clone(), heard);
        }
    }

    /// A peer that the user named: at once if it is an address, after a look-up if it is a name.
    pub(super) fn find_peer(&mut self, id: TorrentId, peer: HostPort, now: Instant) {
        if let Ok(ip) = peer.host.parse::<IpAddr>() {
            let found = Ok(vec![SocketAddr::new(ip, peer.port)]);
            return self.peer_resolved(id, peer, found, now);
        }
        self.look_up(Lookup::Peer(id, peer.clone()), peer.host, peer.port);
    }

    pub(super) fn look_up(&mut self, purpose: Lookup, host: String, port: u16) {
        self.lookups_made += 1;
        let lookup = LookupId(self.lookups_made);
        self.lookups.insert(lookup, purpose);
        self.actions
            .push_back(Action::Resolve { lookup, host, port });
    }

    pub(super) fn peer_resolved(
        &mut self,
        id: TorrentId,
        peer: HostPort,
        answer: Result<Vec<SocketAddr>, String>,
        now: Instant,
    ) {
        if !self.torrents.contains_key(&id) {
            return;
        }
        match answer {
            Ok(addresses) => {
                for remote in addresses {
                    self.heard_of(id, remote, Source::User, now);
                }
            }
            Err(message) => {
                log::warn!(
                    "name not found host={}: {message}",
                    peer.host.escape_debug()
                );
                self.report(Report::NameFailed {
                    host: peer.host,
                    message,
                });
            }
        }
    }
}

/// Data that storage is asked to hash ahead while checking, bytes.
const CHECK_AHEAD_LEN: u64 = 32 * 1024 * 1024;
/// Files that lapse twice within this time are given up.
const LAPSE_INTERVAL: Duration = Duration::from_secs(10);
