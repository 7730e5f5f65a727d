//! Who stands near: what a host on our own link can give is not fetched from further away.
//!
//! The hosts of a rack share the line to all others. If each of them fetched for itself what comes
//! over it, it would carry every piece as often as there are hosts. So as long as near peers serve
//! us, a far one is asked for no piece that any near one has, and while there is enough to ask for
//! only for our share of the rest: each piece is the share of one host of the link, the same to all
//! of them without a word, as lots drawn from the peer ids and the piece decide.
//!
//! Nobody stays behind for that. Who can ask far peers and gets nothing for two seconds asks
//! everybody, and every now and then it is tried for some seconds whether the far ones would bring
//! more (see [`Reach`]): a slow neighbour is no reason to leave a wide line idle.

use super::Swarm;
use super::peer::{Peer, PeerKey};
use crate::base::bits::Bitfield;
use crate::base::id::{PeerId, PieceIndex};

/// What near peers offer and fetch.
#[derive(Debug)]
pub(super) struct Near {
    own: PeerId,
    /// What near peers have; `None`: to be found out anew.
    offered: Option<Offered>,
    /// Pieces that are our share of what comes from afar; `None`: to be found out anew.
    share: Option<Bitfield>,
    /// Memory of [`Swarm::fit_of`].
    fit: Option<Fit>,
    reach: Reach,
    /// Payload received before the last tick, bytes.
    received: u64,
}

/// What near peers have.
#[derive(Debug)]
struct Offered {
    pieces: Bitfield,
    /// Some near peer serves us.
    is_served: bool,
}

/// What a far peer may be asked for.
#[derive(Debug)]
pub(super) struct Fit {
    /// Pieces of its that no near peer has.
    pub lacking: Bitfield,
    /// Of these what is asked for now.
    pub pieces: Bitfield,
}

impl Swarm {
    /// Whether this peer is on our own link; none is until this is said. `own` is our id in the
    /// handshake with it.
    pub fn set_near(&mut self, key: PeerKey, is_near: bool, own: PeerId) {
        let before = std::mem::replace(&mut self.peer_mut(key).is_near, is_near);
        self.far_count = self.far_count + usize::from(before) - usize::from(is_near);
        if is_near && self.live.near.is_none() {
            self.live.near = Some(Box::new(Near {
                own,
                offered: None,
                share: None,
                fit: None,
                reach: Reach::default(),
                received: self.down.total(),
            }));
        }
        if before != is_near {
            self.neighbours_changed();
        }
    }

    /// Whether all peers are on our own link: what one of them lacks is then to be had of any.
    pub(super) fn is_flat(&self) -> bool {
        self.far_count == 0
    }

    /// A near peer came, left or became a seed.
    pub(super) fn neighbours_changed(&mut self) {
        if let Some(near) = &mut self.live.near {
            near.share = None;
        }
        self.near_changed();
    }

    /// A near peer may be asked now or no longer, or has other pieces than before.
    pub(super) fn near_changed(&mut self) {
        if self.live.is_at_rest() {
            return;
        }
        if let Some(near) = &mut self.live.near {
            near.offered = None;
            self.refill_all |= self.peers.iter().any(|(_, peer)| !peer.is_near);
        }
    }

    /// A peer has one more piece.
    pub(super) fn near_gained(&mut self, key: PeerKey, piece: PieceIndex) {
        let peer = &self.peers[key.0 as usize];
        if !peer.is_near {
            return;
        }
        if peer.is_seed() {
            self.neighbours_changed();
        } else if let Some(offered) = self
            .live
            .near
            .as_mut()
            .and_then(|near| near.offered.as_mut())
        {
            offered.pieces.set(piece.0);
        }
    }

    /// A second went by.
    pub(super) fn near_tick(&mut self) {
        let is_fetching = self.is_fetching();
        let far = || self.peers.iter().filter(|(_, peer)| !peer.is_near);
        let may_reach = far().any(|(_, peer)| peer.may_be_asked());
        let is_idle = far().any(|(_, peer)| peer.may_be_asked() && peer.requests.is_empty());
        let is_asking = self.peers.iter().any(|(_, p)| p.blocks_under_way() > 0);
        let received = self.down.total();
        let Some(near) = &mut self.live.near else {
            return;
        };
        let bytes = received - std::mem::replace(&mut near.received, received);
        if is_fetching && may_reach {
            near.reach.tick(bytes, is_asking);
            // What was others' share may be to be had for us by now.
            self.refill_all |= is_idle;
        }
    }

    /// Of the pieces of a peer those that it may be asked for, if these are not all. To be given
    /// back to [`Swarm::fit_used`].
    pub(super) fn fit_of(&mut self, key: PeerKey) -> Option<Fit> {
        let count = self.live.ours.len();
        // Who wants pieces in an order waits for none of them.
        let is_patient = self.live.picker.takes_suggestions();
        let near = self.live.near.as_deref_mut()?;
        let peer = &self.peers[key.0 as usize];
        if peer.is_near || near.reach.is_open() {
            return None;
        }
        let neighbours = || {
            let peers = self.peers.iter().map(|(_, peer)| peer);
            peers.filter(|peer| peer.is_near)
        };
        let offered = near.offered.get_or_insert_with(|| {
            let mut pieces = Bitfield::new(count);
            let givers = neighbours().filter(|peer| is_patient || peer.may_give());
            givers.for_each(|peer| pieces.add(&peer.have));
            Offered {
                pieces,
                is_served: neighbours().any(Peer::may_give),
            }
        });
        if !offered.is_served {
            return None;
        }
        let mut fit = near.fit.take().unwrap_or_else(|| Fit {
            lacking: Bitfield::new(count),
            pieces: Bitfield::new(count),
        });
        fit.lacking.copy_without(&peer.have, &offered.pieces);
        fit.pieces.copy_without(&peer.have, &offered.pieces);
        let asked: usize = neighbours().map(|peer| peer.requests.len()).sum();
        if is_patient && asked >= ASKED_ENOUGH {
            let own = &near.own;
            let share = near.share.get_or_insert_with(|| {
                let leechers = neighbours().filter(|peer| !peer.is_seed() && !peer.upload_only);
                let others: Vec<u64> = leechers.map(|peer| lot_of(&peer.origin.peer_id)).collect();
                share(lot_of(own), &others, count)
            });
            fit.pieces.keep(share);
        }
        Some(fit)
    }

    /// Takes back what [`Swarm::fit_of`] gave.
    pub(super) fn fit_used(&mut self, fit: Option<Fit>) {
        if let (Some(near), Some(_)) = (&mut self.live.near, &fit) {
            near.fit = fit;
        }
    }
}

/// Whether far peers are asked for what near ones have too. Time passes only while there are far
/// peers to ask.
///
/// ```text
///        ┌────────── brought no more: the pause doubles ──────────┐
///        ▼                                                        │
///      held ── pause over ──▶ on trial, some seconds ─────────────┤
///       │ ▲                                                       │ half as much again
///       │ └────────────── a minute over ──────────── open ◀───────┘
///       └── nothing asked or received: for some seconds ──▲
/// ```
#[derive(Debug)]
struct Reach {
    state: State,
    /// Ticks until the state changes.
    left: u32,
    /// Ticks of the next pause between two trials.
    pause: u32,
    /// Ticks that it is open the next time that nothing comes.
    idle_open: u32,
    /// What the ticks before the last trial brought.
    tried_at: u64,
    /// What the latest ticks brought, bytes, the last one first.
    latest: [u64; TRIAL as usize],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Held,
    /// Far peers are asked for everything, to see whether that brings more.
    Trial,
    Open,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            state: State::Held,
            left: PAUSE_FIRST,
            pause: PAUSE_FIRST * 4,
            idle_open: IDLE_OPEN,
            tried_at: 0,
            latest: [0; TRIAL as usize],
        }
    }
}

impl Reach {
    fn is_open(&self) -> bool {
        self.state != State::Held
    }

    /// A second brought so many bytes; whether anything is asked of anybody.
    fn tick(&mut self, bytes: u64, is_asking: bool) {
        self.latest.rotate_right(1);
        self.latest[0] = bytes;
        let is_silent = bytes == 0 && (!is_asking || self.latest[1] == 0);
        if self.state == State::Held && is_silent {
            let open = self.idle_open;
            self.idle_open = (open * 2).min(OPEN);
            return self.enter(State::Open, open);
        }
        let sum: u64 = self.latest.iter().sum();
        if self.state == State::Held && sum < self.tried_at / 2 {
            self.left = self.left.min(TRIAL); // it is not what it was at the last trial
            self.pause = PAUSE_FIRST * 4;
        }
        self.left = self.left.saturating_sub(1);
        if self.left > 0 {
            return;
        }
        match self.state {
            State::Held => {
                self.tried_at = sum;
                self.idle_open = IDLE_OPEN;
                self.enter(State::Trial, TRIAL);
            }
            State::Trial if sum > self.tried_at + self.tried_at / 2 => {
                self.pause = PAUSE_FIRST * 4;
                self.enter(State::Open, OPEN);
            }
            State::Trial => {
                self.enter(State::Held, self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
            // Whether it is still so shows after as long as a trial takes.
            State::Open => self.enter(State::Held, TRIAL),
        }
    }

    fn enter(&mut self, state: State, left: u32) {
        (self.state, self.left) = (state, left);
    }
}

/// The pieces, of `count`, for which `own` draws the highest of all lots. In torrents of many
/// pieces neighbouring ones go together, so that this takes no time to speak of.
fn share(own: u64, others: &[u64], count: u32) -> Bitfield {
    let draws_max = (DRAWS_MAX / (others.len() + 1)).max(1) as u32;
    let run = count.div_ceil(draws_max).max(1);
    let mut share = Bitfield::new(count);
    for first in (0..count).step_by(run as usize) {
        let ours = draw(own, first / run);
        if others.iter().all(|&other| draw(other, first / run) < ours) {
            for piece in first..count.min(first + run) {
                share.set(piece);
            }
        }
    }
    share
}

/// The lot that a host draws for a piece.
fn draw(host: u64, piece: u32) -> u64 {
    mix(host ^ mix(u64::from(piece) + 1))
}

/// A peer id as a number.
fn lot_of(id: &PeerId) -> u64 {
    let words = id.0.chunks(8);
    words.fold(0, |lot, word| {
        let word = word.iter().fold(0, |word, &b| word << 8 | u64::from(b));
        mix(lot ^ word)
    })
}

/// Spreads the bits of a number over all (Steele, Lea and Flood: SplitMix).
fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Open requests with near peers together at which we can wait for what is others' share. With half
/// as many a rack waits for single hosts; with twice as many a fifth more comes twice.
const ASKED_ENOUGH: usize = 32;
/// Lots that are drawn at a time at most.
const DRAWS_MAX: usize = 1 << 20;
/// Seconds of a trial, and of what it is compared with.
const TRIAL: u32 = 3;
/// Seconds before the first trial. After one that brought nothing it is four times that, and twice
/// as long each time.
const PAUSE_FIRST: u32 = 15;
const PAUSE_MAX: u32 = 600;
/// Seconds in which everybody is asked after a trial that brought more.
const OPEN: u32 = 60;
/// The same where nothing came; twice as long each time until a trial was made.
const IDLE_OPEN: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The states after each tick: `-` held, `?` on trial, `+` open.
    fn states(reach: &mut Reach, ticks: impl IntoIterator<Item = (u64, bool)>) -> String {
        let letter = |(bytes, is_asking)| {
            reach.tick(bytes, is_asking);
            match reach.state {
                State::Held => '-',
                State::Trial => '?',
                State::Open => '+',
            }
        };
        ticks.into_iter().map(letter).collect()
    }

    #[test]
    fn trial_that_brings_nothing_is_made_ever_more_rarely() {
        let mut reach = Reach::default();
        let states = states(&mut reach, [(100, true); 300]);
        let trials: Vec<_> = states
            .match_indices("-???-")
            .map(|(at, _)| at + 1)
            .collect();
        assert_eq!(trials[0], PAUSE_FIRST as usize - 1);
        let pauses: Vec<_> = trials.windows(2).map(|two| two[1] - two[0] - 3).collect();
        assert_eq!(pauses, [60, 120]);
        assert!(!states.contains('+'));
    }

    #[test]
    fn trial_that_brings_much_more_opens_for_a_minute() {
        let mut reach = Reach::default();
        let held = states(&mut reach, [(100, true); PAUSE_FIRST as usize]);
        assert!(held.ends_with("-?"));
        let open = states(&mut reach, [(151, true); (TRIAL + OPEN) as usize]);
        assert_eq!(open, "??".to_owned() + &"+".repeat(OPEN as usize) + "-");
        // It is slow again without them.
        let again = states(&mut reach, [(100, true); TRIAL as usize]);
        assert_eq!(again, "--?");
    }

    #[test]
    fn who_gets_nothing_asks_everybody_for_some_seconds() {
        let mut reach = Reach::default();
        let silent = [(5, true), (5, false), (0, false), (0, false)];
        assert_eq!(states(&mut reach, silent), "--++");
        assert_eq!(states(&mut reach, [(9, true); 4]), "+++-");
        // Twice as long the next time; who asks in vain does so for two seconds.
        let vain = [(0, true), (0, true)];
        assert_eq!(states(&mut reach, vain), "-+");
        assert_eq!(states(&mut reach, [(9, true); 10]), "+++++++++-");
    }

    /// A neighbour that was fast and is not is no reason to wait for the end of a long pause.
    #[test]
    fn trial_is_made_soon_when_less_comes_than_at_the_last() {
        let mut reach = Reach::default();
        let long = states(&mut reach, [(100, true); 400]);
        assert!(long.ends_with("---"));
        let soon = states(&mut reach, [(40, true); 6]);
        assert!(soon.contains('?'), "{soon}");
    }

    /// Each piece is one host's share, whichever of them draws the lots, and shares are fair.
    #[test]
    fn every_piece_is_the_share_of_one_host() {
        let hosts: Vec<u64> = (0..8_u8).map(|n| lot_of(&PeerId([n; 20]))).collect();
        for count in [0, 1, 1000, 300_000] {
            let mut all = Bitfield::new(count);
            let mut shares = 0;
            for (index, &own) in hosts.iter().enumerate() {
                let mut others = hosts.clone();
                others.remove(index);
                let share = share(own, &others, count);
                let fair = count / 8;
                let len = share.count_ones();
                assert!(count < 1000 || (fair / 2..fair * 2).contains(&len), "{len}");
                shares += len;
                all.add(&share);
            }
            assert!(all.is_full() && shares == count);
        }
    }
}
