//! A child process whose output is kept and that dies with its guard.
//!
//! [`Process`] owns the child and two threads that read its output line by line. Dropping it kills
//! the child by its id; a test that panics shows the end of the output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running (or ended) child.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// Where a line of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<(Stream, String)>,
    ended: u32,
}

impl Process {
    /// Starts `command` with its output collected; `name` is what failures call it.
    ///
    /// Proxies of the environment are left out: every address in these tests is our own.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().to_lowercase().ends_with("_proxy") {
                command.env_remove(key);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("{name}: cannot start {command:?}: {error}"),
        };
        let output = Arc::new(Output::default());
        let out = child.stdout.take().expect("piped above");
        let err = child.stderr.take().expect("piped above");
        collect(out, Stream::Out, Arc::clone(&output));
        collect(err, Stream::Err, Arc::clone(&output));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// What failures call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes `line` and a line feed to its standard input.
    pub fn send_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("standard input was piped");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{}: {error}", self.name));
        stdin
            .flush()
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Sends `signal` to it, if it runs still.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
    }

    /// Asks it to end (SIGTERM) and waits; returns the exit code, None if a signal ended it.
    pub fn terminate(&mut self, limit: Duration) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait(limit).code()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                self.wait_until_read();
                return status;
            }
            assert!(
                Instant::now() < end,
                "{}: runs still after {limit:?}",
                self.name
            );
            std::thread::sleep(super::POLL_INTERVAL);
        }
    }

    /// Waits for the first line that `find` accepts, among those already there too.
    ///
    /// Panics if the process ends without one or `limit` passes.
    pub fn wait_for_line<T>(
        &self,
        what: &str,
        limit: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let end = Instant::now() + limit;
        let mut seen = 0;
        let mut lines = self.output.lines.lock().expect("readers do not panic");
        loop {
            if let Some(found) = lines.all[seen..].iter().find_map(|(_, line)| find(line)) {
                return found;
            }
            seen = lines.all.len();
            let has_ended = lines.ended == 2;
            let now = Instant::now();
            if has_ended || now >= end {
                drop(lines); // the panic's clean-up prints them
                let name = &self.name;
                assert!(!has_ended, "{name}: ended before this: {what}");
                panic!("{name}: not within {limit:?}: {what}");
            }
            (lines, _) = self
                .output
                .changed
                .wait_timeout(lines, end - now)
                .expect("readers do not panic");
        }
    }

    /// Every line so far, in the order in which they came.
    pub fn lines(&self) -> Vec<(Stream, String)> {
        self.output
            .lines
            .lock()
            .expect("readers do not panic")
            .all
            .clone()
    }

    /// Everything it wrote so far, both streams.
    pub fn text(&self) -> String {
        let lines = self.lines();
        lines
            .iter()
            .fold(String::new(), |text, (_, line)| text + line + "\n")
    }

    /// Everything it wrote to standard error so far.
    pub fn errors(&self) -> String {
        let lines = self
            .lines()
            .into_iter()
            .filter(|(stream, _)| *stream == Stream::Err);
        lines.fold(String::new(), |text, (_, line)| text + &line + "\n")
    }

    /// Waits, for an ended process, until the readers saw the end of both streams. A grandchild
    /// may hold them open, hence the limit.
    fn wait_until_read(&self) {
        let lines = self.output.lines.lock().expect("readers do not panic");
        let limit = Duration::from_secs(2);
        let ended = |lines: &mut Lines| lines.ended < 2;
        drop(self.output.changed.wait_timeout_while(lines, limit, ended));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait();
        if std::thread::panicking() {
            self.wait_until_read();
            let lines = self.lines();
            let from = lines.len().saturating_sub(TAIL_LINES);
            println!(
                "--- {}: {status:?}, {} lines, the last of them:",
                self.name,
                lines.len()
            );
            for (stream, line) in &lines[from..] {
                println!("{stream:?} {line}");
            }
        }
    }
}

fn collect(stream: impl Read + Send + 'static, kind: Stream, output: Arc<Output>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut raw = Vec::new();
        while reader.read_until(b'\n', &mut raw).is_ok_and(|len| len > 0) {
            let line = String::from_utf8_lossy(raw.trim_ascii_end()).into_owned();
            output
                .lines
                .lock()
                .expect("no reader panics")
                .all
                .push((kind, line));
            output.changed.notify_all();
            raw.clear();
        }
        output.lines.lock().expect("no reader panics").ended += 1;
        output.changed.notify_all();
    });
}

/// Lines of output that a failed test shows of each process.
const TAIL_LINES: usize = 60;
