//! Where an issuer's keys come from: a file that whoever runs the server keeps up to date, or the issuer's own address.
//! Reading blocks, for seconds where the issuer is far away.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use super::key_set::{KeySet, KeySetError};
use crate::tls::authorities;

/// Bytes of a key set.
const BYTES_MAX: u64 = 1024 * 1024;
/// How long the issuer may take for its answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Who may be asked without TLS: nobody listens in between.
const LOOPBACK: [&str; 2] = ["http://127.0.0.1:", "http://[::1]:"];

/// Where an issuer's JSON Web Key Set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetSource {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// At the issuer's.
    Url(KeySetUrl),
}

/// The address of a key set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySetUrl {
    /// `https://…`, or `http://` on this host.
    pub url: String,
    /// How often it is asked.
    pub refresh: Duration,
    /// The authorities that its certificate must lead to, in PEM; the system's without.
    pub ca_file: Option<PathBuf>,
}

impl KeySetSource {
    pub(super) fn check(&self) -> Result<(), KeySetError> {
        match self {
            Self::File(_) => self.read().map(|_| ()),
            Self::Url(url) => url.agent().map(|_| ()),
        }
    }

    pub(super) fn read(&self) -> Result<KeySet, KeySetError> {
        let json = match self {
            Self::File(path) => read_file(path)?,
            Self::Url(url) => url.ask()?,
        };
        KeySet::parse(&json)
    }

    /// What changes with a file.
    pub(super) fn edition(&self) -> Option<(SystemTime, u64)> {
        let Self::File(path) = self else { return None };
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, KeySetError> {
    let failed = |source| KeySetError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > BYTES_MAX {
        return Err(failed(io::Error::other(format!("{bytes} bytes are over {BYTES_MAX}"))));
    }
    fs::read(path).map_err(failed)
}

impl KeySetUrl {
    fn ask(&self) -> Result<Vec<u8>, KeySetError> {
        let failed =
            |cause: ureq::Error| KeySetError::Ask { url: self.url.clone(), cause: cause.to_string() };
        let mut answer = self.agent()?.get(&self.url).call().map_err(failed)?;
        answer.body_mut().with_config().limit(BYTES_MAX).read_to_vec().map_err(failed)
    }

    fn agent(&self) -> Result<Agent, KeySetError> {
        let config = Agent::config_builder()
            .timeout_global(Some(ANSWER_WAIT))
            // Whoever answers for the issuer is who was configured.
            .max_redirects(0)
            .max_redirects_will_error(true);
        if LOOPBACK.iter().any(|begin| self.url.starts_with(begin)) {
            return Ok(config.build().into());
        }
        if !self.url.starts_with("https://") {
            return Err(KeySetError::Ask { url: self.url.clone(), cause: "it is not `https`".into() });
        }
        let found = authorities(self.ca_file.as_deref())
            .map_err(|error| KeySetError::Ask { url: self.url.clone(), cause: error.to_string() })?;
        let roots: Vec<_> = found.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build();
        Ok(config.tls_config(tls).build().into())
    }
}
