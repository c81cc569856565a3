//! Whether the calls of a deployment track metrics: not known before its first answer, and from then on for good, since
//! a build is always the same function.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// What is known of one deployment.
#[derive(Debug, Default)]
pub(crate) struct Tracking(AtomicU8);

impl Tracking {
    /// Whether its calls track, once that is known.
    pub(crate) fn is_known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            answer => Some(answer == YES),
        }
    }

    /// A replica has answered.
    pub(crate) fn learn(&self, tracks: bool) {
        let answer = if tracks { YES } else { NO };
        // A cache line that all calls share is written only when there is news.
        if self.0.load(Ordering::Relaxed) != answer {
            self.0.store(answer, Ordering::Relaxed);
        }
    }
}
