//! The numbered changes of one swarm: who must hear of what is a range.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::news::{Change, ChangeKind, Heard};
use crate::base::limits::CHANGES_MAX;

/// The latest changes, at most [`CHANGES_MAX`]. The numbers never end or repeat.
#[derive(Debug, Default)]
pub(super) struct Log {
    latest: u64,
    changes: VecDeque<Change>,
}

/// Whether changes are kept, or only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Others are told of this swarm's changes.
    Changes,
    /// Nobody is.
    Count,
}

impl Log {
    /// Numbers a change.
    pub fn push(&mut self, addr: SocketAddr, kind: ChangeKind, heard: Heard, keep: Keep) -> Change {
        self.latest += 1;
        let change = Change {
            version: self.latest,
            addr,
            kind,
            heard,
        };
        match keep {
            Keep::Changes => {
                if self.changes.len() == CHANGES_MAX {
                    self.changes.pop_front();
                }
                if self.changes.is_empty() {
                    self.changes.reserve_exact(2); // most swarms see no more
                }
                self.changes.push_back(change);
            }
            Keep::Count => self.changes.clear(),
        }
        change
    }

    /// The number of the latest change.
    pub fn version(&self) -> u64 {
        self.latest
    }

    /// The changes after number `version`, unless some of them are forgotten.
    pub fn after(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let behind = usize::try_from(self.latest.saturating_sub(version)).ok()?;
        let known = self.changes.len().checked_sub(behind)?;
        Some(self.changes.range(known..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_a_range_until_they_are_forgotten() {
        let mut log = Log::default();
        let addr = "10.0.0.1:1".parse().unwrap();
        let push = |log: &mut Log, keep| {
            log.push(addr, ChangeKind::Joined, Heard::Announce, keep);
        };
        for _ in 0..CHANGES_MAX as u64 + 10 {
            push(&mut log, Keep::Changes);
        }
        let latest = CHANGES_MAX as u64 + 10;
        assert_eq!(log.version(), latest);
        let versions = |log: &Log, after| {
            let changes = log.after(after)?;
            Some(changes.map(|change| change.version).collect::<Vec<_>>())
        };
        assert_eq!(versions(&log, latest), Some(vec![]));
        assert_eq!(versions(&log, latest - 2), Some(vec![latest - 1, latest]));
        assert_eq!(versions(&log, 10), Some((11..=latest).collect()));
        assert_eq!(versions(&log, 9), None);
        assert_eq!(versions(&log, latest + 5), Some(vec![]));

        push(&mut log, Keep::Count);
        assert_eq!(versions(&log, latest), None);
        assert_eq!(versions(&log, latest + 1), Some(vec![]));
    }
}
