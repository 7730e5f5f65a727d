//! News between evpeers on a stream: each is told once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::ev_peers::{Entry, Message, Standing, Why};
use crate::wire::extended::EV_PEERS_ID;

/// One end's book of the news that it told on a stream.
#[derive(Debug, Default)]
pub(super) struct Gossip {
    /// The latest of each address, and of itself, by its number for the list.
    told: BTreeMap<(u16, Option<SocketAddr>), Rank>,
    /// When either end said hello last.
    pub greeted: Option<Instant>,
    /// When this one said something that does not belong to a meeting, news or not.
    pub spoke: Option<Instant>,
}

/// What makes two entries of one address the same.
type Rank = (u64, Standing, bool);

impl Gossip {
    /// This end says something in an extension, to the host that accepts connections at `hearer`.
    pub fn say(&mut self, said: &[u8], hearer: SocketAddr, now: Instant) -> Result<(), String> {
        let Some((&EV_PEERS_ID, body)) = said.split_first() else {
            return Ok(());
        };
        let message = Message::decode(body);
        let is_hello = matches!(message, Ok(Message::Hello(_)));
        if is_hello {
            self.greeted = Some(now);
        } else if self.greeted.is_none_or(|at| now - at > MEETING) {
            self.spoke = Some(now);
        }
        match message {
            Ok(Message::Hello(_)) => self.told.clear(), // a new link, which begins from nothing
            Ok(Message::Entries(entries)) if entries.why == Why::News => {
                for record in entries.records() {
                    let (handle, entry) = record.map_err(|error| error.to_string())?;
                    // What is said of the hearer itself it has to hear as often as it is said.
                    if entry.addr != Some(hearer) {
                        self.tell(handle, &entry)?;
                    }
                }
            }
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn tell(&mut self, handle: u16, entry: &Entry) -> Result<(), String> {
        let rank = (entry.epoch, entry.standing, entry.is_evpeer);
        match self.told.insert((handle, entry.addr), rank) {
            Some(before) if before == rank => {
                let who = entry.addr.map(|addr| addr.to_string());
                let who = who.unwrap_or_else(|| "itself".to_owned());
                Err(format!("tells {rank:?} of {who} a second time"))
            }
            _ => Ok(()),
        }
    }
}

/// Time in which those who meet tell each other of themselves, and compare what they know.
const MEETING: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ev_peers::{EntriesWriter, Hello, NETWORK};

    fn news(why: Why, addr: SocketAddr, epoch: u64) -> Vec<u8> {
        let entry = Entry {
            addr: Some(addr),
            epoch,
            standing: Standing::Leecher,
            is_evpeer: true,
        };
        let mut writer = EntriesWriter::entries(why, epoch);
        writer.push(NETWORK, &entry);
        [&[EV_PEERS_ID], &writer.finish()[..]].concat()
    }

    /// A host that tells on what is no news is found out with its second message.
    #[test]
    fn the_same_news_twice_on_a_link_is_a_fault() {
        let hearer = ([10, 0, 0, 1], 6881).into();
        let other = ([10, 0, 0, 2], 6881).into();
        let now = Instant::ZERO;
        let mut gossip = Gossip::default();
        let mut say = |said: &[u8]| gossip.say(said, hearer, now).is_ok();
        assert!(say(&news(Why::News, other, 1)));
        assert!(say(&news(Why::News, other, 2)), "it changed");
        assert!(say(&news(Why::Repair, other, 2)), "it was asked");
        assert!(!say(&news(Why::News, other, 2)));
        assert!(say(&news(Why::News, hearer, 2)));
        assert!(say(&news(Why::News, hearer, 2)), "rumours of the hearer");
        let hello = Hello {
            salt: [1; 16],
            clock_ms: 1,
            is_drawn: true,
        };
        assert!(say(&[&[EV_PEERS_ID], &hello.encode()[..]].concat()));
        assert!(say(&news(Why::News, other, 2)), "another link");
        assert!(say(&[1, 2, 3]), "another extension");
        assert!(!say(&[EV_PEERS_ID, 9, 9]), "no message at all");
    }

    /// What is said when a link begins is not talk that goes on.
    #[test]
    fn meeting_is_told_from_talk_that_goes_on() {
        let hearer = ([10, 0, 0, 1], 6881).into();
        let other = ([10, 0, 0, 2], 6881).into();
        let hello = Hello {
            salt: [1; 16],
            clock_ms: 1,
            is_drawn: true,
        };
        let hello = [&[EV_PEERS_ID], &hello.encode()[..]].concat();
        let mut gossip = Gossip::default();
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        for (said, s) in [(&hello, 9), (&news(Why::Meeting, other, 1), 9 + 30)] {
            gossip.say(said, hearer, at(s)).expect("no fault");
            assert_eq!((gossip.greeted, gossip.spoke), (Some(at(9)), None));
        }
        let repair = news(Why::Repair, other, 1);
        gossip.say(&repair, hearer, at(40)).expect("no fault");
        assert_eq!((gossip.greeted, gossip.spoke), (Some(at(9)), Some(at(40))));
    }
}
