//! What the kernel says about a running process (Linux: /proc).

use std::fs;
use std::time::Duration;

/// A figure from /proc/PID/status, KiB; `key` with its colon.
pub fn memory_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("the kernel says it");
    let figure = line.split_whitespace().next().expect("a figure follows");
    figure.parse().expect("it is a number")
}

/// CPU time of all threads of a process so far.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks
        .map(|task| {
            let path = task.expect("the thread stays").path().join("schedstat");
            let text = fs::read_to_string(path).expect("the thread stays");
            let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
            Duration::from_nanos(nanos.expect("the first figure is nanoseconds on a core"))
        })
        .sum()
}

/// Descriptors that a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .count()
}
