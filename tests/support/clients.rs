//! Transmission, aria2 and libtorrent (and evpeer beside them) behind one face.
//!
//! A client is started on a torrent and a folder: if the folder holds the data it becomes a seed,
//! if not a leecher, and in both cases [`Client::is_complete`] says when it has everything. Peers
//! find each other through the tracker that the torrent names.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::data::Tolerance;
use super::evpeer::{Evpeer, Setup};
use super::process::Process;
use super::{folder, free_port, skip, wait_for};

/// A program that speaks BitTorrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The binary under test.
    Evpeer,
    /// transmission-daemon
    Transmission,
    /// aria2c
    Aria2,
    /// libtorrent's Python binding, driven by `tests/interop/ltpeer.py`
    Libtorrent,
}

/// What a client is started on.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The .torrent file; names the tracker.
    pub torrent: &'a Path,
    /// Where the data is or goes.
    pub folder: &'a Path,
    /// A folder for the client's own files.
    pub home: &'a Path,
    /// The address to be reached at.
    pub address: SocketAddrV4,
    /// Ways to find peers beside the torrent's trackers.
    pub roads: Roads,
}

/// Ways to find peers beside the torrent's trackers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roads {
    /// Local discovery (BEP 14).
    pub lsd: bool,
    /// Peer exchange (BEP 11).
    pub pex: bool,
    /// Trackers over UDP, which aria2 asks only where its DHT is on.
    pub udp: bool,
}

/// A running client.
pub struct Client {
    kind: Kind,
    process: Process,
    /// Where the client listens for the calls that steer it.
    control: SocketAddrV4,
}

impl Kind {
    /// What this client may leave out of a download.
    pub fn tolerance(self) -> Tolerance {
        Tolerance {
            empty_files: self == Self::Transmission,
            executable_bits: self != Self::Evpeer,
            control_file: self == Self::Aria2,
        }
    }

    /// Whether this machine has it; if not, says so, or fails where clients are required
    /// (`EVPEER_REQUIRE_CLIENTS=1`).
    pub fn is_here(self, is_isolated: bool) -> bool {
        let missing = match self {
            Self::Evpeer => None,
            Self::Transmission if !runs("transmission-daemon", &["--version"]) => {
                Some("transmission-daemon is not installed")
            }
            Self::Transmission if !is_isolated => {
                Some("transmission-daemon refuses peers in 127/8 and `unshare` is not allowed here")
            }
            Self::Transmission => None,
            Self::Aria2 if !runs("aria2c", &["--version"]) => Some("aria2c is not installed"),
            Self::Aria2 => None,
            Self::Libtorrent if !runs("python3", &["-c", "import libtorrent"]) => {
                Some("python3 has no module libtorrent")
            }
            Self::Libtorrent => None,
        };
        if let Some(missing) = missing {
            let required = std::env::var_os("EVPEER_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
            assert!(!required, "{missing}, and EVPEER_REQUIRE_CLIENTS=1");
            skip(missing);
        }
        missing.is_none()
    }
}

impl Client {
    /// Starts `kind` on `task`; returns when it can be asked.
    pub fn start(kind: Kind, task: &Task<'_>) -> Self {
        let control_ip = Ipv4Addr::LOCALHOST;
        let control = match kind {
            Kind::Transmission | Kind::Aria2 => free_port(control_ip),
            Kind::Evpeer | Kind::Libtorrent => 0,
        };
        let control = SocketAddrV4::new(control_ip, control);
        let process = match kind {
            Kind::Evpeer => start_evpeer(task),
            Kind::Transmission => start_transmission(task, control),
            Kind::Aria2 => start_aria2(task, control),
            Kind::Libtorrent => start_libtorrent(task),
        };
        let mut client = Self {
            kind,
            process,
            control,
        };
        client.take_up(task);
        client
    }

    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Whether it has every byte, verified and written.
    pub fn is_complete(&mut self) -> bool {
        assert!(
            self.process.is_running(),
            "{:?} left before it was complete",
            self.kind
        );
        match self.kind {
            Kind::Evpeer => {
                let text = self.process.text();
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                    .any(|event| event["event"] == "complete" || event["state"] == "seeding")
            }
            Kind::Transmission => {
                let fields = [
                    "leftUntilDone",
                    "haveValid",
                    "status",
                    "errorString",
                    "error",
                ];
                let reply = self.call("torrent-get", json!({ "fields": fields }));
                let torrent = &reply["torrents"][0];
                assert!(
                    torrent["error"].as_u64() != Some(3),
                    "Transmission: {torrent}"
                );
                // 5 and 6 are waiting to seed and seeding; before the check of a new torrent
                // it is not in them
                let is_seeding = matches!(torrent["status"].as_u64(), Some(5 | 6));
                is_seeding && torrent["leftUntilDone"] == 0
            }
            Kind::Aria2 => {
                let active = self.call("aria2.tellActive", json!([]));
                let Some(task) = active.get(0) else {
                    return false;
                };
                let is_checking = task.get("verifiedLength").is_some();
                !is_checking
                    && task["seeder"] == "true"
                    && task["completedLength"] == task["totalLength"]
            }
            Kind::Libtorrent => {
                let text = self.process.text();
                text.lines()
                    .any(|line| matches!(line, "seeding" | "complete"))
            }
        }
    }

    /// Waits until it has every byte.
    pub fn wait_until_complete(&mut self, limit: Duration) {
        let what = format!("{:?} is complete", self.kind);
        wait_for(&what, limit, || self.is_complete());
    }

    /// Gives it the torrent if it was started without.
    fn take_up(&mut self, task: &Task<'_>) {
        match self.kind {
            Kind::Evpeer | Kind::Libtorrent => {}
            Kind::Transmission => {
                wait_for("Transmission answers calls", START_LIMIT, || {
                    assert!(self.process.is_running(), "Transmission left at once");
                    self.try_call("session-get", &json!({})).is_ok()
                });
                let (torrent, folder) = (task.torrent, task.folder);
                self.call(
                    "torrent-add",
                    json!({ "filename": torrent, "download-dir": folder, "paused": false }),
                );
            }
            Kind::Aria2 => wait_for("aria2 answers calls", START_LIMIT, || {
                assert!(self.process.is_running(), "aria2 left at once");
                self.try_call("aria2.getVersion", &json!([])).is_ok()
            }),
        }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let reply = self.try_call(method, &params);
        reply.unwrap_or_else(|error| panic!("{:?}: {method}: {error}", self.kind))
    }

    fn try_call(&self, method: &str, params: &Value) -> Result<Value, String> {
        match self.kind {
            Kind::Transmission => {
                let body = json!({ "method": method, "arguments": params }).to_string();
                let path = "/transmission/rpc";
                let mut reply = post(self.control, path, "", &body)?;
                if let Some(id) = reply.header("X-Transmission-Session-Id") {
                    let header = format!("X-Transmission-Session-Id: {id}\r\n");
                    reply = post(self.control, path, &header, &body)?;
                }
                let mut reply = reply.json()?;
                let is_done = reply["result"] == "success";
                if is_done {
                    Ok(reply["arguments"].take())
                } else {
                    Err(reply.to_string())
                }
            }
            Kind::Aria2 => {
                let body =
                    json!({ "jsonrpc": "2.0", "id": "1", "method": method, "params": params });
                let mut reply = post(self.control, "/jsonrpc", "", &body.to_string())?.json()?;
                match reply.get("error") {
                    None => Ok(reply["result"].take()),
                    Some(error) => Err(error.to_string()),
                }
            }
            Kind::Evpeer | Kind::Libtorrent => unreachable!("they are not steered by HTTP"),
        }
    }
}

fn start_evpeer(task: &Task<'_>) -> Process {
    let mut setup = Setup::new(task.torrent, task.folder);
    setup.ip = (*task.address.ip()).into();
    setup.port = task.address.port();
    setup.is_local = task.roads.lsd;
    if !task.roads.pex {
        setup.args = &["--no-pex"];
    }
    Evpeer::start("evpeer", &setup).process
}

fn start_transmission(task: &Task<'_>, control: SocketAddrV4) -> Process {
    let home = folder(task.home, "transmission");
    let settings = json!({
        "bind-address-ipv4": task.address.ip(), "peer-port": task.address.port(),
        "rpc-enabled": true, "rpc-bind-address": control.ip(), "rpc-port": control.port(),
        "rpc-whitelist-enabled": false, "rpc-authentication-required": false,
        "rpc-host-whitelist-enabled": false,
        "download-dir": task.folder, "encryption": 0, "message-level": 2,
        "dht-enabled": false, "utp-enabled": false,
        "lpd-enabled": task.roads.lsd, "pex-enabled": task.roads.pex,
        "port-forwarding-enabled": false, "trash-original-torrent-files": false,
    });
    std::fs::write(home.join("settings.json"), settings.to_string()).expect("it is ours");
    let mut command = Command::new("transmission-daemon");
    Process::spawn("transmission", command.arg("-f").arg("-g").arg(home))
}

fn start_aria2(task: &Task<'_>, control: SocketAddrV4) -> Process {
    let mut command = Command::new("aria2c");
    command.args(["--no-conf=true", "--quiet=true", "--enable-rpc=true"]);
    command.arg(format!("--rpc-listen-port={}", control.port()));
    command.arg(format!("--listen-port={}", task.address.port()));
    command.arg(format!("--interface={}", task.address.ip()));
    command
        .arg("--dir")
        .arg(task.folder)
        .arg("--torrent-file")
        .arg(task.torrent);
    command.args([
        &format!("--enable-dht={}", task.roads.udp),
        &format!("--dht-listen-port={}", task.address.port()),
        &format!("--dht-file-path={}", task.home.join("dht.dat").display()),
        "--enable-dht6=false",
        &format!("--bt-enable-lpd={}", task.roads.lsd),
        &format!("--enable-peer-exchange={}", task.roads.pex),
    ]);
    command.args([
        "--disable-ipv6=true",
        "--file-allocation=none",
        "--seed-ratio=0.0",
    ]);
    command.args([
        "--check-integrity=true",
        "--bt-hash-check-seed=true",
        "--bt-max-peers=0",
    ]);
    command.args(["--allow-overwrite=true", "--bt-tracker-interval=2"]);
    Process::spawn("aria2", command.current_dir(task.home))
}

fn start_libtorrent(task: &Task<'_>) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/ltpeer.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .arg(task.torrent)
        .arg(task.folder)
        .arg(task.address.to_string())
        .args(task.roads.lsd.then_some("lsd"))
        .args(task.roads.pex.then_some("pex"));
    Process::spawn("libtorrent", &mut command)
}

/// Whether `program` is there and works.
fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A reply to an HTTP request: head and body.
struct HttpReply {
    head: String,
    body: Vec<u8>,
}

impl HttpReply {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim())
    }

    fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.head))
    }
}

/// One HTTP request on a connection of its own.
fn post(to: SocketAddrV4, path: &str, headers: &str, body: &str) -> Result<HttpReply, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        Ok(reply)
    };
    let reply = exchange().map_err(|error| format!("{to}: {error}"))?;
    let end = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or_else(|| format!("{to}: a reply without a head"))?;
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    Ok(HttpReply {
        head,
        body: reply[end + 4..].to_vec(),
    })
}

/// How long a client may take until it answers calls.
const START_LIMIT: Duration = Duration::from_secs(30);
