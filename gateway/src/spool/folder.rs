//! Folders of a spool: each belongs to one process at a time, which holds the lock of a file in it for as long as it
//! lives. Folders are taken over, never deleted, so there are no more of them than gateways were ever there at one time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const LOCK: &str = "lock";
/// Folders in one spool.
const FOLDERS_MAX: u32 = 1_000;

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// The first one that is nobody's, or a new one.
    pub(super) fn take(spool: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(spool)?;
        for number in 0..FOLDERS_MAX {
            let path = spool.join(format!("{number:03}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            if let Some(folder) = Self::lock(path)? {
                return Ok(folder);
            }
        }
        Err(io::Error::other(format!("all {FOLDERS_MAX} folders of the spool are in use")))
    }

    /// One that another process has left behind with something in it.
    pub(super) fn take_left(&self) -> io::Result<Option<Self>> {
        let spool = self.path.parent().unwrap_or(&self.path);
        for entry in fs::read_dir(spool)? {
            let path = entry?.path();
            if path == self.path || !path.is_dir() || segments(&path)?.is_empty() {
                continue;
            }
            if let Some(folder) = Self::lock(path)? {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    fn lock(path: PathBuf) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The file of a segment.
pub(super) fn segment_file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016x}.seg"))
}

/// Numbers of the segments in a folder, ascending.
pub(super) fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
