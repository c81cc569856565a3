//! Request JSON to Python objects.
//!
//! The gateway has checked that the bytes are JSON of bounded depth; what is left to find is a number that Python cannot
//! hold, and, should the two parsers ever disagree, a clear error instead of a wrong value.

use jiter::{PartialMode, PythonParse, StringCacheMode};
use pyo3::{
    prelude::*,
    types::{PyDict, PyFloat, PyList},
};

use super::reader;

/// Why the request cannot be given to the function, for the caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be given to the function: {0}")]
pub struct BadNumber(String);

/// The Python objects of `json`.
pub fn decode<'py>(py: Python<'py>, json: &[u8]) -> Result<Bound<'py, PyAny>, BadNumber> {
    reader::read(py, json).map_or_else(|| judge(py, json), Ok)
}

/// What is unusual is read once more, by the parser whose verdict counts.
fn judge<'py>(py: Python<'py>, json: &[u8]) -> Result<Bound<'py, PyAny>, BadNumber> {
    let parse = PythonParse {
        allow_inf_nan: false,
        // Keys repeat from call to call; caching values too would keep the callers' texts alive.
        cache_mode: StringCacheMode::Keys,
        partial_mode: PartialMode::Off,
        ..PythonParse::default()
    };
    let value = parse.python_parse(py, json).map_err(|error| BadNumber(error.description(json)))?;
    if may_overflow(json) && holds_infinity(&value) {
        return Err(BadNumber("it holds a number too large for a float (over 1.8e308)".to_owned()));
    }
    Ok(value)
}

/// False only if no number in `json` can be too large for a double: none has an exponent of three digits or 300 digits
/// in a row. The parser turns such a number into infinity without a word, and a look at every object costs more.
fn may_overflow(json: &[u8]) -> bool {
    const RUN: usize = 300;
    let is_digit = |index: usize| json.get(index).is_some_and(u8::is_ascii_digit);
    let long_exponent = memchr::memchr2_iter(b'e', b'E', json).any(|at| {
        at > 0 && is_digit(at - 1) && {
            let sign = usize::from(matches!(json.get(at + 1), Some(b'+' | b'-')));
            let digits = json[at + 1 + sign..].iter().take_while(|b| b.is_ascii_digit()).count();
            digits >= 3
        }
    });
    // A run of 2 × RUN / 2 digits covers one of every RUN / 2 places, so only those are looked at closely.
    long_exponent
        || (0..json.len()).step_by(RUN / 2).any(|at| {
            is_digit(at) && {
                let before = json[..at].iter().rev().take(RUN).take_while(|b| b.is_ascii_digit()).count();
                let after = json[at..].iter().take(RUN).take_while(|b| b.is_ascii_digit()).count();
                before + after >= RUN
            }
        })
}

fn holds_infinity(value: &Bound<'_, PyAny>) -> bool {
    if let Ok(float) = value.cast_exact::<PyFloat>() {
        float.value().is_infinite()
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().any(|item| holds_infinity(&item))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter().any(|(_, item)| holds_infinity(&item))
    } else {
        false
    }
}
