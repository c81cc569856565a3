//! Who writes, and what waits to be written. There is one [`Pen`]: a call that finds it free writes its own record, others
//! leave theirs here for the writing thread. The lock is held for the push of a pointer, never for a write.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{NotKept, room::Allowance, segment::Mark, writer::Writer};

/// Bytes that one write takes from the queue, and one record more.
const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// A write into the kernel's memory takes 2 µs, and a thread that is not let run in the middle of one some
/// milliseconds; what takes longer waits for the disk.
const SWIFT_MAX: Duration = Duration::from_millis(5);
/// After a write that was slow, calls leave theirs to the thread for so many times as long: they wait for a disk a
/// small part of the time, however slow it is.
const LEFT_TO_THREAD: u32 = 20;

/// One record and who waits for it.
pub(super) struct Pending {
    pub(super) record: Vec<u8>,
    pub(super) allowance: Allowance,
    pub(super) kept: oneshot::Sender<Result<(), NotKept>>,
}

/// See the module.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    /// Elsewhere while somebody writes.
    writer: Option<Writer>,
    pending: VecDeque<Pending>,
    is_asleep: bool,
    is_closed: bool,
    /// The last write failed.
    is_failing: bool,
    /// Calls leave what they have to the thread until then.
    calls_write_from: Option<Instant>,
    /// How far the files are written: all before it is whole.
    written: Mark,
}

/// The right to write. It is given back by dropping it, and what was written is known from then on.
pub(super) struct Pen<'a> {
    queue: &'a Queue,
    /// There until the drop.
    writer: Option<Writer>,
    /// Since when a call has it.
    of_call_since: Option<Instant>,
}

/// What the writing thread is to do next.
pub(super) enum Turn<'a> {
    Write(Pen<'a>, Vec<Pending>),
    /// Nothing came in the time given.
    Idle,
}

impl Queue {
    pub(super) fn new(writer: Writer) -> Self {
        let state = State {
            written: writer.end(),
            writer: Some(writer),
            pending: VecDeque::new(),
            is_asleep: false,
            is_closed: false,
            is_failing: false,
            calls_write_from: None,
        };
        Self { state: Mutex::new(state), work: Condvar::new() }
    }

    /// The pen for a call, unless somebody has it, others wait for it, or writing is slow or fails just now.
    pub(super) fn pen(&self, now: Instant) -> Option<Pen<'_>> {
        let mut state = self.state();
        let is_slow = state.calls_write_from.is_some_and(|from| now < from);
        if is_slow || state.is_failing || !state.pending.is_empty() {
            return None;
        }
        state.calls_write_from = None;
        let writer = state.writer.take()?;
        Some(Pen { queue: self, writer: Some(writer), of_call_since: Some(now) })
    }

    /// Leaves a record to the thread.
    pub(super) fn push(&self, pending: Pending) {
        let mut state = self.state();
        state.pending.push_back(pending);
        // Else whoever has the pen does so when it is given back.
        if state.writer.is_some() {
            self.wake(&mut state);
        }
    }

    /// Waits for what is to be written next, so long at most; `None` at the end.
    pub(super) fn turn(&self, patience: Option<Duration>) -> Option<Turn<'_>> {
        let mut state = self.state();
        while state.pending.is_empty() || state.writer.is_none() {
            if state.is_closed && state.pending.is_empty() {
                return None;
            }
            state.is_asleep = true;
            match patience {
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (back, waited) =
                        self.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    state = back;
                    if waited.timed_out() && state.pending.is_empty() {
                        return Some(Turn::Idle);
                    }
                }
            }
            if patience.is_none() && state.is_failing {
                // A call's own write has failed: from now on we look whether one succeeds.
                return Some(Turn::Idle);
            }
        }
        state.is_asleep = false;
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            let begins_within = bytes < WRITE_BYTES_MAX;
            bytes += pending.record.len();
            begins_within
        };
        let count = state.pending.iter().take_while(fits).count();
        let batch = state.pending.drain(..count).collect();
        let pen = Pen { queue: self, writer: state.writer.take(), of_call_since: None };
        Some(Turn::Write(pen, batch))
    }

    /// The thread ends when the queue is empty.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_one();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.state().is_failing
    }

    pub(super) fn set_failing(&self, is_failing: bool) {
        let mut state = self.state();
        state.is_failing = is_failing;
        self.wake(&mut state);
    }

    pub(super) fn written(&self) -> Mark {
        self.state().written
    }

    /// The thread is only woken when it sleeps.
    fn wake(&self, state: &mut State) {
        if std::mem::take(&mut state.is_asleep) {
            self.work.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pen<'_> {
    pub(super) fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("it is there until the drop")
    }
}

impl Drop for Pen<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.written = self.writer().end();
        state.writer = self.writer.take();
        if let Some(took) = self.of_call_since.map(|since| since.elapsed()).filter(|took| *took > SWIFT_MAX) {
            state.calls_write_from = Some(Instant::now() + took * LEFT_TO_THREAD);
        }
        if !state.pending.is_empty() {
            self.queue.wake(&mut state);
        }
    }
}
