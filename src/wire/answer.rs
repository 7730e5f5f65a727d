//! What a tracker answers over HTTP: bencoded bodies (BEP 3, 7, 21, 23, 24, 48).

use std::net::{IpAddr, SocketAddr};

use super::bencode::Encoder;
use super::compact::{encode_peer, encode_peer6};
use super::query::Form;
use crate::base::id::{InfoHash, PeerId};

/// A peer, as it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its address, as the asker can use it.
    pub addr: SocketAddr,
    /// What it calls itself, if that is known.
    pub peer_id: Option<PeerId>,
}

/// Peers of an answer, written as they come in the form in which it tells them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    form: Form,
    v4: Vec<u8>,
    v6: Vec<u8>,
    listed: Vec<Told>,
}

impl Peers {
    /// Forgets all peers; those that follow are for an answer of this form.
    pub fn begin(&mut self, form: Form) {
        self.form = form;
        self.v4.clear();
        self.v6.clear();
        self.listed.clear();
    }

    /// Adds a peer at `addr`, called what `peer_id` says if the form has room for it.
    #[inline]
    pub fn push(&mut self, addr: SocketAddr, peer_id: impl FnOnce() -> Option<PeerId>) {
        match (self.form, addr) {
            (Form::Compact, SocketAddr::V4(addr)) => self.v4.extend(encode_peer(addr)),
            (Form::Compact, SocketAddr::V6(addr)) => self.v6.extend(encode_peer6(addr)),
            (Form::Listed, addr) => self.listed.push(Told {
                addr,
                peer_id: peer_id(),
            }),
            (Form::ListedWithoutIds, addr) => self.listed.push(Told {
                addr,
                peer_id: None,
            }),
        }
    }

    /// The IPv4 peers of a compact answer (BEP 23), [`PEER_LEN`] bytes each.
    ///
    /// [`PEER_LEN`]: super::compact::PEER_LEN
    pub fn v4(&self) -> &[u8] {
        &self.v4
    }

    /// The IPv6 peers of a compact answer (BEP 7), [`PEER6_LEN`] bytes each.
    ///
    /// [`PEER6_LEN`]: super::compact::PEER6_LEN
    pub fn v6(&self) -> &[u8] {
        &self.v6
    }

    /// The peers of an answer that lists them.
    pub fn listed(&self) -> &[Told] {
        &self.listed
    }
}

/// The answer to an announce.
#[derive(Clone, Copy, Debug)]
pub struct AnnounceAnswer<'a> {
    /// Seconds until the next announce.
    pub interval: u32,
    /// Peers that have everything.
    pub complete: u32,
    /// Peers that lack something.
    pub incomplete: u32,
    /// The asker, as we see it (BEP 24).
    pub external_ip: IpAddr,
    /// Other peers.
    pub peers: &'a Peers,
    /// What the announcer should know, for people; printable, and no secret.
    pub warning: Option<&'a str>,
}

/// The size of one swarm, for a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeAnswer {
    /// Peers that have everything.
    pub complete: u32,
    /// Downloads that ended, ever.
    pub downloaded: u32,
    /// Peers that lack something and want it (BEP 21).
    pub downloaders: u32,
    /// Peers that lack something.
    pub incomplete: u32,
}

impl AnnounceAnswer<'_> {
    /// The body of the answer. Everything that clients insist on is always there.
    pub fn encode(&self) -> Vec<u8> {
        let peers = self.peers;
        let mut body = Encoder::with_capacity(BODY_LEN + peers.v4.len() + peers.v6.len());
        body.dict_begin();
        body.key(b"complete").int(self.complete.into());
        body.key(b"external ip");
        match self.external_ip {
            IpAddr::V4(ip) => body.bytes(&ip.octets()),
            IpAddr::V6(ip) => body.bytes(&ip.octets()),
        };
        body.key(b"incomplete").int(self.incomplete.into());
        body.key(b"interval").int(self.interval.into());
        // Some clients prefer this one (wire-facts: rqbit): it is no less.
        body.key(b"min interval").int(self.interval.into());
        match peers.form {
            Form::Compact => {
                body.key(b"peers").bytes(&peers.v4);
                if !peers.v6.is_empty() {
                    body.key(b"peers6").bytes(&peers.v6);
                }
            }
            Form::Listed | Form::ListedWithoutIds => encode_listed(&peers.listed, &mut body),
        }
        if let Some(warning) = self.warning {
            body.key(b"warning message").bytes(warning.as_bytes());
        }
        body.end();
        body.finish()
    }
}

fn encode_listed(peers: &[Told], body: &mut Encoder) {
    body.key(b"peers").list_begin();
    for told in peers {
        body.dict_begin();
        body.key(b"ip").bytes(told.addr.ip().to_string().as_bytes());
        if let Some(peer_id) = told.peer_id {
            body.key(b"peer id").bytes(&peer_id.0);
        }
        body.key(b"port").int(told.addr.port().into());
        body.end();
    }
    body.end();
}

/// The body that refuses an announce or a scrape.
pub fn failure(reason: &str) -> Vec<u8> {
    let mut body = Encoder::with_capacity(reason.len() + 32);
    body.dict_begin();
    body.key(b"failure reason").bytes(reason.as_bytes());
    body.end();
    body.finish()
}

/// The body of the answer to a scrape (BEP 48). The info hashes have to ascend.
pub fn scrape(files: &[(InfoHash, ScrapeAnswer)]) -> Vec<u8> {
    let mut body = Encoder::with_capacity(16 + SCRAPE_LEN * files.len());
    body.dict_begin();
    body.key(b"files").dict_begin();
    for (info_hash, counts) in files {
        body.key(&info_hash.0).dict_begin();
        body.key(b"complete").int(counts.complete.into());
        body.key(b"downloaded").int(counts.downloaded.into());
        body.key(b"downloaders").int(counts.downloaders.into());
        body.key(b"incomplete").int(counts.incomplete.into());
        body.end();
    }
    body.end();
    body.end();
    body.finish()
}

/// Room for all of an announce's answer but compact peers, bytes.
const BODY_LEN: usize = 160;
/// Room for a swarm of a scrape's answer, bytes.
const SCRAPE_LEN: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::announce::AnnounceReply;

    fn answer(peers: &Peers) -> AnnounceAnswer<'_> {
        AnnounceAnswer {
            interval: 300,
            complete: 1,
            incomplete: 2,
            external_ip: "10.0.0.9".parse().unwrap(),
            peers,
            warning: None,
        }
    }

    #[test]
    fn answers_have_all_that_clients_insist_on() {
        let id = b"-EV0100-abcdefghijkl";
        let peers = [
            ("1.2.3.4:258", Some(PeerId(*id))),
            ("[::5]:258", None),
            ("5.6.7.8:1", None),
        ];
        let peers = peers.map(|(addr, id)| (addr.parse().expect("an address"), id));
        type Peer = (SocketAddr, Option<PeerId>);
        #[rustfmt::skip]
        let cases: [(&[Peer], Form, &[u8]); 4] = [
            (&[], Form::Compact, b"5:peers0:"),
            (&peers, Form::Compact, b"5:peers12:\x01\x02\x03\x04\x01\x02\x05\x06\x07\x08\0\x01\
                6:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\x01\x02"),
            (&peers[..2], Form::Listed, b"5:peersl\
                d2:ip7:1.2.3.47:peer id20:-EV0100-abcdefghijkl4:porti258ee\
                d2:ip3:::54:porti258eee"),
            (&peers[..1], Form::ListedWithoutIds, b"5:peersld2:ip7:1.2.3.44:porti258eee"),
        ];
        let mut told = Peers::default();
        for (peers, form, expected) in cases {
            told.begin(form);
            for &(addr, id) in peers {
                told.push(addr, || id);
            }
            let body = answer(&told).encode();
            let front = b"d8:completei1e11:external ip4:\x0a\0\0\x0910:incompletei2e\
                8:intervali300e12:min intervali300e";
            let whole = [front, expected, b"e"].concat();
            assert_eq!(body, whole, "{}", body.escape_ascii());
            let read = AnnounceReply::decode(&body).expect("a reply");
            let mut addrs: Vec<_> = peers.iter().map(|peer| peer.0).collect();
            addrs.sort_by_key(|addr| addr.is_ipv6() && form == Form::Compact);
            assert_eq!(read.peers, addrs);
        }
    }

    #[test]
    fn external_ip_is_of_its_family() {
        let nobody = Peers::default();
        let answer = AnnounceAnswer {
            external_ip: "fd00::1".parse().unwrap(),
            ..answer(&nobody)
        };
        let body = answer.encode();
        let expected = b"11:external ip16:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";
        assert!(body.windows(expected.len()).any(|part| part == expected));
    }

    #[test]
    fn refusals_and_scrapes_are_bencoded() {
        assert_eq!(failure("no"), b"d14:failure reason2:noe");
        assert_eq!(scrape(&[]), b"d5:filesdee");
        let counts = ScrapeAnswer {
            complete: 1,
            downloaded: 2,
            downloaders: 3,
            incomplete: 4,
        };
        let files = [
            (InfoHash(*b"aaaaaaaaaaaaaaaaaaaa"), counts),
            (InfoHash(*b"bbbbbbbbbbbbbbbbbbbb"), ScrapeAnswer::default()),
        ];
        let expected = "d5:filesd20:aaaaaaaaaaaaaaaaaaaa\
            d8:completei1e10:downloadedi2e11:downloadersi3e10:incompletei4ee\
            20:bbbbbbbbbbbbbbbbbbbb\
            d8:completei0e10:downloadedi0e11:downloadersi0e10:incompletei0eeee";
        assert_eq!(String::from_utf8(scrape(&files)).unwrap(), expected);
    }
}
