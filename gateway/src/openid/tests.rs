use std::fs;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const NOW_S: u64 = 1_800_000_000;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An issuer with one key.
struct Issuer {
    signing: EncodingKey,
    algorithm: Algorithm,
    jwk: Value,
}

fn base64url(bytes: &[u8]) -> String {
    let bits = |chunk: &[u8]| {
        chunk.iter().fold(0_u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()))
    };
    let text = |chunk: &[u8]| -> String {
        let bits = bits(chunk);
        (0..=chunk.len()).map(|at| ALPHABET[(bits >> (18 - 6 * at) & 63) as usize] as char).collect()
    };
    bytes.chunks(3).map(text).collect()
}

impl Issuer {
    fn ec(kid: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let jwk = json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig",
            "x": base64url(&point[1..33]), "y": base64url(&point[33..])});
        Self { signing: EncodingKey::from_ec_der(pkcs8.as_ref()), algorithm: Algorithm::ES256, jwk }
    }

    fn ed(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let jwk =
            json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(pair.public_key().as_ref())});
        Self { signing: EncodingKey::from_ed_der(pkcs8.as_ref()), algorithm: Algorithm::EdDSA, jwk }
    }

    fn kid(&self) -> String {
        self.jwk["kid"].as_str().unwrap().to_owned()
    }

    fn header(&self) -> Header {
        Header { kid: Some(self.kid()), ..Header::new(self.algorithm) }
    }

    fn token(&self, claims: &Value) -> String {
        encode(&self.header(), claims, &self.signing).unwrap()
    }

    fn token_with(&self, header: &Header) -> String {
        encode(header, &claims(), &self.signing).unwrap()
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "sub": "0f3a", "preferred_username": "ana", "aud": ["millgate", "x"],
        "exp": NOW_S + 60, "iat": NOW_S})
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

struct Setting {
    folder: TempDir,
    openid: OpenId,
}

impl Setting {
    fn new(issuers: &[&Issuer]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, issuers);
        let openid = OpenId::new(config(&folder), 4, Arc::default(), &Handle::current());
        Self { folder, openid }
    }

    fn user_of(&self, token: &str) -> Option<String> {
        self.user_at(token, NOW_S)
    }

    fn user_at(&self, token: &str, now_s: u64) -> Option<String> {
        let facts = match self.openid.look(token, now_s) {
            Look::Good(facts) => Ok(facts),
            Look::Bad => Err(KeyInvalid),
            Look::Unknown(unverified) => self.openid.verify(unverified, now_s),
        };
        facts.ok().map(|facts| facts.user.as_str().to_owned())
    }
}

fn config(folder: &TempDir) -> OpenIdConfig {
    OpenIdConfig {
        issuer: "https://id.example".into(),
        audience: "millgate".into(),
        keys: KeySetSource::File(folder.path().join("jwks.json")),
        user_claim: "preferred_username".into(),
    }
}

fn write(folder: &TempDir, issuers: &[&Issuer]) {
    let keys: Vec<_> = issuers.iter().map(|issuer| &issuer.jwk).collect();
    fs::write(folder.path().join("jwks.json"), json!({ "keys": keys }).to_string()).unwrap();
}

#[tokio::test]
async fn a_token_of_the_issuer_is_its_user() {
    let (ec, ed) = (Issuer::ec("a"), Issuer::ed("b"));
    let setting = Setting::new(&[&ec, &ed]);
    for issuer in [&ec, &ed] {
        let token = issuer.token(&claims());
        assert_eq!(setting.user_of(&token).as_deref(), Some("ana"));
        assert!(matches!(setting.openid.look(&token, NOW_S), Look::Good(_)));
        assert_eq!(setting.user_at(&token, NOW_S + 60), None, "a remembered token expires");
    }
    let by_subject = OpenIdConfig { user_claim: "sub".into(), ..config(&setting.folder) };
    let openid = OpenId::new(by_subject, 4, Arc::default(), &Handle::current());
    assert_eq!(Setting { openid, ..setting }.user_of(&ec.token(&claims())).as_deref(), Some("0f3a"));
}

#[tokio::test]
async fn a_token_that_is_wrong_in_any_way_is_refused() {
    let (issuer, other) = (Issuer::ec("a"), Issuer::ed("b"));
    let setting = Setting::new(&[&issuer, &other]);
    let secret = EncodingKey::from_secret(issuer.jwk["x"].as_str().unwrap().as_bytes());
    let hmac = Header { kid: Some("a".into()), ..Header::new(Algorithm::HS256) };
    let brought: Jwk = serde_json::from_value(Issuer::ec("a").jwk).unwrap();
    let stranger = Issuer::ec("a");
    let refused = [
        ("expired", issuer.token(&with("exp", json!(NOW_S)))),
        ("never expires", issuer.token(&without("exp"))),
        ("not yet", issuer.token(&with("nbf", json!(NOW_S + 1)))),
        ("not yet, as text", issuer.token(&with("nbf", json!("4000000000")))),
        ("another issuer", issuer.token(&with("iss", json!("https://id.example/")))),
        ("another audience", issuer.token(&with("aud", json!("other")))),
        ("no audience", issuer.token(&without("aud"))),
        ("no user", issuer.token(&without("preferred_username"))),
        ("a user without a name", issuer.token(&with("preferred_username", json!("")))),
        ("a user that is not text", issuer.token(&with("preferred_username", json!(["ana"])))),
        ("no subject", issuer.token(&without("sub"))),
        ("an unknown key", issuer.token_with(&Header { kid: Some("c".into()), ..issuer.header() })),
        ("no key named where there are two", issuer.token_with(&Header { kid: None, ..issuer.header() })),
        (
            "another key of the set named",
            issuer.token_with(&Header { kid: Some("b".into()), ..issuer.header() }),
        ),
        ("signed by somebody else", stranger.token(&claims())),
        ("brings its own key", stranger.token_with(&Header { jwk: Some(brought), ..stranger.header() })),
        (
            "names a place of its own keys",
            issuer.token_with(&Header { jku: Some("https://x".into()), ..issuer.header() }),
        ),
        ("signed with the public key as a secret", encode(&hmac, &claims(), &secret).unwrap()),
        ("nothing", String::new()),
        ("long", "a".repeat(100_000)),
    ];
    for (what, token) in refused {
        assert_eq!(setting.user_of(&token), None, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_read_again_when_their_file_changes() {
    let (old, new) = (Issuer::ec("old"), Issuer::ed("renewed"));
    let setting = Setting::new(&[&old]);
    let (of_old, of_new) = (old.token(&claims()), new.token(&claims()));
    assert!(setting.user_of(&of_old).is_some() && setting.user_of(&of_new).is_none());

    fs::write(setting.folder.path().join("jwks.json"), "{").unwrap();
    tokio::time::sleep(LOOK_INTERVAL * 2).await;
    assert!(setting.user_of(&of_old).is_some(), "a file that is not a key set changes nothing");

    write(&setting.folder, &[&new]);
    while setting.user_of(&of_new).is_none() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    assert_eq!(setting.user_of(&of_old), None, "a remembered token goes with its key");
}

#[test]
fn a_key_set_without_a_usable_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str| {
        fs::write(folder.path().join("jwks.json"), text).unwrap();
        config(&folder).check().unwrap_err()
    };
    assert!(matches!(refused("[]"), KeySetError::Form(_)));
    assert!(matches!(refused(r#"{"keys": []}"#), KeySetError::Empty));
    assert!(matches!(refused(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#), KeySetError::Empty));
    assert!(matches!(refused(r#"{"keys": [{"kty": "unheard of"}, 7]}"#), KeySetError::Empty));
    let mut for_encryption = Issuer::ec("a").jwk;
    for_encryption["use"] = json!("enc");
    assert!(matches!(refused(&json!({"keys": [for_encryption]}).to_string()), KeySetError::Empty));
    fs::remove_file(folder.path().join("jwks.json")).unwrap();
    assert!(matches!(config(&folder).check().unwrap_err(), KeySetError::Read { .. }));
}
