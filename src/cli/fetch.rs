//! A .torrent from the web: one GET, before anything else begins, so it may wait.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use super::error::CliError;
use super::output::printable;
use crate::base::id::InfoHash;
use crate::base::limits;
use crate::engine::HostPort;
use crate::meta::metainfo::Metainfo;
use crate::reactor;
use crate::wire::http::{HttpError, Response, ResponseReader};
use crate::wire::url::{TrackerUrl, TrackerUrlError};

/// What an address gave.
#[derive(Debug)]
pub struct Fetched {
    /// The torrent.
    pub meta: Metainfo,
    /// Who handed it out, if that is a peer of the torrent by the form of the address.
    pub peer: Option<HostPort>,
}

/// Fetches the .torrent at `url`, from the address `bind` if one is given.
///
/// A host that refuses the connection may be starting; it is asked again for a while. Where the
/// address names an info hash, as a peer's does, the torrent must have it.
///
/// # Errors
/// [`CliError::NotFetched`] with what went wrong and what to do.
pub fn fetch(url: &str, bind: Option<IpAddr>) -> Result<Fetched, CliError> {
    let fault = |fault: Fault| fault.of(url);
    let first = TrackerUrl::parse(url).map_err(|e| fault(e.into()))?;
    let give_up = Instant::now() + TOTAL_TIME;
    let mut asked = first.clone();
    for _ in 0..=limits::TRACKER_REDIRECTS_MAX {
        log::info!("fetching url={asked}");
        let response = get(&asked, bind, give_up).map_err(fault)?;
        if response.is_redirect() {
            let target = response.location.unwrap_or_default();
            asked = asked.redirected(&target).map_err(|e| fault(e.into()))?;
            continue;
        }
        if response.status != 200 {
            return Err(fault(Fault::status(response.status)));
        }
        let meta = Metainfo::from_bytes(&response.body).map_err(|e| {
            fault(Fault::new(
                format!("what it sends is no usable .torrent: {e}"),
                "check the address",
            ))
        })?;
        let Some(expected) = named_hash(url) else {
            return Ok(Fetched { meta, peer: None });
        };
        if meta.info_hash != expected {
            let why = format!("what it sends is another torrent, {}", meta.info_hash);
            let remedy = "ask whoever gave you the address; something may have been put in between";
            return Err(fault(Fault::new(why, remedy)));
        }
        let peer = HostPort {
            host: first.host().to_owned(),
            port: first.port(),
        };
        let peer = Some(peer);
        return Ok(Fetched { meta, peer });
    }
    Err(fault(Fault::new(
        "it leads from one place to the next without end".into(),
        "name the address where the .torrent lies",
    )))
}

/// The info hash in the path `/torrents/<infohash>.torrent`, which is a peer's own.
fn named_hash(url: &str) -> Option<InfoHash> {
    let path = url.split(['?', '#']).next()?;
    let (_, name) = path.rsplit_once("/torrents/")?;
    name.strip_suffix(".torrent")?.parse().ok()
}

/// One question and its answer.
fn get(url: &TrackerUrl, bind: Option<IpAddr>, give_up: Instant) -> Result<Response, Fault> {
    let mut stream = connect(url, bind, give_up)?;
    let broken = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Fault::new(
            format!("it did not answer whole within {} s", TOTAL_TIME.as_secs()),
            "try again, or fetch it with another program and name it with -t FILE",
        ),
        _ => Fault::new(format!("the connection broke: {e}"), "try again"),
    };
    stream.write_all(&url.to_request()).map_err(broken)?;
    let mut reader = ResponseReader::with_body_max(limits::TORRENT_FILE_LEN_MAX as usize);
    let mut buffer = vec![0; READ_LEN];
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1)); // no time at all means for ever
        stream.set_read_timeout(Some(left)).map_err(broken)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(reader.end_of_stream()?),
            Ok(n) => {
                if let Some(response) = reader.received(&buffer[..n])? {
                    return Ok(response);
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(broken(e)),
        }
    }
}

/// A stream to the first address of the host that takes one.
fn connect(url: &TrackerUrl, bind: Option<IpAddr>, give_up: Instant) -> Result<TcpStream, Fault> {
    let addresses: Vec<SocketAddr> = (url.host(), url.port())
        .to_socket_addrs()
        .map_err(|e| {
            Fault::new(
                format!("the name '{}' is not known: {e}", printable(url.host())),
                "check it, or write the host's IP address",
            )
        })?
        .collect();
    let refused_until = give_up.min(Instant::now() + STARTING_TIME);
    loop {
        let mut last = None;
        for &address in &addresses {
            let left = give_up.saturating_duration_since(Instant::now());
            let timeout = limits::CONNECT_TIMEOUT.min(left).max(READY_TIME);
            match reactor::dial(address, bind, timeout) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Some((address, e)),
            }
        }
        let Some((address, error)) = last else {
            let why = format!("the name '{}' has no address", printable(url.host()));
            return Err(Fault::new(why, "write the host's IP address"));
        };
        if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < refused_until {
            log::debug!("refused, tried again soon address={address}");
            thread::sleep(RETRY_INTERVAL);
            continue;
        }
        return Err(unreachable(address, &error));
    }
}

fn unreachable(address: SocketAddr, error: &std::io::Error) -> Fault {
    match error.kind() {
        ErrorKind::ConnectionRefused => Fault::new(
            format!("nothing listens at {address}"),
            "start evpeer there, or check address and port",
        ),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Fault::new(
            format!("{address} does not answer"),
            "check the address, and whether a firewall there lets connections to that port in",
        ),
        _ => Fault::new(
            format!("cannot connect to {address}: {error}"),
            "check the address and the network",
        ),
    }
}

/// What is wrong, and what to do about it.
#[derive(Debug)]
struct Fault {
    why: String,
    remedy: &'static str,
}

impl Fault {
    fn new(why: String, remedy: &'static str) -> Self {
        Self { why, remedy }
    }

    fn status(status: u16) -> Self {
        let remedy = match status {
            404 => "check the address: perhaps that host shares something else by now",
            _ => "check the address",
        };
        Self::new(format!("the host answers with status {status}"), remedy)
    }

    fn of(self, url: &str) -> CliError {
        CliError::NotFetched {
            url: url.to_owned(),
            why: self.why,
            remedy: self.remedy,
        }
    }
}

impl From<HttpError> for Fault {
    fn from(error: HttpError) -> Self {
        let remedy = match error {
            HttpError::BodyTooLong { .. } => "check that it is a .torrent, and not the data",
            _ => "check that a peer or a web server listens there",
        };
        Self::new(error.to_string(), remedy)
    }
}

impl From<TrackerUrlError> for Fault {
    fn from(error: TrackerUrlError) -> Self {
        match error {
            TrackerUrlError::Tls => Self::new(
                "TLS is not built in".into(),
                "fetch the .torrent with another program and name it with -t FILE",
            ),
            TrackerUrlError::TooLong { .. }
            | TrackerUrlError::RedirectScheme
            | TrackerUrlError::NoPort
            | TrackerUrlError::UnknownScheme
            | TrackerUrlError::BadHost
            | TrackerUrlError::BadPort
            | TrackerUrlError::BadCharacter => Self::new(
                "this is no usable address".into(),
                "write it like http://10.0.0.1:6881/torrents/INFOHASH.torrent",
            ),
        }
    }
}

/// Time for all of it.
const TOTAL_TIME: Duration = Duration::from_secs(60);
/// How long a host that refuses may take to start.
const STARTING_TIME: Duration = Duration::from_secs(10);
/// Between two attempts at such a host.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Time for a connection at least, also at the very end.
const READY_TIME: Duration = Duration::from_millis(10);
/// Bytes that are read at once.
const READ_LEN: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_hash_of_a_peers_address_is_found() {
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        let cases = [
            (format!("http://h:1/torrents/{hash}.torrent"), true),
            (format!("http://h:1/torrents/{hash}.torrent?x=y"), true),
            (format!("http://[::1]:1/p/torrents/{hash}.torrent#z"), true),
            (format!("http://h:1/{hash}.torrent"), false),
            (format!("http://h:1/torrents/{}.torrent", &hash[1..]), false),
            ("http://h:1/torrents/x.torrent".into(), false),
            ("http://h:1/".into(), false),
        ];
        for (url, is_named) in cases {
            let expected = is_named.then(|| hash.parse().expect("a hash"));
            assert_eq!(named_hash(&url), expected, "{url}");
        }
    }
}
