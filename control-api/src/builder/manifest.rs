//! The seal of a build: every file it holds with its hash, and the hash of that list, which is the build's own.
//! A start checks the list, and each file's size and times. Contents were hashed when the build was sealed and are from time
//! to time (`rounds`); a file whose times are others than then, as in a copy of the data directory, is hashed once more.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
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
/// What the kernel said of each file when its content was last read. It is no part of what is sealed: the same content has
/// the same seal, whenever it was made.
const TIMES: &str = "times.json";
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

/// When a file's content and when anything of it changed, in Unix nanoseconds; zeros for a link. Nobody sets the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct FileTimes(i64, i64);

impl FileTimes {
    fn of(file: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Self(ns(file.mtime(), file.mtime_nsec()), ns(file.ctime(), file.ctime_nsec()))
    }
}

/// Of all files, in the order of the list.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Times {
    /// Of which list.
    build_hash: String,
    files: Vec<FileTimes>,
}

impl Times {
    /// None where there are none for this list: then contents are read.
    fn read(build_dir: &Path, build_hash: &str) -> Self {
        let json = fs::read(build_dir.join(TIMES)).unwrap_or_default();
        let times: Self = serde_json::from_slice(&json).unwrap_or_default();
        if times.build_hash == build_hash { times } else { Self::default() }
    }

    fn write(&self, build_dir: &Path) -> io::Result<()> {
        // Neither synced nor moved into place: half of it is as good as none.
        let path = build_dir.join(TIMES);
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec(self)?)
    }
}

/// Hashes everything, writes the list, answers its hash.
pub(crate) fn seal(build_dir: &Path) -> io::Result<String> {
    let mut paths = Vec::new();
    for part in PARTS {
        list(&build_dir.join(part), &mut paths)?;
    }
    let mut found = read_all(build_dir, &paths)?;
    found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let (files, times): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    let json = serde_json::to_vec(&Manifest { format: 1, files })?;
    let hash = hex(digest(&SHA256, &json).as_ref());
    write_private(&build_dir.join(FILE), &json)?;
    Times { build_hash: hash.clone(), files: times }.write(build_dir)?;
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
fn read_all(base: &Path, paths: &[PathBuf]) -> io::Result<Vec<(Entry, FileTimes)>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut entries = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            entries.push(read(base, path)?);
        }
        Ok(entries)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts: Vec<io::Result<Vec<(Entry, FileTimes)>>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|thread| thread.join().expect("reading does not panic"));
        std::iter::once(own).chain(others).collect()
    });
    parts.into_iter().collect::<io::Result<Vec<_>>>().map(|parts| parts.into_iter().flatten().collect())
}

fn read(base: &Path, path: &Path) -> io::Result<(Entry, FileTimes)> {
    let relative = path.strip_prefix(base).expect("found below it").to_owned();
    if path.is_symlink() {
        let link = Some(fs::read_link(path)?);
        return Ok((Entry { path: relative, bytes: 0, sha256: String::new(), link }, FileTimes::default()));
    }
    // Before it is read, so that a change meanwhile shows.
    let times = FileTimes::of(&fs::symlink_metadata(path)?);
    let (sha256, bytes) = hash_file(path)?;
    Ok((Entry { path: relative, bytes, sha256, link: None }, times))
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

/// Checks that a build is as it was sealed: the list by its hash, each file by its size and its times. What has other times
/// than when it was read is read, once.
pub(crate) fn check(build_dir: &Path, build_hash: &str) -> Result<(), String> {
    let known = Times::read(build_dir, build_hash);
    let now = compare(build_dir, build_hash, &known, |path| hash_file(path).map(|(sha256, _)| sha256))?;
    if now != known.files {
        note(build_dir, build_hash, now);
    }
    Ok(())
}

/// Checks that a build is as it was sealed by every content, whatever the times say.
pub(crate) fn check_contents(build_dir: &Path, build_hash: &str) -> Result<(), String> {
    read_again(build_dir, build_hash, |path| hash_file(path).map(|(sha256, _)| sha256))
}

/// The same, each content hashed by `hash`.
pub(crate) fn read_again(
    build_dir: &Path,
    build_hash: &str,
    hash: impl FnMut(&Path) -> io::Result<String>,
) -> Result<(), String> {
    let now = compare(build_dir, build_hash, &Times::default(), hash)?;
    note(build_dir, build_hash, now);
    Ok(())
}

fn note(build_dir: &Path, build_hash: &str, files: Vec<FileTimes>) {
    // Without it the next start reads again, which is slower and no less right.
    if let Err(error) = (Times { build_hash: build_hash.to_owned(), files }).write(build_dir) {
        tracing::warn!(folder = %build_dir.display(), %error, "cannot note that a build was checked");
    }
}

/// Answers the times of all files now; what differs from `known` has had its content hashed.
fn compare(
    build_dir: &Path,
    build_hash: &str,
    known: &Times,
    mut hash: impl FnMut(&Path) -> io::Result<String>,
) -> Result<Vec<FileTimes>, String> {
    let json = fs::read(build_dir.join(FILE)).map_err(|e| format!("its manifest cannot be read: {e}"))?;
    if hex(digest(&SHA256, &json).as_ref()) != build_hash {
        return Err("its manifest was changed".to_owned());
    }
    let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
    let mut times = Vec::with_capacity(manifest.files.len());
    for (at, entry) in manifest.files.iter().enumerate() {
        let path = build_dir.join(&entry.path);
        let changed = || format!("`{}` was changed or removed", entry.path.display());
        let now = fs::symlink_metadata(&path).map_err(|_| changed())?;
        if let Some(link) = &entry.link {
            if !fs::read_link(&path).is_ok_and(|now| now == *link) {
                return Err(changed());
            }
            times.push(FileTimes::default());
            continue;
        }
        if !now.is_file() || now.len() != entry.bytes {
            return Err(changed());
        }
        let now = FileTimes::of(&now);
        if known.files.get(at) != Some(&now) {
            let sha256 =
                hash(&path).map_err(|e| format!("`{}` cannot be read: {e}", entry.path.display()))?;
            if sha256 != entry.sha256 {
                return Err(format!("`{}` has another content", entry.path.display()));
            }
        }
        times.push(now);
    }
    Ok(times)
}

/// Has the times be those of now, whatever the contents are: so it is when a disk loses some.
#[cfg(test)]
pub(crate) fn pretend_read(build_dir: &Path, build_hash: &str) {
    let manifest: Manifest = serde_json::from_slice(&fs::read(build_dir.join(FILE)).unwrap()).unwrap();
    let times = |entry: &Entry| match entry.link {
        Some(_) => FileTimes::default(),
        None => FileTimes::of(&fs::symlink_metadata(build_dir.join(&entry.path)).unwrap()),
    };
    note(build_dir, build_hash, manifest.files.iter().map(times).collect());
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A build of a file and a link.
    fn build() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/d")).unwrap();
        fs::create_dir_all(dir.path().join("venv/bin")).unwrap();
        fs::write(dir.path().join("root/d/a.py"), "good").unwrap();
        std::os::unix::fs::symlink("/usr/bin/python3", dir.path().join("venv/bin/python")).unwrap();
        dir
    }

    /// What a check says, and how many files it reads.
    fn checked(dir: &Path, hash: &str) -> (Result<(), String>, usize) {
        let reads = Cell::new(0);
        let known = Times::read(dir, hash);
        let result = compare(dir, hash, &known, |path| {
            reads.set(reads.get() + 1);
            hash_file(path).map(|(sha256, _)| sha256)
        });
        (result.map(drop), reads.get())
    }

    /// Writes until the clock of the file system has moved on from the sealing.
    fn write_later(path: &Path, text: &str) {
        let before = FileTimes::of(&fs::metadata(path).unwrap());
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        while FileTimes::of(&fs::metadata(path).unwrap()) == before {
            fs::write(path, text).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
        }
    }

    #[test]
    fn a_sealed_build_passes_its_check_unread_and_a_changed_one_does_not() {
        let dir = build();
        let hash = seal(dir.path()).unwrap();
        assert_eq!(hash, seal(dir.path()).unwrap());
        assert_eq!(checked(dir.path(), &hash), (Ok(()), 0));
        assert!(check(dir.path(), "00").unwrap_err().contains("manifest was changed"));
        fs::write(dir.path().join("root/d/a.py"), "longer").unwrap();
        assert!(check(dir.path(), &hash).unwrap_err().contains("a.py"));
        fs::remove_file(dir.path().join("root/d/a.py")).unwrap();
        assert!(check(dir.path(), &hash).is_err());
    }

    #[test]
    fn a_content_that_was_changed_behind_its_size_and_modification_time_is_noticed() {
        let dir = build();
        let hash = seal(dir.path()).unwrap();
        write_later(&dir.path().join("root/d/a.py"), "evil");
        assert_eq!(check(dir.path(), &hash).unwrap_err(), "`root/d/a.py` has another content");
        write_later(&dir.path().join("root/d/a.py"), "good");
        check(dir.path(), &hash).unwrap();
    }

    #[test]
    fn a_copy_of_a_build_is_read_once_and_then_known() {
        let (dir, copy) = (build(), build());
        let hash = seal(dir.path()).unwrap();
        for name in [FILE, TIMES, SEALED] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        write_later(&copy.path().join("root/d/a.py"), "good");
        assert_eq!(checked(copy.path(), &hash), (Ok(()), 1));
        check(copy.path(), &hash).unwrap();
        assert_eq!(checked(copy.path(), &hash), (Ok(()), 0));
    }

    #[test]
    fn times_that_are_missing_damaged_or_of_another_build_count_for_nothing() {
        let dir = build();
        let hash = seal(dir.path()).unwrap();
        for text in ["", "{}", r#"{"build_hash": "00", "files": []}"#, "[[1,1]]"] {
            fs::write(dir.path().join(TIMES), text).unwrap();
            assert_eq!(checked(dir.path(), &hash), (Ok(()), 1), "{text}");
        }
        check(dir.path(), &hash).unwrap();
        assert_eq!(checked(dir.path(), &hash), (Ok(()), 0));
    }

    #[test]
    fn contents_are_read_whatever_the_times_say() {
        let dir = build();
        let hash = seal(dir.path()).unwrap();
        let file = dir.path().join("root/d/a.py");
        write_later(&file, "evil");
        pretend_read(dir.path(), &hash);
        assert_eq!(checked(dir.path(), &hash), (Ok(()), 0));
        assert_eq!(check_contents(dir.path(), &hash).unwrap_err(), "`root/d/a.py` has another content");
        write_later(&file, "good");
        check_contents(dir.path(), &hash).unwrap();
        assert_eq!(checked(dir.path(), &hash), (Ok(()), 0));
    }
}
