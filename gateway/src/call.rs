//! One call on one replica: written, accepted, run, answered. Everything happens on the caller's own task.
//!
//! The law is *once*: [`Attempt::NotStarted`] is only ever said on proof (the last byte of `Call` was not written;
//! `Refused`; or the replica is dead by its supervisor's word and its socket was read to the end without `Accepted`).
//! What only looks like proof, a socket's end above all, is `502`.
//!
//! A call may have been sent ahead, by whoever held the link before: then it only waits for its answer. What lies behind a
//! call on its link is passed on with the link at its end, whatever that is, and decides by itself what it means to it: no
//! call has to say of another that it never started.
//!
//! An [`Exchange`] may be dropped at any await. If the call was not wholly written, nothing runs and the link is dropped.
//! If it was, a task of the gateway's own goes on with the exchange, so that the replica comes back to the line, or is
//! cancelled where the model says so.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    frame::{self, Call, Done, Frame, RefusalReason, Role},
    ids::{CallId, RequestId, SlotIndex},
    route::OnHangUp,
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    slots::{
        ahead::{AHEAD_BODY_BYTES_MAX, RECALL_AFTER},
        deployment::{Expiry, Shared},
        link::Link,
    },
    tasks::Tasks,
};

/// How long a supervisor is given to say that a replica whose socket has ended is dead.
const DEATH_WORD_WAIT: Duration = Duration::from_secs(1);
/// How long a replica is given to take a connection for `Cancel` or `Recall`.
const CONTROL_CONNECT_WAIT: Duration = Duration::from_secs(1);

/// What is to be run, and how.
pub(crate) struct Order<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) traceparent: &'a str,
    pub(crate) body: &'a Bytes,
    /// How long its replica may look for the next one awake.
    pub(crate) busy_poll_us: u16,
    pub(crate) terms: &'a Terms,
}

/// On which all calls of a model run.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) timeout_ms: u64,
    pub(crate) on_hang_up: OnHangUp,
    pub(crate) cancel_grace: Duration,
    /// Who goes on when the caller is gone.
    pub(crate) tasks: Arc<Tasks>,
}

impl Order<'_> {
    /// Header and head of its frame.
    fn encode_head(&self, id: CallId, out: &mut BytesMut) {
        let call = Call {
            id,
            remaining_ms: u32::try_from(self.terms.timeout_ms).unwrap_or(u32::MAX),
            request_id: self.request_id.clone(),
            traceparent: self.traceparent.to_owned(),
            busy_poll_us: self.busy_poll_us,
        };
        frame::encode_call_head(out, &call, self.body.len());
    }

    /// Its whole frame, not numbered, if it may be sent ahead.
    pub(crate) fn cargo(&self) -> Option<BytesMut> {
        if self.body.len() > AHEAD_BODY_BYTES_MAX {
            return None;
        }
        let mut frame = BytesMut::new();
        self.encode_head(CallId(0), &mut frame);
        frame.extend_from_slice(self.body);
        Some(frame)
    }
}

/// What one try on one replica came to.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Proven: no user code ran. Another replica may be tried.
    NotStarted,
    /// The replica answered.
    Done(Done),
    /// The replica died, or spoke nonsense, and the function may have run.
    Crashed,
    /// The function ran past its time.
    TimedOut,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its last byte is not written: it cannot have started.
    Writing,
    /// It may have started.
    Sent,
    /// It has.
    Accepted,
}

/// Runs a call on a leased replica. The replica is back in the line, with the next call, or given up, when this returns.
pub(crate) async fn run(mut link: Link, order: &Order<'_>) -> Attempt {
    if let Some(id) = link.ahead.begin() {
        return Exchange::new(link, id, Stage::Sent, order.terms.clone()).finish().await;
    }
    if !link.is_quiet() {
        return Attempt::NotStarted;
    }
    let id = link.next_call();
    link.head.clear();
    order.encode_head(id, &mut link.head);
    Exchange::new(link, id, Stage::Writing, order.terms.clone()).run(order.body).await
}

/// Gives a link to the call that lies next before its replica.
fn hand_on(link: Link) {
    let Some(number) = link.ahead.next_number() else { return };
    let line = Arc::clone(link.shared.line());
    if let Err(link) = line.hand(number, link) {
        follow(link);
    }
}

/// Sees to the end of a call that was sent ahead and has lost its caller since.
pub(crate) fn follow(mut link: Link) {
    if let (Some(terms), Some(id)) = (link.ahead.terms().cloned(), link.ahead.begin()) {
        let tasks = Arc::clone(&terms.tasks);
        tasks.spawn(Exchange::new(link, id, Stage::Sent, terms).outlive_caller());
    }
}

/// A call and the replica it is on.
struct Exchange {
    /// There until the end is known.
    link: Option<Link>,
    id: CallId,
    stage: Stage,
    begun: Instant,
    deadline: Instant,
    /// When to send calls ahead, if it was too early.
    ahead_at: Option<Instant>,
    /// When those that lie behind it are wanted back.
    recall_at: Instant,
    terms: Terms,
    /// It has been handed on already.
    is_orphan: bool,
}

/// How the reading of an answer ended.
enum End {
    Done(Done),
    Refused(RefusalReason),
    /// Not a frame, or not this call's.
    Hostile,
    /// The socket has ended.
    Closed,
    /// The supervisor says so, and everything the replica had written is read.
    Dead,
    TimedOut,
}

impl Exchange {
    fn new(link: Link, id: CallId, stage: Stage, terms: Terms) -> Self {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(terms.timeout_ms);
        let recall_at = begun + RECALL_AFTER;
        let (ahead_at, is_orphan) = (None, false);
        Self { link: Some(link), id, stage, begun, deadline, ahead_at, recall_at, terms, is_orphan }
    }

    async fn run(mut self, body: &Bytes) -> Attempt {
        let link = self.link.as_mut().expect("the link is there until the end is known");
        let writing = async {
            let death = Arc::clone(&link.death);
            tokio::select! {
                biased;
                written = write(link, body) => written,
                () = death.said() => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        };
        match timeout_at(self.deadline, writing).await {
            Ok(Ok(())) => self.stage = Stage::Sent,
            // The last byte is not written.
            Ok(Err(_)) => return Attempt::NotStarted,
            Err(_) => return self.conclude(End::TimedOut).await,
        }
        self.finish().await
    }

    /// From the last byte written to the end of the call.
    async fn finish(mut self) -> Attempt {
        self.send_ahead();
        let end = self.read().await;
        self.conclude(end).await
    }

    /// Sends what waits ahead, now or when this call should be about to end.
    fn send_ahead(&mut self) {
        let link = self.link.as_mut().expect("the link is there until the end is known");
        let now = Instant::now();
        let later = link.send_ahead(&self.terms, now - self.begun);
        self.ahead_at = later.map(|after_begin| self.begun + after_begin);
        self.recall_at = now + RECALL_AFTER;
    }

    /// Reads until the end of the call. May be dropped and called again.
    async fn read(&mut self) -> End {
        loop {
            if let Some(end) = self.look() {
                return end;
            }
            let link = self.link.as_mut().expect("the link is there until the end is known");
            let may_recall = link.ahead.may_recall();
            let death = Arc::clone(&link.death);
            let reading = async {
                tokio::select! {
                    biased;
                    read = link.read() => Some(read),
                    () = death.said() => None,
                }
            };
            let next = if may_recall { Some(self.recall_at) } else { self.ahead_at };
            match timeout_at(next.unwrap_or(self.deadline).min(self.deadline), reading).await {
                Ok(Some(Ok(1..))) => {}
                Ok(Some(Ok(0) | Err(_))) => return End::Closed,
                Ok(None) => return self.read_rest(),
                Err(_) if next.is_none_or(|next| next >= self.deadline) => return End::TimedOut,
                Err(_) if may_recall => self.recall(),
                Err(_) => self.send_ahead(),
            }
        }
    }

    /// Wants those that lie behind this call back: it takes far longer than calls of its model do.
    fn recall(&mut self) {
        let link = self.link.as_mut().expect("the link is there until the end is known");
        if let Some(last) = link.recall() {
            let recalling = tell(Replica::of(link), Role::Aside, Frame::Recall(self.id, last));
            self.terms.tasks.spawn(recalling);
        }
    }

    /// What a dead replica had still written. Without a look at all of it there is no proof.
    fn read_rest(&mut self) -> End {
        let link = self.link.as_mut().expect("the link is there until the end is known");
        if link.read_arrived().is_err() {
            return End::Hostile;
        }
        self.look().unwrap_or(End::Dead)
    }

    /// Looks at the frames that are there.
    fn look(&mut self) -> Option<End> {
        let link = self.link.as_mut().expect("the link is there until the end is known");
        loop {
            match (link.next_frame(), self.stage) {
                (Ok(None), _) => return None,
                // It crossed the call; that it was this gateway's turn makes no difference now.
                (Ok(Some(Frame::Grant)), Stage::Sent) => {}
                (Ok(Some(Frame::Accepted(id))), Stage::Sent) if id == self.id => self.stage = Stage::Accepted,
                (Ok(Some(Frame::Refused(id, reason))), Stage::Sent) if id == self.id => {
                    return Some(End::Refused(reason));
                }
                (Ok(Some(Frame::Refused(id, _))), _) => match link.ahead.refused(id) {
                    Some(number) => link.shared.line().give_back(number),
                    None => return Some(End::Hostile),
                },
                (Ok(Some(Frame::Done(done))), Stage::Accepted) if done.id == self.id => {
                    return Some(End::Done(done));
                }
                _ => return Some(End::Hostile),
            }
        }
    }

    /// Decides what the end means, for the caller and for the replica.
    async fn conclude(mut self, end: End) -> Attempt {
        if let (End::Closed, Stage::Sent) = (&end, self.stage) {
            return self.closed_unaccepted().await;
        }
        let link = self.link.take().expect("an exchange ends once");
        let (attempt, then) = match end {
            End::Done(done) => {
                link.served(&done);
                let then =
                    if done.is_leaving { Then::Ends } else { Then::Free { is_queued: done.is_queued } };
                (Attempt::Done(done), then)
            }
            End::Refused(RefusalReason::Busy) => (Attempt::NotStarted, Then::IsOthers),
            End::Refused(RefusalReason::Draining | RefusalReason::NotReady) => {
                (Attempt::NotStarted, Then::Ends)
            }
            End::Dead if self.stage == Stage::Sent => (Attempt::NotStarted, Then::Ends),
            End::Dead | End::Closed => (Attempt::Crashed, Then::Ends),
            End::Hostile => {
                // Whatever it runs now is nobody's: its supervisor replaces it.
                self.expire(&link);
                (Attempt::Crashed, Then::Ends)
            }
            End::TimedOut => {
                self.expire(&link);
                (Attempt::TimedOut, Then::Ends)
            }
        };
        let_go(link, then);
        attempt
    }

    /// The socket has ended without `Accepted`: only the supervisor's word makes that a proof.
    async fn closed_unaccepted(mut self) -> Attempt {
        let death = self.link.as_ref().map(|link| Arc::clone(&link.death)).expect("an exchange ends once");
        let until = self.deadline.min(Instant::now() + DEATH_WORD_WAIT);
        let word = timeout_at(until, death.said()).await;
        let link = self.link.take().expect("an exchange ends once");
        if word.is_err() {
            self.expire(&link);
        }
        let_go(link, Then::Ends);
        if word.is_ok() { Attempt::NotStarted } else { Attempt::Crashed }
    }

    fn expire(&self, link: &Link) {
        link.shared.expire(Expiry {
            slot: link.hello.slot,
            replica: link.hello.replica.clone(),
            call: self.id,
        });
    }

    /// Goes on after the caller has gone.
    async fn outlive_caller(mut self) {
        self.is_orphan = true;
        if self.terms.on_hang_up == OnHangUp::Cancel {
            let link = self.link.as_ref().expect("the link is there until the end is known");
            // When it cannot be told the deadline ends the call.
            tell(Replica::of(link), Role::Control, Frame::Cancel(self.id)).await;
            self.deadline = self.deadline.min(Instant::now() + self.terms.cancel_grace);
        }
        let end = self.read().await;
        self.conclude(end).await;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if self.stage == Stage::Writing || self.is_orphan {
            return;
        }
        let heir = Self {
            link: Some(link),
            id: self.id,
            stage: self.stage,
            begun: self.begun,
            deadline: self.deadline,
            ahead_at: self.ahead_at,
            recall_at: self.recall_at,
            terms: self.terms.clone(),
            is_orphan: true,
        };
        self.terms.tasks.spawn(heir.outlive_caller());
    }
}

/// What is to become of a link.
enum Then {
    /// Its replica takes other calls: those of this gateway next, or not before its turn.
    Free { is_queued: bool },
    /// Its replica is other gateways' for now.
    IsOthers,
    /// Nothing.
    Ends,
}

/// Lets go of a link. Calls that lie before its replica still have it, whatever has become of it, one after the other.
fn let_go(link: Link, then: Then) {
    if !link.ahead.is_empty() {
        return hand_on(link);
    }
    match then {
        Then::Free { is_queued } => link.release(is_queued),
        Then::IsOthers => link.go_home(),
        Then::Ends => {}
    }
}

/// A process to be told something while it runs a call.
struct Replica {
    shared: Arc<Shared>,
    slot: SlotIndex,
    nonce: u64,
}

impl Replica {
    fn of(link: &Link) -> Self {
        Self { shared: Arc::clone(&link.shared), slot: link.hello.slot, nonce: link.hello.nonce }
    }
}

/// Says something by a connection of its own: the one with the call is not read while it runs.
async fn tell(replica: Replica, role: Role, frame: Frame) {
    let Replica { shared, slot, nonce } = replica;
    let joining = Link::join(&shared, slot, role, Arc::new(AtomicBool::new(false)));
    match timeout(CONTROL_CONNECT_WAIT, joining).await {
        Ok(Ok(mut other)) if other.hello.nonce == nonce => {
            let _ = other.stream.write_all(&frame.encode()).await;
        }
        _ => tracing::debug!(%slot, ?frame, "the replica is not reached"),
    }
}

/// Writes head and body, which lie apart, without copying the body.
async fn write(link: &Link, body: &Bytes) -> io::Result<()> {
    let (mut head, mut body): (&[u8], &[u8]) = (&link.head, body);
    while !head.is_empty() || !body.is_empty() {
        let parts = [io::IoSlice::new(head), io::IoSlice::new(body)];
        match link.stream.try_write_vectored(&parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                let of_head = written.min(head.len());
                head = &head[of_head..];
                body = &body[written - of_head..];
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                link.stream.ready(Interest::WRITABLE).await?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
