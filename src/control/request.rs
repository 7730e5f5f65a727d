//! What may be asked of a running peer, as one JSON object a line.
//!
//! ```text
//! {"v":1,"id":7,"command":"pause","torrent":"debian"}
//!    │      │          │             └ what the command is about
//!    │      │          └ see `Command`
//!    │      └ goes back with the answer; may be left out
//!    └ version of this language
//! ```
//!
//! Both ends use this: [`Request::to_line`] is what `evpeer ctl` sends, [`Request::parse`] is what
//! the peer reads.

use serde_json::{Map, Value, json};

use super::answer::Refusal;
use crate::base::limits::{
    NAME_LEN_MAX, PATTERN_LEN_MAX, RATE_LIMIT_MAX, RATE_LIMIT_MIN, TRACKER_URL_LEN_MAX,
    TRACKERS_MAX,
};
use crate::engine::HostPort;

/// One question or order.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Goes back with the answer: a number, a text, or null.
    pub id: Value,
    /// What is wanted.
    pub command: Command,
}

/// What a peer can be asked for. A torrent is named by its name, its info hash, or a beginning of
/// either that no other torrent here has. Lists come in pages: `from` is where one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// How the peer and its torrents are.
    Status {
        /// Torrents that are left out at the front.
        from: usize,
    },
    /// The connected peers of a torrent.
    Peers {
        /// Which.
        torrent: String,
        /// Peers that are left out at the front.
        from: usize,
    },
    /// The evpeers that are known to be there, whatever their torrents.
    Network {
        /// Hosts that are left out at the front.
        from: usize,
    },
    /// The files of a torrent.
    Files {
        /// Which.
        torrent: String,
        /// Files that are left out at the front.
        from: usize,
    },
    /// Want other files of a torrent, or in another order.
    Choose {
        /// Which torrent.
        torrent: String,
        /// What is wanted of it.
        choosing: Choosing,
    },
    /// The trackers of a torrent.
    Trackers {
        /// Which.
        torrent: String,
    },
    /// Why a torrent does not get on.
    Why {
        /// Which.
        torrent: String,
    },
    /// Take up a torrent.
    Add(Addition),
    /// Let go of a torrent; its data stays.
    Remove {
        /// Which.
        torrent: String,
    },
    /// Stop a torrent until it is resumed.
    Pause {
        /// Which.
        torrent: String,
    },
    /// Go on with a torrent that was paused or has failed.
    Resume {
        /// Which.
        torrent: String,
    },
    /// Limit rates, or say what the limits are.
    Limit(Limiting),
    /// End the process in good order.
    Shutdown,
}

/// Files of a torrent as patterns, see [`Pattern`](crate::meta::choice::Pattern). Where several
/// mean the same file the later list counts: skip, want, high.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choosing {
    /// Of a torrent that is taken up: nothing but these.
    pub only: Vec<String>,
    /// Not wanted.
    pub skip: Vec<String>,
    /// Wanted.
    pub want: Vec<String>,
    /// Wanted before others.
    pub high: Vec<String>,
    /// Whether pieces come in the order of the torrent; `None`: as it is.
    pub sequential: Option<bool>,
}

/// Limits of rate that are to hold from now on, bytes per second; 0 is none, `None`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limiting {
    /// For which torrent; `None`: for all together.
    pub torrent: Option<String>,
    /// Of what goes out.
    pub up: Option<u64>,
    /// Of what comes in.
    pub down: Option<u64>,
    /// Whether limits are for peers on the local network too: all limits, those of torrents too.
    pub local: Option<bool>,
}

impl Limiting {
    /// Whether it changes anything.
    fn is_order(&self) -> bool {
        self.up.is_some() || self.down.is_some() || self.local.is_some()
    }
}

/// A torrent that is to be taken up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// Path of a .torrent file, from the root.
    pub source: String,
    /// Peers to connect to.
    pub peers: Vec<HostPort>,
    /// Trackers beside those of the torrent.
    pub trackers: Vec<String>,
    /// Which of its files are wanted.
    pub choosing: Choosing,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no request, or none of this version. The id comes back if there is one.
    pub fn parse(line: &[u8]) -> Result<Self, (Value, Refusal)> {
        let nobody = Value::Null;
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => return Err((nobody, Refusal::Malformed(format!("no JSON: {error}")))),
        };
        let Value::Object(object) = value else {
            return Err((nobody, Refusal::Malformed("no JSON object".to_owned())));
        };
        let id = object.get("id").cloned().unwrap_or_default();
        let is_short = match &id {
            Value::Null | Value::Number(_) => true,
            Value::String(text) => text.len() <= ID_LEN_MAX,
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        };
        if !is_short {
            let text = format!("`id` is a number or a text of {ID_LEN_MAX} B at most");
            return Err((nobody, Refusal::Malformed(text)));
        }
        match read(&object) {
            Ok(command) => Ok(Self { id, command }),
            Err(refusal) => Err((id, refusal)),
        }
    }

    /// The request as a line, with its line feed.
    pub fn to_line(&self) -> String {
        let mut object = match &self.command {
            Command::Status { from } | Command::Network { from } => json!({ "from": from }),
            Command::Peers { torrent, from } | Command::Files { torrent, from } => {
                json!({ "torrent": torrent, "from": from })
            }
            Command::Trackers { torrent }
            | Command::Why { torrent }
            | Command::Remove { torrent }
            | Command::Pause { torrent }
            | Command::Resume { torrent } => json!({ "torrent": torrent }),
            Command::Add(addition) => {
                let peers = addition.peers.iter();
                let peers: Vec<Value> = peers
                    .map(|peer| json!({ "host": peer.host, "port": peer.port }))
                    .collect();
                let mut object = json!({
                    "source": addition.source,
                    "peers": peers,
                    "trackers": addition.trackers,
                });
                choosing_into(&addition.choosing, &mut object);
                object
            }
            Command::Choose { torrent, choosing } => {
                let mut object = json!({ "torrent": torrent });
                choosing_into(choosing, &mut object);
                object
            }
            Command::Limit(limiting) => json!({
                "torrent": limiting.torrent,
                "up_limit_bytes_s": limiting.up,
                "down_limit_bytes_s": limiting.down,
                "limit_local": limiting.local,
            }),
            Command::Shutdown => json!({}),
        };
        object["v"] = json!(VERSION);
        object["id"] = self.id.clone();
        object["command"] = json!(self.command.name());
        format!("{object}\n")
    }
}

impl Command {
    /// Whether it changes anything.
    pub fn is_order(&self) -> bool {
        match self {
            Self::Status { .. }
            | Self::Peers { .. }
            | Self::Network { .. }
            | Self::Files { .. }
            | Self::Trackers { .. }
            | Self::Why { .. } => false,
            Self::Limit(limiting) => limiting.is_order(),
            Self::Add(_)
            | Self::Choose { .. }
            | Self::Remove { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Shutdown => true,
        }
    }

    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Peers { .. } => "peers",
            Self::Network { .. } => "network",
            Self::Files { .. } => "files",
            Self::Choose { .. } => "choose",
            Self::Trackers { .. } => "trackers",
            Self::Why { .. } => "why",
            Self::Add(_) => "add",
            Self::Remove { .. } => "remove",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::Limit(_) => "limit",
            Self::Shutdown => "shutdown",
        }
    }
}

fn read(object: &Map<String, Value>) -> Result<Command, Refusal> {
    match object.get("v") {
        Some(version) if *version == VERSION => {}
        Some(version) => return Err(Refusal::Version(version.to_string())),
        None => {
            return Err(Refusal::Malformed(
                "`v` is missing: the version, 1".to_owned(),
            ));
        }
    }
    let name = text(object, "command", ID_LEN_MAX)?;
    let from = || match object.get("from") {
        None | Some(Value::Null) => Ok(0),
        Some(from) => {
            let from = from.as_u64().and_then(|from| usize::try_from(from).ok());
            from.ok_or_else(|| wrong("from", "a number, 0 or more"))
        }
    };
    let torrent = || text(object, "torrent", NAME_LEN_MAX);
    Ok(match name.as_str() {
        "status" => Command::Status { from: from()? },
        "network" => Command::Network { from: from()? },
        "peers" => Command::Peers {
            torrent: torrent()?,
            from: from()?,
        },
        "files" => Command::Files {
            torrent: torrent()?,
            from: from()?,
        },
        "choose" => Command::Choose {
            torrent: torrent()?,
            choosing: choosing(object)?,
        },
        "trackers" => Command::Trackers {
            torrent: torrent()?,
        },
        "why" => Command::Why {
            torrent: torrent()?,
        },
        "add" => Command::Add(addition(object)?),
        "remove" => Command::Remove {
            torrent: torrent()?,
        },
        "pause" => Command::Pause {
            torrent: torrent()?,
        },
        "resume" => Command::Resume {
            torrent: torrent()?,
        },
        "limit" => Command::Limit(limiting(object)?),
        "shutdown" => Command::Shutdown,
        _ => return Err(Refusal::UnknownCommand(name)),
    })
}

fn limiting(object: &Map<String, Value>) -> Result<Limiting, Refusal> {
    let given = |key: &str| object.get(key).filter(|value| !value.is_null());
    let torrent = given("torrent").map(|_| text(object, "torrent", NAME_LEN_MAX));
    let rate = |key| {
        let kept = |rate: &u64| *rate == 0 || (RATE_LIMIT_MIN..=RATE_LIMIT_MAX).contains(rate);
        let rate = given(key).map(|rate| rate.as_u64().filter(kept));
        let text = "bytes a second, 1024 to 2^40, or 0 for no limit";
        rate.map(|rate| rate.ok_or_else(|| wrong(key, text)))
            .transpose()
    };
    let local = given("limit_local").map(|local| {
        let is_of_all = given("torrent").is_none();
        let local = local.as_bool().filter(|_| is_of_all);
        local.ok_or_else(|| wrong("limit_local", "true or false, and without a torrent"))
    });
    Ok(Limiting {
        torrent: torrent.transpose()?,
        up: rate("up_limit_bytes_s")?,
        down: rate("down_limit_bytes_s")?,
        local: local.transpose()?,
    })
}

fn addition(object: &Map<String, Value>) -> Result<Addition, Refusal> {
    let source = text(object, "source", PATH_LEN_MAX)?;
    let peers = list(object, "peers")?.iter().map(host_port);
    let trackers = list(object, "trackers")?.iter().map(|url| {
        let url = url.as_str().filter(|url| url.len() <= TRACKER_URL_LEN_MAX);
        let url = url.ok_or_else(|| wrong("trackers", "a list of addresses"))?;
        Ok(url.to_owned())
    });
    Ok(Addition {
        source,
        peers: peers.collect::<Result<_, Refusal>>()?,
        trackers: trackers.collect::<Result<_, Refusal>>()?,
        choosing: choosing(object)?,
    })
}

fn choosing_into(choosing: &Choosing, object: &mut Value) {
    object["only"] = json!(choosing.only);
    object["skip"] = json!(choosing.skip);
    object["want"] = json!(choosing.want);
    object["high"] = json!(choosing.high);
    object["sequential"] = json!(choosing.sequential);
}

fn choosing(object: &Map<String, Value>) -> Result<Choosing, Refusal> {
    let patterns = |key: &'static str| {
        let patterns = list(object, key)?.iter().map(|pattern| {
            let pattern = pattern.as_str().filter(|p| p.len() <= PATTERN_LEN_MAX);
            let pattern = pattern.ok_or_else(|| wrong(key, "a list of globs or numbers"))?;
            Ok(pattern.to_owned())
        });
        patterns.collect::<Result<Vec<String>, Refusal>>()
    };
    let sequential = object.get("sequential").filter(|value| !value.is_null());
    let sequential = sequential.map(|value| {
        let value = value.as_bool();
        value.ok_or_else(|| wrong("sequential", "true or false"))
    });
    Ok(Choosing {
        only: patterns("only")?,
        skip: patterns("skip")?,
        want: patterns("want")?,
        high: patterns("high")?,
        sequential: sequential.transpose()?,
    })
}

fn host_port(value: &Value) -> Result<HostPort, Refusal> {
    let host = value["host"].as_str();
    let host = host.filter(|host| !host.is_empty() && host.len() <= NAME_LEN_MAX);
    let port = value["port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    match (host, port) {
        (Some(host), Some(port)) if port != 0 => Ok(HostPort {
            host: host.to_owned(),
            port,
        }),
        _ => Err(wrong("peers", "a list of objects with `host` and `port`")),
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &'static str) -> Result<&'a [Value], Refusal> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) if list.len() <= TRACKERS_MAX => Ok(list),
        Some(_) => Err(wrong(key, "a list of 100 at most")),
    }
}

fn text(object: &Map<String, Value>, key: &str, len_max: usize) -> Result<String, Refusal> {
    let text = object.get(key).and_then(Value::as_str);
    match text.filter(|text| !text.is_empty() && text.len() <= len_max) {
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong(key, "a text that is neither empty nor too long")),
    }
}

fn wrong(key: &str, expected: &str) -> Refusal {
    Refusal::Malformed(format!("`{key}` shall be {expected}"))
}

/// Version of the language.
pub const VERSION: u64 = 1;
/// Longest id and longest name of a command, bytes.
const ID_LEN_MAX: usize = 64;
/// Longest path of a source, bytes (Linux: PATH_MAX).
const PATH_LEN_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn all_commands() -> Vec<Command> {
        let torrent = || "a \"b\" ü".to_owned();
        let peer = HostPort {
            host: "fe80::1".to_owned(),
            port: 6881,
        };
        vec![
            Command::Status { from: 0 },
            Command::Peers {
                torrent: torrent(),
                from: 7,
            },
            Command::Network { from: 3 },
            Command::Files {
                torrent: torrent(),
                from: usize::MAX,
            },
            Command::Trackers { torrent: torrent() },
            Command::Why { torrent: torrent() },
            Command::Add(Addition {
                source: "/a b.torrent".to_owned(),
                peers: vec![peer],
                trackers: vec!["http://h/a".to_owned()],
                choosing: Choosing {
                    only: vec!["*.iso".to_owned()],
                    sequential: Some(true),
                    ..Choosing::default()
                },
            }),
            Command::Choose {
                torrent: torrent(),
                choosing: Choosing {
                    only: Vec::new(),
                    skip: vec!["1,3-5".to_owned(), "ü \"*".to_owned()],
                    want: vec!["2".to_owned()],
                    high: vec!["docs/**".to_owned()],
                    sequential: None,
                },
            },
            Command::Remove { torrent: torrent() },
            Command::Pause { torrent: torrent() },
            Command::Resume { torrent: torrent() },
            Command::Limit(Limiting::default()),
            Command::Limit(Limiting {
                torrent: Some(torrent()),
                up: Some(0),
                down: Some(RATE_LIMIT_MAX),
                local: None,
            }),
            Command::Limit(Limiting {
                local: Some(false),
                ..Limiting::default()
            }),
            Command::Shutdown,
        ]
    }

    #[test]
    fn every_request_is_read_as_it_was_written() {
        for command in all_commands() {
            for id in [Value::Null, json!(7), json!("x")] {
                let request = Request {
                    id,
                    command: command.clone(),
                };
                let line = request.to_line();
                let line = line.strip_suffix('\n').expect("a whole line");
                assert!(!line.contains('\n'), "{line}");
                assert_eq!(Request::parse(line.as_bytes()), Ok(request));
            }
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let deep = "[".repeat(100_000);
        let long = format!(
            r#"{{"v":1,"command":"why","torrent":"{}"}}"#,
            "x".repeat(300)
        );
        #[rustfmt::skip]
        let rows = [
            // line                                                  reason
            ("",                                                     "no JSON"),
            ("status",                                               "no JSON"),
            ("\u{0}\u{1}",                                           "no JSON"),
            ("[]",                                                   "no JSON object"),
            ("{}",                                                   "`v` is missing"),
            (r#"{"v":2,"command":"status"}"#,                        "version 2"),
            (r#"{"v":"1","command":"status"}"#,                      "version \"1\""),
            (r#"{"v":1}"#,                                           "`command`"),
            (r#"{"v":1,"command":["status"]}"#,                      "`command`"),
            (r#"{"v":1,"command":"dance"}"#,                         "dance"),
            (r#"{"v":1,"command":"status","from":-1}"#,              "`from`"),
            (r#"{"v":1,"command":"status","id":{}}"#,                "`id`"),
            (r#"{"v":1,"command":"pause"}"#,                         "`torrent`"),
            (r#"{"v":1,"command":"pause","torrent":""}"#,            "`torrent`"),
            (r#"{"v":1,"command":"add"}"#,                           "`source`"),
            (r#"{"v":1,"command":"add","source":"x","peers":[1]}"#,  "`peers`"),
            (r#"{"v":1,"command":"add","source":"x","peers":[{"host":"h","port":0}]}"#, "`peers`"),
            (r#"{"v":1,"command":"add","source":"x","trackers":1}"#, "`trackers`"),
            (r#"{"v":1,"command":"limit","up_limit_bytes_s":1}"#,    "`up_limit_bytes_s`"),
            (r#"{"v":1,"command":"limit","up_limit_bytes_s":"1k"}"#, "`up_limit_bytes_s`"),
            (r#"{"v":1,"command":"limit","down_limit_bytes_s":-1}"#, "`down_limit_bytes_s`"),
            (r#"{"v":1,"command":"limit","down_limit_bytes_s":1e30}"#, "`down_limit_bytes_s`"),
            (r#"{"v":1,"command":"limit","limit_local":1}"#,         "`limit_local`"),
            (r#"{"v":1,"command":"limit","torrent":""}"#,            "`torrent`"),
            (r#"{"v":1,"command":"limit","torrent":"x","limit_local":true}"#, "`limit_local`"),
            (deep.as_str(),                                          "no JSON"),
            (long.as_str(),                                          "`torrent`"),
        ];
        for (line, reason) in rows {
            let (_, refusal) = Request::parse(line.as_bytes()).expect_err(line);
            assert!(refusal.to_string().contains(reason), "{line}: {refusal}");
        }
    }

    #[test]
    fn random_bytes_are_no_request_and_no_panic() {
        let mut rng = Rng::new(5);
        let whole = Request {
            id: json!(1),
            command: all_commands().swap_remove(6),
        };
        let whole = whole.to_line().into_bytes();
        for _ in 0..5000 {
            let mut line = whole.clone();
            for _ in 0..=rng.below(4) {
                let place = rng.below(line.len() as u32) as usize;
                line[place] = rng.next_u64() as u8;
            }
            line.truncate(rng.below(line.len() as u32 + 1) as usize);
            let _ = Request::parse(&line);
        }
    }
}
