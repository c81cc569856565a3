//! The interpreter that environments are made from: asked once, at start.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::data_dir::OpenError;

/// What the interpreter says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Python {
    /// The real program, not a shim that looks for it.
    pub(crate) executable: PathBuf,
    /// Where its standard library is.
    pub(crate) base_prefix: PathBuf,
    /// `3.11.7`.
    pub(crate) version: String,
}

impl Python {
    pub(crate) fn probe(path: &Path) -> Result<Self, OpenError> {
        const QUESTION: &str = "import os, sys, platform; print(os.path.realpath(getattr(sys, '_base_executable', '') \
             or sys.executable)); print(sys.base_prefix); print(platform.python_version())";
        let failed = |reason: String| OpenError::Python { path: path.to_owned(), reason };
        let output =
            Command::new(path).args(["-I", "-c", QUESTION]).output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let [executable, base_prefix, version] = lines[..] else {
            return Err(failed(format!("it answered {text:?}")));
        };
        if !version.starts_with("3.") {
            return Err(failed(format!("it is Python {version}; Python 3 is needed")));
        }
        Ok(Self {
            executable: executable.into(),
            base_prefix: base_prefix.into(),
            version: version.to_owned(),
        })
    }

    /// `3.11`.
    pub(crate) fn minor(&self) -> String {
        self.version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    }

    /// `Python 3.11`, as kernels are named.
    pub(crate) fn kernel(&self) -> String {
        format!("Python {}", self.minor())
    }

    /// As runtimes are named.
    pub(crate) fn runtime_identifier(&self) -> String {
        format!("millgate/ml-runtime-workbench-python{}-standard:{}", self.minor(), self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
