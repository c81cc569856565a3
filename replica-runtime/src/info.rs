//! `millgate-replica info`: which Python this program was built for, so that a server makes its environments from that
//! one without being told.

use std::ffi::CStr;

use pyo3::ffi;
use serde::Serialize;

/// What is printed, as JSON.
#[derive(Serialize)]
struct Info<'a> {
    /// The interpreter.
    executable: Option<&'a str>,
    /// Its version, `3.11.7`.
    python: &'a str,
}

/// Prints it.
pub fn print() {
    // SAFETY: documented as callable before the interpreter starts; the text is static.
    let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
    let version = version.to_str().unwrap_or_default();
    let info = Info {
        executable: option_env!("MILLGATE_PYTHON_EXECUTABLE"),
        python: version.split(' ').next().unwrap_or_default(),
    };
    println!("{}", serde_json::to_string(&info).expect("two texts are JSON"));
}
