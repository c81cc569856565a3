//! Puts together what a supervisor is told of a deployment: paths, environment, resources, confinement.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use millgate_contract::{
    ids::{BuildId, DeploymentId, slug},
    limits,
    spec::{Confinement, DeploymentSpec, FunctionSpec, ReplicaPolicy, Resources, SPEC_FORMAT},
};
use serde_json::Value;

use crate::{
    config::ControlConfig,
    policy::ServingPolicy,
    rows::{Amounts, Build, Deployment, Model, Project},
    runtimes::Runtime,
};

/// Uids from here on are user code's, one per deployment.
const REPLICA_UID_FIRST: u32 = 200_000;
/// Uids from here on are build scripts', one per build.
const BUILD_UID_FIRST: u32 = 300_000;
/// How many of each before they come round.
const UIDS: i64 = 60_000;
/// Where the model's root is also shown.
pub(crate) const HOME: &str = "/home/cdsw";
/// Processes and threads of one replica.
const PROCESSES_MAX: u32 = 512;

/// What a unit is made from.
pub(crate) struct Ingredients<'a> {
    pub(crate) config: &'a ControlConfig,
    /// JSON object of the server's variables.
    pub(crate) environment: &'a str,
    pub(crate) runtime: &'a Runtime,
    pub(crate) build_dir: &'a Path,
    pub(crate) project: &'a Project,
    pub(crate) model: &'a Model,
    pub(crate) build: &'a Build,
}

/// The uid of a deployment's user code.
pub(crate) fn replica_uid(number: i64) -> u32 {
    REPLICA_UID_FIRST + number.rem_euclid(UIDS) as u32
}

/// The uid of a build's script and trial import.
pub(crate) fn build_uid(number: i64) -> u32 {
    BUILD_UID_FIRST + number.rem_euclid(UIDS) as u32
}

/// What a deployment's supervisor is told.
pub(crate) fn deployment(from: &Ingredients<'_>, deployment: &Deployment) -> DeploymentSpec {
    let uid = replica_uid(deployment.number);
    let mut spec = common(from, deployment.amounts, uid, &deployment.policy);
    spec.deployment = deployment.id.clone();
    spec.replica_prefix = prefix(from, deployment.number);
    spec.slots =
        u16::try_from(deployment.amounts.replicas).unwrap_or(1).clamp(1, limits::REPLICAS_CEILING_MAX);
    spec.environment.insert("CDSW_ENGINE_ID".into(), deployment.id.to_string());
    spec.environment.extend(variables(&deployment.environment));
    spec
}

/// What the supervisor of a build's trial import is told: one replica, the example called in it, with these variables (a
/// JSON object) besides the server's and the project's.
pub(crate) fn trial(from: &Ingredients<'_>, environment: &str) -> DeploymentSpec {
    let amounts = Amounts { replicas: 1, ..from.model.resources };
    let mut spec = common(from, amounts, build_uid(from.build.number), &from.model.policy);
    // A trial is over when its one replica is ready.
    let start = from.model.policy.replicas.start;
    spec.policy = ReplicaPolicy { start, spares: 0, ..ReplicaPolicy::default() };
    spec.deployment = DeploymentId::new(from.build.id.as_str());
    spec.replica_prefix = prefix(from, 0);
    spec.environment.insert("CDSW_ENGINE_ID".into(), from.build.id.to_string());
    spec.environment.extend(variables(environment));
    spec
}

fn common(from: &Ingredients<'_>, amounts: Amounts, uid: u32, policy: &ServingPolicy) -> DeploymentSpec {
    let root = model_root(from.build_dir, from.build);
    DeploymentSpec {
        format: SPEC_FORMAT,
        deployment: DeploymentId::new(""),
        build: BuildId::new(from.build.id.as_str()),
        replica_prefix: String::new(),
        function: FunctionSpec {
            runtime: from.runtime.program.clone(),
            python: from.build_dir.join("venv/bin/python"),
            root,
            file: from.build.file_path.clone().into(),
            function: from.build.function_name.clone(),
            python_path: Vec::new(),
        },
        environment: replica_environment(from, amounts),
        slots: 1,
        resources: Resources {
            cpu_millicores: u32::try_from(amounts.cpu_millicores).unwrap_or(1_000),
            memory_bytes: u64::try_from(amounts.memory_mb).unwrap_or(2_048) << 20,
            processes_max: PROCESSES_MAX,
        },
        example_request: (!from.build.example_request.is_empty()).then(|| from.build.example_request.clone()),
        start_timeout_ms: from.config.start_timeout_ms,
        kill_grace_ms: limits::KILL_GRACE_MS,
        confinement: Confinement::Available {
            uid,
            readable: vec![from.build_dir.to_owned(), from.runtime.python.base_prefix.clone()],
            home: HOME.into(),
            network: policy.network,
            is_required: from.config.require_isolation || policy.require_isolation,
        },
        policy: policy.replicas.clone(),
    }
}

/// The model's root in a build: where its file and its script are.
pub(crate) fn model_root(build_dir: &Path, build: &Build) -> PathBuf {
    let root = build_dir.join("root");
    if build.model_root_dir.is_empty() { root } else { root.join(&build.model_root_dir) }
}

fn prefix(from: &Ingredients<'_>, number: i64) -> String {
    let hash =
        if from.build.build_hash.is_empty() { &from.build.source_hash } else { &from.build.build_hash };
    let hash = hash.get(..10).unwrap_or("0000000000");
    format!("{}-{}-{number}-{hash}", slug(&from.model.name), from.model.number)
}

/// The variables of `CONTRACT` §2, then the server's, then the project's: the later win.
pub(crate) fn project_environment(from: &Ingredients<'_>) -> BTreeMap<String, String> {
    let ControlConfig { scheme, domain, .. } = from.config;
    let project = from.project;
    let mut environment: BTreeMap<String, String> = [
        ("CDSW_PROJECT_ID", project.id.to_string()),
        ("CDSW_PROJECT_NUM", project.number.to_string()),
        ("CDSW_PROJECT", slug(&project.name)),
        ("CDSW_PROJECT_ROOT", HOME.to_owned()),
        ("PROJECT_OWNER", project.owner.to_string()),
        ("CDSW_DOMAIN", domain.clone()),
        ("CDSW_API_URL", format!("{scheme}://{domain}/api/v1")),
        ("CDSW_DS_API_URL", format!("{scheme}://{domain}/api/altus-ds-1/ds")),
        ("CDSW_ENGINE_TYPE", "model".to_owned()),
        ("ML_RUNTIME_KERNEL", from.runtime.python.kernel()),
        ("ML_RUNTIME_EDITION", "Standard".to_owned()),
        ("HOME", home(from)),
        ("LANG", "C.UTF-8".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    environment.extend(variables(from.environment));
    environment.extend(variables(&project.environment));
    environment
}

/// As root a namespace shows the model's root at [`HOME`]; without one it is where it is.
fn home(from: &Ingredients<'_>) -> String {
    if nix::unistd::geteuid().is_root() {
        HOME.to_owned()
    } else {
        model_root(from.build_dir, from.build).display().to_string()
    }
}

/// Threads of a numeric library's pool: the cores rounded down, and at least one.
fn threads(cpu_millicores: i64) -> i64 {
    (cpu_millicores / 1_000).max(1)
}

fn replica_environment(from: &Ingredients<'_>, amounts: Amounts) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let venv = from.build_dir.join("venv");
    environment.insert("PATH".into(), format!("{}:/usr/local/bin:/usr/bin:/bin", venv.join("bin").display()));
    environment.insert("VIRTUAL_ENV".into(), venv.display().to_string());
    environment.insert("PYTHONDONTWRITEBYTECODE".into(), "1".into());
    environment.insert("PYTHONUNBUFFERED".into(), "1".into());
    // Numeric libraries start a thread per core of the host otherwise, for each replica.
    let threads = threads(amounts.cpu_millicores).to_string();
    for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"] {
        environment.insert(name.into(), threads.clone());
    }
    // Threads that spin while they wait take the cores from those they wait for, as soon as the host has more threads
    // than cores: a `predict_proba` of 1,400 ms took 12 ms without, a matrix inverse of 750 ms 80 ms (three replicas
    // with two threads each on two busy cores).
    environment.insert("OMP_WAIT_POLICY".into(), "PASSIVE".into());
    environment.insert("OPENBLAS_THREAD_TIMEOUT".into(), "4".into());
    environment.extend(project_environment(from));
    environment
}

/// Reads a JSON object of variables, as the store keeps it.
pub(crate) fn variables(json: &str) -> BTreeMap<String, String> {
    match serde_json::from_str(json) {
        Ok(Value::Object(object)) => object
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_the_cores_rounded_down_and_at_least_one() {
        let cases = [(1, 1), (999, 1), (1_000, 1), (1_999, 1), (2_700, 2), (16_000, 16)];
        assert_eq!(
            cases.map(|(cpu_millicores, _)| threads(cpu_millicores)),
            cases.map(|(_, threads)| threads)
        );
    }
}
