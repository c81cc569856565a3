//! A process of the deployment: how it is told from others, signalled and killed with all its descendants.

use std::{io, os::fd::OwnedFd};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::task::JoinHandle;

use crate::{
    cgroup::Group,
    procfs::{self, ShownPid},
    sys,
};

/// A running task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process, by its pidfd: an id that is used again is never mistaken for it.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    shown: Option<ShownPid>,
}

impl Process {
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        let shown = procfs::pid_of(&pidfd);
        Self { pid, pidfd, shown }
    }

    /// Its id in our PID namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Its id in `/proc`, which is the starter's.
    pub(crate) fn shown(&self) -> Option<ShownPid> {
        self.shown
    }

    /// Readable when it has ended.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Ends when the process has.
    pub(crate) fn death(&self) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        let pidfd = sys::watched(self.pidfd.try_clone()?)?;
        Ok(async move {
            // An error here would mean that the runtime ends: then so do we.
            let _ = pidfd.readable().await;
        })
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = sys::pidfd_signal(&self.pidfd, signal) {
            tracing::warn!(pid = %self.pid, %error, "a signal cannot be sent");
        }
    }

    /// Kills the process and its descendants: by its group where it has one, else along the tree.
    pub(crate) fn kill_tree(&self, group: Option<&Group>) {
        if let Some(group) = group {
            group.kill();
        } else if let Some(shown) = self.shown {
            crate::burial::kill_tree_of(shown);
        }
        self.signal(Signal::SIGKILL);
    }
}
