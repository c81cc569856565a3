//! `millgate-replica info`: which Python this program was built for, so that a server makes its environments from that
//! one without being told, and which library it embeds, so that no other installation of that version is given to it.

use std::{
    ffi::{CStr, OsStr},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
};

use pyo3::ffi;
use serde::Serialize;

/// What is printed, as JSON.
#[derive(Serialize)]
struct Info<'a> {
    /// The interpreter.
    executable: Option<&'a str>,
    /// Its version, `3.11.7`.
    python: &'a str,
    /// The `libpython` that is loaded, links followed; this program where it is part of it.
    libpython: Option<PathBuf>,
}

/// Prints it.
pub fn print() {
    // SAFETY: documented as callable before the interpreter starts; the text is static.
    let version = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) };
    let version = version.to_str().unwrap_or_default();
    let info = Info {
        executable: option_env!("MILLGATE_PYTHON_EXECUTABLE"),
        python: version.split(' ').next().unwrap_or_default(),
        libpython: libpython(),
    };
    println!("{}", serde_json::to_string(&info).expect("texts are JSON"));
}

/// The file that a function of Python's is in.
fn libpython() -> Option<PathBuf> {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: any address may be asked about; `found` outlives the call.
    let is_found = unsafe { libc::dladdr(ffi::Py_GetVersion as *const libc::c_void, &raw mut found) } != 0;
    if !is_found || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the name is the loader's, NUL-terminated, and stays while the library is loaded, which is for ever.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    std::fs::canonicalize(OsStr::from_bytes(name.to_bytes())).ok()
}
