//! API keys: `mgk_` and a JWT signed with Ed25519, verified offline.
//!
//! A good signature is remembered ([`verdicts`]). Only signature, form and issuer are: time and deletion are asked at
//! every call, who may call what is the route table's. Whatever is wrong with a key, the answer is the same.
//!
//! Looking a key up and checking its signature are two steps, because the second is costly and bounded by whoever asks.

pub(crate) mod verdicts;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use millgate_contract::{
    ids::{KeyId, Username},
    route::Verification,
};
use serde::Deserialize;

use crate::{hex, metrics::KeyCalls};
use verdicts::{TokenDigest, Verdicts};

/// What every API key begins with.
pub(crate) const PREFIX: &str = "mgk_";
/// Longer ones are not looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 4_096;
/// The audience of keys that call models.
const AUDIENCE: &str = "API";

/// A key is not valid: wrong, expired, deleted. Nobody is told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyInvalid;

/// What a key says of its holder, its signature being good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyFacts {
    pub(crate) key: KeyId,
    pub(crate) user: Username,
    pub(crate) expires_at_s: u64,
    pub(crate) not_before_s: u64,
    pub(crate) calls: KeyCalls,
}

impl KeyFacts {
    /// True when it is neither too early nor too late for it.
    pub(crate) fn is_current(&self, now_s: u64) -> bool {
        self.not_before_s <= now_s && now_s < self.expires_at_s
    }
}

/// What is known of a key without checking its signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look<'a> {
    Good(Arc<KeyFacts>),
    Bad,
    Unknown(Unverified<'a>),
}

/// A token whose signature is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unverified<'a> {
    pub(crate) token: &'a str,
    pub(crate) digest: TokenDigest,
}

/// True for a token that brings its key along or names a place to fetch it from: nothing of that is ever looked at, and
/// who sends it is up to something.
pub(crate) fn brings_a_key(header: &Header) -> bool {
    header.jwk.is_some() || header.jku.is_some() || header.x5u.is_some() || header.x5c.is_some()
}

/// The keys that signatures are checked with, and the good signatures seen so far.
pub(crate) struct KeyRing {
    verification: Verification,
    by_kid: HashMap<String, DecodingKey>,
    rules: Validation,
    verdicts: Verdicts,
}

/// A verifying key of a snapshot is not one.
#[derive(Debug, thiserror::Error)]
#[error("verifying key `{kid}` is not 32 bytes in hexadecimal")]
pub struct VerifyingKeyError {
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: Username,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    jti: KeyId,
}

/// `aud`: one or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(crate) fn includes(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

impl KeyRing {
    pub(crate) fn new(verification: &Verification, verdicts_max: usize) -> Result<Self, VerifyingKeyError> {
        let mut by_kid = HashMap::new();
        for key in &verification.api_keys {
            let raw: [u8; 32] =
                hex::decode(&key.ed25519).ok_or_else(|| VerifyingKeyError { kid: key.kid.clone() })?;
            by_kid.insert(key.kid.clone(), DecodingKey::from_ed_der(&raw));
        }
        Ok(Self {
            verification: verification.clone(),
            by_kid,
            rules: signature_only(Algorithm::EdDSA),
            verdicts: Verdicts::new(verdicts_max),
        })
    }

    /// True when it was made for this verification, so that its verdicts hold.
    pub(crate) fn is_for(&self, verification: &Verification) -> bool {
        self.verification == *verification
    }

    /// What is known of a key at `now_s` (Unix seconds).
    pub(crate) fn look<'a>(&self, key: &'a str, now_s: u64, revoked: &HashSet<KeyId>) -> Look<'a> {
        let Some(token) = key.strip_prefix(PREFIX).filter(|token| token.len() <= TOKEN_BYTES_MAX) else {
            return Look::Bad;
        };
        let digest = TokenDigest::of(token);
        match self.verdicts.get(digest) {
            Some(facts) if is_valid(&facts, now_s, revoked) => Look::Good(facts),
            Some(_) => Look::Bad,
            None => Look::Unknown(Unverified { token, digest }),
        }
    }

    /// The holder of a key, if its signature is good and it is valid at `now_s` (Unix seconds). Costs a signature check.
    pub(crate) fn verify(
        &self,
        key: Unverified<'_>,
        now_s: u64,
        revoked: &HashSet<KeyId>,
    ) -> Result<Arc<KeyFacts>, KeyInvalid> {
        let facts = self.verdicts.remember(key.digest, self.check_signature(key.token)?);
        if is_valid(&facts, now_s, revoked) { Ok(facts) } else { Err(KeyInvalid) }
    }

    fn check_signature(&self, token: &str) -> Result<KeyFacts, KeyInvalid> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| KeyInvalid)?;
        // A token names one of our keys; it does not bring its own.
        if header.alg != Algorithm::EdDSA || brings_a_key(&header) {
            return Err(KeyInvalid);
        }
        let verifying = header.kid.and_then(|kid| self.by_kid.get(&kid)).ok_or(KeyInvalid)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, verifying, &self.rules).map_err(|_| KeyInvalid)?.claims;
        if claims.iss != self.verification.issuer || !claims.aud.includes(AUDIENCE) {
            return Err(KeyInvalid);
        }
        Ok(KeyFacts {
            key: claims.jti,
            user: claims.sub,
            expires_at_s: claims.exp,
            not_before_s: claims.nbf,
            calls: KeyCalls::default(),
        })
    }
}

/// Only the signature is left to the library. Claims are checked by us, on each call and strictly: the library lets a
/// token pass whose `nbf` is not a number.
pub(crate) fn signature_only(algorithm: Algorithm) -> Validation {
    let mut rules = Validation::new(algorithm);
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    rules
}

fn is_valid(facts: &KeyFacts, now_s: u64, revoked: &HashSet<KeyId>) -> bool {
    facts.is_current(now_s) && !revoked.contains(&facts.key)
}

#[cfg(test)]
mod tests;
