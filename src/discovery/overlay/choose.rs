//! Whom to link with, whom to dial, and when to look again.

use std::net::SocketAddr;

use super::action::Action;
use super::anchors::FIRST_PAUSE;
use super::{
    Cause, DIALS_MAX, DRAWN, DRAWS_REST, FAILED_PAUSE, FILL, IDLE_MAX, LINKS_MAX, Overlay, Purpose,
    VAIN_DRAWS_MAX,
};
use crate::base::time::Instant;
use crate::wire::ev_peers::Reason;

impl Overlay {
    pub(super) fn drawn_count(&self) -> usize {
        let drawn = self
            .links_held()
            .filter(|(_, carried)| carried.is_drawn)
            .count();
        let draws = self
            .dialling
            .values()
            .filter(|cause| **cause == Cause::Draw)
            .count();
        drawn + draws
    }

    pub(super) fn wants_draw(&self) -> bool {
        self.drawn_count() < DRAWN
    }

    /// Until when nobody is drawn, if it is so.
    fn draws_rest_until(&self, now: Instant) -> Option<Instant> {
        let (count, since) = self.vain_draws;
        let until = since + DRAWS_REST;
        (count >= VAIN_DRAWS_MAX && until > now).then_some(until)
    }

    /// Somebody that was drawn cannot be dialled, or does not answer.
    pub(super) fn drew_in_vain(&mut self, now: Instant) {
        self.vain_draws = match self.vain_draws {
            (count, since) if now < since + DRAWS_REST => (count + 1, since),
            _ => (1, now),
        };
    }

    /// Draws others until there are enough, or nobody is left to draw.
    pub(super) fn draw(&mut self, now: Instant) {
        while self.wants_draw() && self.link_count() < LINKS_MAX {
            if self.dialling.len() >= DIALS_MAX || self.draws_rest_until(now).is_some() {
                return;
            }
            let linked: Vec<_> = self.links().map(|(_, stream)| stream.addr).collect();
            let fits = |addr| {
                let is_known = linked.contains(&addr) || self.dialling.contains_key(&addr);
                !is_known && !self.anchors.contains_key(&addr)
            };
            let mut rng = self.rng.clone();
            // Who has few links begins with those of whom it is sure that they were there once.
            let met = match self.link_count() {
                FILL.. => None,
                _ if rng.below(2) == 0 => None,
                _ => self.addresses.draw_met(&mut rng, now, fits),
            };
            let drawn = met.or_else(|| self.addresses.draw(&mut rng, now, fits));
            self.rng = rng;
            let Some(addr) = drawn else { return };
            let mut streams = self.streams.iter();
            match streams.find(|(_, held)| held.stream.addr == addr) {
                Some((_, held)) if self.link_of(held.stream.peer).is_some() => {
                    let link = self.link_of(held.stream.peer);
                    let linked = link.map(|(conn, _)| self.streams[&conn].stream.addr);
                    self.twin(addr, linked.expect("there is one"), now);
                }
                Some((&conn, held)) if held.refused_until <= now => self.offer(conn, true),
                Some((_, held)) => {
                    let until = held.refused_until;
                    self.addresses.pause(addr, until);
                }
                None => self.dial(addr, Cause::Draw, now),
            }
        }
    }

    /// Below a few links, any stream will do.
    pub(super) fn fill(&mut self, now: Instant) {
        let wanted = FILL.saturating_sub(self.link_count());
        if wanted == 0 {
            return;
        }
        let spare = self.streams.iter().filter(|(_, held)| {
            let is_strange =
                held.stream.peer != self.own && self.link_of(held.stream.peer).is_none();
            let may = !self.addresses.is_barred(held.stream.addr, now);
            held.link.is_none() && held.refused_until <= now && is_strange && may
        });
        let mut peers = Vec::new();
        let mut chosen = Vec::new();
        for (&conn, held) in spare {
            if chosen.len() < wanted && !peers.contains(&held.stream.peer) {
                peers.push(held.stream.peer);
                chosen.push(conn);
            }
        }
        chosen.into_iter().for_each(|conn| self.offer(conn, false));
    }

    /// Closes streams for links that carry none.
    pub(super) fn close_idle(&mut self, now: Instant) {
        let idle = self.streams.iter().filter(|(_, held)| {
            let is_due = held.idle_since + IDLE_MAX <= now;
            held.stream.purpose == Purpose::Overlay && held.link.is_none() && is_due
        });
        let idle: Vec<_> = idle.map(|(&conn, _)| conn).collect();
        idle.into_iter()
            .for_each(|conn| self.drop(conn, Reason::Surplus));
    }

    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let idle = self
            .streams
            .values()
            .filter(|held| held.stream.purpose == Purpose::Overlay && held.link.is_none());
        let idle = idle.map(|held| held.idle_since + IDLE_MAX).min();
        let can_dial = self.dialling.len() < DIALS_MAX;
        let anchors = self
            .anchors
            .iter()
            .filter(|(addr, _)| can_dial && !self.dialling.contains_key(addr));
        let anchors = anchors.map(|(&addr, anchor)| {
            if anchor.at > now || self.addresses.may_dial(addr, now) {
                anchor.at
            } else {
                now + FAILED_PAUSE
            }
        });
        let few = self.wants_draw() || self.link_count() < FILL;
        let resumed = few.then(|| self.addresses.next_resumed(now));
        let refused = self.streams.values().map(|held| held.refused_until);
        let refused = refused.filter(|until| few && *until > now).min();
        let refill = few.then(|| self.addresses.refill_at().max(now + FIRST_PAUSE));
        let rested = self.draws_rest_until(now).filter(|_| few);
        let all = [idle, anchors.min(), resumed, refused, refill, rested];
        all.into_iter().flatten().min().unwrap_or(Instant::NEVER)
    }

    pub(super) fn dial(&mut self, addr: SocketAddr, cause: Cause, now: Instant) {
        self.dialling.insert(addr, cause);
        self.addresses.dialled(addr, now);
        self.actions.push_back(Action::Dial(addr));
    }
}
