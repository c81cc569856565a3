//! Why an operation was not done, free of transport. Made HTTP in one place, `http::answer`.
//! Texts of every variant but `Internal` are for the caller; an internal fault's cause goes to the log only.

use crate::outage::Outage;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A field has a value it cannot have; the text says field, value and rule.
    #[error("{0}")]
    Invalid(String),
    /// There is no such object, or the caller may not know of it.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// The caller sees the object and may not do this to it.
    #[error("{0}")]
    Denied(String),
    /// No key, or not a good one.
    #[error("{0}")]
    Unauthenticated(String),
    /// Not in the state the object is in.
    #[error("{0}")]
    Precondition(String),
    /// Over a limit that may be free again later.
    #[error("{0}")]
    Exhausted(String),
    /// Larger than is taken.
    #[error("{0}")]
    TooLarge(String),
    /// The database or the disk does not work now.
    #[error("the store is not available: {0}")]
    Unavailable(Outage, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Our own mistake; the cause is logged.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What operations return.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// "there is no KIND `ID`".
    pub(crate) fn missing(kind: &str, id: &str) -> Self {
        Self::NotFound(format!("there is no {kind} `{id}`"))
    }

    /// An internal fault from any error.
    pub(crate) fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }
}

impl From<sqlx::Error> for Fault {
    fn from(source: sqlx::Error) -> Self {
        match Outage::of_database(&source) {
            Some(outage) => Self::Unavailable(outage, Box::new(source)),
            None if is_no_text(&source) => Self::Invalid("a text holds the character NUL".to_owned()),
            None => Self::internal(source),
        }
    }
}

/// PostgreSQL cannot even look for a text with a NUL in it (`character_not_in_repertoire`).
fn is_no_text(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "22021")
}

impl From<std::io::Error> for Fault {
    fn from(source: std::io::Error) -> Self {
        Self::Unavailable(Outage::of_file(&source), Box::new(source))
    }
}
