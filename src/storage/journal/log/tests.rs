//! A log over files in memory, which fail, and a process that dies at any moment.

use super::*;
use crate::base::bits::Bitfield;
use crate::base::id::{InfoHash, PieceIndex};
use crate::base::rng::Rng;
use crate::storage::error::StorageError;
use crate::storage::journal::{BootId, Claim, Stamp, replay};

const PIECES: u32 = 4000;
/// A snapshot has room for the blocks of so many pieces.
const FILLED_AT_LEAST: usize = 1000;

fn binding() -> Binding {
    Binding {
        info_hash: InfoHash([7; 20]),
        length: u64::from(PIECES) * 65_536,
        piece_len: 65_536,
        piece_count: PIECES,
        file_count: 3,
        layout: 1,
    }
}

/// Files by number; what their names are.
#[derive(Clone, Debug, Default)]
struct Files {
    files: Vec<Vec<u8>>,
    synced: Vec<Vec<u8>>,
    journal: Option<u64>,
    /// What the name stands for after a power cut.
    journal_on_disk: Option<u64>,
    longest: usize,
}

/// Tells the log what came of its work.
type Answer = Box<dyn FnOnce(&mut Log, Instant)>;

fn error() -> StorageError {
    StorageError::Missing {
        path: "x.journal".into(),
    }
}

fn number(file: &Handle) -> u64 {
    match file {
        Handle::Sim(number) => *number,
        Handle::File(_) => unreachable!("no real file here"),
    }
}

impl Files {
    /// Does what is to be done; the answer goes to the log later.
    fn run(&mut self, work: LogWork, fails: bool) -> Answer {
        match work {
            LogWork::Rest(file, len) => {
                let number = number(&file);
                assert!(self.files[number as usize].len() as u64 >= len);
                assert_eq!(self.journal, Some(number), "no other has the name");
                assert_eq!(
                    self.journal_on_disk,
                    Some(number),
                    "its name is on the disk"
                );
                let (now, synced) = (&self.files, &self.synced);
                assert_eq!(
                    now[number as usize], synced[number as usize],
                    "all is synced"
                );
                let result = if fails {
                    Err(error())
                } else {
                    Ok(self.left(number))
                };
                Box::new(move |log, now| log.rested(result, now))
            }
            LogWork::Open(sink, left) => {
                let journal = self.journal.filter(|_| !fails);
                let is_it = |&journal: &u64| self.left(journal) == left;
                assert!(
                    journal.is_none_or(|journal| is_it(&journal)),
                    "it is another one"
                );
                let result = journal.map(Handle::Sim).ok_or_else(error);
                Box::new(move |log, now| log.opened(sink, result, now))
            }
            LogWork::Make(_) | LogWork::MakeFirst(_) if fails => {
                Box::new(|log, now| log.made(Err(error()), now))
            }
            LogWork::Make(bytes) => {
                let file = Handle::Sim(self.files.len() as u64);
                self.files.push(bytes.clone());
                self.synced.push(bytes);
                Box::new(move |log, now| log.made(Ok(file), now))
            }
            LogWork::MakeFirst(bytes) => {
                let file = Handle::Sim(self.files.len() as u64);
                self.journal = Some(self.files.len() as u64);
                self.files.push(bytes);
                self.synced.push(Vec::new());
                Box::new(move |log, now| log.made(Ok(file), now))
            }
            LogWork::Append {
                sink,
                file,
                offset,
                bytes,
            } => {
                let written = if fails { bytes.len() / 2 } else { bytes.len() };
                let file = &mut self.files[number(&file) as usize];
                file.resize(file.len().max(offset as usize + written), 0);
                file[offset as usize..offset as usize + written].copy_from_slice(&bytes[..written]);
                self.longest = self.longest.max(file.len());
                let result = if fails { Err(error()) } else { Ok(()) };
                Box::new(move |log, now| log.appended(sink, result, now))
            }
            LogWork::Install(file) => {
                let number = number(&file);
                if !fails || number.is_multiple_of(2) {
                    self.synced[number as usize] = self.files[number as usize].clone();
                    self.journal = Some(number);
                    self.journal_on_disk = Some(number);
                }
                let result = if fails { Err(error()) } else { Ok(()) };
                Box::new(move |log, now| log.installed(result, now))
            }
            LogWork::Sync(file) | LogWork::SyncFirst(file) => {
                let number = number(&file) as usize;
                if !fails {
                    self.synced[number] = self.files[number].clone();
                    self.journal_on_disk = self.journal_on_disk.or(Some(number as u64));
                }
                let result = if fails { Err(error()) } else { Ok(()) };
                Box::new(move |log, now| log.synced(result, now))
            }
            LogWork::Remove => {
                self.journal = None;
                self.journal_on_disk = None;
                Box::new(|log, _| log.removed(&Ok(())))
            }
            LogWork::Close(_) => Box::new(|_, _| {}),
        }
    }

    fn left(&self, number: u64) -> Left {
        let len = self.files[number as usize].len() as u64;
        Left {
            stamp: Stamp::new(1, number, len, 0),
            modified: 0,
        }
    }

    fn read(&self) -> Option<Knowledge> {
        let bytes = &self.files[self.journal? as usize];
        Some(replay(bytes, &binding()).expect("usable").knowledge)
    }

    fn read_after_power_cut(&self) -> Option<Knowledge> {
        let bytes = &self.synced[self.journal_on_disk? as usize];
        Some(replay(bytes, &binding()).expect("usable").knowledge)
    }
}

fn some_record(known: &Knowledge, rng: &mut Rng) -> Record {
    let most = if rng.below(50) == 0 { 800 } else { 6 };
    let count = 1 + rng.below(most);
    let mut pieces: Vec<u32> = (0..count).map(|_| rng.below(PIECES)).collect();
    pieces.sort_unstable();
    pieces.dedup();
    match rng.below(20) {
        0..8 => Record::Checked(pieces),
        8..10 => Record::Durable(known.claims.of(Claim::Checked).take(50).collect()),
        10 => Record::Dropped(pieces[..1].to_vec()),
        11 => Record::Doubted(pieces[..1].to_vec()),
        12 => {
            let stamp = Stamp::new(1, rng.next_u64(), 3, 4);
            Record::Stamped(vec![(rng.below(3), stamp)])
        }
        _ => {
            let begin = rng.below(3);
            Record::Filled(
                pieces
                    .iter()
                    .map(|&piece| {
                        (
                            PieceIndex(piece),
                            std::iter::once(begin..begin + 1).collect(),
                        )
                    })
                    .collect(),
            )
        }
    }
}

/// Whether `read` says what is `known`; of very many blocks a snapshot has room for some only.
fn same(known: &Knowledge, read: &Knowledge) -> bool {
    let is_known = |(piece, blocks): (&PieceIndex, &Bitfield)| {
        let known = known.filled.get(piece);
        known.is_some_and(|known| blocks.ones().all(|block| known.has(block)))
    };
    let is_cut = read.filled.len() >= FILLED_AT_LEAST && read.filled.iter().all(is_known);
    let read = Knowledge {
        generation: known.generation,
        filled: match is_cut {
            true => known.filled.clone(),
            false => read.filled.clone(),
        },
        ..read.clone()
    };
    *known == read
}

/// Goal: whenever the process dies, the journal says what was known at some moment, no earlier
/// than the last record that is in; and no claim that was taken back before.
/// Method: random records, answers in random order, late and with failures, now and then a pause
/// in which all is answered; after each step the file is read as the next process would.
#[test]
fn journal_says_at_any_time_what_was_known_a_moment_ago() {
    for rng_seed in 0..24 {
        let mut rng = Rng::new(rng_seed);
        let failures = [0, 0, 4, 30][rng_seed as usize % 4];
        let mut now = Instant::from_micros(1);
        let boot = Some(BootId([1; 16]));
        let mut log = Log::new(
            binding(),
            Knowledge::nothing(&binding(), boot),
            Before::Nothing,
        );
        let mut files = Files::default();
        let mut history = vec![log.known().clone()];
        let mut answers = Vec::new();
        let (mut installs, mut opened) = (0, 0);
        for step in 0..3000 {
            let place = format!("rng_seed {rng_seed}, step {step}");
            now += Duration::from_millis(u64::from(rng.below(40)));
            let is_pause = rng.below(60) == 0;
            if !is_pause && rng.below(3) > 0 {
                let record = some_record(log.known(), &mut rng);
                log.push(record, now);
                history.push(log.known().clone());
            }
            // In the first round of a pause all is written, in the second synced, then it rests.
            for _ in 0..if is_pause { 4 } else { 1 } {
                loop {
                    while let Some(work) = log.poll_work(now).or_else(|| log.poll_removal()) {
                        installs += u32::from(matches!(work, LogWork::Install(_)));
                        opened += u32::from(matches!(work, LogWork::Open(..)));
                        let fails = rng.below(100) < failures;
                        answers.push(files.run(work, fails));
                    }
                    let is_last = answers.is_empty() || !is_pause;
                    if !answers.is_empty() && (is_pause || rng.below(2) == 0) {
                        let answer = answers.swap_remove(rng.below(answers.len() as u32) as usize);
                        answer(&mut log, now);
                    }
                    if is_last {
                        break;
                    }
                }
                if is_pause {
                    assert_rests(&log, &files, &place);
                    now += RETRY_DELAY;
                }
            }
            if let Some(read) = files.read() {
                let found = history.iter().rposition(|known| same(known, &read));
                let found = found.unwrap_or_else(|| panic!("{place}: never known"));
                if failures == 0 {
                    let late = history.len() - 1 - found;
                    assert!(late <= 60, "{place}: {late} records late");
                }
            }
        }
        assert!(files.longest as u64 <= binding().journal_len_max());
        assert!(
            installs > 0 || failures > 0,
            "rng_seed {rng_seed}: {installs} files installed"
        );
        assert!(
            opened > 0 || failures > 4,
            "rng_seed {rng_seed}: it never rested"
        );
    }
}

/// Everything is answered and nothing is to be done: the file that is written to has the name and
/// says all, or there is none and what has the name claims nothing that was taken back.
fn assert_rests(log: &Log, files: &Files, place: &str) {
    if let Some(sink) = &log.active {
        if let Some(file) = sink.file.open() {
            assert_eq!(files.journal, Some(number(file)), "{place}: its name");
        }
        let read = files.read().expect("a journal");
        assert!(same(log.known(), &read), "{place}: it does not say all");
        return;
    }
    assert!(log.is_given_up(), "{place}: nothing is written");
    let Some(read) = files.read() else {
        return;
    };
    for piece in read.claims.held().ones() {
        let (says, known) = (read.claims.get(piece), log.known().claims.get(piece));
        assert!(
            says <= known,
            "{place}: piece {piece} is {known:?}, not {says:?}"
        );
    }
}

/// Goal: a file that cannot be written to while it gets the name is not taken for one that can,
/// whenever it is told that it has the name.
#[test]
fn file_that_failed_while_it_got_the_name_is_replaced() {
    for is_other_made_first in [false, true] {
        let now = Instant::from_micros(1);
        let mut known = Knowledge::nothing(&binding(), None);
        known.apply(&Record::Checked(vec![1, 2]), &binding());
        let mut log = Log::new(binding(), known, Before::Other);
        let mut files = Files::default();
        let work = log.poll_work(now).expect("a file is made");
        files.run(work, false)(&mut log, now);
        let work = log.poll_work(now).expect("it gets the name");
        assert!(matches!(work, LogWork::Install(_)), "{work:?}");
        let installed = files.run(work, false);

        log.push(Record::Dropped(vec![1]), now);
        let work = log.poll_work(now).expect("it gets the record");
        assert!(matches!(work, LogWork::Append { .. }), "{work:?}");
        files.run(work, true)(&mut log, now);
        let mut answers = vec![installed];
        while let Some(work) = log.poll_work(now) {
            answers.push(files.run(work, false));
        }
        if is_other_made_first {
            answers.reverse();
        }
        answers.into_iter().for_each(|answer| answer(&mut log, now));
        settle(&mut log, &mut files, now);
        let place = format!("is_other_made_first={is_other_made_first}");
        assert!(log.active.is_some(), "{place}");
        assert_rests(&log, &files, &place);
    }
}

/// Lets everything succeed until there is nothing to do.
fn settle(log: &mut Log, files: &mut Files, now: Instant) {
    while let Some(work) = log.poll_work(now) {
        files.run(work, false)(log, now);
    }
}

#[test]
fn what_is_synced_is_found_after_a_power_cut() {
    let mut rng = Rng::new(5);
    let mut now = Instant::from_micros(1);
    let mut log = Log::new(
        binding(),
        Knowledge::nothing(&binding(), None),
        Before::Nothing,
    );
    let mut files = Files::default();
    settle(&mut log, &mut files, now);
    for round in 0..2000 {
        let record = some_record(log.known(), &mut rng);
        log.push(record, now);
        settle(&mut log, &mut files, now);
        if round % 10 == 0 {
            let mark = log.sync(now);
            settle(&mut log, &mut files, now);
            assert!(log.is_synced(mark), "round {round}");
            let found = files.read_after_power_cut().expect("a journal");
            assert!(same(log.known(), &found), "round {round}");
        }
        now += Duration::from_millis(1);
    }
    // Without being asked it is synced within a second.
    log.push(Record::Checked(vec![1]), now);
    settle(&mut log, &mut files, now);
    let due = log.next_deadline().expect("a sync is due");
    assert!(due <= now + SYNC_DELAY);
    settle(&mut log, &mut files, due);
    let found = files.read_after_power_cut().expect("a journal");
    assert!(same(log.known(), &found));
    assert!(log.is_idle() && log.next_deadline() == Some(due + REST_TIME));
}

/// A log whose file is closed, as nothing was written for long.
fn resting(files: &mut Files, now: &mut Instant) -> Log {
    let mut log = Log::new(
        binding(),
        Knowledge::nothing(&binding(), None),
        Before::Nothing,
    );
    log.push(Record::Checked(vec![1, 2]), *now);
    settle(&mut log, files, *now);
    while let Some(at) = log.next_deadline() {
        *now = at;
        settle(&mut log, files, at);
    }
    assert!(matches!(
        log.active.as_ref().map(|sink| &sink.file),
        Some(SinkFile::Closed(_))
    ));
    log
}

#[test]
fn file_is_closed_while_nothing_is_written_and_opened_again() {
    let mut now = Instant::from_micros(1);
    let mut files = Files::default();
    let mut log = resting(&mut files, &mut now);
    let mark = log.sync(now);
    assert!(log.is_synced(mark) && log.is_idle() && log.poll_work(now).is_none());
    for piece in 3..6 {
        log.push(Record::Checked(vec![piece]), now);
        let work = log.poll_work(now).expect("it is opened");
        assert!(matches!(work, LogWork::Open(..)), "{work:?}");
        log.push(Record::Dropped(vec![piece - 1]), now);
        assert!(log.poll_work(now).is_none() && !log.is_idle());
        files.run(work, false)(&mut log, now);
        let mark = log.sync(now);
        settle(&mut log, &mut files, now);
        assert!(log.is_synced(mark));
        let found = files.read_after_power_cut().expect("a journal");
        assert!(same(log.known(), &found), "piece {piece}");
        let rest_at = log.next_deadline().expect("it can be closed");
        assert_eq!(rest_at, now + REST_TIME);
        now = rest_at;
        let work = log.poll_work(now).expect("it is closed");
        assert!(matches!(work, LogWork::Rest(..)), "{work:?}");
        // What comes meanwhile waits for the answer.
        log.push(Record::Durable(vec![piece]), now);
        assert!(log.poll_work(now).is_none() && !log.is_idle());
        files.run(work, false)(&mut log, now);
        settle(&mut log, &mut files, now);
        while let Some(at) = log.next_deadline() {
            now = at;
            settle(&mut log, &mut files, at);
        }
    }
    assert!(log.into_file().is_none());
    assert_eq!(files.files.len(), 1, "it was the same one all the time");
}

/// What a piece has of its blocks is worth little; it does not keep the file open for ever.
#[test]
fn file_is_closed_though_pieces_are_left_half_done() {
    let mut now = Instant::from_micros(1);
    let mut files = Files::default();
    let mut log = resting(&mut files, &mut now);
    let blocks = std::iter::once(1..2).collect();
    let filled = std::iter::once((PieceIndex(7), blocks)).collect();
    log.push(Record::Filled(filled), now);
    settle(&mut log, &mut files, now);
    assert!(log.next_deadline().is_some(), "it is open");
    let written = now;
    while let Some(at) = log.next_deadline() {
        now = at;
        settle(&mut log, &mut files, at);
    }
    let file = log.active.as_ref().map(|sink| &sink.file);
    assert!(matches!(file, Some(SinkFile::Closed(_))), "{file:?}");
    assert!(now - written <= REST_TIME * 2, "{:?}", now - written);
    let found = files.read_after_power_cut().expect("a journal");
    assert!(same(log.known(), &found));
}

/// Nothing is written behind what is not the file that was closed: it is written anew, as a whole.
#[test]
fn closed_file_that_is_another_one_is_made_anew() {
    let mut now = Instant::from_micros(1);
    let mut files = Files::default();
    let mut log = resting(&mut files, &mut now);
    log.push(Record::Dropped(vec![1]), now);
    let work = log.poll_work(now).expect("it is opened");
    assert!(matches!(work, LogWork::Open(..)), "{work:?}");
    files.run(work, true)(&mut log, now);
    settle(&mut log, &mut files, now);
    assert_eq!((files.files.len(), files.journal), (2, Some(1)));
    assert!(same(log.known(), &files.read().expect("a journal")));
    let found = files.read_after_power_cut().expect("a journal");
    assert!(same(log.known(), &found));
}

/// A closed file that claims what was taken back goes, if it can neither be opened nor replaced.
#[test]
fn closed_file_that_would_lie_is_removed() {
    let mut now = Instant::from_micros(1);
    let mut files = Files::default();
    let mut log = resting(&mut files, &mut now);
    log.push(Record::Dropped(vec![1]), now);
    for _ in 0..10 {
        while let Some(work) = log.poll_work(now).or_else(|| log.poll_removal()) {
            let fails = !matches!(work, LogWork::Remove);
            files.run(work, fails)(&mut log, now);
        }
    }
    assert_eq!(files.journal, None);
}

#[test]
fn journal_that_would_lie_is_removed_where_none_can_be_written() {
    let now = Instant::from_micros(1);
    let mut log = Log::new(
        binding(),
        Knowledge::nothing(&binding(), None),
        Before::Nothing,
    );
    let mut files = Files::default();
    log.push(Record::Checked(vec![1, 2]), now);
    settle(&mut log, &mut files, now);
    log.push(Record::Dropped(vec![1]), now);
    for _ in 0..10 {
        while let Some(work) = log.poll_work(now).or_else(|| log.poll_removal()) {
            let fails = !matches!(work, LogWork::Remove);
            files.run(work, fails)(&mut log, now);
        }
    }
    assert_eq!(files.journal, None);
    let mark = log.sync(now);
    assert!(log.is_synced(mark), "nobody waits for what cannot be");
    assert!(log.is_idle());
    // Half a minute later it works again.
    settle(&mut log, &mut files, now + RETRY_DELAY);
    assert!(same(log.known(), &files.read().expect("a journal")));
}

#[test]
fn many_restarts_and_pieces_do_not_make_it_long() {
    let mut rng = Rng::new(9);
    let now = Instant::from_micros(1);
    let mut files = Files::default();
    let mut known = Knowledge::nothing(&binding(), None);
    let mut before = Before::Nothing;
    for _ in 0..500 {
        let mut log = Log::new(binding(), known, before);
        for _ in 0..5 {
            let record = some_record(log.known(), &mut rng);
            log.push(record, now);
            settle(&mut log, &mut files, now);
        }
        let journal = files.journal.expect("a journal");
        let bytes = &files.files[journal as usize];
        assert!(bytes.len() as u64 <= binding().journal_len_max());
        let read = replay(bytes, &binding()).expect("usable");
        assert!(same(log.known(), &read.knowledge));
        known = read.knowledge;
        before = Before::Same(Handle::Sim(journal), read.chain, read.len);
    }
}
