//! How tracked metrics are kept: `[metrics]` of the file.

use std::path::Path;

use millgate_gateway::{SpoolConfig, SpoolSync};
use serde::Deserialize;

use crate::failure::Failure;

/// Where a gateway's spool is, in the data directory.
const SPOOL: &str = "spool";
/// Days for which single predictions can be read, where the file says nothing.
const RETENTION_DAYS_DEFAULT: u32 = 14;

/// What the file says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsFile {
    /// MiB that a gateway keeps while there is no control API.
    spool_mib: Option<u64>,
    spool_sync: Option<SyncWord>,
    /// Days for which single predictions can be read.
    retention_days: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SyncWord {
    Kernel,
    Batch,
}

/// What roles run by.
#[derive(Debug, Clone)]
pub(crate) struct MetricsSettings {
    spool_bytes_max: Option<u64>,
    spool_sync: SpoolSync,
    pub(crate) retention_days: u32,
}

impl MetricsFile {
    /// Checks what can be wrong.
    pub(super) fn check(self) -> Result<MetricsSettings, Failure> {
        let spool_bytes_max = self.spool_mib.map(|mib| mib.saturating_mul(1 << 20));
        if let Some(bytes) = spool_bytes_max.filter(|bytes| *bytes < SpoolConfig::BYTES_MIN) {
            return Err(Failure::usage(format!("`spool_mib` is {}", bytes >> 20)).hint("give at least 1"));
        }
        let retention_days = self.retention_days.unwrap_or(RETENTION_DAYS_DEFAULT);
        if retention_days == 0 {
            return Err(Failure::usage("`retention_days` is 0").hint("give at least 1"));
        }
        let spool_sync = match self.spool_sync {
            None | Some(SyncWord::Kernel) => SpoolSync::Kernel,
            Some(SyncWord::Batch) => SpoolSync::Batch,
        };
        Ok(MetricsSettings { spool_bytes_max, spool_sync, retention_days })
    }
}

impl MetricsSettings {
    /// The spool of a gateway with this data directory.
    pub(crate) fn spool(&self, data_dir: &Path) -> SpoolConfig {
        let config = SpoolConfig { sync: self.spool_sync, ..SpoolConfig::new(data_dir.join(SPOOL)) };
        match self.spool_bytes_max {
            Some(bytes_max) => config.with_bytes_max(bytes_max),
            None => config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MetricsSettings, Failure> {
        toml::from_str::<MetricsFile>(text).unwrap().check()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spool = read("").unwrap().spool(Path::new("/d"));
        assert_eq!((spool.folder.as_path(), spool.bytes_max), (Path::new("/d/spool"), 1 << 30));
        assert_eq!(spool.sync, SpoolSync::Kernel);
        let given = read("spool_mib = 16\nspool_sync = 'batch'\nretention_days = 3").unwrap();
        let spool = given.spool(Path::new("/d"));
        assert_eq!((spool.bytes_max, spool.segment_bytes_max), (16 << 20, 2 << 20));
        assert_eq!((spool.sync, given.retention_days), (SpoolSync::Batch, 3));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        for wrong in ["spool_mib = 0", "retention_days = 0"] {
            let said = read(wrong).unwrap_err().to_string();
            assert!(said.contains("hint:"), "{said}");
        }
    }
}
