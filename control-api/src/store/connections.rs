//! How each database is connected to: what every connection is told first, how many there are, and who may write.
//!
//! One connection writes. On PostgreSQL it holds an advisory lock of its schema for as long as it lives, so that two
//! control APIs never write to one database: whoever has lost the connection has lost the right with it, and takes it
//! again by connecting anew, if nobody else has. Through a pooler that gives each transaction another connection this
//! cannot work.

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    AnyConnection, AnyPool, Connection,
    any::{AnyConnectOptions, AnyPoolOptions},
};

use crate::{data_dir::OpenError, database::Database};

/// Connections that read.
const READERS: u32 = 4;
/// How long a read waits for a connection: to a server that is gone it is tried again and again in this time.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How long a write waits for those before it.
const WRITE_WAIT: Duration = Duration::from_secs(10);
/// How long SQLite waits for a file that another process has locked.
const BUSY_WAIT: &str = "PRAGMA busy_timeout = 10000";
/// How long the lock may still be another's: of a server that was killed, and that PostgreSQL has not noticed yet.
const CLAIM_WAIT: Duration = Duration::from_secs(5);
const CLAIM_PAUSE: Duration = Duration::from_millis(50);
/// Takes the lock of the schema that this connection works in; true when it has it.
const CLAIM: &str = "SELECT pg_try_advisory_lock(1835885665, hashtext(current_schema()))";

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pub(super) read: AnyPool,
    pub(super) write: AnyPool,
    /// How often the writing connection was used.
    pub(super) writes: Arc<AtomicU64>,
    /// Begins a write transaction.
    pub(super) begin: &'static str,
}

/// Another control API writes to this database.
#[derive(Debug, thiserror::Error)]
#[error("another control API writes to this database")]
struct Claimed;

impl Connections {
    /// Connects to write; reading comes after the schema.
    pub(super) async fn open(database: &Database) -> Result<Self, OpenError> {
        let writes = Arc::<AtomicU64>::default();
        let counted = |pool: AnyPoolOptions| {
            let writes = Arc::clone(&writes);
            pool.after_release(move |_, _| {
                writes.fetch_add(1, Ordering::Release);
                Box::pin(async { Ok(true) })
            })
        };
        // Installed once per process; a second call is a no-op.
        sqlx::any::install_default_drivers();
        let failed = |source| OpenError::Store { database: database.to_string(), source };
        match database {
            Database::Sqlite(path) => {
                let options: AnyConnectOptions = sqlite_url(path).parse().map_err(failed)?;
                // All of them at once: on a full disk none could be opened.
                let pool = |count| pool(count, WRITE_WAIT, prepare_sqlite).min_connections(count);
                let write = counted(pool(1)).connect_with(options.clone()).await.map_err(failed)?;
                let read = pool(READERS).connect_with(options).await.map_err(failed)?;
                Ok(Self { read, write, writes, begin: "BEGIN IMMEDIATE" })
            }
            Database::Postgres(url) => {
                // Alone, since a pool does not say what its connections fail for.
                wait_for_claim(url.connect(), database).await?;
                let write = counted(pool(1, WRITE_WAIT, prepare_writer)).connect_with(url.connect());
                let write = write.await.map_err(failed)?;
                let read = pool(READERS, READ_WAIT, prepare_reader).connect_lazy_with(url.connect());
                Ok(Self { read, write, writes, begin: "BEGIN" })
            }
        }
    }

    /// Lets go of the database.
    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// One connection that reads, beside a server that may run.
pub(super) async fn reader(database: &Database) -> sqlx::Result<AnyConnection> {
    sqlx::any::install_default_drivers();
    let (options, prepare): (AnyConnectOptions, Prepare) = match database {
        Database::Sqlite(path) => (sqlite_url(path).parse()?, prepare_sqlite),
        Database::Postgres(url) => (url.connect(), prepare_reader),
    };
    let mut connection = AnyConnection::connect_with(&options).await?;
    prepare(&mut connection).await?;
    Ok(connection)
}

/// Waits a moment for a server that starts, and for a lock that is another's.
async fn wait_for_claim(options: AnyConnectOptions, database: &Database) -> Result<(), OpenError> {
    let failed = |source| OpenError::Store { database: database.to_string(), source };
    let end = Instant::now() + CLAIM_WAIT;
    loop {
        match claim_once(&options).await {
            Ok(()) => return Ok(()),
            Err(sqlx::Error::Configuration(cause)) if cause.is::<Claimed>() => {
                if Instant::now() >= end {
                    return Err(OpenError::Claimed(database.to_string()));
                }
            }
            Err(source) if is_starting(&source) && Instant::now() < end => {}
            Err(source) => return Err(failed(source)),
        }
        tokio::time::sleep(CLAIM_PAUSE).await;
    }
}

async fn claim_once(options: &AnyConnectOptions) -> sqlx::Result<()> {
    let mut connection = AnyConnection::connect_with(options).await?;
    let claimed = claim(&mut connection).await;
    connection.close().await?;
    claimed
}

/// `cannot_connect_now`.
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}

type Prepared<'c> = Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send + 'c>>;
type Prepare = for<'c> fn(&'c mut AnyConnection) -> Prepared<'c>;

fn pool(connections: u32, wait: Duration, prepare: Prepare) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(move |connection, _| prepare(connection))
}

fn prepare_sqlite(connection: &mut AnyConnection) -> Prepared<'_> {
    Box::pin(async move {
        for pragma in
            [BUSY_WAIT, "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"]
        {
            sqlx::query(pragma).execute(&mut *connection).await?;
        }
        Ok(())
    })
}

fn prepare_reader(connection: &mut AnyConnection) -> Prepared<'_> {
    Box::pin(async move {
        sqlx::query("SET application_name = 'millgate'").execute(connection).await?;
        Ok(())
    })
}

fn prepare_writer(connection: &mut AnyConnection) -> Prepared<'_> {
    Box::pin(async move {
        prepare_reader(connection).await?;
        claim(connection).await
    })
}

async fn claim(connection: &mut AnyConnection) -> sqlx::Result<()> {
    let has_it: bool = sqlx::query_scalar(CLAIM).fetch_one(connection).await?;
    if has_it { Ok(()) } else { Err(sqlx::Error::Configuration(Box::new(Claimed))) }
}

fn sqlite_url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'~' => url.push(char::from(*byte)),
            b if b.is_ascii_alphanumeric() => url.push(char::from(*b)),
            b => {
                use std::fmt::Write;
                let _ = write!(url, "%{b:02X}");
            }
        }
    }
    url + "?mode=rwc"
}
