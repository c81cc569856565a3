//! For how long the main thread looks for its next call awake, before it sleeps.
//!
//! The gateway says how long it may: only a gateway knows whether there are processors to spare. The replica adds what
//! only it knows: that its caller is one who calls again soon, by the last time.

use std::time::{Duration, Instant};

use millgate_contract::limits::BUSY_POLL_US_MAX;

/// A caller who took longer last time is not looked for. Where the call before had ended in sleep, waking is in it.
const SOON: Duration = Duration::from_micros(300);

/// What is known of the next call.
pub(crate) struct BusyPoll {
    allowed: Duration,
    answered: Instant,
    gap: Duration,
}

impl BusyPoll {
    pub(crate) fn new() -> Self {
        Self { allowed: Duration::ZERO, answered: Instant::now(), gap: Duration::MAX }
    }

    /// A call has come, with its leave.
    pub(crate) fn called(&mut self, busy_poll_us: u16) {
        self.gap = self.answered.elapsed();
        self.allowed = Duration::from_micros(busy_poll_us.min(BUSY_POLL_US_MAX).into());
    }

    /// It has been answered.
    pub(crate) fn answered(&mut self) {
        self.answered = Instant::now();
    }

    /// Until when to look, from now on; then it is no use any more.
    pub(crate) fn until(&mut self) -> Option<Instant> {
        let allowed = std::mem::take(&mut self.allowed);
        (allowed > Duration::ZERO && self.gap < SOON).then(|| self.answered + allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_calls_again_soon_is_looked_for_once_for_as_long_as_the_gateway_says() {
        let mut poll = BusyPoll::new();
        assert_eq!(poll.until(), None);
        poll.answered();
        poll.called(u16::MAX);
        poll.gap = Duration::from_micros(10);
        poll.answered();
        assert_eq!(poll.until(), Some(poll.answered + Duration::from_millis(1)), "bounded by the limit");
        assert_eq!(poll.until(), None, "once for each call");
        poll.called(100);
        poll.gap = SOON;
        poll.answered();
        assert_eq!(poll.until(), None, "it comes too late");
        poll.called(0);
        poll.gap = Duration::ZERO;
        assert_eq!(poll.until(), None, "there is no processor to spare");
    }
}
