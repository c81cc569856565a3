//! Gateway and control API as processes of their own, and `run`, which has neither.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, process::Command};

use common::{Running, millgate, post, processes_of, until};
use nix::sys::signal::Signal;

const ADD: &str = "def add(args):\n    print('adding')\n    return args['a'] + args['b']\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("mg").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_gateway_goes_on_without_its_control_api_its_own_restart_included() {
    let folder = folder();
    let data = folder.path().join("data");
    let role = |name: &str| {
        let mut command = millgate();
        command.args([name, "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        if name == "gateway" {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        command
    };
    let control = Running::start(role("control"));
    let gateway = Running::start(role("gateway"));
    let file = folder.path().join("add/add.py");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, ADD).unwrap();
    let on_control = |args: &[&str]| {
        let output = millgate()
            .args(args)
            .env("MILLGATE_SERVER", &control.url)
            .env("MILLGATE_DATA_DIR", &data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    on_control(&["deploy", &format!("{}:add", file.display())]);
    let shown: serde_json::Value = serde_json::from_str(&on_control(&["--json", "show", "add"])).unwrap();
    let access_key = shown["access_key"].as_str().unwrap().to_owned();
    let key = on_control(&["key", "create"]);
    let body = format!(r#"{{"accessKey":"{access_key}","request":{{"a":3,"b":5}}}}"#);
    let call = |url: &str| post(url, "/model", Some(key.trim()), &body);
    assert_eq!(call(&gateway.url).body["response"], 8);

    control.signal(Signal::SIGTERM);
    drop(control);
    assert_eq!(call(&gateway.url).body["response"], 8);

    gateway.kill();
    let gateway = Running::start(role("gateway"));
    let answer = until("an answer", || Some(call(&gateway.url)).filter(|a| a.status == 200));
    assert_eq!(answer.body["response"], 8);
    drop(gateway);

    // The replicas are nobody's but their supervisor's now; a server of the same directory ends them.
    let mut serve = millgate();
    serve
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data);
    assert!(Running::start(serve).interrupt().success());
    until("the end of the replicas", || processes_of(&data).is_empty().then_some(()));
}

#[test]
fn run_serves_a_function_and_reloads_it_on_change() {
    let folder = folder();
    let file = folder.path().join("add.py");
    fs::write(&file, ADD).unwrap();
    let running = Running::start({
        let mut command: Command = millgate();
        command.arg("run").arg(format!("{}:add", file.display())).args(["--listen", "127.0.0.1:0"]);
        command
    });
    let call = || post(&running.url, "/model", None, r#"{"request":{"a":3,"b":5}}"#);
    assert_eq!(call().body["response"], 8);

    fs::write(&file, "def add(args):\n    return 'changed'\n").unwrap();
    until("the changed answer", || (call().body["response"] == "changed").then_some(()));

    fs::write(&file, "def add(args:\n").unwrap();
    fs::write(&file, "def add(args):\n    return 'mended'\n").unwrap();
    until("the mended answer", || (call().body["response"] == "mended").then_some(()));
    assert!(running.interrupt().success());
}

#[test]
fn run_says_what_is_wrong_with_the_code() {
    let folder = folder();
    let file = folder.path().join("bad.py");
    fs::write(&file, "import no_such_module\n").unwrap();
    let output = millgate()
        .arg("run")
        .arg(format!("{}:f", file.display()))
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No module named 'no_such_module'"), "{said}");
}
