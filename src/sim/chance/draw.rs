//! Draws a plan from a number.

use std::time::Duration;

use super::{BadAnswer, Fault, Guest, HostPlan, Plan, Settings, TrackerKind, TrackerPlan};
use crate::base::rng::Rng;
use crate::sim::disk::DiskFaults;
use crate::sim::foreign::{Flood, Holds, LIES, Manners, Opening, Vice};
use crate::sim::net::Link;
use crate::sim::spec::Have;

impl Plan {
    /// The plan that belongs to a seed.
    pub fn draw(rng_seed: u64) -> Self {
        let mut rng = Rng::new(rng_seed);
        let piece_len = (16 * 1024) << rng.below(4);
        let last = u64::from(1 + rng.below(2_000_000));
        let files = (0..1 + rng.below(5))
            .map(|_| match rng.below(5) {
                0 => 0,
                1 => u64::from(rng.below(40)),
                _ => u64::from(1 + rng.below(600_000)),
            })
            .chain([last])
            .collect();
        let count = 2 + rng.below(11);
        let seeds = 1 + rng.below(3).min(count - 2);
        let base = draw_link(&mut rng);
        let trackers: Vec<TrackerPlan> = (0..rng.below(6).saturating_sub(3))
            .map(|_| draw_tracker(&mut rng))
            .collect();
        let mut hosts: Vec<HostPlan> = (0..count)
            .map(|index| draw_host(index, seeds, base, &mut rng))
            .collect();
        for index in 0..hosts.len() {
            let numbers = 0..trackers.len() as u32;
            hosts[index].trackers = numbers.filter(|_| rng.below(3) > 0).collect();
            let finds_first = find_each_other(&hosts[0], &hosts[index]);
            if index > 0 && finds_first && rng.below(3) == 0 {
                hosts[index].peers.clear();
            }
        }
        let mut plan = Self {
            rng_seed,
            files,
            piece_len,
            hosts,
            guests: Vec::new(),
            trackers,
            faults: Vec::new(),
            broadcast: false,
        };
        let span = plan.bound() * 4 + Duration::from_secs(2);
        plan.faults = (0..rng.below(16))
            .map(|_| {
                let at = Duration::from_micros(u64::from(rng.below(span.as_micros() as u32)));
                (at, draw_fault(count, &mut rng))
            })
            .collect();
        plan.faults.sort_by_key(|(at, _)| *at);
        if rng.below(3) == 0 {
            plan.guests = (0..1 + rng.below(4))
                .map(|_| draw_guest(count, base, &mut rng))
                .collect();
        }
        plan.broadcast = rng.below(2) == 0;
        if plan.broadcast {
            for guest in &mut plan.guests {
                if !guest.vices.is_empty() && rng.below(2) == 0 {
                    let lie = LIES[rng.below(LIES.len() as u32) as usize];
                    guest.vices.push(Vice::Lies(lie));
                }
            }
        }
        plan
    }
}

fn draw_link(rng: &mut Rng) -> Link {
    let rate = |rng: &mut Rng| 200_000 << rng.below(9);
    let up_bytes_s = rate(rng);
    let down_bytes_s = if rng.below(3) == 0 {
        rate(rng)
    } else {
        up_bytes_s
    };
    Link {
        up_bytes_s,
        down_bytes_s,
        latency: Duration::from_micros(50 << rng.below(10)),
        jitter: Duration::from_micros(u64::from(rng.below(5_000))) * rng.below(2),
        loss_ppm: rng.below(2) * rng.below(300_000),
        doubles_ppm: rng.below(2) * rng.below(50_000),
        mtu: if rng.below(4) == 0 { 9_000 } else { 1_500 },
    }
}

fn draw_host(index: u32, seeds: u32, base: Link, rng: &mut Rng) -> HostPlan {
    let link = if rng.below(3) == 0 {
        draw_link(rng)
    } else {
        base
    };
    let mut peers: Vec<u32> = (0..index).filter(|_| rng.below(3) > 0).collect();
    if !peers.contains(&0) && index > 0 {
        peers.push(0);
    }
    HostPlan {
        have: if index < seeds {
            Have::All
        } else {
            Have::Nothing
        },
        peers,
        link,
        joins: match rng.below(4) {
            0 => Duration::from_millis(u64::from(rng.below(10_000))),
            _ => Duration::ZERO,
        },
        is_reachable: index == 0 || rng.below(5) > 0,
        trackers: Vec::new(),
        settings: draw_settings(rng),
    }
}

/// Whether two hosts hear of each other though nobody tells them.
fn find_each_other(a: &HostPlan, b: &HostPlan) -> bool {
    let shares_tracker = a
        .trackers
        .iter()
        .any(|tracker| b.trackers.contains(tracker));
    shares_tracker || (a.settings.lsd && b.settings.lsd && a.is_reachable && b.is_reachable)
}

fn draw_tracker(rng: &mut Rng) -> TrackerPlan {
    let kinds = [
        TrackerKind::Http,
        TrackerKind::Udp,
        TrackerKind::EvpeerHttp,
        TrackerKind::EvpeerUdp,
    ];
    let answers = [
        BadAnswer::Silence,
        BadAnswer::Refusal,
        BadAnswer::Lie,
        BadAnswer::Noise,
    ];
    TrackerPlan {
        kind: kinds[rng.below(4) as usize],
        first: (0..rng.below(4))
            .map(|_| answers[rng.below(4) as usize])
            .collect(),
    }
}

fn draw_settings(rng: &mut Rng) -> Settings {
    Settings {
        fast: rng.below(4) > 0,
        conns_max: if rng.below(5) == 0 { 30 } else { 500 },
        lsd: rng.below(2) == 0,
        pex: rng.below(3) > 0,
    }
}

fn draw_fault(count: u32, rng: &mut Rng) -> Fault {
    let host = rng.below(count);
    let a_while = Duration::from_millis(1 + (u64::from(rng.below(4_000)) << rng.below(5)));
    let some = |rng: &mut Rng| {
        let mut hosts: Vec<u32> = (0..count).filter(|_| rng.below(2) == 0).collect();
        rng.shuffle(&mut hosts);
        hosts
    };
    match rng.below(14) {
        12 => Fault::Leave(host, a_while, draw_settings(rng)),
        13 => Fault::Swizzle(some(rng), a_while / 8),
        0 | 1 => Fault::Kill(host, a_while),
        2 => Fault::PowerCut(host, a_while),
        3 => Fault::Suspend(host, a_while * 3),
        4 => Fault::ClockJump(host, a_while * 10),
        5 | 6 => Fault::Reset(host),
        7 => {
            let island = some(rng);
            Fault::Island(island, a_while)
        }
        8 => Fault::OneWay(host, (host + 1 + rng.below(count - 1)) % count, a_while),
        9 => Fault::Slow(host, 1 + rng.below(8)),
        _ => Fault::Disk(host, draw_disk(rng)),
    }
}

fn draw_guest(hosts: u32, base: Link, rng: &mut Rng) -> Guest {
    let some = |rng: &mut Rng| rng.below(2) == 0;
    let pieces = (0..64).filter(|_| some(rng)).collect();
    let manners = Manners {
        dials: Vec::new(),
        holds: match rng.below(3) {
            0 => Holds::All,
            1 => Holds::Nothing,
            _ => Holds::Pieces(pieces),
        },
        wants: rng.below(4) > 0,
        fast: some(rng),
        extended: some(rng),
        opening: [Opening::Plain, Opening::Lazy, Opening::Late][rng.below(3) as usize],
        redundant_haves: some(rng),
        pipeline: 1 << rng.below(8),
        slots: 1 << rng.below(4),
        chokes_after: some(rng).then(|| 1 + rng.below(20)),
        up_bytes_s: some(rng).then(|| 20_000 << rng.below(8)),
        cuts_seeds: some(rng),
        reqq: some(rng).then(|| 1 << rng.below(10)),
    };
    let vices = if some(rng) {
        Vec::new()
    } else {
        vec![draw_vice(rng)]
    };
    Guest {
        manners,
        vices,
        dials: (0..hosts).filter(|_| rng.below(3) > 0).collect(),
        link: if some(rng) { draw_link(rng) } else { base },
    }
}

fn draw_vice(rng: &mut Rng) -> Vice {
    let floods = [
        Flood::Haves,
        Flood::Requests,
        Flood::Unknown,
        Flood::Chokes,
        Flood::Interest,
        Flood::KeepAlives,
        Flood::Cancels,
        Flood::Rejects,
        Flood::AllowedFast,
    ];
    match rng.below(20) {
        0..3 => Vice::Corrupts(1 + rng.below(20)),
        3 => Vice::Stalls,
        4 => Vice::ClaimsAll,
        5 | 6 => Vice::Floods(
            floods[rng.below(floods.len() as u32) as usize],
            1 << rng.below(9),
        ),
        7 => Vice::SendsUnasked,
        8 => Vice::CutsBlocks,
        9 => Vice::Oversizes,
        10 => Vice::Overreaches,
        11 => Vice::Drips,
        12 => Vice::FreeRides,
        13 => Vice::Sybil(1 + rng.below(12)),
        14 => Vice::Leaves(rng.below(30)),
        15 => Vice::Resets,
        16 => Vice::Spoofs(1 + rng.below(10)),
        17 => Vice::AimsByPex,
        18 => Vice::AimsByLsd,
        _ => Vice::Babbles,
    }
}

fn draw_disk(rng: &mut Rng) -> DiskFaults {
    let none = DiskFaults::default();
    match rng.below(5) {
        0 => DiskFaults {
            reads_ppm: rng.below(300_000),
            ..none
        },
        1 => DiskFaults {
            writes_ppm: rng.below(300_000),
            ..none
        },
        2 => DiskFaults {
            syncs_ppm: rng.below(1_000_000),
            ..none
        },
        3 => DiskFaults {
            slow_sync: Duration::from_millis(u64::from(rng.below(10_000))),
            ..none
        },
        _ => DiskFaults {
            capacity: Some(u64::from(rng.below(2_000_000))),
            ..none
        },
    }
}
