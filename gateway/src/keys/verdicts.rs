//! Good signatures seen before, by the SHA-256 of their token, bounded in number. They belong to one set of verifying
//! keys and go with it. What changes, time and deletion, is asked at every use and never remembered.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::DashMap;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::KeyFacts;

/// A token's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenDigest([u8; SHA256_OUTPUT_LEN]);

impl TokenDigest {
    pub(crate) fn of(token: &str) -> Self {
        let mut sum = [0; SHA256_OUTPUT_LEN];
        sum.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(sum)
    }
}

/// A bounded map.
pub(crate) struct Verdicts {
    good: DashMap<TokenDigest, Arc<KeyFacts>>,
    kept: AtomicUsize,
    kept_max: usize,
}

impl Verdicts {
    pub(crate) fn new(verdicts_max: usize) -> Self {
        Self { good: DashMap::new(), kept: AtomicUsize::new(0), kept_max: verdicts_max }
    }

    /// What was said of a token, if its signature was good. The time of this look-up tells nothing: who can name a
    /// digest that is here has the token.
    pub(crate) fn get(&self, token: TokenDigest) -> Option<Arc<KeyFacts>> {
        self.good.get(&token).map(|facts| Arc::clone(&facts))
    }

    /// Keeps a verdict. A full map is emptied: that costs each key in use one more check of its signature.
    pub(crate) fn remember(&self, token: TokenDigest, facts: KeyFacts) -> Arc<KeyFacts> {
        if self.kept.fetch_add(1, Ordering::Relaxed) >= self.kept_max {
            self.good.clear();
            self.kept.store(1, Ordering::Relaxed);
        }
        let facts = Arc::new(facts);
        self.good.insert(token, Arc::clone(&facts));
        facts
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.good.len()
    }
}
