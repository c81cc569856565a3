//! What a launcher hands a supervisor, and a supervisor its template and replicas: one JSON file, `spec.json`,
//! in the run directory, written before the supervisor starts and never changed after.
//!
//! The run directory holds, besides: `control.sock`, one `s<slot>.sock` per slot, `replicas.log` (and `.1`, the
//! older), each line a [`LogLine`] as JSON, and `supervisor.log`, the supervisor's own words.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BuildId, DeploymentId, ReplicaId, RequestId, SlotIndex},
    supervision::Isolation,
};

/// The version of this file.
pub const SPEC_FORMAT: u32 = 1;
/// The file's name in the run directory.
pub const SPEC_FILE: &str = "spec.json";
/// The supervisor's socket in the run directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// What user code prints.
pub const REPLICA_LOG: &str = "replicas.log";
/// What the supervisor says.
pub const SUPERVISOR_LOG: &str = "supervisor.log";

/// One deployment, as its supervisor needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSpec {
    /// [`SPEC_FORMAT`].
    pub format: u32,
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Which build.
    pub build: BuildId,
    /// What the names of its replicas begin with: `<model slug>-<model number>-<deployment number>-<build hash>`.
    pub replica_prefix: String,
    /// The function and where it lives.
    pub function: FunctionSpec,
    /// The whole environment of its processes; nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// How many replicas.
    pub slots: u16,
    /// What they may use.
    pub resources: Resources,
    /// JSON of the example request: called in each replica before it is ready.
    pub example_request: Option<String>,
    /// Milliseconds from start to ready.
    pub start_timeout_ms: u64,
    /// Milliseconds between TERM and KILL.
    pub kill_grace_ms: u64,
    /// What holds the user's code in.
    pub confinement: Confinement,
    /// How its replicas are started, ended and renewed.
    #[serde(default)]
    pub policy: ReplicaPolicy,
}

/// How replicas are started, ended and renewed. [`Default`] is what a model gets that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaPolicy {
    /// How they are started.
    pub start: StartPolicy,
    /// What an exception does to the replica that raised it; unset is `replace` where replicas are forked and `keep`
    /// where they are spawned.
    pub on_exception: Option<OnException>,
    /// What a process is used for.
    pub isolation: CallIsolation,
    /// Calls after which a replica is replaced.
    pub calls_max: Option<u64>,
    /// Seconds after which a replica is replaced.
    pub age_s_max: Option<u64>,
    /// Bytes of memory of its own after which a replica is replaced between calls.
    pub memory_bytes_max: Option<u64>,
    /// Forked replicas kept set up and warmed, each to take over a slot that loses its own; they use memory like any
    /// other. Spawned ones have none.
    pub spares: u16,
}

impl Default for ReplicaPolicy {
    fn default() -> Self {
        Self {
            start: StartPolicy::Auto,
            on_exception: None,
            isolation: CallIsolation::Replica,
            calls_max: None,
            age_s_max: None,
            memory_bytes_max: None,
            spares: 1,
        }
    }
}

/// How replicas are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPolicy {
    /// Forked where that is safe, else spawned, with the reason reported.
    #[default]
    Auto,
    /// Forked whatever the signs say.
    Fork,
    /// Each started afresh.
    Spawn,
}

/// What an exception does to the replica that raised it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnException {
    /// It ends after its answer; the next call meets a fresh one.
    Replace,
    /// It goes on.
    Keep,
}

/// What a process is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallIsolation {
    /// For one call after another.
    #[default]
    Replica,
    /// For one call: each gets a fresh fork.
    Call,
}

/// The function and where it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// The program that embeds Python (`millgate-replica`).
    pub runtime: PathBuf,
    /// The environment's interpreter, `…/bin/python`: tells the embedded one where its packages are.
    pub python: PathBuf,
    /// The model's root: working directory and base of `file`.
    pub root: PathBuf,
    /// The file, relative to `root`.
    pub file: PathBuf,
    /// The function in it.
    pub function: String,
    /// Folders put at the end of `sys.path` (the SDK, where the environment has not got it).
    pub python_path: Vec<PathBuf>,
}

/// What one replica may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millicores: u32,
    /// Bytes of memory of its own, pages shared with the template not counted.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub processes_max: u32,
}

/// What holds the user's code in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// Whatever this host allows, asserted and reported.
    Available {
        /// The uid and gid to run under when started by root.
        uid: u32,
        /// Folders shown at their own paths, read-only, besides the system's and the interpreter's.
        readable: Vec<PathBuf>,
        /// Where the model's root is also shown (`/home/cdsw`).
        home: PathBuf,
        /// What of the host's network it reaches.
        #[serde(default)]
        network: Network,
        /// Nothing is started where any part of it cannot be had.
        #[serde(default)]
        is_required: bool,
    },
    /// None: one's own function on one's own machine (`millgate run`).
    Open,
}

/// What of the host's network user code reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// All of it.
    #[default]
    Kept,
    /// None: a loopback of its own, and nothing else. Where that cannot be had, nothing is started.
    None,
}

impl DeploymentSpec {
    /// The path of a slot's socket.
    pub fn slot_socket(run_dir: &Path, slot: SlotIndex) -> PathBuf {
        run_dir.join(format!("s{slot}.sock"))
    }
}

/// One line of `replicas.log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// Where it came from.
    pub source: LogSource,
    /// Who printed it; absent for the template.
    pub replica: Option<ReplicaId>,
    /// The request of the call that printed it; absent for what is printed between calls, or cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The line, without its end; cut at [`crate::limits::LOG_LINE_BYTES_MAX`], bytes that are not UTF-8 replaced.
    pub text: String,
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// The function's standard output.
    Stdout,
    /// Its standard error, tracebacks included.
    Stderr,
    /// The supervisor, about its processes.
    Supervisor,
}

/// One step of a build that runs the user's script: what `millgate build-step` is given, as JSON on standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildStepSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory; written to.
    pub root: PathBuf,
    /// Other folders written to (the environment, the package cache).
    pub writable: Vec<PathBuf>,
    /// The whole environment; nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// What holds the script in.
    pub confinement: Confinement,
    /// What it may use.
    pub resources: Resources,
    /// Milliseconds it may take.
    pub timeout_ms: u64,
    /// Bytes of disk that its folders may grow by; unbounded where it says nothing.
    #[serde(default)]
    pub disk_bytes: Option<u64>,
    /// Its way out of a network of its own ([`Network::None`]).
    #[serde(default)]
    pub outlet: Option<Outlet>,
}

/// The only way out of a step's own network: a port of its loopback whose listener is handed to the starter, who proxies.
/// Where a network of its own cannot be had and is not required, there is none, and its variables are not set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlet {
    /// On 127.0.0.1, in the step's network.
    pub port: u16,
    /// What tells programs of it; wins over the step's environment.
    pub environment: BTreeMap<String, String>,
}

/// What a build step says to its starter, as JSON lines over standard input where that is a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromBuildStep {
    /// The listener of its [`Outlet`] is with this line, by `SCM_RIGHTS`.
    Outlet,
    /// The command runs; what holds it in, read back from the kernel. Says nothing but what is missing when the command
    /// ended before that could be asked.
    Held(Isolation),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_its_form() {
        let spec = DeploymentSpec {
            format: SPEC_FORMAT,
            deployment: DeploymentId::new("d"),
            build: BuildId::new("b"),
            replica_prefix: "add-1-1-86b9b58b7b".into(),
            function: FunctionSpec {
                runtime: "/usr/lib/millgate/millgate-replica".into(),
                python: "/var/lib/millgate/builds/b/venv/bin/python".into(),
                root: "/var/lib/millgate/builds/b/root".into(),
                file: "add.py".into(),
                function: "add".into(),
                python_path: vec![],
            },
            environment: BTreeMap::from([("CDSW_PROJECT".into(), "p".into())]),
            slots: 3,
            resources: Resources { cpu_millicores: 1_000, memory_bytes: 2 << 30, processes_max: 256 },
            example_request: Some(r#"{"a":3,"b":5}"#.into()),
            start_timeout_ms: 120_000,
            kill_grace_ms: 1_000,
            confinement: Confinement::Available {
                uid: 200_001,
                readable: vec![],
                home: "/home/cdsw".into(),
                network: Network::None,
                is_required: true,
            },
            policy: ReplicaPolicy { calls_max: Some(10_000), ..ReplicaPolicy::default() },
        };
        let text = serde_json::to_string_pretty(&spec).unwrap();
        assert_eq!(serde_json::from_str::<DeploymentSpec>(&text).unwrap(), spec);
        insta::assert_snapshot!(text);
    }
}
