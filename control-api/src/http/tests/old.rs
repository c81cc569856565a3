//! The old interface, by the calls of the programs that still use it.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::testing::{Reply, Rig};

async fn old_as(rig: &Rig, key: &str, verb: &str, body: Value) -> Reply {
    let request = Request::post(format!("/api/altus-ds-1/models/{verb}"))
        .header("authorization", format!("Basic {}", STANDARD.encode(format!("{key}:"))))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    rig.send(request).await
}

async fn old(rig: &Rig, verb: &str, body: Value) -> Reply {
    old_as(rig, &rig.key, verb, body).await
}

fn request(project: i64, name: &str) -> Value {
    json!({
        "projectId": project, "name": name, "description": "d", "visibility": "private", "enableAuth": false,
        "targetFilePath": "a.py", "targetFunctionName": "f", "engineImageId": 5, "kernel": "python3",
        "examples": [{"request": {"x": 3}, "response": {}}], "cpuMillicores": 500, "memoryMb": 1024,
        "nvidiaGPUs": 0, "replicationPolicy": {"type": "fixed", "numReplicas": 2}, "environment": {"A": "1"},
        "runtimeId": 7,
    })
}

#[tokio::test]
async fn a_created_model_has_a_build_and_a_deployment_and_is_found_by_its_number() {
    let rig = Rig::new().await;
    rig.project("p").await;
    let created = old(&rig, "create-model", request(1, "m")).await;
    assert!(created.headers.get("warning").is_none(), "{created:?}");
    let created = created.ok();
    assert!(millgate_contract::ids::is_access_key(created["accessKey"].as_str().unwrap()));
    assert!(created["modelDeployment"]["crn"].as_str().unwrap().starts_with("crn:cdp:ml:"));
    let asked =
        json!({"id": created["id"].to_string(), "latestModelDeployment": true, "latestModelBuild": true});
    let model = old(&rig, "get-model", asked).await.ok();
    assert_eq!(
        (&model["id"], &model["authEnabled"], &model["project"]["id"]),
        (&json!(1), &json!(false), &json!(1))
    );
    let build = &model["latestModelBuild"];
    assert_eq!(build["examples"], json!([{"request": {"x": 3}, "response": {}}]));
    assert_eq!((&build["modelId"], &build["targetFunctionName"]), (&json!(1), &json!("f")));
    let deployment = &model["latestModelDeployment"];
    assert_eq!(deployment["status"], "pending");
    assert_eq!(deployment["model"]["name"], "m");
    assert_eq!(deployment["modelBuildId"], build["id"]);
    assert_eq!(deployment["environment"], json!({"A": "1"}));
    assert_eq!(deployment["replicationPolicy"], json!({"type": "fixed", "numReplicas": 2}));
    assert_eq!(deployment["replicationStatus"]["numReplicasAvailable"], 0);
}

#[tokio::test]
async fn lists_are_bare_and_by_project_or_owner() {
    let rig = Rig::new().await;
    rig.project("p").await;
    rig.project("q").await;
    for (project, name) in [(1, "a"), (1, "b"), (2, "c")] {
        old(&rig, "create-model", request(project, name)).await.ok();
    }
    for (asked, expected) in [
        (json!({}), vec!["a", "b", "c"]),
        (json!({"projectId": 2}), vec!["c"]),
        (json!({"projectId": "1", "latestModelBuild": true}), vec!["a", "b"]),
        (json!({"projectOwnerName": "admin", "latestModelDeployment": true}), vec!["a", "b", "c"]),
        (json!({"projectOwnerName": "nobody"}), vec![]),
    ] {
        let list = old(&rig, "list-models", asked.clone()).await.ok();
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{asked}");
        for model in list.as_array().unwrap() {
            assert_eq!(model["latestModelBuild"].is_object(), asked["latestModelBuild"] == true);
            assert_eq!(model["latestModelDeployment"].is_object(), asked["latestModelDeployment"] == true);
        }
    }
}

#[tokio::test]
async fn a_new_build_is_deployed_when_it_says_how_or_by_a_call_of_its_own() {
    let rig = Rig::new().await;
    rig.project("p").await;
    old(&rig, "create-model", request(1, "m")).await.ok();
    let mut again = request(1, "m");
    again["modelId"] = json!(1);
    let build = old(&rig, "build-model", again.clone()).await.ok();
    let asked = json!({"id": 1, "latestModelDeployment": true});
    let model = old(&rig, "get-model", asked.clone()).await.ok();
    assert_eq!(model["latestModelDeployment"]["modelBuildId"], build["id"]);
    again.as_object_mut().unwrap().remove("replicationPolicy");
    let build = old(&rig, "build-model", again).await.ok();
    let model = old(&rig, "get-model", asked).await.ok();
    assert_ne!(model["latestModelDeployment"]["modelBuildId"], build["id"]);
    let deployed =
        old(&rig, "deploy-model", json!({"modelBuildId": build["id"], "memoryMb": 512})).await.ok();
    assert_eq!((&deployed["modelBuildId"], &deployed["memoryMb"]), (&build["id"], &json!(512)));
    let newest = old(&rig, "deploy-model", json!({"modelId": 1})).await.ok();
    assert_eq!(newest["modelBuildId"], build["id"]);
}

#[tokio::test]
async fn authentication_is_set_and_deleted_models_are_gone() {
    let rig = Rig::new().await;
    rig.project("p").await;
    old(&rig, "create-model", request(1, "m")).await.ok();
    old(&rig, "set-model-auth", json!({"id": 1, "enableAuth": true})).await.ok();
    assert_eq!(old(&rig, "get-model", json!({"id": 1})).await.ok()["authEnabled"], true);
    assert_eq!(old(&rig, "delete-model", json!({"id": 1})).await.ok(), json!({}));
    assert_eq!(
        old(&rig, "get-model", json!({"id": 1})).await.error(),
        (404, "there is no model `1`".to_owned())
    );
}

#[tokio::test]
async fn what_belongs_to_others_looks_like_what_does_not_exist() {
    let rig = Rig::new().await;
    rig.project("p").await;
    old(&rig, "create-model", request(1, "m")).await.ok();
    let bob = rig.user("bob").await;
    for (verb, foreign, none, name) in [
        ("get-model", json!({"id": 1}), json!({"id": 2}), "model"),
        ("delete-model", json!({"id": 1}), json!({"id": 2}), "model"),
        (
            "set-model-auth",
            json!({"id": 1, "enableAuth": true}),
            json!({"id": 2, "enableAuth": true}),
            "model",
        ),
        ("deploy-model", json!({"modelBuildId": 1}), json!({"modelBuildId": 2}), "build"),
        ("list-models", json!({"projectId": 1}), json!({"projectId": 2}), "project"),
        ("create-model", request(1, "x"), request(2, "x"), "project"),
    ] {
        for (body, number) in [(foreign, 1), (none, 2)] {
            let error = old_as(&rig, &bob, verb, body).await.error();
            assert_eq!(error, (404, format!("there is no {name} `{number}`")), "{verb}");
        }
    }
    assert_eq!(old_as(&rig, &bob, "list-models", json!({})).await.ok(), json!([]));
    assert_eq!(old_as(&rig, "wrong", "list-models", json!({})).await.error().0, 401);
    let bearer = rig.call("POST", "/api/altus-ds-1/models/list-models", json!({})).await.ok();
    assert_eq!(bearer.as_array().unwrap().len(), 1);
    // Basic is of the old interface alone.
    let request = Request::get("/api/v2/projects")
        .header("authorization", format!("Basic {}", STANDARD.encode(format!("{}:", rig.key))))
        .body(Body::empty())
        .unwrap();
    assert_eq!(rig.send(request).await.error().0, 401);
}
