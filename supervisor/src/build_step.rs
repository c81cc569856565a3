//! One step of a build: the user's script, in the sandbox of a replica, except that its own folders can be written to.
//!
//! ```text
//! build-step ──fork──▶ init of a PID namespace ──fork, sandbox──▶ the command
//! ```
//! We wait for init. At the time-out, or when our own starter is gone, init is killed and all of the step with it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use millgate_contract::spec::{BuildStepSpec, Confinement};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid},
};

use crate::{
    cgroup::{self, Group, Groups},
    limits::SPEC_BYTES_MAX,
    namespaces,
    process::Process,
    procfs,
    sandbox::{self, Program, Sandbox, SpawnError},
    sys,
};

/// Exit code after a time-out, as of `timeout(1)`.
const EXIT_TIMED_OUT: u8 = 124;
/// Exit code when the step could not be started.
const EXIT_NOT_STARTED: u8 = 125;
/// How often we look whether our starter is still there.
const STARTER_LOOK_MS: u16 = 500;
/// Looks, a millisecond apart, at a group whose processes are ending.
const GROUP_LOOKS_MAX: u32 = 1_000;

/// Why a step could not be run.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("standard input is not a build step: {0}")]
    Spec(String),
    #[error("a build step must be started from a program with one thread, this one has {0}")]
    Threads(u32),
    #[error("{step}: {source}")]
    System { step: &'static str, source: io::Error },
    #[error("{0}")]
    Isolation(String),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> StepError {
    move |source| StepError::System { step, source: source.into() }
}

pub(crate) fn run() -> ExitCode {
    match step() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("millgate: the build step cannot be run: {error}");
            ExitCode::from(EXIT_NOT_STARTED)
        }
    }
}

fn step() -> Result<u8, StepError> {
    if let Some(status) = procfs::own_status().filter(|status| status.threads != 1) {
        return Err(StepError::Threads(status.threads));
    }
    let spec = read_spec()?;
    let staging = Staging::make(&spec)?;
    let sandbox = Sandbox::of_build_step(&spec, &staging.0);
    let (mut groups, mut group) = (None, None);
    if let Confinement::Available { network, is_required, .. } = spec.confinement {
        let mut missing: Vec<String> = cgroup::make_room().into_iter().collect();
        let made = namespaces::enter(network);
        if let Some(source) = made.no_network_error {
            return Err(StepError::System { step: "leave the network", source });
        }
        missing.extend(made.missing);
        let refused;
        (groups, refused) = Groups::create("build", std::process::id(), &spec.resources);
        missing.extend(refused);
        // Else it is for deployments to report; a build runs with what there is.
        if let Some(refusal) = sandbox::refusal(&missing).filter(|_| is_required) {
            return Err(StepError::Isolation(refusal));
        }
        group = groups.as_ref().and_then(|groups| groups.group("step").ok());
    }
    // SAFETY: this process has one thread (checked above), so the child may use all of the library.
    let init = match unsafe { fork() }.map_err(at("fork"))? {
        ForkResult::Child => sys::exit_now(i32::from(be_init(&spec, &sandbox, group.as_ref()))),
        ForkResult::Parent { child } => child,
    };
    let pidfd = sys::pidfd_open(init).map_err(at("watch the step"))?;
    let code = watch(&spec, init, &Process::new(init, pidfd), group.as_ref());
    if let Some(group) = &group {
        end_group(group);
    }
    if let Some(groups) = &groups {
        groups.remove();
    }
    code
}

fn read_spec() -> Result<BuildStepSpec, StepError> {
    let mut text = String::new();
    io::stdin().take(SPEC_BYTES_MAX).read_to_string(&mut text).map_err(at("read standard input"))?;
    let spec: BuildStepSpec =
        serde_json::from_str(&text).map_err(|error| StepError::Spec(error.to_string()))?;
    if spec.command.is_empty() {
        return Err(StepError::Spec("`command` is empty".to_owned()));
    }
    Ok(spec)
}

/// An empty folder to build the root on; gone at the end.
struct Staging(PathBuf);

impl Staging {
    fn make(spec: &BuildStepSpec) -> Result<Self, StepError> {
        let beside = spec.root.parent().unwrap_or(&spec.root);
        let path = beside.join(format!(".sandbox-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(at("make a folder beside the build's root"))?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Waits for init until the time-out or the end of whoever started us.
fn watch(spec: &BuildStepSpec, init: Pid, process: &Process, group: Option<&Group>) -> Result<u8, StepError> {
    let until = Instant::now() + Duration::from_millis(spec.timeout_ms);
    let starter = getppid();
    let is_timed_out = loop {
        let left_ms = until.saturating_duration_since(Instant::now()).as_millis();
        if left_ms == 0 {
            break true;
        }
        let wait_ms = u16::try_from(left_ms).unwrap_or(u16::MAX).min(STARTER_LOOK_MS);
        let mut watched = [PollFd::new(process.fd().as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::from(wait_ms)) {
            Ok(1..) => break false,
            Ok(_) | Err(nix::errno::Errno::EINTR) if getppid() == starter => {}
            Ok(_) | Err(nix::errno::Errno::EINTR) => break true,
            Err(error) => return Err(at("wait for the step")(error)),
        }
    };
    if is_timed_out {
        process.kill_tree(group);
        eprintln!("millgate: the build step is ended: it ran longer than {} ms", spec.timeout_ms);
    }
    let status = waitpid(init, None).map_err(at("wait for the step"))?;
    Ok(if is_timed_out { EXIT_TIMED_OUT } else { exit_code(status) })
}

/// Init has taken its namespace along; without one, what has daemonized is ended here.
fn end_group(group: &Group) {
    for _ in 0..GROUP_LOOKS_MAX {
        group.kill();
        if group.remove() {
            return;
        }
        let _ = poll(&mut [], PollTimeout::from(1_u8));
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(u8::MAX),
        // As shells say it.
        WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => EXIT_NOT_STARTED,
    }
}

/// Init of the step: starts the command, buries orphans, ends with the command's exit code. The kernel kills what is
/// left in the namespace then.
fn be_init(spec: &BuildStepSpec, sandbox: &Sandbox, group: Option<&Group>) -> u8 {
    // Without a namespace, the next best thing: end when the watcher does, and adopt what daemonizes.
    let prepared = prctl::set_pdeathsig(Signal::SIGKILL).and_then(|()| prctl::set_child_subreaper(true));
    let nothing = match (prepared, File::open("/dev/null")) {
        (Ok(()), Ok(nothing)) => nothing,
        (Err(error), _) => return not_started(&io::Error::from(error)),
        (_, Err(error)) => return not_started(&error),
    };
    let program = Program {
        path: spec.command[0].as_ref(),
        arguments: spec.command[1..].iter().map(OsStr::new).collect(),
        environment: spec.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        descriptors: vec![(std::os::fd::AsRawFd::as_raw_fd(&nothing), 0), (1, 1), (2, 2)],
        dies_with_parent: true,
        group,
    };
    let command = match sandbox::spawn(sandbox, &program) {
        Ok(spawned) => spawned.pid,
        Err(error) => return not_started(&error),
    };
    loop {
        match waitpid(None::<Pid>, None) {
            Ok(status) if status.pid() == Some(command) => return exit_code(status),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return not_started(&io::Error::from(error)),
        }
    }
}

fn not_started(error: &dyn std::error::Error) -> u8 {
    eprintln!("millgate: the build step cannot be run: {error}");
    EXIT_NOT_STARTED
}
