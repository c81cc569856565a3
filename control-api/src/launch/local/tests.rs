//! Real processes of a stand-in that speaks as a supervisor does.

use std::path::Path;

use millgate_contract::{
    ids::{BuildId, DeploymentId},
    spec::{Confinement, FunctionSpec, ReplicaPolicy, Resources, SPEC_FORMAT},
    supervision::Phase,
};

use super::*;
use crate::testing::stand_in;

fn spec(function: &str) -> DeploymentSpec {
    DeploymentSpec {
        format: SPEC_FORMAT,
        deployment: DeploymentId::new("d"),
        build: BuildId::new("b"),
        replica_prefix: "m-1-1-0000000000".into(),
        function: FunctionSpec {
            runtime: "/r".into(),
            python: "/p".into(),
            root: "/".into(),
            file: "a.py".into(),
            function: function.into(),
            python_path: vec![],
        },
        environment: BTreeMap::new(),
        slots: 2,
        resources: Resources { cpu_millicores: 1_000, memory_bytes: 1 << 30, processes_max: 10 },
        example_request: None,
        start_timeout_ms: 1_000,
        kill_grace_ms: 100,
        confinement: Confinement::Open,
        policy: ReplicaPolicy::default(),
    }
}

fn launcher(dir: &Path) -> LocalLauncher {
    LocalLauncher::new(dir.join("run"), stand_in(dir))
}

async fn until(launcher: &LocalLauncher, is_so: impl Fn(&BTreeMap<UnitName, Report>) -> bool) {
    let mut changes = launcher.changes();
    while !is_so(&launcher.observe()) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_supervisor_is_launched_found_again_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let unit = UnitName::deployment(7);
    let first = launcher(dir.path());
    first.launch(unit.clone(), spec("add")).await.unwrap();
    until(&first, |units| units[&unit].phase() == Phase::Serving && units[&unit].slots.len() == 2).await;
    let pid = first.observe()[&unit].pid;
    first.launch(unit.clone(), spec("add")).await.unwrap();
    assert_eq!(first.observe()[&unit].pid, pid, "one that runs is not launched again");
    // Another program on the same directory; the stand-in talks to one peer at a time, so the first lets go.
    first.0.units.lock().unwrap().remove(&unit).unwrap();
    let second = launcher(dir.path());
    until(&first, BTreeMap::is_empty).await;
    second.adopt().await;
    until(&second, |units| units.get(&unit).is_some_and(|u| u.phase() == Phase::Serving)).await;
    assert_eq!(second.observe()[&unit].pid, pid);
    second.stop(&unit, 0);
    assert_eq!(second.observe()[&unit].phase(), Phase::Stopping);
    until(&second, BTreeMap::is_empty).await;
    assert!(!is_alive(pid));
    second.clear(&unit);
    assert!(!dir.path().join("run/7").exists());
}

#[tokio::test]
async fn one_that_does_not_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let launcher = launcher(dir.path());
    let error = launcher.launch(UnitName::deployment(1), spec("cannot_start")).await.unwrap_err().to_string();
    assert!(error.contains("no room for it"), "{error}");
    assert!(launcher.observe().is_empty());
    let missing = LocalLauncher::new(dir.path().join("run"), "/nowhere/millgate".into());
    let error = missing.launch(UnitName::deployment(2), spec("add")).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/millgate"), "{error}");
}

#[tokio::test]
async fn a_supervisor_that_is_killed_is_gone_and_its_directory_is_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let unit = UnitName::deployment(3);
    let launcher = launcher(dir.path());
    launcher.launch(unit.clone(), spec("add")).await.unwrap();
    let pid = launcher.observe()[&unit].pid;
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    until(&launcher, BTreeMap::is_empty).await;
    launcher.adopt().await;
    assert!(launcher.observe().is_empty(), "a socket that nobody listens on is no supervisor");
    launcher.launch(unit.clone(), spec("add")).await.unwrap();
    launcher.stop(&unit, 0);
    until(&launcher, BTreeMap::is_empty).await;
}
