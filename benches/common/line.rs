//! A line that lets bytes pass by the clock.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A line to the seed that lets bytes come back by the clock. It lasts as long as its streams.
pub struct Line {
    /// Where to dial it.
    pub port: u16,
}

impl Line {
    /// A line to `target` that lets pass `bytes_s` of its bytes in a second.
    pub fn start(target: SocketAddr, bytes_s: f64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            let (near, _) = listener.accept().expect("the leecher dials");
            let far = TcpStream::connect(target).expect("the seed accepts");
            let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            let (near_in, far_out) = (clone(&near), clone(&far));
            std::thread::spawn(move || pass(near_in, far_out, f64::INFINITY));
            pass(far, near, bytes_s);
        });
        Self { port }
    }
}

/// Passes bytes on until either end is closed.
fn pass(mut from: TcpStream, mut to: TcpStream, bytes_s: f64) {
    let begin = Instant::now();
    let mut part = vec![0; 128 * 1024];
    let mut passed = 0;
    while let Ok(n @ 1..) = from.read(&mut part) {
        let due = Duration::from_secs_f64(passed as f64 / bytes_s);
        if let Some(early) = due.checked_sub(begin.elapsed()) {
            std::thread::sleep(early);
        }
        if to.write_all(&part[..n]).is_err() {
            break;
        }
        passed += n;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
