//! A TCP relay between a leecher and a seed that counts and holds what the seed sends.
//!
//! It makes "stop at 45 %" exact without a clock: at the mark nothing flows until it is lifted.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A relay that runs until it is dropped.
pub struct Relay {
    address: SocketAddr,
    gate: Arc<Gate>,
    is_closing: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

struct Gate {
    flow: Mutex<Flow>,
    changed: Condvar,
}

struct Flow {
    passed: u64,
    mark: u64,
    /// Bytes a second.
    rate: Option<u64>,
}

impl Relay {
    /// Leads every connection to `target`; lets `mark` bytes come back from there, all
    /// connections together.
    pub fn start(target: SocketAddr, mark: u64) -> Self {
        Self::run(target, mark, None)
    }

    /// Leads every connection to `target`; lets so many bytes a second come back from there.
    pub fn paced(target: SocketAddr, bytes_s: u64) -> Self {
        Self::run(target, u64::MAX, Some(bytes_s))
    }

    fn run(target: SocketAddr, mark: u64, rate: Option<u64>) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listener = TcpListener::bind((ip, 0)).expect("loopback is there");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let flow = Mutex::new(Flow {
            passed: 0,
            mark,
            rate,
        });
        let gate = Arc::new(Gate {
            flow,
            changed: Condvar::new(),
        });
        let is_closing = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (gate, is_closing) = (Arc::clone(&gate), Arc::clone(&is_closing));
            std::thread::spawn(move || accept(&listener, target, &gate, &is_closing))
        };
        Self {
            address,
            gate,
            is_closing,
            acceptor: Some(acceptor),
        }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that came from the target so far, protocol included.
    pub fn passed(&self) -> u64 {
        self.gate.flow.lock().expect("no holder panics").passed
    }

    /// Whether the mark was reached.
    pub fn is_held(&self) -> bool {
        let flow = self.gate.flow.lock().expect("no holder panics");
        flow.passed >= flow.mark
    }

    /// Lets everything pass from now on.
    pub fn lift(&self) {
        self.gate.flow.lock().expect("no holder panics").mark = u64::MAX;
        self.gate.changed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_closing.store(true, Ordering::Release);
        self.lift();
        drop(TcpStream::connect(self.address)); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, gate: &Arc<Gate>, is_closing: &AtomicBool) {
    for near in listener.incoming() {
        if is_closing.load(Ordering::Acquire) {
            return;
        }
        let (Ok(near), Ok(far)) = (near, TcpStream::connect(target)) else {
            continue;
        };
        let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else {
            continue;
        };
        let gate = Arc::clone(gate);
        std::thread::spawn(move || carry(&near, &far, None));
        std::thread::spawn(move || carry(&far_again, &near_again, Some(&gate)));
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, gate: Option<&Gate>) {
    let mut chunk = [0; 16 * 1024];
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let mut done = 0;
        while done < len {
            let now = gate.map_or(len, |gate| gate.pass(len - done));
            let end = (done + now).min(len);
            if to.write_all(&chunk[done..end]).is_err() {
                break;
            }
            done = end;
        }
        if done < len {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

impl Gate {
    /// How many of `wanted` bytes may pass now; waits while none may.
    fn pass(&self, wanted: usize) -> usize {
        let flow = self.flow.lock().expect("no holder panics");
        let held = |flow: &mut Flow| flow.passed >= flow.mark;
        let mut flow = self
            .changed
            .wait_while(flow, held)
            .expect("no holder panics");
        let now = (flow.mark - flow.passed).min(wanted as u64);
        flow.passed += now;
        if let Some(rate) = flow.rate {
            // With the lock held: all connections share the rate.
            std::thread::sleep(Duration::from_nanos(now * 1_000_000_000 / rate));
        }
        now as usize
    }
}
