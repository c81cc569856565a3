//! Calls that are sent to a replica ahead of their turn: how many may be, and which are.
//!
//! A function that takes microseconds is answered before its gateway has looked again, and its replica sleeps and is woken
//! for each call: more work than the call itself. So whoever holds a link writes the oldest calls of the line behind its
//! own, as many as are expected to be over within [`AHEAD_US_MAX`]. They run in their order, and each is handed the link
//! when the one before it has ended. When that takes far longer than expected, they are recalled (the contract's `frame`).
//! With 64 callers of an `add` it takes a third off the processor time of a call: 66 µs without, 38 with, in turns
//! (`make bench-compare`, cases `add64` and `add8`, with a commit from before this file as the base).

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

/// What calls of one deployment cost its replicas: four of five take less. A mean would be all of the few that the kernel
/// interrupted.
#[derive(Debug)]
pub(super) struct Pace(AtomicU32);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU32::new(UNKNOWN_US))
    }
}

impl Pace {
    /// A call has ended. An update that another one overtakes is lost, which does not matter.
    pub(super) fn learn(&self, cost: &Timings) {
        let us = cost.decode_us.saturating_add(cost.run_us).saturating_add(cost.encode_us);
        let now = self.0.load(Ordering::Relaxed);
        // Up four times as far as down: they balance where one of five is above.
        let next = if us > now { now.saturating_add(now / 8 + 1) } else { now - now / 32 };
        self.0.store(next, Ordering::Relaxed);
    }

    /// What was sent ahead had to come back, or would have.
    pub(super) fn forget(&self) {
        self.0.fetch_max(UNKNOWN_US, Ordering::Relaxed);
    }

    /// How many calls may lie before a replica.
    pub(super) fn calls(&self) -> usize {
        let calls = AHEAD_US_MAX / self.0.load(Ordering::Relaxed).max(1);
        (calls as usize).min(AHEAD_CALLS_MAX)
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
