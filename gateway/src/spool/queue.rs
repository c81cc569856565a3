//! Records on their way to the writing thread. Calls push and go on waiting elsewhere; the lock is held for the push of a
//! pointer, and the thread is only woken when it sleeps.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{NotKept, room::Allowance, segment::Mark};

/// Bytes that one write takes from the queue, and one record more.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

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
    pending: VecDeque<Pending>,
    is_asleep: bool,
    is_closed: bool,
    /// The last write failed.
    is_failing: bool,
    /// How far the files are written: all before it is whole.
    written: Mark,
}

impl Queue {
    pub(super) fn new(written: Mark) -> Self {
        let state = State {
            pending: VecDeque::new(),
            is_asleep: false,
            is_closed: false,
            is_failing: false,
            written,
        };
        Self { state: Mutex::new(state), work: Condvar::new() }
    }

    pub(super) fn push(&self, pending: Pending) {
        let mut state = self.state();
        state.pending.push_back(pending);
        if std::mem::take(&mut state.is_asleep) {
            self.work.notify_one();
        }
    }

    /// What is to be written next; nothing when so much time has passed without any, `None` at the end.
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<Vec<Pending>> {
        let mut state = self.state();
        while state.pending.is_empty() {
            if state.is_closed {
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
                        return Some(Vec::new());
                    }
                }
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
        Some(state.pending.drain(..count).collect())
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
        self.state().is_failing = is_failing;
    }

    pub(super) fn written(&self) -> Mark {
        self.state().written
    }

    pub(super) fn set_written(&self, written: Mark) {
        self.state().written = written;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
