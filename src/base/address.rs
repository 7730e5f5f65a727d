//! Addresses: what they are good for, and whether they lie on a link of this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// An address of one of this machine's interfaces, as the shell found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The system's number of the interface; several addresses may share it.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Leading bits that all hosts on the link share, 0 to 32 or 128.
    pub prefix_len: u8,
}

/// The interfaces of this machine, those that are up. Copies are cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Arc<[Interface]>);

impl Interfaces {
    /// A set of interfaces, in the order in which they are preferred.
    pub fn new(all: Vec<Interface>) -> Self {
        Self(all.into())
    }

    /// Every address of every interface.
    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.0.iter()
    }

    /// Whether `ip` is an address of this machine.
    pub fn is_ours(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.0.iter().any(|own| own.ip == ip)
    }

    /// Whether `ip` is of this machine or of a host on one of its links: an interface's own
    /// prefix. Loopback and link-local addresses always are.
    pub fn is_on_link(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        matches!(scope(ip), Scope::Loopback | Scope::LinkLocal)
            || self.0.iter().any(|own| own.has_on_link(ip))
    }
}

impl Interface {
    /// Whether `ip` lies in this interface's own prefix.
    pub fn has_on_link(&self, ip: IpAddr) -> bool {
        let (own, other, width) = match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits()), u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host_bits = u32::from(u8::saturating_sub(width, self.prefix_len));
        // A prefix of no bits covers everything, and says nothing about a link.
        self.prefix_len > 0 && (own ^ other).checked_shr(host_bits).unwrap_or(0) == 0
    }
}

/// The two families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// No host has it: unspecified, multicast, broadcast, 0/8, 240/4.
    Nowhere,
    /// This machine only.
    Loopback,
    /// One link: 169.254/16, fe80::/10.
    LinkLocal,
    /// One site: RFC 1918, RFC 6598 (100.64/10), RFC 4193 (fc00::/7).
    Site,
    /// Everywhere.
    Global,
}

/// How far `ip` reaches. An IPv4 address in IPv6 form is what it stands for.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [first, second, ..] = ip.octets();
    match first {
        0 | 224..=255 => Scope::Nowhere,
        127 => Scope::Loopback,
        169 if second == 254 => Scope::LinkLocal,
        100 if second & 0xc0 == 64 => Scope::Site,
        _ if ip.is_private() => Scope::Site,
        _ => Scope::Global,
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_unspecified() || ip.is_multicast() {
        Scope::Nowhere
    } else if ip.is_unicast_link_local() {
        Scope::LinkLocal
    } else if ip.is_unique_local() {
        Scope::Site
    } else {
        Scope::Global
    }
}

/// Whether `told` may be named to somebody at `asker`: an address that the asker can use.
///
/// Port 0 and addresses of no host never are. Loopback is for loopback, link-local IPv4 for the
/// same range, link-local IPv6 for nobody: its scope is a number of our machine, not of theirs.
pub fn may_be_told(told: SocketAddr, asker: IpAddr) -> bool {
    if told.port() == 0 {
        return false;
    }
    match scope(told.ip()) {
        Scope::Nowhere => false,
        Scope::Loopback => scope(asker) == Scope::Loopback,
        Scope::LinkLocal => told.is_ipv4() && scope(asker) == Scope::LinkLocal,
        Scope::Site | Scope::Global => true,
    }
}

/// Name or address of a host, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_range_has_its_scope() {
        #[rustfmt::skip]
        let cases = [
            ("0.0.0.0", Scope::Nowhere),         ("0.1.2.3", Scope::Nowhere),
            ("127.0.0.1", Scope::Loopback),      ("127.9.9.9", Scope::Loopback),
            ("169.254.1.1", Scope::LinkLocal),   ("10.1.1.1", Scope::Site),
            ("172.16.0.1", Scope::Site),         ("172.32.0.1", Scope::Global),
            ("192.168.0.1", Scope::Site),        ("100.64.0.1", Scope::Site),
            ("100.128.0.1", Scope::Global),      ("224.0.0.1", Scope::Nowhere),
            ("255.255.255.255", Scope::Nowhere), ("93.184.215.14", Scope::Global),
            ("::", Scope::Nowhere),              ("::1", Scope::Loopback),
            ("fe80::1", Scope::LinkLocal),       ("fd00::1", Scope::Site),
            ("ff02::1", Scope::Nowhere),         ("2001:db8::1", Scope::Global),
            ("::ffff:10.0.0.1", Scope::Site),    ("::ffff:127.0.0.1", Scope::Loopback),
        ];
        for (text, expected) in cases {
            assert_eq!(scope(ip(text)), expected, "{text}");
        }
    }

    #[test]
    fn nobody_is_told_what_he_cannot_use() {
        #[rustfmt::skip]
        let cases = [
            // told                asker            may
            ("10.0.0.1:6881",      "10.0.0.2",      true),
            ("10.0.0.1:0",         "10.0.0.2",      false),
            ("127.0.0.1:6881",     "10.0.0.2",      false),
            ("127.0.0.1:6881",     "127.0.0.2",     true),
            ("127.0.0.1:6881",     "::1",           true),
            ("169.254.1.1:6881",   "169.254.1.2",   true),
            ("169.254.1.1:6881",   "10.0.0.2",      false),
            ("[fe80::1]:6881",     "fe80::2",       false),
            ("[fd00::1]:6881",     "10.0.0.2",      true),
            ("224.0.0.1:6881",     "10.0.0.2",      false),
        ];
        for (told, asker, may) in cases {
            let told: SocketAddr = told.parse().expect("an address");
            assert_eq!(may_be_told(told, ip(asker)), may, "{told} to {asker}");
        }
    }

    #[test]
    fn link_is_what_an_interfaces_prefix_covers() {
        let interface = |text, prefix_len| Interface {
            index: 2,
            ip: ip(text),
            prefix_len,
        };
        let all = Interfaces::new(vec![
            interface("10.0.3.1", 22),
            interface("fd00::1", 64),
            interface("198.51.100.7", 0),
        ]);
        #[rustfmt::skip]
        let cases = [
            ("10.0.3.1", true, true),         ("10.0.0.9", true, false),
            ("10.0.4.1", false, false),       ("::ffff:10.0.3.1", true, true),
            ("fd00::9", true, false),         ("fd00:0:0:1::9", false, false),
            ("127.0.0.1", true, true),        ("fe80::7", true, false),
            ("198.51.100.8", false, false),   ("198.51.100.7", false, true),
        ];
        for (text, is_on_link, is_ours) in cases {
            assert_eq!(all.is_on_link(ip(text)), is_on_link, "{text}");
            assert_eq!(all.is_ours(ip(text)), is_ours, "{text}");
        }
    }
}
