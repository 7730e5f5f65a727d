//! Processes that a bench has started.

use std::process::Child;
use std::time::Duration;

/// CPU time of all its threads so far.
pub fn cpu_time(child: &Child) -> Duration {
    let path = format!("/proc/{}/task", child.id());
    let threads = std::fs::read_dir(path).expect("the process runs");
    let of_thread = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    };
    let nanos: u64 = threads.flatten().filter_map(of_thread).sum();
    Duration::from_nanos(nanos)
}
