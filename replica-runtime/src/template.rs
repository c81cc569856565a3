//! The template: imports the file once, then forks a replica each time it is told.
//!
//! It never calls the function, so that a fork never has to answer for what a call left behind (a pool of OpenMP threads,
//! a half-written cache). What it imported is frozen out of the garbage collector's sight, which would otherwise write
//! to every object and unshare the memory. It reaps the children that it forked itself and no others: user code may have
//! started some at import.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Arc,
    time::Instant,
};

use millgate_contract::{
    ids::{ReplicaId, SlotIndex},
    line,
    nursery::{FORK_DESCRIPTORS, FromTemplate, TEMPLATE_FD, ToTemplate},
    spec::DeploymentSpec,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use pyo3::{ffi, prelude::*};

use crate::{
    birth::{self, BirthError},
    datagram::{self, Received},
    fds, interpreter, page,
    program::Program,
    replica::{self, Birth},
};

/// Lives until the supervisor's end of its socket is closed.
pub fn run() -> Result<(), BirthError> {
    let socket = birth::take(TEMPLATE_FD, "template's socket")?;
    let spec = birth::read_spec()?;
    let begin = Instant::now();
    let failed = |failure| Ok(datagram::send_message(&socket, &FromTemplate::ImportFailed(failure))?);
    if let Err(failure) = interpreter::start(&spec.function) {
        return failed(failure);
    }
    Python::attach(|py| {
        let program = match Program::load(py, &spec.function) {
            Ok(program) => program,
            Err(failure) => return failed(failure),
        };
        freeze(py)?;
        let import_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let imported = FromTemplate::Imported { import_ms, python: interpreter::version(py) };
        datagram::send_message(&socket, &imported)?;
        Template { py, spec: &spec, program: &program, socket: &socket, children: Vec::new() }.run()
    })
}

fn freeze(py: Python<'_>) -> std::io::Result<()> {
    let gc = || -> PyResult<()> {
        let gc = py.import("gc")?;
        gc.call_method0("collect")?;
        gc.call_method0("freeze").map(drop)
    };
    gc().map_err(|error| std::io::Error::other(error.to_string()))
}

struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

struct Template<'a> {
    py: Python<'a>,
    spec: &'a DeploymentSpec,
    program: &'a Program,
    socket: &'a OwnedFd,
    children: Vec<Child>,
}

impl Template<'_> {
    fn run(&mut self) -> Result<(), BirthError> {
        loop {
            let is_told = self.wait();
            self.reap()?;
            if !is_told {
                continue;
            }
            let Some(Received { bytes, descriptors }) = datagram::receive(self.socket)? else {
                return Ok(());
            };
            let (slot, replica) = match line::decode(&bytes)? {
                ToTemplate::Fork { slot, replica } => (Some(slot), replica),
                ToTemplate::ForkSpare { replica } => (None, replica),
            };
            let message = match self.fork(slot, replica.clone(), descriptors) {
                Ok(pid) => FromTemplate::Forked { replica, pid: pid.as_raw() },
                Err(error) => FromTemplate::ForkFailed { replica, error: error.to_string() },
            };
            datagram::send_message(self.socket, &message)?;
        }
    }

    /// True when the supervisor has said something.
    fn wait(&self) -> bool {
        let mut waited = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        waited.extend(self.children.iter().map(|child| PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)));
        // Threads that the import has started may go on meanwhile.
        self.py.detach(|| poll(&mut waited, PollTimeout::NONE)).is_ok() && waited[0].any() == Some(true)
    }

    fn reap(&mut self) -> Result<(), BirthError> {
        let mut ended = Vec::new();
        self.children.retain(|child| {
            let status = waitpid(child.pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG));
            let lives = matches!(status, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR));
            if !lives {
                ended.push((child.pid, describe(status)));
            }
            lives
        });
        for (pid, status) in ended {
            datagram::send_message(self.socket, &FromTemplate::Exited { pid: pid.as_raw(), status })?;
        }
        Ok(())
    }

    /// The descriptors are those of the contract: listener, if there is a slot, channel, stdout, stderr and, unless the
    /// supervisor is older, page.
    fn fork(
        &mut self,
        slot: Option<SlotIndex>,
        replica: ReplicaId,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<Pid, Errno> {
        let whole = FORK_DESCRIPTORS - usize::from(slot.is_none());
        if descriptors.len() != whole && descriptors.len() != whole - 1 {
            return Err(Errno::EBADMSG);
        }
        let memory = descriptors.split_off(whole - 1).pop();
        let place = match slot {
            Some(slot) => Some((slot, fds::out_of_the_way(descriptors.remove(0))?)),
            None => None,
        };
        let [channel, stdout, stderr] = <[OwnedFd; 3]>::try_from(descriptors).map_err(|_| Errno::EBADMSG)?;
        let channel = fds::out_of_the_way(channel)?;
        // What is printed but not yet written would be written by each child again.
        self.program.bootstrap.flush(self.py);
        // SAFETY: the main thread, attached. The child goes on in Python, for which CPython's own hooks prepare it.
        let pid = unsafe {
            ffi::PyOS_BeforeFork();
            let pid = libc::fork();
            if pid == 0 {
                ffi::PyOS_AfterFork_Child();
            } else {
                ffi::PyOS_AfterFork_Parent();
            }
            pid
        };
        if pid == 0 {
            let birth = Birth { replica, place, channel: Arc::new(channel) };
            self.become_replica(birth, [&stdout, &stderr], memory);
        }
        let pid = Pid::from_raw(Errno::result(pid)?);
        self.children.push(Child { pid, pidfd: pidfd_open(pid)? });
        Ok(pid)
    }

    fn become_replica(
        &mut self,
        birth: Birth,
        [stdout, stderr]: [&OwnedFd; 2],
        memory: Option<OwnedFd>,
    ) -> ! {
        // SAFETY: all are open; 1 and 2 are this process's standard output and error.
        unsafe {
            libc::dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO);
            libc::dup2(stderr.as_raw_fd(), libc::STDERR_FILENO);
            // The template's own: its siblings and its conversation are none of a replica's business. The owners of the
            // numbers are never dropped, as this never returns.
            for fd in [self.socket, stdout, stderr] {
                libc::close(fd.as_raw_fd());
            }
        }
        self.children.clear();
        memory.as_ref().inspect(|memory| page::install(memory));
        drop(memory);
        replica::run_forked(self.py, self.spec, self.program, birth)
    }
}

fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: a child of ours that nobody has reaped, so the number is still its own.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let raw = i32::try_from(Errno::result(raw)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made it, closed on exec.
    fds::out_of_the_way(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn describe(status: nix::Result<WaitStatus>) -> String {
    match status {
        Ok(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("killed by signal {}", signal as i32),
        Ok(other) => format!("{other:?}"),
        Err(errno) => format!("its status is unknown: {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn the_end_of_a_child_is_put_into_words() {
        let pid = Pid::from_raw(7);
        assert_eq!(describe(Ok(WaitStatus::Exited(pid, 3))), "exit status 3");
        assert_eq!(describe(Ok(WaitStatus::Signaled(pid, Signal::SIGKILL, false))), "killed by signal 9");
    }
}
