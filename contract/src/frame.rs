//! The frames between a gateway and a replica, on one Unix stream per gateway and slot.
//!
//! # Layout
//!
//! A frame is a 16-byte header, a head of fields, and a body. All integers are little-endian.
//!
//! | bytes | header field |
//! | --- | --- |
//! | 0–3 | payload bytes (head and body), at most [`limits::FRAME_BYTES_MAX`] |
//! | 4 | kind |
//! | 5 | flags: bit 0 = optional |
//! | 6–7 | head bytes, at most the payload's |
//! | 8–15 | call id, 0 where the frame is not about a call |
//!
//! A head is its fields in the order of the struct's definition; text is a `u16` length and UTF-8. A reader ignores what follows
//! the fields it knows, so fields can be appended. A frame of unknown kind is skipped when it is optional and
//! ends the connection when it is not.
//!
//! # Conversation
//!
//! ```text
//! replica  Hello ─────────────▶ gateway     who I am, which versions I speak, a nonce new in each process
//! gateway  Join ──────────────▶ replica     who I am; the version both speak
//! gateway  Call{id} + body ───▶ replica
//! replica  Accepted{id} ──────▶ gateway     before any user code; or Refused{id}, and nothing was run
//! replica  Done{id} + body ───▶ gateway     once
//! gateway  Cancel{id} ────────▶ replica     any time after Call; on a second connection with `role: control`
//! ```
//!
//! A connection with `Role::Calls` carries calls, one at a time. While a call runs the replica's main thread does
//! not read it; `Cancel` therefore comes by a connection with `Role::Control`, which a thread without Python reads.
//!
//! Every frame from a replica is hostile input: decoding never panics and never allocates by a length it was told.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    ids::{BuildId, CallId, DeploymentId, ReplicaId, RequestId, SlotIndex},
    limits,
};

/// The version this code speaks, and the oldest it still understands.
pub const PROTOCOL: ProtocolRange = ProtocolRange { min: 1, max: 1 };
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
const FLAG_OPTIONAL: u8 = 1;

/// The versions one side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl ProtocolRange {
    /// The newest version both sides speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min && version >= other.min).then_some(version)
    }
}

/// Why bytes are not a frame. The connection they came by is of no further use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More payload than [`limits::FRAME_BYTES_MAX`].
    #[error("frame of {0} bytes is over the limit")]
    TooLarge(usize),
    /// The head is said to be longer than the payload.
    #[error("frame head of {head_bytes} bytes in a payload of {payload_bytes}")]
    HeadOverrun {
        /// What the header says of the head.
        head_bytes: usize,
        /// What the header says of the payload.
        payload_bytes: usize,
    },
    /// A kind this version does not know, and not optional.
    #[error("unknown frame of kind {0}")]
    UnknownKind(u8),
    /// The head ends inside a field, or a field has a value it cannot have.
    #[error("field `{0}` is cut short or out of range")]
    Field(&'static str),
}

/// The first thing a replica says on a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub protocol: ProtocolRange,
    /// Whose replica it is.
    pub deployment: DeploymentId,
    /// What it runs.
    pub build: BuildId,
    /// Where it is.
    pub slot: SlotIndex,
    /// Which process it is.
    pub replica: ReplicaId,
    /// Random, new in each process: tells two processes in one slot apart.
    pub nonce: u64,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Calls and their answers.
    Calls,
    /// `Cancel`, and the proof that the gateway lives: its end is the gateway's end.
    Control,
}

/// A gateway's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The version to speak, within the replica's range.
    pub version: u16,
    /// What the connection is for.
    pub role: Role,
    /// The gateway's own name for itself, the same on all its connections.
    pub gateway: String,
}

/// One call; the request JSON is the frame's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number on this connection.
    pub id: CallId,
    /// Milliseconds the function may still run.
    pub remaining_ms: u32,
    /// The request it belongs to.
    pub request_id: RequestId,
    /// W3C trace context, or empty.
    pub traceparent: String,
}

/// Why a replica did not take a call. Nothing was run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// Another call runs.
    Busy,
    /// It is about to end.
    Draining,
    /// It has not finished starting.
    NotReady,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The body is the response JSON.
    Ok,
    /// The function raised; the body is "Type: text".
    Exception,
    /// The return value is not JSON or too large; the body says why.
    BadOutput,
    /// The request is JSON that Python cannot hold; the body says why. The function was not called.
    BadInput,
    /// Cancelled while it ran; no body.
    Cancelled,
}

/// What a call cost, as the replica measured it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Microseconds from JSON to Python objects.
    pub decode_us: u32,
    /// Microseconds in the function.
    pub run_us: u32,
    /// Microseconds from Python objects to JSON.
    pub encode_us: u32,
    /// Microseconds of user CPU.
    pub cpu_user_us: u32,
    /// Microseconds of system CPU.
    pub cpu_system_us: u32,
    /// KiB of resident memory at its highest since the process began.
    pub memory_peak_kib: u32,
}

/// The end of a call. The frame's body is `value` and then the tracked metrics, both JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The call that ended.
    pub id: CallId,
    /// How.
    pub outcome: Outcome,
    /// The function is decorated: the answer carries a prediction id and the CRN.
    pub collects_metrics: bool,
    /// The replica ends after this call and takes no other.
    pub is_leaving: bool,
    /// What it cost.
    pub timings: Timings,
    /// Response JSON or text, by `outcome`.
    pub value: Bytes,
    /// JSON object of tracked metrics, or empty.
    pub metrics: Bytes,
}

/// Everything that may be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Replica to gateway, first.
    Hello(Hello),
    /// Gateway to replica, second.
    Join(Join),
    /// Gateway to replica, with the request JSON.
    Call(Call, Bytes),
    /// Replica to gateway: the call is about to run.
    Accepted(CallId),
    /// Replica to gateway: the call will not be run.
    Refused(CallId, RefusalReason),
    /// Replica to gateway: the call has ended.
    Done(Done),
    /// Gateway to replica: the caller is gone.
    Cancel(CallId),
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const JOIN: u8 = 2;
    pub(super) const CALL: u8 = 3;
    pub(super) const ACCEPTED: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    pub(super) const DONE: u8 = 6;
    pub(super) const CANCEL: u8 = 7;
    // 8 `Chunk` and 9 `End` are reserved for streaming, 10 `Grant` for replicas shared by gateways.
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
                let mut head = Head::new();
                head.u16(hello.protocol.min);
                head.u16(hello.protocol.max);
                head.text(hello.deployment.as_str());
                head.text(hello.build.as_str());
                head.u16(hello.slot.0);
                head.text(hello.replica.as_str());
                head.u64(hello.nonce);
                head.finish(&mut out, kind::HELLO, CallId(0), 0);
            }
            Self::Join(join) => {
                let mut head = Head::new();
                head.u16(join.version);
                head.u8(match join.role {
                    Role::Calls => 0,
                    Role::Control => 1,
                });
                head.text(&join.gateway);
                head.finish(&mut out, kind::JOIN, CallId(0), 0);
            }
            Self::Call(call, body) => {
                encode_call_head(&mut out, call, body.len());
                out.put_slice(body);
            }
            Self::Accepted(id) => Head::new().finish(&mut out, kind::ACCEPTED, *id, 0),
            Self::Refused(id, reason) => {
                let mut head = Head::new();
                head.u8(match reason {
                    RefusalReason::Busy => 0,
                    RefusalReason::Draining => 1,
                    RefusalReason::NotReady => 2,
                });
                head.finish(&mut out, kind::REFUSED, *id, 0);
            }
            Self::Done(done) => {
                encode_done_head(&mut out, done);
                out.put_slice(&done.value);
                out.put_slice(&done.metrics);
            }
            Self::Cancel(id) => Head::new().finish(&mut out, kind::CANCEL, *id, 0),
        }
        out.freeze()
    }
}

/// Header and head of a call whose body of `body_bytes` the caller writes behind it.
pub fn encode_call_head(out: &mut BytesMut, call: &Call, body_bytes: usize) {
    let mut head = Head::new();
    head.u32(call.remaining_ms);
    head.text(call.request_id.as_str());
    head.text(&call.traceparent);
    head.finish(out, kind::CALL, call.id, body_bytes);
}

/// Header and head of an answer, whose `value` and `metrics` the caller writes behind it.
pub fn encode_done_head(out: &mut BytesMut, done: &Done) {
    let mut head = Head::new();
    head.u8(match done.outcome {
        Outcome::Ok => 0,
        Outcome::Exception => 1,
        Outcome::BadOutput => 2,
        Outcome::BadInput => 3,
        Outcome::Cancelled => 4,
    });
    head.u8(u8::from(done.collects_metrics) | u8::from(done.is_leaving) << 1);
    head.u32(u32::try_from(done.value.len()).expect("a response is bounded by RESPONSE_BYTES_MAX"));
    head.u32(done.timings.decode_us);
    head.u32(done.timings.run_us);
    head.u32(done.timings.encode_us);
    head.u32(done.timings.cpu_user_us);
    head.u32(done.timings.cpu_system_us);
    head.u32(done.timings.memory_peak_kib);
    head.finish(out, kind::DONE, done.id, done.value.len() + done.metrics.len());
}

/// A head being written, on the stack for all but the longest ids.
struct Head(Vec<u8>);

impl Head {
    fn new() -> Self {
        Self(Vec::with_capacity(96))
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).expect("texts in heads are bounded by the limits of their ids"));
        self.0.extend_from_slice(text.as_bytes());
    }

    fn finish(self, out: &mut BytesMut, kind: u8, call: CallId, body_bytes: usize) {
        let payload = self.0.len() + body_bytes;
        out.reserve(HEADER_BYTES + payload);
        out.put_u32_le(u32::try_from(payload).expect("bodies are bounded by FRAME_BYTES_MAX"));
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u16_le(u16::try_from(self.0.len()).expect("heads hold a few short fields"));
        out.put_u64_le(call.0);
        out.put_slice(&self.0);
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let rows: Vec<String> = bytes
            .chunks(16)
            .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        rows.join("\n")
    }

    fn decode(bytes: &Bytes) -> Result<Option<Frame>, FrameError> {
        let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
        header.decode_payload(bytes.slice(HEADER_BYTES..))
    }

    fn one_of_each() -> Vec<(&'static str, Frame)> {
        vec![
            (
                "hello",
                Frame::Hello(Hello {
                    protocol: PROTOCOL,
                    deployment: DeploymentId::new("d"),
                    build: BuildId::new("b"),
                    slot: SlotIndex(3),
                    replica: ReplicaId::new("add-1-1-86b9b58b7b-g6s8r"),
                    nonce: 0x0102_0304_0506_0708,
                }),
            ),
            ("join", Frame::Join(Join { version: 1, role: Role::Control, gateway: "gw".into() })),
            (
                "call",
                Frame::Call(
                    Call {
                        id: CallId(7),
                        remaining_ms: 30_000,
                        request_id: RequestId::new("r-1"),
                        traceparent: String::new(),
                    },
                    Bytes::from_static(br#"{"a":3,"b":5}"#),
                ),
            ),
            ("accepted", Frame::Accepted(CallId(7))),
            ("refused", Frame::Refused(CallId(7), RefusalReason::Draining)),
            (
                "done",
                Frame::Done(Done {
                    id: CallId(7),
                    outcome: Outcome::Ok,
                    collects_metrics: true,
                    is_leaving: false,
                    timings: Timings {
                        decode_us: 1,
                        run_us: 2,
                        encode_us: 3,
                        cpu_user_us: 4,
                        cpu_system_us: 5,
                        memory_peak_kib: 6,
                    },
                    value: Bytes::from_static(b"8"),
                    metrics: Bytes::from_static(br#"{"n":1}"#),
                }),
            ),
            ("cancel", Frame::Cancel(CallId(7))),
        ]
    }

    #[test]
    fn each_frame_has_its_bytes() {
        let shown: Vec<String> =
            one_of_each().iter().map(|(name, f)| format!("{name}\n{}", hex(&f.encode()))).collect();
        insta::assert_snapshot!(shown.join("\n\n"));
    }

    #[test]
    fn each_frame_comes_back_as_it_was() {
        for (_, frame) in one_of_each() {
            assert_eq!(decode(&frame.encode()), Ok(Some(frame)));
        }
    }

    #[test]
    fn fields_appended_to_a_head_by_a_newer_version_are_ignored() {
        let mut newer = BytesMut::from(&Frame::Cancel(CallId(7)).encode()[..]);
        newer[0] = 2;
        newer[6] = 2;
        newer.put_u16_le(99);
        assert_eq!(decode(&newer.freeze()), Ok(Some(Frame::Cancel(CallId(7)))));
    }

    #[test]
    fn an_unknown_frame_is_skipped_only_when_it_is_optional() {
        let mut raw = [0; HEADER_BYTES];
        raw[4] = 200;
        assert_eq!(decode(&Bytes::copy_from_slice(&raw)), Err(FrameError::UnknownKind(200)));
        raw[5] = FLAG_OPTIONAL;
        assert_eq!(decode(&Bytes::copy_from_slice(&raw)), Ok(None));
    }

    #[test]
    fn a_header_that_promises_too_much_is_refused_before_anything_is_read() {
        let mut raw = [0xff; HEADER_BYTES];
        assert_eq!(Header::decode(&raw), Err(FrameError::TooLarge(u32::MAX as usize)));
        raw[..4].copy_from_slice(&4_u32.to_le_bytes());
        assert_eq!(
            Header::decode(&raw),
            Err(FrameError::HeadOverrun { head_bytes: 0xffff, payload_bytes: 4 })
        );
    }

    #[test]
    fn versions_meet_at_the_newest_both_know() {
        let range = |min, max| ProtocolRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 2)), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(kind in 0_u8..12, head in proptest::collection::vec(any::<u8>(), 0..80), body in proptest::collection::vec(any::<u8>(), 0..40), cut in 0_usize..90) {
            let mut raw = BytesMut::new();
            Head(head).finish(&mut raw, kind, CallId(1), body.len());
            raw.put_slice(&body);
            raw[6] = raw[6].min(u8::try_from(cut).unwrap_or(u8::MAX));
            let _ = decode(&raw.freeze());
        }
    }
}
