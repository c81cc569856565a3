//! The route snapshot: all a gateway needs for every call, as one value. It is published whole, with a generation
//! that only grows, and names slots, never processes. It holds public keys and the digest key of access keys, hence
//! its file is private (0600).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ids::{BuildId, DeploymentId, KeyId, ModelId, ProjectId, Username},
    limits,
    rate::Rate,
};

/// The version of the snapshot's form.
pub const ROUTE_FORMAT: u32 = 1;

/// Everything a gateway routes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSnapshot {
    /// [`ROUTE_FORMAT`].
    pub format: u32,
    /// Which edition; a gateway ignores one that is not newer than its own.
    pub generation: u64,
    /// How keys are checked.
    pub verification: Verification,
    /// Users who may call every model.
    pub administrators: Vec<Username>,
    /// Who may call the models of each project.
    pub projects: Vec<ProjectCallers>,
    /// Every model that is not deleted.
    pub models: Vec<ModelRoute>,
    /// Keys deleted before they expired.
    pub revoked: Vec<RevokedKey>,
}

/// How keys are checked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// `iss` of our API keys.
    pub issuer: String,
    /// Ed25519 public keys by `kid`.
    pub api_keys: Vec<VerifyingKey>,
    /// Key of the HMAC-SHA-256 under which access keys are looked up, hexadecimal.
    pub access_key_digest_key: String,
}

impl std::fmt::Debug for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verification")
            .field("issuer", &self.issuer)
            .field("api_keys", &self.api_keys)
            .field("access_key_digest_key", &"<redacted>")
            .finish()
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyingKey {
    /// Its name in a token's header.
    pub kid: String,
    /// The 32 bytes of the Ed25519 public key, hexadecimal.
    pub ed25519: String,
}

/// The collaborators of a project, owner included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectCallers {
    /// Which project.
    pub project: ProjectId,
    /// Everyone with any level on it.
    pub callers: Vec<Username>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRoute {
    /// Which model.
    pub model: ModelId,
    /// Its name, for logs and labels.
    pub name: String,
    /// Its project.
    pub project: ProjectId,
    /// HMAC-SHA-256 of its access key, hexadecimal.
    pub access_key_digest: String,
    /// An API key is needed.
    pub requires_api_key: bool,
    /// Milliseconds the function may run.
    pub request_timeout_ms: u64,
    /// What happens to a running call whose caller hangs up.
    pub on_hang_up: OnHangUp,
    /// How often it may be called on one gateway, where it is not the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Where its calls go.
    pub target: Target,
}

/// What happens to a running call whose caller hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnHangUp {
    /// It is finished and its answer discarded.
    Finish,
    /// It is cancelled.
    Cancel,
}

/// Where a model's calls go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// To this deployment.
    Deployment(DeploymentRoute),
    /// Nowhere: `503`, and why.
    Unavailable(String),
}

/// The active deployment of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRoute {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Its CRN, for answers of functions that collect metrics.
    pub crn: String,
    /// Which build.
    pub build: BuildId,
    /// The supervisor's run directory: `control.sock` and one `s<slot>.sock` for each slot.
    pub run_dir: PathBuf,
    /// How many slots.
    pub slots: u16,
}

/// A deleted key, kept until it would have expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// Its `jti`.
    pub key: KeyId,
    /// Its `exp`, Unix seconds.
    pub expires_at_s: u64,
}

/// Why bytes are not a snapshot to route by. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Over [`limits::ROUTE_SNAPSHOT_BYTES_MAX`].
    #[error("route snapshot of {0} bytes is over the limit of {max}", max = limits::ROUTE_SNAPSHOT_BYTES_MAX)]
    TooLarge(usize),
    /// Cut short or changed.
    #[error("route snapshot does not match its checksum")]
    Checksum,
    /// Not the JSON it should be.
    #[error("route snapshot cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// Written by another version.
    #[error("route snapshot has format {0}, this program reads {ROUTE_FORMAT}")]
    Format(u32),
}

impl RouteSnapshot {
    /// The file and wire form: 64 hexadecimal digits of SHA-256, a line feed, the JSON.
    pub fn seal(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a snapshot holds nothing that JSON cannot");
        let mut sealed = checksum(&json).into_bytes();
        sealed.push(b'\n');
        sealed.extend_from_slice(&json);
        sealed
    }

    /// Reads what [`RouteSnapshot::seal`] wrote.
    pub fn open(sealed: &[u8]) -> Result<Self, SnapshotError> {
        if sealed.len() > limits::ROUTE_SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge(sealed.len()));
        }
        let (sum, json) = sealed.split_at_checked(64).ok_or(SnapshotError::Checksum)?;
        let json = json.strip_prefix(b"\n").ok_or(SnapshotError::Checksum)?;
        if checksum(json).as_bytes() != sum {
            return Err(SnapshotError::Checksum);
        }
        let snapshot: Self = serde_json::from_slice(json)?;
        if snapshot.format != ROUTE_FORMAT {
            return Err(SnapshotError::Format(snapshot.format));
        }
        Ok(snapshot)
    }
}

fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> RouteSnapshot {
        RouteSnapshot {
            format: ROUTE_FORMAT,
            generation: 12,
            verification: Verification {
                issuer: "millgate".into(),
                api_keys: vec![VerifyingKey { kid: "1".into(), ed25519: "00".repeat(32) }],
                access_key_digest_key: "11".repeat(32),
            },
            administrators: vec![Username::new("admin")],
            projects: vec![ProjectCallers {
                project: ProjectId::new("aaaa-bbbb-cccc-dddd"),
                callers: vec![Username::new("admin")],
            }],
            models: vec![ModelRoute {
                model: ModelId::new("m"),
                name: "add".into(),
                project: ProjectId::new("aaaa-bbbb-cccc-dddd"),
                access_key_digest: "22".repeat(32),
                requires_api_key: true,
                request_timeout_ms: 30_000,
                on_hang_up: OnHangUp::Finish,
                rate: None,
                target: Target::Deployment(DeploymentRoute {
                    deployment: DeploymentId::new("d"),
                    crn: "crn:cdp:ml:us-west-1:millgate:workspace:w/d".into(),
                    build: BuildId::new("b"),
                    run_dir: "/var/lib/millgate/run/1".into(),
                    slots: 3,
                }),
            }],
            revoked: vec![RevokedKey { key: KeyId::new("k"), expires_at_s: 1_800_000_000 }],
        }
    }

    #[test]
    fn the_snapshot_has_its_form() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&snapshot()).unwrap());
    }

    #[test]
    fn a_sealed_snapshot_opens_and_a_changed_or_cut_one_does_not() {
        let sealed = snapshot().seal();
        assert_eq!(RouteSnapshot::open(&sealed).unwrap(), snapshot());
        for cut in [0, 10, 64, 65, sealed.len() - 1] {
            assert!(
                matches!(RouteSnapshot::open(&sealed[..cut]), Err(SnapshotError::Checksum)),
                "cut at {cut}"
            );
        }
        let mut changed = sealed.clone();
        let last = changed.len() - 5;
        changed[last] ^= 1;
        assert!(matches!(RouteSnapshot::open(&changed), Err(SnapshotError::Checksum)));
    }

    #[test]
    fn a_snapshot_of_another_format_is_refused() {
        let other = RouteSnapshot { format: 99, ..snapshot() };
        assert!(matches!(RouteSnapshot::open(&other.seal()), Err(SnapshotError::Format(99))));
    }

    #[test]
    fn the_digest_key_does_not_reach_logs() {
        assert!(!format!("{:?}", snapshot()).contains(&"11".repeat(32)));
    }
}
