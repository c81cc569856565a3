//! The seal of a build: every file it holds with its hash, and the hash of that list, which is the build's own.
//! A start checks the list and each file's size; contents were hashed when the build was sealed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::digest::hash_file;
use crate::{data_dir::write_private, names::hex};

/// The list's name in the build's folder.
pub(crate) const FILE: &str = "manifest.json";
/// Written last: a folder without it is not a build.
const SEALED: &str = ".sealed";
/// What belongs to a build.
const PARTS: [&str; 2] = ["root", "venv"];

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    files: Vec<Entry>,
}

/// One file: path, bytes, SHA-256; for a link what it names instead of a hash.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<PathBuf>,
}

/// Hashes everything, writes the list, answers its hash.
pub(crate) fn seal(build_dir: &Path) -> io::Result<String> {
    let mut manifest = Manifest { format: 1, files: Vec::new() };
    for part in PARTS {
        collect(build_dir, &build_dir.join(part), &mut manifest.files)?;
    }
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    let json = serde_json::to_vec(&manifest)?;
    let hash = hex(digest(&SHA256, &json).as_ref());
    write_private(&build_dir.join(FILE), &json)?;
    write_private(&build_dir.join(SEALED), hash.as_bytes())?;
    Ok(hash)
}

fn collect(base: &Path, folder: &Path, files: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        let relative = path.strip_prefix(base).expect("found below it").to_owned();
        if kind.is_dir() {
            collect(base, &path, files)?;
        } else if kind.is_symlink() {
            let link = Some(fs::read_link(&path)?);
            files.push(Entry { path: relative, bytes: 0, sha256: String::new(), link });
        } else {
            let (sha256, bytes) = hash_file(&path)?;
            files.push(Entry { path: relative, bytes, sha256, link: None });
        }
    }
    Ok(())
}

/// The files of a sealed build's root, by their paths there: the hash of each, or what a link names.
pub(crate) fn model_files(build_dir: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(build_dir.join(FILE))?)?;
    let files = manifest.files.into_iter().filter_map(|entry| {
        let path = entry.path.strip_prefix(PARTS[0]).ok()?.to_owned();
        Some((path, entry.link.map_or(entry.sha256, |link| link.display().to_string())))
    });
    Ok(files.collect())
}

/// Checks that a build is as it was sealed: the list by its hash, each file by its size.
pub(crate) fn check(build_dir: &Path, build_hash: &str) -> Result<(), String> {
    let json = fs::read(build_dir.join(FILE)).map_err(|e| format!("its manifest cannot be read: {e}"))?;
    if hex(digest(&SHA256, &json).as_ref()) != build_hash {
        return Err("its manifest was changed".to_owned());
    }
    let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    for entry in &manifest.files {
        let path = build_dir.join(&entry.path);
        let is_same = match (&entry.link, fs::symlink_metadata(&path)) {
            (Some(link), Ok(_)) => fs::read_link(&path).is_ok_and(|now| now == *link),
            (None, Ok(now)) => now.is_file() && now.len() == entry.bytes,
            (_, Err(_)) => false,
        };
        if !is_same {
            return Err(format!("`{}` was changed or removed", entry.path.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_build_passes_its_check_and_a_changed_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/d")).unwrap();
        fs::create_dir_all(dir.path().join("venv/bin")).unwrap();
        fs::write(dir.path().join("root/d/a.py"), "x").unwrap();
        std::os::unix::fs::symlink("/usr/bin/python3", dir.path().join("venv/bin/python")).unwrap();
        let hash = seal(dir.path()).unwrap();
        assert_eq!(hash, seal(dir.path()).unwrap());
        check(dir.path(), &hash).unwrap();
        assert!(check(dir.path(), "00").unwrap_err().contains("manifest was changed"));
        fs::write(dir.path().join("root/d/a.py"), "longer").unwrap();
        assert!(check(dir.path(), &hash).unwrap_err().contains("a.py"));
        fs::remove_file(dir.path().join("root/d/a.py")).unwrap();
        assert!(check(dir.path(), &hash).is_err());
    }
}
