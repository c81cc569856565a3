//! Changes of routes while calls go on.

use std::sync::Arc;

use millgate_contract::{
    ids::ModelId,
    route::{ModelRoute, OnHangUp, Target},
};
use millgate_gateway::{Applied, ApplyError, GatewayConfig};
use tokio::sync::Notify;

use crate::{
    double::{Act, Double},
    house::{House, OTHER_ACCESS_KEY, digest, long_folder, model, snapshot},
};

#[tokio::test]
async fn a_model_moves_to_its_next_deployment_without_a_gap() {
    let hold = Arc::new(Notify::new());
    let (house, old) = House::with_acts(1, vec![Act::Echo, Act::Hold(hold.clone())]).await;
    assert_eq!(house.call("0").await.status, 200);
    // Its sockets do not exist yet: the old one goes on.
    let absent = house.folder.path().join("d2");
    let mut moved = model(&old);
    if let Target::Deployment(target) = &mut moved.target {
        target.deployment = millgate_contract::ids::DeploymentId::new("d2");
        target.run_dir = absent;
    }
    house.gateway.apply(snapshot(2, vec![moved])).unwrap();
    let mut running = house.begin("1").await;
    old.until_read(2).await;
    let mut waiting = house.begin("2").await;
    house.until_in_line(1).await;
    let new = Double::start(house.folder.path(), "d2", 1, vec![]);
    let answer = waiting.answer().await;
    assert!(answer.body.contains("d2-r0"), "{answer:?}");
    hold.notify_one();
    assert!(running.answer().await.body.contains("d1-r0"));
    for _ in 0..3 {
        assert!(house.call("3").await.body.contains("d2-"));
    }
    assert_eq!(old.read(), ["0", "1"]);
    assert_eq!(new.read().len(), 4);
}

#[tokio::test]
async fn a_snapshot_that_leaves_a_model_as_it_is_leaves_its_connections() {
    let (house, double) = House::with_acts(1, vec![]).await;
    assert!(house.call("1").await.body.contains("d1-r0"));
    let other = ModelRoute {
        model: ModelId::new("m2"),
        name: "other".into(),
        access_key_digest: digest(OTHER_ACCESS_KEY),
        target: Target::Unavailable("the model is stopped".into()),
        ..model(&double)
    };
    let renamed = ModelRoute { request_timeout_ms: 7, on_hang_up: OnHangUp::Cancel, ..model(&double) };
    assert_eq!(house.gateway.apply(snapshot(2, vec![model(&double), other])).unwrap(), Applied::Routed);
    assert!(house.call("2").await.body.contains("d1-r0"));
    house.gateway.apply(snapshot(3, vec![renamed])).unwrap();
    assert!(house.call("3").await.body.contains("d1-r0"));
    assert_eq!(double.calls()[2].remaining_ms, 7);
}

#[tokio::test]
async fn a_deleted_model_is_unknown_and_its_figures_are_gone() {
    let (house, _double) = House::with_acts(1, vec![]).await;
    assert_eq!(house.call("1").await.status, 200);
    assert!(house.metrics().await.contains("m1"));
    house.gateway.apply(snapshot(2, vec![])).unwrap();
    assert_eq!(house.call("1").await.code(), "access_key.invalid");
    assert!(!house.metrics().await.contains("m1"));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_changes_nothing() {
    let (house, double) = House::with_acts(1, vec![]).await;
    let good = || model(&double);
    let mut bad_digest_key = snapshot(2, vec![good()]);
    bad_digest_key.verification.access_key_digest_key = "zz".into();
    let mut too_many = good();
    if let Target::Deployment(target) = &mut too_many.target {
        target.slots = 1_000;
    }
    let refused = [
        bad_digest_key,
        snapshot(2, vec![ModelRoute { access_key_digest: "00".into(), ..good() }]),
        snapshot(2, vec![good(), good()]),
        snapshot(2, vec![good(), ModelRoute { model: ModelId::new("m2"), ..good() }]),
        snapshot(2, vec![too_many]),
        snapshot(0, vec![]),
    ];
    let told: Vec<String> =
        refused.into_iter().map(|s| house.gateway.apply(s).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(told.join("\n"));
    assert_eq!(house.gateway.apply(snapshot(1, vec![])).unwrap(), Applied::Unchanged);
    assert!(matches!(house.gateway.apply(snapshot(0, vec![])), Err(ApplyError::Older { .. })));
    assert!(house.call("1").await.body.contains("d1-r0"));
    assert_eq!(house.gateway.generation(), 1);
}

#[tokio::test]
async fn sockets_with_long_paths_are_reached() {
    let house = House::open(GatewayConfig::default()).await;
    let double = Double::start(&long_folder(house.folder.path()), "d1", 1, vec![]);
    house.gateway.apply(snapshot(1, vec![model(&double)])).unwrap();
    assert_eq!(house.call("1").await.status, 200);
}
