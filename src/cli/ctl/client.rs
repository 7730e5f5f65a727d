//! The client's end of a control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::base::limits::CONTROL_LINE_LEN_MAX;
use crate::cli::error::CliError;
use crate::cli::output::printable_path;
use crate::control::request::{Command, Request};
use crate::reactor::control::Place;
use crate::storage::state::Places;

/// A connection to a running peer.
pub struct Client {
    stream: BufReader<UnixStream>,
    asked: u64,
}

impl Client {
    /// Connects to the peer whose state is in one of `places`.
    ///
    /// # Errors
    /// None answers.
    pub fn connect(places: &Places) -> Result<Self, CliError> {
        let mut tried = Vec::new();
        for folder in places.all() {
            let connected = Place::of(&folder).and_then(|place| {
                let stream = place.connect()?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    return Ok(Self {
                        stream: BufReader::new(stream),
                        asked: 0,
                    });
                }
                Err(error) => {
                    let text = error.to_string();
                    let fact = text.split(" (os error").next().unwrap_or_default();
                    tried.push(format!("'{}' ({fact})", printable_path(&folder)));
                }
            }
        }
        Err(CliError::NoPeer {
            tried: tried.join(" or "),
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The peer refuses, or does not answer.
    pub fn ask(&mut self, command: Command) -> Result<Value, CliError> {
        self.asked += 1;
        let request = Request {
            id: self.asked.into(),
            command,
        };
        let no_answer = |error: std::io::Error| CliError::NoAnswer(error.to_string());
        let line = request.to_line();
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(no_answer)?;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(CONTROL_LINE_LEN_MAX as u64 + 1);
        limited.read_until(b'\n', &mut line).map_err(no_answer)?;
        if line.last() != Some(&b'\n') {
            return Err(CliError::NoAnswer(
                "it ended in the middle of a line".to_owned(),
            ));
        }
        let mut answer: Value =
            serde_json::from_slice(&line).map_err(|error| CliError::NoAnswer(error.to_string()))?;
        match answer["ok"].as_bool() {
            Some(true) => Ok(answer["result"].take()),
            Some(false) => {
                let message = answer["error"]["message"].as_str().unwrap_or("it refuses");
                Err(CliError::Refused(message.to_owned()))
            }
            None => Err(CliError::NoAnswer("it says neither yes nor no".to_owned())),
        }
    }

    /// Asks for a list page by page; returns the first answer with the whole list, under `key`.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn ask_all(
        &mut self,
        key: &str,
        command: impl Fn(usize) -> Command,
    ) -> Result<Value, CliError> {
        let mut whole = self.ask(command(0))?;
        while let Some(next) = whole["next"].as_u64() {
            let mut page = self.ask(command(next as usize))?;
            if let (Some(all), Value::Array(more)) = (whole[key].as_array_mut(), page[key].take()) {
                all.extend(more);
            }
            whole["next"] = page["next"].take();
        }
        if let Some(object) = whole.as_object_mut() {
            object.remove("next");
        }
        Ok(whole)
    }
}

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
