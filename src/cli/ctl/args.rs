//! The command line of `evpeer ctl`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand, ValueHint};

use crate::cli::args::PeerAddress;
use crate::cli::choosing::ChoosingArgs;
use crate::cli::units;
use crate::meta::choice::Pattern;

/// Options of `ctl`.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// The output folder of the running peer
    #[arg(short, long, value_name = "DIR", default_value = ".", global = true,
          value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// Its state folder, if that is another than .evpeer in the output folder
    #[arg(long, value_name = "DIR", global = true, value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// What is wanted.
    #[command(subcommand)]
    pub order: Order,
}

/// What a running peer can be asked. A torrent is named by its name, its info hash, or a beginning
/// of either that no other torrent has.
#[derive(Debug, Subcommand)]
pub enum Order {
    /// How the peer and its torrents are
    Status,
    /// The connected peers of torrents, or all evpeers that are known to be there
    Peers {
        /// Only of these [default: all]
        #[arg(value_name = "TORRENT")]
        torrents: Vec<String>,
        /// The evpeers of the whole network, whatever their torrents
        #[arg(long, conflicts_with = "torrents")]
        network: bool,
    },
    /// Take up torrents
    Add {
        /// A .torrent file, a folder of them, or the http:// address of one
        #[arg(value_name = "SOURCE", required = true, value_hint = ValueHint::AnyPath)]
        sources: Vec<PathBuf>,
        /// A peer to connect to; repeatable
        #[arg(long = "peer", value_name = "HOST:PORT", value_parser = PeerAddress::parse)]
        peers: Vec<PeerAddress>,
        /// One more tracker; repeatable
        #[arg(long = "tracker", value_name = "URL")]
        trackers: Vec<String>,
        /// Which of their files are wanted.
        #[command(flatten)]
        choosing: ChoosingArgs,
    },
    /// Let go of torrents; their data stays
    Remove {
        /// Which
        #[arg(value_name = "TORRENT", required = true)]
        torrents: Vec<String>,
    },
    /// Stop torrents until they are resumed
    Pause(Chosen),
    /// Go on with torrents that were paused or have failed, or begin with queued ones at once
    Resume(Chosen),
    /// The files of torrents; want others of them, or some before others
    ///
    /// FILES are numbers as they are listed, such as 1,3-5, or a glob, such as '*.nfo' or
    /// 'docs/**': without a slash about the name of a file or folder, with one about the path, with
    /// or without the torrent's own folder. If a file is named twice, --high counts before --want,
    /// and that before --skip: `--skip '*' --want 3` wants file 3 alone. What was stored of a file
    /// that is skipped stays.
    Files {
        /// Only of these [default: all]
        #[arg(value_name = "TORRENT")]
        torrents: Vec<String>,
        /// Do not download these; repeatable
        #[arg(long, value_name = "FILES", value_parser = Pattern::numbers_or_glob,
              requires = "torrents")]
        skip: Vec<Pattern>,
        /// Download these; repeatable
        #[arg(long, value_name = "FILES", value_parser = Pattern::numbers_or_glob,
              requires = "torrents")]
        want: Vec<Pattern>,
        /// Download these before others; repeatable
        #[arg(long, value_name = "FILES", value_parser = Pattern::numbers_or_glob,
              requires = "torrents")]
        high: Vec<Pattern>,
        /// Ask for pieces in the order of the torrent, or again for the rarest first
        #[arg(long, value_name = "yes|no", value_parser = BoolishValueParser::new(),
              requires = "torrents")]
        sequential: Option<bool>,
    },
    /// The trackers of torrents
    Trackers {
        /// Only of these [default: all]
        #[arg(value_name = "TORRENT")]
        torrents: Vec<String>,
    },
    /// Why torrents do not get on
    Why {
        /// Only these [default: all]
        #[arg(value_name = "TORRENT")]
        torrents: Vec<String>,
    },
    /// Limit rates from now on, or show the limits
    Limit {
        /// Limit these, each by itself [default: all together]
        #[arg(value_name = "TORRENT")]
        torrents: Vec<String>,
        /// Bytes a second that are sent at most, such as 10MiB or 500k; 0: no limit
        #[arg(long, value_name = "RATE", value_parser = units::parse_limit)]
        up: Option<u64>,
        /// Bytes a second that are received at most; 0: no limit
        #[arg(long, value_name = "RATE", value_parser = units::parse_limit)]
        down: Option<u64>,
        /// Whether limits are for peers on the local network too
        #[arg(long, value_name = "yes|no", value_parser = BoolishValueParser::new(),
              conflicts_with = "torrents")]
        local: Option<bool>,
    },
    /// End the peer in good order
    Shutdown,
}

/// Torrents that were named, or all.
#[derive(Args, Debug)]
pub struct Chosen {
    /// Which
    #[arg(value_name = "TORRENT", required_unless_present = "all")]
    pub torrents: Vec<String>,
    /// All torrents
    #[arg(long, conflicts_with = "torrents")]
    pub all: bool,
}
