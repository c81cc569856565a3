//! Access keys: random text that names a model. Found by keyed digest, shown again to contributors, so sealed at rest.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use super::Custody;
use crate::names::{hex, random_text, unhex};

/// A new access key: 32 characters, the first `m`.
pub(crate) fn generate() -> String {
    format!("m{}", random_text(31))
}

/// HMAC-SHA-256 under the digest key, hexadecimal: what gateways look for.
pub(crate) fn digest(custody: &Custody, access_key: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &custody.digest_key);
    hex(hmac::sign(&key, access_key.as_bytes()).as_ref())
}

/// Encrypts a key for the database: `1:` (the version), nonce and ciphertext, hexadecimal.
pub(crate) fn seal(custody: &Custody, access_key: &str) -> String {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).expect("the system's random source answers");
    let mut text = access_key.as_bytes().to_vec();
    cipher(custody)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text)
        .expect("a short text can be sealed");
    format!("1:{}{}", hex(&nonce), hex(&text))
}

/// Reads what [`seal`] wrote; `None` when it was changed or sealed under another key.
pub(crate) fn unseal(custody: &Custody, sealed: &str) -> Option<String> {
    let bytes = unhex(sealed.strip_prefix("1:")?)?;
    let (nonce, text) = bytes.split_at_checked(NONCE_LEN)?;
    let mut text = text.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let plain = cipher(custody).open_in_place(nonce, Aad::empty(), &mut text).ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

fn cipher(custody: &Custody) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&CHACHA20_POLY1305, &custody.encryption_key)
            .expect("the key has the cipher's length"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::custody::tests::custody;

    #[test]
    fn a_sealed_key_opens_only_unchanged_and_under_its_own_key() {
        let ours = custody();
        let key = generate();
        assert!(millgate_contract::ids::is_access_key(&key));
        let sealed = seal(&ours, &key);
        assert!(!sealed.contains(&key));
        assert_eq!(unseal(&ours, &sealed).unwrap(), key);
        assert_eq!(unseal(&custody(), &sealed), None);
        assert_eq!(unseal(&ours, &sealed[..sealed.len() - 2]), None);
        assert_eq!(unseal(&ours, "1:00"), None);
    }

    #[test]
    fn digests_depend_on_the_key_and_the_text() {
        let ours = custody();
        assert_eq!(digest(&ours, "m"), digest(&ours, "m"));
        assert_ne!(digest(&ours, "m"), digest(&ours, "n"));
        assert_ne!(digest(&ours, "m"), digest(&custody(), "m"));
    }
}
