//! Which addresses a tracker's name may stand for: a torrent is a stranger's word, and shall not
//! make us ask programs that only we can reach.
//!
//! Checked for every answer of the resolver, and it is those very addresses that are asked: a
//! name that means another host a moment later changes nothing.

use std::net::IpAddr;

use crate::base::address::{Scope, scope};
use crate::wire::url::{Scheme, TrackerUrl};

/// Who gave an address of a tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The torrent, the user, or a redirect within the site.
    Given,
    /// A redirect by a tracker outside of the site.
    Outside,
}

/// Why an address is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No host has it.
    #[error("{0} is the address of no host")]
    Nowhere(IpAddr),
    /// A program on this machine, and no tracker by the look of it.
    #[error("on this machine ({0}) only a tracker with the path /announce is asked")]
    Loopback(IpAddr),
    /// Inside, though the word came from outside.
    #[error("a tracker outside of this site redirects into it ({0})")]
    RedirectInside(IpAddr),
}

/// Whether the tracker `url` may be asked at `ip`.
///
/// # Errors
/// Why not.
pub fn check(url: &TrackerUrl, ip: IpAddr, origin: Origin) -> Result<(), Forbidden> {
    let scope = scope(ip);
    match (scope, origin) {
        (Scope::Nowhere, _) => Err(Forbidden::Nowhere(ip)),
        (Scope::Loopback | Scope::LinkLocal | Scope::Site, Origin::Outside) => {
            Err(Forbidden::RedirectInside(ip))
        }
        // A UDP tracker gets nothing of the address before it has answered as one.
        (Scope::Loopback, Origin::Given)
            if url.scheme() == Scheme::Http && !url.has_announce_path() =>
        {
            Err(Forbidden::Loopback(ip))
        }
        (Scope::Loopback | Scope::LinkLocal | Scope::Site | Scope::Global, _) => Ok(()),
    }
}

/// Who gives the next address, if a tracker at `ip` redirects.
pub fn origin_of_redirect(ip: IpAddr, before: Origin) -> Origin {
    match scope(ip) {
        Scope::Nowhere | Scope::Global => Origin::Outside,
        Scope::Loopback | Scope::LinkLocal | Scope::Site => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_reach_what_only_we_reach() {
        use Origin::{Given, Outside};
        #[rustfmt::skip]
        let cases = [
            // url                       asked at            by       may
            ("http://t/announce",        "127.0.0.1",        Given,   true),
            ("http://t/announce?k=1",    "::1",              Given,   true),
            ("http://t/announce",        "::ffff:127.0.0.1", Given,   true),
            ("http://t/json",            "127.0.0.1",        Given,   false),
            ("http://t/json",            "127.8.8.8",        Given,   false),
            ("http://t/json",            "::1",              Given,   false),
            ("http://t/json",            "::ffff:127.0.0.1", Given,   false),
            ("udp://t:1/json",           "127.0.0.1",        Given,   true),
            ("http://t/a.php",           "10.0.0.1",         Given,   true),
            ("http://t/a.php",           "192.168.0.1",      Given,   true),
            ("http://t/a.php",           "fd00::1",          Given,   true),
            ("http://t/a.php",           "93.184.215.14",    Given,   true),
            ("http://t/announce",        "0.0.0.0",          Given,   false),
            ("http://t/announce",        "::",               Given,   false),
            ("udp://t:1/announce",       "224.0.0.1",        Given,   false),
            ("http://t/announce",        "255.255.255.255",  Given,   false),
            ("http://t/announce",        "127.0.0.1",        Outside, false),
            ("http://t/announce",        "10.0.0.1",         Outside, false),
            ("http://t/announce",        "169.254.169.254",  Outside, false),
            ("http://t/announce",        "fe80::1",          Outside, false),
            ("http://t/announce",        "93.184.215.14",    Outside, true),
        ];
        for (url, ip, origin, may) in cases {
            let url = TrackerUrl::parse(url).expect(url);
            let checked = check(&url, ip.parse().expect(ip), origin);
            assert_eq!(checked.is_ok(), may, "{url} at {ip}: {checked:?}");
        }
    }

    #[test]
    fn who_was_sent_by_a_stranger_stays_so() {
        use Origin::{Given, Outside};
        let cases = [
            ("10.0.0.1", Given, Given),
            ("127.0.0.1", Given, Given),
            ("93.184.215.14", Given, Outside),
            ("10.0.0.1", Outside, Outside),
        ];
        for (ip, before, after) in cases {
            let origin = origin_of_redirect(ip.parse().expect(ip), before);
            assert_eq!(origin, after, "{ip}");
        }
    }
}
