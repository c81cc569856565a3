//! What an administrator sets for everybody's models: amounts by name, and variables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Server;
use serde_json::{Value, json};

const CODE: &str =
    "import os\ndef f(args):\n    return [os.environ.get(name) for name in ('SECRET', 'REGION')]\n";

fn deploy(server: &Server, more: &[&str]) -> Value {
    let folder = server.project("f", &[("f.py", CODE)]);
    let target = format!("{}:f", folder.join("f.py").display());
    let args: Vec<&str> = ["deploy", &target].into_iter().chain(more.iter().copied()).collect();
    server.json(&args)["deployment"].clone()
}

#[test]
fn a_deploy_takes_its_amounts_from_a_profile_and_numbers_win() {
    let server = Server::start();
    assert!(server.ok(&["profiles"]).contains("No profiles yet"));
    server.ok(&[
        "profiles",
        "add",
        "small",
        "--cpu",
        "0.5",
        "--memory",
        "0.25",
        "--description",
        "for tests",
    ]);
    let said = server.fails(1, &["profiles", "add", "small", "--cpu", "1", "--memory", "1"]);
    assert!(said.contains("`small` already"), "{said}");
    let edited = server.ok(&["profiles", "edit", "small", "--memory", "0.5"]);
    assert!(edited.contains("0.5 CPU, 0.5 GB, 0 GPUs"), "{edited}");
    let table = server.ok(&["profiles", "list"]);
    assert!(table.contains("small") && table.contains("for tests"), "{table}");

    let amounts = |d: &Value| json!([d["cpu"], d["memory"], d["resource_profile"]]);
    assert_eq!(amounts(&deploy(&server, &["--profile", "small"])), json!([0.5, 0.5, "small"]));
    assert_eq!(amounts(&deploy(&server, &["--profile", "small", "--cpu", "1"])), json!([1, 0.5, "small"]));
    let target = format!("{}:f", server.folder.path().join("f/f.py").display());
    let said = server.fails(1, &["deploy", &target, "--profile", "huge"]);
    assert!(said.contains("field `auto_deployment_config.resource_profile` is \"huge\""), "{said}");

    server.ok(&["profiles", "delete", "small"]);
    assert_eq!(server.json(&["profiles"]), json!({"resource_profiles": []}));
    let shown = server.json(&["show", "f"]);
    assert_eq!(amounts(&shown["latest_deployment"]), json!([1, 0.5, "small"]), "it stays as it is");
    assert_eq!(amounts(&deploy(&server, &[])), json!([1, 2, ""]));
}

#[test]
fn variables_are_set_for_all_models_or_a_project_s_and_shown_without_their_values() {
    let server = Server::start();
    assert!(server.ok(&["environment"]).contains("No variables"));
    let said = server.ok(&["environment", "SECRET=hunter2", "REGION=north"]);
    assert_eq!(said.lines().collect::<Vec<_>>(), ["REGION", "SECRET"]);
    assert!(server.ok(&["environment", "--values"]).contains("SECRET=hunter2"));
    assert_eq!(server.json(&["environment"]), json!({"names": ["REGION", "SECRET"]}));

    deploy(&server, &[]);
    let access_key = server.access_key("f");
    let answer = || server.call(&access_key, "{}").body["response"].clone();
    assert_eq!(answer(), json!(["hunter2", "north"]));
    // By its name, and by the folder that is deployed.
    server.ok(&["environment", "REGION=south", "--project", "f"]);
    let folder = server.project("f", &[]);
    let shown = server.json(&["environment", "--project", &folder.display().to_string(), "--values"]);
    assert_eq!(shown, json!({"environment": {"REGION": "south"}}));
    server.ok(&["environment", "--unset", "SECRET"]);
    deploy(&server, &[]);
    assert_eq!(answer(), json!([null, "south"]), "the project's wins");

    let said = server.fails(1, &["environment", "--unset", "SECRET"]);
    assert!(said.contains("no variable `SECRET`") && said.contains("hint:"), "{said}");
    assert!(server.fails(1, &["environment", "--project", "none"]).contains("no project `none`"));
    assert!(server.fails(2, &["environment", "=x"]).contains("names no variable"));
}
