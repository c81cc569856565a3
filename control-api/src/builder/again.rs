//! A build that is made again: of the source that is kept of an earlier one, with the packages that one had as constraints
//! for whatever installs some. It is a build of its own, since what comes of it may differ: a script may do anything, and
//! a package may be gone from its index. What differs is said in its log.
//!
//! Never takes the project's files as they are now in the place of a source that is not there.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use millgate_contract::ids::BuildId;

use super::{BuildFailure, Job, blocking, dependencies::Dependencies, failed, log::Step, manifest};
use crate::{app::App, fault::Fault, rows::Build, runtimes::Choice};

/// In the build's folder.
const CONSTRAINTS: &str = "constraints.txt";
/// Differences that are named in the log.
const DIFFERENCES_MAX: usize = 10;
/// Part of the environment's own tools, which a constraint would only keep from mending themselves.
const OWN_TOOLS: &str = "pip==";

/// What a build is made from again.
pub(crate) struct Again {
    /// The earlier build's number in its model.
    number: i64,
    folder: PathBuf,
    /// Without a Python nothing is known: it was built before this was kept.
    before: Dependencies,
}

impl Again {
    /// Of a build that is one.
    pub(super) async fn of(app: &App, build: &Build) -> Result<Option<Self>, BuildFailure> {
        if build.rebuilt_from.is_empty() {
            return Ok(None);
        }
        let gone = |what: &str| failed(Step::Snapshot, format!("the build it is made from {what}"));
        let from = app.store.build(&BuildId::new(&build.rebuilt_from)).await?;
        let from = from.ok_or_else(|| gone("was deleted"))?;
        if !app.sources.has(&build.source_hash) {
            return Err(gone("has no source any more; build from the project's files as they are now"));
        }
        let folder = app.dir.build(from.id.as_str());
        let kept = folder.clone();
        let before = blocking(move || Dependencies::read(&kept)).await?.map_err(Fault::from)?;
        Ok(Some(Self { number: from.build_number, folder, before }))
    }

    /// The Python of the earlier build where the server has it: its packages are for that one.
    pub(super) fn choice(&self, app: &App, chosen: Choice) -> Choice {
        let same = app.runtimes.choose(&format!("Python {}", self.before.python), "");
        if same.is_named { same } else { chosen }
    }

    /// Writes down the constraints for a build's script.
    pub(super) fn prepare(&self, job: &Job) -> Result<(), BuildFailure> {
        let packages: Vec<&str> =
            self.before.packages.iter().map(String::as_str).filter(|p| !p.starts_with(OWN_TOOLS)).collect();
        let path = job.dir.join(CONSTRAINTS);
        fs::write(&path, packages.join("\n") + "\n")
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|e| failed(Step::Snapshot, format!("cannot write the constraints: {e}")))?;
        let (number, count) = (self.number, packages.len());
        let (before, now) = (&self.before.python, &job.runtime().python.version);
        if before.is_empty() {
            let words = format!("made again from build {number}, of which is not known what was installed");
            job.log.line(Step::Snapshot, &words);
            return Ok(());
        }
        let words = format!("made again from build {number}, its {count} packages as constraints");
        job.log.line(Step::Snapshot, &words);
        if before != now {
            job.log.line(
                Step::Snapshot,
                &format!("build {number} was made with Python {before}, this is {now}"),
            );
        }
        Ok(())
    }

    /// The file of the constraints, for a script to see.
    pub(super) fn constraints(job: &Job) -> Option<PathBuf> {
        job.again.as_ref().map(|_| job.dir.join(CONSTRAINTS))
    }

    /// Has installers keep to the constraints, beside those that they are given anyway.
    pub(super) fn constrain(job: &Job, environment: &mut BTreeMap<String, String>) {
        let Some(path) = Self::constraints(job) else { return };
        for name in ["PIP_CONSTRAINT", "UV_CONSTRAINT"] {
            let own = path.display().to_string();
            let all = environment.get(name).map_or_else(|| own.clone(), |given| format!("{given} {own}"));
            environment.insert(name.to_owned(), all);
        }
    }

    /// Says how what came of it differs from the earlier build.
    pub(super) async fn compare(&self, job: &Job, after: &Dependencies) -> Result<(), BuildFailure> {
        let number = self.number;
        if !self.before.python.is_empty() {
            self.tell(job, "packages", self.before.differences(after));
        }
        let (before, now) = (self.folder.clone(), job.dir.clone());
        let files = blocking(move || {
            let (before, now) = (manifest::model_files(&before)?, manifest::model_files(&now)?);
            std::io::Result::Ok(different_files(&before, &now))
        });
        match files.await? {
            Ok(files) => self.tell(job, "files", files),
            Err(e) => {
                job.log.line(Step::Seal, &format!("the files of build {number} cannot be compared: {e}"));
            }
        }
        Ok(())
    }

    fn tell(&self, job: &Job, what: &str, mut differences: Vec<String>) {
        let number = self.number;
        if differences.is_empty() {
            return job.log.line(Step::Seal, &format!("the same {what} as build {number}"));
        }
        let count = differences.len();
        differences.truncate(DIFFERENCES_MAX);
        let more = if count > DIFFERENCES_MAX {
            format!(", and {} more", count - DIFFERENCES_MAX)
        } else {
            String::new()
        };
        job.log.line(
            Step::Seal,
            &format!("{what} differ from build {number}: {}{more}", differences.join(", ")),
        );
    }
}

/// What Python compiles names the time it did, and differs each time.
fn different_files(before: &BTreeMap<PathBuf, String>, now: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let is_compiled = |path: &Path| path.extension().is_some_and(|extension| extension == "pyc");
    let gone_or_changed = before.iter().filter_map(|(path, content)| match now.get(path) {
        Some(same) if same == content => None,
        Some(_) => Some((path, "has other contents")),
        None => Some((path, "is not there")),
    });
    let new = now.keys().filter(|path| !before.contains_key(*path)).map(|path| (path, "is new"));
    let all = gone_or_changed.chain(new).filter(|(path, _)| !is_compiled(path));
    all.map(|(path, words)| format!("`{}` {words}", path.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_differ_are_named_and_compiled_ones_are_not() {
        let files = |files: &[(&str, &str)]| -> BTreeMap<PathBuf, String> {
            files.iter().map(|(path, content)| (PathBuf::from(path), (*content).to_owned())).collect()
        };
        let before = files(&[("a.py", "1"), ("model.pkl", "1"), ("old", "1"), ("__pycache__/a.pyc", "1")]);
        let now = files(&[("a.py", "1"), ("model.pkl", "2"), ("new", "1"), ("__pycache__/a.pyc", "2")]);
        assert_eq!(
            different_files(&before, &now),
            ["`model.pkl` has other contents", "`old` is not there", "`new` is new"]
        );
    }
}
