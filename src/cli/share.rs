//! `evpeer share`: makes a torrent of what lies here, is its seed and its tracker, and says what to
//! type on the other hosts.
//!
//! The port is opened before the first byte is hashed: a port that is not to be had is told at
//! once, and the addresses in the torrent are those that are open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::args::ShareArgs;
use super::create::hashing::Hashing;
use super::create::new_file::{Existing, NewFile};
use super::create::walk::{Tree, walk};
use super::create::{quoted, refuse_output_inside};
use super::error::CliError;
use super::meter::Meter;
use super::output::printable_path;
use super::progress::Progress;
use super::run::{Leave, Peer, announce_urls};
use super::source;
use crate::base::choice::Choice;
use crate::control::api;
use crate::engine::TorrentSpec;
use crate::meta::metainfo::Metainfo;
use crate::reactor::{Reactor, ReactorOptions};
use crate::storage::Access;

/// Shares what `args` name until it is stopped.
///
/// # Errors
/// Nothing was started (exit code 2, or 1 for a port that cannot be opened), the data changed
/// while it was hashed, or it cannot be read any more.
pub fn share(args: &ShareArgs) -> Result<ExitCode, CliError> {
    let progress = Progress::new(&args.peer).map_err(CliError::NoThread)?;
    let meter = Meter::start_among(&args.peer.talk, progress.bars())?;
    for url in &args.torrent.trackers {
        source::refuse_malformed_tracker(url)?;
    }
    if args.torrent.private && args.save.is_none() {
        return Err(CliError::PrivateUnsaved);
    }
    let path = real_path(&args.path)?;
    let root = path.parent().unwrap_or(&path).to_owned();
    let tree = walk(&path)?;
    let place = match &args.save {
        Some(save) => {
            refuse_output_inside(save, &path, "--save")?;
            Some(NewFile::plan(save, Existing::of(args.force), "--save")?)
        }
        None => None,
    };
    let mut reactor = Reactor::new(ReactorOptions {
        config: args.peer.given().config(),
        root: root.clone(),
        access: Access::ReadOnly,
        state_dir: None,
        watch_signals: true,
    })?;
    let Some(bytes) = hash(&tree, &path, args, &meter, &mut reactor)? else {
        return Ok(ExitCode::SUCCESS); // stopped before there was anything to end
    };
    if let Some(place) = place {
        place.write(&bytes)?;
    }
    let meta = Arc::new(Metainfo::from_bytes(&bytes).expect("what we make, we can read"));
    let offer = Offer::new(&meta, &reactor, args.save.as_deref());
    let mut peer = Peer::new(reactor, progress);
    if args.peer.open_tracker == Some(true) {
        peer.tell_tracker();
    }
    peer.add(TorrentSpec {
        meta: source::named_as_in(&root, &meta),
        peers: args.peer.host_ports(),
        trackers: Vec::new(), // all of them are in the torrent
        choice: Choice::default(),
    });
    peer.progress().tell(&offer.lines(), &offer.object(&meta));
    peer.expect_others();
    peer.run(Leave::WhenTold)
}

/// The bytes of the .torrent: the trackers of this host first. In between the loop has its turns;
/// `None` if a signal ended it.
fn hash(
    tree: &Tree,
    path: &Path,
    args: &ShareArgs,
    meter: &Meter,
    reactor: &mut Reactor,
) -> Result<Option<Vec<u8>>, CliError> {
    let mut trackers = announce_urls(reactor);
    trackers.extend(args.torrent.trackers.iter().cloned());
    let mut hashing = Hashing::start(tree, path, &args.torrent, trackers, meter)?;
    while hashing.step()? {
        reactor.turn(Duration::ZERO)?;
        if reactor.signals_seen() > 0 {
            return Ok(None);
        }
    }
    hashing.finish().map(Some)
}

/// The file or folder itself, with its own name and the folder in which it lies.
fn real_path(path: &Path) -> Result<PathBuf, CliError> {
    fs::canonicalize(path).map_err(|source| CliError::Unreadable {
        path: path.to_owned(),
        source,
        remedy: "check the path",
    })
}

/// What others need to join.
struct Offer {
    /// Where the .torrent is handed out, the best address first; none if it is private.
    urls: Vec<String>,
    /// Where it was saved.
    file: Option<String>,
}

impl Offer {
    fn new(meta: &Metainfo, reactor: &Reactor, saved: Option<&Path>) -> Self {
        let addresses = match meta.private {
            true => Vec::new(),
            false => reactor.addresses(),
        };
        let url = |address| format!("http://{address}/torrents/{}.torrent", meta.info_hash);
        Self {
            urls: addresses.into_iter().map(url).collect(),
            file: saved.map(printable_path),
        }
    }

    /// The lines that join, the best first.
    fn commands(&self) -> Vec<String> {
        let join = |source: &String| format!("evpeer -t {}", quoted(source));
        if self.urls.is_empty() {
            return self.file.iter().map(join).collect();
        }
        self.urls.iter().map(join).collect()
    }

    fn lines(&self) -> String {
        let commands = self.commands();
        let Some((best, others)) = commands.split_first() else {
            return "# this machine has no address that others could join by".into();
        };
        let mut lines = match (self.urls.is_empty(), &self.file) {
            (true, Some(file)) => {
                format!(
                    "# copy {} to the other hosts, and type there:\n{best}",
                    quoted(file)
                )
            }
            _ => format!("# type this on the other hosts:\n{best}"),
        };
        for command in others {
            lines += &format!("\n# or: {command}");
        }
        lines
    }

    fn object(&self, meta: &Metainfo) -> serde_json::Value {
        let commands = self.commands();
        let best = commands.first().map_or("", |best| best.as_str());
        api::share(meta, &self.urls, self.file.as_deref(), best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(urls: &[&str], file: Option<&str>) -> Offer {
        Offer {
            urls: urls.iter().map(ToString::to_string).collect(),
            file: file.map(Into::into),
        }
    }

    #[test]
    fn best_line_stands_alone_and_the_others_are_comments() {
        let both = offer(
            &["http://10.0.0.1:1/t", "http://[fd00::1]:1/t"],
            Some("x y"),
        );
        assert_eq!(
            both.lines(),
            "# type this on the other hosts:\n\
             evpeer -t http://10.0.0.1:1/t\n\
             # or: evpeer -t 'http://[fd00::1]:1/t'"
        );
        let private = offer(&[], Some("x y"));
        assert_eq!(
            private.lines(),
            "# copy 'x y' to the other hosts, and type there:\nevpeer -t 'x y'"
        );
        assert!(offer(&[], None).lines().starts_with("# this machine"));
    }
}
