//! One call on one replica: written, accepted, run, answered. Everything happens on the caller's own task.
//!
//! The law is *once*: [`Attempt::NotStarted`] is only ever said on proof (the last byte of `Call` was not written;
//! `Refused`; or the replica is dead by its supervisor's word and its socket was read to the end without `Accepted`).
//! What only looks like proof, a socket's end above all, is `502`.
//!
//! An [`Exchange`] may be dropped at any await. If the call was not wholly written, nothing runs and the link is dropped.
//! If it was, a task of the gateway's own goes on with the exchange, so that the replica comes back to the line, or is
//! cancelled where the model says so.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use millgate_contract::{
    frame::{self, Call, Done, Frame, RefusalReason, Role},
    ids::{CallId, RequestId},
    route::OnHangUp,
};
use tokio::{
    io::{AsyncWriteExt, Interest},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    slots::{deployment::Expiry, link::Link},
    tasks::Tasks,
};

/// How long a supervisor is given to say that a replica whose socket has ended is dead.
const DEATH_WORD_WAIT: Duration = Duration::from_secs(1);
/// How long a replica is given to take a connection for `Cancel`.
const CANCEL_CONNECT_WAIT: Duration = Duration::from_secs(1);

/// What is to be run, and how.
pub(crate) struct Order<'a> {
    pub(crate) request_id: &'a RequestId,
    pub(crate) traceparent: &'a str,
    pub(crate) body: &'a Bytes,
    pub(crate) timeout_ms: u64,
    pub(crate) on_hang_up: OnHangUp,
    pub(crate) cancel_grace: Duration,
    pub(crate) tasks: &'a Arc<Tasks>,
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

/// Runs a call on a leased replica. The replica is back in the line, or given up, when this returns.
pub(crate) async fn run(mut link: Link, order: &Order<'_>) -> Attempt {
    if !link.is_quiet() {
        return Attempt::NotStarted;
    }
    let id = link.next_call();
    let call = Call {
        id,
        remaining_ms: u32::try_from(order.timeout_ms).unwrap_or(u32::MAX),
        request_id: order.request_id.clone(),
        traceparent: order.traceparent.to_owned(),
    };
    link.head.clear();
    frame::encode_call_head(&mut link.head, &call, order.body.len());
    let exchange = Exchange {
        link: Some(link),
        id,
        stage: Stage::Writing,
        deadline: Instant::now() + Duration::from_millis(order.timeout_ms),
        on_hang_up: order.on_hang_up,
        cancel_grace: order.cancel_grace,
        tasks: Some(Arc::clone(order.tasks)),
    };
    exchange.run(order.body).await
}

/// A call and the replica it is on.
struct Exchange {
    /// There until the end is known.
    link: Option<Link>,
    id: CallId,
    stage: Stage,
    deadline: Instant,
    on_hang_up: OnHangUp,
    cancel_grace: Duration,
    /// Who goes on when the caller is gone; none for a call that has already been handed on.
    tasks: Option<Arc<Tasks>>,
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
        let end = self.read().await;
        self.conclude(end).await
    }

    /// Reads until the end of the call. May be dropped and called again.
    async fn read(&mut self) -> End {
        loop {
            if let Some(end) = self.look() {
                return end;
            }
            let link = self.link.as_mut().expect("the link is there until the end is known");
            let death = Arc::clone(&link.death);
            let reading = async {
                tokio::select! {
                    biased;
                    read = link.read() => Some(read),
                    () = death.said() => None,
                }
            };
            match timeout_at(self.deadline, reading).await {
                Ok(Some(Ok(1..))) => {}
                Ok(Some(Ok(0) | Err(_))) => return End::Closed,
                Ok(None) => return self.read_rest(),
                Err(_) => return End::TimedOut,
            }
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
        match end {
            End::Done(done) => {
                if done.is_leaving {
                    link.leave();
                } else {
                    link.release(done.is_queued);
                }
                Attempt::Done(done)
            }
            End::Refused(RefusalReason::Busy) => {
                link.go_home();
                Attempt::NotStarted
            }
            End::Refused(RefusalReason::Draining | RefusalReason::NotReady) => Attempt::NotStarted,
            End::Dead if self.stage == Stage::Sent => Attempt::NotStarted,
            End::Dead | End::Closed => Attempt::Crashed,
            End::Hostile => {
                // Whatever it runs now is nobody's: its supervisor replaces it.
                self.expire(&link);
                Attempt::Crashed
            }
            End::TimedOut => {
                self.expire(&link);
                Attempt::TimedOut
            }
        }
    }

    /// The socket has ended without `Accepted`: only the supervisor's word makes that a proof.
    async fn closed_unaccepted(mut self) -> Attempt {
        let death = self.link.as_ref().map(|link| Arc::clone(&link.death)).expect("an exchange ends once");
        let until = self.deadline.min(Instant::now() + DEATH_WORD_WAIT);
        let word = timeout_at(until, death.said()).await;
        let link = self.link.take().expect("an exchange ends once");
        if word.is_ok() {
            return Attempt::NotStarted;
        }
        self.expire(&link);
        Attempt::Crashed
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
        if self.on_hang_up == OnHangUp::Cancel {
            self.cancel().await;
            self.deadline = self.deadline.min(Instant::now() + self.cancel_grace);
        }
        let end = self.read().await;
        self.conclude(end).await;
    }

    /// Says `Cancel` by a connection of its own: the one with the call is not read while it runs.
    async fn cancel(&self) {
        let Some(link) = &self.link else { return };
        let (shared, slot) = (&link.shared, link.hello.slot);
        let joining = Link::join(shared, slot, Role::Control, Arc::new(AtomicBool::new(false)));
        match timeout(CANCEL_CONNECT_WAIT, joining).await {
            Ok(Ok(mut control)) if control.hello.nonce == link.hello.nonce => {
                // When it cannot be written the deadline ends the call.
                let _ = control.stream.write_all(&Frame::Cancel(self.id).encode()).await;
            }
            _ => {
                tracing::debug!(replica = %link.hello.replica, call = %self.id, "not reached for a cancellation");
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (Some(link), Some(tasks)) = (self.link.take(), self.tasks.take()) else { return };
        if self.stage == Stage::Writing {
            return;
        }
        let heir = Self {
            link: Some(link),
            id: self.id,
            stage: self.stage,
            deadline: self.deadline,
            on_hang_up: self.on_hang_up,
            cancel_grace: self.cancel_grace,
            tasks: None,
        };
        tasks.spawn(heir.outlive_caller());
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
