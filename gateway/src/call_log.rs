//! One event for each call, kept in files of JSON lines: who called which model when, how it ended, and how long it
//! took. Never a key, never a body.
//!
//! A call gives its event to a [`Lane`] and goes on; a thread writes. The folder is bounded: files are closed at a size,
//! and the oldest are removed. Each process writes files of its own, so that two gateways may share a folder while one
//! hands over to the other. A disk that fails costs events, which are counted, and nothing else.

mod event;
mod files;
mod query;

use std::{io, path::PathBuf};

use prometheus_client::metrics::counter::Counter;

use crate::lane::Lane;
pub(crate) use event::{CallEvent, Names, Writer};
use files::Files;
pub use query::{CallFilter, CallFilterError, read_calls};

/// Events that wait to be written.
const WAITING_MAX: usize = 8_192;

/// Files that a full folder has.
const FILES_OF_A_FOLDER: u64 = 16;
/// Bytes of a file, however small the folder is to be.
const FILE_BYTES_MIN: u64 = 64 * 1024;

/// Where events are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallLogConfig {
    /// A folder of its own, made when it is missing (0700).
    pub folder: PathBuf,
    /// Bytes after which a file is closed and the next one begun.
    pub file_bytes_max: u64,
    /// Bytes of all files together; the oldest are removed. At least two files' worth.
    pub folder_bytes_max: u64,
}

impl CallLogConfig {
    /// So many bytes in all, in files of a sixteenth of that, or of 64 KiB.
    pub fn new(folder: impl Into<PathBuf>, folder_bytes_max: u64) -> Self {
        let file_bytes_max = (folder_bytes_max / FILES_OF_A_FOLDER).max(FILE_BYTES_MIN);
        Self { folder: folder.into(), file_bytes_max, folder_bytes_max }
    }
}

/// Where calls leave their events.
pub(crate) struct CallLog {
    lane: Lane<Box<CallEvent>>,
    config: CallLogConfig,
}

impl CallLog {
    pub(crate) fn open(config: CallLogConfig, lost: Counter) -> io::Result<Self> {
        let files = Files::new(config.clone(), lost.clone());
        Ok(Self { lane: Lane::start("millgate-calls", WAITING_MAX, lost, files)?, config })
    }

    /// Takes an event, at once.
    pub(crate) fn take(&self, event: Box<CallEvent>) {
        self.lane.offer(event);
    }

    /// The lines of the calls that `filter` lets pass, the newest last, up to those that have ended just now.
    pub(crate) async fn read(&self, filter: CallFilter) -> io::Result<Vec<String>> {
        self.lane.flush().await;
        let folder = self.config.folder.clone();
        tokio::task::spawn_blocking(move || read_calls(&folder, &filter)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests;
