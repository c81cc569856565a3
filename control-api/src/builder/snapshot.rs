//! What belongs to a source: the project's files as they are now. `.gitignore` is honoured and `.git` left out wherever it
//! lies. Refuses links that leave the tree, things that are not files, and programs that would run as somebody else.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Component, Path, PathBuf},
};

use ignore::WalkBuilder;

use super::include::Include;

/// An ignored file that is larger is named.
const LEFT_OUT_BYTES_MAX: u64 = 50_000_000;
/// Files that are named so.
const WARNINGS_MAX: usize = 20;
/// Setuid and setgid of a program.
pub(crate) const RUNS_AS_ANOTHER: u32 = 0o6000;

/// Why a project's files cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
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
pub struct Item {
    /// Relative to the project.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder; its mode is no part of a source.
    Folder,
    /// A file.
    File {
        /// It may be executed.
        is_program: bool,
    },
    /// A symbolic link, and what it names.
    Link(String),
}

/// What is in a folder for a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    /// All that belongs to it, in the order of paths.
    pub items: Vec<Item>,
    /// What whoever sees to it should know.
    pub warnings: Vec<Warning>,
}

/// Something that may not be as it is wished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A large file that is ignored: many projects ignore their model, and their function opens it.
    #[error(
        "`{path}` ({} MB) is left out, because git ignores it; `millgate deploy --include '{path}'`, or `include` of the \
         build, brings it", bytes / 1_000_000
    )]
    LeftOut {
        /// Which.
        path: String,
        /// How large.
        bytes: u64,
    },
    /// More of them.
    #[error("{0} more files of over {mb} MB are left out, because git ignores them", mb = LEFT_OUT_BYTES_MAX / 1_000_000)]
    MoreLeftOut(usize),
    /// A pattern without a file.
    #[error("`--include '{0}'`, or `include` of the build, matches no file")]
    Matchless(String),
}

/// Which rules of git's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignoring {
    /// `.gitignore` in the folder and below, which are part of the source.
    OwnRules,
    /// Those of the folder's repository and of its user as well: it is where somebody works.
    AllRules,
}

/// Lists what of `from` belongs to a source; nothing where there is no folder.
pub fn list(from: &Path, include: &Include, ignoring: Ignoring) -> Result<Listing, SnapshotError> {
    let mut listing = Listing { items: Vec::new(), warnings: Vec::new() };
    if !from.is_dir() {
        return Ok(listing);
    }
    let mut paths = walk(from, Some(ignoring))?;
    let ignored: Vec<PathBuf> = walk(from, None)?.difference(&paths).cloned().collect();
    let mut matches = vec![false; include.len()];
    if !include.is_empty() {
        for path in paths.iter().chain(&ignored) {
            let is_folder = fs::symlink_metadata(from.join(path)).is_ok_and(|at| at.is_dir());
            include.matching(path, is_folder).for_each(|at| matches[at] |= !is_folder);
        }
    }
    let mut left_out = Vec::new();
    for path in ignored {
        let metadata = fs::symlink_metadata(from.join(&path));
        let metadata = metadata.map_err(|source| SnapshotError::Io { path: path.clone(), source })?;
        if include.matching(&path, metadata.is_dir()).next().is_some() {
            // The folders that it is in may be ignored themselves.
            let within = path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
            paths.extend(within.map(Path::to_owned));
        } else if metadata.is_file() && metadata.len() > LEFT_OUT_BYTES_MAX {
            left_out.push(Warning::LeftOut { path: path.display().to_string(), bytes: metadata.len() });
        }
    }
    let more = left_out.len().saturating_sub(WARNINGS_MAX);
    left_out.truncate(WARNINGS_MAX);
    listing.warnings = left_out;
    listing.warnings.extend((more > 0).then_some(Warning::MoreLeftOut(more)));
    let matchless = (0..include.len()).filter(|at| !matches[*at]);
    listing.warnings.extend(matchless.map(|at| Warning::Matchless(include.text(at).to_owned())));
    listing.items = paths.iter().map(|path| item(from, path)).collect::<Result<_, _>>()?;
    Ok(listing)
}

/// Paths below a folder, relative to it, without `.git`; without rules, all of them.
fn walk(from: &Path, rules: Option<Ignoring>) -> Result<BTreeSet<PathBuf>, SnapshotError> {
    let has_all = rules == Some(Ignoring::AllRules);
    let walk = WalkBuilder::new(from)
        .standard_filters(false)
        .git_ignore(rules.is_some())
        .git_global(has_all)
        .git_exclude(has_all)
        .parents(has_all)
        .require_git(false)
        .follow_links(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build();
    let mut paths = BTreeSet::new();
    for entry in walk {
        let entry = entry?;
        if entry.depth() > 0 {
            paths.insert(entry.path().strip_prefix(from).expect("found below it").to_owned());
        }
    }
    Ok(paths)
}

fn item(from: &Path, relative: &Path) -> Result<Item, SnapshotError> {
    let path = from.join(relative);
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| SnapshotError::Name(relative.to_owned()))
    };
    let io_error = |source| SnapshotError::Io { path: relative.to_owned(), source };
    let metadata = fs::symlink_metadata(&path).map_err(io_error)?;
    let kind = if metadata.is_dir() {
        // The bits mean another thing on a folder, and its mode is no part of a source.
        Kind::Folder
    } else if metadata.is_symlink() {
        let target = fs::read_link(&path).map_err(io_error)?;
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

    fn items(from: &Path) -> Result<Vec<Item>, SnapshotError> {
        list(from, &Include::default(), Ignoring::OwnRules).map(|listing| listing.items)
    }

    fn including(from: &Path, patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let listing = list(from, &Include::parse(&patterns).unwrap(), Ignoring::OwnRules).unwrap();
        let warnings = listing.warnings.iter().map(Warning::to_string).collect();
        (listing.items.into_iter().map(|item| item.path).collect(), warnings)
    }

    /// A file of this size that takes no room.
    fn large(path: &Path, bytes: u64) {
        fs::File::create(path).unwrap().set_len(bytes).unwrap();
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
    fn a_large_ignored_file_is_named_and_one_that_is_included_is_there() {
        let from = project(&[(".gitignore", "/m.pkl\ndata/\n"), ("data/deep/x.bin", ""), ("data/y.bin", "")]);
        large(&from.path().join("m.pkl"), LEFT_OUT_BYTES_MAX + 1);
        large(&from.path().join("data/small"), LEFT_OUT_BYTES_MAX);
        large(&from.path().join("plain"), LEFT_OUT_BYTES_MAX + 1);
        let (names, warnings) = including(from.path(), &[]);
        assert_eq!(names, [".gitignore", "plain"]);
        assert_eq!(
            warnings,
            [
                "`m.pkl` (50 MB) is left out, because git ignores it; `millgate deploy --include 'm.pkl'`, or `include` of \
              the build, brings it"
            ]
        );
        let (names, warnings) = including(from.path(), &["m.pkl", "data/deep/", "plain", "data/none"]);
        assert_eq!(names, [".gitignore", "data", "data/deep", "data/deep/x.bin", "m.pkl", "plain"]);
        assert_eq!(warnings, ["`--include 'data/none'`, or `include` of the build, matches no file"]);
    }

    #[test]
    fn many_large_ignored_files_are_counted() {
        let from = project(&[(".gitignore", "*.bin")]);
        for n in 0..WARNINGS_MAX + 3 {
            large(&from.path().join(format!("{n}.bin")), LEFT_OUT_BYTES_MAX + 1);
        }
        let warnings = including(from.path(), &[]).1;
        assert_eq!(warnings.len(), WARNINGS_MAX + 1);
        assert!(warnings.last().unwrap().starts_with("3 more files of over 50 MB"), "{warnings:?}");
    }

    #[test]
    fn what_is_included_is_held_to_the_same_rules() {
        let from = project(&[(".gitignore", "l\n.git\n"), (".git/config", "")]);
        std::os::unix::fs::symlink("/etc/passwd", from.path().join("l")).unwrap();
        let include = Include::parse(&["l".to_owned(), ".git".to_owned()]).unwrap();
        let refused = list(from.path(), &include, Ignoring::OwnRules);
        assert!(matches!(refused, Err(SnapshotError::Leaves { .. })), "{refused:?}");
        fs::remove_file(from.path().join("l")).unwrap();
        let listing = list(from.path(), &include, Ignoring::OwnRules).unwrap();
        assert_eq!(listing.items.len(), 1, "{listing:?}");
    }

    #[test]
    fn rules_of_the_repository_around_count_where_somebody_works() {
        let around = project(&[(".gitignore", "*.csv"), (".git/HEAD", ""), ("p/a.csv", ""), ("p/a.py", "")]);
        let names = |ignoring| -> Vec<String> {
            let listing = list(&around.path().join("p"), &Include::default(), ignoring).unwrap();
            listing.items.into_iter().map(|item| item.path).collect()
        };
        assert_eq!(names(Ignoring::AllRules), ["a.py"]);
        assert_eq!(names(Ignoring::OwnRules), ["a.csv", "a.py"]);
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
