//! The least that still fails: fewer faults, fewer hosts.

use std::panic;

use super::{Cut, Plan, run};

/// Takes away from a failing plan whatever it does not need to fail, with at most `runs_max`
/// runs. The answer fails, if the plan did.
pub fn shrink(plan: &Plan, runs_max: u32) -> Cut {
    let mut left = runs_max;
    let mut fails = |cut: &Cut| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let plan = plan.clone().without(cut);
        panic::catch_unwind(|| run(&plan)).map_or(true, |result| result.is_err())
    };
    let mut cut = Cut::default();
    let mut kept: Vec<u32> = (0..plan.faults.len() as u32).collect();
    // Half of the faults at a time, then a quarter, down to one.
    let mut step = kept.len().div_ceil(2);
    while step > 0 {
        let mut first = 0;
        while first < kept.len() {
            let end = (first + step).min(kept.len());
            let mut fewer = kept.clone();
            fewer.drain(first..end);
            let smaller = Cut {
                faults: Some(fewer.clone()),
                ..cut.clone()
            };
            if fails(&smaller) {
                (kept, cut) = (fewer, smaller);
            } else {
                first = end;
            }
        }
        step /= 2;
    }
    for guests in 0..plan.guests.len() as u32 {
        let smaller = Cut {
            guests: Some(guests),
            ..cut.clone()
        };
        if fails(&smaller) {
            cut = smaller;
            break;
        }
    }
    for hosts in 2..plan.hosts.len() as u32 {
        let smaller = Cut {
            hosts: Some(hosts),
            ..cut.clone()
        };
        if fails(&smaller) {
            return smaller;
        }
    }
    cut
}
