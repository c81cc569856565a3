//! Which database holds the desired state. A URL is checked when it is read; its password is in no log and no `Debug`.

use std::{fmt, path::PathBuf, str::FromStr};

use sqlx::{any::AnyConnectOptions, postgres::PgConnectOptions};

/// Where the desired state is kept.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// A file of this host, which only this server has.
    Sqlite(PathBuf),
    /// A server.
    Postgres(DatabaseUrl),
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => write!(f, "{url}"),
        }
    }
}

/// `postgres://user:password@host:port/database?sslmode=verify-full`. Shown without password and parameters.
#[derive(Clone)]
pub struct DatabaseUrl {
    connect: AnyConnectOptions,
    shown: String,
}

/// Why a text is no such URL. Does not hold the text, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Of another database.
    #[error(
        "it begins with `{0}:`; hint: give a PostgreSQL URL, as in `postgres://millgate@db.example.org/millgate`"
    )]
    Scheme(String),
    /// Not to be read.
    #[error("{0}; hint: give it as in `postgres://millgate@db.example.org/millgate`")]
    Form(#[source] sqlx::Error),
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        let scheme = text.split(':').next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            let scheme = scheme.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
            return Err(DatabaseUrlError::Scheme(scheme));
        }
        let connect = AnyConnectOptions::from_str(text).map_err(DatabaseUrlError::Form)?;
        let read = PgConnectOptions::from_str(text).map_err(DatabaseUrlError::Form)?;
        let (user, port) = (read.get_username(), read.get_port());
        let host = read.get_socket().map_or(read.get_host().into(), |socket| socket.to_string_lossy());
        let database = read.get_database().unwrap_or(user);
        Ok(Self { shown: format!("postgres://{user}@{host}:{port}/{database}"), connect })
    }
}

impl DatabaseUrl {
    pub(crate) fn connect(&self) -> AnyConnectOptions {
        self.connect.clone()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let url = "postgres://millgate:hunter2@db.example.org:5433/state?sslmode=require&password=hunter2";
        let url: DatabaseUrl = url.parse().unwrap();
        assert_eq!(url.to_string(), "postgres://millgate@db.example.org:5433/state");
        assert!(!format!("{url:?}").contains("hunter2"));
        let url: DatabaseUrl = "postgres://millgate@localhost/state?host=/run/postgresql".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://millgate@/run/postgresql:5432/state");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for bad in [
            "mysql://u:hunter2@h/d",
            "hunter2",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/d?sslmode=x",
        ] {
            let error = bad.parse::<DatabaseUrl>().unwrap_err();
            assert!(error.to_string().contains("hint: give"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2") || bad == "hunter2", "{error:?}");
        }
    }
}
