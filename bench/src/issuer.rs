//! API keys as the control API issues them, and snapshots that models are routed by.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use millgate_contract::{
    ids::{BuildId, DeploymentId, ModelId, ProjectId, Username},
    route::{
        DeploymentRoute, ModelRoute, OnHangUp, ProjectCallers, ROUTE_FORMAT, RouteSnapshot, Target,
        Verification, VerifyingKey,
    },
};
use ring::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use serde_json::json;

/// Signing and digest key: the same each time, so that counts can be compared.
const SEED: [u8; 32] = [7; 32];
const DIGEST_KEY: [u8; 32] = [0x11; 32];
/// What an Ed25519 seed is preceded by in PKCS #8, version 1 (RFC 8410).
const PKCS8_BEGIN: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Far away, Unix seconds.
const EXPIRES_AT_S: u64 = 4_000_000_000;
const USER: &str = "ana";
const PROJECT: &str = "p1";
const BUILD: &str = "b1";

/// Signs keys.
pub struct Issuer {
    signing: EncodingKey,
    public: String,
}

impl Default for Issuer {
    fn default() -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("any 32 bytes are a seed");
        let pkcs8 = [&PKCS8_BEGIN[..], &SEED].concat();
        Self { signing: EncodingKey::from_ed_der(&pkcs8), public: hex(pair.public_key().as_ref()) }
    }
}

impl Issuer {
    /// The `number`th API key.
    pub fn api_key(&self, number: usize) -> String {
        let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({
            "iss": "millgate", "sub": USER, "aud": ["API"], "iat": 1_700_000_000_u64, "exp": EXPIRES_AT_S,
            "jti": format!("00000000-0000-4000-8000-{number:012}"),
        });
        let token = jsonwebtoken::encode(&header, &claims, &self.signing).expect("claims are JSON");
        format!("mgk_{token}")
    }

    /// How they are checked.
    pub fn verification(&self) -> Verification {
        Verification {
            issuer: "millgate".into(),
            api_keys: vec![VerifyingKey { kid: "1".into(), ed25519: self.public.clone() }],
            access_key_digest_key: hex(&DIGEST_KEY),
        }
    }

    /// `models` models of one project, each with one slot; their deployments are folders below `runs`.
    pub fn snapshot(&self, generation: u64, models: usize, runs: &Path) -> RouteSnapshot {
        RouteSnapshot {
            format: ROUTE_FORMAT,
            generation,
            verification: self.verification(),
            administrators: Vec::new(),
            projects: vec![ProjectCallers {
                project: ProjectId::new(PROJECT),
                callers: vec![Username::new(USER)],
            }],
            models: (0..models).map(|number| model(number, runs)).collect(),
            revoked: Vec::new(),
        }
    }
}

/// The access key of the `number`th model.
pub fn access_key(number: usize) -> String {
    format!("m{number:031}")
}

/// The deployment of the `number`th model.
pub fn deployment(number: usize, runs: &Path) -> DeploymentRoute {
    let name = format!("d{number}");
    DeploymentRoute {
        run_dir: runs.join(&name),
        crn: format!("crn:cdp:ml:us-west-1:t:workspace:w/{name}"),
        deployment: DeploymentId::new(name),
        build: BuildId::new(BUILD),
        slots: 1,
    }
}

fn model(number: usize, runs: &Path) -> ModelRoute {
    let digest_key = hmac::Key::new(hmac::HMAC_SHA256, &DIGEST_KEY);
    let digest = hmac::sign(&digest_key, access_key(number).as_bytes());
    ModelRoute {
        model: ModelId::new(format!("00000000-0000-4000-9000-{number:012}")),
        name: format!("model {number}"),
        project: ProjectId::new(PROJECT),
        access_key_digest: hex(digest.as_ref()),
        requires_api_key: true,
        request_timeout_ms: 30_000,
        on_hang_up: OnHangUp::Finish,
        rate: None,
        target: Target::Deployment(deployment(number, runs)),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
