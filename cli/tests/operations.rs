//! What is done to a model that serves, over real processes and under calls: none of them is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Server, until};

/// Deploys `which`, a function that answers with its version and a variable.
fn deploy(server: &Server, which: &str, more: &[&str]) {
    let code = format!("import os\ndef which(args):\n    return ['{which}', os.environ.get('NOTE')]\n");
    let folder = server.project("which", &[("which.py", &code)]);
    let target = format!("{}:which", folder.join("which.py").display());
    let mut args = vec!["deploy", &target];
    args.extend(more);
    server.ok(&args);
}

fn answer(server: &Server, access_key: &str) -> serde_json::Value {
    let answer = server.call(access_key, "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["response"].clone()
}

/// Calls from several threads all the while; answers how many calls there were, all of them good.
fn under_calls(server: &Server, access_key: &str, work: impl FnOnce()) -> u64 {
    let (is_over, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    answer(server, access_key);
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    calls.into_inner()
}

#[test]
fn a_rollback_lets_the_build_before_serve_again_and_no_call_is_lost() {
    let server = Server::start();
    deploy(&server, "one", &["--env", "NOTE=first"]);
    deploy(&server, "two", &[]);
    let access_key = server.access_key("which");
    assert_eq!(answer(&server, &access_key), serde_json::json!(["two", null]));

    let calls = under_calls(&server, &access_key, || {
        let said = server.ok(&["rollback", "which"]);
        assert!(said.contains("serves build 1 again"), "{said}");
    });
    assert!(calls > 0);
    assert_eq!(
        answer(&server, &access_key),
        serde_json::json!(["one", "first"]),
        "its variables come with it"
    );

    let deployment = server.json(&["rollback", "which", "--build", "2"]);
    assert_eq!((&deployment["status"], &deployment["deployment_number"]), (&"deployed".into(), &4.into()));
    assert_eq!(answer(&server, &access_key), serde_json::json!(["two", null]));
    assert!(server.fails(1, &["rollback", "which", "--build", "9"]).contains("no build 9"));

    let builds = server.json(&["builds", "which"]);
    let numbers: Vec<u64> = builds["model_builds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["build_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2]);
    let table = server.ok(&["builds", "which"]);
    let deployed = table.lines().find(|line| line.contains("deployed")).unwrap();
    assert!(deployed.starts_with('2'), "{table}");
}

#[test]
fn a_deleted_model_leaves_nothing_on_the_disk() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let held = || {
        let count = |part| std::fs::read_dir(server.data_dir().join(part)).unwrap().count();
        ["builds", "run", "sources/trees", "sources/blobs"].map(count)
    };
    assert!(held().iter().all(|count| *count > 0), "{:?}", held());
    server.ok(&["delete", "which"]);
    until("its space to be given back", || (held() == [0; 4]).then_some(()));
}

#[test]
fn a_model_without_an_earlier_build_is_not_rolled_back() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let said = server.fails(1, &["rollback", "which"]);
    assert!(said.contains("no other build") && said.contains("hint:"), "{said}");
}

#[test]
fn scaling_up_and_down_loses_no_call_and_keeps_the_variables() {
    let server = Server::start();
    deploy(&server, "one", &["--env", "NOTE=kept", "--replicas", "2", "--memory", "1"]);
    let access_key = server.access_key("which");
    let calls = under_calls(&server, &access_key, || {
        for replicas in ["4", "1"] {
            server.ok(&["scale", "which", replicas]);
        }
    });
    assert!(calls > 0);
    assert_eq!(answer(&server, &access_key), serde_json::json!(["one", "kept"]));
    let shown = server.json(&["show", "which"]);
    assert_eq!(
        (&shown["latest_deployment"]["replicas"], &shown["latest_deployment"]["memory"]),
        (&1.into(), &1.into())
    );
    until("the end of what served before", || (server.replica_pids("which").len() == 1).then_some(()));
    let said = server.fails(1, &["scale", "which", "150"]);
    assert!(said.contains("replicas") && said.contains("150"), "{said}");
    server.fails(2, &["scale", "which", "0"]);
}

#[test]
fn a_restart_replaces_every_replica_and_no_call_is_lost() {
    let server = Server::start();
    deploy(&server, "one", &["--replicas", "2"]);
    let access_key = server.access_key("which");
    let before = server.replica_pids("which");
    let calls = under_calls(&server, &access_key, || {
        server.ok(&["restart", "which"]);
    });
    assert!(calls > 0);
    let after = server.replica_pids("which");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

#[test]
fn a_restart_that_does_not_come_about_says_why_and_what_serves_goes_on() {
    let server = Server::start();
    let code = "import os\ndef setup():\n    if 'BROKEN' in open('state').read():\n        raise OSError('no database')\n\
                def f(args):\n    return os.getpid()\n";
    let folder = server.project("f", &[("f.py", code), ("state", "fine")]);
    server.ok(&["deploy", &format!("{}:f", folder.join("f.py").display())]);
    let access_key = server.access_key("f");
    let pid = server.call(&access_key, "{}").body["response"].clone();
    // A build is never written to; here the world has changed behind its back, as a database does that is away.
    let builds = std::fs::read_dir(server.data_dir().join("builds")).unwrap();
    for build in builds {
        std::fs::write(build.unwrap().path().join("root/state"), "BROKEN").unwrap();
    }
    let said = server.fails(1, &["restart", "f"]);
    assert!(said.contains("goes on with the replicas it has") && said.contains("no database"), "{said}");
    assert_eq!(server.call(&access_key, "{}").body["response"], pid);
}

#[test]
fn a_stopped_model_serves_again_when_it_is_restarted() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let access_key = server.access_key("which");
    server.ok(&["stop", "which"]);
    assert_eq!(server.call(&access_key, "{}").status, 503);
    server.ok(&["restart", "which"]);
    assert_eq!(answer(&server, &access_key), serde_json::json!(["one", null]));
}

#[test]
fn what_serves_is_scaled_and_stopped_although_a_later_deploy_failed() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let access_key = server.access_key("which");
    let folder = server.project("which", &[("which.py", "import no_such_module\n")]);
    server.fails(1, &["deploy", &format!("{}:which", folder.join("which.py").display())]);

    server.ok(&["scale", "which", "2"]);
    assert_eq!(answer(&server, &access_key), serde_json::json!(["one", null]));
    server.fails(1, &["deploy", &format!("{}:which", folder.join("which.py").display())]);
    server.ok(&["stop", "which"]);
    assert_eq!(server.call(&access_key, "{}").status, 503);
}

#[test]
fn a_new_access_key_calls_the_model_and_the_old_one_does_not() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let old = server.access_key("which");
    let new = server.ok(&["access-key", "regenerate", "which"]).trim().to_owned();
    assert_ne!(new, old);
    until("the new key's way to the gateway", || (server.call(&new, "{}").status == 200).then_some(()));
    until("the old key's end", || (server.call(&old, "{}").status == 401).then_some(()));
    assert_eq!(server.access_key("which"), new);
}

#[test]
fn a_deleted_key_is_refused_and_not_listed() {
    let server = Server::start();
    let key = server.json(&["key", "create", "--comment", "for a test"]);
    let id = key["key_id"].as_str().unwrap();
    let listed = server.ok(&["key", "list"]);
    assert!(listed.contains(id) && listed.contains("for a test"), "{listed}");
    assert!(!listed.contains(key["api_key"].as_str().unwrap()));

    server.ok(&["key", "delete", id]);
    assert!(!server.ok(&["key", "list"]).contains(id));
    let output =
        server.command(&["list"]).env("MILLGATE_API_KEY", key["api_key"].as_str().unwrap()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("401"), "{said}");
    assert!(server.fails(1, &["key", "delete", id]).contains(id));
    server.fails(2, &["key", "delete"]);
}

#[test]
fn the_calls_of_a_model_are_shown_with_how_they_ended() {
    let server = Server::start();
    deploy(&server, "one", &[]);
    let access_key = server.access_key("which");
    for request in ["1", "2"] {
        assert_eq!(server.call(&access_key, request).status, 200);
    }
    let url = server.url();
    let body = format!(r#"{{"accessKey":"{access_key}","request":3}}"#);
    assert_eq!(common::post(url, "/model", None, &body).status, 401);
    let calls = |args: &[&str]| {
        let all = server.json(&[&["logs", "--calls", "which"], args].concat());
        all["calls"].as_array().unwrap().clone()
    };
    // Events are written a moment after their calls.
    let of_refused = until("the refused call", || calls(&["--code", "api_key.required"]).pop());
    assert_eq!((&of_refused["status"], &of_refused["model_name"]), (&401.into(), &"which".into()));
    let all = calls(&["--since", "1h"]);
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["code"], &all[0]["user"]), (&"ok".into(), &"admin".into()));
    assert!(all[0]["key"].is_string() && all[0]["run_ms"].is_number() && all[0]["replica"].is_string());
    assert_eq!(calls(&["--limit", "1"])[0], of_refused);
    let shown = server.ok(&["logs", "--calls", "which"]);
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert!(!shown.contains(&access_key));
    let said = server.fails(1, &["logs", "--calls", "which", "--since", "yesterday"]);
    assert!(said.contains("`since` is `yesterday`"), "{said}");
    server.fails(2, &["logs", "which", "--since", "1h"]);
}
