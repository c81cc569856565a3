//! What builds may use and reach: `[builds]` of the file.

use std::path::PathBuf;

use millgate_control_api::{BuildNetwork, ControlConfig, HostPort};
use serde::Deserialize;

use crate::failure::Failure;

/// What the file says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildsFile {
    network: Option<NetworkWord>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    timeout_s: Option<u64>,
    memory_mib: Option<u64>,
    disk_mib: Option<u64>,
    package_cache_mib: Option<u64>,
    queued_max: Option<u32>,
    keep_last: Option<u32>,
    keep_days: Option<u32>,
    verify_days: Option<u32>,
    verify_mib_per_s: Option<u64>,
    /// `uv`, by its path; '' is none.
    uv: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NetworkWord {
    Internet,
    Listed,
    None,
}

/// What roles run by; what is not said is the control API's own.
#[derive(Debug, Clone)]
pub(crate) struct Builds {
    network: BuildNetwork,
    hosts: Vec<HostPort>,
    timeout_ms: Option<u64>,
    memory_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    package_cache_bytes: Option<u64>,
    queued_max: Option<u32>,
    keep_last: Option<u32>,
    keep_days: Option<u32>,
    verify_days: Option<u32>,
    verify_bytes_per_s: Option<u64>,
    uv: Option<PathBuf>,
}

impl BuildsFile {
    /// Checks what can be wrong.
    pub(super) fn check(self) -> Result<Builds, Failure> {
        let counts = [
            ("timeout_s", self.timeout_s),
            ("memory_mib", self.memory_mib),
            ("disk_mib", self.disk_mib),
            ("package_cache_mib", self.package_cache_mib),
            ("verify_mib_per_s", self.verify_mib_per_s),
            ("queued_max", self.queued_max.map(u64::from)),
            ("keep_last", self.keep_last.map(u64::from)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, value)| *value == Some(0)) {
            return Err(Failure::usage(format!("`{name}` of `[builds]` is 0")).hint("give at least 1"));
        }
        if let Some(uv) = self.uv.as_ref().filter(|uv| !uv.as_os_str().is_empty() && !uv.is_file()) {
            return Err(Failure::usage(format!("`uv` of `[builds]` is `{}`, and is no file", uv.display()))
                .hint("name the program, or \"\" for none"));
        }
        let hosts = self.allowed_hosts.iter().map(|text| {
            HostPort::parse(text).ok_or_else(|| {
                Failure::usage(format!("`allowed_hosts` of `[builds]` holds `{text}`"))
                    .hint("give hosts as in `index.example.org` or `10.0.0.7:8080`")
            })
        });
        Ok(Builds {
            network: match self.network {
                None | Some(NetworkWord::Internet) => BuildNetwork::Internet,
                Some(NetworkWord::Listed) => BuildNetwork::Listed,
                Some(NetworkWord::None) => BuildNetwork::None,
            },
            hosts: hosts.collect::<Result<_, _>>()?,
            timeout_ms: self.timeout_s.map(|s| s.saturating_mul(1_000)),
            memory_bytes: self.memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
            disk_bytes: self.disk_mib.map(|mib| mib.saturating_mul(1 << 20)),
            package_cache_bytes: self.package_cache_mib.map(|mib| mib.saturating_mul(1 << 20)),
            queued_max: self.queued_max,
            keep_last: self.keep_last,
            keep_days: self.keep_days,
            verify_days: self.verify_days,
            verify_bytes_per_s: self.verify_mib_per_s.map(|mib| mib.saturating_mul(1 << 20)),
            uv: self.uv.or_else(uv_of_host).filter(|uv| !uv.as_os_str().is_empty()),
        })
    }
}

impl Builds {
    /// Puts it into what the control API is told.
    pub(crate) fn apply(&self, config: ControlConfig) -> ControlConfig {
        ControlConfig {
            build_network: self.network,
            build_hosts: self.hosts.clone(),
            build_timeout_ms: self.timeout_ms.unwrap_or(config.build_timeout_ms),
            build_memory_bytes: self.memory_bytes.unwrap_or(config.build_memory_bytes),
            build_disk_bytes: self.disk_bytes.unwrap_or(config.build_disk_bytes),
            package_cache_bytes_max: self.package_cache_bytes.unwrap_or(config.package_cache_bytes_max),
            uv: self.uv.clone(),
            builds_keep_last: self.keep_last.unwrap_or(config.builds_keep_last),
            builds_keep_days: self.keep_days.unwrap_or(config.builds_keep_days),
            builds_verify_days: self.verify_days.unwrap_or(config.builds_verify_days),
            builds_verify_bytes_per_s: self.verify_bytes_per_s.unwrap_or(config.builds_verify_bytes_per_s),
            builds_queued_max: self.queued_max.unwrap_or(config.builds_queued_max),
            ..config
        }
    }
}

/// The `uv` of this host, beside this program or on the PATH: the program itself, not a link to it, which a sandbox would
/// not follow.
fn uv_of_host() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|millgate| millgate.with_file_name("uv"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("uv"));
    beside.into_iter().chain(on_path).find_map(|uv| uv.canonicalize().ok().filter(|uv| uv.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Builds, Failure> {
        toml::from_str::<BuildsFile>(text).unwrap().check()
    }

    #[test]
    fn what_is_left_out_is_the_control_apis_own() {
        let own = ControlConfig::new("/d", "localhost");
        let bare = read("uv = ''").unwrap().apply(own.clone());
        assert_eq!(format!("{bare:?}"), format!("{own:?}"));
        let said =
            read("network = 'listed'\nallowed_hosts = ['10.0.0.7:8080']\ndisk_mib = 3").unwrap().apply(own);
        assert_eq!((said.build_network, said.build_disk_bytes), (BuildNetwork::Listed, 3 << 20));
        assert_eq!(said.build_hosts[0].to_string(), "10.0.0.7:8080");
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        for wrong in ["disk_mib = 0", "queued_max = 0", "keep_last = 0", "allowed_hosts = ['http://x']"] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.contains("hint:"), "{said}");
        }
    }
}
