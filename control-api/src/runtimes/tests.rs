//! The catalogue over the API, with interpreters and runtimes that are scripts: what they say is all that is asked here.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::Minor;
use crate::testing::Rig;

fn script(path: PathBuf, says: &Value) -> PathBuf {
    fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An interpreter of this version, and the runtime of its minor version.
fn install(folder: &Path, version: &str) -> PathBuf {
    let folder = folder.canonicalize().unwrap();
    let library = folder.join(format!("libpython-{version}.so"));
    fs::write(&library, "").unwrap();
    let python = folder.join(format!("python-{version}"));
    let said = json!({
        "version": version, "implementation": "cpython", "executable": python, "base_prefix": folder,
        "library": library, "is_shared": true, "is_free_threaded": false, "has_venv": true,
    });
    let minor: Minor = version.parse().unwrap();
    let info = json!({ "executable": python, "python": version, "libpython": library });
    script(folder.join(format!("millgate-replica-{minor}")), &info);
    script(python, &said)
}

/// A control API whose runtime programs lie in its folder.
async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    restart(&mut rig).await;
    rig
}

async fn restart(rig: &mut Rig) {
    let program = rig.temp.path().join("millgate-replica");
    rig.restart_with(|config| config.runtime_program = program).await;
}

async fn listed(rig: &Rig) -> Vec<(String, String)> {
    let list = rig.call("GET", "/api/v2/runtimes", Value::Null).await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = list["runtimes"].as_array().unwrap();
    all.iter().skip(1).map(|runtime| (text(&runtime["full_version"]), text(&runtime["status"]))).collect()
}

async fn add(rig: &Rig, python: &Path) -> crate::testing::Reply {
    rig.call("POST", "/api/v2/runtimes", json!({ "python": python })).await
}

#[tokio::test]
async fn an_added_runtime_is_there_after_a_restart_and_disabled_when_it_has_gone() {
    let mut rig = rig().await;
    let python = install(rig.temp.path(), "3.98.1");
    let added = add(&rig, &python).await.ok();
    assert_eq!((&added["kernel"], &added["full_version"]), (&json!("Python 3.98"), &json!("3.98.1")));
    add(&rig, &install(rig.temp.path(), "3.97.0")).await.ok();
    let enabled = |version: &str| (version.to_owned(), "ENABLED".to_owned());
    assert_eq!(listed(&rig).await, [enabled("3.97.0"), enabled("3.98.1")]);
    restart(&mut rig).await;
    assert_eq!(listed(&rig).await, [enabled("3.97.0"), enabled("3.98.1")]);

    fs::remove_file(&python).unwrap();
    restart(&mut rig).await;
    assert_eq!(listed(&rig).await, [enabled("3.97.0"), ("3.98".to_owned(), "DISABLED".to_owned())]);
    add(&rig, &install(rig.temp.path(), "3.98.2")).await.ok();
    assert_eq!(listed(&rig).await, [enabled("3.97.0"), enabled("3.98.2")]);
}

#[tokio::test]
async fn pages_and_filters_of_the_catalogue_are_those_of_other_lists() {
    let rig = rig().await;
    add(&rig, &install(rig.temp.path(), "3.98.1")).await.ok();
    let first = rig.call("GET", "/api/v2/runtimes?page_size=1", Value::Null).await.ok();
    let token = first["next_page_token"].as_str().unwrap();
    let second =
        rig.call("GET", &format!("/api/v2/runtimes?page_size=1&page_token={token}"), Value::Null).await;
    let second = second.ok();
    assert_eq!(second["runtimes"][0]["full_version"], "3.98.1");
    assert_eq!((first["runtimes"].as_array().unwrap().len(), &second["next_page_token"]), (1, &json!("")));
    let filter = "/api/v2/runtimes?search_filter=%7B%22kernel%22%3A%223.98%22%7D";
    assert_eq!(rig.call("GET", filter, Value::Null).await.ok()["runtimes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_added_is_refused_with_what_to_do() {
    let rig = rig().await;
    let folder = rig.temp.path().to_owned();
    let refused = async |path: &Path, reason: &str| {
        let (status, message) = add(&rig, path).await.error();
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(reason) && message.contains("hint: "), "{reason}: {message}");
    };
    refused(Path::new("/nowhere/python3"), "it cannot be read").await;
    refused(&script(folder.join("a"), &json!("hello")), "it is not a Python").await;
    refused(&script(folder.join("b"), &json!({"version": "2.7.18"})), "name one of Python 3.9 or newer")
        .await;
    let without_program = install(&folder, "3.96.0");
    fs::remove_file(folder.join("millgate-replica-3.96")).unwrap();
    refused(&without_program, "make runtimes PYTHONS=").await;
    let of_another = install(&folder, "3.95.0");
    let info = json!({"python": "3.95.0", "libpython": "/opt/other/libpython3.95.so"});
    script(folder.join("millgate-replica-3.95"), &info);
    refused(&of_another, "is of another installation").await;
    let brought = script(rig.app.dir.root().join("python3"), &json!({}));
    refused(&brought, "it lies in the data directory").await;
    assert_eq!(listed(&rig).await, []);
}

#[tokio::test]
async fn a_build_gets_the_version_it_names_and_runs_by_that_of_its_environment() {
    let rig = rig().await;
    add(&rig, &install(rig.temp.path(), "3.98.1")).await.ok();
    let runtimes = &rig.app.runtimes;
    let own = runtimes.default().python.version.clone();
    for (kernel, identifier, version, missed) in [
        ("Python 3.98", "", "3.98.1", None),
        ("", "registry/ml-runtime-workbench-python3.98-standard:2026.1", "3.98.1", None),
        ("Python 3.98", "registry/python3.5", "3.98.1", None),
        ("Python 3", "", own.as_str(), None),
        ("Python 3.5", "", own.as_str(), Some("3.5")),
    ] {
        let choice = runtimes.choose(kernel, identifier);
        assert_eq!(choice.runtime.python.version, version, "{kernel} {identifier}");
        assert_eq!(choice.missed.map(|minor| minor.to_string()).as_deref(), missed, "{kernel} {identifier}");
    }
    let build = rig.temp.path().join("build");
    fs::create_dir_all(build.join("venv")).unwrap();
    assert_eq!(runtimes.of_build(&build).unwrap().python.version, own);
    fs::write(build.join("venv/pyvenv.cfg"), "version = 3.98.0\n").unwrap();
    let runtime = runtimes.of_build(&build).unwrap();
    assert!(runtime.program.ends_with("millgate-replica-3.98"), "{runtime:?}");
    fs::write(build.join("venv/pyvenv.cfg"), "version = 3.5.0\n").unwrap();
    let reason = runtimes.of_build(&build).unwrap_err().to_string();
    assert!(reason.contains("of Python 3.5") && reason.contains("runtimes add"), "{reason}");
}
