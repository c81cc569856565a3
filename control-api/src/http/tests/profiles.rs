//! Amounts by name, and what deployments make of them.

use serde_json::{Value, json};

use crate::testing::Rig;

const PROFILES: &str = "/api/v2/resource_profiles";

async fn small(rig: &Rig) -> Value {
    let body =
        json!({"name": "small", "cpu": "0.5", "memory": 1.5, "nvidia_gpus": 0, "description": "for tests"});
    rig.call("POST", PROFILES, body).await.ok()
}

#[tokio::test]
async fn profiles_are_added_listed_changed_and_deleted() {
    let rig = Rig::new().await;
    let profile = small(&rig).await;
    assert_eq!((&profile["cpu"], &profile["memory"]), (&json!(0.5), &json!(1.5)));
    rig.call("POST", PROFILES, json!({"name": "large", "cpu": 8, "memory": 64, "nvidia_gpus": 1})).await.ok();
    let (status, message) =
        rig.call("POST", PROFILES, json!({"name": "small", "cpu": 1, "memory": 1})).await.error();
    assert!(status == 409 && message.contains("`small` already"), "{message}");
    let changed = rig.call("PATCH", &format!("{PROFILES}/small"), json!({"memory": 3})).await.ok();
    assert_eq!(
        (&changed["cpu"], &changed["memory"], &changed["description"]),
        (&json!(0.5), &json!(3), &json!("for tests"))
    );
    let list = rig.call("GET", &format!("{PROFILES}?page_size=1"), Value::Null).await.ok();
    assert_eq!(list["resource_profiles"], json!([changed]));
    assert_ne!(list["next_page_token"], "");
    rig.call("DELETE", &format!("{PROFILES}/small"), json!({})).await.ok();
    for (method, body) in [("DELETE", json!({})), ("PATCH", json!({"cpu": 1}))] {
        assert_eq!(rig.call(method, &format!("{PROFILES}/small"), body).await.error().0, 404);
    }
}

#[tokio::test]
async fn bad_amounts_and_names_are_refused_with_field_and_rule() {
    let rig = Rig::new().await;
    for (body, expected) in [
        (json!({"cpu": 1, "memory": 1}), "field `name` is missing"),
        (json!({"name": "a/b", "cpu": 1, "memory": 1}), "field `name` is \"a/b\""),
        (json!({"name": "a", "memory": 1}), "field `cpu` is missing"),
        (json!({"name": "a", "cpu": 1}), "field `memory` is missing"),
        (
            json!({"name": "a", "cpu": 5_000, "memory": 1}),
            "field `cpu` is 5000: it must be a number above 0, at most 4096",
        ),
        (json!({"name": "a", "cpu": 1, "memory": -1}), "field `memory` is -1"),
        (json!({"name": "a", "cpu": 1, "memory": 1, "nvidia_gpus": 2_000}), "field `nvidia_gpus` is 2000"),
    ] {
        let (status, message) = rig.call("POST", PROFILES, body).await.error();
        assert!(status == 400 && message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_deployment_takes_a_profile_s_amounts_and_keeps_them() {
    let rig = Rig::new().await;
    small(&rig).await;
    let project = rig.project("p").await;
    let body = json!({
        "name": "m", "auto_build_model": true, "auto_deploy_model": true,
        "auto_build_config": {"file_path": "a.py", "function_name": "f"},
        "auto_deployment_config": {"resource_profile": "small", "replicas": 2},
    });
    let model = rig.call("POST", &format!("{project}/models"), body).await.ok();
    assert_eq!(model["default_resources"]["cpu_millicores"], "500");
    let builds = format!("{project}/models/{}/builds", model["id"].as_str().unwrap());
    let build = rig.call("GET", &builds, Value::Null).await.ok()["model_builds"][0]["id"].clone();
    let deployments = format!("{builds}/{}/deployments", build.as_str().unwrap());
    let deployment = rig.call("GET", &deployments, Value::Null).await.ok()["model_deployments"][0].clone();
    let amounts = |d: &Value| (d["cpu"].clone(), d["memory"].clone(), d["resource_profile"].clone());
    assert_eq!(amounts(&deployment), (json!(0.5), json!(1.5), json!("small")));
    assert_eq!(deployment["replicas"], 2);

    // Numbers beside it win; 0 is what clients send that say nothing.
    let body = json!({"resource_profile": "small", "cpu": 2, "memory": 0});
    let deployment = rig.call("POST", &deployments, body).await.ok();
    assert_eq!(amounts(&deployment), (json!(2), json!(1.5), json!("small")));

    rig.call("DELETE", &format!("{PROFILES}/small"), json!({})).await.ok();
    let path = format!("{deployments}/{}", deployment["id"].as_str().unwrap());
    assert_eq!(amounts(&rig.call("GET", &path, Value::Null).await.ok()), amounts(&deployment));
    let (status, message) =
        rig.call("POST", &deployments, json!({"resource_profile": "small"})).await.error();
    assert!(status == 400 && message.contains("field `resource_profile` is \"small\""), "{message}");
}
