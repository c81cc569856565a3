//! Why a value is not JSON, and where in the answer it is: `response.scores[3]`.

use std::fmt::Write as _;

use pyo3::{PyErr, Python, types::PyAnyMethods as _};

/// Bytes of the path shown; a longer one is cut.
const PATH_BYTES_MAX: usize = 300;

/// One step into a value.
#[derive(Debug)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Debug)]
pub(super) enum Problem {
    /// What the function returned: "`NaN`", "an object of type `X`".
    NotJson(String),
    /// More bytes than the limit.
    TooLarge(usize),
    /// Nested deeper than the limit, or a container that holds itself.
    TooDeep(usize),
    /// Code of the value's own raised.
    Raised(PyErr),
}

/// A value that is not JSON. Boxed, so that the walk's results stay one word.
#[derive(Debug)]
pub struct Fault(Box<(Problem, Vec<Step>)>);

impl Fault {
    pub(super) fn new(problem: Problem) -> Self {
        Self(Box::new((problem, Vec::new())))
    }

    pub(super) fn not_json(what: impl Into<String>) -> Self {
        Self::new(Problem::NotJson(what.into()))
    }

    pub(super) fn raised(error: PyErr) -> Self {
        Self::new(Problem::Raised(error))
    }

    /// Called on the way out, innermost first.
    pub(super) fn at(mut self, step: Step) -> Self {
        self.0.1.push(step);
        self
    }

    /// For the caller: what is wrong, where, and what to do.
    pub fn message(&self, py: Python<'_>, root: &str) -> String {
        let (problem, _) = &*self.0;
        match problem {
            Problem::NotJson(what) => {
                format!("the function returned {what} at `{}`, which JSON cannot hold", self.path(root))
            }
            Problem::TooLarge(limit) => {
                format!("the function returned more than {limit} bytes of JSON; return less")
            }
            Problem::TooDeep(limit) => format!(
                "the function returned a value nested deeper than {limit} levels, or one that holds itself, at `{}`",
                self.path(root)
            ),
            Problem::Raised(error) => {
                let value = error.value(py);
                let name = value.get_type();
                format!(
                    "the function returned a value at `{}` that raised while it was made JSON: {}: {value}",
                    self.path(root),
                    name.getattr("__name__").map_or_else(|_| "exception".to_owned(), |name| name.to_string())
                )
            }
        }
    }

    fn path(&self, root: &str) -> String {
        let mut path = root.to_owned();
        for step in self.0.1.iter().rev() {
            if path.len() > PATH_BYTES_MAX {
                path.push('…');
                break;
            }
            match step {
                Step::Key(key) => {
                    path.push('.');
                    path.extend(key.chars().take(64));
                }
                Step::Index(index) => {
                    write!(path, "[{index}]").expect("text can always be appended to");
                }
            }
        }
        path
    }
}
