//! Everything has a limit with a name (law 10). Those two processes must agree on, or a caller can see, are here;
//! those that only one process knows are in its configuration.

/// Bytes of the body of a call: 5 MB.
pub const BODY_BYTES_MAX: usize = 5_242_880;
/// Bytes of a request's head, request line and the empty line included.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Header lines of a request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request target.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Nesting of arrays and objects in the body of a call.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of the `response` JSON of one call: 20 MiB.
pub const RESPONSE_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Bytes of the JSON of all metrics tracked by one call.
pub const TRACKED_METRICS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one batch of tracked metrics on its way to the control API.
pub const METRICS_BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an exception's text in an answer; longer texts are cut at a character.
pub const EXCEPTION_TEXT_BYTES_MAX: usize = 2_048;
/// Bytes of a request id.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a `traceparent`.
pub const TRACEPARENT_BYTES_MAX: usize = 512;
/// Bytes of one frame between gateway and replica, header excluded: the largest answer and its metrics.
pub const FRAME_BYTES_MAX: usize = RESPONSE_BYTES_MAX + TRACKED_METRICS_BYTES_MAX + 4_096;
/// Bytes of one JSON line or datagram between processes, route snapshots excepted.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a route snapshot.
pub const ROUTE_SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Milliseconds a call waits for a replica before `429 model.busy`.
pub const WAIT_MS_MAX: u64 = 30_000;
/// Milliseconds that a replica keeps itself for the gateway whose turn it is. One that lives is there within a
/// millisecond, one that dies ends its connection; one that is stopped costs the others this, and once: it is not queued
/// again before it calls.
pub const TURN_MS_MAX: u64 = 500;
/// Calls that a gateway may have written to a replica behind the one that runs.
pub const AHEAD_CALLS_MAX: usize = 8;
/// Microseconds for which a replica looks for its next call awake, whatever its gateway asks.
pub const BUSY_POLL_US_MAX: u16 = 1_000;
/// Milliseconds the function may run where nothing else is said, before `504 model.timeout`.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Calls in the line of one model on one gateway.
pub const LINE_CALLS_MAX: usize = 1_024;
/// Body bytes in the line of one model on one gateway.
pub const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Replicas of one deployment, whatever the administrator sets.
pub const REPLICAS_CEILING_MAX: u16 = 199;
/// Replicas of one deployment where the administrator sets nothing.
pub const REPLICAS_CEILING_DEFAULT: u16 = 9;
/// Milliseconds from start to ready (import, `setup`, example call) where nothing else is said.
pub const START_TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// Milliseconds between TERM and KILL.
pub const KILL_GRACE_MS: u64 = 1_000;
/// Bytes of a line that user code prints; a longer one is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a deployment's log file before it is rotated (one older file is kept).
pub const LOG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of the path of a Unix socket, its NUL excluded (Linux, `sun_path`).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
