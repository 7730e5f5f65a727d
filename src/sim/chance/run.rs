//! Runs a plan: first what goes wrong, then the time in which all has to end well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{
    BadAnswer, Fault, HostId, HostPlan, PeerSpec, Plan, Settings, Tally, TrackerKind, TrackerPlan,
    World,
};
use crate::config::Config;
use crate::engine::State;
use crate::sim::Failure;
use crate::sim::disk::DiskFaults;
use crate::sim::foreign::{Foreign, Holds};
use crate::sim::host::address;
use crate::sim::net::Link;
use crate::sim::spec::Payload;
use crate::sim::tracker::{Answer, Terms, Tracker};
use crate::sim::udp_tracker::{UdpAnswer, UdpTracker};

/// What is done at a moment of the first phase.
#[derive(Clone, Debug)]
enum Deed {
    Join(u32),
    Fault(Fault),
    Restart(u32),
    Heal,
    /// Cut these off, the last first, then let those in, one after the other.
    Swizzle(Vec<u32>, Vec<u32>, Duration),
}

/// Runs a plan to its end; the digest of the run, and what it has seen.
///
/// # Errors
/// A judge found fault, or an honest host is not complete in time.
pub fn run(plan: &Plan) -> Result<(String, Tally), Box<Failure>> {
    let (meta, content) = plan.torrent();
    let link = plan.hosts.first().map_or(Link::lan(1_000_000), |h| h.link);
    let mut world = World::new(plan.rng_seed, link, meta, Arc::clone(&content));
    world.set_audit_interval([1, 10, 100, 1000][plan.rng_seed as usize % 4]);
    let mut deeds: Vec<(Duration, Deed)> = Vec::new();
    let mut late = Vec::new();
    for (index, host) in (0..).zip(&plan.hosts) {
        // All hosts take their places, so that places in the plan are those in the world.
        world.add(spec_of(host, plan));
        if host.joins > Duration::ZERO {
            world.cut(HostId(index));
            late.push(index);
            deeds.push((host.joins, Deed::Join(index)));
        }
    }
    for guest in &plan.guests {
        let mut manners = guest.manners.clone();
        let count = world.meta().geometry().piece_count();
        if let Holds::Pieces(pieces) = &mut manners.holds {
            pieces.retain(|&piece| piece < count);
        }
        let dialled = guest
            .dials
            .iter()
            .filter(|&&host| (host as usize) < plan.hosts.len());
        manners.dials = dialled.map(|&host| world.addr(HostId(host))).collect();
        let (meta, payload) = (
            Arc::clone(world.meta()),
            Payload::Real(Arc::clone(&content)),
        );
        let actor = Foreign::vicious(meta, payload, manners, guest.vices.clone());
        world.add_actor(Box::new(actor), Some(guest.link));
    }
    for tracker in &plan.trackers {
        add_tracker(&mut world, tracker);
    }
    let faults = plan.faults.iter().cloned();
    deeds.extend(faults.map(|(at, fault)| (at, Deed::Fault(fault))));
    let mut done = 0;
    let start = world.now();
    while !deeds.is_empty() {
        deeds.sort_by_key(|(at, _)| *at);
        let (at, deed) = deeds.remove(0);
        let left = at.saturating_sub(world.now() - start);
        world.advance(left, |_| false)?;
        match deed {
            Deed::Join(host) => {
                late.retain(|late| *late != host);
                world.restart(HostId(host));
            }
            Deed::Restart(host) if !late.contains(&host) => world.restart(HostId(host)),
            Deed::Restart(_) => {}
            Deed::Heal => world.heal(),
            Deed::Swizzle(mut out, mut back, pause) => {
                match (out.pop(), back.last()) {
                    (Some(host), _) => world.isolate(&[HostId(host)], 2 + host),
                    (None, Some(&host)) => {
                        world.rejoin(HostId(host));
                        back.pop();
                    }
                    (None, None) => {}
                }
                if !out.is_empty() || !back.is_empty() {
                    deeds.push((at + pause, Deed::Swizzle(out, back, pause)));
                }
            }
            Deed::Fault(fault) => {
                done += 1;
                if let Some((later, deed)) = happen(&mut world, &fault) {
                    deeds.push((at + later, deed));
                }
            }
        }
    }
    world.audit()?;
    end_well(&mut world, plan)?;
    let tally = Tally {
        runs: 1,
        hosts: u64::from(world.host_count()),
        steps: world.steps(),
        faults: done,
        micros: world.now().as_micros(),
    };
    Ok((world.digest(), tally))
}

fn spec_of(host: &HostPlan, plan: &Plan) -> PeerSpec {
    let peers: Vec<HostId> = host.peers.iter().map(|&peer| HostId(peer)).collect();
    let mut spec = PeerSpec::new(host.have, &peers);
    let first = (plan.hosts.len() + plan.guests.len()) as u32;
    let url = |&tracker: &u32| {
        let scheme = match plan.trackers[tracker as usize].kind {
            TrackerKind::Http | TrackerKind::EvpeerHttp => "http",
            TrackerKind::Udp | TrackerKind::EvpeerUdp => "udp",
        };
        format!("{scheme}://{}/announce", address(HostId(first + tracker)))
    };
    spec.trackers = host.trackers.iter().map(url).collect();
    spec.link = Some(host.link);
    spec.is_reachable = host.is_reachable;
    spec.config.broadcast = plan.broadcast;
    set(&mut spec.config, host.settings);
    spec
}

/// The trackers come after all hosts and guests.
fn add_tracker(world: &mut World, plan: &TrackerPlan) {
    let lie = || {
        let nobody = (1..30_u8).map(|n| SocketAddr::from(([198, 51, 100, n], 6881)));
        nobody.collect::<Vec<_>>()
    };
    let first = plan.first.iter();
    match plan.kind {
        TrackerKind::Http => {
            let first = first.map(|answer| match answer {
                BadAnswer::Silence => Answer::Silence,
                BadAnswer::Refusal => Answer::Failure("no".to_owned(), None),
                BadAnswer::Noise => Answer::Raw(vec![0xfe; 2000]),
                BadAnswer::Lie => Answer::Peers(Terms {
                    lie: Some(lie()),
                    ..Terms::every(60)
                }),
            });
            let then = Answer::Peers(Terms::every(60));
            world.add_actor(Box::new(Tracker::after(first, then)), None);
        }
        TrackerKind::Udp => {
            let mut tracker = UdpTracker::new(UdpAnswer::Peers(60));
            let first = first.map(|answer| match answer {
                BadAnswer::Silence => UdpAnswer::Silence,
                BadAnswer::Refusal => UdpAnswer::Error("no".to_owned()),
                BadAnswer::Noise => UdpAnswer::Raw(vec![0xfe; 1400]),
                BadAnswer::Lie => UdpAnswer::Lie(lie()),
            });
            tracker.first = first.collect();
            world.add_actor(Box::new(tracker), None);
        }
        TrackerKind::EvpeerHttp | TrackerKind::EvpeerUdp => {
            world.add(PeerSpec::tracker());
        }
    }
}

fn set(config: &mut Config, settings: Settings) {
    config.fast = settings.fast;
    config.conns_max = settings.conns_max;
    config.lsd = settings.lsd;
    config.pex = settings.pex;
}

/// Lets something go wrong; what mends it, and when.
fn happen(world: &mut World, fault: &Fault) -> Option<(Duration, Deed)> {
    match fault {
        Fault::Kill(host, time) => {
            world.kill(HostId(*host));
            Some((*time, Deed::Restart(*host)))
        }
        Fault::Leave(host, time, settings) => {
            world.leave(HostId(*host));
            if let Some(config) = world.config_mut(HostId(*host)) {
                set(config, *settings);
            }
            Some((*time + GOODBYE, Deed::Restart(*host)))
        }
        Fault::Swizzle(hosts, pause) => {
            let back: Vec<u32> = hosts.iter().rev().copied().collect();
            let (first, second) = back.split_at(back.len() / 2);
            let back = [second, first].concat();
            Some((*pause, Deed::Swizzle(hosts.clone(), back, *pause)))
        }
        Fault::PowerCut(host, time) => {
            world.cut(HostId(*host));
            Some((*time, Deed::Restart(*host)))
        }
        Fault::Suspend(host, time) => {
            world.suspend(HostId(*host), *time);
            None
        }
        Fault::ClockJump(host, time) => {
            world.clock_jump(HostId(*host), *time);
            None
        }
        Fault::Reset(host) => {
            world.reset_stream(HostId(*host));
            None
        }
        Fault::Island(hosts, time) => {
            let hosts: Vec<HostId> = hosts.iter().map(|&host| HostId(host)).collect();
            world.isolate(&hosts, 1);
            Some((*time, Deed::Heal))
        }
        Fault::OneWay(from, to, time) => {
            world.cut_way(HostId(*from), HostId(*to));
            Some((*time, Deed::Heal))
        }
        Fault::Slow(host, factor) => {
            let link = *world.network().lines.link(HostId(*host));
            let slower = Link {
                up_bytes_s: (link.up_bytes_s / u64::from(*factor)).max(20_000),
                down_bytes_s: (link.down_bytes_s / u64::from(*factor)).max(20_000),
                ..link
            };
            world.set_link(HostId(*host), slower);
            None
        }
        Fault::Disk(host, faults) => {
            if let Some(disk) = world.disk(HostId(*host)) {
                disk.set_faults(*faults);
            }
            None
        }
    }
}

/// The faults have stopped: in a bounded time everybody is complete.
fn end_well(world: &mut World, plan: &Plan) -> Result<(), Box<Failure>> {
    world.heal();
    let moving = world.all_moving_in();
    world.advance(moving, |_| false)?;
    for (index, host) in (0..).map(HostId).zip(&plan.hosts) {
        if let Some(disk) = world.disk(index) {
            disk.set_faults(DiskFaults::default());
        }
        // Who is told of nobody needs the settings by which it finds others.
        if let Some(config) = world.config_mut(index)
            && (config.lsd, config.pex) != (host.settings.lsd, host.settings.pex)
        {
            set(config, host.settings);
            world.kill(index);
        }
        world.restart(index);
        world.set_link(index, host.link);
    }
    let hosts: Vec<HostId> = (0..plan.hosts.len() as u32).map(HostId).collect();
    let everybody = world.host_count();
    let is_told = plan.hosts.iter().skip(1).all(|host| !host.peers.is_empty());
    let search = if is_told { Duration::ZERO } else { SEARCH };
    let limit = plan.bound() * 3 * everybody + GRACE * (1 + plan.guests.len() as u32) + search;
    let is_right = |world: &World, host: HostId| world.is_complete(host);
    let end = world.now() + limit;
    while world.now() < end && !hosts.iter().all(|&host| is_right(world, host)) {
        world.advance(ROUND, |world| {
            world.steps().is_multiple_of(64) && hosts.iter().all(|&host| is_right(world, host))
        })?;
        restart_stopped(world);
    }
    world.audit()?;
    for &host in &hosts {
        if !is_right(world, host) {
            let progress = world.progress(host);
            let text = format!(
                "{:.1} % complete {limit:?} after the last fault",
                progress * 100.0
            );
            return Err(world.unfinished(host, text));
        }
    }
    // Storage may still be writing what was verified.
    world.advance(GRACE, |world| {
        world.steps().is_multiple_of(64) && hosts.iter().all(|&host| world.is_content_right(host))
    })?;
    for &host in &hosts {
        if !world.is_content_right(host) {
            return Err(world.unfinished(host, "its files are not the torrent's".to_owned()));
        }
    }
    // Who cannot be reached is gone and back for who tries; guests come and go as they like.
    if plan.broadcast && plan.guests.is_empty() && plan.hosts.iter().all(|h| h.is_reachable) {
        agree(world, &hosts)?;
    }
    Ok(())
}

/// All evpeers come to know exactly each other, and then have nothing left to say.
fn agree(world: &mut World, hosts: &[HostId]) -> Result<(), Box<Failure>> {
    let wrong = |world: &World| {
        hosts
            .iter()
            .copied()
            .find(|&host| !knows(world, host, hosts))
    };
    let end = world.now() + AGREE;
    while wrong(world).is_some() && world.now() < end {
        world.advance(ROUND, |_| false)?;
        restart_stopped(world);
    }
    if let Some(host) = wrong(world) {
        let known = world.engine(host).map(|engine| engine.evpeers());
        let text = format!("of {} evpeers it knows {known:?}", hosts.len());
        return Err(world.at_fault("network", host, text));
    }
    world.advance(SETTLE, |_| false)?;
    let settled = world.now();
    world.advance(QUIET, |_| false)?;
    let [told, _] = world.gossiped();
    if let Some((host, at)) = told.filter(|(_, at)| *at > settled) {
        let text = format!("tells of evpeers {:?} after all was told", at - settled);
        return Err(world.at_fault("gossip", host, text));
    }
    // Who was in vain or too much for another tries again some time. That comes to an end.
    let end = settled + CALM;
    while let [_, Some((host, at))] = world.gossiped()
        && world.now() - at < QUIET
    {
        if world.now() >= end {
            let text = format!("opens links {:?} after all was told", at - settled);
            return Err(world.at_fault("gossip", host, text));
        }
        world.advance(QUIET, |_| false)?;
    }
    Ok(())
}

/// Whether an evpeer knows exactly the others.
fn knows(world: &World, at: HostId, hosts: &[HostId]) -> bool {
    let mut known = world.engine(at).map_or(Vec::new(), |e| e.evpeers());
    known.sort_unstable();
    let others = hosts.iter().filter(|&&other| other != at);
    let mut truth: Vec<SocketAddr> = others.map(|&other| world.addr(other)).collect();
    truth.sort_unstable();
    known == truth
}

/// A torrent that a fault of its disk has stopped stays so until its user starts the peer anew.
/// The news of a fault may come late, when the lane of the disk was busy.
fn restart_stopped(world: &mut World) {
    for host in (0..world.host_count()).map(HostId) {
        let state = world.snapshot(host).map(|figures| figures.state);
        if state == Some(State::Error) {
            world.kill(host);
            world.restart(host);
        }
    }
}

/// Time to hear of others on the link or from a tracker that was away: two rounds of either.
const SEARCH: Duration = Duration::from_secs(1200);
/// Time that a host takes to leave in good order, at most.
const GOODBYE: Duration = Duration::from_secs(2);
/// Virtual time between two looks at torrents that have stopped.
const ROUND: Duration = Duration::from_secs(10);
/// Time in which all evpeers know of each other once they reach each other again.
const AGREE: Duration = Duration::from_secs(1800);
/// Time in which what was said last has been heard, and compared.
const SETTLE: Duration = Duration::from_secs(120);
/// Time in which nothing is said.
const QUIET: Duration = Duration::from_secs(600);
/// Time in which the last links are opened: who was barred or not there is tried again.
const CALM: Duration = Duration::from_secs(2 * 3600);
/// Time to find each other again after the last fault: back-off and choking rounds.
const GRACE: Duration = Duration::from_secs(180);
