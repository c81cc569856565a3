//! An interpreter: what it says of itself, whether it can be embedded, and whether a program embeds it.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;

use super::Minor;
use crate::data_dir::OpenError;

/// How long a program may take to say something of itself.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What the interpreter says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    /// The real program, not a shim that looks for it.
    pub(crate) executable: PathBuf,
    /// Where its standard library is.
    pub(crate) base_prefix: PathBuf,
    /// Its `libpython`; empty where it has none of its own.
    pub(crate) library: PathBuf,
    /// `3.11.7`.
    pub(crate) version: String,
    minor: Minor,
}

/// Why an interpreter is not taken, and what to do.
#[derive(Debug)]
pub(crate) struct Refusal {
    path: PathBuf,
    reason: String,
    hint: String,
}

impl Refusal {
    pub(crate) fn new(path: &Path, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into(), hint: hint.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}\nhint: {}", self.path.display(), self.reason, self.hint)
    }
}

/// The answer to `question.py`; of a Python that is too old, its version alone.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Said {
    version: String,
    implementation: String,
    executable: PathBuf,
    base_prefix: PathBuf,
    library: PathBuf,
    is_shared: bool,
    is_free_threaded: bool,
    has_venv: bool,
}

impl Default for Said {
    /// What nothing is said of does not stand in the way.
    fn default() -> Self {
        Self {
            version: String::new(),
            implementation: "cpython".to_owned(),
            executable: PathBuf::new(),
            base_prefix: PathBuf::new(),
            library: PathBuf::new(),
            is_shared: true,
            is_free_threaded: false,
            has_venv: true,
        }
    }
}

/// What `millgate-replica info` prints, as far as it matters here.
#[derive(Debug, Deserialize)]
struct ProgramInfo {
    python: String,
    #[serde(default)]
    libpython: PathBuf,
}

const QUESTION: &str = include_str!("question.py");

impl Python {
    /// Asks the interpreter that the server is to start with.
    pub(crate) fn probe(path: &Path) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Python { path: path.to_owned(), reason };
        let output = std::process::Command::new(path)
            .args(["-I", "-c", QUESTION])
            .output()
            .map_err(|e| failed(e.to_string()))?;
        let said = read(&output).map_err(failed)?;
        let version = said.version.clone();
        let old = || failed(format!("it is Python {version}; Python 3.9 or newer is needed"));
        Self::of(said).ok_or_else(old)
    }

    /// Asks one that is to be added, and judges whether environments and replicas can be made of it.
    pub(crate) async fn look_at(path: &Path) -> Result<Self, Refusal> {
        let hint = "name an interpreter as in `/usr/bin/python3.12`";
        let refused = |reason: String| Refusal::new(path, reason, hint);
        let output = ask(path, ["-I", "-c", QUESTION]).await.map_err(refused)?;
        let said = read(&output).map_err(refused)?;
        judge(&said).map_err(|(reason, hint)| Refusal::new(path, reason, hint))?;
        let version = said.version.clone();
        Self::of(said).ok_or_else(|| refused(format!("it is Python {version}")))
    }

    fn of(said: Said) -> Option<Self> {
        let minor = said.version.parse().ok().filter(|_| said.executable.is_absolute())?;
        let Said { executable, base_prefix, library, version, .. } = said;
        Some(Self { executable, base_prefix, library, version, minor })
    }

    /// Whether this program embeds this very interpreter. Another installation of the same version will not do: its
    /// `libpython` may have other modules built in than the standard library beside this interpreter leaves out.
    pub(crate) async fn check_program(&self, program: &Path) -> Result<(), Refusal> {
        let build = format!("build it by `make runtimes PYTHONS={}`", self.executable.display());
        let refused = |reason: String| Refusal::new(&self.executable, reason, &build);
        let place = program.display();
        let missing =
            |why: String| refused(format!("there is no runtime for Python {}: `{place}`: {why}", self.minor));
        if !program.exists() {
            return Err(missing("no such file".to_owned()));
        }
        let output = ask(program, ["info"]).await.map_err(missing)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let info: ProgramInfo = serde_json::from_str(&text)
            .map_err(|_| missing(String::from_utf8_lossy(&output.stderr).trim().to_owned()))?;
        if info.python.parse() != Ok(self.minor) {
            return Err(refused(format!("the runtime `{place}` is of Python {}", info.python)));
        }
        if info.libpython != self.library {
            return Err(refused(format!(
                "the runtime `{place}` is of another installation: it uses `{}`, and not `{}`",
                info.libpython.display(),
                self.library.display()
            )));
        }
        Ok(())
    }

    /// `3.11`.
    pub(crate) fn minor(&self) -> Minor {
        self.minor
    }

    /// `Python 3.11`, as kernels are named.
    pub(crate) fn kernel(&self) -> String {
        format!("Python {}", self.minor)
    }

    /// As runtimes are named.
    pub(crate) fn runtime_identifier(&self) -> String {
        format!("millgate/ml-runtime-workbench-python{}-standard:{}", self.minor, self.version)
    }
}

/// What speaks against an interpreter, and what to do about it.
fn judge(said: &Said) -> Result<(), (String, String)> {
    let version = &said.version;
    if version.parse::<Minor>().is_err() || said.executable.as_os_str().is_empty() {
        return Err((format!("it is Python {version}"), "name one of Python 3.9 or newer".to_owned()));
    }
    if said.implementation != "cpython" {
        return Err((format!("it is {}", said.implementation), "only CPython can be embedded".to_owned()));
    }
    if said.is_free_threaded {
        let hint = "name the build of it that has a global lock";
        return Err((format!("it is a free-threaded Python {version}"), hint.to_owned()));
    }
    if !said.is_shared || said.library.as_os_str().is_empty() {
        let hint = "use one built with `--enable-shared` (pyenv: `PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install \
                    …`; Debian: the package libpython3-dev of its version)";
        return Err((format!("Python {version} there has no shared `libpython`"), hint.to_owned()));
    }
    if !said.has_venv {
        let hint = "install its modules venv and ensurepip (Debian: the package python3-venv of its version)";
        return Err((format!("Python {version} there cannot make environments"), hint.to_owned()));
    }
    Ok(())
}

fn read(output: &Output) -> Result<Said, String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("it does not run: {}", said.trim().chars().take(500).collect::<String>()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim()).map_err(|_| {
        format!("it is not a Python: it answered {:?}", text.chars().take(100).collect::<String>())
    })
}

async fn ask<const N: usize>(program: &Path, arguments: [&str; N]) -> Result<Output, String> {
    let running = tokio::process::Command::new(program)
        .args(arguments.map(OsStr::new))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(ANSWER_TIME, running).await {
        Ok(output) => output.map_err(|cause| format!("it cannot be run: {cause}")),
        Err(_) => Err(format!("it did not answer within {} s", ANSWER_TIME.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(version: &str) -> Said {
        Said {
            version: version.to_owned(),
            executable: "/opt/bin/python3".into(),
            library: "/opt/lib/libpython3.12.so.1.0".into(),
            ..Said::default()
        }
    }

    #[test]
    fn the_interpreter_names_itself() {
        let python = Python::probe(Path::new("python3")).unwrap();
        assert!(python.executable.is_absolute() && python.executable.exists());
        assert!(python.base_prefix.is_dir());
        assert!(python.kernel().starts_with("Python 3."));
    }

    #[test]
    fn one_that_does_not_run_is_named_with_a_hint() {
        let error = Python::probe(Path::new("/nowhere/python3")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/python3") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn what_cannot_be_embedded_is_refused_with_what_to_do() {
        judge(&said("3.12.1")).unwrap();
        let hint = |said: Said| {
            let (reason, hint) = judge(&said).unwrap_err();
            format!("{reason}; {hint}")
        };
        let old = Said { version: "2.7.18".into(), ..Said::default() };
        assert!(hint(old).contains("3.9 or newer"));
        let old = Said { version: "3.8.18".into(), ..Said::default() };
        assert!(hint(old).contains("3.9 or newer"));
        let is_static = Said { is_shared: false, ..said("3.12.1") };
        assert!(hint(is_static).contains("--enable-shared"));
        let lacks_library = Said { library: PathBuf::new(), ..said("3.12.1") };
        assert!(hint(lacks_library).contains("--enable-shared"));
        assert!(hint(Said { has_venv: false, ..said("3.12.1") }).contains("python3-venv"));
        assert!(hint(Said { is_free_threaded: true, ..said("3.13.0") }).contains("global lock"));
        assert!(hint(Said { implementation: "pypy".into(), ..said("3.10.1") }).contains("only CPython"));
    }
}
