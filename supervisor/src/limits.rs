//! The limits that only the supervisor knows; those it shares are in [`millgate_contract::limits`].

/// Connections on `control.sock`.
pub(crate) const PEERS_MAX: usize = 64;
/// Lines waiting for one peer to read them; a peer further behind is dropped and may connect again.
pub(crate) const PEER_LINES_MAX: usize = 2_048;
/// Messages one replica may send in its life; the protocol needs three.
pub(crate) const REPLICA_MESSAGES_MAX: u32 = 16;
/// Bytes of `spec.json`.
pub(crate) const SPEC_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Failures in a row after which a slot is `failing` and pauses before each further try.
pub(crate) const SLOT_FAILURES_MAX: u32 = 3;
/// Fresh forks failing in a row after which the template is renewed, or given up when none was ever ready.
pub(crate) const FORK_FAILURES_MAX: u32 = 3;
/// Spares in a row that did not start, after which replicas that serve are not replaced for a restart.
pub(crate) const SPARE_FAILURES_MAX: u32 = 3;
/// The first pause before another try; it doubles.
pub(crate) const PAUSE_MS_MIN: u64 = 100;
/// The longest pause before another try.
pub(crate) const PAUSE_MS_MAX: u64 = 30_000;
/// Milliseconds for which a replica serves, at least, if its death is to be no sudden one.
pub(crate) const STEADY_MS_MIN: u64 = 10_000;
/// Sudden deaths in a row that are followed by a new replica at once; further ones by a pause that doubles.
pub(crate) const SUDDEN_DEATHS_FREE: u32 = 8;
/// The longest pause after a sudden death.
pub(crate) const SUDDEN_PAUSE_MS_MAX: u64 = 5_000;
/// Milliseconds between looks at how much memory each replica uses, where that is limited by the policy.
pub(crate) const MEMORY_LOOK_MS: u64 = 1_000;
/// Milliseconds for the threads of a template that has imported to come to rest, so that they can be told apart.
pub(crate) const INSPECTION_MS_MAX: u64 = 1_000;
/// Milliseconds between looks at them.
pub(crate) const INSPECTION_LOOK_MS: u64 = 5;
/// Milliseconds between one KILL and the next for a process that is still there.
pub(crate) const KILL_AGAIN_MS: u64 = 1_000;
/// Milliseconds a replica may take over its running call when it is replaced by a restart.
pub(crate) const DRAIN_MS_MAX: u64 = 600_000;
/// Milliseconds without any peer after which the supervisor ends by itself.
pub(crate) const UNCLAIMED_MS_MAX: u64 = 3_600_000;
/// Milliseconds running calls are given when a signal, not a message, says stop.
pub(crate) const SIGNAL_GRACE_MS: u64 = 30_000;
/// Milliseconds between attempts to sweep what could not be removed at once.
pub(crate) const SWEEP_MS: u64 = 500;
/// Bytes of the private `/tmp`, and of `/dev/shm`.
pub(crate) const TMP_BYTES_MAX: u64 = 1 << 30;
/// Files and folders in the private `/tmp`.
pub(crate) const TMP_FILES_MAX: u64 = 262_144;
/// Open descriptors of one process.
pub(crate) const OPEN_FILES_MAX: u64 = 65_536;
/// Bytes of log a process may print in a second, on average; what is over is dropped and counted.
pub(crate) const LOG_BYTES_PER_S_MAX: u64 = 1024 * 1024;
/// Bytes of log a process may print at once.
pub(crate) const LOG_BURST_BYTES_MAX: u64 = 4 * 1024 * 1024;
