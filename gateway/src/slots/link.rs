//! One connection to a replica: greeted, and then used for one call after another.
//!
//! A link is owned by its keeper while it connects, by the line while idle, by the call while busy. Whoever drops it
//! ends it, and its keeper connects anew: there is no other way to get rid of one, and none to lose one. One whose replica
//! is busy for other gateways is with its keeper again until its turn is told (the contract's `frame`). All that comes
//! by it is hostile input: lengths are capped by the contract and memory grows only with what has arrived.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use millgate_contract::{
    frame::{
        AHEAD_SINCE, Done, Frame, FrameError, HEADER_BYTES, Header, Hello, Join, PROTOCOL, Role, TURNS_SINCE,
    },
    ids::{CallId, SlotIndex},
    limits,
    spec::DeploymentSpec,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::oneshot,
};

use super::{ahead::Ahead, deaths::Death, deployment::Shared};
use crate::{
    call::{self, Terms},
    line::Place,
};

/// Bytes read at once; a link's buffer shrinks back to it after a large answer.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that are written to a replica before it reads them: half of what the kernel then allows, which is its limit for anybody
/// (`net.core.wmem_max`) if that is lower. With the kernel's own 208 KB the gateway is woken several times to go on with 1 MB, and
/// four callers have 0.95 of the answers that they have with this (in turns); with 5 MB about as many.
const SEND_BUFFER_BYTES: usize = 512 * 1024;
/// A buffer larger than this is not kept by an idle link.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Why a slot could not be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("not connected: {0}")]
    Io(#[from] io::Error),
    #[error("not greeted by a frame: {0}")]
    Frame(#[from] FrameError),
    #[error("closed before its greeting")]
    Closed,
    #[error("greeted by something else than `Hello`")]
    NotHello,
    #[error("the slot belongs to deployment `{0}`")]
    Deployment(String),
    #[error("the replica runs build `{0}`")]
    Build(String),
    #[error("the replica is in slot {0}")]
    Slot(SlotIndex),
    #[error("the replica speaks versions {0} to {1} only")]
    Protocol(u16, u16),
}

/// A connection to a replica.
pub(crate) struct Link {
    pub(crate) stream: UnixStream,
    pub(crate) hello: Hello,
    pub(crate) shared: Arc<Shared>,
    /// Its process is dead, by the supervisor's word.
    pub(crate) death: Arc<Death>,
    /// Of the frames both sides speak.
    version: u16,
    /// The replica is kept for this gateway: it is its turn.
    is_kept: bool,
    /// Header and head of the call being written; kept for its memory.
    pub(crate) head: BytesMut,
    received: BytesMut,
    /// Calls that lie before the replica, behind the one that runs.
    pub(crate) ahead: Ahead,
    calls: u64,
    /// It has answered a call: its keeper need not pause before the next one.
    has_served: Arc<AtomicBool>,
    /// Sending the link back, or dropping it, tells its keeper.
    home: Option<oneshot::Sender<Link>>,
}

impl Place for Link {
    fn is_retired(&self) -> bool {
        self.shared.is_retired()
    }

    fn is_kept(&self) -> bool {
        self.is_kept
    }

    fn decline(&mut self) {
        self.is_kept = false;
        // Written whole or, when there is no room for even this, not at all; then the turn passes with its time.
        let _ = self.stream.try_write(&Frame::Decline.encode());
    }

    /// A whole frame without its number.
    type Cargo = BytesMut;

    fn orphaned(self) {
        call::follow(self);
    }
}

/// What became of a link that its keeper let go.
pub(crate) type Homecoming = oneshot::Receiver<Link>;

impl Link {
    /// Connects to a slot and waits until its replica greets, however long that takes.
    pub(crate) async fn join(
        shared: &Arc<Shared>,
        slot: SlotIndex,
        role: Role,
        has_served: Arc<AtomicBool>,
    ) -> Result<Self, JoinError> {
        let mut stream = connect(&DeploymentSpec::slot_socket(shared.run_dir(), slot)).await?;
        if role == Role::Calls {
            // One that stays as it is only writes more often.
            let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        }
        let mut received = BytesMut::with_capacity(READ_BYTES);
        let hello = loop {
            match take_frame(&mut received)? {
                Some(Frame::Hello(hello)) => break hello,
                Some(_) => return Err(JoinError::NotHello),
                None if stream.read_buf(&mut received).await? == 0 => return Err(JoinError::Closed),
                None => {}
            }
        };
        let version = shared.check(&hello, slot)?;
        let join = Join { version, role, gateway: shared.gateway().to_owned() };
        stream.write_all(&Frame::Join(join).encode()).await?;
        let death = shared.deaths().watch(&hello.replica);
        let head = BytesMut::new();
        Ok(Self {
            stream,
            hello,
            shared: Arc::clone(shared),
            death,
            version,
            is_kept: false,
            head,
            received,
            ahead: Ahead::default(),
            calls: 0,
            has_served,
            home: None,
        })
    }

    /// Lets go of a link: its keeper hears by the receiver that it comes back, or that it is gone.
    pub(crate) fn let_go(mut self) -> (Self, Homecoming) {
        let (sender, receiver) = oneshot::channel();
        self.home = Some(sender);
        (self, receiver)
    }

    /// The replica tells whose turn it is.
    pub(super) fn knows_turns(&self) -> bool {
        self.version >= TURNS_SINCE
    }

    /// Waits until the replica, which has queued this gateway, says that it is its turn. False when the connection has
    /// ended, or nonsense came by it. May be dropped and called again.
    pub(super) async fn turn(&mut self) -> bool {
        let death = Arc::clone(&self.death);
        loop {
            match self.next_frame() {
                Ok(Some(Frame::Grant)) => {
                    self.is_kept = true;
                    return true;
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
            tokio::select! {
                biased;
                () = death.said() => return false,
                read = self.read() => if !matches!(read, Ok(1..)) {
                    return false;
                },
            }
        }
    }

    /// Gives the link back to its keeper, to be offered again when the replica has time for this gateway.
    pub(crate) fn go_home(mut self) {
        // What is sent ahead to a replica of several gateways comes back most of the time.
        self.shared.pace().forget();
        if let Some(home) = self.home.take() {
            // The keeper is gone when the deployment is retired; then the link ends here.
            let _ = home.send(self);
        }
    }

    /// The number of the next call.
    pub(crate) fn next_call(&mut self) -> CallId {
        // With the call, the replica's keeping ends.
        self.is_kept = false;
        self.calls += 1;
        CallId(self.calls)
    }

    /// Sends the oldest calls of the line ahead, if there is room for a few and the replica can give them back. The call before
    /// them began so long ago; how long after its begin to ask again, if it is too early.
    pub(crate) fn send_ahead(&mut self, terms: &Terms, since_begin: Duration) -> Option<Duration> {
        if self.version < AHEAD_SINCE || self.is_retired() {
            return None;
        }
        let (line, pace) = (self.shared.line(), self.shared.pace());
        let (room, others) = match pace.calls() {
            0 => {
                let near_end = pace.near_end()?;
                // Whoever is next elsewhere must find somebody waiting.
                let others = usize::from(self.shared.slots_connected()).saturating_sub(1);
                if since_begin < near_end {
                    return (self.ahead.is_empty() && line.len() > others).then_some(near_end);
                }
                (1, others)
            }
            room => (room, 0),
        };
        // Several at a time: each write costs a system call.
        if self.ahead.len() > room / 2 {
            return None;
        }
        let (calls, ahead) = (&mut self.calls, &mut self.ahead);
        line.send_ahead(room - ahead.len(), others, |number, frame| {
            *calls += 1;
            ahead.add(number, CallId(*calls), frame);
        });
        if !ahead.is_empty() {
            ahead.set_terms(terms);
            // What goes wrong here is seen by whoever reads.
            let _ = self.write_ahead();
        }
        None
    }

    /// Those behind the call that runs are wanted back, if they are not already: the last of them.
    pub(crate) fn recall(&mut self) -> Option<CallId> {
        let last = self.ahead.take_back()?;
        self.shared.pace().doubt();
        Some(last)
    }

    /// Writes what there is room for.
    fn write_ahead(&mut self) -> io::Result<()> {
        while !self.ahead.unwritten.is_empty() {
            let written = self.stream.try_write(&self.ahead.unwritten)?;
            self.ahead.unwritten.advance(written);
        }
        Ok(())
    }

    /// False when something arrived that an idle replica has no business saying, or the connection has ended.
    pub(crate) fn is_quiet(&mut self) -> bool {
        if self.death.is_said() {
            return false;
        }
        loop {
            match self.next_frame() {
                Ok(None) if !self.received.is_empty() => return false,
                // A turn that comes when nobody waits for it any more is as good as none.
                Ok(None | Some(Frame::Grant)) => {}
                Ok(Some(_)) | Err(_) => return false,
            }
            self.received.reserve(READ_BYTES);
            match self.stream.try_read_buf(&mut self.received) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// The next frame among the bytes that have been read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        take_frame(&mut self.received)
    }

    /// Reads more bytes; 0 is the end. May be dropped and called again.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        self.received.reserve(READ_BYTES);
        while !self.ahead.unwritten.is_empty() {
            // Both at once: the replica may be at writing, too, until we read.
            let ready = self.stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
            if ready.is_readable() {
                match self.stream.try_read_buf(&mut self.received) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            }
            match self.write_ahead() {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                _ => {}
            }
        }
        self.stream.read_buf(&mut self.received).await
    }

    /// Reads everything that has arrived. It asks the kernel itself: the runtime says "nothing there" until it has
    /// been told otherwise, which may be after the supervisor's word, and a call would be tried again that has run.
    pub(crate) fn read_arrived(&mut self) -> io::Result<()> {
        let mut stream = std::os::unix::net::UnixStream::from(self.stream.as_fd().try_clone_to_owned()?);
        let mut piece = [0; READ_BYTES];
        // What is beyond any frame was written by nobody who answers calls.
        while self.received.len() <= HEADER_BYTES + limits::FRAME_BYTES_MAX {
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(bytes) => self.received.extend_from_slice(&piece[..bytes]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Its replica has answered.
    pub(crate) fn served(&self, done: &Done) {
        self.has_served.store(true, Ordering::Relaxed);
        if done.is_leaving {
            // It refuses all that lies behind its last call. Where each call is the last one, nothing is sent ahead.
            self.shared.pace().forget();
        } else {
            self.shared.pace().learn(&done.timings);
        }
    }

    /// Its replica has answered and takes other calls: those of this gateway next, or not before its turn (`is_queued`).
    pub(crate) fn release(mut self, is_queued: bool) {
        if self.received.is_empty() && self.received.capacity() > KEPT_BYTES_MAX {
            self.received = BytesMut::new();
        }
        if is_queued {
            return self.go_home();
        }
        let line = Arc::clone(self.shared.line());
        line.offer(self);
    }
}

/// Takes one frame off the front. `None`: not yet all there. Unknown optional frames are skipped.
fn take_frame(received: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    loop {
        let Some(raw) = received.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(raw)?;
        if received.len() < HEADER_BYTES + header.payload_bytes {
            return Ok(None);
        }
        let mut whole: Bytes = received.split_to(HEADER_BYTES + header.payload_bytes).freeze();
        let payload = whole.split_off(HEADER_BYTES);
        if let Some(frame) = header.decode_payload(payload)? {
            return Ok(Some(frame));
        }
    }
}

impl Shared {
    /// That who greets is who was looked for; the version to speak.
    fn check(&self, hello: &Hello, slot: SlotIndex) -> Result<u16, JoinError> {
        let route = self.route();
        if hello.deployment != route.deployment {
            return Err(JoinError::Deployment(hello.deployment.as_str().to_owned()));
        }
        if hello.build != route.build {
            return Err(JoinError::Build(hello.build.as_str().to_owned()));
        }
        if hello.slot != slot {
            return Err(JoinError::Slot(hello.slot));
        }
        PROTOCOL.common(hello.protocol).ok_or(JoinError::Protocol(hello.protocol.min, hello.protocol.max))
    }
}

/// Connects to a Unix socket, also where its path is longer than an address may be.
pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= limits::SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // The kernel follows the descriptor, so the address stays short whatever the folder's path is.
    let folder = File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    UnixStream::connect(short).await
}
