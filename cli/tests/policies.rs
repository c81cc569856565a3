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

/// Says whether it can send anything out, and whether it can talk to itself.
const CALLER: &str = r#"import os, socket
def outcome(act):
    try:
        return act()
    except OSError as error:
        return type(error).__name__
def f(args):
    def datagram():
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        out.connect(("192.0.2.1", 9))
        return "a way out"
    def loopback():
        inside = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(inside.getsockname())
        return "itself"
    def server():
        socket.create_connection(("127.0.0.1", int(args["port"])), timeout=5)
        return "the server"
    names = sorted(name for _, name in socket.if_nameindex())
    return {"out": outcome(datagram), "loopback": outcome(loopback), "server": outcome(server), "names": names}
"#;

#[test]
fn a_function_keeps_the_network_unless_its_model_says_no() {
    let server = Server::start();
    let folder = server.project("f", &[("f.py", CALLER)]);
    let target = format!("{}:f", folder.join("f.py").display());
    let port = server.url().rsplit_once(':').unwrap().1.trim_end_matches('/').to_owned();
    let request = json!({ "port": port }).to_string();
    server.ok(&["deploy", &target]);
    let access_key = server.access_key("f");
    let reached = server.call(&access_key, &request).body["response"].clone();
    assert_eq!(
        (&reached["loopback"], &reached["server"]),
        (&json!("itself"), &json!("the server")),
        "{reached}"
    );
    assert_eq!(server.json(&["show", "f"])["isolation"]["network_namespace"], json!(false));

    server.ok(&["deploy", &target, "--no-network"]);
    let reached = server.call(&access_key, &request).body["response"].clone();
    assert_eq!(reached["loopback"], "itself", "{reached}");
    assert_eq!(reached["names"], json!(["lo"]));
    assert_eq!(reached["server"], "ConnectionRefusedError", "{reached}");
    assert_ne!(reached["out"], "a way out", "{reached}");
    assert_eq!(server.json(&["show", "f"])["isolation"]["network_namespace"], json!(true));
    assert!(server.ok(&["show", "f"]).contains("no network"), "it is shown to people too");
}

#[test]
fn a_model_that_requires_isolation_is_served_whole_or_not_at_all() {
    let server = Server::start();
    deploy(&server, &[]);
    let missing = server.json(&["show", "f"])["isolation"]["missing"].clone();
    let missing: Vec<&str> = missing.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let before = pid(&server, &server.access_key("f"));
    let target = format!("{}:f", server.folder.path().join("f/f.py").display());
    let output = server.run(&["deploy", &target, "--require-isolation"]);
    if missing.is_empty() {
        assert!(output.status.success(), "{output:?}");
        return;
    }
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("isolation is required"), "{said}");
    for one in missing {
        assert!(said.contains(one), "`{one}` is named: {said}");
    }
    assert_eq!(pid(&server, &server.access_key("f")), before, "what was deployed before goes on");
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
fn a_replica_is_replaced_at_the_age_and_at_the_memory_that_its_deployment_says() {
    let grows = "import os
held = []
def f(args):
    held.append(bytearray(args.get('mb', 0) << 20))
    return os.getpid()
";
    let server = Server::start();
    let folder = server.project("f", &[("f.py", grows)]);
    let target = format!("{}:f", folder.join("f.py").display());
    let until_another = |access_key: &str, old: &Value| {
        while pid(&server, access_key) == *old {
            std::thread::yield_now();
        }
    };
    server.ok(&["deploy", &target, "--memory-max", "64"]);
    let access_key = server.access_key("f");
    let old = server.call(&access_key, r#"{"mb": 100}"#).body["response"].clone();
    until_another(&access_key, &old);
    assert!(server.ok(&["logs", "f"]).contains("bytes of memory, over"));

    server.ok(&["deploy", &target, "--age-max", "1"]);
    let old = pid(&server, &access_key);
    until_another(&access_key, &old);
    assert!(server.ok(&["logs", "f"]).contains("it has served for 1 s"));
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
