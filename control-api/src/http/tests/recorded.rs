//! The record of who did what.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::{CallerAddress, store::Deed, testing::Rig};

async fn entries(rig: &Rig, query: &str) -> Vec<Value> {
    let list = rig.call("GET", &format!("/api/v2/audit?page_size=1000&{query}"), Value::Null).await.ok();
    list["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn what_was_done_is_recorded_with_who_when_where_and_what_came_of_it() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    rig.pretend_built(&build).await;
    let body = json!({"environment": {"SECRET": "hidden"}, "replicas": 2}).to_string();
    let request = Request::post(format!("{build}/deployments"))
        .header("authorization", format!("Bearer {}", rig.key))
        .extension(CallerAddress([10, 1, 2, 3].into()))
        .body(Body::from(body))
        .unwrap();
    let deployment = rig.send(request).await.ok();
    let ada = rig.user("ada").await;
    rig.call("PUT", &format!("{project}/collaborators/ada"), json!({"permission": "viewer"})).await.ok();
    rig.call_as(&ada, "DELETE", &model, json!({})).await.error();
    let all = entries(&rig, "").await;
    let short: Vec<String> = all
        .iter()
        .map(|entry| {
            let object =
                entry["object"].as_str().unwrap().split('/').step_by(2).collect::<Vec<_>>().join("/");
            let text = |field: &str| entry[field].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {object} {}",
                text("username"),
                text("address"),
                text("operation"),
                entry["status"]
            )
        })
        .collect();
    insta::assert_snapshot!(short.join("\n"), @r"
    admin 0.0.0.0 CreateProject projects 200
    admin 0.0.0.0 CreateModel projects/models 200
    admin 0.0.0.0 CreateModelBuild projects/models/builds 200
      BuildEnded projects/models/builds 0
    admin 10.1.2.3 CreateModelDeployment projects/models/builds/deployments 200
    admin 0.0.0.0 AddProjectCollaborator projects/collaborators 200
    ada 0.0.0.0 DeleteModel projects/models 403
    ");
    let made = all.iter().find(|entry| entry["operation"] == "CreateModelDeployment").unwrap();
    assert!(made["object"].as_str().unwrap().ends_with(deployment["id"].as_str().unwrap()), "{made}");
    assert_eq!(made["details"]["request"], json!({"environment": ["SECRET"], "replicas": 2}));
    let built = all.iter().find(|entry| entry["operation"] == "BuildEnded").unwrap();
    assert_eq!(built["details"]["source_hash"].as_str().unwrap().len(), 64, "{built}");
    let refused = all.last().unwrap();
    assert!(refused["message"].as_str().unwrap().contains("this needs contributor"), "{refused}");
    assert_eq!(format!("projects/{}", refused["project_id"].as_str().unwrap()), project["/api/v2/".len()..]);
}

#[tokio::test]
async fn what_the_end_of_a_server_cut_off_is_recorded_by_the_next() {
    let mut rig = Rig::new().await;
    rig.project("p").await;
    let deed = Deed {
        username: "admin".into(),
        operation: "CreateModel".into(),
        details: json!({"request": {"name": "m"}}).to_string(),
        ..Deed::default()
    };
    rig.app.store.begin_deed(&deed).await.unwrap();
    assert_eq!(entries(&rig, "").await.len(), 1, "what was answered is recorded, what was not is not yet");
    rig.restart_with(|_| {}).await;
    let all = entries(&rig, "").await;
    let cut_off = all.last().unwrap();
    assert_eq!((all.len(), &cut_off["operation"], &cut_off["status"]), (2, &json!("CreateModel"), &json!(0)));
    assert_eq!(
        (&cut_off["username"], &cut_off["details"]["request"]["name"]),
        (&json!("admin"), &json!("m"))
    );
    assert!(cut_off["message"].as_str().unwrap().contains("may have been done"), "{cut_off}");
    rig.restart_with(|_| {}).await;
    assert_eq!(entries(&rig, "").await.len(), 2, "once");
}

#[tokio::test]
async fn no_secret_is_in_the_record() {
    let rig = Rig::new().await;
    let password = "correct horse battery";
    rig.call("POST", "/api/v2/users", json!({"username": "ada", "password": password})).await.ok();
    let login = |password: &str| json!({"username": "ada", "password": password});
    let key = rig.call("POST", "/api/v2/auth/login", login(password)).await.ok()["api_key"].clone();
    rig.call("POST", "/api/v2/auth/login", login("wrong password")).await.error();
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let shown = rig.call("POST", &format!("{model}:regenerate_access_key"), json!({})).await.ok();
    rig.call("PATCH", &project, json!({"environment": "{\"TOKEN\": \"hidden\"}"})).await.ok();
    let export = rig.call("GET", "/api/v2/audit/export", Value::Null).await;
    for secret in
        [password, "wrong password", key.as_str().unwrap(), shown["access_key"].as_str().unwrap(), "hidden"]
    {
        assert!(!export.text.contains(secret), "{secret}: {}", export.text);
    }
    let lines: Vec<Value> = export.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, entries(&rig, "").await, "the export is the list");
    let logins: Vec<_> = lines.iter().filter(|entry| entry["operation"] == "Login").collect();
    assert_eq!(logins.iter().map(|entry| entry["status"].as_i64().unwrap()).collect::<Vec<_>>(), [200, 401]);
    assert!(logins.iter().all(|entry| entry["username"] == "ada"));
}

#[tokio::test]
async fn the_record_is_searched_and_read_by_administrators_alone() {
    let rig = Rig::new().await;
    for name in ["p", "q", "r"] {
        rig.project(name).await;
    }
    rig.user("ada").await;
    let key = rig.user("bob").await;
    for path in ["/api/v2/audit", "/api/v2/audit/export"] {
        assert_eq!(rig.call_as(&key, "GET", path, Value::Null).await.error().0, 403);
    }
    rig.call_as(&key, "POST", "/api/v2/projects", json!({"name": "s"})).await.ok();
    let found = entries(&rig, "search_filter=%7B%22username%22%3A%22bob%22%7D").await;
    assert_eq!((found.len(), &found[0]["operation"]), (1, &json!("CreateProject")));
    assert_eq!(entries(&rig, "sort=-number").await[0]["number"], 4);
    assert_eq!(entries(&rig, "until=2001-01-01").await.len(), 0);
    assert_eq!(entries(&rig, "since=2001-01-01").await.len(), 4);
    assert_eq!(rig.call("GET", "/api/v2/audit?since=soon", Value::Null).await.error().0, 400);
    let page = rig.call("GET", "/api/v2/audit?page_size=3", Value::Null).await.ok();
    assert!(!page["next_page_token"].as_str().unwrap().is_empty());
}
