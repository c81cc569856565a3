//! What operators see: the page of figures and the access event.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millgate_contract::frame::Outcome;
use millgate_gateway::{GatewayConfig, MetricsSink, TrackedPrediction};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    double::Act,
    house::{ACCESS_KEY, House, Issuer, OTHER_ACCESS_KEY, model, snapshot},
    http::post,
};

#[tokio::test]
async fn the_page_of_figures_has_its_form() {
    let (house, _double) = House::with_acts(1, vec![Act::Echo, Act::End(Outcome::Exception, "E: e")]).await;
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(house.call("2").await.status, 500);
    let other = post("/model", &[], &format!(r#"{{"accessKey":"{OTHER_ACCESS_KEY}","request":1}}"#));
    assert_eq!(house.ask(&other).await.status, 401);
    house.until_figure("millgate_connections", "0").await;
    let page = house.metrics().await;
    // Which bucket a time falls into is the machine's affair.
    let mut steady: Vec<&str> =
        page.lines().filter(|l| !l.contains("_bucket{") && !l.contains("_sum{")).collect();
    // The order of series is nobody's promise.
    steady.sort_unstable();
    insta::assert_snapshot!(steady.join("\n"));
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn one_event_tells_of_each_call_and_no_secret() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let (house, double) = House::with_acts(1, vec![]).await;
    let issuer = Issuer::new();
    let mut closed = snapshot(2, vec![model(&double)]);
    closed.models[0].requires_api_key = true;
    closed.verification.api_keys.push(issuer.verifying.clone());
    house.gateway.apply(closed).unwrap();
    let key = issuer.key("ana", "k-7", 4_000_000_000);
    let body = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":"a private thing"}}"#);
    let request = post("/model", &[&format!("Authorization: Bearer {key}"), "X-Request-Id: r-1"], &body);
    assert_eq!(house.ask(&request).await.status, 200);
    let written = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events: Vec<serde_json::Value> = written
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .filter(|event: &serde_json::Value| event["target"] == "millgate::access")
        .collect();
    assert_eq!(events.len(), 1);
    let fields = &events[0]["fields"];
    for (field, value) in [
        ("request_id", "r-1"),
        ("code", "ok"),
        ("model", "m1"),
        ("model_name", "add"),
        ("replica", "d1-r0"),
        ("user", "ana"),
        ("key", "k-7"),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
    for secret in [ACCESS_KEY, &key, "a private thing", &"11".repeat(32)] {
        assert!(!written.contains(secret), "{secret}");
    }
}

/// Keeps rows until it is told to fail.
#[derive(Default)]
struct Kept(Mutex<Vec<TrackedPrediction>>);

impl MetricsSink for Kept {
    fn append(&self, prediction: TrackedPrediction) -> std::io::Result<()> {
        let mut kept = self.0.lock().unwrap();
        if !kept.is_empty() {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        kept.push(prediction);
        Ok(())
    }
}

#[tokio::test]
async fn tracked_metrics_are_kept_before_the_caller_is_answered() {
    let kept = Arc::new(Kept::default());
    let config = GatewayConfig { metrics_sink: Some(kept.clone()), ..GatewayConfig::default() };
    let predict = Act::Predict { value: "2", metrics: r#"{"n":1}"# };
    let (house, _double) = House::with_config(config, 1, vec![predict.clone(), predict]).await;
    let body: serde_json::Value = serde_json::from_str(&house.call("1").await.body).unwrap();
    {
        let kept = kept.0.lock().unwrap();
        let row = &kept[0];
        assert_eq!(body["response"]["uuid"], row.uuid.as_str());
        assert_eq!(body["response"]["model_deployment_crn"], row.deployment_crn.as_str());
        assert_eq!(row.metrics, Bytes::from_static(br#"{"n":1}"#));
        assert!(row.start_ms <= row.end_ms);
    }
    // A sink that fails costs the row, not the answer.
    assert_eq!(house.call("2").await.status, 200);
    assert_eq!(house.figure("millgate_predictions_unkept_total").await.as_deref(), Some("1"));
}
