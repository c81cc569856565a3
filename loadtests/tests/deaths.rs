//! The server killed at one step after another, as far as a short time goes: the scenario's promises hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, process::Command};

#[test]
fn a_server_that_dies_at_any_step_leaves_nothing_stuck_or_doubled() {
    let program = Path::new(env!("CARGO_BIN_EXE_millgate-loadtests"));
    let server = program.with_file_name("millgate");
    assert!(server.exists(), "no `{}`; hint: `cargo build -p millgate`", server.display());
    let output = Command::new(program).args(["deaths", "--duration", "20s"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("of them during Redeploy"), "nothing was killed: {text}");
    println!("{text}");
}
