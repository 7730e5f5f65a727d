//! `evpeer ctl`: asks a running peer through its control socket, and shows what it says.

pub mod args;
mod client;
mod show;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use self::args::{CtlArgs, Order};
use self::client::Client;
use super::args::PeerAddress;
use super::choosing::ChoosingArgs;
use super::error::CliError;
use super::keeping;
use super::output::{print, print_error};
use super::source::{self, Source};
use crate::control::request::{Addition, Choosing, Command, Limiting};
use crate::engine::HostPort;
use crate::meta::choice::Pattern;
use crate::storage::keep::torrent_path;
use crate::storage::state;

/// Does what `args` ask for.
///
/// # Errors
/// No peer answers, or it refuses.
pub fn ctl(args: &CtlArgs) -> Result<ExitCode, CliError> {
    let places = keeping::places(&args.output, args.state_dir.as_deref());
    let additions = match &args.order {
        Order::Add {
            sources, trackers, ..
        } => {
            source::refuse_unusable_trackers(trackers)?;
            source::read_all(sources.iter(), None)?
        }
        _ => Vec::new(),
    };
    let mut session = Session {
        client: Client::connect(&places)?,
        is_json: args.json,
        failures: 0,
    };
    session.run(&args.order, &additions)?;
    Ok(ExitCode::from(u8::from(session.failures > 0)))
}

fn texts(patterns: &[Pattern]) -> Vec<String> {
    let texts = patterns.iter().map(|pattern| pattern.text().to_owned());
    texts.collect()
}

/// One run of the command.
struct Session {
    client: Client,
    is_json: bool,
    /// Torrents for which the peer refused something.
    failures: u32,
}

impl Session {
    fn run(&mut self, order: &Order, additions: &[Source]) -> Result<(), CliError> {
        match order {
            Order::Status => {
                let status = self.status()?;
                self.show(&status, show::status)
            }
            Order::Peers { network: true, .. } => {
                let network = |from| Command::Network { from };
                let network = self.client.ask_all("network", network)?;
                self.show(&network, show::network)
            }
            Order::Peers { torrents, .. } => self.each(torrents, show::peers, |client, torrent| {
                let peers = |from| Command::Peers {
                    torrent: torrent.clone(),
                    from,
                };
                client.ask_all("peers", peers)
            }),
            Order::Files {
                torrents,
                skip,
                want,
                high,
                sequential,
            } => {
                let choosing = Choosing {
                    only: Vec::new(),
                    skip: texts(skip),
                    want: texts(want),
                    high: texts(high),
                    sequential: *sequential,
                };
                self.files(torrents, &choosing)
            }
            Order::Trackers { torrents } => {
                let trackers = |torrent| Command::Trackers { torrent };
                self.each(torrents, show::trackers, |client, t| {
                    client.ask(trackers(t))
                })
            }
            Order::Why { torrents } => {
                let why = |torrent| Command::Why { torrent };
                self.each(torrents, show::why, |client, t| client.ask(why(t)))
            }
            Order::Remove { torrents } => {
                let remove = |torrent| Command::Remove { torrent };
                self.each(torrents, show::state, |client, t| client.ask(remove(t)))
            }
            Order::Pause(chosen) => {
                let pause = |torrent| Command::Pause { torrent };
                self.each(&chosen.torrents, show::state, |client, t| {
                    client.ask(pause(t))
                })
            }
            Order::Resume(chosen) => {
                let resume = |torrent| Command::Resume { torrent };
                self.each(&chosen.torrents, show::state, |client, t| {
                    client.ask(resume(t))
                })
            }
            Order::Limit {
                torrents,
                up,
                down,
                local,
            } => {
                let limiting = |torrent| {
                    Command::Limit(Limiting {
                        torrent,
                        up: *up,
                        down: *down,
                        local: *local,
                    })
                };
                if torrents.is_empty() {
                    let answer = self.client.ask(limiting(None))?;
                    return self.show(&answer, show::limits);
                }
                self.each(torrents, show::torrent_limits, |client, torrent| {
                    client.ask(limiting(Some(torrent)))
                })
            }
            Order::Add {
                peers,
                trackers,
                choosing,
                ..
            } => self.add(additions, peers, trackers, choosing),
            Order::Shutdown => {
                let answer = self.client.ask(Command::Shutdown)?;
                self.show(&answer, |_| "the peer stops in good order\n".to_owned())
            }
        }
    }

    fn status(&mut self) -> Result<Value, CliError> {
        self.client
            .ask_all("torrents", |from| Command::Status { from })
    }

    /// Shows the files of torrents, after others of them are wanted if anything is chosen.
    fn files(&mut self, torrents: &[String], choosing: &Choosing) -> Result<(), CliError> {
        self.each(torrents, show::files, |client, torrent| {
            if *choosing != Choosing::default() {
                client.ask(Command::Choose {
                    torrent: torrent.clone(),
                    choosing: choosing.clone(),
                })?;
            }
            let files = |from| Command::Files {
                torrent: torrent.clone(),
                from,
            };
            client.ask_all("files", files)
        })
    }

    /// Asks for each torrent that is named, or for all of them; one that the peer refuses does not
    /// hide the others.
    fn each(
        &mut self,
        named: &[String],
        text: fn(&Value) -> String,
        mut ask: impl FnMut(&mut Client, String) -> Result<Value, CliError>,
    ) -> Result<(), CliError> {
        let named = match named {
            [] => {
                let status = self.status()?;
                let torrents = status["torrents"].as_array().cloned().unwrap_or_default();
                let hash = |t: &Value| Some(t["info_hash"].as_str()?.to_owned());
                torrents.iter().filter_map(hash).collect()
            }
            named => named.to_vec(),
        };
        for torrent in named {
            let answer = ask(&mut self.client, torrent);
            self.show_or_count(answer, text)?;
        }
        Ok(())
    }

    /// Has torrents added. The peer reads files itself; what came from elsewhere, or has a name
    /// that JSON cannot carry, is put into its state folder first.
    fn add(
        &mut self,
        sources: &[Source],
        peers: &[PeerAddress],
        trackers: &[String],
        choosing: &ChoosingArgs,
    ) -> Result<(), CliError> {
        let status = self.client.ask(Command::Status { from: usize::MAX })?;
        let state_dir = status["state_dir"].as_str().unwrap_or_default().to_owned();
        let named = peers.iter().map(|peer| HostPort {
            host: peer.host.clone(),
            port: peer.port,
        });
        let named: Vec<HostPort> = named.collect();
        for source in sources {
            let path = match fs::canonicalize(&source.path) {
                Ok(path) if path.to_str().is_some() => path,
                Ok(_) | Err(_) => {
                    let path = torrent_path(Path::new(&state_dir), source.meta.info_hash);
                    let text = source.meta.text().expect("it was read a moment ago");
                    state::replace(&path, text.source())?;
                    path
                }
            };
            let addition = Addition {
                source: path.to_string_lossy().into_owned(),
                peers: [named.clone(), source.peers.clone()].concat(),
                trackers: trackers.to_vec(),
                choosing: Choosing {
                    only: choosing.globs(),
                    sequential: choosing.sequential,
                    ..Choosing::default()
                },
            };
            let answer = self.client.ask(Command::Add(addition));
            self.show_or_count(answer, show::state)?;
        }
        Ok(())
    }

    fn show_or_count(
        &mut self,
        answer: Result<Value, CliError>,
        text: fn(&Value) -> String,
    ) -> Result<(), CliError> {
        match answer {
            Ok(answer) => self.show(&answer, text),
            Err(error @ CliError::Refused(_)) => {
                self.failures += 1;
                print_error(&format!("error: {error}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn show(&self, answer: &Value, text: fn(&Value) -> String) -> Result<(), CliError> {
        print(&match self.is_json {
            true => format!("{answer}\n"),
            false => text(answer),
        })
    }
}
