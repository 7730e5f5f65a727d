//! HTTP on the peer port: our tracker's announces and scrapes, and .torrent files.
//!
//! What is asked and answered is the business of [`tracker::server`](crate::tracker::server);
//! here are the streams: requests in order, one answer each, limits of time and memory.

use bytes::Bytes;

use super::action::StorageAction;
use super::conn::Stage;
use super::{Ending, Engine, Taken};
use crate::base::id::{ConnId, InfoHash};
use crate::base::limits;
use crate::base::time::Instant;
use crate::tracker::asker::Asker;
use crate::tracker::server::{HttpReply, Then};
use crate::wire::message::Outgoing;
use crate::wire::request::{self, Request, RequestReader};

/// A stream on which requests come.
#[derive(Debug)]
pub struct Http {
    reader: RequestReader,
    /// When the request that is not whole yet began; `None` between requests.
    began: Option<Instant>,
    /// The last answer is on its way: the stream ends after it.
    ending: bool,
    /// A .torrent is being read for this request; what came after it waits.
    waiting: Option<Box<Waiting>>,
}

/// What waits for a .torrent.
#[derive(Debug)]
struct Waiting {
    info_hash: InfoHash,
    request: Request,
    /// What the other side sent meanwhile.
    bytes: Vec<u8>,
}

impl Http {
    /// Whether nothing follows what is queued.
    pub(super) fn is_ending(&self) -> bool {
        self.ending && self.waiting.is_none()
    }

    /// Whether it is between two requests.
    fn is_idle(&self) -> bool {
        self.began.is_none() && self.waiting.is_none()
    }

    /// When the stream is given up, if nothing comes that was last heard of at `last_in`.
    pub(super) fn deadline(&self, last_in: Instant) -> Instant {
        match self.began {
            Some(began) => began + limits::HTTP_REQUEST_TIMEOUT,
            None => last_in + limits::HTTP_IDLE_TIMEOUT,
        }
    }
}

impl Engine {
    /// An incoming stream turned out to be HTTP; `bytes` is what came so far.
    pub(super) fn serve_http(&mut self, id: ConnId, bytes: &[u8], now: Instant) {
        if self.http.len() >= self.config.http_conns_max as usize && !self.drop_idle_http(now) {
            return self.close(id, Ending::Local("too many HTTP streams"), now);
        }
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        let opened = conn.opened;
        conn.stage = Stage::Http(Box::new(Http {
            reader: RequestReader::default(),
            began: Some(now),
            ending: false,
            waiting: None,
        }));
        self.undecided.remove(&(opened, id));
        self.http.insert(id);
        self.http_received(id, bytes, now);
    }

    /// Makes room by ending the stream that has been idle for longest; whether there was one.
    fn drop_idle_http(&mut self, now: Instant) -> bool {
        let idle_since = |id: &ConnId| {
            let conn = self.conn(*id)?;
            let is_idle = matches!(&conn.stage, Stage::Http(http) if http.is_idle());
            (is_idle && conn.outbox.is_empty()).then_some((conn.last_in, *id))
        };
        let Some((_, id)) = self.http.iter().filter_map(idle_since).min() else {
            return false;
        };
        self.close(id, Ending::Redundant("others wait"), now);
        true
    }

    /// Bytes of requests.
    pub(super) fn http_received(&mut self, id: ConnId, bytes: &[u8], now: Instant) -> Taken {
        let mut rest = bytes;
        while !rest.is_empty()
            && let Some(http) = self.http_mut(id)
            && !http.ending
        {
            if let Some(waiting) = &mut http.waiting {
                if waiting.bytes.len() + rest.len() > limits::HTTP_UNSENT_LEN_MAX {
                    self.close(id, Ending::Failed("does not wait for its answer"), now);
                    break;
                }
                waiting.bytes.extend_from_slice(rest);
                break;
            }
            match http.reader.received(rest) {
                Ok((used, None)) => {
                    http.began.get_or_insert(now);
                    rest = &rest[used..];
                }
                Ok((used, Some(request))) => {
                    http.began = None;
                    rest = &rest[used..];
                    self.answer(id, &request, now);
                }
                Err(error) => {
                    http.ending = true;
                    log::debug!("bad request: {error}");
                    self.send_http(id, error.respond(), now);
                }
            }
        }
        Taken {
            used: bytes.len(),
            store: None,
        }
    }

    fn http_mut(&mut self, id: ConnId) -> Option<&mut Http> {
        match &mut self.conn_mut(id)?.stage {
            Stage::Http(http) => Some(http),
            _ => None,
        }
    }

    fn answer(&mut self, id: ConnId, request: &Request, now: Instant) {
        let Some((remote, local)) = self.conn(id).map(|c| (c.remote, c.local)) else {
            return;
        };
        let asker = Asker {
            remote,
            local,
            interfaces: &self.interfaces,
            links: self.network.as_ref().map(|network| &network.broadcast),
        };
        match self.server.http(request, &asker, now) {
            HttpReply::Whole { bytes, then } => self.send_answer(id, bytes, then, now),
            HttpReply::Torrent(info_hash) => self.find_torrent_file(id, request, info_hash, now),
        }
        self.take_tracker_events(now);
    }

    fn send_answer(&mut self, id: ConnId, bytes: Bytes, then: Then, now: Instant) {
        if let Some(http) = self.http_mut(id) {
            http.ending |= then == Then::Close;
        }
        self.send_http(id, bytes, now);
    }

    /// Answers with the .torrent file of a torrent of ours as soon as storage has it, unless it is
    /// private: that is for its tracker to give out (BEP 27).
    fn find_torrent_file(
        &mut self,
        id: ConnId,
        request: &Request,
        info_hash: InfoHash,
        now: Instant,
    ) {
        let torrent = self.by_hash.get(&info_hash);
        let meta = torrent.and_then(|id| Some(self.torrents.get(id)?.swarm.meta()));
        if meta.is_none_or(|meta| meta.private) {
            return self.send_answer(id, no_such_torrent(request), then(request), now);
        }
        if let Some(http) = self.http_mut(id) {
            http.waiting = Some(Box::new(Waiting {
                info_hash,
                request: request.clone(),
                bytes: Vec::new(),
            }));
            self.storage(StorageAction::Text { info_hash });
        }
    }

    /// Storage has the .torrent file of a torrent, or says why not.
    pub fn text_read(&mut self, info_hash: InfoHash, text: Result<Bytes, String>, now: Instant) {
        for id in self.http.iter().copied().collect::<Vec<_>>() {
            if let Some(http) = self.http_mut(id)
                && let Some(waiting) = http.waiting.take_if(|it| it.info_hash == info_hash)
            {
                let Waiting { request, bytes, .. } = *waiting;
                let answer = match &text {
                    Ok(text) => request::respond(&request, 200, TORRENT_TYPE, text),
                    // It was removed meanwhile.
                    Err(_) if !self.by_hash.contains_key(&info_hash) => no_such_torrent(&request),
                    Err(why) => {
                        log::warn!("torrent file not served info_hash={info_hash}: {why}");
                        request::respond(&request, 404, TEXT_TYPE, b"its text is lost here\n")
                    }
                };
                self.send_answer(id, answer, then(&request), now);
                self.http_received(id, &bytes, now);
            }
        }
    }

    /// Queues bytes of an answer, in slices: each plan of what is to be written copies one.
    fn send_http(&mut self, id: ConnId, mut bytes: Bytes, now: Instant) {
        let Some(conn) = self.conn_mut(id) else {
            return;
        };
        if conn.outbox.len() + bytes.len() > limits::HTTP_UNSENT_LEN_MAX {
            return self.close(id, Ending::Failed("does not read its answers"), now);
        }
        while !bytes.is_empty() {
            let slice = bytes.split_to(bytes.len().min(SLICE_LEN));
            conn.outbox.push(Outgoing::Raw(slice));
        }
        self.flush(id);
    }

    /// Something of an answer left: ends the stream after the last one.
    pub(super) fn http_sent(&mut self, id: ConnId, now: Instant) {
        let is_done = self.conn(id).is_some_and(|conn| {
            conn.outbox.is_empty() && matches!(&conn.stage, Stage::Http(http) if http.is_ending())
        });
        if is_done {
            self.close(id, Ending::Local("answered"), now);
        }
    }
}

fn no_such_torrent(request: &Request) -> Bytes {
    request::respond(request, 404, TEXT_TYPE, b"no such torrent here\n")
}

/// What becomes of a stream after the answer to `request`.
fn then(request: &Request) -> Then {
    match request.keep_alive {
        true => Then::KeepAlive,
        false => Then::Close,
    }
}

/// The media type of what people read.
const TEXT_TYPE: &str = "text/plain";
/// The media type of .torrent files.
const TORRENT_TYPE: &str = "application/x-bittorrent";
/// Bytes of an answer that are queued as one.
const SLICE_LEN: usize = 64 * 1024;
