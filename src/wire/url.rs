//! Addresses of trackers, and the GET request that asks one over HTTP.

use std::fmt;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::base::limits::TRACKER_URL_LEN_MAX;

/// The address of a tracker that is asked over plain HTTP or over UDP.
///
/// Every part is safe to be put into a request: visible ASCII without spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerUrl {
    scheme: Scheme,
    /// Name or address; IPv6 without brackets.
    host: String,
    port: u16,
    /// Path and query; begins with `/`.
    target: String,
    /// `user:password`, percent-decoded.
    credentials: Option<Vec<u8>>,
}

/// How a tracker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// By a GET request (BEP 3).
    Http,
    /// By datagrams (BEP 15).
    Udp,
}

/// Why a tracker cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackerUrlError {
    /// Longer than any address of use.
    #[error("tracker address of {len} B, limit {TRACKER_URL_LEN_MAX} B")]
    TooLong {
        /// Bytes that it has.
        len: usize,
    },
    /// `https://`.
    #[error("TLS is not built in; use the tracker's http:// address")]
    Tls,
    /// No scheme, or none that leads to a tracker.
    #[error("a tracker address begins with http:// or udp://")]
    UnknownScheme,
    /// An answer over HTTP that leads elsewhere than to HTTP.
    #[error("a redirect leads to an http:// address only")]
    RedirectScheme,
    /// `udp://` without a port: there is none that it could mean.
    #[error("the address of a UDP tracker names a port")]
    NoPort,
    /// No host, or one with characters that no name or address has.
    #[error("the tracker's host is missing or malformed (other scripts: use the xn-- form)")]
    BadHost,
    /// A port that is no number from 1 to 65535.
    #[error("the tracker's port is not a number from 1 to 65535")]
    BadPort,
    /// A space or a control in the path or query.
    #[error("the tracker's address contains a space or control character")]
    BadCharacter,
}

impl TrackerUrl {
    /// Reads an address as it stands in a .torrent file, a magnet link or a `Location` field.
    ///
    /// # Errors
    /// If it is no `http://` or `udp://` address; the message says what to do instead.
    pub fn parse(text: &str) -> Result<Self, TrackerUrlError> {
        let text = text.trim();
        if text.len() > TRACKER_URL_LEN_MAX {
            return Err(TrackerUrlError::TooLong { len: text.len() });
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(TrackerUrlError::UnknownScheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "udp" => Scheme::Udp,
            "https" => return Err(TrackerUrlError::Tls),
            _ => return Err(TrackerUrlError::UnknownScheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (userinfo, host_port) = match authority.rsplit_once('@') {
            Some((userinfo, host_port)) => (Some(userinfo), host_port),
            None => (None, authority),
        };
        let (host, port) = parse_host_port(host_port)?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme::Http) => HTTP_PORT,
            (None, Scheme::Udp) => return Err(TrackerUrlError::NoPort),
        };
        Ok(Self {
            scheme,
            host,
            port,
            target: parse_target(target)?,
            credentials: userinfo.map(percent_decode),
        })
    }

    /// The tracker that an evpeer at `addr` is. A link-local IPv6 address has none: its scope
    /// cannot be written in an address.
    pub fn of_evpeer(addr: SocketAddr) -> Option<Self> {
        let is_scoped = matches!(addr, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
        (addr.port() != 0 && !is_scoped).then(|| Self {
            scheme: Scheme::Http,
            host: addr.ip().to_string(),
            port: addr.port(),
            target: ANNOUNCE_PATH.to_owned(),
            credentials: None,
        })
    }

    /// How it is asked.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or address of the tracker's host; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 if none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the path is `/announce`: the only one that programs on our own machine are asked
    /// for at a stranger's word.
    pub fn has_announce_path(&self) -> bool {
        self.path() == ANNOUNCE_PATH
    }

    /// What a UDP tracker is to be told of path and query (BEP 41): nothing if they say nothing.
    pub fn url_data(&self) -> &str {
        match &*self.target {
            "/" | ANNOUNCE_PATH => "",
            target => target,
        }
    }

    /// This address with `query` after what it asks already.
    ///
    /// # Panics
    /// If `query` has a character that is not allowed there: it is ours, and encoded.
    pub fn with_query(&self, query: &str) -> Self {
        assert!(
            query.bytes().all(|byte| byte.is_ascii_graphic()),
            "query {query:?}"
        );
        let mut asked = self.clone();
        if !asked.target.ends_with(['?', '&']) {
            asked
                .target
                .push(if asked.target.contains('?') { '&' } else { '?' });
        }
        asked.target.push_str(query);
        asked
    }

    /// The address that a `Location` field means in an answer from this one.
    ///
    /// Credentials go along only where the host stays what it is by the form of `location`.
    ///
    /// # Errors
    /// As [`TrackerUrl::parse`].
    pub fn redirected(&self, location: &str) -> Result<Self, TrackerUrlError> {
        let location = location.trim();
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("http://{rest}"));
        }
        let path = self.path();
        let target = match location.bytes().next() {
            Some(b'/') => location.to_owned(),
            Some(b'?') => format!("{path}{location}"),
            None | Some(b'#') => self.target.clone(),
            // A colon before any slash ends a scheme; every scheme but http is refused.
            Some(_) if has_scheme(location) => {
                let to = Self::parse(location)?;
                let is_http = to.scheme == Scheme::Http;
                return is_http.then_some(to).ok_or(TrackerUrlError::RedirectScheme);
            }
            Some(_) => {
                let folder_end = path.rfind('/').map_or(0, |slash| slash + 1);
                format!("{}{location}", &path[..folder_end])
            }
        };
        if target.len() > TRACKER_URL_LEN_MAX {
            return Err(TrackerUrlError::TooLong { len: target.len() });
        }
        Ok(Self {
            target: parse_target(&target)?,
            ..self.clone()
        })
    }

    /// The bytes of a GET request that asks for plain bytes, and for the stream to be closed.
    ///
    /// # Panics
    /// If the tracker is not asked over HTTP.
    pub fn to_request(&self) -> Vec<u8> {
        assert_eq!(self.scheme, Scheme::Http, "{self} takes no request");
        let mut head = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n",
            self.target,
            self.host_field()
        );
        if let Some(credentials) = &self.credentials {
            write!(head, "Authorization: Basic {}\r\n", base64(credentials))
                .expect("a String takes all");
        }
        head.push_str(concat!(
            "User-Agent: evpeer/",
            env!("CARGO_PKG_VERSION"),
            "\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        ));
        head.into_bytes()
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or(&self.target)
    }

    /// Host and port as in `Host:` (RFC 9110, section 7.2).
    fn host_field(&self) -> String {
        let bracketed = self.host.contains(':');
        let host = if bracketed {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.scheme, self.port) {
            (Scheme::Http, HTTP_PORT) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// Shows neither credentials, nor the values of a query, nor parts of the path that look like
/// the keys by which private trackers know their users.
impl fmt::Display for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.credentials.as_ref().map_or("", |_| "***@");
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Udp => "udp",
        };
        write!(f, "{scheme}://{credentials}{}", self.host_field())?;
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, "?***"),
            None => (&*self.target, ""),
        };
        for part in path.split('/').skip(1) {
            let is_secret = part.len() >= SECRET_LEN_MIN;
            write!(f, "/{}", if is_secret { "***" } else { part })?;
        }
        f.write_str(query)
    }
}

impl fmt::Debug for TrackerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrackerUrl({self})")
    }
}

/// Writes `bytes` as a query's value: all but letters, digits and `-._~` as `%XX` (RFC 3986).
pub fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => write!(text, "%{byte:02X}").expect("a String takes all"),
        }
    }
    text
}

fn parse_host_port(text: &str) -> Result<(String, Option<u16>), TrackerUrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']').ok_or(TrackerUrlError::BadHost)?;
            let ip: Ipv6Addr = ip.parse().map_err(|_| TrackerUrlError::BadHost)?;
            (IpAddr::from(ip).to_string(), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at(end);
            (parse_name(name)?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|&port| port != 0);
            Some(port.ok_or(TrackerUrlError::BadPort)?)
        }
        _ => return Err(TrackerUrlError::BadPort),
    };
    Ok((host, port))
}

/// A host name or IPv4 address in the letters that the name system has.
fn parse_name(name: &str) -> Result<String, TrackerUrlError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.bytes().all(fits) {
        return Err(TrackerUrlError::BadHost);
    }
    Ok(name.to_ascii_lowercase())
}

/// Path and query without fragment; other scripts are percent-encoded, as browsers do.
fn parse_target(text: &str) -> Result<String, TrackerUrlError> {
    let text = text.split('#').next().unwrap_or(text);
    let mut target = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        target.push('/');
    }
    for c in text.chars() {
        match c {
            '!'..='~' => target.push(c),
            '\0'..=' ' | '\x7f' => return Err(TrackerUrlError::BadCharacter),
            _ => target.push_str(&percent_encode(c.encode_utf8(&mut [0; 4]).as_bytes())),
        }
    }
    Ok(target)
}

fn has_scheme(location: &str) -> bool {
    let end = location.find(['/', '?', '#']).unwrap_or(location.len());
    location[..end].contains(':')
}

/// Undoes percent-encoding; a `%` without two hex digits stands for itself.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(*group.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= group.len() {
                true => text.push(char::from(
                    ALPHABET[(bits >> (18 - 6 * place) & 63) as usize],
                )),
                false => text.push('='),
            }
        }
    }
    text
}

/// The port of an `http://` address that names none.
const HTTP_PORT: u16 = 80;
/// Where a tracker is asked (wire-facts: the one path that is asked on this machine).
const ANNOUNCE_PATH: &str = "/announce";
/// Longest name in the name system, bytes (RFC 1035, section 2.3.4, without the root's dot).
const NAME_LEN_MAX: usize = 253;
/// Bytes from which a part of a path may be a user's key; shorter ones can be guessed anyway.
const SECRET_LEN_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn addresses_are_taken_apart() {
        let cases = [
            // text, host, port, request target
            (
                "http://tracker.example/announce",
                "tracker.example",
                80,
                "/announce",
            ),
            (
                "HTTP://Tracker.Example:6969/announce",
                "tracker.example",
                6969,
                "/announce",
            ),
            ("http://10.0.0.1:8080", "10.0.0.1", 8080, "/"),
            ("http://[fd00::1]:80/a?b=c&d", "fd00::1", 80, "/a?b=c&d"),
            ("http://[::1]/a", "::1", 80, "/a"),
            ("http://t:/a", "t", 80, "/a"),
            ("http://t?k=1", "t", 80, "/?k=1"),
            ("http://t/a#part", "t", 80, "/a"),
            ("  http://t/a\n", "t", 80, "/a"),
            ("http://t/grün", "t", 80, "/gr%C3%BCn"),
            ("http://t/%zz//x", "t", 80, "/%zz//x"),
        ];
        for (text, host, port, target) in cases {
            let url = TrackerUrl::parse(text).expect(text);
            assert_eq!(
                (url.host(), url.port(), &*url.target),
                (host, port, target),
                "{text}"
            );
        }
    }

    /// Row 28 of the hostile inputs.
    #[test]
    fn what_cannot_be_asked_is_refused_with_its_reason() {
        use TrackerUrlError as E;
        let long = format!("http://t/{}", "x".repeat(1 << 20));
        let name = format!("http://{}/", "x".repeat(254));
        let cases = [
            ("https://t/announce", E::Tls),
            ("udp://t/announce", E::NoPort),
            ("udp://t:/announce", E::NoPort),
            ("udp://t:0", E::BadPort),
            ("udp://", E::BadHost),
            ("file:///etc/passwd", E::UnknownScheme),
            ("gopher://t/", E::UnknownScheme),
            ("t/announce", E::UnknownScheme),
            ("", E::UnknownScheme),
            ("http://", E::BadHost),
            ("http:///announce", E::BadHost),
            ("http://:80/", E::BadHost),
            ("http://a b/", E::BadHost),
            ("http://a\r\nX: y/", E::BadHost),
            ("http://münchen.example/", E::BadHost),
            ("http://[::1/", E::BadHost),
            ("http://[fe80::1%eth0]/", E::BadHost),
            ("http://[127.0.0.1]/", E::BadHost),
            ("http://::1/", E::BadHost),
            (&name, E::BadHost),
            ("http://t:0/", E::BadPort),
            ("http://t:70000/", E::BadPort),
            ("http://t:+80/", E::BadPort),
            ("http://[::1]80/", E::BadPort),
            ("http://t/a b", E::BadCharacter),
            ("http://t/a\r\nX: y", E::BadCharacter),
            ("http://t/a?\0", E::BadCharacter),
            (&long, E::TooLong { len: long.len() }),
        ];
        for (text, error) in cases {
            assert_eq!(TrackerUrl::parse(text), Err(error), "{text:.60}");
        }
    }

    #[test]
    fn request_asks_for_plain_bytes_and_a_closed_stream() {
        let url = TrackerUrl::parse("http://[::1]:81/announce?k=1").expect("an address");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "GET /announce?k=1&port=1 HTTP/1.1\r\nHost: [::1]:81\r\n\
             User-Agent: evpeer/{version}\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        );
        let request = url.with_query("port=1").to_request();
        assert_eq!(String::from_utf8(request), Ok(expected));
        let cases = [
            ("http://t/a", "/a?x"),
            ("http://t/a?", "/a?x"),
            ("http://t/a?b&", "/a?b&x"),
        ];
        for (text, target) in cases {
            let url = TrackerUrl::parse(text).expect(text);
            assert_eq!(url.with_query("x").target, target, "{text}");
        }
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let text = "http://Aladdin:open%20sesame@t:80/0123456789abcdef/announce?passkey=secret";
        let url = TrackerUrl::parse(text).expect("an address");
        // RFC 7617, section 2.
        let request = String::from_utf8(url.to_request()).expect("ASCII");
        assert!(request.contains("\r\nAuthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
        assert!(request.starts_with("GET /0123456789abcdef/announce?passkey=secret HTTP"));
        assert_eq!(url.to_string(), "http://***@t/***/announce?***");
        assert_eq!(
            format!("{url:?}"),
            "TrackerUrl(http://***@t/***/announce?***)"
        );
    }

    /// RFC 4648, section 10.
    #[test]
    fn base64_gives_the_examples_of_its_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (text, expected) in cases {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn redirects_lead_where_the_location_says() {
        let url = TrackerUrl::parse("http://u:p@t:81/a/announce?x=1").expect("an address");
        let cases = [
            // location, host, port, target, whether credentials go along
            ("/b?y", "t", 81, "/b?y", true),
            ("b", "t", 81, "/a/b", true),
            ("?y", "t", 81, "/a/announce?y", true),
            ("", "t", 81, "/a/announce?x=1", true),
            ("b?u=http://v", "t", 81, "/a/b?u=http://v", true),
            ("//v/c", "v", 80, "/c", false),
            ("http://v:82/c?z", "v", 82, "/c?z", false),
        ];
        for (location, host, port, target, kept) in cases {
            let to = url.redirected(location).expect(location);
            assert_eq!(
                (to.host(), to.port(), &*to.target),
                (host, port, target),
                "{location}"
            );
            assert_eq!(to.credentials.is_some(), kept, "{location}");
        }
        // Row 79 of the hostile inputs.
        let cases = [
            ("file:///etc/passwd", TrackerUrlError::UnknownScheme),
            ("file:x", TrackerUrlError::UnknownScheme),
            ("https://t/a", TrackerUrlError::Tls),
            ("udp://t:1/a", TrackerUrlError::RedirectScheme),
            ("/a\r\nX: y", TrackerUrlError::BadCharacter),
        ];
        for (location, error) in cases {
            assert_eq!(url.redirected(location), Err(error), "{location}");
        }
    }

    #[test]
    fn udp_tracker_has_a_port_and_perhaps_something_to_be_told() {
        let cases = [
            // text, port, shown, told
            ("udp://t:6969", 6969, "udp://t:6969/", ""),
            ("UDP://T:80/", 80, "udp://t:80/", ""),
            ("udp://t:1/announce", 1, "udp://t:1/announce", ""),
            ("udp://[::1]:1/x?k=1", 1, "udp://[::1]:1/x?***", "/x?k=1"),
            ("udp://u:p@t:1?k", 1, "udp://***@t:1/?***", "/?k"),
        ];
        for (text, port, shown, told) in cases {
            let url = TrackerUrl::parse(text).expect(text);
            assert_eq!((url.scheme(), url.port()), (Scheme::Udp, port), "{text}");
            assert_eq!((&*url.to_string(), url.url_data()), (shown, told), "{text}");
        }
    }

    #[test]
    fn evpeer_is_asked_at_its_peer_port() {
        let cases = [
            ("10.0.0.1:6881", Some("http://10.0.0.1:6881/announce")),
            ("[fd00::1]:80", Some("http://[fd00::1]/announce")),
            ("[fe80::1%2]:6881", None),
            ("10.0.0.1:0", None),
        ];
        for (addr, expected) in cases {
            let url = TrackerUrl::of_evpeer(addr.parse().expect(addr));
            assert_eq!(url.as_ref().map(TrackerUrl::to_string).as_deref(), expected);
            if let (Some(url), Some(text)) = (url, expected) {
                assert_eq!(TrackerUrl::parse(text), Ok(url.clone()));
            }
        }
    }

    #[test]
    fn path_is_compared_as_it_stands() {
        let cases = [
            ("http://t/announce", true),
            ("http://t/announce?k=1", true),
            ("http://t/Announce", false),
            ("http://t/announce/x", false),
            ("http://t/x/announce", false),
            ("http://t/announce.php", false),
            ("http://t/%61nnounce", false),
            ("http://t?/announce", false),
        ];
        for (text, expected) in cases {
            let url = TrackerUrl::parse(text).expect(text);
            assert_eq!(url.has_announce_path(), expected, "{text}");
        }
    }

    #[test]
    fn raw_bytes_are_encoded_and_come_back() {
        assert_eq!(
            percent_encode(b"\x00\xffaZ09-._~ %+"),
            "%00%FFaZ09-._~%20%25%2B"
        );
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(percent_decode(&percent_encode(&all)), all);
        assert_eq!(percent_decode("%zz%4"), b"%zz%4");
    }

    /// Whatever is accepted makes a request of one line and whole fields.
    #[test]
    fn random_addresses_never_break_a_request() {
        let mut rng = Rng::new(3986);
        let pieces = [
            "http://", "t", ":80", "/", "?", "@", "[::1]", "\r\n", " ", "ü", "%", "#", "\0",
        ];
        for _ in 0..20_000 {
            let mut text = "http://".to_owned();
            for _ in 0..rng.below(8) {
                text.push_str(pieces[rng.below(pieces.len() as u32) as usize]);
            }
            let Ok(url) = TrackerUrl::parse(&text) else {
                continue;
            };
            let request = String::from_utf8(url.to_request()).expect("ASCII");
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut head = httparse::Request::new(&mut fields);
            let status = head.parse(request.as_bytes()).expect("a request");
            assert_eq!(
                status,
                httparse::Status::Complete(request.len()),
                "{text:?}"
            );
            let expected = 4 + usize::from(url.credentials.is_some());
            assert_eq!(head.headers.len(), expected, "{text:?}");
        }
    }
}
