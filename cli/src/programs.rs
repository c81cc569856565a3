//! Where the programs are that the server starts: itself, the runtime that embeds Python, and the interpreter that
//! environments are made from.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde::Deserialize;

use crate::{
    env_vars,
    failure::{Context, Failure},
};

/// The programs, each looked at and found.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) millgate: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) python: PathBuf,
    /// The runtime's version, `3.11`.
    python_minor: String,
}

/// What `millgate-replica info` prints.
#[derive(Debug, Deserialize)]
struct RuntimeInfo {
    /// The interpreter it was built for.
    executable: PathBuf,
    /// Its version, `3.11.7`.
    python: String,
}

impl RuntimeInfo {
    /// Asks a runtime.
    fn of(runtime: &Path) -> Result<Self, Failure> {
        let hint = format!("build it with `cargo build --bins`, or name it in `{}`", env_vars::RUNTIME);
        let output = Command::new(runtime).arg("info").output().map_err(|cause| {
            Failure::new(format!("cannot run `{}`: {cause}", runtime.display())).hint(&hint)
        })?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            Failure::new(format!("`{} info` does not answer: {}", runtime.display(), said.trim())).hint(&hint)
        })
    }

    /// `3.11`.
    fn minor(&self) -> &str {
        self.python.rsplit_once('.').map_or(&self.python, |(minor, _)| minor)
    }
}

/// Prints where the interpreter really is (a shim on the PATH is not it) and its version.
const WHO: &str = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2], sep='\\n')";

impl Programs {
    /// Finds them, or says which is missing.
    pub(crate) fn find() -> Result<Self, Failure> {
        let millgate = std::env::current_exe().context("cannot find this program's own file")?;
        let runtime = match std::env::var_os(env_vars::RUNTIME) {
            Some(path) => PathBuf::from(path),
            None => millgate.with_file_name("millgate-replica"),
        };
        let info = RuntimeInfo::of(&runtime)?;
        let python_minor = info.minor().to_owned();
        let python = std::env::var_os(env_vars::PYTHON).map_or(info.executable, PathBuf::from);
        Ok(Self { millgate, runtime, python, python_minor })
    }

    /// With the `python3` of the shell, an active virtual environment's for instance, when the runtime can run it.
    pub(crate) fn with_python_of_the_shell(self) -> Result<Self, Failure> {
        if std::env::var_os(env_vars::PYTHON).is_some() {
            return Ok(self);
        }
        let Ok(output) = Command::new("python3").args(["-c", WHO]).output() else { return Ok(self) };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some(python), Some(minor)) if minor == self.python_minor => {
                Ok(Self { python: PathBuf::from(python), ..self })
            }
            (Some(python), Some(minor)) if std::env::var_os("VIRTUAL_ENV").is_some() => {
                let runtime = self.runtime.with_file_name(format!("millgate-replica-{minor}"));
                if runtime.exists() && RuntimeInfo::of(&runtime)?.minor() == minor {
                    let (python, python_minor) = (PathBuf::from(python), minor.to_owned());
                    return Ok(Self { runtime, python, python_minor, ..self });
                }
                Err(Failure::new(format!(
                    "the active environment has Python {minor} (`{python}`), this millgate was built for {}",
                    self.python_minor
                ))
                .hint(format!(
                    "make the environment with that version, or build the runtime `{}` by `make runtimes`",
                    runtime.display()
                )))
            }
            _ => Ok(self),
        }
    }
}
