//! `simulate`: tells in advance how long a swarm takes.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::args::SimulateArgs;
use super::error::CliError;
use super::output::print;
use super::plot;
use super::units::{LineRates, show_count, show_len, show_rate};
use crate::base::limits::PIECES_MAX;
use crate::meta::create::piece_len_for;
use crate::sim::forecast::{Forecast, Outcome};
use crate::sim::{Judged, Link, Uplink};

/// Runs the swarm in virtual time and prints what came of it; exit code 1 if some host is not
/// complete within a day of it.
///
/// # Errors
/// Figures that do not fit together, a plot that cannot be written, or a fault in evpeer itself.
pub fn simulate(args: &SimulateArgs) -> Result<ExitCode, CliError> {
    let forecast = forecast_of(args)?;
    if let Some(path) = &args.plot {
        plot::check(path)?;
    }
    let shows = !args.json && std::io::stderr().is_terminal();
    let outcome = forecast.run(|now, complete| {
        if shows {
            // Nobody can be told that nobody sees it.
            let _ = write!(
                std::io::stderr(),
                "\r{complete} complete after {} ",
                show_seconds(now)
            );
        }
    });
    if shows {
        let _ = write!(std::io::stderr(), "\r{:60}\r", "");
    }
    let outcome = outcome.map_err(CliError::Simulation)?;
    if let Some(path) = &args.plot {
        plot::draw(path, &forecast, &outcome)?;
    }
    if args.json {
        print(&as_json(&forecast, &outcome))?;
    } else {
        print(&as_table(&forecast, &outcome))?;
    }
    Ok(ExitCode::from(u8::from(outcome.unfinished > 0)))
}

fn forecast_of(args: &SimulateArgs) -> Result<Forecast, CliError> {
    let no_swarm = |what: String, remedy| Err(CliError::NoSwarm { what, remedy });
    if args.size == 0 {
        return no_swarm(
            "no bytes to spread".to_owned(),
            "give --size as such as 5GiB",
        );
    }
    if args.seeds >= args.hosts {
        let what = format!("all of {} hosts have the data already", args.hosts);
        return no_swarm(what, "give --hosts more than --seeds");
    }
    if args.kill >= args.hosts - args.seeds {
        let what = format!("{} hosts die, nobody is left to become complete", args.kill);
        return no_swarm(what, "give --kill less than --hosts without --seeds");
    }
    let piece_len = args
        .piece_length
        .unwrap_or_else(|| piece_len_for(args.size));
    let pieces = args.size.div_ceil(u64::from(piece_len));
    if pieces > u64::from(PIECES_MAX) {
        let what = format!("{pieces} pieces, at most {PIECES_MAX} are possible");
        return no_swarm(what, "give a longer --piece-length");
    }
    let latency = Duration::from_micros(args.latency_us);
    let mut links = args.link.iter().map(|line| Link {
        latency,
        up_bytes_s: line.up,
        down_bytes_s: line.down,
        ..Link::lan(line.up)
    });
    let link = links.next().expect("the command line asks for one");
    let (up_bytes_s, down_bytes_s) = match args.uplink {
        Some(rate) => (rate, rate),
        None => (link.up_bytes_s, link.down_bytes_s),
    };
    Ok(Forecast {
        rng_seed: args.seed,
        hosts: args.hosts,
        seeds: args.seeds,
        length: args.size,
        piece_len,
        link,
        other_links: links.collect(),
        racks: args.racks.unwrap_or(0),
        uplink: Uplink {
            up_bytes_s,
            down_bytes_s,
            latency: Duration::ZERO,
        },
        killed: args.kill,
        known: args.known,
        limit: Duration::from_secs(86_400),
        judged: Judged::Loosely,
    })
}

fn as_json(forecast: &Forecast, outcome: &Outcome) -> String {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let object = json!({
        "hosts": forecast.hosts,
        "complete": outcome.completed.len(),
        "unfinished": outcome.unfinished,
        "first_s": seconds(outcome.percentile(0)),
        "median_s": seconds(outcome.percentile(50)),
        "p90_s": seconds(outcome.percentile(90)),
        "p99_s": seconds(outcome.percentile(99)),
        "last_s": seconds(outcome.last()),
        "bound_s": outcome.bound.as_secs_f64(),
        "last_over_bound": outcome.ratio(),
        "seed_copies": outcome.seed_copies,
        "uplink_copies": (forecast.racks > 0).then_some(outcome.uplink_copies),
        "duplicate_bytes": outcome.duplicate_bytes,
        "control_bytes": outcome.control_bytes,
        "rng_seed": forecast.rng_seed,
        "digest": outcome.digest,
    });
    format!("{object}\n")
}

fn as_table(forecast: &Forecast, outcome: &Outcome) -> String {
    let mut text = String::new();
    let pieces = forecast.length.div_ceil(u64::from(forecast.piece_len));
    let racks = match forecast.racks {
        0 => String::new(),
        n => format!(
            " in {n} racks with uplinks of {}",
            show_rate(forecast.uplink.up_bytes_s)
        ),
    };
    let lines = std::iter::once(&forecast.link).chain(&forecast.other_links);
    let lines = lines.map(|link| {
        let (up, down) = (link.up_bytes_s, link.down_bytes_s);
        LineRates { up, down }.show()
    });
    let lines = lines.collect::<Vec<_>>().join(" and ");
    writeln!(
        text,
        "{}, {} with the data, {} in {}, lines of {lines}{racks}\n",
        show_count(forecast.hosts as usize, "host"),
        forecast.seeds,
        show_len(forecast.length),
        show_count(pieces as usize, "piece"),
    )
    .expect("a String takes everything");
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:24} {value}").expect("a String takes everything");
    };
    let time = |time: Option<Duration>| time.map_or("never".to_owned(), show_seconds);
    line("first host complete", time(outcome.percentile(0)));
    line("half of them", time(outcome.percentile(50)));
    line("90 of 100", time(outcome.percentile(90)));
    line("99 of 100", time(outcome.percentile(99)));
    line("last host complete", time(outcome.last()));
    let ratio = outcome.ratio().unwrap_or(f64::NAN);
    let bound = show_seconds(outcome.bound);
    line(
        "no protocol is below",
        format!("{bound} (the last took {ratio:.2} x as long)"),
    );
    line(
        "copies that seeds sent",
        format!("{:.2}", outcome.seed_copies),
    );
    if forecast.racks > 0 {
        line(
            "copies over uplinks",
            format!("{:.2}", outcome.uplink_copies),
        );
    }
    let len = forecast.length as f64 * outcome.completed.len().max(1) as f64;
    let share = |bytes: u64| format!("{} ({:.2} %)", show_len(bytes), bytes as f64 * 100.0 / len);
    line("received in vain", share(outcome.duplicate_bytes));
    line("talk beside the data", share(outcome.control_bytes));
    if forecast.killed > 0 {
        line("died on the way", forecast.killed.to_string());
    }
    if outcome.unfinished > 0 {
        line("NOT COMPLETE", outcome.unfinished.to_string());
    }
    text
}

/// A time with three digits: `0.123 s`, `12.3 s`, `2 min 3 s`.
pub fn show_seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 1.0 => format!("{s:.3} s"),
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.1} s"),
        _ => super::units::show_time(time),
    }
}
