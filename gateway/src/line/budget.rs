//! Bytes that all lines of a gateway may hold together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_by_its_drop() {
        let budget = Budget::new(10);
        let one = budget.take(6).unwrap();
        assert!(budget.take(5).is_none());
        let two = budget.take_anyway(5);
        drop(one);
        let three = budget.take(5).unwrap();
        assert!(budget.take(1).is_none());
        drop((two, three));
        assert!(budget.take(10).is_some());
        assert!(budget.take(usize::MAX).is_none());
    }
}
