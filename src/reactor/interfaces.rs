//! The addresses of this machine: found at the start, looked at again now and then, in the order
//! in which a person should try them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use getifaddrs::{InterfaceFilter, InterfaceFlags};

use crate::base::address::{self, Interface, Interfaces, Scope};
use crate::base::time::Instant;

use super::Reactor;

/// An address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the system calls the interface.
    pub name: String,
    /// The interface's number, the address, and the prefix of its link.
    pub interface: Interface,
    /// Whether the interface leads nowhere but here.
    pub is_loopback: bool,
    /// Whether groups of hosts can be spoken to.
    pub has_multicast: bool,
}

/// What is known of the interfaces, and when to look again.
#[derive(Debug, Default)]
pub struct Known {
    found: Vec<Found>,
    due: Instant,
    /// The system did not say, and that was logged.
    has_failed: bool,
}

impl Known {
    /// When to look again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The addresses that are up, the preferred ones first.
    pub fn found(&self) -> &[Found] {
        &self.found
    }
}

impl Reactor {
    /// Where others reach this peer, the best address first; on a machine without a network that
    /// is the machine itself.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ips = reachable(&self.interfaces.found);
        ips.into_iter().map(|ip| (ip, self.port).into()).collect()
    }

    /// Whether `ip` is an address of this machine.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let mut all = self.interfaces.found.iter().map(|f| f.interface.ip);
        ip.is_loopback() || all.any(|own| own == ip)
    }

    /// The index of the interface on whose link `ip` lies.
    pub(super) fn interface_of(&self, ip: IpAddr) -> Option<u32> {
        let mut all = self.interfaces.found.iter().map(|f| f.interface);
        all.find(|interface| interface.has_on_link(ip))
            .map(|interface| interface.index)
    }

    /// Looks at the interfaces if it is time to, and tells the engine if they have changed.
    pub(super) fn look_at_interfaces(&mut self, now: Instant) {
        if self.interfaces.due > now {
            return;
        }
        self.interfaces.due = now + INTERVAL;
        let found = match find(self.bind) {
            Ok(found) => found,
            Err(e) if self.interfaces.has_failed => return log::debug!("no interfaces error={e}"),
            Err(e) => {
                self.interfaces.has_failed = true;
                return log::warn!("the system does not name its interfaces error={e}");
            }
        };
        if found != self.interfaces.found {
            for Found {
                name, interface, ..
            } in &found
            {
                let Interface { ip, prefix_len, .. } = interface;
                log::debug!("interface name={name} address={ip}/{prefix_len}");
            }
            let all = found.iter().map(|f| f.interface).collect();
            self.interfaces.found = found;
            self.engine.interfaces_found(Interfaces::new(all), now);
            self.run_actions(now);
        }
        self.join_groups(now);
    }
}

/// The addresses of all interfaces that are up, or only `bind`, the preferred ones first.
pub fn find(bind: Option<IpAddr>) -> io::Result<Vec<Found>> {
    let mut all: Vec<Found> = InterfaceFilter::new()
        .v4()
        .v6()
        .get()?
        .filter(|i| {
            i.flags
                .contains(InterfaceFlags::UP | InterfaceFlags::RUNNING)
        })
        .filter_map(|i| {
            let interface = Interface {
                index: i.index?,
                ip: i.address.ip_addr()?,
                prefix_len: prefix_len(i.address.netmask()?),
            };
            Some(Found {
                name: i.name,
                interface,
                is_loopback: i.flags.contains(InterfaceFlags::LOOPBACK),
                has_multicast: i.flags.contains(InterfaceFlags::MULTICAST),
            })
        })
        .collect();
    if let Some(ip) = bind {
        all = only(ip, all);
    }
    all.sort_by_key(preference);
    Ok(all)
}

/// The one of `all` that has the address `ip`. On loopback every address of the link is ours.
fn only(ip: IpAddr, all: Vec<Found>) -> Vec<Found> {
    let has = |f: &&Found| f.interface.ip == ip;
    let lies_at = |f: &&Found| f.is_loopback && f.interface.has_on_link(ip);
    let found = all.iter().find(has).or_else(|| all.iter().find(lies_at));
    let bound = found.cloned().map(|mut found| {
        found.interface.ip = ip;
        found
    });
    bound.into_iter().collect()
}

/// Sorts those first that other hosts can reach, and among them those that are typed easily.
fn preference(found: &Found) -> (bool, bool, bool, u8) {
    let ip = found.interface.ip;
    let scope = address::scope(ip);
    let kind = match (ip, scope) {
        (IpAddr::V4(_), Scope::Site) => 0,
        (IpAddr::V4(_), _) => 1,
        (IpAddr::V6(_), _) => 2,
    };
    let is_link_local = scope == Scope::LinkLocal;
    (
        found.is_loopback,
        is_link_local,
        is_inner(&found.name),
        kind,
    )
}

/// Whether an interface of this name leads to guests of this machine or into a tunnel, not to the
/// local network.
fn is_inner(name: &str) -> bool {
    INNER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The addresses of `found` that others can use. Link-local ones only if there is nothing else,
/// and only those of IPv4: the others are of no use without the reader's name for the link.
fn reachable(found: &[Found]) -> Vec<IpAddr> {
    let of = |scopes: &[Scope]| -> Vec<IpAddr> {
        let ips = found.iter().map(|f| f.interface.ip);
        ips.filter(|&ip| scopes.contains(&address::scope(ip)))
            .filter(|ip| ip.is_ipv4() || address::scope(*ip) != Scope::LinkLocal)
            .take(ADDRESSES_MAX)
            .collect()
    };
    let sets = [
        &[Scope::Site, Scope::Global][..],
        &[Scope::LinkLocal],
        &[Scope::Loopback],
    ];
    let usable = sets.into_iter().map(of).find(|ips| !ips.is_empty());
    usable.unwrap_or_default()
}

/// Leading ones of a netmask.
fn prefix_len(netmask: IpAddr) -> u8 {
    let ones = match netmask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    ones as u8
}

/// Between two looks at the interfaces.
const INTERVAL: Duration = Duration::from_secs(10);
/// Addresses that others are told of at most.
const ADDRESSES_MAX: usize = 8;
/// How the names of bridges to containers and virtual machines, and of tunnels, begin.
const INNER_PREFIXES: [&str; 18] = [
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "lxcbr",
    "lxdbr",
    "podman",
    "cni",
    "flannel",
    "cali",
    "kube",
    "tun",
    "tap",
    "wg",
    "utun",
    "tailscale",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, ip: &str) -> Found {
        Found {
            name: name.into(),
            interface: Interface {
                index: 1,
                ip: ip.parse().unwrap(),
                prefix_len: 8,
            },
            is_loopback: name == "lo",
            has_multicast: name != "lo",
        }
    }

    fn texts(ips: &[IpAddr]) -> Vec<String> {
        ips.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn easiest_address_comes_first_and_the_least_useful_last() {
        let in_order = [
            found("eth0", "192.168.1.5"),
            found("eth0", "10.0.0.5"),
            found("eth0", "93.184.215.14"),
            found("eth0", "fd00::5"),
            found("eth0", "2001:db8::5"),
            found("docker0", "172.17.0.1"),
            found("br-1a2b", "fd01::1"),
            found("eth0", "169.254.7.7"),
            found("eth0", "fe80::5"),
            found("lo", "127.0.0.1"),
            found("lo", "::1"),
        ];
        let mut all = in_order.to_vec();
        all.sort_by_key(preference);
        assert_eq!(all, in_order, "the order among equals is the system's");
        all.rotate_left(5);
        all.sort_by_key(preference);
        assert_eq!(all[2].name, "eth0");
        assert_eq!(all[5].name, "docker0");
        assert_eq!(all.last().unwrap().name, "lo");
    }

    #[test]
    fn others_are_told_what_they_can_use() {
        let (lan, local) = (found("eth0", "10.0.0.5"), found("eth0", "169.254.7.7"));
        let (scoped, here) = (found("eth0", "fe80::5"), found("lo", "127.0.0.1"));
        #[rustfmt::skip]
        let cases: [(&str, &[&Found], &[&str]); 5] = [
            ("a LAN",           &[&lan, &local, &scoped, &here], &["10.0.0.5"]),
            ("self-assigned",   &[&local, &scoped, &here],       &["169.254.7.7"]),
            ("only scoped",     &[&scoped, &here],               &["127.0.0.1"]),
            ("only loopback",   &[&here],                        &["127.0.0.1"]),
            ("nothing",         &[],                             &[]),
        ];
        for (name, all, expected) in cases {
            let all: Vec<Found> = all.iter().map(|&f| f.clone()).collect();
            assert_eq!(texts(&reachable(&all)), expected, "{name}");
        }
        let many = vec![lan; 3 * ADDRESSES_MAX];
        assert_eq!(reachable(&many).len(), ADDRESSES_MAX);
    }

    #[test]
    fn bind_leaves_one_address() {
        let all = vec![found("lo", "127.0.0.1"), found("eth0", "10.0.0.5")];
        for (bind, expected) in [
            ("10.0.0.5", &["10.0.0.5"][..]),
            ("127.0.0.9", &["127.0.0.9"]),
            ("10.0.0.6", &[]),
        ] {
            let left = only(bind.parse().unwrap(), all.clone());
            let ips: Vec<IpAddr> = left.iter().map(|f| f.interface.ip).collect();
            assert_eq!(texts(&ips), expected, "{bind}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_with_its_prefix() {
        let all = find(None).unwrap();
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        let lo = all.iter().find(|f| f.interface.ip == ip).unwrap();
        assert!(lo.is_loopback && lo.interface.index > 0, "{lo:?}");
        assert_eq!(lo.interface.prefix_len, 8);
    }
}
