//! The command line as types: what clap reads, checks and documents.
//!
//! Only what works is listed here; clap refuses everything else as unknown. Doc comments are the
//! help texts, so they speak to the user and end without a full stop.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::choosing::ChoosingArgs;
use super::ctl::args::CtlArgs;
use super::units;
use crate::base::limits::{BLOCK_LEN, PIECE_LEN_MAX};
use crate::config::session::Given;
use crate::config::{Goal, StorageKind};
use crate::engine::HostPort;
use crate::sim::chance::Cut;

/// Share files with many hosts at once: a BitTorrent peer in one binary, on one port
///
/// Without a command, evpeer joins the swarms of the given torrents: it checks what is already
/// in the output folder, downloads what is missing, verifies it and seeds it until it is stopped.
#[derive(Debug, Parser)]
#[command(
    name = "evpeer",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = EXAMPLES
)]
pub struct CommandLine {
    /// What to do instead of running a peer.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What a running peer is told.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Everything but running a peer.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Share a file or folder with other hosts: seed it, be its tracker, say what to type there
    Share(ShareArgs),
    /// Make a .torrent of a file or folder
    Create(CreateArgs),
    /// Print what a .torrent or a magnet link says
    Show(ShowArgs),
    /// Check data against a .torrent; exit code 0 only when every piece is right
    Verify(VerifyArgs),
    /// Tell in advance how long a swarm takes: the same engine, in virtual time
    Simulate(SimulateArgs),
    /// Search evpeer itself for faults: random swarms in virtual time in which much goes wrong
    Soak(SoakArgs),
    /// Ask a running peer, or give it orders
    Ctl(CtlArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
}

/// What a peer without a command is told.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The same as --torrent
    #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
    pub sources: Vec<PathBuf>,
    /// A .torrent file, a folder of them, or the http:// address of one; repeatable
    #[arg(short, long = "torrent", value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub torrents: Vec<PathBuf>,
    /// Where data is read from and written to
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Where the session is kept [default: .evpeer in the output folder]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Take up .torrent files that appear in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub watch: Option<PathBuf>,
    /// One more tracker for every torrent of this command; repeatable
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Which files of its torrents are wanted.
    #[command(flatten)]
    pub choosing: ChoosingArgs,
    /// Leave with exit code 0 when all torrents are complete and durable on disk, as far as their
    /// files are wanted
    #[arg(long, conflicts_with = "until_swarm_complete")]
    pub exit_on_complete: bool,
    /// Leave with exit code 0 when, beside that, every peer that is known in their swarms has
    /// everything; not before anybody else was there
    #[arg(long)]
    pub until_swarm_complete: bool,
    /// What every running peer is told.
    #[command(flatten)]
    pub peer: PeerArgs,
}

impl RunArgs {
    /// All that is to be run, in the order given; options before positions.
    pub fn all_sources(&self) -> impl Iterator<Item = &PathBuf> {
        self.torrents.iter().chain(&self.sources)
    }
}

/// Options of a running peer, whatever it runs.
#[derive(Args, Debug)]
pub struct PeerArgs {
    /// The one port of this peer, TCP and UDP; 0 takes any free one [default: 6881]
    #[arg(short, long, value_name = "N")]
    pub port: Option<u16>,
    /// A peer to connect to, for every torrent of this command; repeatable
    #[arg(long = "peer", value_name = "HOST:PORT", value_parser = PeerAddress::parse)]
    pub peers: Vec<PeerAddress>,
    /// Listen and connect from this address [default: all, IPv4 and IPv6]
    #[arg(long, value_name = "ADDR")]
    pub bind: Option<IpAddr>,
    /// Be the tracker of any swarm that is announced here, with or without torrents of its own
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub open_tracker: Option<bool>,
    /// Connections over all torrents [default: 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_peers: Option<u32>,
    /// Torrents that download at a time, the others wait for their turn; 0: no bound
    /// [default: 0]
    #[arg(long, value_name = "N")]
    pub max_active: Option<u32>,
    /// Pause a torrent when it has sent so many times its size, such as 1.5; never: do not
    /// [default: never]
    #[arg(long, value_name = "RATIO", value_parser = units::parse_ratio)]
    pub seed_ratio: Option<Goal>,
    /// Pause a torrent when it was seeded for so long, such as 90s, 5m or 12h; never: do not
    /// [default: never]
    #[arg(long, value_name = "TIME", value_parser = units::parse_seed_time)]
    pub seed_time: Option<Goal>,
    /// Bytes a second sent to all peers at most, such as 10MiB or 500k; 0: no limit
    #[arg(long, value_name = "RATE", value_parser = units::parse_limit)]
    pub up_limit: Option<u64>,
    /// Bytes a second received from all peers at most; 0: no limit
    #[arg(long, value_name = "RATE", value_parser = units::parse_limit)]
    pub down_limit: Option<u64>,
    /// Whether the limits are for peers on the local network too [default: yes]
    #[arg(long, value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub limit_local: Option<bool>,
    /// How pieces are written [default: auto]
    #[arg(long, value_name = "HOW", value_enum)]
    pub storage: Option<StorageChoice>,
    /// Ask no tracker
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub no_tracker: Option<bool>,
    /// Do not look for peers on the local network
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub no_lsd: Option<bool>,
    /// Do not exchange addresses of peers with peers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub no_pex: Option<bool>,
    /// Do not use the distributed hash table
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub no_dht: Option<bool>,
    /// How much is said, and where.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// Print progress as one JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl PeerArgs {
    /// What of the settings of a peer these options name.
    pub fn given(&self) -> Given {
        let not = |flag: Option<bool>| flag.map(|flag| !flag);
        Given {
            port: self.port,
            bind: self.bind,
            conns_max: self.max_peers,
            trackers: not(self.no_tracker),
            open_tracker: self.open_tracker,
            lsd: not(self.no_lsd),
            pex: not(self.no_pex),
            storage: self.storage.map(Into::into),
            max_active: self.max_active,
            seed_ratio: self.seed_ratio,
            seed_time: self.seed_time,
            up_limit: self.up_limit,
            down_limit: self.down_limit,
            limit_local: self.limit_local,
        }
    }

    /// The peers to connect to.
    pub fn host_ports(&self) -> Vec<HostPort> {
        let host_port = |peer: &PeerAddress| HostPort {
            host: peer.host.clone(),
            port: peer.port,
        };
        self.peers.iter().map(host_port).collect()
    }
}

/// Options of `share`.
#[derive(Args, Debug)]
pub struct ShareArgs {
    /// The file or folder to share; it stays where it is, and is only read
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// What the .torrent says.
    #[command(flatten)]
    pub torrent: TorrentArgs,
    /// Also write the .torrent to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub save: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "save")]
    pub force: bool,
    /// What every running peer is told.
    #[command(flatten)]
    pub peer: PeerArgs,
}

/// Options of `create`.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The file or folder to make a .torrent of
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// The .torrent to write [default: the name of PATH and .torrent, in the current folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// What it says.
    #[command(flatten)]
    pub torrent: TorrentArgs,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    /// How much is said, and where.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// Print what was made as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a new .torrent says beside its data.
#[derive(Args, Debug)]
pub struct TorrentArgs {
    /// Where peers announce themselves; repeatable, each one a tier of its own
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Bytes a piece, such as 256KiB or 4MiB [default: chosen by the size of the data]
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_len)]
    pub piece_length: Option<u32>,
    /// Only the trackers of the .torrent may tell peers of each other
    #[arg(long)]
    pub private: bool,
    /// A text for people
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
}

/// Options of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// .torrent files and magnet links
    #[arg(value_name = "FILE|MAGNET", required = true, value_hint = ValueHint::FilePath)]
    pub inputs: Vec<PathBuf>,
    /// Print one JSON object a line for each input
    #[arg(long)]
    pub json: bool,
}

/// Options of `verify`.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// The same as --torrent
    #[arg(value_name = "FILE", required_unless_present = "torrents",
          value_hint = ValueHint::FilePath)]
    pub sources: Vec<PathBuf>,
    /// A .torrent file, or a folder of them; repeatable
    #[arg(short, long = "torrent", value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub torrents: Vec<PathBuf>,
    /// Where the data is
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// How much is said, and where.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// Print one JSON object a line for each torrent
    #[arg(long)]
    pub json: bool,
}

impl VerifyArgs {
    /// All that is to be verified, in the order given; options before positions.
    pub fn all_sources(&self) -> impl Iterator<Item = &PathBuf> {
        self.torrents.iter().chain(&self.sources)
    }
}

/// Options of `simulate`.
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// Hosts, those that have the data at the start among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub hosts: u32,
    /// The line of each host, such as 1Gbit or 125MB, or 100Mbit/1Gbit for up and down; given
    /// several times, hosts have these in turn
    #[arg(long, value_name = "RATE", required = true, value_parser = units::parse_line)]
    pub link: Vec<units::LineRates>,
    /// Bytes to be spread, such as 5GiB
    #[arg(long, value_name = "SIZE", value_parser = units::parse_len)]
    pub size: u64,
    /// Hosts that have the data at the start
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// Hosts that die on the way, each at a random moment
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub kill: u32,
    /// Racks that the hosts are dealt to in turn
    #[arg(long, value_name = "N", requires = "uplink",
          value_parser = clap::value_parser!(u32).range(2..))]
    pub racks: Option<u32>,
    /// What joins a rack to the others, each way
    #[arg(long, value_name = "RATE", requires = "racks", value_parser = units::parse_line_rate)]
    pub uplink: Option<u64>,
    /// Bytes a piece [default: as evpeer create chooses it]
    #[arg(long, value_name = "SIZE", value_parser = parse_piece_len)]
    pub piece_length: Option<u32>,
    /// Time from one host to another, microseconds
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub latency_us: u64,
    /// Other hosts that each is told of at the start
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(1..=500))]
    pub known: u32,
    /// Draw how many hosts are complete over time, as SVG
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub plot: Option<PathBuf>,
    /// Another number, another chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Options of `soak`.
#[derive(Args, Debug)]
pub struct SoakArgs {
    /// How long to search, such as 90s, 5m or 12h
    #[arg(long = "for", value_name = "TIME", default_value = "1m",
          value_parser = units::parse_time)]
    pub time: std::time::Duration,
    /// Runs side by side [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Begin with this one and go on upwards [default: one by chance]
    #[arg(long, value_name = "N", conflicts_with = "seed")]
    pub from: Option<u64>,
    /// Run only this one, and print its digest: the same everywhere
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// With --seed: only part of it, as a failure says it
    #[arg(long, value_name = "PART", default_value = "", requires = "seed")]
    pub only: Cut,
    /// Do not look for the least that still fails
    #[arg(long)]
    pub no_shrink: bool,
    /// With --seed: every event and every decision, as log lines on standard error
    #[arg(long, requires = "seed")]
    pub trace: bool,
}

/// How much is said on the way, and where.
#[derive(Args, Clone, Debug, Default)]
pub struct TalkArgs {
    /// Say only what went wrong
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more; -vv says everything
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Append log lines to this file instead of printing them on standard error
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub log_file: Option<PathBuf>,
}

/// Values of `--storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageChoice {
    /// Mapped files, and pwrite where they do not work
    Auto,
    /// Mapped files
    Map,
    /// Buffers that are written by pwrite
    Pwrite,
}

impl From<StorageChoice> for StorageKind {
    fn from(choice: StorageChoice) -> Self {
        match choice {
            StorageChoice::Auto => Self::Auto,
            StorageChoice::Map => Self::Map,
            StorageChoice::Pwrite => Self::Pwrite,
        }
    }
}

/// A peer as a user names it: a host that may need looking up, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Name or address; IPv6 addresses without their brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl PeerAddress {
    /// Reads `HOST:PORT`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// A text for the user that says what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = text
            .rsplit_once(':')
            .ok_or("the port is missing; write HOST:PORT, such as 10.0.0.5:6881")?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
                .ok_or("an IPv6 address is written like [fe80::1]:6881")?,
            None if host.contains(':') => {
                return Err("an IPv6 address is written like [fe80::1]:6881".into());
            }
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("the host is missing; write HOST:PORT, such as 10.0.0.5:6881".into());
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(format!("'{port}' is no port: a number from 1 to 65535")),
        }
    }
}

/// Reads a piece length that every client takes: a power of two, a block or more.
fn parse_piece_len(text: &str) -> Result<u32, String> {
    let len = units::parse_len(text)?;
    match u32::try_from(len) {
        Ok(len) if len.is_power_of_two() && (BLOCK_LEN..=PIECE_LEN_MAX).contains(&len) => Ok(len),
        _ => Err(format!(
            "a piece has a power of two of bytes, from {} to {}",
            units::show_len(BLOCK_LEN.into()),
            units::show_len(PIECE_LEN_MAX.into())
        )),
    }
}

const EXAMPLES: &str = "\
Examples:
  evpeer share ./data                             prints what to type on the other hosts
  evpeer create ./data --tracker http://10.0.0.1:6969/announce -o data.torrent
  evpeer -p 6881 -t data.torrent -o .             seed what is there, fetch what is missing
  evpeer -t data.torrent -o /srv --peer 10.0.0.1:6881 --exit-on-complete
  evpeer verify -t data.torrent -o /srv
  evpeer -o /srv                                  go on with what ran there before
  evpeer ctl -o /srv status                       ask the peer that runs there

Exit codes: 0 done, or stopped by SIGINT or SIGTERM in good order; 1 it failed while running;
2 unusable command line or input file: nothing was started, nothing written.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definition_has_no_contradictions() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_accepted_line_parses() {
        let cases = [
            "evpeer",
            "evpeer -p 6881 -t x.torrent",
            "evpeer -p0 -t x.torrent -t y.torrent -o out",
            "evpeer x.torrent",
            "evpeer --json --bind 127.0.0.1 -p 7000 -t x -o d --no-dht --no-lsd --peer 1.2.3.4:5",
            "evpeer -t x --peer [::1]:6881 --peer host.lan:1 --tracker http://h/announce",
            "evpeer -t x --no-tracker --no-lsd --no-pex --no-dht --exit-on-complete",
            "evpeer -t x --max-peers 1 --max-active 0 --storage pwrite -vv --log-file l",
            "evpeer -q -t x",
            "evpeer --open-tracker -p 6969",
            "evpeer -t http://10.0.0.1:6881/torrents/x.torrent",
            "evpeer share d -p 7000 --bind 10.0.0.1 --json --no-lsd --peer 1.2.3.4:5",
            "evpeer share d --tracker http://h/a --piece-length 1MiB --comment text --open-tracker",
            "evpeer share d --private --save x.torrent --force",
            "evpeer -t x --state-dir /var/lib/evpeer",
            "evpeer create d",
            "evpeer create d -o x.torrent --tracker http://a/a --tracker http://b/a --private",
            "evpeer create d --piece-length 1MiB --comment text --force --json -q",
            "evpeer show x.torrent magnet:?xt=urn:btih:00 --json",
            "evpeer verify -t x.torrent -o d",
            "evpeer verify x.torrent y.torrent --json",
            "evpeer simulate --hosts 200 --link 10Gbit --size 5GiB --seeds 1 --kill 3",
            "evpeer simulate --hosts 2 --link 125MB --size 1 --racks 2 --uplink 1M --plot x.svg",
            "evpeer simulate --hosts 9 --link 1Gbit --link 10Mbit/1Gbit --size 1",
            "evpeer soak --for 12h --jobs 8",
            "evpeer soak --for 5m --from 42",
            "evpeer soak --seed 7 --only hosts=3,faults=1.4",
            "evpeer x.torrent --only *.iso --only docs/** --sequential --exit-on-complete",
            "evpeer -o d --sequential=no",
            "evpeer ctl add x.torrent --only {a,b}.txt --sequential",
            "evpeer ctl files x --skip 1,3-5 --skip *.nfo --want 2 --high docs --sequential on",
            "evpeer -o d --state-dir s --no-lsd=no",
            "evpeer ctl status",
            "evpeer ctl -o d --json peers x y",
            "evpeer ctl peers --network --state-dir s",
            "evpeer ctl add x.torrent -o d --peer 1.2.3.4:5 --tracker http://h/a",
            "evpeer ctl pause --all",
            "evpeer ctl resume x",
            "evpeer ctl remove x y",
            "evpeer ctl files",
            "evpeer ctl trackers x",
            "evpeer ctl why",
            "evpeer ctl shutdown",
            "evpeer completions bash",
            "evpeer man",
        ];
        for line in cases {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn every_unusable_line_is_refused() {
        use ErrorKind::{
            ArgumentConflict, InvalidValue, MissingRequiredArgument, UnknownArgument,
            ValueValidation,
        };
        let cases = [
            // line                                            why
            ("evpeer -p 65536 -t x", ValueValidation),
            ("evpeer -p -1 -t x", UnknownArgument),
            ("evpeer -t x --peer host", ValueValidation),
            ("evpeer -t x --peer host:0", ValueValidation),
            ("evpeer -t x --peer :6881", ValueValidation),
            ("evpeer -t x --peer ::1:6881", ValueValidation),
            ("evpeer -t x --peer [x]:6881", ValueValidation),
            ("evpeer -t x --bind host", ValueValidation),
            ("evpeer -t x --max-peers 0", ValueValidation),
            ("evpeer -t x --max-active some", ValueValidation),
            ("evpeer -t x --max-active -1", UnknownArgument),
            ("evpeer -t x --storage tape", InvalidValue),
            ("evpeer -q -v -t x", ArgumentConflict),
            ("evpeer --seed-ratios 2 -t x", UnknownArgument),
            ("evpeer --watches d -t x", UnknownArgument),
            ("evpeer share", MissingRequiredArgument),
            ("evpeer share d e", UnknownArgument),
            ("evpeer share d -o e", UnknownArgument),
            ("evpeer share d --force", MissingRequiredArgument),
            ("evpeer create", MissingRequiredArgument),
            ("evpeer create d --piece-length 12q", ValueValidation),
            ("evpeer create d --piece-length 8KiB", ValueValidation),
            ("evpeer create d --piece-length 100000", ValueValidation),
            ("evpeer create d --piece-length 512MiB", ValueValidation),
            ("evpeer create d --piece-length 4GiB", ValueValidation),
            ("evpeer show", MissingRequiredArgument),
            ("evpeer verify -o d", MissingRequiredArgument),
            (
                "evpeer simulate --hosts 9 --size 1",
                MissingRequiredArgument,
            ),
            (
                "evpeer simulate --hosts 1 --link 1Gbit --size 1",
                ValueValidation,
            ),
            (
                "evpeer simulate --hosts 9 --link fast --size 1",
                ValueValidation,
            ),
            (
                "evpeer simulate --hosts 9 --link 1M --size 1 --racks 3",
                MissingRequiredArgument,
            ),
            ("evpeer soak --for ever", ValueValidation),
            ("evpeer soak --only hosts=3", MissingRequiredArgument),
            ("evpeer soak --from 3 --seed 4", ArgumentConflict),
            ("evpeer x.torrent --only [", ValueValidation),
            ("evpeer ctl files x --skip 3-1", ValueValidation),
            ("evpeer ctl files --skip 1", MissingRequiredArgument),
            ("evpeer share x --only y", UnknownArgument),
            ("evpeer soak --seed 1 --only host=3", ValueValidation),
            ("evpeer ctl pause", MissingRequiredArgument),
            ("evpeer ctl pause x --all", ArgumentConflict),
            ("evpeer ctl remove", MissingRequiredArgument),
            ("evpeer ctl remove x --data", UnknownArgument),
            ("evpeer ctl add", MissingRequiredArgument),
            ("evpeer ctl status x", UnknownArgument),
            ("evpeer --no-lsd=perhaps -t x", ValueValidation),
            ("evpeer completions", MissingRequiredArgument),
            ("evpeer completions cmd", InvalidValue),
        ];
        for (line, why) in cases {
            match parse(line) {
                Ok(parsed) => panic!("{line}: accepted as {parsed:?}"),
                Err(error) => assert_eq!(error.kind(), why, "{line}: {error}"),
            }
        }
    }

    #[test]
    fn options_reach_the_configuration() {
        let line = parse("evpeer -p 7 --bind ::1 --max-peers 9 --no-tracker --storage map -t x");
        let config = line.expect("parses").run.peer.given().config();
        assert_eq!(config.port, 7);
        assert_eq!(config.bind, Some("::1".parse().expect("an address")));
        assert_eq!(config.conns_max, 9);
        assert!(!config.trackers);
        assert_eq!(config.storage, StorageKind::Map);
        assert!(config.lsd && config.pex && !config.open_tracker);
        let line = parse("evpeer --no-lsd --no-pex --open-tracker").expect("parses");
        let config = line.run.peer.given().config();
        assert!(!config.lsd && !config.pex && config.open_tracker);
        let line = parse("evpeer --no-lsd=no --no-pex=yes x.torrent").expect("parses");
        let given = line.run.peer.given();
        assert_eq!(
            (given.lsd, given.pex, given.trackers),
            (Some(true), Some(false), None)
        );
        assert_eq!(
            (given.port, given.conns_max, given.storage),
            (None, None, None)
        );
    }

    #[test]
    fn peers_are_split_at_the_last_colon() {
        let address = PeerAddress::parse("[fe80::1]:6881").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("fe80::1", 6881));
        let address = PeerAddress::parse("host.lan:1").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("host.lan", 1));
    }
}
