//! From a file to an answered call, over real processes: what the contract promises a data scientist and a caller.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Server, millgate, post, processes_of, until};

const ADD: &str = "def add(args):\n    return args['a'] + args['b']\n";
const EXAMPLE: &str = r#"{"a":3,"b":5}"#;

fn deploy_add(server: &Server) -> String {
    let folder = server.project("add", &[("add.py", ADD)]);
    let target = format!("{}:add", folder.join("add.py").display());
    server.ok(&["deploy", &target, "--example", EXAMPLE]);
    server.access_key("add")
}

#[test]
fn a_deployed_function_answers_with_a_key_and_not_without() {
    let server = Server::start();
    let access_key = deploy_add(&server);

    let good = server.call(&access_key, EXAMPLE);
    assert_eq!((good.status, &good.body["response"]), (200, &8.into()), "{good:?}");
    assert_eq!(good.body["success"], true);
    assert!(good.body["ReplicaID"].as_str().unwrap().starts_with("add-1-1-"), "{good:?}");
    assert!(good.head.contains("x-request-id:"));

    let body = format!(r#"{{"accessKey":"{access_key}","request":{EXAMPLE}}}"#);
    let without = post(server.url(), "/model", None, &body);
    assert_eq!((without.status, &without.body["error"]["code"]), (401, &"api_key.required".into()));

    let key = server.api_key();
    let in_query = format!("/model?accessKey={access_key}");
    let answer = post(server.url(), &in_query, Some(&key), &format!(r#"{{"request":{EXAMPLE}}}"#));
    assert_eq!(answer.body["response"], 8);
    let answer = post(server.url(), "/api/altus-ds-1/models/call-model", Some(&key), &body);
    assert_eq!(answer.body["response"], 8);

    assert_eq!(server.ok(&["call", "add", EXAMPLE]).trim(), "8");
    assert!(server.ok(&["test", "add"]).contains("→ 8"));
    assert!(server.ok(&["list"]).contains("deployed"));
}

#[test]
fn replicas_outlive_a_killed_server_and_serve_the_next_one() {
    let mut server = Server::start();
    let folder = server.project(
        "add",
        &[("add.py", "def add(args):\n    print('adding')\n    return args['a'] + args['b']\n")],
    );
    server.ok(&["deploy", &format!("{}:add", folder.join("add.py").display())]);
    let access_key = server.access_key("add");
    let before = server.replica_pids("add");
    assert_eq!(before.len(), 1);

    server.kill();
    server.start_again();
    let answer = until("an answer", || Some(server.call(&access_key, EXAMPLE)).filter(|a| a.status == 200));
    assert_eq!(answer.body["response"], 8);
    assert_eq!(server.replica_pids("add"), before);
    until("the print in the log", || server.ok(&["logs", "add"]).contains("adding").then_some(()));
}

#[test]
fn what_was_active_is_served_again_after_a_clean_end() {
    let mut server = Server::start();
    let access_key = deploy_add(&server);
    assert!(server.interrupt().success());
    assert_eq!(processes_of(&server.data_dir()), Vec::<i32>::new());

    server.start_again();
    let answer = until("an answer", || Some(server.call(&access_key, EXAMPLE)).filter(|a| a.status == 200));
    assert_eq!(answer.body["response"], 8);
}

#[test]
fn an_exception_is_told_and_the_next_call_meets_a_fresh_replica() {
    let server = Server::start();
    let folder = server.project(
        "count",
        &[("count.py", "calls = 0\ndef count(args):\n    global calls\n    calls += 1\n    if args.get('fail'):\n        raise ValueError('asked to')\n    return calls\n")],
    );
    server.ok(&["deploy", &format!("{}:count", folder.join("count.py").display())]);
    let access_key = server.access_key("count");

    assert_eq!(server.call(&access_key, "{}").body["response"], 1);
    let failed = server.call(&access_key, r#"{"fail":true}"#);
    assert_eq!((failed.status, &failed.body["error"]["code"]), (500, &"function.exception".into()));
    assert_eq!(failed.body["error"]["message"], "unexpected model shutdown: ValueError: asked to");
    assert!(!failed.body.to_string().contains("Traceback"));
    let next = server.call(&access_key, "{}");
    assert_eq!(next.body["response"], 1, "the replica began anew: {next:?}");
    until("the traceback in the log", || server.ok(&["logs", "count"]).contains("Traceback").then_some(()));

    // It is found by the request that failed, and by no other.
    let ids: Vec<String> = until("the events of the three calls", || {
        let answer = server.json(&["logs", "--calls", "count"]);
        let calls = answer["calls"].as_array().unwrap();
        let ids = calls.iter().map(|call| call["request_id"].as_str().unwrap().to_owned());
        (calls.len() == 3).then(|| ids.collect())
    });
    let of = |id: &str| server.ok(&["logs", "count", "--request", id]);
    assert!(of(&ids[1]).contains("ValueError: asked to") && of(&ids[1]).contains(&ids[1]));
    assert!(!of(&ids[0]).contains("Traceback") && !of(&ids[2]).contains("Traceback"));

    let replica = server.json(&["show", "count"])["replicas"][0].clone();
    assert_eq!(replica["calls"], 1, "{replica}");
    for time in ["busy_seconds", "interpreter_wait_seconds", "idle_seconds"] {
        assert!(replica[time].is_f64(), "{replica}");
    }
}

#[test]
fn a_failed_deploy_says_why_and_the_old_one_goes_on_serving() {
    let server = Server::start();
    let access_key = deploy_add(&server);
    let target = format!("{}:add", server.folder.path().join("add/add.py").display());

    server.project("add", &[("add.py", "import no_such_module\ndef add(args):\n    return 0\n")]);
    let said = server.fails(1, &["deploy", &target]);
    assert!(said.contains("No module named 'no_such_module'"), "{said}");
    assert!(said.contains("hint:"), "{said}");

    server.project("add", &[("add.py", "def plus(args):\n    return 0\n")]);
    let said = server.fails(1, &["deploy", &target]);
    assert!(said.contains("`add`") && said.contains("plus"), "{said}");

    server.project("add", &[("add.py", ADD), ("cdsw-build.sh", "echo before\nexit 7\n")]);
    let said = server.fails(1, &["deploy", &target]);
    assert!(said.contains('7'), "{said}");

    let missing = target.replace("add.py", "gone.py");
    let said = server.fails(1, &["deploy", &missing]);
    assert!(said.contains("does not exist"), "{said}");

    assert_eq!(server.call(&access_key, EXAMPLE).body["response"], 8);
}

#[test]
fn a_new_build_takes_over_and_no_call_is_lost() {
    let server = Server::start();
    let access_key = deploy_add(&server);
    let folder = server.project("add", &[("add.py", "def add(args):\n    return 'new'\n")]);
    let target = format!("{}:add", folder.join("add.py").display());
    let mut deploy = server
        .command(&["deploy", &target])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut calls = 0;
    let status = loop {
        let answer = server.call(&access_key, EXAMPLE);
        assert_eq!(answer.status, 200, "{answer:?}");
        calls += 1;
        if let Some(status) = deploy.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success());
    assert!(calls > 1);
    assert_eq!(server.call(&access_key, EXAMPLE).body["response"], "new");
    let old = server.data_dir().join("run/1");
    until("the old deployment's end", || processes_of(&old).is_empty().then_some(()));
}

#[test]
fn a_stopped_model_answers_503_and_a_deleted_one_is_not_known() {
    let server = Server::start();
    let access_key = deploy_add(&server);
    server.ok(&["stop", "add"]);
    let stopped = server.call(&access_key, EXAMPLE);
    assert_eq!((stopped.status, &stopped.body["error"]["code"]), (503, &"model.unavailable".into()));
    assert!(stopped.head.contains("retry-after:"));
    server.ok(&["delete", "add"]);
    let deleted =
        until("the access key's end", || Some(server.call(&access_key, EXAMPLE)).filter(|a| a.status == 401));
    assert_eq!(deleted.body["error"]["code"], "access_key.invalid");
    server.fails(1, &["show", "add"]);
}

#[test]
fn metrics_are_collected_with_the_crn_of_the_deployment() {
    let server = Server::start();
    let code = "import cml.models_v1 as models\nfrom cml.metrics_v1 import track_metric\n\n@models.cml_model(metrics=True)\ndef predict(args):\n    track_metric('seen', args)\n    return {'twice': args['n'] * 2}\n";
    let folder = server.project("twice", &[("predict.py", code)]);
    server.ok(&[
        "deploy",
        &format!("{}:predict", folder.join("predict.py").display()),
        "--name",
        "twice",
        "--example",
        r#"{"n":1}"#,
    ]);
    let answer = server.call(&server.access_key("twice"), r#"{"n":21}"#);
    let response = &answer.body["response"];
    assert_eq!(response["prediction"]["twice"], 42, "{answer:?}");
    assert!(response["model_deployment_crn"].as_str().unwrap().starts_with("crn:cdp:ml:"));
    assert_eq!(response["uuid"].as_str().unwrap().len(), 36);
}

#[test]
fn a_created_key_calls_models() {
    let server = Server::start();
    let access_key = deploy_add(&server);
    let key = server.ok(&["key", "create", "--comment", "a test"]);
    let body = format!(r#"{{"accessKey":"{access_key}","request":{EXAMPLE}}}"#);
    let answer = post(server.url(), "/model", Some(key.trim()), &body);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn what_cannot_be_served_is_one_clear_message() {
    let server = Server::start();
    let listen = server.url().trim_start_matches("http://").to_owned();
    let other = server.folder.path().join("other");
    let output = millgate().args(["serve", "--listen", &listen, "--data-dir"]).arg(&other).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&listen) && said.contains("hint:"), "{said}");

    let output = millgate()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hint:"), "{said}");

    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("VERSION"), "999\n").unwrap();
    let output = millgate()
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&other)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("999") && said.contains("hint:"), "{said}");

    assert!(server.fails(2, &["call", "add", "{a: 1}"]).contains("hint:"));
    assert!(server.fails(1, &["call", "none", "{}"]).contains("there is no model `none`"));
}

#[test]
fn the_printed_command_calls_the_model_when_it_is_pasted() {
    let server = Server::start();
    let folder = server.project("add", &[("add.py", ADD)]);
    let printed =
        server.ok(&["deploy", &format!("{}:add", folder.join("add.py").display()), "--example", EXAMPLE]);
    let command = printed.split_once("Call it:").unwrap().1;
    let output = std::process::Command::new("sh").args(["-c", command]).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains(r#""success":true,"response":8"#), "{command}\n{answer}");
}
