//! `soak`: random swarms in which everything goes wrong, on all cores.

use std::fmt::Write as _;
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::args::{SoakArgs, TalkArgs};
use super::error::CliError;
use super::logging;
use super::output::{print, print_error};
use super::units::show_time;
use crate::sim::chance::{Cut, Plan, Tally, run, shrink};

/// Runs worlds of chance until the time is over, or one; exit code 1 if a judge found fault.
///
/// # Errors
/// Standard output cannot be written, or the system has no randomness or no thread to give.
pub fn soak(args: &SoakArgs) -> Result<ExitCode, CliError> {
    if args.trace {
        let talk = TalkArgs {
            verbose: 2,
            ..TalkArgs::default()
        };
        logging::start(&talk, None)?;
    }
    match args.seed {
        Some(seed) => one(seed, &args.only),
        None => many(args),
    }
}

fn one(seed: u64, only: &Cut) -> Result<ExitCode, CliError> {
    let plan = Plan::draw(seed).without(only);
    match run(&plan) {
        Ok((digest, tally)) => {
            print(&format!("seed {seed}: {digest}, {}\n", show(&tally)))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            print_error(&format!("{plan:#?}\n{failure}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn many(args: &SoakArgs) -> Result<ExitCode, CliError> {
    let jobs = args.jobs.map_or_else(
        || thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    // Fresh seeds, not those of the last search.
    let by_chance = || getrandom::u64().unwrap_or_else(|_| std::process::id().into()) >> 16;
    let first = args.from.unwrap_or_else(by_chance);
    let next = AtomicU64::new(first);
    let end = Instant::now() + args.time;
    let found = Mutex::new((Tally::default(), None::<(u64, String)>));
    let mut told = Instant::now();
    thread::scope(|scope| {
        let search = || {
            while Instant::now() < end && lock(&found).1.is_none() {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                // A panic is a fault like any other; its text is on standard error already.
                let result = panic::catch_unwind(|| run(&Plan::draw(seed)));
                let mut found = lock(&found);
                match result {
                    Ok(Ok((_, tally))) => found.0.add(tally),
                    Ok(Err(failure)) => drop(found.1.get_or_insert((seed, failure.to_string()))),
                    Err(_) => drop(found.1.get_or_insert((seed, "it panicked".to_owned()))),
                }
            }
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(search)).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                print_error(&show(&lock(&found).0));
            }
        }
    });
    let (tally, failed) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&format!("{}\n", show(&tally)))?;
    let Some((seed, failure)) = failed else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut text = format!("{failure}\n");
    let mut only = String::new();
    if !args.no_shrink {
        only = shrink(&Plan::draw(seed), SHRINK_RUNS).to_string();
    }
    let part = if only.is_empty() {
        String::new()
    } else {
        format!(" --only {only}")
    };
    write!(text, "replay: evpeer soak --seed {seed}{part}").expect("a String takes everything");
    print_error(&text);
    Ok(ExitCode::FAILURE)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(tally: &Tally) -> String {
    format!(
        "{} runs, {} peers, {} steps, {} faults, {} of virtual time",
        tally.runs,
        tally.hosts,
        tally.steps,
        tally.faults,
        show_time(Duration::from_micros(tally.micros))
    )
}

/// How often it is told how far the search is.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Runs to find the least that still fails.
const SHRINK_RUNS: u32 = 200;
