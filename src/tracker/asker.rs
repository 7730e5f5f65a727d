//! Who asks our tracker, from where, and what addresses he can use.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::broadcast::Broadcast;
use crate::base::address::{Interfaces, Scope, may_be_told, scope};

/// The sender of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Where the request came from.
    pub remote: SocketAddr,
    /// Which of our addresses it came to, if the system says so.
    pub local: Option<IpAddr>,
    /// The interfaces of this machine.
    pub interfaces: &'a Interfaces,
    /// Our links: the swarms of those at the other ends are tracked too.
    pub links: Option<&'a Broadcast>,
}

/// How far away a host is. On-link is not the internet: limits differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// This machine.
    ThisHost,
    /// A host on a link of ours.
    OnLink,
    /// Somebody behind a router.
    OffLink,
}

impl Nearness {
    /// How far away `ip` is.
    pub fn of(ip: IpAddr, interfaces: &Interfaces) -> Self {
        if interfaces.is_ours(ip) {
            Self::ThisHost
        } else if interfaces.is_on_link(ip) {
            Self::OnLink
        } else {
            Self::OffLink
        }
    }
}

impl Asker<'_> {
    /// Its address; an IPv4 address in IPv6 form is what it stands for.
    pub fn ip(&self) -> IpAddr {
        self.remote.ip().to_canonical()
    }

    /// How far away it is.
    pub fn nearness(&self) -> Nearness {
        Nearness::of(self.remote.ip(), self.interfaces)
    }

    /// Where to list it, if it accepts peers on `port`: at the address that it has, whatever it
    /// says. Only a program on this machine may choose another, and only of this machine.
    pub fn listed_at(&self, claimed: &[Option<IpAddr>], port: u16) -> SocketAddr {
        let is_usable = |claimed: &&IpAddr| {
            self.interfaces.is_ours(**claimed) && scope(**claimed) >= Scope::Site
        };
        if self.interfaces.is_ours(self.ip())
            && let Some(own) = claimed.iter().flatten().find(is_usable)
        {
            return SocketAddr::new(own.to_canonical(), port);
        }
        match (self.ip(), self.remote) {
            // A link-local address is of no use without its scope.
            (IpAddr::V6(ip), SocketAddr::V6(remote)) => {
                SocketAddrV6::new(ip, port, 0, remote.scope_id()).into()
            }
            (ip, _) => SocketAddr::new(ip, port),
        }
    }

    /// What it may be told.
    pub fn ears(&self) -> Ears {
        let local = self.local.map(|ip| ip.to_canonical());
        let by_link = || {
            let mut all = self.interfaces.iter();
            all.find(|own| own.has_on_link(self.ip())).map(|own| own.ip)
        };
        let this_host = match local.filter(|ip| !ip.is_unspecified()) {
            Some(ip) => Some(ip),
            None if self.interfaces.is_ours(self.ip()) => Some(self.ip()),
            None => by_link(),
        };
        Ears {
            ip: self.ip(),
            scope: scope(self.ip()),
            this_host,
        }
    }
}

/// What addresses an asker can use.
#[derive(Clone, Copy, Debug)]
pub struct Ears {
    ip: IpAddr,
    scope: Scope,
    /// Under which address it knows this machine.
    this_host: Option<IpAddr>,
}

impl Ears {
    /// The asker's address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether the asker came by IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    /// `addr`, which reaches as far as `reach` says, as the asker can use it, if it can.
    ///
    /// What runs on this machine and is known by the loopback address, or by none because it is
    /// we, has for others the address of the interface that they came in on.
    pub fn told(&self, addr: SocketAddr, reach: Scope) -> Option<SocketAddr> {
        let ip = addr.ip();
        match reach {
            Scope::Site | Scope::Global => return Some(addr).filter(|addr| addr.port() != 0),
            Scope::Loopback if self.scope == Scope::Loopback && addr.port() != 0 => {
                return Some(addr);
            }
            Scope::Nowhere | Scope::Loopback | Scope::LinkLocal => {}
        }
        let is_known_by_loopback = ip.is_unspecified() || is_localhost(ip);
        let told = match self.this_host {
            Some(own) if is_known_by_loopback && own.is_ipv4() == ip.is_ipv4() => {
                SocketAddr::new(own, addr.port())
            }
            _ => addr,
        };
        may_be_told(told, self.ip).then_some(told)
    }
}

/// The address by which a machine's programs reach what listens on all of its addresses. Others
/// of 127/8 are chosen by hand, and answer nowhere else.
fn is_localhost(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets() == [127, 0, 0, 1],
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Interface;

    fn interfaces() -> Interfaces {
        let of = |index, ip: &str, prefix_len| Interface {
            index,
            ip: ip.parse().unwrap(),
            prefix_len,
        };
        Interfaces::new(vec![
            of(2, "10.0.0.1", 24),
            of(2, "fd00::1", 64),
            of(3, "192.168.7.1", 24),
        ])
    }

    #[test]
    fn addresses_are_told_as_the_asker_can_use_them() {
        let interfaces = interfaces();
        #[rustfmt::skip]
        let cases = [
            // asker          came in on            listed               told
            ("10.0.0.9",      Some("10.0.0.1"),     "10.0.0.7:1",        "10.0.0.7:1"),
            ("10.0.0.9",      Some("10.0.0.1"),     "127.0.0.1:1",       "10.0.0.1:1"),
            ("10.0.0.9",      Some("10.0.0.1"),     "0.0.0.0:1",         "10.0.0.1:1"),
            ("10.0.0.9",      None,                 "0.0.0.0:1",         "10.0.0.1:1"),
            ("192.168.7.9",   None,                 "127.0.0.1:1",       "192.168.7.1:1"),
            ("10.0.0.9",      Some("10.0.0.1"),     "127.0.0.5:1",       ""),
            ("10.0.0.9",      Some("10.0.0.1"),     "[::1]:1",           ""),
            ("10.0.0.9",      Some("10.0.0.1"),     "[::]:1",            ""),
            ("fd00::9",       Some("fd00::1"),      "[::]:1",            "[fd00::1]:1"),
            ("fd00::9",       Some("fd00::1"),      "[::1]:1",           "[fd00::1]:1"),
            ("127.0.0.1",     Some("127.0.0.1"),    "127.0.0.1:1",       "127.0.0.1:1"),
            ("127.0.0.1",     Some("127.0.0.1"),    "127.0.0.5:1",       "127.0.0.5:1"),
            ("127.0.0.1",     Some("127.0.0.1"),    "0.0.0.0:1",         "127.0.0.1:1"),
            ("127.0.0.5",     None,                 "0.0.0.0:1",         "127.0.0.5:1"),
            ("10.0.0.9",      Some("10.0.0.1"),     "10.0.0.7:0",        ""),
            ("10.0.0.9",      Some("10.0.0.1"),     "[fe80::1]:1",       ""),
            ("198.51.100.9",  Some("0.0.0.0"),      "127.0.0.1:1",       ""),
            ("198.51.100.9",  None,                 "0.0.0.0:1",         ""),
            ("::ffff:10.0.0.9", Some("::ffff:10.0.0.1"), "127.0.0.1:1",  "10.0.0.1:1"),
        ];
        for (remote, local, listed, told) in cases {
            let asker = Asker {
                remote: SocketAddr::new(remote.parse().unwrap(), 5),
                local: local.map(|ip| ip.parse().unwrap()),
                interfaces: &interfaces,
                links: None,
            };
            let listed: SocketAddr = listed.parse().unwrap();
            let answer = asker.ears().told(listed, scope(listed.ip()));
            let answer = answer.map_or(String::new(), |addr| addr.to_string());
            assert_eq!(answer, told, "{listed} to {remote}");
        }
    }

    /// Row 89 of the hostile inputs: a victim's address never.
    #[test]
    fn nobody_is_listed_by_an_address_that_is_not_its_own() {
        let interfaces = interfaces();
        #[rustfmt::skip]
        let cases = [
            // asker          claims            listed as
            ("198.51.100.9",  "203.0.113.7",    "198.51.100.9"),
            ("198.51.100.9",  "10.0.0.1",       "198.51.100.9"),
            ("10.0.0.9",      "10.0.0.8",       "10.0.0.9"),
            ("10.0.0.9",      "10.0.0.9",       "10.0.0.9"),
            ("127.0.0.1",     "203.0.113.7",    "127.0.0.1"),
            ("127.0.0.1",     "10.0.0.8",       "127.0.0.1"),
            ("127.0.0.1",     "127.0.0.5",      "127.0.0.1"),
            ("127.0.0.1",     "10.0.0.1",       "10.0.0.1"),
            ("127.0.0.1",     "fd00::1",        "fd00::1"),
            ("10.0.0.1",      "192.168.7.1",    "192.168.7.1"),
            ("::ffff:10.0.0.9", "10.0.0.8",     "10.0.0.9"),
        ];
        for (remote, claimed, listed) in cases {
            let asker = Asker {
                remote: SocketAddr::new(remote.parse().unwrap(), 5),
                local: None,
                interfaces: &interfaces,
                links: None,
            };
            let addr = asker.listed_at(&[None, Some(claimed.parse().unwrap())], 7);
            let expected = SocketAddr::new(listed.parse().unwrap(), 7);
            assert_eq!(addr, expected, "{remote} claims {claimed}");
        }
        let asker = Asker {
            remote: "[fe80::5%3]:50".parse().unwrap(),
            local: None,
            interfaces: &interfaces,
            links: None,
        };
        let expected: SocketAddr = "[fe80::5%3]:7".parse().unwrap();
        assert_eq!(asker.listed_at(&[], 7), expected);
    }

    #[test]
    fn nearness_is_by_own_addresses_and_prefixes() {
        #[rustfmt::skip]
        let cases = [
            ("127.0.0.9",       Nearness::ThisHost), ("10.0.0.1",     Nearness::ThisHost),
            ("::ffff:10.0.0.1", Nearness::ThisHost), ("10.0.0.2",     Nearness::OnLink),
            ("fe80::5",         Nearness::OnLink),   ("10.0.1.1",     Nearness::OffLink),
            ("fd00::77",        Nearness::OnLink),   ("2001:db8::1",  Nearness::OffLink),
        ];
        for (ip, expected) in cases {
            let nearness = Nearness::of(ip.parse().unwrap(), &interfaces());
            assert_eq!(nearness, expected, "{ip}");
        }
    }
}
