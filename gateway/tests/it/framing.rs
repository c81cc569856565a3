//! HTTP around calls: sizes, methods, ids, origins, protocols, slowness.

use std::sync::Arc;

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millgate_contract::ids::ModelId;
use millgate_gateway::{CallerBody, CorsOrigins, Fallback, GatewayConfig};
use tokio::sync::Notify;

use crate::{
    double::Act,
    house::{ACCESS_KEY, House, call},
    http::{post, request},
};

#[tokio::test]
async fn a_body_over_5_mb_is_refused_before_it_is_read() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let mut caller = house.caller().await;
    caller
        .send(b"POST /model HTTP/1.1\r\nHost: a\r\nContent-Length: 5242881\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let answer = caller.answer().await;
    insta::assert_snapshot!(answer.body, @r#"{"success":false,"error":{"code":"request.too_large","message":"the body is larger than 5242880 bytes"},"errors":["the body is larger than 5242880 bytes"],"StatusCode":413}"#);
    assert!(caller.is_closed().await);
    let mut chunked = house.caller().await;
    chunked.send(b"POST /model HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n500001\r\n").await;
    chunked.send(&vec![b' '; 0x50_0001]).await;
    assert_eq!(chunked.answer().await.status, 413);
    assert!(double.read().is_empty());
}

#[tokio::test]
async fn a_caller_that_sends_all_of_a_refused_body_still_reads_the_refusal() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let answer = house.ask(&post("/model", &[], &"x".repeat(8_000_000))).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_body_of_exactly_5_mb_is_a_call() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let around = format!(r#"{{"accessKey":"{ACCESS_KEY}","request":""}}"#).len();
    let text = "x".repeat(5_242_880 - around);
    let answer = house.call(&format!("\"{text}\"")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(double.read()[0].len(), text.len() + 2);
    assert!(answer.body.contains(&text));
}

#[tokio::test]
async fn a_chunked_body_is_a_call() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let mut caller = house.caller().await;
    let head = format!(
        "POST /model?accessKey={ACCESS_KEY} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    caller.send(head.as_bytes()).await;
    caller.send(b"5\r\n{\"req\r\n8\r\nuest\":42\r\n1\r\n}\r\n0\r\n\r\n").await;
    assert!(caller.answer().await.body.contains(r#""response":42,"#));
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_call() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let mut caller = house.caller().await;
    for n in 0..3 {
        caller.send(&call(&n.to_string())).await;
        assert!(caller.answer().await.body.contains(&format!("\"response\":{n},")));
    }
    let pipelined = [call("3"), call("4")].concat();
    caller.send(&pipelined).await;
    assert!(caller.answer().await.body.contains("\"response\":3,"));
    assert!(caller.answer().await.body.contains("\"response\":4,"));
    assert_eq!(double.read().len(), 5);
}

#[tokio::test]
async fn a_silent_and_a_slow_caller_are_let_go() {
    let config = GatewayConfig { head_ms_max: 20, body_idle_ms_max: 20, ..GatewayConfig::default() };
    let (house, _double) = House::with_config(config, 1, vec![]).await;
    assert!(house.caller().await.is_closed().await);
    let mut half_a_head = house.caller().await;
    half_a_head.send(b"POST /model HTTP/1.1\r\nHo").await;
    assert!(half_a_head.is_closed().await || half_a_head.answer().await.status == 408);
    let mut half_a_body = house.caller().await;
    let whole = call("1");
    half_a_body.send(&whole[..whole.len() - 3]).await;
    let answer = half_a_body.answer().await;
    insta::assert_snapshot!(answer.body, @r#"{"success":false,"error":{"code":"request.slow","message":"the request did not arrive in time"},"errors":["the request did not arrive in time"],"StatusCode":408}"#);
    assert!(half_a_body.is_closed().await);
}

#[tokio::test]
async fn a_caller_that_does_not_read_does_not_hold_its_replica() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let large = format!("\"{}\"", "x".repeat(5_000_000));
    let deaf = house.begin(&large).await;
    double.until_read(1).await;
    assert_eq!(house.call("2").await.status, 200);
    drop(deaf);
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let named = |id: &str| post("/model", &[&format!("X-Request-Id: {id}")], "{}");
    assert_eq!(house.ask(&named("order-66.a")).await.header("x-request-id"), Some("order-66.a"));
    for bad in ["two words", &"a".repeat(129), ""] {
        let given = house.ask(&named(bad)).await.header("x-request-id").unwrap().to_owned();
        assert_eq!(given.len(), 32, "{given}");
    }
    assert!(house.ask(&request("GET", "/elsewhere", &[], "")).await.header("x-request-id").is_some());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = post(
        &format!("/model?accessKey={ACCESS_KEY}"),
        &["X-Request-Id: r-7", &format!("traceparent: {trace}")],
        r#"{"request":1}"#,
    );
    assert_eq!(house.ask(&traced).await.status, 200);
    let sent = &double.calls()[0];
    assert_eq!((sent.request_id.as_str(), sent.traceparent.as_str()), ("r-7", trace));
}

#[tokio::test]
async fn other_methods_and_other_paths_are_refused_in_an_envelope() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    let get = house.ask(&request("GET", "/model", &[], "")).await;
    assert_eq!(
        (get.status, get.code(), get.header("allow")),
        (405, "request.method".into(), Some("post, options"))
    );
    let elsewhere = house.ask(&request("GET", "/elsewhere", &[], "")).await;
    assert_eq!((elsewhere.status, elsewhere.code()), (404, "request.not_found".into()));
}

#[tokio::test]
async fn what_is_not_a_call_goes_to_the_others_but_never_on_a_host_of_models() {
    let other = Fallback::new(tower::service_fn(|request: Request<CallerBody>| async move {
        let id = request.headers()["x-request-id"].to_str().unwrap().to_owned();
        let text = format!("{} {id}", request.uri().path());
        Ok(Response::new(UnsyncBoxBody::new(
            Full::from(text).map_err(|never: std::convert::Infallible| match never {}),
        )))
    }));
    let house = House::open_with(GatewayConfig::default(), other).await;
    let answer = house.ask(&request("GET", "/api/v2/models", &["X-Request-Id: r-1"], "")).await;
    assert_eq!((answer.body.as_str(), answer.header("x-request-id")), ("/api/v2/models r-1", Some("r-1")));
    let mut caller = house.caller().await;
    caller.send(b"GET /api/v2/models HTTP/1.1\r\nHost: ModelService.example.org\r\n\r\n").await;
    assert_eq!(caller.answer().await.code(), "request.not_found");
}

#[tokio::test]
async fn pages_on_other_origins_may_call_where_the_operator_says_so() {
    let preflight = request(
        "OPTIONS",
        "/model",
        &["Origin: https://a.example", "Access-Control-Request-Method: POST"],
        "",
    );
    let crossing = post("/model", &["Origin: https://a.example"], "{}");
    let listed = |origin: &str| CorsOrigins::Listed(vec![origin.to_owned()]);
    let cases = [
        (CorsOrigins::Nowhere, None),
        (CorsOrigins::Anywhere, Some("*")),
        (listed("https://a.example"), Some("https://a.example")),
        (listed("https://b.example"), None),
    ];
    for (cors_origins, allowed) in cases {
        let house = House::open(GatewayConfig { cors_origins, ..GatewayConfig::default() }).await;
        let asked = house.ask(&preflight).await;
        assert_eq!(asked.status, 204);
        assert_eq!(asked.header("access-control-allow-origin"), allowed);
        assert_eq!(asked.header("access-control-allow-methods"), allowed.map(|_| "post"));
        assert_eq!(house.ask(&crossing).await.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let hold = Arc::new(Notify::new());
    let (house, double) = House::with_acts(2, vec![Act::Hold(hold.clone())]).await;
    let tcp = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<&'static [u8]>>(
        TokioExecutor::new(),
        TokioIo::new(tcp),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let request = |body: &'static str| {
        Request::post(format!("http://a/model?accessKey={ACCESS_KEY}"))
            .body(Full::new(body.as_bytes()))
            .unwrap()
    };
    let first = sender.send_request(request(r#"{"request":1}"#));
    double.until_read(1).await;
    let second = sender.send_request(request(r#"{"request":2}"#)).await.unwrap();
    assert_eq!(second.status(), 200);
    hold.notify_one();
    let first = first.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&first).contains("\"response\":1,"));
    connection.abort();
}

#[tokio::test]
async fn one_model_served_alone_needs_no_access_key() {
    let config = GatewayConfig { default_model: Some(ModelId::new("m1")), ..GatewayConfig::default() };
    let (house, _double) = House::with_config(config, 1, vec![]).await;
    assert_eq!(house.ask(&post("/model", &[], r#"{"request":1}"#)).await.status, 200);
    assert_eq!(house.ask(&post("/model", &[], r#"{"accessKey":"any","request":1}"#)).await.status, 200);
}
