//! Key files: the only place where secrets of this server lie. They are outside the database, so that a stolen
//! database yields no key. Each file is named for its purpose and version (`kid`); the newest signs, all verify.

use std::{fs, path::Path};

use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

use crate::data_dir::{OpenError, write_private};

/// The keys of this server. `Debug` shows no secret.
pub(crate) struct Custody {
    /// Version of the signing key.
    pub(crate) kid: String,
    pub(crate) signing_pkcs8: Vec<u8>,
    /// The 32 bytes that verify what the signing key signed.
    pub(crate) verifying: Vec<u8>,
    pub(crate) digest_key: [u8; 32],
    pub(crate) encryption_key: [u8; 32],
}

impl std::fmt::Debug for Custody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custody").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Custody {
    /// Reads the key files; makes those that are not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenError> {
        let signing_path = dir.join("signing-1.pkcs8");
        let signing_pkcs8 = load(&signing_path, || {
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .expect("the system's random source answers")
                .as_ref()
                .to_vec()
        })?;
        let pair = Ed25519KeyPair::from_pkcs8(&signing_pkcs8)
            .map_err(|e| OpenError::Key { path: signing_path, reason: e.to_string() })?;
        Ok(Self {
            kid: "1".to_owned(),
            verifying: pair.public_key().as_ref().to_vec(),
            signing_pkcs8,
            digest_key: load_32(&dir.join("digest-1.key"))?,
            encryption_key: load_32(&dir.join("encryption-1.key"))?,
        })
    }
}

fn load(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, OpenError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let bytes = make();
            write_private(path, &bytes).map_err(|source| OpenError::Io {
                action: "write",
                path: path.to_owned(),
                source,
            })?;
            Ok(bytes)
        }
        Err(source) => Err(OpenError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn load_32(path: &Path) -> Result<[u8; 32], OpenError> {
    let bytes = load(path, || {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).expect("the system's random source answers");
        key.to_vec()
    })?;
    bytes.try_into().map_err(|bytes: Vec<u8>| OpenError::Key {
        path: path.to_owned(),
        reason: format!("{} bytes instead of 32", bytes.len()),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn custody() -> Custody {
        Custody::open(tempfile::tempdir().unwrap().path()).unwrap()
    }

    #[test]
    fn keys_are_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let first = Custody::open(dir.path()).unwrap();
        let again = Custody::open(dir.path()).unwrap();
        assert_eq!(first.verifying, again.verifying);
        assert_eq!(first.digest_key, again.digest_key);
        assert_ne!(first.digest_key, first.encryption_key);
        for entry in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_key_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        Custody::open(dir.path()).unwrap();
        fs::write(dir.path().join("digest-1.key"), "short").unwrap();
        let error = Custody::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("digest-1.key") && error.contains("5 bytes"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", custody());
        assert_eq!(text, r#"Custody { kid: "1", .. }"#);
    }
}
