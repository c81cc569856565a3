//! Fork, enter the sandbox, exec. The child reports by a pipe that exec closes: what it went without, or why it
//! could not start.

use std::{
    ffi::{CString, NulError, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{ForkResult, Pid, chdir, execve, fork, pipe2},
};

use super::{Sandbox, privileges, root, rules};
use crate::{cgroup::Group, sys};

/// Descriptors of ours are moved above this before the program's are put in their places.
const SCRATCH_FD_MIN: RawFd = 64;
/// Bytes of the child's report.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// What to run.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// A path, or a name to look up in the environment's `PATH`.
    pub(crate) path: &'a Path,
    /// Arguments, the program's name not among them.
    pub(crate) arguments: Vec<&'a OsStr>,
    /// The whole environment.
    pub(crate) environment: Vec<(&'a str, &'a str)>,
    /// Descriptors it gets, by number; every other one is closed.
    pub(crate) descriptors: Vec<(RawFd, RawFd)>,
    /// Kill it when the thread that starts it ends.
    pub(crate) dies_with_parent: bool,
    /// The group it is in from its first instruction on.
    pub(crate) group: Option<&'a Group>,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// What of its sandbox it went without, and why.
    pub(crate) missing: Vec<String>,
}

/// Why a program does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// A NUL in a path, an argument or the environment.
    #[error("`{0}` cannot be passed to a program: it holds a NUL")]
    Nul(String),
    /// The system refused.
    #[error("{step}: {source}")]
    System { step: &'static str, source: io::Error },
    /// The child said so.
    #[error("{0}")]
    Child(String),
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SpawnError {
    move |source| SpawnError::System { step, source: source.into() }
}

/// Runs a program in a sandbox. Must be called on the only thread of this process.
pub(crate) fn spawn(sandbox: &Sandbox, program: &Program<'_>) -> Result<Spawned, SpawnError> {
    let strings = Strings::of(program)?;
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(at("make a pipe"))?;
    // SAFETY: this process has one thread (checked at launch), so the child may use all of the library.
    match unsafe { fork() }.map_err(at("fork"))? {
        ForkResult::Child => {
            drop(ours);
            let report = Report::out_of_the_way(theirs);
            report.fail(&become_program(sandbox, program, &strings, &report));
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let pidfd = sys::pidfd_open(child).map_err(at("watch a process"))?;
            match Report::read(ours) {
                Ok(missing) => Ok(Spawned { pid: child, pidfd, missing }),
                Err(error) => {
                    let _ = nix::sys::wait::waitpid(child, None);
                    Err(error)
                }
            }
        }
    }
}

/// Only returns with what went wrong.
fn become_program(sandbox: &Sandbox, program: &Program<'_>, strings: &Strings, report: &Report) -> String {
    match enter(sandbox, program) {
        Ok(missing) => match super::refusal(&missing).filter(|_| sandbox.is_required) {
            None => report.missing(&missing),
            Some(refusal) => return refusal,
        },
        Err(error) => return error,
    }
    let arguments: Vec<&CString> = strings.arguments.iter().collect();
    let mut result = Errno::ENOENT;
    for path in &strings.paths {
        let Err(errno) = execve(path, &arguments, &strings.environment);
        result = errno;
        if result != Errno::ENOENT {
            break;
        }
    }
    format!("run `{}`: {}", program.path.display(), io::Error::from(result))
}

fn enter(sandbox: &Sandbox, program: &Program<'_>) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    sys::reset_signals().map_err(|error| text(&error))?;
    umask(Mode::from_bits_truncate(0o022));
    place_descriptors(&program.descriptors).map_err(|error| format!("pass descriptors: {error}"))?;
    let mut missing = Vec::new();
    if let Some(group) = program.group
        && let Err(error) = group.add(nix::unistd::getpid())
    {
        missing.push(format!("cgroup: {error}"));
    }
    let mut has_root = false;
    if let Some(wanted) = &sandbox.root {
        match root::enter(wanted) {
            Ok(more) => {
                has_root = true;
                missing.extend(more);
            }
            Err(error) => missing.push(format!("root of its own: {error}")),
        }
    }
    privileges::drop_all(sandbox).map_err(|error| text(&error))?;
    // After the uid has changed, which clears it.
    if program.dies_with_parent {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| text(&error))?;
    }
    chdir(&sandbox.cwd).map_err(|error| format!("enter `{}`: {error}", sandbox.cwd.display()))?;
    // Last: what was done above would be denied.
    missing.extend(rules::restrict(sandbox, has_root));
    Ok(missing)
}

/// Puts each descriptor at its number and closes all others on exec.
fn place_descriptors(descriptors: &[(RawFd, RawFd)]) -> io::Result<()> {
    // First all out of the way: a source may lie where another one's target is.
    let moved: Vec<(RawFd, RawFd)> = descriptors
        .iter()
        .map(|(source, target)| Ok((sys::dup_above(*source, SCRATCH_FD_MIN)?, *target)))
        .collect::<io::Result<_>>()?;
    sys::close_on_exec_from(3)?;
    moved.into_iter().try_for_each(|(source, target)| sys::dup_to(source, target))
}

struct Strings {
    paths: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Strings {
    fn of(program: &Program<'_>) -> Result<Self, SpawnError> {
        let text = |value: &OsStr| {
            CString::new(value.as_bytes())
                .map_err(|_: NulError| SpawnError::Nul(value.to_string_lossy().into_owned()))
        };
        let path = program.path.as_os_str();
        let search = program.environment.iter().find(|(name, _)| *name == "PATH").map(|(_, value)| *value);
        let paths: Vec<PathBuf> = if path.as_bytes().contains(&b'/') {
            vec![program.path.to_owned()]
        } else {
            search.unwrap_or("/usr/bin:/bin").split(':').map(|dir| Path::new(dir).join(path)).collect()
        };
        let arguments = std::iter::once(path).chain(program.arguments.iter().copied());
        Ok(Self {
            paths: paths.iter().map(|path| text(path.as_os_str())).collect::<Result<_, _>>()?,
            arguments: arguments.map(text).collect::<Result<_, _>>()?,
            environment: program
                .environment
                .iter()
                .map(|(name, value)| text(OsStr::new(&format!("{name}={value}"))))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The pipe of the child's report: `-` and what it goes without, or `!` and why it ends, each a line.
struct Report {
    pipe: File,
}

impl Report {
    /// At a number that no descriptor of the program's is put on.
    fn out_of_the_way(pipe: OwnedFd) -> Self {
        let moved = sys::dup_above(pipe.as_raw_fd(), SCRATCH_FD_MIN).map_or(pipe, |fd| {
            // SAFETY: `dup_above` has just made it, and nobody else owns it.
            unsafe { OwnedFd::from_raw_fd(fd) }
        });
        Self { pipe: File::from(moved) }
    }

    fn missing(&self, missing: &[String]) {
        for one in missing {
            let _ = (&self.pipe).write_all(format!("-{}\n", one.replace('\n', " ")).as_bytes());
        }
    }

    fn fail(&self, error: &str) -> ! {
        let _ = (&self.pipe).write_all(format!("!{}\n", error.replace('\n', " ")).as_bytes());
        sys::exit_now(127);
    }

    /// Reads until exec or the child's end.
    fn read(pipe: OwnedFd) -> Result<Vec<String>, SpawnError> {
        let mut text = String::new();
        File::from(pipe).take(REPORT_BYTES_MAX).read_to_string(&mut text).map_err(at("read a report"))?;
        if let Some(error) = text.lines().find_map(|line| line.strip_prefix('!')) {
            return Err(SpawnError::Child(error.to_owned()));
        }
        Ok(text.lines().filter_map(|line| line.strip_prefix('-')).map(str::to_owned).collect())
    }
}
