//! How replicas are started: what speaks against a fork, and that it is heard.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

use harness::{Deployment, client::Client, status_of, until};
use millgate_contract::{
    frame::Outcome,
    spec::{LogSource, StartPolicy},
    supervision::{Phase, StartMode, ToSupervisor},
};

fn mode(client: &Client) -> (StartMode, String) {
    let report = client.deployment.as_ref().unwrap();
    (report.start_mode, report.start_mode_reason.clone())
}

/// How a function file with these lines at its top is started, and why.
fn mode_of(top: &str) -> (StartMode, String) {
    let source = format!("{top}\ndef function(args):\n    return args\n");
    let (deployment, mut client) = Deployment::serving(&source, |_| {});
    client.until("it serves", |client| client.deployment.as_ref().unwrap().phase == Phase::Serving);
    assert_eq!(deployment.gateway(0).value("5"), 5);
    let (mode, reason) = mode(&client);
    let is_logged = deployment.log().iter().any(|line| line.text.contains(&reason));
    assert!(is_logged, "`{reason}`: {:?}", deployment.log());
    (mode, reason)
}

#[test]
fn a_plain_file_is_forked() {
    for top in [
        "import json, random, socket",
        "import asyncio\nasync def setup(): pass",
        "text = open(__file__).read()",
        "import socket\nsender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "import subprocess\nsubprocess.run(['true'])",
    ] {
        assert_eq!(mode_of(top), (StartMode::Fork, String::new()), "{top}");
    }
}

#[test]
fn what_siblings_would_share_is_found_after_the_import_and_named() {
    for (top, reason) in [
        ("import socket\npair = socket.socketpair()", "a connection is open after import (unix pair)"),
        ("out = open('/tmp/x', 'w')", "`/tmp/x` is open for writing after import"),
        ("import select\npoll = select.epoll()", "an eventpoll is open after import"),
        ("file = open(__file__)\nfile.read(1)", "function.py` is being read after import"),
        ("import os\nends = os.pipe()", "a pipe is open after import"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
            "thread `",
        ),
    ] {
        let (mode, found) = mode_of(top);
        assert_eq!(mode, StartMode::Spawn, "{top}");
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn replicas_of_a_file_with_a_connection_have_one_each() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, stream) in server.incoming().enumerate() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                while matches!(stream.read_line(&mut line), Ok(1..)) {
                    let _ = stream.get_mut().write_all(format!("{number} {line}").as_bytes());
                    line.clear();
                }
            });
        }
    });
    let source = format!(
        "
import socket
server = socket.create_connection(('127.0.0.1', {port})).makefile('rw')
def function(args):
    server.write(str(args) + '\\n')
    server.flush()
    return server.readline().split()
"
    );
    let (deployment, client) = Deployment::serving(&source, |spec| spec.slots = 3);
    assert!(mode(&client).1.contains(&format!("tcp 127.0.0.1:{port}")), "{}", mode(&client).1);
    let mut connections = std::collections::BTreeSet::new();
    for slot in 0..3 {
        let answer = deployment.gateway(slot).value(&slot.to_string());
        assert_eq!(answer[1], slot.to_string());
        connections.insert(answer[0].to_string());
    }
    assert_eq!(connections.len(), 3);
}

#[test]
fn a_model_that_asks_for_it_is_started_afresh_confined_and_logged_like_any_other() {
    let source = "
import os, sys
print('imported')
def function(args):
    print('out')
    print('err', file=sys.stderr)
    return 10 / args['by']
";
    let (deployment, mut client) = Deployment::serving(source, |spec| {
        spec.slots = 2;
        spec.example_request = Some(r#"{"by": 5}"#.into());
        spec.policy.start = StartPolicy::Spawn;
    });
    client.until("it serves", |client| client.deployment.as_ref().unwrap().phase == Phase::Serving);
    assert_eq!(mode(&client), (StartMode::Spawn, "the model asks for it".into()));
    assert_eq!(client.deployment.as_ref().unwrap().example_response.as_deref(), Some("2.0"));
    assert_eq!(status_of(client.pid_in(0), "PPid"), client.pid.to_string());
    assert!(client.isolation.no_new_privileges, "{:?}", client.isolation);
    if harness::is_root() {
        assert_eq!(client.isolation.uid, Some(harness::UID));
    }
    // An exception is not the end of one that was started afresh.
    let replica = client.replica(0);
    let done = deployment.gateway(0).call(r#"{"by": 0}"#);
    assert_eq!((done.outcome, done.is_leaving), (Outcome::Exception, false));
    assert_eq!(deployment.gateway(0).value(r#"{"by": 2}"#), 5.0);
    assert_eq!(client.replica(0), replica);
    let printed = |text: &str| {
        deployment.log().into_iter().find(|line| line.text == text).map(|line| (line.source, line.replica))
    };
    until("its words are in the log", || printed("out").is_some() && printed("err").is_some());
    assert_eq!(printed("out").unwrap().0, LogSource::Stdout);
    assert_eq!(printed("err").unwrap().0, LogSource::Stderr);
    assert!(printed("imported").unwrap().1.is_some(), "each imports by itself");
    client.say(&ToSupervisor::Restart);
    client.until_replaced(0, &replica);
}

#[test]
fn what_a_forked_replica_prints_is_told_apart() {
    let source = "
import sys
print('imported')
print('with a warning', file=sys.stderr)
def function(args):
    print('out')
    sys.stderr.write('err\\n')
    return 1
";
    let (deployment, client) = Deployment::serving(source, |_| {});
    assert_eq!(deployment.gateway(0).value("{}"), 1);
    let replica = client.replica(0);
    for (text, source, replica) in [
        ("imported", LogSource::Stdout, None),
        ("with a warning", LogSource::Stderr, None),
        ("out", LogSource::Stdout, Some(&replica)),
        ("err", LogSource::Stderr, Some(&replica)),
    ] {
        until(text, || {
            let is_it = |line: &millgate_contract::spec::LogLine| {
                line.text == text && line.source == source && line.replica.as_ref() == replica
            };
            deployment.log().iter().any(is_it)
        });
    }
}

#[test]
fn an_example_that_hangs_in_a_forked_child_is_tried_in_one_started_afresh() {
    let source = "
import os
importer = os.getpid()
def function(args):
    if os.getpid() != importer:
        import threading
        threading.Event().wait()
    return 7
";
    let (deployment, mut client) = Deployment::serving(source, |spec| {
        spec.example_request = Some("1".into());
        spec.start_timeout_ms = 4_000;
    });
    client.until("it serves", |client| client.deployment.as_ref().unwrap().phase == Phase::Serving);
    assert_eq!(mode(&client).0, StartMode::Spawn);
    assert!(mode(&client).1.contains("not ready within"), "{}", mode(&client).1);
    assert_eq!(deployment.gateway(0).value("1"), 7);
}

#[test]
fn a_first_call_that_hangs_in_a_forked_child_is_the_last_of_its_kind() {
    let source = "
import os, threading
importer = os.getpid()
def function(args):
    if args == 'hang' and os.getpid() != importer:
        threading.Event().wait()
    return 7
";
    let (deployment, mut client) = Deployment::serving(source, |_| {});
    let replica = client.replica(0);
    let mut gateway = deployment.gateway(0);
    assert_eq!(gateway.value("1"), 7);
    gateway.send("\"hang\"");
    gateway.accepted();
    client.expired(0, &replica);
    client.until_replaced(0, &replica);
    assert_eq!(mode(&client).0, StartMode::Fork, "it had answered before: {}", mode(&client).1);
    let replica = client.replica(0);
    let mut gateway = deployment.gateway(0);
    gateway.send("\"hang\"");
    gateway.accepted();
    client.expired(0, &replica);
    client.until_replaced(0, &replica);
    assert_eq!(mode(&client).0, StartMode::Spawn);
    assert!(mode(&client).1.contains("the first of a forked replica"), "{}", mode(&client).1);
    assert_eq!(deployment.gateway(0).value("\"hang\""), 7);
}
