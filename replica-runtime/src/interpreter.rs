//! Starts the embedded interpreter in the build's environment.

use std::{
    ffi::{CStr, CString, c_char},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use millgate_contract::{
    nursery::{Failure, Step},
    spec::FunctionSpec,
};
use pyo3::{Python, ffi};

use crate::memory;

/// Starts Python as `function.python` would start, and keeps this thread attached.
pub(crate) fn start(function: &FunctionSpec) -> Result<(), Failure> {
    check_version(&function.python)?;
    // SAFETY: nothing of Python runs yet in this process, and this is its main thread.
    let result = unsafe { initialize(function) };
    result.map_err(|message| Failure { step: Step::Python, message })?;
    memory::keep();
    Ok(())
}

/// SAFETY: to be called once, before anything else of Python.
unsafe fn initialize(function: &FunctionSpec) -> Result<(), String> {
    let text = |path: &Path| {
        CString::new(path.as_os_str().as_bytes())
            .map_err(|_| format!("the path {} holds a NUL", path.display()))
    };
    let (python, file) = (text(&function.python)?, text(&function.file)?);
    let mut arguments = [file.as_ptr()];
    // SAFETY: `PyConfig` is plain data for which all zeros is a value; `InitPythonConfig` then gives it its defaults,
    // before anything reads it. The pointers given live through the calls, and `PyConfig_Clear` comes last.
    unsafe {
        let mut config: ffi::PyConfig = std::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&raw mut config);
        // The whole environment is the deployment's (nothing is inherited), so PYTHON… in it is the user's wish.
        config.use_environment = 1;
        config.user_site_directory = 0;
        // A build is immutable; byte code written beside its files would change it.
        config.write_bytecode = 0;
        config.parse_argv = 0;
        // `KeyboardInterrupt` is how a call is cancelled.
        config.install_signal_handlers = 1;
        let result = set_up(&raw mut config, &python, &mut arguments);
        ffi::PyConfig_Clear(&raw mut config);
        result
    }
}

/// SAFETY: `config` is initialized, and Python is not.
unsafe fn set_up(
    config: *mut ffi::PyConfig,
    python: &CStr,
    arguments: &mut [*const c_char],
) -> Result<(), String> {
    // SAFETY: the caller's promise; all texts are NUL-terminated. The names of the program lead Python to `pyvenv.cfg`.
    unsafe {
        check(ffi::PyConfig_SetBytesString(config, &raw mut (*config).program_name, python.as_ptr()))?;
        check(ffi::PyConfig_SetBytesString(config, &raw mut (*config).executable, python.as_ptr()))?;
        check(ffi::PyConfig_SetBytesArgv(config, arguments.len().cast_signed(), arguments.as_mut_ptr()))?;
        check(ffi::Py_InitializeFromConfig(config))
    }
}

fn check(status: ffi::PyStatus) -> Result<(), String> {
    // SAFETY: a status is plain data.
    if unsafe { ffi::PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    if status.err_msg.is_null() {
        return Err("python did not start".to_owned());
    }
    // SAFETY: a failed status has a NUL-terminated static text.
    let message = unsafe { CStr::from_ptr(status.err_msg) };
    Err(format!("python did not start: {}", message.to_string_lossy()))
}

/// An environment of another minor version has packages that this interpreter cannot load; better said at once.
fn check_version(python: &Path) -> Result<(), Failure> {
    let Some(environment) = python.parent().and_then(Path::parent) else { return Ok(()) };
    let Ok(config) = std::fs::read_to_string(environment.join("pyvenv.cfg")) else { return Ok(()) };
    let Some(theirs) = environment_version(&config) else { return Ok(()) };
    let ours = (build_version().major, build_version().minor);
    if theirs == ours {
        return Ok(());
    }
    Err(Failure {
        step: Step::Python,
        message: format!(
            "the environment {} is of Python {}.{}, this runtime is of Python {}.{}; build the model anew, or set \
             PYO3_PYTHON to that Python and build the runtime anew",
            environment.display(),
            theirs.0,
            theirs.1,
            ours.0,
            ours.1
        ),
    })
}

/// `version` (venv) or `version_info` (virtualenv, uv) of a `pyvenv.cfg`.
fn environment_version(config: &str) -> Option<(u8, u8)> {
    config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if !matches!(key.trim(), "version" | "version_info") {
            return None;
        }
        let mut parts = value.trim().split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

struct Version {
    major: u8,
    minor: u8,
}

/// The Python that the program is linked to; can be asked before it is started.
fn build_version() -> Version {
    // SAFETY: `Py_GetVersion` may be called before initialization and gives static text, "3.11.7 (main, …".
    let text = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    let mut numbers = text.split(['.', ' ', '+']).map(|part| part.parse().unwrap_or(0));
    Version { major: numbers.next().unwrap_or(0), minor: numbers.next().unwrap_or(0) }
}

/// `3.11.7`.
pub(crate) fn version(py: Python<'_>) -> String {
    let info = py.version_info();
    format!("{}.{}.{}", info.major, info.minor, info.patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_environment_is_read_from_either_tools_file() {
        assert_eq!(environment_version("home = /usr/bin\nversion = 3.11.7\n"), Some((3, 11)));
        assert_eq!(environment_version("home = /usr/bin\nversion_info = 3.12.1.final.0\n"), Some((3, 12)));
        assert_eq!(environment_version("home = /usr/bin\nuv = 0.5\nversion_info = 3.9\n"), Some((3, 9)));
        assert_eq!(environment_version("version = unknown"), None);
    }

    #[test]
    fn an_environment_of_another_python_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::fs::write(folder.path().join("pyvenv.cfg"), "version = 3.1.4\n").unwrap();
        let failure = check_version(&folder.path().join("bin/python")).unwrap_err();
        assert_eq!(failure.step, Step::Python);
        assert!(failure.message.contains("Python 3.1,"), "{}", failure.message);
    }
}
