//! What operators see: the page of figures and the access event.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millgate_contract::{
    frame::Outcome,
    ids::KeyId,
    route::{RevokedKey, RouteSnapshot},
};
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
    // Which bucket a time falls into, how old something is and what a process takes are the machine's affair.
    let of_machine = |line: &str| {
        let is_moving = line.contains("_bucket{") || line.contains("_sum{");
        is_moving || line.starts_with("process_") || line.starts_with("millgate_route_snapshot_age_seconds ")
    };
    let mut steady: Vec<&str> = page.lines().filter(|line| !of_machine(line)).collect();
    // The order of series is nobody's promise.
    steady.sort_unstable();
    insta::assert_snapshot!(steady.join("\n"));
}

#[tokio::test]
async fn calls_are_counted_by_key_for_so_many_keys_and_a_deleted_one_leaves() {
    let config = GatewayConfig {
        key_series_max: 2,
        key_rate: Some("2/3600s".parse().unwrap()),
        ..GatewayConfig::default()
    };
    let (house, double) = House::with_config(config, 1, vec![]).await;
    let issuer = Issuer::new();
    let mut closed = snapshot(2, vec![model(&double)]);
    closed.models[0].requires_api_key = true;
    closed.verification.api_keys.push(issuer.verifying.clone());
    house.gateway.apply(closed.clone()).unwrap();
    let body = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":1}}"#);
    let call = |id: &str| {
        let key = issuer.key("ana", id, 4_000_000_000);
        post("/model", &[&format!("Authorization: Bearer {key}")], &body)
    };
    let mut statuses = Vec::new();
    for id in ["k-1", "k-1", "k-1", "k-2", "k-3", "k-4"] {
        statuses.push(house.ask(&call(id)).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 200]);
    let of_key = |id: &str| format!(r#"millgate_key_calls_total{{key="{id}"}}"#);
    for (id, calls) in [("k-1", Some("3")), ("k-2", Some("1")), ("k-3", None), ("other", Some("2"))] {
        assert_eq!(house.figure(&of_key(id)).await.as_deref(), calls, "{id}");
    }
    let over = house.figure(r#"millgate_rate_refusals_total{rate="key"}"#).await;
    assert_eq!(over.as_deref(), Some("1"));

    let revoked = RevokedKey { key: KeyId::new("k-1"), expires_at_s: 4_000_000_000 };
    house.gateway.apply(RouteSnapshot { generation: 3, revoked: vec![revoked], ..closed }).unwrap();
    assert_eq!(house.ask(&call("k-1")).await.status, 401);
    assert_eq!(house.figure(&of_key("k-1")).await, None);
    assert_eq!(house.ask(&call("k-5")).await.status, 200);
    assert_eq!(house.figure(&of_key("k-5")).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn replicas_and_bytes_are_told_as_they_are_and_so_is_the_end() {
    let (mut house, double) = House::with_acts(2, vec![Act::SilentAccepted]).await;
    let of_model = |name: &str| format!(r#"millgate_{name}{{model="m1",name="add"}}"#);
    let told = [("slots", "2"), ("slots_connected", "2"), ("replicas_idle", "2"), ("replicas_busy", "0")];
    for (name, figure) in told {
        house.until_figure(&of_model(name), figure).await;
    }
    let phase = |phase: &str| format!(r#"millgate_phase{{phase="{phase}"}}"#);
    assert_eq!(house.figure(&phase("serving")).await.as_deref(), Some("1"));

    let caller = house.begin("1").await;
    double.until_read(1).await;
    house.until_figure(&of_model("replicas_busy"), "1").await;
    house.until_figure(&of_model("replicas_idle"), "1").await;
    let answer = house.call("12").await;
    let asked = body_bytes("12");
    assert_eq!(house.figure(&of_model("request_bytes_total")).await, Some(asked.to_string()));
    assert_eq!(house.figure(&of_model("response_bytes_total")).await, Some(answer.body.len().to_string()));

    house.begin_close();
    house.until_figure(&phase("draining"), "1").await;
    assert_eq!(house.figure(&phase("serving")).await.as_deref(), Some("0"));
    drop(caller);
}

fn body_bytes(request: &str) -> usize {
    format!(r#"{{"accessKey":"{ACCESS_KEY}","request":{request}}}"#).len()
}

#[tokio::test]
async fn the_age_of_a_snapshot_from_disk_is_the_age_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.sealed");
    std::fs::write(&file, snapshot(5, vec![]).seal()).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    let config = GatewayConfig { snapshot_file: Some(file), ..GatewayConfig::default() };
    let house = House::open(config).await;
    let age = || async {
        house.figure("millgate_route_snapshot_age_seconds").await.unwrap().parse::<f64>().unwrap()
    };
    assert!(age().await >= 86_400.0);
    house.gateway.apply(snapshot(6, vec![])).unwrap();
    assert!(age().await < 86_400.0);
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
