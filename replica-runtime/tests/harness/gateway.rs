//! A gateway as a replica meets it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

use bytes::Bytes;
use millgate_contract::{
    frame::{Call, Done, Frame, HEADER_BYTES, Header, Hello, Outcome, RefusalReason},
    ids::{CallId, RequestId},
};

use super::Log;

/// One connection to a replica.
pub struct Gateway {
    pub stream: UnixStream,
    log: Log,
    calls: u64,
    /// The leave that its calls bring.
    pub busy_poll_us: u16,
}

impl Gateway {
    pub(super) fn new(stream: UnixStream, log: Log) -> Self {
        Self { stream, log, calls: 0, busy_poll_us: 0 }
    }

    pub fn hello(&mut self) -> Hello {
        match self.next() {
            Frame::Hello(hello) => hello,
            other => panic!("not hello: {other:?}"),
        }
    }

    pub fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).unwrap();
    }

    /// The next frame, or `None` at the end.
    pub fn receive(&mut self) -> Option<Frame> {
        let mut raw = [0; HEADER_BYTES];
        if let Err(error) = self.stream.read_exact(&mut raw) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nothing came\n{}", self.log.text());
            return None;
        }
        let header = Header::decode(&raw).unwrap();
        let mut payload = vec![0; header.payload_bytes];
        self.stream.read_exact(&mut payload).ok()?;
        Some(header.decode_payload(payload.into()).unwrap().unwrap())
    }

    pub fn next(&mut self) -> Frame {
        self.receive().unwrap_or_else(|| panic!("the connection ended\n{}", self.log.text()))
    }

    /// Sends a call and does not wait.
    pub fn begin(&mut self, json: &str) -> CallId {
        self.begin_within(json, 30_000)
    }

    pub fn begin_within(&mut self, json: &str, remaining_ms: u32) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        let busy_poll_us = self.busy_poll_us;
        self.send(&match call_frame(id, json, remaining_ms) {
            Frame::Call(call, body) => Frame::Call(Call { busy_poll_us, ..call }, body),
            other => other,
        });
        id
    }

    /// The same as part of a trace.
    pub fn begin_traced(&mut self, request_id: &str, traceparent: &str) -> CallId {
        self.calls += 1;
        let id = CallId(self.calls);
        let request_id = RequestId::new(request_id);
        let call =
            Call { id, remaining_ms: 30_000, request_id, traceparent: traceparent.into(), busy_poll_us: 0 };
        self.send(&Frame::Call(call, Bytes::from_static(b"null")));
        id
    }

    pub fn expect_accepted(&mut self, id: CallId) {
        assert_eq!(self.next(), Frame::Accepted(id));
    }

    pub fn expect_refused(&mut self, id: CallId) {
        assert_eq!(self.next(), Frame::Refused(id, RefusalReason::Busy));
    }

    pub fn expect_grant(&mut self) {
        assert_eq!(self.next(), Frame::Grant);
    }

    pub fn expect_done(&mut self, id: CallId) -> Done {
        match self.next() {
            Frame::Done(done) => {
                assert_eq!(done.id, id);
                done
            }
            other => panic!("not done: {other:?}"),
        }
    }

    /// One call from its begin to its end.
    pub fn call(&mut self, json: &str) -> Done {
        let id = self.begin(json);
        self.expect_accepted(id);
        self.expect_done(id)
    }

    /// The answer's JSON.
    pub fn answer(&mut self, json: &str) -> String {
        let done = self.call(json);
        assert_eq!(done.outcome, Outcome::Ok, "{}\n{}", text(&done.value), self.log.text());
        text(&done.value)
    }
}

pub fn call_frame(id: CallId, json: &str, remaining_ms: u32) -> Frame {
    let call = Call {
        id,
        remaining_ms,
        request_id: RequestId::new("r-1"),
        traceparent: String::new(),
        busy_poll_us: 0,
    };
    Frame::Call(call, Bytes::copy_from_slice(json.as_bytes()))
}

pub fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
