//! How long a body that is not a call's may take: a time without a byte, and a rate on the average. Calls have clocks of
//! their own, over the whole body.
//!
//! On HTTP/1 the gate keeps this clock, since it sees the bytes. On HTTP/2 the streams of a connection are told apart
//! only behind `h2`, so that there the body itself keeps it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use super::{Fault, clock::Clock};
use crate::{caller_address::CallerAddress, http::BoxError};

/// What a body is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Without a byte.
    pub(crate) idle_max: Duration,
    /// What it must bring on the average, after the same time.
    pub(crate) bytes_per_s_min: u64,
}

/// How long a caller let us wait for a body. Time in which nobody wants to read it is not the caller's.
#[derive(Debug, Default)]
pub(super) struct BodyClock {
    waiting_since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl BodyClock {
    pub(super) fn arrived(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    /// Until when the next byte must be there, which is waited for from now on.
    pub(super) fn deadline(&mut self, limits: BodyLimits) -> Instant {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.bytes / limits.bytes_per_s_min.max(1));
        let left = (limits.idle_max + earned).saturating_sub(self.waited);
        since + left.min(limits.idle_max)
    }
}

/// The body of a request, for whoever answers what is not a call.
pub struct CallerBody {
    body: Incoming,
    caller: CallerAddress,
    /// Where nobody else keeps it.
    late: Option<Lateness>,
}

struct Lateness {
    limits: BodyLimits,
    body: BodyClock,
    clock: Clock,
}

impl CallerBody {
    pub(crate) fn new(body: Incoming, caller: CallerAddress, limits: Option<BodyLimits>) -> Self {
        let late =
            limits.map(|limits| Lateness { limits, body: BodyClock::default(), clock: Clock::default() });
        Self { body, caller, late }
    }

    /// Where its request comes from. It is told here, and not as an extension of the request, because a request's first
    /// extension costs three allocations.
    pub(crate) fn caller(&self) -> CallerAddress {
        self.caller
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            if let (Some(late), Some(Ok(frame))) = (&mut this.late, &next) {
                late.body.arrived(frame.data_ref().map_or(0, Bytes::len));
            }
            return Poll::Ready(next.map(|frame| frame.map_err(Into::into)));
        }
        let Some(late) = &mut this.late else { return Poll::Pending };
        let deadline = late.body.deadline(late.limits);
        ready!(late.clock.poll(cx, deadline));
        Poll::Ready(Some(Err(Fault::Slow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits { idle_max: Duration::from_secs(30), bytes_per_s_min: 1_000 };

    /// After how many pieces, one a second and of so many bytes, the caller is late; none if it is not in an hour.
    async fn late_after(bytes: usize) -> Option<u64> {
        let mut body = BodyClock::default();
        for second in 0..3_600 {
            if body.deadline(LIMITS) <= Instant::now() {
                return Some(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            body.arrived(bytes);
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_late_soon_and_what_comes_at_the_least_rate_never() {
        assert_eq!(late_after(1).await, Some(30));
        // Whole seconds are earned.
        assert_eq!(late_after(500).await, Some(59));
        assert_eq!(late_after(1_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_is_not_the_caller_s() {
        let mut body = BodyClock::default();
        body.arrived(1);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(body.deadline(LIMITS), Instant::now() + LIMITS.idle_max);
    }
}
