//! The build's own Python environment: with pip only where a script will use it; the SDK put in; then the script run.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::task::JoinSet;

use super::{
    BuildFailure, Job,
    blank::Blanks,
    blocking, failed,
    log::Step,
    missing_file,
    packages::{self, Installers},
    script,
};
use crate::{fault::Fault, launch::spec::build_uid, sdk};

/// Makes the environment and runs the script.
pub(super) async fn make(job: &Job) -> Result<(), BuildFailure> {
    let script = script::find(job)?;
    let begun = Instant::now();
    job.log.line(
        Step::Environment,
        &format!("making an environment of Python {}", job.runtime().python.version),
    );
    Blanks::in_folder(job.app.dir.environments())
        .copy_to(&job.runtime().python, script.is_some(), &job.venv())
        .await
        .map_err(|e| failed(Step::Environment, e.to_string()))?;
    let site_packages = site_packages(job);
    let folder = site_packages.clone();
    blocking(move || sdk::unpack(&folder))
        .await?
        .map_err(|e| failed(Step::Environment, format!("cannot put the SDK into the environment: {e}")))?;
    if let Some(script) = script {
        let cannot = |e: io::Error| failed(Step::Environment, format!("cannot prepare the installers: {e}"));
        let installers = Installers::prepare(job, &site_packages).map_err(cannot)?;
        own(job, Owner::Script).await?;
        let result = script::run(job, &script).await;
        installers.clear().map_err(cannot)?;
        let (owned, bounded) = tokio::join!(own(job, Owner::Server), packages::bound_cache(job));
        owned?;
        bounded?.map_err(cannot)?;
        result?;
    } else {
        job.log.line(Step::Environment, &format!("no {}: nothing to install", script::name(&job.build)));
        own(job, Owner::Server).await?;
    }
    if !job.root().join(&job.build.file_path).is_file() {
        return Err(failed(Step::Environment, missing_file(&job.build.file_path)));
    }
    job.log
        .line(Step::Environment, &format!("environment ready after {:.1} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

pub(super) fn site_packages(job: &Job) -> PathBuf {
    job.venv().join(format!("lib/python{}/site-packages", job.runtime().python.minor()))
}

enum Owner {
    Script,
    Server,
}

/// Gives root, environment and package cache to the script's uid, or takes them back and makes them readable.
async fn own(job: &Job, owner: Owner) -> Result<(), BuildFailure> {
    let uid = nix::unistd::geteuid().is_root().then(|| match owner {
        Owner::Script => build_uid(job.build.number),
        Owner::Server => 0,
    });
    let normalises = matches!(owner, Owner::Server);
    let root = job.dir.join("root");
    let trees =
        if normalises { vec![root, job.venv()] } else { vec![root, job.venv(), packages::cache(job)] };
    // Side by side: an environment and a cache are thousands of files each.
    let mut work = JoinSet::new();
    for tree in trees {
        work.spawn_blocking(move || hand_over(&tree, uid, normalises));
    }
    while let Some(done) = work.join_next().await {
        let cannot = |e| failed(Step::Environment, format!("cannot set the owner of the build's files: {e}"));
        done.map_err(Fault::internal)?.map_err(cannot)?;
    }
    Ok(())
}

/// Changes owner and, with `normalises`, mode of everything in a tree; what is not file, folder or link is removed
/// then: installers and tests leave sockets and odd bits behind of which nobody knows, unlike in a source, where they
/// are refused. No process of the script runs at that time, so nothing changes underneath.
fn hand_over(path: &Path, uid: Option<u32>, normalises: bool) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?;
    if normalises && !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
        return fs::remove_file(path);
    }
    if let Some(uid) = uid {
        lchown(path, Some(uid), Some(uid))?;
    }
    if normalises && !kind.is_symlink() {
        let is_program = kind.is_dir() || kind.permissions().mode() & 0o100 != 0;
        fs::set_permissions(path, fs::Permissions::from_mode(if is_program { 0o755 } else { 0o644 }))?;
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over(&entry?.path(), uid, normalises)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_left_becomes_readable_and_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("secret.pkl"), "").unwrap();
        fs::set_permissions(path("secret.pkl"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path("tool"), "").unwrap();
        fs::set_permissions(path("tool"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::create_dir(path("d")).unwrap();
        fs::set_permissions(path("d"), fs::Permissions::from_mode(0o700)).unwrap();
        nix::unistd::mkfifo(&path("d/p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/nowhere", path("l")).unwrap();
        hand_over(dir.path(), None, true).unwrap();
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("secret.pkl"), mode("tool"), mode("d")), (0o644, 0o755, 0o755));
        assert!(!path("d/p").exists());
        assert!(path("l").is_symlink());
    }
}
