//! The spool: where tracked metrics are before their caller is answered. A gateway appends them to segment files of its
//! own, ships them to the control API when there is one, and deletes what is kept there.
//!
//! A call that may track asks for room before it is sent to a replica, so that an answer always has its place: room for
//! the largest record is set aside, and what the record leaves of it is given back. A spool without room, or whose disk
//! does not take what is written, gives none; calls of functions that track nothing do not ask.
//!
//! A call appends its record itself when nobody else writes: that is a copy into the kernel's memory, and costs less than
//! to hand it to another thread and be woken. Where it would wait, for another call, for a disk that is slow or for one
//! that every write must reach, it leaves its record to the writing thread and waits for the write it is in; the busier
//! the gateway, the more records share one. When a write fails, the calls in it are not answered with success: their
//! prediction has a UUID under which nothing could be found.

mod courier;
mod folder;
mod queue;
mod room;
mod segment;
mod shipment;
#[cfg(test)]
mod tests;
mod writer;

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle, time::Instant};

use millgate_contract::tracked::{RECORD_BYTES_MAX, TrackedPrediction};
use tokio::sync::oneshot;

pub(crate) use self::{courier::Courier, room::Allowance};
use self::{
    folder::Folder,
    queue::{Pen, Pending, Queue},
    room::Room,
    writer::Writer,
};
use crate::{metrics::SpoolMetrics, tracking::Tracking};

/// When what was written must have reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpoolSync {
    /// When the kernel sees fit: it survives the end of this process, however that comes, but not a power cut.
    #[default]
    Kernel,
    /// Before its callers are answered: it survives a power cut as well.
    Batch,
}

/// What an operator may set about a spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Where it is. Gateways that share it each have a folder of their own in it.
    pub folder: PathBuf,
    /// Bytes it may hold, at least [`SpoolConfig::BYTES_MIN`].
    pub bytes_max: u64,
    /// Bytes of one file, from which on the next one is begun.
    pub segment_bytes_max: u64,
    /// When what was written must have reached the disk.
    pub sync: SpoolSync,
}

impl SpoolConfig {
    /// The least that a spool may hold.
    pub const BYTES_MIN: u64 = 1024 * 1024;
    const BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
    const SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

    /// A gigabyte in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), ..Self::default() }
    }

    /// The same with another bound.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: u64) -> Self {
        // A full spool gets room back file by file, so there must be several.
        let segment_bytes_max = Self::SEGMENT_BYTES_MAX.min(bytes_max / 8);
        Self { bytes_max, segment_bytes_max, ..self }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("spool"),
            bytes_max: Self::BYTES_DEFAULT,
            segment_bytes_max: Self::SEGMENT_BYTES_MAX,
            sync: SpoolSync::default(),
        }
    }
}

/// The spool of one gateway. Cloning it is cheap and gives the same one; the last one dropped ends its thread.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    /// Dropped after the queue is closed.
    _thread: Arc<Thread>,
}

/// What calls, the writer and whoever ships have in common.
struct Shared {
    config: SpoolConfig,
    folder: Folder,
    queue: Queue,
    room: Arc<Room>,
    metrics: SpoolMetrics,
}

/// The call has no place for its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The metrics of a call could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metrics of a call could not be written")]
pub(crate) struct NotKept;

impl Spool {
    /// Opens the spool: takes a folder that no other gateway has and goes on where it ends. A record that was being
    /// written when its gateway was killed is cut off: its caller was not answered.
    pub fn open(config: SpoolConfig) -> io::Result<Self> {
        let folder = Folder::take(&config.folder)?;
        let metrics = SpoolMetrics::default();
        let (writer, held_bytes) = Writer::resume(&folder, &config)?;
        metrics.bytes_max.set(config.bytes_max);
        let room = Arc::new(Room::new(config.bytes_max, held_bytes, metrics.bytes.clone()));
        let shared = Arc::new(Shared { queue: Queue::new(writer), folder, room, metrics, config });
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || writer::run(&shared)
        })?;
        let thread = Thread { shared: Arc::clone(&shared), handle: Some(thread) };
        Ok(Self { shared, _thread: Arc::new(thread) })
    }

    pub(crate) fn metrics(&self) -> &SpoolMetrics {
        &self.shared.metrics
    }

    /// Room for the metrics of a call that is about to be sent, if it may track any.
    pub(crate) fn set_aside(&self, tracking: &Tracking) -> Result<Option<Allowance>, Full> {
        let allowance = match tracking.is_known() {
            Some(false) => return Ok(None),
            Some(true) => self.shared.room.set_aside(RECORD_BYTES_MAX as u64),
            None => self.shared.room.set_aside_for_unknown(RECORD_BYTES_MAX as u64),
        };
        let given = allowance.filter(|_| !self.shared.queue.is_failing());
        if given.is_none() {
            self.shared.metrics.refused_calls.inc();
        }
        given.map(Some).ok_or(Full)
    }

    /// Resolves when the prediction is on the spool. Without an allowance, of a call whose model began to track while it
    /// was on its way, it is kept beyond the bound.
    pub(crate) async fn keep(
        &self,
        prediction: &TrackedPrediction<'_>,
        allowance: Option<Allowance>,
    ) -> Result<(), NotKept> {
        let mut record = Vec::with_capacity(prediction.metrics.len() + 256);
        if !prediction.encode(&mut record) {
            return Err(NotKept);
        }
        let allowance = allowance.unwrap_or_else(|| self.shared.room.beyond(record.len() as u64));
        if self.shared.config.sync == SpoolSync::Kernel
            && let Some(pen) = self.shared.queue.pen(Instant::now())
        {
            return self.write(pen, &record, allowance);
        }
        let (kept, is_kept) = oneshot::channel();
        self.shared.queue.push(Pending { record, allowance, kept });
        is_kept.await.unwrap_or(Err(NotKept))
    }

    fn write(&self, mut pen: Pen<'_>, record: &[u8], allowance: Allowance) -> Result<(), NotKept> {
        let written = pen.writer().append(&self.shared, record);
        drop(pen);
        writer::note(&self.shared, written, 1)?;
        allowance.spend(record.len() as u64);
        Ok(())
    }
}

/// The writing thread, joined when the last [`Spool`] is dropped: what is in the queue is written first.
struct Thread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(handle) = self.handle.take() {
            // A panic's words are in the log already.
            let _ = handle.join();
        }
    }
}
