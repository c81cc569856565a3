//! API keys: a prefix and a JWT signed with Ed25519, so that gateways verify them offline and a stolen database
//! yields none. Here they are made and verified; whether one was deleted is the store's to say.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use millgate_contract::ids::{KeyId, Username};
use serde::{Deserialize, Serialize};

use super::Custody;

/// What an API key begins with.
pub(crate) const PREFIX: &str = "mgk_";
/// `iss` of every key.
pub(crate) const ISSUER: &str = "millgate";
/// Bytes of a key at most; longer text is not looked at.
const KEY_BYTES_MAX: usize = 4_096;

/// What a key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: Username,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) jti: KeyId,
}

/// Signs the claims: the key that its owner sees once.
pub(crate) fn sign(custody: &Custody, claims: &Claims) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(custody.kid.clone());
    let key = EncodingKey::from_ed_der(&custody.signing_pkcs8);
    let token =
        jsonwebtoken::encode(&header, claims, &key).expect("the signing key was checked when it was read");
    format!("{PREFIX}{token}")
}

/// The claims of a key of ours that has not expired; `None` of anything else.
pub(crate) fn verify(custody: &Custody, key: &str) -> Option<Claims> {
    let token = key.strip_prefix(PREFIX).filter(|token| token.len() <= KEY_BYTES_MAX)?;
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.kid.as_deref() != Some(&custody.kid) {
        return None;
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    validation.validate_aud = false;
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    let public = DecodingKey::from_ed_der(&custody.verifying);
    jsonwebtoken::decode::<Claims>(token, &public, &validation).ok().map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::custody::tests::custody, moment::now_s};

    fn claims(exp: i64) -> Claims {
        Claims {
            iss: ISSUER.into(),
            sub: Username::new("ada"),
            aud: vec!["API".into()],
            exp,
            iat: now_s(),
            jti: KeyId::new("k"),
        }
    }

    #[test]
    fn a_key_says_what_was_signed() {
        let custody = custody();
        let key = sign(&custody, &claims(now_s() + 60));
        assert!(key.starts_with("mgk_"));
        assert_eq!(verify(&custody, &key).unwrap().sub.as_str(), "ada");
    }

    #[test]
    fn expired_foreign_changed_and_unsigned_keys_are_nothing() {
        let ours = custody();
        assert_eq!(verify(&ours, &sign(&ours, &claims(now_s() - 1))), None);
        assert_eq!(verify(&ours, &sign(&custody(), &claims(now_s() + 60))), None);
        let good = sign(&ours, &claims(now_s() + 60));
        let mut changed = good.clone().into_bytes();
        let last = changed.len() - 3;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(verify(&ours, std::str::from_utf8(&changed).unwrap()), None);
        assert_eq!(verify(&ours, good.strip_prefix(PREFIX).unwrap()), None);
        assert_eq!(verify(&ours, &format!("{PREFIX}{}", "a".repeat(100_000))), None);
        // {"alg":"none"} and {"alg":"HS256"} with our public key as secret.
        let payload = good.split('.').nth(1).unwrap();
        assert_eq!(verify(&ours, &format!("{PREFIX}eyJhbGciOiJub25lIiwia2lkIjoiMSJ9.{payload}.")), None);
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("1".into());
        let confused =
            jsonwebtoken::encode(&header, &claims(now_s() + 60), &EncodingKey::from_secret(&ours.verifying))
                .unwrap();
        assert_eq!(verify(&ours, &format!("{PREFIX}{confused}")), None);
    }
}
