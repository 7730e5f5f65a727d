//! Hosts with addresses of their own on one switch: network namespaces, joined by a bridge. What
//! crosses a LAN is tested here: a line that was printed on another host, multicast, IPv6.
//!
//! Each test runs in a sandbox (see `support::sandbox`) and makes its hosts in there, so nothing
//! of the machine's own network is touched, and everything is gone when the sandbox is. Where
//! that is not allowed, the tests say that they are skipped; for root with
//! `EVPEER_REQUIRE_CLIENTS=1` it is a failure.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;
use support::data::{DataSet, Tolerance};
use support::evpeer::{BINARY, ctl};
use support::process::Process;
use support::sandbox::{self, Lan};
use support::{folder, scratch, torrent, wait_for};

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(90);
/// The same for lists that have to become the same: silence is noticed after minutes.
const HEAL_LIMIT: Duration = Duration::from_secs(300);
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

/// Goal: a host whose cable was pulled, and plugged in again, knows what happened meanwhile.
/// Method: hosts that all have everything, so that nothing but links joins them. While one is cut
/// off, one leaves and one comes. By night the cable stays out until the others have missed it.
#[test]
fn host_that_was_cut_off_is_told_what_it_missed() {
    network(
        "host_that_was_cut_off_is_told_what_it_missed",
        Families::Both,
        |_, net| {
            let mut peers = net.seeds(&[(1, 1), (2, 1), (3, 2), (5, 3)]);
            net.wait_until_known("all four", &[1, 2, 3, 5]);
            net.pull(5);
            leave(peers.remove(2));
            peers.push(net.seed(4, 2));
            let near = net.time_until("those who are not cut off know it", || {
                let all = [1, 2, 4];
                all.iter().all(|&n| net.knows(n, 4) || n == 4)
                    && all.iter().all(|&n| !net.knows(n, 3))
            });
            if is_night() {
                let missed = net.time_until("the others miss it", || {
                    [1, 2, 4].iter().all(|&n| !net.knows(n, 5))
                });
                println!("missed after {missed:?}");
            }
            net.plug(5);
            let healed = net.wait_until_known("it is back", &[1, 2, 4, 5]);
            println!("known to the others after {near:?}, to it {healed:?} after it was back");
            peers.into_iter().for_each(leave);
        },
    );
}

/// Goal: two halves of a network that were apart, and changed, become one with the same lists.
/// Method: as above; in each half one leaves or comes.
#[test]
fn halves_that_were_apart_have_the_same_lists_again() {
    network(
        "halves_that_were_apart_have_the_same_lists_again",
        Families::Both,
        |_, net| {
            let mut peers = net.seeds(&[(1, 1), (2, 1), (3, 2), (4, 3)]);
            net.wait_until_known("all four", &[1, 2, 3, 4]);
            net.split(&[3, 4, 5]);
            leave(peers.remove(1));
            peers.push(net.seed(5, 4));
            net.time_until("each half knows what happened in it", || {
                !net.knows(1, 2) && net.knows(3, 5) && net.knows(4, 5)
            });
            assert!(!net.knows(1, 5), "nothing crosses");
            if is_night() {
                let missed = net.time_until("the halves miss each other", || {
                    !net.knows(1, 3) && !net.knows(3, 1)
                });
                println!("missed after {missed:?}");
            }
            net.join();
            let healed = net.wait_until_known("one network", &[1, 3, 4, 5]);
            println!("the same lists {healed:?} after they were joined");
            peers.into_iter().for_each(leave);
        },
    );
}

/// Whether there is time to wait until silence is noticed.
fn is_night() -> bool {
    std::env::var_os("NIGHTLY").is_some_and(|value| value == "1")
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

/// Evpeers that have everything, and what they know of each other. Hosts count from 1.
impl Net {
    fn seeds(&self, hosts: &[(usize, usize)]) -> Vec<Process> {
        let all = hosts.iter().map(|&(n, known)| self.seed(n, known));
        all.collect()
    }

    /// An evpeer on host `n` that is told of the one on host `known` alone.
    fn seed(&self, n: usize, known: usize) -> Process {
        let host = &self.hosts[n - 1];
        let set = DataSet::file(&host.folder, "data", 1_000_000, 4);
        let mut torrent = host.folder.with_file_name("data.torrent");
        if !torrent.exists() {
            torrent = torrent::create(&set, None);
        }
        let torrent = torrent.to_str().expect("its name is UTF-8");
        let (ip, peer) = (self.ip_of(n), self.addr_of(known).to_string());
        let words = ["-t", torrent, "--no-lsd", "--no-tracker", "--bind", &ip];
        match n == known {
            true => host.evpeer(&words),
            false => host.evpeer(&[&words[..], &["--peer", &peer]].concat()),
        }
    }

    fn ip_of(&self, n: usize) -> String {
        format!("10.88.0.{n}")
    }

    fn addr_of(&self, n: usize) -> SocketAddr {
        format!("{}:6881", self.ip_of(n))
            .parse()
            .expect("an address")
    }

    /// The evpeers that are in the network as host `n` knows it; nobody while it starts.
    fn known_to(&self, n: usize) -> Vec<SocketAddr> {
        let said = ctl(&self.hosts[n - 1].folder, &["peers", "--network", "--json"]);
        let answer: Value = serde_json::from_str(&said.out).unwrap_or_default();
        let hosts = answer["network"].as_array().cloned().unwrap_or_default();
        let here = hosts.iter().filter(|host| host["here"] == true);
        let mut known: Vec<SocketAddr> = here
            .filter_map(|host| host["address"].as_str()?.parse().ok())
            .collect();
        known.sort_unstable();
        known
    }

    fn knows(&self, n: usize, other: usize) -> bool {
        self.known_to(n).contains(&self.addr_of(other))
    }

    /// Each of these knows exactly the others.
    fn wait_until_known(&self, what: &str, hosts: &[usize]) -> Duration {
        self.time_until(what, || {
            hosts.iter().all(|&n| {
                let others = hosts.iter().filter(|&&other| other != n);
                let others: Vec<_> = others.map(|&other| self.addr_of(other)).collect();
                self.known_to(n) == others
            })
        })
    }

    fn time_until(&self, what: &str, condition: impl FnMut() -> bool) -> Duration {
        let began = Instant::now();
        wait_for(what, HEAL_LIMIT, condition);
        began.elapsed()
    }

    /// Pulls the cable of a host out of the switch.
    fn pull(&self, n: usize) {
        ip(&["link", "set", &format!("port{n}"), "down"]);
    }

    fn plug(&self, n: usize) {
        ip(&["link", "set", &format!("port{n}"), "up"]);
    }

    /// Moves these hosts to a switch of their own.
    fn split(&self, hosts: &[usize]) {
        ip(&["link", "add", "other", "type", "bridge"]);
        ip(&["link", "set", "other", "up"]);
        for n in hosts {
            ip(&["link", "set", &format!("port{n}"), "master", "other"]);
        }
    }

    /// All hosts are on one switch again.
    fn join(&self) {
        for n in 1..=HOSTS {
            ip(&["link", "set", &format!("port{n}"), "master", "switch"]);
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
