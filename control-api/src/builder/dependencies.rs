//! What is installed in a build's environment: one line for each distribution, as pip takes them for constraints, after a
//! comment that names the Python. Kept beside the build, so that it can be made again with the same packages when its
//! environment is gone.
//!
//! Read from the names of folders alone. A build script may have written anything into them, so nothing is opened, and a name
//! that is none of a package's is left out: what is kept is given to an installer later.

use std::{fs, io, path::Path};

use crate::data_dir::write_private;

/// In the build's folder.
pub(crate) const FILE: &str = "dependencies.txt";
/// Begins the line about the Python.
const PYTHON: &str = "# Python ";

/// What a build was made with.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// As in `3.12.4`, or ''.
    pub(crate) python: String,
    /// As in `numpy==2.1.0`, sorted.
    pub(crate) packages: Vec<String>,
}

impl Dependencies {
    /// Of an environment's `site-packages`.
    pub(super) fn of(python: &str, site_packages: &Path) -> io::Result<Self> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(site_packages)? {
            let name = entry?.file_name();
            packages.extend(name.to_str().and_then(package));
        }
        packages.sort_unstable();
        packages.dedup();
        Ok(Self { python: python.to_owned(), packages })
    }

    /// Of a build's folder; one that was built before this was kept has none.
    pub(crate) fn read(build_dir: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(build_dir.join(FILE)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let python = text.lines().find_map(|line| line.strip_prefix(PYTHON)).unwrap_or_default().to_owned();
        let packages = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        Ok(Self { python, packages })
    }

    /// Into a build's folder.
    pub(super) fn write(&self, build_dir: &Path) -> io::Result<()> {
        let mut lines = vec![format!("{PYTHON}{}", self.python)];
        lines.extend(self.packages.iter().cloned());
        write_private(&build_dir.join(FILE), (lines.join("\n") + "\n").as_bytes())
    }

    /// How `other` differs, in words: `numpy 1.26.4 → 2.1.0`.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let split = |package: &str| -> (String, String) {
            let (name, version) = package.split_once("==").unwrap_or((package, ""));
            (name.to_owned(), version.to_owned())
        };
        let before: std::collections::BTreeMap<_, _> = self.packages.iter().map(|p| split(p)).collect();
        let after: std::collections::BTreeMap<_, _> = other.packages.iter().map(|p| split(p)).collect();
        let gone_or_changed = before.iter().filter_map(|(name, version)| match after.get(name) {
            Some(now) if now == version => None,
            Some(now) => Some(format!("{name} {version} → {now}")),
            None => Some(format!("{name} {version} is not there")),
        });
        let new = after.iter().filter(|(name, _)| !before.contains_key(*name));
        gone_or_changed.chain(new.map(|(name, version)| format!("{name} {version} is new"))).collect()
    }
}

/// `numpy==2.1.0` of `numpy-2.1.0.dist-info`: neither part has a hyphen of its own there.
fn package(folder: &str) -> Option<String> {
    let (name, version) = folder.strip_suffix(".dist-info")?.rsplit_once('-')?;
    let is_fine = |text: &str, more: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    (is_fine(name, "._-") && is_fine(version, ".!+_")).then(|| format!("{name}=={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_distributions_are_read_and_nothing_else_becomes_a_line() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "scikit_learn-1.5.2.dist-info",
            "torch-2.4.0+cu118.dist-info",
            "numpy",
            "numpy.libs",
            "a b-1.dist-info",
            "--index-url=http:x-1.dist-info",
            "x-1\n--pre.dist-info",
            "x.dist-info",
        ] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = Dependencies::of("3.12.4", dir.path()).unwrap();
        assert_eq!(found.packages, ["scikit_learn==1.5.2", "torch==2.4.0+cu118"]);
        found.write(dir.path()).unwrap();
        assert_eq!(Dependencies::read(dir.path()).unwrap(), found);
        let none = Dependencies::read(&dir.path().join("numpy")).unwrap();
        assert_eq!(none, Dependencies::default());
    }

    #[test]
    fn differences_are_said_by_name() {
        let of = |packages: &[&str]| Dependencies {
            python: String::new(),
            packages: packages.iter().map(|&p| p.to_owned()).collect(),
        };
        let before = of(&["a==1", "b==1", "c==1"]);
        assert_eq!(
            before.differences(&of(&["a==1", "b==2", "d==1"])),
            ["b 1 → 2", "c 1 is not there", "d 1 is new"]
        );
        assert!(before.differences(&before).is_empty());
    }
}
