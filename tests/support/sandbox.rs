//! A test inside namespaces of its own: network, mounts and processes.
//!
//! Transmission refuses peers in 127.0.0.0/8, so it needs a network in which `lo` has another
//! subnet; full and read-only disks need mounts; fixed ports need to be nobody else's. The test
//! binary starts itself once more under `unshare`, for the one test, and the body runs in there.
//! When that inner process ends, however it ends, the kernel ends everything that it started.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::process::{Process, Stream};

/// The network that a test body finds itself in.
#[derive(Clone, Copy, Debug)]
pub struct Lan {
    /// Whether this is a sandbox: nobody else's ports, another subnet than 127/8, mounts allowed.
    pub is_isolated: bool,
}

impl Lan {
    /// The address of host `n`, which counts from 1; all are on this machine.
    pub fn host(&self, n: u8) -> Ipv4Addr {
        assert!((1..=HOSTS).contains(&n), "host {n} has an address");
        let [a, b, c] = if self.is_isolated {
            SUBNET
        } else {
            [127, 0, 0]
        };
        Ipv4Addr::new(a, b, c, n)
    }

    /// Mounts an empty tmpfs of `len` bytes at `folder`; it goes with the sandbox.
    pub fn mount_tmpfs(&self, folder: &Path, len: u64) {
        self.mount(
            &["-t", "tmpfs", "-o", &format!("size={len}"), "tmpfs"],
            folder,
        );
    }

    /// Makes what is mounted at `folder` read-only.
    pub fn remount_read_only(&self, folder: &Path) {
        self.mount(&["-o", "remount,ro"], folder);
    }

    fn mount(&self, args: &[&str], folder: &Path) {
        assert!(self.is_isolated, "mounts are for sandboxes");
        let status = Command::new("mount").args(args).arg(folder).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "mount {args:?} works"
        );
    }
}

/// Runs `body` in a sandbox if this machine allows one, else here. `test` is the full name of the
/// calling test in its binary, modules included.
pub fn inside(test: &str, body: impl FnOnce(Lan)) {
    if std::env::var_os(INSIDE).is_some() {
        return body(Lan { is_isolated: true });
    }
    let Some(flags) = flags() else {
        return body(Lan { is_isolated: false });
    };
    let this = std::env::current_exe().expect("a process knows its program");
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", SETUP]).arg(this);
    command
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1");
    let mut inner = Process::spawn("sandbox", &mut command);
    let status = inner.wait(LIMIT);
    let (lines, text) = (inner.lines(), inner.text());
    drop(inner); // before a panic, which would print its lines a second time
    for (stream, line) in lines {
        match line.strip_prefix("skipped: ") {
            Some(reason) if stream == Stream::Err => super::skip(reason),
            _ => println!("{line}"),
        }
    }
    assert!(status.success(), "{test} failed in its sandbox: {status}");
    let ran = text.contains("test result: ok. 1 passed");
    assert!(ran, "a test of this binary is called {test:?}");
}

/// The flags for `unshare` that work here: as root, or as a user where the system lets users.
fn flags() -> Option<&'static [&'static str]> {
    static FLAGS: OnceLock<Option<&[&str]>> = OnceLock::new();
    *FLAGS.get_or_init(|| {
        [&UNSHARE_AS_USER[1..], &UNSHARE_AS_USER[..]]
            .into_iter()
            .find(|flags| {
                let probe = Command::new("unshare")
                    .args(*flags)
                    .args(["sh", "-c", SETUP, "true"])
                    .output();
                probe.is_ok_and(|output| output.status.success())
            })
    })
}

/// The first flag is left out for root.
const UNSHARE_AS_USER: [&str; 7] = [
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];
/// Brings `lo` up with both subnets, then becomes the command behind it.
const SETUP: &str = "set -e; ip link set lo up multicast on; \
     ip route add 224.0.0.0/4 dev lo; i=1; while [ $i -le 16 ]; do \
     ip addr add 10.77.0.$i/24 dev lo; i=$((i + 1)); done; [ $0 = true ] || exec \"$0\" \"$@\"";
const SUBNET: [u8; 3] = [10, 77, 0];
const HOSTS: u8 = 16;
const INSIDE: &str = "EVPEER_TEST_INSIDE";
/// Longer than every limit inside, so that those speak first.
const LIMIT: Duration = Duration::from_secs(900);
