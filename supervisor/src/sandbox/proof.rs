//! What holds a program in, read back from the kernel once it runs: facts, not wishes.

use std::{os::unix::fs::MetadataExt, path::PathBuf};

use millgate_contract::supervision::Isolation;

use super::rules;
use crate::procfs::{self, ShownPid};

/// Where the starter was before it made namespaces: what a program must have left.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    user: Option<PathBuf>,
    pid: Option<PathBuf>,
    mount: Option<PathBuf>,
    ipc: Option<PathBuf>,
    network: Option<PathBuf>,
    uid: u32,
}

impl Outside {
    /// The namespaces of this process, now.
    pub(crate) fn here() -> Self {
        let namespace = |kind| procfs::own_pid().and_then(|pid| procfs::namespace(pid, kind));
        Self {
            user: namespace("user"),
            pid: namespace("pid"),
            mount: namespace("mnt"),
            ipc: namespace("ipc"),
            network: namespace("net"),
            uid: nix::unistd::geteuid().as_raw(),
        }
    }
}

/// Reads what holds `pid` in. What is not so, and is not named in `missing` yet, is added to it.
pub(crate) fn prove(pid: Option<ShownPid>, outside: &Outside, mut missing: Vec<String>) -> Isolation {
    let Some((pid, status)) = pid.and_then(|pid| Some((pid, procfs::status(pid)?))) else {
        missing.push("/proc does not show the process: nothing can be asserted".to_owned());
        return Isolation { missing, ..Isolation::default() };
    };
    let left = |kind, before: &Option<PathBuf>| {
        let now = procfs::namespace(pid, kind);
        now.is_some() && before.is_some() && now != *before
    };
    let isolation = Isolation {
        uid: (status.uid != outside.uid).then_some(status.uid),
        user_namespace: left("user", &outside.user),
        pid_namespace: left("pid", &outside.pid),
        mount_namespace: left("mnt", &outside.mount) && has_other_root(pid),
        ipc_namespace: left("ipc", &outside.ipc),
        network_namespace: left("net", &outside.network) && has_loopback_alone(pid),
        cgroup_version: 0,
        no_new_privileges: status.no_new_privileges && !status.has_effective_capabilities,
        // The kernel shows it nowhere; the child has named it if it went without.
        landlock: !missing.iter().any(|one| one.starts_with(rules::LANDLOCK)),
        seccomp: status.has_seccomp,
        missing,
    };
    named(isolation)
}

/// No other interface than `lo` is there: two lines of heading, then one for each.
fn has_loopback_alone(pid: ShownPid) -> bool {
    let table = std::fs::read_to_string(format!("/proc/{}/net/dev", pid.0)).unwrap_or_default();
    let names: Vec<&str> = table.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
    matches!(names[..], [name] if name.trim() == "lo")
}

/// Its `/` is another one than ours.
fn has_other_root(pid: ShownPid) -> bool {
    let place = |path: String| std::fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
    let inside = place(format!("/proc/{}/root/", pid.0));
    inside.is_some() && inside != place("/".to_owned())
}

fn named(mut isolation: Isolation) -> Isolation {
    let facts = [
        (
            isolation.uid.is_some() || isolation.user_namespace,
            "uid",
            "uid of its own: only root can give one",
        ),
        (isolation.pid_namespace, "PID namespace", "PID namespace: not entered"),
        (isolation.mount_namespace, "root of its own", "root of its own: not entered"),
        (isolation.ipc_namespace, "IPC", "IPC namespace: not entered"),
        (isolation.no_new_privileges, "privileges", "privileges: not given up"),
        (isolation.seccomp, "seccomp", "seccomp: no filter"),
    ];
    for (is_so, name, text) in facts {
        if !is_so && !isolation.missing.iter().any(|one| one.starts_with(name)) {
            isolation.missing.push(text.to_owned());
        }
    }
    isolation
}
