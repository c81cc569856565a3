//! A gateway that serves on a port of its own, and the snapshots it routes by.

use std::{net::SocketAddr, path::Path};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use millgate_contract::{
    ids::{ModelId, ProjectId, Username},
    route::{
        ModelRoute, OnHangUp, ProjectCallers, ROUTE_FORMAT, RouteSnapshot, Target, Verification, VerifyingKey,
    },
};
use millgate_gateway::{Fallback, Gateway, GatewayConfig, no_fallback};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    double::{Act, Double},
    http::{Answer, Caller, post},
};

/// The access key of the model `add`.
pub(crate) const ACCESS_KEY: &str = "m0000000000000000000000000000000";
/// An access key that no model has.
pub(crate) const OTHER_ACCESS_KEY: &str = "m0000000000000000000000000000001";
const DIGEST_KEY: [u8; 32] = [0x11; 32];

/// A gateway and what it needs.
pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl House {
    pub(crate) async fn open(config: GatewayConfig) -> Self {
        Self::open_with(config, no_fallback()).await
    }

    pub(crate) async fn open_with(config: GatewayConfig, other: Fallback) -> Self {
        let gateway = Gateway::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn({
            let gateway = gateway.clone();
            async move {
                gateway
                    .serve(listener, other, async {
                        let _ = stopped.await;
                    })
                    .await
            }
        });
        Self { gateway, address, folder: tempfile::tempdir().unwrap(), stop: Some(stop), serving }
    }

    /// A gateway with one model `add`, open to all, on a deployment `d1`.
    pub(crate) async fn with_acts(slots: u16, acts: Vec<Act>) -> (Self, Double) {
        Self::with_config(GatewayConfig::default(), slots, acts).await
    }

    pub(crate) async fn with_config(config: GatewayConfig, slots: u16, acts: Vec<Act>) -> (Self, Double) {
        let house = Self::open(config).await;
        let double = Double::start(house.folder.path(), "d1", slots, acts);
        house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
        // Faults are told to the supervisor and by it: it must listen first.
        double.until(|d| !d.told().is_empty()).await;
        (house, double)
    }

    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(self.address).await
    }

    pub(crate) async fn ask(&self, request: &[u8]) -> Answer {
        let mut caller = self.caller().await;
        caller.send(request).await;
        caller.answer().await
    }

    /// Calls the model `add`.
    pub(crate) async fn call(&self, request: &str) -> Answer {
        self.ask(&call(request)).await
    }

    /// Sends a call and does not wait for its answer.
    pub(crate) async fn begin(&self, request: &str) -> Caller {
        let mut caller = self.caller().await;
        caller.send(&call(request)).await;
        caller
    }

    /// Ends the gateway and waits until its drain is over.
    pub(crate) async fn close(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.serving.await.unwrap().unwrap();
    }

    /// Ends the gateway as a crash does: nobody is told anything.
    pub(crate) fn kill(self) {
        self.serving.abort();
    }

    /// Waits until its drain, begun before, is over.
    pub(crate) async fn until_closed(&mut self) {
        (&mut self.serving).await.unwrap().unwrap();
    }

    pub(crate) fn begin_close(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until so many calls are in line.
    pub(crate) async fn until_in_line(&self, calls: usize) {
        let calls = calls.to_string();
        self.until_figure(r#"millgate_line_calls{model="m1",name="add"}"#, &calls).await;
    }

    /// Waits until a figure has a value.
    pub(crate) async fn until_figure(&self, name: &str, value: &str) {
        while self.figure(name).await.as_deref() != Some(value) {
            tokio::task::yield_now().await;
        }
    }

    /// A figure of the metrics page.
    pub(crate) async fn figure(&self, name: &str) -> Option<String> {
        let page = self.metrics().await;
        page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
    }

    pub(crate) async fn metrics(&self) -> String {
        self.admin("/metrics").await.body
    }

    pub(crate) async fn admin(&self, path: &str) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = self.gateway.clone();
        let serving =
            tokio::spawn(async move { gateway.serve_admin(listener, std::future::pending()).await });
        let mut caller = Caller::connect(address).await;
        caller.send(&crate::http::request("GET", path, &[], "")).await;
        let answer = caller.answer().await;
        serving.abort();
        answer
    }
}

/// A call of the model `add`.
pub(crate) fn call(request: &str) -> Vec<u8> {
    post("/model", &[], &format!(r#"{{"accessKey":"{ACCESS_KEY}","request":{request}}}"#))
}

pub(crate) fn digest(access_key: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &DIGEST_KEY);
    hex(hmac::sign(&key, access_key.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"))
}

/// The model `add`, open to all.
pub(crate) fn model(double: &Double) -> ModelRoute {
    ModelRoute {
        model: ModelId::new("m1"),
        name: "add".into(),
        project: ProjectId::new("p1"),
        access_key_digest: digest(ACCESS_KEY),
        requires_api_key: false,
        request_timeout_ms: 30_000,
        on_hang_up: OnHangUp::Finish,
        rate: None,
        target: Target::Deployment(double.route()),
    }
}

pub(crate) fn snapshot(generation: u64, models: Vec<ModelRoute>) -> RouteSnapshot {
    RouteSnapshot {
        format: ROUTE_FORMAT,
        generation,
        verification: Verification {
            issuer: "millgate".into(),
            api_keys: vec![],
            access_key_digest_key: hex(&DIGEST_KEY),
        },
        administrators: vec![Username::new("root")],
        projects: vec![ProjectCallers { project: ProjectId::new("p1"), callers: vec![Username::new("ana")] }],
        models,
        revoked: vec![],
    }
}

/// Whoever issues API keys.
pub(crate) struct Issuer {
    signing: EncodingKey,
    pub(crate) verifying: VerifyingKey,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let verifying = VerifyingKey { kid: "1".into(), ed25519: hex(pair.public_key().as_ref()) };
        Self { signing: EncodingKey::from_ed_der(pkcs8.as_ref()), verifying }
    }

    pub(crate) fn key(&self, user: &str, id: &str, expires_at_s: u64) -> String {
        let claims = serde_json::json!({"iss": "millgate", "sub": user, "aud": ["API"], "exp": expires_at_s, "jti": id});
        format!("mgk_{}", self.token(&claims))
    }

    /// A signed token with these claims.
    pub(crate) fn token(&self, claims: &serde_json::Value) -> String {
        self.token_of("1", claims)
    }

    /// A signed token that names its key so.
    pub(crate) fn token_of(&self, kid: &str, claims: &serde_json::Value) -> String {
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn jwk(&self) -> serde_json::Value {
        self.jwk_of("1")
    }

    /// The same by another name.
    pub(crate) fn jwk_of(&self, kid: &str) -> serde_json::Value {
        serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(self.verifying.ed25519.as_bytes())})
    }
}

/// base64url (RFC 4648) of bytes in hexadecimal.
fn base64url(hex: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = hex.iter().map(|digit| char::from(*digit).to_digit(16).unwrap());
    let bits: Vec<usize> = digits.flat_map(|d| (0..4).rev().map(move |at| (d >> at & 1) as usize)).collect();
    let value = |bits: &[usize]| bits.iter().fold(0, |v, bit| v << 1 | bit) << (6 - bits.len());
    bits.chunks(6).map(|bits| char::from(ALPHABET[value(bits)])).collect()
}

/// A folder whose sockets have paths longer than an address may be.
pub(crate) fn long_folder(root: &Path) -> std::path::PathBuf {
    let long = root.join("x".repeat(120));
    std::fs::create_dir_all(&long).unwrap();
    long
}
