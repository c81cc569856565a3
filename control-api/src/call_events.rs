//! Events of calls, as whoever put this control API together can find them: gateways keep them, and the control API asks
//! no gateway anything.

use std::io;

use millgate_contract::ids::ModelId;

/// Where events of calls are found.
pub trait CallEvents: std::fmt::Debug + Send + Sync {
    /// The events of one model's calls that these parameters (`code`, `since`, `limit`) let pass, each a JSON object,
    /// the newest last. Reads files: it is called on a thread that may wait.
    fn of_model(
        &self,
        model: &ModelId,
        parameters: &[(String, String)],
    ) -> Result<Vec<String>, CallEventsError>;
}

/// Why there are none to show.
#[derive(Debug, thiserror::Error)]
pub enum CallEventsError {
    /// A parameter that is none, or has a value it cannot have; the text says what would do.
    #[error("{0}")]
    Parameter(String),
    /// The files cannot be read.
    #[error("events of calls cannot be read: {0}")]
    Io(#[from] io::Error),
}
