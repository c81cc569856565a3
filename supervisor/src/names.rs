//! Names of replicas: the deployment's prefix and five characters that no other replica of it has at the time.

use millgate_contract::ids::ReplicaId;

/// No vowels, so that no words appear; no characters that are mistaken for another.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_CHARACTERS: usize = 5;

/// A source of names. The same seed gives the same names.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: String,
    state: u64,
}

impl Names {
    pub(crate) fn new(prefix: &str, seed: u64) -> Self {
        Self { prefix: prefix.to_owned(), state: seed }
    }

    /// A name for which `is_taken` is false.
    pub(crate) fn next(&mut self, is_taken: impl Fn(&ReplicaId) -> bool) -> ReplicaId {
        loop {
            let mut bits = self.random();
            let suffix: String = (0..SUFFIX_CHARACTERS)
                .map(|_| {
                    let base = ALPHABET.len() as u64;
                    let character = ALPHABET[(bits % base) as usize];
                    bits /= base;
                    char::from(character)
                })
                .collect();
            let name = ReplicaId::new(format!("{}-{suffix}", self.prefix));
            if !is_taken(&name) {
                return name;
            }
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): a name must differ, not be secret.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_prefix_and_avoid_those_taken() {
        let mut names = Names::new("add-1-1-86b9b58b7b", 7);
        let first = names.next(|_| false);
        assert!(first.as_str().starts_with("add-1-1-86b9b58b7b-"));
        assert_eq!(first.as_str().len(), "add-1-1-86b9b58b7b-".len() + SUFFIX_CHARACTERS);
        let mut again = Names::new("add-1-1-86b9b58b7b", 7);
        assert_ne!(again.next(|name| *name == first), first);
    }
}
