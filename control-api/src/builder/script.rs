//! Runs `cdsw-build.sh` through `millgate build-step`, which holds it in, and puts what it prints into the log.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use millgate_contract::{
    limits,
    spec::{BuildStepSpec, Confinement, Network, Resources},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    process::{Child, Command},
};

use super::{BuildFailure, Job, failed, log::Step};
use crate::{
    launch::spec::{HOME, build_uid, project_environment},
    lines::{Lines, Overlong},
    rows::Build,
};

/// The script's name where nothing is said.
const SCRIPT: &str = "cdsw-build.sh";
/// Lines of its output that a failure repeats.
const LAST_LINES: usize = 20;
/// Processes and threads of a build script: compilers start many.
const PROCESSES_MAX: u32 = 4_096;
/// What `build-step` gets on top of the script's time to end it itself.
const TIMEOUT_SLACK: Duration = Duration::from_secs(30);

/// The script's path below the model's root.
pub(super) fn name(build: &Build) -> &str {
    if build.build_script_path.is_empty() { SCRIPT } else { &build.build_script_path }
}

/// Where packages are kept between builds.
pub(super) fn package_cache(job: &Job) -> PathBuf {
    job.app.dir.cache().join("pip")
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
    job.log.line(Step::Environment, &format!("running {}", name(&job.build)));
    let spec = step_spec(job, script);
    let mut child = Command::new(&job.app.config.millgate_program)
        .arg("build-step")
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| ["PATH", "LANG", "RUST_LOG"].contains(&name.as_str())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            let program = job.app.config.millgate_program.display();
            failed(Step::Environment, format!("cannot run `{program} build-step`: {e}"))
        })?;
    let time = Duration::from_millis(spec.timeout_ms) + TIMEOUT_SLACK;
    let Ok(ended) = tokio::time::timeout(time, converse(job, &mut child, &spec)).await else {
        return Err(failed(
            Step::Environment,
            format!("{} ran longer than {} s", name(&job.build), time.as_secs()),
        ));
    };
    let (status, last) = ended.map_err(|e| failed(Step::Environment, format!("the script's output: {e}")))?;
    if status.success() {
        return Ok(());
    }
    let last: Vec<String> = last.into();
    Err(failed(
        Step::Environment,
        format!("{} ended with {status}; its last lines:\n{}", name(&job.build), last.join("\n")),
    ))
}

/// Hands over the spec and logs both outputs until the process has ended.
async fn converse(
    job: &Job,
    child: &mut Child,
    spec: &BuildStepSpec,
) -> std::io::Result<(std::process::ExitStatus, VecDeque<String>)> {
    let mut stdin = child.stdin.take().expect("it was piped");
    let (out, err) = (child.stdout.take().expect("it was piped"), child.stderr.take().expect("it was piped"));
    let json = serde_json::to_vec(spec).expect("a spec holds nothing that JSON cannot");
    // A program that ends before it has read says why on its standard error.
    let _ = stdin.write_all(&json).await;
    drop(stdin);
    let mut out = Lines::new(out, limits::LOG_LINE_BYTES_MAX, Overlong::Cut);
    let mut err = Lines::new(err, limits::LOG_LINE_BYTES_MAX, Overlong::Cut);
    let mut last = VecDeque::new();
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let line = tokio::select! {
            line = next(&mut out), if out_open => line?.or_else(|| { out_open = false; None }),
            line = next(&mut err), if err_open => line?.or_else(|| { err_open = false; None }),
        };
        if let Some(line) = line {
            job.log.line(Step::Environment, &line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    Ok((child.wait().await?, last))
}

async fn next<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> std::io::Result<Option<String>> {
    // Progress bars overwrite their line: what stood there last counts.
    Ok(lines.next().await?.map(|line| {
        let text = String::from_utf8_lossy(&line);
        text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned()
    }))
}

fn step_spec(job: &Job, script: &Path) -> BuildStepSpec {
    let from = job.ingredients();
    let mut environment = job.app.config.build_environment.clone();
    let mut readable = vec![job.runtime().python.base_prefix.clone()];
    readable.extend(named_paths(&environment));
    environment.extend(project_environment(&from));
    let venv = job.venv();
    let cache = package_cache(job);
    environment.insert(
        "PATH".into(),
        format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            venv.join("bin").display()
        ),
    );
    environment.insert("VIRTUAL_ENV".into(), venv.display().to_string());
    environment.insert("PIP_CACHE_DIR".into(), cache.display().to_string());
    environment.insert("PIP_DISABLE_PIP_VERSION_CHECK".into(), "1".into());
    environment.insert("PIP_REQUIRE_VIRTUALENV".into(), "1".into());
    environment.insert("PYTHONUNBUFFERED".into(), "1".into());
    BuildStepSpec {
        command: vec!["/bin/bash".into(), script.display().to_string()],
        root: job.root(),
        // The project's root is written to as well when the model's root is below it.
        writable: vec![job.dir.join("root"), venv, cache],
        environment,
        confinement: Confinement::Available {
            uid: build_uid(job.build.number),
            readable,
            home: HOME.into(),
            // It installs packages.
            network: Network::Kept,
            is_required: job.app.config.require_isolation,
        },
        resources: Resources {
            cpu_millicores: u32::try_from(std::thread::available_parallelism().map_or(1, usize::from))
                .unwrap_or(1)
                .saturating_mul(1_000),
            memory_bytes: job.app.config.build_memory_bytes,
            processes_max: PROCESSES_MAX,
        },
        timeout_ms: job.app.config.build_timeout_ms,
    }
}

/// Files and folders that installer variables name: the script must see them.
fn named_paths(variables: &BTreeMap<String, String>) -> Vec<PathBuf> {
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
