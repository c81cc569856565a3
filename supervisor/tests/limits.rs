//! What one replica may use, by control groups of either version: the kernel's own words, and functions that ask for more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{fs, path::Path};

use harness::{Deployment, client::Client};
use millgate_contract::spec::StartPolicy;

/// What the group of a replica says in one of its files: the controller's name, and the path, from which it is found.
fn setting(pid: u32, controller: &str, file: &str) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |name: &str| groups.lines().find_map(|line| line.split_once(&format!(":{name}:")));
    let (root, path) = of(controller).map_or_else(
        || (Path::new("/sys/fs/cgroup").to_owned(), of("").unwrap().1),
        |(_, path)| (Path::new("/sys/fs/cgroup").join(controller), path),
    );
    let path = root.join(path.trim_start_matches('/')).join(file);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
        .trim()
        .to_owned()
}

/// Where groups can be had; where they cannot, the report has to say so.
fn has_groups(client: &Client) -> bool {
    let is_named = client.isolation.missing.iter().any(|one| one.starts_with("cgroup"));
    assert!(client.isolation.cgroup_version != 0 || is_named, "{:?}", client.isolation);
    client.isolation.cgroup_version != 0
}

#[test]
fn the_limits_of_a_replica_are_those_of_its_spec() {
    let (deployment, client) = Deployment::serving("def function(args): return args", |_| {});
    if !has_groups(&client) {
        return;
    }
    let pid = client.pid_in(0);
    let resources = &deployment.spec.resources;
    let (memory, processes) = (resources.memory_bytes.to_string(), resources.processes_max.to_string());
    let expected: &[(&str, &str, &str)] = if client.isolation.cgroup_version == 1 {
        &[
            ("memory", "memory.limit_in_bytes", &memory),
            ("pids", "pids.max", &processes),
            ("cpu", "cpu.shares", "512"),
        ]
    } else {
        &[
            ("memory", "memory.max", &memory),
            ("memory", "memory.oom.group", "1"),
            ("pids", "pids.max", &processes),
            ("cpu", "cpu.weight", "50"),
        ]
    };
    for (controller, file, value) in expected {
        assert_eq!(setting(pid, controller, file), *value, "{file}");
    }
}

/// Memory that a child of the function takes counts as well.
#[test]
fn a_replica_that_takes_more_memory_than_it_may_is_killed_and_replaced() {
    let (deployment, mut client) = Deployment::serving(
        "
import os
def take():
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1) * (8 << 20)))

def function(args):
    if args == 'child':
        pid = os.fork()
        if pid == 0:
            take()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if args == 'self':
        take()
    return args
",
        |spec| {
            spec.resources.memory_bytes = 128 << 20;
            spec.policy.start = StartPolicy::Fork;
        },
    );
    if !has_groups(&client) {
        return;
    }
    let replica = client.replica(0);
    let mut gateway = deployment.gateway(0);
    gateway.send("\"self\"");
    gateway.accepted();
    client.until_dead(&replica);
    client.until_replaced(0, &replica);
    let replica = client.replica(0);
    let mut gateway = deployment.gateway(0);
    if client.isolation.cgroup_version == 1 {
        // Only the process that asked for more is killed.
        assert_eq!(gateway.value("\"child\""), -9);
    } else {
        gateway.send("\"child\"");
        gateway.accepted();
        client.until_dead(&replica);
        client.until_replaced(0, &replica);
    }
    assert_eq!(deployment.gateway(0).value("7"), 7);
}

#[test]
fn a_fork_bomb_ends_with_its_replica() {
    let (deployment, mut client) = Deployment::serving(
        "
import os
def function(args):
    while True:
        try:
            if os.fork() == 0:
                while True:
                    try:
                        os.fork()
                    except OSError:
                        pass
        except OSError:
            pass
",
        |spec| {
            spec.resources.processes_max = 32;
            // A first call that hangs would else end the template too.
            spec.policy.start = StartPolicy::Fork;
            spec.policy.spares = 0;
        },
    );
    let replica = client.replica(0);
    let mut gateway = deployment.gateway(0);
    gateway.send("{}");
    gateway.accepted();
    client.expired(0, &replica);
    client.until_dead(&replica);
    client.until_replaced(0, &replica);
    let parent = client.pid.to_string();
    harness::until("only template and replica are left", || {
        let of_namespace = |pid: &u32| {
            let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            harness::is_alive(*pid)
                && namespace(&pid.to_string()).is_some_and(|one| Some(one) == namespace(&parent))
        };
        harness::processes_with("").iter().filter(|pid| of_namespace(pid)).count() == 3
    });
}
