//! Why a database or a disk does not do what it should, told from mistakes of ours by type. An outage is over when its
//! cause is, and nothing has to be started again: connections are made anew by whoever asks next.

use sqlx::{postgres::PgDatabaseError, sqlite::SqliteError};

/// Why a database or a disk does not work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Outage {
    /// Of the database or of the data directory.
    #[error(
        "no space is left on the disk; free some, nothing has to be started again and calls go on meanwhile"
    )]
    DiskFull,
    /// It cannot be read, or written.
    #[error("the disk cannot be read or written; the log says why, calls go on meanwhile")]
    Disk,
    /// No connection.
    #[error("the database cannot be reached; each request tries anew, calls go on meanwhile")]
    Lost,
    /// Somebody else has what is asked for.
    #[error("the database is busy; try again")]
    Busy,
}

impl Outage {
    /// What an error of the database is; none is a mistake of ours.
    pub(crate) fn of_database(error: &sqlx::Error) -> Option<Self> {
        match error {
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => Some(Self::DiskFull),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Some(Self::Lost),
            sqlx::Error::Database(error) => {
                if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                    Self::of_postgres(error.code())
                } else if let Some(error) = error.try_downcast_ref::<SqliteError>() {
                    sqlx::error::DatabaseError::code(error)
                        .and_then(|code| Self::of_sqlite(code.parse().ok()?))
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    /// True when it may be over without anybody changing a setting: a wrong password or a wrong name stays wrong.
    pub(crate) fn passes_by_itself(error: &sqlx::Error) -> bool {
        let is_wrong = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .is_some_and(|code| code.starts_with("28") || code.starts_with("3D"));
        !is_wrong && Self::of_database(error).is_some()
    }

    /// What an error of the file system is.
    pub(crate) fn of_file(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk,
        }
    }

    /// By class of SQLSTATE (PostgreSQL, Appendix A).
    fn of_postgres(state: &str) -> Option<Self> {
        match state {
            "53100" => Some(Self::DiskFull),
            "58030" => Some(Self::Disk),
            // No more connections; serialization, deadlock; a lock that did not come in time.
            "40001" | "40P01" | "55P03" => Some(Self::Busy),
            _ if state.starts_with("53") => Some(Self::Busy),
            // Connections, passwords, no such database, read-only (a standby), ended by an administrator or a crash.
            "25006" | "3D000" => Some(Self::Lost),
            _ if ["08", "28", "57", "58"].iter().any(|class| state.starts_with(class)) => Some(Self::Lost),
            _ => None,
        }
    }

    /// By primary result code, the lowest byte (sqlite.org/rescode.html).
    fn of_sqlite(extended: u32) -> Option<Self> {
        match extended & 0xff {
            5 | 6 => Some(Self::Busy),
            13 => Some(Self::DiskFull),
            // Read-only, I/O, damaged, cannot open, no database.
            8 | 10 | 11 | 14 | 26 => Some(Self::Disk),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_databases_are_told_apart() {
        assert_eq!(Outage::of_sqlite(13), Some(Outage::DiskFull));
        assert_eq!(Outage::of_sqlite(4618), Some(Outage::Disk), "SQLITE_IOERR_SHMOPEN");
        assert_eq!(Outage::of_sqlite(2067), None, "SQLITE_CONSTRAINT_UNIQUE");
        assert_eq!(Outage::of_postgres("53100"), Some(Outage::DiskFull));
        assert_eq!(Outage::of_postgres("57P01"), Some(Outage::Lost));
        assert_eq!(Outage::of_postgres("53300"), Some(Outage::Busy));
        assert_eq!(Outage::of_postgres("23505"), None, "unique_violation");
    }
}
