//! The reconciler with a real store, a launcher in memory and a gateway on a real socket.

use millgate_contract::{
    ids::DeploymentId,
    limits, line,
    publication::{FromGateway, PUBLICATION_PROTOCOL, ToGateway},
    route::{RouteSnapshot, Target},
    supervision::Phase,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use crate::{
    collection::deleted,
    launch::{Launcher, UnitName},
    moment::now_us,
    publish,
    reconcile::Reconciler,
    testing::Rig,
};

/// Passes until nothing changes any more, what is deleted being freed. A stop or a launch shows in the next pass only, hence three idle ones.
pub(crate) async fn settle(reconciler: &mut Reconciler) {
    let mut idle = 0;
    while idle < 3 {
        let mut has_changed = reconciler.pass().await.unwrap() > 0;
        while reconciler.launches.join_next().await.is_some() {
            has_changed = true;
        }
        has_changed |= deleted::free(&reconciler.app).await.unwrap();
        idle = if has_changed { 0 } else { idle + 1 };
    }
}

pub(super) async fn status(rig: &Rig, build: &str) -> Value {
    rig.deployment(build).await["status"].clone()
}

#[tokio::test]
async fn a_built_deployment_is_launched_routed_and_deployed() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "Add two numbers").await;
    let build = rig.build(&model, 3).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &build).await, "pending");
    assert!(rig.launcher.launched().is_empty());
    rig.pretend_built(&build).await;
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &build).await, "deployed");
    let spec = &rig.launcher.launched()[0];
    assert_eq!(spec.slots, 3);
    assert!(spec.replica_prefix.starts_with("add-two-numbers-1-1-"), "{}", spec.replica_prefix);
    assert_eq!(spec.environment["CDSW_API_URL"], "http://models.example.org:8080/api/v1");
    assert_eq!(spec.environment["OMP_NUM_THREADS"], "1");
}

#[tokio::test]
async fn variables_of_a_deployment_win_over_its_project_s_and_those_over_the_server_s() {
    let rig = Rig::new().await;
    let all = |value: &str, names: &[&str]| -> Value {
        names.iter().map(|name| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    };
    let body = json!({"environment": all("server", &["A", "B", "C"])});
    rig.call("PUT", "/api/v2/environment", body).await.ok();
    let project = json!({"name": "p", "environment": all("project", &["B", "C"])});
    let project = rig.call("POST", "/api/v2/projects", project).await.ok();
    let project = format!("/api/v2/projects/{}", project["id"].as_str().unwrap());
    let model = rig.model(&project, "m").await;
    let body = json!({
        "file_path": "a.py", "function_name": "f", "auto_deploy_model": true,
        "auto_deployment_config": { "environment": all("deployment", &["C"]) },
    });
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
    rig.pretend_built(&build).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    let environment = &rig.launcher.launched()[0].environment;
    assert_eq!(["A", "B", "C"].map(|name| environment[name].as_str()), ["server", "project", "deployment"]);
    // The next deployment inherits nothing of this one's own.
    rig.call("POST", &format!("{build}/deployments"), json!({})).await.ok();
    settle(&mut reconciler).await;
    let environment = &rig.launcher.launched()[1].environment;
    assert_eq!(["A", "B", "C"].map(|name| environment[name].as_str()), ["server", "project", "project"]);
}

#[tokio::test]
async fn a_new_deployment_replaces_the_old_one_and_a_failed_one_does_not() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    let first = rig.build(&model, 1).await;
    rig.pretend_built(&first).await;
    settle(&mut reconciler).await;
    rig.launcher.units_become(Some(Phase::Failed), "no module named sklearn");
    let second = rig.build(&model, 1).await;
    rig.pretend_built(&second).await;
    settle(&mut reconciler).await;
    let failed = rig.deployment(&second).await;
    assert_eq!(
        (&failed["status"], &failed["failure_reason"]),
        (&json!("failed"), &json!("no module named sklearn"))
    );
    assert_eq!(status(&rig, &first).await, "deployed");
    assert_eq!(rig.launcher.stopped(), [UnitName::deployment(2)]);
    rig.launcher.units_become(Some(Phase::Serving), "");
    let third = rig.build(&model, 1).await;
    rig.pretend_built(&third).await;
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &third).await, "deployed");
    assert_eq!(status(&rig, &first).await, "stopped");
    assert!(!rig.deployment(&first).await["stopped_at"].is_null());
}

#[tokio::test]
async fn a_launch_that_fails_is_the_deployments_reason() {
    let rig = Rig::new().await;
    rig.launcher.refuse(UnitName::deployment(1));
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    settle(&mut Reconciler::new(rig.app.clone())).await;
    let failed = rig.deployment(&build).await;
    assert_eq!(
        (&failed["status"], &failed["failure_reason"]),
        (&json!("failed"), &json!("refused by the test"))
    );
}

#[tokio::test]
async fn a_replica_host_that_went_down_is_launched_again_and_one_that_cannot_start_fails() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    rig.launcher.vanishes(&UnitName::deployment(1));
    settle(&mut reconciler).await;
    assert_eq!(rig.launcher.launched().len(), 2);
    assert_eq!(status(&rig, &build).await, "deployed");
    rig.launcher.becomes(&UnitName::deployment(1), Phase::Failed, "out of memory");
    settle(&mut reconciler).await;
    let failed = rig.deployment(&build).await;
    assert_eq!((&failed["status"], &failed["failure_reason"]), (&json!("failed"), &json!("out of memory")));
    assert_eq!(rig.launcher.stopped(), [UnitName::deployment(1)]);
}

#[tokio::test]
async fn a_build_that_was_changed_is_not_started() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    let id = build.rsplit('/').next().unwrap();
    std::fs::write(rig.app.dir.build(id).join("manifest.json"), "{}").unwrap();
    settle(&mut Reconciler::new(rig.app.clone())).await;
    let reason = rig.deployment(&build).await["failure_reason"].clone();
    assert!(reason.as_str().unwrap().contains("manifest was changed"), "{reason}");
    assert!(rig.launcher.launched().is_empty());
}

#[tokio::test]
async fn what_was_deployed_is_launched_again_after_a_restart() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    settle(&mut Reconciler::new(rig.app.clone())).await;
    let Rig { api, app, launcher, temp, .. } = rig;
    app.store.close().await;
    drop((api, app, launcher));
    let rig = Rig::on(temp).await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    settle(&mut Reconciler::new(rig.app.clone())).await;
    assert_eq!(rig.launcher.launched().len(), 1);
    assert_eq!(status(&rig, &build).await, "deployed");
}

#[tokio::test]
async fn deleting_a_model_stops_it_and_frees_its_space_and_name() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    assert_eq!(rig.call("DELETE", &model, json!({})).await.ok(), json!({}));
    assert_eq!(rig.call("GET", &model, Value::Null).await.error().0, 404);
    rig.model(&project, "m").await;
    settle(&mut reconciler).await;
    assert_eq!(rig.launcher.stopped(), [UnitName::deployment(1)]);
    assert!(!rig.app.dir.build(build.rsplit('/').next().unwrap()).exists());
    assert_eq!(rig.app.store.all_models().await.unwrap().len(), 1);
    rig.call("DELETE", &project, json!({})).await.ok();
    settle(&mut reconciler).await;
    assert!(!rig.app.dir.project(project.rsplit('/').next().unwrap()).exists());
}

#[tokio::test]
async fn stop_restart_and_an_unknown_unit() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    let deployment = rig.deployment(&build).await;
    let path = format!("{build}/deployments/{}", deployment["id"].as_str().unwrap());
    rig.call("POST", &format!("{path}:stop"), json!({})).await.ok();
    rig.pretend_built(&build).await;
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &build).await, "stopped", "a pending one stops whatever its build does");
    rig.call("POST", &format!("{path}:restart"), json!({})).await.ok();
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &build).await, "deployed");
    rig.call("POST", &format!("{path}:restart"), json!({})).await.ok();
    assert_eq!(rig.launcher.restarted(), [UnitName::deployment(1)]);
    let mut orphan = rig.launcher.launched()[0].clone();
    orphan.deployment = DeploymentId::new("unknown");
    rig.launcher.launch(UnitName::deployment(77), orphan).await.unwrap();
    settle(&mut reconciler).await;
    assert_eq!(rig.launcher.stopped(), [UnitName::deployment(77)]);
    assert_eq!(rig.call("POST", &format!("{path}:explode"), json!({})).await.error().0, 404);
}

/// A gateway that says what it is told to.
struct Gateway {
    stream: BufReader<UnixStream>,
}

impl Gateway {
    async fn connect(path: &std::path::Path) -> Self {
        let mut gateway = Self { stream: BufReader::new(UnixStream::connect(path).await.unwrap()) };
        let hello = FromGateway::Hello {
            protocol: PUBLICATION_PROTOCOL,
            gateway: "g".into(),
            version: "0".into(),
            generation: 0,
            ships_metrics: false,
        };
        gateway.say(&hello).await;
        assert!(matches!(gateway.line().await, ToGateway::Hello { .. }));
        gateway
    }

    async fn say(&mut self, message: &FromGateway) {
        self.stream.write_all(&line::encode(message)).await.unwrap();
    }

    async fn line(&mut self) -> ToGateway {
        let mut text = String::new();
        self.stream.read_line(&mut text).await.unwrap();
        line::decode(text.as_bytes()).unwrap()
    }

    async fn snapshot(&mut self) -> RouteSnapshot {
        let ToGateway::Snapshot { generation, bytes } = self.line().await else { panic!("a snapshot") };
        assert!(bytes <= limits::ROUTE_SNAPSHOT_BYTES_MAX);
        let mut sealed = vec![0; bytes];
        self.stream.read_exact(&mut sealed).await.unwrap();
        let snapshot = RouteSnapshot::open(&sealed).unwrap();
        assert_eq!(snapshot.generation, generation);
        snapshot
    }

    /// Snapshots until one sends the first model's calls where `to` says.
    async fn until(&mut self, to: impl Fn(&Target) -> bool) -> RouteSnapshot {
        loop {
            let snapshot = self.snapshot().await;
            if snapshot.models.first().is_some_and(|model| to(&model.target)) {
                return snapshot;
            }
        }
    }
}

/// Passes until `is_done`; the condition of others' work, hence with a pause.
async fn until(reconciler: &mut Reconciler, rig: &Rig, build: &str, wanted: &str) {
    while status(rig, build).await != wanted {
        settle(reconciler).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_deployment_counts_when_gateways_route_to_it_and_ends_when_none_does() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let path = rig.api.publication_socket();
    let listener = publish::bind(&path).unwrap();
    let app = rig.app.clone();
    let server = tokio::spawn(async move { app.publisher.serve(listener, &app).await });
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 2).await;
    rig.pretend_built(&build).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    rig.app.publisher.refresh(&rig.app).await.unwrap();
    let mut gateway = Gateway::connect(&path).await;
    gateway.snapshot().await;
    settle(&mut reconciler).await;
    let snapshot = gateway.until(|target| matches!(target, Target::Deployment(_))).await;
    let Target::Deployment(route) = &snapshot.models[0].target else { panic!() };
    assert_eq!(route.slots, 2);
    assert!(route.run_dir.ends_with("run/1"));
    settle(&mut reconciler).await;
    assert_eq!(status(&rig, &build).await, "deploying", "no gateway has acknowledged it");
    gateway.say(&FromGateway::Acknowledged { generation: snapshot.generation }).await;
    gateway.say(&FromGateway::Connected { deployment: route.deployment.clone(), slots: 2 }).await;
    until(&mut reconciler, &rig, &build, "deployed").await;
    let id = rig.deployment(&build).await["id"].as_str().unwrap().to_owned();
    rig.call("POST", &format!("{build}/deployments/{id}:stop"), json!({})).await.ok();
    settle(&mut reconciler).await;
    assert!(rig.launcher.stopped().is_empty(), "a gateway may still send calls to it");
    let snapshot = gateway.until(|target| matches!(target, Target::Unavailable(_))).await;
    gateway.say(&FromGateway::Acknowledged { generation: snapshot.generation }).await;
    until(&mut reconciler, &rig, &build, "stopped").await;
    assert_eq!(rig.launcher.stopped(), [UnitName::deployment(1)]);
    server.abort();
}

#[tokio::test]
async fn a_snapshot_says_who_may_call_and_which_keys_are_gone() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    rig.model(&project, "m").await;
    let key = rig.user("ada").await;
    rig.call("PUT", &format!("{project}/collaborators/ada"), json!({"permission": "viewer"})).await.ok();
    rig.call_as(&key, "DELETE", "/api/v2/users/ada/v2_keys", json!({})).await.ok();
    rig.app.publisher.refresh(&rig.app).await.unwrap();
    let listener = publish::bind(&rig.api.publication_socket()).unwrap();
    let app = rig.app.clone();
    let server = tokio::spawn(async move { app.publisher.serve(listener, &app).await });
    let mut gateway = Gateway::connect(&rig.api.publication_socket()).await;
    let snapshot = gateway.snapshot().await;
    let names = |names: &[millgate_contract::ids::Username]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&snapshot.administrators), ["admin"]);
    assert_eq!(names(&snapshot.projects[0].callers), ["ada", "admin"]);
    assert_eq!(snapshot.revoked.len(), 1);
    assert_eq!(snapshot.models[0].request_timeout_ms, 30_000);
    assert!(snapshot.models[0].requires_api_key);
    let Target::Unavailable(why) = &snapshot.models[0].target else { panic!() };
    assert_eq!(why, "the model has no deployment");
    server.abort();
}

#[tokio::test]
async fn what_a_deployment_printed_is_kept_after_its_end_until_its_time_is_over() {
    let rig = Rig::new().await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    let mut logs = Vec::new();
    for name in ["ended", "serving"] {
        let model = rig.model(&project, name).await;
        let build = rig.build(&model, 1).await;
        rig.pretend_built(&build).await;
        settle(&mut reconciler).await;
        let number = rig.deployment(&build).await["deployment_number"].as_i64().unwrap();
        let dir = rig.launcher.run_dir(&UnitName::deployment(number));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("replicas.log"), "{}\n").unwrap();
        logs.push((build, dir.join("replicas.log")));
    }
    let path = {
        let deployment = rig.deployment(&logs[0].0).await;
        format!("{}/deployments/{}", logs[0].0, deployment["id"].as_str().unwrap())
    };
    rig.call("POST", &format!("{path}:stop"), json!({})).await.ok();
    until(&mut reconciler, &rig, &logs[0].0, "stopped").await;
    let there = || [logs[0].1.exists(), logs[1].1.exists()];

    reconciler.logs_swept_at = None;
    settle(&mut reconciler).await;
    assert_eq!(there(), [true, true], "two weeks are not over");
    reconciler.sweep_logs(now_us() + 1).await.unwrap();
    assert_eq!(there(), [false, true]);
}
