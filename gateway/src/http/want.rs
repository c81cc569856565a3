//! What is logged while nothing can be accepted, for want of descriptors or memory: how it begins, once in a while that it
//! goes on, and how it ends. The accept loop tries many times a second, and a log that fills its disk is a second fault.

use std::{io, time::Duration};

use tokio::time::Instant;

/// How often it is said again.
const PERIOD: Duration = Duration::from_secs(10);

/// A want, while there is one.
#[derive(Debug, Default)]
pub(super) struct Want {
    said: Option<Instant>,
    failures: u64,
}

impl Want {
    /// Another try has failed.
    pub(super) fn goes_on(&mut self, error: &io::Error, now: Instant) {
        self.failures += 1;
        if self.is_to_be_said(now) {
            tracing::error!(%error, failures = self.failures, "no connection can be accepted");
        }
    }

    fn is_to_be_said(&mut self, now: Instant) -> bool {
        let is_due = self.said.is_none_or(|said| now - said >= PERIOD);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }

    /// A try has succeeded.
    pub(super) fn ends(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "connections can be accepted again");
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_is_said_when_it_begins_and_once_in_each_period_and_counted_until_it_ends() {
        let begin = Instant::now();
        let mut want = Want::default();
        let tries = (0..500).map(|tick| begin + Duration::from_millis(50) * tick);
        let said = tries.filter(|now| want.is_to_be_said(*now)).count();
        assert_eq!(said, 3, "at 0, 10 and 20 s of 25");

        let descriptors = io::Error::from_raw_os_error(24);
        for _ in 0..3 {
            want.goes_on(&descriptors, begin + Duration::from_secs(26));
        }
        assert_eq!(want.failures, 3);
        want.ends();
        assert!(
            want.failures == 0 && want.is_to_be_said(begin + Duration::from_secs(27)),
            "the next want is new"
        );
    }
}
