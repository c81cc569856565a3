//! Settings of the server roles: flags over environment over file over defaults, read once and checked before
//! anything listens.

mod admission;
mod metrics;
mod observation;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use millgate_contract::limits;
use serde::Deserialize;

use crate::{
    args::Role,
    env_vars,
    failure::{Context, Failure},
};
pub(crate) use admission::Admission;
use admission::AdmissionFile;
use metrics::MetricsFile;
pub(crate) use metrics::MetricsSettings;
pub(crate) use observation::Observation;
use observation::ObservationFile;

/// What a server role runs by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// `scheme://host[:port]` that callers use, where it is not the listening address.
    pub(crate) public_url: Option<String>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) request_timeout_ms: u64,
    /// From the start of a replica's process to ready.
    pub(crate) start_timeout_ms: u64,
    pub(crate) replicas_ceiling: u16,
    /// Who may call, and how often.
    pub(crate) admission: Admission,
    /// What is kept and told of calls.
    pub(crate) observation: Observation,
    /// How tracked metrics are kept.
    pub(crate) metrics: MetricsSettings,
    /// For which connections are still accepted at the end, `/ready` saying no already.
    pub(crate) unready_ms: u64,
}

/// The file: every key optional, none unknown.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    admin_listen: Option<SocketAddr>,
    public_url: Option<String>,
    #[serde(default)]
    cors_origins: Vec<String>,
    request_timeout_s: Option<u64>,
    start_timeout_s: Option<u64>,
    replicas_ceiling: Option<u16>,
    #[serde(default)]
    admission: AdmissionFile,
    #[serde(default)]
    observation: ObservationFile,
    #[serde(default)]
    metrics: MetricsFile,
    unready_s: Option<u64>,
}

impl Settings {
    /// Puts flags, environment and file together.
    pub(crate) fn read(role: &Role) -> Result<Self, Failure> {
        let file = role.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let request_timeout_s = match std::env::var(env_vars::REQUEST_TIMEOUT_SECONDS) {
            Err(_) => file.request_timeout_s,
            Ok(text) => Some(text.parse().ok().filter(|s| *s > 0).ok_or_else(|| {
                Failure::usage(format!("`{}` is `{text}`", env_vars::REQUEST_TIMEOUT_SECONDS))
                    .hint("give a number of seconds, at least 1")
            })?),
        };
        let replicas_ceiling = file.replicas_ceiling.unwrap_or(limits::REPLICAS_CEILING_DEFAULT);
        if !(1..=limits::REPLICAS_CEILING_MAX).contains(&replicas_ceiling) {
            return Err(Failure::usage(format!("`replicas_ceiling` is {replicas_ceiling}"))
                .hint(format!("give a number from 1 to {}", limits::REPLICAS_CEILING_MAX)));
        }
        let data_dir = role.data_dir.clone().or(file.data_dir).unwrap_or_else(default_data_dir);
        Ok(Self {
            data_dir: std::path::absolute(&data_dir).context(format_args!("`{}`", data_dir.display()))?,
            listen: role.listen.or(file.listen).unwrap_or_else(|| ([127, 0, 0, 1], 8080).into()),
            admin_listen: role
                .admin_listen
                .or(file.admin_listen)
                .unwrap_or_else(|| ([127, 0, 0, 1], 9180).into()),
            public_url: file.public_url,
            cors_origins: file.cors_origins,
            request_timeout_ms: request_timeout_s.map_or(limits::REQUEST_TIMEOUT_MS_DEFAULT, |s| s * 1_000),
            start_timeout_ms: file
                .start_timeout_s
                .map_or(limits::START_TIMEOUT_MS_DEFAULT, |s| s.max(1).saturating_mul(1_000)),
            replicas_ceiling,
            admission: file.admission.check()?,
            observation: file.observation.check()?,
            metrics: file.metrics.check()?,
            unready_ms: file.unready_s.unwrap_or(0).saturating_mul(1_000),
        })
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).context(format_args!("cannot read `{}`", path.display()))?;
    toml::from_str(&text)
        .map_err(|cause| Failure::usage(format!("`{}` is not a configuration file: {cause}", path.display())))
}

/// `/var/lib/millgate` as root, else `$XDG_DATA_HOME/millgate`.
pub(crate) fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/millgate".into();
    }
    let base = std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()).map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".local/share"),
        PathBuf::from,
    );
    base.join("millgate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(config: Option<PathBuf>) -> Role {
        Role { config, data_dir: Some("/tmp/d".into()), listen: None, admin_listen: None }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("millgate.toml");
        std::fs::write(
            &file,
            "data_dir = '/tmp/other'\nlisten = '127.0.0.1:1'\nrequest_timeout_s = 7\nstart_timeout_s = 9\n",
        )
        .unwrap();
        let settings = Settings::read(&role(Some(file))).unwrap();
        assert_eq!(settings.data_dir, Path::new("/tmp/d"));
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.request_timeout_ms, 7_000);
        assert_eq!(settings.start_timeout_ms, 9_000);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("millgate.toml");
        std::fs::write(&file, "listn = '127.0.0.1:1'\n").unwrap();
        let failure = Settings::read(&role(Some(file))).unwrap_err().to_string();
        assert!(failure.contains("listn"), "{failure}");
    }
}
