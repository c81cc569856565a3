//! The source of a deployment: the files below a folder that `.gitignore` does not leave out, as one tar archive.

use std::path::{Path, PathBuf};

use crate::{
    args::Target,
    failure::{Context, Failure},
};

/// A folder and the file in it that holds the function.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The folder, absolute.
    pub(crate) folder: PathBuf,
    /// The file, relative to it.
    pub(crate) file: String,
}

/// A packed folder.
pub(crate) struct Archive {
    pub(crate) tar: Vec<u8>,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

impl Source {
    /// Finds the file of `target`, and the folder it is deployed with: `project`, or the file's own.
    pub(crate) fn find(target: &Target, project: Option<&Path>) -> Result<Self, Failure> {
        let file = absolute_file(&target.file)?;
        let folder = match project {
            None => file.parent().unwrap_or(Path::new("/")).to_owned(),
            Some(given) => {
                let folder = given.canonicalize().map_err(|cause| {
                    Failure::new(format!("cannot read folder `{}`: {cause}", given.display()))
                })?;
                if !folder.is_dir() {
                    return Err(Failure::new(format!("`{}` is not a folder", given.display())));
                }
                folder
            }
        };
        let relative = file.strip_prefix(&folder).map_err(|_| {
            Failure::new(format!("`{}` is not below the project `{}`", file.display(), folder.display()))
                .hint("give the folder that holds the file as `--project DIR`")
        })?;
        let file = relative.to_str().ok_or_else(|| {
            Failure::new(format!("`{}` is not UTF-8", relative.display())).hint("rename the file")
        })?;
        Ok(Self { file: file.to_owned(), folder: folder.clone() })
    }

    /// The project's name: the folder's.
    pub(crate) fn project_name(&self) -> String {
        self.folder.file_name().map_or_else(|| "project".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    /// Packs the folder.
    pub(crate) fn pack(&self) -> Result<Archive, Failure> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.follow_symlinks(false);
        let (mut files, mut bytes) = (0, 0);
        let walk = ignore::WalkBuilder::new(&self.folder)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .sort_by_file_path(Path::cmp)
            .build();
        for entry in walk {
            let entry = entry.context(format_args!("cannot read `{}`", self.folder.display()))?;
            let relative = entry.path().strip_prefix(&self.folder).unwrap_or(entry.path());
            if relative.as_os_str().is_empty() {
                continue;
            }
            let what = format!("cannot pack `{}`", entry.path().display());
            let metadata = entry.path().symlink_metadata().context(&what)?;
            if metadata.is_file() {
                files += 1;
                bytes += metadata.len();
            } else if !metadata.is_dir() && !metadata.is_symlink() {
                continue;
            }
            builder.append_path_with_name(entry.path(), relative).context(&what)?;
        }
        Ok(Archive { tar: builder.into_inner().context("cannot pack the project")?, files, bytes })
    }
}

fn absolute_file(path: &Path) -> Result<PathBuf, Failure> {
    let file = path.canonicalize().map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Failure::new(format!("file `{}` does not exist", path.display()))
            .hint("give the path of a Python file and a function in it, as in `predict.py:predict`"),
        _ => Failure::new(format!("cannot read `{}`: {cause}", path.display())),
    })?;
    if !file.is_file() {
        return Err(Failure::new(format!("`{}` is not a file", path.display())));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &Archive) -> Vec<String> {
        let mut reader = tar::Archive::new(&archive.tar[..]);
        reader.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn ignored_files_and_git_are_left_out_and_hidden_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            (".gitignore", "*.pkl\n"),
            ("a.py", "x"),
            ("m.pkl", "x"),
            (".git/HEAD", "x"),
            ("sub/.git/HEAD", "x"),
            (".env", "x"),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let target = Target { file: dir.path().join("a.py"), function: "f".into() };
        let source = Source::find(&target, None).unwrap();
        assert_eq!(source.file, "a.py");
        let archive = source.pack().unwrap();
        assert_eq!(names(&archive), [".env", ".gitignore", "a.py", "sub"]);
        assert_eq!(archive.files, 3);
    }

    #[test]
    fn a_file_outside_the_project_is_refused_with_a_hint() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(one.path().join("a.py"), "").unwrap();
        let target = Target { file: one.path().join("a.py"), function: "f".into() };
        let failure = Source::find(&target, Some(two.path())).unwrap_err().to_string();
        assert!(failure.contains("is not below the project"), "{failure}");
        assert!(failure.contains("hint:"), "{failure}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let target = Target { file: "/nowhere/a.py".into(), function: "f".into() };
        let failure = Source::find(&target, None).unwrap_err().to_string();
        assert!(failure.contains("`/nowhere/a.py` does not exist"), "{failure}");
    }
}
