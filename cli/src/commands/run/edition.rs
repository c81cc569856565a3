//! One edition of the code: a supervisor with a run directory of its own, from its start to its end.

use std::{
    collections::BTreeMap,
    io::{Read, Seek},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use millgate_contract::{
    ids::BuildId,
    limits, line,
    spec::{
        Confinement, DeploymentSpec, FunctionSpec, LogLine, LogSource, REPLICA_LOG, Resources, SPEC_FILE,
        SPEC_FORMAT,
    },
    supervision::{FromSupervisor, Peer, Phase, SUPERVISION_PROTOCOL, ToSupervisor},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::deployment_id;
use crate::{
    args::Run,
    failure::{Context, Failure},
    programs::Programs,
    roles::signals,
    source::Source,
};

/// How often the log of the replicas is looked at.
const LOG_PERIOD: Duration = Duration::from_millis(50);

/// What every edition is made from.
pub(super) struct Workshop {
    programs: Programs,
    function: FunctionSpec,
    replicas: u16,
    folder: TempDir,
}

/// A running edition.
pub(super) struct Edition {
    pub(super) run_dir: PathBuf,
    pub(super) build: BuildId,
    supervisor: Supervisor,
    /// Ends when told to, after what was printed last.
    log: JoinHandle<()>,
    log_ends: oneshot::Sender<()>,
}

/// The connection that claims a supervisor.
struct Supervisor {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Workshop {
    /// A folder for run directories and the SDK.
    pub(super) fn open(programs: Programs, source: &Source, args: &Run) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new()
            .prefix("millgate-run.")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let sdk = folder.path().join("sdk");
        millgate_control_api::sdk::unpack(&sdk).context(format_args!("cannot write `{}`", sdk.display()))?;
        let function = FunctionSpec {
            runtime: programs.runtime.clone(),
            python: programs.python.clone(),
            root: source.folder.clone(),
            file: PathBuf::from(&source.file),
            function: args.target.function.clone(),
            python_path: vec![sdk],
        };
        Ok(Self { programs, function, replicas: args.replicas, folder })
    }

    /// Starts the code as it is now; resolves when every replica is ready, or with what failed, or with nothing when
    /// the end was asked for meanwhile. To be awaited to its end: what it started ends with it.
    pub(super) async fn start(
        &self,
        generation: u64,
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<Edition>, Failure> {
        let run_dir = self.folder.path().join(format!("r{generation}"));
        std::fs::create_dir(&run_dir).context(format_args!("cannot make `{}`", run_dir.display()))?;
        let build = BuildId::new(format!("run-{generation}"));
        let spec = self.spec(generation, &build);
        let text = serde_json::to_vec_pretty(&spec).expect("a specification is JSON");
        let file = run_dir.join(SPEC_FILE);
        std::fs::write(&file, text).context(format_args!("cannot write `{}`", file.display()))?;
        let output = tokio::process::Command::from({
            let mut command = Command::new(&self.programs.millgate);
            command
                .arg("supervise")
                .arg(&run_dir)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                // Ctrl-C is for this program: a start that it cut short would leave half a supervisor.
                .process_group(0);
            command
        })
        .output()
        .await
        .context("cannot start a supervisor")?;
        if !output.status.success() {
            return Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let (log_ends, ended) = oneshot::channel();
        let log = tokio::spawn(print_log(run_dir.join(REPLICA_LOG), ended));
        let supervisor = Supervisor::claim(&run_dir).await.context("the supervisor does not answer")?;
        let mut edition = Edition { run_dir, build, supervisor, log, log_ends };
        let outcome = tokio::select! {
            outcome = edition.supervisor.serving() => outcome.map(|()| true),
            () = signals::stopped(stop.clone()) => Ok(false),
        };
        match outcome {
            Ok(true) => return Ok(Some(edition)),
            Ok(false) | Err(_) => edition.abandon().await,
        }
        outcome.map(|_| None)
    }

    fn spec(&self, generation: u64, build: &BuildId) -> DeploymentSpec {
        DeploymentSpec {
            format: SPEC_FORMAT,
            deployment: deployment_id(generation),
            build: build.clone(),
            replica_prefix: format!("run-1-{generation}-0000000000"),
            function: self.function.clone(),
            environment: std::env::vars().collect::<BTreeMap<_, _>>(),
            slots: self.replicas,
            resources: Resources { cpu_millicores: 1_000, memory_bytes: 1 << 40, processes_max: 32_768 },
            example_request: None,
            start_timeout_ms: limits::START_TIMEOUT_MS_DEFAULT,
            kill_grace_ms: limits::KILL_GRACE_MS,
            confinement: Confinement::Open,
            policy: millgate_contract::spec::ReplicaPolicy::default(),
        }
    }
}

impl Edition {
    /// Lets the running call end, then stops everything.
    pub(super) async fn end(self) {
        self.end_after(limits::REQUEST_TIMEOUT_MS_DEFAULT).await;
    }

    /// Stops everything; it has no calls.
    async fn abandon(self) {
        self.end_after(0).await;
    }

    async fn end_after(mut self, grace_ms: u64) {
        self.supervisor.stop(grace_ms).await;
        drop(self.log_ends);
        // It cannot fail, and a panic in it has been printed.
        let _ = self.log.await;
    }
}

impl Supervisor {
    async fn claim(run_dir: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(run_dir.join(millgate_contract::spec::CONTROL_SOCKET)).await?;
        let (reader, mut writer) = stream.into_split();
        let hello =
            ToSupervisor::Hello { protocol: SUPERVISION_PROTOCOL, peer: Peer::Control, name: "run".into() };
        writer.write_all(&line::encode(&hello)).await?;
        Ok(Self { lines: BufReader::new(reader).lines(), writer })
    }

    async fn serving(&mut self) -> Result<(), Failure> {
        while let Some(text) = self.lines.next_line().await.context("the supervisor has gone")? {
            match line::decode(text.as_bytes()) {
                Ok(FromSupervisor::Deployment(report)) if report.phase == Phase::Serving => return Ok(()),
                Ok(FromSupervisor::Deployment(report)) if report.phase == Phase::Failed => {
                    return Err(Failure::new(report.reason));
                }
                _ => {}
            }
        }
        Err(Failure::new("the supervisor has ended"))
    }

    async fn stop(&mut self, grace_ms: u64) {
        let stop = ToSupervisor::Stop { grace_ms };
        if self.writer.write_all(&line::encode(&stop)).await.is_ok() {
            // Its end is the socket's.
            while let Ok(Some(_)) = self.lines.next_line().await {}
        }
    }
}

/// What the replicas print, on standard error as it comes; once more when they have ended.
async fn print_log(path: PathBuf, mut ended: oneshot::Receiver<()>) {
    let mut read = 0;
    while tokio::time::timeout(LOG_PERIOD, &mut ended).await.is_err() {
        read = print_from(&path, read);
    }
    print_from(&path, read);
}

/// Prints whole lines from this offset on; the new offset.
fn print_from(path: &Path, from: u64) -> u64 {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        // A rotated file begins anew.
        let from = if file.metadata()?.len() < from { 0 } else { from };
        file.seek(std::io::SeekFrom::Start(from))?;
        file.read_to_string(&mut text)?;
        Ok(from)
    });
    let Ok(from) = read else { return from };
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    for line in text[..whole].lines() {
        if let Ok(line) = serde_json::from_str::<LogLine>(line)
            && line.source != LogSource::Supervisor
        {
            eprintln!("{}", line.text);
        }
    }
    from + whole as u64
}
