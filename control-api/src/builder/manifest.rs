//! The seal of a build: every file it holds with its hash, and the hash of that list, which is the build's own.
//! A start checks the list and each file's size; contents were hashed when the build was sealed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
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
    let mut paths = Vec::new();
    for part in PARTS {
        list(&build_dir.join(part), &mut paths)?;
    }
    let mut manifest = Manifest { format: 1, files: read_all(build_dir, &paths)? };
    manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    let json = serde_json::to_vec(&manifest)?;
    let hash = hex(digest(&SHA256, &json).as_ref());
    write_private(&build_dir.join(FILE), &json)?;
    write_private(&build_dir.join(SEALED), hash.as_bytes())?;
    Ok(hash)
}

/// Everything that is no folder.
fn list(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), paths)?;
        } else {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// Reads on all processors: hashing is what sealing takes long for.
fn read_all(base: &Path, paths: &[PathBuf]) -> io::Result<Vec<Entry>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut entries = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            entries.push(read(base, path)?);
        }
        Ok(entries)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<io::Result<Vec<Entry>>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|thread| thread.join().expect("reading does not panic"));
        std::iter::once(own).chain(others).collect()
    });
    parts.into_iter().collect::<io::Result<Vec<_>>>().map(|parts| parts.into_iter().flatten().collect())
}

fn read(base: &Path, path: &Path) -> io::Result<Entry> {
    let relative = path.strip_prefix(base).expect("found below it").to_owned();
    if path.is_symlink() {
        let link = Some(fs::read_link(path)?);
        return Ok(Entry { path: relative, bytes: 0, sha256: String::new(), link });
    }
    let (sha256, bytes) = hash_file(path)?;
    Ok(Entry { path: relative, bytes, sha256, link: None })
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
