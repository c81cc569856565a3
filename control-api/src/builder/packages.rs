//! Where a build's packages come from: the cache of its project, and `uv` in pip's place where this host has it.
//!
//! A cache is one project's: whoever writes its files and scripts writes its cache, and nobody else. A cache that scripts
//! of all projects wrote to would let one project put packages into another's builds, since neither pip nor uv can tell
//! what it downloaded itself from what somebody else put there. `uv` copies out of it and never links: a file shared with
//! a sealed build could be changed through the cache.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Job;

/// In the build's folder while its script runs: programs named like pip's.
const TOOLS: &str = "tools";
/// Takes `python -m pip` to the same place; read at each start of the environment's Python while the script runs.
const HOOK: &str = "_millgate_pip.pth";

/// Packages of one project, kept between its builds.
pub(super) fn cache(job: &Job) -> PathBuf {
    job.app.dir.package_cache(job.project.id.as_str())
}

/// Installers of a build that has a script.
pub(super) struct Installers<'a> {
    job: &'a Job,
    site_packages: &'a Path,
}

impl<'a> Installers<'a> {
    /// Makes the cache and, with `uv`, the programs that stand before pip.
    pub(super) fn prepare(job: &'a Job, site_packages: &'a Path) -> io::Result<Self> {
        let cache = cache(job);
        fs::create_dir_all(&cache)?;
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o700))?;
        let tools = tools(job);
        match fs::remove_dir_all(&tools) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let Some(uv) = &job.app.config.uv else { return Ok(Self { job, site_packages }) };
        fs::create_dir_all(&tools)?;
        let text = include_str!("packages/pip.sh").replace("@uv@", &uv.display().to_string());
        for name in ["pip", "pip3"] {
            let path = tools.join(name);
            fs::write(&path, &text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let hook =
            include_str!("packages/hook.py").replace("@pip@", &tools.join("pip").display().to_string());
        fs::write(site_packages.join(HOOK), hook)?;
        Ok(Self { job, site_packages })
    }

    /// Takes away what a build is not to keep, and a cache that has grown over its bound.
    pub(super) fn clear(self) -> io::Result<()> {
        for gone in [fs::remove_dir_all(tools(self.job)), fs::remove_file(self.site_packages.join(HOOK))] {
            if let Err(e) = gone
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
        }
        let cache = cache(self.job);
        if bytes_of(&cache)? > self.job.app.config.package_cache_bytes_max {
            fs::remove_dir_all(&cache)?;
        }
        Ok(())
    }
}

fn tools(job: &Job) -> PathBuf {
    job.dir.join(TOOLS)
}

/// Folders and files that the script sees for it.
pub(super) fn readable(job: &Job) -> Vec<PathBuf> {
    job.app.config.uv.iter().cloned().chain(job.app.config.uv.is_some().then(|| tools(job))).collect()
}

/// Its programs come first.
pub(super) fn path(job: &Job) -> String {
    let own = job.venv().join("bin").display().to_string();
    if job.app.config.uv.is_some() { format!("{}:{own}", tools(job).display()) } else { own }
}

/// What installers are told.
pub(super) fn environment(job: &Job) -> BTreeMap<String, String> {
    let cache = cache(job);
    let at = |name: &str| cache.join(name).display().to_string();
    [
        ("PIP_CACHE_DIR", at("pip")),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()),
        ("PIP_REQUIRE_VIRTUALENV", "1".to_owned()),
        ("UV_CACHE_DIR", at("uv")),
        ("UV_LINK_MODE", "copy".to_owned()),
        // Replicas cannot write what they compile.
        ("UV_COMPILE_BYTECODE", "1".to_owned()),
        ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
        // As pip chooses among several indexes.
        ("UV_INDEX_STRATEGY", "unsafe-best-match".to_owned()),
        ("UV_NO_CONFIG", "1".to_owned()),
        ("UV_NO_PROGRESS", "1".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn bytes_of(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let kind = entry.as_ref().map_err(|e| io::Error::from(e.kind()))?.metadata()?;
        bytes += if kind.is_dir() { bytes_of(&entry?.path())? } else { kind.len() };
    }
    Ok(bytes)
}
