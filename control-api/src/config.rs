//! What a control API needs to be told. It reads no environment of its own: whoever starts it does, once.

mod network;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use millgate_contract::{ids::Username, limits};

use crate::{call_events::CallEvents, database::DatabaseUrl, egress::installer};
pub use network::{BuildNetwork, HostPort};

/// Says whose bearer token it is that is no API key of ours: an OpenID issuer's, whose word is taken for who somebody is.
#[derive(Clone)]
pub struct TokenReader(Arc<ReadToken>);

type ReadToken = dyn Fn(&str) -> Option<Username> + Send + Sync;

impl TokenReader {
    /// `user` answers the user of a good token.
    pub fn new(user: impl Fn(&str) -> Option<Username> + Send + Sync + 'static) -> Self {
        Self(Arc::new(user))
    }

    pub(crate) fn user(&self, token: &str) -> Option<Username> {
        (self.0)(token)
    }
}

impl std::fmt::Debug for TokenReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenReader")
    }
}

/// What a control API needs to be told.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Everything is kept below this folder.
    pub data_dir: PathBuf,
    /// What is wished and known of it all; a SQLite file in the data directory without.
    pub database_url: Option<DatabaseUrl>,
    /// `http` or `https`, as callers see it.
    pub scheme: String,
    /// `host:port` callers use.
    pub domain: String,
    /// Runs `supervise RUN_DIR` and `build-step`.
    pub millgate_program: PathBuf,
    /// Embeds Python: `millgate-replica`.
    pub runtime_program: PathBuf,
    /// The interpreter that environments are made from.
    pub python: PathBuf,
    /// Name of the first administrator.
    pub administrator: String,
    /// Milliseconds a function may run where its model says nothing (`MODEL_REQUEST_TIMEOUT_SECONDS`).
    pub request_timeout_ms_default: u64,
    /// Replicas one deployment may have.
    pub replicas_ceiling: u16,
    /// MB that deployments may ask for together; what is found of this host unless given.
    pub memory_mb_max: Option<u64>,
    /// Counts, beside the replicas, their template and spares in what a deployment asks for.
    pub counts_template_and_spares: bool,
    /// Milliseconds from start to ready.
    pub start_timeout_ms: u64,
    /// Bytes of one uploaded file.
    pub upload_bytes_max: u64,
    /// Bytes of an uploaded archive, unpacked.
    pub archive_bytes_max: u64,
    /// Files in an uploaded archive.
    pub archive_files_max: u64,
    /// Builds that may wait.
    pub builds_queued_max: u32,
    /// Milliseconds a build script may run.
    pub build_timeout_ms: u64,
    /// Bytes of memory a build script may use.
    pub build_memory_bytes: u64,
    /// Bytes of disk that a build script may add.
    pub build_disk_bytes: u64,
    /// Builds of each model that stay, the newest.
    pub builds_keep_last: u32,
    /// Days for which a build stays that was built, or served.
    pub builds_keep_days: u32,
    /// Days after which the contents of a build's files are read again; 0 is never.
    pub builds_verify_days: u32,
    /// Bytes a second of that reading.
    pub builds_verify_bytes_per_s: u64,
    /// How many builds are not as they were sealed: kept here for a page of figures.
    pub damaged_builds: Arc<AtomicU64>,
    /// Bytes of packages that a project's builds keep for each other; over it all of them go.
    pub package_cache_bytes_max: u64,
    /// `uv`, which stands in for pip in build scripts where it can.
    pub uv: Option<PathBuf>,
    /// What build scripts reach.
    pub build_network: BuildNetwork,
    /// Hosts that build scripts reach whatever their addresses are.
    pub build_hosts: Vec<HostPort>,
    /// Seconds an API key lives at most, and where nothing is said.
    pub key_lifetime_s_max: u64,
    /// Milliseconds running calls are given when a deployment is stopped.
    pub stop_grace_ms: u64,
    /// Milliseconds after the start in which nothing is stopped while no gateway has been heard of: gateways of
    /// processes of their own may still send calls by an older snapshot.
    pub gateway_wait_ms: u64,
    /// Where events of calls are found; without it there are none to show.
    pub call_events: Option<Arc<dyn CallEvents>>,
    /// Refuse to start deployments and builds where any part of isolation cannot be had.
    pub require_isolation: bool,
    /// Days for which single predictions can be read.
    pub metrics_retention_days: u32,
    /// Reads bearer tokens that are no API keys of ours. Their users must be there.
    pub token_reader: Option<TokenReader>,
    /// Days for which what a deployment printed can be read after its end.
    pub log_retention_days: u32,
    /// Variables that build scripts get from this host: proxies, package index, certificates.
    pub build_environment: BTreeMap<String, String>,
}

impl ControlConfig {
    /// The defaults for a server that keeps its data in `data_dir` and is reached at `domain`.
    pub fn new(data_dir: impl Into<PathBuf>, domain: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database_url: None,
            scheme: "http".into(),
            domain: domain.into(),
            millgate_program: "millgate".into(),
            runtime_program: "millgate-replica".into(),
            python: "python3".into(),
            administrator: "admin".into(),
            request_timeout_ms_default: limits::REQUEST_TIMEOUT_MS_DEFAULT,
            replicas_ceiling: limits::REPLICAS_CEILING_DEFAULT,
            memory_mb_max: None,
            counts_template_and_spares: false,
            start_timeout_ms: limits::START_TIMEOUT_MS_DEFAULT,
            upload_bytes_max: 1 << 30,
            archive_bytes_max: 8 << 30,
            archive_files_max: 200_000,
            builds_queued_max: 256,
            build_timeout_ms: 3_600_000,
            build_memory_bytes: 8 << 30,
            build_disk_bytes: 16 << 30,
            builds_keep_last: 10,
            builds_keep_days: 7,
            builds_verify_days: 7,
            builds_verify_bytes_per_s: 16 << 20,
            damaged_builds: Arc::default(),
            package_cache_bytes_max: 8 << 30,
            uv: None,
            build_network: BuildNetwork::Internet,
            build_hosts: Vec::new(),
            key_lifetime_s_max: 365 * 86_400,
            stop_grace_ms: 10_000,
            gateway_wait_ms: 3_000,
            call_events: None,
            require_isolation: false,
            metrics_retention_days: 14,
            token_reader: None,
            log_retention_days: 14,
            build_environment: BTreeMap::new(),
        }
    }

    /// Of `variables` those that tell a package installer where to go: proxies, index, certificates; with what pip's
    /// own files of this host say.
    pub fn installer_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<String, String> {
        let all: BTreeMap<String, String> = variables.into_iter().collect();
        let path = |name: &str| all.get(name).map(Path::new);
        let files = installer::pip_files(path("HOME"), path("PIP_CONFIG_FILE"));
        let mut kept = Self::of_installers(all);
        installer::add_pip_files(&mut kept, &files);
        // Its settings are variables now; the file is in no sandbox.
        kept.remove("PIP_CONFIG_FILE");
        kept
    }

    fn of_installers(variables: BTreeMap<String, String>) -> BTreeMap<String, String> {
        const EXACT: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
        variables
            .into_iter()
            .filter(|(name, _)| {
                let upper = name.to_ascii_uppercase();
                EXACT.contains(&name.as_str())
                    || name.starts_with("PIP_")
                    || name.starts_with("UV_")
                    || matches!(upper.as_str(), "HTTP_PROXY" | "HTTPS_PROXY" | "NO_PROXY" | "ALL_PROXY")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_installer_needs_is_passed_on() {
        let given = [
            ("PIP_INDEX_URL", "a"),
            ("https_proxy", "b"),
            ("SSL_CERT_FILE", "c"),
            ("AWS_SECRET_ACCESS_KEY", "d"),
            ("PATH", "e"),
        ];
        let kept = ControlConfig::of_installers(given.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["PIP_INDEX_URL", "SSL_CERT_FILE", "https_proxy"]);
    }
}
