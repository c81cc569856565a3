//! Models of several Pythons on one server. The second Python is the one that `deploy/runtimes.sh` has built a runtime of;
//! where there is none, what is left to see is that nothing else passes for one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Running, Server, millgate, until};
use serde_json::Value;

const WHO: &str = "import sys\n\ndef who(args):\n    return '%d.%d' % sys.version_info[:2]\n";

/// Version and interpreter of the runtimes beside the program, as they say themselves.
fn further_runtimes() -> Vec<(String, String)> {
    let programs = Path::new(env!("CARGO_BIN_EXE_millgate")).parent().unwrap();
    let mut found: Vec<_> = fs::read_dir(programs)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("millgate-replica-3."))
        .map(|entry| {
            let output = Command::new(entry.path()).arg("info").output().unwrap();
            let info: Value = serde_json::from_slice(&output.stdout).unwrap();
            let version = info["python"].as_str().unwrap();
            (version.rsplit_once('.').unwrap().0.to_owned(), info["executable"].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    found
}

fn own_version(server: &Server) -> String {
    let runtimes = server.json(&["runtimes"]);
    runtimes["runtimes"][0]["kernel"].as_str().unwrap().trim_start_matches("Python ").to_owned()
}

fn versions(listed: &Value) -> Vec<String> {
    let runtimes = listed["runtimes"].as_array().unwrap();
    let minor =
        |runtime: &Value| runtime["kernel"].as_str().unwrap().trim_start_matches("Python ").to_owned();
    assert!(runtimes.iter().all(|runtime| runtime["status"] == "ENABLED"), "{listed}");
    runtimes.iter().map(minor).collect()
}

#[test]
fn what_is_no_runtime_is_refused_and_nothing_is_sent_for_a_version_that_is_not_there() {
    let server = Server::start();
    let said = server.fails(1, &["runtimes", "add", "/bin/sh"]);
    assert!(said.contains("hint:"), "{said}");
    let folder = server.project("who", &[("who.py", WHO)]);
    let target = format!("{}:who", folder.join("who.py").display());
    let said = server.fails(1, &["deploy", &target, "--python", "3.5"]);
    assert!(said.contains("no Python `3.5`") && said.contains("millgate runtimes add"), "{said}");
    assert_eq!(server.json(&["list"])["models"].as_array().unwrap().len(), 0);
    let own = own_version(&server);
    assert_eq!(versions(&server.json(&["runtimes"])), [own.as_str()]);
    server.ok(&["deploy", &target, "--runtime", &own]);
    assert_eq!(server.ok(&["call", "who", "{}"]).trim(), format!("\"{own}\""));
    let said = server.fails(1, &["runtimes", "remove", &own]);
    assert!(said.contains("server's own"), "{said}");
    let said = server.fails(1, &["runtimes", "remove", "3.5"]);
    assert!(said.contains("3.5"), "{said}");
}

#[test]
fn models_of_all_pythons_serve_side_by_side_and_again_after_every_kind_of_end() {
    let further = further_runtimes();
    if further.is_empty() {
        eprintln!(
            "no second runtime beside the program: `make runtimes` builds those of the Pythons found here"
        );
    }
    let mut server = Server::start();
    let own = own_version(&server);
    let folder = server.project("who", &[("who.py", WHO)]);
    let target = format!("{}:who", folder.join("who.py").display());
    let mut models = vec![("who".to_owned(), own.clone())];
    server.ok(&["deploy", &target]);
    for (version, python) in further.iter().filter(|(version, _)| *version != own) {
        server.ok(&["runtimes", "add", python]);
        let name = format!("who-{}", version.replace('.', "-"));
        let deployed =
            server.run(&["deploy", &target, "--python", version, "--name", &name, "--example", "{}"]);
        let log = String::from_utf8_lossy(&deployed.stderr).into_owned();
        assert!(deployed.status.success() && log.contains(&format!("uses Python {version}")), "{log}");
        models.push((name, version.clone()));
    }
    let all: Vec<String> = models.iter().map(|(_, version)| version.clone()).collect();
    let serve = |server: &Server| {
        for (model, version) in &models {
            let access_key = server.access_key(model);
            let answer =
                until("an answer", || Some(server.call(&access_key, "{}")).filter(|a| a.status == 200));
            assert_eq!(answer.body["response"], version.as_str(), "{model}");
        }
        assert_eq!(versions(&server.json(&["runtimes"])), all);
    };
    serve(&server);
    server.kill();
    server.start_again();
    serve(&server);
    assert!(server.interrupt().success());

    // The control API alone knows them too.
    let mut command = millgate();
    command.arg("control").arg("--data-dir").arg(server.data_dir()).args(["--listen", "127.0.0.1:0"]);
    let control = Running::start(command);
    let output = millgate()
        .args(["--json", "--server", &control.url, "runtimes"])
        .env("MILLGATE_DATA_DIR", server.data_dir())
        .output()
        .unwrap();
    assert_eq!(versions(&serde_json::from_slice(&output.stdout).unwrap()), all, "{output:?}");
    drop(control);
    server.start_again();
    serve(&server);

    for (model, version) in &models[1..] {
        let said = server.fails(1, &["runtimes", "remove", version]);
        assert!(said.contains("stop it first"), "{said}");
        server.ok(&["stop", model]);
        server.ok(&["runtimes", "remove", version]);
    }
    assert_eq!(versions(&server.json(&["runtimes"])), all[..1]);
}
