//! Pieces of scenery for [`super`]: an attacked seed or leecher with honest peers beside it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::data::{DataSet, Tolerance};
use crate::support::evpeer::{Evpeer, Setup};
use crate::support::proc::{memory_kib, open_files};
use crate::support::rawpeer::{Fast, NoMessage, RawPeer, id, message, words};
use crate::support::relay::Relay;
use crate::support::torrent::HandMade;
use crate::support::{folder, scratch, wait_for};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    Honest,
    /// Every fourth block is garbage, the same garbage from every liar.
    Liar,
}

/// A seed made by hand that answers every request.
pub struct Source {
    address: SocketAddr,
    is_closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Waits for the leecher at `listener`; unchokes it when `ready` reaches `all`, so that no
    /// source has it for itself.
    pub fn start(
        listener: TcpListener,
        conduct: Conduct,
        torrent: Arc<HandMade>,
        ready: Arc<AtomicUsize>,
        all: usize,
    ) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let is_closing = Arc::new(AtomicBool::new(false));
        let closing = Arc::clone(&is_closing);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if closing.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let peer = RawPeer::shake(stream, &torrent.info_hash, Fast::Offered);
                let Ok(mut peer) = peer else { continue };
                if peer.send(&message(id::HAVE_ALL, &[])).is_err() {
                    continue;
                }
                ready.fetch_add(1, Ordering::AcqRel);
                wait_for("all sources are connected", LIMIT, || {
                    closing.load(Ordering::Acquire) || ready.load(Ordering::Acquire) >= all
                });
                if peer.send(&message(id::UNCHOKE, &[])).is_ok() {
                    serve(&mut peer, conduct, &torrent, &closing);
                }
            }
        });
        Self {
            address,
            is_closing,
            thread: Some(thread),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.is_closing.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address)); // wakes the acceptor
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(peer: &mut RawPeer, conduct: Conduct, torrent: &HandMade, closing: &AtomicBool) {
    while !closing.load(Ordering::Acquire) {
        let message = match peer.read(Duration::from_millis(200)) {
            Ok(message) => message,
            Err(NoMessage::Silence) => continue,
            Err(NoMessage::Closed) => return,
        };
        let (id::REQUEST, Some([piece, begin, len])) = (message.id, message.words()) else {
            continue;
        };
        let mut answer = block_answer(torrent, piece, begin, len);
        if conduct == Conduct::Liar && (begin / BLOCK_LEN).is_multiple_of(4) {
            for byte in &mut answer[13..] {
                *byte ^= 0xFF;
            }
        }
        if peer.send(&answer).is_err() {
            return;
        }
    }
}

/// The attacked peer is a seed; an honest leecher is half through when the attack begins.
pub struct SeedStage {
    _scratch: tempfile::TempDir,
    set: DataSet,
    pub torrent: HandMade,
    pub victim: Evpeer,
    honest: Evpeer,
    honest_folder: PathBuf,
    relay: Relay,
    before: Footprint,
}

impl SeedStage {
    pub fn new() -> Self {
        let scratch = scratch();
        let set = DataSet::file(&folder(scratch.path(), "data"), "hostile", CONTENT_LEN, 33);
        let torrent = HandMade::of(&set, PIECE_LEN, None);
        let victim = Evpeer::start("attacked seed", &Setup::new(&torrent.path, &set.folder));
        victim.wait_for_state("seeding", LIMIT);
        let relay = Relay::start(victim.address, CONTENT_LEN / 2);
        let honest_folder = folder(scratch.path(), "honest");
        let peers = [relay.address()];
        let args = ["--no-tracker", "--no-pex", "--exit-on-complete"];
        let setup = Setup {
            peers: &peers,
            args: &args,
            ..Setup::new(&torrent.path, &honest_folder)
        };
        let honest = Evpeer::start("honest leecher", &setup);
        wait_for("half of the honest download is through", LIMIT, || {
            relay.is_held()
        });
        let before = Footprint::of(&victim);
        Self {
            _scratch: scratch,
            set,
            torrent,
            victim,
            honest,
            honest_folder,
            relay,
            before,
        }
    }

    pub fn attacker(&self, fast: Fast) -> RawPeer {
        RawPeer::dial(self.victim.address, &self.torrent.info_hash, fast)
    }

    /// Whether an attacker that was borne is still served.
    pub fn assert_serves(&self, peer: &mut RawPeer) {
        peer.assert_serves(2, BLOCK_LEN, self.torrent.block(2, BLOCK_LEN, BLOCK_LEN));
    }

    pub fn judge(mut self) {
        self.before.assert_regained(&self.victim);
        self.relay.lift();
        let code = self.honest.wait_for_exit(LIMIT);
        assert_eq!(code, Some(0), "the honest download completes");
        self.set
            .assert_same_in(&self.honest_folder, Tolerance::NONE);
        assert!(self.victim.process.is_running(), "the attacked peer runs");
        self.victim.leave();
    }
}

/// The attacked peer is a leecher; an honest seed connects to it after the attack.
pub struct LeecherStage {
    scratch: tempfile::TempDir,
    set: DataSet,
    pub torrent: HandMade,
    pub victim: Evpeer,
    victim_folder: PathBuf,
}

impl LeecherStage {
    /// `prepare` puts into the leecher's folder what it shall find there.
    pub fn new(
        piece_len: u32,
        peers: &[SocketAddr],
        prepare: impl FnOnce(&DataSet, &Path),
    ) -> Self {
        let scratch = scratch();
        let set = DataSet::file(&folder(scratch.path(), "data"), "hostile", CONTENT_LEN, 44);
        let torrent = HandMade::of(&set, piece_len, None);
        let victim_folder = folder(scratch.path(), "victim");
        prepare(&set, &victim_folder);
        let setup = Setup {
            peers,
            ..Setup::new(&torrent.path, &victim_folder)
        };
        let victim = Evpeer::start("attacked leecher", &setup);
        victim.wait_for_state("downloading", LIMIT);
        Self {
            scratch,
            set,
            torrent,
            victim,
            victim_folder,
        }
    }

    pub fn attacker(&self, fast: Fast) -> RawPeer {
        RawPeer::dial(self.victim.address, &self.torrent.info_hash, fast)
    }

    /// An attacker that says it has everything, and in which the leecher is interested.
    pub fn source(&self, fast: Fast) -> RawPeer {
        let mut peer = self.attacker(fast);
        let count = self.torrent.piece_count();
        match fast {
            Fast::Offered => peer.say(id::HAVE_ALL, &[]),
            Fast::Absent => {
                let bits: Vec<u8> = (0..count.div_ceil(8))
                    .map(|i| !(0xFFu32 >> (count - 8 * i).min(8)) as u8)
                    .collect();
                peer.say(id::BITFIELD, &bits);
            }
        }
        peer.read_until("interest", CLOSE_LIMIT, |message| {
            message.id == id::INTERESTED
        });
        peer
    }

    /// The honest answer to a request.
    pub fn answer(&self, piece: u32, begin: u32, len: u32) -> Vec<u8> {
        block_answer(&self.torrent, piece, begin, len)
    }

    pub fn judge(mut self) {
        let known = [self.victim.address];
        let honest_folder = folder(self.scratch.path(), "honest");
        self.set.copy_to(&honest_folder);
        let setup = Setup {
            peers: &known,
            ..Setup::new(&self.torrent.path, &honest_folder)
        };
        let honest = Evpeer::start("honest seed", &setup);
        self.victim.wait_for_event("complete", LIMIT);
        self.set
            .assert_same_in(&self.victim_folder, Tolerance::NONE);
        assert!(self.victim.process.is_running(), "the attacked peer runs");
        honest.leave();
        self.victim.leave();
    }
}

fn block_answer(torrent: &HandMade, piece: u32, begin: u32, len: u32) -> Vec<u8> {
    let block = torrent.block(piece, begin, len);
    message(id::PIECE, &[&words(&[piece, begin])[..], block].concat())
}

/// What a peer holds of the system while only honest peers are connected.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    files: usize,
    anonymous_kib: u64,
}

impl Footprint {
    fn of(peer: &Evpeer) -> Self {
        let pid = peer.process.pid();
        Self {
            files: open_files(pid),
            anonymous_kib: memory_kib(pid, "RssAnon:"),
        }
    }

    fn assert_regained(&self, peer: &Evpeer) {
        wait_for("the attackers' descriptors are closed", CLOSE_LIMIT, || {
            open_files(peer.process.pid()) <= self.files
        });
        let grown = Self::of(peer)
            .anonymous_kib
            .saturating_sub(self.anonymous_kib);
        assert!(grown <= 8 * 1024, "the attack left {grown} KiB in memory");
    }
}

pub const BLOCK_LEN: u32 = 16 * 1024;
pub const PIECE_LEN: u32 = 4 * BLOCK_LEN;
/// 61 pieces, so that a bitfield has spare bits; the last holds one whole block and a short one.
pub const CONTENT_LEN: u64 = 60 * PIECE_LEN as u64 + 20_000;
pub const LIMIT: Duration = Duration::from_secs(120);
/// How soon a breach closes the connection.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(20);
