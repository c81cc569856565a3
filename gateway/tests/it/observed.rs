//! What operators see: the page of figures and the access event.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use millgate_contract::{
    frame::Outcome,
    ids::{KeyId, ReplicaId},
    route::{RevokedKey, RouteSnapshot},
    supervision::{FromSupervisor, ReplicaUsage, StartMode},
};
use millgate_gateway::{CallFilter, CallLogConfig, GatewayConfig};
use serde_json::json;
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
async fn what_replicas_do_with_their_time_is_counted_by_slot_whichever_replica_is_in_it() {
    let (house, double) = House::with_acts(2, vec![Act::Echo]).await;
    assert_eq!(house.call("1").await.status, 200);
    let series = |slot: u16, activity: &str| {
        format!(
            r#"millgate_replica_seconds_total{{model="m1",name="add",slot="{slot}",activity="{activity}"}}"#
        )
    };
    let usage = |replica: &str, busy_us| ReplicaUsage {
        replica: ReplicaId::new(replica),
        calls: 1,
        busy_us,
        interpreter_wait_us: 250_000,
        idle_us: 4_000_000,
    };
    double.say_ready(1, "first");
    double.say(FromSupervisor::Usage { replicas: vec![usage("first", 1_500_000), usage("spare", 9)] });
    house.until_figure(&series(1, "busy"), "1.5").await;
    assert_eq!(house.figure(&series(1, "interpreter_wait")).await.as_deref(), Some("0.25"));
    assert_eq!(house.figure(&series(1, "idle")).await.as_deref(), Some("4.0"));
    assert_eq!(house.figure(&series(0, "busy")).await, None, "nobody has said anything of it");
    double.say_ready(1, "second");
    double.say(FromSupervisor::Usage { replicas: vec![usage("second", 500_000)] });
    house.until_figure(&series(1, "busy"), "2.0").await;
    house.gateway.apply(snapshot(2, vec![])).unwrap();
    assert_eq!(house.figure(&series(1, "busy")).await, None);
}

#[tokio::test]
async fn how_replicas_are_started_and_why_is_a_series_of_its_model() {
    let (house, double) = House::with_acts(1, vec![Act::Echo]).await;
    assert_eq!(house.call("1").await.status, 200);
    let series = |mode: &str, reason: &str| {
        format!(r#"millgate_start_mode_info{{model="m1",name="add",mode="{mode}",reason="{reason}"}}"#)
    };
    double.say_start(StartMode::Fork, "");
    house.until_figure(&series("fork", ""), "1").await;
    double.say_start(StartMode::Spawn, "a \"connection\" is open");
    let spawned = series("spawn", r#"a \"connection\" is open"#);
    house.until_figure(&spawned, "1").await;
    assert_eq!(house.figure(&series("fork", "")).await, None, "the words of before are gone");
    house.gateway.apply(snapshot(2, vec![])).unwrap();
    assert_eq!(house.figure(&spawned).await, None);
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
    let cpu_of_key = |id: &str| format!(r#"millgate_key_cpu_seconds_total{{key="{id}"}}"#);
    for (id, seconds) in [("k-1", Some("1.0")), ("k-2", Some("0.5")), ("k-3", None), ("other", Some("1.0"))] {
        assert_eq!(house.figure(&cpu_of_key(id)).await.as_deref(), seconds, "{id}");
    }
    let of_model = house.figure(r#"millgate_cpu_seconds_total{model="m1",name="add"}"#).await;
    assert_eq!(of_model.as_deref(), Some("2.5"));
    let over = house.figure(r#"millgate_rate_refusals_total{rate="key"}"#).await;
    assert_eq!(over.as_deref(), Some("1"));

    let revoked = RevokedKey { key: KeyId::new("k-1"), expires_at_s: 4_000_000_000 };
    house.gateway.apply(RouteSnapshot { generation: 3, revoked: vec![revoked], ..closed }).unwrap();
    assert_eq!(house.ask(&call("k-1")).await.status, 401);
    assert_eq!(house.figure(&of_key("k-1")).await, None);
    assert_eq!(house.figure(&cpu_of_key("k-1")).await, None);
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
    let logged = Log::default();
    let subscriber =
        tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(logged.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let folder = tempfile::tempdir().unwrap();
    let log = CallLogConfig::new(folder.path().join("calls"), 1 << 20);
    let config = GatewayConfig { call_log: Some(log.clone()), ..GatewayConfig::default() };
    let (house, double) = House::with_config(config, 1, vec![]).await;
    let issuer = Issuer::new();
    let mut closed = snapshot(2, vec![model(&double)]);
    closed.models[0].requires_api_key = true;
    closed.verification.api_keys.push(issuer.verifying.clone());
    house.gateway.apply(closed).unwrap();
    let key = issuer.key("ana", "k-7", 4_000_000_000);
    let body = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":"a private thing"}}"#);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        [&*format!("Authorization: Bearer {key}"), "X-Request-Id: r-1", &*format!("traceparent: {trace}")];
    let answer = house.ask(&post("/model", &headers, &body)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(house.ask(&post("/model", &["X-Request-Id: r-2"], &body)).await.status, 401);
    assert_eq!(house.ask(&post("/model", &["X-Request-Id: r-3"], "{}")).await.status, 400);

    let read = house.admin("/calls").await;
    let mut events: Vec<serde_json::Value> =
        read.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for event in &mut events {
        for of_clock in ["time", "wait_ms", "run_ms", "total_ms"] {
            event.as_object_mut().unwrap().remove(of_clock);
        }
    }
    let expected = json!([
        {"request_id": "r-1", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "model": "m1", "model_name": "add",
         "deployment": "d1", "replica": "d1-r0", "status": 200, "code": "ok", "request_bytes": body.len(),
         "response_bytes": answer.body.len(), "address": "127.0.0.1", "user": "ana", "key": "k-7"},
        {"request_id": "r-2", "model": "m1", "model_name": "add", "status": 401, "code": "api_key.required",
         "request_bytes": body.len(), "response_bytes": 0, "address": "127.0.0.1"},
        {"request_id": "r-3", "status": 400, "code": "request.malformed", "request_bytes": 2,
         "response_bytes": 0, "address": "127.0.0.1"},
    ]);
    assert_eq!(serde_json::Value::from(events), expected);

    let of_model = house.admin("/calls?model=add&code=ok&since=1h&limit=5").await;
    assert_eq!(of_model.body.lines().count(), 1);
    let refused = house.admin("/calls?limit=many").await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("`limit` is `many`"), "{}", refused.body);
    let logged = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    for secret in [ACCESS_KEY, &key, "a private thing", &"11".repeat(32)] {
        assert!(!read.body.contains(secret) && !logged.contains(secret), "{secret}");
    }

    // What is kept outlives the gateway that kept it.
    house.close().await;
    let kept = millgate_gateway::read_calls(&log.folder, &CallFilter::default()).unwrap();
    assert_eq!(kept.len(), 3);
}

#[tokio::test]
async fn a_caller_that_hangs_up_has_its_event_too_and_a_gateway_without_a_folder_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = GatewayConfig {
        call_log: Some(CallLogConfig::new(folder.path().join("calls"), 1 << 20)),
        ..GatewayConfig::default()
    };
    let (house, double) = House::with_config(config, 1, vec![Act::SilentAccepted]).await;
    let running = house.begin("1").await;
    double.until_read(1).await;
    drop(running);
    let gone = r#"millgate_calls_total{model="m1",name="add",deployment="d1",code="caller.gone"}"#;
    house.until_figure(gone, "1").await;
    let event: serde_json::Value =
        serde_json::from_str(&house.admin("/calls?code=caller.gone").await.body).unwrap();
    assert_eq!((&event["status"], &event["model_name"]), (&json!(499), &json!("add")));
    assert_eq!((&event["replica"], &event["deployment"]), (&json!("d1-r0"), &json!("d1")));
    assert!(event["wait_ms"].is_number() && event["run_ms"].is_number(), "{event}");

    // One that leaves the line has waited and was on no replica: the only one is still at the call of before.
    let waiting = house.begin("2").await;
    house.until_in_line(1).await;
    drop(waiting);
    house.until_figure(gone, "2").await;
    let events = house.admin("/calls?code=caller.gone").await.body;
    let left: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|e: &serde_json::Value| e.get("replica").is_none())
        .collect();
    assert_eq!(left.len(), 1, "{events}");
    assert!(left[0]["wait_ms"].is_number() && left[0].get("run_ms").is_none(), "{events}");

    let bare = House::open(GatewayConfig::default()).await;
    assert_eq!(bare.admin("/calls").await.status, 404);
}
