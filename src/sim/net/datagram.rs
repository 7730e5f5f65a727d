//! Datagrams under way: each arrives once, twice, late, or never.
//!
//! A datagram leaves on its sender's line once, also when it goes to many. Then each receiver's
//! copy has a fate of its own: lost by chance, as it is too long, as the way is cut or a line is
//! full; doubled; delayed by chance, so that later ones overtake it.

use std::net::SocketAddr;

use bytes::Bytes;
use slab::Slab;

use super::{HostId, Network};
use crate::base::time::Instant;

/// A datagram as its receiver sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it says that it comes from.
    pub from: SocketAddr,
    /// Where it was sent to: an address of its receiver, or a group.
    pub to: SocketAddr,
    /// What it says.
    pub bytes: Bytes,
}

/// A copy of a datagram on its way to one host.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The host that really sent it.
    pub sender: HostId,
    /// The host that it reaches.
    pub receiver: HostId,
    /// The datagram.
    pub datagram: Datagram,
}

/// Names a copy that is under way; used again once it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParcelId(pub u32);

/// Datagrams, counted a receiver at a time: what was sent and doubled is delivered, lost, or
/// under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramLedger {
    /// Left a host for another, or for nobody.
    pub sent: Amount,
    /// Copies that the network made.
    pub doubled: Amount,
    /// Heard by a host.
    pub delivered: Amount,
    /// Heard by nobody.
    pub lost: Amount,
}

/// Datagrams and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Bytes of all of them, without headers.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, len: usize) {
        self.count += 1;
        self.bytes += len as u64;
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// All datagrams under way.
#[derive(Debug, Default)]
pub(super) struct Post {
    parcels: Slab<Parcel>,
    ledger: DatagramLedger,
}

impl Network {
    /// Datagrams so far.
    pub fn datagram_ledger(&self) -> DatagramLedger {
        self.post.ledger
    }

    /// Datagrams under way, counted anew.
    pub fn datagrams_in_flight(&self) -> Amount {
        let mut all = Amount::default();
        for (_, parcel) in &self.post.parcels {
            all.add(parcel.datagram.bytes.len());
        }
        all
    }

    /// Sends a datagram to each of `receivers`; when which copy arrives goes into `arrivals`.
    /// Without receivers it leaves all the same, for nobody.
    pub fn post(
        &mut self,
        sender: HostId,
        receivers: &[HostId],
        datagram: &Datagram,
        now: Instant,
        arrivals: &mut Vec<(Instant, ParcelId)>,
    ) {
        let len = datagram.bytes.len();
        let left = self.lines.leave_datagram(sender, len, now);
        if receivers.is_empty() {
            self.post.ledger.sent.add(len);
            self.post.ledger.lost.add(len);
        }
        for &receiver in receivers {
            self.post.ledger.sent.add(len);
            let is_open = self.lines.is_open(sender, receiver);
            let is_lost = self.lines.loses(sender, receiver, len, &mut self.rng);
            let Some(left) = left.filter(|_| is_open && !is_lost) else {
                self.post.ledger.lost.add(len);
                continue;
            };
            let parcel = Parcel {
                sender,
                receiver,
                datagram: datagram.clone(),
            };
            if self.lines.doubles(sender, receiver, &mut self.rng) {
                self.post.ledger.doubled.add(len);
                self.post_copy(parcel.clone(), left, arrivals);
            }
            self.post_copy(parcel, left, arrivals);
        }
    }

    fn post_copy(
        &mut self,
        parcel: Parcel,
        left: Instant,
        arrivals: &mut Vec<(Instant, ParcelId)>,
    ) {
        let (from, to, len) = (parcel.sender, parcel.receiver, parcel.datagram.bytes.len());
        let Some(at) = self.lines.arrive_datagram(from, to, len, left) else {
            return self.post.ledger.lost.add(len);
        };
        let late = self.lines.jitter(from, to, &mut self.rng);
        let id = ParcelId(self.post.parcels.insert(parcel) as u32);
        arrivals.push((at + late, id));
    }

    /// A copy that is under way.
    ///
    /// # Panics
    /// If it has arrived already.
    pub fn parcel(&self, id: ParcelId) -> &Parcel {
        &self.post.parcels[id.0 as usize]
    }

    /// A copy has arrived where nobody hears it.
    pub fn drop_parcel(&mut self, id: ParcelId) {
        let parcel = self.post.parcels.remove(id.0 as usize);
        self.post.ledger.lost.add(parcel.datagram.bytes.len());
    }

    /// A copy has arrived, and is heard.
    pub fn take_parcel(&mut self, id: ParcelId) -> Parcel {
        let parcel = self.post.parcels.remove(id.0 as usize);
        self.post.ledger.delivered.add(parcel.datagram.bytes.len());
        parcel
    }
}
