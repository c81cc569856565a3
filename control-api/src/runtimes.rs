//! The Pythons that models can be built for: the server's own, and those an administrator has added. Each is an
//! interpreter with the runtime program of its minor version; which programs there are is decided by whoever built this
//! one (`make runtimes`). What was added is kept in the database, and looked at again at each start: an interpreter
//! that has gone since is listed as disabled and keeps nothing else from starting.

pub(crate) mod python;
#[cfg(test)]
mod tests;
mod trust;
mod version;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    config::ControlConfig,
    data_dir::OpenError,
    fault::{Fault, Outcome},
    store::Store,
};
use python::{Python, Refusal};
pub(crate) use version::Minor;

/// What the settings of added runtimes begin with; the minor version follows.
const SETTING: &str = "runtime/";

/// An interpreter and the program that embeds it.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) python: Python,
    pub(crate) program: PathBuf,
}

/// One that was added.
#[derive(Debug, Clone)]
pub(crate) enum Added {
    Here(Arc<Runtime>),
    /// It cannot be used any more.
    Lost {
        path: PathBuf,
        reason: String,
    },
}

/// What a build gets for what it asked for.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) runtime: Arc<Runtime>,
    /// The version that was named and is not here.
    pub(crate) missed: Option<Minor>,
    /// It was named, and is not merely the default.
    pub(crate) is_named: bool,
}

/// The catalogue.
#[derive(Debug)]
pub(crate) struct Runtimes {
    default: Arc<Runtime>,
    data_dir: PathBuf,
    added: RwLock<BTreeMap<Minor, Added>>,
}

impl Runtimes {
    /// The server's own, which must run, and those that were added.
    pub(crate) async fn open(config: &ControlConfig, root: &Path, store: &Store) -> Result<Self, OpenError> {
        let python = Python::probe(&config.python)?;
        let default = Arc::new(Runtime { python, program: config.runtime_program.clone() });
        let runtimes = Self { default, data_dir: root.to_owned(), added: RwLock::default() };
        let kept = store.settings(SETTING).await.map_err(|fault| OpenError::First(Box::new(fault)))?;
        for (name, path) in kept {
            let Ok(minor) = name[SETTING.len()..].parse() else { continue };
            let path = PathBuf::from(path);
            let added = match runtimes.look_at(&path).await {
                Ok(runtime) if runtime.python.minor() == minor => Added::Here(Arc::new(runtime)),
                Ok(runtime) => lost(minor, path, format!("it is Python {} now", runtime.python.version)),
                Err(refusal) => lost(minor, path, refusal.to_string()),
            };
            runtimes.put(minor, added);
        }
        Ok(runtimes)
    }

    /// The server's own.
    pub(crate) fn default(&self) -> &Arc<Runtime> {
        &self.default
    }

    /// Those that were added, by version. One of the default's version stands back: a server that was built anew for
    /// it has it already.
    pub(crate) fn added(&self) -> BTreeMap<Minor, Added> {
        let mut added = self.added.read().unwrap_or_else(PoisonError::into_inner).clone();
        added.remove(&self.default.python.minor());
        added
    }

    /// What a build gets that asks for this kernel and this runtime; the latter is the more exact of the two.
    pub(crate) fn choose(&self, kernel: &str, runtime_identifier: &str) -> Choice {
        let named: Vec<Minor> =
            [runtime_identifier, kernel].into_iter().filter_map(Minor::named_in).collect();
        match named.iter().find_map(|minor| self.find(*minor).ok()) {
            Some(runtime) => Choice { runtime, missed: None, is_named: true },
            None => Choice { runtime: self.default.clone(), missed: named.first().copied(), is_named: false },
        }
    }

    /// What a build runs by: the runtime of the version that its environment is of. The environment is part of what was
    /// sealed, so a build runs by the same version for ever, whatever the default becomes.
    pub(crate) fn of_build(&self, build_dir: &Path) -> Outcome<Arc<Runtime>> {
        match Minor::of_environment(&build_dir.join("venv")) {
            Some(minor) => self.find(minor).map_err(|reason| {
                Fault::NotFound(format!("the build is of Python {minor}, which is not here: {reason}"))
            }),
            None => Ok(self.default.clone()),
        }
    }

    fn find(&self, minor: Minor) -> Result<Arc<Runtime>, String> {
        if minor == self.default.python.minor() {
            return Ok(self.default.clone());
        }
        match self.added.read().unwrap_or_else(PoisonError::into_inner).get(&minor) {
            Some(Added::Here(runtime)) => Ok(runtime.clone()),
            Some(Added::Lost { path, reason }) => Err(format!("`{}`: {reason}", path.display())),
            None => Err(format!("add it by `millgate runtimes add /path/to/python{minor}`, or build anew")),
        }
    }

    /// Adds the interpreter at a path, in the place of one of the same version.
    pub(crate) async fn add(&self, store: &Store, path: &Path) -> Outcome<Arc<Runtime>> {
        let runtime =
            Arc::new(self.look_at(path).await.map_err(|refusal| Fault::Invalid(refusal.to_string()))?);
        let minor = runtime.python.minor();
        if minor == self.default.python.minor() {
            if runtime.python.library == self.default.python.library {
                return Ok(self.default.clone());
            }
            return Err(Fault::Invalid(format!(
                "this server's own runtime is of Python {minor} already (`{}`)\nhint: to have another one of that \
                 version, build millgate with `PYO3_PYTHON={}`",
                self.default.python.executable.display(),
                path.display()
            )));
        }
        let kept = runtime.python.executable.display().to_string();
        store.set_setting(&format!("{SETTING}{minor}"), &kept).await?;
        self.put(minor, Added::Here(runtime.clone()));
        Ok(runtime)
    }

    /// Refuses what was not added.
    pub(crate) fn is_removable(&self, minor: Minor) -> Outcome<()> {
        if minor == self.default.python.minor() {
            return Err(Fault::Precondition(format!("Python {minor} is this server's own and stays")));
        }
        let is_known = self.added.read().unwrap_or_else(PoisonError::into_inner).contains_key(&minor);
        if !is_known {
            return Err(Fault::missing("runtime", &minor.to_string()));
        }
        Ok(())
    }

    /// Takes away one that was added. What runs by it goes on, and finds it no more when it is started again.
    pub(crate) async fn remove(&self, store: &Store, minor: Minor) -> Outcome<()> {
        self.is_removable(minor)?;
        store.remove_setting(&format!("{SETTING}{minor}")).await?;
        self.added.write().unwrap_or_else(PoisonError::into_inner).remove(&minor);
        Ok(())
    }

    fn put(&self, minor: Minor, added: Added) {
        self.added.write().unwrap_or_else(PoisonError::into_inner).insert(minor, added);
    }

    /// Asks the interpreter at a path about itself, and finds the program of its version.
    async fn look_at(&self, path: &Path) -> Result<Runtime, Refusal> {
        let python = Python::look_at(&trust::checked(path, &self.data_dir)?).await?;
        trust::checked(&python.executable, &self.data_dir)?;
        let minor = python.minor();
        let beside = self.default.program.with_file_name(format!("millgate-replica-{minor}"));
        let own = (minor == self.default.python.minor()).then(|| self.default.program.clone());
        let program = own.unwrap_or(beside);
        python.check_program(&program).await?;
        Ok(Runtime { python, program })
    }
}

fn lost(minor: Minor, path: PathBuf, reason: String) -> Added {
    tracing::warn!(python = %minor, path = %path.display(), reason, "a runtime that was added cannot be used");
    Added::Lost { path, reason }
}
