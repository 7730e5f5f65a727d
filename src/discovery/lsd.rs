//! Local service discovery (BEP 14): when we say on which link what we have, and what we make of
//! what others say.
//!
//! A torrent is announced on every link: three times at the start, then every five minutes. The
//! links of one interface, IPv4 and IPv6, share its pace. A newcomer that is heard is dialled; it
//! is answered by multicast too, some time later, if few others have spoken up by then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::base::address::{Family, Interfaces, Scope, scope};
use crate::base::id::InfoHash;
use crate::base::limits::LSD_PACKETS_S_MAX;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::wire::lsd::{Announcement, Cookie, encode};

use super::Privacy;

/// Local discovery for all torrents on all links.
#[derive(Debug)]
pub struct Lsd {
    port: u16,
    cookie: Cookie,
    rng: Rng,
    interfaces: Interfaces,
    torrents: BTreeSet<InfoHash>,
    links: BTreeMap<LinkId, Link>,
    /// From when on a packet may leave by an interface.
    ready: BTreeMap<u32, Instant>,
    heard: Heard,
}

/// A packet that shall leave for the group of its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Out of which interface: its index.
    pub interface: u32,
    /// To which group.
    pub family: Family,
    /// What.
    pub bytes: Vec<u8>,
}

/// An interface's index, and one of the two groups.
type LinkId = (u32, Family);

/// One of the two groups on one interface.
#[derive(Debug, Default)]
struct Link {
    /// Our addresses there; others have to hear of new ones.
    ips: BTreeSet<IpAddr>,
    off_until: Instant,
    /// It failed before, and that was logged.
    has_failed: bool,
    plans: BTreeMap<InfoHash, Plan>,
    /// All plans by the moment at which they are due.
    queue: BTreeSet<(Instant, InfoHash)>,
}

/// What is to be said of one torrent on one link.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Packets sent so far, up to those of the start.
    sent: usize,
    /// When it is said anyway. The first time comes before all that others wait for.
    regular: Instant,
    /// Seldom: apart from the rest.
    answer: Option<Box<Answer>>,
    answered: Option<Instant>,
}

/// A newcomer is to be answered.
#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Instant,
    newcomer: SocketAddr,
    /// Others that were heard since.
    others: [Option<SocketAddr>; OTHERS_ENOUGH],
}

/// Who was heard lately. A host of the link is one, whatever its ports; on our own machine every
/// port is.
#[derive(Debug, Default)]
struct Heard {
    hosts: BTreeMap<(InfoHash, SocketAddr), Times>,
    swept: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    last: Instant,
    /// When it was given to be dialled.
    given: Instant,
}

impl Lsd {
    /// Nothing is known yet. `port` is where others reach us; 0 is nowhere, and says nothing.
    pub fn new(port: u16, mut rng: Rng) -> Self {
        Self {
            port,
            cookie: Cookie::new(rng.next_u64() as u32),
            rng,
            interfaces: Interfaces::default(),
            torrents: BTreeSet::new(),
            links: BTreeMap::new(),
            ready: BTreeMap::new(),
            heard: Heard::default(),
        }
    }

    /// Others reach us on `port`.
    pub fn listening(&mut self, port: u16) {
        self.port = port;
    }

    /// The interfaces of this machine, at the start and after each change. What is new, or has new
    /// addresses, hears of every torrent.
    pub fn interfaces_found(&mut self, interfaces: &Interfaces) {
        self.interfaces = interfaces.clone();
        let mut links = links_of(interfaces);
        for (id, link) in &mut links {
            match self.links.remove(id) {
                Some(known) if known.ips == link.ips => *link = known,
                _ => link.begin(&self.torrents),
            }
        }
        self.links = links;
        let is_there = |index| self.links.keys().any(|&(of, _)| of == index);
        self.ready.retain(|&index, _| is_there(index));
    }

    /// A torrent to be announced and looked for; a private one never is (BEP 27).
    pub fn add(&mut self, info_hash: InfoHash, privacy: Privacy) {
        if privacy == Privacy::Public && self.torrents.insert(info_hash) {
            for link in self.links.values_mut() {
                link.put(info_hash, Plan::default());
            }
        }
    }

    /// A torrent is no longer to be announced.
    pub fn remove(&mut self, info_hash: InfoHash) {
        self.torrents.remove(&info_hash);
        for link in self.links.values_mut() {
            link.take(info_hash);
        }
    }

    /// When [`Lsd::poll`] has something next; in the past if it has.
    pub fn next_deadline(&self) -> Option<Instant> {
        let at = |(id, link): (&LinkId, &Link)| Some(self.due(*id, link)?.0);
        self.links.iter().filter_map(at).min()
    }

    /// A packet that shall leave now; `None` until the next deadline.
    pub fn poll(&mut self, now: Instant) -> Option<Packet> {
        // Of what is due the oldest leaves first, so the families take turns.
        let (_, info_hash, id) = self
            .links
            .iter()
            .filter_map(|(&id, link)| Some((self.due(id, link)?, id, link)))
            .filter(|&((at, _), ..)| at <= now)
            .filter_map(|(_, id, link)| link.queue.first().map(|&(at, hash)| (at, hash, id)))
            .min()?;
        let link = self.links.get_mut(&id).expect("chosen from them");
        let mut plan = link.take(info_hash).expect("what is due is planned");
        plan.said(now);
        link.put(info_hash, plan);
        let (interface, family) = id;
        self.ready.insert(interface, now + PACE);
        Some(Packet {
            interface,
            family,
            bytes: encode(family, self.port, info_hash, self.cookie),
        })
    }

    /// A packet came in by the interface with this index; says who has which of our torrents: each
    /// is an address to dial. What does not come from the link is not heard.
    pub fn received(
        &mut self,
        from: SocketAddr,
        interface: u32,
        packet: &[u8],
        now: Instant,
    ) -> Vec<(InfoHash, SocketAddr)> {
        let Some(from) = self.on_link(from, interface) else {
            log::trace!("local discovery: not of this link remote={from}");
            return Vec::new();
        };
        let told = match Announcement::decode(packet) {
            Ok(told) => told,
            Err(error) => {
                log::trace!("local discovery: {error} remote={from}");
                return Vec::new();
            }
        };
        let mut remote = from;
        remote.set_port(told.port);
        let is_own_machine = self.interfaces.iter().any(|own| own.ip == from.ip());
        if told.cookie == Some(self.cookie) || is_own_machine && told.port == self.port {
            return Vec::new();
        }
        let mut host = remote;
        if !is_own_machine {
            host.set_port(0);
        }
        let link = (interface, Family::of(from.ip()));
        let ours = |info_hash: &InfoHash| self.torrents.contains(info_hash);
        let known: Vec<InfoHash> = told.info_hashes.into_iter().filter(ours).collect();
        let mut found = Vec::new();
        for info_hash in known {
            let heard = self.heard.note((info_hash, host), now);
            self.consider_answer(link, info_hash, remote, heard, now);
            if heard != Hearing::Again {
                found.push((info_hash, remote));
            }
        }
        found
    }

    /// Joining the group on an interface or sending to it failed: nothing is sent there for a
    /// while. Says so once in the log.
    pub fn failed(&mut self, interface: u32, family: Family, why: &str, now: Instant) {
        let Some(link) = self.links.get_mut(&(interface, family)) else {
            return;
        };
        if !link.has_failed {
            let retry_s = RETRY_PAUSE.as_secs();
            log::info!(
                "local discovery off interface={interface} family={family:?} \
                 retry_s={retry_s}: {why}"
            );
        }
        link.has_failed = true;
        link.off_until = now + RETRY_PAUSE;
        link.begin(&self.torrents);
    }

    /// When something may leave by a link, and what.
    fn due(&self, id: LinkId, link: &Link) -> Option<(Instant, InfoHash)> {
        let &(at, info_hash) = link.queue.first()?;
        let ready = self.ready.get(&id.0).copied().unwrap_or_default();
        (self.port != 0).then(|| (at.max(link.off_until).max(ready), info_hash))
    }

    /// The sender as it can be dialled, if it is on the link by which its packet came.
    fn on_link(&self, from: SocketAddr, interface: u32) -> Option<SocketAddr> {
        let ip = from.ip().to_canonical();
        if !self.links.contains_key(&(interface, Family::of(ip))) {
            return None;
        }
        match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                let scoped = SocketAddrV6::new(ip, from.port(), 0, interface);
                Some(scoped.into())
            }
            _ => {
                let mut own = self.interfaces.iter().filter(|own| own.index == interface);
                let is_on_link = own.any(|own| own.has_on_link(ip));
                is_on_link.then(|| SocketAddr::new(ip, from.port()))
            }
        }
    }

    /// `remote` said that it has a torrent; plans an answer, or counts it as one.
    fn consider_answer(
        &mut self,
        link: LinkId,
        info_hash: InfoHash,
        remote: SocketAddr,
        heard: Hearing,
        now: Instant,
    ) {
        let link = self.links.get_mut(&link);
        let link = link.expect("a packet was heard on it");
        let Some(mut plan) = link.take(info_hash) else {
            return;
        };
        let may_answer = plan.answered.is_none_or(|at| now >= at + ANSWER_PAUSE);
        if let Some(answer) = &mut plan.answer {
            let is_needless = answer.others_with(remote);
            plan.answer.take_if(|_| is_needless);
        } else if heard == Hearing::First && may_answer {
            let delay = self.rng.below(ANSWER_DELAY_MAX.as_micros() as u32);
            plan.answer = Some(Box::new(Answer {
                at: now + Duration::from_micros(delay.into()),
                newcomer: remote,
                others: [None; OTHERS_ENOUGH],
            }));
        }
        link.put(info_hash, plan);
    }
}

impl Link {
    /// All torrents are announced from the beginning.
    fn begin(&mut self, torrents: &BTreeSet<InfoHash>) {
        self.plans.clear();
        self.queue.clear();
        for &info_hash in torrents {
            self.put(info_hash, Plan::default());
        }
    }

    fn put(&mut self, info_hash: InfoHash, plan: Plan) {
        self.queue.insert((plan.due(), info_hash));
        self.plans.insert(info_hash, plan);
    }

    fn take(&mut self, info_hash: InfoHash) -> Option<Plan> {
        let plan = self.plans.remove(&info_hash)?;
        self.queue.remove(&(plan.due(), info_hash));
        Some(plan)
    }
}

impl Plan {
    fn due(&self) -> Instant {
        let answer = self.answer.as_ref().map(|answer| answer.at);
        self.regular.min(answer.unwrap_or(Instant::NEVER))
    }

    /// The packet has left: it is the answer too, if one was to be given. An answer takes the place
    /// of the next of the regular ones, but of none of the start: Transmission is deaf for its
    /// first five seconds, so one has to come later than those.
    fn said(&mut self, now: Instant) {
        if self.answer.take().is_some() {
            self.answered = Some(now);
        }
        if now >= self.regular {
            self.regular = now + START_PAUSES.get(self.sent).copied().unwrap_or(INTERVAL);
            self.sent += 1;
        } else if self.sent > START_PAUSES.len() {
            self.regular = now + INTERVAL;
        }
    }
}

impl Answer {
    /// Another one was heard, if it is not the newcomer; says whether those are enough.
    fn others_with(&mut self, remote: SocketAddr) -> bool {
        if remote != self.newcomer
            && !self.others.contains(&Some(remote))
            && let Some(free) = self.others.iter_mut().find(|other| other.is_none())
        {
            *free = Some(remote);
        }
        self.others.iter().all(Option::is_some)
    }
}

/// What it means that a host was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// It is new here.
    First,
    /// It was here, but it may be dialled once more.
    Known,
    /// Just now it was heard already, or too many are.
    Again,
}

impl Heard {
    fn note(&mut self, host: (InfoHash, SocketAddr), now: Instant) -> Hearing {
        let fresh = Times {
            last: now,
            given: now,
        };
        let Some(times) = self.hosts.get_mut(&host) else {
            self.sweep(now);
            if self.hosts.len() >= HEARD_MAX {
                return Hearing::Again;
            }
            self.hosts.insert(host, fresh);
            return Hearing::First;
        };
        let is_newcomer = now >= times.last + FORGET_AFTER;
        times.last = now;
        if now < times.given + GIVE_PAUSE {
            return Hearing::Again;
        }
        times.given = now;
        match is_newcomer {
            true => Hearing::First,
            false => Hearing::Known,
        }
    }

    /// Makes room if there is none: for those long silent, then for those that may be given again.
    fn sweep(&mut self, now: Instant) {
        if self.hosts.len() < HEARD_MAX || now < self.swept + SWEEP_PAUSE {
            return;
        }
        self.swept = now;
        self.hosts
            .retain(|_, times| now < times.last + FORGET_AFTER);
        if self.hosts.len() >= HEARD_MAX {
            self.hosts.retain(|_, times| now < times.given + GIVE_PAUSE);
        }
    }
}

/// The links that are used: loopback only if there is nothing else.
fn links_of(interfaces: &Interfaces) -> BTreeMap<LinkId, Link> {
    let is_usable = |&ip: &IpAddr| scope(ip) > Scope::Loopback;
    let has_usable = interfaces.iter().any(|own| is_usable(&own.ip));
    let mut links = BTreeMap::new();
    for own in interfaces.iter() {
        let id = (own.index, Family::of(own.ip));
        let is_used = match scope(own.ip) {
            Scope::Nowhere => false,
            Scope::Loopback => !has_usable,
            Scope::LinkLocal | Scope::Site | Scope::Global => true,
        };
        if is_used && (links.len() < LINKS_MAX || links.contains_key(&id)) {
            let link: &mut Link = links.entry(id).or_default();
            link.ips.insert(own.ip);
        }
    }
    links
}

/// Time between two packets on one interface.
const PACE: Duration = Duration::from_millis(1000 / LSD_PACKETS_S_MAX as u64);
/// Pauses after the first packets of a torrent on a link (libtorrent: at 0, 2 and 6 s).
const START_PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];
/// Pause after the others (BEP 14: five minutes).
const INTERVAL: Duration = Duration::from_secs(300);
/// Longest time until a newcomer is answered, and how many others make an answer needless.
const ANSWER_DELAY_MAX: Duration = Duration::from_secs(5);
const OTHERS_ENOUGH: usize = 3;
/// Pause between two answers about one torrent on one link (BEP 14: one a minute).
const ANSWER_PAUSE: Duration = Duration::from_secs(60);
/// Pause before a link that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// Links used at most, the preferred ones: a machine with many containers has hundreds.
const LINKS_MAX: usize = 64;
/// Hosts remembered at most, each for one torrent.
const HEARD_MAX: usize = 4096;
/// Pause until the same host is given to be dialled again.
const GIVE_PAUSE: Duration = Duration::from_secs(60);
/// Silence after which a host is a newcomer again: two intervals.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Pause between two searches for who may be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(GIVE_PAUSE.as_secs() < FORGET_AFTER.as_secs());

#[cfg(test)]
mod tests;
