//! Which folders a Python interpreter needs: its environment, and the installation that the environment is of.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The environment of `python` (`…/bin/python`) and every installation behind it, found by `pyvenv.cfg` and by
/// following links. A folder counts only when it holds `lib/python3.*`: an interpreter that lies in somebody's home
/// must not lay the home open.
pub(super) fn prefixes(python: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut programs = vec![python.to_owned()];
    programs.extend(fs::canonicalize(python));
    if let Some(environment) = prefix_of(python)
        && let Ok(text) = fs::read_to_string(environment.join("pyvenv.cfg"))
        && let Some(home) = home_in(&text)
    {
        programs.push(home.join("python"));
        // The folder may be reached by links as well.
        programs.extend(fs::canonicalize(&home).map(|home| home.join("python")));
    }
    for prefix in programs.iter().filter_map(|program| prefix_of(program)) {
        if holds_python(prefix) && !found.iter().any(|known| known == prefix) {
            found.push(prefix.to_owned());
        }
    }
    found
}

fn prefix_of(program: &Path) -> Option<&Path> {
    program.parent()?.parent().filter(|prefix| *prefix != Path::new("/"))
}

fn home_in(text: &str) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "home").then(|| PathBuf::from(value.trim()))
    })
}

fn holds_python(prefix: &Path) -> bool {
    fs::read_dir(prefix.join("lib")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_leads_to_its_installation() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("opt/py/bin")).unwrap();
        fs::create_dir_all(at("opt/py/lib/python3.11")).unwrap();
        fs::write(at("opt/py/bin/python3.11"), "").unwrap();
        fs::create_dir_all(at("venv/bin")).unwrap();
        fs::create_dir_all(at("venv/lib/python3.11")).unwrap();
        std::os::unix::fs::symlink(at("opt/py/bin/python3.11"), at("venv/bin/python")).unwrap();
        fs::write(at("venv/pyvenv.cfg"), format!("home = {}\nversion = 3.11\n", at("opt/py/bin").display()))
            .unwrap();
        assert_eq!(prefixes(&at("venv/bin/python")), [at("venv"), at("opt/py")]);
    }

    #[test]
    fn a_home_with_an_interpreter_in_its_bin_is_not_laid_open() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/python"), "").unwrap();
        assert_eq!(prefixes(&dir.path().join("bin/python")), Vec::<PathBuf>::new());
    }
}
