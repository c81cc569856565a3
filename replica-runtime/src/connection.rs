//! One connection of a gateway: frames in without blocking, frames out.
//!
//! What has arrived of a frame stays with the connection, so that it can go from one thread to the other in the middle
//! of a frame. For a frame whose header promises more than a read the rest is asked of malloc at once, up to the largest
//! call; the kernel gives it page by page, as bytes arrive. Doubled each time, 5 MB crossed the size from which on malloc maps
//! each piece anew, and a tenth of the machine's time went into page faults (`perf`, four callers).

use std::{
    io::IoSlice,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    sync::Arc,
};

use bytes::BytesMut;
use millgate_contract::{
    frame::{Frame, FrameError, HEADER_BYTES, Header, Role, TURNS_SINCE},
    limits::BODY_BYTES_MAX,
};
use nix::{
    errno::Errno,
    sys::{
        socket::{MsgFlags, sendmsg, setsockopt, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// About the bytes of the largest call.
const CALL_BYTES_MAX: usize = BODY_BYTES_MAX + READ_BYTES;
/// A buffer that grew over this is given back after its frame.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Reads in one go before others get their turn.
const READS_MAX: usize = 64;
/// Seconds that a gateway may leave an answer unread.
const SEND_S_MAX: i64 = 10;

/// Why a connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("the gateway has closed it")]
    Ended,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] Errno),
}

/// A connection; closed on drop.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) fd: OwnedFd,
    /// Its number in this process.
    pub(crate) token: u64,
    /// The gateway's name for itself; empty before its `Join`.
    pub(crate) gateway: Arc<str>,
    /// Of its `Join`; 0 before.
    pub(crate) version: u16,
    /// Of its `Join`.
    pub(crate) role: Role,
    inbox: BytesMut,
}

impl Connection {
    pub(crate) fn new(fd: OwnedFd, token: u64) -> Result<Self, Errno> {
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(SEND_S_MAX))?;
        Ok(Self { fd, token, gateway: "".into(), version: 0, role: Role::Calls, inbox: BytesMut::new() })
    }

    /// A frame that has arrived whole, reading what there is to read. `None`: not yet.
    pub(crate) fn receive(&mut self) -> Result<Option<Frame>, ConnectionError> {
        for _ in 0..READS_MAX {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            match self.read() {
                Ok(0) => return Err(ConnectionError::Ended),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }

    /// The next frame among the bytes that were read already.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>, ConnectionError> {
        while let Some(raw) = self.inbox.first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(raw)?;
            let whole = HEADER_BYTES + header.payload_bytes;
            if self.inbox.len() < whole {
                return Ok(None);
            }
            let payload = self.inbox.split_to(whole).freeze().slice(HEADER_BYTES..);
            if self.inbox.is_empty() && whole > KEPT_BYTES_MAX {
                self.inbox = BytesMut::new();
            }
            if let Some(frame) = header.decode_payload(payload)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The gateway can be told of its turn.
    pub(crate) fn knows_turns(&self) -> bool {
        self.version >= TURNS_SINCE
    }

    /// More has been read than the frames that were taken.
    pub(crate) fn has_read_ahead(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Of the frame that has begun to arrive.
    fn missing_bytes(&self) -> usize {
        let header = self.inbox.first_chunk::<HEADER_BYTES>().and_then(|raw| Header::decode(raw).ok());
        header.map_or(0, |header| HEADER_BYTES + header.payload_bytes).saturating_sub(self.inbox.len())
    }

    fn read(&mut self) -> Result<usize, Errno> {
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES / 16 {
            self.inbox.reserve(self.missing_bytes().clamp(READ_BYTES, CALL_BYTES_MAX));
        }
        let spare = self.inbox.spare_capacity_mut();
        // SAFETY: `spare` may be written to for its whole length.
        let count = unsafe {
            libc::recv(self.fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), libc::MSG_DONTWAIT)
        };
        let count = usize::try_from(count).map_err(|_| Errno::last())?;
        let filled = self.inbox.len() + count;
        // SAFETY: the kernel has written `count` bytes behind those that were there.
        unsafe { self.inbox.set_len(filled) };
        Ok(count)
    }

    /// Writes all of `parts`, one after the other, waiting for room as long as [`SEND_S_MAX`] allows.
    pub(crate) fn send(&self, parts: [&[u8]; 3]) -> Result<(), ConnectionError> {
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match sendmsg::<()>(self.fd.as_raw_fd(), rest, &[], MsgFlags::MSG_NOSIGNAL, None) {
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Writes a short frame if there is room for it now; if there is not, the gateway has stopped reading.
    pub(crate) fn send_now(&self, frame: &[u8]) -> Result<(), ConnectionError> {
        send_now(self.fd.as_raw_fd(), frame)
    }
}

/// As [`Connection::send_now`], on a connection that another thread owns.
pub(crate) fn send_now(fd: RawFd, frame: &[u8]) -> Result<(), ConnectionError> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match nix::sys::socket::send(fd, frame, flags) {
        Ok(count) if count == frame.len() => Ok(()),
        Ok(_) => Err(ConnectionError::Io(Errno::EAGAIN)),
        Err(errno) => Err(errno.into()),
    }
}
