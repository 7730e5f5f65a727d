//! Types that every layer shares: ids, time, bits, timers, limits. Pure, no I/O.

pub mod address;
pub mod bits;
pub mod bucket;
pub mod burst;
pub mod choice;
pub mod digest;
pub mod few;
pub mod id;
pub mod limits;
pub mod plan;
pub mod rate;
pub mod rng;
pub mod seldom;
pub mod slot;
pub mod status;
pub mod text;
pub mod time;
pub mod timers;
pub mod verdict;
