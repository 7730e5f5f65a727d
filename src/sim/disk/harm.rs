//! What others, time and power cuts do to what is on a disk.

use std::path::Path;

use super::{Disk, File, PAGE_LEN, SECTOR_LEN};
use crate::base::rng::Rng;
use crate::base::time::Instant;

impl Disk {
    /// Somebody else changes a file, and syncs it; `false` if there is none of this name.
    pub fn edit(&mut self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(file) = self.files.get_mut(Path::new(path)) else {
            return false;
        };
        change(&mut file.bytes);
        file.writes += 1;
        file.synced.clone_from(&file.bytes);
        file.dirty.clear();
        true
    }

    /// Flips a bit somewhere, unnoticed; `false` if there is no byte to hurt.
    pub fn rot(&mut self) -> bool {
        let full = self.files.values_mut().filter(|f| !f.bytes.is_empty());
        let mut full: Vec<&mut File> = full.collect();
        if full.is_empty() {
            return false;
        }
        let file = self.rng.below(full.len() as u32) as usize;
        let at = self.rng.below(full[file].bytes.len() as u32) as usize;
        full[file].bytes[at] ^= 1;
        full[file].dirty.insert(at / PAGE_LEN);
        true
    }

    /// The process is gone: nobody holds a file any more, the kernel still has every byte.
    pub fn let_go(&mut self) {
        self.free_at = [Instant::ZERO; 3];
    }

    /// The power is gone: of what was not synced, chance decides.
    pub fn power_cut(&mut self) {
        self.let_go();
        self.boots += 1;
        let rng = &mut self.rng;
        self.files
            .retain(|_, file| file.is_entry_synced || rng.below(2) == 0);
        for file in self.files.values_mut() {
            self.tally.lost_pages += file.power_cut(&mut self.rng);
        }
    }
}

impl File {
    /// What is left of it after a power cut; how many pages were lost or torn.
    fn power_cut(&mut self, rng: &mut Rng) -> u64 {
        let mut lost = 0;
        let mut left = std::mem::take(&mut self.synced);
        // Whether the new length was written is a matter of its own.
        if rng.below(2) == 0 {
            left.resize(self.bytes.len(), 0);
        }
        for &page in &self.dirty {
            let fate = rng.below(3);
            for sector in 0..PAGE_LEN / SECTOR_LEN {
                let is_written = match fate {
                    0 => true,
                    1 => false,
                    _ => rng.below(2) == 0,
                };
                let first = page * PAGE_LEN + sector * SECTOR_LEN;
                let end = (first + SECTOR_LEN).min(left.len()).min(self.bytes.len());
                if is_written && first < end {
                    left[first..end].copy_from_slice(&self.bytes[first..end]);
                }
            }
            lost += u64::from(fate > 0);
        }
        self.bytes.clone_from(&left);
        self.synced = left;
        self.is_entry_synced = true;
        self.dirty.clear();
        lost
    }
}
