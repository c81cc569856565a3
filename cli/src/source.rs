//! The source of a deployment: the files below a folder that git does not ignore, and those that are asked for, as one tar
//! archive. What a source is not to hold is refused before anything is sent.

use std::{
    io::Seek,
    path::{Path, PathBuf},
};

use millgate_control_api::{Ignoring, Include, Kind, Warning, list_source};
use tempfile::SpooledTempFile;

use crate::{
    args::Target,
    failure::{Context, Failure},
};

/// A larger archive is written to a file on its way.
const ARCHIVE_IN_MEMORY_BYTES_MAX: usize = 64 << 20;

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
    pub(crate) tar: SpooledTempFile,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// What was left out, and may be needed.
    pub(crate) warnings: Vec<String>,
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
    pub(crate) fn pack(&self, include: &[String]) -> Result<Archive, Failure> {
        let include = Include::parse(include).map_err(|cause| {
            Failure::usage(format!("`--include`: {cause}"))
                .hint("give patterns as in `.gitignore`, as in `--include models/model.pkl`")
        })?;
        let listing = list_source(&self.folder, &include, Ignoring::AllRules).map_err(|cause| {
            Failure::new(cause.to_string()).hint("or name it in `.gitignore`, so that it is left out")
        })?;
        if let Some(Warning::Matchless(pattern)) =
            listing.warnings.iter().find(|warning| matches!(warning, Warning::Matchless(_)))
        {
            return Err(Failure::usage(format!("`--include {pattern}` matches no file")).hint(format!(
                "patterns are relative to the project, which is `{}`",
                self.folder.display()
            )));
        }
        // Small ones stay in memory; a model of gigabytes need not fit there.
        let mut tar = tar::Builder::new(SpooledTempFile::new(ARCHIVE_IN_MEMORY_BYTES_MAX));
        tar.follow_symlinks(false);
        let (mut files, mut bytes) = (0, 0);
        for item in &listing.items {
            let path = self.folder.join(&item.path);
            let what = format!("cannot pack `{}`", path.display());
            if matches!(item.kind, Kind::File { .. }) {
                files += 1;
                bytes += path.symlink_metadata().context(&what)?.len();
            }
            tar.append_path_with_name(&path, &item.path).context(&what)?;
        }
        let mut tar = tar.into_inner().context("cannot pack the project")?;
        tar.rewind().context("cannot pack the project")?;
        let warnings = listing.warnings.iter().map(Warning::to_string).collect();
        Ok(Archive { tar, files, bytes, warnings })
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

    fn names(archive: Archive) -> Vec<String> {
        let mut reader = tar::Archive::new(archive.tar);
        reader.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    /// A folder with these files, and the source of `a.py` in it.
    fn source(files: &[&str]) -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "*.pkl\n").unwrap();
        }
        let target = Target { file: dir.path().join("a.py"), function: "f".into() };
        let source = Source::find(&target, None).unwrap();
        assert_eq!(source.file, "a.py");
        (dir, source)
    }

    #[test]
    fn ignored_files_and_git_are_left_out_and_hidden_ones_kept() {
        let (_dir, source) =
            source(&[".gitignore", "a.py", "m.pkl", ".git/HEAD", "sub/.git/HEAD", ".env", ".ignore"]);
        let archive = source.pack(&[]).unwrap();
        assert_eq!(archive.files, 4);
        assert_eq!(names(archive), [".env", ".gitignore", ".ignore", "a.py", "sub"]);
        assert_eq!(names(source.pack(&["m.pkl".to_owned()]).unwrap())[4], "m.pkl");
    }

    #[test]
    fn a_large_ignored_file_is_named_and_a_pattern_without_a_file_refused() {
        let (dir, source) = source(&[".gitignore", "a.py"]);
        std::fs::File::create(dir.path().join("m.pkl")).unwrap().set_len(60_000_000).unwrap();
        let warnings = source.pack(&[]).unwrap().warnings;
        assert!(warnings[0].contains("--include 'm.pkl'"), "{warnings:?}");
        for pattern in ["n.pkl", "!m.pkl"] {
            let failure = source.pack(&[pattern.to_owned()]).map(|a| a.files).unwrap_err();
            assert_eq!(failure.code, crate::failure::ExitCode::Usage);
            assert!(failure.to_string().contains("hint:"), "{failure}");
        }
    }

    #[test]
    fn what_a_source_is_not_to_hold_is_refused_before_anything_is_sent() {
        let (dir, source) = source(&["a.py"]);
        nix::unistd::mkfifo(&dir.path().join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = source.pack(&[]).map(|a| a.files).unwrap_err().to_string();
        assert!(failure.contains("\"p\" is not a file") && failure.contains("hint:"), "{failure}");
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
