//! An OpenID issuer that is asked for its keys, over TLS: when, how often, and what goes on while it is away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response};
use millgate_gateway::{CallerBody, Fallback, GatewayConfig, KeySetSource, KeySetUrl, OpenIdConfig};
use serde_json::{Value, json};

use crate::{
    admission::{Closed, FAR},
    house::{House, Issuer},
    tls::Certificate,
};

/// What the issuer answers with, and how often it was asked.
#[derive(Clone, Default)]
struct Published {
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl Published {
    fn set(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = json!({ "keys": keys });
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn fallback(&self) -> Fallback {
        let published = self.clone();
        Fallback::new(tower::service_fn(move |_: Request<CallerBody>| {
            published.asked.fetch_add(1, Ordering::Relaxed);
            let text = published.keys.lock().unwrap().to_string();
            async move {
                let body = Full::from(text).map_err(|never: std::convert::Infallible| match never {});
                Ok(Response::new(UnsyncBoxBody::new(body)))
            }
        }))
    }
}

fn gateway_of(issuer: &House, certificate: &Certificate) -> GatewayConfig {
    let url = KeySetUrl {
        url: format!("https://localhost:{}/keys", issuer.address.port()),
        refresh: Duration::from_secs(3_600),
        ca_file: Some(certificate.files().certificate_file),
    };
    let openid = OpenIdConfig {
        issuer: "https://id.example".into(),
        audience: "millgate".into(),
        keys: KeySetSource::Url(url),
        user_claim: "preferred_username".into(),
    };
    GatewayConfig { openid: Some(openid), ..GatewayConfig::default() }
}

fn token(issuer: &Issuer, kid: &str) -> String {
    issuer.token_of(
        kid,
        &json!({"iss": "https://id.example", "aud": "millgate", "sub": "7", "exp": FAR, "preferred_username": "ana"}),
    )
}

#[tokio::test(start_paused = true)]
async fn keys_come_from_the_issuer_again_for_a_key_that_is_not_known_and_not_too_often() {
    let certificate = Certificate::new();
    let (published, first, second) = (Published::default(), Issuer::new(), Issuer::new());
    published.set(&[first.jwk_of("1")]);
    let issuer = House::open_with(certificate.config(), published.fallback()).await;
    let closed = Closed::open(gateway_of(&issuer, &certificate)).await;
    // The first call waits until the issuer has answered.
    assert_eq!(closed.call(&token(&first, "1")).await.status, 200);
    assert_eq!(published.asked(), 1);

    // The issuer has changed its keys: the first token that shows it has them fetched.
    published.set(&[second.jwk_of("2")]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(closed.call(&token(&second, "2")).await.status, 200);
    assert_eq!(closed.call(&token(&first, "1")).await.code(), "api_key.invalid");
    assert_eq!(published.asked(), 2);
    // Tokens that name what nobody knows do not have it asked again and again.
    for kid in ["3", "4", "5"] {
        assert_eq!(closed.call(&token(&second, kid)).await.code(), "api_key.invalid");
    }
    assert_eq!(published.asked(), 2);

    // By period, too.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    while published.asked() < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // While it is away, or says nothing of use, the keys stay.
    published.set(&[]);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    while closed.figure("millgate_openid_keys_rejected_total").await.as_deref() != Some("1") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(closed.call(&token(&second, "2")).await.status, 200);
    issuer.close().await;
    while closed.figure("millgate_openid_keys_rejected_total").await.as_deref() < Some("2") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(closed.call(&token(&second, "2")).await.status, 200);
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_is_not_believed() {
    let (certificate, other) = (Certificate::new(), Certificate::new());
    let (published, signer) = (Published::default(), Issuer::new());
    published.set(&[signer.jwk_of("1")]);
    let issuer = House::open_with(certificate.config(), published.fallback()).await;
    let closed = Closed::open(gateway_of(&issuer, &other)).await;
    assert_eq!(closed.call(&token(&signer, "1")).await.code(), "api_key.invalid");
    assert_eq!(published.asked(), 0);
    assert_eq!(closed.figure("millgate_openid_keys_rejected_total").await.as_deref(), Some("1"));
}
