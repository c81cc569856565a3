//! API keys: `mgk_` and a JWT signed with Ed25519, verified offline.
//!
//! A good signature is remembered by the token's SHA-256, in a bounded map that belongs to one set of verifying keys and
//! goes with it. Only signature, form and issuer are remembered: time and deletion are asked at every call, who may call
//! what is the route table's. Whatever is wrong with a key, the answer is the same.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use millgate_contract::{
    ids::{KeyId, Username},
    route::Verification,
};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::Deserialize;

use crate::hex;

/// What every API key begins with.
pub(crate) const PREFIX: &str = "mgk_";
/// Longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 4_096;
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
    expires_at_s: u64,
    not_before_s: u64,
}

/// The keys that signatures are checked with, and the good signatures seen so far.
pub(crate) struct KeyRing {
    verification: Verification,
    by_kid: HashMap<String, DecodingKey>,
    rules: Validation,
    verdicts: DashMap<[u8; SHA256_OUTPUT_LEN], Arc<KeyFacts>>,
    verdicts_kept: AtomicUsize,
    verdicts_max: usize,
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

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl KeyRing {
    pub(crate) fn new(verification: &Verification, verdicts_max: usize) -> Result<Self, VerifyingKeyError> {
        let mut by_kid = HashMap::new();
        for key in &verification.api_keys {
            let raw: [u8; 32] =
                hex::decode(&key.ed25519).ok_or_else(|| VerifyingKeyError { kid: key.kid.clone() })?;
            by_kid.insert(key.kid.clone(), DecodingKey::from_ed_der(&raw));
        }
        // Only the signature is left to the library. Claims are checked here, on each call and strictly: the library
        // lets a token pass whose `nbf` is not a number.
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
        Ok(Self {
            verification: verification.clone(),
            by_kid,
            rules,
            verdicts: DashMap::new(),
            verdicts_kept: AtomicUsize::new(0),
            verdicts_max,
        })
    }

    /// True when it was made for this verification, so that its verdicts hold.
    pub(crate) fn is_for(&self, verification: &Verification) -> bool {
        self.verification == *verification
    }

    /// The holder of a key, if it is valid at `now_s` (Unix seconds).
    pub(crate) fn verify(
        &self,
        key: &str,
        now_s: u64,
        revoked: &HashSet<KeyId>,
    ) -> Result<Arc<KeyFacts>, KeyInvalid> {
        let token = key.strip_prefix(PREFIX).filter(|t| t.len() <= TOKEN_BYTES_MAX).ok_or(KeyInvalid)?;
        let mut sum = [0; SHA256_OUTPUT_LEN];
        sum.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let known = self.verdicts.get(&sum).map(|facts| Arc::clone(&facts));
        let facts = match known {
            Some(facts) => facts,
            None => self.remember(sum, self.check_signature(token)?),
        };
        let is_good =
            facts.not_before_s <= now_s && now_s < facts.expires_at_s && !revoked.contains(&facts.key);
        if is_good { Ok(facts) } else { Err(KeyInvalid) }
    }

    fn check_signature(&self, token: &str) -> Result<KeyFacts, KeyInvalid> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| KeyInvalid)?;
        // A token names one of our keys; it does not bring its own.
        if header.alg != Algorithm::EdDSA || header.jwk.is_some() || header.jku.is_some() {
            return Err(KeyInvalid);
        }
        let verifying = header.kid.and_then(|kid| self.by_kid.get(&kid)).ok_or(KeyInvalid)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, verifying, &self.rules).map_err(|_| KeyInvalid)?.claims;
        let is_for_calls = match &claims.aud {
            Audience::One(one) => one == AUDIENCE,
            Audience::Several(several) => several.iter().any(|a| a == AUDIENCE),
        };
        if claims.iss != self.verification.issuer || !is_for_calls {
            return Err(KeyInvalid);
        }
        Ok(KeyFacts { key: claims.jti, user: claims.sub, expires_at_s: claims.exp, not_before_s: claims.nbf })
    }

    /// Keeps a verdict. A full map is emptied: that costs each key in use one more check of its signature.
    fn remember(&self, sum: [u8; SHA256_OUTPUT_LEN], facts: KeyFacts) -> Arc<KeyFacts> {
        if self.verdicts_kept.fetch_add(1, Ordering::Relaxed) >= self.verdicts_max {
            self.verdicts.clear();
            self.verdicts_kept.store(1, Ordering::Relaxed);
        }
        let facts = Arc::new(facts);
        self.verdicts.insert(sum, Arc::clone(&facts));
        facts
    }
}

#[cfg(test)]
mod tests;
