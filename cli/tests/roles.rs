//! Gateway and control API as processes of their own, and `run`, which has neither.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, process::Command};

use common::{Running, millgate, post, processes_of, role, until};
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
    let control = Running::start(role("control", &data));
    let gateway = Running::start(role("gateway", &data));
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
    let gateway = Running::start(role("gateway", &data));
    let answer = until("an answer", || Some(call(&gateway.url)).filter(|a| a.status == 200));
    assert_eq!(answer.body["response"], 8);
    drop(gateway);

    // The replicas are nobody's but their supervisor's now; a server of the same directory ends them.
    assert!(Running::start(role("serve", &data)).interrupt().success());
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

/// A file that leaves a mark outside its folder as it is imported, and then waits for ever.
fn endless(mark: &std::path::Path) -> String {
    format!(
        "import time\nopen('{}', 'w').close()\ntime.sleep(3600)\ndef add(args): return 1\n",
        mark.display()
    )
}

#[test]
fn run_that_is_ended_while_it_starts_new_code_leaves_no_process() {
    let (folder, outside) = (folder(), folder());
    let (file, mark) = (folder.path().join("add.py"), outside.path().join("mark"));
    fs::write(&file, ADD).unwrap();
    let temporary = outside.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let running = Running::start({
        let mut command: Command = millgate();
        command.arg("run").arg(format!("{}:add", file.display())).args(["--listen", "127.0.0.1:0"]);
        command.env("TMPDIR", &temporary);
        command
    });
    fs::write(&file, endless(&mark)).unwrap();
    until("the start of the new code", || mark.exists().then_some(()));
    // The old code serves, and takes new connections.
    let answer = post(&running.url, "/model", None, r#"{"request":{"a":3,"b":5}}"#);
    assert_eq!(answer.body["response"], 8);
    assert!(running.interrupt().success());
    until("the end of every process", || processes_of(&temporary).is_empty().then_some(()));
}

#[test]
fn run_that_is_ended_before_its_first_code_has_started_leaves_no_process() {
    let (folder, outside) = (folder(), folder());
    let (file, mark) = (folder.path().join("add.py"), outside.path().join("mark"));
    fs::write(&file, endless(&mark)).unwrap();
    let mut child = millgate()
        .arg("run")
        .arg(format!("{}:add", file.display()))
        .args(["--listen", "127.0.0.1:0"])
        .env("TMPDIR", outside.path())
        .spawn()
        .unwrap();
    until("the start of the code", || mark.exists().then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    until("the end of every process", || processes_of(outside.path()).is_empty().then_some(()));
}

#[test]
fn run_does_not_reload_for_what_it_prints_itself() {
    let folder = folder();
    let (file, said) = (folder.path().join("add.py"), folder.path().join("said.log"));
    fs::write(&file, ADD).unwrap();
    let mut command: Command = millgate();
    command.arg("run").arg(format!("{}:add", file.display())).args(["--listen", "127.0.0.1:0"]);
    command.stderr(fs::File::create(&said).unwrap());
    let running = Running::start_with_stderr(command);
    let call = || post(&running.url, "/model", None, r#"{"request":{"a":3,"b":5}}"#);
    for word in ["one", "two", "three"] {
        fs::write(&file, format!("def add(args):\n    print('asked')\n    return '{word}'\n")).unwrap();
        until("the changed answer", || (call().body["response"] == word).then_some(()));
    }
    assert!(running.interrupt().success());
    let said = fs::read_to_string(&said).unwrap();
    assert_eq!(said.matches("reloaded").count(), 3, "{said}");
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
