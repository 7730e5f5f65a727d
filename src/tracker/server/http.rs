//! The tracker over HTTP (BEP 3, 48): routes, and answers in bencode.

use super::{Announce, HttpReply, NOT_TRACKED, Server, Then, told_count};
use crate::base::id::InfoHash;
use crate::base::limits::TOLD_PEERS_MAX;
use crate::base::time::Instant;
use crate::tracker::asker::{Asker, Nearness};
use crate::tracker::registry::{Counts, Families};
use crate::wire::answer::{self, AnnounceAnswer, ScrapeAnswer};
use crate::wire::query::{AnnounceQuery, decode_scrape};
use crate::wire::request::{Method, Request, respond};

impl Server {
    /// Answers a request that came in on a stream.
    ///
    /// Refusals of a tracker are answers as well (status 200, `failure reason`); who asks too
    /// often is told to go, by status 503.
    pub fn http(&mut self, request: &Request, asker: &Asker<'_>, now: Instant) -> HttpReply {
        let nearness = asker.nearness();
        if !self.budget.take(asker.ip(), nearness, &self.secret, now) {
            return whole(request, 503, b"too many requests\n");
        }
        if request.method == Method::Other {
            return whole(request, 405, b"GET or HEAD\n");
        }
        match request.path() {
            "/announce" => {
                let body = self.http_announce(request.query(), asker, nearness, now);
                whole(request, 200, &body)
            }
            "/scrape" => whole(request, 200, &self.http_scrape(request.query())),
            path => match self.torrent_at(path) {
                Some(info_hash) => HttpReply::Torrent(info_hash),
                None => whole(request, 404, b"nothing here\n"),
            },
        }
    }

    fn http_announce(
        &mut self,
        query: &str,
        asker: &Asker<'_>,
        nearness: Nearness,
        now: Instant,
    ) -> Vec<u8> {
        let query = match AnnounceQuery::decode(query) {
            Ok(query) => query,
            Err(error) => return answer::failure(&error.to_string()),
        };
        let announce = Announce {
            info_hash: query.info_hash,
            peer_id: query.peer_id,
            claimed: query.claimed,
            port: query.port,
            key: query.key,
            left: query.left,
            event: query.event,
            is_paused: query.is_paused,
            count: told_count(query.numwant, TOLD_PEERS_MAX),
            families: Families::Both,
            form: query.form,
        };
        let Some((counts, interval)) = self.announce(&announce, asker, nearness, now) else {
            return answer::failure(NOT_TRACKED);
        };
        let listed = asker.listed_at(&query.claimed, query.port);
        let is_closed = self.unreached.contains(&listed);
        let warning = is_closed.then(|| unreached(listed.port()));
        let answer = AnnounceAnswer {
            interval: u32::try_from(interval.as_secs()).unwrap_or(u32::MAX),
            complete: counts.complete,
            incomplete: counts.incomplete,
            external_ip: asker.ip(),
            peers: &self.told,
            warning: warning.as_deref(),
        };
        answer.encode()
    }

    /// Sizes of the swarms that are asked for and tracked here. All at once are not to be had:
    /// who does not know a torrent's name is not told it.
    fn http_scrape(&self, query: &str) -> Vec<u8> {
        let hashes = match decode_scrape(query) {
            Ok(hashes) => hashes,
            Err(error) => return answer::failure(&error.to_string()),
        };
        let files: Vec<_> = hashes
            .into_iter()
            .filter_map(|hash| Some((hash, scraped(self.registry.scraped(hash)?))))
            .collect();
        answer::scrape(&files)
    }

    /// The swarm of `/torrents/<info hash>.torrent`, unless its torrent is for few.
    fn torrent_at(&self, path: &str) -> Option<InfoHash> {
        let name = path.strip_prefix("/torrents/")?.strip_suffix(".torrent")?;
        let info_hash = name.parse().ok()?;
        let terms = self.registry.terms(info_hash)?;
        (!terms.is_private).then_some(info_hash)
    }
}

fn unreached(port: u16) -> String {
    format!(
        "your port {port} could not be reached from here: open it in your firewall, TCP and UDP"
    )
}

fn scraped(counts: Counts) -> ScrapeAnswer {
    ScrapeAnswer {
        complete: counts.complete,
        downloaded: counts.downloaded,
        downloaders: counts.wanting(),
        incomplete: counts.incomplete,
    }
}

fn whole(request: &Request, status: u16, body: &[u8]) -> HttpReply {
    HttpReply::Whole {
        bytes: respond(request, status, "text/plain", body),
        then: match request.keep_alive && status != 503 {
            true => Then::KeepAlive,
            false => Then::Close,
        },
    }
}
