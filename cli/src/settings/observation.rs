//! What is kept and told of calls: the part of the settings that operators look through.

use std::path::{Path, PathBuf};

use millgate_gateway::{CallLogConfig, GatewayConfig, SpansConfig};
use serde::Deserialize;

use crate::failure::Failure;

/// The folder with events of calls, in the data directory.
const CALLS_FOLDER: &str = "calls";
/// Bytes of events that are kept: about a million calls.
const CALLS_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;
/// Less than this would hold no day of anybody's.
const CALLS_BYTES_MIN: u64 = 1024 * 1024;
/// The share of calls that is recorded where the caller does not say: one in a hundred.
const SAMPLE_RATIO_DEFAULT: f64 = 0.01;
/// Series of keys at most: each is a line of the page of figures.
const KEY_SERIES_CEILING: usize = 10_000;

/// Days for which what a deployment printed is kept after its end, where the file says nothing.
const LOG_RETENTION_DAYS_DEFAULT: u32 = 14;

/// What the file says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObservationFile {
    calls_bytes_max: Option<u64>,
    key_series_max: Option<usize>,
    log_retention_days: Option<u32>,
    traces: Option<TracesFile>,
}

/// Spans for OpenTelemetry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TracesFile {
    endpoint: String,
    sample_ratio: Option<f64>,
}

/// What servers run by.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    /// 0: events of calls are not kept.
    calls_bytes_max: u64,
    key_series_max: Option<usize>,
    spans: Option<SpansConfig>,
    /// Days for which what a deployment printed is kept after its end.
    pub(crate) log_retention_days: u32,
}

impl ObservationFile {
    pub(super) fn check(self) -> Result<Observation, Failure> {
        let calls_bytes_max = self.calls_bytes_max.unwrap_or(CALLS_BYTES_DEFAULT);
        if (1..CALLS_BYTES_MIN).contains(&calls_bytes_max) {
            return Err(Failure::usage(format!("`calls_bytes_max` is {calls_bytes_max}"))
                .hint(format!("give at least {CALLS_BYTES_MIN}, or 0 to keep no events of calls")));
        }
        if let Some(series) = self.key_series_max.filter(|series| *series > KEY_SERIES_CEILING) {
            return Err(Failure::usage(format!("`key_series_max` is {series}"))
                .hint(format!("give a number from 0 to {KEY_SERIES_CEILING}")));
        }
        let log_retention_days = self.log_retention_days.unwrap_or(LOG_RETENTION_DAYS_DEFAULT);
        if log_retention_days == 0 {
            return Err(Failure::usage("`log_retention_days` is 0").hint("give at least 1"));
        }
        let spans = self.traces.map(TracesFile::check).transpose()?;
        Ok(Observation { calls_bytes_max, key_series_max: self.key_series_max, log_retention_days, spans })
    }
}

impl TracesFile {
    fn check(self) -> Result<SpansConfig, Failure> {
        let Self { endpoint, sample_ratio } = self;
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(Failure::usage(format!("`endpoint` is `{endpoint}`")).hint(
                "give where a collector takes OTLP over HTTP, as in `http://127.0.0.1:4318/v1/traces`",
            ));
        }
        let sample_ratio = sample_ratio.unwrap_or(SAMPLE_RATIO_DEFAULT);
        if !(0.0..=1.0).contains(&sample_ratio) {
            return Err(
                Failure::usage(format!("`sample_ratio` is {sample_ratio}")).hint("give a number from 0 to 1")
            );
        }
        Ok(SpansConfig { endpoint, sample_ratio })
    }
}

impl Observation {
    /// Where events of calls are kept, if they are.
    pub(crate) fn calls_folder(&self, data_dir: &Path) -> Option<PathBuf> {
        (self.calls_bytes_max > 0).then(|| data_dir.join(CALLS_FOLDER))
    }

    /// A gateway's configuration with these.
    pub(crate) fn apply(&self, data_dir: &Path, config: GatewayConfig) -> GatewayConfig {
        GatewayConfig {
            call_log: self
                .calls_folder(data_dir)
                .map(|folder| CallLogConfig::new(folder, self.calls_bytes_max)),
            key_series_max: self.key_series_max.unwrap_or(config.key_series_max),
            spans: self.spans.clone(),
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Observation, Failure> {
        toml::from_str::<ObservationFile>(text).unwrap().check()
    }

    #[test]
    fn spans_are_sent_where_the_file_says_so() {
        let data = Path::new("/tmp/d");
        let spans = |text: &str| read(text).unwrap().apply(data, GatewayConfig::default()).spans;
        assert_eq!(spans(""), None);
        let endpoint = "http://127.0.0.1:4318/v1/traces";
        let sent = spans(&format!("[traces]\nendpoint = '{endpoint}'")).unwrap();
        assert_eq!(sent, SpansConfig { endpoint: endpoint.into(), sample_ratio: SAMPLE_RATIO_DEFAULT });
        let said = read("[traces]\nendpoint = '127.0.0.1:4318'").unwrap_err().to_string();
        assert!(said.contains("`endpoint` is `127.0.0.1:4318`") && said.contains("hint:"), "{said}");
        let wrong = format!("[traces]\nendpoint = '{endpoint}'\nsample_ratio = 2.0");
        assert!(read(&wrong).unwrap_err().to_string().contains("`sample_ratio` is 2"));
    }

    #[test]
    fn events_of_calls_are_kept_unless_the_file_says_otherwise() {
        let data = Path::new("/tmp/d");
        let config = |text: &str| read(text).unwrap().apply(data, GatewayConfig::default());
        let log = config("").call_log.unwrap();
        assert_eq!((log.folder, log.folder_bytes_max), ("/tmp/d/calls".into(), CALLS_BYTES_DEFAULT));
        assert_eq!(config("calls_bytes_max = 0").call_log, None);
        assert_eq!(config("key_series_max = 7").key_series_max, 7);
        assert_eq!(read("").unwrap().log_retention_days, 14);
        assert_eq!(read("log_retention_days = 3").unwrap().log_retention_days, 3);
        for (name, value) in
            [("calls_bytes_max", "5"), ("key_series_max", "1000000"), ("log_retention_days", "0")]
        {
            let said = read(&format!("{name} = {value}")).unwrap_err().to_string();
            assert!(said.contains(&format!("`{name}` is {value}")) && said.contains("hint:"), "{said}");
        }
    }
}
