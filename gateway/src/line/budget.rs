//! Bytes that all lines of a gateway may hold together.

use std::sync::Arc;

use crate::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes.
pub(crate) struct Budget {
    bytes_max: usize,
    taken: AtomicUsize,
}

/// Some of them. Dropping gives them back.
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: AtomicUsize::new(0) })
    }

    /// A share, if there is that much left.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let within = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        // Nothing is published under this count, so no ordering is needed but its own.
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Share { budget: Arc::clone(self), bytes })
    }

    /// A share whatever is left, for who had one before.
    pub(crate) fn take_anyway(self: &Arc<Self>, bytes: usize) -> Share {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: Arc::clone(self), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
