//! Collection on a real directory and store.

use std::fs;

use millgate_contract::{ids::BuildId, supervision::Phase};
use serde_json::{Value, json};

use super::{deleted, pass};
use crate::{
    builder::{dependencies, manifest, rounds},
    reconcile::{Reconciler, tests::driver::settle},
    testing::Rig,
};

/// A server that keeps the newest build of each model only.
async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.restart_with(|config| {
        config.builds_keep_last = 1;
        config.builds_keep_days = 0;
    })
    .await;
    rig.launcher.units_become(Some(Phase::Serving), "");
    rig
}

/// A build that is built, with files of every kind; answers its path.
async fn built(rig: &Rig, model: &str) -> String {
    let body = json!({"file_path": "add.py", "function_name": "add"});
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
    let dir = rig.app.dir.build(id(&build).as_str());
    fs::create_dir_all(dir.join("root/data")).unwrap();
    fs::create_dir_all(dir.join("venv/lib")).unwrap();
    for (path, text) in [
        ("root/add.py", "def add(args): return 1"),
        ("root/data/weights", "1234"),
        ("build.log", "{}\n"),
        (dependencies::FILE, "# Python 3.12.4\nnumpy==2.1.0\n"),
    ] {
        fs::write(dir.join(path), text).unwrap();
    }
    rig.pretend_built(&build).await;
    build
}

fn id(build: &str) -> BuildId {
    BuildId::new(build.rsplit('/').next().unwrap())
}

/// What is in a build's folder, by name.
fn files(rig: &Rig, build: &str) -> Vec<String> {
    let entries = fs::read_dir(rig.app.dir.build(id(build).as_str())).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const WHOLE: [&str; 7] =
    [".sealed", "build.log", "dependencies.txt", "manifest.json", "root", "times.json", "venv"];
const LEFT: [&str; 3] = ["build.log", "dependencies.txt", "manifest.json"];

async fn model(rig: &Rig) -> String {
    let project = rig.project("p").await;
    rig.model(&project, "m").await
}

async fn deploy(rig: &Rig, build: &str) {
    rig.call("POST", &format!("{build}/deployments"), json!({})).await.ok();
    settle(&mut Reconciler::new(rig.app.clone())).await;
}

#[tokio::test]
async fn files_that_go_while_they_are_read_again_are_no_damage() {
    let rig = rig().await;
    let model = model(&rig).await;
    let (old, gone, lost) = (built(&rig, &model).await, built(&rig, &model).await, built(&rig, &model).await);
    let mut chosen = Vec::new();
    for build in [&old, &gone, &lost] {
        chosen.push(rig.app.store.build(&id(build)).await.unwrap().unwrap());
    }
    rig.call("DELETE", &gone, Value::Null).await.ok();
    deleted::free(&rig.app).await.unwrap();
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &old), LEFT);
    fs::remove_dir_all(rig.app.dir.build(id(&lost).as_str()).join("venv")).unwrap();
    fs::remove_file(rig.app.dir.build(id(&lost).as_str()).join("root/add.py")).unwrap();
    for (build, damaged) in chosen.iter().zip([0, 0, 1]) {
        rounds::look_at(&rig.app, build).await.unwrap();
        assert_eq!(rig.app.store.damaged_builds().await.unwrap(), damaged);
    }
    assert_eq!(rig.call("GET", &old, Value::Null).await.ok()["failure_reason"], "");
    for build in &chosen {
        rig.app.store.pretend_sealed_long_ago(&build.id).await;
    }
    assert!(rounds::next(&rig.app).await.unwrap(), "the one that is there");
    assert!(!rounds::next(&rig.app).await.unwrap());
}

#[tokio::test]
async fn of_old_builds_only_what_they_were_made_from_and_their_history_stays() {
    let rig = rig().await;
    let model = model(&rig).await;
    let (old, pinned, newest) =
        (built(&rig, &model).await, built(&rig, &model).await, built(&rig, &model).await);
    let shown = rig.call("PATCH", &pinned, json!({"is_pinned": true})).await.ok();
    assert_eq!(shown["is_pinned"], true);
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &old), LEFT);
    for kept in [&pinned, &newest] {
        assert_eq!(files(&rig, kept), WHOLE);
    }
    let shown = rig.call("GET", &old, Value::Null).await.ok();
    assert_eq!((&shown["status"], &shown["is_collected"]), (&json!("built"), &json!(true)));
    assert!(!shown["collected_at"].is_null());
    assert_eq!(shown["dependencies"], json!(["numpy==2.1.0"]));
    let log = rig.call("GET", &format!("{old}/log"), Value::Null).await;
    assert_eq!(log.status, 200, "{}", log.text);
    let audit = rig.call("GET", "/api/v2/audit?page_size=100", Value::Null).await.ok();
    let collected: Vec<&Value> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["operation"] == "BuildCollected")
        .collect();
    assert_eq!(collected.len(), 1);
    assert!(collected[0]["object"].as_str().unwrap().ends_with(id(&old).as_str()));
    rig.call("PATCH", &pinned, json!({"is_pinned": false})).await.ok();
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &pinned), LEFT);
}

#[tokio::test]
async fn what_is_collected_is_neither_deployed_nor_restarted_nor_pinned_and_the_refusal_says_what_to_do() {
    let rig = rig().await;
    let model = model(&rig).await;
    let old = built(&rig, &model).await;
    deploy(&rig, &old).await;
    let deployment = rig.deployment(&old).await;
    for _ in 0..3 {
        let next = built(&rig, &model).await;
        deploy(&rig, &next).await;
    }
    assert_eq!(rig.deployment(&old).await["status"], "stopped");
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &old), LEFT);
    let restart = format!("{old}/deployments/{}:restart", deployment["id"].as_str().unwrap());
    for (method, path, body) in [
        ("POST", format!("{old}/deployments"), json!({})),
        ("POST", restart, json!({})),
        ("PATCH", old.clone(), json!({"is_pinned": true})),
    ] {
        let (status, message) = rig.call(method, &path, body).await.error();
        assert_eq!(status, 400, "{message}");
        assert!(message.contains("build 1 was collected") && message.contains("--rebuild 1"), "{message}");
    }
    assert_eq!(rig.deployment(&old).await["status"], "stopped");
}

#[tokio::test]
async fn what_serves_and_what_served_before_it_stay_and_so_does_what_waits() {
    let rig = rig().await;
    let model = model(&rig).await;
    let mut builds = Vec::new();
    for _ in 0..5 {
        builds.push(built(&rig, &model).await);
    }
    for build in &builds[..3] {
        deploy(&rig, build).await;
    }
    // Asked for, and begun by nobody.
    rig.call("POST", &format!("{}/deployments", builds[3]), json!({})).await.ok();
    pass(&rig.app).await.unwrap();
    let is_whole: Vec<bool> = builds.iter().map(|build| files(&rig, build) == WHOLE).collect();
    assert_eq!(is_whole, [false, true, true, true, true]);
    assert!(!rig.app.store.collect_build(&id(&builds[3])).await.unwrap(), "nor when it is asked for by name");
}

#[tokio::test]
async fn whoever_is_killed_in_between_goes_on_and_half_a_build_is_never_started() {
    let rig = rig().await;
    let model = model(&rig).await;
    let old = built(&rig, &model).await;
    built(&rig, &model).await;
    let dir = rig.app.dir.build(id(&old).as_str());
    let hash = rig.call("GET", &old, Value::Null).await.ok()["build_hash"].as_str().unwrap().to_owned();
    // Killed after the mark.
    assert!(rig.app.store.collect_build(&id(&old)).await.unwrap());
    assert_eq!(files(&rig, &old), WHOLE);
    let deployed = rig.call("POST", &format!("{old}/deployments"), json!({})).await;
    assert_eq!(deployed.error().0, 400, "the mark counts, not the files");
    // Killed among the files.
    fs::remove_file(dir.join("root/data/weights")).unwrap();
    fs::remove_dir_all(dir.join("venv")).unwrap();
    assert!(manifest::check(&dir, &hash).is_err());
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &old), LEFT);
    assert!(rig.app.store.builds_to_free().await.unwrap().is_empty());
    // Killed after the files and before that was known: the folder may even be gone.
    let other = built(&rig, &model).await;
    built(&rig, &model).await;
    assert!(rig.app.store.collect_build(&id(&other)).await.unwrap());
    fs::remove_dir_all(rig.app.dir.build(id(&other).as_str())).unwrap();
    pass(&rig.app).await.unwrap();
    assert!(rig.app.store.builds_to_free().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_failed_build_left_goes_but_for_its_log() {
    let rig = rig().await;
    let model = model(&rig).await;
    let body = json!({"file_path": "nowhere.py", "function_name": "f"});
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let build = format!("{model}/builds/{}", build["id"].as_str().unwrap());
    assert!(crate::builder::next(&rig.app).await.unwrap());
    pass(&rig.app).await.unwrap();
    assert_eq!(files(&rig, &build), ["build.log"]);
    assert_eq!(rig.call("GET", &build, Value::Null).await.ok()["status"], "build failed");
}
