//! The last good route snapshot on disk: what lets a gateway start without the control API. It holds the digest key,
//! hence its mode; it is replaced whole, so that a crash leaves the old one or the new one. What a disk does not take, or a
//! process without descriptors cannot write, is written later: it may be the last snapshot for a long time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use millgate_contract::{
    limits::ROUTE_SNAPSHOT_BYTES_MAX,
    route::{RouteSnapshot, SnapshotError},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep_until};

/// How long after a snapshot could not be saved it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

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

/// Saves what is routed by, for the next start. A disk that fails takes nothing from the calls of now.
pub(crate) struct Saver {
    file: Option<PathBuf>,
    /// 1 while the newest is not saved.
    is_unsaved: Gauge,
    unsaved: Option<Unsaved>,
}

struct Unsaved {
    sealed: Bytes,
    again_at: Instant,
}

impl Saver {
    pub(crate) fn new(file: Option<PathBuf>, is_unsaved: Gauge) -> Self {
        Self { file, is_unsaved, unsaved: None }
    }

    /// Saves it, now or later.
    pub(crate) async fn save(&mut self, sealed: Bytes) {
        let Some(path) = self.file.clone() else { return };
        let file = path.display().to_string();
        let saving = sealed.clone();
        let saved = tokio::task::spawn_blocking(move || save(&path, &saving)).await;
        let was_unsaved = self.unsaved.take().is_some();
        match saved.map_err(io::Error::other).flatten() {
            Ok(()) if was_unsaved => tracing::info!(file, "the route snapshot is saved"),
            Ok(()) => {}
            Err(error) => {
                if !was_unsaved {
                    tracing::error!(%error, file, "the route snapshot could not be saved and will be tried again");
                }
                self.unsaved = Some(Unsaved { sealed, again_at: Instant::now() + AGAIN });
            }
        }
        self.is_unsaved.set(self.unsaved.is_some().into());
    }

    /// Resolves when one that could not be saved is to be tried again.
    pub(crate) async fn due(&self) {
        match &self.unsaved {
            Some(unsaved) => sleep_until(unsaved.again_at).await,
            None => std::future::pending().await,
        }
    }

    /// Tries again, if it is time.
    pub(crate) async fn again(&mut self) {
        let due = self.unsaved.as_ref().filter(|unsaved| unsaved.again_at <= Instant::now());
        if let Some(sealed) = due.map(|unsaved| unsaved.sealed.clone()) {
            self.save(sealed).await;
        }
    }
}
