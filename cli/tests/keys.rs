//! Keys and permissions over real processes: what is taken away is refused, without anybody's restart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Server, post, until};
use serde_json::{Value, json};

const ADD: &str = "def add(args):\n    return args['a'] + args['b']\n";

/// A server with the model `add`, and the user `bob`.
struct Setting {
    server: Server,
    access_key: String,
}

impl Setting {
    fn new() -> Self {
        let server = Server::start();
        let file = server.project("add", &[("add.py", ADD)]).join("add.py");
        server.ok(&["deploy", &format!("{}:add", file.display())]);
        let access_key = server.access_key("add");
        let setting = Self { server, access_key };
        setting.add_user("bob");
        setting
    }

    fn add_user(&self, name: &str) {
        self.server.ok(&["user", "create", name]);
    }

    fn call(&self, key: &str) -> (u16, String) {
        let body = format!(r#"{{"accessKey":"{}","request":{{"a":3,"b":5}}}}"#, self.access_key);
        let answer = post(self.server.url(), "/model", Some(key), &body);
        let code = answer.body["error"]["code"].as_str().unwrap_or("ok").to_owned();
        (answer.status, code)
    }

    fn until_code(&self, key: &str, code: &str) {
        until(code, || (self.call(key).1 == code).then_some(()));
    }

    /// Asks the API as the administrator.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.url()))
            .header("Authorization", format!("Bearer {}", self.server.api_key()))
            .body(body.to_string())
            .unwrap();
        let agent = ureq::Agent::config_builder().allow_non_standard_methods(true).build().new_agent();
        let text = agent.run(request).unwrap().into_body().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn new_key(&self, user: &str) -> (String, String) {
        let body = json!({ "audiences": ["API"] });
        let key = self.ask("POST", &format!("/api/v2/users/{user}/v2_keys"), &body);
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        (text("api_key"), text("key_id"))
    }
}

#[test]
fn a_deleted_key_and_a_removed_collaborator_are_refused_while_others_go_on() {
    let setting = Setting::new();
    let admin = setting.server.api_key();
    let (key, id) = setting.new_key("bob");
    assert_eq!(setting.call(&key), (403, "api_key.forbidden".into()));

    let project = setting.ask("GET", "/api/v2/projects", &json!({}))["projects"][0]["id"].clone();
    let bob = format!("/api/v2/projects/{}/collaborators/bob", project.as_str().unwrap());
    setting.ask("PUT", &bob, &json!({ "permission": "viewer" }));
    setting.until_code(&key, "ok");
    setting.ask("DELETE", &bob, &json!({}));
    setting.until_code(&key, "api_key.forbidden");

    setting.ask("PUT", &bob, &json!({ "permission": "viewer" }));
    setting.until_code(&key, "ok");
    let (other, _) = setting.new_key("bob");
    setting.ask("DELETE", &format!("/api/v2/users/bob/v2_keys/{id}"), &json!({}));
    setting.until_code(&key, "api_key.invalid");
    assert_eq!(setting.call(&key), (401, "api_key.invalid".into()));
    assert_eq!(setting.call(&other).0, 200);

    setting.ask("DELETE", "/api/v2/users/bob/v2_keys", &json!({}));
    setting.until_code(&other, "api_key.invalid");
    assert_eq!(setting.call(&admin).0, 200);
}

#[test]
fn a_disabled_user_and_a_deleted_one_are_refused_by_gateways_and_their_models_go_on() {
    let setting = Setting::new();
    let admin = setting.server.api_key();
    let (key, _) = setting.new_key("bob");
    let project = setting.ask("GET", "/api/v2/projects", &json!({}))["projects"][0]["id"].clone();
    let bob = format!("/api/v2/projects/{}/collaborators/bob", project.as_str().unwrap());
    setting.ask("PUT", &bob, &json!({ "permission": "viewer" }));
    setting.until_code(&key, "ok");
    setting.server.ok(&["user", "disable", "bob"]);
    setting.until_code(&key, "api_key.forbidden");
    setting.server.ok(&["user", "enable", "bob"]);
    setting.until_code(&key, "ok");
    // The model's creator goes, and the model stays.
    setting.server.ok(&["user", "create", "eve", "--role", "administrator"]);
    let (eve, _) = setting.new_key("eve");
    setting.until_code(&eve, "ok");
    let deleted = setting.server.command(&["user", "delete", "admin"]).env("MILLGATE_API_KEY", &eve).output();
    assert!(deleted.unwrap().status.success());
    setting.until_code(&admin, "api_key.invalid");
    assert_eq!(setting.call(&eve).0, 200);
}

#[test]
fn a_team_owns_projects_and_its_members_work_in_them() {
    let setting = Setting::new();
    let server = &setting.server;
    server.ok(&["team", "create", "makers", "--description", "who make"]);
    server.ok(&["team", "add", "makers", "bob"]);
    setting.ask("POST", "/api/v2/projects", &json!({"name": "theirs", "team_name": "makers"}));
    let shown = server.ok(&["team", "show", "makers"]);
    assert!(shown.contains("bob") && shown.contains("contributor"), "{shown}");
    let listed = server.json(&["team", "list"]);
    assert_eq!(listed["teams"][0]["members"][0]["permission"], "contributor", "{listed}");
    server.ok(&["team", "add", "makers", "bob", "--permission", "viewer"]);
    assert_eq!(server.json(&["team", "show", "makers"])["members"][0]["permission"], "viewer");
    let refused = server.fails(1, &["team", "delete", "makers"]);
    assert!(refused.contains("owns 1 projects"), "{refused}");
    server.ok(&["team", "remove", "makers", "bob"]);
    assert_eq!(server.json(&["team", "show", "makers"])["members"], json!([]));
    let unknown = server.fails(1, &["team", "add", "makers", "nobody-there"]);
    assert!(unknown.contains("nobody-there"), "{unknown}");
}
