//! Every row of the error table, and success, each as its whole body.

use std::sync::Arc;

use millgate_contract::{frame::Outcome, route::Target};
use millgate_gateway::GatewayConfig;
use tokio::sync::Notify;

use crate::{
    double::Act,
    house::{ACCESS_KEY, House, Issuer, OTHER_ACCESS_KEY, call, model, snapshot},
    http::{Answer, post},
};

const FAR: u64 = 4_000_000_000;

fn told(answer: &Answer) -> String {
    let retry = answer.header("retry-after").map_or(String::new(), |s| format!(" Retry-After: {s}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some());
    format!("{}{retry} {}", answer.status, answer.body)
}

#[tokio::test]
async fn the_three_forms_of_a_call_are_one() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let both = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":{{"a":3}}}}"#);
    let forms = [
        post("/model", &[], &both),
        post("/model", &["Content-Type: text/plain"], &both),
        post(&format!("/model?x=1&accessKey={ACCESS_KEY}"), &[], r#"{"request":{"a":3}}"#),
        post("/api/altus-ds-1/models/call-model", &[], &both),
        post(
            &format!("/api/altus-ds-1/models/call-model?accessKey={ACCESS_KEY}"),
            &[],
            r#"{"request":{"a":3}}"#,
        ),
    ];
    for form in forms {
        let answer = house.ask(&form).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(told(&answer), @r#"200 {"success":true,"response":{"a":3},"ReplicaID":"d1-r0","Size":7,"StatusCode":200}"#);
        }
    }
    assert_eq!(double.read(), [r#"{"a":3}"#; 5]);
}

#[tokio::test]
async fn a_function_that_collects_metrics_is_answered_with_crn_and_uuid() {
    let (house, _double) =
        House::with_acts(1, vec![Act::Predict { value: "[2]", metrics: r#"{"n":1}"# }]).await;
    let answer = house.call("1").await;
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["response"]["prediction"], serde_json::json!([2]));
    assert_eq!(body["response"]["model_deployment_crn"], "crn:cdp:ml:::workspace:w/d1");
    let uuid = uuid::Uuid::parse_str(body["response"]["uuid"].as_str().unwrap()).unwrap();
    assert_eq!(uuid.get_version_num(), 4);
}

#[tokio::test]
async fn what_a_function_ends_with_is_told_in_its_envelope() {
    let acts = vec![
        Act::End(Outcome::Exception, "ValueError: no"),
        Act::End(Outcome::BadOutput, "the function returned `NaN`, which JSON cannot hold"),
        Act::End(Outcome::BadInput, "a number is too large for Python"),
        Act::DropAccepted,
    ];
    let (house, _double) = House::with_acts(1, acts).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(told(&house.call("1").await));
    }
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_function_past_its_time_is_504_and_its_supervisor_is_told() {
    let (house, double) = House::with_acts(1, vec![Act::SilentAccepted]).await;
    let mut short = model(&double);
    short.request_timeout_ms = 20;
    house.gateway.apply(snapshot(2, vec![short])).unwrap();
    insta::assert_snapshot!(told(&house.call("1").await), @r#"504 {"success":false,"error":{"code":"model.timeout","message":"the function ran longer than the request timeout of 20 ms"},"errors":["the function ran longer than the request timeout of 20 ms"],"ReplicaID":"d1-r0","StatusCode":504}"#);
    double.until(|d| d.told().len() == 2).await;
    let expired = String::from_utf8(millgate_contract::line::encode(&double.told()[1])).unwrap();
    assert_eq!(expired, "{\"type\":\"expired\",\"slot\":0,\"replica\":\"d1-r0\",\"call\":1}\n");
    assert_eq!(double.calls()[0].remaining_ms, 20);
    assert_eq!(house.call("2").await.status, 200);
}

#[tokio::test]
async fn a_large_body_is_split_and_judged_as_a_small_one_is() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let numbers = "1.5,".repeat(100_000);
    assert_eq!(house.call(&format!("[{numbers}2]")).await.status, 200);
    assert_eq!(double.calls().len(), 1);
    let answer = told(&house.call(&format!("[{numbers}]")).await);
    assert!(answer.starts_with("400 ") && answer.contains("expected a value at byte 400"), "{answer}");
    assert_eq!(double.calls().len(), 1);
}

#[tokio::test]
async fn calls_that_come_one_after_the_other_let_their_replica_look_for_the_next_one_awake() {
    for busy_poll_us in [0, 70] {
        let config = GatewayConfig { busy_poll_us, ..GatewayConfig::default() };
        let (house, double) = House::with_config(config, 1, vec![]).await;
        for _ in 0..20 {
            assert_eq!(house.call("1").await.status, 200);
        }
        let told: Vec<u16> = double.calls().iter().map(|call| call.busy_poll_us).collect();
        assert_eq!((told[0], told[19]), (0, busy_poll_us));
    }
}

#[tokio::test]
async fn a_call_that_no_replica_takes_in_time_is_429() {
    let config = GatewayConfig { wait_ms_max: 20, ..GatewayConfig::default() };
    let (house, double) = House::with_config(config, 1, vec![Act::SilentAccepted]).await;
    let _running = house.begin("1").await;
    double.until_read(1).await;
    insta::assert_snapshot!(told(&house.call("2").await), @r#"429 Retry-After: 1 {"success":false,"error":{"code":"model.busy","message":"no replica came free in time; try again later or add replicas"},"errors":["no replica came free in time; try again later or add replicas"],"StatusCode":429}"#);
}

#[tokio::test]
async fn a_full_line_is_429_at_once() {
    let config = GatewayConfig { line_calls_max: 0, ..GatewayConfig::default() };
    let (house, double) = House::with_config(config, 1, vec![Act::SilentAccepted]).await;
    // The first call finds an idle replica only once it is connected.
    let running = loop {
        let mut first = house.begin("1").await;
        tokio::select! {
            () = double.until_read(1) => break first,
            answer = first.answer() => assert_eq!(answer.code(), "model.busy"),
        }
    };
    assert_eq!(house.call("2").await.code(), "model.busy");
    drop(running);
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let house = House::open(GatewayConfig::default()).await;
    let mut answers = vec![told(&house.call("1").await)];
    let double = crate::double::Double::start(house.folder.path(), "d1", 1, vec![]);
    let issuer = Issuer::new();
    let mut closed = model(&double);
    closed.requires_api_key = true;
    let routes = |generation| {
        let mut routes = snapshot(generation, vec![closed.clone()]);
        routes.verification.api_keys.push(issuer.verifying.clone());
        routes
    };
    house.gateway.apply(routes(1)).unwrap();
    let bearer = |key: &str| format!("Authorization: Bearer {key}");
    let body = |key: &str| format!(r#"{{"accessKey":"{key}","request":1}}"#);
    let good = bearer(&issuer.key("ana", "k1", FAR));
    let requests = [
        post("/model", &[], "{}"),
        post("/model", &[], &format!(r#"{{"accessKey":"{OTHER_ACCESS_KEY}"}}"#)),
        post("/model", &[], r#"{"request":1}"#),
        post("/model", &[], &body(OTHER_ACCESS_KEY)),
        call("1"),
        post("/model", &["Authorization: Basic YTpi"], &body(ACCESS_KEY)),
        post("/model", &["Authorization: Bearer"], &body(ACCESS_KEY)),
        post("/model", &["Authorization: Bearer nonsense"], &body(ACCESS_KEY)),
        post("/model", &[&bearer(&issuer.key("ana", "k1", 1))], &body(ACCESS_KEY)),
        post("/model", &[&bearer(&issuer.key("eve", "k1", FAR))], &body(ACCESS_KEY)),
        post("/model", &[&bearer(&issuer.key("root", "k1", FAR))], &body(ACCESS_KEY)),
        post("/model", &[&good], &body(ACCESS_KEY)),
    ];
    for request in requests {
        answers.push(told(&house.ask(&request).await));
    }
    let mut deleted = routes(2);
    deleted.revoked.push(millgate_contract::route::RevokedKey {
        key: millgate_contract::ids::KeyId::new("k1"),
        expires_at_s: FAR,
    });
    house.gateway.apply(deleted).unwrap();
    answers.push(told(&house.ask(&post("/model", &[&good], &body(ACCESS_KEY))).await));
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_stopped_or_failed_model_is_503_and_so_are_those_who_wait_for_it() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(1, vec![Act::Hold(hold.clone())]).await;
    let mut running = house.begin("1").await;
    double.until_read(1).await;
    let mut waiting = house.begin("2").await;
    house.until_in_line(1).await;
    let mut stopped = model(&double);
    stopped.target = Target::Unavailable("the model is stopped".into());
    house.gateway.apply(snapshot(2, vec![stopped])).unwrap();
    insta::assert_snapshot!(told(&waiting.answer().await), @r#"503 Retry-After: 5 {"success":false,"error":{"code":"model.unavailable","message":"the model is stopped"},"errors":["the model is stopped"],"StatusCode":503}"#);
    assert_eq!(house.call("3").await.status, 503);
    hold.notify_one();
    assert_eq!(running.answer().await.status, 200);
}

#[tokio::test]
async fn a_deployment_that_cannot_start_is_503_without_its_reason() {
    let house = House::open(GatewayConfig::default()).await;
    let double = crate::double::Double::start(house.folder.path(), "d1", 0, vec![]);
    house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
    double.until(|d| !d.told().is_empty()).await;
    let mut waiting = house.begin("1").await;
    house.until_in_line(1).await;
    double.say_failed("ModuleNotFoundError: No module named 'secret'");
    insta::assert_snapshot!(told(&waiting.answer().await), @r#"503 Retry-After: 5 {"success":false,"error":{"code":"model.unavailable","message":"the model's replicas cannot start; its log says why"},"errors":["the model's replicas cannot start; its log says why"],"StatusCode":503}"#);
}

#[tokio::test]
async fn an_exception_s_text_is_bounded() {
    let long: &'static str = Box::leak(format!("ValueError: {}é", "x".repeat(5_000)).into_boxed_str());
    let (house, _double) = House::with_acts(1, vec![Act::End(Outcome::Exception, long)]).await;
    let body: serde_json::Value = serde_json::from_str(&house.call("1").await.body).unwrap();
    assert_eq!(body["errors"][0].as_str().unwrap().len(), 2_048 + "unexpected model shutdown: ".len());
}
