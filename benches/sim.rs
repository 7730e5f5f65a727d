//! The simulator's speed: whole swarms in virtual time, on one core.
//!
//! `cargo bench --bench sim` runs the small ones; `cargo bench --bench sim -- large` those that
//! take minutes. `cargo bench --bench sim -- 1000x1024` runs so many hosts with so many pieces of
//! one block; `1000x1GiB` so many hosts with so much in pieces of 1 MiB.
//!
//! What limits it, by `perf` over 300 hosts and 1 GiB: no single place. The engines themselves take
//! 63 %, a few in each of a score of functions; the order of events 11 %, hosts, lines and
//! streams 18 %, the allocator 4 %. Most of it waits for memory: a hundred hosts do twice as many
//! inputs a second as a thousand, whose state no cache holds.

use std::time::{Duration, Instant};

use evpeer::sim::forecast::Forecast;

const BLOCK: u64 = 16 * 1024;
const GIB: u64 = 1 << 30;

fn swarm(hosts: u32, pieces: u64) -> Forecast {
    Forecast {
        hosts,
        length: pieces * BLOCK,
        piece_len: BLOCK as u32,
        link: evpeer::sim::Link::lan(125_000_000),
        ..Forecast::default()
    }
}

fn bulk(hosts: u32, length: u64) -> Forecast {
    Forecast {
        hosts,
        length,
        ..Forecast::default()
    }
}

fn run(name: &str, forecast: &Forecast) {
    let begin = Instant::now();
    let outcome = forecast
        .run(|_, _| {})
        .expect("no judge finds fault with the engines");
    let took = begin.elapsed();
    let per_second = outcome.inputs as f64 / took.as_secs_f64();
    let last = outcome.last().unwrap_or(Duration::ZERO);
    println!(
        "{name:>12}: {:6.1} s, {:5.2} M inputs/s, {:6.1} M inputs, {:6.1} M steps, \
         virtual {:7.2} s, {:5.3} x bound, seed {:4.2} copies, unfinished {}",
        took.as_secs_f64(),
        per_second / 1e6,
        outcome.inputs as f64 / 1e6,
        outcome.steps as f64 / 1e6,
        last.as_secs_f64(),
        outcome.ratio().unwrap_or(f64::NAN),
        outcome.seed_copies,
        outcome.unfinished,
    );
}

fn main() {
    let mut chosen = false;
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        chosen = true;
        if arg == "large" {
            run("1000x1GiB", &bulk(1000, GIB));
            run("10000x256", &swarm(10_000, 256));
        } else if let Some((hosts, pieces)) = arg.split_once('x') {
            let hosts = hosts.parse().expect("hosts are a number");
            match pieces.strip_suffix("GiB") {
                Some(gib) => {
                    let gib: u64 = gib.parse().expect("GiB are a number");
                    run(&arg, &bulk(hosts, gib * GIB));
                }
                None => run(
                    &arg,
                    &swarm(hosts, pieces.parse().expect("pieces are a number")),
                ),
            }
        }
    }
    if !chosen {
        run("100x1024", &swarm(100, 1024));
        run("1000x1024", &swarm(1000, 1024));
        run("100x1GiB", &bulk(100, GIB));
    }
}
