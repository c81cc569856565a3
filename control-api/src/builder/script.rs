//! Runs `cdsw-build.sh` through `millgate build-step`, which holds it in, and puts what it prints into the log.

use std::{
    collections::{BTreeMap, VecDeque},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use millgate_contract::{
    limits,
    spec::{BuildStepSpec, Confinement, FromBuildStep, Network, Outlet, Resources},
    supervision::Isolation,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::{
    BuildFailure, Job,
    channel::{Channel, Said},
    failed,
    log::Step,
};
use crate::{
    config::BuildNetwork,
    egress::{self, installer, rules::Rules, upstream::Upstreams},
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

/// Hears what the step says, and is the way out of its network.
async fn attend(job: &Job, mut channel: Channel) -> std::convert::Infallible {
    let mut outlet = None;
    loop {
        let heard = tokio::select! {
            heard = channel.next() => heard,
            () = async { match &mut outlet { Some(outlet) => outlet.await, None => std::future::pending().await } } => {
                outlet = None;
                continue;
            }
        };
        match heard {
            Ok(Some(Said { listener: Some(listener), .. })) => {
                let rules = Arc::new(rules(job));
                let serving = async move {
                    let tell = |line: &str| job.log.line(Step::Environment, &format!("network: {line}"));
                    if let Err(error) = egress::serve(listener, rules, tell).await {
                        tracing::error!(%error, "the way out of a build's network");
                    }
                };
                outlet = Some(Box::pin(serving));
            }
            Ok(Some(Said { message: FromBuildStep::Held(isolation), .. })) => {
                job.log.line(Step::Environment, &words_of(&isolation));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => match &mut outlet {
                Some(outlet) => outlet.await,
                None => std::future::pending().await,
            },
        }
    }
}

fn rules(job: &Job) -> Rules {
    let config = &job.app.config;
    let own_name = config.domain.rsplit_once(':').map_or(config.domain.as_str(), |(host, _)| host);
    let mut allowed = installer::index_hosts(&config.build_environment);
    allowed.extend(config.build_hosts.iter().cloned());
    Rules {
        network: config.build_network,
        allowed,
        own_name: own_name.to_owned(),
        upstreams: Upstreams::of(&config.build_environment),
    }
}

/// What holds the script in, in one line.
fn words_of(isolation: &Isolation) -> String {
    let held: Vec<String> = [
        (isolation.pid_namespace, "processes"),
        (isolation.mount_namespace, "files"),
        (isolation.ipc_namespace, "memory"),
        (isolation.network_namespace, "network"),
    ]
    .into_iter()
    .filter_map(|(is_so, what)| is_so.then(|| what.to_owned()))
    .collect();
    let mut words = match &held[..] {
        [] => "the script runs".to_owned(),
        held => format!("the script has its own {}", held.join(", ")),
    };
    if let Some(uid) = isolation.uid {
        words += &format!("; uid {uid}");
    }
    let more = [
        (isolation.cgroup_version > 0, "limited by cgroup"),
        (isolation.landlock, "Landlock"),
        (isolation.seccomp, "seccomp"),
        (isolation.no_new_privileges, "no new privileges"),
    ];
    for (_, what) in more.into_iter().filter(|(is_so, _)| *is_so) {
        words += &format!(", {what}");
    }
    if !isolation.missing.is_empty() {
        words += &format!("; this host does not allow: {}", isolation.missing.join("; "));
    }
    words
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
    let is_required = job.app.config.require_isolation;
    let has_outlet = job.app.config.build_network != BuildNetwork::None;
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
        outlet: has_outlet.then(|| Outlet { port: egress::PORT, environment: outlet_environment() }),
    }
}

/// What tells installers of the way out, in the place of proxies that only this server reaches.
fn outlet_environment() -> BTreeMap<String, String> {
    let proxy = format!("http://127.0.0.1:{}", egress::PORT);
    let names =
        ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "PIP_PROXY"];
    let mut environment: BTreeMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), proxy.clone())).collect();
    for name in ["no_proxy", "NO_PROXY"] {
        environment.insert(name.to_owned(), "localhost,127.0.0.1,::1".to_owned());
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
