//! Pieces of scenery for [`super`]: an attacked seed or leecher with honest peers beside it.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::data::{DataSet, Tolerance};
use crate::support::evpeer::{Evpeer, Setup};
use crate::support::proc::{memory_kib, open_files};
use crate::support::rawpeer::{
    Fast, NoMessage, RawPeer, handshake, id, message, new_peer_id, words,
};
use crate::support::relay::Relay;
use crate::support::torrent::HandMade;
use crate::support::{folder, scratch, wait_for};

/// How a source answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// With what was asked for.
    Honest,
    /// Every fourth block is garbage, the same garbage from every liar.
    Liar,
}

/// A seed made by hand that answers every request.
pub struct Source {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// What it does.
    pub conduct: Conduct,
    hello: [u8; 68],
    crowd: Arc<Crowd>,
    thread: Option<JoinHandle<()>>,
}

/// What the sources of one leecher share: a pace, so that each gets its share of every piece.
struct Crowd {
    /// Blocks served by each; None while it is not connected.
    served: Mutex<Vec<Option<usize>>>,
    changed: Condvar,
    lies: AtomicUsize,
    is_closing: AtomicBool,
}

impl Crowd {
    /// Source `i` is connected; returns when all are.
    fn gather(&self, i: usize) {
        let mut served = self.served.lock().expect("no source panics");
        served[i] = Some(0);
        self.changed.notify_all();
        let alone = |served: &mut Vec<Option<usize>>| served.contains(&None);
        drop(self.changed.wait_timeout_while(served, GATHER_LIMIT, alone));
    }

    /// Source `i` has served a block; returns when the others have about as many, or when they
    /// seem not to be asked for any.
    fn pace(&self, i: usize) {
        let mut served = self.served.lock().expect("no source panics");
        let mine = served[i].map_or(0, |count| count + 1);
        served[i] = Some(mine);
        self.changed.notify_all();
        let behind = |served: &mut Vec<Option<usize>>| {
            served
                .iter()
                .flatten()
                .any(|&count| count + LEAD_MAX < mine)
        };
        drop(self.changed.wait_timeout_while(served, PACE_LIMIT, behind));
    }

    /// Source `i` has lost its connection.
    fn leave(&self, i: usize) {
        self.served.lock().expect("no source panics")[i] = None;
        self.changed.notify_all();
    }
}

/// Blocks that a source may be ahead of another.
const LEAD_MAX: usize = 2;
/// How long a source waits for others that may have nothing to do.
const PACE_LIMIT: Duration = Duration::from_millis(50);
/// How long a leecher may take to connect to all sources.
const GATHER_LIMIT: Duration = Duration::from_secs(20);

/// Starts a source for each of `listeners`. They unchoke the leecher when all of them are connected
/// and take few requests at a time, so that every one gets its share of every piece.
pub fn start_sources(
    torrent: &HandMade,
    listeners: Vec<TcpListener>,
    conducts: &[Conduct],
) -> Vec<Source> {
    assert_eq!(listeners.len(), conducts.len());
    let crowd = Arc::new(Crowd {
        served: Mutex::new(vec![None; conducts.len()]),
        changed: Condvar::new(),
        lies: AtomicUsize::new(0),
        is_closing: AtomicBool::new(false),
    });
    let torrent = Arc::new(torrent.clone());
    let starts = listeners.into_iter().zip(conducts);
    starts
        .enumerate()
        .map(|(i, (listener, &conduct))| {
            let Ok(SocketAddr::V4(address)) = listener.local_addr() else {
                unreachable!("it is bound to an IPv4 address")
            };
            let hello = handshake(&torrent.info_hash, Fast::Offered, &new_peer_id());
            let thread = {
                let (crowd, torrent) = (Arc::clone(&crowd), Arc::clone(&torrent));
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        if crowd.is_closing.load(Ordering::Acquire) {
                            return;
                        }
                        let peer = stream.and_then(|stream| RawPeer::shake(stream, &hello));
                        let _ = peer.and_then(|peer| serve(peer, i, conduct, &torrent, &crowd));
                        crowd.leave(i);
                    }
                })
            };
            let crowd = Arc::clone(&crowd);
            Source {
                address,
                conduct,
                hello,
                crowd,
                thread: Some(thread),
            }
        })
        .collect()
}

impl Source {
    /// Whether the leecher takes this source back when it comes from the same address with the same
    /// peer id.
    pub fn is_welcome_at(&self, leecher: SocketAddr) -> bool {
        RawPeer::try_dial(leecher, *self.address.ip(), &self.hello).is_ok()
    }

    /// Blocks of garbage that all liars together have sent.
    pub fn lies(&self) -> usize {
        self.crowd.lies.load(Ordering::Acquire)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.crowd.is_closing.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address)); // wakes the acceptor
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut peer: RawPeer,
    i: usize,
    conduct: Conduct,
    torrent: &HandMade,
    crowd: &Crowd,
) -> io::Result<()> {
    peer.send(&message(id::EXTENDED, b"\0d1:mde4:reqqi8ee"))?;
    peer.send(&message(id::HAVE_ALL, &[]))?;
    crowd.gather(i);
    peer.send(&message(id::UNCHOKE, &[]))?;
    while !crowd.is_closing.load(Ordering::Acquire) {
        let message = match peer.read(Duration::from_millis(200)) {
            Ok(message) => message,
            Err(NoMessage::Silence) => continue,
            Err(NoMessage::Closed) => return Ok(()),
        };
        let (id::REQUEST, Some([piece, begin, len])) = (message.id, message.words()) else {
            continue;
        };
        let mut answer = block_answer(torrent, piece, begin, len);
        if conduct == Conduct::Liar && (begin / BLOCK_LEN).is_multiple_of(4) {
            for byte in &mut answer[13..] {
                *byte ^= 0xFF;
            }
            crowd.lies.fetch_add(1, Ordering::AcqRel);
        }
        peer.send(&answer)?;
        crowd.pace(i);
    }
    Ok(())
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
