//! The whole database as lines of JSON, and back: one form for SQLite and PostgreSQL, so that what was written from one
//! can be read into the other. First a line that says what it is, then for each table its name and columns and a line for
//! each row, last the count of rows and the SHA-256 of all before. A file that is cut off, or changed, is refused whole.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use futures_util::TryStreamExt;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Column, Connection, Row, any::AnyRow};

use super::{connections::Connections, schema};
use crate::{data_dir::OpenError, database::Database, moment::now_us, names::hex};

/// The form of the file.
const FORM: u32 = 1;
/// Rows of one statement.
const ROWS_PER_STATEMENT: usize = 100;

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory or the database does not open.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The database fails.
    #[error("the database fails: {0}")]
    Store(#[from] sqlx::Error),
    /// A file fails.
    #[error("`{path}`: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// Not what this program wrote, or not all of it.
    #[error("line {line} of the backup: {reason}; hint: nothing was restored, use another backup")]
    Damaged {
        /// Of the file, from 1.
        line: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Of a newer program.
    #[error("the backup has schema {found}, this program knows {known}; hint: use the program that wrote it")]
    Newer {
        /// What the backup has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// There is something already.
    #[error("`{0}` is not empty; hint: restore into a new data directory, a new database or a new schema")]
    NotEmpty(String),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    millgate_backup: u32,
    schema: i64,
    made_us: i64,
    /// Key files in base64, by name; none unless they were asked for.
    #[serde(default)]
    pub(crate) keys: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Table {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct End {
    rows: u64,
    sha256: String,
}

/// Writes the database as it is at one moment into a new file; how many rows. Who writes meanwhile is not held up.
pub(crate) async fn write(
    database: &Database,
    keys: Option<BTreeMap<String, String>>,
    path: &Path,
) -> Result<u64, BackupError> {
    let mut connection = super::connections::reader(database).await?;
    let mut tx = connection.begin_with(one_moment(database)).await?;
    let schema = schema::version(&mut tx).await?;
    let partial = path.with_extension("partial");
    let mut out = Output::create(&partial)?;
    out.line(&Head { millgate_backup: FORM, schema, made_us: now_us(), keys })?;
    for table in schema::tables(&mut tx, database).await? {
        let mut rows = sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}"))).fetch(&mut *tx);
        let mut is_first = true;
        while let Some(row) = rows.try_next().await? {
            if std::mem::take(&mut is_first) {
                let columns = row.columns().iter().map(|column| column.name().to_owned()).collect();
                out.line(&Table { table: table.clone(), columns })?;
            }
            out.line(&values(&row)?)?;
            out.rows += 1;
        }
    }
    tx.rollback().await?;
    connection.close().await?;
    let rows = out.finish()?;
    fs::rename(&partial, path).map_err(|source| BackupError::File { path: path.to_owned(), source })?;
    Ok(rows)
}

/// Fills a database that has nothing in it yet, all or nothing; how many rows.
pub(super) async fn read(
    connections: &Connections,
    database: &Database,
    mut input: Input,
) -> Result<u64, BackupError> {
    let mut tx = connections.write.begin_with(connections.begin).await?;
    if !schema::tables(&mut tx, database).await?.is_empty() {
        return Err(BackupError::NotEmpty(database.to_string()));
    }
    schema::apply(&mut tx, database, 0, input.head.schema).await?;
    // What migrations begin with is in the backup as it has become.
    for table in schema::tables(&mut tx, database).await?.iter().rev() {
        sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *tx).await?;
    }
    let known = schema::tables(&mut tx, database).await?;
    let mut into: Option<Table> = None;
    let mut waiting: Vec<Vec<Value>> = Vec::new();
    let mut rows = 0;
    loop {
        match input.line()? {
            Line::Row(row) => {
                rows += 1;
                waiting.push(row);
                if waiting.len() == ROWS_PER_STATEMENT {
                    insert(&mut tx, into.as_ref(), &mut waiting, input.number).await?;
                }
            }
            Line::Table(table)
                if known.contains(&table.table) && table.columns.iter().all(|c| is_name(c)) =>
            {
                insert(&mut tx, into.as_ref(), &mut waiting, input.number).await?;
                into = Some(table);
            }
            Line::Table(table) => return Err(input.damaged(format!("there is no table `{}`", table.table))),
            Line::End(end) if end.rows == rows => {
                insert(&mut tx, into.as_ref(), &mut waiting, input.number).await?;
                break;
            }
            Line::End(end) => return Err(input.damaged(format!("{rows} rows where {} were", end.rows))),
        }
    }
    schema::apply(&mut tx, database, input.head.schema, schema::newest()).await?;
    tx.commit().await?;
    Ok(rows)
}

/// How a transaction begins that only reads, and sees one moment.
fn one_moment(database: &Database) -> &'static str {
    match database {
        Database::Sqlite(_) => "BEGIN",
        Database::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    }
}

/// All columns are texts or whole numbers, none is NULL.
fn values(row: &AnyRow) -> Result<Vec<Value>, sqlx::Error> {
    let value = |at| match row.try_get::<i64, _>(at) {
        Ok(number) => Ok(Value::from(number)),
        Err(_) => row.try_get::<String, _>(at).map(Value::from),
    };
    (0..row.len()).map(value).collect()
}

async fn insert(
    connection: &mut AnyConnection,
    table: Option<&Table>,
    rows: &mut Vec<Vec<Value>>,
    line: u64,
) -> Result<(), BackupError> {
    if rows.is_empty() {
        return Ok(());
    }
    let damaged = |reason: &str| BackupError::Damaged { line, reason: reason.to_owned() };
    let Table { table, columns } = table.ok_or_else(|| damaged("a row of no table"))?;
    if rows.iter().any(|row| row.len() != columns.len()) {
        return Err(damaged("a row has not as many values as its table has columns"));
    }
    let width = columns.len();
    let places: Vec<String> = (0..rows.len())
        .map(|row| {
            let places: Vec<String> =
                (1..=width).map(|column| format!("${}", row * width + column)).collect();
            format!("({})", places.join(", "))
        })
        .collect();
    // Names were compared with those of the schema, or are made of letters and `_`.
    let sql = format!("INSERT INTO {table} ({}) VALUES {}", columns.join(", "), places.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for value in rows.drain(..).flatten() {
        query = match value {
            Value::String(text) => query.bind(text),
            other => query.bind(other.as_i64().ok_or_else(|| damaged("a value is no text and no number"))?),
        };
    }
    query.execute(connection).await?;
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A backup that is being written.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    digest: Context,
    rows: u64,
}

impl Output {
    fn create(path: &Path) -> Result<Self, BackupError> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
        let file = file.map_err(|source| BackupError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), digest: Context::new(&SHA256), rows: 0 })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), BackupError> {
        let mut line = serde_json::to_vec(value).expect("it is made of texts and numbers");
        line.push(b'\n');
        self.digest.update(&line);
        self.file.write_all(&line).map_err(|source| BackupError::File { path: self.path.clone(), source })
    }

    fn finish(mut self) -> Result<u64, BackupError> {
        let end = End { rows: self.rows, sha256: hex(self.digest.clone().finish().as_ref()) };
        self.line(&end)?;
        let failed = |source| BackupError::File { path: self.path.clone(), source };
        let file = self.file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        Ok(self.rows)
    }
}

/// A backup that is being read.
pub(crate) struct Input {
    path: PathBuf,
    file: BufReader<File>,
    digest: Context,
    number: u64,
    pub(crate) head: Head,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Row(Vec<Value>),
    Table(Table),
    End(End),
}

impl Input {
    /// Opens one and reads what it says of itself.
    pub(crate) fn open(path: &Path) -> Result<Self, BackupError> {
        let failed = |source| BackupError::File { path: path.to_owned(), source };
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let head = Head { millgate_backup: 0, schema: 0, made_us: 0, keys: None };
        let mut input = Self { path: path.to_owned(), file, digest: Context::new(&SHA256), number: 0, head };
        let line = input.bytes()?;
        input.digest.update(&line);
        input.head = serde_json::from_slice(&line).map_err(|e| input.damaged(e.to_string()))?;
        if input.head.millgate_backup != FORM {
            return Err(input.damaged(format!("its form is {}, not {FORM}", input.head.millgate_backup)));
        }
        let (found, known) = (input.head.schema, schema::newest());
        if found > known {
            return Err(BackupError::Newer { found, known });
        }
        Ok(input)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BackupError> {
        let mut line = Vec::new();
        let read = self.file.read_until(b'\n', &mut line);
        read.map_err(|source| BackupError::File { path: self.path.clone(), source })?;
        self.number += 1;
        if line.last() == Some(&b'\n') { Ok(line) } else { Err(self.damaged("it ends too early".to_owned())) }
    }

    fn line(&mut self) -> Result<Line, BackupError> {
        let bytes = self.bytes()?;
        let line = serde_json::from_slice(&bytes).map_err(|e| self.damaged(e.to_string()))?;
        if let Line::End(End { sha256, .. }) = &line {
            if *sha256 != hex(self.digest.clone().finish().as_ref()) {
                return Err(self.damaged("it has been changed: its SHA-256 is another".to_owned()));
            }
        } else {
            self.digest.update(&bytes);
        }
        Ok(line)
    }

    fn damaged(&self, reason: String) -> BackupError {
        BackupError::Damaged { line: self.number, reason }
    }
}
