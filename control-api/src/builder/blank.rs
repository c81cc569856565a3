//! New Python environments, copied from ones that were made once: `python -m venv` takes seconds where pip is to be in it,
//! a copy takes a tenth of one. An environment knows its own path in a few files, which are written anew.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};

use ring::digest::{SHA256, digest};
use tokio::process::Command;

use crate::{names::hex, runtimes::python::Python};

/// Bytes up to which a file is looked through for its environment's path: those that have it are scripts.
const SCRIPT_BYTES_MAX: u64 = 64 * 1024;

/// The environments that others are copied from.
pub(super) struct Blanks {
    folder: PathBuf,
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub(super) enum BlankError {
    #[error("cannot run Python: {0}")]
    Run(#[source] io::Error),
    #[error("`python -m venv` failed: {0}; on Debian it is in the package python3-venv")]
    Venv(String),
    #[error("cannot copy the environment: {0}")]
    Copy(#[source] io::Error),
}

impl Blanks {
    /// Those that are kept in a folder.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes an environment at `to`, with pip or without.
    pub(super) async fn copy_to(&self, python: &Python, has_pip: bool, to: &Path) -> Result<(), BlankError> {
        let blank = self.blank(python, has_pip).await?;
        let to = to.to_owned();
        tokio::task::spawn_blocking(move || {
            let (old, new) = (blank.as_os_str().as_encoded_bytes(), to.as_os_str().as_encoded_bytes());
            copy(&blank, &to, old, new)
        })
        .await
        .map_err(|e| BlankError::Copy(io::Error::other(e)))?
        .map_err(BlankError::Copy)
    }

    async fn blank(&self, python: &Python, has_pip: bool) -> Result<PathBuf, BlankError> {
        let blank = self.folder.join(name(python, has_pip));
        if blank.is_dir() {
            return Ok(blank);
        }
        // Whole, or not there: one that was begun and not finished is begun again.
        let partial = self.folder.join(format!("{}.partial", name(python, has_pip)));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&self.folder).map_err(BlankError::Copy)?;
        make(python, has_pip, &partial).await?;
        let (from, to) = (partial.clone(), blank.clone());
        let renamed = tokio::task::spawn_blocking(move || {
            let (old, new) = (from.as_os_str().as_encoded_bytes(), to.as_os_str().as_encoded_bytes());
            let moved = to.with_extension("moved");
            let _ = fs::remove_dir_all(&moved);
            copy(&from, &moved, old, new)?;
            fs::rename(&moved, &to)?;
            fs::remove_dir_all(&from)
        });
        renamed.await.map_err(|e| BlankError::Copy(io::Error::other(e)))?.map_err(BlankError::Copy)?;
        Ok(blank)
    }
}

/// One for each interpreter: an upgrade in place is another one.
fn name(python: &Python, has_pip: bool) -> String {
    let modified = fs::metadata(&python.executable).and_then(|kind| kind.modified()).ok();
    let text = format!("{} {} {modified:?}", python.executable.display(), python.version);
    let hash = hex(&digest(&SHA256, text.as_bytes()).as_ref()[..8]);
    format!("{}-{}-{hash}", python.version, if has_pip { "pip" } else { "bare" })
}

async fn make(python: &Python, has_pip: bool, to: &Path) -> Result<(), BlankError> {
    let mut command = Command::new(&python.executable);
    command.args(["-I", "-m", "venv"]);
    if !has_pip {
        command.arg("--without-pip");
    }
    let output = command
        .arg(to)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(BlankError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(BlankError::Venv(said.trim().chars().take(2_000).collect()))
}

fn copy(from: &Path, to: &Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target, kind) = (entry.path(), to.join(entry.file_name()), entry.metadata()?);
        if kind.is_dir() {
            copy(&source, &target, old, new)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
            let is_script = source.parent().is_some_and(|folder| folder.ends_with("bin"))
                || source.file_name().is_some_and(|name| name == "pyvenv.cfg");
            if is_script && kind.len() <= SCRIPT_BYTES_MAX {
                let content = fs::read(&source)?;
                fs::write(&target, replaced(&content, old, new))?;
            } else if source.extension().is_some_and(|extension| extension == "py") {
                // What was compiled of it names its time.
                fs::File::options().append(true).open(&target)?.set_modified(kind.modified()?)?;
            }
        }
    }
    Ok(())
}

fn replaced(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(old) {
            out.extend(new);
            at += old.len();
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_scripts_are_the_copys_own_and_compiled_files_stay_valid() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        for (path, text) in [
            ("bin/pip", format!("#!{}/bin/python\n", old.display())),
            ("lib/a.py", format!("x = '{}'", old.display())),
        ] {
            let path = old.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::set_permissions(old.join("bin/pip"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/usr/bin/python3", old.join("bin/python")).unwrap();
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        copy(&old, &new, &bytes(&old), &bytes(&new)).unwrap();
        let script = fs::read_to_string(new.join("bin/pip")).unwrap();
        assert_eq!(script, format!("#!{}/bin/python\n", new.display()));
        assert_eq!(fs::metadata(new.join("bin/pip")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read(new.join("lib/a.py")).unwrap(), fs::read(old.join("lib/a.py")).unwrap());
        let time = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(time(new.join("lib/a.py")), time(old.join("lib/a.py")));
        assert!(new.join("bin/python").is_symlink());
    }
}
