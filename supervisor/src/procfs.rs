//! What `/proc` says of processes. The supervisor keeps its starter's mount namespace, so that the ids in `/proc` are
//! those of the starter's PID namespace: the ones people see in `ps`. System calls here take the supervisor's own.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

/// A process id as `/proc` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ShownPid(pub(crate) u32);

/// The facts of `/proc/<pid>/status` that are asserted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Its id in the innermost namespace it is in: for our own processes, the one system calls take.
    pub(crate) own: i32,
    pub(crate) parent: u32,
    pub(crate) uid: u32,
    pub(crate) threads: u32,
    pub(crate) has_effective_capabilities: bool,
    pub(crate) no_new_privileges: bool,
    pub(crate) has_seccomp: bool,
}

/// This process.
pub(crate) fn own_pid() -> Option<ShownPid> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok().map(ShownPid)
}

/// The process behind a pidfd; none when it has ended or `/proc` does not show it.
pub(crate) fn pid_of(pidfd: &OwnedFd) -> Option<ShownPid> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid: i64 = field(&info, "Pid:")?.parse().ok()?;
    u32::try_from(pid).ok().filter(|pid| *pid > 0).map(ShownPid)
}

/// The status of a process.
pub(crate) fn status(pid: ShownPid) -> Option<Status> {
    parse_status(&fs::read_to_string(format!("/proc/{}/status", pid.0)).ok()?)
}

/// The status of this process.
pub(crate) fn own_status() -> Option<Status> {
    parse_status(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Which namespace of a kind (`pid`, `mnt`, `user`) a process is in.
pub(crate) fn namespace(pid: ShownPid, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/ns/{kind}", pid.0)).ok()
}

/// Bytes of pages that no other process shares.
pub(crate) fn private_bytes(pid: ShownPid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.0)).ok()?;
    let kilobytes = |name| field(&text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok();
    Some((kilobytes("Private_Clean:")? + kilobytes("Private_Dirty:")?) * 1024)
}

/// Every process whose parent is `parent`.
pub(crate) fn children(parent: ShownPid) -> Vec<ShownPid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(ShownPid))
        .filter(|pid| status(*pid).is_some_and(|status| status.parent == parent.0))
        .collect()
}

/// A process and everything that descends from it, parents first.
pub(crate) fn tree(root: ShownPid) -> Vec<ShownPid> {
    let mut all = vec![root];
    let mut next = 0;
    while next < all.len() {
        let children = children(all[next]);
        all.extend(children.into_iter().filter(|pid| *pid != root));
        next += 1;
    }
    all
}

fn parse_status(text: &str) -> Option<Status> {
    let set = |name| field(text, name).is_some_and(|value| u64::from_str_radix(value, 16) != Ok(0));
    let shown = || field(text, "Pid:");
    Some(Status {
        own: field(text, "NSpid:").or_else(shown)?.split_whitespace().last()?.parse().ok()?,
        parent: field(text, "PPid:")?.parse().ok()?,
        // Real, effective, saved, file system.
        uid: field(text, "Uid:")?.split_whitespace().nth(1)?.parse().ok()?,
        threads: field(text, "Threads:")?.parse().ok()?,
        has_effective_capabilities: ["CapPrm:", "CapEff:", "CapAmb:"].into_iter().any(set),
        no_new_privileges: field(text, "NoNewPrivs:") == Some("1"),
        has_seccomp: field(text, "Seccomp:").is_some_and(|mode| mode != "0"),
    })
}

/// The value behind a name, in the form of many files in `/proc`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_leads_to_the_process_and_its_status() {
        let pidfd = crate::sys::pidfd_open(nix::unistd::getpid()).unwrap();
        let pid = pid_of(&pidfd).unwrap();
        assert_eq!(Some(pid), own_pid());
        let status = status(pid).unwrap();
        assert_eq!(status.uid, nix::unistd::geteuid().as_raw());
        assert!(private_bytes(pid).unwrap() > 0);
        assert_eq!(status.parent, nix::unistd::getppid().as_raw().unsigned_abs());
    }

    #[test]
    fn a_tree_holds_children() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        assert!(tree(own_pid().unwrap()).contains(&ShownPid(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
