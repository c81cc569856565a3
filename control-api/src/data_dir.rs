//! The data directory: made, checked and locked before anything in it is used. Refuses a directory of another
//! version, one that another server uses, and one whose path is too long for the sockets in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use millgate_contract::limits;
use nix::fcntl::{Flock, FlockArg};

use crate::{fault::Fault, outage::Outage};

/// The version this program reads and writes.
pub(crate) const DATA_VERSION: &str = "1";

/// Why a control API cannot start on its data directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder could not be made or read.
    #[error("cannot {action} `{path}`: {source}\nhint: name a folder this user may write with `--data-dir`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Written by another version of the program.
    #[error(
        "data directory `{path}` has version {found:?}, this program reads {DATA_VERSION:?}\nhint: use the \
         program that wrote it, or another `--data-dir`"
    )]
    Version {
        /// The data directory.
        path: PathBuf,
        /// What its VERSION says.
        found: String,
    },
    /// It has files and no VERSION: somebody else's folder.
    #[error(
        "`{0}` is not empty and not a data directory\nhint: name an empty or new folder with `--data-dir`"
    )]
    Foreign(PathBuf),
    /// Another server runs on it.
    #[error(
        "data directory `{0}` is used by another server\nhint: stop it first, or name another `--data-dir`"
    )]
    Locked(PathBuf),
    /// Socket paths in it would not fit.
    #[error(
        "data directory `{path}` has too long a path: a socket in it takes {bytes} bytes of at most {max}\nhint: \
         name a folder with a shorter path with `--data-dir`",
        max = limits::SOCKET_PATH_BYTES_MAX
    )]
    PathTooLong {
        /// The data directory.
        path: PathBuf,
        /// What the longest socket path would take.
        bytes: usize,
    },
    /// The database does not open.
    #[error("cannot open the database `{database}`: {source}")]
    Store {
        /// Where it is.
        database: String,
        /// How it failed.
        source: sqlx::Error,
    },
    /// Another control API writes to the database.
    #[error(
        "the database `{0}` is used by another control API\nhint: stop it first, or name another database or schema \
         with `--database-url`"
    )]
    Claimed(String),
    /// The database was written by a newer program.
    #[error(
        "the database has schema {found}, this program knows {known}\nhint: use the program that wrote it"
    )]
    Schema {
        /// What the database has.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// What the database holds cannot be kept before its schema changes.
    #[error("the database cannot be backed up before its schema changes: {0}")]
    Backup(String),
    /// A key file is damaged.
    #[error(
        "key file `{path}` cannot be used: {reason}\nhint: restore it from a backup; keys cannot be made again"
    )]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The first entries cannot be written.
    #[error("cannot prepare the data directory: {0}")]
    First(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The interpreter does not run.
    #[error(
        "cannot run Python `{path}`: {reason}\nhint: install Python 3 or name its interpreter with `--python`"
    )]
    Python {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl OpenError {
    /// True when nothing has to be changed for it to open later: its database or disk does not work now.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Store { source, .. } => Outage::passes_by_itself(source),
            Self::First(fault) => {
                matches!(fault.downcast_ref(), Some(Fault::Unavailable(..)))
            }
            _ => false,
        }
    }
}

/// A locked data directory. The lock ends with the value, or before it by [`DataDir::release`].
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    lock: Mutex<Option<Flock<File>>>,
}

impl DataDir {
    pub(crate) const DATABASE: &str = "millgate.db";
    pub(crate) const KEYS: &str = "keys";

    /// Makes or checks the directory and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        make_dir(path, 0o711)?;
        let root = path.canonicalize().map_err(|source| OpenError::Io {
            action: "resolve",
            path: path.to_owned(),
            source,
        })?;
        check_socket_paths(&root)?;
        check_version(&root)?;
        let lock_path = root.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| OpenError::Io { action: "open", path: lock_path, source })?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| OpenError::Locked(root.clone()))?;
        let version = root.join("VERSION");
        if !version.exists() {
            write_private(&version, format!("{DATA_VERSION}\n").as_bytes())
                .map_err(|source| OpenError::Io { action: "write", path: version, source })?;
        }
        set_mode(&root, 0o711)?;
        for (name, mode) in [
            ("keys", 0o700),
            ("run", 0o700),
            ("projects", 0o700),
            ("builds", 0o711),
            ("sources", 0o700),
            ("cache", 0o711),
            ("uploads", 0o700),
        ] {
            make_dir(&root.join(name), mode)?;
            set_mode(&root.join(name), mode)?;
        }
        let dir = Self { root, lock: Mutex::new(Some(lock)) };
        dir.clear_uploads();
        Ok(dir)
    }

    /// Lets another process have the directory. What is asked of this value afterwards is at most where things are.
    pub(crate) fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join(Self::KEYS)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join(Self::DATABASE)
    }

    pub(crate) fn backups(&self) -> PathBuf {
        self.root.join("backups")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Packages that builds of a project keep.
    pub(crate) fn package_cache(&self, project: &str) -> PathBuf {
        self.root.join("cache/packages").join(project)
    }

    /// Python environments that others are copied from.
    pub(crate) fn environments(&self) -> PathBuf {
        self.root.join("cache/environments")
    }

    pub(crate) fn credentials(&self) -> PathBuf {
        self.root.join("credentials.json")
    }

    pub(crate) fn project(&self, id: &str) -> PathBuf {
        self.root.join("projects").join(id)
    }

    pub(crate) fn build(&self, id: &str) -> PathBuf {
        self.root.join("builds").join(id)
    }

    /// What builds were made from, each file once.
    pub(crate) fn sources(&self) -> PathBuf {
        self.root.join("sources")
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Half-received files of a server that was killed.
    fn clear_uploads(&self) {
        for entry in fs::read_dir(self.uploads()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

fn check_socket_paths(root: &Path) -> Result<(), OpenError> {
    // The longest: a deployment number of ten digits and the highest slot.
    let longest = root.join("run/4294967295/s199.sock");
    let bytes = longest.as_os_str().len();
    if bytes > limits::SOCKET_PATH_BYTES_MAX {
        return Err(OpenError::PathTooLong { path: root.to_owned(), bytes });
    }
    Ok(())
}

fn check_version(root: &Path) -> Result<(), OpenError> {
    let version = root.join("VERSION");
    match fs::read_to_string(&version) {
        Ok(found) if found.trim() == DATA_VERSION => Ok(()),
        Ok(found) => Err(OpenError::Version { path: root.to_owned(), found: found.trim().to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(root).map_err(|source| OpenError::Io {
                action: "read",
                path: root.to_owned(),
                source,
            })?;
            // A gateway of the same server may have come first with its own files.
            let is_foreign = entries.any(|entry| {
                entry.is_ok_and(|e| {
                    !["lock", "routes.sealed", "spool", "lost+found"]
                        .contains(&e.file_name().to_string_lossy().as_ref())
                })
            });
            if is_foreign { Err(OpenError::Foreign(root.to_owned())) } else { Ok(()) }
        }
        Err(source) => Err(OpenError::Io { action: "read", path: version, source }),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), OpenError> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| OpenError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

fn set_mode(path: &Path, mode: u32) -> Result<(), OpenError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|source| OpenError::Io {
        action: "set the mode of",
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that only this user reads, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_made_with_its_modes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(dir.root()), 0o711);
        assert_eq!(mode(&dir.keys()), 0o700);
        assert_eq!(mode(&dir.run()), 0o700);
        assert_eq!(fs::read_to_string(path.join("VERSION")).unwrap(), "1\n");
    }

    #[test]
    fn a_second_server_on_it_is_refused_until_the_first_ends() {
        let temp = tempfile::tempdir().unwrap();
        let first = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(error, OpenError::Locked(_)), "{error}");
        drop(first);
        DataDir::open(temp.path()).unwrap();
    }

    #[test]
    fn another_version_and_a_foreign_folder_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("VERSION"), "2\n").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(matches!(&error, OpenError::Version { found, .. } if found == "2"), "{error}");
        fs::remove_file(temp.path().join("VERSION")).unwrap();
        fs::write(temp.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(DataDir::open(temp.path()).unwrap_err(), OpenError::Foreign(_)));
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_with_a_hint() {
        let temp = tempfile::tempdir().unwrap();
        let error = DataDir::open(&temp.path().join("x".repeat(90))).unwrap_err();
        assert!(error.to_string().contains("shorter path"), "{error}");
    }
}
