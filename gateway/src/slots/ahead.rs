//! Calls that are sent to a replica ahead of their turn: how many may be, and which are.
//!
//! A function that takes microseconds is answered before its gateway has looked again, and its replica sleeps and is woken
//! for each call: more work than the call itself. So whoever holds a link writes the oldest calls of the line behind its
//! own, as many as are expected to be over within [`AHEAD_US_MAX`]. They run in their order, and each is handed the link
//! when the one before it has ended. When that takes far longer than expected, they are recalled (the contract's `frame`).
//! With 64 callers of an `add` it takes a third off the processor time of a call: 66 µs without, 38 with, in turns
//! (`make bench-compare`, cases `add64` and `add8`, with a commit from before this file as the base).
//!
//! Calls that take longer, but always about as long, have one sent behind them shortly before they should end, while more wait
//! than there are other replicas to take them. 16 callers of four replicas that sleep for 10 ms have 393 answers a second so, of the
//! 400 that there could be, and 378 without; 381 and 386 when it is sent 500 and 1,000 µs before the end (in turns).

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use millgate_contract::{
    frame::{self, Timings},
    ids::CallId,
    limits::AHEAD_CALLS_MAX,
};

use crate::call::Terms;

/// Work that may lie before a replica. A call behind it waits at most so much longer than the line would have had it wait.
/// With 64 callers of a scikit-learn model of 180 µs, 500 answer 1.6 times as many calls as 250, with which nothing fits; 1,000
/// answer no more.
const AHEAD_US_MAX: u32 = 500;
/// Bytes of the body of a call that may be sent ahead. All of them find room in the socket, so that nobody waits for it.
pub(crate) const AHEAD_BODY_BYTES_MAX: usize = 8 * 1024;
/// How long the call before them may take until those that were sent ahead are wanted back.
pub(crate) const RECALL_AFTER: Duration = Duration::from_millis(5);
/// What a call is taken to cost before anything is known, and after a recall.
const UNKNOWN_US: u32 = 1_000;

/// How long before its expected end a longer call has the next one sent behind it. Timers are a millisecond late.
const NEAR_END_US: u32 = 2_000;
/// Calls of which it is learnt how long calls take, before that is relied on.
const KNOWN_CALLS_MIN: u32 = 128;
/// And after it turned out wrong.
const DOUBT_CALLS: u32 = 32;

/// What calls of one deployment cost its replicas. An update that another one overtakes is lost, which does not matter.
#[derive(Debug)]
pub(super) struct Pace {
    /// Four of five take less. A mean would be all of the few that the kernel interrupted.
    most_us: AtomicU32,
    /// Four of five take more.
    least_us: AtomicU32,
    /// Calls that this was learnt of.
    known: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { most_us: AtomicU32::new(UNKNOWN_US), least_us: AtomicU32::new(0), known: AtomicU32::new(0) }
    }
}

impl Pace {
    /// A call has ended.
    pub(super) fn learn(&self, cost: &Timings) {
        let us = cost.decode_us.saturating_add(cost.run_us).saturating_add(cost.encode_us);
        // Four times as far to the side of the one as to that of the four: they balance there.
        let most = self.most_us.load(Ordering::Relaxed);
        let next = if us > most { most.saturating_add(most / 8 + 1) } else { most - most / 32 };
        self.most_us.store(next, Ordering::Relaxed);
        let (least, known) = (self.least_us.load(Ordering::Relaxed), self.known.load(Ordering::Relaxed));
        let next = match known {
            0 => us / 2,
            _ if us < least => least - least / 32,
            _ => least.saturating_add(least / 128 + 1),
        };
        self.least_us.store(next, Ordering::Relaxed);
        self.known.store(known.saturating_add(1), Ordering::Relaxed);
    }

    /// What was sent ahead is wanted back: the call before it took far longer than calls do.
    pub(super) fn doubt(&self) {
        self.most_us.fetch_max(UNKNOWN_US, Ordering::Relaxed);
        self.known.fetch_min(KNOWN_CALLS_MIN - DOUBT_CALLS, Ordering::Relaxed);
    }

    /// What was sent ahead had to come back, or would have.
    pub(super) fn forget(&self) {
        self.most_us.fetch_max(UNKNOWN_US, Ordering::Relaxed);
        self.known.store(0, Ordering::Relaxed);
    }

    /// How many calls may lie before a replica, whenever one begins.
    pub(super) fn calls(&self) -> usize {
        let calls = AHEAD_US_MAX / self.most_us.load(Ordering::Relaxed).max(1);
        (calls as usize).min(AHEAD_CALLS_MAX)
    }

    /// When a call should be about to end, after it has begun; none if they do not take about as long.
    pub(super) fn near_end(&self) -> Option<Duration> {
        let (least, most) = (self.least_us.load(Ordering::Relaxed), self.most_us.load(Ordering::Relaxed));
        let is_steady = least >= most - most / 4 && self.known.load(Ordering::Relaxed) >= KNOWN_CALLS_MIN;
        is_steady.then(|| Duration::from_micros(least.saturating_sub(NEAR_END_US).into()))
    }
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    /// Of its place in line.
    number: u64,
    id: CallId,
}

/// Those of one link, in the order in which they run.
#[derive(Default)]
pub(crate) struct Ahead {
    calls: VecDeque<Sent>,
    /// Written to the link next, by whoever holds it.
    pub(super) unwritten: BytesMut,
    /// On which they run: those of whoever sent the last of them, which is of the same model.
    terms: Option<Terms>,
    /// The last one that was wanted back.
    recalled: Option<CallId>,
}

impl Ahead {
    /// None lies before the replica.
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Adds a call, with its frame.
    pub(super) fn add(&mut self, number: u64, id: CallId, mut frame: BytesMut) {
        frame::number(&mut frame, id);
        self.unwritten.extend_from_slice(&frame);
        self.calls.push_back(Sent { number, id });
    }

    pub(super) fn set_terms(&mut self, terms: &Terms) {
        self.terms = Some(terms.clone());
    }

    pub(crate) fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }

    /// The place in line of the next one.
    pub(crate) fn next_number(&self) -> Option<u64> {
        self.calls.front().map(|sent| sent.number)
    }

    /// The next one begins for its caller.
    pub(crate) fn begin(&mut self) -> Option<CallId> {
        self.calls.pop_front().map(|sent| sent.id)
    }

    /// One that the replica has refused, out of its turn: its place in line.
    pub(crate) fn refused(&mut self, id: CallId) -> Option<u64> {
        let at = self.calls.iter().position(|sent| sent.id == id)?;
        self.calls.remove(at).map(|sent| sent.number)
    }

    /// There is one that is not recalled yet.
    pub(crate) fn may_recall(&self) -> bool {
        self.calls.back().is_some_and(|last| self.recalled < Some(last.id))
    }

    /// Notes that all are wanted back: the last one, if that is not noted yet.
    pub(crate) fn take_back(&mut self) -> Option<CallId> {
        let last = self.calls.back()?.id;
        (self.recalled < Some(last)).then(|| *self.recalled.insert(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(pace: &Pace, us: impl IntoIterator<Item = u32>) {
        for run_us in us {
            pace.learn(&Timings { run_us, ..Timings::default() });
        }
    }

    #[test]
    fn of_short_calls_as_many_are_sent_as_are_soon_over() {
        let pace = Pace::default();
        assert_eq!((pace.calls(), pace.near_end()), (0, None), "nothing is known");
        learn(&pace, [100; 200]);
        assert!((4..=5).contains(&pace.calls()), "{}", pace.calls());
        learn(&pace, [5; 200]);
        assert_eq!(pace.calls(), AHEAD_CALLS_MAX);
        pace.forget();
        assert_eq!(pace.calls(), 0);
    }

    #[test]
    fn a_longer_call_that_takes_as_long_as_the_others_is_known_to_be_near_its_end() {
        let pace = Pace::default();
        // As sleeps are: a little late, and now and then much.
        learn(&pace, (0..1_000).map(|n| if n % 50 == 0 { 14_000 } else { 10_000 + n % 7 * 50 }));
        assert_eq!(pace.calls(), 0);
        let near_end = pace.near_end().expect("they take about as long");
        assert!((7_400..8_300).contains(&near_end.as_micros()), "{near_end:?}");
        pace.doubt();
        learn(&pace, [10_000; 31]);
        assert_eq!(pace.near_end(), None, "one of them took longer");
        learn(&pace, [10_000]);
        assert!(pace.near_end().is_some());
        pace.forget();
        learn(&pace, [10_000; 127]);
        assert_eq!(pace.near_end(), None, "not before it is known again");
        learn(&pace, [10_000]);
        assert!(pace.near_end().is_some());
    }

    #[test]
    fn of_calls_that_take_now_this_long_and_now_that_no_end_is_known() {
        let pace = Pace::default();
        for n in 0..1_000 {
            learn(&pace, [if n % 2 == 0 { 5_000 } else { 10_000 }]);
            assert_eq!(pace.near_end(), None, "after {n}");
        }
    }
}
