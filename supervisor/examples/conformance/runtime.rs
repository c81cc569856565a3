//! A candidate, and a process of it: started with the descriptors that a supervisor gives, heard on its channel.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            net::UnixListener,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use millgate_contract::{
    ids::{BuildId, DeploymentId, SlotIndex},
    limits, line,
    nursery::{FromReplica, GO, SPAWN_CHANNEL_FD, SPAWN_LISTENER_FD, SPEC_FD, ToSpare},
    spec::{Confinement, DeploymentSpec, FunctionSpec, ReplicaPolicy, Resources, SPEC_FORMAT},
};
use nix::sys::{
    signal::{Signal, kill},
    socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, setsockopt, socketpair,
        sockopt,
    },
    time::TimeVal,
};

use nix::fcntl::{FcntlArg, OFlag};

use super::peer::Peer;

/// What of a rule is broken, for its runtime's author.
pub(crate) type Kept<T = ()> = Result<T, String>;

/// The name of the replica that is started.
pub(crate) const REPLICA: &str = "conformance-1-1-0000000000-aaaaa";
/// The example, and what it must come to.
pub(crate) const EXAMPLE: &str = r#"{"echo":[1,"é",null]}"#;
pub(crate) const EXAMPLE_ANSWER: &str = r#"[1,"é",null]"#;

/// What is driven.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) file: PathBuf,
    pub(crate) function: String,
    pub(crate) python: PathBuf,
    pub(crate) patience: Duration,
}

/// A process of it.
pub(crate) struct Runtime<'a> {
    candidate: &'a Candidate,
    process: Child,
    /// None once the supervisor is gone.
    channel: Option<OwnedFd>,
    listener: UnixListener,
    pub(crate) spec: DeploymentSpec,
    /// What it prints; little enough to fit into a pipe.
    output: File,
    folder: tempfile::TempDir,
}

impl Candidate {
    fn spec(&self) -> DeploymentSpec {
        let root = self.file.parent().map(PathBuf::from).unwrap_or_default();
        DeploymentSpec {
            format: SPEC_FORMAT,
            deployment: DeploymentId::new("conformance-deployment"),
            build: BuildId::new("conformance-build"),
            replica_prefix: "conformance-1-1-0000000000".to_owned(),
            function: FunctionSpec {
                runtime: self.program.clone(),
                python: self.python.clone(),
                file: self.file.file_name().map(PathBuf::from).unwrap_or_default(),
                root,
                function: self.function.clone(),
                python_path: Vec::new(),
            },
            environment: std::env::vars().filter(|(name, _)| name == "PATH").collect(),
            slots: 1,
            resources: Resources { cpu_millicores: 1_000, memory_bytes: 1 << 30, processes_max: 64 },
            example_request: Some(EXAMPLE.to_owned()),
            start_timeout_ms: limits::START_TIMEOUT_MS_DEFAULT,
            kill_grace_ms: limits::KILL_GRACE_MS,
            confinement: Confinement::Open,
            policy: ReplicaPolicy::default(),
        }
    }

    /// A replica in slot 0 that serves.
    pub(crate) fn ready(&self) -> Kept<Runtime<'_>> {
        let runtime = self.start(true, |_| {})?;
        runtime.go()?;
        runtime.expect_ready()?;
        Ok(runtime)
    }

    /// A replica that has been started and has said nothing yet; without a slot, a spare.
    pub(crate) fn start(&self, has_slot: bool, edit: impl FnOnce(&mut DeploymentSpec)) -> Kept<Runtime<'_>> {
        let failed = |error: std::io::Error| format!("the test could not begin: {error}");
        let mut spec = self.spec();
        edit(&mut spec);
        let folder = tempfile::tempdir().map_err(failed)?;
        let listener = UnixListener::bind(folder.path().join("s0.sock")).map_err(failed)?;
        let (channel, theirs) = self.pair()?;
        let mut file = tempfile::tempfile().map_err(failed)?;
        file.write_all(&line::encode(&spec)).and_then(|()| file.rewind()).map_err(failed)?;
        let (output, output_end) = std::io::pipe().map_err(failed)?;
        let slot = listener.try_clone().map_err(failed)?;
        let mut descriptors: Vec<(OwnedFd, RawFd)> = vec![(theirs, SPAWN_CHANNEL_FD), (file.into(), SPEC_FD)];
        let mut arguments = self.arguments.clone();
        if has_slot {
            descriptors.push((slot.into(), SPAWN_LISTENER_FD));
            arguments.extend(["spawned".to_owned(), "0".to_owned(), REPLICA.to_owned()]);
        } else {
            arguments.extend(["spawned-spare".to_owned(), REPLICA.to_owned()]);
        }
        let output_end = OwnedFd::from(output_end);
        descriptors.push((output_end.try_clone().map_err(failed)?, 1));
        descriptors.push((output_end, 2));
        let process = start(&self.program, &arguments, &spec, descriptors)
            .map_err(|error| format!("`{}` cannot be started: {error}", self.program.display()))?;
        let output = File::from(OwnedFd::from(output));
        Ok(Runtime { candidate: self, process, channel: Some(channel), listener, spec, output, folder })
    }

    fn pair(&self) -> Kept<(OwnedFd, OwnedFd)> {
        let patience = TimeVal::new(self.patience.as_secs().cast_signed(), 0);
        let made = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .and_then(|pair| setsockopt(&pair.0, sockopt::ReceiveTimeout, &patience).map(|()| pair));
        made.map_err(|error| format!("the test could not begin: {error}"))
    }
}

fn start(
    program: &PathBuf,
    arguments: &[String],
    spec: &DeploymentSpec,
    descriptors: Vec<(OwnedFd, RawFd)>,
) -> std::io::Result<Child> {
    // Out of the way first, so that none is overwritten before it is put in its place.
    let mut moves = Vec::new();
    for (fd, to) in descriptors {
        moves.push((high(&fd)?, to));
    }
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&spec.environment).current_dir(&spec.function.root);
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in &moves {
                if libc::dup2(from.as_raw_fd(), *to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn()
}

fn high(fd: &OwnedFd) -> std::io::Result<OwnedFd> {
    let raw = nix::fcntl::fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(50))?;
    // SAFETY: just made, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

impl Runtime<'_> {
    fn channel(&self) -> &OwnedFd {
        self.channel.as_ref().expect("the supervisor is there")
    }

    /// What it says next to its supervisor; none at its end.
    pub(crate) fn next(&self) -> Kept<Option<FromReplica>> {
        let mut bytes = vec![0; limits::MESSAGE_BYTES_MAX];
        match recv(self.channel().as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => Ok(None),
            Ok(count) => match line::decode(&bytes[..count]) {
                // Said once in a life, with whichever answer is the first.
                Ok(FromReplica::Answered) => self.next(),
                Ok(message) => Ok(Some(message)),
                Err(error) => Err(format!(
                    "it said `{}` on its channel: {error}",
                    String::from_utf8_lossy(&bytes[..count]).trim_end()
                )),
            },
            Err(_) => Err(format!("it said nothing on its channel for {:?}", self.candidate.patience)),
        }
    }

    pub(crate) fn expect(&self, wanted: &FromReplica) -> Kept {
        match self.next()? {
            Some(said) if said == *wanted => Ok(()),
            said => Err(format!("it said {said:?} on its channel, not {wanted:?}")),
        }
    }

    /// `Here`, then the byte.
    pub(crate) fn go(&self) -> Kept {
        self.expect(&FromReplica::Here)?;
        self.tell(&[GO], &[])
    }

    pub(crate) fn expect_ready(&self) -> Kept {
        match self.next()? {
            Some(FromReplica::Ready { example_response }) => expect_example(example_response),
            said => Err(format!("it said {said:?} after its byte, not `ready`")),
        }
    }

    /// Tells a spare where to serve.
    pub(crate) fn serve(&self) -> Kept {
        self.tell(&line::encode(&ToSpare::Serve { slot: SlotIndex(0) }), &[self.listener.as_raw_fd()])
    }

    pub(crate) fn tell(&self, message: &[u8], descriptors: &[RawFd]) -> Kept {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        let parts = [std::io::IoSlice::new(message)];
        sendmsg::<()>(self.channel().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)
            .map(drop)
            .map_err(|error| format!("its channel is closed: {error}"))
    }

    /// A gateway's connection, greeted by nobody yet.
    pub(crate) fn connect(&self) -> Kept<Peer> {
        Peer::connect(&self.folder.path().join("s0.sock"), self.candidate.patience)
    }

    pub(crate) fn terminate(&self) {
        let _ = kill(nix::unistd::Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
    }

    /// The supervisor's end.
    pub(crate) fn abandon(&mut self) {
        self.channel = None;
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(&mut self) -> Kept {
        let begun = Instant::now();
        while begun.elapsed() < self.candidate.patience {
            match self.process.try_wait() {
                Ok(Some(status)) => return by_itself(status),
                Ok(None) => std::thread::yield_now(),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(format!("it did not end in {:?}", self.candidate.patience))
    }

    /// It has printed `text` by now.
    pub(crate) fn expect_printed(&self, text: &str) -> Kept {
        let failed = |error: nix::Error| format!("its output cannot be read: {error}");
        nix::fcntl::fcntl(&self.output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        let mut all = vec![0; limits::LOG_LINE_BYTES_MAX];
        let count = (&self.output).read(&mut all).unwrap_or(0);
        let printed = String::from_utf8_lossy(&all[..count]);
        if printed.contains(text) {
            Ok(())
        } else {
            Err(format!("`{text}` is not in its output `{printed}`"))
        }
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn by_itself(status: ExitStatus) -> Kept {
    match status.signal() {
        None => Ok(()),
        Some(signal) => Err(format!("it was ended by signal {signal}, not by itself")),
    }
}

pub(crate) fn expect_example(answer: Option<String>) -> Kept {
    let parsed = answer.as_deref().and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    if parsed == serde_json::from_str(EXAMPLE_ANSWER).ok() {
        Ok(())
    } else {
        Err(format!("it said that the example came to {answer:?}, not {EXAMPLE_ANSWER}"))
    }
}
