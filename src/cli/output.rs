//! Lines for standard output, and names made fit for a terminal.
//!
//! A running peer hands its lines to a [`Printer`]: a thread that writes them, so that a reader
//! that stalls or goes away costs lines and never the swarm.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::CliError;
use crate::meta::paths;

/// Prints `text` to standard output and flushes it. A reader that went away is no error: it has
/// read what it wanted.
///
/// # Errors
/// [`CliError::Stdout`] if the text cannot be written for any other reason.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        _ => Ok(()),
    }
}

/// Prints `text` and a line end to standard error, if that works.
pub fn print_error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a line is worth memory while the reader stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// A change that is told once.
    Keep,
    /// One of many; the next one says nearly the same.
    MayDrop,
}

/// Writes lines on a thread of its own.
pub struct Printer {
    lines: mpsc::Sender<String>,
    waiting: Arc<AtomicUsize>,
}

impl Printer {
    /// A printer to `sink`, which is flushed after every line.
    pub fn new(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, incoming) = mpsc::channel::<String>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        thread::Builder::new()
            .name("printer".into())
            .spawn(move || {
                for mut line in incoming {
                    line.push('\n');
                    // Nobody can be told that nobody listens: the peer goes on without.
                    let _ = sink.write_all(line.as_bytes()).and_then(|()| sink.flush());
                    left.fetch_sub(1, Ordering::AcqRel);
                }
            })?;
        Ok(Self { lines, waiting })
    }

    /// Has `line` printed after those before it; drops it if too many wait already.
    pub fn print(&self, line: String, worth: Worth) {
        let limit = match worth {
            Worth::Keep => KEPT_LINES_MAX,
            Worth::MayDrop => WAITING_LINES_MAX,
        };
        if self.waiting.load(Ordering::Acquire) < limit {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            if self.lines.send(line).is_err() {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Waits until every line is written, at most for `patience`.
    pub fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lines that wait for a stalled reader before repeated ones are dropped.
const WAITING_LINES_MAX: usize = 64;
/// Lines that wait for a stalled reader before any is dropped.
const KEPT_LINES_MAX: usize = 4096;

/// `text` with everything escaped that could steer a terminal or hide its true order.
pub fn printable(text: &str) -> String {
    paths::printable(text.as_bytes())
}

/// [`printable`] of a path; bytes that are no UTF-8 are shown as escapes too.
pub fn printable_path(path: &Path) -> String {
    paths::printable(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A sink that nobody reads until the gate opens.
    struct Stalled {
        gate: Arc<Mutex<()>>,
        seen: Arc<Mutex<String>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.gate.lock());
            let text = std::str::from_utf8(bytes).expect("lines are text");
            self.seen.lock().expect("not poisoned").push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn stalled_reader_costs_repeated_lines_only() {
        let (gate, seen) = (
            Arc::new(Mutex::new(())),
            Arc::new(Mutex::new(String::new())),
        );
        let stalled = gate.lock().expect("not poisoned");
        let printer = Printer::new(Stalled {
            gate: Arc::clone(&gate),
            seen: Arc::clone(&seen),
        });
        let printer = printer.expect("a thread");
        for _ in 0..1000 {
            printer.print("progress".into(), Worth::MayDrop);
        }
        printer.print("complete".into(), Worth::Keep);
        drop(stalled);
        printer.flush(Duration::from_secs(60));
        let seen = seen.lock().expect("not poisoned");
        assert_eq!(
            seen.lines().filter(|l| *l == "progress").count(),
            WAITING_LINES_MAX
        );
        assert_eq!(seen.lines().last(), Some("complete"));
    }

    /// A sink that is closed.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_reader_stops_nothing() {
        let printer = Printer::new(Closed).expect("a thread");
        for _ in 0..100 {
            printer.print("line".into(), Worth::Keep);
        }
        printer.flush(Duration::from_secs(60));
        assert_eq!(printer.waiting.load(Ordering::Acquire), 0);
    }
}
