//! Tracked metrics over HTTP: rows as gateways ship them, what clients add, windows, pages, and who may.

use millgate_contract::{
    ids::{DeploymentId, ModelId},
    line, prediction_id,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    tracked::TrackedPrediction,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    task::JoinSet,
};

use crate::{names, testing::Rig};

/// The UUID of a prediction with this number, which began then.
fn id(n: i64, start_ms: u64) -> String {
    let mut random = [0; prediction_id::RANDOM_BYTES];
    random[2..].copy_from_slice(&n.to_be_bytes());
    prediction_id::new(start_ms, random)
}

/// The UUID of a prediction of a gateway of an earlier version, which says no start.
fn old_id(n: i64) -> String {
    format!("0b6d2f1e-0000-4000-8000-{n:012}")
}

/// A model with a deployment, and a gateway that ships nothing: reads need not wait for one.
struct Shop {
    rig: Rig,
    gateway: Gateway,
    project: String,
    model: String,
    build: String,
    deployment: String,
}

impl Shop {
    async fn open() -> Self {
        let rig = Rig::new().await;
        let gateway = Gateway::connect(&rig, false).await;
        let project = rig.project("p").await;
        let model = rig.model(&project, "m").await;
        let build = rig.build(&model, 1).await;
        let deployment = rig.deployment(&build).await["id"].as_str().unwrap().to_owned();
        Self { rig, gateway, project, model, build, deployment }
    }

    fn crn(&self, path: &str) -> String {
        names::crn(&self.rig.app.workspace, path.rsplit('/').next().unwrap())
    }

    fn row(&self, n: i64, start_ms: u64, end_ms: u64) -> TrackedPrediction<'static> {
        TrackedPrediction {
            uuid: id(n, start_ms).leak(),
            model: "the gateway's word, which is not asked for",
            deployment: self.deployment.clone().leak(),
            replica: "m-1-1-x-y",
            start_ms,
            end_ms,
            metrics: format!(r#"{{"n": {n}}}"#).into_bytes().leak(),
        }
    }

    async fn ship(&self, rows: &[TrackedPrediction<'_>]) {
        self.rig.app.store.ingest(rows).await.unwrap();
    }

    async fn read(&self, query: &str) -> Value {
        self.rig.call("GET", &format!("/api/v2/metrics?{query}"), Value::Null).await.ok()
    }

    async fn rows(&self) -> Vec<Value> {
        let read = self.read(&format!("model_deployment_crn={}", self.crn(&self.deployment))).await;
        read["metrics"].as_array().unwrap().clone()
    }

    /// The numbers of all rows of the model in their order, read in pages of so many.
    async fn numbers(&self, page_size: usize) -> Vec<i64> {
        let base = format!("model_crn={}&page_size={page_size}", self.crn(&self.model));
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.read(&format!("{base}&page_token={token}")).await;
            seen.extend(
                page["metrics"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["metrics"]["n"].as_i64().unwrap_or(-1)),
            );
            page["next_page_token"].as_str().unwrap().clone_into(&mut token);
            if token.is_empty() {
                return seen;
            }
        }
    }

    async fn add(&self, key: &str, uuid: &str, metrics: Value) -> (u16, Option<String>) {
        let body = json!({ "metrics": metrics, "prediction_uuid": uuid });
        let reply = self.rig.call_as(key, "POST", "/api/v2/metrics/delayed", body).await;
        let warning = reply.headers.get("warning").map(|w| w.to_str().unwrap().to_owned());
        (reply.status.as_u16(), warning)
    }
}

/// A gateway's side of the publication socket.
struct Gateway {
    stream: BufReader<UnixStream>,
    _serving: JoinSet<()>,
}

impl Gateway {
    async fn connect(rig: &Rig, ships_metrics: bool) -> Self {
        let path = rig.temp.path().join(format!("{ships_metrics}.sock"));
        let listener = crate::publish::bind(&path).unwrap();
        let mut serving = JoinSet::new();
        let app = rig.app.clone();
        serving.spawn(async move { app.publisher.serve(listener, &app).await });
        let stream = BufReader::new(UnixStream::connect(path).await.unwrap());
        let mut gateway = Self { stream, _serving: serving };
        gateway
            .say(&FromGateway::Hello {
                protocol: PUBLICATION_PROTOCOL,
                gateway: "gw-1".into(),
                version: "0".into(),
                generation: 0,
                ships_metrics,
            })
            .await;
        assert!(matches!(gateway.heard().await, ToGateway::Hello { takes_metrics: true, .. }));
        gateway
    }

    async fn say(&mut self, message: &FromGateway) {
        self.stream.write_all(&line::encode(message)).await.unwrap();
    }

    async fn ship(&mut self, batch: u64, rows: &[TrackedPrediction<'_>]) {
        let mut records = Vec::new();
        assert!(rows.iter().all(|row| row.encode(&mut records)));
        self.say(&FromGateway::Metrics { batch, bytes: records.len() }).await;
        self.stream.write_all(&records).await.unwrap();
    }

    async fn heard(&mut self) -> ToGateway {
        let mut text = String::new();
        self.stream.read_line(&mut text).await.unwrap();
        line::decode(text.as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn a_batch_is_kept_before_it_is_said_to_be_and_a_read_waits_for_what_gateways_still_have() {
    let mut shop = Shop::open().await;
    let mut gateway = Gateway::connect(&shop.rig, true).await;
    gateway.ship(1, &[shop.row(1, 1_000, 1_001)]).await;
    assert_eq!(gateway.heard().await, ToGateway::Kept { batch: 1 });
    assert_eq!(shop.rig.app.store.metric_counts().await, (1, 0));

    let (rows, ()) = tokio::join!(shop.rows(), async {
        let ToGateway::Flush { flush } = gateway.heard().await else { panic!("a read asks") };
        gateway.ship(2, &[shop.row(2, 1_000, 1_001)]).await;
        assert_eq!(gateway.heard().await, ToGateway::Kept { batch: 2 });
        gateway.say(&FromGateway::Unknown).await;
        gateway.say(&FromGateway::Flushed { flush }).await;
    });
    assert_eq!(rows.len(), 2);

    // It is asked and says nothing: the read goes on without it, and says so.
    let query = format!("/api/v2/metrics?model_crn={}", shop.crn(&shop.model));
    let read = shop.rig.call("GET", &query, Value::Null).await;
    let warning = read.headers["warning"].to_str().unwrap().to_owned();
    assert!(warning.starts_with("299 millgate ") && warning.contains("gw-1"), "{warning}");
    assert_eq!(read.ok()["metrics"].as_array().unwrap().len(), 2);

    // One of the version before was never asked: a line it does not know would have ended its connection.
    shop.gateway.say(&FromGateway::Acknowledged { generation: 1 }).await;
    drop(gateway);
    assert_eq!(shop.rows().await.len(), 2);
    shop.rig.app.publisher.refresh(&shop.rig.app).await.unwrap();
    assert!(matches!(shop.gateway.heard().await, ToGateway::Snapshot { .. }));
}

#[tokio::test]
async fn a_row_has_the_form_of_the_contract_and_is_one_however_often_it_is_shipped() {
    let shop = Shop::open().await;
    let row = shop.row(1, 1_746_629_493_901, 1_746_629_493_936);
    shop.ship(&[row, row]).await;
    shop.ship(&[row]).await;
    let wanted = json!([{
        "modelDeploymentCrn": shop.crn(&shop.deployment), "modelBuildCrn": shop.crn(&shop.build),
        "modelCrn": shop.crn(&shop.model), "startTimeStampMs": 1_746_629_493_901_i64,
        "endTimeStampMs": 1_746_629_493_936_i64, "predictionUuid": row.uuid, "metrics": {"n": 1},
    }]);
    for query in ["model_deployment_crn", "model_build_crn", "model_crn"] {
        let path = match query {
            "model_deployment_crn" => &shop.deployment,
            "model_build_crn" => &shop.build,
            _ => &shop.model,
        };
        assert_eq!(shop.read(&format!("{query}={}", shop.crn(path))).await["metrics"], wanted, "{query}");
    }
}

#[tokio::test]
async fn both_bounds_of_a_window_are_within_and_rows_ascend() {
    let shop = Shop::open().await;
    let rows = [(1, 3_000, 3_010), (2, 1_000, 1_010), (3, 2_000, 2_010), (4, 1_001, 1_005)];
    shop.ship(&rows.map(|(n, start, end)| shop.row(n, start, end))).await;
    let window = async |start: &str, end: &str| -> Vec<i64> {
        let crn = shop.crn(&shop.model);
        let query = format!("model_crn={crn}&start_timestamp_ms={start}&end_timestamp_ms={end}");
        let read = shop.read(&query).await;
        read["metrics"].as_array().unwrap().iter().map(|row| row["metrics"]["n"].as_i64().unwrap()).collect()
    };
    assert_eq!(window("0", "9000").await, [2, 4, 3, 1]);
    assert_eq!(window("1000", "2010").await, [2, 4, 3]);
    assert_eq!(window("1000.4", "2009.6").await, [2, 4, 3], "rounded to the nearest");
    assert_eq!(window("1002", "2009").await, [0_i64; 0]);
    let bad = shop.rig.call("GET", "/api/v2/metrics?model_crn=x&start_timestamp_ms=soon", Value::Null).await;
    assert_eq!(bad.error().0, 400);
}

#[tokio::test]
async fn pages_hold_every_row_once_while_others_come() {
    let shop = Shop::open().await;
    shop.ship(&(0..7).map(|n| shop.row(n, 1_000 + n.cast_unsigned() / 3, 2_000)).collect::<Vec<_>>()).await;
    let base = format!("model_crn={}&page_size=3", shop.crn(&shop.model));
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = shop.read(&format!("{base}&page_token={token}")).await;
        seen.extend(page["metrics"].as_array().unwrap().iter().map(|r| r["metrics"]["n"].as_i64().unwrap()));
        token = page["next_page_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
        // Behind what was read, and in no page to come.
        shop.ship(&[shop.row(8, 5, 6)]).await;
    }
    let by_start: Vec<i64> = seen.iter().map(|n| n / 3).collect();
    assert!(by_start.is_sorted(), "{seen:?}");
    seen.sort_unstable();
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
    let bad = shop.rig.call("GET", &format!("/api/v2/metrics?{base}&page_token=p3"), Value::Null).await;
    assert!(bad.error().1.contains("page_token"));
}

#[tokio::test]
async fn a_page_of_more_rows_than_are_held_at_one_time_is_whole() {
    let shop = Shop::open().await;
    let rows: Vec<_> = (0..1_000).map(|n| shop.row(n, 1_000, 2_000)).collect();
    shop.ship(&rows).await;
    assert_eq!(shop.rows().await.len(), 1_000);
}

#[tokio::test]
async fn many_predictions_of_a_second_are_one_row_of_the_database_and_are_read_as_what_they_are() {
    let shop = Shop::open().await;
    // Of three seconds, ten each hundredth.
    let rows: Vec<_> = (0..3_000).map(|n| shop.row(n, 5_000 + n.cast_unsigned(), 9_000)).collect();
    shop.ship(&rows).await;
    assert_eq!(shop.rig.app.store.chunk_lengths().await, [512, 488, 512, 488, 512, 488]);
    for page_size in [7_000, 700, 512] {
        assert_eq!(shop.numbers(page_size).await, (0..3_000).collect::<Vec<_>>(), "{page_size}");
    }
    let crn = shop.crn(&shop.deployment);
    let window =
        format!("model_deployment_crn={crn}&start_timestamp_ms=6998&end_timestamp_ms=9000&page_size=3");
    let read = shop.read(&window).await;
    let numbers: Vec<_> =
        read["metrics"].as_array().unwrap().iter().map(|row| row["metrics"]["n"].clone()).collect();
    assert_eq!(numbers, [1_998, 1_999, 2_000]);
}

#[tokio::test]
async fn a_batch_that_comes_again_cut_in_other_places_adds_what_is_new_of_it() {
    let shop = Shop::open().await;
    let rows: Vec<_> = (0..2_000).map(|n| shop.row(n, 5_000 + n.cast_unsigned() / 2, 9_000)).collect();
    for part in [0..700, 300..1_100, 0..3, 900..2_000, 0..2_000] {
        shop.ship(&rows[part]).await;
    }
    assert_eq!(shop.rig.app.store.metric_counts().await, (2_000, 0));
    let mut numbers = shop.numbers(300).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_kept_one_by_one_is_read_among_the_others_and_is_not_kept_again() {
    let shop = Shop::open().await;
    let key = shop.rig.key.clone();
    let store = &shop.rig.app.store;
    let deployment = DeploymentId::new(shop.deployment.clone());
    let source = store.metric_source(&deployment).await.unwrap().unwrap();
    // The source is noted with the first row.
    shop.ship(&[shop.row(1, 1_000, 1_001), shop.row(3, 3_000, 3_001)]).await;
    let new = id(5, 5_000);
    store.insert_singles(&source, &[(&old_id(2), 2_000), (&new, 5_000)]).await;
    let old_gateway = TrackedPrediction { uuid: old_id(4).leak(), ..shop.row(4, 4_000, 4_001) };
    shop.ship(&[old_gateway, shop.row(5, 5_000, 5_001)]).await;
    shop.ship(&[old_gateway, shop.row(6, 6_000, 6_001)]).await;
    assert_eq!(shop.numbers(2).await, [1, -1, 3, 4, -1, 6]);
    assert_eq!(shop.add(&key, &old_id(2), json!({"n": 2})).await, (200, None));
    assert_eq!(shop.add(&key, &new, json!({"n": 5})).await, (200, None));
    assert_eq!(shop.numbers(9).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(store.forget_metrics(4_000, 0).await.unwrap(), 3);
    assert_eq!(shop.numbers(9).await, [4, 5, 6]);
}

#[tokio::test]
async fn what_became_known_later_is_merged_in_the_order_it_came_also_when_it_came_first() {
    let shop = Shop::open().await;
    let key = shop.rig.key.clone();
    let (status, warning) = shop.add(&key, &id(1, 1_000), json!({"actual": "early", "x": 1})).await;
    assert!(status == 200 && warning.unwrap().contains("not there yet"));
    assert!(shop.rows().await.is_empty());
    shop.ship(&[shop.row(1, 1_000, 1_001)]).await;
    assert_eq!(shop.add(&key, &id(1, 1_000), json!({"actual": "late"})).await, (200, None));
    assert_eq!(shop.rows().await[0]["metrics"], json!({"n": 1, "actual": "late", "x": 1}));
}

#[tokio::test]
async fn numbers_keep_every_digit() {
    let shop = Shop::open().await;
    let long = r#"{"a": 123456789012345678901234567890, "b": 0.1000000000000000055511151231257827}"#;
    shop.ship(&[TrackedPrediction { metrics: long.as_bytes(), ..shop.row(1, 1, 2) }]).await;
    let body = format!(r#"{{"prediction_uuid": "{}", "metrics": {{"c": 1.00}}}}"#, id(1, 1));
    let request = axum::http::Request::post("/api/v2/metrics/delayed")
        .header("authorization", format!("Bearer {}", shop.rig.key))
        .body(axum::body::Body::from(body))
        .unwrap();
    shop.rig.send(request).await.ok();
    let query = format!("/api/v2/metrics?model_crn={}", shop.crn(&shop.model));
    let text = shop.rig.call("GET", &query, Value::Null).await.text;
    let wanted =
        r#""metrics":{"a":123456789012345678901234567890,"b":0.1000000000000000055511151231257827,"c":1.00}"#;
    assert!(text.contains(wanted), "{text}");
}

#[tokio::test]
async fn aggregates_are_rows_without_a_prediction() {
    let shop = Shop::open().await;
    let body = json!({
        "model_deployment_crn": shop.crn(&shop.deployment), "metrics": {"accuracy": 0.9},
        "start_timestamp_ms": 1_000.4, "end_timestamp_ms": "2000",
    });
    shop.rig.call("POST", "/api/v2/metrics/aggregates", body.clone()).await.ok();
    let rows = shop.rows().await;
    assert_eq!((rows.len(), rows[0].get("predictionUuid")), (1, None));
    assert_eq!((&rows[0]["startTimeStampMs"], &rows[0]["endTimeStampMs"]), (&json!(1_000), &json!(2_000)));
    for (field, value) in [
        ("metrics", json!([1])),
        ("metrics", Value::Null),
        ("start_timestamp_ms", json!(3_000)),
        ("end_timestamp_ms", json!("soon")),
        ("model_deployment_crn", Value::Null),
    ] {
        let mut wrong = body.clone();
        wrong[field] = value;
        let (status, said) = shop.rig.call("POST", "/api/v2/metrics/aggregates", wrong).await.error();
        assert!(status == 400 && said.contains("field `"), "{said}");
    }
}

#[tokio::test]
async fn strangers_see_nothing_the_public_reads_and_collaborators_add() {
    let shop = Shop::open().await;
    let (stranger, friend) = (shop.rig.user("stranger").await, shop.rig.user("friend").await);
    shop.ship(&[shop.row(1, 1_000, 1_001)]).await;
    // Before its row: nobody knows yet whether the author may.
    shop.add(&stranger, &id(2, 1_001), json!({"planted": 1})).await;
    let path = format!("{}/collaborators/friend", shop.project);
    shop.rig.call("PUT", &path, json!({"permission": "viewer"})).await.ok();
    shop.add(&friend, &id(2, 1_001), json!({"actual": 1})).await;
    shop.ship(&[shop.row(2, 1_001, 1_002)]).await;
    assert_eq!(shop.rows().await[1]["metrics"], json!({"n": 2, "actual": 1}));

    let read = format!("/api/v2/metrics?model_crn={}", shop.crn(&shop.model));
    let aggregate = json!({
        "model_deployment_crn": shop.crn(&shop.deployment), "metrics": {}, "start_timestamp_ms": 1, "end_timestamp_ms": 1,
    });
    let tries = async |key: &str| {
        let reading = shop.rig.call_as(key, "GET", &read, Value::Null).await.status.as_u16();
        let adding = shop.add(key, &id(1, 1_000), json!({"a": 1})).await.0;
        let path = "/api/v2/metrics/aggregates";
        let aggregating = shop.rig.call_as(key, "POST", path, aggregate.clone()).await.status.as_u16();
        (reading, adding, aggregating)
    };
    assert_eq!(tries(&friend).await, (200, 200, 200));
    assert_eq!(tries(&stranger).await, (404, 404, 404));
    assert_eq!(tries("mgk_bad").await, (401, 401, 401));
    shop.rig.call("PATCH", &shop.project, json!({"visibility": "public"})).await.ok();
    assert_eq!(tries(&stranger).await, (200, 404, 404));
}

#[tokio::test]
async fn what_names_nothing_is_said_to_be_nothing() {
    let shop = Shop::open().await;
    let other = shop.rig.model(&shop.project, "other").await;
    let get = async |query: String| {
        shop.rig.call("GET", &format!("/api/v2/metrics?{query}"), Value::Null).await.error()
    };
    assert!(get(String::new()).await.1.contains("model_deployment_crn"));
    assert_eq!(get("model_deployment_crn=nothing".into()).await.0, 404);
    assert_eq!(get("model_crn=crn:cdp:ml:us-west-1:millgate:workspace:another/m".into()).await.0, 404);
    let (model, deployment) = (shop.crn(&other), shop.crn(&shop.deployment));
    assert_eq!(get(format!("model_crn={model}&model_deployment_crn={deployment}")).await.0, 400);
    let bad = json!({"metrics": {}, "prediction_uuid": "7"});
    assert_eq!(shop.rig.call("POST", "/api/v2/metrics/delayed", bad).await.error().0, 400);
}

#[tokio::test]
async fn hostile_metrics_cost_their_row_nothing_but_themselves() {
    let shop = Shop::open().await;
    let hostile: [&[u8]; 5] = [b"", b"[1]", b"{\"a\":1}{", b"{\"a\":\"\xff\"}", b"{\"a\":\0}"];
    let rows: Vec<_> =
        (0..).zip(hostile).map(|(n, metrics)| TrackedPrediction { metrics, ..shop.row(n, 1, 2) }).collect();
    shop.ship(&rows).await;
    assert!(shop.rows().await.iter().all(|row| row["metrics"] == json!({})));
    assert_eq!(shop.rows().await.len(), 5);
}

#[tokio::test]
async fn old_predictions_are_deleted_with_what_was_added_and_a_deleted_model_leaves_nothing() {
    let shop = Shop::open().await;
    let key = shop.rig.key.clone();
    shop.ship(&[shop.row(1, 1_000, 1_001), shop.row(2, 3_000, 3_001)]).await;
    shop.add(&key, &id(1, 1_000), json!({"a": 1})).await;
    shop.add(&key, &id(2, 3_000), json!({"a": 2})).await;
    let aggregate = json!({
        "model_deployment_crn": shop.crn(&shop.deployment), "metrics": {}, "start_timestamp_ms": 900, "end_timestamp_ms": 950,
    });
    shop.rig.call("POST", "/api/v2/metrics/aggregates", aggregate).await.ok();
    let store = &shop.rig.app.store;
    assert_eq!(store.forget_metrics(2_000, 500).await.unwrap(), 1);
    let left = shop.rows().await;
    assert_eq!(left.len(), 2);
    assert_eq!((left[0].get("predictionUuid"), &left[1]["metrics"]), (None, &json!({"n": 2, "a": 2})));
    assert_eq!(store.metric_counts().await, (2, 1));

    let model = ModelId::new(shop.model.rsplit('/').next().unwrap());
    store.begin_model_deletion(&model).await.unwrap();
    store.purge_model(&model).await.unwrap();
    assert_eq!(store.metric_counts().await, (0, 0));
    shop.ship(&[shop.row(3, 1, 2)]).await;
    assert_eq!(store.metric_counts().await, (0, 0), "of a deployment that is not known");
}
