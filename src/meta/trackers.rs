//! Tracker addresses as a torrent or magnet link names them: which are kept, and how they are
//! shown where a log may be read by others.

use std::net::Ipv6Addr;

use crate::base::limits::{TRACKER_URL_LEN_MAX, TRACKERS_MAX};

/// The address, if it is one that a tracker client may be given.
///
/// That is `http`, `https` or `udp` (which must name a port), a host, a port that exists, and
/// printable ASCII all through: internationalized hosts come as `xn--`.
pub fn accepted(url: &[u8]) -> Option<&str> {
    if url.len() > TRACKER_URL_LEN_MAX || !url.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let url = str::from_utf8(url).ok()?;
    let Parts { scheme, host, .. } = Parts::of(url)?;
    let port_is_optional = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => true,
        "udp" => false,
        _ => return None,
    };
    let (name, port) = split_port(host)?;
    let port_is_good = match port {
        Some(port) => is_number(port) && port.parse::<u16>().is_ok_and(|port| port != 0),
        None => port_is_optional,
    };
    (is_host(name) && port_is_good).then_some(url)
}

/// The address without what gives access: user and password, the query, and path segments that
/// look like a passkey (16 letters and digits or more).
pub fn redacted(url: &str) -> String {
    let Some(parts) = Parts::of(url) else {
        return "***".to_owned();
    };
    let Parts {
        scheme,
        user,
        host,
        path,
        query,
    } = parts;
    let user = if user.is_some() { "***@" } else { "" };
    let segments: Vec<_> = path.split('/').map(redacted_segment).collect();
    let path = segments.join("/");
    let query = if query.is_some() { "?***" } else { "" };
    format!("{scheme}://{user}{host}{path}{query}")
}

fn redacted_segment(segment: &str) -> &str {
    let is_key = segment.len() >= 16 && segment.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_key { "***" } else { segment }
}

/// The addresses of a torrent by tier (BEP 12), each once, and no more than we keep.
#[derive(Debug, Default)]
pub(super) struct Tiers {
    tiers: Vec<Vec<String>>,
}

impl Tiers {
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    pub(super) fn into_tiers(self) -> Vec<Vec<String>> {
        self.tiers
    }

    /// Adds the acceptable ones of `urls` as one tier; none if there are none.
    pub(super) fn add_tier<'a>(&mut self, urls: impl IntoIterator<Item = &'a [u8]>) {
        let mut tier: Vec<String> = Vec::new();
        for url in urls.into_iter().filter_map(accepted) {
            let kept: usize = self.tiers.iter().map(Vec::len).sum::<usize>() + tier.len();
            if kept >= TRACKERS_MAX {
                break;
            }
            if !self
                .tiers
                .iter()
                .flatten()
                .chain(&tier)
                .any(|known| known == url)
            {
                tier.push(url.to_owned());
            }
        }
        if !tier.is_empty() {
            self.tiers.push(tier);
        }
    }
}

/// `scheme://user@host/path?query`, where `host` may end in a port.
struct Parts<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(authority_len);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let (path, query) = match rest.split_once(['?', '#']) {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self {
            scheme,
            user,
            host,
            path,
            query,
        })
    }
}

/// Splits `host:port`; an IPv6 address is in brackets and keeps them.
pub(super) fn split_port(host: &str) -> Option<(&str, Option<&str>)> {
    if host.starts_with('[') {
        let end = host.find(']')? + 1;
        return match &host[end..] {
            "" => Some((host, None)),
            port => Some((&host[..end], Some(port.strip_prefix(':')?))),
        };
    }
    match host.split_once(':') {
        Some((name, port)) => Some((name, Some(port))),
        None => Some((host, None)),
    }
}

/// Whether `name` can be looked up, or is an address.
pub(super) fn is_host(name: &str) -> bool {
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=HOST_LEN_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Whether `text` is digits only; `parse` alone would let a sign through.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Longest name of a host, bytes (RFC 1035).
const HOST_LEN_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_trackers_are_accepted() {
        let cases = [
            ("http://host/announce", true),
            ("HTTP://host:6969/announce?key=1", true),
            ("https://user:pass@host/announce", true),
            ("udp://10.0.0.1:6969", true),
            ("http://[::1]:80/announce", true),
            ("http://xn--bcher-kva.example/announce", true),
            ("udp://host/announce", false),
            ("http://host:0/announce", false),
            ("http://host:70000/announce", false),
            ("http://host:+80/announce", false),
            ("http://host:/announce", false),
            ("http://[::1/announce", false),
            ("http://::1/announce", false),
            ("http:///announce", false),
            ("http://bücher.example/announce", false),
            ("http://host/a b", false),
            ("http://host/\r\nX: y", false),
            ("file:///etc/passwd", false),
            ("gopher://host/", false),
            ("host/announce", false),
            ("", false),
        ];
        for (url, expected) in cases {
            assert_eq!(accepted(url.as_bytes()).is_some(), expected, "{url}");
        }
        let long = format!("http://host/{}", "a".repeat(TRACKER_URL_LEN_MAX));
        assert_eq!(
            accepted(&long.as_bytes()[..TRACKER_URL_LEN_MAX]).map(str::len),
            Some(2048)
        );
        assert_eq!(accepted(long.as_bytes()), None);
    }

    #[test]
    fn what_gives_access_is_not_shown() {
        let cases = [
            ("http://host:80/announce", "http://host:80/announce"),
            ("http://me:secret@host/announce", "http://***@host/announce"),
            ("http://a@b@host/announce", "http://***@host/announce"),
            (
                "http://host/announce?passkey=s3cret",
                "http://host/announce?***",
            ),
            (
                "http://host/0123456789abcdef/announce",
                "http://host/***/announce",
            ),
            ("me:secret@host", "***"),
        ];
        for (url, shown) in cases {
            assert_eq!(redacted(url), shown);
        }
    }
}
