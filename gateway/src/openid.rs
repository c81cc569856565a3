//! Bearer tokens of an OpenID issuer: whoever it names may call as that user, as with an API key of theirs.
//!
//! The issuer's keys come from a file with a JSON Web Key Set, which whoever runs the server keeps up to date; it is
//! read again when it changes. A file that cannot be read or used leaves the keys as they were. Nothing is fetched, and
//! nothing that a token brings along or points to is ever used. What a good token is, is decided here and not by the
//! library: algorithm by the key, `iss`, `aud`, `exp`, `nbf`, and the claim with the user's name.

mod key_set;

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use millgate_contract::ids::{KeyId, Username};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    keys::{
        Audience, KeyFacts, KeyInvalid, Look, TOKEN_BYTES_MAX, Unverified, brings_a_key, signature_only,
        verdicts::{TokenDigest, Verdicts},
    },
    metrics::KeyCalls,
};
use key_set::KeySet;
pub use key_set::KeySetError;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of a user's name.
const USER_BYTES_MAX: usize = 256;

/// An issuer whose word is taken for who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIdConfig {
    /// `iss`, to the letter.
    pub issuer: String,
    /// What `aud` must include: tokens of the same issuer for other programs are not for us.
    pub audience: String,
    /// A file with the issuer's JSON Web Key Set.
    pub key_set_file: PathBuf,
    /// The claim with the user's name. It must be one that users cannot choose for themselves at the issuer.
    pub user_claim: String,
}

impl OpenIdConfig {
    /// Says what is wrong with the file with the issuer's keys, if anything is.
    pub fn check(&self) -> Result<(), KeySetError> {
        self.read().map(|_| ())
    }

    fn read(&self) -> Result<KeySet, KeySetError> {
        let path = &self.key_set_file;
        let failed = |source| KeySetError::Read { path: path.clone(), source };
        let bytes = fs::metadata(path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(failed(io::Error::other(format!("{bytes} bytes are over {FILE_BYTES_MAX}"))));
        }
        KeySet::parse(&fs::read(path).map_err(failed)?)
    }

    /// What changes with the file.
    fn edition(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(&self.key_set_file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}

/// An issuer and its keys of this moment.
pub(crate) struct OpenId {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

struct Shared {
    config: OpenIdConfig,
    verdicts_max: usize,
    keys: ArcSwap<Keys>,
}

/// One edition of the keys, and the good signatures seen under it.
struct Keys {
    set: KeySet,
    verdicts: Verdicts,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl OpenId {
    /// Reads the keys and watches their file. Without usable keys no token is good until there are some.
    pub(crate) fn new(config: OpenIdConfig, verdicts_max: usize, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            keys: ArcSwap::from_pointee(Keys {
                set: KeySet::default(),
                verdicts: Verdicts::new(verdicts_max),
            }),
            verdicts_max,
            config,
        });
        let edition = shared.config.edition();
        shared.refresh();
        let watching = runtime.spawn({
            let shared = Arc::clone(&shared);
            async move { shared.watch(edition).await }
        });
        Self { shared, watching }
    }

    /// What is known of a token at `now_s` (Unix seconds).
    pub(crate) fn look<'a>(&self, token: &'a str, now_s: u64) -> Look<'a> {
        if token.len() > TOKEN_BYTES_MAX {
            return Look::Bad;
        }
        let digest = TokenDigest::of(token);
        match self.shared.keys.load().verdicts.get(digest) {
            Some(facts) if facts.is_current(now_s) => Look::Good(facts),
            Some(_) => Look::Bad,
            None => Look::Unknown(Unverified { token, digest }),
        }
    }

    /// Whose token it is, if it is good at `now_s`. Costs a signature check.
    pub(crate) fn verify(&self, token: Unverified<'_>, now_s: u64) -> Result<Arc<KeyFacts>, KeyInvalid> {
        let keys = self.shared.keys.load();
        let facts = self.shared.config.facts(&keys.set, token.token)?;
        let facts = keys.verdicts.remember(token.digest, facts);
        if facts.is_current(now_s) { Ok(facts) } else { Err(KeyInvalid) }
    }
}

impl Drop for OpenId {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl OpenIdConfig {
    /// What a token says, its signature being good.
    fn facts(&self, keys: &KeySet, token: &str) -> Result<KeyFacts, KeyInvalid> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| KeyInvalid)?;
        if brings_a_key(&header) {
            return Err(KeyInvalid);
        }
        let key = keys.find(header.kid.as_deref(), header.alg).ok_or(KeyInvalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &signature_only(header.alg))
            .map_err(|_| KeyInvalid)?
            .claims;
        if claims.iss != self.issuer || !claims.aud.includes(&self.audience) {
            return Err(KeyInvalid);
        }
        let user = match &self.user_claim[..] {
            "sub" => claims.sub,
            other => claims.others.get(other).and_then(Value::as_str).ok_or(KeyInvalid)?.to_owned(),
        };
        if user.is_empty() || user.len() > USER_BYTES_MAX {
            return Err(KeyInvalid);
        }
        Ok(KeyFacts {
            // All tokens of one user are one key: for rates, and in the record of calls.
            key: KeyId::new(format!("openid:{user}")),
            user: Username::new(user),
            expires_at_s: claims.exp,
            not_before_s: claims.nbf,
            calls: KeyCalls::default(),
        })
    }
}

impl Shared {
    async fn watch(&self, mut edition: Option<(SystemTime, u64)>) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.config.edition();
            if now != edition {
                edition = now;
                self.refresh();
            }
        }
    }

    fn refresh(&self) {
        match self.config.read() {
            Ok(set) => {
                tracing::info!(
                    issuer = self.config.issuer,
                    keys = set.len(),
                    "keys of the OpenID issuer read"
                );
                // The verdicts go with the keys they were made by: a key that is gone makes no token good any more.
                self.keys.store(Arc::new(Keys { set, verdicts: Verdicts::new(self.verdicts_max) }));
            }
            Err(error) => {
                tracing::error!(%error, issuer = self.config.issuer, "the OpenID issuer's keys stay as they were");
            }
        }
    }
}

#[cfg(test)]
mod tests;
