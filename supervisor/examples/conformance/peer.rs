//! One connection of a gateway.

use std::{
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use millgate_contract::{
    frame::{Call, Done, Frame, HEADER_BYTES, Header, Hello, Join, Outcome, Role},
    ids::{CallId, RequestId},
};

use super::runtime::Kept;

/// A connection; closed on drop.
pub(crate) struct Peer {
    stream: UnixStream,
    patience: Duration,
    next_call: u64,
}

impl Peer {
    pub(crate) fn connect(path: &Path, patience: Duration) -> Kept<Self> {
        let stream =
            UnixStream::connect(path).map_err(|error| format!("its slot cannot be connected to: {error}"))?;
        // Either call fails on a time of 0 only.
        let _ = stream.set_read_timeout(Some(patience));
        let _ = stream.set_write_timeout(Some(patience));
        // No small number: an id is the gateway's to choose.
        Ok(Self { stream, patience, next_call: 0x0102_0304_0506_0708 })
    }

    pub(crate) fn hello(&mut self) -> Kept<Hello> {
        match self.frame()? {
            Frame::Hello(hello) => Ok(hello),
            other => Err(format!("it began a connection with {other:?}, not `Hello`")),
        }
    }

    /// `Hello`, then `Join` in this role.
    pub(crate) fn join(mut self, role: Role, gateway: &str) -> Kept<Self> {
        self.hello()?;
        self.join_as(1, role, gateway)
    }

    /// `Join` with a version that the replica offers.
    pub(crate) fn join_as(mut self, version: u16, role: Role, gateway: &str) -> Kept<Self> {
        let join = Join { version, role, gateway: gateway.to_owned() };
        self.send(&Frame::Join(join).encode())?;
        Ok(self)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Kept {
        self.stream.write_all(bytes).map_err(|error| format!("it closed a connection: {error}"))
    }

    /// Waits until all that was sent has been read.
    pub(crate) fn until_read(&self) -> Kept {
        let begun = Instant::now();
        while begun.elapsed() < self.patience {
            let mut unread: libc::c_int = 0;
            // SAFETY: the descriptor is open, and the kernel writes one integer, of bytes the other side has not read.
            let asked = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
            if asked == 0 && unread == 0 {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(format!("it did not read what was sent in {:?}", self.patience))
    }

    /// The bytes of the next call.
    pub(crate) fn call_frame(&mut self, request: &str) -> BytesMut {
        self.next_call += 1;
        let call = Call {
            id: self.id(),
            remaining_ms: 60_000,
            request_id: RequestId::new("conformance"),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
            busy_poll_us: 100,
        };
        BytesMut::from(&Frame::Call(call, Bytes::copy_from_slice(request.as_bytes())).encode()[..])
    }

    /// Of the call that was sent last.
    pub(crate) fn id(&self) -> CallId {
        CallId(self.next_call)
    }

    pub(crate) fn begin(&mut self, request: &str) -> Kept {
        let frame = self.call_frame(request);
        self.send(&frame)
    }

    pub(crate) fn accepted(&mut self) -> Kept {
        match self.frame()? {
            Frame::Accepted(id) if id == self.id() => Ok(()),
            other => Err(format!("it answered call {} by {other:?}, not `Accepted`", self.id())),
        }
    }

    pub(crate) fn done(&mut self) -> Kept<Done> {
        match self.frame()? {
            Frame::Done(done) if done.id == self.id() => Ok(done),
            other => Err(format!("it ended call {} by {other:?}, not `Done`", self.id())),
        }
    }

    /// A whole call.
    pub(crate) fn call(&mut self, request: &str) -> Kept<Done> {
        self.begin(request)?;
        self.accepted()?;
        self.done()
    }

    /// A call that goes well, and what it must come to.
    pub(crate) fn expect(&mut self, request: &str, answer: &str) -> Kept {
        let done = self.call(request)?;
        expect_value(&done, answer)
    }

    /// Nothing more comes.
    pub(crate) fn expect_end(&mut self) -> Kept {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => Err("it sent more on a connection that it should have closed".to_owned()),
            Err(_) => Err(format!("it did not close the connection in {:?}", self.patience)),
        }
    }

    /// The next frame that is known here.
    pub(crate) fn frame(&mut self) -> Kept<Frame> {
        loop {
            let mut raw = [0; HEADER_BYTES];
            self.read(&mut raw)?;
            let header = Header::decode(&raw).map_err(|error| format!("it sent no frame: {error}"))?;
            let mut payload = vec![0; header.payload_bytes];
            self.read(&mut payload)?;
            let decoded = header.decode_payload(payload.into());
            if let Some(frame) = decoded.map_err(|error| format!("it sent no frame: {error}"))? {
                return Ok(frame);
            }
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Kept {
        self.stream.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                "it closed the connection".to_owned()
            }
            _ => format!("no frame came in {:?}", self.patience),
        })
    }
}

pub(crate) fn expect_value(done: &Done, answer: &str) -> Kept {
    let value = String::from_utf8_lossy(&done.value);
    let parsed = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
    if done.outcome == Outcome::Ok && parsed(&value) == parsed(answer) {
        Ok(())
    } else {
        let value: String = value.chars().take(200).collect();
        Err(format!("a call came to {:?} `{value}`, not to `{answer}`", done.outcome))
    }
}
