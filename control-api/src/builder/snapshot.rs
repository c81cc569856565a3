//! What belongs to a source: the project's files as they are now. `.gitignore` is honoured and `.git` left out wherever it
//! lies. Refuses links that leave the tree, things that are not files, and programs that would run as somebody else.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use ignore::WalkBuilder;

/// Setuid and setgid of a program.
const RUNS_AS_ANOTHER: u32 = 0o6000;

/// Why a project's files cannot be a source.
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
    /// A program that runs with the rights of its owner or group.
    #[error("{0:?} has the setuid or setgid bit; take it off with `chmod ug-s`, and upload it again")]
    RunsAsAnother(PathBuf),
    /// A name that no JSON can hold.
    #[error("the name {0:?} is not UTF-8; rename it")]
    Name(PathBuf),
}

/// One thing of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Relative to the project.
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { is_program: bool },
    Link(String),
}

/// Everything in `from` that belongs to a source, in the order of paths; nothing where there is no folder.
pub(crate) fn items(from: &Path) -> Result<Vec<Item>, SnapshotError> {
    if !from.is_dir() {
        return Ok(Vec::new());
    }
    let walk = WalkBuilder::new(from)
        .standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let mut paths = Vec::new();
    for entry in walk {
        let entry = entry?;
        if entry.depth() > 0 {
            paths.push(entry.into_path());
        }
    }
    paths.sort();
    paths.iter().map(|path| item(from, path)).collect()
}

fn item(from: &Path, path: &Path) -> Result<Item, SnapshotError> {
    let relative = path.strip_prefix(from).expect("found below it");
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| SnapshotError::Name(relative.to_owned()))
    };
    let io_error = |source| SnapshotError::Io { path: relative.to_owned(), source };
    let metadata = fs::symlink_metadata(path).map_err(io_error)?;
    let kind = if metadata.is_dir() {
        // The bits mean another thing on a folder, and its mode is no part of a source.
        Kind::Folder
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(io_error)?;
        if leaves(relative, &target) {
            return Err(SnapshotError::Leaves { path: relative.to_owned(), target });
        }
        Kind::Link(text(&target)?)
    } else if !metadata.is_file() {
        return Err(SnapshotError::Special(relative.to_owned()));
    } else if metadata.permissions().mode() & RUNS_AS_ANOTHER != 0 {
        return Err(SnapshotError::RunsAsAnother(relative.to_owned()));
    } else {
        Kind::File { is_program: metadata.permissions().mode() & 0o111 != 0 }
    };
    Ok(Item { path: text(relative)?, kind })
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
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

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

    fn names(from: &Path) -> Vec<String> {
        items(from).unwrap().into_iter().map(|item| item.path).collect()
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
        assert_eq!(names(from.path()), [".env", ".gitignore", "keep.csv", "sub", "sub/b.py"]);
    }

    #[test]
    fn a_program_that_runs_as_somebody_else_is_refused_and_a_folder_that_hands_its_group_on_is_not() {
        for mode in [0o4755, 0o2755, 0o6700] {
            let from = project(&[("a.sh", "")]);
            fs::set_permissions(from.path().join("a.sh"), fs::Permissions::from_mode(mode)).unwrap();
            let refused = items(from.path()).unwrap_err();
            assert!(matches!(refused, SnapshotError::RunsAsAnother(_)), "{mode:o}: {refused}");
        }
        let from = project(&[("d/a.py", "")]);
        fs::set_permissions(from.path().join("d"), fs::Permissions::from_mode(0o2775)).unwrap();
        assert_eq!(names(from.path()), ["d", "d/a.py"]);
    }

    #[test]
    fn links_inside_are_kept_and_links_that_leave_are_refused() {
        let from = project(&[("d/a.py", "x")]);
        std::os::unix::fs::symlink("d/a.py", from.path().join("l")).unwrap();
        assert_eq!(items(from.path()).unwrap()[2].kind, Kind::Link("d/a.py".to_owned()));
        for target in ["/etc/passwd", "../x", "d/../../x"] {
            let path = from.path().join("bad");
            std::os::unix::fs::symlink(target, &path).unwrap();
            let error = items(from.path()).unwrap_err();
            assert!(matches!(error, SnapshotError::Leaves { .. }), "{target}: {error}");
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_and_a_name_that_is_no_text_are_refused() {
        let from = project(&[]);
        nix::unistd::mkfifo(&from.path().join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(items(from.path()), Err(SnapshotError::Special(_))));
        let from = project(&[]);
        let _socket = std::os::unix::net::UnixListener::bind(from.path().join("s")).unwrap();
        assert!(matches!(items(from.path()), Err(SnapshotError::Special(_))));
        let from = project(&[]);
        fs::write(from.path().join(OsStr::from_bytes(b"a\xff")), "").unwrap();
        assert!(matches!(items(from.path()), Err(SnapshotError::Name(_))));
    }

    #[test]
    fn a_missing_project_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(items(&dir.path().join("none")).unwrap(), []);
    }
}
