//! Whether a caller may call now: rates, keys that are not known, tokens of an OpenID issuer, bytes in line.

use millgate_contract::{
    ids::ModelId,
    route::{ModelRoute, RouteSnapshot},
};
use millgate_gateway::{GatewayConfig, KeySetSource, OpenIdConfig};
use serde_json::json;

use crate::{
    double::{Act, Double},
    house::{ACCESS_KEY, House, Issuer, OTHER_ACCESS_KEY, digest, model, snapshot},
    http::{Answer, post},
};

pub(crate) const FAR: u64 = 4_000_000_000;

/// A gateway whose model asks for keys, and who issues them.
pub(crate) struct Closed {
    house: House,
    double: Double,
    issuer: Issuer,
}

impl Closed {
    pub(crate) async fn open(config: GatewayConfig) -> Self {
        let (house, double) = House::with_config(config, 1, vec![]).await;
        let closed = Self { house, double, issuer: Issuer::new() };
        closed.house.gateway.apply(closed.routes(2)).unwrap();
        closed
    }

    fn routes(&self, generation: u64) -> RouteSnapshot {
        let mut routes =
            snapshot(generation, vec![ModelRoute { requires_api_key: true, ..model(&self.double) }]);
        routes.verification.api_keys.push(self.issuer.verifying.clone());
        routes
    }

    pub(crate) async fn figure(&self, name: &str) -> Option<String> {
        self.house.figure(name).await
    }

    pub(crate) async fn call(&self, key: &str) -> Answer {
        self.house.ask(&with_key(key)).await
    }

    fn key(&self, id: &str) -> String {
        self.issuer.key("ana", id, FAR)
    }
}

/// A call of the model `add` with an API key.
fn with_key(key: &str) -> Vec<u8> {
    let body = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":1}}"#);
    post("/model", &[&format!("Authorization: Bearer {key}")], &body)
}

#[tokio::test]
async fn a_key_over_its_rate_is_429_and_another_one_is_not() {
    let config = GatewayConfig { key_rate: Some("2/3600s".parse().unwrap()), ..GatewayConfig::default() };
    let closed = Closed::open(config).await;
    let (one, other) = (closed.key("k1"), closed.key("k2"));
    let first = closed.call(&one).await;
    assert_eq!(first.header("ratelimit"), Some(r#""key";r=1;t=1800"#));
    assert_eq!(closed.call(&one).await.status, 200);
    let refused = closed.call(&one).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate.limited"));
    assert_eq!(refused.header("retry-after"), Some("1800"));
    assert_eq!(refused.header("ratelimit-policy"), Some(r#""key";q=2;w=3600"#));
    assert_eq!(refused.header("ratelimit"), Some(r#""key";r=0;t=1800"#));
    assert_eq!(closed.call(&other).await.status, 200);
    assert_eq!(closed.double.read().len(), 3);
}

#[tokio::test]
async fn a_model_over_its_rate_is_429_whoever_calls() {
    let config = GatewayConfig { model_rate: Some("2/3600s".parse().unwrap()), ..GatewayConfig::default() };
    let closed = Closed::open(config).await;
    assert_eq!(closed.call(&closed.key("k1")).await.status, 200);
    // What is used stays used when a snapshot changes something else.
    let mut changed = closed.routes(3);
    changed.models[0].request_timeout_ms = 20_000;
    closed.house.gateway.apply(changed).unwrap();
    assert_eq!(closed.call(&closed.key("k2")).await.status, 200);
    let refused = closed.call(&closed.key("k3")).await;
    assert_eq!(refused.code(), "rate.limited");
    assert_eq!(refused.header("ratelimit-policy"), Some(r#""model";q=2;w=3600"#));

    let mut own = closed.routes(4);
    own.models[0].rate = Some("5/3600s".parse().unwrap());
    closed.house.gateway.apply(own).unwrap();
    let answer = closed.call(&closed.key("k3")).await;
    assert_eq!(answer.header("ratelimit"), Some(r#""model";r=4;t=720"#));
}

#[tokio::test]
async fn failures_of_an_address_are_429_after_a_while_and_never_block_a_good_key() {
    let config = GatewayConfig {
        failed_authentication_rate: Some("3/3600s".parse().unwrap()),
        ..GatewayConfig::default()
    };
    let closed = Closed::open(config).await;
    let seen = closed.key("k1");
    assert_eq!(closed.call(&seen).await.status, 200);
    let forged = Issuer::new().key("ana", "k1", FAR);
    for wrong in ["nonsense", &forged] {
        let answer = closed.call(wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "api_key.invalid"));
        assert_eq!(answer.header("ratelimit"), None);
    }
    for wrong in ["nonsense", &forged, "", "mgk_", "mgk_a.b.c"] {
        let answer = closed.call(wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate.limited"));
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""authentication";q=3;w=3600"#));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(closed.call(&seen).await.status, 200, "a key that is known");
    assert_eq!(closed.call(&closed.key("k2")).await.status, 200, "a key that comes for the first time");
    let expired = closed.issuer.key("ana", "k3", 1);
    assert_eq!(closed.call(&expired).await.status, 429);
}

#[tokio::test]
async fn a_good_key_finds_its_way_through_a_crowd_of_bad_ones() {
    let config = GatewayConfig {
        failed_authentication_rate: Some("1/3600s".parse().unwrap()),
        verification_rate: "50/1s".parse().unwrap(),
        ..GatewayConfig::default()
    };
    let closed = Closed::open(config).await;
    let stranger = Issuer::new();
    let mut crowd = Vec::new();
    for n in 0..100 {
        let mut caller = closed.house.caller().await;
        caller.send(&with_key(&stranger.key("ana", &format!("k{n}"), FAR))).await;
        crowd.push(caller);
    }
    assert_eq!(closed.call(&closed.key("good")).await.status, 200);
    let mut refused = 0;
    for mut caller in crowd {
        refused += usize::from(caller.answer().await.code() == "rate.limited");
    }
    assert_eq!(refused, 99, "all but the first, which the rate allows to be 401");
}

#[tokio::test]
async fn a_token_of_the_openid_issuer_calls_as_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [issuer.jwk()] }).to_string()).unwrap();
    let openid = OpenIdConfig {
        issuer: "https://id.example".into(),
        audience: "millgate".into(),
        keys: KeySetSource::File(file),
        user_claim: "preferred_username".into(),
    };
    let config = GatewayConfig { openid: Some(openid), ..GatewayConfig::default() };
    let closed = Closed::open(config).await;
    let token = |user: &str, audience: &str| {
        issuer.token(&json!({"iss": "https://id.example", "aud": audience, "sub": "7", "exp": FAR,
            "preferred_username": user}))
    };
    for _ in 0..2 {
        assert_eq!(closed.call(&token("ana", "millgate")).await.status, 200);
    }
    assert_eq!(closed.call(&token("eve", "millgate")).await.code(), "api_key.forbidden");
    assert_eq!(closed.call(&token("ana", "another")).await.code(), "api_key.invalid");
    // A token of the issuer's behind our prefix is none of our keys, and ours go on.
    assert_eq!(closed.call(&format!("mgk_{}", token("ana", "millgate"))).await.code(), "api_key.invalid");
    assert_eq!(closed.call(&closed.key("k1")).await.status, 200);
}

#[tokio::test]
async fn bodies_in_all_lines_together_are_bounded() {
    let config = GatewayConfig { waiting_bytes_max: 10, ..GatewayConfig::default() };
    let (house, one) = House::with_config(config, 1, vec![Act::SilentAccepted]).await;
    let two = Double::start(&house.folder.path().join("2"), "d2", 1, vec![Act::SilentAccepted]);
    let second = ModelRoute {
        model: ModelId::new("m2"),
        name: "other".into(),
        access_key_digest: digest(OTHER_ACCESS_KEY),
        ..model(&two)
    };
    house.gateway.apply(snapshot(2, vec![model(&one), second])).unwrap();
    let of_second = |request: &str| {
        post("/model", &[], &format!(r#"{{"accessKey":"{OTHER_ACCESS_KEY}","request":{request}}}"#))
    };
    let _running = house.begin("1").await;
    let mut also_running = house.caller().await;
    also_running.send(&of_second("1")).await;
    one.until_read(1).await;
    two.until_read(1).await;

    let waiting = house.begin("1234567").await;
    house.until_in_line(1).await;
    assert_eq!(house.ask(&of_second("4444")).await.code(), "model.busy");
    drop(waiting);
    house.until_in_line(0).await;
    let mut fits = house.caller().await;
    fits.send(&of_second("4444")).await;
    house.until_figure(r#"millgate_line_calls{model="m2",name="other"}"#, "1").await;
}
