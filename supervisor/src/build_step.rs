//! One step of a build: the user's script, in the sandbox of a replica, except that its own folders can be written to.
//!
//! ```text
//! build-step ──fork──▶ init of a PID namespace ──fork, sandbox──▶ the command
//! ```
//! We wait for init. At the time-out, over its disk, or when our own starter is gone, init is killed and all of the step
//! with it. In a network of its own, the step's only way out is a listener that we make there and give to our starter.

mod disk;
mod starter;

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use millgate_contract::{
    spec::{BuildStepSpec, Confinement, Network},
    supervision::Isolation,
};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid, pipe2},
};

use crate::{
    cgroup::{self, Group, Groups},
    limits::SPEC_BYTES_MAX,
    namespaces,
    process::Process,
    procfs::{self, ShownPid},
    sandbox::{self, Outside, Program, Sandbox, SpawnError},
    sys,
};
use disk::Disk;

/// Exit code after a time-out, as of `timeout(1)`.
const EXIT_TIMED_OUT: u8 = 124;
/// Exit code when it was ended over its disk.
const EXIT_DISK_FULL: u8 = 123;
/// Exit code when the step could not be started.
const EXIT_NOT_STARTED: u8 = 125;
/// How often we look whether our starter is still there, and at the disk.
const LOOK_MS: u16 = 250;
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
    // Before anything else: a starter that ends while we prepare must not be missed.
    let starter = getppid();
    let mut spec = read_spec()?;
    let staging = Staging::make(&spec)?;
    let sandbox = Sandbox::of_build_step(&spec, &staging.0);
    let mut house = House::make(&mut spec)?;
    let disk = spec.disk_bytes.map(|grown_max| {
        let folders = spec.writable.iter().chain([&spec.root]).cloned().collect();
        Disk::measure(folders, grown_max)
    });
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(at("make a pipe"))?;
    // SAFETY: this process has one thread (checked above), so the child may use all of the library.
    let init = match unsafe { fork() }.map_err(at("fork"))? {
        ForkResult::Child => {
            drop(ours);
            sys::exit_now(i32::from(be_init(&spec, &sandbox, house.group.as_ref(), theirs)))
        }
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    let pidfd = sys::pidfd_open(init).map_err(at("watch the step"))?;
    let process = Process::new(init, pidfd);
    house.missing.extend(went_without(ours));
    starter::say_held(house.prove(process.shown()));
    let code = watch(&spec, (&process, starter), house.group.as_ref(), disk);
    if let Some(group) = &house.group {
        end_group(group);
    }
    if let Some(groups) = &house.groups {
        groups.remove();
    }
    code
}

/// What is around the step's init.
struct House {
    outside: Outside,
    groups: Option<Groups>,
    group: Option<Group>,
    missing: Vec<String>,
}

impl House {
    /// Makes namespaces and groups; sets the variables of the way out where there is one.
    fn make(spec: &mut BuildStepSpec) -> Result<Self, StepError> {
        let outside = Outside::here();
        let mut house = Self { outside, groups: None, group: None, missing: Vec::new() };
        let Confinement::Available { network, is_required, .. } = spec.confinement else { return Ok(house) };
        house.missing.extend(cgroup::make_room());
        let made = namespaces::enter(network);
        house.missing.extend(made.missing);
        match (made.no_network_error, &spec.outlet) {
            // With a way out it has a network in any case: told, and gone without.
            (Some(error), Some(_)) => house.missing.push(format!("network namespace: {error}")),
            (Some(source), None) => {
                return Err(StepError::System { step: "leave the network", source });
            }
            (None, Some(outlet)) if network == Network::None => {
                starter::give_outlet(outlet.port).map_err(at("make the way out of its network"))?;
                spec.environment.extend(outlet.environment.clone());
            }
            (None, _) => {}
        }
        let (groups, refused) = Groups::create("build", std::process::id(), &spec.resources);
        house.missing.extend(refused);
        // Else it is told; a build runs with what there is.
        if let Some(refusal) = sandbox::refusal(&house.missing).filter(|_| is_required) {
            return Err(StepError::Isolation(refusal));
        }
        house.group = groups.as_ref().and_then(|groups| groups.group("step").ok());
        house.groups = groups;
        Ok(house)
    }

    /// What holds the command in, by the kernel's word.
    fn prove(&self, init: Option<ShownPid>) -> Isolation {
        let command = init.and_then(|init| procfs::children(init).into_iter().next());
        let missing = self.missing.clone();
        // A command that ends at once leaves nothing to ask; what it went without is known in any case.
        let Some(command) = command else { return Isolation { missing, ..Isolation::default() } };
        let mut isolation = sandbox::prove(Some(command), &self.outside, missing);
        let pid = i32::try_from(command.0).map_or(Pid::from_raw(0), Pid::from_raw);
        if let (Some(groups), Some(group)) = (&self.groups, &self.group)
            && group.holds(pid)
        {
            isolation.cgroup_version = groups.version();
        }
        isolation
    }
}

/// What init says its command went without; it ends with the command's start, or its own.
fn went_without(pipe: OwnedFd) -> Vec<String> {
    let mut text = String::new();
    let _ = File::from(pipe).take(SPEC_BYTES_MAX).read_to_string(&mut text);
    text.lines().map(str::to_owned).collect()
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

/// Why a step was ended.
enum Ended {
    Late,
    Deserted,
    Full(String),
}

/// Waits for init until the time-out, the bound of its disk, or the end of whoever started us.
fn watch(
    spec: &BuildStepSpec,
    (process, starter): (&Process, Pid),
    group: Option<&Group>,
    mut disk: Option<Disk>,
) -> Result<u8, StepError> {
    let until = Instant::now() + Duration::from_millis(spec.timeout_ms);
    let ended = loop {
        let left_ms = until.saturating_duration_since(Instant::now()).as_millis();
        if left_ms == 0 {
            break Some(Ended::Late);
        }
        let wait_ms = u16::try_from(left_ms).unwrap_or(u16::MAX).min(LOOK_MS);
        let mut watched = [PollFd::new(process.fd().as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::from(wait_ms)) {
            Ok(1..) => break None,
            Ok(_) | Err(nix::errno::Errno::EINTR) if getppid() == starter => {}
            Ok(_) | Err(nix::errno::Errno::EINTR) => break Some(Ended::Deserted),
            Err(error) => return Err(at("wait for the step")(error)),
        }
        if let Some(reason) = disk.as_mut().and_then(Disk::exceeded) {
            break Some(Ended::Full(reason));
        }
    };
    if ended.is_some() {
        process.kill_tree(group);
    }
    let status = waitpid(process.pid(), None).map_err(at("wait for the step"))?;
    Ok(match ended {
        None => exit_code(status),
        Some(Ended::Full(reason)) => {
            eprintln!("millgate: the build step is ended: {reason}");
            EXIT_DISK_FULL
        }
        Some(Ended::Late | Ended::Deserted) => {
            eprintln!("millgate: the build step is ended: it ran longer than {} ms", spec.timeout_ms);
            EXIT_TIMED_OUT
        }
    })
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
fn be_init(spec: &BuildStepSpec, sandbox: &Sandbox, group: Option<&Group>, report: OwnedFd) -> u8 {
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
    // No file of its own is larger than all of them may be.
    if let Some(bytes) = spec.disk_bytes
        && let Err(error) = setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)
    {
        return not_started(&io::Error::from(error));
    }
    let command = match sandbox::spawn(sandbox, &program) {
        Ok(spawned) => {
            let mut report = File::from(report);
            for one in &spawned.missing {
                let _ = writeln!(report, "{}", one.replace('\n', " "));
            }
            spawned.pid
        }
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
