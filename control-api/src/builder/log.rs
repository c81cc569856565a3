//! A build's log: one JSON line per line of text, written as it happens, read by whoever follows it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::moment::now_us;

/// Bytes of a build's log; what comes after is dropped, with a last line that says so.
const LOG_BYTES_MAX: u64 = 64 << 20;

/// A step of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// The project's files are copied.
    Snapshot,
    /// Python's environment is made and the build script run.
    Environment,
    /// The file is imported and the example called.
    Import,
    /// Every file is hashed.
    Seal,
    /// Over, well or not.
    Done,
}

impl Step {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Environment => "environment",
            Self::Import => "import",
            Self::Seal => "seal",
            Self::Done => "done",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuildLine {
    pub(crate) time_ms: u64,
    pub(crate) step: Step,
    pub(crate) text: String,
}

/// The log of a build underway.
#[derive(Debug, Clone)]
pub(crate) struct BuildLog(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl BuildLog {
    /// Begins a log, in place of an earlier attempt's.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // Private: replicas see the build's folder and need not see what its script printed.
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self(Arc::new(Mutex::new(Open { file, bytes: 0 }))))
    }

    /// Goes on with the log of an attempt that is taken up again.
    pub(crate) fn reopen(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Open { file, bytes }))))
    }

    /// Writes a line. A full disk loses log lines and not the build.
    pub(crate) fn line(&self, step: Step, text: &str) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.bytes > LOG_BYTES_MAX && step != Step::Done {
            return;
        }
        let mut line = encode(step, text);
        open.bytes += line.len() as u64;
        if open.bytes > LOG_BYTES_MAX && step != Step::Done {
            line = encode(step, "the log is full; what follows is not kept");
        }
        if let Err(error) = open.file.write_all(&line) {
            tracing::warn!(%error, "cannot write to a build's log");
        }
    }
}

fn encode(step: Step, text: &str) -> Vec<u8> {
    let time_ms = (now_us() / 1_000).unsigned_abs();
    millgate_contract::line::encode(&BuildLine { time_ms, step, text: text.to_owned() })
}
