//! A host that sends the datagrams that it was told to send, when it was told to, and writes down
//! what it hears.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::actor::{Actor, Hands, Input};
use super::net::Datagram;
use crate::base::time::Instant;
use crate::engine::action::Family;

/// A datagram to send.
#[derive(Clone, Debug)]
pub enum Letter {
    /// From its own port.
    To(SocketAddr, Vec<u8>),
    /// With another address as its source.
    As(SocketAddr, SocketAddr, Vec<u8>),
    /// To the group of local discovery.
    Group(Vec<u8>),
}

/// A host that runs no protocol.
#[derive(Debug, Default)]
pub struct Postman {
    letters: VecDeque<(Duration, Letter)>,
    heard: Vec<(Instant, Datagram)>,
    echoes: bool,
    joined: Instant,
}

impl Postman {
    /// A host that sends each letter so long after it has joined; they are in order of time.
    pub fn new(letters: impl IntoIterator<Item = (Duration, Letter)>) -> Self {
        Self {
            letters: letters.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A host that sends back what was sent to it alone.
    pub fn echo() -> Self {
        Self {
            echoes: true,
            ..Self::default()
        }
    }

    /// Another letter, sent when it next hears something or has something to send.
    pub fn push(&mut self, after: Duration, letter: Letter) {
        self.letters.push_back((after, letter));
    }

    /// All that it has heard, and when.
    pub fn heard(&self) -> &[(Instant, Datagram)] {
        &self.heard
    }

    fn send_due(&mut self, hands: &mut Hands<'_>) {
        while let Some((after, _)) = self.letters.front() {
            let at = self.joined + *after;
            if at > hands.now {
                return hands.wake_at(at);
            }
            match self.letters.pop_front() {
                Some((_, Letter::To(to, bytes))) => hands.send_datagram(to, &bytes),
                Some((_, Letter::As(from, to, bytes))) => hands.send_datagram_as(from, to, &bytes),
                Some((_, Letter::Group(bytes))) => hands.multicast(Family::V4, &bytes),
                None => {}
            }
        }
    }
}

impl Actor for Postman {
    fn handle(&mut self, input: Input<'_>, hands: &mut Hands<'_>) {
        match input {
            Input::Joined => self.joined = hands.now,
            Input::Datagram(datagram) => {
                self.heard.push((hands.now, datagram.clone()));
                if self.echoes {
                    hands.send_datagram_as(datagram.to, datagram.from, &datagram.bytes);
                }
            }
            Input::Multicast(datagram) => self.heard.push((hands.now, datagram.clone())),
            Input::Accepted { conn, .. } => hands.close(conn),
            Input::Connected { .. } | Input::Received { .. } | Input::Ended { .. } => {}
            Input::Timer => {}
        }
        self.send_due(hands);
    }

    fn is_honest(&self) -> bool {
        true
    }
}
