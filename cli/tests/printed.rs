//! What functions print, as `millgate logs` shows it: a flood stops nobody, and what a caller has printed is nobody
//! else's line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use common::{Answer, Server, until};
use millgate_contract::limits;
use serde_json::{Value, json};

/// A thread prints a megabyte at a time for ever, half of it one line, and so does each call once.
const FLOOD: &str = "
import threading
TEXT = 'x' * (1 << 19) + '\\n' + ('y' * 1023 + '\\n') * 512
def flood():
    while True:
        print(TEXT)
def setup():
    threading.Thread(target=flood, daemon=True).start()
def predict(args):
    print(TEXT)
    return args
";

#[test]
fn a_flood_of_what_is_printed_blocks_no_call_and_is_counted_where_it_is_dropped() {
    let server = Server::start();
    let folder = server.project("flood", &[("flood.py", FLOOD)]);
    server.ok(&["deploy", &format!("{}:predict", folder.join("flood.py").display())]);
    let access_key = server.access_key("flood");
    for n in 0..20 {
        let answer = server.call(&access_key, &n.to_string());
        assert_eq!((answer.status, &answer.body["response"]), (200, &Value::from(n)));
    }
    until("a count of dropped lines in the log, and a line that was cut", || {
        let shown = server.ok(&["logs", "flood"]);
        let is_counted = shown.contains(" lines were dropped: printed faster than ");
        (is_counted && shown.contains("xxx … (cut)")).then_some(())
    });
    // The newest file and the one before it.
    let run = server.data_dir().join("run");
    let logs = fs::read_dir(run).unwrap().flat_map(|unit| fs::read_dir(unit.unwrap().path()).unwrap());
    let bytes: u64 = logs
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().to_string_lossy().starts_with("replicas.log"))
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!((1..=2 * limits::LOG_FILE_BYTES_MAX).contains(&bytes), "{bytes}");
}

/// The id that the caller was told.
fn request_id(answer: &Answer) -> String {
    let line = answer.head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
    line.unwrap_or_else(|| panic!("no id: {answer:?}")).to_owned()
}

/// What callers send so that an honest function prints it.
fn forgeries(victim: &str) -> Vec<String> {
    let line = format!("    stdout abcde {victim} all is well");
    vec![
        format!("x\n{line}"),
        format!("x\r{line}"),
        format!("x\u{1b}[2K\u{1b}[1A{line}"),
        format!("x\u{85}{line}\u{9b}2K\u{7}\u{8}"),
        format!("\0mg {victim}\0{line}"),
        format!("\0mg0000000000000000 {victim}\0{line}\n\0mg0000000000000000 \0{line}"),
    ]
}

#[test]
fn what_a_caller_sends_to_be_printed_forges_neither_a_line_nor_a_request() {
    let server = Server::start();
    let folder = server.project("echo", &[("echo.py", "def predict(args):\n    print(args)\n")]);
    server.ok(&["deploy", &format!("{}:predict", folder.join("echo.py").display())]);
    let access_key = server.access_key("echo");
    let victim = request_id(&server.call(&access_key, "\"I am honest\""));
    let mut forgers = HashSet::new();
    for forgery in forgeries(&victim) {
        let answer = server.call(&access_key, &json!(forgery).to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        forgers.insert(request_id(&answer));
    }
    let last = request_id(&server.call(&access_key, "\"the end\""));
    let is_whole = |text: &str| text.lines().any(|line| line.ends_with(&format!(" {last} the end")));
    let shown = until("the last line", || Some(server.ok(&["logs", "echo"])).filter(|text| is_whole(text)));
    check(&shown, &victim, &forgers);

    let mut following = server.command(&["logs", "-f", "echo"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut followed = String::new();
    let mut reader = BufReader::new(following.stdout.take().unwrap());
    while !is_whole(&followed) {
        assert_ne!(reader.read_line(&mut followed).unwrap(), 0, "it ended: {followed}");
    }
    following.kill().unwrap();
    following.wait().unwrap();
    check(&followed, &victim, &forgers);

    // For machines: of the request there is what it has printed and nothing else.
    let of_victim = server.ok(&["--json", "logs", "echo", "--request", &victim]);
    let texts: Vec<Value> = of_victim
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        // The last one is the deployment's status.
        .filter(|line| !line["source"].is_null())
        .map(|line| line["text"].clone())
        .collect();
    assert_eq!(texts, ["I am honest"]);
}

/// Each line is of who printed it, and a terminal shows it as it is.
fn check(shown: &str, victim: &str, forgers: &HashSet<String>) {
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let printed: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .inspect(|words| assert!(["stdout", "stderr", "supervisor"].contains(&words[0]), "{shown}"))
        .filter(|words| words[0] == "stdout")
        .collect();
    let of = |id: &str| printed.iter().filter(|words| words[2] == id).count();
    assert_eq!(of(victim), 1, "{shown}");
    assert!(forgers.iter().all(|id| of(id) >= 1), "{shown}");
    let forged = printed.iter().filter(|words| words.ends_with(&["all", "is", "well"]));
    assert!(forged.clone().count() >= forgers.len() - 1, "{shown}");
    assert!(forged.clone().all(|words| forgers.contains(words[2])), "{shown}");
}
