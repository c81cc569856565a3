//! What this host has: a deployment that asks for more than there is at all can never run here, one that asks for more
//! than others leave waits (`reconcile/room`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::rows::Amounts;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    cpu_millicores: i64,
    /// MB that deployments may ask for together; 0 where it cannot be known, then memory refuses nothing.
    memory_mb: i64,
}

impl Host {
    /// `memory_mb_max` in the place of what is found.
    pub(crate) fn measure(memory_mb_max: Option<u64>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory_mb = match memory_mb_max {
            Some(configured) => i64::try_from(configured).unwrap_or(i64::MAX),
            None => found_mb(),
        };
        Self { cpu_millicores: i64::try_from(cores).unwrap_or(i64::MAX).saturating_mul(1_000), memory_mb }
    }

    /// MB that deployments may ask for together; 0 is not known.
    pub(crate) fn memory_mb(self) -> i64 {
        self.memory_mb
    }

    /// What is asked for and this host has not at all, for people; `together_mb` is what all replicas ask for.
    pub(crate) fn lacks(self, asked: Amounts, together_mb: i64) -> Option<String> {
        if asked.cpu_millicores > self.cpu_millicores {
            return Some(format!(
                "a replica asks for {} thousandths of a core, this host has {}",
                asked.cpu_millicores, self.cpu_millicores
            ));
        }
        if self.memory_mb > 0 && together_mb > self.memory_mb {
            return Some(format!(
                "it asks for {together_mb} MB of memory ({} × {} MB), this host has {} MB for all deployments",
                asked.replicas, asked.memory_mb, self.memory_mb
            ));
        }
        if asked.nvidia_gpus > 0 {
            return Some(format!(
                "a replica asks for {} GPUs, the local launcher has none",
                asked.nvidia_gpus
            ));
        }
        None
    }
}

/// The host's memory, or what this program's control group leaves of it.
fn found_mb() -> i64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host_mb = total_kb(&meminfo).unwrap_or(0) / 1_024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let bounds = group_files(&groups).into_iter().filter_map(|file| {
        // `max` is none, and so is what is no number.
        fs::read_to_string(file).ok()?.trim().parse::<i64>().ok().map(|bytes| bytes >> 20)
    });
    bounds.filter(|mb| *mb > 0).fold(host_mb, i64::min)
}

/// The files that may bound this program's memory: of its group and of those above it, by either version.
fn group_files(proc_self_cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in proc_self_cgroup.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (PathBuf::from(CGROUPS), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                (Path::new(CGROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = root.join(group.trim_start_matches('/'));
        files.extend(group.ancestors().take_while(|dir| dir.starts_with(&root)).map(|dir| dir.join(file)));
    }
    files
}

fn total_kb(meminfo: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_host_like_this_has_is_lacking() {
        let host = Host { cpu_millicores: 2_000, memory_mb: 4_096 };
        let asked = Amounts { cpu_millicores: 2_000, memory_mb: 2_048, replicas: 2, ..Amounts::default() };
        assert_eq!(host.lacks(asked, 4_096), None);
        assert!(host.lacks(Amounts { cpu_millicores: 2_001, ..asked }, 0).unwrap().contains("core"));
        let memory = host.lacks(Amounts { replicas: 3, ..asked }, 6_144).unwrap();
        assert!(memory.contains("6144 MB of memory (3 × 2048 MB), this host has 4096 MB"), "{memory}");
        assert!(host.lacks(Amounts { nvidia_gpus: 1, ..asked }, 0).unwrap().contains("GPU"));
        assert_eq!(Host { memory_mb: 0, ..host }.lacks(asked, 9_999_999), None);
        assert_eq!(total_kb("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
    }

    #[test]
    fn memory_is_what_is_configured_or_else_found() {
        assert_eq!(Host::measure(Some(512)).memory_mb(), 512);
        assert!(Host::measure(None).memory_mb() > 0);
    }

    #[test]
    fn every_group_above_may_bound_it_in_either_version() {
        let paths = |text| -> Vec<String> {
            group_files(text).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            paths("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(
            paths("5:cpu,cpuacct:/x\n4:memory:/c\n"),
            ["/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }
}
