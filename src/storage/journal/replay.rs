//! Reading a journal: its longest valid beginning.

use super::format::{Chain, FRAME_HEAD_LEN, Kind, MAGIC, PREAMBLE_LEN, Reader, VERSION};
use super::{Binding, BootId, Knowledge, Record};
use crate::base::digest::crc32c;

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// What was known when the last whole record was written.
    pub knowledge: Knowledge,
    /// How the journal goes on.
    pub chain: Chain,
    /// Where: bytes of its valid beginning. What follows is not to be believed.
    pub len: u64,
}

/// Why nothing is taken from a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It does not begin as journals do.
    #[error("is no journal")]
    NotAJournal,
    /// A later evpeer wrote it, and may rely on it.
    #[error("has version {version}, newer than {VERSION}")]
    TooNew {
        /// Its version.
        version: u16,
    },
    /// Nobody writes this version any more.
    #[error("has version {version}, which is not read any more")]
    TooOld {
        /// Its version.
        version: u16,
    },
    /// It is about another torrent, or about this one cut in another way.
    #[error("belongs to another torrent")]
    Foreign,
    /// Its snapshot is torn or flipped.
    #[error("is damaged from its beginning")]
    Damaged,
}

/// Reads as much of a journal of `binding` as is whole.
///
/// # Errors
/// Nothing of it can be used; only a newer version ([`Unusable::TooNew`]) must not be replaced.
pub fn replay(bytes: &[u8], binding: &Binding) -> Result<Replayed, Unusable> {
    let (preamble, mut rest) = bytes
        .split_at_checked(PREAMBLE_LEN)
        .ok_or(Unusable::NotAJournal)?;
    check_preamble(preamble)?;
    let mut chain = Chain::after(preamble);
    let (kind, body, used) = next_frame(&mut chain, rest).ok_or(Unusable::Damaged)?;
    if kind != Kind::Snapshot {
        return Err(Unusable::Damaged);
    }
    let mut knowledge = snapshot(body, binding)?;
    rest = &rest[used..];
    let mut len = (PREAMBLE_LEN + used) as u64;
    let mut ahead = chain;
    while let Some((kind, body, used)) = next_frame(&mut ahead, rest)
        && let Some(record) = record(kind, body, binding)
    {
        knowledge.apply(&record, binding);
        chain = ahead;
        rest = &rest[used..];
        len += used as u64;
    }
    Ok(Replayed {
        knowledge,
        chain,
        len,
    })
}

fn check_preamble(preamble: &[u8]) -> Result<(), Unusable> {
    let mut reader = Reader(preamble);
    let fields = (reader.array(), reader.array::<2>(), reader.array::<2>());
    let (Some(magic), Some(version), Some(_)) = fields else {
        return Err(Unusable::NotAJournal);
    };
    if magic != MAGIC || reader.u32() != Some(crc32c(0, &preamble[..PREAMBLE_LEN - 4])) {
        return Err(Unusable::NotAJournal);
    }
    match u16::from_le_bytes(version) {
        VERSION => Ok(()),
        version if version > VERSION => Err(Unusable::TooNew { version }),
        version => Err(Unusable::TooOld { version }),
    }
}

/// The frame at the front of `bytes`, if it goes on from `chain`, and its whole length.
fn next_frame<'a>(chain: &mut Chain, bytes: &'a [u8]) -> Option<(Kind, &'a [u8], usize)> {
    let mut reader = Reader(bytes);
    let (crc, len, seq) = (reader.u32()?, reader.u32()?, reader.u64()?);
    let [kind] = reader.array()?;
    let body = reader.bytes(len as usize)?;
    let used = FRAME_HEAD_LEN + body.len();
    if seq != chain.seq || crc != crc32c(chain.crc, &bytes[4..used]) {
        return None;
    }
    *chain = Chain { seq: seq + 1, crc };
    Some((Kind::from_byte(kind)?, body, used))
}

fn snapshot(body: &[u8], binding: &Binding) -> Result<Knowledge, Unusable> {
    let mut reader = Reader(body);
    if binding_of(&mut reader).ok_or(Unusable::Damaged)? != *binding {
        return Err(Unusable::Foreign);
    }
    knowledge_of(&mut reader, binding).ok_or(Unusable::Damaged)
}

fn binding_of(reader: &mut Reader<'_>) -> Option<Binding> {
    Some(Binding {
        info_hash: crate::base::id::InfoHash(reader.array()?),
        length: reader.u64()?,
        piece_len: reader.u32()?,
        piece_count: reader.u32()?,
        file_count: reader.u32()?,
        layout: reader.u64()?,
    })
}

fn knowledge_of(reader: &mut Reader<'_>, binding: &Binding) -> Option<Knowledge> {
    let [has_boot] = reader.array()?;
    let boot = BootId(reader.array()?);
    let mut knowledge = Knowledge::nothing(binding, (has_boot == 1).then_some(boot));
    knowledge.generation = reader.u64()?;
    for stamp in &mut knowledge.stamps {
        *stamp = reader.stamp()?;
    }
    for time in &mut knowledge.times {
        *time = reader.u64()?;
    }
    knowledge.claims = reader.claims(binding.piece_count)?;
    let filled = reader.filled(binding)?;
    knowledge.apply(&Record::Filled(filled), binding);
    reader.0.is_empty().then_some(knowledge)
}

/// What a frame says; `None` if it is not what this version writes.
fn record(kind: Kind, body: &[u8], binding: &Binding) -> Option<Record> {
    let mut reader = Reader(body);
    let pieces = binding.piece_count;
    let record = match kind {
        Kind::Snapshot => return None,
        Kind::Checked => Record::Checked(reader.pieces(pieces)?),
        Kind::Durable => Record::Durable(reader.pieces(pieces)?),
        Kind::Doubted => Record::Doubted(reader.pieces(pieces)?),
        Kind::Dropped => Record::Dropped(reader.pieces(pieces)?),
        Kind::Filled => Record::Filled(reader.filled(binding)?),
        Kind::Stamped => Record::Stamped(groups(&mut reader, binding, Reader::stamp)?),
        Kind::Timed => Record::Timed(groups(&mut reader, binding, Reader::u64)?),
    };
    reader.0.is_empty().then_some(record)
}

/// Groups of files, each with a value.
fn groups<'a, T>(
    reader: &mut Reader<'a>,
    binding: &Binding,
    value: impl Fn(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<(u32, T)>> {
    let mut groups = Vec::new();
    while !reader.0.is_empty() {
        let group = reader.u32()?;
        if group >= binding.group_count() {
            return None;
        }
        groups.push((group, value(reader)?));
    }
    Some(groups)
}
