//! What a replica of a [`Double`](crate::double::Double) can be told to do.

use std::sync::Arc;

use millgate_contract::frame::{Outcome, RefusalReason};
use tokio::sync::Notify;

/// What a replica does with a call.
#[derive(Clone)]
pub(crate) enum Act {
    /// Answers with the request itself.
    Echo,
    /// Answers so.
    End(Outcome, &'static str),
    /// Echoes, and says that it has run for so many microseconds.
    Took(u32),
    /// Answers as a function that collects metrics.
    Predict { value: &'static str, metrics: &'static str },
    /// Accepts, and echoes once it is let go.
    Hold(Arc<Notify>),
    /// Ends the connection, the call unread by anybody.
    DropUnaccepted,
    /// Ends the connection after `Accepted`.
    DropAccepted,
    /// Accepts, and ends the connection once it is let go.
    DropLater(Arc<Notify>),
    /// Reads the call and never says anything.
    Silent,
    /// Accepts and never says anything more.
    SilentAccepted,
    /// Refuses; a busy one says at once that it is this gateway's turn.
    Refuse(RefusalReason),
    /// Refuses because it is busy, and says that it is this gateway's turn once it is let go.
    RefuseUntil(Arc<Notify>),
    /// Refuses because it is busy, and never says that it is this gateway's turn.
    RefuseForGood,
    /// Refuses because it is busy, and ends the connection.
    RefuseAndEnd,
    /// Refuses because it is busy, and its process is said to be dead; its socket stays open.
    RefuseAndDie,
    /// Accepts, and then refuses what it has accepted.
    RefuseAccepted,
    /// Refuses a call of another number.
    RefuseOther,
    /// Reads the call and says nothing; accepts and echoes once it is let go.
    Late(Arc<Notify>),
    /// Accepts, and its process is said to be dead before anybody reads it.
    AcceptAndDie,
    /// Echoes with the word that others wait, and says that it is this gateway's turn once it is let go.
    EchoQueued(Arc<Notify>),
    /// Says that it is this gateway's turn before it accepts, and again after its answer.
    EchoAmongGrants,
    /// `Done` for a call of another number.
    WrongId,
    /// `Done` without `Accepted`.
    Unaccepted,
    /// A header that promises more than may be.
    TooLarge,
    /// Echoes and says it takes no other call.
    Leave,
    /// Echoes twice.
    Twice,
    /// Its process is said to be dead while the call is unaccepted.
    DieUnaccepted,
    /// Writes `Accepted` and `Done`, and its process is said to be dead before anybody reads it.
    AnswerAndDie,
}
