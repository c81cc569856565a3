//! The main thread's loop: wait, read a call, say `Accepted`, run it, answer.
//!
//! The thread that reads a frame runs the function and writes the answer; nothing is handed over. Python is attached all
//! the time but for the wait. How the threads share connections is argued in `desk.rs`.
//!
//! Several gateways are served in turn (`turns.rs`). The turn is passed on when nothing runs: after an answer, and when a
//! turn is declined, has expired, or has lost its gateway.
//!
//! Per call with one gateway: `epoll_wait`, `recv`, `sendmsg` (`Accepted`), 2 × `getrusage`, `sendmsg` (`Done`). Where the next
//! call lies there already, `Done` and its `Accepted` go together, and one look at the clocks is the end of the one and the
//! begin of the other: with 64 callers of an `add` 1.08 times as many calls, for 0.9 of the processor time each (in turns).

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    frame::{self, Call, Done, Frame, RefusalReason},
    ids::CallId,
    limits,
    page::Activity,
};
use nix::errno::Errno;
use pyo3::prelude::*;

use crate::{
    busy_poll::BusyPoll,
    call::{Answer, Runner},
    connection::{Connection, ConnectionError},
    desk::Desk,
    fds::{self, Poll, Told},
    log, page,
    policy::Policy,
    running,
    turns::Turns,
};

const WAKE: u64 = 0;
const TURN_OVER: u64 = 1;
/// Milliseconds for which a turn is kept for a gateway that cannot be told of it: some of the pauses after which it asks
/// again, and no more, since it may have no use for the turn and cannot say so.
const SILENT_TURN_MS: u64 = 20;
/// Answers up to this may be kept until the next call begins.
const KEPT_ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Answers over this are written with Python detached: the gateway may be slow, and the user's threads need not wait.
const DETACHED_BYTES_MIN: usize = 64 * 1024;

/// Why the loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The supervisor asked.
    Asked,
    /// The last call has left the process in an unknown state.
    Spent(&'static str),
    /// The policy says that it was the last call; nothing is wrong.
    Recycled(&'static str),
}

/// An answer, encoded, and the connection that it is for.
struct Unsent {
    token: u64,
    done: BytesMut,
}

pub(crate) struct Server<'a> {
    py: Python<'a>,
    pub(crate) runner: Runner<'a>,
    desk: Arc<Desk>,
    poll: Poll,
    connections: Vec<Connection>,
    turns: Turns,
    /// Set with each turn.
    turn_over: OwnedFd,
    policy: Policy,
    leave: Option<Leave>,
    busy_poll: BusyPoll,
    /// Of a call after which more has arrived already. It goes with the next `Accepted`, and is never there while this waits.
    unsent: Option<Unsent>,
    /// Done once, after the first answer of a replica that stays.
    pub(crate) on_first_answer: Option<Box<dyn FnOnce() + 'a>>,
}

impl<'a> Server<'a> {
    pub(crate) fn new(
        py: Python<'a>,
        runner: Runner<'a>,
        desk: Arc<Desk>,
        policy: Policy,
    ) -> Result<Self, Errno> {
        let poll = Poll::new()?;
        poll.add(&desk.wake, WAKE, libc::EPOLLIN)?;
        let turn_over = fds::timer()?;
        poll.add(&turn_over, TURN_OVER, libc::EPOLLIN)?;
        Ok(Self {
            py,
            runner,
            desk,
            poll,
            connections: Vec::new(),
            turns: Turns::default(),
            turn_over,
            policy,
            leave: None,
            busy_poll: BusyPoll::new(),
            unsent: None,
            on_first_answer: None,
        })
    }

    /// Serves until it is time to leave. The listener is closed then.
    pub(crate) fn run(&mut self) -> Leave {
        loop {
            let token = self.wait();
            // An interrupt from outside that no call was there for must not meet the next one.
            drop(self.py.check_signals());
            match token {
                Some(WAKE) => self.fetch(),
                Some(TURN_OVER) => self.expire_turn(),
                Some(token) => self.read(token),
                None => {}
            }
            if let Some(leave) = self.leave {
                self.desk.close_door();
                self.refuse_waiting();
                return leave;
            }
        }
    }

    fn wait(&mut self) -> Option<u64> {
        page::enter(Activity::Idle);
        self.runner.rest();
        let token = self.wait_for_token();
        page::enter(Activity::Busy);
        token
    }

    fn wait_for_token(&mut self) -> Option<u64> {
        if let Some(event_loop) = self.runner.event_loop() {
            if let Err(error) = event_loop.idle(self.py, self.poll.raw()) {
                log::say(&format!("a task ended the event loop: {error}"));
                self.leave = Some(Leave::Spent("a task ended the event loop"));
                return None;
            }
            return self.poll.wait(0).map(|told| told.token);
        }
        let (poll, busy_until) = (&self.poll, self.busy_poll.until());
        let told = self.py.detach(|| {
            let told = busy_until.and_then(|until| look(poll, until)).or_else(|| poll.wait(-1));
            page::enter(Activity::InterpreterWait);
            told
        });
        told.map(|told| told.token)
    }

    fn fetch(&mut self) {
        fds::clear(&self.desk.wake);
        let (joined, is_draining) = self.desk.fetch();
        self.adopt(joined);
        if is_draining {
            self.leave = Some(Leave::Asked);
        } else {
            self.read_buffered();
        }
    }

    /// Takes connections over from the watcher. What they have buffered is for [`Self::read_buffered`].
    fn adopt(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            let token = connection.token;
            // One that was only lent is registered already.
            match self.poll.add(&connection.fd, token, libc::EPOLLIN) {
                Ok(()) | Err(Errno::EEXIST) => self.connections.push(connection),
                Err(_) => self.desk.close(connection),
            }
        }
    }

    /// Calls that were read together with what came before them; epoll does not tell of those.
    fn read_buffered(&mut self) {
        while self.leave.is_none() {
            let mut next = None;
            for (index, connection) in self.connections.iter_mut().enumerate() {
                match connection.buffered() {
                    Ok(None) => {}
                    other => {
                        next = Some((index, other));
                        break;
                    }
                }
            }
            let Some((index, received)) = next else { return self.send_unsent() };
            self.handle(index, received);
        }
    }

    /// Sends the answer that was kept, if there is one.
    fn send_unsent(&mut self) {
        let Some(Unsent { token, done }) = self.unsent.take() else { return };
        let Some(index) = self.index_of(token) else { return };
        if self.connections[index].send([&done, &[], &[]]).is_err() {
            self.close(index);
        }
    }

    fn read(&mut self, token: u64) {
        let Some(index) = self.index_of(token) else { return };
        let received = self.connections[index].receive();
        self.handle(index, received);
        if self.leave.is_none() {
            self.read_buffered();
        }
    }

    fn index_of(&self, token: u64) -> Option<usize> {
        self.connections.iter().position(|connection| connection.token == token)
    }

    fn handle(&mut self, index: usize, received: Result<Option<Frame>, ConnectionError>) {
        match received {
            Ok(None | Some(Frame::Cancel(_))) => {}
            // It was refused while the one before it ran, before it was read.
            Ok(Some(Frame::Call(call, _)))
                if self.desk.is_recalled(self.connections[index].token, call.id) => {}
            Ok(Some(Frame::Call(call, body))) => {
                let token = self.connections[index].token;
                if self.turns.may_call(token) {
                    self.call(index, &call, &body);
                } else {
                    self.refuse(token, call.id);
                }
            }
            Ok(Some(Frame::Decline)) => {
                self.turns.decline(self.connections[index].token);
                self.pass_turn();
            }
            // The end of the peer, something that is no frame, or a frame that is not a gateway's to send.
            Ok(Some(_)) | Err(_) => self.close(index),
        }
    }

    /// It is another gateway's turn.
    fn refuse(&mut self, token: u64, id: CallId) {
        // Whose call was answered has the answer first.
        self.send_unsent();
        let Some(index) = self.index_of(token) else { return };
        self.turns.refused(token);
        if self.connections[index].send_now(&Frame::Refused(id, RefusalReason::Busy).encode()).is_err() {
            self.close(index);
        }
    }

    fn expire_turn(&mut self) {
        if fds::take_timer(&self.turn_over) {
            self.turns.expire();
            self.pass_turn();
        }
    }

    /// Makes it the turn of who waits longest, if it is nobody's.
    fn pass_turn(&mut self) {
        if self.leave.is_some() {
            return;
        }
        while let Some(token) = self.turns.next() {
            let Some(index) = self.index_of(token) else {
                self.turns.forget(token);
                continue;
            };
            let connection = &self.connections[index];
            let is_silent = !connection.knows_turns();
            if is_silent || connection.send_now(&Frame::Grant.encode()).is_ok() {
                let kept_ms = if is_silent { SILENT_TURN_MS } else { limits::TURN_MS_MAX };
                fds::set_timer(&self.turn_over, kept_ms);
                return;
            }
            // It waits for a word that it does not get: it must connect anew.
            self.remove(index);
        }
    }

    fn close(&mut self, index: usize) {
        self.remove(index);
        self.pass_turn();
    }

    fn remove(&mut self, index: usize) {
        let connection = self.connections.swap_remove(index);
        if let Some(unsent) = self.unsent.take_if(|unsent| unsent.token == connection.token) {
            let _ = connection.send([&unsent.done, &[], &[]]);
        }
        self.turns.forget(connection.token);
        self.poll.remove(connection.fd.as_raw_fd());
        self.desk.close(connection);
    }

    fn call(&mut self, index: usize, call: &Call, body: &Bytes) {
        self.busy_poll.called(call.busy_poll_us);
        let caller = self.connections.swap_remove(index);
        if self.unsent.as_ref().is_some_and(|unsent| unsent.token != caller.token) {
            self.send_unsent();
        }
        self.turns.begin(caller.token);
        let others = std::mem::take(&mut self.connections);
        let deadline = Instant::now() + Duration::from_millis(u64::from(call.remaining_ms));
        self.desk.begin(call.id, &caller, deadline, others);
        let result = self.run_call(&caller, call, body);
        self.busy_poll.answered();
        if let Some(tell) = self.on_first_answer.take_if(|_| self.leave.is_none()) {
            tell();
        }
        if result.is_ok() {
            self.connections.push(caller);
        } else {
            self.turns.forget(caller.token);
            self.poll.remove(caller.fd.as_raw_fd());
            self.desk.close(caller);
        }
        self.pass_turn();
    }

    /// An error is one of the connection; the function has run, or not, all the same.
    fn run_call(&mut self, caller: &Connection, call: &Call, body: &Bytes) -> Result<(), ConnectionError> {
        // If the gateway cannot be told, the function must not run: the call may be tried elsewhere.
        let unsent = self.unsent.take().map_or_else(BytesMut::new, |unsent| unsent.done);
        let told = caller.send([&unsent, &Frame::Accepted(call.id).encode(), &[]]);
        let answer = told.map(|()| {
            let desk = &self.desk;
            page::begin(&call.request_id);
            let answer =
                running::during(self.py, call, || self.runner.run(body, || desk.close_to_interrupts()));
            page::end();
            answer
        });
        if let Ok(answer) = &answer {
            self.decide_to_leave(answer);
        }
        // Before the answer: whoever has seen it may call at once, on any connection, and is not refused.
        let back = self.desk.end();
        self.adopt(back.connections);
        // Those that ended while they were lent.
        self.turns.keep(|token| self.connections.iter().any(|connection| connection.token == token));
        let may_queue = caller.knows_turns() && self.leave.is_none();
        let is_queued = self.turns.end(may_queue.then_some(caller.token), &back.refused);
        self.answer(caller, call, answer?, is_queued)
    }

    fn decide_to_leave(&mut self, answer: &Answer) {
        let last = self.policy.count(answer.outcome);
        self.leave = if answer.must_leave {
            Some(Leave::Spent(match answer.outcome {
                frame::Outcome::Cancelled => "a call was cancelled",
                _ => "the function raised",
            }))
        } else if answer.is_draining {
            Some(Leave::Asked)
        } else {
            last.map(Leave::Recycled)
        };
        if matches!(self.leave, Some(Leave::Spent(_) | Leave::Recycled(_))) {
            // Before the answer: a gateway that connects anew because of it must meet the next replica.
            self.desk.close_door();
        }
    }

    fn answer(
        &mut self,
        caller: &Connection,
        call: &Call,
        answer: Answer,
        is_queued: bool,
    ) -> Result<(), ConnectionError> {
        let done = Done {
            id: call.id,
            outcome: answer.outcome,
            collects_metrics: answer.collects_metrics,
            is_leaving: self.leave.is_some(),
            is_queued,
            timings: answer.timings,
            value: answer.value,
            metrics: answer.metrics,
        };
        let mut head = BytesMut::with_capacity(64);
        frame::encode_done_head(&mut head, &done);
        let stays = self.leave.is_none() && self.on_first_answer.is_none() && !is_queued;
        if stays && caller.has_read_ahead() && done.value.len() + done.metrics.len() <= KEPT_ANSWER_BYTES_MAX
        {
            head.extend_from_slice(&done.value);
            head.extend_from_slice(&done.metrics);
            self.unsent = Some(Unsent { token: caller.token, done: head });
            return Ok(());
        }
        let parts: [&[u8]; 3] = [&head, &done.value, &done.metrics];
        if done.value.len() < DETACHED_BYTES_MIN {
            caller.send(parts)
        } else {
            self.py.detach(|| caller.send(parts))
        }
    }

    /// A call that has come meanwhile learns at once that it was not run.
    fn refuse_waiting(&mut self) {
        let (joined, _) = self.desk.fetch();
        self.connections.extend(joined);
        for connection in &mut self.connections {
            // Whoever cannot be told sees the end of the connection.
            let _ = self.desk.refuse_leaving(connection);
        }
    }
}

/// What comes until then, without sleeping.
fn look(poll: &Poll, until: Instant) -> Option<Told> {
    loop {
        let told = poll.wait(0);
        if told.is_some() || Instant::now() >= until {
            return told;
        }
        std::hint::spin_loop();
    }
}
