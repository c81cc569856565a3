//! The Python SDK of this server, part of the program: what a function file imports (`cdsw`, `cml`).

use std::{fs, io, path::Path};

/// Files below the SDK's root: path and content.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Every file: path and content.
pub(crate) fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    FILES.iter().copied()
}

/// Writes the SDK into a folder of `sys.path`, such as an environment's `site-packages`.
pub fn unpack(folder: &Path) -> io::Result<()> {
    for (path, content) in FILES {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(target, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_function_files_import_is_part_of_the_program() {
        let dir = tempfile::tempdir().unwrap();
        unpack(dir.path()).unwrap();
        let output = std::process::Command::new("python3")
            .args(["-c", "import cdsw; from cml.models_v1 import cml_model; print(callable(cml_model))"])
            .env("PYTHONPATH", dir.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "True", "{output:?}");
    }
}
