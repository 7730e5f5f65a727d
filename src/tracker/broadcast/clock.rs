//! The wall clock, as far as epochs need one.
//!
//! It comes from the shell once and is counted on from there. A machine whose clock is wrong by
//! days would believe nobody, or be believed by nobody; so when most of its neighbours agree that
//! it is, it follows them. Two of three are needed: one liar moves no clock.

use crate::base::time::Instant;

use super::Broadcast;

/// Milliseconds since 1970, as this host counts them.
#[derive(Debug)]
pub(super) struct Clock {
    start_ms: u64,
    start: Instant,
    /// What is added to follow the neighbours.
    offset_ms: i64,
}

impl Clock {
    pub fn new(unix_ms: u64, now: Instant) -> Self {
        Self {
            start_ms: unix_ms,
            start: now,
            offset_ms: 0,
        }
    }

    /// What the shell's clock says.
    pub fn raw_ms(&self, now: Instant) -> u64 {
        let passed = now.since(self.start).as_millis();
        self.start_ms.saturating_add(passed as u64)
    }

    /// The time for epochs.
    pub fn unix_ms(&self, now: Instant) -> u64 {
        self.raw_ms(now).saturating_add_signed(self.offset_ms)
    }

    /// Follows the neighbours' clocks, given what they are ahead of the shell's; says whether it
    /// went back.
    fn follow(&mut self, mut skews_ms: Vec<i64>) -> bool {
        let before = self.offset_ms;
        skews_ms.sort_unstable();
        let most = skews_ms.len().div_ceil(2) + 1;
        let (ahead, behind) = (skews_ms.iter().rev().nth(most - 1), skews_ms.get(most - 1));
        self.offset_ms = match (ahead, behind) {
            (Some(&ahead), _) if ahead > WRONG_MS => ahead,
            (_, Some(&behind)) if behind < -WRONG_MS => behind,
            _ => 0,
        };
        self.offset_ms < before - WRONG_MS
    }
}

impl Broadcast {
    /// Looks at the neighbours' clocks again.
    pub(super) fn set_clock(&mut self, now: Instant) {
        let met = self.links.iter().flatten().filter_map(|link| link.met);
        if self.clock.follow(met.map(|met| met.skew_ms).collect()) {
            // Nobody believed the epochs that we used so far.
            self.epoch = 0;
            self.assert_all(now);
        }
    }

    /// Whether a peer may have this epoch; for departures less, so that who is there can always
    /// answer with a higher one.
    pub(super) fn is_far_future(&self, epoch: u64, is_here: bool, now: Instant) -> bool {
        let ahead = if is_here { DAY_MS } else { DAY_MS / 2 };
        epoch > self.clock.unix_ms(now).saturating_add(ahead)
    }

    /// Whether a departure of a far future may be believed: it comes right after what is known of
    /// the peer, whose epochs somebody put ahead. Who is there can still answer.
    pub(super) fn follows(&self, epoch: u64, known: u64, now: Instant) -> bool {
        let can_answer = !self.is_far_future(epoch.saturating_add(ANSWER_MS), true, now);
        epoch <= known.saturating_add(STEPS) && can_answer
    }

    /// Whether what somebody says of us has an epoch that nobody believes, whatever his clock: to
    /// outdo it would make us a host that nobody believes.
    pub(super) fn is_beyond_answer(&self, epoch: u64, is_here: bool, now: Instant) -> bool {
        self.is_far_future(epoch.saturating_sub(WRONG_MS as u64), is_here, now)
    }
}

/// Epochs further ahead than this are ignored.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// A difference that is not for us to put right.
const WRONG_MS: i64 = DAY_MS as i64 / 4;
/// Changes of a peer that is there, each an epoch, of which a teller of its departure may know more
/// than its hearer, and one for the departure.
const STEPS: u64 = 16;
/// What is left of a day for answers to a departure that is believed.
const ANSWER_MS: u64 = 60_000;

const _: () = assert!(STEPS < ANSWER_MS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_follows_most_of_its_neighbours_and_no_single_one() {
        let day = DAY_MS as i64;
        #[rustfmt::skip]
        let cases: [(&str, &[i64], i64); 8] = [
            ("nobody",                  &[],                         0),
            ("one liar",                &[9 * day],                  0),
            ("seconds are no matter",   &[9000, -7000, 8000],        0),
            ("two are ahead",           &[9 * day, 8 * day],         8 * day),
            ("two are behind",          &[-9 * day, -8 * day],       -8 * day),
            ("one of each",             &[-9 * day, 9 * day],        0),
            ("most are right",          &[9 * day, 9 * day, 0, 5],   0),
            ("most are ahead",          &[9 * day, 7 * day, 8 * day, 0], 7 * day),
        ];
        for (name, skews, expected) in cases {
            let mut clock = Clock::new(DAY_MS * 20_000, Instant::ZERO);
            clock.follow(skews.to_vec());
            assert_eq!(clock.offset_ms, expected, "{name}");
        }
    }

    #[test]
    fn going_back_is_noticed() {
        let day = DAY_MS as i64;
        let mut clock = Clock::new(DAY_MS * 20_000, Instant::ZERO);
        assert!(!clock.follow(vec![5 * day, 5 * day]));
        assert!(!clock.follow(vec![5 * day, 5 * day]));
        assert!(clock.follow(vec![0]));
        assert!(!clock.follow(vec![0]));
    }
}
