//! What is shipped next, and what may be deleted. Reads the files of our own folder as far as they are written, and of
//! folders that other gateways have left behind to their end; those come first, since they are older.
//!
//! Nothing is remembered across processes: a segment that was not wholly kept is shipped again from its beginning, and
//! the control API knows each prediction by its UUID.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use millgate_contract::{limits::METRICS_BATCH_BYTES_MAX, tracked};

use super::{
    Shared,
    folder::{Folder, segment_file, segments},
    segment::Mark,
};

/// See the module. Its methods wait for the disk.
pub(super) struct Shipment {
    shared: Arc<Shared>,
    own: Reader,
    left: Option<(Folder, Reader)>,
    flight: Option<Flight>,
}

/// Where the last batch ends that was given out.
enum Flight {
    Own(Mark),
    Left(Mark),
}

impl Shipment {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, own: Reader::default(), left: None, flight: None }
    }

    /// The next batch of whole records; the same one until it is said to be kept. With `looks_around` folders that were
    /// left behind are looked for.
    pub(super) fn next(&mut self, looks_around: bool) -> io::Result<Option<Bytes>> {
        loop {
            if self.left.is_none() && looks_around {
                self.left = self.shared.folder.take_left()?.map(|folder| (folder, Reader::default()));
            }
            let Some((folder, reader)) = &mut self.left else { break };
            if let Some((batch, end)) = reader.next(folder.path(), None, &self.shared)? {
                self.flight = Some(Flight::Left(end));
                return Ok(Some(batch));
            }
            self.left = None;
            if !looks_around {
                break;
            }
        }
        let written = self.shared.queue.written();
        let Some((batch, end)) = self.own.next(self.shared.folder.path(), Some(written), &self.shared)?
        else {
            return Ok(None);
        };
        self.flight = Some(Flight::Own(end));
        Ok(Some(batch))
    }

    /// The last batch is kept.
    pub(super) fn kept(&mut self) {
        match (self.flight.take(), &mut self.left) {
            (Some(Flight::Own(end)), _) => self.own.at = end,
            (Some(Flight::Left(end)), Some((_, reader))) => reader.at = end,
            _ => {}
        }
    }

    /// Nobody will say so: the connection has ended.
    pub(super) fn forget_flight(&mut self) {
        self.flight = None;
    }

    /// How far our own folder is kept.
    pub(super) fn own_at(&self) -> Mark {
        self.own.at
    }

    /// A folder that was left behind is being emptied.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }
}

/// Reads one folder.
#[derive(Default)]
struct Reader {
    /// All before it is kept.
    at: Mark,
}

impl Reader {
    /// Whole records from where the reader is, and where they end. A folder that nobody writes to has no `written`.
    fn next(
        &mut self,
        folder: &Path,
        written: Option<Mark>,
        shared: &Shared,
    ) -> io::Result<Option<(Bytes, Mark)>> {
        if written.is_some_and(|written| self.at >= written) {
            return Ok(None);
        }
        for number in
            segments(folder)?.into_iter().filter(|number| *number >= self.at.segment).collect::<Vec<_>>()
        {
            if number > self.at.segment {
                self.at = Mark { segment: number, bytes: 0 };
            }
            let path = segment_file(folder, number);
            let is_written_to = written.is_some_and(|written| number >= written.segment);
            let end = match written {
                Some(written) if is_written_to => written.bytes,
                _ => fs::metadata(&path)?.len(),
            };
            let batch = read(&path, self.at.bytes, end)?;
            if !batch.is_empty() {
                let end = Mark { segment: number, bytes: self.at.bytes + batch.len() as u64 };
                return Ok(Some((batch, end)));
            }
            if is_written_to {
                return Ok(None);
            }
            if end > self.at.bytes {
                let bytes = end - self.at.bytes;
                shared.metrics.unreadable_bytes.inc_by(bytes);
                tracing::error!(bytes, file = %path.display(), "the rest of a spool's file is no record");
            }
            fs::remove_file(&path)?;
            if written.is_some() {
                shared.room.release(end);
            }
            self.at = Mark { segment: number + 1, bytes: 0 };
        }
        // The next segment is only made for its first record.
        self.at = written.unwrap_or(self.at);
        Ok(None)
    }
}

/// Whole records between two places of a file, as many as a batch may have.
fn read(path: &Path, from: u64, to: u64) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let bytes_max =
        usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX).min(METRICS_BATCH_BYTES_MAX);
    let mut bytes = Vec::with_capacity(bytes_max);
    file.take(bytes_max as u64).read_to_end(&mut bytes)?;
    bytes.truncate(tracked::whole_bytes(&bytes, METRICS_BATCH_BYTES_MAX));
    Ok(bytes.into())
}
