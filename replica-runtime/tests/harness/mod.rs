//! Drives the real `millgate-replica` as a supervisor and a gateway would.
#![allow(unreachable_pub, reason = "shared by test programs")]
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]

mod gateway;
mod log;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IoSlice, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

use millgate_contract::{
    frame::{Frame, Join, PROTOCOL, Role},
    ids::{BuildId, DeploymentId, ReplicaId, SlotIndex},
    limits, line,
    nursery::{
        FORK_DESCRIPTORS, FromReplica, FromTemplate, GO, SPAWN_CHANNEL_FD, SPAWN_LISTENER_FD, SPEC_FD,
        TEMPLATE_FD, ToTemplate,
    },
    spec::{Confinement, DeploymentSpec, FunctionSpec, Resources, SPEC_FORMAT},
};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

pub use self::{
    gateway::{Gateway, call_frame, text},
    log::Log,
};

/// No wait here takes this long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with one function file.
pub struct Project {
    pub folder: tempfile::TempDir,
    pub spec: DeploymentSpec,
}

impl Project {
    pub fn new(code: &str) -> Self {
        Self::with_file("predict.py", code, "predict")
    }

    pub fn with_file(file: &str, code: &str, function: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, code).unwrap();
        let spec = DeploymentSpec {
            format: SPEC_FORMAT,
            deployment: DeploymentId::new("d-1"),
            build: BuildId::new("b-1"),
            replica_prefix: "predict-1-1-86b9b58b7b".into(),
            function: FunctionSpec {
                runtime: env!("CARGO_BIN_EXE_millgate-replica").into(),
                python: python(),
                root: folder.path().to_owned(),
                file: file.into(),
                function: function.into(),
                python_path: vec![concat!(env!("CARGO_MANIFEST_DIR"), "/../python-shim/src").into()],
            },
            environment: BTreeMap::new(),
            slots: 1,
            resources: Resources { cpu_millicores: 1_000, memory_bytes: 1 << 30, processes_max: 64 },
            example_request: None,
            start_timeout_ms: 30_000,
            kill_grace_ms: 1_000,
            confinement: Confinement::Open,
            policy: millgate_contract::spec::ReplicaPolicy::default(),
        };
        Self { folder, spec }
    }

    pub fn example(mut self, json: &str) -> Self {
        self.spec.example_request = Some(json.into());
        self
    }

    /// A template that has imported the file.
    pub fn import(self) -> Template {
        let template = self.start();
        match template.next() {
            FromTemplate::Imported { .. } => template,
            other => panic!("not imported: {other:?}\n{}", template.log.text()),
        }
    }

    /// Why the file cannot be imported, and the log.
    pub fn import_failure(self) -> (millgate_contract::nursery::Failure, String) {
        let mut template = self.start();
        match template.next() {
            FromTemplate::ImportFailed(failure) => {
                template.process.wait().unwrap();
                (failure, template.log.whole())
            }
            other => panic!("not a failure: {other:?}"),
        }
    }

    pub fn start(self) -> Template {
        let (log, log_end) = Log::new();
        let (ours, theirs) = pair();
        let spec = memory_file(&line::encode(&self.spec));
        let arguments = ["template".to_owned()];
        let process = start(&self, &arguments, &[(&theirs, TEMPLATE_FD), (&spec, SPEC_FD)], &log_end);
        Template { project: self, process, socket: ours, log, forks: std::cell::Cell::new(0) }
    }

    /// A replica that is not forked, after its byte.
    pub fn spawn(self) -> Replica {
        let (log, log_end) = Log::new();
        let (channel, theirs) = pair();
        let slot = Slot::new(&self);
        let spec = memory_file(&line::encode(&self.spec));
        let listener = slot.listener.try_clone().unwrap().into();
        let fds = [(&theirs, SPAWN_CHANNEL_FD), (&listener, SPAWN_LISTENER_FD), (&spec, SPEC_FD)];
        let process = start(&self, &["spawned".into(), "0".into(), "spawned-1".into()], &fds, &log_end);
        let replica = Replica {
            pid: process.id().cast_signed(),
            name: ReplicaId::new("spawned-1"),
            channel,
            slot,
            log,
            process: Some(process),
            _project: Some(self),
        };
        assert_eq!(replica.next(), FromReplica::Here);
        replica.go();
        replica
    }
}

fn python() -> PathBuf {
    let asked = std::env::var_os("PYO3_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(asked).args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn start(project: &Project, arguments: &[String], fds: &[(&OwnedFd, RawFd)], log: &OwnedFd) -> Child {
    let mut command = Command::new(&project.spec.function.runtime);
    command.args(arguments).env_clear().envs(&project.spec.environment);
    // Out of the way first, so that none is overwritten before it is put in its place.
    let moves: Vec<(OwnedFd, RawFd)> = fds.iter().map(|(fd, to)| (high(fd), *to)).collect();
    let log = high(log);
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in moves.iter().map(|(fd, to)| (fd, *to)).chain([(&log, 1), (&log, 2)]) {
                if libc::dup2(from.as_raw_fd(), to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

fn high(fd: &OwnedFd) -> OwnedFd {
    let raw = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(50)).unwrap();
    // SAFETY: just made.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let patience = nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    nix::sys::socket::setsockopt(&pair.0, nix::sys::socket::sockopt::ReceiveTimeout, &patience).unwrap();
    pair
}

fn memory_file(bytes: &[u8]) -> OwnedFd {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

fn receive<M: serde::de::DeserializeOwned>(socket: &OwnedFd, log: &Log) -> M {
    let mut bytes = vec![0; limits::MESSAGE_BYTES_MAX];
    let count = nix::sys::socket::recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap_or(0);
    assert!(count > 0, "no message came; the log says:\n{}", log.text());
    line::decode(&bytes[..count]).unwrap()
}

/// A slot's listener and its path.
struct Slot {
    listener: UnixListener,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Slot {
    fn new(_: &Project) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s0.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path, _folder: folder }
    }
}

pub struct Template {
    pub project: Project,
    pub process: Child,
    pub socket: OwnedFd,
    pub log: Log,
    forks: std::cell::Cell<u32>,
}

impl Template {
    pub fn next(&self) -> FromTemplate {
        receive(&self.socket, &self.log)
    }

    /// A forked replica that has said `Here` and waits for its byte.
    pub fn fork(&self) -> Replica {
        self.forks.set(self.forks.get() + 1);
        let name = ReplicaId::new(format!("forked-{}", self.forks.get()));
        let (channel, theirs) = pair();
        let slot = Slot::new(&self.project);
        let (log, log_end) = Log::new();
        let message = line::encode(&ToTemplate::Fork { slot: SlotIndex(0), replica: name.clone() });
        let (listener, log_fd) = (slot.listener.as_raw_fd(), log_end.as_raw_fd());
        // As a supervisor of the version before: without a page.
        let fds: [RawFd; FORK_DESCRIPTORS - 1] = [listener, theirs.as_raw_fd(), log_fd, log_fd];
        let parts = [IoSlice::new(&message)];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        let (replica, pid) = loop {
            match self.next() {
                FromTemplate::Forked { replica, pid } => break (replica, pid),
                FromTemplate::Exited { .. } => {}
                other => panic!("not forked: {other:?}"),
            }
        };
        assert_eq!(replica, name);
        let replica = Replica { pid, name, channel, slot, log, process: None, _project: None };
        assert_eq!(replica.next(), FromReplica::Here);
        replica
    }

    /// A forked replica that is ready.
    pub fn ready(&self) -> Replica {
        let replica = self.fork();
        replica.go();
        replica.expect_ready();
        replica
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Replica {
    pub pid: i32,
    pub name: ReplicaId,
    pub channel: OwnedFd,
    slot: Slot,
    pub log: Log,
    process: Option<Child>,
    _project: Option<Project>,
}

impl Replica {
    /// The next message but for [`FromReplica::Answered`], which comes with whichever call is the first.
    pub fn next(&self) -> FromReplica {
        loop {
            match self.next_of_all() {
                FromReplica::Answered => {}
                other => return other,
            }
        }
    }

    pub fn next_of_all(&self) -> FromReplica {
        receive(&self.channel, &self.log)
    }

    pub fn go(&self) {
        nix::sys::socket::send(self.channel.as_raw_fd(), &[GO], MsgFlags::empty()).unwrap();
    }

    pub fn expect_ready(&self) -> Option<String> {
        match self.next() {
            FromReplica::Ready { example_response } => example_response,
            other => panic!("not ready: {other:?}\n{}", self.log.text()),
        }
    }

    pub fn terminate(&self) {
        // SAFETY: signals a process that this test has started.
        assert_eq!(unsafe { libc::kill(self.pid, libc::SIGTERM) }, 0);
    }

    /// A gateway's connection that has not said anything.
    pub fn connect(&self) -> Gateway {
        let stream = UnixStream::connect(&self.slot.path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Gateway::new(stream, self.log.clone())
    }

    /// A gateway's connection that has joined.
    pub fn join(&self, name: &str, role: Role) -> Gateway {
        self.join_as(PROTOCOL.max, name, role)
    }

    /// The same for a gateway that speaks this version.
    pub fn join_as(&self, version: u16, name: &str, role: Role) -> Gateway {
        let mut gateway = self.connect();
        let hello = gateway.hello();
        assert_eq!((hello.replica, hello.protocol), (self.name.clone(), PROTOCOL));
        gateway.send(&Frame::Join(Join { version, role, gateway: name.into() }));
        gateway
    }

    pub fn gateway(&self) -> Gateway {
        self.join("gw", Role::Calls)
    }

    /// Waits until the process has ended: its channel is at its end.
    pub fn expect_end(&self) {
        let answered = line::encode(&FromReplica::Answered);
        let mut bytes = [0; 4096];
        loop {
            let count = nix::sys::socket::recv(self.channel.as_raw_fd(), &mut bytes, MsgFlags::empty());
            match count {
                Ok(count) if count > 0 && bytes[..count] == answered => {}
                other => {
                    assert_eq!(other, Ok(0), "something else came: {}", String::from_utf8_lossy(&bytes));
                    return;
                }
            }
        }
    }

    pub fn expect_leaving(&self) -> String {
        match self.next() {
            FromReplica::Leaving { reason } => reason,
            other => panic!("not leaving: {other:?}"),
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        } else {
            // SAFETY: a child of a template of this test; at worst it is gone.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }
}

/// Waits until `is_so`, which is looked at again and again.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::yield_now();
    }
}
