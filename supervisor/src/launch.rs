//! From `millgate supervise` to the supervisor: a process of its own, in its namespaces, that outlives its starter.
//!
//! ```text
//! stage 0  lock the run directory, read the spec, make namespaces, fork ──┐
//!          wait for the child's word, say it, exit                        │
//! child    leave the session and the starter's terminal, bind the sockets, start the first template, "ready", run
//! ```
//! When stage 0 ends with success every socket is bound: a peer that connects is answered.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use millgate_contract::{
    limits::{LOG_FILE_BYTES_MAX, REPLICAS_CEILING_MAX, SOCKET_PATH_BYTES_MAX},
    spec::{
        CONTROL_SOCKET, Confinement, DeploymentSpec, REPLICA_LOG, SPEC_FILE, SPEC_FORMAT, SUPERVISOR_LOG,
    },
};
use nix::{
    fcntl::OFlag,
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
    },
    unistd::{ForkResult, fork, pipe2, setsid},
};
use tokio::io::unix::AsyncFd;

use crate::{
    cgroup::{self, Groups},
    conductor::{Conductor, Establishment, Happening},
    limits::SPEC_BYTES_MAX,
    logs::{BoundedFile, DeploymentLog},
    namespaces::{self, Namespaces},
    peers, procfs,
    sandbox::{self, Outside, STAGING_DIR, Sandbox},
    sys,
};

/// What the child says when its sockets are bound.
const READY: &str = "ready\n";

/// Why there is no supervisor.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// Something about the run directory.
    #[error("{step} `{}`: {source}", .path.display())]
    File { step: &'static str, path: PathBuf, source: io::Error },
    /// The spec is not what it should be.
    #[error("`{}` is not a deployment's spec: {reason}; the launcher writes it, do not edit it", .path.display())]
    Spec { path: PathBuf, reason: String },
    /// Another one is there.
    #[error("`{}` has a supervisor already; stop its deployment first", .0.display())]
    Held(PathBuf),
    /// The caller has started threads.
    #[error("a supervisor must be started from a program with one thread, this one has {0}")]
    Threads(u32),
    /// The system refused.
    #[error("{step}: {source}")]
    System { step: &'static str, source: io::Error },
    /// It would have more than its model says.
    #[error(
        "the model is to have no network, which this host does not allow: {0}; deploy it with its network"
    )]
    Network(io::Error),
    /// It would be held in by less than is required.
    #[error("{0}")]
    Isolation(String),
    /// The child said so.
    #[error("{0}")]
    Child(String),
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::System { step, source: source.into() }
}

fn file_at<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> LaunchError {
    move |source| LaunchError::File { step, path: path.to_owned(), source: source.into() }
}

/// Returns in stage 0 with how it went, and in the supervisor at its end.
pub(crate) fn launch(run_dir: &Path) -> Result<ExitCode, LaunchError> {
    if let Some(status) = procfs::own_status().filter(|status| status.threads != 1) {
        return Err(LaunchError::Threads(status.threads));
    }
    let run_dir = fs::canonicalize(run_dir).map_err(file_at("find", run_dir))?;
    let lock = hold(&run_dir)?;
    let spec = read_spec(&run_dir.join(SPEC_FILE))?;
    // From here on paths are relative: those of sockets may have 107 bytes, and the run directory's may be longer.
    std::env::set_current_dir(&run_dir).map_err(file_at("enter", &run_dir))?;
    let outside = Outside::here();
    let namespaces = match spec.confinement {
        Confinement::Available { network, .. } => {
            let no_room = cgroup::make_room();
            let mut made = namespaces::enter(network);
            made.missing.extend(no_room);
            if let Some(source) = made.no_network_error.take() {
                return Err(LaunchError::Network(source));
            }
            made
        }
        Confinement::Open => Namespaces::default(),
    };
    let (word, say) = pipe2(OFlag::O_CLOEXEC).map_err(at("make a pipe"))?;
    // SAFETY: this process has one thread (checked above), so the child may use all of the library.
    match unsafe { fork() }.map_err(at("fork the supervisor"))? {
        ForkResult::Parent { .. } => {
            drop(say);
            hear(word)
        }
        ForkResult::Child => {
            drop(word);
            Ok(become_supervisor(Start { run_dir, spec, outside, namespaces }, &lock, File::from(say)))
        }
    }
}

/// What the child begins with.
struct Start {
    run_dir: PathBuf,
    spec: DeploymentSpec,
    outside: Outside,
    namespaces: Namespaces,
}

fn hold(run_dir: &Path) -> Result<File, LaunchError> {
    let lock = File::open(run_dir).map_err(file_at("open", run_dir))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(LaunchError::Held(run_dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(file_at("lock", run_dir)(error)),
    }
}

fn read_spec(path: &Path) -> Result<DeploymentSpec, LaunchError> {
    let wrong = |reason: String| LaunchError::Spec { path: path.to_owned(), reason };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SPEC_BYTES_MAX).read_to_string(&mut text))
        .map_err(file_at("read", path))?;
    let spec: DeploymentSpec = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if spec.format != SPEC_FORMAT {
        return Err(wrong(format!("it has format {}, this program reads {SPEC_FORMAT}", spec.format)));
    }
    if spec.slots == 0 || spec.slots > REPLICAS_CEILING_MAX {
        return Err(wrong(format!("{} slots, 1 to {REPLICAS_CEILING_MAX} are possible", spec.slots)));
    }
    let spares = spec.policy.spares;
    if spares > REPLICAS_CEILING_MAX {
        return Err(wrong(format!("{spares} spares, up to {REPLICAS_CEILING_MAX} are possible")));
    }
    Ok(spec)
}

fn hear(word: OwnedFd) -> Result<ExitCode, LaunchError> {
    let mut text = String::new();
    File::from(word).read_to_string(&mut text).map_err(at("wait for the supervisor"))?;
    if text == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let said = text.trim();
    Err(LaunchError::Child(if said.is_empty() {
        format!("the supervisor ended before it was ready; see `{SUPERVISOR_LOG}` in its run directory")
    } else {
        said.to_owned()
    }))
}

/// Runs to its end. The lock is held for as long: the kernel lets it go when the last process that holds it ends.
fn become_supervisor(start: Start, _lock: &File, mut say: File) -> ExitCode {
    let result = establish(start).and_then(|(house, signals)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(at("make an event loop"))?;
        runtime.block_on(serve(house, signals, &mut say))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(say, "{error}");
            tracing::error!(%error, "the supervisor ends");
            ExitCode::FAILURE
        }
    }
}

/// Everything that does not need the event loop.
fn establish(start: Start) -> Result<(Establishment, OwnedFd), LaunchError> {
    // Fails only for the leader of a process group, which a fresh child is not.
    setsid().map_err(at("leave the session"))?;
    umask(Mode::from_bits_truncate(0o077));
    detach()?;
    // Our memory and environment are not for processes of the same user to read.
    prctl::set_dumpable(false).map_err(at("close this process to others"))?;
    prctl::set_child_subreaper(true).map_err(at("adopt orphans"))?;
    let signals = block_signals()?;
    let spec = start.spec;
    let (mut missing, mut groups) = (start.namespaces.missing, None);
    if let Confinement::Available { .. } = spec.confinement {
        let staging = Path::new(STAGING_DIR);
        fs::create_dir_all(staging).map_err(file_at("make", staging))?;
        let own_pid = procfs::own_pid().map_or_else(std::process::id, |pid| pid.0);
        let owner = group_name(&spec);
        let (made, refused) = Groups::create(&owner, own_pid, &spec.resources);
        if let Some(groups) = &made {
            groups.remove_left(&owner);
        }
        missing.extend(refused);
        groups = made;
    }
    if let Confinement::Available { is_required: true, .. } = spec.confinement
        && let Some(refusal) = sandbox::refusal(&missing)
    {
        return Err(LaunchError::Isolation(refusal));
    }
    let listeners = (0..spec.slots)
        .map(|k| {
            let path = DeploymentSpec::slot_socket(Path::new(""), millgate_contract::ids::SlotIndex(k));
            bind(&path).map(OwnedFd::from)
        })
        .collect::<Result<_, _>>()?;
    let log_path = start.run_dir.join(REPLICA_LOG);
    let log = DeploymentLog::open(&log_path).map_err(file_at("open", &log_path))?;
    let sandbox = Sandbox::of_deployment(&spec, &start.run_dir);
    let house = Establishment {
        spec,
        sandbox,
        outside: start.outside,
        groups,
        listeners,
        log,
        missing,
        is_init: start.namespaces.has_pid,
    };
    Ok((house, signals))
}

/// Short enough to read in a path.
fn group_name(spec: &DeploymentSpec) -> String {
    spec.deployment.as_str().chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

/// Nothing of the starter's is held on to: not its terminal, not its pipes.
fn detach() -> Result<(), LaunchError> {
    let path = Path::new(SUPERVISOR_LOG);
    let writer = BoundedFile::open(path, LOG_FILE_BYTES_MAX).map_err(file_at("open", path))?;
    tracing_subscriber::fmt().with_writer(Mutex::new(writer)).with_ansi(false).init();
    let nothing = File::open("/dev/null").map_err(at("open `/dev/null`"))?;
    let log = File::options().append(true).open(path).map_err(file_at("open", path))?;
    for (source, target) in [(&nothing, 0), (&log, 1), (&log, 2)] {
        sys::dup_to(source.as_raw_fd(), target).map_err(at("leave the starter's input and output"))?;
    }
    Ok(())
}

fn block_signals() -> Result<OwnedFd, LaunchError> {
    let wanted: SigSet =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD].into_iter().collect();
    wanted.thread_block().map_err(at("block signals"))?;
    SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map(OwnedFd::from)
        .map_err(at("watch signals"))
}

/// Binds a socket; one that a killed supervisor left there is replaced, as the lock is ours.
fn bind(path: &Path) -> Result<UnixListener, LaunchError> {
    assert!(path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "names in the run directory are short");
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file_at("remove", path)(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(file_at("bind", path))
}

async fn serve(house: Establishment, signals: OwnedFd, say: &mut File) -> Result<(), LaunchError> {
    let control_path = Path::new(CONTROL_SOCKET);
    let control = bind(control_path)?;
    control.set_nonblocking(true).map_err(file_at("bind", control_path))?;
    let control = tokio::net::UnixListener::from_std(control).map_err(file_at("bind", control_path))?;
    let slots = house.spec.slots;
    let is_init = house.is_init;
    let conductor = Conductor::new(house);
    let signals = sys::watched(signals).map_err(at("watch signals"))?;
    tokio::spawn(watch_signals(signals, is_init, conductor.sender()));
    tokio::spawn(peers::accept(control, conductor.sender()));
    say.write_all(READY.as_bytes()).map_err(at("tell the starter"))?;
    // The starter waits for the end of the pipe as well.
    *say = File::open("/dev/null").map_err(at("open `/dev/null`"))?;
    tracing::info!(slots, "the supervisor serves");
    conductor.run().await;
    clean_up(slots);
    Ok(())
}

async fn watch_signals(
    signals: AsyncFd<OwnedFd>,
    is_init: bool,
    happenings: tokio::sync::mpsc::Sender<Happening>,
) {
    loop {
        let Ok(mut guard) = signals.readable().await else { return };
        while let Some((signal, sender)) = read_signal(signals.get_ref()) {
            let happening = match signal {
                Signal::SIGCHLD => Happening::ChildEnded,
                // From inside our namespace it is user code that speaks; a sender outside has no number in it.
                Signal::SIGTERM | Signal::SIGINT if !is_init || sender == 0 => Happening::Stop,
                _ => continue,
            };
            if happenings.send(happening).await.is_err() {
                return;
            }
        }
        guard.clear_ready();
    }
}

/// A signal that came, and the process that sent it, from the start of a `signalfd_siginfo` (signalfd(2)).
fn read_signal(signals: &OwnedFd) -> Option<(Signal, u32)> {
    let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
    let count = nix::unistd::read(signals, &mut info).ok()?;
    let word = |k: usize| u32::from_ne_bytes([info[k], info[k + 1], info[k + 2], info[k + 3]]);
    let signal = Signal::try_from(i32::try_from(word(0)).ok()?).ok()?;
    (count == info.len()).then(|| (signal, word(12)))
}

/// The run directory as it was, but for the logs.
fn clean_up(slots: u16) {
    for slot in 0..slots {
        let path = DeploymentSpec::slot_socket(Path::new(""), millgate_contract::ids::SlotIndex(slot));
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_file(CONTROL_SOCKET);
    let _ = fs::remove_dir(STAGING_DIR);
}
