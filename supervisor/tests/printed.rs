//! Whose the lines are that replicas print.
#![allow(missing_docs, clippy::unwrap_used)]

mod harness;

use harness::{Deployment, gateway::Gateway, until};
use millgate_contract::{
    frame::Outcome,
    ids::RequestId,
    spec::{LogLine, LogSource, OnException, StartPolicy},
};

fn call(gateway: &mut Gateway, request_id: &str, request: &str) -> Outcome {
    gateway.send_as(request_id, request);
    gateway.accepted();
    gateway.done().outcome
}

/// The line with this text, once it is there.
fn line(deployment: &Deployment, text: &str) -> LogLine {
    let find = || deployment.log().into_iter().find(|line| line.text == text);
    until(&format!("`{text}` is in the log"), || find().is_some());
    find().unwrap()
}

fn owner(line: &LogLine) -> Option<&str> {
    line.request_id.as_ref().map(RequestId::as_str)
}

#[test]
fn each_line_is_the_call_s_that_printed_it_however_fast_they_follow() {
    for start in [StartPolicy::Fork, StartPolicy::Spawn] {
        let (deployment, _client) = Deployment::serving(
            "
import os, subprocess, sys
def function(args):
    print('out', args)
    print('err', args, file=sys.stderr)
    os.write(1, b'raw %d\\n' % args)
    if args == 100:
        subprocess.run(['/bin/echo', 'child', '100'])
        print('without end', end='', flush=True)
",
            |spec| spec.policy.start = start,
        );
        let mut gateway = deployment.gateway(0);
        for n in 0..200 {
            assert_eq!(call(&mut gateway, &format!("request-{n}"), &n.to_string()), Outcome::Ok);
        }
        line(&deployment, "raw 199");
        line(&deployment, "err 199");
        let lines: Vec<LogLine> =
            deployment.log().into_iter().filter(|line| line.source != LogSource::Supervisor).collect();
        assert_eq!(lines.len(), 602, "no mark is a line");
        for line in &lines {
            let number = line.text.rsplit(' ').next().unwrap();
            let number = if line.text == "without end" { "100" } else { number };
            assert_eq!(owner(line), Some(&*format!("request-{number}")), "{line:?}");
            assert!(line.replica.is_some());
        }
    }
}

#[test]
fn a_traceback_is_the_call_s_that_raised() {
    let (deployment, _client) = Deployment::serving("def function(args): raise ValueError(args)", |spec| {
        spec.policy.on_exception = Some(OnException::Keep);
    });
    let mut gateway = deployment.gateway(0);
    for n in 0..20 {
        assert_eq!(call(&mut gateway, &format!("request-{n}"), &n.to_string()), Outcome::Exception);
    }
    for n in 0..20 {
        let line = line(&deployment, &format!("ValueError: {n}"));
        assert_eq!(owner(&line), Some(&*format!("request-{n}")));
    }
}

#[test]
fn what_c_code_prints_is_the_running_call_s_and_what_a_thread_prints_between_calls_is_nobody_s() {
    let (deployment, _client) = Deployment::serving(
        "
import os, threading, time
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.001)
def later():
    wait_for('between')
    print('between')
def function(args):
    os.write(1, b'raw\\n')
    wait_for('seen')
    threading.Thread(target=later).start()
",
        |_| {},
    );
    let root = deployment.spec.function.root.clone();
    let mut gateway = deployment.gateway(0);
    gateway.send_as("request-1", "1");
    gateway.accepted();
    assert_eq!(owner(&line(&deployment, "raw")), Some("request-1"));
    std::fs::write(root.join("seen"), "").unwrap();
    assert_eq!(gateway.done().outcome, Outcome::Ok);
    std::fs::write(root.join("between"), "").unwrap();
    assert_eq!(owner(&line(&deployment, "between")), None);
}

#[test]
fn a_file_in_the_place_of_the_standard_output_gets_the_text_and_nothing_else() {
    let (deployment, _client) = Deployment::serving(
        "
import os
def function(args):
    kept = os.dup(1)
    file = os.open('/tmp/captured', os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    os.dup2(file, 1)
    print('captured')
    os.dup2(kept, 1)
    os.close(kept)
    print('shown')
    return os.pread(file, 100, 0).decode()
",
        |_| {},
    );
    let mut gateway = deployment.gateway(0);
    gateway.send_as("request-1", "1");
    gateway.accepted();
    assert_eq!(gateway.done().value, &br#""captured\n""#[..]);
    assert_eq!(owner(&line(&deployment, "shown")), Some("request-1"));
}

#[test]
fn a_child_that_the_function_forks_marks_nothing() {
    let (deployment, _client) = Deployment::serving(
        "
import os
def function(args):
    if args == 'fork':
        child = os.fork()
        if child == 0:
            print('child')
            os._exit(0)
        os.waitpid(child, 0)
    else:
        os.write(1, b'raw\\n')
",
        |spec| spec.policy.on_exception = Some(OnException::Keep),
    );
    let mut gateway = deployment.gateway(0);
    call(&mut gateway, "request-1", r#""fork""#);
    line(&deployment, "child");
    call(&mut gateway, "request-2", r#""raw""#);
    assert_ne!(owner(&line(&deployment, "raw")), Some("request-1"));
}
