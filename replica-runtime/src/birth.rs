//! What a process is given by its supervisor: a role, a specification, descriptors.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::{FromRawFd as _, OwnedFd},
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    limits, line, nursery,
    spec::{DeploymentSpec, SPEC_FORMAT},
};

use crate::fds;

/// What the process is to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    /// Imports the file and forks replicas.
    Template,
    /// A replica of its own, not forked.
    Spawned {
        /// Where it is.
        slot: SlotIndex,
        /// What it is called.
        replica: ReplicaId,
    },
    /// The same, to take over a slot when it is told which.
    SpawnedSpare {
        /// What it is called.
        replica: ReplicaId,
    },
}

/// Why a process cannot begin. Nobody but its supervisor sees this.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The command line is not one of a supervisor.
    #[error(
        "usage: millgate-replica template | spawned <slot> <replica id> | spawned-spare <replica id>; it is started by `millgate supervise`, not by hand"
    )]
    Usage,
    /// A descriptor is not what the supervisor should have put there.
    #[error("descriptor {fd} ({what}): {source}")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// What should be there.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// The specification, or an order, cannot be understood.
    #[error("a message of the supervisor: {0}")]
    Message(#[from] line::MessageError),
    /// The specification is of another version.
    #[error("the specification has format {0}, this program reads {SPEC_FORMAT}")]
    Format(u32),
    /// A message to the supervisor could not be sent.
    #[error("the supervisor's socket: {0}")]
    Supervisor(#[from] std::io::Error),
}

impl Role {
    /// Reads the command line without the program's name.
    pub fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, BirthError> {
        let arguments: Vec<String> = arguments.take(4).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["template"] => Ok(Self::Template),
            ["spawned", slot, replica] => Ok(Self::Spawned {
                slot: SlotIndex(slot.parse().map_err(|_| BirthError::Usage)?),
                replica: ReplicaId::new(replica),
            }),
            ["spawned-spare", replica] => Ok(Self::SpawnedSpare { replica: ReplicaId::new(replica) }),
            _ => Err(BirthError::Usage),
        }
    }
}

/// Closes what is open besides the descriptors of the contract: whoever started the supervisor may have left something
/// open, and user code must not find it. To be called before anything else opens one.
pub fn close_others() {
    let first = nursery::PAGE_FD.cast_unsigned() + 1;
    // SAFETY: nothing in this process owns a descriptor yet. A kernel without the call leaves them open.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Timers of this process, and of all that it forks, end when they are due: the kernel lets one be 50 µs late, to wake a
/// processor once for several of them. A function that sleeps 10 ms then took 10.11 ms, and takes 10.06 (the quickest
/// twentieth of 150, on a busy machine).
pub fn be_punctual() {
    // A kernel without it is late, and all works.
    let _ = nix::sys::prctl::set_timerslack(1);
}

/// This process, and all that it forks, take no processor from somebody who runs when they are woken: they wait until one is free, or
/// for a few milliseconds if none is. So a gateway that has woken one of them first does what else there is to do. With
/// eight callers of an `add` on two processors that is 1.15 times as many calls, for 0.87 of the processor time each; with 64
/// callers 1.1 to 1.19 and 0.9. One caller beside two processes that want both processors all the time pays for it: 0.17 ms
/// instead of 0.14 at the median, and the same 6 ms at the 99th percentile (all in turns).
pub fn be_patient() {
    // SAFETY: the kernel only reads the parameters, which are plain data. One that refuses leaves all as it was.
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters);
    }
}

/// Takes the descriptor that the supervisor left at `fd` and moves it out of the way of user code.
pub(crate) fn take(fd: i32, what: &'static str) -> Result<OwnedFd, BirthError> {
    let error = |errno: nix::Error| BirthError::Descriptor { fd, what, source: errno.into() };
    // SAFETY: only asks about the number, whether or not anything is open there.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(error(nix::Error::last()));
    }
    // SAFETY: it is open, and by the contract with the supervisor it is this process's to own; each is taken once.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fds::out_of_the_way(owned).map_err(error)
}

/// Reads the specification from its descriptor, and closes that.
pub(crate) fn read_spec() -> Result<DeploymentSpec, BirthError> {
    let error = |source| BirthError::Descriptor { fd: nursery::SPEC_FD, what: "specification", source };
    let mut file = File::from(take(nursery::SPEC_FD, "specification")?);
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(error)?;
    file.take(limits::MESSAGE_BYTES_MAX as u64).read_to_end(&mut text).map_err(error)?;
    let spec: DeploymentSpec = line::decode(&text)?;
    if spec.format != SPEC_FORMAT {
        return Err(BirthError::Format(spec.format));
    }
    Ok(spec)
}

/// A broken invariant ends the process: a replica in an unknown state must not answer calls, and its supervisor has
/// another one running within milliseconds.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("millgate-replica: internal error: {panic}");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(arguments: &[&str]) -> Option<Role> {
        Role::from_arguments(arguments.iter().map(ToString::to_string)).ok()
    }

    #[test]
    fn only_a_supervisors_command_lines_are_understood() {
        assert_eq!(role(&["template"]), Some(Role::Template));
        let spawned = Role::Spawned { slot: SlotIndex(2), replica: ReplicaId::new("add-1") };
        assert_eq!(role(&["spawned", "2", "add-1"]), Some(spawned));
        let spare = Role::SpawnedSpare { replica: ReplicaId::new("add-1") };
        assert_eq!(role(&["spawned-spare", "add-1"]), Some(spare));
        for wrong in [
            &[][..],
            &["serve"],
            &["template", "x"],
            &["spawned", "x", "y"],
            &["spawned", "1"],
            &["spawned-spare"],
        ] {
            assert_eq!(role(wrong), None, "{wrong:?}");
        }
    }
}
