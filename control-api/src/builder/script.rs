//! Runs `cdsw-build.sh` through `millgate build-step`, which holds it in, and puts what it prints into the log.

use std::{
    collections::{BTreeMap, VecDeque},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use millgate_contract::{
    limits,
    spec::{BuildStepSpec, Confinement, Network, Outlet, Resources},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::{
    BuildFailure, Job,
    attend::{attend, rules},
    channel::Channel,
    failed,
    log::Step,
    packages,
};
use crate::{
    config::BuildNetwork,
    egress::{self, rules::Rules},
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
    let cannot = |e: std::io::Error| {
        let program = job.app.config.millgate_program.display();
        failed(Step::Environment, format!("cannot run `{program} build-step`: {e}"))
    };
    let (ours, theirs) = StdUnixStream::pair().map_err(cannot)?;
    let mut child = Command::new(&job.app.config.millgate_program)
        .arg("build-step")
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| ["PATH", "LANG", "RUST_LOG"].contains(&name.as_str())))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    ours.set_nonblocking(true).map_err(cannot)?;
    let ours = UnixStream::from_std(ours).map_err(cannot)?;
    let time = Duration::from_millis(spec.timeout_ms) + TIMEOUT_SLACK;
    let conversation = converse(job, &mut child, ours, &spec);
    let Ok(ended) = tokio::time::timeout(time, conversation).await else {
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
    let words = words_of_end(status.code(), &spec).unwrap_or_else(|| format!("ended with {status}"));
    Err(failed(
        Step::Environment,
        format!("{} {words}; its last lines:\n{}", name(&job.build), last.join("\n")),
    ))
}

/// What an exit code of `build-step` means that is not the script's own.
fn words_of_end(code: Option<i32>, spec: &BuildStepSpec) -> Option<String> {
    match code? {
        123 => Some("took more disk than a build may (`disk_mib` of `[builds]`)".to_owned()),
        124 => Some(format!("ran longer than {} s (`timeout_s` of `[builds]`)", spec.timeout_ms / 1_000)),
        137 => Some(format!(
            "was killed, most likely for using more than {} MiB of memory (`memory_mib` of `[builds]`)",
            spec.resources.memory_bytes >> 20
        )),
        _ => None,
    }
}

/// Hands over the spec and logs both outputs until the process has ended; serves its way out meanwhile.
async fn converse(
    job: &Job,
    child: &mut Child,
    mut stream: UnixStream,
    spec: &BuildStepSpec,
) -> std::io::Result<(std::process::ExitStatus, VecDeque<String>)> {
    let (out, err) = (child.stdout.take().expect("it was piped"), child.stderr.take().expect("it was piped"));
    let json = serde_json::to_vec(spec).expect("a spec holds nothing that JSON cannot");
    // A program that ends before it has read says why on its standard error.
    let _ = stream.write_all(&json).await;
    let _ = stream.shutdown().await;
    let output = async {
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
    };
    tokio::select! {
        ended = output => ended,
        never = attend(job, Channel::new(stream)) => match never {},
    }
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
    readable.extend(packages::readable(job));
    environment.extend(packages::environment(job));
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    environment.insert("PATH".into(), format!("{}:{system}", packages::path(job)));
    environment.insert("VIRTUAL_ENV".into(), job.venv().display().to_string());
    environment.insert("PYTHONUNBUFFERED".into(), "1".into());
    let is_required = job.app.config.require_isolation;
    let has_outlet = job.app.config.build_network != BuildNetwork::None;
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
            cpu_millicores: u32::try_from(std::thread::available_parallelism().map_or(1, usize::from))
                .unwrap_or(1)
                .saturating_mul(1_000),
            memory_bytes: job.app.config.build_memory_bytes,
            processes_max: PROCESSES_MAX,
        },
        timeout_ms: job.app.config.build_timeout_ms,
        disk_bytes: Some(job.app.config.build_disk_bytes),
        outlet: has_outlet
            .then(|| Outlet { port: egress::PORT, environment: outlet_environment(&rules(job)) }),
    }
}

/// What tells installers of the way out, in the place of proxies that only this server reaches.
fn outlet_environment(rules: &Rules) -> BTreeMap<String, String> {
    let proxy = format!("http://127.0.0.1:{}", egress::PORT);
    let names =
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "PIP_PROXY"];
    let mut environment: BTreeMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), proxy.clone())).collect();
    // A loopback is the script's own, but for an index on this host's.
    let own = ["localhost", "127.0.0.1", "::1"].into_iter().filter(|host| !rules.names(host));
    let own = own.collect::<Vec<_>>().join(",");
    for name in ["no_proxy", "NO_PROXY"] {
        environment.insert(name.to_owned(), own.clone());
    }
    environment
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
