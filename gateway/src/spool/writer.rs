//! Writes segments; and the thread that does so for calls which do not write themselves: it takes what is in the queue,
//! appends it in one write, and tells those who wait.
//!
//! After a write that failed the thread looks every second whether the folder can be written to; until then no call is
//! given room, so that only calls that were on their way are hit.

use std::{
    fs::{self, File},
    io,
    time::Duration,
};

use super::{
    NotKept, Shared, SpoolConfig, SpoolSync,
    folder::{Folder, segments},
    queue::Turn,
    segment::{AppendError, Mark, Segment},
};

/// The pause before a folder is tried again that could not be written to.
const PROBE_PAUSE: Duration = Duration::from_secs(1);
/// What must fit on the disk again before calls are given room.
const PROBE_BYTES: usize = 1024 * 1024;
const PROBE_FILE: &str = "probe";

/// See the module.
pub(super) struct Writer {
    /// None before the first record and after a segment was given up.
    segment: Option<Segment>,
    next_number: u64,
}

impl Writer {
    /// Goes on where a folder ends. Also says how many bytes are in it.
    pub(super) fn resume(folder: &Folder, config: &SpoolConfig) -> io::Result<(Self, u64)> {
        let numbers = segments(folder.path())?;
        let mut held_bytes = 0;
        for number in &numbers {
            held_bytes += fs::metadata(super::folder::segment_file(folder.path(), *number))?.len();
        }
        let Some(last) = numbers.last() else { return Ok((Self { segment: None, next_number: 1 }, 0)) };
        let (segment, cut) = Segment::resume(folder.path(), *last)?;
        if cut > 0 {
            tracing::warn!(bytes = cut, "the spool ended within a record, which is cut off");
        }
        let has_room = segment.end().bytes < config.segment_bytes_max;
        let writer = Self { segment: has_room.then_some(segment), next_number: last + 1 };
        Ok((writer, held_bytes - cut))
    }

    /// Where the next record goes.
    pub(super) fn end(&self) -> Mark {
        let fresh = Mark { segment: self.next_number, bytes: 0 };
        self.segment.as_ref().map_or(fresh, Segment::end)
    }

    /// Appends whole records, all or nothing.
    pub(super) fn append(&mut self, shared: &Shared, records: &[u8]) -> io::Result<()> {
        let bytes_max = shared.config.segment_bytes_max;
        let is_full = |s: &Segment| s.end().bytes > 0 && s.end().bytes + records.len() as u64 > bytes_max;
        if self.segment.as_ref().is_none_or(is_full) {
            let segment = Segment::create(shared.folder.path(), self.next_number)?;
            self.next_number += 1;
            if shared.config.sync == SpoolSync::Batch {
                // Its name must be on the disk as well.
                File::open(shared.folder.path())?.sync_all()?;
            }
            self.segment = Some(segment);
        }
        let segment = self.segment.as_mut().expect("one was just made");
        segment.append(records, shared.config.sync).map_err(|AppendError { source, is_lost }| {
            if is_lost {
                self.segment = None;
            }
            source
        })
    }
}

/// The thread: writes what calls have left until the queue is closed.
pub(super) fn run(shared: &Shared) {
    let mut records = Vec::new();
    loop {
        let patience = shared.queue.is_failing().then_some(PROBE_PAUSE);
        match shared.queue.turn(patience) {
            None => return,
            Some(Turn::Idle) => {
                if probe(&shared.folder).is_ok() {
                    tracing::info!("the spool can be written to again");
                    set_failing(shared, false);
                }
            }
            Some(Turn::Write(mut pen, batch)) => {
                records.clear();
                for pending in &batch {
                    records.extend_from_slice(&pending.record);
                }
                let written = pen.writer().append(shared, &records);
                // Before anybody is told: what they have been told of is flushed when they ask.
                drop(pen);
                let kept = note(shared, written, batch.len());
                for pending in batch {
                    if kept.is_ok() {
                        pending.allowance.spend(pending.record.len() as u64);
                    }
                    // A caller that has gone has its row all the same.
                    let _ = pending.kept.send(kept);
                }
            }
        }
    }
}

/// What an end of a write means for the calls in it.
pub(super) fn note(shared: &Shared, written: io::Result<()>, calls: usize) -> Result<(), NotKept> {
    written.map_err(|error| {
        tracing::error!(%error, calls, "tracked metrics could not be written");
        shared.metrics.failed_calls.inc_by(calls as u64);
        set_failing(shared, true);
        NotKept
    })
}

fn set_failing(shared: &Shared, is_failing: bool) {
    shared.queue.set_failing(is_failing);
    shared.metrics.is_failing.set(u64::from(is_failing));
}

/// Whether as much can be written as the next calls may bring.
fn probe(folder: &Folder) -> io::Result<()> {
    let path = folder.path().join(PROBE_FILE);
    let written = fs::write(&path, vec![0; PROBE_BYTES]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}
