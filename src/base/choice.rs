//! Which files of a torrent its user wants, how soon, and in which order their pieces come.

use std::ops::Range;

/// How much a file is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Not at all.
    Skip,
    /// As most are.
    #[default]
    Normal,
    /// Before those that are not.
    High,
}

impl Priority {
    /// The word for it in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// In which order pieces of the same priority are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PieceOrder {
    /// What few peers have first: best for the swarm.
    #[default]
    RarestFirst,
    /// As they lie in the torrent: for whoever reads while it comes.
    Sequential,
}

/// What a user chose of one torrent. Files are counted as the metainfo lists them.
///
/// Nothing is kept for files behind the last one that is not [`Priority::Normal`], so that the
/// choice of nearly every torrent, everything as usual, takes no memory of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those behind the last are normal.
    files: Vec<Priority>,
    /// In which order pieces come.
    pub order: PieceOrder,
}

impl Choice {
    /// The priority of each file; those that follow are normal.
    pub fn new(mut files: Vec<Priority>, order: PieceOrder) -> Self {
        let last = files.iter().rposition(|&p| p != Priority::Normal);
        files.truncate(last.map_or(0, |last| last + 1));
        files.shrink_to_fit();
        Self { files, order }
    }

    /// The priority of a file.
    pub fn of(&self, file: u32) -> Priority {
        self.files.get(file as usize).copied().unwrap_or_default()
    }

    /// Whether all files are wanted, none before others.
    pub fn is_everything(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether some file is not wanted.
    pub fn is_partial(&self) -> bool {
        self.files.contains(&Priority::Skip)
    }

    /// The files that are not wanted.
    pub fn skipped(&self) -> Vec<u32> {
        let files = (0..).zip(&self.files);
        let skipped = files.filter(|(_, priority)| **priority == Priority::Skip);
        skipped.map(|(file, _)| file).collect()
    }

    /// The same files in another order.
    pub fn in_order(self, order: PieceOrder) -> Self {
        Self { order, ..self }
    }

    /// Gives files another priority.
    pub fn set(&mut self, files: impl IntoIterator<Item = u32>, priority: Priority) {
        let mut all = std::mem::take(&mut self.files);
        for file in files {
            let file = file as usize;
            if file >= all.len() {
                all.resize(file + 1, Priority::Normal);
            }
            all[file] = priority;
        }
        *self = Self::new(all, self.order);
    }

    /// The priorities that are not the usual ones, as runs of files: `2-4 skip` is
    /// `(2..5, Skip)`.
    pub fn runs(&self) -> Vec<(Range<u32>, Priority)> {
        let mut runs: Vec<(Range<u32>, Priority)> = Vec::new();
        for (file, &priority) in (0..).zip(&self.files) {
            match runs.last_mut() {
                Some((run, before)) if *before == priority && run.end == file => run.end += 1,
                _ if priority == Priority::Normal => {}
                _ => runs.push((file..file + 1, priority)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choice_keeps_what_is_unusual_only() {
        let mut choice = Choice::default();
        assert!(choice.is_everything() && !choice.is_partial());
        choice.set([3, 1, 2], Priority::Skip);
        choice.set([5], Priority::High);
        assert_eq!(choice.of(0), Priority::Normal);
        assert_eq!(choice.of(2), Priority::Skip);
        assert_eq!(choice.of(99), Priority::Normal);
        assert_eq!(choice.skipped(), [1, 2, 3]);
        let runs = [(1..4, Priority::Skip), (5..6, Priority::High)];
        assert_eq!(choice.runs(), runs);
        choice.set([5, 3], Priority::Normal);
        assert_eq!(choice.runs(), [(1..3, Priority::Skip)]);
        choice.set([1, 2], Priority::Normal);
        assert_eq!(choice, Choice::default());
    }
}
