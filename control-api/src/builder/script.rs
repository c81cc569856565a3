//! Runs `cdsw-build.sh` and puts what it prints into the log.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use millgate_contract::spec::{BuildStepSpec, Confinement, Network, Resources};

use super::{
    BuildFailure, Job,
    again::Again,
    failed,
    log::Step,
    packages,
    step::{self, StepRun},
};
use crate::{
    egress::rules::Rules,
    launch::spec::{HOME, build_uid, project_environment},
    rows::Build,
};

/// The script's name where nothing is said.
const SCRIPT: &str = "cdsw-build.sh";
/// Processes and threads of a build script: compilers start many.
const PROCESSES_MAX: u32 = 4_096;

/// The script's path below the model's root.
pub(super) fn name(build: &Build) -> &str {
    if build.build_script_path.is_empty() { SCRIPT } else { &build.build_script_path }
}

/// The script, when there is one; one that was asked for by name must be there.
pub(super) fn find(job: &Job) -> Result<Option<PathBuf>, BuildFailure> {
    let script = job.root().join(name(&job.build));
    if script.is_file() {
        return Ok(Some(script));
    }
    if job.build.build_script_path.is_empty() {
        return Ok(None);
    }
    Err(failed(
        Step::Environment,
        format!(
            "there is no file {:?} in the model's root; check `build_script_path`",
            job.build.build_script_path
        ),
    ))
}

/// Runs it to its end.
pub(super) async fn run(job: &Job, script: &Path) -> Result<(), BuildFailure> {
    let name = name(&job.build);
    job.log.line(Step::Environment, &format!("running {name}"));
    let spec = step_spec(job, script);
    let step = StepRun {
        program: &job.app.config.millgate_program,
        spec: &spec,
        rules: Rules::of(&job.app.config),
        tell: |line: &str| job.log.line(Step::Environment, line),
    };
    let ended = step::run(step).await.map_err(|e| failed(Step::Environment, format!("{name}: {e}")))?;
    let Some(words) = ended.failure(&spec) else { return Ok(()) };
    Err(failed(Step::Environment, format!("{name} {words}; its last lines:\n{}", ended.last.join("\n"))))
}

fn step_spec(job: &Job, script: &Path) -> BuildStepSpec {
    let from = job.ingredients();
    let mut environment = job.app.config.build_environment.clone();
    let mut readable = vec![job.runtime().python.base_prefix.clone()];
    readable.extend(named_paths(&environment));
    environment.extend(project_environment(&from));
    readable.extend(packages::readable(job));
    environment.extend(packages::environment(job));
    Again::constrain(job, &mut environment);
    readable.extend(Again::constraints(job));
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    environment.insert("PATH".into(), format!("{}:{system}", packages::path(job)));
    environment.insert("VIRTUAL_ENV".into(), job.venv().display().to_string());
    environment.insert("PYTHONUNBUFFERED".into(), "1".into());
    let is_required = job.app.config.require_isolation;
    BuildStepSpec {
        command: vec!["/bin/bash".into(), script.display().to_string()],
        root: job.root(),
        // The project's root is written to as well when the model's root is below it.
        writable: vec![job.dir.join("root"), job.venv(), packages::cache(job)],
        environment,
        confinement: Confinement::Available {
            uid: build_uid(job.build.number),
            readable,
            home: HOME.into(),
            network: Network::None,
            is_required,
        },
        resources: Resources {
            cpu_millicores: all_processors(),
            memory_bytes: job.app.config.build_memory_bytes,
            processes_max: PROCESSES_MAX,
        },
        timeout_ms: job.app.config.build_timeout_ms,
        disk_bytes: Some(job.app.config.build_disk_bytes),
        outlet: Rules::of(&job.app.config).outlet(),
    }
}

/// In thousandths: a script may use the whole host while it runs.
pub(crate) fn all_processors() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).unwrap_or(1).saturating_mul(1_000)
}

/// Files and folders that installer variables name: the script must see them.
pub(crate) fn named_paths(variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
    variables
        .values()
        .flat_map(|value| value.split_whitespace())
        .map(|word| word.strip_prefix("file://").unwrap_or(word))
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.components().count() > 1 && path.exists())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_installer_variables_name_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        let variables = BTreeMap::from([
            ("PIP_FIND_LINKS".to_owned(), format!("file://{path} https://x/")),
            ("SSL_CERT_FILE".to_owned(), "/nowhere/cert.pem".to_owned()),
            ("PIP_X".to_owned(), "/".to_owned()),
        ]);
        assert_eq!(named_paths(&variables), [PathBuf::from(path)]);
    }
}
