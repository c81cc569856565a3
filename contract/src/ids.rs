//! Identifiers as types, so that one cannot be passed for another. They are opaque text: whoever creates one
//! decides its form (`CONTRACT` of the API); here they are only carried and compared.

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_id! {
    /// A project: `xxxx-xxxx-xxxx-xxxx` of `[a-z0-9]`.
    ProjectId,
    /// A model: a UUID.
    ModelId,
    /// A build: a UUID.
    BuildId,
    /// A deployment: a UUID.
    DeploymentId,
    /// A user's name, unique on a server.
    Username,
    /// One replica process: `<model slug>-<model number>-<deployment number>-<build hash>-<replica>`,
    /// the `ReplicaID` of an answer.
    ReplicaId,
    /// The `jti` of an API key.
    KeyId,
    /// The id of one HTTP request: the caller's if well formed, else ours.
    RequestId,
}

/// The number of a slot within its deployment, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotIndex(pub u16);

impl std::fmt::Display for SlotIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a call on one connection between a gateway and a replica; never 0, never used twice there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// True for a request id that a caller may choose: 1 to 128 bytes of `[A-Za-z0-9._:/+=-]`.
pub fn is_request_id(text: &str) -> bool {
    (1..=crate::limits::REQUEST_ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/+=-".contains(&b))
}

/// True for text of the form of an access key: 32 characters `[a-z0-9]`, the first `m`.
pub fn is_access_key(text: &str) -> bool {
    text.len() == 32
        && text.starts_with('m')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The slug of a name: lower-case ASCII letters and digits, anything else one `-`, at most 40 characters,
/// never empty. "Add two numbers" is `add-two-numbers`.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if slug.len() >= 40 {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "model".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_lower_case_words_joined_by_hyphens() {
        assert_eq!(slug("Add two numbers"), "add-two-numbers");
        assert_eq!(slug("  Ünïcode!! v2 "), "n-code-v2");
        assert_eq!(slug("日本"), "model");
        assert_eq!(slug(&"a-".repeat(60)).len(), 39);
    }

    #[test]
    fn access_keys_begin_with_m_and_have_32_characters() {
        assert!(is_access_key(&format!("m{}", "0a".repeat(15) + "z")));
        assert!(!is_access_key(&"a".repeat(32)));
        assert!(!is_access_key("m"));
        assert!(!is_access_key(&format!("m{}", "A".repeat(31))));
    }

    #[test]
    fn request_ids_are_bounded_and_printable() {
        assert!(is_request_id("0af7651916cd43dd8448eb211c80319c"));
        assert!(!is_request_id(""));
        assert!(!is_request_id("a b"));
        assert!(!is_request_id(&"a".repeat(129)));
    }
}
