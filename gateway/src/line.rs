//! The line of one model: idle replicas on one side, waiting calls on the other, never both.
//!
//! Invariants, all under one lock that is never held across an await:
//! - nothing is idle while somebody waits; a freed replica goes to the oldest call;
//! - a place belongs to a [`Ticket`], numbered at arrival: a call that must wait again (its replica turned out not to
//!   have started it) gets its old place back;
//! - a replica granted to a call that vanished in the same instant goes to the next: the grant stays in the line until
//!   the call takes it, and [`Standing`]'s drop gives it on;
//! - a replica that is kept for this gateway, others waiting for it (`Grant`), is given to a call or declined at once.
//!
//! Who holds a replica may send it the oldest calls *ahead* (`ahead.rs` of the slots says when). Such a call still stands here,
//! promised to that one replica: it is handed the replica when those before it have ended ([`Line::hand`]), or is given
//! back ([`Line::give_back`]) and then waits as before, to be sent ahead no second time. A caller that vanishes leaves the
//! promise without its other side, which whoever holds the replica learns when it is to be kept ([`Place::orphaned`]).
//!
//! Its tests are the crate's `line_tests`, and not here, because `tests/interleavings.rs` compiles this module with loom's
//! locks, which work nowhere else.
//!
//! The line does not know time: whoever waits bounds it. Bytes of waiting bodies are bounded per line, and by a
//! [`Budget`] over all lines of a gateway.

mod budget;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

pub(crate) use budget::Budget;
use budget::Share;

use crate::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// What a line hands out.
pub(crate) trait Place {
    /// It must not be handed out any more. Asked under the line's lock, so that setting it and then calling
    /// [`Line::take_idle`] leaves none behind.
    fn is_retired(&self) -> bool;

    /// It is being kept for whoever waits here, at somebody else's cost: it must not lie idle so. Asked under the lock.
    fn is_kept(&self) -> bool;

    /// Nobody waits here: it need not be kept. Not said under the lock.
    fn decline(&mut self);

    /// What of a call can be sent to it ahead.
    type Cargo;

    /// The call to which it has been handed was sent ahead, and has lost its caller since. Not said under the lock.
    fn orphaned(self);
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineLimits {
    pub(crate) calls_max: usize,
    pub(crate) bytes_max: usize,
}

/// A call's place in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    number: u64,
    /// It stood in line before; limits do not turn it away a second time.
    has_stood: bool,
}

impl Ticket {
    /// The same place, for a call that has to wait again.
    pub(crate) fn again(self) -> Self {
        Self { has_stood: true, ..self }
    }
}

/// What there is in a line at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Census {
    /// Calls that wait.
    pub(crate) calls: usize,
    /// Bytes of their bodies.
    pub(crate) bytes: usize,
    /// Replicas that nobody has leased.
    pub(crate) idle: usize,
}

/// Why a call that wanted a replica gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The line is full.
    Full,
    /// Everyone was sent away: the model has no replicas any more.
    Dismissed,
}

/// A line.
pub(crate) struct Line<P: Place> {
    limits: LineLimits,
    budget: Arc<Budget>,
    tickets: AtomicU64,
    state: Mutex<State<P>>,
}

struct State<P: Place> {
    /// Last in, first out: the replica that ran last has the warmest caches.
    idle: Vec<P>,
    waiting: BTreeMap<u64, Waiter<P::Cargo>>,
    /// Of the calls that wait and of those that were sent ahead.
    waiting_bytes: usize,
    /// Sent ahead, and not begun as far as is known.
    sent: BTreeMap<u64, Waiter<P::Cargo>>,
    granted: Vec<Granted<P>>,
    /// The model has nothing that could serve: nobody is let in.
    is_closed: bool,
}

struct Granted<P> {
    number: u64,
    place: P,
    /// The call has been sent to it already.
    is_sent: bool,
}

struct Waiter<C> {
    waker: Option<Waker>,
    body_bytes: usize,
    /// There as long as it may be sent ahead.
    cargo: Option<C>,
    /// Of the gateway's budget; given back with the place.
    _share: Share,
}

impl<P: Place> Line<P> {
    pub(crate) fn new(limits: LineLimits, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            budget,
            tickets: AtomicU64::new(0),
            state: Mutex::new(State {
                idle: Vec::new(),
                waiting: BTreeMap::new(),
                waiting_bytes: 0,
                sent: BTreeMap::new(),
                granted: Vec::new(),
                is_closed: false,
            }),
        })
    }

    /// A place at the end.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket { number: self.tickets.fetch_add(1, Ordering::Relaxed), has_stood: false }
    }

    /// A replica at once, or a place in line. `cargo` is asked for what of the call may be sent ahead, if it has to wait.
    pub(crate) fn lease(
        self: &Arc<Self>,
        ticket: Ticket,
        body_bytes: usize,
        cargo: impl FnOnce() -> Option<P::Cargo>,
    ) -> Result<Lease<P>, Turned> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Turned::Dismissed);
        }
        if let Some(place) = state.idle.pop() {
            return Ok(Lease::Now(place));
        }
        let share = if ticket.has_stood {
            self.budget.take_anyway(body_bytes)
        } else {
            let is_full = state.waiting.len() + state.sent.len() >= self.limits.calls_max
                || state.waiting_bytes.saturating_add(body_bytes) > self.limits.bytes_max;
            let share = if is_full { None } else { self.budget.take(body_bytes) };
            share.ok_or(Turned::Full)?
        };
        state.waiting_bytes += body_bytes;
        let cargo = if ticket.has_stood { None } else { cargo() };
        state.waiting.insert(ticket.number, Waiter { waker: None, body_bytes, cargo, _share: share });
        drop(state);
        Ok(Lease::Later(Standing { line: Arc::clone(self), number: ticket.number }))
    }

    /// Gives a replica to the oldest waiting call, or keeps it.
    pub(crate) fn offer(&self, mut place: P) {
        loop {
            let mut state = self.lock();
            if place.is_retired() {
                drop(state);
                return drop(place);
            }
            if let Some((number, waiter)) = state.waiting.pop_first() {
                return Self::grant(state, Granted { number, place, is_sent: false }, waiter);
            }
            if !place.is_kept() {
                return state.idle.push(place);
            }
            drop(state);
            place.decline();
            // Somebody may have come meanwhile, and then it is theirs, to be tried as any other.
        }
    }

    /// Takes the oldest calls, at most so many, to be sent ahead of their turn: as far as they can be, and as `others` go on
    /// waiting.
    pub(crate) fn send_ahead(&self, calls_max: usize, others: usize, mut send: impl FnMut(u64, P::Cargo)) {
        let mut state = self.lock();
        for _ in 0..calls_max {
            if state.waiting.len() <= others {
                return;
            }
            let Some(mut oldest) = state.waiting.first_entry() else { return };
            let Some(cargo) = oldest.get_mut().cargo.take() else { return };
            let (number, waiter) = oldest.remove_entry();
            state.sent.insert(number, waiter);
            send(number, cargo);
        }
    }

    /// Gives a replica to the call that was sent to it ahead, or back if that has lost its caller.
    pub(crate) fn hand(&self, number: u64, place: P) -> Result<(), P> {
        let mut state = self.lock();
        let Some(waiter) = state.sent.remove(&number) else { return Err(place) };
        Self::grant(state, Granted { number, place, is_sent: true }, waiter);
        Ok(())
    }

    /// A call that was sent ahead has not begun, and will not: it waits as it did before.
    pub(crate) fn give_back(&self, number: u64) {
        let mut state = self.lock();
        let Some(waiter) = state.sent.remove(&number) else { return };
        if state.is_closed {
            state.waiting_bytes -= waiter.body_bytes;
            drop(state);
            waiter.wake();
        } else if let Some(place) = state.idle.pop() {
            Self::grant(state, Granted { number, place, is_sent: false }, waiter);
        } else {
            state.waiting.insert(number, waiter);
        }
    }

    fn grant(mut state: MutexGuard<'_, State<P>>, granted: Granted<P>, waiter: Waiter<P::Cargo>) {
        state.waiting_bytes -= waiter.body_bytes;
        state.granted.push(granted);
        drop(state);
        waiter.wake();
    }

    /// Lets calls in again.
    pub(crate) fn open(&self) {
        self.lock().is_closed = false;
    }

    /// Sends everyone who waits away and lets nobody in.
    pub(crate) fn close(&self) {
        self.send_away(true);
    }

    /// Sends everyone who waits away.
    pub(crate) fn dismiss(&self) {
        self.send_away(false);
    }

    fn send_away(&self, closes: bool) {
        let mut state = self.lock();
        state.is_closed |= closes;
        let waiting = std::mem::take(&mut state.waiting);
        state.waiting_bytes -= waiting.values().map(|waiter| waiter.body_bytes).sum::<usize>();
        drop(state);
        for waiter in waiting.into_values() {
            waiter.wake();
        }
    }

    /// Takes out the idle replicas that `which` says yes to.
    pub(crate) fn take_idle(&self, which: impl FnMut(&mut P) -> bool) -> Vec<P> {
        self.lock().idle.extract_if(.., which).collect()
    }

    /// What there is just now.
    pub(crate) fn census(&self) -> Census {
        let state = self.lock();
        Census {
            calls: state.waiting.len() + state.sent.len(),
            bytes: state.waiting_bytes,
            idle: state.idle.len(),
        }
    }

    /// How many calls wait, without those that were sent ahead.
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many replicas are idle.
    #[cfg(test)]
    pub(crate) fn idle_len(&self) -> usize {
        self.lock().idle.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        // Nothing under the lock can panic half way, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Waiter<C> {
    fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

/// A replica, or a place in line for one.
pub(crate) enum Lease<P: Place> {
    /// It was idle.
    Now(P),
    /// Wait for it.
    Later(Standing<P>),
}

/// A call in line. Dropping it leaves the line.
pub(crate) struct Standing<P: Place> {
    line: Arc<Line<P>>,
    number: u64,
}

impl<P: Place> Future for Standing<P> {
    type Output = Result<P, Turned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.line.lock();
        if let Some(granted) = state.take_granted(self.number) {
            return Poll::Ready(Ok(granted.place));
        }
        let Some(waiter) = state.waiter(self.number) else {
            return Poll::Ready(Err(Turned::Dismissed));
        };
        match &mut waiter.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<P: Place> Standing<P> {
    /// It has been sent ahead, and may have begun: it must not be left before its end is known.
    pub(crate) fn is_sent(&self) -> bool {
        let state = self.line.lock();
        state.sent.contains_key(&self.number)
            || state.granted.iter().any(|granted| granted.number == self.number && granted.is_sent)
    }
}

impl<P: Place> Drop for Standing<P> {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        let number = self.number;
        if let Some(waiter) = state.waiting.remove(&number).or_else(|| state.sent.remove(&number)) {
            state.waiting_bytes -= waiter.body_bytes;
        } else if let Some(granted) = state.take_granted(number) {
            drop(state);
            if granted.is_sent { granted.place.orphaned() } else { self.line.offer(granted.place) }
        }
    }
}

impl<P: Place> State<P> {
    fn take_granted(&mut self, number: u64) -> Option<Granted<P>> {
        let at = self.granted.iter().position(|granted| granted.number == number)?;
        Some(self.granted.swap_remove(at))
    }

    fn waiter(&mut self, number: u64) -> Option<&mut Waiter<P::Cargo>> {
        self.waiting.get_mut(&number).or_else(|| self.sent.get_mut(&number))
    }
}
