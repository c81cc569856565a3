//! A Python's minor version, and where one is named: in what a build asks for, and in the environment it was given.

use std::{fmt, fs, io::Read, path::Path, str::FromStr};

/// Bytes of a `pyvenv.cfg` that are read: a build script may have written anything there.
const CONFIG_BYTES_MAX: u64 = 16 << 10;

/// `3.11`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Minor(u8);

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.0)
    }
}

impl FromStr for Minor {
    type Err = ();

    /// Of `3.11` and of `3.11.7`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.trim().strip_prefix("3.").ok_or(())?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().map(Self).map_err(|_| ())
    }
}

impl Minor {
    /// What a kernel or a runtime identifier names: `Python 3.11`, `…/workbench-python3.11-standard:2024.05`. A version
    /// counts only behind the word: images have versions of their own.
    pub(crate) fn named_in(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        name.match_indices("python").find_map(|(at, word)| {
            name[at + word.len()..].trim_start_matches([' ', '-', '_', ':']).parse().ok()
        })
    }

    /// What an environment is of. One without a readable `pyvenv.cfg` says nothing.
    pub(crate) fn of_environment(venv: &Path) -> Option<Self> {
        let mut config = String::new();
        let file = fs::File::open(venv.join("pyvenv.cfg")).ok()?;
        file.take(CONFIG_BYTES_MAX).read_to_string(&mut config).ok()?;
        config.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            matches!(key.trim(), "version" | "version_info").then(|| value.parse().ok())?
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_version_is_found_behind_the_word_and_nowhere_else() {
        for (name, minor) in [
            ("Python 3.12", Some(12)),
            ("python3.9", Some(9)),
            ("docker.example.org/cml/ml-runtime-workbench-python3.11-standard:2023.12.1-b8", Some(11)),
            ("registry.example.org:5003.3/python-3.10:1", Some(10)),
            ("Python 3", None),
            ("", None),
            ("runtime-r4.1:3.12", None),
            ("pbj-python3-standard:3.11", None),
            ("python 2.7", None),
            ("python3.999", None),
            ("python/python3.13", Some(13)),
        ] {
            assert_eq!(Minor::named_in(name), minor.map(Minor), "{name}");
        }
    }

    #[test]
    fn an_environment_says_its_version_in_either_tools_words() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Minor::of_environment(dir.path()), None);
        for (text, minor) in [
            ("home = /usr/bin\nversion = 3.11.7\n", Some(11)),
            ("home = /usr/bin\nversion_info = 3.12.1.final.0\n", Some(12)),
            ("version = unknown\n", None),
        ] {
            fs::write(dir.path().join("pyvenv.cfg"), text).unwrap();
            assert_eq!(Minor::of_environment(dir.path()), minor.map(Minor), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_without_harm(name in ".{0,80}", minor in 0_u8..) {
            Minor::named_in(&name);
            prop_assert_eq!(Minor::named_in(&format!("x/python{}-standard", Minor(minor))), Some(Minor(minor)));
            prop_assert_eq!(Minor(minor).to_string().parse(), Ok(Minor(minor)));
        }
    }
}
