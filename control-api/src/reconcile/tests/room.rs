//! Deployments that ask for more memory than is free.

use millgate_contract::supervision::Phase;
use serde_json::{Value, json};

use super::driver::{settle, status};
use crate::{reconcile::Reconciler, testing::Rig};

/// A control API on a host with so much memory.
async fn rig_with(memory_mb: u64, counts_template_and_spares: bool) -> Rig {
    let mut rig = Rig::new().await;
    rig.restart_with(|config| {
        config.memory_mb_max = Some(memory_mb);
        config.counts_template_and_spares = counts_template_and_spares;
    })
    .await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    rig
}

/// A built deployment of a model of its own, each replica with 1 GB; answers its build's path.
async fn asked_for(rig: &Rig, project: &str, name: &str, replicas: u16) -> String {
    let model = rig.model(project, name).await;
    again(rig, &model, replicas).await
}

async fn again(rig: &Rig, model: &str, replicas: u16) -> String {
    let body = json!({
        "file_path": "add.py", "function_name": "add", "auto_deploy_model": true,
        "auto_deployment_config": { "replicas": replicas, "memory": 1 },
    });
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
    rig.pretend_built(&build).await;
    build
}

async fn stop(rig: &Rig, build: &str) {
    let id = rig.deployment(build).await["id"].as_str().unwrap().to_owned();
    rig.call("POST", &format!("{build}/deployments/{id}:stop"), json!({})).await.ok();
}

async fn reason(rig: &Rig, build: &str) -> String {
    let deployment = rig.deployment(build).await;
    assert_eq!(deployment["failure_reason"] == "", deployment["status"] != "failed");
    deployment["status_reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_does_not_fit_waits_with_its_reason_and_goes_on_when_there_is_room() {
    let rig = rig_with(4_096, false).await;
    let project = rig.project("p").await;
    let first = asked_for(&rig, &project, "first", 3).await;
    let second = asked_for(&rig, &project, "second", 2).await;
    let small = asked_for(&rig, &project, "small", 1).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &first).await, "deployed");
    assert_eq!(status(&rig, &second).await, "pending");
    assert_eq!(status(&rig, &small).await, "deployed", "a smaller one passes one that waits");
    assert_eq!(
        reason(&rig, &second).await,
        "waits for memory: it asks for 2048 MB, 0 of 4096 MB are free; it goes on by itself when others end"
    );
    stop(&rig, &first).await;
    settle(&mut reconciler).await;
    assert_eq!(
        (status(&rig, &second).await, reason(&rig, &second).await),
        (json!("deployed"), String::new())
    );
}

#[tokio::test]
async fn a_new_deployment_needs_room_beside_the_one_that_serves_meanwhile() {
    let rig = rig_with(3_072, false).await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let old = again(&rig, &model, 2).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    let new = again(&rig, &model, 2).await;
    settle(&mut reconciler).await;
    assert_eq!((status(&rig, &old).await, status(&rig, &new).await), (json!("deployed"), json!("pending")));
    let why = reason(&rig, &new).await;
    assert!(why.ends_with("; deployment 1 of this model holds 2048 MB until then"), "{why}");
    let path = format!("{model}?include_latest=true");
    let shown = rig.call("GET", &path, Value::Null).await.ok();
    assert_eq!(shown["latest_deployment"]["deployment_number"], 2);
    assert_eq!(shown["serving_deployment"]["deployment_number"], 1);
    stop(&rig, &old).await;
    settle(&mut reconciler).await;
    assert_eq!((status(&rig, &old).await, status(&rig, &new).await), (json!("stopped"), json!("deployed")));
}

#[tokio::test]
async fn what_waits_can_be_stopped_and_what_no_host_has_fails() {
    let rig = rig_with(2_048, false).await;
    let project = rig.project("p").await;
    let holds = asked_for(&rig, &project, "holds", 2).await;
    let waits = asked_for(&rig, &project, "waits", 1).await;
    let never = asked_for(&rig, &project, "never", 3).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    let of = [status(&rig, &holds).await, status(&rig, &waits).await, status(&rig, &never).await];
    assert_eq!(of, ["deployed", "pending", "failed"]);
    assert_eq!(
        reason(&rig, &never).await,
        "unschedulable: it asks for 3072 MB of memory (3 × 1024 MB), this host has 2048 MB for all deployments"
    );
    stop(&rig, &waits).await;
    settle(&mut reconciler).await;
    assert_eq!((status(&rig, &waits).await, reason(&rig, &waits).await), (json!("stopped"), String::new()));
    assert_eq!(rig.launcher.launched().len(), 1);
}

#[tokio::test]
async fn template_and_spares_count_where_the_worst_case_is_wanted() {
    for (counts, expected) in [(false, "deployed"), (true, "pending")] {
        let rig = rig_with(5_120, counts).await;
        let project = rig.project("p").await;
        // One replica, one spare, one template.
        asked_for(&rig, &project, "first", 1).await;
        let second = asked_for(&rig, &project, "second", 1).await;
        settle(&mut Reconciler::new(rig.app.clone())).await;
        assert_eq!(status(&rig, &second).await, expected);
    }
}

#[tokio::test]
async fn what_serves_is_launched_again_though_others_wait_for_its_room() {
    let rig = rig_with(2_048, false).await;
    let project = rig.project("p").await;
    let serves = asked_for(&rig, &project, "serves", 2).await;
    let waits = asked_for(&rig, &project, "waits", 1).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    rig.launcher.vanishes(&crate::launch::UnitName::deployment(1));
    settle(&mut reconciler).await;
    assert_eq!(
        (status(&rig, &serves).await, status(&rig, &waits).await),
        (json!("deployed"), json!("pending"))
    );
    assert_eq!(rig.launcher.launched().len(), 2);
}
