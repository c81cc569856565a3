//! Builds with a real interpreter and environment; the trial's replica is in memory.

use millgate_contract::{ids::BuildId, supervision::Phase};
use serde_json::{Value, json};

use crate::{
    builder,
    launch::UnitName,
    reconcile::{Reconciler, tests::driver::settle},
    rows::BuildStatus::{Building, Built, Pending, Pushing},
    testing::Rig,
};

/// A project with files, a model, and a build asked for; answers the build's path.
async fn ask(rig: &Rig, files: &[(&str, &str)], body: Value) -> String {
    rig.launcher.units_become(Some(Phase::Serving), "");
    let project = rig.project("p").await;
    let root = rig.app.dir.project(project.rsplit('/').next().unwrap());
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let model = rig.model(&project, "m").await;
    let mut request = json!({"file_path": "add.py", "function_name": "add"});
    request.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let build = rig.call("POST", &format!("{model}/builds"), request).await.ok();
    format!("{model}/builds/{}", build["id"].as_str().unwrap())
}

/// Another build of the same model; answers its path.
async fn ask_again(rig: &Rig, model: &str) -> String {
    let body = json!({"file_path": "add.py", "function_name": "add"});
    let build = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    format!("{model}/builds/{}", build["id"].as_str().unwrap())
}

async fn made(rig: &Rig, build: &str) -> Value {
    assert!(builder::next(&rig.app).await.unwrap());
    rig.call("GET", build, Value::Null).await.ok()
}

/// The same while the reconciler looks after deployments.
async fn made_beside_deployments(rig: &Rig, build: &str) -> Value {
    assert!(rig.make_next_build().await);
    rig.call("GET", build, Value::Null).await.ok()
}

async fn log(rig: &Rig, build: &str) -> String {
    rig.call("GET", &format!("{build}/log?follow=true"), Value::Null).await.text
}

#[tokio::test]
async fn a_build_without_a_script_is_sealed_with_what_its_trial_answered() {
    let rig = Rig::new().await;
    rig.launcher.examples_answer("8");
    let files =
        [("add.py", "def add(args): return args['a'] + args['b']"), (".gitignore", "junk\n"), ("junk", "")];
    let build = ask(&rig, &files, json!({"example_request": {"a": 3, "b": 5}})).await;
    let shown = made(&rig, &build).await;
    assert_eq!(shown["status"], "built", "{shown}");
    assert_eq!(shown["example_response"], "8");
    assert!(!shown["built_at"].is_null());
    let dir = rig.app.dir.build(shown["id"].as_str().unwrap());
    assert!(dir.join("root/add.py").is_file() && !dir.join("root/junk").exists());
    assert!(dir.join("venv/bin/python").exists() && !dir.join("venv/bin/pip").exists());
    builder::manifest::check(&dir, shown["build_hash"].as_str().unwrap()).unwrap();
    let trial = &rig.launcher.launched()[0];
    assert_eq!(trial.example_request.as_deref(), Some(r#"{"a":3,"b":5}"#));
    assert_eq!(trial.slots, 1);
    assert_eq!(rig.launcher.stopped(), [UnitName::build(1)]);
    assert!(!builder::next(&rig.app).await.unwrap(), "nothing is left to build");
}

#[tokio::test]
async fn a_large_ignored_file_is_warned_of_and_comes_with_a_build_that_includes_it() {
    let rig = Rig::new().await;
    let files = [("add.py", ""), (".gitignore", "*.pkl")];
    let build = ask(&rig, &files, json!({})).await;
    let project = rig.app.dir.project(build.split('/').nth(4).unwrap());
    std::fs::File::create(project.join("m.pkl")).unwrap().set_len(60_000_000).unwrap();
    let shown = made(&rig, &build).await;
    let warning = shown["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("`m.pkl` (60 MB) is left out") && warning.contains("--include 'm.pkl'"),
        "{warning}"
    );
    assert!(log(&rig, &build).await.contains("warning: `m.pkl`"));
    let model = build.split("/builds/").next().unwrap();
    let body = json!({"file_path": "add.py", "function_name": "add", "include": ["*.pkl"]});
    let again = rig.call("POST", &format!("{model}/builds"), body).await.ok();
    let again = made(&rig, &format!("{model}/builds/{}", again["id"].as_str().unwrap())).await;
    assert_eq!((&again["include"], &again["warnings"]), (&json!(["*.pkl"]), &json!([])), "{again}");
    assert!(rig.app.dir.build(again["id"].as_str().unwrap()).join("root/m.pkl").is_file());
    let body = json!({"file_path": "add.py", "function_name": "add", "include": ["!x"]});
    let (status, message) = rig.call("POST", &format!("{model}/builds"), body).await.error();
    assert!(status == 400 && message.starts_with("field `include`: pattern \"!x\" begins with"), "{message}");
}

#[tokio::test]
async fn a_script_runs_in_the_builds_environment_and_its_files_belong_to_the_build() {
    let rig = Rig::new().await;
    let script = "set -e\npip --version | grep -q \"$VIRTUAL_ENV\"\necho \"for $CDSW_PROJECT\" > made.txt\n\
                  echo 'def add(args): return 1' > add.py\necho loud >&2\n";
    let build = ask(&rig, &[("cdsw-build.sh", script)], json!({})).await;
    let shown = made(&rig, &build).await;
    let log = log(&rig, &build).await;
    assert_eq!(shown["status"], "built", "{log}");
    let dir = rig.app.dir.build(shown["id"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(dir.join("root/made.txt")).unwrap(), "for p\n");
    assert!(log.contains("\"text\":\"loud\""), "{log}");
    for step in ["snapshot", "environment", "import", "seal"] {
        assert!(log.contains(&format!("event: progress\ndata: {{\"step\":\"{step}\"")), "{step}: {log}");
    }
    assert!(log.trim_end().rsplit("\n\n").next().unwrap().starts_with("event: done\n"), "{log}");
}

#[tokio::test]
async fn a_script_that_fails_is_named_with_its_last_lines() {
    let rig = Rig::new().await;
    let files = [("add.py", ""), ("deps/build.sh", "echo one; echo two >&2; exit 3")];
    let build = ask(&rig, &files, json!({"build_script_path": "deps/build.sh"})).await;
    let shown = made(&rig, &build).await;
    let reason = shown["failure_reason"].as_str().unwrap();
    assert_eq!(shown["status"], "build failed");
    assert!(reason.starts_with("environment: deps/build.sh ended with exit status: 3"), "{reason}");
    assert!(reason.contains("one") && reason.contains("two"), "{reason}");
    let log = log(&rig, &build).await;
    assert!(log.contains("\"status\":\"build failed\""), "{log}");
}

#[tokio::test]
async fn what_is_not_there_is_said_before_the_environment_is_made() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("other.py", "")], json!({})).await;
    let reason = made(&rig, &build).await["failure_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("there is no file \"add.py\"") && reason.contains(".gitignore"), "{reason}");
    assert!(rig.launcher.launched().is_empty());
    assert!(!log(&rig, &build).await.contains("\"environment\""));
}

#[tokio::test]
async fn a_trial_that_fails_gives_its_reason_and_no_build() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "import sklearn")], json!({"auto_deploy_model": true})).await;
    let reason = "import: ModuleNotFoundError: No module named 'sklearn'";
    rig.launcher.units_become(Some(Phase::Failed), reason);
    let shown = made_beside_deployments(&rig, &build).await;
    assert_eq!(shown["status"], "build failed");
    assert_eq!(shown["failure_reason"], reason);
    let deployment = rig.deployment(&build).await;
    assert_eq!((&deployment["status"], &deployment["failure_reason"]), (&json!("failed"), &json!(reason)));
}

#[tokio::test]
async fn the_start_of_a_deployment_that_waits_is_the_builds_trial() {
    let rig = Rig::new().await;
    rig.launcher.examples_answer("8");
    let asked =
        json!({"auto_deploy_model": true, "auto_deployment_config": {"replicas": 3}, "example_request": {}});
    let build = ask(&rig, &[("add.py", "")], asked).await;
    let shown = made_beside_deployments(&rig, &build).await;
    assert_eq!((&shown["status"], &shown["example_response"]), (&json!("built"), &json!("8")));
    let mut reconciler = Reconciler::new(rig.app.clone());
    while rig.deployment(&build).await["status"] != "deployed" {
        reconciler.pass().await.unwrap();
    }
    let launched = rig.launcher.launched();
    assert_eq!(launched.len(), 1, "what was imported goes on serving");
    assert_eq!(launched[0].slots, 3);
    assert!(launched[0].replica_prefix.ends_with(&shown["build_hash"].as_str().unwrap()[..10]));
    assert!(rig.launcher.stopped().is_empty());
}

#[tokio::test]
async fn a_deployment_that_cannot_start_says_nothing_of_its_build() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "")], json!({"auto_deploy_model": true})).await;
    rig.launcher.refuse(UnitName::deployment(1));
    assert_eq!(made_beside_deployments(&rig, &build).await["status"], "built");
    let deployment = rig.deployment(&build).await;
    assert_eq!(
        (&deployment["status"], &deployment["failure_reason"]),
        (&json!("failed"), &json!("refused by the test"))
    );
    assert_eq!(rig.launcher.stopped(), [UnitName::build(1)]);
}

#[tokio::test]
async fn a_build_whose_deployment_waits_for_memory_is_tried_alone_and_with_its_variables() {
    let mut rig = Rig::new().await;
    rig.restart_with(|config| config.memory_mb_max = Some(1_000)).await;
    let config = |memory: f64| json!({"memory": memory, "environment": {"NEEDED": "yes"}});
    let first = ask(
        &rig,
        &[("add.py", "")],
        json!({"auto_deploy_model": true, "auto_deployment_config": config(0.7)}),
    )
    .await;
    assert_eq!(made_beside_deployments(&rig, &first).await["status"], "built");
    let model = first.rsplit_once("/builds/").unwrap().0;
    let request = json!({
        "file_path": "add.py", "function_name": "add", "auto_deploy_model": true, "auto_deployment_config": config(0.5),
    });
    let second = rig.call("POST", &format!("{model}/builds"), request).await.ok();
    let second = format!("{model}/builds/{}", second["id"].as_str().unwrap());
    assert_eq!(made_beside_deployments(&rig, &second).await["status"], "built");
    let waiting = rig.deployment(&second).await;
    assert_eq!(waiting["status"], "pending", "{waiting}");
    let launched = rig.launcher.launched();
    assert_eq!(launched.len(), 2);
    assert!(launched.iter().all(|spec| spec.environment["NEEDED"] == "yes"));
    assert_eq!(rig.launcher.stopped(), [UnitName::build(2)]);
}

#[tokio::test]
async fn a_build_that_was_being_tried_when_the_server_ended_is_tried_again_and_not_made_again() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "")], json!({})).await;
    let shown = made(&rig, &build).await;
    let id = BuildId::new(shown["id"].as_str().unwrap());
    let marked = rig.app.dir.build(id.as_str()).join("root/marked");
    std::fs::write(&marked, "").unwrap();
    assert!(rig.app.store.move_build(&id, Built, Pushing, "").await.unwrap());
    let again = made(&rig, &build).await;
    assert_eq!((&again["status"], &again["build_hash"]), (&json!("built"), &shown["build_hash"]));
    builder::manifest::check(&rig.app.dir.build(id.as_str()), shown["build_hash"].as_str().unwrap()).unwrap();
    assert_eq!(rig.launcher.launched().len(), 2);
    assert!(marked.exists());
    assert_eq!(log(&rig, &build).await.matches("making an environment").count(), 1);
}

#[tokio::test]
async fn a_build_that_lost_a_file_between_its_seal_and_its_trial_fails() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "good")], json!({})).await;
    let id = BuildId::new(made(&rig, &build).await["id"].as_str().unwrap());
    assert!(rig.app.store.move_build(&id, Built, Pushing, "").await.unwrap());
    std::fs::write(rig.app.dir.build(id.as_str()).join("root/add.py"), "").unwrap();
    let again = made(&rig, &build).await;
    assert_eq!(again["status"], "build failed");
    assert_eq!(
        again["failure_reason"],
        "seal: not as it was sealed before the server ended: `root/add.py` was changed or removed; build it again"
    );
    assert_eq!(rig.launcher.launched().len(), 1, "it is not tried");
}

#[tokio::test]
async fn a_build_underway_when_the_server_ended_is_made_again() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "")], json!({})).await;
    let id = BuildId::new(build.rsplit('/').next().unwrap());
    let store = &rig.app.store;
    assert!(store.move_build(&id, Pending, Building, "").await.unwrap());
    let leftover = rig.app.dir.build(id.as_str()).join("root/leftover");
    std::fs::create_dir_all(&leftover).unwrap();
    assert_eq!(made(&rig, &build).await["status"], "built");
    assert!(!leftover.exists());
}

#[tokio::test]
async fn a_build_that_has_a_source_is_made_of_it_whatever_the_project_holds_now() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "one = 1")], json!({})).await;
    let first = made(&rig, &build).await;
    let model = build.split("/builds/").next().unwrap().to_owned();
    let project = rig.app.dir.project(model.split('/').nth(4).unwrap());
    std::fs::write(project.join("add.py"), "two = 2").unwrap();
    let again = ask_again(&rig, &model).await;
    let id = BuildId::new(again.rsplit('/').next().unwrap());
    rig.app.store.seal_build(&id, first["source_hash"].as_str().unwrap(), "").await.unwrap();
    let again = made(&rig, &again).await;
    assert_eq!(
        (&again["status"], &again["source_hash"]),
        (&json!("built"), &first["source_hash"]),
        "{again}"
    );
    let root = rig.app.dir.build(again["id"].as_str().unwrap()).join("root/add.py");
    assert_eq!(std::fs::read_to_string(root).unwrap(), "one = 1");
}

#[tokio::test]
async fn a_source_that_was_spoilt_on_the_disk_is_kept_anew_by_the_next_build() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "one = 1")], json!({})).await;
    assert_eq!(made(&rig, &build).await["status"], "built");
    for blob in std::fs::read_dir(rig.app.dir.sources().join("blobs")).unwrap() {
        let blob = blob.unwrap().path();
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, "two = 2").unwrap();
    }
    let model = build.split("/builds/").next().unwrap();
    let again = made(&rig, &ask_again(&rig, model).await).await;
    let root = rig.app.dir.build(again["id"].as_str().unwrap()).join("root/add.py");
    assert_eq!(std::fs::read_to_string(root).unwrap(), "one = 1", "{again}");
}

#[tokio::test]
async fn a_source_goes_with_the_last_build_of_it() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "")], json!({})).await;
    let hash = made(&rig, &build).await["source_hash"].as_str().unwrap().to_owned();
    builder::source::sweep(&rig.app).await.unwrap();
    assert!(rig.app.sources.has(&hash));
    rig.call("DELETE", &build, Value::Null).await.ok();
    assert!(crate::collection::deleted::free(&rig.app).await.unwrap());
    builder::source::sweep(&rig.app).await.unwrap();
    assert!(!rig.app.sources.has(&hash));
    assert_eq!(std::fs::read_dir(rig.app.dir.sources().join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_build_whose_content_the_disk_lost_is_told_of_and_starts_no_more_until_it_is_mended() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "good"), ("z.py", "good")], json!({"auto_deploy_model": true})).await;
    let shown = made_beside_deployments(&rig, &build).await;
    let mut reconciler = Reconciler::new(rig.app.clone());
    settle(&mut reconciler).await;
    assert_eq!(rig.deployment(&build).await["status"], "deployed");
    let read = async || builder::rounds::next(&rig.app).await.unwrap();
    let id = BuildId::new(shown["id"].as_str().unwrap());
    assert!(!read().await, "it was sealed a moment ago");
    let file = rig.app.dir.build(id.as_str()).join("root/z.py");
    let write = |text: &str| std::fs::write(&file, text).unwrap();

    write("evil");
    rig.app.store.pretend_sealed_long_ago(&id).await;
    assert!(read().await);
    let damage =
        rig.call("GET", &build, Value::Null).await.ok()["failure_reason"].as_str().unwrap().to_owned();
    assert!(
        damage.starts_with("build 1 is not as it was sealed: `root/z.py` has another content; "),
        "{damage}"
    );
    assert!(damage.ends_with("`millgate builds MODEL --rebuild 1`"), "{damage}");
    let deployment = rig.deployment(&build).await;
    assert_eq!((&deployment["status"], &deployment["status_reason"]), (&json!("deployed"), &json!(damage)));
    let damaged = || rig.app.config.damaged_builds.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(damaged(), 1);
    assert!(!read().await, "it was read a moment ago");
    let mut deploy = async || {
        let path = format!("{build}/deployments");
        let asked = rig.call("POST", &path, json!({})).await.ok();
        settle(&mut reconciler).await;
        rig.call("GET", &format!("{path}/{}", asked["id"].as_str().unwrap()), Value::Null).await.ok()
    };
    // Nor do times tell of it: these are those of now.
    builder::manifest::pretend_read(&rig.app.dir.build(id.as_str()), shown["build_hash"].as_str().unwrap());
    let refused = deploy().await;
    assert_eq!((&refused["status"], &refused["failure_reason"]), (&json!("failed"), &json!(damage)));
    assert_eq!(rig.deployment(&build).await["status"], "deployed");

    write("good");
    rig.app.store.pretend_sealed_long_ago(&id).await;
    assert!(read().await);
    assert_eq!(rig.call("GET", &build, Value::Null).await.ok()["failure_reason"], "");
    assert_eq!((&rig.deployment(&build).await["status_reason"], damaged()), (&json!(""), 0));
    assert_eq!(deploy().await["status"], "deployed");
}

#[tokio::test]
async fn other_languages_are_refused_and_other_versions_noted() {
    for (body, is_built) in [
        (json!({"kernel": "R 4.1"}), false),
        (json!({"kernel": "Scala"}), false),
        (json!({"kernel": "Python 2"}), false),
        (json!({"kernel": "Python 3"}), true),
        (json!({"runtime_identifier": "docker.example.org/workbench-python3.7-standard:1"}), true),
    ] {
        let rig = Rig::new().await;
        let build = ask(&rig, &[("add.py", "")], body.clone()).await;
        let shown = made(&rig, &build).await;
        assert_eq!(shown["status"] == "built", is_built, "{body}: {shown}");
        let is_noted = log(&rig, &build).await.contains("not on this host");
        assert_eq!(is_noted, body.get("runtime_identifier").is_some(), "{body}");
    }
}

#[tokio::test]
async fn a_model_root_below_the_project_is_the_base_of_its_paths_and_never_outside() {
    let rig = Rig::new().await;
    let build = ask(&rig, &[("sub/add.py", "")], json!({"model_root_dir": "sub"})).await;
    assert_eq!(made(&rig, &build).await["status"], "built");
    assert!(rig.launcher.launched()[0].function.root.ends_with("root/sub"));
    let rig = Rig::new().await;
    let build = ask(&rig, &[("add.py", "")], json!({"model_root_dir": "nowhere"})).await;
    let reason = made(&rig, &build).await["failure_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("\"nowhere\""), "{reason}");
}

#[tokio::test]
async fn a_build_is_made_again_from_its_own_source_with_the_packages_it_had() {
    let rig = Rig::new().await;
    let script = "echo \"${PIP_CONSTRAINT:-none} ${UV_CONSTRAINT:-none}\"\n\
                  [ -z \"$PIP_CONSTRAINT\" ] || cat \"$PIP_CONSTRAINT\"\ncp state made.txt\n";
    let first = ask(&rig, &[("add.py", ""), ("cdsw-build.sh", script), ("state", "old")], json!({})).await;
    let shown = made(&rig, &first).await;
    assert_eq!(shown["status"], "built", "{}", log(&rig, &first).await);
    let dependencies = shown["dependencies"].as_array().unwrap();
    assert!(dependencies.iter().any(|d| d.as_str().unwrap().starts_with("pip==")), "{shown}");
    let dir = rig.app.dir.build(shown["id"].as_str().unwrap());
    std::fs::write(dir.join("dependencies.txt"), "# Python 3.1.0\nnumpy==2.1.0\npip==1\n").unwrap();
    let project = rig.app.dir.project(first.split('/').nth(4).unwrap());
    std::fs::write(project.join("state"), "new").unwrap();

    let again = rig.call("POST", &format!("{first}:rebuild"), json!({})).await.ok();
    assert_eq!((&again["rebuilt_from"], &again["build_number"]), (&shown["id"], &json!(2)));
    let second = first.replace(shown["id"].as_str().unwrap(), again["id"].as_str().unwrap());
    let again = made(&rig, &second).await;
    let said = log(&rig, &second).await;
    assert_eq!(again["status"], "built", "{said}");
    let dir = rig.app.dir.build(again["id"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(dir.join("root/made.txt")).unwrap(), "old");
    for words in [
        "made again from build 1, its 1 packages as constraints",
        "build 1 was made with Python 3.1.0",
        "constraints.txt",
        "\"text\":\"numpy==2.1.0\"",
        "packages differ from build 1: numpy 2.1.0 is not there, pip 1 → ",
        "the same files as build 1",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("\"text\":\"pip==1\""), "{said}");
    assert!(log(&rig, &first).await.contains("\"text\":\"none none\""));
}

#[tokio::test]
async fn a_build_is_not_made_again_from_anything_but_its_own_source() {
    let rig = Rig::new().await;
    let first = ask(&rig, &[("add.py", "")], json!({})).await;
    let (status, message) = rig.call("POST", &format!("{first}:rebuild"), json!({})).await.error();
    assert!(status == 400 && message.contains("only one that is `built`"), "{message}");
    let shown = made(&rig, &first).await;
    let again = rig.call("POST", &format!("{first}:rebuild"), json!({})).await.ok();
    let trees = rig.app.dir.sources().join("trees");
    std::fs::remove_file(trees.join(shown["source_hash"].as_str().unwrap())).unwrap();
    let second = first.replace(shown["id"].as_str().unwrap(), again["id"].as_str().unwrap());
    let reason = made(&rig, &second).await["failure_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("has no source any more"), "{reason}");
    let (status, message) = rig.call("POST", &format!("{first}:rebuild"), json!({})).await.error();
    assert!(status == 400 && message.contains("is not kept"), "{message}");
}
