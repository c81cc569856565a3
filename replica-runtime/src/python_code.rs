//! The Python sources compiled into the program.

use std::ffi::CStr;

/// `bootstrap.py`.
pub(crate) const BOOTSTRAP: &CStr = c_text(concat!(include_str!("bootstrap.py"), "\0"));
/// `json/simplify.py`.
pub(crate) const SIMPLIFY: &CStr = c_text(concat!(include_str!("json/simplify.py"), "\0"));

const fn c_text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a Python source holds no NUL"),
    }
}
