//! The thread that never attaches to Python: it answers whoever connects, refuses calls while one runs, interrupts the
//! running one on `Cancel` or when its gateway is gone, and hears SIGTERM and the supervisor's end.
//!
//! All its waiting is in one epoll; it never blocks elsewhere. It must not touch a Python object, nor wait for the
//! interpreter: a function that holds the interpreter for ever must not silence it.

use std::{
    collections::HashMap,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use millgate_contract::{
    frame::{Frame, PROTOCOL, Role},
    ids::CallId,
};
use nix::errno::Errno;

use crate::{
    connection::{Connection, ConnectionError},
    desk::{Desk, LISTENER},
    fds::{self, Told},
    log, signals,
};

const TERMINATE: u64 = 1;
const CHANNEL: u64 = 2;
const FIRST_CONNECTION: u64 = 16;
/// Connections that have not said who they are; the oldest gives way.
const NEWCOMERS_MAX: usize = 64;
/// Connections for control.
const CONTROLS_MAX: usize = 256;
/// Milliseconds to wait after the system has run out of descriptors, unless something else happens.
const ACCEPT_PAUSE_MS: i32 = 100;

/// Milliseconds between nudges of a call that was interrupted.
const NUDGE_MS: i32 = 10;

/// What the watcher is given.
pub(crate) struct Watch {
    /// Shared with the main thread.
    pub(crate) desk: Arc<Desk>,
    /// `Hello`, encoded.
    pub(crate) hello: Bytes,
    /// Raised by SIGTERM.
    pub(crate) terminate: OwnedFd,
    /// The supervisor's; its end is the supervisor's end. Kept open by the main thread.
    pub(crate) channel: Arc<OwnedFd>,
}

struct Watcher {
    watch: Watch,
    newcomers: HashMap<u64, Connection>,
    /// For control, and for words aside.
    controls: HashMap<u64, Connection>,
    next_token: u64,
    /// A call whose gateway is gone, and when it must have ended.
    orphan: Option<(CallId, Instant)>,
    /// A call has been interrupted and its function has not ended yet.
    is_nudging: bool,
}

/// Starts the thread. It ends with the process.
pub(crate) fn start(watch: Watch) -> Result<(), Errno> {
    let poll = &watch.desk.watch;
    poll.add(&watch.terminate, TERMINATE, libc::EPOLLIN)?;
    // No event asked for: the hang-up is always told.
    poll.add(&watch.channel, CHANNEL, 0)?;
    signals::terminate_raises(&watch.terminate)?;
    signals::nudges_do_nothing_else()?;
    let mut watcher = Watcher {
        watch,
        newcomers: HashMap::new(),
        controls: HashMap::new(),
        next_token: FIRST_CONNECTION,
        orphan: None,
        is_nudging: false,
    };
    let thread = std::thread::Builder::new().name("millgate-watcher".to_owned());
    let started = signals::blocked(|| thread.spawn(move || watcher.run()))?;
    started.map(drop).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN)))
}

impl Watcher {
    fn run(&mut self) {
        loop {
            let told = self.watch.desk.watch.wait(self.timeout_ms());
            self.end_orphan();
            self.is_nudging = self.watch.desk.nudge();
            let Some(told) = told else { continue };
            match told.token {
                LISTENER => self.accept(),
                TERMINATE => {
                    fds::clear(&self.watch.terminate);
                    self.watch.desk.drain();
                }
                CHANNEL => {
                    // Without a supervisor nobody would ever replace, kill or reap this process.
                    self.watch.desk.watch.remove(self.watch.channel.as_raw_fd());
                    self.watch.desk.drain();
                }
                _ => {
                    self.hear(told);
                    self.is_nudging = self.watch.desk.nudge();
                }
            }
        }
    }

    fn timeout_ms(&self) -> i32 {
        let nudge_ms = if self.is_nudging { NUDGE_MS } else { i32::MAX };
        match self.orphan {
            Some((_, deadline)) => {
                let left = deadline.saturating_duration_since(Instant::now());
                i32::try_from(left.as_millis()).unwrap_or(i32::MAX).saturating_add(1).min(nudge_ms)
            }
            None if self.is_nudging => nudge_ms,
            None => -1,
        }
    }

    /// A call that nobody waits for and that no interrupt has ended by its deadline takes its process along.
    fn end_orphan(&mut self) {
        let Some((id, deadline)) = self.orphan else { return };
        if !self.watch.desk.is_running(id) {
            self.orphan = None;
        } else if Instant::now() >= deadline {
            log::say("the gateway of a call is gone and the call did not end in time; the replica ends");
            // SAFETY: ends the process at once; there is nothing here to put in order.
            unsafe { libc::_exit(1) }
        }
    }

    fn accept(&mut self) {
        match self.watch.desk.accept() {
            Ok(fd) => {
                let token = self.next_token;
                self.next_token += 1;
                // A connection that cannot be greeted is closed, by drop.
                let _ = self.greet(fd, token);
            }
            // Out of descriptors or memory: the connection stays in the queue, and epoll would tell of it at once.
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                let nothing = &mut [];
                // SAFETY: waits, and writes nowhere.
                unsafe { libc::poll(nothing.as_mut_ptr(), 0, ACCEPT_PAUSE_MS) };
            }
            // Gone again, or taken by the replica before this one in the slot.
            Err(_) => {}
        }
    }

    fn greet(&mut self, fd: OwnedFd, token: u64) -> Result<(), ConnectionError> {
        let connection = Connection::new(fd, token)?;
        connection.send_now(&self.watch.hello)?;
        if self.newcomers.len() >= NEWCOMERS_MAX
            && let Some(oldest) = self.newcomers.keys().min().copied()
        {
            self.forget_newcomer(oldest);
        }
        self.watch.desk.watch.add(&connection.fd, token, libc::EPOLLIN)?;
        self.newcomers.insert(token, connection);
        Ok(())
    }

    fn forget_newcomer(&mut self, token: u64) {
        if let Some(connection) = self.newcomers.remove(&token) {
            self.watch.desk.watch.remove(connection.fd.as_raw_fd());
        }
    }

    fn hear(&mut self, Told { token, is_ended }: Told) {
        if self.newcomers.contains_key(&token) {
            self.hear_newcomer(token);
        } else if self.controls.contains_key(&token) {
            self.hear_control(token);
        } else if !self.watch.desk.refuse(token) && is_ended {
            // Only its end tells of a connection that the main thread owns. Something to read is a connection that was
            // lent when epoll told of it and has been taken back since, perhaps for the call that runs now.
            self.orphan = self.watch.desk.hung_up(token).or(self.orphan);
        }
    }

    fn hear_newcomer(&mut self, token: u64) {
        let Some(newcomer) = self.newcomers.get_mut(&token) else { return };
        let join = match newcomer.receive() {
            Ok(None) => return,
            Ok(Some(Frame::Join(join))) if (PROTOCOL.min..=PROTOCOL.max).contains(&join.version) => join,
            _ => return self.forget_newcomer(token),
        };
        let mut connection = self.newcomers.remove(&token).expect("it was found above");
        connection.gateway = join.gateway.into();
        connection.version = join.version;
        connection.role = join.role;
        match join.role {
            Role::Calls => {
                self.watch.desk.join(connection);
                // A call may have come with the `Join`, and then epoll has nothing more to tell.
                self.watch.desk.refuse(token);
            }
            Role::Control | Role::Aside if self.controls.len() < CONTROLS_MAX => {
                self.controls.insert(token, connection);
                self.hear_control(token);
            }
            Role::Control | Role::Aside => self.watch.desk.watch.remove(connection.fd.as_raw_fd()),
        }
    }

    fn hear_control(&mut self, token: u64) {
        let Some(connection) = self.controls.get_mut(&token) else { return };
        loop {
            match connection.receive() {
                Ok(None) => return,
                Ok(Some(Frame::Cancel(id))) => self.watch.desk.cancel(&connection.gateway, id),
                Ok(Some(Frame::Recall(id, last))) => self.watch.desk.recall(&connection.gateway, id, last),
                _ => break,
            }
        }
        let connection = self.controls.remove(&token).expect("it was found above");
        self.watch.desk.watch.remove(connection.fd.as_raw_fd());
        let speaks_for_it =
            |other: &Connection| other.role == Role::Control && other.gateway == connection.gateway;
        if speaks_for_it(&connection) && !self.controls.values().any(speaks_for_it) {
            self.orphan = self.watch.desk.vanished(&connection.gateway).or(self.orphan);
        }
    }
}
