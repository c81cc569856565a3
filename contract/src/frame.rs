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
//! Numbers, fields in order and all that a runtime has to do: `contract/RUNTIMES.md`.
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
//! replica  Grant ─────────────▶ gateway     from version 2: its turn, after Refused(busy) or Done{is_queued}
//! gateway  Decline ───────────▶ replica     from version 2: nobody there waits any more, the next one's turn
//! gateway  Recall{id, last} ──▶ replica     from version 3: those behind call id are wanted back; on a connection with `role: aside`
//! ```
//!
//! A connection with `Role::Calls` carries calls, which run one at a time. While a call runs the replica's main thread does
//! not read it; `Cancel` therefore comes by a connection with `Role::Control`, which a thread without Python reads.
//!
//! # Calls sent ahead
//!
//! A gateway in whose line calls wait may write some of them behind the one that runs, at most [`limits::AHEAD_CALLS_MAX`], so
//! that a replica whose calls take microseconds, or whose call is about to end, goes to the next one without sleeping. They are run in their order, one
//! after the other, each with its own `Accepted` and `Done`; a replica that leaves refuses them, and of one that dies they
//! were never accepted. When the one that runs takes longer than was to be expected, the gateway says `Recall`, by a
//! connection with `Role::Aside`: the replica refuses what lies behind it at once, although it has not read it yet, and skips it later. To a replica of an older version
//! nothing is sent ahead, because it cannot give it back.
//!
//! # Turns
//!
//! A gateway that is refused because the replica is busy is queued there, once, by its connection. An idle replica with
//! a queue takes the first one out and keeps itself for it: from then on it refuses, and queues, everybody else, until
//! the call of the one whose turn it is has come, or its `Decline`, or the end of its connection, or [`limits::TURN_MS_MAX`] have
//! passed. `Grant` tells that one. While others wait, `Done` puts its own gateway at the queue's end (`is_queued`), so that
//! nobody has two turns while another waits, and nobody sends a call to learn that it is not its turn.
//!
//! Version 1 knows neither frame. Such a gateway asks again a few milliseconds after each refusal; it is queued as well,
//! and its turn is kept for it in silence. To a gateway, a replica of version 1 is one that never grants: it asks again.
//! A gateway may always call without a turn; at worst it is refused.
//!
//! Every frame from a replica is hostile input: decoding never panics and never allocates by a length it was told.

mod codec;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::codec::{Header, encode_call_head, encode_done_head, number};
use crate::ids::{BuildId, CallId, DeploymentId, ReplicaId, RequestId, SlotIndex};
#[cfg(doc)]
use crate::limits;

/// The version this code speaks, and the oldest it still understands.
pub const PROTOCOL: ProtocolRange = ProtocolRange { min: 1, max: 3 };
/// The first version with [`Frame::Grant`], [`Frame::Decline`] and [`Done::is_queued`].
pub const TURNS_SINCE: u16 = 2;
/// The first version with [`Frame::Recall`]: calls may be sent ahead.
pub const AHEAD_SINCE: u16 = 3;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

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
    /// `Recall`, from version 3. Its end means nothing.
    Aside,
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
    /// Microseconds for which the replica may look for its next call, awake, when this one has ended: there are processors to
    /// spare for it. 0 from a gateway that does not say.
    pub busy_poll_us: u16,
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
    /// Other gateways wait: the one of this connection is queued behind them, and its turn will be told by `Grant`.
    pub is_queued: bool,
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
    /// Replica to gateway: it is your turn, for [`limits::TURN_MS_MAX`].
    Grant,
    /// Gateway to replica: nobody waits here, the turn is the next one's.
    Decline,
    /// Gateway to replica: the calls behind this one, which runs, are to be refused, the last of them included.
    Recall(CallId, CallId),
}
