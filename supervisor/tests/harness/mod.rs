//! A deployment to try things on: a real supervisor, a real runtime, real Python; and the two peers it has, a gateway
//! and the control API, as small as they can be.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod client;
pub(crate) mod gateway;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use millgate_contract::{
    ids::{BuildId, DeploymentId, SlotIndex},
    spec::{
        Confinement, DeploymentSpec, FunctionSpec, LogLine, Network, REPLICA_LOG, Resources, SPEC_FILE,
        SPEC_FORMAT,
    },
};
use tempfile::TempDir;

use self::{client::Client, gateway::Gateway};

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The uid that user code runs under when the tests are root.
pub(crate) const UID: u32 = 200_001;
/// A secret in the data directory.
pub(crate) const SECRET: &str = "the secret of the data directory";

/// Files of a deployment, as the control API would have made them, and its supervisor.
pub(crate) struct Deployment {
    pub(crate) dir: TempDir,
    pub(crate) run_dir: PathBuf,
    pub(crate) spec: DeploymentSpec,
}

impl Deployment {
    /// The files alone.
    pub(crate) fn files(source: &str, edit: impl FnOnce(&mut DeploymentSpec)) -> Self {
        let dir = tempfile::Builder::new().prefix("millgate-").tempdir().unwrap();
        open_to_all(dir.path());
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("run/1")).unwrap();
        fs::create_dir_all(at("builds/b/root")).unwrap();
        fs::write(at("builds/b/root/function.py"), source).unwrap();
        fs::write(at("secret"), SECRET).unwrap();
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let venv = at("builds/b/venv");
        let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let mut spec = DeploymentSpec {
            format: SPEC_FORMAT,
            deployment: DeploymentId::new(format!("{:08x}-test", std::process::id())),
            build: BuildId::new("b"),
            replica_prefix: "function-1-1-b".into(),
            function: FunctionSpec {
                runtime: runtime(),
                python: venv.join("bin/python"),
                root: at("builds/b/root"),
                file: "function.py".into(),
                function: "function".into(),
                python_path: vec![],
            },
            environment: BTreeMap::from([
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("HOME".into(), "/home/cdsw".into()),
            ]),
            slots: 1,
            resources: Resources { cpu_millicores: 500, memory_bytes: 1 << 30, processes_max: 64 },
            example_request: None,
            start_timeout_ms: 20_000,
            kill_grace_ms: 300,
            policy: millgate_contract::spec::ReplicaPolicy::default(),
            confinement: Confinement::Available {
                uid: UID,
                readable: vec![],
                home: "/home/cdsw".into(),
                network: Network::Kept,
                is_required: false,
            },
        };
        edit(&mut spec);
        let run_dir = at("run/1");
        fs::write(run_dir.join(SPEC_FILE), serde_json::to_vec(&spec).unwrap()).unwrap();
        Self { dir, run_dir, spec }
    }

    /// The files and a supervisor, with its control API connected.
    pub(crate) fn start(source: &str, edit: impl FnOnce(&mut DeploymentSpec)) -> (Self, Client) {
        let deployment = Self::files(source, edit);
        let output = deployment.supervise();
        assert!(output.status.success(), "{output:?}\n{}", deployment.supervisor_log());
        let client = deployment.connect();
        (deployment, client)
    }

    /// A deployment of which every slot is ready.
    pub(crate) fn serving(source: &str, edit: impl FnOnce(&mut DeploymentSpec)) -> (Self, Client) {
        let (deployment, mut client) = Self::start(source, edit);
        client.until_all_ready();
        (deployment, client)
    }

    /// Starts a supervisor and waits for its word.
    pub(crate) fn supervise(&self) -> Output {
        Command::new(supervise_program()).arg(&self.run_dir).output().unwrap()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.run_dir)
    }

    /// A gateway at a slot.
    pub(crate) fn gateway(&self, slot: u16) -> Gateway {
        Gateway::connect(&DeploymentSpec::slot_socket(&self.run_dir, SlotIndex(slot)))
    }

    pub(crate) fn log(&self) -> Vec<LogLine> {
        let text = fs::read_to_string(self.run_dir.join(REPLICA_LOG)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn supervisor_log(&self) -> String {
        fs::read_to_string(self.run_dir.join("supervisor.log")).unwrap_or_default()
    }
}

impl Drop for Deployment {
    /// Whatever became of the test, its supervisor ends, and with it everything below.
    fn drop(&mut self) {
        if self.run_dir.join("control.sock").exists()
            && let Some(client) = Client::try_connect(&self.run_dir)
        {
            client.stop_and_wait(0);
        }
    }
}

pub(crate) fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "never came to be: {what}");
        std::thread::yield_now();
    }
}

/// The folder with the programs that cargo has built.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

pub(crate) fn supervise_program() -> PathBuf {
    target_dir().join("examples/supervise")
}

fn runtime() -> PathBuf {
    let path = target_dir().join("millgate-replica");
    assert!(path.exists(), "no `{}`; hint: `cargo build -p millgate-replica-runtime`", path.display());
    path
}

/// Every process whose command line contains `marker`.
pub(crate) fn processes_with(marker: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != std::process::id() && String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}

/// A process that exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A field of `/proc/<pid>/status`.
pub(crate) fn status_of(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}
