//! How much disk a step may take: its folders are measured from outside, since no quota can be counted on.
//!
//! A walk over them takes a while (an environment has tens of thousands of files), the free space of their file system
//! is known at once: a walk follows when that has shrunk enough to matter, and from time to time. No single file can be
//! larger than the bound at all, so that between two looks nothing grows out of hand.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;

/// Free space shrunk by this part of the bound is reason for a walk.
const WALK_AT_PART: u64 = 16;
/// A walk follows at the latest after this, or after this many times what the last one took.
const WALK_AFTER: Duration = Duration::from_secs(5);
const WALK_PAUSE_FACTOR: u32 = 10;
/// Left free for everybody else, whatever a step may take.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// The disk of one step.
#[derive(Debug)]
pub(super) struct Disk {
    folders: Vec<PathBuf>,
    /// What the folders may hold: what they held at first, and the bound.
    bytes_max: u64,
    grown_max: u64,
    walked_at: Instant,
    walk_again_after: Duration,
    free_when_walked: u64,
}

impl Disk {
    /// Measures what is there.
    pub(super) fn measure(folders: Vec<PathBuf>, grown_max: u64) -> Self {
        let mut disk = Self {
            folders: outermost(folders),
            bytes_max: 0,
            grown_max,
            walked_at: Instant::now(),
            walk_again_after: WALK_AFTER,
            free_when_walked: 0,
        };
        disk.bytes_max = disk.walk().saturating_add(grown_max);
        disk
    }

    /// Why the step must end, if it must.
    pub(super) fn exceeded(&mut self) -> Option<String> {
        let free = self.free()?;
        if free < FREE_BYTES_MIN {
            return Some(format!("the disk of the server has less than {} MiB left", FREE_BYTES_MIN >> 20));
        }
        let shrunk = self.free_when_walked.saturating_sub(free);
        if shrunk < self.grown_max / WALK_AT_PART && self.walked_at.elapsed() < self.walk_again_after {
            return None;
        }
        (self.walk() > self.bytes_max)
            .then(|| format!("it took more than {} MiB of disk", self.grown_max >> 20))
    }

    fn walk(&mut self) -> u64 {
        let begun = Instant::now();
        let bytes = self.folders.iter().map(|folder| bytes_of(folder).unwrap_or(0)).sum();
        self.walked_at = Instant::now();
        self.walk_again_after = WALK_AFTER.max(begun.elapsed() * WALK_PAUSE_FACTOR);
        self.free_when_walked = self.free().unwrap_or(0);
        bytes
    }

    fn free(&self) -> Option<u64> {
        let space = statvfs(self.folders.first()?).ok()?;
        Some(space.blocks_available() as u64 * space.fragment_size() as u64)
    }
}

/// None of them below another, so that nothing is counted twice.
fn outermost(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    folders.sort();
    folders.dedup_by(|inner, outer| inner.starts_with(outer));
    folders
}

/// Bytes on disk. What goes while we look is not there any more.
fn bytes_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(kind) = entry.metadata() else { continue };
        bytes += kind.blocks() * 512;
        if kind.is_dir() {
            bytes += bytes_of(&entry.path()).unwrap_or(0);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_counted_once_and_growth_over_the_bound_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, inner) = (dir.path().join("a"), dir.path().join("a/b"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("old"), vec![1; 100_000]).unwrap();
        let mut disk = Disk::measure(vec![inner.clone(), outer.clone()], 64 << 10);
        assert_eq!(disk.folders, [outer]);
        disk.walk_again_after = Duration::ZERO;
        assert_eq!(disk.exceeded(), None);
        fs::write(inner.join("new"), vec![1; 200_000]).unwrap();
        disk.walk_again_after = Duration::ZERO;
        assert!(disk.exceeded().unwrap().contains("of disk"));
    }
}
