//! A build's source: the project's files as they are now, copied, with one hash over all of it. `.gitignore` is
//! honoured and `.git` left out wherever it lies. Refuses links that leave the tree and things that are not files.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use ignore::WalkBuilder;
use ring::digest::{Context, SHA256};

use crate::names::hex;

/// Why no snapshot could be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// A file could not be read or written.
    #[error("cannot copy {path:?}: {source}")]
    Io {
        /// Which, relative to the project.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The project's folder could not be walked.
    #[error("cannot list the project's files: {0}")]
    Walk(#[from] ignore::Error),
    /// A symbolic link to somewhere else.
    #[error("{path:?} is a link to {target:?}, which is outside the project; put the file itself there")]
    Leaves {
        /// The link.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// A device, pipe or socket.
    #[error("{0:?} is not a file, a folder or a link; remove it")]
    Special(PathBuf),
}

/// What was taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// SHA-256 over path, mode and content of everything, in the order of paths.
    pub(crate) source_hash: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Copies the project in `from` to `to`, which is made.
pub(crate) fn take(from: &Path, to: &Path) -> Result<Snapshot, SnapshotError> {
    make_folder(to).map_err(|source| SnapshotError::Io { path: PathBuf::new(), source })?;
    let mut entries = Vec::new();
    if from.is_dir() {
        let walk = WalkBuilder::new(from)
            .standard_filters(false)
            .git_ignore(true)
            .require_git(false)
            .follow_links(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry?;
            if entry.depth() > 0 {
                entries.push(entry.into_path());
            }
        }
    }
    entries.sort();
    let mut taken = Snapshot { source_hash: String::new(), files: 0, bytes: 0 };
    let mut whole = Context::new(&SHA256);
    for path in entries {
        let relative = path.strip_prefix(from).expect("found below it");
        let io_error = |source| SnapshotError::Io { path: relative.to_owned(), source };
        let kind = fs::symlink_metadata(&path).map_err(io_error)?;
        let target = to.join(relative);
        if kind.is_dir() {
            make_folder(&target).map_err(io_error)?;
            note(&mut whole, relative, "d", b"");
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).map_err(io_error)?;
            if leaves(relative, &link) {
                return Err(SnapshotError::Leaves { path: relative.to_owned(), target: link });
            }
            std::os::unix::fs::symlink(&link, &target).map_err(io_error)?;
            note(&mut whole, relative, "l", link.as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(io_error)?;
            let is_program = kind.permissions().mode() & 0o111 != 0;
            let mode = if is_program { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(io_error)?;
            let (hash, bytes) = hash_file(&target).map_err(io_error)?;
            note(&mut whole, relative, if is_program { "x" } else { "f" }, hash.as_bytes());
            taken.files += 1;
            taken.bytes += bytes;
        } else {
            return Err(SnapshotError::Special(relative.to_owned()));
        }
    }
    taken.source_hash = hex(whole.finish().as_ref());
    Ok(taken)
}

fn note(whole: &mut Context, path: &Path, kind: &str, content: &[u8]) {
    // Lengths first, so that no two trees write the same bytes.
    let path = path.as_os_str().as_encoded_bytes();
    for part in [kind.as_bytes(), path, content] {
        whole.update(&(part.len() as u64).to_le_bytes());
        whole.update(part);
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// SHA-256 of a file, hexadecimal, and its bytes.
pub(crate) fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hex(context.finish().as_ref()), bytes));
        }
        context.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// True when a link at `path` (relative to the tree) may name something outside the tree.
///
/// `..` is allowed at the beginning only, up to the tree's root: there it climbs real folders. After a name, which may
/// be a link itself, nobody knows where it leads (`a/..` is not here when `a` is a link to `.`).
pub(crate) fn leaves(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut has_descended = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => has_descended = true,
            Component::ParentDir if has_descended || depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn snapshot(from: &Path) -> (tempfile::TempDir, Result<Snapshot, SnapshotError>) {
        let to = tempfile::tempdir().unwrap();
        let result = take(from, &to.path().join("root"));
        (to, result)
    }

    #[test]
    fn ignored_files_and_git_folders_are_left_out_and_hidden_ones_are_not() {
        let from = project(&[
            (".gitignore", "*.csv\n!keep.csv\n"),
            ("a.csv", "1"),
            ("keep.csv", "2"),
            (".env", "3"),
            (".git/config", "4"),
            ("sub/.git/config", "5"),
            ("sub/b.py", "6"),
        ]);
        let (to, result) = snapshot(from.path());
        assert_eq!(result.unwrap().files, 4);
        let root = to.path().join("root");
        for (path, is_there) in [
            ("a.csv", false),
            ("keep.csv", true),
            (".env", true),
            (".git", false),
            ("sub/.git", false),
            ("sub/b.py", true),
        ] {
            assert_eq!(root.join(path).exists(), is_there, "{path}");
        }
    }

    #[test]
    fn the_hash_is_of_paths_modes_and_contents_and_nothing_else() {
        let one = project(&[("a.py", "x"), ("b/c.py", "y")]);
        let same = project(&[("b/c.py", "y"), ("a.py", "x")]);
        let hash = |dir: &tempfile::TempDir| snapshot(dir.path()).1.unwrap().source_hash;
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&project(&[("a.py", "x"), ("b/c.py", "z")])));
        assert_ne!(hash(&one), hash(&project(&[("a.py", "x"), ("bc.py", "y")])));
        fs::set_permissions(one.path().join("a.py"), fs::Permissions::from_mode(0o4755)).unwrap();
        assert_ne!(hash(&one), hash(&same));
    }

    #[test]
    fn setuid_is_stripped_and_modes_are_readable() {
        let from = project(&[("a.sh", "")]);
        fs::set_permissions(from.path().join("a.sh"), fs::Permissions::from_mode(0o6700)).unwrap();
        let (to, result) = snapshot(from.path());
        result.unwrap();
        let mode = fs::metadata(to.path().join("root/a.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn links_inside_are_kept_and_links_that_leave_are_refused() {
        let from = project(&[("d/a.py", "x")]);
        std::os::unix::fs::symlink("d/a.py", from.path().join("l")).unwrap();
        let (to, result) = snapshot(from.path());
        result.unwrap();
        assert_eq!(fs::read_to_string(to.path().join("root/l")).unwrap(), "x");
        for target in ["/etc/passwd", "../x", "d/../../x"] {
            let path = from.path().join("bad");
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = snapshot(from.path()).1.unwrap_err();
            assert!(matches!(error, SnapshotError::Leaves { .. }), "{target}: {error}");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_pipe_is_refused() {
        let from = project(&[]);
        nix::unistd::mkfifo(&from.path().join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(snapshot(from.path()).1, Err(SnapshotError::Special(_))));
    }

    #[test]
    fn an_empty_or_missing_project_is_an_empty_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(snapshot(&dir.path().join("none")).1.unwrap().files, 0);
    }
}
