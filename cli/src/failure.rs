//! What a command ends with when it does not succeed: one message, a hint, an exit code.

use std::fmt::Display;

/// A command's failure, as a person reads it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// What the program ends with.
    pub(crate) code: ExitCode,
}

/// The exit codes of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// It did not work.
    Failure = 1,
    /// It was asked for in the wrong way.
    Usage = 2,
}

impl Failure {
    /// It did not work: what, with which value.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: ExitCode::Failure }
    }

    /// It was asked for in the wrong way.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Usage, ..Self::new(message) }
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Says what was being done when a lower layer failed.
pub(crate) trait Context<T> {
    /// `what: cause`.
    fn context(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|cause| Failure::new(format!("{what}: {cause}")))
    }
}
