//! What the line locks and counts with. A name of its own, so that a test can compile the line with loom's in their place
//! (`tests/interleavings.rs`).

pub(crate) use std::sync::{Mutex, MutexGuard, atomic};
