//! A build's script in its sandbox.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use harness::{SECRET, UID, is_root, processes_with, until};
use millgate_contract::spec::{BuildStepSpec, Confinement, Network, Resources};
use tempfile::TempDir;

struct Build {
    dir: TempDir,
    spec: BuildStepSpec,
}

impl Build {
    fn new(script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("millgate-").tempdir().unwrap();
        harness::open_to_all(dir.path());
        let at = |name: &str| dir.path().join(name);
        for name in ["root", "venv", "cache"] {
            fs::create_dir(at(name)).unwrap();
            if is_root() {
                std::os::unix::fs::chown(at(name), Some(UID), Some(UID)).unwrap();
            }
        }
        fs::write(at("secret"), SECRET).unwrap();
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o644)).unwrap();
        let spec = BuildStepSpec {
            command: vec!["bash".into(), "-c".into(), script.into()],
            root: at("root"),
            writable: vec![at("venv"), at("cache")],
            environment: BTreeMap::from([
                ("PATH".into(), "/usr/bin:/bin".into()),
                ("OUTER".into(), dir.path().to_str().unwrap().into()),
            ]),
            confinement: Confinement::Available {
                uid: UID,
                readable: vec![],
                home: "/home/cdsw".into(),
                network: Network::Kept,
                is_required: false,
            },
            resources: Resources { cpu_millicores: 1_000, memory_bytes: 1 << 30, processes_max: 128 },
            timeout_ms: 20_000,
            disk_bytes: None,
            outlet: None,
        };
        Self { dir, spec }
    }

    fn run(&self) -> Output {
        let mut child = Command::new(harness::supervise_program())
            .arg("build-step")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let spec = serde_json::to_vec(&self.spec).unwrap();
        child.stdin.take().unwrap().write_all(&spec).unwrap();
        child.wait_with_output().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_step_writes_where_it_may_and_its_output_and_exit_code_are_ours() {
    let build = Build::new(
        "pwd; echo a > made; echo b > /home/cdsw/there; echo c > $OUTER/venv/lib; echo d > $OUTER/cache/x; \
         echo e > /tmp/y; echo oops >&2; exit 7",
    );
    let output = build.run();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(text(&output.stdout).trim(), build.spec.root.to_str().unwrap());
    assert_eq!(text(&output.stderr).trim(), "oops");
    for name in ["root/made", "root/there", "venv/lib", "cache/x"] {
        assert!(build.file(name).exists(), "{name}");
    }
    let mut left: Vec<String> = fs::read_dir(build.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["cache", "root", "secret", "venv"]);
}

#[test]
fn a_step_sees_neither_the_data_directory_nor_our_environment() {
    let build = Build::new(
        "cat $OUTER/secret && exit 1; ls /root && exit 2; echo x > /usr/x && exit 3; echo x > $OUTER/x && exit 4; \
         cat /proc/1/environ && exit 5; [ -z \"$CARGO_MANIFEST_DIR\" ] || exit 6; [ $(id -u) != 0 ] || exit 7; \
         echo safe",
    );
    let output = build.run();
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(0), "safe"), "{output:?}");
}

#[test]
fn a_step_that_takes_too_long_is_ended_with_all_it_started() {
    for is_open in [false, true] {
        let marker = format!("87654{}.{}", std::process::id(), u8::from(is_open));
        let mut build = Build::new(&format!("setsid sleep {marker} & sleep {marker} & wait"));
        build.spec.timeout_ms = 500;
        if is_open {
            build.spec.confinement = Confinement::Open;
        }
        let output = build.run();
        assert_eq!(output.status.code(), Some(124), "{output:?}");
        assert!(text(&output.stderr).contains("it ran longer than 500 ms"), "{output:?}");
        until("nothing of the step is left", || processes_with(&marker).is_empty());
    }
}

#[test]
fn a_step_whose_starter_is_killed_ends_too() {
    let marker = format!("76543{}", std::process::id());
    let build = Build::new(&format!("sleep {marker}"));
    let spec_file = build.file("step.json");
    fs::write(&spec_file, serde_json::to_vec(&build.spec).unwrap()).unwrap();
    let mut starter = Command::new("/bin/sh")
        .args(["-c", r#""$0" build-step < "$1" & wait"#])
        .arg(harness::supervise_program())
        .arg(&spec_file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the step runs", || !processes_with(&format!("sleep\0{marker}")).is_empty());
    starter.kill().unwrap();
    starter.wait().unwrap();
    until("the step has ended", || processes_with(&marker).is_empty());
}

#[test]
fn a_command_that_is_not_there_and_a_spec_that_is_none_say_so() {
    let mut build = Build::new("");
    build.spec.command = vec!["no-such-command".into()];
    let output = build.run();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("run `no-such-command`: No such file"), "{output:?}");
    build.spec.command.clear();
    let output = build.run();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("`command` is empty"), "{output:?}");
}
