//! Giving up what a program could do: its uid, its capabilities, the hope of gaining any, and its share of the
//! system's tables.

use std::io;

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::Sandbox;
use crate::{limits::OPEN_FILES_MAX, sys};

/// Why privileges are still there: nothing may be run.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(super) struct PrivilegeError {
    step: String,
    source: io::Error,
}

fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> PrivilegeError {
    move |source| PrivilegeError { step: step.into(), source: source.into() }
}

/// Gives up all of it. There is no way back.
pub(super) fn drop_all(sandbox: &Sandbox) -> Result<(), PrivilegeError> {
    limit(Resource::RLIMIT_CORE, 0)?;
    if !sandbox.is_confined {
        return Ok(());
    }
    limit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX)?;
    if let Some(processes_max) = sandbox.processes_max {
        limit(Resource::RLIMIT_NPROC, processes_max)?;
    }
    // Without CAP_SETPCAP the bounding set stays; `no_new_privs` below makes it mean nothing.
    if let Err(error) = sys::drop_bounding_capabilities()
        && error.raw_os_error() != Some(libc::EPERM)
    {
        return Err(at("drop bounding capabilities")(error));
    }
    if let Some(uid) = sandbox.uid {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        setgroups(&[]).map_err(at("leave all groups"))?;
        setresgid(group, group, group).map_err(at(format!("change to gid {uid}")))?;
        setresuid(user, user, user).map_err(at(format!("change to uid {uid}")))?;
    }
    sys::drop_capabilities().map_err(at("drop capabilities"))?;
    prctl::set_no_new_privs().map_err(at("give up new privileges"))
}

fn limit(resource: Resource, most: u64) -> Result<(), PrivilegeError> {
    let name = || format!("limit {resource:?}");
    let (_, hard) = getrlimit(resource).map_err(at(name()))?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(at(name()))
}
