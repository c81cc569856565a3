//! Gateway and control API ↔ supervisor, over `control.sock` in the deployment's run directory (JSON lines).
//!
//! Both sides begin with their hello. The supervisor then says the state of each slot, and again at each change;
//! a death reaches every gateway within 10 ms of the pidfd that told it. A supervisor trusts peers of its own user
//! (`SO_PEERCRED`) and drops the connection of any other.

use serde::{Deserialize, Serialize};

use crate::ids::{BuildId, CallId, DeploymentId, ReplicaId, SlotIndex};

/// The version of these messages.
pub const SUPERVISION_PROTOCOL: u16 = 1;

/// What is said to a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// First: who speaks.
    Hello {
        /// [`SUPERVISION_PROTOCOL`].
        protocol: u16,
        /// What the peer is.
        peer: Peer,
        /// The peer's own name for itself; a gateway's is the one in its [`crate::frame::Join`].
        name: String,
    },
    /// A call ran past its deadline: end this replica and fill its slot anew. Ignored when the slot already has another.
    Expired {
        /// Where.
        slot: SlotIndex,
        /// Which process.
        replica: ReplicaId,
        /// Which call, for the log.
        call: CallId,
    },
    /// Say what each replica has done so far; answered by [`FromSupervisor::Usage`], to this peer alone.
    Measure,
    /// Import anew in a new template, then replace the replicas one after another (control API).
    Restart,
    /// Drain, stop every process, remove the sockets, end (control API).
    Stop {
        /// Milliseconds running calls are given.
        grace_ms: u64,
    },
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// A gateway: uses slots.
    Gateway,
    /// The control API: claims the supervisor.
    Control,
}

/// What a supervisor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromSupervisor {
    /// First: who answers.
    Hello {
        /// [`SUPERVISION_PROTOCOL`].
        protocol: u16,
        /// Whose supervisor this is.
        deployment: DeploymentId,
        /// What it runs.
        build: BuildId,
        /// How many slots it has.
        slots: u16,
        /// Its process id, in the namespace of whoever started it.
        pid: u32,
        /// What holds the user's code in.
        isolation: Isolation,
    },
    /// The state of one slot, at first and at each change.
    Slot(SlotReport),
    /// The deployment as a whole, at first and at each change.
    Deployment(DeploymentReport),
    /// What the replicas have done, spares included, when it is asked for.
    Usage {
        /// Those that say so; a runtime need not.
        replicas: Vec<ReplicaUsage>,
    },
}

/// What one replica has done since it began to serve, by its own word: for people, and for nothing that is decided. The
/// three times together are no longer than it has existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaUsage {
    /// Which process.
    pub replica: ReplicaId,
    /// Calls begun.
    pub calls: u64,
    /// Microseconds in which it dealt with calls: decoding, function, encoding, answering.
    pub busy_us: u64,
    /// Microseconds between a frame's coming and the interpreter's: other threads of Python held it.
    pub interpreter_wait_us: u64,
    /// Microseconds in which it waited for a frame.
    pub idle_us: u64,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// Which.
    pub slot: SlotIndex,
    /// Its state.
    pub state: SlotState,
    /// The process in it, if any.
    pub replica: Option<ReplicaId>,
    /// That process's id, in the namespace of whoever started the supervisor where it can be known, else the supervisor's.
    pub pid: Option<u32>,
    /// Why the state is what it is, for people ("killed by signal 9"); empty when there is nothing to say.
    pub reason: String,
    /// How often the slot has been filled.
    pub starts: u64,
    /// Milliseconds from the last death or request to start until it was ready; 0 before the first.
    pub ready_after_ms: u64,
}

/// The life of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// No process, or one that is not ready.
    Starting,
    /// A call would be served now.
    Ready,
    /// The process has ended, by pidfd. What it wrote before is in its sockets.
    Dead,
    /// Filled again and again without success; tried again after a pause.
    Failing,
}

/// The deployment as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentReport {
    /// What it is doing.
    pub phase: Phase,
    /// For people, and for the build log: what failed, where, with what text.
    pub reason: String,
    /// How replicas are started.
    pub start_mode: StartMode,
    /// Why they are not forked; or what spoke against it, where the model insists on `fork`.
    pub start_mode_reason: String,
    /// The answer of the example call, JSON, once one replica has answered it.
    pub example_response: Option<String>,
}

/// The life of a deployment's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The template imports the file.
    Importing,
    /// Imported; slots are being filled for the first time.
    Filling,
    /// Every slot has been ready once.
    Serving,
    /// It cannot start, and will not by itself.
    Failed,
    /// On its way out.
    Stopping,
}

/// How a replica comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartMode {
    /// Forked from the template.
    Fork,
    /// Started afresh.
    Spawn,
}

/// What was asserted at start, each a fact and not a wish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolation {
    /// The uid that user code runs under, if not the supervisor's.
    pub uid: Option<u32>,
    /// A user namespace of its own.
    pub user_namespace: bool,
    /// A PID namespace whose init is the supervisor.
    pub pid_namespace: bool,
    /// A root of its own, holding the build, the interpreter and the system's libraries only.
    pub mount_namespace: bool,
    /// An IPC namespace of its own.
    pub ipc_namespace: bool,
    /// A network namespace of its own, with a loopback and nothing else; only where the model says so.
    pub network_namespace: bool,
    /// cgroup version that bounds memory, CPU and process count; 0 is none.
    pub cgroup_version: u8,
    /// Privileges cannot be gained by exec.
    pub no_new_privileges: bool,
    /// Landlock restricts the file system.
    pub landlock: bool,
    /// A seccomp filter denies system calls.
    pub seccomp: bool,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line;

    #[test]
    fn each_message_has_its_line() {
        let replica = ReplicaId::new("add-1-1-86b9b58b7b-g6s8r");
        let to = [
            ToSupervisor::Hello { protocol: SUPERVISION_PROTOCOL, peer: Peer::Gateway, name: "gw".into() },
            ToSupervisor::Expired { slot: SlotIndex(2), replica: replica.clone(), call: CallId(9) },
            ToSupervisor::Measure,
            ToSupervisor::Restart,
            ToSupervisor::Stop { grace_ms: 1_000 },
        ];
        let from = [
            FromSupervisor::Hello {
                protocol: SUPERVISION_PROTOCOL,
                deployment: DeploymentId::new("d"),
                build: BuildId::new("b"),
                slots: 3,
                pid: 77,
                isolation: Isolation { uid: Some(200_001), pid_namespace: true, ..Isolation::default() },
            },
            FromSupervisor::Slot(SlotReport {
                slot: SlotIndex(2),
                state: SlotState::Ready,
                replica: Some(replica.clone()),
                pid: Some(80),
                reason: String::new(),
                starts: 1,
                ready_after_ms: 8,
            }),
            FromSupervisor::Deployment(DeploymentReport {
                phase: Phase::Failed,
                reason: "ModuleNotFoundError: No module named 'sklearn'".into(),
                start_mode: StartMode::Fork,
                start_mode_reason: String::new(),
                example_response: None,
            }),
            FromSupervisor::Usage {
                replicas: vec![ReplicaUsage {
                    replica,
                    calls: 3,
                    busy_us: 1_500,
                    interpreter_wait_us: 20,
                    idle_us: 900_000,
                }],
            },
        ];
        let mut lines = String::new();
        for message in &to {
            let bytes = line::encode(message);
            assert_eq!(&line::decode::<ToSupervisor>(&bytes).unwrap(), message);
            lines.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        for message in &from {
            let bytes = line::encode(message);
            assert_eq!(&line::decode::<FromSupervisor>(&bytes).unwrap(), message);
            lines.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        insta::assert_snapshot!(lines);
    }
}
