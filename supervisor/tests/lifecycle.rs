//! The life of a deployment's processes, with everything real.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::{Deployment, is_alive, processes_with, until};
use millgate_contract::{
    frame::Outcome,
    ids::SlotIndex,
    spec::{Confinement, LogSource},
    supervision::{Phase, SlotState, ToSupervisor},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ADD: &str = "
def function(args):
    if args.get('raise'):
        raise ValueError('no')
    return args['a'] + args['b']
";

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn every_slot_serves_and_the_example_is_answered() {
    let (deployment, mut client) = Deployment::serving(ADD, |spec| {
        spec.slots = 3;
        spec.example_request = Some(r#"{"a": 3, "b": 5}"#.into());
    });
    client.until("it serves", |client| client.deployment.as_ref().unwrap().phase == Phase::Serving);
    assert_eq!(client.deployment.as_ref().unwrap().example_response.as_deref(), Some("8"));
    for slot in 0..3 {
        let mut gateway = deployment.gateway(slot);
        assert_eq!(gateway.hello.slot, SlotIndex(slot));
        assert_eq!(gateway.hello.replica, client.replica(slot));
        assert!(gateway.hello.replica.as_str().starts_with("function-1-1-b-"));
        assert_eq!(gateway.value(r#"{"a": 1, "b": 2}"#), 3);
    }
}

#[test]
fn a_killed_replica_is_told_dead_and_its_slot_served_anew() {
    let (deployment, mut client) = Deployment::serving(ADD, |spec| spec.slots = 2);
    let (victim, other) = (client.replica(1), client.replica(0));
    kill_9(client.pid_in(1));
    client.until_dead(&victim);
    client.until_replaced(1, &victim);
    assert_eq!(client.slots[&SlotIndex(1)].starts, 2);
    assert_eq!(client.replica(0), other);
    assert_eq!(deployment.gateway(1).value(r#"{"a": 1, "b": 2}"#), 3);
    until("how it died is in the log", || {
        let is_it = |line: &millgate_contract::spec::LogLine| line.text.contains("killed by signal 9");
        deployment.log().iter().any(|line| is_it(line) && line.replica.as_ref() == Some(&victim))
    });
}

#[test]
fn an_exception_is_answered_and_followed_by_a_fresh_fork() {
    let (deployment, mut client) = Deployment::serving(ADD, |_| {});
    let raised = client.replica(0);
    let done = deployment.gateway(0).call(r#"{"raise": true}"#);
    assert_eq!(done.outcome, Outcome::Exception);
    assert!(done.is_leaving);
    client.until_replaced(0, &raised);
    assert_eq!(deployment.gateway(0).value(r#"{"a": 2, "b": 2}"#), 4);
    client.until_dead(&raised);
    client.until("the slot is said to be served after a death in it", |client| {
        client.slots[&SlotIndex(0)].state == SlotState::Ready
    });
}

#[test]
fn an_import_that_fails_says_why_and_waits_for_a_stop() {
    let (_deployment, mut client) = Deployment::start("import no_such_module", |_| {});
    client.until("it has failed", harness::client::Client::is_failed);
    let reason = client.deployment.clone().unwrap().reason;
    assert!(reason.contains("import: ModuleNotFoundError: No module named 'no_such_module'"), "{reason}");
    assert!(is_alive(client.pid));
    client.stop_and_wait(0);
}

#[test]
fn a_runtime_that_is_not_there_is_a_failed_deployment() {
    let (_deployment, mut client) = Deployment::start(ADD, |spec| {
        spec.function.runtime = "/usr/bin/no-such-runtime".into();
        spec.confinement = Confinement::Open;
    });
    client.until("it has failed", harness::client::Client::is_failed);
    let reason = client.deployment.clone().unwrap().reason;
    assert!(reason.contains("run `/usr/bin/no-such-runtime`: No such file"), "{reason}");
}

#[test]
fn a_call_past_its_deadline_ends_a_replica_that_will_not_listen() {
    let (deployment, mut client) = Deployment::serving(
        "
import signal
def function(args):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass
",
        |_| {},
    );
    let (replica, pid) = (client.replica(0), client.pid_in(0));
    let mut gateway = deployment.gateway(0);
    gateway.send("{}");
    gateway.accepted();
    client.expired(0, &replica);
    client.until_dead(&replica);
    assert!(!is_alive(pid));
    client.until_replaced(0, &replica);
    let starts = client.slots[&SlotIndex(0)].starts;
    // The slot has another by now: a late word about the old one is not about it.
    client.expired(0, &replica);
    drop(client);
    let mut client = deployment.connect();
    client.until_all_ready();
    assert_eq!(client.slots[&SlotIndex(0)].starts, starts);
}

#[test]
fn what_a_replica_leaves_behind_is_killed_with_it() {
    for is_open in [false, true] {
        let marker = format!("98765{}.{}", std::process::id(), u8::from(is_open));
        let source = format!(
            "
import subprocess
def function(args):
    for _ in range(5):
        subprocess.Popen(['/bin/sh', '-c', 'setsid sleep {marker} & setsid sleep {marker} & wait'],
                         start_new_session=True)
    return 1
"
        );
        let (deployment, mut client) = Deployment::serving(&source, |spec| {
            if is_open {
                spec.confinement = Confinement::Open;
            }
        });
        deployment.gateway(0).value("{}");
        let sleep = format!("sleep\0{marker}");
        until("the grandchildren sleep", || processes_with(&sleep).len() == 10);
        let replica = client.replica(0);
        kill_9(client.pid_in(0));
        client.until_replaced(0, &replica);
        until("no grandchild is left", || processes_with(&marker).is_empty());
    }
}

#[test]
fn a_dead_template_is_followed_by_another_while_replicas_serve_on() {
    let (deployment, mut client) = Deployment::serving(ADD, |spec| spec.slots = 2);
    let before = [client.replica(0), client.replica(1)];
    let parent: u32 = harness::status_of(client.pid_in(0), "PPid").parse().unwrap();
    kill_9(parent);
    until("a new template has imported", || {
        deployment.log().iter().filter(|line| line.text.starts_with("imported in")).count() == 2
    });
    assert_eq!(deployment.gateway(0).value(r#"{"a": 1, "b": 1}"#), 2);
    assert_eq!([client.replica(0), client.replica(1)], before);
    kill_9(client.pid_in(0));
    client.until_replaced(0, &before[0]);
    assert_eq!(deployment.gateway(0).value(r#"{"a": 1, "b": 1}"#), 2);
}

#[test]
fn a_restart_imports_anew_and_replaces_every_replica() {
    let (deployment, mut client) = Deployment::serving("def function(args): return 1", |spec| spec.slots = 2);
    let before = [client.replica(0), client.replica(1)];
    let file = deployment.spec.function.root.join("function.py");
    std::fs::write(file, "def function(args): return 2").unwrap();
    client.say(&ToSupervisor::Restart);
    for (slot, replica) in before.iter().enumerate() {
        client.until_replaced(slot as u16, replica);
    }
    for slot in 0..2 {
        assert_eq!(deployment.gateway(slot).value("{}"), 2);
    }
}

#[test]
fn a_supervisor_outlives_its_starter_and_keeps_reading_what_is_printed() {
    let deployment = Deployment::files("def function(args): print('word', args); return 1", |_| {});
    let mut starter = std::process::Command::new("/bin/sh")
        .args(["-c", r#""$0" "$1" && echo started && exec sleep 1000"#])
        .arg(harness::supervise_program())
        .arg(&deployment.run_dir)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(starter.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "started\n");
    starter.kill().unwrap();
    starter.wait().unwrap();
    // Nothing of the starter's is held open by what it started.
    assert_eq!(std::io::Read::read(&mut output, &mut [0]).unwrap(), 0);
    let mut client = deployment.connect();
    client.until_all_ready();
    assert_eq!(deployment.gateway(0).value("7"), 1);
    until("the word is in the log", || {
        deployment.log().iter().any(|line| line.text == "word 7" && line.source == LogSource::Stdout)
    });
}

#[test]
fn a_run_directory_has_one_supervisor() {
    let (deployment, client) = Deployment::serving(ADD, |_| {});
    let second = deployment.supervise();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("has a supervisor already"), "{text}");
    assert!(is_alive(client.pid));
}

#[test]
fn a_spec_of_another_format_is_refused_with_its_value() {
    let deployment = Deployment::files(ADD, |spec| spec.format = 99);
    let output = deployment.supervise();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("it has format 99, this program reads 1"), "{text}");
}

#[test]
fn a_stop_leaves_no_process_no_socket_and_no_cgroup() {
    for is_open in [false, true] {
        let (deployment, mut client) = Deployment::serving(ADD, |spec| {
            spec.slots = 3;
            if is_open {
                spec.confinement = Confinement::Open;
            }
        });
        let pids: Vec<u32> = (0..3).map(|slot| client.pid_in(slot)).collect();
        let template: u32 = harness::status_of(pids[0], "PPid").parse().unwrap();
        let group = std::fs::read_to_string(format!("/proc/{}/cgroup", pids[0])).unwrap();
        client.say(&ToSupervisor::Stop { grace_ms: 5_000 });
        client.stop_and_wait(5_000);
        assert!(pids.iter().chain([&template]).all(|pid| !is_alive(*pid)));
        let mut left: Vec<String> = std::fs::read_dir(&deployment.run_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["replicas.log", "spec.json", "supervisor.log"]);
        for line in group.lines().filter(|line| line.contains("/millgate/")) {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controller, path) = (fields.next().unwrap(), fields.next().unwrap());
            let parent =
                std::path::Path::new(path).parent().unwrap().to_str().unwrap().trim_start_matches('/');
            let dir = std::path::Path::new("/sys/fs/cgroup").join(controller).join(parent);
            assert!(!dir.exists(), "{}", dir.display());
        }
    }
}

#[test]
fn a_signal_stops_a_supervisor_as_a_message_does() {
    let (deployment, client) = Deployment::serving(ADD, |_| {});
    let pid = client.pid;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).unwrap();
    until("the supervisor has ended", || !is_alive(pid));
    assert!(!deployment.run_dir.join("control.sock").exists());
}

#[test]
fn a_flood_of_output_does_not_hold_up_a_call() {
    let (deployment, _client) = Deployment::serving(
        "
def function(args):
    for _ in range(64):
        print('x' * 1_000_000)
    print('a\\nb\\x1b[31m')
    return 1
",
        |_| {},
    );
    assert_eq!(deployment.gateway(0).value("{}"), 1);
    let is_cut = |line: &millgate_contract::spec::LogLine| line.text.ends_with("… (cut)");
    until("lines are cut", || deployment.log().iter().any(is_cut));
}
