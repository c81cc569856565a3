//! The way of an existing client, and how each object looks.

use axum::http::header;
use serde_json::{Value, json};

use crate::testing::Rig;

/// Replaces what differs from run to run, keeping its form.
fn redact(mut value: Value) -> String {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => map.values_mut().for_each(walk),
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::String(text) => *text = pattern(text),
            _ => {}
        }
    }
    walk(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn pattern(text: &str) -> String {
    if let Some((head, id)) = text.rsplit_once('/')
        && text.starts_with("crn:")
    {
        let head = head.rsplit_once(':').unwrap().0;
        return format!("{head}:<uuid>/{}", pattern(id));
    }
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    if groups == [8, 4, 4, 4, 12] {
        return "<uuid>".into();
    }
    if groups == [4, 4, 4, 4] {
        return "<project id>".into();
    }
    if text.len() == 27 && text.ends_with('Z') && text.as_bytes()[19] == b'.' {
        return "<RFC 3339, microseconds>".into();
    }
    if millgate_contract::ids::is_access_key(text) {
        return "<access key>".into();
    }
    if text.starts_with("mgk_") {
        return "<api key>".into();
    }
    text.to_owned()
}

#[tokio::test]
async fn objects_look_as_existing_clients_expect() {
    let rig = Rig::new().await;
    let project = rig
        .call(
            "POST",
            "/api/v2/projects",
            json!({"name": "Iris", "environment": {"A": "1"}, "template": "blank"}),
        )
        .await
        .ok();
    let path = format!("/api/v2/projects/{}", project["id"].as_str().unwrap());
    insta::assert_snapshot!("project", redact(project));
    let model = rig.call("POST", &format!("{path}/models"), json!({"name": "Predict"})).await.ok();
    let path = format!("{path}/models/{}", model["id"].as_str().unwrap());
    insta::assert_snapshot!("model", redact(model));
    let body = json!({
        "comment": "first", "file_path": "predict.py", "function_name": "predict", "kernel": "Python 3",
        "runtime_identifier": "docker.example.org/python3.11:2024", "example_request": {"petal_length": 5.4},
    });
    let build = rig.call("POST", &format!("{path}/builds"), body).await.ok();
    let path = format!("{path}/builds/{}", build["id"].as_str().unwrap());
    insta::assert_snapshot!("build", redact(build));
    let body = json!({"cpu": "0.5", "memory": 1, "replicas": "2", "environment": {"B": "2"}});
    let deployment = rig.call("POST", &format!("{path}/deployments"), body).await.ok();
    insta::assert_snapshot!("deployment", redact(deployment));
    let key = rig.call("POST", "/api/v2/users/admin/v2_keys", json!({"comments": "ci"})).await.ok();
    insta::assert_snapshot!("key", redact(key));
    let runtimes = rig.call("GET", "/api/v2/runtimes", Value::Null).await.ok();
    assert_eq!(runtimes["runtimes"][0]["editor"], "Workbench");
}

#[tokio::test]
async fn a_model_may_be_created_with_its_build_and_deployment() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let body = json!({
        "name": "m", "disable_authentication": true, "auto_build_model": true, "auto_deploy_model": true,
        "auto_build_config": {"file_path": "a.py", "function_name": "f", "colour": "red"},
        "auto_deployment_config": {"cpu": 2, "memory": "4", "replicas": 3},
    });
    let reply = rig.call("POST", &format!("{project}/models"), body).await;
    let warning = reply.headers[header::WARNING].to_str().unwrap().to_owned();
    assert_eq!(warning, "299 millgate \"unknown fields are ignored: auto_build_config.colour\"");
    let model = reply.ok();
    assert_eq!(model["auth_enabled"], false);
    assert_eq!(model["default_resources"]["cpu_millicores"], "2000");
    assert_eq!(model["default_resources"]["memory_mb"], "4096");
    let path = format!("{project}/models/{}/builds", model["id"].as_str().unwrap());
    let build = rig.call("GET", &path, Value::Null).await.ok()["model_builds"][0].clone();
    assert_eq!((&build["status"], &build["build_number"]), (&json!("pending"), &json!(1)));
    let deployment = rig.deployment(&format!("{path}/{}", build["id"].as_str().unwrap())).await;
    assert_eq!(
        (&deployment["cpu"], &deployment["memory"], &deployment["replicas"]),
        (&json!(2), &json!(4), &json!(3))
    );
}

#[tokio::test]
async fn a_name_is_taken_until_its_model_is_deleted() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let again = rig.call("POST", &format!("{project}/models"), json!({"name": "m"})).await;
    assert_eq!(again.json()["code"], 6);
    let (status, message) = again.error();
    assert_eq!(status, 409);
    assert!(message.contains("already has a model with that name"), "{message}");
    rig.call("DELETE", &model, json!({})).await.ok();
    rig.model(&project, "m").await;
    let (status, _) = rig.call("POST", "/api/v2/projects", json!({"name": "p"})).await.error();
    assert_eq!(status, 409);
}

#[tokio::test]
async fn environments_go_in_as_objects_and_come_out_as_text() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let shown = rig.call("PATCH", &project, json!({"environment": "{\"A\": \"1\"}"})).await.ok();
    assert_eq!(shown["environment"], r#"{"A":"1"}"#);
    let (status, message) = rig.call("PATCH", &project, json!({"environment": "A=1"})).await.error();
    assert_eq!((status, message.starts_with("field `environment` is \"A=1\"")), (400, true), "{message}");
    // A client sends back what it read.
    let reply = rig.call("PATCH", &project, shown).await;
    assert!(reply.headers.get(header::WARNING).is_none(), "{reply:?}");
}

#[tokio::test]
async fn bad_values_are_named_with_field_and_rule() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let builds = format!("{model}/builds");
    let build = |extra: Value| {
        let mut body = json!({"file_path": "a.py", "function_name": "f"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let cases = [
        (json!({"function_name": "f"}), "field `file_path` is missing"),
        (json!({"file_path": "../a.py", "function_name": "f"}), "field `file_path` is \"../a.py\""),
        (json!({"file_path": "a.py"}), "field `function_name` is missing"),
        (build(json!({"model_root_dir": "/etc"})), "field `model_root_dir` is \"/etc\""),
        (build(json!({"registered_model_version_id": "v"})), "no registry"),
        (
            build(json!({"auto_deploy_model": true, "auto_deployment_config": {"replicas": 10}})),
            "field `auto_deployment_config.replicas` is 10: it must be a whole number from 0 to 9",
        ),
        (json!([1]), "must be a JSON object"),
    ];
    for (body, expected) in cases {
        let (status, message) = rig.call("POST", &builds, body).await.error();
        assert!(status == 400 && message.contains(expected), "{status} {message}");
    }
    let (status, message) = rig.call("POST", "/api/v2/projects", json!({"name": "  "})).await.error();
    assert!(status == 400 && message.contains("`name`"), "{message}");
}

#[tokio::test]
async fn the_line_of_builds_is_bounded() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let body = json!({"file_path": "a.py", "function_name": "f"});
    for _ in 0..rig.app.config.builds_queued_max {
        rig.call("POST", &format!("{model}/builds"), body.clone()).await.ok();
    }
    let reply = rig.call("POST", &format!("{model}/builds"), body).await;
    assert_eq!((reply.error().0, reply.json()["code"].clone()), (429, json!(8)));
}

#[tokio::test]
async fn a_build_that_is_used_is_not_deleted() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let used = rig.build(&model, 1).await;
    let (status, message) = rig.call("DELETE", &used, json!({})).await.error();
    assert!(status == 400 && message.contains("stop it first"), "{message}");
    let free = rig
        .call("POST", &format!("{model}/builds"), json!({"file_path": "a", "function_name": "f"}))
        .await
        .ok();
    let free = format!("{model}/builds/{}", free["id"].as_str().unwrap());
    assert_eq!(rig.call("DELETE", &free, json!({})).await.ok(), json!({}));
    assert_eq!(rig.call("GET", &free, Value::Null).await.error().0, 404);
}

#[tokio::test]
async fn a_template_brings_its_files() {
    let rig = Rig::new().await;
    let project = rig.call("POST", "/api/v2/projects", json!({"name": "p", "template": "Python"})).await.ok();
    let files = format!("/api/v2/projects/{}/files", project["id"].as_str().unwrap());
    let list = rig.call("GET", &files, Value::Null).await.ok();
    let paths: Vec<&str> =
        list["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    for path in ["analysis.py", "cdsw-build.sh", "entry.py", "fit.py", "pi.py", "predict.py"] {
        assert!(paths.contains(&path), "{paths:?}");
    }
    let (status, message) =
        rig.call("POST", "/api/v2/projects", json!({"name": "q", "template": "R"})).await.error();
    assert!(status == 400 && message.contains("`template` is \"R\""), "{message}");
}

#[tokio::test]
async fn a_new_access_key_takes_the_place_of_the_old() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let before = rig.call("GET", &model, Value::Null).await.ok()["access_key"].clone();
    let after = rig.call("POST", &format!("{model}:regenerate_access_key"), json!({})).await.ok();
    assert!(millgate_contract::ids::is_access_key(after["access_key"].as_str().unwrap()));
    assert_ne!(after["access_key"], before);
    assert_eq!(rig.call("GET", &model, Value::Null).await.ok()["access_key"], after["access_key"]);
    assert_eq!(rig.call("POST", &format!("{model}:explode"), json!({})).await.error().0, 404);
    // A viewer sees the model and may not change its key.
    let bob = rig.user("bob").await;
    rig.call("PUT", &format!("{project}/collaborators/bob"), json!({"permission": "viewer"})).await.ok();
    let refused = rig.call_as(&bob, "POST", &format!("{model}:regenerate_access_key"), json!({})).await;
    assert_eq!(refused.error().0, 403);
}

#[tokio::test]
async fn replicas_are_bounded_by_the_administrator_s_ceiling() {
    let mut rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    for (ceiling, most) in [(None, 9), (Some(199), 199)] {
        rig.restart_with(|config| config.replicas_ceiling = ceiling.unwrap_or(config.replicas_ceiling)).await;
        let deployments = format!("{build}/deployments");
        let asked = |replicas: u16| json!({ "replicas": replicas });
        let deployment = rig.call("POST", &deployments, asked(most)).await.ok();
        assert_eq!(deployment["replicas"], most);
        let refused = rig.call("POST", &deployments, asked(most + 1)).await.error();
        assert_eq!(refused.0, 400);
        assert!(refused.1.contains("`replicas`") && refused.1.contains(&most.to_string()), "{refused:?}");
    }
}
