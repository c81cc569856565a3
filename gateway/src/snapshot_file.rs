//! The last good route snapshot on disk: what lets a gateway start without the control API. It holds the digest key,
//! hence its mode; it is replaced whole, so that a crash leaves the old one or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::SystemTime,
};

use millgate_contract::{
    limits::ROUTE_SNAPSHOT_BYTES_MAX,
    route::{RouteSnapshot, SnapshotError},
};

/// Why a file gives no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("the snapshot file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// Reads the file; `None` when there is none.
pub(crate) fn load(path: &Path) -> Result<Option<RouteSnapshot>, LoadError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut sealed = Vec::new();
    // One byte over the limit tells a file that is too large from one that is just not.
    file.take(ROUTE_SNAPSHOT_BYTES_MAX as u64 + 1).read_to_end(&mut sealed)?;
    Ok(Some(RouteSnapshot::open(&sealed)?))
}

/// When the file was kept; now when nobody can say.
pub(crate) fn kept_at(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|file| file.modified()).unwrap_or_else(|_| SystemTime::now())
}

/// Replaces the file.
pub(crate) fn save(path: &Path, sealed: &[u8]) -> io::Result<()> {
    // Two gateways keep one file while one hands over to the other.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(sealed)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
