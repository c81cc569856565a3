//! Callers over TLS: the same gate, the same hang-ups and clocks, and certificates that change under them.

use std::{fs, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use millgate_gateway::{GatewayConfig, Tls, TlsFiles, authorities};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    double::{Act, Double},
    house::{ACCESS_KEY, House, call},
    http::{Caller, request},
};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// A folder with a certificate and its key.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let certificate = Self { folder: tempfile::tempdir().unwrap() };
        certificate.write(&rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        certificate
    }

    fn write(&self, made: &rcgen::CertifiedKey<rcgen::KeyPair>) {
        let files = self.files();
        replace(&files.certificate_file, &made.cert.pem());
        replace(&files.key_file, &made.signing_key.serialize_pem());
    }

    pub(crate) fn files(&self) -> TlsFiles {
        let folder = self.folder.path();
        TlsFiles { certificate_file: folder.join("tls.crt"), key_file: folder.join("tls.key") }
    }

    pub(crate) fn config(&self) -> GatewayConfig {
        GatewayConfig { tls: Some(Tls::load(self.files()).unwrap()), ..GatewayConfig::default() }
    }

    /// Trusts the certificate that is there now.
    fn connector(&self, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for certificate in authorities(Some(&self.files().certificate_file)).unwrap() {
            roots.add(certificate).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// As certificates are renewed: written beside, and moved over.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

async fn house(certificate: &Certificate, slots: u16, acts: Vec<Act>) -> (House, Double) {
    House::with_config(certificate.config(), slots, acts).await
}

/// Waits until a figure has a value, for which time must pass.
async fn passing(house: &House, name: &str, value: &str) {
    while house.figure(name).await.as_deref() != Some(value) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn try_connect(house: &House, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(house.address).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

async fn connect(house: &House, certificate: &Certificate) -> Caller<TlsStream<TcpStream>> {
    Caller::over(try_connect(house, &certificate.connector(HTTP1)).await.unwrap())
}

#[tokio::test]
async fn calls_are_answered_over_tls_and_framing_is_judged_as_ever() {
    let certificate = Certificate::new();
    let (house, double) = house(&certificate, 1, vec![]).await;
    let mut caller = connect(&house, &certificate).await;
    for n in 0..3 {
        caller.send(&call(&n.to_string())).await;
        assert!(caller.answer().await.body.contains(&format!("\"response\":{n},")));
    }
    caller.send(&[call("3"), call("4")].concat()).await;
    assert!(caller.answer().await.body.contains("\"response\":3,"));
    assert!(caller.answer().await.body.contains("\"response\":4,"));
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    caller.send(&call(&large)).await;
    assert!(caller.answer().await.body.contains(&large));
    caller.send(&request("POST", "/model", &["Transfer-Encoding: chunked"], "{}")).await;
    assert_eq!(caller.answer().await.status, 400);
    assert!(caller.is_closed().await);
    assert_eq!(double.read().len(), 6);
}

#[tokio::test]
async fn http2_is_agreed_on_in_the_handshake_and_nobody_changes_their_mind() {
    let certificate = Certificate::new();
    let (house, _double) = house(&certificate, 1, vec![]).await;
    let stream = try_connect(&house, &certificate.connector(HTTP2)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(HTTP2));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let asked = Request::post(format!("https://localhost/model?accessKey={ACCESS_KEY}"))
        .body(Full::new(&br#"{"request":1}"#[..]))
        .unwrap();
    let answer = sender.send_request(asked).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("\"response\":1,"));
    connection.abort();
    // Who agreed on HTTP/1 and says what HTTP/2 begins with is refused as HTTP/1 is.
    let mut other = connect(&house, &certificate).await;
    other.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!([400, 505].contains(&other.answer().await.status));
}

#[tokio::test]
async fn every_hang_up_leaves_the_line_under_tls() {
    let certificate = Certificate::new();
    let hold = Arc::new(Notify::new());
    let (house, double) = house(&certificate, 1, vec![Act::Hold(hold.clone())]).await;
    let mut running = connect(&house, &certificate).await;
    running.send(&call("1")).await;
    double.until_read(1).await;
    for how in 0..4 {
        let mut stream = try_connect(&house, &certificate.connector(HTTP1)).await.unwrap();
        stream.write_all(&call("2")).await.unwrap();
        stream.flush().await.unwrap();
        house.until_in_line(1).await;
        match how {
            // No word of TLS, only the socket's end.
            0 => drop(stream.into_inner().0),
            // A half-close of the socket: it could still read.
            1 => {
                stream.get_mut().0.shutdown().await.unwrap();
                house.until_in_line(0).await;
            }
            // A half-close of TLS, with requests behind the one in line.
            2 => {
                stream.write_all(&[call("3"), call("4")].concat()).await.unwrap();
                stream.shutdown().await.unwrap();
                house.until_in_line(0).await;
            }
            // Something that is not TLS.
            _ => {
                stream.get_mut().0.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
                house.until_in_line(0).await;
            }
        }
        house.until_in_line(0).await;
    }
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
    running.send(&call("5")).await;
    assert_eq!(running.answer().await.status, 200);
    assert_eq!(double.read(), ["1", "5"]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_ended_after_ten_seconds_and_counted() {
    let certificate = Certificate::new();
    let (house, _double) = house(&certificate, 1, vec![]).await;
    // A record that says it has 200 bytes, of which one comes.
    for begin in [&b""[..], &[22, 3, 1, 0, 200, 1]] {
        let mut slow = TcpStream::connect(house.address).await.unwrap();
        slow.write_all(begin).await.unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!((9..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    }
    house.until_figure(r#"millgate_connections_refused_total{reason="tls_slow"}"#, "2").await;
}

#[tokio::test(start_paused = true)]
async fn silence_after_the_handshake_is_ended_as_well() {
    let certificate = Certificate::new();
    let (house, _double) = house(&certificate, 1, vec![]).await;
    let mut silent = connect(&house, &certificate).await;
    let begun = Instant::now();
    assert!(silent.is_closed().await);
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_does_not_speak_tls_is_counted() {
    let certificate = Certificate::new();
    let (house, _double) = house(&certificate, 1, vec![]).await;
    let mut plain = house.caller().await;
    plain.send(&call("1")).await;
    house.until_figure(r#"millgate_connections_refused_total{reason="tls"}"#, "1").await;
    drop(house.caller().await);
    house.until_figure(r#"millgate_connections_refused_total{reason="tls_gone"}"#, "1").await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_nothing_is_let_go_under_tls_and_its_replica_is_free_before() {
    let certificate = Certificate::new();
    let (house, double) = house(&certificate, 1, vec![]).await;
    let mut stream = try_connect(&house, &certificate.connector(HTTP1)).await.unwrap();
    // More than what the sockets' buffers hold, several times.
    let large = call(&format!("\"{}\"", "x".repeat(5_000_000)));
    for _ in 0..4 {
        stream.write_all(&large).await.unwrap();
        stream.flush().await.unwrap();
        if double.read().is_empty() {
            double.until_read(1).await;
        }
    }
    let mut other = connect(&house, &certificate).await;
    other.send(&call("2")).await;
    assert_eq!(other.answer().await.status, 200);
    drop(other);
    let begun = Instant::now();
    passing(&house, "millgate_connections", "0").await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(stream);
}

/// The certificate that a new connection is shown.
async fn shown(house: &House) -> CertificateDer<'static> {
    let tcp = TcpStream::connect(house.address).await.unwrap();
    let seen = Arc::new(Seen);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as _)
        .with_no_client_auth();
    let stream =
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp);
    let stream = stream.await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Takes any certificate, to look at it.
#[derive(Debug)]
struct Seen;

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn certificate_of(files: &TlsFiles) -> CertificateDer<'static> {
    authorities(Some(&files.certificate_file)).unwrap().remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_changed_certificate_is_shown_to_who_comes_next_and_a_bad_one_to_nobody() {
    let certificate = Certificate::new();
    let (house, _double) = house(&certificate, 1, vec![]).await;
    let first = certificate_of(&certificate.files());
    assert_eq!(shown(&house).await, first);
    let mut kept = connect(&house, &certificate).await;

    certificate.write(&rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    let second = certificate_of(&certificate.files());
    assert_ne!(first, second);
    while shown(&house).await != second {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Who was connected notices nothing.
    kept.send(&call("1")).await;
    assert_eq!(kept.answer().await.status, 200);

    // A key of another certificate; a certificate that is none; a file that is gone.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = certificate.files();
    let spoil: [&dyn Fn(); 3] = [
        &|| replace(&files.key_file, &other.signing_key.serialize_pem()),
        &|| replace(&files.certificate_file, "-----BEGIN CERTIFICATE-----\n"),
        &|| fs::remove_file(&files.key_file).unwrap(),
    ];
    for (refused, spoil) in (1..).zip(spoil) {
        spoil();
        passing(&house, "millgate_certificates_rejected_total", &refused.to_string()).await;
        assert_eq!(shown(&house).await, second);
    }

    // Put right again, and said so rather than waited for.
    certificate.write(&other);
    house.gateway.reload_certificate();
    assert_eq!(shown(&house).await, certificate_of(&files));
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_said_before_anything_is_served() {
    let certificate = Certificate::new();
    let files = certificate.files();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace(&files.key_file, &other.signing_key.serialize_pem());
    let error = Tls::load(files.clone()).unwrap_err().to_string();
    assert!(error.starts_with("certificate and key do not fit"), "{error}");
    replace(&files.key_file, "nothing");
    let error = Tls::load(files.clone()).unwrap_err().to_string();
    assert!(error.ends_with("tls.key` holds no private key in PEM"), "{error}");
    fs::remove_file(&files.certificate_file).unwrap();
    let error = Tls::load(files).unwrap_err().to_string();
    assert!(error.contains("tls.crt` cannot be read"), "{error}");
}
