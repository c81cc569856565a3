//! Starts processes of the deployment: its templates, and replicas that are not forked. Each is inside its sandbox and
//! its group from its first instruction on.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use millgate_contract::{line, nursery::SPEC_FD, spec::DeploymentSpec};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use tokio::sync::mpsc;

use crate::{
    cgroup::{Group, Groups},
    conductor::Happening,
    logs::{DeploymentLog, Output},
    process::Process,
    sandbox::{self, Program, Sandbox, SpawnError},
};

/// What every process of a deployment is started from.
#[derive(Debug)]
pub(crate) struct Nursery<'a> {
    pub(crate) spec: &'a DeploymentSpec,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) groups: Option<&'a Groups>,
    pub(crate) log: &'a DeploymentLog,
    pub(crate) happenings: &'a mpsc::Sender<Happening>,
}

/// What one of them is besides.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The runtime's arguments.
    pub(crate) arguments: &'a [&'a str],
    /// The name of its group.
    pub(crate) group: &'a str,
    /// Where it prints.
    pub(crate) output: &'a Output,
    /// Further descriptors, each with the number that it gets.
    pub(crate) descriptors: &'a [(&'a OwnedFd, RawFd)],
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) group: Option<Group>,
    /// What of its sandbox it went without.
    pub(crate) missing: Vec<String>,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its sockets, pipes or files.
    #[error("the process cannot be started: {0}")]
    System(#[from] io::Error),
    /// The program.
    #[error("the process cannot be started: {0}")]
    Spawn(#[from] SpawnError),
}

impl Nursery<'_> {
    /// Starts the runtime.
    pub(crate) fn start(&self, start: &Start<'_>) -> Result<Started, StartError> {
        let nothing = std::fs::File::open("/dev/null")?;
        let spec_file = sealed_spec(self.spec)?;
        let group = self.groups.map(|groups| groups.group(start.group)).transpose()?;
        let standard = [
            (nothing.as_raw_fd(), 0),
            (start.output.stdout.as_raw_fd(), 1),
            (start.output.stderr.as_raw_fd(), 2),
            (spec_file.as_raw_fd(), SPEC_FD),
        ];
        let further = start.descriptors.iter().map(|(fd, number)| (fd.as_raw_fd(), *number));
        let program = Program {
            path: &self.spec.function.runtime,
            arguments: start.arguments.iter().map(OsStr::new).collect(),
            environment: self.spec.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            descriptors: standard.into_iter().chain(further).collect(),
            dies_with_parent: true,
            group: group.as_ref(),
        };
        match sandbox::spawn(self.sandbox, &program) {
            Ok(spawned) => Ok(Started {
                process: Process::new(spawned.pid, spawned.pidfd),
                group,
                missing: spawned.missing,
            }),
            Err(error) => {
                if let Some(group) = group {
                    group.remove();
                }
                Err(error.into())
            }
        }
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
