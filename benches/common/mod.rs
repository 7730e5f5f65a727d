//! What benches of whole peers share: a torrent, and a line that lets bytes pass by the clock.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evpeer::base::rng::Rng;
use evpeer::meta::create::{CreateOptions, Creator, NewFile};
use evpeer::meta::metainfo::Metainfo;

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

/// Writes `len` bytes of content into `root` and makes their metainfo.
pub fn content(root: &Path, len: u64) -> Arc<Metainfo> {
    let mut rng = Rng::new(1);
    let mut bytes = vec![0; len as usize];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    std::fs::write(root.join("content"), &bytes).expect("the temporary folder takes the content");
    let options = CreateOptions {
        name: "content".to_owned(),
        files: vec![NewFile {
            path: Vec::new(),
            len,
            executable: false,
        }],
        ..CreateOptions::default()
    };
    let mut creator = Creator::new(options).expect("the options are sound");
    creator.feed(&bytes).expect("as long as said");
    let torrent = creator.finish().expect("all of it was fed");
    Arc::new(Metainfo::from_bytes(&torrent).expect("what is created can be read"))
}
