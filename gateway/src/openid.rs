//! Bearer tokens of an OpenID issuer: whoever it names may call as that user, as with an API key of theirs.
//!
//! The issuer's keys come from where the configuration says ([`source`]): a file, or the issuer itself. What cannot be
//! read or used leaves the keys as they were. Nothing that a token brings along or points to is ever used; that it names
//! a key nobody knows is a reason to ask the issuer, not oftener than [`ASK_INTERVAL`]. What a good token is, is decided
//! here and not by the library: algorithm by the key, `iss`, `aud`, `exp`, `nbf`, and the claim with the user's name.

mod key_set;
mod source;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use millgate_contract::ids::{KeyId, Username};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    keys::{
        Audience, KeyFacts, KeyInvalid, Look, TOKEN_BYTES_MAX, Unverified, brings_a_key, signature_only,
        verdicts::{TokenDigest, Verdicts},
    },
    metrics::{Edges, KeyCalls},
};
use key_set::KeySet;
pub use key_set::KeySetError;
pub use source::{KeySetSource, KeySetUrl};

/// How often a file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the issuer is asked at most, whatever tokens say.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a call waits for keys that its token is perhaps signed with.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a user's name.
const USER_BYTES_MAX: usize = 256;

/// An issuer whose word is taken for who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIdConfig {
    /// `iss`, to the letter.
    pub issuer: String,
    /// What `aud` must include: tokens of the same issuer for other programs are not for us.
    pub audience: String,
    /// Where the issuer's JSON Web Key Set is.
    pub keys: KeySetSource,
    /// The claim with the user's name. It must be one that users cannot choose for themselves at the issuer.
    pub user_claim: String,
}

impl OpenIdConfig {
    /// Says what is wrong with where the issuer's keys are, if anything is. An issuer that is away is not wrong.
    pub fn check(&self) -> Result<(), KeySetError> {
        self.keys.check()
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
    figures: Arc<Edges>,
    /// A token names a key that is not known.
    wanted: Notify,
    /// When the issuer was last asked, and how often it has answered or failed to.
    asked: watch::Sender<Asked>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// None while it is being asked.
    next_at: Option<Instant>,
    count: u64,
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
    /// Has the keys read, and read again. Without usable keys no token is good until there are some.
    pub(crate) fn new(
        config: OpenIdConfig,
        verdicts_max: usize,
        figures: Arc<Edges>,
        runtime: &Handle,
    ) -> Self {
        let shared = Arc::new(Shared {
            keys: ArcSwap::from_pointee(Keys {
                set: KeySet::default(),
                verdicts: Verdicts::new(verdicts_max),
            }),
            verdicts_max,
            config,
            figures,
            wanted: Notify::new(),
            asked: watch::Sender::new(Asked { next_at: None, count: 0 }),
        });
        // A file is there at once, an issuer is asked while the gateway already serves.
        if let KeySetSource::File(_) = &shared.config.keys {
            shared.take(shared.config.keys.read());
        }
        let watching = runtime.spawn({
            let shared = Arc::clone(&shared);
            async move {
                match &shared.config.keys {
                    KeySetSource::File(_) => shared.watch().await,
                    KeySetSource::Url(url) => shared.ask(url).await,
                }
            }
        });
        Self { shared, watching }
    }

    /// Waits, for a moment and if that may help, until the key is known that a token names.
    pub(crate) async fn prepare(&self, token: &str) {
        let KeySetSource::Url(_) = &self.shared.config.keys else { return };
        let Ok(header) = jsonwebtoken::decode_header(token) else { return };
        if self.shared.keys.load().set.find(header.kid.as_deref(), header.alg).is_some() {
            return;
        }
        let mut asked = self.shared.asked.subscribe();
        let before = *asked.borrow_and_update();
        if before.next_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.shared.wanted.notify_one();
        let _ = timeout(ASK_WAIT, asked.wait_for(|now| now.count > before.count)).await;
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

/// Reads tokens of an issuer for whoever is no gateway and takes its word, too.
pub struct TokenReader(OpenId);

impl TokenReader {
    /// Good tokens that are remembered.
    const VERDICTS_MAX: usize = 10_000;

    /// Has the keys read, and read again.
    pub fn new(config: OpenIdConfig, runtime: &Handle) -> Self {
        Self(OpenId::new(config, Self::VERDICTS_MAX, Arc::default(), runtime))
    }

    /// Whose token it is, if it is good now.
    pub fn user(&self, token: &str) -> Option<Username> {
        let now_s =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let facts = match self.0.look(token, now_s) {
            Look::Good(facts) => Some(facts),
            Look::Unknown(unverified) => self.0.verify(unverified, now_s).ok(),
            Look::Bad => None,
        };
        facts.map(|facts| facts.user.clone())
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
    /// Reads a file again when it changes.
    async fn watch(&self) {
        let mut edition = self.config.keys.edition();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.config.keys.edition();
            if now != edition {
                edition = now;
                self.take(self.config.keys.read());
            }
        }
    }

    /// Asks the issuer by period, and when a token names a key that is not known.
    async fn ask(&self, url: &KeySetUrl) {
        loop {
            let source = self.config.keys.clone();
            // The runtime ends, and this with it.
            let Ok(read) = spawn_blocking(move || source.read()).await else { return };
            // An issuer that is away is asked sooner than one that has answered.
            let period = if read.is_ok() { url.refresh } else { ASK_INTERVAL };
            self.take(read);
            let now = Instant::now();
            self.asked.send_modify(|asked| {
                *asked = Asked { next_at: Some(now + ASK_INTERVAL), count: asked.count + 1 };
            });
            tokio::time::sleep(ASK_INTERVAL.min(period)).await;
            let _ = timeout_at(now + period, self.wanted.notified()).await;
            self.asked.send_modify(|asked| asked.next_at = None);
        }
    }

    fn take(&self, read: Result<KeySet, KeySetError>) {
        match read {
            // The same keys keep the verdicts made by them.
            Ok(set) if set == self.keys.load().set => {}
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
                self.figures.openid_keys_rejected.inc();
                tracing::error!(%error, issuer = self.config.issuer, "the OpenID issuer's keys stay as they were");
            }
        }
    }
}

#[cfg(test)]
mod tests;
