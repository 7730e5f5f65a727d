//! Swarms of chance: everything about them is drawn from one number.

use evpeer::sim::chance::{Plan, run};

/// Goal: whatever goes wrong, the rules hold, and all ends well once it stops.
/// Method: a fixed set of seeds; `evpeer soak` runs others.
#[test]
fn all_ends_well_once_faults_stop() {
    crate::world::for_seeds(300, |rng_seed| {
        if let Err(failure) = run(&Plan::draw(rng_seed)) {
            panic!("{failure}");
        }
    });
}
