//! A JSON Web Key Set (RFC 7517): which key checks a token, and by which algorithm. The algorithm is the key's, never
//! the token's; keys for anything but signatures, and shared secrets, are left out.

use std::{io, path::PathBuf};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It cannot be read.
    #[error("the key set `{path}` cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The issuer cannot be asked, or does not answer.
    #[error("the key set at `{url}` cannot be had: {cause}")]
    Ask {
        /// Where.
        url: String,
        /// How it failed.
        cause: String,
    },
    /// It is not a key set.
    #[error("the key set is not JSON of the form `{{\"keys\": [...]}}`: {0}")]
    Form(#[from] serde_json::Error),
    /// It holds nothing that a token can be checked with.
    #[error("the key set holds no public key for signatures (RSA, EC P-256 or P-384, Ed25519)")]
    Empty,
}

/// The usable keys of a set.
#[derive(Default, PartialEq, Eq)]
pub(super) struct KeySet(Vec<SetKey>);

struct SetKey {
    /// All of it, as it came.
    jwk: Value,
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl KeySet {
    pub(super) fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Form {
            keys: Vec<Value>,
        }
        let form: Form = serde_json::from_slice(json)?;
        // A set may hold kinds of keys that nobody knew when this was written.
        let keys: Vec<_> = form.keys.into_iter().filter_map(SetKey::parse).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// The key a token names, if the token is signed as that key signs. A token may leave the name out where there is
    /// only one key.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let named = match (kid, &self.0[..]) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        named.filter(|key| key.algorithm == algorithm).map(|key| &key.key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl SetKey {
    fn parse(value: Value) -> Option<Self> {
        let jwk = Jwk::deserialize(&value).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = algorithm_of(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { jwk: value, kid: jwk.common.key_id, algorithm, key })
    }
}

impl PartialEq for SetKey {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Eq for SetKey {}

fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let said = jwk.common.key_algorithm;
    let (default, allowed): (_, &[_]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (
            Algorithm::RS256,
            &[
                (KeyAlgorithm::RS256, Algorithm::RS256),
                (KeyAlgorithm::RS384, Algorithm::RS384),
                (KeyAlgorithm::RS512, Algorithm::RS512),
                (KeyAlgorithm::PS256, Algorithm::PS256),
                (KeyAlgorithm::PS384, Algorithm::PS384),
                (KeyAlgorithm::PS512, Algorithm::PS512),
            ],
        ),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => (Algorithm::ES256, &[(KeyAlgorithm::ES256, Algorithm::ES256)]),
            EllipticCurve::P384 => (Algorithm::ES384, &[(KeyAlgorithm::ES384, Algorithm::ES384)]),
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => {
            (Algorithm::EdDSA, &[(KeyAlgorithm::EdDSA, Algorithm::EdDSA)])
        }
        // A secret that both sides know proves nothing about who signed.
        AlgorithmParameters::OctetKey(_) => return None,
    };
    match said {
        None => Some(default),
        Some(said) => allowed.iter().find(|(name, _)| *name == said).map(|(_, algorithm)| *algorithm),
    }
}
