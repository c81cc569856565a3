//! Tracked metrics from the replica's answer to the control API's word that they are kept.

use std::{fs, path::Path};

use millgate_contract::{
    ids::ModelId,
    line,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    route::ModelRoute,
    tracked::{Records, TrackedPrediction},
};
use millgate_gateway::{GatewayConfig, Spool, SpoolConfig};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    double::{Act, Double},
    house::{House, OTHER_ACCESS_KEY, digest, model, snapshot},
    http::post,
};

const PREDICT: Act = Act::Predict { value: "2", metrics: r#"{"n":1}"# };

fn config(folder: &Path) -> GatewayConfig {
    let spool = SpoolConfig::new(folder).with_bytes_max(SpoolConfig::BYTES_MIN);
    GatewayConfig { spool: Some(Spool::open(spool).unwrap()), ..GatewayConfig::default() }
}

/// What is on the disk, read as anybody could after the gateway's end.
fn on_disk(spool: &Path) -> Vec<TrackedPrediction<'static>> {
    let folder = spool.join("000");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "seg"));
    files.sort();
    files.iter().flat_map(|file| Records::of(fs::read(file).unwrap().leak())).collect()
}

/// A control API that takes metrics, on one connection.
struct Control {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Control {
    async fn accept(listener: &UnixListener, takes_metrics: bool) -> Self {
        let (reader, writer) = listener.accept().await.unwrap().0.into_split();
        let mut control = Self { reader: BufReader::new(reader), writer };
        control
            .say(&ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, version: "0".into(), takes_metrics })
            .await;
        control
    }

    async fn say(&mut self, message: &ToGateway) {
        self.writer.write_all(&line::encode(message)).await.unwrap();
    }

    async fn heard(&mut self) -> FromGateway {
        let mut heard = String::new();
        self.reader.read_line(&mut heard).await.unwrap();
        line::decode(heard.as_bytes()).unwrap()
    }

    /// The next batch, not yet kept.
    async fn batch(&mut self) -> (u64, Vec<TrackedPrediction<'static>>) {
        loop {
            if let FromGateway::Metrics { batch, bytes } = self.heard().await {
                let mut records = vec![0; bytes];
                self.reader.read_exact(&mut records).await.unwrap();
                return (batch, Records::of(records.leak()).collect());
            }
        }
    }
}

#[tokio::test]
async fn what_a_call_tracked_is_on_the_disk_when_its_caller_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let (house, double) = House::with_config(config(temp.path()), 1, vec![PREDICT, Act::Echo]).await;
    let before = std::time::SystemTime::now();
    let body: serde_json::Value = serde_json::from_str(&house.call("1").await.body).unwrap();
    let rows = on_disk(temp.path());
    assert_eq!(rows.len(), 1);
    assert_eq!(body["response"]["uuid"], rows[0].uuid);
    assert_eq!((rows[0].model, rows[0].deployment), ("m1", double.name.as_str()));
    assert_eq!(rows[0].metrics, br#"{"n":1}"#);
    let before_ms = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(before_ms <= u128::from(rows[0].start_ms) + 1 && rows[0].start_ms <= rows[0].end_ms);
}

#[tokio::test]
async fn a_prediction_whose_metrics_cannot_be_written_is_not_answered_with_success() {
    let temp = tempfile::tempdir().unwrap();
    let (house, double) = House::with_config(config(temp.path()), 1, vec![PREDICT, PREDICT]).await;
    // No file can be made where there is no folder.
    let folder = temp.path().join("000");
    fs::remove_dir_all(&folder).unwrap();
    let failed = house.call("1").await;
    assert_eq!((failed.status, failed.code()), (500, "gateway.internal".to_owned()));
    // It ran; from now on calls are refused before they do.
    let refused = house.call("2").await;
    assert_eq!((refused.status, refused.code()), (503, "model.unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(double.accepted(), ["1"]);
    assert_eq!(house.figure("millgate_spool_failed_calls_total").await.as_deref(), Some("1"));
    assert_eq!(house.figure("millgate_spool_refused_calls_total").await.as_deref(), Some("1"));
    fs::create_dir(&folder).unwrap();
    house.until_figure("millgate_spool_failing", "0").await;
    assert_eq!(house.call("3").await.status, 200);
    assert_eq!(on_disk(temp.path()).len(), 1);
}

#[tokio::test]
async fn a_full_spool_refuses_calls_before_they_run_and_only_those_that_track() {
    let temp = tempfile::tempdir().unwrap();
    let large: &'static str = format!(r#"{{"x":"{}"}}"#, "7".repeat(60_000)).leak();
    let acts = vec![Act::Predict { value: "2", metrics: large }; 20];
    let (house, double) = House::with_config(config(temp.path()), 1, acts).await;
    let other = Double::start(house.folder.path(), "d2", 1, vec![]);
    let plain = ModelRoute {
        model: ModelId::new("m2"),
        name: "plain".into(),
        access_key_digest: digest(OTHER_ACCESS_KEY),
        ..model(&other)
    };
    house.gateway.apply(snapshot(2, vec![model(&double), plain])).unwrap();
    let mut answered = 0;
    let refused = loop {
        let answer = house.call("1").await;
        if answer.status != 200 {
            break answer;
        }
        answered += 1;
    };
    assert_eq!((refused.status, refused.code()), (503, "model.unavailable".to_owned()));
    assert_eq!((double.accepted().len(), on_disk(temp.path()).len()), (answered, answered));
    let call = post("/model", &[], &format!(r#"{{"accessKey":"{OTHER_ACCESS_KEY}","request":7}}"#));
    for _ in 0..3 {
        assert_eq!(house.ask(&call).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_not_said_to_be_kept_is_shipped_to_the_next_control_api_and_a_flush_is_answered_behind_it() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("gateways.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let spool = temp.path().join("spool");
    let (house, _double) = House::with_config(config(&spool), 1, vec![PREDICT, PREDICT]).await;
    let gateway = house.gateway.clone();
    let task = tokio::spawn(async move { gateway.follow(socket).await });
    let mut control = Control::accept(&listener, true).await;
    assert!(matches!(control.heard().await, FromGateway::Hello { ships_metrics: true, .. }));
    assert_eq!(house.call("1").await.status, 200);
    let (_, first) = control.batch().await;
    assert_eq!(first, on_disk(&spool));
    drop(control);

    let mut control = Control::accept(&listener, true).await;
    let (batch, again) = control.batch().await;
    assert_eq!(again, first);
    assert_eq!(house.call("2").await.status, 200);
    control.say(&ToGateway::Flush { flush: 9 }).await;
    control.say(&ToGateway::Kept { batch }).await;
    let (batch, second) = control.batch().await;
    assert_eq!(second, on_disk(&spool)[1..]);
    control.say(&ToGateway::Kept { batch }).await;
    assert_eq!(control.heard().await, FromGateway::Flushed { flush: 9 });
    // With nothing to ship the answer comes at once.
    control.say(&ToGateway::Flush { flush: 10 }).await;
    assert_eq!(control.heard().await, FromGateway::Flushed { flush: 10 });
    task.abort();
}

#[tokio::test]
async fn a_control_api_of_the_version_before_is_told_nothing_it_does_not_know() {
    let temp = tempfile::tempdir().unwrap();
    let socket = temp.path().join("gateways.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (house, _double) = House::with_config(config(&temp.path().join("spool")), 1, vec![PREDICT]).await;
    let gateway = house.gateway.clone();
    let task = tokio::spawn(async move { gateway.follow(socket).await });
    let mut control = Control::accept(&listener, false).await;
    assert_eq!(house.call("1").await.status, 200);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    tokio::time::resume();
    control.say(&ToGateway::Snapshot { generation: 1, bytes: usize::MAX }).await;
    let mut said = Vec::new();
    loop {
        said.push(control.heard().await);
        if matches!(said.last(), Some(FromGateway::Rejected { .. })) {
            break;
        }
    }
    let known = |m: &FromGateway| {
        matches!(m, FromGateway::Hello { .. } | FromGateway::Connected { .. } | FromGateway::Rejected { .. })
    };
    assert!(said.iter().all(known), "{said:?}");
    task.abort();
}
