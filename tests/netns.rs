//! Hosts with addresses of their own on one switch: network namespaces, joined by a bridge. What
//! crosses a LAN is tested here: a line that was printed on another host, multicast, IPv6.
//!
//! Each test runs in a sandbox (see `support::sandbox`) and makes its hosts in there, so nothing
//! of the machine's own network is touched, and everything is gone when the sandbox is. Where
//! that is not allowed, the tests say that they are skipped; for root with
//! `EVPEER_REQUIRE_CLIENTS=1` it is a failure.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;
use support::data::{DataSet, Tolerance};
use support::evpeer::BINARY;
use support::process::Process;
use support::sandbox::{self, Lan};
use support::{folder, scratch, torrent};

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(90);
const HOSTS: usize = 5;
const LEN: u64 = 20_000_000;

#[test]
fn share_and_the_line_that_it_prints_are_all_that_it_takes() {
    network(
        "share_and_the_line_that_it_prints_are_all_that_it_takes",
        Families::Both,
        |lan, net| {
            let [first, others @ ..] = &net.hosts[..] else {
                unreachable!("there are hosts");
            };
            // Nothing may be written where the data lies.
            let medium = Path::new("/mnt"); // seen in the sandbox only
            lan.mount_tmpfs(medium, 2 * LEN);
            let set = DataSet::tree(medium, "päck of data", LEN, 4);
            lan.remount_read_only(medium);

            let path = set.root();
            let path = path.to_str().expect("its name is UTF-8");
            let share = first.evpeer(&["share", path]);
            let line = share.wait_for_line("the line to type", LIMIT, |line| {
                line.starts_with("evpeer -t ").then(|| line.to_owned())
            });
            let by_v6 = share.wait_for_line("the line with IPv6", LIMIT, |line| {
                let command = line.strip_prefix("# or: ")?;
                command.contains("[fd88::1]").then(|| command.to_owned())
            });
            assert!(line.contains("//10.88.0.1:6881/torrents/"), "{line}");

            let (last, most) = others.split_last().expect("there are others");
            let mut peers: Vec<(&Host, Process)> = Vec::new();
            for host in most {
                peers.push((host, host.type_line(&line)));
            }
            peers.push((last, last.type_line(&by_v6)));
            wait_until_complete(&set, &peers);
            leave(share);
            for (_, peer) in peers {
                leave(peer);
            }
        },
    );
}

/// As a firewall would have it: whoever is not reached cannot know why, but can say so.
#[test]
fn share_that_nobody_reaches_says_what_may_be_the_reason() {
    network(
        "share_that_nobody_reaches_says_what_may_be_the_reason",
        Families::Both,
        |_, net| {
            let [visited, lonely, other, ..] = &net.hosts[..] else {
                unreachable!("there are hosts");
            };
            let share = |host: &Host, name| {
                let set = DataSet::tree(&host.folder, name, LEN, 4);
                let path = set.root();
                let process = host.evpeer(&["share", path.to_str().expect("its name is UTF-8")]);
                (set, process)
            };
            let (set, first) = share(visited, "data");
            let line = first.wait_for_line("the line to type", LIMIT, |line| {
                line.starts_with("evpeer -t ").then(|| line.to_owned())
            });
            wait_until_complete(&set, &[(other, other.type_line(&line))]);
            let (_, second) = share(lonely, "what nobody knows of");
            let text = "nobody has come from another host yet";
            second.wait_for_line("the hint", LIMIT, |line| {
                let told = line.contains(text) && line.contains("TCP and UDP port 6881");
                told.then_some(())
            });
            // The first was there before, so its time is over too.
            assert!(!first.text().contains(text), "{}", first.text());
        },
    );
}

/// The trackers' share of the work is taken away: the torrent has none.
#[test]
fn hosts_find_each_other_by_local_discovery_alone() {
    network(
        "hosts_find_each_other_by_local_discovery_alone",
        Families::Both,
        |_, net| by_local_discovery(net),
    );
}

#[test]
fn hosts_without_ipv4_find_each_other_by_local_discovery() {
    network(
        "hosts_without_ipv4_find_each_other_by_local_discovery",
        Families::OnlyV6,
        |_, net| by_local_discovery(net),
    );
}

/// The cable is plugged in after the peer was started.
#[test]
fn interface_that_comes_later_is_used_too() {
    network(
        "interface_that_comes_later_is_used_too",
        Families::Both,
        |_, net| {
            let [seed, late, ..] = &net.hosts[..] else {
                unreachable!("there are hosts");
            };
            let set = DataSet::tree(&seed.folder, "data", LEN, 4);
            let torrent = torrent::create(&set, None);
            let torrent = torrent.to_str().expect("its name is UTF-8");
            let seeding = seed.evpeer(&["-t", torrent]);
            late.ip(&["link", "set", "eth0", "down"]);
            let waiting = late.evpeer(&["-t", torrent]);
            waiting.wait_for_line("it looks for peers", LIMIT, |line| {
                line.contains("downloading").then_some(())
            });
            late.ip(&["link", "set", "eth0", "up"]);
            wait_until_complete(&set, &[(late, waiting)]);
            leave(seeding);
        },
    );
}

fn by_local_discovery(net: &Net) {
    let [seed, others @ ..] = &net.hosts[..] else {
        unreachable!("there are hosts");
    };
    let set = DataSet::tree(&seed.folder, "data", LEN, 4);
    let torrent = torrent::create(&set, None);
    let torrent = torrent.to_str().expect("its name is UTF-8");
    let start = |host: &Host| host.evpeer(&["-t", torrent, "--no-tracker", "--no-pex"]);
    let _seeding = start(seed);
    let peers: Vec<(&Host, Process)> = others.iter().map(|host| (host, start(host))).collect();
    wait_until_complete(&set, &peers);
}

fn wait_until_complete(set: &DataSet, peers: &[(&Host, Process)]) {
    for (_, peer) in peers {
        peer.wait_for_line("its download is complete", LIMIT, |line| {
            line.contains(": complete, ").then_some(())
        });
    }
    for (host, _) in peers {
        set.assert_same_in(&host.folder, Tolerance::NONE);
    }
}

fn leave(mut peer: Process) {
    assert_eq!(peer.terminate(LIMIT), Some(0), "{}", peer.name());
}

/// The addresses that hosts have beside their link-local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    Both,
    OnlyV6,
}

/// Hosts 10.88.0.1 and fd88::1, 10.88.0.2 and fd88::2, …, each with a network of its own whose
/// `eth0` is plugged into the switch.
struct Net {
    hosts: Vec<Host>,
    _scratch: tempfile::TempDir,
}

/// One host.
struct Host {
    /// Its network namespace.
    name: String,
    /// Where its peer is started.
    folder: PathBuf,
}

/// Runs `body` with hosts, if that is allowed here. `test` is the calling test's name.
fn network(test: &str, families: Families, body: impl FnOnce(Lan, &Net)) {
    sandbox::inside(test, |lan| {
        if !lan.is_isolated {
            let missing = "network namespaces are not allowed here";
            let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
            let is_root = geteuid().is_root();
            assert!(
                !(required && is_root),
                "{missing}, and EVPEER_REQUIRE_CLIENTS=1"
            );
            return support::skip(missing);
        }
        let net = Net::new(families);
        body(lan, &net);
    });
}

impl Net {
    fn new(families: Families) -> Self {
        let scratch = scratch();
        // Their names are files; this way nobody outside sees them.
        let names = Path::new("/run/netns");
        std::fs::create_dir_all(names).expect("we are root in here");
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"]);
        ip(&["link", "add", "switch", "type", "bridge"]);
        ip(&["link", "set", "switch", "up"]);
        let hosts = (1..=HOSTS).map(|number| {
            let host = Host {
                name: format!("evpeer-{}-{number}", std::process::id()),
                folder: folder(scratch.path(), &format!("host-{number}")),
            };
            host.plug_in(number, families);
            host
        });
        Self {
            hosts: hosts.collect(),
            _scratch: scratch,
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for host in &self.hosts {
            // The sandbox ends with us in any case.
            let _ = Command::new("ip")
                .args(["netns", "del", &host.name])
                .status();
        }
    }
}

impl Host {
    fn plug_in(&self, number: usize, families: Families) {
        let port = format!("port{number}");
        ip(&["netns", "add", &self.name]);
        let cable = ["type", "veth", "peer", "name", "eth0", "netns", &self.name];
        ip(&[&["link", "add", &port][..], &cable].concat());
        ip(&["link", "set", &port, "master", "switch", "up"]);
        if families == Families::Both {
            let address = format!("10.88.0.{number}/24");
            self.ip(&["address", "add", &address, "dev", "eth0"]);
        }
        let address = format!("fd88::{number}/64");
        self.ip(&["address", "add", &address, "dev", "eth0", "nodad"]);
        self.ip(&["link", "set", "lo", "up"]);
        self.ip(&["link", "set", "eth0", "up"]);
    }

    /// `ip` with its network.
    fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name][..], args].concat());
    }

    /// Starts evpeer on this host, in its folder.
    fn evpeer(&self, words: &[&str]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, BINARY]);
        command.args(words).current_dir(&self.folder);
        Process::spawn(&self.name, &mut command)
    }

    /// Does what a person does with a printed line.
    fn type_line(&self, line: &str) -> Process {
        let words: Vec<&str> = line
            .split(' ')
            .map(|word| word.trim_matches('\''))
            .collect();
        assert_eq!(words[0], "evpeer", "{line}");
        self.evpeer(&words[1..])
    }
}

fn ip(args: &[&str]) {
    run("ip", args);
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
}
