//! Why a command ended without doing its work, and the exit code that says so.

use std::io;
use std::path::PathBuf;

use super::output::{printable, printable_path};
use super::units::show_len;
use crate::base::limits;
use crate::control::session::SessionError;
use crate::meta::choice::ChoiceError;
use crate::meta::create::CreateError;
use crate::meta::magnet::MagnetError;
use crate::meta::metainfo::MetainfoError;
use crate::meta::paths::SafePath;
use crate::reactor::{ReactorError, StartError};
use crate::storage::error::StorageError;
use crate::storage::state::StateError;

/// What a command stops at. Every text names the thing and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// `run` was given nothing to run.
    #[error(
        "nothing to run; name a .torrent file with -t FILE, share something with \
         evpeer share PATH, or be a tracker with --open-tracker (see evpeer --help)"
    )]
    NoSource,
    /// An input file cannot be opened or read.
    #[error("cannot read '{}': {source}; {remedy}", printable_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
        /// What the user can do.
        remedy: &'static str,
    },
    /// Something that is no regular file was given as a .torrent.
    #[error(
        "'{}' is {kind}, not a .torrent file; name the file itself",
        printable_path(path)
    )]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file is not what its name says.
    #[error(
        "'{}' is not a usable .torrent: {source}; get the file again",
        printable_path(path)
    )]
    NotATorrent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MetainfoError,
    },
    /// A file is larger than any .torrent that is read.
    #[error(
        "'{}' is larger than {}, the limit for .torrent files; is it the data? \
         evpeer create makes a .torrent of it",
        printable_path(path),
        show_len(limits::TORRENT_FILE_LEN_MAX)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A folder that was given as a source holds no .torrent.
    #[error(
        "no *.torrent in the folder '{}'; name the files with -t",
        printable_path(path)
    )]
    NoTorrentIn {
        /// The folder.
        path: PathBuf,
    },
    /// Something that a later version can do.
    #[error("'{}': {what}; {instead}", printable(input))]
    NotBuilt {
        /// What was given.
        input: String,
        /// Why it does not work.
        what: &'static str,
        /// What works.
        instead: &'static str,
    },
    /// A .torrent cannot be had from the web.
    #[error("cannot fetch '{}': {why}; {remedy}", printable(url))]
    NotFetched {
        /// The address.
        url: String,
        /// What went wrong.
        why: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// Nobody could get a private torrent that is shared.
    #[error(
        "a private torrent is not handed out over the network; \
         add --save FILE, and copy that file to the other hosts"
    )]
    PrivateUnsaved,
    /// The output folder cannot be used.
    #[error("output folder '{}' {why}; {remedy}", printable_path(path))]
    OutputFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What the user can do.
        remedy: String,
    },
    /// The folder that is to be watched cannot be.
    #[error(
        "cannot watch the folder '{}': {source}; name one that exists and can be read with --watch",
        printable_path(path)
    )]
    WatchFolder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The log file cannot be written.
    #[error(
        "cannot write the log file '{}': {source}; choose another with --log-file",
        printable_path(path)
    )]
    LogFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The .torrent to be written exists.
    #[error(
        "'{}' exists; choose another name with {option}, or replace it with --force",
        printable_path(path)
    )]
    OutputExists {
        /// The file.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// The .torrent to be written would be part of the data.
    #[error(
        "the output '{}' lies inside '{}' and would become part of the data; \
             choose a place outside with {option}",
        printable_path(output),
        printable_path(root)
    )]
    OutputInside {
        /// The output.
        output: PathBuf,
        /// The data.
        root: PathBuf,
        /// The option that names it.
        option: &'static str,
    },
    /// There are no bytes to share.
    #[error(
        "'{}' holds no data to share; name a file or folder that has some",
        printable_path(path)
    )]
    NoData {
        /// What was given.
        path: PathBuf,
    },
    /// A swarm that cannot be simulated.
    #[error("{what}; {remedy}")]
    NoSwarm {
        /// What does not fit together.
        what: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// The plot cannot be written.
    #[error(
        "cannot write the plot '{}': {why}; choose another with --plot",
        printable_path(path)
    )]
    Plot {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The simulation found a fault in evpeer.
    #[error("{0}")]
    Simulation(Box<crate::sim::Failure>),
    /// Something that cannot be part of a torrent.
    #[error("'{}' {why}", printable_path(path))]
    NotShareable {
        /// What was found.
        path: PathBuf,
        /// Why it cannot be shared, and what can.
        why: &'static str,
    },
    /// A name that a .torrent cannot carry.
    #[error(
        "the name of '{}' is not valid UTF-8, which a .torrent needs; rename it",
        printable_path(path)
    )]
    NotUtf8 {
        /// The file or folder.
        path: PathBuf,
    },
    /// Options and data that make no torrent.
    #[error(
        "cannot make a torrent of '{}': {source}; change the data or the options",
        printable_path(path)
    )]
    CannotCreate {
        /// The data.
        path: PathBuf,
        /// What is wrong with it.
        source: CreateError,
    },
    /// A file changed while it was hashed.
    #[error(
        "'{}' changed while it was read; run create again when nothing writes to it",
        printable_path(path)
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write '{}': {source}; {remedy}", printable_path(path))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A magnet link cannot be read.
    #[error(
        "'{}' is no usable magnet link: {source}; copy it again, in quotes",
        printable(input)
    )]
    NotAMagnet {
        /// The link.
        input: String,
        /// What is wrong with it.
        source: MagnetError,
    },
    /// A tracker's address cannot be used.
    #[error("tracker '{}': {why}", printable(url))]
    BadTracker {
        /// The address.
        url: String,
        /// What is wrong with it, and what is not.
        why: String,
    },
    /// The state folder cannot be used, or another process uses it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The session cannot be read by this version.
    #[error(
        "the session '{}' cannot be taken up: {source}; use that version, or another folder with \
         --state-dir",
        printable_path(path)
    )]
    NewerSession {
        /// The session.
        path: PathBuf,
        /// What is wrong with it.
        source: SessionError,
    },
    /// No peer serves a control socket there.
    #[error(
        "no peer answers at {tried}; start one with evpeer -o DIR, or say where it runs with \
             -o DIR or --state-dir DIR"
    )]
    NoPeer {
        /// Sockets that were tried, and what the system said.
        tried: String,
    },
    /// The running peer does not do what it was asked.
    #[error("{0}")]
    Refused(String),
    /// The running peer does not speak as it should.
    #[error("the peer gives no usable answer: {0}; is it of the same version?")]
    NoAnswer(String),
    /// The peer cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Two torrents of this command have a file in common.
    #[error(
        "torrents '{}' and '{}' both have the file {path}; run them with different folders (-o)",
        printable(name),
        printable(other)
    )]
    SamePath {
        /// The name of the second.
        name: String,
        /// The name of the first.
        other: String,
        /// The file.
        path: SafePath,
    },
    /// Files of a torrent are chosen that it does not have.
    #[error("{}", printable(&.0.to_string()))]
    Choice(#[from] ChoiceError),
    /// The loop cannot go on.
    #[error(transparent)]
    Loop(#[from] ReactorError),
    /// The system has no thread to spare.
    #[error("the system refuses a thread: {0}; raise the limit on processes")]
    NoThread(io::Error),
    /// A torrent of a running peer cannot go on.
    #[error("torrent '{}' stopped: {reason}", printable(name))]
    TorrentFailed {
        /// Its name.
        name: String,
        /// What storage said, with the file and the remedy.
        reason: String,
    },
    /// The last sync did not end in time.
    #[error("the disk did not take everything in time; the next start checks what is there")]
    NotSynced,
    /// The data of a torrent cannot be read.
    #[error("torrent '{}' cannot be verified: {source}", printable(name))]
    DataUnreadable {
        /// Its name.
        name: String,
        /// What storage said, with the file and the remedy.
        source: StorageError,
    },
    /// Standard output does not take what the command prints.
    #[error("cannot write to standard output: {0}; check what it is connected to")]
    Stdout(io::Error),
}

impl CliError {
    /// 2 for an unusable command line or input, where nothing was started; 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoSource
            | Self::Unreadable { .. }
            | Self::NotAFile { .. }
            | Self::NotATorrent { .. }
            | Self::TooLong { .. }
            | Self::NoTorrentIn { .. }
            | Self::NotBuilt { .. }
            | Self::NotFetched { .. }
            | Self::PrivateUnsaved
            | Self::OutputFolder { .. }
            | Self::WatchFolder { .. }
            | Self::LogFile { .. }
            | Self::OutputExists { .. }
            | Self::OutputInside { .. }
            | Self::NoData { .. }
            | Self::NotShareable { .. }
            | Self::NotUtf8 { .. }
            | Self::CannotCreate { .. }
            | Self::NotAMagnet { .. }
            | Self::NoSwarm { .. }
            | Self::NewerSession { .. }
            | Self::SamePath { .. }
            | Self::Choice(_)
            | Self::BadTracker { .. } => 2,
            Self::Changed { .. }
            | Self::Unwritable { .. }
            | Self::State(_)
            | Self::NoPeer { .. }
            | Self::Refused(_)
            | Self::NoAnswer(_)
            | Self::Start(_)
            | Self::Loop(_)
            | Self::NoThread(_)
            | Self::TorrentFailed { .. }
            | Self::NotSynced
            | Self::DataUnreadable { .. }
            | Self::Plot { .. }
            | Self::Simulation(_)
            | Self::Stdout(_) => 1,
        }
    }
}
