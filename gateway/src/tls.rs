//! TLS for callers: one certificate, read from two files and read again when they change.
//!
//! What is read is checked before it is used: a pair that does not fit, or cannot be read, is refused, and the one
//! before it stays. Nothing of a caller's is taken before its handshake is done: there is no early data, which could be
//! sent twice.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::metrics::Edges;

/// The names of protocols in a handshake.
pub(crate) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where certificate and key are, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead from it to a root.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{path}` cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A file holds nothing of the kind, or something that is not PEM.
    #[error("`{path}` holds no {wanted} in PEM")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Certificate and key do not belong together, or cannot be served with.
    #[error("certificate and key do not fit: {0}")]
    Pair(#[from] rustls::Error),
}

/// A certificate that has been read and checked. Cloning it is cheap and gives the same one.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<Certificate>,
    acceptor: TlsAcceptor,
}

/// What callers are shown at this moment.
struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
}

/// What changes with a file: when, how long, which.
type Edition = Option<(SystemTime, u64, u64)>;

impl Tls {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(files.read()?);
        let certificate = Arc::new(Certificate { files, current });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Self { certificate, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Reads the files again. Callers that are connected keep what they have.
    pub(crate) fn reload(&self, figures: &Edges) {
        match self.certificate.files.read() {
            Ok(new) => {
                self.certificate.current.store(Arc::new(new));
                figures.certificates_loaded.inc();
                tracing::info!(file = %self.certificate.files.certificate_file.display(), "certificate read");
            }
            Err(error) => {
                figures.certificates_rejected.inc();
                tracing::error!(%error, "new certificate refused, the old one stays");
            }
        }
    }

    /// Reads the files again whenever they have changed and stood still for a look: two files are not written at once.
    pub(crate) async fn watch(&self, figures: &Edges) {
        let mut read = self.certificate.files.edition();
        let mut seen = read;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.certificate.files.edition();
            if now == seen && now != read {
                read = now;
                self.reload(figures);
            }
            seen = now;
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.certificate.files).finish()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsFiles {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate_file)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes_of(&self.key_file)?)
            .map_err(|_| TlsError::Content { path: self.key_file.clone(), wanted: "private key" })?;
        Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?)
    }

    fn edition(&self) -> [Edition; 2] {
        [&self.certificate_file, &self.key_file].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }
}

/// The certificates of authorities that a server's certificate must lead to: those of a file in PEM, else the system's.
///
/// # Errors
/// When the file cannot be read or holds none, or the system has none.
pub fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if let Some(file) = file {
        return certificates(file);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let path = "the system's certificates".into();
        return Err(TlsError::Content { path, wanted: "certificate" });
    }
    Ok(found.certs)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = bytes_of(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    read.ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::Content { path: path.to_owned(), wanted: "certificate" })
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("{bytes} bytes are over {FILE_BYTES_MAX}"))));
    }
    fs::read(path).map_err(failed)
}
