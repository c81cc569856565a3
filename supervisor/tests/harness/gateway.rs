//! A gateway as a replica sees it: one connection, one call at a time.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use bytes::Bytes;
use millgate_contract::{
    frame::{Call, Done, Frame, HEADER_BYTES, Header, Hello, Join, Outcome, Role},
    ids::{CallId, RequestId},
};

use super::PATIENCE;

pub(crate) struct Gateway {
    stream: UnixStream,
    pub(crate) hello: Hello,
    next_call: u64,
}

impl Gateway {
    pub(crate) fn connect(path: &Path) -> Self {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let Frame::Hello(hello) = read_frame(&mut stream).unwrap() else { panic!("no hello") };
        let join = Frame::Join(Join { version: 1, role: Role::Calls, gateway: "test".into() });
        stream.write_all(&join.encode()).unwrap();
        Self { stream, hello, next_call: 0 }
    }

    /// Begins a call.
    pub(crate) fn send(&mut self, request: &str) {
        self.send_as("r", request);
    }

    /// Begins a call of a request with this id.
    pub(crate) fn send_as(&mut self, request_id: &str, request: &str) {
        self.next_call += 1;
        let call = Call {
            id: CallId(self.next_call),
            remaining_ms: 60_000,
            request_id: RequestId::new(request_id),
            traceparent: String::new(),
            busy_poll_us: 0,
        };
        let frame = Frame::Call(call, Bytes::copy_from_slice(request.as_bytes()));
        self.stream.write_all(&frame.encode()).unwrap();
    }

    /// Waits until the call runs.
    pub(crate) fn accepted(&mut self) {
        assert_eq!(read_frame(&mut self.stream).unwrap(), Frame::Accepted(CallId(self.next_call)));
    }

    pub(crate) fn done(&mut self) -> Done {
        match read_frame(&mut self.stream).unwrap() {
            Frame::Done(done) => done,
            other => panic!("{other:?}"),
        }
    }

    /// A whole call.
    pub(crate) fn call(&mut self, request: &str) -> Done {
        self.send(request);
        self.accepted();
        self.done()
    }

    /// The value of a call that goes well.
    pub(crate) fn value(&mut self, request: &str) -> serde_json::Value {
        let done = self.call(request);
        let text = String::from_utf8_lossy(&done.value).into_owned();
        assert_eq!(done.outcome, Outcome::Ok, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn read_frame(stream: &mut UnixStream) -> io::Result<Frame> {
    loop {
        let mut raw = [0; HEADER_BYTES];
        stream.read_exact(&mut raw)?;
        let header = Header::decode(&raw).unwrap();
        let mut payload = vec![0; header.payload_bytes];
        stream.read_exact(&mut payload)?;
        if let Some(frame) = header.decode_payload(payload.into()).unwrap() {
            return Ok(frame);
        }
    }
}
