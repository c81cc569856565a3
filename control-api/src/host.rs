//! What this host has at all: a deployment that asks for more can never run here.

use crate::rows::Amounts;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    cpu_millicores: i64,
    /// 0 where it cannot be known; then memory refuses nothing.
    memory_mb: i64,
}

impl Host {
    pub(crate) fn measure() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            cpu_millicores: i64::try_from(cores).unwrap_or(i64::MAX).saturating_mul(1_000),
            memory_mb: total_kb(&memory).unwrap_or(0) / 1_024,
        }
    }

    /// What one replica asks for and this host has not, for people.
    pub(crate) fn lacks(self, asked: Amounts) -> Option<String> {
        if asked.cpu_millicores > self.cpu_millicores {
            return Some(format!(
                "a replica asks for {} thousandths of a core, this host has {}",
                asked.cpu_millicores, self.cpu_millicores
            ));
        }
        if self.memory_mb > 0 && asked.memory_mb > self.memory_mb {
            return Some(format!(
                "a replica asks for {} MB of memory, this host has {}",
                asked.memory_mb, self.memory_mb
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
        let asked = Amounts { cpu_millicores: 2_000, memory_mb: 4_096, ..Amounts::default() };
        assert_eq!(host.lacks(asked), None);
        assert!(host.lacks(Amounts { cpu_millicores: 2_001, ..asked }).unwrap().contains("core"));
        assert!(host.lacks(Amounts { memory_mb: 4_097, ..asked }).unwrap().contains("memory"));
        assert!(host.lacks(Amounts { nvidia_gpus: 1, ..asked }).unwrap().contains("GPU"));
        assert_eq!(Host { memory_mb: 0, ..host }.lacks(Amounts { memory_mb: 9_999_999, ..asked }), None);
        assert_eq!(total_kb("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000));
    }
}
