//! What user code prints: pipes in, one bounded file out. A pipe is always read, so that a call never waits for its
//! log; what comes faster than its rate is dropped and counted. Lines are JSON, so that nothing printed can forge one.
//!
//! # Whose a line is
//!
//! By a mark in the pipe before it, where the runtime has put one ([`millgate_contract::mark`]): that is exact, however
//! late it is read. Else it is the call's that the replica's page names once the line is read: right for what takes its
//! time, and for a line printed at the very end of a call perhaps nobody's or the next call's. Nothing is asked of the
//! replica, and no call waits for its log.

mod lines;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use millgate_contract::{
    ids::ReplicaId,
    limits::LOG_FILE_BYTES_MAX,
    line,
    spec::{LogLine, LogSource},
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

use self::lines::{Line, Lines};
use crate::{
    limits::{LOG_BURST_BYTES_MAX, LOG_BYTES_PER_S_MAX},
    page::SharedPage,
    sys,
};

/// A file that is appended to; at its limit it becomes `<name>.1` and a new one begins.
#[derive(Debug)]
pub(crate) struct BoundedFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl BoundedFile {
    pub(crate) fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for BoundedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + buffer.len() as u64 > self.bytes_max {
            self.rotate()?;
        }
        // Whole or not at all, as far as one `write` can promise it: readers follow the file line by line.
        self.file.write_all(buffer)?;
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The deployment's log. Clones write to the same file.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentLog {
    file: Arc<Mutex<BoundedFile>>,
}

impl DeploymentLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(Mutex::new(BoundedFile::open(path, LOG_FILE_BYTES_MAX)?)) })
    }

    /// Appends lines. A full disk loses them and nothing else.
    fn write(&self, lines: &[LogLine]) {
        let Ok(mut file) = self.file.lock() else { return };
        let mut failed = None;
        for one in lines {
            failed = file.write_all(&line::encode(one)).err().or(failed);
        }
        if let Some(error) = failed {
            tracing::warn!(%error, "log lines are lost");
        }
    }

    /// Appends a line of the supervisor's own.
    pub(crate) fn note(&self, replica: Option<&ReplicaId>, text: &str) {
        self.write(&[LogLine {
            time_ms: unix_ms(),
            source: LogSource::Supervisor,
            replica: replica.cloned(),
            request_id: None,
            text: text.to_owned(),
        }]);
    }

    /// Reads one of a process's pipes to its end.
    async fn follow(self, pipe: LogPipe, printer: Printer) {
        let mut lines = Lines::new(printer.page.as_ref().map(SharedPage::mark_key));
        let mut rate = Rate::new(Instant::now());
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let count = match pipe.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    tracing::warn!(%error, "a log pipe cannot be read");
                    break;
                }
            };
            let read = lines.push(&buffer[..count]);
            self.write_within_rate(read, &printer, &mut rate);
        }
        self.write_within_rate(lines.finish(), &printer, &mut rate);
        if let Some(text) = rate.take_dropped() {
            self.note(printer.replica.as_ref(), &text);
        }
    }

    fn write_within_rate(&self, lines: Vec<Line>, printer: &Printer, rate: &mut Rate) {
        let time_ms = unix_ms();
        let running = printer.page.as_ref().and_then(SharedPage::running);
        rate.refill(Instant::now());
        let mut out = Vec::with_capacity(lines.len());
        for Line { text, request_id } in lines {
            if !rate.admit(text.len() as u64 + 1) {
                continue;
            }
            let replica = printer.replica.clone();
            if let Some(text) = rate.take_dropped() {
                let (source, replica) = (LogSource::Supervisor, replica.clone());
                out.push(LogLine { time_ms, source, replica, request_id: None, text });
            }
            let request_id = request_id.or_else(|| running.clone());
            out.push(LogLine { time_ms, source: printer.source, replica, request_id, text });
        }
        self.write(&out);
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Who prints, and where.
#[derive(Debug)]
struct Printer {
    source: LogSource,
    /// None for the template.
    replica: Option<ReplicaId>,
    page: Option<SharedPage>,
}

/// Both outputs of a process: the ends that it writes to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl Output {
    /// For a process about to start; what it prints goes to `log`. The pipes are read to their ends whatever becomes of
    /// the process, and its last words matter most.
    pub(crate) fn into_log(
        log: &DeploymentLog,
        replica: Option<(&ReplicaId, &SharedPage)>,
    ) -> io::Result<Self> {
        let follow = |source| {
            let (pipe, theirs) = LogPipe::pair()?;
            let (replica, page) = replica.map(|(replica, page)| (replica.clone(), page.clone())).unzip();
            tokio::spawn(log.clone().follow(pipe, Printer { source, replica, page }));
            io::Result::Ok(theirs)
        };
        Ok(Self { stdout: follow(LogSource::Stdout)?, stderr: follow(LogSource::Stderr)? })
    }
}

/// The end of a process's log pipe that we read.
#[derive(Debug)]
struct LogPipe {
    fd: AsyncFd<OwnedFd>,
}

impl LogPipe {
    /// Our end and the one to give away.
    fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { fd: sys::watched(ours)? }, theirs))
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut guard = self.fd.readable().await?;
            let result = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer)?));
            if let Ok(result) = result {
                // A process that prints for ever must not keep the others waiting.
                tokio::task::yield_now().await;
                return result;
            }
        }
    }
}

/// How much one process may print: a bucket of bytes that fills with time.
#[derive(Debug)]
struct Rate {
    bytes: u64,
    filled_at: Instant,
    dropped_lines: u64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { bytes: LOG_BURST_BYTES_MAX, filled_at: now, dropped_lines: 0 }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed_ms = now.duration_since(self.filled_at).as_millis() as u64;
        // Whole steps only, so that rounding never loses time.
        if elapsed_ms > 0 {
            let more = elapsed_ms.saturating_mul(LOG_BYTES_PER_S_MAX) / 1_000;
            self.bytes = self.bytes.saturating_add(more).min(LOG_BURST_BYTES_MAX);
            self.filled_at = now;
        }
    }

    fn admit(&mut self, bytes: u64) -> bool {
        if let Some(left) = self.bytes.checked_sub(bytes) {
            self.bytes = left;
            true
        } else {
            self.dropped_lines += 1;
            false
        }
    }

    fn take_dropped(&mut self) -> Option<String> {
        let count = std::mem::take(&mut self.dropped_lines);
        (count > 0)
            .then(|| format!("{count} lines were dropped: printed faster than {LOG_BYTES_PER_S_MAX} bytes/s"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_file_becomes_the_older_one_and_the_one_before_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let mut file = BoundedFile::open(&path, 10).unwrap();
        for text in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n"] {
            file.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "eeee\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("x.log.1")).unwrap(), "cccc\ndddd\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        drop(file);
        let mut again = BoundedFile::open(&path, 10).unwrap();
        again.write_all(b"fffff\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fffff\n");
    }

    #[test]
    fn what_is_over_the_rate_is_dropped_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert!(rate.admit(LOG_BURST_BYTES_MAX));
        assert!(!rate.admit(1));
        assert!(!rate.admit(1));
        rate.refill(start + Duration::from_secs(1));
        assert!(rate.admit(LOG_BYTES_PER_S_MAX));
        assert!(rate.take_dropped().unwrap().starts_with("2 lines"));
        assert_eq!(rate.take_dropped(), None);
    }
}
