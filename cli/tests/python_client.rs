//! The Python client as its users get it: installed by pip from the running server, and the way of an existing program
//! by it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{path::Path, process::Command};

use common::Server;

fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn an_existing_program_works_with_the_client_that_the_server_hands_out() {
    let server = Server::start();
    let venv = server.folder.path().join("venv");
    run(Path::new("python3"), &["-m", "venv", venv.to_str().unwrap()]);
    let python = venv.join("bin/python");
    let package = format!("{}/api/v2/python.tar.gz", server.url());
    // No index: the package needs none.
    run(&python, &["-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", &package]);
    let stub =
        "import cmlapi, pathlib; print((pathlib.Path(cmlapi.__file__).parent / '__init__.pyi').exists())";
    assert_eq!(run(&python, &["-c", stub]).trim(), "True", "its types come with it");
    let flow = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cmlapi_flow.py");
    let said = run(&python, &[flow, server.url(), &server.api_key()]);
    assert!(said.contains(" calls"), "{said}");
    println!("{said}");
}
