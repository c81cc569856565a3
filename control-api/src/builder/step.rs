//! Runs a command of somebody else's through `millgate build-step`, which holds it in: a build's script, or `git`. What it
//! prints is told as it comes, and its way out is served meanwhile.

use std::{
    collections::VecDeque,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use millgate_contract::{limits, spec::BuildStepSpec};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::{attend::attend, channel::Channel};
use crate::{
    egress::rules::Rules,
    lines::{Lines, Overlong},
};

/// Lines of its output that a failure repeats.
const LAST_LINES: usize = 20;
/// What `build-step` gets on top of the step's time to end it itself.
const TIMEOUT_SLACK: Duration = Duration::from_secs(30);

/// What is run, where it may connect, and who hears what it prints.
pub(crate) struct StepRun<'a, Tell: Fn(&str) + Sync> {
    pub(crate) program: &'a Path,
    pub(crate) spec: &'a BuildStepSpec,
    pub(crate) rules: Rules,
    pub(crate) tell: Tell,
}

/// How a step ended.
pub(crate) struct StepEnd {
    status: ExitStatus,
    /// What it printed last.
    pub(crate) last: Vec<String>,
}

/// Why a step has no end of its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepFault {
    #[error("cannot run `{program} build-step`: {source}")]
    Start { program: String, source: io::Error },
    #[error("its output: {0}")]
    Output(#[source] io::Error),
    #[error("it ran longer than {0} s")]
    Late(u64),
}

impl StepEnd {
    /// Why it did not succeed, if so: in the words for the codes that are `build-step`'s and not the command's.
    pub(crate) fn failure(&self, spec: &BuildStepSpec) -> Option<String> {
        if self.status.success() {
            return None;
        }
        Some(match self.status.code() {
            Some(123) => "took more disk than it may (`disk_mib` of `[builds]`)".to_owned(),
            Some(124) => format!("ran longer than {} s (`timeout_s` of `[builds]`)", spec.timeout_ms / 1_000),
            Some(137) => format!(
                "was killed, most likely for using more than {} MiB of memory (`memory_mib` of `[builds]`)",
                spec.resources.memory_bytes >> 20
            ),
            _ => format!("ended with {}", self.status),
        })
    }
}

/// Runs it to its end.
pub(crate) async fn run<Tell: Fn(&str) + Sync>(step: StepRun<'_, Tell>) -> Result<StepEnd, StepFault> {
    let start = |source| StepFault::Start { program: step.program.display().to_string(), source };
    let (ours, theirs) = StdUnixStream::pair().map_err(start)?;
    let child = Command::new(step.program)
        .arg("build-step")
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| ["PATH", "LANG", "RUST_LOG"].contains(&name.as_str())))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    ours.set_nonblocking(true).map_err(start)?;
    let mut stream = UnixStream::from_std(ours).map_err(start)?;
    let json = serde_json::to_vec(step.spec).expect("a spec holds nothing that JSON cannot");
    let conversation = async {
        // A program that ends before it has read says why on its standard error.
        let _ = stream.write_all(&json).await;
        let _ = stream.shutdown().await;
        tokio::select! {
            ended = output(child, &step.tell) => ended,
            never = attend(step.rules, &step.tell, Channel::new(stream)) => match never {},
        }
    };
    let time = Duration::from_millis(step.spec.timeout_ms) + TIMEOUT_SLACK;
    match tokio::time::timeout(time, conversation).await {
        Ok(ended) => ended.map_err(StepFault::Output),
        Err(_) => Err(StepFault::Late(time.as_secs())),
    }
}

/// Tells both outputs until the process has ended.
async fn output(mut child: Child, tell: impl Fn(&str)) -> io::Result<StepEnd> {
    let (out, err) = (child.stdout.take().expect("it was piped"), child.stderr.take().expect("it was piped"));
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
            tell(&line);
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    Ok(StepEnd { status: child.wait().await?, last: last.into() })
}

async fn next<R: AsyncRead + Unpin>(lines: &mut Lines<R>) -> io::Result<Option<String>> {
    // Progress bars overwrite their line: what stood there last counts.
    Ok(lines.next().await?.map(|line| {
        let text = String::from_utf8_lossy(&line);
        text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned()
    }))
}
