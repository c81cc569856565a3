//! Frames to bytes and back. What the fields mean is in the module above; here is only how they are laid out.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Call, Done, Frame, FrameError, HEADER_BYTES, Hello, Join, Outcome, ProtocolRange, RefusalReason, Role,
    Timings,
};
use crate::{
    ids::{BuildId, CallId, DeploymentId, ReplicaId, RequestId, SlotIndex},
    limits,
};

/// Of the header's flags: a receiver that does not know the kind may skip the frame.
pub(super) const FLAG_OPTIONAL: u8 = 1;
/// Room made for a head; only those with long ids need more.
const HEAD_BYTES_TYPICAL: usize = 96;

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const JOIN: u8 = 2;
    pub(super) const CALL: u8 = 3;
    pub(super) const ACCEPTED: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    pub(super) const DONE: u8 = 6;
    pub(super) const CANCEL: u8 = 7;
    // 8 `Chunk` and 9 `End` are reserved for streaming.
    pub(super) const GRANT: u8 = 10;
    pub(super) const DECLINE: u8 = 11;
    pub(super) const RECALL: u8 = 12;
}

/// A header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow the header.
    pub payload_bytes: usize,
    kind: u8,
    is_optional: bool,
    head_bytes: usize,
    call: CallId,
}

impl Header {
    /// Reads a header; refuses one that promises too much.
    pub fn decode(raw: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let payload_bytes = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]) as usize;
        let head_bytes = usize::from(u16::from_le_bytes([raw[6], raw[7]]));
        if payload_bytes > limits::FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge(payload_bytes));
        }
        if head_bytes > payload_bytes {
            return Err(FrameError::HeadOverrun { head_bytes, payload_bytes });
        }
        let mut id = [0; 8];
        id.copy_from_slice(&raw[8..]);
        Ok(Self {
            payload_bytes,
            kind: raw[4],
            is_optional: raw[5] & FLAG_OPTIONAL != 0,
            head_bytes,
            call: CallId(u64::from_le_bytes(id)),
        })
    }

    /// Reads the payload that followed this header. `None` is an optional frame of a kind not known here: skip it.
    ///
    /// # Panics
    /// If `payload` has not exactly [`Header::payload_bytes`].
    pub fn decode_payload(self, payload: Bytes) -> Result<Option<Frame>, FrameError> {
        assert_eq!(payload.len(), self.payload_bytes, "the payload is read whole before it is decoded");
        let body = payload.slice(self.head_bytes..);
        let mut head = Fields(&payload[..self.head_bytes]);
        let id = self.call;
        Ok(Some(match self.kind {
            kind::HELLO => Frame::Hello(Hello {
                protocol: ProtocolRange { min: head.u16("protocol_min")?, max: head.u16("protocol_max")? },
                deployment: DeploymentId::new(head.text("deployment")?),
                build: BuildId::new(head.text("build")?),
                slot: SlotIndex(head.u16("slot")?),
                replica: ReplicaId::new(head.text("replica")?),
                nonce: head.u64("nonce")?,
            }),
            kind::JOIN => Frame::Join(Join {
                version: head.u16("version")?,
                role: match head.u8("role")? {
                    0 => Role::Calls,
                    1 => Role::Control,
                    2 => Role::Aside,
                    _ => return Err(FrameError::Field("role")),
                },
                gateway: head.text("gateway")?.to_owned(),
            }),
            kind::CALL => Frame::Call(
                Call {
                    id,
                    remaining_ms: head.u32("remaining_ms")?,
                    request_id: RequestId::new(head.text("request_id")?),
                    traceparent: head.text("traceparent")?.to_owned(),
                    busy_poll_us: if head.is_empty() { 0 } else { head.u16("busy_poll_us")? },
                },
                body,
            ),
            kind::ACCEPTED => Frame::Accepted(id),
            kind::REFUSED => Frame::Refused(
                id,
                match head.u8("reason")? {
                    0 => RefusalReason::Busy,
                    1 => RefusalReason::Draining,
                    2 => RefusalReason::NotReady,
                    _ => return Err(FrameError::Field("reason")),
                },
            ),
            kind::DONE => Frame::Done(Self::decode_done(id, head, &body)?),
            kind::CANCEL => Frame::Cancel(id),
            kind::GRANT => Frame::Grant,
            kind::DECLINE => Frame::Decline,
            kind::RECALL => Frame::Recall(id, CallId(head.u64("last")?)),
            _ if self.is_optional => return Ok(None),
            unknown => return Err(FrameError::UnknownKind(unknown)),
        }))
    }

    fn decode_done(id: CallId, mut head: Fields<'_>, body: &Bytes) -> Result<Done, FrameError> {
        let outcome = match head.u8("outcome")? {
            0 => Outcome::Ok,
            1 => Outcome::Exception,
            2 => Outcome::BadOutput,
            3 => Outcome::BadInput,
            4 => Outcome::Cancelled,
            _ => return Err(FrameError::Field("outcome")),
        };
        let facts = head.u8("facts")?;
        let value_bytes = head.u32("value_bytes")? as usize;
        let timings = Timings {
            decode_us: head.u32("decode_us")?,
            run_us: head.u32("run_us")?,
            encode_us: head.u32("encode_us")?,
            cpu_user_us: head.u32("cpu_user_us")?,
            cpu_system_us: head.u32("cpu_system_us")?,
            memory_peak_kib: head.u32("memory_peak_kib")?,
        };
        let metrics_bytes = body.len().checked_sub(value_bytes).ok_or(FrameError::Field("value_bytes"))?;
        if value_bytes > limits::RESPONSE_BYTES_MAX {
            return Err(FrameError::Field("value_bytes"));
        }
        if metrics_bytes > limits::TRACKED_METRICS_BYTES_MAX {
            return Err(FrameError::Field("metrics"));
        }
        Ok(Done {
            id,
            outcome,
            collects_metrics: facts & 1 != 0,
            is_leaving: facts & 2 != 0,
            is_queued: facts & 4 != 0,
            timings,
            value: body.slice(..value_bytes),
            metrics: body.slice(value_bytes..),
        })
    }
}

impl Frame {
    /// The whole frame as bytes. For calls and answers prefer [`encode_call_head`] and [`encode_done_head`], which
    /// leave the body where it is.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Hello(hello) => {
                let mut head = Head::new(&mut out);
                head.u16(hello.protocol.min);
                head.u16(hello.protocol.max);
                head.text(hello.deployment.as_str());
                head.text(hello.build.as_str());
                head.u16(hello.slot.0);
                head.text(hello.replica.as_str());
                head.u64(hello.nonce);
                head.finish(kind::HELLO, CallId(0), 0);
            }
            Self::Join(join) => {
                let mut head = Head::new(&mut out);
                head.u16(join.version);
                head.u8(match join.role {
                    Role::Calls => 0,
                    Role::Control => 1,
                    Role::Aside => 2,
                });
                head.text(&join.gateway);
                head.finish(kind::JOIN, CallId(0), 0);
            }
            Self::Call(call, body) => {
                encode_call_head(&mut out, call, body.len());
                out.put_slice(body);
            }
            Self::Accepted(id) => Head::new(&mut out).finish(kind::ACCEPTED, *id, 0),
            Self::Refused(id, reason) => {
                let mut head = Head::new(&mut out);
                head.u8(match reason {
                    RefusalReason::Busy => 0,
                    RefusalReason::Draining => 1,
                    RefusalReason::NotReady => 2,
                });
                head.finish(kind::REFUSED, *id, 0);
            }
            Self::Done(done) => {
                encode_done_head(&mut out, done);
                out.put_slice(&done.value);
                out.put_slice(&done.metrics);
            }
            Self::Cancel(id) => Head::new(&mut out).finish(kind::CANCEL, *id, 0),
            Self::Grant => Head::new(&mut out).finish_optional(kind::GRANT),
            Self::Decline => Head::new(&mut out).finish_optional(kind::DECLINE),
            Self::Recall(running, last) => {
                let mut head = Head::new(&mut out);
                head.u64(last.0);
                head.fill_in(kind::RECALL, FLAG_OPTIONAL, *running, 0);
            }
        }
        out.freeze()
    }
}

/// Header and head of a call whose body of `body_bytes` the caller writes behind it.
pub fn encode_call_head(out: &mut BytesMut, call: &Call, body_bytes: usize) {
    let mut head = Head::new(out);
    head.u32(call.remaining_ms);
    head.text(call.request_id.as_str());
    head.text(&call.traceparent);
    head.u16(call.busy_poll_us);
    head.finish(kind::CALL, call.id, body_bytes);
}

/// Gives a frame that is written already its call's number.
///
/// # Panics
/// If the frame has no header.
pub fn number(frame: &mut [u8], id: CallId) {
    frame[8..HEADER_BYTES].copy_from_slice(&id.0.to_le_bytes());
}

/// Header and head of an answer, whose `value` and `metrics` the caller writes behind it.
pub fn encode_done_head(out: &mut BytesMut, done: &Done) {
    let mut head = Head::new(out);
    head.u8(match done.outcome {
        Outcome::Ok => 0,
        Outcome::Exception => 1,
        Outcome::BadOutput => 2,
        Outcome::BadInput => 3,
        Outcome::Cancelled => 4,
    });
    let facts = [done.collects_metrics, done.is_leaving, done.is_queued];
    head.u8(facts.into_iter().enumerate().fold(0, |bits, (at, is_so)| bits | u8::from(is_so) << at));
    head.u32(u32::try_from(done.value.len()).expect("a response is bounded by RESPONSE_BYTES_MAX"));
    head.u32(done.timings.decode_us);
    head.u32(done.timings.run_us);
    head.u32(done.timings.encode_us);
    head.u32(done.timings.cpu_user_us);
    head.u32(done.timings.cpu_system_us);
    head.u32(done.timings.memory_peak_kib);
    head.finish(kind::DONE, done.id, done.value.len() + done.metrics.len());
}

/// A head being written where it is wanted, its header filled in at the end. A buffer of its own, copied then, cost each
/// frame an allocation and half of its instructions.
pub(super) struct Head<'a> {
    out: &'a mut BytesMut,
    begin: usize,
}

impl<'a> Head<'a> {
    pub(super) fn new(out: &'a mut BytesMut) -> Self {
        let begin = out.len();
        out.reserve(HEADER_BYTES + HEAD_BYTES_TYPICAL);
        out.put_bytes(0, HEADER_BYTES);
        Self { out, begin }
    }

    fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    fn u16(&mut self, value: u16) {
        self.out.put_u16_le(value);
    }

    fn u32(&mut self, value: u32) {
        self.out.put_u32_le(value);
    }

    fn u64(&mut self, value: u64) {
        self.out.put_u64_le(value);
    }

    fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("texts in heads are bounded by the limits of their ids"));
        self.bytes(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A frame about no call, without a body, that whoever does not know it may skip.
    fn finish_optional(self, kind: u8) {
        self.fill_in(kind, FLAG_OPTIONAL, CallId(0), 0);
    }

    pub(super) fn finish(self, kind: u8, call: CallId, body_bytes: usize) {
        self.fill_in(kind, 0, call, body_bytes);
    }

    fn fill_in(self, kind: u8, flags: u8, call: CallId, body_bytes: usize) {
        let head_bytes = self.out.len() - self.begin - HEADER_BYTES;
        let payload_bytes = head_bytes + body_bytes;
        let mut header = &mut self.out[self.begin..];
        header.put_u32_le(u32::try_from(payload_bytes).expect("bodies are bounded by FRAME_BYTES_MAX"));
        header.put_u8(kind);
        header.put_u8(flags);
        header.put_u16_le(u16::try_from(head_bytes).expect("heads hold a few short fields"));
        header.put_u64_le(call.0);
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(FrameError::Field(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        self.take(N, field)?.try_into().map_err(|_| FrameError::Field(field))
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        Ok(self.array::<1>(field)?[0])
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, FrameError> {
        let bytes = usize::from(self.u16(field)?);
        std::str::from_utf8(self.take(bytes, field)?).map_err(|_| FrameError::Field(field))
    }
}
