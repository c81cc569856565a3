//! The template: the process that imports the function and forks replicas when told. Untrusted; it is asked, and what
//! it says is checked or taken for text.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    limits::MESSAGE_BYTES_MAX,
    line,
    nursery::{FromTemplate, SPEC_FD, TEMPLATE_FD, ToTemplate},
    spec::DeploymentSpec,
};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use tokio::sync::mpsc;

use crate::{
    cgroup::{Group, Groups},
    conductor::Happening,
    logs::{DeploymentLog, LogPipe},
    plan::TemplateId,
    process::{Process, Task},
    sandbox::{self, Program, Sandbox, SpawnError},
    seqpacket::{Received, Seqpacket},
};

/// A template that runs.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) process: Process,
    /// What of its sandbox it went without.
    pub(crate) missing: Vec<String>,
    pub(crate) group: Option<Group>,
    socket: Arc<Seqpacket>,
    _tasks: [Task; 2],
}

/// What every template of a deployment is started from.
#[derive(Debug)]
pub(crate) struct Nursery<'a> {
    pub(crate) spec: &'a DeploymentSpec,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) groups: Option<&'a Groups>,
    pub(crate) log: &'a DeploymentLog,
    pub(crate) happenings: &'a mpsc::Sender<Happening>,
}

/// Why a template could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its sockets, pipes or files.
    #[error("the template cannot be started: {0}")]
    System(#[from] io::Error),
    /// The program.
    #[error("the template cannot be started: {0}")]
    Spawn(#[from] SpawnError),
}

impl Template {
    /// Starts a template; from here on it says how it fares by happenings.
    pub(crate) fn start(id: TemplateId, nursery: &Nursery<'_>) -> Result<Self, StartError> {
        let spec = nursery.spec;
        let (socket, theirs) = Seqpacket::pair()?;
        let (log_pipe, log) = LogPipe::pair()?;
        let nothing = std::fs::File::open("/dev/null")?;
        let spec_file = sealed_spec(spec)?;
        let group = nursery.groups.map(|groups| groups.group(&format!("template-{}", id.0))).transpose()?;
        let program = Program {
            path: &spec.function.runtime,
            arguments: vec![OsStr::new("template")],
            environment: spec.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            descriptors: vec![
                (nothing.as_raw_fd(), 0),
                (log.as_raw_fd(), 1),
                (log.as_raw_fd(), 2),
                (theirs.as_raw_fd(), TEMPLATE_FD),
                (spec_file.as_raw_fd(), SPEC_FD),
            ],
            dies_with_parent: true,
            group: group.as_ref(),
        };
        let spawned = match sandbox::spawn(nursery.sandbox, &program) {
            Ok(spawned) => spawned,
            Err(error) => {
                if let Some(group) = group {
                    group.remove();
                }
                return Err(error.into());
            }
        };
        let process = Process::new(spawned.pid, spawned.pidfd);
        let socket = Arc::new(socket);
        // One task hears both, so that what a template said last is known before its death is.
        let hearing = hear(id, Arc::clone(&socket), process.death()?, nursery.happenings.clone());
        let tasks = [Task::spawn(hearing), Task::spawn(nursery.log.clone().follow(log_pipe, None))];
        Ok(Self { process, missing: spawned.missing, group, socket, _tasks: tasks })
    }

    /// Tells it to fork; `descriptors` are listener, channel and log.
    pub(crate) fn fork(
        &self,
        slot: SlotIndex,
        replica: &ReplicaId,
        descriptors: [&OwnedFd; 3],
    ) -> io::Result<()> {
        let message = line::encode(&ToTemplate::Fork { slot, replica: replica.clone() });
        self.socket.send(&message, &descriptors.map(AsRawFd::as_raw_fd))
    }
}

/// The spec in a memory file that nobody can change.
fn sealed_spec(spec: &DeploymentSpec) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"spec.json", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(&line::encode(spec))?;
    io::Seek::rewind(&mut file)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

async fn hear(
    id: TemplateId,
    socket: Arc<Seqpacket>,
    death: impl Future<Output = ()>,
    happenings: mpsc::Sender<Happening>,
) {
    let words = async {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            match socket.receive(&mut buffer).await {
                Ok(Received::Message { bytes, .. }) => match line::decode::<FromTemplate>(&buffer[..bytes]) {
                    Ok(message) => {
                        let _ = happenings.send(Happening::TemplateSaid { template: id, message }).await;
                    }
                    Err(error) => tracing::warn!(%error, "a template said something else"),
                },
                Ok(Received::Unfit) => tracing::warn!("a template said too much at once"),
                Ok(Received::End) => return,
                Err(error) => {
                    tracing::warn!(%error, "a template cannot be heard");
                    return;
                }
            }
        }
    };
    // Its end of the socket may be held by a child of its; the pidfd alone tells its death.
    let mut death = std::pin::pin!(death);
    tokio::select! {
        biased;
        () = words => death.await,
        () = &mut death => {}
    }
    let _ = happenings.send(Happening::TemplateEnded { template: id }).await;
}
