//! A peer that says what it was told to say, when it was told to, and writes down what it hears.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{Heard, Reader};
use crate::base::id::{ConnId, InfoHash, PeerId};
use crate::base::time::Instant;
use crate::sim::actor::{Actor, Hands, Input};
use crate::wire::handshake::{Handshake, Reserved};
use crate::wire::message::Outgoing;

/// One line of a script.
#[derive(Clone, Debug)]
pub enum Line {
    /// Sends a handshake: fast and extension bits, the swarm, and who speaks.
    Shake(Reserved, InfoHash, PeerId),
    /// Sends a message; of a block only the head.
    Say(Outgoing),
    /// Sends bytes as they are.
    Bytes(Vec<u8>),
    /// Waits.
    Pause(Duration),
    /// Waits until something has been heard as often as this since the beginning.
    Await(Heard, u32),
    /// Closes the stream.
    Close,
    /// Lets the stream break.
    Reset,
}

/// A scripted peer with one stream, which it dials or takes.
#[derive(Debug)]
pub struct Script {
    dials: Option<SocketAddr>,
    lines: VecDeque<Line>,
    conn: Option<ConnId>,
    reader: Reader,
    heard: Vec<(Instant, Heard)>,
    bytes_in: u64,
    begun_at: Option<Instant>,
    ended_at: Option<Instant>,
    sleeps_until: Option<Instant>,
}

impl Script {
    /// A peer that dials `remote` when it joins.
    pub fn dialling(remote: SocketAddr, lines: impl IntoIterator<Item = Line>) -> Self {
        Self {
            dials: Some(remote),
            ..Self::listening(lines)
        }
    }

    /// A peer that takes the first stream that comes.
    pub fn listening(lines: impl IntoIterator<Item = Line>) -> Self {
        Self {
            dials: None,
            lines: lines.into_iter().collect(),
            conn: None,
            reader: Reader::default(),
            heard: Vec::new(),
            bytes_in: 0,
            begun_at: None,
            ended_at: None,
            sleeps_until: None,
        }
    }

    /// All that it has heard, and when.
    pub fn heard(&self) -> &[(Instant, Heard)] {
        &self.heard
    }

    /// How often it has heard something of this kind.
    pub fn count(&self, is_it: impl Fn(&Heard) -> bool) -> usize {
        self.heard.iter().filter(|(_, heard)| is_it(heard)).count()
    }

    /// Bytes that came in.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// When the stream was established.
    pub fn begun_at(&self) -> Option<Instant> {
        self.begun_at
    }

    /// When the stream ended.
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended_at
    }

    fn play(&mut self, hands: &mut Hands<'_>) {
        let Some(conn) = self.conn else { return };
        if let Some(until) = self.sleeps_until {
            if hands.now < until {
                return hands.wake_at(until);
            }
            self.sleeps_until = None;
        }
        while let Some(line) = self.lines.pop_front() {
            match line {
                Line::Shake(reserved, info_hash, peer_id) => {
                    let shake = Handshake {
                        reserved,
                        info_hash,
                        peer_id,
                    };
                    hands.send(conn, &shake.encode());
                }
                Line::Say(message) => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    hands.send(conn, &bytes);
                }
                Line::Bytes(bytes) => hands.send(conn, &bytes),
                Line::Pause(time) => {
                    let until = hands.now + time;
                    self.sleeps_until = Some(until);
                    return hands.wake_at(until);
                }
                Line::Await(awaited, times) => {
                    if self.count(|heard| *heard == awaited) < times as usize {
                        self.lines.push_front(Line::Await(awaited, times));
                        return;
                    }
                }
                Line::Close => hands.close(conn),
                Line::Reset => hands.reset(conn),
            }
        }
    }
}

impl Actor for Script {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>) {
        match input {
            Input::Joined => {
                if let Some(remote) = self.dials {
                    self.conn = Some(hands.connect(remote));
                }
                return;
            }
            Input::Accepted { conn, .. } if self.dials.is_none() && self.conn.is_none() => {
                self.conn = Some(conn);
                self.begun_at = Some(hands.now);
            }
            Input::Accepted { conn, .. } => return hands.close(conn),
            Input::Connected { .. } => self.begun_at = Some(hands.now),
            Input::Received { bytes, .. } => {
                self.bytes_in += bytes.len() as u64;
                self.reader.received(bytes);
                while let Some(heard) = self.reader.poll() {
                    self.heard.push((hands.now, heard));
                }
            }
            Input::Ended { conn } if self.conn == Some(conn) => {
                self.conn = None;
                self.ended_at = Some(hands.now);
            }
            Input::Ended { .. } | Input::Datagram(_) | Input::Multicast(_) | Input::Timer => {}
        }
        if self.begun_at.is_some() {
            self.play(hands);
        }
    }

    fn is_honest(&self) -> bool {
        false
    }
}
