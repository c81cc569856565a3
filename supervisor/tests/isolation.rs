//! What holds user code in: the report is compared with the kernel's own words, and user code tries to get out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use harness::{Deployment, SECRET, UID, client::Client, is_root, status_of};
use millgate_contract::{
    spec::{Confinement, DeploymentSpec, Network},
    supervision::SlotState,
};

/// Tries to read files, to write files and to reach sockets; answers what it came to.
const PROWLER: &str = r#"
import os, socket

def outcome(act):
    try:
        return act() or "done"
    except Exception as error:
        return "denied: " + type(error).__name__

def read(path):
    with open(path, "rb") as file:
        return "read: " + file.read(200).decode("utf-8", "replace")

def write(path):
    with open(path, "w") as file:
        file.write("x")

def connect(path):
    socket.socket(socket.AF_UNIX).connect(path)

def function(args):
    acts = {"read": read, "write": write, "connect": connect, "list": lambda path: "read: " + str(os.listdir(path))}
    return {what: {path: outcome(lambda: acts[what](path)) for path in paths} for what, paths in args.items()}
"#;

fn assert_denied(answer: &serde_json::Value) -> usize {
    let outcomes: Vec<(&String, &serde_json::Value)> =
        answer.as_object().unwrap().values().flat_map(|of| of.as_object().unwrap()).collect();
    for (path, outcome) in &outcomes {
        assert!(outcome.as_str().unwrap().starts_with("denied"), "`{path}`: {outcome}");
    }
    outcomes.len()
}

#[test]
fn the_report_is_what_the_kernel_says() {
    let (_deployment, client) = Deployment::serving(PROWLER, |_| {});
    let (report, pid) = (&client.isolation, client.pid_in(0));
    let namespace = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let has_left = |kind: &str| namespace(&pid.to_string(), kind) != namespace("self", kind);
    assert_eq!(report.mount_namespace, has_left("mnt"));
    assert_eq!(report.pid_namespace, has_left("pid"));
    assert_eq!(report.user_namespace, has_left("user"));
    assert_eq!(report.ipc_namespace, has_left("ipc"));
    assert_eq!(report.network_namespace, has_left("net"));
    assert!(!report.network_namespace, "the network is kept unless the model says no");
    let uid: u32 = status_of(pid, "Uid").split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(report.uid, Some(uid).filter(|uid| *uid != nix::unistd::geteuid().as_raw()));
    assert_eq!(report.no_new_privileges, status_of(pid, "NoNewPrivs") == "1");
    assert_eq!(report.seccomp, status_of(pid, "Seccomp") != "0");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(report.cgroup_version != 0, groups.contains("/millgate/"));
    if is_root() {
        assert_eq!(uid, UID);
        assert_eq!(status_of(pid, "CapEff"), "0000000000000000");
        assert_eq!(status_of(pid, "CapBnd"), "0000000000000000");
        assert_eq!(status_of(pid, "Groups"), "");
    }
}

#[test]
fn a_project_and_an_interpreter_below_a_folder_that_others_may_not_enter_are_bound_in() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        // Who owns the folder may enter it.
        return;
    }
    let deployment = Deployment::files(PROWLER, |_| {});
    let closed = deployment.dir.path().join("builds");
    fs::write(closed.join("another"), SECRET).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let output = deployment.supervise();
    assert!(output.status.success(), "{output:?}");
    let mut client = deployment.connect();
    client.until_all_ready();
    let request = serde_json::json!({ "read": [closed.join("another")] });
    assert_denied(&deployment.gateway(0).value(&request.to_string()));
}

/// Tries system calls, and to have its rules lifted by a program it starts; answers the errors.
const CALLER: &str = r#"
import ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)

def function(args):
    errors = {}
    for name, number in args["calls"].items():
        ctypes.set_errno(0)
        libc.syscall(number, 0, 0, 0, 0, 0)
        errors[name] = ctypes.get_errno()
    for name, family in args["families"].items():
        try:
            socket.socket(family, socket.SOCK_RAW).close()
            errors[name] = 0
        except OSError as error:
            errors[name] = error.errno
    try:
        with open("/proc/self/comm", "w") as file:
            file.write("x")
        errors["write to /proc"] = 0
    except OSError as error:
        errors["write to /proc"] = error.errno
    with open("/proc/self/status") as file:
        seccomp = [line.split()[1] for line in file if line.startswith("Seccomp:")]
    child = subprocess.run(["sh", "-c", "unshare -U true || echo refused"], capture_output=True, text=True)
    return {"errors": errors, "seccomp": seccomp, "child": child.stdout.strip()}
"#;

#[test]
fn system_calls_that_a_function_has_no_use_for_are_denied() {
    let (deployment, client) = Deployment::serving(CALLER, |_| {});
    assert!(client.isolation.seccomp, "{:?}", client.isolation);
    let request = serde_json::json!({
        "calls": {"ptrace": libc::SYS_ptrace, "mount": libc::SYS_mount, "unshare": libc::SYS_unshare,
                  "bpf": libc::SYS_bpf, "keyctl": libc::SYS_keyctl, "io_uring": libc::SYS_io_uring_setup},
        "families": {"packet": libc::AF_PACKET, "alg": libc::AF_ALG},
    });
    let answer = deployment.gateway(0).value(&request.to_string());
    assert_eq!(answer["seccomp"], serde_json::json!(["2"]));
    assert_eq!(answer["child"], "refused");
    for (name, errno) in answer["errors"].as_object().unwrap() {
        let expected = match name.as_str() {
            "packet" | "alg" => libc::EAFNOSUPPORT,
            "write to /proc" if !client.isolation.landlock => continue,
            "write to /proc" => libc::EACCES,
            _ => libc::EPERM,
        };
        assert_eq!(*errno, expected, "{name}");
    }
    assert!(client.isolation.landlock || has_missing(&client, "Landlock"));
}

fn has_missing(client: &Client, name: &str) -> bool {
    client.isolation.missing.iter().any(|one| one.starts_with(name))
}

#[test]
fn user_code_reaches_nothing_of_the_host() {
    let (deployment, client) = Deployment::serving(PROWLER, |_| {});
    let (dir, run) = (deployment.dir.path(), &deployment.run_dir);
    let shown = |path: &Path| path.to_str().unwrap().to_owned();
    let root = &deployment.spec.function.root;
    let request = serde_json::json!({
        "read": [
            shown(&dir.join("secret")), shown(&run.join("spec.json")), shown(&run.join("supervisor.log")),
            "/proc/1/environ", "/proc/1/root/etc/passwd", "/proc/1/mem", "/proc/1/cwd/spec.json",
            format!("/proc/{}/environ", client.pid), "/etc/shadow", "/dev/sda", "/dev/vda", "/dev/mem",
            "/proc/kcore", "/proc/self/cwd/../../../secret",
        ],
        "list": ["/proc/1/fd", shown(run), "/home/root", "/sys/fs/cgroup", "/sys/kernel"],
        "write": [
            "/x", "/etc/x", "/usr/x", "/home/cdsw/x", "/dev/x", "/proc/sys/kernel/hostname", "/var/x", "/home/x",
            shown(&root.join("x")), shown(&root.join("function.py")), "/proc/1/oom_score_adj",
        ],
        "connect": [shown(&run.join("control.sock")), shown(&run.join("s0.sock"))],
    });
    let answer = deployment.gateway(0).value(&request.to_string());
    assert_eq!(assert_denied(&answer), 32);
    assert_eq!(fs::read_to_string(dir.join("secret")).unwrap(), SECRET);
}

#[test]
fn user_code_finds_what_it_needs() {
    let (deployment, _client) = Deployment::serving(PROWLER, |_| {});
    let own = deployment.spec.function.root.join("function.py");
    let request = serde_json::json!({
        "read": [own.to_str().unwrap(), "/home/cdsw/function.py", "/proc/self/status", "/proc/meminfo",
                 "/dev/urandom", "/etc/passwd", "/etc/hosts", "/sys/devices/system/cpu/online"],
        "write": ["/tmp/x", "/var/tmp/y", "/dev/shm/z", "/dev/null"],
    });
    let answer = deployment.gateway(0).value(&request.to_string());
    for of in answer.as_object().unwrap().values() {
        for (path, outcome) in of.as_object().unwrap() {
            assert!(!outcome.as_str().unwrap().starts_with("denied"), "`{path}`: {outcome}");
        }
    }
    assert!(!Path::new("/tmp/x").exists(), "the host's `/tmp` is another one");
}

#[test]
fn user_code_has_the_environment_of_the_spec_and_no_descriptor_of_ours() {
    let (deployment, _client) = Deployment::serving(
        "
import os
def function(args):
    return {'environment': dict(os.environ), 'open': [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')
            if os.path.exists(f'/proc/self/fd/{fd}')], 'user': os.path.expanduser('~'), 'cwd': os.getcwd()}
",
        |spec| drop(spec.environment.insert("GREETING".into(), "hello".into())),
    );
    let answer = deployment.gateway(0).value("{}");
    let environment = answer["environment"].as_object().unwrap();
    for (name, value) in &deployment.spec.environment {
        assert_eq!(environment[name], *value);
    }
    assert!(!environment.contains_key("CARGO_MANIFEST_DIR"));
    assert_eq!(answer["cwd"], deployment.spec.function.root.to_str().unwrap());
    for path in answer["open"].as_array().unwrap() {
        assert!(!path.as_str().unwrap().contains("/run/1"), "{path}");
    }
}

#[test]
fn one_replica_cannot_signal_the_supervisor() {
    let (deployment, mut client) = Deployment::serving(
        "
import os, signal
def function(args):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(1, number)
        except OSError:
            pass
    return 1
",
        |_| {},
    );
    assert_eq!(deployment.gateway(0).value("{}"), 1);
    let (replica, pid) = (client.replica(0), client.pid_in(0));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    client.until_replaced(0, &replica);
    assert_eq!(client.deployment.as_ref().unwrap().phase, millgate_contract::supervision::Phase::Serving);
}

#[test]
fn in_the_open_nothing_is_claimed() {
    let (deployment, client) = Deployment::serving("def function(args): return args", |spec| {
        spec.confinement = Confinement::Open;
    });
    assert_eq!(deployment.gateway(0).value("5"), 5);
    let report = &client.isolation;
    assert!(!report.pid_namespace && !report.mount_namespace && !report.no_new_privileges);
    assert!(!report.landlock && !report.seccomp);
    assert_eq!((report.uid, report.cgroup_version), (None, 0));
}

/// Folders that others may not enter are covered for the unprivileged user by ones that lead to the same programs.
const AS_NOBODY: &str = r#"
set -e
run="$1"; program="$2"; covered="$3"; shift 3
if [ -n "$covered" ]; then
    n=0
    for path in "$@"; do n=$((n + 1)); mkdir -p "$run/../../kept/$n"; mount --bind "$path" "$run/../../kept/$n"; done
    mount -t tmpfs -o mode=755 tmpfs "$covered"
    n=0
    for path in "$@"; do n=$((n + 1)); mkdir -p "$path"; mount --bind "$run/../../kept/$n" "$path"; done
fi
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$program" "$run"
"#;

/// Starts the supervisor as a user without privileges.
fn supervise_as_nobody(deployment: &Deployment) -> Output {
    let program = harness::supervise_program();
    let python = fs::canonicalize(&deployment.spec.function.python).unwrap();
    let prefix = python.parent().and_then(Path::parent).unwrap().to_owned();
    let built = program.parent().and_then(Path::parent).unwrap().to_owned();
    let closed = closed_ancestor(&prefix);
    let needed: Vec<PathBuf> = [prefix, built]
        .into_iter()
        .filter(|path| closed.as_ref().is_some_and(|top| path.starts_with(top)))
        .collect();
    Command::new("unshare")
        .args(["--mount", "sh", "-c", AS_NOBODY, "sh"])
        .arg(&deployment.run_dir)
        .arg(&program)
        .arg(closed.unwrap_or_default())
        .args(needed)
        .output()
        .unwrap()
}

/// The outermost folder above `path` that others may not enter.
fn closed_ancestor(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let is_closed = |path: &&&Path| fs::metadata(path).unwrap().permissions().mode() & 0o001 == 0;
    ancestors.iter().find(is_closed).map(|path| path.to_path_buf())
}

#[test]
fn without_privileges_what_can_be_had_is_had_and_the_rest_is_named() {
    if !is_root() {
        // Then every other test of this file is this one.
        return;
    }
    let deployment = Deployment::files(PROWLER, |_| {});
    let nobody = nix::unistd::Uid::from_raw(65_534);
    nix::unistd::chown(&deployment.run_dir, Some(nobody), None).unwrap();
    let output = supervise_as_nobody(&deployment);
    assert!(output.status.success(), "{output:?}\n{}", deployment.supervisor_log());
    let mut client = deployment.connect();
    client.until_all_ready();
    let report = &client.isolation;
    assert_eq!(report.uid, None);
    assert!(report.no_new_privileges);
    assert!(report.cgroup_version != 0 || has_missing(&client, "cgroup"), "{report:?}");
    assert!(report.user_namespace || has_missing(&client, "user namespace"), "{report:?}");
    assert!(report.pid_namespace || has_missing(&client, "PID namespace"), "{report:?}");
    assert!(report.mount_namespace || has_missing(&client, "root of its own"), "{report:?}");
    assert!(report.ipc_namespace || has_missing(&client, "IPC"), "{report:?}");
    // Of the same user, and visible where there is no root of its own: Landlock alone keeps it closed.
    let spec_file = deployment.run_dir.join("spec.json");
    assert!(report.seccomp && (report.landlock || report.mount_namespace), "{report:?}");
    let request = serde_json::json!({ "read": ["/proc/1/environ", "/proc/1/root/etc/passwd", "/etc/shadow", spec_file] });
    assert_denied(&deployment.gateway(0).value(&request.to_string()));
    let replica = client.replica(0);
    let pid = client.pid_in(0).cast_signed();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    client.until_replaced(0, &replica);
}

fn require_all(spec: &mut DeploymentSpec) {
    if let Confinement::Available { is_required, .. } = &mut spec.confinement {
        *is_required = true;
    }
}

fn cut_off(spec: &mut DeploymentSpec) {
    if let Confinement::Available { network, .. } = &mut spec.confinement {
        *network = Network::None;
    }
}

/// Leaves a word where it can, as its first act.
const WITNESS: &str = "
print('user code runs', flush=True)
def function(args):
    return 1
";

#[test]
fn where_isolation_is_required_nothing_of_the_users_runs_without_all_of_it() {
    let (_, client) = Deployment::serving(WITNESS, |_| {});
    let missing = client.isolation.missing.clone();
    let deployment = Deployment::files(WITNESS, require_all);
    let output = deployment.supervise();
    if output.status.success() {
        let mut client = deployment.connect();
        client.until("it serves or has failed", |client| {
            client.is_failed() || client.slots.values().any(|slot| slot.state == SlotState::Ready)
        });
        assert_eq!(client.is_failed(), !missing.is_empty(), "{:?}", client.deployment);
        if !client.is_failed() {
            return;
        }
        let reason = &client.deployment.as_ref().unwrap().reason;
        assert!(missing.iter().any(|one| reason.contains(one)), "{reason}");
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(missing.iter().any(|one| said.contains(one)), "{said}: {missing:?}");
    }
    assert!(!deployment.log().iter().any(|line| line.text.contains("user code runs")), "it was run");
}

#[test]
fn without_privileges_required_isolation_refuses_and_names_what_is_missing() {
    if !is_root() {
        return;
    }
    let deployment = Deployment::files(WITNESS, require_all);
    let nobody = nix::unistd::Uid::from_raw(65_534);
    nix::unistd::chown(&deployment.run_dir, Some(nobody), None).unwrap();
    let output = supervise_as_nobody(&deployment);
    // cgroups are root's here: the unprivileged get none, whatever else they get.
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("isolation is required") && said.contains("cgroup"), "{said}");
    assert!(!deployment.log().iter().any(|line| line.text.contains("user code runs")), "it was run");
}

#[test]
fn a_model_that_says_no_has_a_loopback_and_no_other_network() {
    let (_deployment, client) = Deployment::serving(PROWLER, cut_off);
    assert!(client.isolation.network_namespace, "{:?}", client.isolation);
    let pid = client.pid_in(0);
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(namespace(&pid.to_string()), namespace("self"));
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    assert_eq!(table.lines().skip(2).count(), 1, "{table}");
}
