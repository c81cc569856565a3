use jsonwebtoken::{EncodingKey, Header, encode};
use millgate_contract::route::VerifyingKey;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_800_000_000;

/// An issuer of keys.
struct Issuer {
    signing: EncodingKey,
    public: String,
}

impl Issuer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let public = pair.public_key().as_ref().iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        Self { signing: EncodingKey::from_ed_der(pkcs8.as_ref()), public }
    }

    fn ring(&self) -> KeyRing {
        let verification = Verification {
            issuer: "millgate".into(),
            api_keys: vec![VerifyingKey { kid: "1".into(), ed25519: self.public.clone() }],
            access_key_digest_key: "11".repeat(32),
        };
        KeyRing::new(&verification, 4).unwrap()
    }

    fn key(&self, claims: &Value) -> String {
        self.key_with(&header("1"), claims)
    }

    fn key_with(&self, header: &Header, claims: &Value) -> String {
        format!("{PREFIX}{}", encode(header, claims, &self.signing).unwrap())
    }
}

fn header(kid: &str) -> Header {
    Header { kid: Some(kid.into()), ..Header::new(Algorithm::EdDSA) }
}

fn claims() -> Value {
    json!({"iss": "millgate", "sub": "ana", "aud": ["API"], "exp": NOW_S + 60, "iat": NOW_S - 60, "jti": "k1"})
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn verdict(ring: &KeyRing, key: &str) -> Result<String, KeyInvalid> {
    verdict_at(ring, key, NOW_S, &HashSet::new())
}

/// As a gateway asks: what is known, and the signature only where nothing is.
fn verdict_at(ring: &KeyRing, key: &str, now_s: u64, revoked: &HashSet<KeyId>) -> Result<String, KeyInvalid> {
    let facts = match ring.look(key, now_s, revoked) {
        Look::Good(facts) => Ok(facts),
        Look::Bad => Err(KeyInvalid),
        Look::Unknown(unverified) => ring.verify(unverified, now_s, revoked),
    };
    facts.map(|facts| facts.user.as_str().to_owned())
}

#[test]
fn a_good_key_names_its_holder_each_time() {
    let issuer = Issuer::new();
    let ring = issuer.ring();
    let key = issuer.key(&claims());
    assert_eq!(verdict(&ring, &key), Ok("ana".into()));
    assert_eq!(verdict(&ring, &key), Ok("ana".into()));
    assert_eq!(ring.verdicts.len(), 1);
    assert_eq!(verdict(&ring, &issuer.key(&with("aud", json!("API")))), Ok("ana".into()));
    assert_eq!(verdict(&ring, &issuer.key(&with("aud", json!(["Application", "API"])))), Ok("ana".into()));
    assert_eq!(verdict(&ring, &issuer.key(&with("nbf", json!(NOW_S)))), Ok("ana".into()));
}

#[test]
fn a_key_that_is_wrong_in_any_way_is_refused() {
    let issuer = Issuer::new();
    let ring = issuer.ring();
    let refused = [
        ("expired", issuer.key(&with("exp", json!(NOW_S)))),
        ("never expires", issuer.key(&without("exp"))),
        ("expiry as text", issuer.key(&with("exp", json!("4000000000")))),
        ("not yet", issuer.key(&with("nbf", json!(NOW_S + 1)))),
        ("not yet, as text", issuer.key(&with("nbf", json!("4000000000")))),
        ("not yet, as a fraction", issuer.key(&with("nbf", json!(4e9)))),
        ("from nowhen", issuer.key(&with("nbf", json!(null)))),
        ("other audience", issuer.key(&with("aud", json!(["Application"])))),
        ("no audience", issuer.key(&without("aud"))),
        ("other issuer", issuer.key(&with("iss", json!("elsewhere")))),
        ("no issuer", issuer.key(&without("iss"))),
        ("no id", issuer.key(&without("jti"))),
        ("no holder", issuer.key(&without("sub"))),
        ("unknown signing key", issuer.key_with(&header("2"), &claims())),
        ("no signing key named", issuer.key_with(&Header::new(Algorithm::EdDSA), &claims())),
        ("signed by somebody else", Issuer::new().key(&claims())),
        (
            "names a place of its own key set",
            issuer.key_with(&Header { jku: Some("https://x".into()), ..header("1") }, &claims()),
        ),
        (
            "names a place of its own certificate",
            issuer.key_with(&Header { x5u: Some("https://x".into()), ..header("1") }, &claims()),
        ),
        (
            "brings its own certificate",
            issuer.key_with(&Header { x5c: Some(vec!["MA==".into()]), ..header("1") }, &claims()),
        ),
        ("no prefix", issuer.key(&claims())[PREFIX.len()..].to_owned()),
        ("nothing", String::new()),
        ("prefix alone", PREFIX.to_owned()),
        ("long", format!("{PREFIX}{}", "a".repeat(100_000))),
        ("cut", issuer.key(&claims()).trim_end_matches(|c| c != '.').to_owned()),
        ("algorithm none", unsigned(&claims())),
        ("algorithm HS256 with the public key as secret", hs256(&issuer.public, &claims())),
    ];
    for (what, key) in refused {
        assert_eq!(verdict(&ring, &key), Err(KeyInvalid), "{what}");
    }
    assert!(ring.verdicts.len() <= 3, "only keys that are good but for the time are remembered");
}

fn hs256(public: &str, claims: &Value) -> String {
    let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::HS256) };
    let secret = EncodingKey::from_secret(&hex::decode::<32>(public).unwrap());
    format!("{PREFIX}{}", encode(&header, claims, &secret).unwrap())
}

/// A token that says it needs no signature.
fn unsigned(claims: &Value) -> String {
    // `{"alg":"none","kid":"1"}` in base64url, and the payload of a token signed otherwise.
    let signed = hs256(&"00".repeat(32), claims);
    let payload = signed.split('.').nth(1).unwrap();
    format!("{PREFIX}eyJhbGciOiJub25lIiwia2lkIjoiMSJ9.{payload}.")
}

#[test]
fn a_changed_claim_breaks_the_signature() {
    let issuer = Issuer::new();
    let (good, other) = (issuer.key(&claims()), issuer.key(&with("sub", json!("eve"))));
    let (good, other): (Vec<_>, Vec<_>) = (good.split('.').collect(), other.split('.').collect());
    assert_eq!(verdict(&issuer.ring(), &[good[0], other[1], good[2]].join(".")), Err(KeyInvalid));
}

#[test]
fn time_and_deletion_are_asked_of_a_remembered_key_too() {
    let issuer = Issuer::new();
    let ring = issuer.ring();
    let key = issuer.key(&claims());
    let at = |now_s, revoked: &[&str]| {
        let revoked = revoked.iter().map(|key| KeyId::new(*key)).collect();
        verdict_at(&ring, &key, now_s, &revoked).is_ok()
    };
    assert!(at(NOW_S, &[]));
    assert!(!at(NOW_S + 60, &[]));
    assert!(!at(NOW_S, &["k1"]));
    assert!(at(NOW_S, &["k2"]));
    assert_eq!(ring.look(&key, NOW_S, &HashSet::from([KeyId::new("k1")])), Look::Bad);
}

#[test]
fn verdicts_are_bounded() {
    let issuer = Issuer::new();
    let ring = issuer.ring();
    for n in 0..50 {
        assert!(verdict(&ring, &issuer.key(&with("jti", json!(format!("k{n}"))))).is_ok());
        assert!(ring.verdicts.len() <= 4);
    }
}

#[test]
fn a_verifying_key_of_another_length_is_refused() {
    let verification = Verification {
        issuer: "millgate".into(),
        api_keys: vec![VerifyingKey { kid: "1".into(), ed25519: "00".into() }],
        access_key_digest_key: "11".repeat(32),
    };
    assert!(KeyRing::new(&verification, 4).is_err());
}
