//! The files: lines are only ever appended, a file is closed at its size, and the oldest make room for the next.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::counter::Counter;

use super::{CallEvent, CallLogConfig, Writer};
use crate::lane::Drain;

const PREFIX: &str = "calls-";
const EXTENSION: &str = "jsonl";
/// Files in the folder, however small they are: each start of a server begins one.
const FILES_MAX: usize = 256;

/// What the thread writes to.
pub(super) struct Files {
    config: CallLogConfig,
    open: Option<Open>,
    /// Files begun so far.
    begun: u64,
    lines: Vec<u8>,
    writer: Writer,
    lost: Counter,
    is_failing: bool,
}

struct Open {
    file: File,
    bytes: u64,
}

/// A file of events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    /// Names begin with the time of their beginning, so that they are in order.
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// When it was last written to.
    pub(super) written: SystemTime,
}

impl Files {
    pub(super) fn new(config: CallLogConfig, lost: Counter) -> Self {
        Self {
            config,
            open: None,
            begun: 0,
            lines: Vec::new(),
            writer: Writer::default(),
            lost,
            is_failing: false,
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let open = match &mut self.open {
            Some(open) if open.bytes < self.config.file_bytes_max => open,
            _ => {
                let file = self.begin()?;
                self.open.insert(Open { file, bytes: 0 })
            }
        };
        open.bytes += self.lines.len() as u64;
        open.file.write_all(&self.lines)
    }

    fn begin(&mut self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.config.folder)?;
        self.make_room()?;
        let folder = &self.config.folder;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now_ms, process) = (since.as_millis(), std::process::id());
        loop {
            self.begun += 1;
            let name = format!("{PREFIX}{now_ms:013}-{process}-{}.{EXTENSION}", self.begun);
            match OpenOptions::new().append(true).create_new(true).mode(0o600).open(folder.join(name)) {
                // Of another gateway in this process.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened,
            }
        }
    }

    /// Removes the oldest files until one more fits.
    fn make_room(&self) -> io::Result<()> {
        let kept = list(&self.config.folder)?;
        let bytes_max = self.config.folder_bytes_max.saturating_sub(self.config.file_bytes_max);
        let mut bytes: u64 = kept.iter().map(|file| file.bytes).sum();
        let mut files = kept.len();
        for oldest in kept {
            if bytes <= bytes_max && files < FILES_MAX {
                break;
            }
            match fs::remove_file(&oldest.path) {
                // Another gateway makes room, too.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            bytes -= oldest.bytes;
            files -= 1;
        }
        Ok(())
    }
}

impl Drain<Box<CallEvent>> for Files {
    fn take(&mut self, batch: &mut Vec<Box<CallEvent>>) {
        let events = batch.len() as u64;
        self.lines.clear();
        for event in batch.drain(..) {
            self.writer.write(&mut self.lines, &event);
        }
        match self.write() {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.lost.inc_by(events);
                // Half a line may be there: what follows begins in a file of its own.
                self.open = None;
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, folder = %self.config.folder.display(), "events of calls are lost");
                }
            }
        }
    }
}

/// The files of a folder, the oldest first; none when there is no folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut kept = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|e| e == EXTENSION)
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        // Whatever vanishes under our eyes is somebody's who made room.
        if let (true, Ok(file)) = (is_ours, fs::metadata(&path)) {
            kept.push(Kept { path, bytes: file.len(), written: file.modified()? });
        }
    }
    kept.sort();
    Ok(kept)
}
