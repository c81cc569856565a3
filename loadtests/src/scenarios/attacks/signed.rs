//! Keys that the server's own signing key has signed, and that say what no key of this server says.

use std::fs;

use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use super::{
    Row,
    keys::{base64url, with_authorization},
};
use crate::server::{Model, Server};

/// Far away.
const LATER: u64 = 4_000_000_000;

pub(super) fn rows(server: &Server, model: &Model) -> Vec<Row> {
    let file = server.data_dir().join("keys/signing-1.pkcs8");
    let pair = Ed25519KeyPair::from_pkcs8(&fs::read(file).expect("the server has a signing key"));
    let pair = pair.expect("it is one");
    let good = json!({
        "iss": "millgate", "sub": "admin", "aud": ["API"], "exp": LATER, "iat": 1, "jti": "signed-by-hand"
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims are an object").remove(name);
        claims
    };
    let cases = [
        // Without it, all others might be refused for a signature that is wrong.
        ("good claims are taken", good.clone(), 200),
        ("an nbf to come", with("nbf", json!(LATER)), 401),
        ("an nbf to come, as a string", with("nbf", json!(LATER.to_string())), 401),
        ("an nbf to come, as a fraction", with("nbf", json!(4e9 + 0.5)), 401),
        ("an exp that is over", with("exp", json!(1)), 401),
        ("an exp as a string", with("exp", json!(LATER.to_string())), 401),
        ("no exp", without("exp"), 401),
        ("another issuer", with("iss", json!("elsewhere")), 401),
        ("no issuer", without("iss"), 401),
        ("another audience", with("aud", json!(["Application"])), 401),
        ("no audience", without("aud"), 401),
        ("no jti", without("jti"), 401),
    ];
    let row = |(name, claims, status): (&str, Value, u16)| Row {
        name: format!("signed API key: {name}"),
        bytes: with_authorization(model, Some(&format!("Bearer {}", sign(&pair, &claims)))),
        statuses: vec![status],
        closes: false,
        runs: u64::from(status == 200),
    };
    cases.into_iter().map(row).collect()
}

fn sign(pair: &Ed25519KeyPair, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "EdDSA", "kid": "1"});
    let signed =
        format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = base64url(pair.sign(signed.as_bytes()).as_ref());
    format!("mgk_{signed}.{signature}")
}
