//! Supervisor ↔ template and replica: how processes are born.
//!
//! Each is a `SOCK_SEQPACKET` Unix socket pair; one datagram is one JSON message ([`crate::line`]).
//! The template finds its end at descriptor [`TEMPLATE_FD`]. Everything a template or replica says is hostile input.
//!
//! ```text
//! template   Imported | ImportFailed ─────────────────▶ supervisor
//! supervisor Fork{slot, replica} + 5 descriptors ─────▶ template    [listener, channel, stdout, stderr, page]
//!            ForkSpare{replica} + 4 descriptors ──────▶ template    the same without a listener: it has no slot
//! template   Forked{replica, pid} ────────────────────▶ supervisor  (pid in the template's PID namespace)
//! replica    Here + SCM_CREDENTIALS, on its channel ──▶ supervisor  pidfd, cgroup
//! supervisor one byte `g` ────────────────────────────▶ replica     placed: set up, run the example
//! spare      Warm{example_response} ──────────────────▶ supervisor  set up; waits until a slot has lost its replica
//! supervisor Serve{slot} + 1 descriptor | Leave ──────▶ spare       [listener]
//! replica    Ready | Failed ──────────────────────────▶ supervisor
//! replica    Answered ────────────────────────────────▶ supervisor  its first call came back: forking did no harm
//! replica    Leaving ─────────────────────────────────▶ supervisor  its listener is closed: the slot may be filled
//! template   Exited{pid, status} ─────────────────────▶ supervisor  for the log; the pidfd is what counts
//! ```
//!
//! A spawned replica (start mode `spawn`) is started by the supervisor with listener and channel at
//! [`SPAWN_LISTENER_FD`] and [`SPAWN_CHANNEL_FD`], its page ([`crate::page`]) at [`PAGE_FD`] and its output at 1 and 2; it says `Here`, waits for its byte, and
//! only then imports. One without a slot yet gets no listener and goes on as a spare does. The template's own output is
//! at its 1 and 2 as well.

use serde::{Deserialize, Serialize};

use crate::ids::{ReplicaId, SlotIndex};

/// Where template and spawned replica find `spec.json`, whose path they cannot see: a memory file at its start.
pub const SPEC_FD: i32 = 5;
/// Where the template finds its socket.
pub const TEMPLATE_FD: i32 = 3;
/// Where a spawned replica finds its slot's listener.
pub const SPAWN_LISTENER_FD: i32 = 4;
/// Where a spawned replica finds its channel.
pub const SPAWN_CHANNEL_FD: i32 = 3;
/// Where a spawned replica finds the page on which it may note what it does ([`crate::page`]).
pub const PAGE_FD: i32 = 6;
/// Descriptors beside each [`ToTemplate::Fork`]; a spare has one less, the listener. A supervisor that is older has one
/// less, the page, which is the last.
pub const FORK_DESCRIPTORS: usize = 5;
/// The byte that says a replica is in its place.
pub const GO: u8 = b'g';

/// Supervisor to template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToTemplate {
    /// Fork a replica; [`FORK_DESCRIPTORS`] descriptors come with it: listener, channel, stdout, stderr, page.
    Fork {
        /// Where it will be.
        slot: SlotIndex,
        /// What it will be called.
        replica: ReplicaId,
    },
    /// Fork a replica that sets itself up and waits for a slot; all descriptors but the
    /// listener come with it.
    ForkSpare {
        /// What it will be called.
        replica: ReplicaId,
    },
}

/// Supervisor to a spare, after its byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSpare {
    /// Serve there; the slot's listener comes with it.
    Serve {
        /// Where.
        slot: SlotIndex,
    },
    /// Tear down and end: it is not needed.
    Leave,
}

/// Template to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromTemplate {
    /// The file is imported and the function found.
    Imported {
        /// How long that took, in milliseconds.
        import_ms: u64,
        /// Python's version, `3.11.7`.
        python: String,
    },
    /// It is not; the template ends.
    ImportFailed(Failure),
    /// A child was forked.
    Forked {
        /// What it is called.
        replica: ReplicaId,
        /// Its process id as the template sees it.
        pid: i32,
    },
    /// Forking failed.
    ForkFailed {
        /// What it would have been called.
        replica: ReplicaId,
        /// The system's word.
        error: String,
    },
    /// A child has ended.
    Exited {
        /// Its process id as the template sees it.
        pid: i32,
        /// For people: "killed by signal 9", "exit status 3".
        status: String,
    },
}

/// Replica to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromReplica {
    /// First, with the kernel's word for who sent it.
    Here,
    /// Set up and warmed: a spare that waits for a slot.
    Warm {
        /// As in [`FromReplica::Ready`], which follows once it serves.
        example_response: Option<String>,
    },
    /// Set up, warmed, listening.
    Ready {
        /// The example's answer, JSON, when there is an example.
        example_response: Option<String>,
    },
    /// It could not start; it ends.
    Failed(Failure),
    /// Its first call was answered. Said once; not said when it leaves with that call.
    Answered,
    /// It has closed its listener and ends now.
    Leaving {
        /// Why, for people.
        reason: String,
    },
}

/// What went wrong at a start, in words a data scientist can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which step.
    pub step: Step,
    /// "ModuleNotFoundError: No module named 'sklearn'"; the traceback is in the log.
    pub message: String,
}

/// The steps of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The interpreter itself.
    Python,
    /// The file.
    Import,
    /// The function in it.
    Function,
    /// `setup()`.
    Setup,
    /// The example call.
    Example,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Python => "python",
            Self::Import => "import",
            Self::Function => "function",
            Self::Setup => "setup",
            Self::Example => "example",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line;

    #[test]
    fn each_message_has_its_datagram() {
        let replica = ReplicaId::new("add-1-1-86b9b58b7b-g6s8r");
        let failure = Failure { step: Step::Import, message: "ModuleNotFoundError: x".into() };
        let mut shown = vec![
            line::encode(&ToTemplate::Fork { slot: SlotIndex(1), replica: replica.clone() }),
            line::encode(&ToTemplate::ForkSpare { replica: replica.clone() }),
            line::encode(&ToSpare::Serve { slot: SlotIndex(1) }),
            line::encode(&ToSpare::Leave),
        ];
        for message in [
            FromTemplate::Imported { import_ms: 1_900, python: "3.11.7".into() },
            FromTemplate::ImportFailed(failure.clone()),
            FromTemplate::Forked { replica: replica.clone(), pid: 12 },
            FromTemplate::ForkFailed { replica, error: "EAGAIN".into() },
            FromTemplate::Exited { pid: 12, status: "killed by signal 9".into() },
        ] {
            let bytes = line::encode(&message);
            assert_eq!(line::decode::<FromTemplate>(&bytes).unwrap(), message);
            shown.push(bytes);
        }
        for message in [
            FromReplica::Here,
            FromReplica::Ready { example_response: Some("8".into()) },
            FromReplica::Failed(failure),
            FromReplica::Leaving { reason: "exception".into() },
            FromReplica::Answered,
            FromReplica::Warm { example_response: None },
        ] {
            let bytes = line::encode(&message);
            assert_eq!(line::decode::<FromReplica>(&bytes).unwrap(), message);
            shown.push(bytes);
        }
        insta::assert_snapshot!(String::from_utf8(shown.concat()).unwrap());
    }
}
