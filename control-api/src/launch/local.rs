//! Supervisors as processes of this host. Each has a run directory; a keeper task holds one connection to it, which is
//! also our claim. A supervisor outlives this program and is found again by its run directory.
//!
//! Gone means: its control socket refuses and its process has ended. A connection that ends says nothing; the keeper
//! connects again.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    ops::ControlFlow,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millgate_contract::{
    limits, line,
    spec::{CONTROL_SOCKET, DeploymentSpec, SPEC_FILE},
    supervision::{FromSupervisor, Peer, ReplicaUsage, SUPERVISION_PROTOCOL, ToSupervisor},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
};

use super::{LaunchError, Launcher, Report, UnitName, Work};
use crate::{
    data_dir::write_private,
    lines::{Lines, Overlong},
    milestone::{Milestone, reached},
};

/// A supervisor answers a hello at once; one that does not hangs.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// A supervisor measures at once, between two of its events.
const MEASURE_WAIT: Duration = Duration::from_millis(250);
/// Between two attempts to reach a supervisor that takes connections and says nothing.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long a process may outlive its sockets before it counts as gone, and between two looks at it.
const END_WAIT: Duration = Duration::from_secs(5);
const END_PAUSE: Duration = Duration::from_millis(5);
/// Until the starter process must have ended.
const START_WAIT: Duration = Duration::from_secs(30);
/// What a supervisor gets on top of the grace of its calls before it is killed.
const STOP_SLACK: Duration = Duration::from_secs(5);
/// What the starter process says when it fails.
const START_ERRORS: &str = "start.err";

/// See the module.
#[derive(Clone)]
pub(crate) struct LocalLauncher(Arc<Inner>);

struct Inner {
    run: PathBuf,
    program: PathBuf,
    units: Mutex<BTreeMap<UnitName, Unit>>,
    changed: watch::Sender<u64>,
}

struct Unit {
    report: Report,
    commands: mpsc::Sender<ToSupervisor>,
    /// How often it has been measured.
    measurements: watch::Sender<u64>,
    /// When it is ended by force, once it was told to stop.
    kill_at: Option<Instant>,
}

struct Channel {
    lines: Lines<OwnedReadHalf>,
    write: OwnedWriteHalf,
    report: Report,
}

impl LocalLauncher {
    pub(crate) fn new(run: PathBuf, program: PathBuf) -> Self {
        Self(Arc::new(Inner {
            run,
            program,
            units: Mutex::new(BTreeMap::new()),
            changed: watch::Sender::new(0),
        }))
    }

    async fn start(&self, unit: &UnitName, spec: &DeploymentSpec) -> Result<(), LaunchError> {
        let dir = self.run_dir(unit);
        let prepare = || -> io::Result<Stdio> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let json = serde_json::to_vec_pretty(spec).expect("a spec holds nothing that JSON cannot");
            write_private(&dir.join(SPEC_FILE), &json)?;
            Ok(fs::File::create(dir.join(START_ERRORS))?.into())
        };
        let stderr =
            prepare().map_err(|e| LaunchError(format!("cannot prepare `{}`: {e}", dir.display())))?;
        reached(Milestone::SpecWritten);
        // Nothing is inherited: the spec holds the environment of user code, and a secret of the server's own
        // environment has no business in a process that lives longer than the server.
        let mut child = tokio::process::Command::new(&self.0.program)
            .arg("supervise")
            .arg(&dir)
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| ["PATH", "LANG", "RUST_LOG"].contains(&name.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| LaunchError(format!("cannot run `{}`: {e}", self.0.program.display())))?;
        reached(Milestone::SupervisorSpawned);
        let status = tokio::time::timeout(START_WAIT, child.wait())
            .await
            .map_err(|_| {
                LaunchError(format!("the supervisor did not start within {} s", START_WAIT.as_secs()))
            })?
            .map_err(|e| LaunchError(format!("cannot wait for the supervisor: {e}")))?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(dir.join(START_ERRORS)).unwrap_or_default();
        let said: String = said.trim().chars().take(2_000).collect();
        Err(LaunchError(format!("the supervisor did not start ({status}): {said}")))
    }

    async fn connect(&self, unit: &UnitName) -> io::Result<Channel> {
        let stream = UnixStream::connect(self.run_dir(unit).join(CONTROL_SOCKET)).await?;
        tokio::time::timeout(HELLO_WAIT, greet(stream))
            .await
            .map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    fn keep(&self, unit: UnitName, channel: Channel) {
        let (commands, queue) = mpsc::channel(8);
        let measurements = watch::Sender::new(0);
        let entry = Unit { report: channel.report.clone(), commands, measurements, kill_at: None };
        self.units(|units| units.insert(unit.clone(), entry));
        let this = self.clone();
        tokio::spawn(async move { this.keeper(unit, channel, queue).await });
    }

    /// Holds the connection until the supervisor is gone. Ends with the runtime; it owns nothing that needs an end.
    async fn keeper(self, unit: UnitName, mut channel: Channel, mut queue: mpsc::Receiver<ToSupervisor>) {
        loop {
            if self.converse(&unit, &mut channel, &mut queue).await.is_break() {
                return;
            }
            match self.reconnect(&unit).await {
                Some(again) => channel = again,
                None => break,
            }
        }
        // Its sockets are gone; the unit is when its process is, so that the next one in this directory meets no other.
        let pid = self.observe().get(&unit).map_or(0, |report| report.pid);
        let end = Instant::now() + END_WAIT;
        while is_alive(pid) && Instant::now() < end {
            tokio::time::sleep(END_PAUSE).await;
        }
        self.units(|units| units.remove(&unit));
    }

    /// Passes words on in both directions until the connection ends, or (break) nobody keeps the unit any more.
    async fn converse(
        &self,
        unit: &UnitName,
        channel: &mut Channel,
        queue: &mut mpsc::Receiver<ToSupervisor>,
    ) -> ControlFlow<()> {
        loop {
            tokio::select! {
                said = channel.lines.next() => match said {
                    Ok(Some(said)) => match line::decode::<FromSupervisor>(&said) {
                        Ok(message) => self.heard(unit, message),
                        Err(error) => tracing::warn!(%unit, %error, "a supervisor said something unknown"),
                    },
                    Ok(None) | Err(_) => return ControlFlow::Continue(()),
                },
                command = queue.recv() => {
                    let Some(command) = command else { return ControlFlow::Break(()) };
                    if channel.write.write_all(&line::encode(&command)).await.is_err() {
                        return ControlFlow::Continue(());
                    }
                }
            }
        }
    }

    /// Connects anew; `None` when the supervisor is gone.
    async fn reconnect(&self, unit: &UnitName) -> Option<Channel> {
        loop {
            match self.connect(unit).await {
                Ok(channel) => {
                    self.units(|units| {
                        if let Some(entry) = units.get_mut(unit) {
                            let is_stopping = entry.report.is_stopping;
                            entry.report = Report { is_stopping, ..channel.report.clone() };
                        }
                    });
                    return Some(channel);
                }
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                    return None;
                }
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    fn heard(&self, unit: &UnitName, message: FromSupervisor) {
        if let FromSupervisor::Usage { replicas } = message {
            return self.measured(unit, replicas);
        }
        self.units(|units| {
            let Some(entry) = units.get_mut(unit) else { return };
            match message {
                FromSupervisor::Hello { .. } | FromSupervisor::Usage { .. } => {}
                FromSupervisor::Slot(slot) => {
                    entry.report.slots.insert(slot.slot.0, slot);
                }
                FromSupervisor::Deployment(whole) => entry.report.whole = Some(whole),
            }
        });
    }

    /// Nothing is decided by usage: nobody is woken by it but who has asked.
    fn measured(&self, unit: &UnitName, replicas: Vec<ReplicaUsage>) {
        let mut units = self.0.units.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = units.get_mut(unit) {
            entry.report.usage = replicas;
            entry.measurements.send_modify(|n| *n += 1);
        }
    }

    fn units<T>(&self, change: impl FnOnce(&mut BTreeMap<UnitName, Unit>) -> T) -> T {
        let result = change(&mut self.0.units.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.send_modify(|n| *n = n.wrapping_add(1));
        result
    }
}

async fn greet(stream: UnixStream) -> io::Result<Channel> {
    let (read, mut write) = stream.into_split();
    let hello = ToSupervisor::Hello {
        protocol: SUPERVISION_PROTOCOL,
        peer: Peer::Control,
        name: "control".to_owned(),
    };
    write.write_all(&line::encode(&hello)).await?;
    let mut lines = Lines::new(read, limits::MESSAGE_BYTES_MAX, Overlong::Refuse);
    let said = lines.next().await?.ok_or(ErrorKind::UnexpectedEof)?;
    match line::decode(&said) {
        Ok(FromSupervisor::Hello { protocol: SUPERVISION_PROTOCOL, deployment, pid, isolation, .. }) => {
            let report = Report {
                deployment,
                pid,
                isolation,
                slots: BTreeMap::new(),
                whole: None,
                is_stopping: false,
                usage: Vec::new(),
            };
            Ok(Channel { lines, write, report })
        }
        _ => Err(io::Error::new(ErrorKind::InvalidData, "a supervisor begins with its hello")),
    }
}

fn read_spec(dir: &Path) -> Option<DeploymentSpec> {
    serde_json::from_slice(&fs::read(dir.join(SPEC_FILE)).ok()?).ok()
}

/// True while a process runs; one that has ended and that nobody has asked about yet does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses and may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Launcher for LocalLauncher {
    fn adopt(&self) -> Work<'_, ()> {
        Box::pin(async move {
            let names: Vec<UnitName> = fs::read_dir(&self.0.run)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| UnitName::parse(entry.file_name().to_str()?))
                .collect();
            for unit in names {
                let Some(spec) = read_spec(&self.run_dir(&unit)) else { continue };
                match self.connect(&unit).await {
                    Ok(channel) if channel.report.deployment == spec.deployment => {
                        tracing::info!(%unit, pid = channel.report.pid, "found a running supervisor");
                        self.keep(unit, channel);
                    }
                    Ok(_) => {
                        tracing::error!(%unit, "another deployment's supervisor is in this run directory");
                    }
                    Err(error) => tracing::debug!(%unit, %error, "no supervisor runs here"),
                }
            }
        })
    }

    fn launch(&self, unit: UnitName, spec: DeploymentSpec) -> Work<'_, Result<(), LaunchError>> {
        Box::pin(async move {
            if self.observe().contains_key(&unit) {
                return Ok(());
            }
            self.start(&unit, &spec).await?;
            reached(Milestone::SupervisorStarted);
            let channel = self
                .connect(&unit)
                .await
                .map_err(|e| LaunchError(format!("the supervisor has started and does not answer: {e}")))?;
            self.keep(unit, channel);
            Ok(())
        })
    }

    fn observe(&self) -> BTreeMap<UnitName, Report> {
        let units = self.0.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.iter().map(|(name, unit)| (name.clone(), unit.report.clone())).collect()
    }

    fn stop(&self, unit: &UnitName, grace_ms: u64) {
        let mut units = self.0.units.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = units.get_mut(unit) else { return };
        match entry.kill_at {
            None => {
                // A full queue means that it hears nothing: the kill below ends it.
                let _ = entry.commands.try_send(ToSupervisor::Stop { grace_ms });
                entry.report.is_stopping = true;
                entry.kill_at = Some(Instant::now() + Duration::from_millis(grace_ms) + STOP_SLACK);
            }
            Some(at) if at <= Instant::now() => {
                // Its connection is still held, so the id is still its own. It is init of its namespace: all end.
                tracing::warn!(%unit, pid = entry.report.pid, "a supervisor does not stop; it is killed");
                if let Ok(pid @ 2..) = i32::try_from(entry.report.pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            Some(_) => {}
        }
    }

    fn measure(&self, unit: &UnitName) -> Work<'_, ()> {
        let asked = {
            let units = self.0.units.lock().unwrap_or_else(PoisonError::into_inner);
            units.get(unit).and_then(|entry| {
                let measurements = entry.measurements.subscribe();
                entry.commands.try_send(ToSupervisor::Measure).is_ok().then_some(measurements)
            })
        };
        Box::pin(async move {
            let Some(mut measurements) = asked else { return };
            // One of a version that knows no measuring says nothing; what is known without it is shown.
            let _ = tokio::time::timeout(MEASURE_WAIT, measurements.changed()).await;
        })
    }

    fn restart(&self, unit: &UnitName) -> bool {
        let units = self.0.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.get(unit).is_some_and(|entry| entry.commands.try_send(ToSupervisor::Restart).is_ok())
    }

    fn run_dir(&self, unit: &UnitName) -> PathBuf {
        self.0.run.join(unit.as_str())
    }

    fn clear(&self, unit: &UnitName) {
        let dir = self.run_dir(unit);
        if !self.observe().contains_key(unit)
            && let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "cannot remove a run directory");
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}
