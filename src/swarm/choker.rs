//! Whom to serve: a function of rates, interest and chance to the set of unchoked peers.
//!
//! Every [`ROUND`] the slots are given out anew (BEP 3 "choking and optimistic unchoking").
//! A leecher serves those that serve it best (if all peers are near, after those whom it serves
//! already) and, in one slot, somebody by chance for [`OPTIMISTIC_TURN`]. A seed lets
//! everybody have a turn, those that waited longest first.
//! Between rounds a free slot is given away at once; nobody loses one, but for far peers in the
//! first second of a crowd, who came before the near ones.
//!
//! How many slots there are follows the upstream, by trial: one more as long as that carries
//! more, one fewer as long as fewer carry as much, from [`SLOTS_MIN`] to [`SLOTS_MAX`]. When the
//! line has nothing to do though all are given, there is one more at once.

use std::cmp::Reverse;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Instant;

/// Gives out the upload slots of one torrent.
#[derive(Debug)]
pub struct Choker {
    rng: Rng,
    next_round: Instant,
    /// Rounds since somebody wanted something, after nobody did.
    rounds: usize,
    /// The peer that is served by chance, and since when.
    optimistic: Option<(ConnId, Instant)>,
    slots: Slots,
}

/// What the choice depends on, one for each connected peer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The peer.
    pub conn: ConnId,
    /// It wants something of us.
    pub interested: bool,
    /// It is on our own link.
    pub is_near: bool,
    /// It has a slot at the moment.
    pub unchoked: bool,
    /// It left our requests unanswered for too long.
    pub snubbed: bool,
    /// It lets us have nothing, and has had much more than it gave.
    pub owes: bool,
    /// Payload from it, bytes per second.
    pub down_rate: u64,
    /// Payload to it, bytes per second.
    pub up_rate: u64,
    /// When it connected.
    pub joined: Instant,
    /// When it was last given a slot.
    pub last_unchoked: Option<Instant>,
}

/// Which side of the exchange we are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pieces are missing: peers are served for what they give.
    Leecher,
    /// Nothing is missing: peers take turns.
    Seed,
}

impl Choker {
    /// No slot is given yet; the first round is one [`ROUND`] after `now`.
    pub fn new(rng: Rng, now: Instant) -> Self {
        Self {
            rng,
            next_round: now + ROUND,
            rounds: 0,
            optimistic: None,
            slots: Slots::default(),
        }
    }

    /// When [`Self::rechoke`] is due.
    pub fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Slots at the moment.
    pub fn slot_count(&self) -> usize {
        self.slots.total()
    }

    /// Gives the slots out anew; returns everybody who has one now.
    ///
    /// Before the round is due this only gives away what is free, as [`Self::unchoke_now`].
    pub fn rechoke(&mut self, peers: &[Candidate], role: Role, now: Instant) -> Vec<ConnId> {
        if now < self.next_round {
            return self.unchoke_now(peers, role, now);
        }
        let interested: Vec<&Candidate> = peers.iter().filter(|p| p.interested).collect();
        let quick = QUICK_ROUNDS
            .get(self.rounds)
            .filter(|_| !interested.is_empty());
        self.next_round = now + quick.copied().unwrap_or(ROUND);
        self.rounds = match interested.is_empty() {
            true => 0,
            false => self.rounds + 1,
        };
        let served = interested.iter().filter(|p| p.unchoked).count();
        let slot_count = self.slots.total();
        let is_full = served >= slot_count && interested.len() > slot_count;
        self.slots
            .round(peers.iter().map(|p| p.up_rate).sum(), is_full);

        let mut chosen = match role {
            Role::Leecher => self.best_givers(interested, peers.iter().all(|p| p.is_near), now),
            Role::Seed => self.longest_waiting(interested, now),
        };
        // A slot that nobody asks for stays where it is: its owner may want something soon.
        let idle = peers.iter().filter(|p| p.unchoked && !p.interested);
        let free = self.slots.total().saturating_sub(chosen.len());
        chosen.extend(idle.take(free).map(|p| p.conn));
        chosen
    }

    /// The line has nothing to do though all slots are given: there is one more, for one of
    /// `waiting` by chance.
    pub fn one_more<T: Copy>(&mut self, waiting: &[T]) -> Option<T> {
        let at = self.rng.below(waiting.len().max(1) as u32) as usize;
        let lucky = waiting.get(at).copied()?;
        self.slots.one_more().then_some(lucky)
    }

    /// Gives away slots that are free; returns everybody who has one now.
    ///
    /// Peers that have one and want something keep it until the next round, unless
    /// [`Self::makes_room`]. One that wants nothing keeps it as long as nobody else asks for it.
    /// Rates do not matter.
    pub fn unchoke_now(&mut self, peers: &[Candidate], role: Role, now: Instant) -> Vec<ConnId> {
        assert!(
            peers.iter().all(|p| p.joined <= now),
            "peers come before they are served"
        );
        if self.rounds == 0 && peers.iter().any(|p| p.interested) {
            self.next_round = self.next_round.min(now + QUICK_ROUNDS[0]);
        }
        let served = peers.iter().filter(|p| p.unchoked && p.interested);
        let mut chosen: Vec<&Candidate> = served.collect();
        let may_wait = |p: &&Candidate| p.interested && !p.unchoked;
        let mut waiting: Vec<&Candidate> = peers.iter().filter(may_wait).collect();
        if role == Role::Leecher {
            waiting.retain(|p| !p.snubbed);
        }
        self.rng.shuffle(&mut waiting);
        waiting.sort_by_key(|p| (p.owes, waiting_since(p)));
        if self.makes_room() {
            self.make_room(&mut chosen, &waiting);
        }
        let free = self.slots.total().saturating_sub(chosen.len());
        let far = chosen.iter().filter(|p| !p.is_near).count();
        let waiting = near_first(waiting, FAR_SLOTS.saturating_sub(far), now);
        let few = SLOTS_FIRST.saturating_sub(chosen.len());
        // Whose place nobody near has earned stays free: it is not for far peers.
        let waiting = waiting.take(free).enumerate();
        let fair = waiting.filter(|(place, p)| *place < few || !p.owes);
        chosen.extend(fair.map(|(_, p)| p));
        let mut chosen: Vec<ConnId> = chosen.iter().map(|p| p.conn).collect();
        let idle = peers.iter().filter(|p| p.unchoked && !p.interested);
        let free = self.slots.total().saturating_sub(chosen.len());
        chosen.extend(idle.take(free).map(|p| p.conn));
        chosen
    }

    /// Whether far peers make room for near ones between rounds. A crowd's far peers are often told
    /// of before its near ones are met; once there was a round, the next one decides.
    pub fn makes_room(&self) -> bool {
        self.rounds == 0
    }

    /// Takes slots from far peers, who have more than [`FAR_SLOTS`], for near ones that wait: from
    /// those first that had theirs last.
    fn make_room(&self, served: &mut Vec<&Candidate>, waiting: &[&Candidate]) {
        let near = waiting.iter().filter(|p| p.is_near).count();
        let free = self.slots.total().saturating_sub(served.len());
        let mut far: Vec<&Candidate> = served.iter().copied().filter(|p| !p.is_near).collect();
        let too_many = far.len().saturating_sub(FAR_SLOTS);
        far.sort_by_key(|p| Reverse(p.last_unchoked));
        far.truncate(too_many.min(near.saturating_sub(free)));
        served.retain(|p| far.iter().all(|out| out.conn != p.conn));
    }

    /// A leecher's choice: the best givers, and one by chance.
    ///
    /// If all peers are near, those [in the midst](is_in_midst) of a turn come first: on a LAN
    /// nobody has to be paid, and what was asked of us would be asked of others anew. Where some
    /// are far, the best givers are those who bring something from afar.
    ///
    /// Who gives nothing, without being asked in vain, comes behind all who give, those that
    /// waited longest first: somebody has to begin.
    fn best_givers(
        &mut self,
        mut interested: Vec<&Candidate>,
        all_are_near: bool,
        now: Instant,
    ) -> Vec<ConnId> {
        self.rng.shuffle(&mut interested);
        interested.sort_by_key(|p| {
            let rank = (Reverse(p.down_rate), p.owes, waiting_since(p));
            (Reverse(all_are_near && is_in_midst(p, now)), rank)
        });
        let givers = interested.iter().filter(|p| !p.snubbed).copied();
        let givers: Vec<&Candidate> = near_first(givers, FAR_SLOTS, now).collect();
        let regular_count = self.slots.total() - 1;
        let earned = |conn| {
            givers
                .iter()
                .take(regular_count)
                .any(|p| p.conn == conn && p.down_rate > 0)
        };
        let is_turn_over = |(conn, since): (ConnId, Instant)| {
            let is_there = interested.iter().any(|p| p.conn == conn);
            !is_there || earned(conn) || since + OPTIMISTIC_TURN <= now
        };
        let optimistic = self
            .optimistic
            .filter(|&turn| !is_turn_over(turn))
            .map(|(conn, _)| conn);

        let others = givers.iter().filter(|p| Some(p.conn) != optimistic);
        let mut ranked: Vec<&Candidate> = others.copied().collect();
        let spare = ranked.split_off(ranked.len().min(regular_count));
        let fair = ranked.iter().enumerate();
        let fair = fair.filter(|(place, p)| *place < SLOTS_FIRST || !p.owes);
        let ranked: Vec<ConnId> = fair.map(|(_, p)| p.conn).collect();
        let mut chosen = ranked;
        if optimistic.is_some() {
            chosen.extend(optimistic);
            return chosen;
        }
        interested.retain(|p| !chosen.contains(&p.conn));
        self.optimistic = self.draw(&interested).map(|conn| (conn, now));
        chosen.extend(self.optimistic.map(|(conn, _)| conn));
        debug_assert!(self.optimistic.is_some() || spare.is_empty());
        chosen
    }

    /// One of `peers` by chance; one that never had a slot is three times as likely (BEP 3).
    fn draw(&mut self, peers: &[&Candidate]) -> Option<ConnId> {
        let weight = |p: &Candidate| if p.last_unchoked.is_none() { 3 } else { 1 };
        let total: u32 = peers.iter().map(|p| weight(p)).sum();
        let mut ticket = self.rng.below(total.max(1));
        for peer in peers {
            match ticket.checked_sub(weight(peer)) {
                None => return Some(peer.conn),
                Some(rest) => ticket = rest,
            }
        }
        None
    }

    /// A seed's choice: who is in the middle of a turn, then who waited longest.
    fn longest_waiting(&mut self, mut interested: Vec<&Candidate>, now: Instant) -> Vec<ConnId> {
        self.optimistic = None;
        self.rng.shuffle(&mut interested);
        interested.sort_by_key(|p| {
            let is_in_turn = p.unchoked && !is_turn_over(p, now);
            // Whoever has had its turn waits from now on.
            let since = if p.unchoked {
                now + SEED_TURN
            } else {
                waiting_since(p)
            };
            (Reverse(is_in_turn), since, Reverse(p.up_rate))
        });
        let chosen = near_first(interested, FAR_SLOTS, now).take(self.slots.total());
        chosen.map(|p| p.conn).collect()
    }
}

/// Peers in their order, but of the far ones only the first `far_max` before the last near one. A
/// near one that has taken nothing for a while keeps nobody waiting.
fn near_first<'a>(
    ranked: impl IntoIterator<Item = &'a Candidate>,
    far_max: usize,
    now: Instant,
) -> impl Iterator<Item = &'a Candidate> {
    let mut far = 0;
    let is_idle = |p: &Candidate| p.unchoked && p.up_rate == 0 && is_turn_over(p, now);
    let (first, last): (Vec<_>, Vec<_>) = ranked.into_iter().partition(|&p| {
        let is_first = p.is_near && !is_idle(p);
        far += usize::from(!is_first);
        is_first || far <= far_max
    });
    first.into_iter().chain(last)
}

/// Whether a peer takes what its slot gives it, and is fair. To choke it would leave it with parts
/// of pieces that it can pass on to nobody: a hundred hosts take a tenth longer if such peers
/// change places with others in each round. A turn has an end, as those who wait want something
/// too.
fn is_in_midst(peer: &Candidate, now: Instant) -> bool {
    let takes = peer.unchoked && peer.up_rate > 0 && !is_turn_over(peer, now);
    takes && !peer.owes && !peer.snubbed
}

/// Whether a peer that a seed serves has had its share. One that takes nothing does not need it.
fn is_turn_over(peer: &Candidate, now: Instant) -> bool {
    let since = peer.last_unchoked.unwrap_or(now);
    let turn = if peer.up_rate > 0 {
        SEED_TURN
    } else {
        IDLE_TURN
    };
    since + turn <= now
}

/// Since when a peer goes without a slot. Who waited longer comes first, newcomers like
/// everybody: a stream of new names cannot keep anybody waiting for ever.
fn waiting_since(peer: &Candidate) -> Instant {
    peer.last_unchoked.map_or(peer.joined, |at| at + SEED_TURN)
}

/// The number of slots, by trial: one more as long as that carries more, one fewer as long as
/// fewer carry as much.
///
/// Too many slots spread a seed's upstream over so many peers that none has a whole piece to
/// pass on for long; too few leave it idle. What the line can carry is not known, only what it
/// carried: after a change the sum of all rates is compared with what it was before, and half
/// of an equal share tells whether the slot made a difference. If the sum is well below what
/// was seen lately, there is room for one more without waiting.
#[derive(Debug)]
struct Slots {
    count: usize,
    /// Those beside them, since the line had nothing to do. As long as there are any, nothing is
    /// tried; half of them go with each round in which the line was never idle.
    extra: usize,
    /// The line had nothing to do since the last round.
    is_dry: bool,
    /// Highest sum of rates lately, bytes per second.
    peak: u64,
    trial: Trial,
    /// What the next trial is.
    next: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// None for so many rounds.
    Rest(u32),
    /// There is one slot more, or fewer, than when the sum of rates was this.
    Running(Direction, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    More,
    Fewer,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            count: SLOTS_FIRST,
            extra: 0,
            is_dry: false,
            peak: 0,
            trial: Trial::Rest(0),
            next: Direction::More,
        }
    }
}

impl Slots {
    /// Takes in the sum of all upload rates at the end of a round, bytes per second. `is_full`:
    /// all slots were in use, and more peers wait.
    fn round(&mut self, rate: u64, is_full: bool) {
        self.peak = rate.max(self.peak - self.peak / PEAK_DECAY);
        if !std::mem::take(&mut self.is_dry) {
            self.extra /= 2;
        }
        if !is_full || self.extra > 0 {
            self.trial = Trial::Rest(0);
            return;
        }
        let has_spare = rate < self.peak - self.peak / 8;
        match self.trial {
            Trial::Running(direction, before) if self.did_well(direction, rate, before) => {
                self.try_out(direction, rate);
            }
            Trial::Running(Direction::More, _) => self.give_up(Direction::Fewer),
            Trial::Running(Direction::Fewer, _) => self.give_up(Direction::More),
            Trial::Rest(_) if has_spare => self.try_out(Direction::More, rate),
            Trial::Rest(0) => self.try_out(self.next, rate),
            Trial::Rest(rounds) => self.trial = Trial::Rest(rounds - 1),
        }
    }

    fn total(&self) -> usize {
        (self.count + self.extra).min(SLOTS_MAX)
    }

    /// There is one more without a trial, if there may be.
    fn one_more(&mut self) -> bool {
        self.is_dry = true;
        let is_more = self.total() < SLOTS_MAX;
        self.extra += usize::from(is_more);
        is_more
    }

    fn did_well(&self, direction: Direction, rate: u64, before: u64) -> bool {
        match direction {
            Direction::More => rate > before + before / (2 * (self.count as u64 - 1)),
            Direction::Fewer => rate + before / (2 * (self.count as u64 + 1)) > before,
        }
    }

    fn try_out(&mut self, direction: Direction, rate: u64) {
        self.trial = if self.step(direction) {
            Trial::Running(direction, rate)
        } else {
            self.rest(direction)
        };
    }

    /// Takes the last step back.
    fn give_up(&mut self, back: Direction) {
        self.step(back);
        self.trial = self.rest(match back {
            Direction::More => Direction::Fewer,
            Direction::Fewer => Direction::More,
        });
    }

    /// A pause, after which the other direction than `last` is tried.
    fn rest(&mut self, last: Direction) -> Trial {
        self.next = match last {
            Direction::More => Direction::Fewer,
            Direction::Fewer => Direction::More,
        };
        Trial::Rest(TRIAL_REST)
    }

    /// Changes the number by one; `false` if it is at its limit.
    fn step(&mut self, direction: Direction) -> bool {
        match direction {
            Direction::More if self.count < SLOTS_MAX => self.count += 1,
            Direction::Fewer if self.count > SLOTS_MIN => self.count -= 1,
            Direction::More | Direction::Fewer => return false,
        }
        true
    }
}

/// Time between two choices (BEP 3: ten seconds).
pub const ROUND: Duration = Duration::from_secs(10);
/// The first rounds after somebody began to want something. Slots that chance gave away leave some
/// with half of what others get: on a LAN much is over before ten seconds are. The number of slots
/// is tried in these too, though rates are not at their full height yet: without that the last of a
/// hundred hosts takes a sixth longer.
const QUICK_ROUNDS: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// How long a leecher serves one peer by chance (BEP 3: 30 seconds).
pub const OPTIMISTIC_TURN: Duration = Duration::from_secs(30);
/// How long a seed serves a peer while others wait.
pub const SEED_TURN: Duration = Duration::from_secs(20);
/// How long a seed keeps a slot for a peer that takes nothing, while others wait.
const IDLE_TURN: Duration = Duration::from_secs(10);
/// Slots of a torrent at least (BEP 3: four downloaders) and at most.
pub const SLOTS_MIN: usize = 4;
/// Slots at first: with fewer, some of many peers that begin together are served by too few. Those
/// beyond are not for peers that [owe](Candidate::owes).
pub(super) const SLOTS_FIRST: usize = 8;
/// See [`SLOTS_MIN`].
pub const SLOTS_MAX: usize = 32;
/// Slots for peers that are not on our own link while those on it want more than the others: what
/// one of them gets, all hosts on its link can get from it.
pub const FAR_SLOTS: usize = 1;
/// The peak loses one of so many parts each round: half of it in under two minutes.
const PEAK_DECAY: u64 = 16;
/// Rounds between a trial that changed nothing and the next.
const TRIAL_REST: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000_000);

    fn conn(index: u32) -> ConnId {
        ConnId {
            index,
            generation: 1,
        }
    }

    /// One column per peer: `#` in `interested`, `unchoked`, `snubbed`; rates are digits, and
    /// `waits` says how many times ten seconds ago a peer was last unchoked (`-`: never).
    fn peers(rows: [&str; 6]) -> Vec<Candidate> {
        let [interested, unchoked, snubbed, down, up, waits] = rows.map(|row| {
            let columns: Vec<char> = row.chars().collect();
            columns
        });
        let rate = |column: char| u64::from(column.to_digit(10).unwrap()) * 1000;
        let peer = |at: usize| Candidate {
            conn: conn(at as u32),
            interested: interested[at] == '#',
            is_near: false,
            unchoked: unchoked[at] == '#',
            snubbed: snubbed[at] == '#',
            owes: false,
            down_rate: rate(down[at]),
            up_rate: rate(up[at]),
            joined: Instant::ZERO,
            last_unchoked: waits[at]
                .to_digit(10)
                .map(|tens| Instant::from_micros(NOW.as_micros() - u64::from(tens) * 10_000_000)),
        };
        (0..interested.len()).map(peer).collect()
    }

    fn shown(chosen: &[ConnId], peers: &[Candidate]) -> String {
        let mark = |peer: &Candidate| {
            if chosen.contains(&peer.conn) {
                '#'
            } else {
                '.'
            }
        };
        assert!(chosen.iter().all(|c| peers.iter().any(|p| p.conn == *c)));
        peers.iter().map(mark).collect()
    }

    /// A choker whose first round is at [`NOW`].
    fn choker(rng_seed: u64) -> Choker {
        let created = Instant::from_micros(NOW.as_micros() - ROUND.as_micros() as u64);
        few_slots(Choker::new(Rng::new(rng_seed), created))
    }

    /// A choker that has come down to the fewest slots.
    fn few_slots(mut choker: Choker) -> Choker {
        choker.slots.count = SLOTS_MIN;
        choker
    }

    /// Columns as in [`peers`]; `near`: `#` is on our own link.
    fn near_and_far(near: &str, rows: [&str; 6]) -> Vec<Candidate> {
        let mut peers = peers(rows);
        for (peer, near) in peers.iter_mut().zip(near.chars()) {
            peer.is_near = near == '#';
        }
        peers
    }

    #[test]
    fn near_peers_come_before_all_but_one_far_one() {
        #[rustfmt::skip]
        let cases = [
            // what it shows         near      unchoked  down      role           expected
            ("a seed's far slot",    "..####", "......", "000000", Role::Seed,    "#.###."),
            ("the best far giver",   "..####", "......", "980000", Role::Leecher, "#.##.."),
            ("far where none near",  "......", "......", "123456", Role::Leecher, "...###"),
        ];
        for (name, near, unchoked, down, role, expected) in cases {
            let waits = ["9", "8", "7", "6", "5", "4"].concat();
            let rows = ["######", unchoked, "......", down, "000000", &waits];
            let peers = near_and_far(near, rows);
            let chosen = choker(1).rechoke(&peers, role, NOW);
            let regular = match role {
                Role::Seed => SLOTS_MIN,
                Role::Leecher => SLOTS_MIN - 1,
            };
            assert_eq!(shown(&chosen[..regular], &peers), expected, "{name}");
        }
    }

    #[test]
    fn near_peer_that_waits_gets_the_slot_of_a_far_one() {
        #[rustfmt::skip]
        let cases = [
            // what it shows                near      interest  unchoked  waits     expected
            ("who came last goes",          "....#.", "#####.", "####..", "9871--", "###.#."),
            ("two for two",                 "....##", "######", "####..", "9187--", "#.#.##"),
            ("one far one stays",           ".#####", "######", "####..", "1111--", "####.."),
            ("no far one for a far one",    "......", "#####.", "####..", "1111--", "####.."),
            ("a free slot is taken first",  "....#.", "#####.", "###...", "111---", "###.#."),
        ];
        for (name, near, interested, unchoked, waits, expected) in cases {
            let rows = [interested, unchoked, "......", "000000", "000000", waits];
            let peers = near_and_far(near, rows);
            let mut choker = choker(1);
            let chosen = choker.unchoke_now(&peers, Role::Leecher, NOW);
            assert_eq!(shown(&chosen, &peers), expected, "{name}");
            // Later it is for the next round to decide.
            choker.rounds = 1;
            let free = SLOTS_MIN - unchoked.matches('#').count();
            let chosen = choker.unchoke_now(&peers, Role::Leecher, NOW);
            let kept = shown(&chosen, &peers);
            let is_kept = kept
                .chars()
                .zip(unchoked.chars())
                .all(|(k, u)| u == '.' || k == '#');
            assert!(is_kept && free < 2, "{name}: {kept}");
        }
    }

    #[test]
    fn leecher_serves_the_best_givers_and_one_by_chance() {
        #[rustfmt::skip]
        let cases = [
            // what it shows            interest  unchoked  snubbed   down      always    never
            ("three best givers",       "######", "......", "......", "987654", "###...", "......"),
            ("only who is interested",  ".#####", "......", "......", "987654", ".###..", "#....."),
            ("not who snubs",           "######", "......", "#.....", "987654", ".###..", "......"),
            ("few: all are served",     "####..", "......", "......", "987654", "####..", "....##"),
            ("snubbers have the chance","###...", "......", "###...", "987654", "......", "...###"),
            ("no interest, no slot",    "......", "......", "......", "987654", "......", "######"),
            ("idle slots stay",         "##....", "...##.", "......", "987654", "##.##.", "..#..#"),
        ];
        for (name, interested, unchoked, snubbed, down, always, never) in cases {
            for rng_seed in 0..50 {
                let rows = [interested, unchoked, snubbed, down, "000000", "------"];
                let peers = peers(rows);
                let chosen = choker(rng_seed).rechoke(&peers, Role::Leecher, NOW);
                assert!(chosen.len() <= SLOTS_MIN, "{name}");
                let chosen = shown(&chosen, &peers);
                for ((chosen, always), never) in
                    chosen.chars().zip(always.chars()).zip(never.chars())
                {
                    assert!(always == '.' || chosen == '#', "{name}");
                    assert!(never == '.' || chosen == '.', "{name}");
                }
            }
        }
    }

    #[test]
    fn chance_favours_newcomers_three_to_one() {
        // Three better givers take the regular slots; one of five others had a slot before.
        let rows = [
            "########", "........", "........", "99900000", "00000000", "---4----",
        ];
        let peers = peers(rows);
        let mut wins = [0u32; 8];
        for rng_seed in 0..2600 {
            let chosen = choker(rng_seed).rechoke(&peers, Role::Leecher, NOW);
            let lucky = chosen.iter().find(|c| c.index >= 3).unwrap();
            wins[lucky.index as usize] += 1;
        }
        assert!((150..=250).contains(&wins[3]), "{wins:?}");
        assert!(
            wins[4..].iter().all(|n| (500..=700).contains(n)),
            "{wins:?}"
        );
    }

    #[test]
    fn who_owes_gets_one_of_the_first_slots_only() {
        #[rustfmt::skip]
        let rows = [
            "##############", "..............", "..............",
            "99000000000000", "00000000000000", "--------------",
        ];
        let mut peers = peers(rows);
        for peer in &mut peers[2..] {
            peer.owes = true;
        }
        let mut choker = choker(1);
        choker.slots.count = SLOTS_FIRST + 3;
        let owing = |chosen: &[ConnId]| chosen.iter().filter(|c| c.index >= 2).count();

        let early = choker.unchoke_now(&peers, Role::Leecher, NOW);
        assert!(owing(&early) <= SLOTS_FIRST, "{early:?}");
        let chosen = choker.rechoke(&peers, Role::Leecher, NOW);
        assert_eq!(chosen.len(), SLOTS_FIRST + 1, "one of them by chance");
    }

    #[test]
    fn slots_that_near_peers_do_not_earn_are_not_for_far_ones() {
        let row = |c: &str| c.repeat(18);
        let mut peers = near_and_far(
            "############......",
            [
                &row("#"),
                &row("."),
                &row("."),
                &row("0"),
                &row("0"),
                &row("-"),
            ],
        );
        for peer in &mut peers[..12] {
            peer.owes = true;
        }
        let mut choker = choker(1);
        choker.slots.count = SLOTS_FIRST + 3;
        let far = |chosen: &[ConnId]| chosen.iter().filter(|c| c.index >= 12).count();

        let early = choker.unchoke_now(&peers, Role::Leecher, NOW);
        assert_eq!((early.len(), far(&early)), (SLOTS_FIRST, FAR_SLOTS));
    }

    /// Goal: in a crowd on one link nobody is choked in the midst of something for a better giver.
    #[test]
    fn near_peers_that_take_keep_their_slots_if_all_are_near() {
        #[rustfmt::skip]
        let rows = [
            "########", "##......", "........", "00999999", "99000000", "00------",
        ];
        let mut peers = peers(rows);
        for peer in &mut peers {
            peer.is_near = true;
        }
        let kept = |peers: &[Candidate]| {
            let chosen = choker(1).rechoke(peers, Role::Leecher, NOW);
            chosen.iter().filter(|c| c.index < 2).count()
        };
        assert_eq!(kept(&peers), 2);
        peers[0].up_rate = 0;
        peers[1].owes = true;
        assert_eq!(kept(&peers), 0, "idle, and in debt");
        (peers[0].up_rate, peers[1].owes) = (9000, false);
        let long_ago = NOW.as_micros() - SEED_TURN.as_micros() as u64;
        peers[0].last_unchoked = Some(Instant::from_micros(long_ago));
        peers[1].last_unchoked = Some(Instant::from_micros(long_ago));
        assert_eq!(kept(&peers), 0, "they had their turns");
        (peers[0].last_unchoked, peers[1].last_unchoked) = (Some(NOW), Some(NOW));
        assert_eq!(kept(&peers), 2);
        (peers[7].is_near, peers[7].interested) = (false, false);
        assert!(kept(&peers) < 2, "somebody is far, a seed perhaps");
    }

    #[test]
    fn chance_lasts_thirty_seconds_unless_the_peer_earns_its_slot() {
        let rows = [
            "########", "........", "........", "99900000", "00000000", "--------",
        ];
        let mut peers = peers(rows);
        let mut choker = choker(1);
        let lucky = |chosen: Vec<ConnId>| chosen.into_iter().find(|c| c.index >= 3).unwrap();
        let mut now = NOW;
        let first = lucky(choker.rechoke(&peers, Role::Leecher, now));
        for _ in 0..2 {
            now += ROUND;
            assert_eq!(lucky(choker.rechoke(&peers, Role::Leecher, now)), first);
        }
        peers[first.index as usize].down_rate = 20_000;
        now = choker.next_round();
        let chosen = choker.rechoke(&peers, Role::Leecher, now);
        assert_eq!(chosen.len(), SLOTS_MIN);
        assert!(chosen.contains(&first), "earned");
        let second = chosen.iter().find(|c| c.index >= 3 && **c != first);
        assert!(second.is_some(), "and the chance goes to another");
    }

    #[test]
    fn seed_serves_those_who_waited_longest() {
        #[rustfmt::skip]
        let cases = [
            // what it shows                  interest  unchoked  up        waits     chosen
            ("never served before served",    "######", "......", "000000", "11----", "..####"),
            ("longest wait first",            "######", "......", "000000", "987654", "####.."),
            ("turns are finished",            "######", "####..", "555500", "111199", "####.."),
            ("turns end, slowest yield",      "######", "####..", "576500", "222299", ".##.##"),
            ("nobody waits: turns go on",     "####..", "####..", "555500", "999999", "####.."),
            ("who takes nothing yields",      "#####.", "####..", "550500", "111199", "##.##."),
            ("interest counts",               ".#####", "......", "000000", "998765", ".####."),
        ];
        for (name, interested, unchoked, up, waits, chosen) in cases {
            for rng_seed in 0..20 {
                let rows = [interested, unchoked, "......", "000000", up, waits];
                let peers = peers(rows);
                let mut choker = choker(rng_seed);
                choker.slots.trial = Trial::Rest(9);
                let got = choker.rechoke(&peers, Role::Seed, NOW);
                assert_eq!(shown(&got, &peers), chosen, "{name}");
            }
        }
    }

    #[test]
    fn free_slot_is_given_away_at_once_and_none_in_use_is_taken() {
        #[rustfmt::skip]
        let cases = [
            // what it shows                 role           interest  unchoked  snubbed   chosen
            ("all fit",                      Role::Leecher, "###...", "......", "......", "###..."),
            ("longest wait first",           Role::Seed,    "######", "##....", "......", "####.."),
            ("none is free",                 Role::Seed,    "######", "####..", "......", "####.."),
            ("idle owners make room",        Role::Seed,    "...###", "###...", "......", "#..###"),
            ("nobody loses a slot",          Role::Seed,    "######", "#####.", "......", "#####."),
            ("a leecher lets snubbers wait", Role::Leecher, "######", "......", "#.....", ".####."),
            ("a seed does not mind",         Role::Seed,    "######", "......", "#.....", "####.."),
        ];
        for (name, role, interested, unchoked, snubbed, chosen) in cases {
            let rows = [interested, unchoked, snubbed, "000000", "000000", "987654"];
            let peers = peers(rows);
            let mut early = few_slots(Choker::new(Rng::new(1), NOW));
            let got = early.unchoke_now(&peers, role, NOW);
            assert_eq!(shown(&got, &peers), chosen, "{name}");
            let got = early.rechoke(&peers, role, NOW);
            assert_eq!(
                shown(&got, &peers),
                chosen,
                "{name}: before the round is due"
            );
            assert_eq!(early.next_round(), NOW + QUICK_ROUNDS[0]);
        }
    }

    /// Whenever somebody begins to want something after nobody did, some rounds are short.
    #[test]
    fn first_rounds_of_a_crowd_are_short() {
        let crowd = peers(["####", "....", "....", "0000", "0000", "----"]);
        let nobody = peers(["....", "####", "....", "0000", "0000", "1111"]);
        let mut choker = few_slots(Choker::new(Rng::new(1), NOW));
        let mut now = NOW;
        let mut rounds = |choker: &mut Choker, peers: &[Candidate], count: usize| {
            let mut seconds = Vec::new();
            for _ in 0..count {
                let next = choker.next_round();
                seconds.push((next - now).as_secs());
                now = next;
                choker.rechoke(peers, Role::Seed, now);
            }
            seconds
        };
        assert_eq!(rounds(&mut choker, &nobody, 3), [10, 10, 10]);
        let came = NOW + Duration::from_secs(36);
        choker.unchoke_now(&crowd, Role::Seed, came);
        assert_eq!(choker.next_round(), came + QUICK_ROUNDS[0]);
        choker.unchoke_now(&crowd, Role::Seed, came + Duration::from_millis(500));
        assert_eq!(
            choker.next_round(),
            came + QUICK_ROUNDS[0],
            "no later for it"
        );
        assert_eq!(
            rounds(&mut choker, &crowd, 9)[1..],
            [1, 1, 1, 2, 3, 5, 10, 10]
        );
        assert_eq!(rounds(&mut choker, &nobody, 2), [10, 10]);
        choker.unchoke_now(&crowd, Role::Seed, came + Duration::from_secs(60));
        assert_eq!(rounds(&mut choker, &crowd, 2)[1], 1);
    }

    /// A seed or leecher with so many interested peers; carries out what the choker says, and
    /// serves each at `rate` of who has a slot and how many have.
    struct Line<F> {
        peers: Vec<Candidate>,
        choker: Choker,
        now: Instant,
        rate: F,
    }

    impl<F: Fn(u64) -> u64> Line<F> {
        fn new(count: u32, rng_seed: u64, rate: F) -> Self {
            let peer = |index| Candidate {
                is_near: false,
                conn: conn(index),
                interested: true,
                unchoked: false,
                snubbed: false,
                owes: false,
                down_rate: 0,
                up_rate: 0,
                joined: NOW,
                last_unchoked: None,
            };
            let choker = few_slots(Choker::new(Rng::new(rng_seed), NOW));
            Self {
                peers: (0..count).map(peer).collect(),
                choker,
                now: NOW,
                rate,
            }
        }

        fn round(&mut self, role: Role) {
            self.now = self.choker.next_round();
            let chosen = self.choker.rechoke(&self.peers, role, self.now);
            let rate = (self.rate)(chosen.len() as u64);
            for peer in &mut self.peers {
                let is_chosen = chosen.contains(&peer.conn);
                if is_chosen && !peer.unchoked {
                    peer.last_unchoked = Some(self.now);
                }
                peer.unchoked = is_chosen;
                peer.up_rate = if is_chosen { rate } else { 0 };
            }
        }
    }

    /// Goal: a seed leaves nobody out, a leecher starves nobody who gives nothing yet.
    /// Method: 50 interested peers, many seeds; count the time until each was served.
    #[test]
    fn everybody_of_fifty_has_a_turn() {
        for rng_seed in 0..20 {
            for (role, bound) in [(Role::Seed, 50 / 4 * 20 + 40), (Role::Leecher, 600)] {
                let mut line = Line::new(50, rng_seed, |served| 1000 / served);
                while line.peers.iter().any(|p| p.last_unchoked.is_none()) {
                    line.round(role);
                    let passed = (line.now - NOW).as_secs();
                    assert!(passed <= bound, "{role:?}: {passed} s, rng_seed {rng_seed}");
                }
            }
        }
    }

    /// Goal: newcomers cannot keep a waiting peer from its turn at a seed.
    /// Method: four new peers arrive in every round.
    #[test]
    fn stream_of_newcomers_starves_nobody() {
        let mut line = Line::new(20, 1, |served| 1000 / served);
        for _ in 0..20 {
            line.round(Role::Seed);
            for _ in 0..4 {
                let newcomer = Candidate {
                    conn: conn(line.peers.len() as u32),
                    unchoked: false,
                    up_rate: 0,
                    joined: line.now,
                    last_unchoked: None,
                    ..line.peers[0]
                };
                line.peers.push(newcomer);
            }
        }
        assert!(line.peers[..20].iter().all(|p| p.last_unchoked.is_some()));
    }

    #[test]
    fn slots_follow_what_the_line_carries() {
        type Rate = fn(u64) -> u64;
        let cases: [(&str, Rate, std::ops::RangeInclusive<usize>); 4] = [
            (
                "one peer fills the line",
                |served| 1_000_000 / served,
                4..=5,
            ),
            ("peers are slow", |_| 1000, SLOTS_MAX - 1..=SLOTS_MAX),
            ("eight fill the line", |served| 8000 / served.max(8), 7..=9),
            ("nobody takes anything", |_| 0, 4..=5),
        ];
        for (name, rate, slots) in cases {
            let mut line = Line::new(50, 1, rate);
            for round in 0..200 {
                line.round(Role::Seed);
                if round > 40 {
                    let count = line.choker.slot_count();
                    assert!(slots.contains(&count), "{name}: {count} in round {round}");
                }
            }
        }
    }

    #[test]
    fn slots_close_again_when_the_line_becomes_narrow() {
        let mut line = Line::new(50, 1, |_| 1000);
        (0..60).for_each(|_| line.round(Role::Seed));
        assert!(line.choker.slot_count() >= SLOTS_MAX - 1);
        let mut narrow = Line {
            peers: line.peers,
            choker: line.choker,
            now: line.now,
            rate: |served| 4000 / served,
        };
        (0..120).for_each(|_| narrow.round(Role::Seed));
        assert!(narrow.choker.slot_count() <= SLOTS_MIN + 1);
    }

    #[test]
    fn same_seed_makes_the_same_choice() {
        let run = |rng_seed| {
            let mut line = Line::new(30, rng_seed, |_| 7);
            (0..20).for_each(|_| line.round(Role::Leecher));
            let served = line.peers.iter().map(|p| p.last_unchoked);
            served.collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
