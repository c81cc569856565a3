//! A real replica that is stopped before it reads its call: nothing is tried again before it is dead.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Answer, Server, figure, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How often this process has run it.
const COUNT: &str =
    "runs = 0\ndef count(name):\n    global runs\n    runs += 1\n    print('ran', name)\n    return runs\n";

/// The one replica is stopped, and a call lies unread in its socket; then `then` happens. What the call came to.
fn call_of_a_stopped_replica(server: &Server, access_key: &str, then: impl FnOnce(Pid)) -> Answer {
    let replica = Pid::from_raw(server.replica_pids("count")[0].try_into().unwrap());
    kill(replica, Signal::SIGSTOP).unwrap();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| server.call(access_key, "\"stopped\""));
        until("a call on the replica", || {
            figure(server.running(), "millgate_replicas_busy").filter(|busy| busy == "1")
        });
        then(replica);
        caller.join().unwrap()
    })
}

fn deploy(server: &Server) -> String {
    let folder = server.project("count", &[("count.py", COUNT)]);
    server.ok(&["deploy", &format!("{}:count", folder.join("count.py").display())]);
    server.access_key("count")
}

/// How often the call of the stopped replica has run, once a later one is in the log.
fn runs(server: &Server, access_key: &str) -> usize {
    until("a later answer", || (server.call(access_key, "\"later\"").status == 200).then_some(()));
    let log =
        until("a later run", || Some(server.ok(&["logs", "count"])).filter(|log| log.contains("ran later")));
    log.matches("ran stopped").count()
}

#[test]
fn a_replica_that_is_stopped_and_resumed_runs_its_call_once() {
    let server = Server::start();
    let access_key = deploy(&server);
    let answer =
        call_of_a_stopped_replica(&server, &access_key, |replica| kill(replica, Signal::SIGCONT).unwrap());
    assert_eq!((answer.status, &answer.body["response"]), (200, &1.into()), "{answer:?}");
    assert_eq!(
        server.call(&access_key, "1").body["response"],
        2,
        "in the same process, and not tried elsewhere"
    );
    assert_eq!(runs(&server, &access_key), 1);
}

#[test]
fn a_replica_that_is_killed_before_it_reads_its_call_is_proof_that_it_never_started() {
    let server = Server::start();
    let access_key = deploy(&server);
    let answer =
        call_of_a_stopped_replica(&server, &access_key, |replica| kill(replica, Signal::SIGKILL).unwrap());
    assert_eq!((answer.status, &answer.body["response"]), (200, &1.into()), "{answer:?}");
    assert_eq!(runs(&server, &access_key), 1);
}

#[test]
fn a_replica_that_is_stopped_past_the_deadline_never_runs_its_call() {
    let server = Server::start_with(vec![("MODEL_REQUEST_TIMEOUT_SECONDS", "1")]);
    let access_key = deploy(&server);
    let answer = call_of_a_stopped_replica(&server, &access_key, |_| {});
    assert_eq!((answer.status, &answer.body["error"]["code"]), (504, &"model.timeout".into()), "{answer:?}");
    assert_eq!(runs(&server, &access_key), 0);
}
