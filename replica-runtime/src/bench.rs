//! A call as the replica's main thread runs it, without its frames, for the measurements in `bench/`. Not an interface:
//! it changes with what it shows.

use std::path::Path;

use bytes::Bytes;
use millgate_contract::{frame::Outcome, nursery::Failure, spec::FunctionSpec};
use pyo3::prelude::*;

use crate::{call::Runner, desk::Ended, program::Program};

/// A function file, imported.
pub struct Imported(Program);

impl Imported {
    /// Imports `file` below `root`. The working directory of this process changes to `root`.
    pub fn load(py: Python<'_>, root: &Path, file: &Path, function: &str) -> Result<Self, Failure> {
        let spec = FunctionSpec {
            runtime: std::path::PathBuf::new(),
            python: std::path::PathBuf::new(),
            root: root.to_owned(),
            file: file.to_owned(),
            function: function.to_owned(),
            python_path: Vec::new(),
        };
        Program::load(py, &spec).map(Self)
    }

    /// What one call after another answers; none where the function raised.
    pub fn runner<'a>(&'a self, py: Python<'a>) -> impl FnMut(&[u8]) -> Option<Bytes> + 'a {
        let mut runner = Runner::new(py, &self.0, false);
        move |request| {
            let answer = runner.run(request, || Ended { is_cancelled: false, is_draining: false });
            (answer.outcome == Outcome::Ok).then_some(answer.value)
        }
    }
}
