//! How a deployment is served, from the flags of `deploy` to what its callers meet.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Server;
use serde_json::{Value, json};

const PYTHON: &str = "import os, time
def f(args):
    if args.get('fail'):
        raise ValueError('asked to')
    time.sleep(args.get('sleep', 0))
    return os.getpid()
";

fn deploy(server: &Server, more: &[&str]) {
    let folder = server.project("f", &[("f.py", PYTHON)]);
    let target = format!("{}:f", folder.join("f.py").display());
    let mut args = vec!["deploy", &target];
    args.extend(more);
    server.ok(&args);
}

/// The process that answered.
fn pid(server: &Server, access_key: &str) -> Value {
    let answer = server.call(access_key, "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["response"].clone()
}

#[test]
fn each_call_has_a_process_of_its_own_until_the_next_deployment_says_otherwise() {
    let server = Server::start();
    deploy(&server, &["--isolation", "call", "--spares", "2"]);
    let access_key = server.access_key("f");
    let pids: std::collections::HashSet<String> =
        (0..5).map(|_| pid(&server, &access_key).to_string()).collect();
    assert_eq!(pids.len(), 5, "{pids:?}");
    let policy = server.json(&["show", "f"])["latest_deployment"]["serving_policy"].clone();
    assert_eq!((&policy["isolation"], &policy["spares"]), (&json!("call"), &json!(2)));
    assert!(server.ok(&["show", "f"]).contains("isolation call, "), "it is shown to people too");

    // Scaling is no new word on how it is served.
    server.ok(&["scale", "f", "2"]);
    let pids: std::collections::HashSet<String> =
        (0..5).map(|_| pid(&server, &access_key).to_string()).collect();
    assert_eq!(pids.len(), 5, "{pids:?}");

    deploy(&server, &[]);
    assert_eq!(pid(&server, &access_key), pid(&server, &access_key));
    let shown = server.json(&["show", "f"]);
    let policy = &shown["latest_deployment"]["serving_policy"];
    assert_eq!((&policy["isolation"], &policy["spares"]), (&json!("replica"), &json!(1)));

    // What belonged to the first comes back with it.
    server.ok(&["rollback", "f", "--build", "1"]);
    assert_ne!(pid(&server, &access_key), pid(&server, &access_key));
}

#[test]
fn a_spawned_replica_survives_an_exception_unless_it_is_to_be_replaced() {
    let server = Server::start();
    deploy(&server, &["--start", "spawn"]);
    let access_key = server.access_key("f");
    let shown = server.json(&["show", "f"]);
    assert_eq!(shown["start_mode"], "spawn");
    assert_eq!(shown["start_mode_reason"], "the model asks for it");
    assert_eq!(shown["latest_deployment"]["memory_total"], 2, "there is neither template nor spare");
    let first = pid(&server, &access_key);
    assert_eq!(server.call(&access_key, r#"{"fail": true}"#).status, 500);
    assert_eq!(pid(&server, &access_key), first, "it is kept");

    deploy(&server, &["--start", "spawn", "--on-exception", "replace"]);
    let first = pid(&server, &access_key);
    assert_eq!(server.call(&access_key, r#"{"fail": true}"#).status, 500);
    assert_ne!(pid(&server, &access_key), first);

    deploy(&server, &["--start", "fork", "--on-exception", "keep"]);
    assert_eq!(server.json(&["show", "f"])["latest_deployment"]["memory_total"], 6);
    let first = pid(&server, &access_key);
    assert_eq!(server.call(&access_key, r#"{"fail": true}"#).status, 500);
    assert_eq!(pid(&server, &access_key), first, "it is kept");
}

#[test]
fn a_call_runs_as_long_as_its_deployment_says() {
    let server = Server::start();
    deploy(&server, &["--request-timeout", "0.3"]);
    let access_key = server.access_key("f");
    let answer = server.call(&access_key, r#"{"sleep": 20}"#);
    assert_eq!((answer.status, &answer.body["error"]["code"]), (504, &json!("model.timeout")));
    deploy(&server, &["--request-timeout", "19.5"]);
    let answer = server.call(&access_key, r#"{"sleep": 0.6}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let policy = server.json(&["show", "f"])["latest_deployment"]["serving_policy"].clone();
    assert_eq!(policy["request_timeout_seconds"], json!(19.5));
}

#[test]
fn a_replica_is_replaced_after_as_many_calls_as_its_deployment_says() {
    let server = Server::start();
    deploy(&server, &["--calls-max", "3"]);
    let access_key = server.access_key("f");
    let pids: Vec<Value> = (0..6).map(|_| pid(&server, &access_key)).collect();
    assert!(pids[..3].iter().all(|one| *one == pids[0]), "{pids:?}");
    assert!(pids[3..].iter().all(|one| *one == pids[3]), "{pids:?}");
    assert_ne!(pids[0], pids[3]);
}

#[test]
fn what_cannot_be_is_refused_with_the_rule() {
    let server = Server::start();
    let folder = server.project("f", &[("f.py", PYTHON)]);
    let target = format!("{}:f", folder.join("f.py").display());
    let refused = |args: &[&str]| server.fails(1, &[&["deploy", &target], args].concat());
    let spares = refused(&["--spares", "200"]);
    assert!(
        spares.contains("serving_policy.spares` is 200: it must be a whole number from 0 to 9"),
        "{spares}"
    );
    let memory = refused(&["--memory", "1", "--memory-max", "1024"]);
    assert!(memory.contains("it must be below the replica's memory of 1024 MB"), "{memory}");
    let usage = server.fails(2, &["deploy", &target, "--start", "thread"]);
    assert!(usage.contains("[possible values: auto, fork, spawn]"), "{usage}");
}
