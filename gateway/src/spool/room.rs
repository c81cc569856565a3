//! Bytes of a spool: on disk, and set aside for calls that are on their way. What is set aside is never more than is
//! left, so that an answered call always finds its place.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::metrics::gauge::Gauge;

/// Bytes beyond the bound for calls of which it is not known whether they track. Without them nothing could become
/// known while the spool is full, and models that track nothing would be refused with the others.
const UNKNOWN_BYTES: u64 = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    bytes_max: u64,
    /// On disk and set aside.
    taken: AtomicU64,
    /// On disk, for operators.
    held: Gauge<u64, AtomicU64>,
}

/// Room for one record. Dropping it gives the room back.
#[derive(Debug)]
pub(crate) struct Allowance {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    pub(super) fn new(bytes_max: u64, held_bytes: u64, held: Gauge<u64, AtomicU64>) -> Self {
        held.set(held_bytes);
        Self { bytes_max, taken: AtomicU64::new(held_bytes), held }
    }

    /// Sets room aside within the bound.
    pub(super) fn set_aside(self: &Arc<Self>, bytes: u64) -> Option<Allowance> {
        self.set_aside_within(bytes, self.bytes_max)
    }

    /// Sets room aside within the bound and what is beyond it for calls that may turn out not to need any.
    pub(super) fn set_aside_for_unknown(self: &Arc<Self>, bytes: u64) -> Option<Allowance> {
        self.set_aside_within(bytes, self.bytes_max + UNKNOWN_BYTES)
    }

    /// Sets room aside, bound or not.
    pub(super) fn beyond(self: &Arc<Self>, bytes: u64) -> Allowance {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Allowance { room: Arc::clone(self), bytes }
    }

    fn set_aside_within(self: &Arc<Self>, bytes: u64, bound: u64) -> Option<Allowance> {
        let take = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= bound);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Allowance { room: Arc::clone(self), bytes })
    }

    /// A file of so many bytes is deleted.
    pub(super) fn release(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.held.dec_by(bytes);
    }
}

impl Allowance {
    /// So many bytes of it are on disk now; the rest is given back.
    pub(super) fn spend(mut self, bytes: u64) {
        self.room.held.inc_by(bytes);
        // No record is larger than what was set aside for it.
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_on_disk_and_set_aside_never_exceeds_the_bound(steps in proptest::collection::vec((0_u8..4, 1_u64..100), 1..200)) {
            let room = Arc::new(Room::new(300, 0, Gauge::default()));
            let mut aside: Vec<Allowance> = Vec::new();
            let mut held = 0;
            for (step, bytes) in steps {
                match step {
                    0 => aside.extend(room.set_aside(bytes)),
                    1 => drop(aside.pop()),
                    2 => if let Some(allowance) = aside.pop() {
                        let spent = bytes.min(allowance.bytes);
                        allowance.spend(spent);
                        held += spent;
                    },
                    _ => {
                        let released = bytes.min(held);
                        room.release(released);
                        held -= released;
                    }
                }
                let set_aside: u64 = aside.iter().map(|a| a.bytes).sum();
                prop_assert_eq!(room.taken.load(Ordering::Relaxed), held + set_aside);
                prop_assert_eq!(room.held.get(), held);
                prop_assert!(held + set_aside <= 300);
            }
        }
    }

    #[test]
    fn calls_of_which_nothing_is_known_have_room_beyond_the_bound() {
        let room = Arc::new(Room::new(100, 100, Gauge::default()));
        assert!(room.set_aside(1).is_none());
        let unknown = room.set_aside_for_unknown(UNKNOWN_BYTES).unwrap();
        assert!(room.set_aside_for_unknown(1).is_none());
        drop(unknown);
        assert!(room.set_aside_for_unknown(1).is_some());
    }
}
