//! What user code may see and do. A [`Sandbox`] is described by the supervisor and entered by the child it forked,
//! before exec: from its first instruction the program is inside.
//!
//! What the host does not allow is named and gone without; what would leave the program with *more* than was
//! described (a uid that cannot be changed, privileges that cannot be dropped) is an error, and nothing is run. Where
//! isolation is required, so is everything else that cannot be had.

mod interpreter;
mod landlock;
mod privileges;
mod proof;
mod root;
mod rules;
mod seccomp;
mod spawn;

use std::path::{Path, PathBuf};

use millgate_contract::spec::{BuildStepSpec, Confinement, DeploymentSpec};

pub(crate) use self::{
    proof::{Outside, prove},
    spawn::{Program, SpawnError, spawn},
};

/// Where the host's mounts end and the program's begin, in the run directory: an empty folder to mount on.
pub(crate) const STAGING_DIR: &str = "sandbox";

/// What a program may see and do.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    /// A root of its own; none in the open.
    root: Option<Root>,
    /// The uid and gid to change to; only root can.
    uid: Option<u32>,
    /// Working directory.
    cwd: PathBuf,
    /// Processes and threads of that uid, where the uid is the deployment's own.
    processes_max: Option<u64>,
    /// Drop privileges; false in the open.
    is_confined: bool,
    /// Run nothing where any part of it cannot be had.
    is_required: bool,
}

/// A root file system.
#[derive(Debug, Clone)]
struct Root {
    /// An empty folder to build it on.
    staging: PathBuf,
    /// What is in it besides the system.
    binds: Vec<Bind>,
    /// The home folder of its one user.
    home: PathBuf,
    /// That user's uid and gid.
    uid: u32,
}

/// A folder or file of the host shown in the root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bind {
    target: PathBuf,
    source: PathBuf,
    is_writable: bool,
}

impl Bind {
    fn read_only(path: &Path) -> Self {
        Self { target: path.to_owned(), source: path.to_owned(), is_writable: false }
    }

    fn writable(path: &Path) -> Self {
        Self { is_writable: true, ..Self::read_only(path) }
    }

    fn at(self, target: &Path) -> Self {
        Self { target: target.to_owned(), ..self }
    }
}

impl Sandbox {
    /// The sandbox of a deployment's template, and so of its replicas: everything read-only but `/tmp`.
    pub(crate) fn of_deployment(spec: &DeploymentSpec, run_dir: &Path) -> Self {
        let Confinement::Available { uid, readable, home, is_required, .. } = &spec.confinement else {
            return Self::open(&spec.function.root);
        };
        let function = &spec.function;
        let mut binds = vec![
            Bind::read_only(&function.root),
            Bind::read_only(&function.root).at(home),
            Bind::read_only(&function.runtime),
        ];
        let interpreter = interpreter::prefixes(&function.python);
        let folders = interpreter.iter().chain(&function.python_path).chain(readable);
        binds.extend(folders.map(|path| Bind::read_only(path)));
        // Of its replicas, its spares (one in any case while a replica is replaced) and its template.
        let trees = u64::from(spec.slots) + u64::from(spec.policy.spares.max(1)) + 1;
        let processes_max = u64::from(spec.resources.processes_max) * trees;
        let staging = run_dir.join(STAGING_DIR);
        let place = Place { staging, binds, home, uid: *uid, processes_max, is_required: *is_required };
        Self::confined(&function.root, place)
    }

    /// The sandbox of a build step: its own folders can be written to.
    pub(crate) fn of_build_step(spec: &BuildStepSpec, staging: &Path) -> Self {
        let Confinement::Available { uid, readable, home, is_required, .. } = &spec.confinement else {
            return Self::open(&spec.root);
        };
        let mut binds: Vec<Bind> = readable.iter().map(|path| Bind::read_only(path)).collect();
        for path in &spec.writable {
            let python = path.join("bin/python");
            binds.extend(interpreter::prefixes(&python).iter().map(|prefix| Bind::read_only(prefix)));
            binds.push(Bind::writable(path));
        }
        binds.push(Bind::writable(&spec.root));
        binds.push(Bind::writable(&spec.root).at(home));
        let processes_max = u64::from(spec.resources.processes_max);
        let staging = staging.to_owned();
        let place = Place { staging, binds, home, uid: *uid, processes_max, is_required: *is_required };
        Self::confined(&spec.root, place)
    }

    fn open(cwd: &Path) -> Self {
        Self {
            root: None,
            uid: None,
            cwd: cwd.to_owned(),
            processes_max: None,
            is_confined: false,
            is_required: false,
        }
    }

    fn confined(cwd: &Path, place: Place<'_>) -> Self {
        let own_uid = nix::unistd::geteuid();
        let uid = own_uid.is_root().then_some(place.uid);
        let root = Root {
            staging: place.staging,
            binds: in_order(place.binds),
            home: place.home.to_owned(),
            uid: uid.unwrap_or(own_uid.as_raw()),
        };
        Self {
            root: Some(root),
            uid,
            cwd: cwd.to_owned(),
            // Without a uid of its own the limit would count the user's other processes.
            processes_max: uid.map(|_| place.processes_max),
            is_confined: true,
            is_required: place.is_required,
        }
    }
}

struct Place<'a> {
    staging: PathBuf,
    binds: Vec<Bind>,
    home: &'a Path,
    uid: u32,
    processes_max: u64,
    is_required: bool,
}

/// What there is to say where isolation is required and not all of it can be had.
pub(crate) fn refusal(missing: &[String]) -> Option<String> {
    (!missing.is_empty()).then(|| {
        format!(
            "isolation is required (`require_isolation`) and this host does not allow all of it: {}; \
             allow it there, or do without `require_isolation`",
            missing.join("; ")
        )
    })
}

/// Outer folders first, each target once; the last word on a target counts.
fn in_order(binds: Vec<Bind>) -> Vec<Bind> {
    let mut by_target = std::collections::BTreeMap::new();
    for bind in binds {
        by_target.insert(bind.target.clone(), bind);
    }
    by_target.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_folders_are_shown_before_inner_ones_and_the_last_word_counts() {
        let binds = in_order(vec![
            Bind::read_only(Path::new("/b/root/venv")),
            Bind::read_only(Path::new("/b/root")),
            Bind::read_only(Path::new("/a")),
            Bind::writable(Path::new("/a")),
        ]);
        let shown: Vec<(&str, bool)> =
            binds.iter().map(|bind| (bind.target.to_str().unwrap(), bind.is_writable)).collect();
        assert_eq!(shown, [("/a", true), ("/b/root", false), ("/b/root/venv", false)]);
    }
}
