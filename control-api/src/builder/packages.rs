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

use super::{Job, blocking};
use crate::fault::Outcome;

/// In the build's folder while its script runs: programs named like pip's.
const TOOLS: &str = "tools";
/// Takes `python -m pip` to the same place; read at each start of the environment's Python while the script runs.
const HOOK: &str = "_millgate_pip.pth";
/// Among the tools: compiles what uv installs.
const COMPILED: &str = "compiled.py";
/// In the environment while the script runs: what of it is compiled.
const STATE: &str = ".millgate-compiled";

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
        let compiled = tools.join(COMPILED);
        fs::write(&compiled, include_str!("packages/compiled.py"))?;
        let text = [
            ("@uv@", uv),
            ("@python@", &job.venv().join("bin/python")),
            ("@compiled@", &compiled),
            ("@site_packages@", &site_packages.to_owned()),
            ("@state@", &job.venv().join(STATE)),
        ]
        .into_iter()
        .fold(include_str!("packages/pip.sh").to_owned(), |text, (word, path)| {
            text.replace(word, &path.display().to_string())
        });
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

    /// Takes away what a build is not to keep.
    pub(super) fn clear(self) -> io::Result<()> {
        for gone in [
            fs::remove_dir_all(tools(self.job)),
            fs::remove_file(self.site_packages.join(HOOK)),
            fs::remove_file(self.job.venv().join(STATE)),
        ] {
            if let Err(e) = gone
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
        }
        Ok(())
    }
}

/// Takes away a cache that has grown over its bound.
pub(super) async fn bound_cache(job: &Job) -> Outcome<io::Result<()>> {
    let (cache, bytes_max) = (cache(job), job.app.config.package_cache_bytes_max);
    blocking(move || if bytes_of(&cache)? > bytes_max { fs::remove_dir_all(&cache) } else { Ok(()) }).await
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

#[cfg(test)]
mod tests {
    use std::{process::Command, time::SystemTime};

    use super::*;

    /// A package as uv leaves it: one source, and the list of its files.
    fn install(site_packages: &Path, source: &str) {
        let info = site_packages.join("thing-1.0.dist-info");
        fs::create_dir_all(&info).unwrap();
        for (name, text) in [("RECORD", "thing.py,,\nthing-1.0.dist-info/RECORD,,\n"), ("INSTALLER", "uv")] {
            fs::write(info.join(name), text).unwrap();
        }
        fs::write(site_packages.join("thing.py"), source).unwrap();
    }

    fn compile(site_packages: &Path, cache: &Path) {
        let script = site_packages.with_extension("compiled.py");
        fs::write(&script, include_str!("packages/compiled.py")).unwrap();
        let state = site_packages.with_extension("state");
        let mut python = Command::new("python3");
        assert!(
            python
                .args(["-I", "-S"])
                .args([&script, site_packages, cache, &state])
                .status()
                .unwrap()
                .success()
        );
    }

    fn compiled(folder: &Path) -> Vec<u8> {
        let file = fs::read_dir(folder.join("__pycache__")).unwrap().next().unwrap().unwrap();
        fs::read(file.path()).unwrap()
    }

    /// Python uses what is compiled of a source that has the time named in it.
    fn is_used(site_packages: &Path) -> bool {
        let time = fs::metadata(site_packages.join("thing.py")).unwrap().modified().unwrap();
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        compiled(site_packages)[8..12] == u32::try_from(seconds).unwrap().to_le_bytes()
    }

    #[test]
    fn what_uv_installs_is_compiled_once_and_a_source_that_is_changed_afterwards_counts() {
        let dir = tempfile::tempdir().unwrap();
        let cached = dir.path().join("cache/archive-v0/x");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        install(&cached, "VALUE = 1\n");
        install(&first, "VALUE = 1\n");
        compile(&first, &dir.path().join("cache"));
        assert!(is_used(&first));
        assert_eq!(compiled(&cached), compiled(&first));
        // What uv does from then on: a copy with all that is there, and times of its own.
        install(&second, "VALUE = 1\n");
        fs::create_dir(second.join("__pycache__")).unwrap();
        let name = fs::read_dir(cached.join("__pycache__")).unwrap().next().unwrap().unwrap().file_name();
        fs::copy(cached.join("__pycache__").join(&name), second.join("__pycache__").join(&name)).unwrap();
        let source = fs::File::options().append(true).open(second.join("thing.py")).unwrap();
        source.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_used(&second));
        compile(&second, &dir.path().join("cache"));
        assert!(is_used(&second));
        assert_eq!(compiled(&second), compiled(&first));
        // A script writes to it, and installs something else.
        fs::write(second.join("thing.py"), "VALUE = 2\n").unwrap();
        let source = fs::File::options().append(true).open(second.join("thing.py")).unwrap();
        source.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        compile(&second, &dir.path().join("cache"));
        assert!(!is_used(&second));
    }
}
