//! Ids of traces and spans: random enough to be nobody else's, and no more, so that they cost no system call.

use std::sync::atomic::{AtomicU64, Ordering};

/// The odd number by which SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014) goes on.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A source of ids.
pub(super) struct Ids {
    state: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        let (seed, _) = uuid::Uuid::new_v4().as_u64_pair();
        Self { state: AtomicU64::new(seed) }
    }

    /// Any number.
    fn random(&self) -> u64 {
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to 1, and never 1.
    pub(super) fn share(&self) -> f64 {
        // As many bits as a double holds.
        (self.random() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An id of a trace: not all zeroes, which would be none.
    pub(super) fn trace(&self) -> [u8; 16] {
        (u128::from(self.random()) << 64 | u128::from(self.random()) | 1).to_be_bytes()
    }

    /// An id of a span.
    pub(super) fn span(&self) -> [u8; 8] {
        (self.random() | 1).to_be_bytes()
    }
}
