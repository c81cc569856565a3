//! Settings of the server roles: flags over environment over file over defaults, read once and checked before
//! anything listens.

mod admission;
mod builds;
mod edges;
mod limits;
mod metrics;
mod observation;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use millgate_contract::limits as contract;
use millgate_control_api::{DatabaseUrl, DatabaseUrlError};
use serde::Deserialize;

use crate::{
    args::{Place, Role, Secret},
    env_vars,
    failure::{Context, Failure},
};
pub(crate) use admission::Admission;
use admission::AdmissionFile;
pub(crate) use builds::Builds;
use builds::BuildsFile;
pub(crate) use edges::Edges;
use edges::{ProxiesFile, TlsFile};
pub(crate) use limits::Limits;
use metrics::MetricsFile;
pub(crate) use metrics::MetricsSettings;
pub(crate) use observation::Observation;
use observation::ObservationFile;

/// What a server role runs by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    /// Without it a file in the data directory.
    pub(crate) database_url: Option<DatabaseUrl>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// `scheme://host[:port]` that callers use, where it is not the listening address.
    pub(crate) public_url: Option<String>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) request_timeout_ms: u64,
    /// From the start of a replica's process to ready.
    pub(crate) start_timeout_ms: u64,
    pub(crate) replicas_ceiling: u16,
    /// MB that deployments may ask for together; what the host has unless given.
    pub(crate) memory_mb_max: Option<u64>,
    /// Templates and spares count in it too.
    pub(crate) counts_template_and_spares: bool,
    /// Nothing of users' is started where any part of isolation cannot be had.
    pub(crate) require_isolation: bool,
    /// Who may call, and how often.
    pub(crate) admission: Admission,
    /// How callers reach it.
    pub(crate) edges: Edges,
    /// What it holds its callers and itself to.
    pub(crate) limits: Limits,
    /// What is kept and told of calls.
    pub(crate) observation: Observation,
    /// How tracked metrics are kept.
    pub(crate) metrics: MetricsSettings,
    /// What builds may use and reach.
    pub(crate) builds: Builds,
}

/// The file: every key optional, none unknown.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    database_url: Option<Secret>,
    listen: Option<SocketAddr>,
    admin_listen: Option<SocketAddr>,
    public_url: Option<String>,
    #[serde(default)]
    cors_origins: Vec<String>,
    request_timeout_s: Option<u64>,
    start_timeout_s: Option<u64>,
    replicas_ceiling: Option<u16>,
    memory_mb_max: Option<u64>,
    #[serde(default)]
    counts_template_and_spares: bool,
    #[serde(default)]
    require_isolation: bool,
    #[serde(default)]
    admission: AdmissionFile,
    tls: Option<TlsFile>,
    #[serde(default)]
    proxies: ProxiesFile,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    observation: ObservationFile,
    #[serde(default)]
    metrics: MetricsFile,
    #[serde(default)]
    builds: BuildsFile,
}

/// Where a server keeps things.
pub(crate) struct Location {
    pub(crate) data_dir: PathBuf,
    pub(crate) database_url: Option<DatabaseUrl>,
}

impl Location {
    /// Of flags, environment and file.
    pub(crate) fn read(place: &Place) -> Result<Self, Failure> {
        let file = place.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Self::of(place, file.data_dir, file.database_url)
    }

    fn of(place: &Place, data_dir: Option<PathBuf>, database_url: Option<Secret>) -> Result<Self, Failure> {
        let data_dir = place.data_dir.clone().or(data_dir).unwrap_or_else(default_data_dir);
        let database_url = place.database_url.clone().or(database_url);
        Ok(Self {
            data_dir: std::path::absolute(&data_dir).context(format_args!("`{}`", data_dir.display()))?,
            database_url: database_url.map(read_database_url).transpose()?,
        })
    }
}

impl Settings {
    /// Puts flags, environment and file together.
    pub(crate) fn read(role: &Role) -> Result<Self, Failure> {
        let file = role.place.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let request_timeout_s = match std::env::var(env_vars::REQUEST_TIMEOUT_SECONDS) {
            Err(_) => file.request_timeout_s,
            Ok(text) => Some(text.parse().ok().filter(|s| *s > 0).ok_or_else(|| {
                Failure::usage(format!("`{}` is `{text}`", env_vars::REQUEST_TIMEOUT_SECONDS))
                    .hint("give a number of seconds, at least 1")
            })?),
        };
        let replicas_ceiling = file.replicas_ceiling.unwrap_or(contract::REPLICAS_CEILING_DEFAULT);
        if !(1..=contract::REPLICAS_CEILING_MAX).contains(&replicas_ceiling) {
            return Err(Failure::usage(format!("`replicas_ceiling` is {replicas_ceiling}"))
                .hint(format!("give a number from 1 to {}", contract::REPLICAS_CEILING_MAX)));
        }
        let Location { data_dir, database_url } =
            Location::of(&role.place, file.data_dir, file.database_url)?;
        Ok(Self {
            data_dir,
            database_url,
            listen: role.listen.or(file.listen).unwrap_or_else(|| ([127, 0, 0, 1], 8080).into()),
            admin_listen: role
                .admin_listen
                .or(file.admin_listen)
                .unwrap_or_else(|| ([127, 0, 0, 1], 9180).into()),
            public_url: file.public_url,
            cors_origins: file.cors_origins,
            request_timeout_ms: request_timeout_s.map_or(contract::REQUEST_TIMEOUT_MS_DEFAULT, |s| s * 1_000),
            start_timeout_ms: file
                .start_timeout_s
                .map_or(contract::START_TIMEOUT_MS_DEFAULT, |s| s.max(1).saturating_mul(1_000)),
            replicas_ceiling,
            memory_mb_max: file.memory_mb_max,
            counts_template_and_spares: file.counts_template_and_spares,
            require_isolation: file.require_isolation,
            admission: file.admission.check()?,
            edges: Edges::check(file.tls, file.proxies)?,
            limits: file.limits.check()?,
            observation: file.observation.check()?,
            metrics: file.metrics.check()?,
            builds: file.builds.check()?,
        })
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).context(format_args!("cannot read `{}`", path.display()))?;
    toml::from_str(&text)
        .map_err(|cause| Failure::usage(format!("`{}` is not a configuration file: {cause}", path.display())))
}

fn read_database_url(Secret(text): Secret) -> Result<DatabaseUrl, Failure> {
    text.parse().map_err(|cause: DatabaseUrlError| Failure::usage(format!("the database URL: {cause}")))
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
    use millgate_gateway::GatewayConfig;

    use super::*;

    fn role(config: Option<PathBuf>) -> Role {
        let place = Place { config, data_dir: Some("/tmp/d".into()), database_url: None };
        Role { place, listen: None, admin_listen: None }
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

    fn read(text: &str) -> Result<Settings, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("millgate.toml");
        std::fs::write(&file, text).unwrap();
        Settings::read(&role(Some(file)))
    }

    #[test]
    fn an_unknown_key_in_the_file_is_named_in_whatever_section() {
        for section in ["", "[builds]\n", "[limits]\n", "[proxies]\n", "[admission]\n"] {
            let failure = read(&format!("{section}listn = '127.0.0.1:1'\n")).unwrap_err().to_string();
            assert!(failure.contains("listn"), "{failure}");
        }
    }

    #[test]
    fn the_ceiling_of_replicas_is_at_most_199() {
        assert_eq!(read("replicas_ceiling = 199\n").unwrap().replicas_ceiling, 199);
        for wrong in ["0", "200"] {
            let failure = read(&format!("replicas_ceiling = {wrong}\n")).unwrap_err().to_string();
            assert!(failure.contains("from 1 to 199"), "{failure}");
        }
    }

    #[test]
    fn a_database_is_named_without_its_password_being_shown() {
        let settings = read("database_url = 'postgres://millgate:hunter2@db.example.org/state'\n").unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("postgres://millgate@db.example.org:5432/state"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let refused = read("database_url = 'mysql://millgate:hunter2@db.example.org/state'\n").unwrap_err();
        assert!(refused.to_string().contains("begins with `mysql:`"), "{refused}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }

    const EXAMPLE: &str = include_str!("../../deploy/millgate.toml");

    #[test]
    fn the_example_file_says_what_is_so_anyway() {
        let (example, bare) = (read(EXAMPLE).unwrap(), read("").unwrap());
        assert_eq!(format!("{example:?}"), format!("{bare:?}"));
    }

    /// The example with everything in it that is commented out, files aside.
    fn uncommented(dir: &Path) -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.join("tls.crt"), made.cert.pem()).unwrap();
        std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        let lines = EXAMPLE.lines().map(|line| {
            let setting = line.strip_prefix("# ").unwrap_or(line);
            let is_setting = setting.starts_with('[')
                || setting.split_once(" = ").is_some_and(|(name, _)| !name.contains(char::is_whitespace));
            if is_setting { setting } else { line }
        });
        lines.collect::<Vec<_>>().join("\n").replace("/etc/millgate", dir.to_str().unwrap())
    }

    #[test]
    fn every_setting_of_the_example_file_exists_and_every_limit_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = uncommented(dir.path());
        let settings = read(&text).unwrap();
        assert_eq!(settings.edges.scheme(), "https");
        let limits = format!("{:?}", settings.limits);
        assert!(!limits.contains("None"), "a limit is missing in the example: {limits}");
        // What it says is the default is the default.
        let said = settings.limits.apply(GatewayConfig::default());
        assert_eq!(figures(&said), figures(&GatewayConfig::default()));
        assert_eq!(settings.request_timeout_ms, contract::REQUEST_TIMEOUT_MS_DEFAULT);
        assert_eq!(settings.start_timeout_ms, contract::START_TIMEOUT_MS_DEFAULT);
        assert_eq!(settings.replicas_ceiling, contract::REPLICAS_CEILING_DEFAULT);
    }

    fn figures(config: &GatewayConfig) -> [u64; 18] {
        [
            config.wait_ms_max,
            config.line_bytes_max as u64,
            config.waiting_bytes_max as u64,
            config.rate_keys_max as u64,
            config.verdicts_max as u64,
            config.connections_max as u64,
            config.connections_per_address_max as u64,
            config.head_ms_max,
            config.keep_alive_ms_max,
            config.body_idle_ms_max,
            config.body_ms_max,
            config.other_body_idle_ms_max,
            config.body_bytes_per_s_min,
            config.write_idle_ms_max,
            config.cancel_grace_ms,
            config.unready_ms,
            config.farewell_ms_max,
            config.drain_ms_max,
        ]
    }
}
