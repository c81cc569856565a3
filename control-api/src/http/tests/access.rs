//! Keys, and who may do what.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::{moment::now_s, operations, testing::Rig};

#[tokio::test]
async fn without_a_good_key_there_is_nothing() {
    let rig = Rig::new().await;
    let bare = Request::get("/api/v2/projects").body(Body::empty()).unwrap();
    let reply = rig.send(bare).await;
    assert_eq!((reply.error().0, reply.json()["code"].clone()), (401, json!(16)));
    for key in ["", "mgk_x", "nonsense", &format!("{}x", rig.key)] {
        assert_eq!(rig.call_as(key, "GET", "/api/v2/projects", Value::Null).await.error().0, 401, "{key}");
    }
    let expired = operations::make_key(
        &rig.app,
        &millgate_contract::ids::Username::new("admin"),
        vec!["API".into()],
        String::new(),
        now_s() - 1,
    )
    .await
    .unwrap()
    .1;
    assert_eq!(rig.call_as(&expired, "GET", "/api/v2/projects", Value::Null).await.error().0, 401);
}

#[tokio::test]
async fn a_deleted_key_and_one_for_another_audience_open_nothing() {
    let rig = Rig::new().await;
    let made = rig.call("POST", "/api/v2/users/admin/v2_keys", json!({})).await.ok();
    let (key, id) = (made["api_key"].as_str().unwrap(), made["key_id"].as_str().unwrap());
    rig.call_as(key, "GET", "/api/v2/projects", Value::Null).await.ok();
    let listed = rig.call("GET", "/api/v2/users/admin/v2_keys", Value::Null).await.ok();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert!(listed["keys"][1].get("api_key").is_none(), "a key is shown once");
    rig.call("DELETE", &format!("/api/v2/users/admin/v2_keys/{id}"), json!({})).await.ok();
    assert_eq!(rig.call_as(key, "GET", "/api/v2/projects", Value::Null).await.error().0, 401);
    assert_eq!(
        rig.call("DELETE", &format!("/api/v2/users/admin/v2_keys/{id}"), json!({})).await.error().0,
        404
    );
    let other =
        rig.call("POST", "/api/v2/users/admin/v2_keys", json!({"audiences": ["Application"]})).await.ok();
    let other = other["api_key"].as_str().unwrap();
    assert_eq!(rig.call_as(other, "GET", "/api/v2/projects", Value::Null).await.error().0, 401);
}

#[tokio::test]
async fn keys_are_validated_for_their_audience() {
    let rig = Rig::new().await;
    let good = rig.call("POST", "/api/v2/auth/validate_key", json!({"audience": "API"})).await.ok();
    assert_eq!(good, json!({"valid": true, "username": "admin", "message": ""}));
    let other = rig.call("POST", "/api/v2/auth/validate_key", json!({"audience": "Application"})).await.ok();
    assert_eq!((&other["valid"], &other["username"]), (&json!(false), &json!("")));
    let bad = rig.call_as("mgk_bad", "POST", "/api/v2/auth/validate_key", json!({})).await.ok();
    assert_eq!(bad["valid"], false);
}

#[tokio::test]
async fn an_expiry_is_a_date_ahead_and_under_the_ceiling() {
    let rig = Rig::new().await;
    for bad in ["soon", "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let (status, message) =
            rig.call("POST", "/api/v2/users/admin/v2_keys", json!({"expiry_date": bad})).await.error();
        assert!(status == 400 && message.contains("`expiry_date`"), "{message}");
    }
    let (status, _) =
        rig.call("POST", "/api/v2/users/admin/v2_keys", json!({"audiences": ["All"]})).await.error();
    assert_eq!(status, 400);
}

/// Method, path below the project, body; and the least level that may.
fn matrix(model: &str, build: &str, deployment: &str) -> Vec<(&'static str, String, Value, usize)> {
    const VIEWER: usize = 0;
    const OPERATOR: usize = 1;
    const CONTRIBUTOR: usize = 2;
    const ADMIN: usize = 3;
    let build = format!("{model}/builds/{build}");
    let deployment = format!("{build}/deployments/{deployment}");
    vec![
        ("GET", String::new(), Value::Null, VIEWER),
        ("PATCH", String::new(), json!({"description": "x"}), CONTRIBUTOR),
        ("PATCH", String::new(), json!({"visibility": "public"}), ADMIN),
        ("GET", "/collaborators".into(), Value::Null, VIEWER),
        ("PUT", "/collaborators/extra".into(), json!({"permission": "viewer"}), ADMIN),
        ("DELETE", "/collaborators/extra".into(), json!({}), ADMIN),
        ("GET", "/files".into(), Value::Null, VIEWER),
        ("POST", "/files".into(), Value::Null, CONTRIBUTOR),
        ("DELETE", "/files/a.py".into(), json!({}), CONTRIBUTOR),
        ("POST", "/files/a.py:download".into(), json!({}), VIEWER),
        ("PUT", "/source".into(), Value::Null, CONTRIBUTOR),
        ("GET", "/models".into(), Value::Null, VIEWER),
        ("POST", "/models".into(), json!({}), CONTRIBUTOR),
        ("GET", model.into(), Value::Null, VIEWER),
        ("PATCH", model.into(), json!({"description": "x"}), CONTRIBUTOR),
        ("GET", format!("{model}/builds"), Value::Null, VIEWER),
        ("GET", format!("{model}/calls"), Value::Null, CONTRIBUTOR),
        ("POST", format!("{model}/builds"), json!({}), CONTRIBUTOR),
        ("GET", build.clone(), Value::Null, VIEWER),
        ("GET", format!("{build}/log"), Value::Null, VIEWER),
        ("GET", format!("{build}/deployments"), Value::Null, VIEWER),
        ("POST", format!("{build}/deployments"), json!({}), CONTRIBUTOR),
        ("GET", deployment.clone(), Value::Null, VIEWER),
        ("GET", format!("{deployment}/log"), Value::Null, VIEWER),
        ("GET", format!("{deployment}/replicas"), Value::Null, VIEWER),
        ("POST", format!("{deployment}:restart"), json!({}), OPERATOR),
        ("POST", format!("{deployment}:stop"), json!({}), OPERATOR),
        ("DELETE", build, json!({}), CONTRIBUTOR),
        ("DELETE", model.into(), json!({}), CONTRIBUTOR),
        ("DELETE", String::new(), json!({}), ADMIN),
    ]
}

#[tokio::test]
async fn each_level_may_what_it_may_and_strangers_see_nothing() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    let build = rig.build(&model, 1).await;
    let deployment = rig.deployment(&build).await["id"].as_str().unwrap().to_owned();
    let below = |path: &str| path.strip_prefix(&project).unwrap().to_owned();
    rig.user("extra").await;
    let levels = ["viewer", "operator", "contributor", "admin"];
    let mut keys = Vec::new();
    for level in levels {
        keys.push(rig.user(&format!("the-{level}")).await);
        let path = format!("{project}/collaborators/the-{level}");
        rig.call("PUT", &path, json!({ "permission": level })).await.ok();
    }
    let stranger = rig.user("stranger").await;
    let build_id = build.rsplit('/').next().unwrap();
    for (method, path, body, needed) in matrix(&below(&model), build_id, &deployment) {
        let path = format!("{project}{path}");
        let refused = rig.call_as(&stranger, method, &path, body.clone()).await.error();
        let unknown = path.replacen(&project, "/api/v2/projects/aaaa-bbbb-cccc-dddd", 1);
        let nothing = rig.call_as(&stranger, method, &unknown, body.clone()).await.error();
        assert_eq!(refused.0, 404, "{method} {path}");
        assert_eq!(nothing.0, 404, "{method} {path}");
        let id = project.rsplit('/').next().unwrap();
        assert_eq!(refused.1.replace(id, "aaaa-bbbb-cccc-dddd"), nothing.1, "foreign looks like missing");
        for (level, key) in keys.iter().enumerate() {
            // What may and would change the project for the rows below is tried by its first level only.
            if level > needed && method != "GET" {
                continue;
            }
            let reply = rig.call_as(key, method, &path, body.clone()).await;
            let is_denied = reply.status.as_u16() == 403;
            assert_eq!(is_denied, level < needed, "{} {method} {path}: {}", levels[level], reply.text);
            // Later rows need the build to be there: visibility and deployment stay as they are otherwise.
            if path == project && method == "PATCH" && level == needed {
                rig.call("PATCH", &project, json!({"visibility": "private"})).await.ok();
            }
        }
    }
}

#[tokio::test]
async fn an_access_key_is_for_contributors_and_above() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let model = rig.model(&project, "m").await;
    for (level, is_shown) in [("viewer", false), ("operator", false), ("contributor", true), ("admin", true)]
    {
        let key = rig.user(&format!("the-{level}")).await;
        rig.call("PUT", &format!("{project}/collaborators/the-{level}"), json!({ "permission": level }))
            .await
            .ok();
        let shown = rig.call_as(&key, "GET", &model, Value::Null).await.ok();
        assert_eq!(!shown["access_key"].as_str().unwrap().is_empty(), is_shown, "{level}");
    }
}

#[tokio::test]
async fn public_projects_are_seen_by_everybody_and_changed_by_nobody_else() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let key = rig.user("ada").await;
    assert_eq!(rig.call_as(&key, "GET", &project, Value::Null).await.error().0, 404);
    rig.call("PATCH", &project, json!({"visibility": "public"})).await.ok();
    let shown = rig.call_as(&key, "GET", &project, Value::Null).await.ok();
    assert_eq!(
        (&shown["permissions"]["read"], &shown["permissions"]["write"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(rig.call_as(&key, "DELETE", &project, json!({})).await.error().0, 403);
    let own = rig.call_as(&key, "GET", "/api/v2/projects", Value::Null).await.ok();
    assert_eq!(own["projects"], json!([]));
    let all =
        rig.call_as(&key, "GET", "/api/v2/projects?include_public_projects=true", Value::Null).await.ok();
    assert_eq!(all["projects"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn others_are_for_administrators() {
    let rig = Rig::new().await;
    let key = rig.user("ada").await;
    for path in ["/api/v2/users/admin", "/api/v2/users/admin/v2_keys", "/api/v2/users/nobody"] {
        assert_eq!(rig.call_as(&key, "GET", path, Value::Null).await.error().0, 404, "{path}");
    }
    assert_eq!(rig.call_as(&key, "GET", "/api/v2/users/ada", Value::Null).await.ok()["role"], "user");
    assert_eq!(rig.call("GET", "/api/v2/users/ada", Value::Null).await.ok()["username"], "ada");
    let project = rig.call_as(&key, "POST", "/api/v2/projects", json!({"name": "hers"})).await.ok();
    let path = format!("/api/v2/projects/{}", project["id"].as_str().unwrap());
    rig.call("GET", &path, Value::Null).await.ok();
}

#[tokio::test]
async fn wrong_paths_and_methods_have_bodies_too() {
    let rig = Rig::new().await;
    assert_eq!(rig.call("GET", "/api/v2/nothing", Value::Null).await.error().0, 404);
    assert_eq!(rig.call("GET", "/api/v2/projects/%ff", Value::Null).await.error().0, 404);
    let reply = rig.call("PUT", "/api/v2/projects", json!({})).await;
    assert_eq!((reply.error().0, reply.json()["code"].clone()), (405, json!(12)));
}

#[tokio::test]
async fn the_document_and_its_page_need_no_key_and_nothing_from_elsewhere() {
    let rig = Rig::new().await;
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let document = rig.send(get("/api/v2/swagger.json")).await.ok();
    assert_eq!(document["swagger"], "2.0");
    assert_eq!(
        document["paths"]["/api/v2/projects/{project_id}/models"]["post"]["operationId"],
        "CreateModel"
    );
    let page = rig.send(get("/api/v2/swagger.html")).await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}
