//! The conformance program: it passes what keeps the rules, ours and one that was written apart, and fails what breaks
//! any one of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Every rule that the small runtime can be told to break.
const RULES: [&str; 20] = [
    "start",
    "missing-function",
    "spare",
    "spare-leaves",
    "hello",
    "version",
    "call",
    "large",
    "pieces",
    "newer-frames",
    "unknown-frame",
    "garbage",
    "busy",
    "ahead",
    "exception",
    "bad-request",
    "control",
    "print",
    "drain",
    "orphan",
];

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name)
}

/// A program that cargo has built.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "no `{}`; hint: `cargo build --bins`", path.display());
    path
}

fn conformance(options: &[&str], command: &[&str]) -> Output {
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    let python = String::from_utf8(python.stdout).unwrap();
    Command::new(built("examples/conformance"))
        .args(options)
        .args(["--python", python.trim(), "--file"])
        .arg(here("function.py"))
        .args(["--function", "conformance", "--"])
        .args(command)
        .output()
        .unwrap()
}

fn tiny(broken: &str, options: &[&str]) -> (bool, String) {
    let script = here("tiny_runtime.py");
    let output = conformance(options, &["python3", script.to_str().unwrap(), broken]);
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn our_runtime_keeps_every_rule() {
    let output = conformance(&[], &[built("millgate-replica").to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), RULES.len(), "{said}");
}

#[test]
fn a_runtime_that_was_written_from_the_document_keeps_every_rule() {
    let (is_kept, said) = tiny("none", &[]);
    assert!(is_kept, "{said}");
}

#[test]
fn a_runtime_that_breaks_a_rule_fails_by_that_rule() {
    for rule in RULES {
        let (is_kept, said) = tiny(rule, &["--patience-s", "3", "--only", rule]);
        assert!(!is_kept && said.starts_with(&format!("FAIL  {rule} ")), "{rule}: {said}");
    }
}

#[test]
fn a_program_that_is_no_runtime_fails_every_rule() {
    let output = conformance(&["--patience-s", "3"], &["/bin/true"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("0 of {} rules are kept", RULES.len())), "{said}");
}
