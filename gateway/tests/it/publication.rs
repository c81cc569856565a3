//! What the control API publishes, and what a gateway makes of it.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use millgate_contract::{
    limits::ROUTE_SNAPSHOT_BYTES_MAX,
    line,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    route::RouteSnapshot,
};
use millgate_gateway::GatewayConfig;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

use crate::{
    double::Double,
    house::{House, model, snapshot},
};

/// The publisher's side of one connection.
struct Publisher {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Publisher {
    async fn accept(listener: &UnixListener) -> Self {
        let (reader, writer) = listener.accept().await.unwrap().0.into_split();
        let mut publisher = Self { lines: BufReader::new(reader).lines(), writer };
        let hello =
            ToGateway::Hello { protocol: PUBLICATION_PROTOCOL, version: "0".into(), takes_metrics: false };
        publisher.writer.write_all(&line::encode(&hello)).await.unwrap();
        publisher
    }

    async fn publish(&mut self, generation: u64, sealed: &[u8]) {
        self.announce(generation, sealed.len()).await;
        self.writer.write_all(sealed).await.unwrap();
    }

    async fn announce(&mut self, generation: u64, bytes: usize) {
        self.writer.write_all(&line::encode(&ToGateway::Snapshot { generation, bytes })).await.unwrap();
    }

    async fn heard(&mut self) -> FromGateway {
        let heard = self.lines.next_line().await.unwrap().expect("the gateway stays");
        line::decode(heard.as_bytes()).unwrap()
    }
}

fn following(house: &House, socket: PathBuf) -> JoinHandle<()> {
    let gateway = house.gateway.clone();
    tokio::spawn(async move { gateway.follow(socket).await })
}

fn config(file: &Path) -> GatewayConfig {
    GatewayConfig { name: "gw-1".into(), snapshot_file: Some(file.to_owned()), ..GatewayConfig::default() }
}

#[tokio::test]
async fn a_snapshot_is_routed_by_acknowledged_and_kept_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("routes.sealed"), folder.path().join("gateways.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let house = House::open(config(&file)).await;
    let double = Double::start(folder.path(), "d1", 2, vec![]);
    let task = following(&house, socket.clone());
    let mut publisher = Publisher::accept(&listener).await;
    let hello = publisher.heard().await;
    assert!(matches!(hello, FromGateway::Hello { gateway, generation: 0, .. } if gateway == "gw-1"));
    publisher.publish(5, &snapshot(5, vec![model(&double)]).seal()).await;
    let mut heard = Vec::new();
    loop {
        heard.push(publisher.heard().await);
        if matches!(heard.last(), Some(FromGateway::Connected { slots: 2, .. })) {
            break;
        }
    }
    assert!(heard.contains(&FromGateway::Acknowledged { generation: 5 }));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // The control API vanishes: calls go on, and the gateway comes back by itself.
    drop(publisher);
    assert_eq!(house.call("1").await.status, 200);
    let mut publisher = Publisher::accept(&listener).await;
    assert!(matches!(publisher.heard().await, FromGateway::Hello { generation: 5, .. }));
    assert!(matches!(publisher.heard().await, FromGateway::Connected { slots: 2, .. }));
    task.abort();
    house.close().await;

    // A gateway that starts without the control API routes as before.
    let alone = House::open(config(&file)).await;
    assert_eq!(alone.gateway.generation(), 5);
    assert_eq!(alone.call("2").await.status, 200);
}

#[tokio::test]
async fn bad_snapshots_are_refused_counted_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (file, socket) = (folder.path().join("routes.sealed"), folder.path().join("gateways.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let house = House::open(config(&file)).await;
    let double = Double::start(folder.path(), "d1", 1, vec![]);
    let task = following(&house, socket.clone());
    let mut publisher = Publisher::accept(&listener).await;
    publisher.heard().await;
    let good = snapshot(5, vec![model(&double)]).seal();
    publisher.publish(5, &good).await;
    let mut changed = snapshot(6, vec![]).seal();
    *changed.last_mut().unwrap() ^= 1;
    let cut = &snapshot(7, vec![]).seal()[..200];
    let other_format = RouteSnapshot { format: 99, ..snapshot(8, vec![]) }.seal();
    let unusable = snapshot(9, vec![model(&double), model(&double)]).seal();
    let older = snapshot(4, vec![]).seal();
    for (generation, bad) in [(6, &changed[..]), (7, cut), (8, &other_format), (9, &unusable), (4, &older)] {
        publisher.publish(generation, bad).await;
    }
    publisher.announce(10, ROUTE_SNAPSHOT_BYTES_MAX * 10).await;
    let mut reasons = Vec::new();
    while reasons.len() < 6 {
        if let FromGateway::Rejected { generation, reason } = publisher.heard().await {
            reasons.push(format!("{}: {reason}", generation.unwrap()));
        }
    }
    insta::assert_snapshot!(reasons.join("\n"));
    assert_eq!(house.figure("millgate_route_snapshots_rejected_total").await.as_deref(), Some("6"));
    assert_eq!(house.call("1").await.status, 200);
    assert_eq!(std::fs::read(&file).unwrap(), good);
    task.abort();
}

#[tokio::test]
async fn a_snapshot_that_could_not_be_saved_is_saved_later_though_none_comes_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (away, socket) = (folder.path().join("away"), folder.path().join("gateways.sock"));
    let file = away.join("routes.sealed");
    let listener = UnixListener::bind(&socket).unwrap();
    let house = House::open(config(&file)).await;
    let task = following(&house, socket);
    let mut publisher = Publisher::accept(&listener).await;
    publisher.heard().await;
    let sealed = snapshot(5, vec![]).seal();
    publisher.publish(5, &sealed).await;
    assert_eq!(publisher.heard().await, FromGateway::Acknowledged { generation: 5 });
    assert_eq!(house.figure("millgate_route_snapshot_unsaved").await.as_deref(), Some("1"));

    std::fs::create_dir(&away).unwrap();
    house.until_figure("millgate_route_snapshot_unsaved", "0").await;
    assert_eq!(std::fs::read(&file).unwrap(), sealed);
    // The same where the control API has gone meanwhile.
    std::fs::remove_dir_all(&away).unwrap();
    let sealed = snapshot(6, vec![]).seal();
    publisher.publish(6, &sealed).await;
    assert_eq!(publisher.heard().await, FromGateway::Acknowledged { generation: 6 });
    drop((publisher, listener));
    std::fs::create_dir(&away).unwrap();
    house.until_figure("millgate_route_snapshot_unsaved", "0").await;
    assert_eq!(std::fs::read(&file).unwrap(), sealed);
    task.abort();
}

#[tokio::test]
async fn a_damaged_file_is_counted_and_the_gateway_starts_without_routes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.sealed");
    std::fs::write(&file, b"not a snapshot").unwrap();
    let house = House::open(config(&file)).await;
    assert_eq!(house.gateway.generation(), 0);
    assert_eq!(house.admin("/ready").await.status, 503);
    assert_eq!(house.figure("millgate_route_snapshots_rejected_total").await.as_deref(), Some("1"));
    assert_eq!(house.call("1").await.code(), "model.unavailable");
}
