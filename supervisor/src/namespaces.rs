//! The namespaces that the supervisor makes for itself and everything below it, before it forks the process that will
//! be their init. What the kernel refuses is named and gone without.

use std::{fs, io};

use millgate_contract::spec::Network;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::sys;

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    /// The next child is init of a PID namespace.
    pub(crate) has_pid: bool,
    /// The network is the host's, though it was to be none: nothing may be started.
    pub(crate) no_network_error: Option<io::Error>,
    /// What could not be had, and why.
    pub(crate) missing: Vec<String>,
}

/// Leaves the caller's namespaces, as far as it may. The caller itself stays in its PID namespace; its children do not.
pub(crate) fn enter(network: Network) -> Namespaces {
    let mut made = Namespaces::default();
    if !geteuid().is_root()
        && let Err(error) = enter_user()
    {
        made.missing.push(format!("user namespace: {error}"));
    }
    match unshare(CloneFlags::CLONE_NEWPID) {
        Ok(()) => made.has_pid = true,
        Err(error) => made.missing.push(format!("PID namespace: {}", io::Error::from(error))),
    }
    if let Err(error) = unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS) {
        made.missing.push(format!("IPC and UTS namespaces: {}", io::Error::from(error)));
    }
    if network == Network::None {
        made.no_network_error = leave_network().err();
    }
    made
}

/// A network of our own. Its loopback is up, for what talks to itself by it.
fn leave_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    sys::raise_loopback()
}

/// A user namespace in which we are who we are and may make the others.
fn enter_user() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // The kernel lets the unprivileged map one gid only after groups can no longer be left.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}
