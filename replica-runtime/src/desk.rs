//! What the main thread and the watcher share: who runs what, which connections wait, the slot's listener.
//!
//! # Who owns a connection for calls
//!
//! While no call runs, the main thread owns all of them and waits on them. While a call runs, it keeps the caller's and
//! lends the others to the watcher, which refuses what comes by them; then it takes them back. Lending moves the
//! connection, with what has arrived of a frame, through the lock here, so that no frame is read by two.
//! With one gateway (the common case) there is nothing to lend, and a call costs two uncontended locks and no system
//! call of this module's. With more, each other connection costs two changes of the watcher's epoll.
//!
//! The watcher's epoll always holds every connection for calls, without events while the main thread owns it: then it
//! hears only of the peer's end, in the middle of a call too, and of nothing per call. The race this allows: epoll tells of
//! a lent connection, and before the watcher has the lock it is taken back. Then the watcher finds it neither lent nor
//! ended, and leaves it alone.
//!
//! Whom the watcher refuses is noted here, and learnt by the main thread at the call's end (`turns.rs`): while no call
//! runs there is nothing to refuse but what the main thread reads itself, so nobody else needs to know whose turn it is.
//!
//! # Why a cancelled call never interrupts the next
//!
//! An interrupt is sent under the lock, and only while the running call is open to it. The main thread closes it, under
//! the lock, right after the function has returned. If an interrupt was sent before, it is told so, and eats what the
//! function did not (`call.rs`). So one is either raised in the function, or eaten before anything else runs.
//!
//! # Why a call that was sent ahead is not both refused and run
//!
//! It lies in the socket of the running call, or in the caller's inbox, and the main thread has both. So the watcher refuses it
//! by its number alone, under the lock and only while the running call is open, and notes that here; the main thread
//! asks for that note, under the lock, before it runs what it has read. While the call is open the main thread runs the
//! function, or is about to say `Accepted`, a write that is never cut in two: no frame is written into another.
//!
//! # The listener
//!
//! It is used and closed under the lock; after [`Desk::close_door`] no connection is accepted here any more.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use millgate_contract::{
    frame::{Frame, RefusalReason},
    ids::CallId,
    limits,
};
use nix::errno::Errno;

use crate::{
    connection::{self, Connection, ConnectionError},
    fds::{self, Poll},
    signals::Interruptible,
};

/// The watcher's number for the listener; connections have higher ones.
pub(crate) const LISTENER: u64 = 0;
/// Connections for calls at once; more are closed.
const CONNECTIONS_MAX: usize = 256;

/// A call, from its frame to its answer.
#[derive(Debug)]
struct Running {
    id: CallId,
    gateway: Arc<str>,
    token: u64,
    deadline: Instant,
    is_open: bool,
    is_cancelled: bool,
}

/// What became of a call while its function ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// An interrupt was sent.
    pub(crate) is_cancelled: bool,
    /// The replica was asked to leave.
    pub(crate) is_draining: bool,
}

/// What the main thread takes over at the end of a call.
#[derive(Debug)]
pub(crate) struct Returned {
    /// Its own again.
    pub(crate) connections: Vec<Connection>,
    /// Connections by which a call was refused, in order; some may have ended since.
    pub(crate) refused: Vec<u64>,
}

#[derive(Debug)]
struct State {
    listener: Option<OwnedFd>,
    running: Option<Running>,
    is_draining: bool,
    /// New connections, for the main thread to fetch.
    joined: Vec<Connection>,
    /// The watcher's while a call runs.
    lent: HashMap<u64, Connection>,
    /// Whose calls the watcher has refused while this one runs, each once, in order.
    refused: Vec<u64>,
    /// Up to which of their calls connections have been refused what was sent ahead; only where that was recalled.
    recalled: HashMap<u64, CallId>,
    /// All connections for calls, to find one that the main thread owns.
    known: HashMap<u64, RawFd>,
}

/// Shared by the two threads.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    /// Raised for the main thread: something has joined, or it is to leave.
    pub(crate) wake: OwnedFd,
    /// The watcher's epoll.
    pub(crate) watch: Poll,
    main: Interruptible,
}

impl Desk {
    /// Called by the main thread, which runs the function.
    pub(crate) fn new(listener: OwnedFd) -> Result<Self, Errno> {
        // Whoever was told of a connection may find it taken by the replica before this one.
        nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let watch = Poll::new()?;
        watch.add(&listener, LISTENER, libc::EPOLLIN)?;
        let state = State {
            listener: Some(listener),
            running: None,
            is_draining: false,
            joined: Vec::new(),
            lent: HashMap::new(),
            refused: Vec::new(),
            recalled: HashMap::new(),
            known: HashMap::new(),
        };
        let main = Interruptible::this_thread();
        Ok(Self { state: Mutex::new(state), wake: fds::event()?, watch, main })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the process; there is nobody to see a poisoned lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The main thread's side.
impl Desk {
    /// New connections, and whether it is time to leave.
    pub(crate) fn fetch(&self) -> (Vec<Connection>, bool) {
        let mut state = self.state();
        (std::mem::take(&mut state.joined), state.is_draining)
    }

    /// Whether a call that came by a connection of the main thread's was refused while the one before it ran.
    pub(crate) fn is_recalled(&self, token: u64, id: CallId) -> bool {
        self.state().recalled.get(&token).is_some_and(|last| id <= *last)
    }

    /// Refuses what has come by a connection of the main thread's, which is about to leave.
    pub(crate) fn refuse_leaving(&self, connection: &mut Connection) -> Result<(), ConnectionError> {
        let recalled = self.state().recalled.get(&connection.token).copied();
        refuse_all(connection, RefusalReason::Draining, recalled).map(drop)
    }

    /// A call begins on `caller`; `others` are lent.
    pub(crate) fn begin(&self, id: CallId, caller: &Connection, deadline: Instant, others: Vec<Connection>) {
        let mut state = self.state();
        let (gateway, token) = (Arc::clone(&caller.gateway), caller.token);
        state.running = Some(Running { id, gateway, token, deadline, is_open: true, is_cancelled: false });
        // Those that have joined but were not fetched yet would else be nobody's.
        let joined = std::mem::take(&mut state.joined);
        for mut connection in others.into_iter().chain(joined) {
            // What has been read already epoll does not tell of.
            if connection.has_read_ahead() && state.refuse(&mut connection).is_err() {
                state.forget(&connection, &self.watch);
                continue;
            }
            self.watch.change(&connection.fd, connection.token, libc::EPOLLIN);
            state.lent.insert(connection.token, connection);
        }
    }

    /// The function has ended: no interrupt is sent from here on.
    pub(crate) fn close_to_interrupts(&self) -> Ended {
        let mut state = self.state();
        let is_draining = state.is_draining;
        let is_cancelled = state.running.as_mut().is_some_and(|running| {
            running.is_open = false;
            running.is_cancelled
        });
        Ended { is_cancelled, is_draining }
    }

    /// The call is answered; what was lent comes back, with what joined meanwhile.
    pub(crate) fn end(&self) -> Returned {
        let mut state = self.state();
        state.running = None;
        let back: Vec<Connection> = state.lent.drain().map(|(_, connection)| connection).collect();
        for connection in &back {
            self.watch.change(&connection.fd, connection.token, 0);
        }
        Returned { connections: back, refused: std::mem::take(&mut state.refused) }
    }

    /// Closes the slot's listener in this process. Whoever connects from now on meets the next replica.
    pub(crate) fn close_door(&self) {
        self.state().close_door(&self.watch);
    }

    /// Closes a connection for calls.
    pub(crate) fn close(&self, connection: Connection) {
        self.state().forget(&connection, &self.watch);
    }
}

/// The watcher's side.
impl Desk {
    /// Takes the next connection from the listener's queue.
    pub(crate) fn accept(&self) -> Result<OwnedFd, Errno> {
        let state = self.state();
        let listener = state.listener.as_ref().ok_or(Errno::EBADF)?;
        // SAFETY: the listener is open; no address is asked for.
        let raw = unsafe {
            let nothing = std::ptr::null_mut();
            libc::accept4(listener.as_raw_fd(), nothing, nothing.cast(), libc::SOCK_CLOEXEC)
        };
        let raw = Errno::result(raw)?;
        // SAFETY: `accept4` has just made it.
        fds::out_of_the_way(unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) })
    }

    /// A connection for calls has joined. It goes to the main thread or, while a call runs, is treated as lent; then the
    /// caller sees to frames that came with its `Join`.
    pub(crate) fn join(&self, connection: Connection) {
        let mut state = self.state();
        let token = connection.token;
        if state.known.len() >= CONNECTIONS_MAX {
            self.watch.remove(connection.fd.as_raw_fd());
            return;
        }
        state.known.insert(token, connection.fd.as_raw_fd());
        if state.running.is_some() {
            state.lent.insert(token, connection);
        } else {
            self.watch.change(&connection.fd, token, 0);
            state.joined.push(connection);
            fds::raise(&self.wake);
        }
    }

    /// Refuses what has come by a lent connection. False if it is not lent: it is the main thread's.
    pub(crate) fn refuse(&self, token: u64) -> bool {
        let mut state = self.state();
        let Some(mut connection) = state.lent.remove(&token) else { return false };
        if state.refuse(&mut connection).is_ok() {
            state.lent.insert(token, connection);
        } else {
            state.forget(&connection, &self.watch);
        }
        true
    }

    /// The peer of a connection that the main thread owns is gone. The deadline of its call, if one runs: nobody else
    /// watches over it now.
    pub(crate) fn hung_up(&self, token: u64) -> Option<(CallId, Instant)> {
        let mut state = self.state();
        if let Some(fd) = state.known.get(&token) {
            // Heard once is enough. The main thread removes an entry before it closes the descriptor, so this is it.
            self.watch.remove(*fd);
        }
        state.interrupt(self.main, |running| running.token == token)
    }

    /// The gateway is gone as a whole.
    pub(crate) fn vanished(&self, gateway: &str) -> Option<(CallId, Instant)> {
        self.state().interrupt(self.main, |running| *running.gateway == *gateway)
    }

    /// The gateway's caller is gone.
    pub(crate) fn cancel(&self, gateway: &str, id: CallId) {
        self.state().interrupt(self.main, |running| running.id == id && *running.gateway == *gateway);
    }

    /// What lies behind a running call, the call `last` included, is wanted back.
    pub(crate) fn recall(&self, gateway: &str, id: CallId, last: CallId) {
        let mut state = self.state();
        let is_meant =
            |running: &&Running| running.is_open && running.id == id && *running.gateway == *gateway;
        let Some(token) = state.running.as_ref().filter(is_meant).map(|running| running.token) else {
            return;
        };
        let Some(fd) = state.known.get(&token).copied() else { return };
        for behind in (id.0.saturating_add(1)..=last.0).take(limits::AHEAD_CALLS_MAX).map(CallId) {
            if connection::send_now(fd, &Frame::Refused(behind, RefusalReason::Busy).encode()).is_err() {
                // It runs in its turn.
                return;
            }
            state.recalled.insert(token, behind);
        }
    }

    /// Makes sure that an interrupt is noticed; true as long as there is one to notice.
    pub(crate) fn nudge(&self) -> bool {
        let state = self.state();
        let is_needed = state.running.as_ref().is_some_and(|running| running.is_open && running.is_cancelled);
        if is_needed {
            self.main.nudge();
        }
        is_needed
    }

    /// Still running.
    pub(crate) fn is_running(&self, id: CallId) -> bool {
        self.state().running.as_ref().is_some_and(|running| running.id == id)
    }

    /// No more connections, and the main thread leaves after its call.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.is_draining = true;
        state.close_door(&self.watch);
        fds::raise(&self.wake);
    }
}

impl State {
    fn interrupt(
        &mut self,
        main: Interruptible,
        is_meant: impl Fn(&Running) -> bool,
    ) -> Option<(CallId, Instant)> {
        let running = self.running.as_mut().filter(|running| is_meant(running))?;
        if running.is_open && !running.is_cancelled {
            running.is_cancelled = true;
            main.interrupt();
        }
        Some((running.id, running.deadline))
    }

    /// Refuses what has come by a connection while a call runs, and notes that its gateway waits.
    fn refuse(&mut self, connection: &mut Connection) -> Result<(), ConnectionError> {
        let reason = if self.is_draining { RefusalReason::Draining } else { RefusalReason::Busy };
        let recalled = self.recalled.get(&connection.token).copied();
        if refuse_all(connection, reason, recalled)? && !self.refused.contains(&connection.token) {
            self.refused.push(connection.token);
        }
        Ok(())
    }

    /// To be called before a connection for calls is dropped.
    fn forget(&mut self, connection: &Connection, watch: &Poll) {
        self.refused.retain(|token| *token != connection.token);
        self.recalled.remove(&connection.token);
        self.known.remove(&connection.token);
        watch.remove(connection.fd.as_raw_fd());
    }

    fn close_door(&mut self, watch: &Poll) {
        if let Some(listener) = self.listener.take() {
            watch.remove(listener.as_raw_fd());
        }
    }
}

/// Refuses each call that has arrived on `connection`, but for those up to `recalled`, which were before; whether there
/// was one.
fn refuse_all(
    connection: &mut Connection,
    reason: RefusalReason,
    recalled: Option<CallId>,
) -> Result<bool, ConnectionError> {
    let mut has_called = false;
    while let Some(frame) = connection.receive()? {
        match frame {
            Frame::Call(call, _) if recalled.is_some_and(|last| call.id <= last) => {}
            Frame::Call(call, _) => {
                connection.send_now(&Frame::Refused(call.id, reason).encode())?;
                has_called = true;
            }
            // A cancelled call has ended, or is cancelled by the connection for control; a declined turn has passed.
            Frame::Cancel(_) | Frame::Decline => {}
            _ => return Err(ConnectionError::Ended),
        }
    }
    Ok(has_called)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use bytes::Bytes;
    use millgate_contract::{
        frame::{Call, HEADER_BYTES, Header},
        ids::RequestId,
    };

    use super::*;
    use crate::fds::Told;

    fn desk() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        Desk::new(UnixListener::bind(folder.path().join("s0.sock")).unwrap().into()).unwrap()
    }

    /// A connection as the watcher makes it, and its gateway's end.
    fn connection(desk: &Desk, token: u64) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours.into(), token).unwrap();
        desk.watch.add(&connection.fd, token, libc::EPOLLIN).unwrap();
        (connection, theirs)
    }

    fn send_call(gateway: &mut UnixStream) {
        let call = Call {
            id: CallId(9),
            remaining_ms: 1,
            request_id: RequestId::new("r"),
            traceparent: String::new(),
            busy_poll_us: 0,
        };
        std::io::Write::write_all(gateway, &Frame::Call(call, Bytes::from_static(b"1")).encode()).unwrap();
    }

    fn is_refused(gateway: &mut UnixStream) -> bool {
        let mut raw = [0; HEADER_BYTES];
        gateway.set_nonblocking(true).unwrap();
        std::io::Read::read_exact(gateway, &mut raw).is_ok() && Header::decode(&raw).is_ok()
    }

    #[test]
    fn a_connection_that_joins_just_before_a_call_begins_is_refused_and_not_left_waiting() {
        let desk = desk();
        let (caller, _caller_end) = connection(&desk, 20);
        let (late, mut late_end) = connection(&desk, 21);
        desk.join(late);
        desk.begin(CallId(1), &caller, Instant::now(), Vec::new());
        send_call(&mut late_end);
        assert_eq!(desk.watch.wait(0), Some(Told { token: 21, is_ended: false }), "the watcher hears of it");
        assert!(desk.refuse(21));
        assert!(is_refused(&mut late_end));
        let back = desk.end();
        assert_eq!(back.connections.iter().map(|connection| connection.token).collect::<Vec<_>>(), [21]);
        assert_eq!(back.refused, [21]);
        send_call(&mut late_end);
        assert_eq!(desk.watch.wait(0), None, "it is the main thread's again");
        drop(late_end);
        assert_eq!(desk.watch.wait(0), Some(Told { token: 21, is_ended: true }), "but its end is heard");
    }

    #[test]
    fn a_call_that_was_read_ahead_is_refused_when_another_begins() {
        let desk = desk();
        let (caller, _caller_end) = connection(&desk, 20);
        let (mut other, mut other_end) = connection(&desk, 21);
        send_call(&mut other_end);
        send_call(&mut other_end);
        assert!(other.receive().unwrap().is_some());
        assert!(other.has_read_ahead());
        desk.begin(CallId(1), &caller, Instant::now(), vec![other]);
        assert!(is_refused(&mut other_end));
        assert_eq!(desk.end().refused, [21]);
        assert_eq!(desk.end().refused, [0_u64; 0]);
    }

    #[test]
    fn an_interrupt_is_only_sent_while_the_function_runs() {
        let desk = desk();
        let (caller, _caller_end) = connection(&desk, 20);
        desk.begin(CallId(1), &caller, Instant::now(), Vec::new());
        assert_eq!(desk.close_to_interrupts(), Ended { is_cancelled: false, is_draining: false });
        desk.cancel("", CallId(1));
        assert!(!desk.close_to_interrupts().is_cancelled);
        assert!(desk.is_running(CallId(1)));
        drop(desk.end());
        assert!(!desk.is_running(CallId(1)));
    }
}
