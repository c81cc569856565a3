//! Users, passwords, service accounts, teams, and what comes of their going.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::testing::{Reply, Rig};

#[tokio::test]
async fn a_token_of_the_issuer_is_its_users_if_they_are_known_here() {
    let mut rig = Rig::new().await;
    rig.user("ada").await;
    let read = |token: &str| token.strip_prefix("good-").map(millgate_contract::ids::Username::new);
    rig.restart_with(|config| config.token_reader = Some(crate::TokenReader::new(read))).await;
    let who = |token: &'static str| json_of(&rig, token);
    assert_eq!(who("good-ada").await.ok()["username"], "ada");
    assert_eq!(who("good-bob").await.error().0, 401);
    assert_eq!(who("bad").await.error().0, 401);
    rig.call("PATCH", "/api/v2/users/ada", json!({"is_disabled": true})).await.ok();
    assert_eq!(who("good-ada").await.error().0, 401);
}

async fn json_of(rig: &Rig, token: &str) -> Reply {
    rig.call_as(token, "GET", "/api/v2/users/ada", Value::Null).await
}

const PASSWORD: &str = "correct horse battery";

async fn login(rig: &Rig, username: &str, password: &str) -> Reply {
    let body = json!({ "username": username, "password": password });
    let request = Request::post("/api/v2/auth/login").body(Body::from(body.to_string())).unwrap();
    rig.send(request).await
}

#[tokio::test]
async fn a_person_logs_in_and_changes_their_password() {
    let rig = Rig::new().await;
    let made = rig.call("POST", "/api/v2/users", json!({"username": "ada", "password": PASSWORD})).await.ok();
    assert_eq!(
        (&made["role"], &made["kind"], &made["has_password"]),
        (&json!("user"), &json!("person"), &json!(true))
    );
    let wrong = login(&rig, "ada", "something else").await.error();
    assert_eq!(wrong, login(&rig, "nobody", PASSWORD).await.error(), "what is wrong is not told");
    assert_eq!(wrong.0, 401);
    let key = login(&rig, "ada", PASSWORD).await.ok()["api_key"].as_str().unwrap().to_owned();
    assert_eq!(rig.call_as(&key, "GET", "/api/v2/users/ada", Value::Null).await.ok()["username"], "ada");
    let path = "/api/v2/users/ada/password";
    let new = json!({"password": "another good one", "current_password": "guessed"});
    assert_eq!(rig.call_as(&key, "PUT", path, new).await.error().0, 403);
    let new = json!({"password": "another good one", "current_password": PASSWORD});
    rig.call_as(&key, "PUT", path, new).await.ok();
    assert_eq!(login(&rig, "ada", PASSWORD).await.error().0, 401);
    login(&rig, "ada", "another good one").await.ok();
    let (status, message) = rig.call("PUT", path, json!({"password": "short"})).await.error();
    assert!(status == 400 && message.contains("12 to 1000"), "{message}");
    rig.call("PUT", path, json!({"password": "set by the administrator"})).await.ok();
    login(&rig, "ada", "set by the administrator").await.ok();
}

#[tokio::test]
async fn names_of_users_are_plain_and_given_once() {
    let rig = Rig::new().await;
    for name in [
        "",
        "a b",
        "a/b",
        "../x",
        "аdmin",
        "ad\u{200b}min",
        "ａdmin",
        "a:b",
        "-x",
        ".x",
        "a\u{202e}b",
        &"x".repeat(129),
    ] {
        let (status, message) = rig.call("POST", "/api/v2/users", json!({ "username": name })).await.error();
        assert!(status == 400 && message.contains("`username`"), "{name:?}: {message}");
    }
    rig.call("POST", "/api/v2/users", json!({"username": "ada@example.org"})).await.ok();
    let again = rig.call("POST", "/api/v2/users", json!({"username": "ada@example.org"})).await;
    assert_eq!((again.error().0, &again.json()["code"]), (409, &json!(6)));
    rig.call("DELETE", "/api/v2/users/ada@example.org", json!({})).await.ok();
    assert_eq!(rig.call("GET", "/api/v2/users/ada@example.org", Value::Null).await.error().0, 404);
    assert_eq!(
        rig.call("POST", "/api/v2/users", json!({"username": "ada@example.org"})).await.error().0,
        409
    );
}

#[tokio::test]
async fn who_is_disabled_or_deleted_opens_nothing_and_what_they_made_goes_on() {
    let rig = Rig::new().await;
    let project = rig.project("p").await;
    let ada = rig.user("ada").await;
    rig.call("PUT", &format!("{project}/collaborators/ada"), json!({"permission": "contributor"})).await.ok();
    let model = rig.call_as(&ada, "POST", &format!("{project}/models"), json!({"name": "m"})).await.ok();
    let callers = async || rig.app.store.callers().await.unwrap().remove(0).callers;
    assert_eq!(callers().await, ["ada", "admin"]);
    rig.call("PATCH", "/api/v2/users/ada", json!({"is_disabled": true})).await.ok();
    assert_eq!(rig.call_as(&ada, "GET", "/api/v2/projects", Value::Null).await.error().0, 401);
    assert_eq!(callers().await, ["admin"], "nor does a gateway let them call");
    rig.call("PATCH", "/api/v2/users/ada", json!({"is_disabled": false})).await.ok();
    rig.call_as(&ada, "GET", "/api/v2/projects", Value::Null).await.ok();
    assert_eq!(callers().await, ["ada", "admin"]);
    rig.call("DELETE", "/api/v2/users/ada", json!({})).await.ok();
    assert_eq!(rig.call_as(&ada, "GET", "/api/v2/projects", Value::Null).await.error().0, 401);
    assert_eq!(callers().await, ["admin"]);
    let path = format!("{project}/models/{}", model["id"].as_str().unwrap());
    let shown = rig.call("GET", &path, Value::Null).await.ok();
    assert_eq!(shown["creator"]["username"], "ada");
    assert_eq!(rig.app.store.routes().await.unwrap().len(), 1, "the model is there without its creator");
}

#[tokio::test]
async fn a_server_is_never_without_an_administrator() {
    let rig = Rig::new().await;
    for (method, body) in
        [("PATCH", json!({"role": "user"})), ("PATCH", json!({"is_disabled": true})), ("DELETE", json!({}))]
    {
        let (status, message) = rig.call(method, "/api/v2/users/admin", body).await.error();
        assert!(status == 400 && message.contains("without an administrator"), "{message}");
    }
    rig.call("POST", "/api/v2/users", json!({"username": "eve", "role": "administrator"})).await.ok();
    rig.call("PATCH", "/api/v2/users/admin", json!({"role": "user"})).await.ok();
    assert_eq!(rig.call("GET", "/api/v2/users", Value::Null).await.error().0, 403);
}

#[tokio::test]
async fn role_and_access_are_not_ones_own_to_change() {
    let rig = Rig::new().await;
    let ada = rig.user("ada").await;
    for body in [json!({"role": "administrator"}), json!({"is_disabled": true})] {
        assert_eq!(rig.call_as(&ada, "PATCH", "/api/v2/users/ada", body).await.error().0, 403);
    }
    let shown = rig.call_as(&ada, "GET", "/api/v2/users/ada", Value::Null).await.ok();
    let mut sent = shown.clone();
    sent["email"] = json!("ada@example.org");
    let shown = rig.call_as(&ada, "PATCH", "/api/v2/users/ada", sent).await.ok();
    assert_eq!(shown["email"], "ada@example.org");
}

#[tokio::test]
async fn a_service_account_has_keys_and_no_password_and_models_run_as_it() {
    let rig = Rig::new().await;
    let body = json!({"username": "robot", "kind": "service", "password": PASSWORD});
    assert_eq!(rig.call("POST", "/api/v2/users", body).await.error().0, 400);
    rig.call("POST", "/api/v2/users", json!({"username": "robot", "kind": "service"})).await.ok();
    assert_eq!(
        rig.call("PUT", "/api/v2/users/robot/password", json!({"password": PASSWORD})).await.error().0,
        400
    );
    rig.call("POST", "/api/v2/users/robot/v2_keys", json!({})).await.ok();
    let project = rig.project("p").await;
    let model =
        rig.call("POST", &format!("{project}/models"), json!({"name": "m", "run_as": "robot"})).await.ok();
    assert_eq!(model["run_as"], "robot");
    let missing =
        rig.call("POST", &format!("{project}/models"), json!({"name": "n", "run_as": "nobody"})).await;
    assert_eq!(missing.error().0, 400);
}

#[tokio::test]
async fn members_have_their_level_in_all_projects_of_a_team() {
    let rig = Rig::new().await;
    let (ada, bob) = (rig.user("ada").await, rig.user("bob").await);
    rig.call("POST", "/api/v2/teams", json!({"name": "science"})).await.ok();
    assert_eq!(rig.call_as(&ada, "GET", "/api/v2/teams/science", Value::Null).await.error().0, 404);
    let member = |name: &str| format!("/api/v2/teams/science/members/{name}");
    rig.call("PUT", &member("ada"), json!({"permission": "contributor"})).await.ok();
    assert_eq!(
        rig.call_as(&ada, "PUT", &member("bob"), json!({"permission": "viewer"})).await.error().0,
        403
    );
    let body = json!({"name": "p", "team_name": "science"});
    assert_eq!(rig.call_as(&bob, "POST", "/api/v2/projects", body.clone()).await.error().0, 400);
    let project = rig.call_as(&ada, "POST", "/api/v2/projects", body).await.ok();
    assert_eq!(
        (&project["owner"]["username"], &project["creator"]["username"]),
        (&json!("science"), &json!("ada"))
    );
    let path = format!("/api/v2/projects/{}", project["id"].as_str().unwrap());
    rig.call_as(&ada, "POST", &format!("{path}/models"), json!({"name": "m"})).await.ok();
    assert_eq!(rig.call_as(&ada, "DELETE", &path, json!({})).await.error().0, 403);
    assert_eq!(rig.call_as(&bob, "GET", &path, Value::Null).await.error().0, 404);
    rig.call("PUT", &member("bob"), json!({"permission": "viewer"})).await.ok();
    rig.call_as(&bob, "GET", &path, Value::Null).await.ok();
    let list = rig.call_as(&bob, "GET", "/api/v2/models", Value::Null).await.ok();
    assert_eq!(list["models"][0]["name"], "m");
    assert_eq!(
        rig.app.store.callers().await.unwrap()[0].callers,
        ["ada", "bob"],
        "a team calls nothing itself"
    );
    let (status, message) = rig.call("DELETE", "/api/v2/teams/science", json!({})).await.error();
    assert!(status == 400 && message.contains("owns 1 projects"), "{message}");
    rig.call("DELETE", &member("bob"), json!({})).await.ok();
    assert_eq!(rig.call_as(&bob, "GET", &path, Value::Null).await.error().0, 404);
    // A team is not somebody.
    for path in ["/api/v2/users/science", "/api/v2/users/science/v2_keys"] {
        assert_eq!(rig.call("GET", path, Value::Null).await.error().0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_project_is_given_to_another_owner_by_who_governs_it() {
    let rig = Rig::new().await;
    let (ada, bob) = (rig.user("ada").await, rig.user("bob").await);
    let project = rig.call_as(&ada, "POST", "/api/v2/projects", json!({"name": "p"})).await.ok();
    let path = format!("/api/v2/projects/{}", project["id"].as_str().unwrap());
    rig.call_as(&ada, "PUT", &format!("{path}/collaborators/bob"), json!({"permission": "contributor"}))
        .await
        .ok();
    let mut given = project.clone();
    given["owner"]["username"] = json!("bob");
    assert_eq!(rig.call_as(&bob, "PATCH", &path, given.clone()).await.error().0, 403);
    assert_eq!(rig.call_as(&ada, "PATCH", &path, given).await.ok()["owner"]["username"], "bob");
    assert_eq!(rig.call_as(&ada, "GET", &path, Value::Null).await.error().0, 404);
    rig.call_as(&bob, "DELETE", &path, json!({})).await.ok();
}
