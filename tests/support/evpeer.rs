//! The binary under test, started and read as a user's script would: options and `--json` events.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::Process;

/// Where cargo put the binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_evpeer");

/// What a peer is started with.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// `-t`
    pub torrent: &'a Path,
    /// `-o`
    pub folder: &'a Path,
    /// `--bind`
    pub ip: IpAddr,
    /// `-p`; 0 lets the system choose
    pub port: u16,
    /// `--peer`, each
    pub peers: &'a [SocketAddr],
    /// Whether it looks for peers on its links (LSD).
    pub is_local: bool,
    /// Further arguments.
    pub args: &'a [&'a str],
}

impl<'a> Setup<'a> {
    /// A peer of `torrent` in `folder`, on any port of 127.0.0.1, that knows nobody.
    pub fn new(torrent: &'a Path, folder: &'a Path) -> Self {
        let ip = Ipv4Addr::LOCALHOST.into();
        Self {
            torrent,
            folder,
            ip,
            port: 0,
            peers: &[],
            is_local: false,
            args: &[],
        }
    }

    /// The command line. LSD is off unless asked for: tests talk to their own processes only.
    pub fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command
            .arg("--json")
            .arg("-t")
            .arg(self.torrent)
            .arg("-o")
            .arg(self.folder);
        command.args(["--bind", &self.ip.to_string(), "-p", &self.port.to_string()]);
        command.arg("--no-dht");
        if !self.is_local {
            command.arg("--no-lsd");
        }
        for peer in self.peers {
            command.args(["--peer", &peer.to_string()]);
        }
        command.args(self.args);
        command
    }
}

/// A running peer.
pub struct Evpeer {
    /// The process, for its output and its end.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Evpeer {
    /// Starts it and waits until it listens.
    pub fn start(name: &str, setup: &Setup<'_>) -> Self {
        Self::start_command(name, &mut setup.command(), setup.ip)
    }

    /// Starts what `command` says, which listens on `ip`, and waits until it does.
    pub fn start_command(name: &str, command: &mut Command, ip: IpAddr) -> Self {
        let process = Process::spawn(name, command);
        let port = process.wait_for_line("a `listening` event", START_LIMIT, |line| {
            let event = event_of(line, "listening")?;
            event["port"]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
        });
        assert_ne!(port, 0, "{name} says which port it chose");
        Self {
            process,
            address: SocketAddr::new(ip, port),
        }
    }

    /// Waits until it says that it is in `state`.
    pub fn wait_for_state(&self, state: &str, limit: Duration) {
        self.process
            .wait_for_line(&format!("state {state}"), limit, |line| {
                let event: Value = serde_json::from_str(line).ok()?;
                (event["state"] == state).then_some(())
            });
    }

    /// Waits for an event by name; returns the object.
    pub fn wait_for_event(&self, name: &str, limit: Duration) -> Value {
        let what = format!("a `{name}` event");
        self.process
            .wait_for_line(&what, limit, |line| event_of(line, name))
    }

    /// Waits for a line, on either stream, that contains `text`; returns it.
    pub fn wait_for_text(&self, text: &str, limit: Duration) -> String {
        let what = format!("a line with `{text}`");
        let is_it = |line: &str| line.contains(text).then(|| line.to_owned());
        self.process.wait_for_line(&what, limit, is_it)
    }

    /// Whether there was an event of that name.
    pub fn has_event(&self, name: &str) -> bool {
        self.events().iter().any(|event| event["event"] == name)
    }

    /// The largest value of a counter in its events so far.
    pub fn counter(&self, key: &str) -> u64 {
        let events = self.events();
        events
            .iter()
            .filter_map(|event| event[key].as_u64())
            .max()
            .unwrap_or(0)
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.process.lines();
        lines
            .iter()
            .filter_map(|(_, line)| serde_json::from_str(line).ok())
            .collect()
    }

    /// Ends it by SIGTERM and checks that it leaves in good order.
    pub fn leave(mut self) {
        let code = self.process.terminate(LEAVE_LIMIT);
        assert_eq!(
            code,
            Some(0),
            "{} leaves with 0 after SIGTERM",
            self.process.name()
        );
        self.assert_sane();
    }

    /// Waits until it leaves by itself; returns the exit code.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Option<i32> {
        self.process.wait(limit).code()
    }

    /// Checks that nothing panicked in it.
    pub fn assert_sane(&self) {
        let text = self.process.text();
        assert!(
            !text.contains("panicked at"),
            "{} panicked:\n{text}",
            self.process.name()
        );
    }
}

/// What `evpeer ctl` said.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The objects that it printed.
    pub fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{self:?}");
        let object = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(object).collect()
    }

    /// The one object that it printed.
    pub fn object(&self) -> Value {
        let objects = self.objects();
        let [object] = &objects[..] else {
            panic!("one object: {self:?}");
        };
        object.clone()
    }
}

/// Runs `evpeer ctl -o folder` with further arguments.
pub fn ctl(folder: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(BINARY);
    command.args(["ctl", "-o"]).arg(folder).args(args);
    let output = command.output().expect("the binary was built");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The JSON object in `line`, if it is an event called `name`.
fn event_of(line: &str, name: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["event"] == name).then_some(event)
}

/// How long a peer may take until it listens: only slow when the machine is busy.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a peer may take to leave: 1 s for trackers and up to 30 s for the sync.
const LEAVE_LIMIT: Duration = Duration::from_secs(40);
