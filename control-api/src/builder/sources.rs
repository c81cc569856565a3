//! Sources of builds, kept beside them: each file once, named by its SHA-256, and for each source a list of what it
//! holds, named by the source's hash. So builds of one source share it, a large file that did not change is kept once, and
//! a build that was cleared away can be made again.
//!
//! Only the server reads here, and what it gives out are copies (which share their blocks where the file system can):
//! a script may write to its copy in place. A link to a kept file would have to be of another owner than the script, and
//! then it could not.
//!
//! Nothing is synced: what a power cut leaves half-written does not have the content it is named after, which shows when
//! it is used. It is taken away then, and the next build that has such a file keeps it again.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{
    digest::Digests,
    include::Include,
    snapshot::{self, Ignoring, Item, Kind, SnapshotError, Warning},
};
use crate::names::{self, hex};

/// Why a kept source cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Not kept, or not any more.
    #[error("its source {0} is not kept on this server; build from the project's files as they are now")]
    Missing(String),
    /// The disk lost or changed something of it.
    #[error("{0:?} of its source is not what was kept; build from the project's files as they are now")]
    Damaged(String),
    /// A file could not be read or written.
    #[error("cannot copy {path:?} of its source: {source}")]
    Io {
        /// Which.
        path: String,
        /// How it failed.
        source: io::Error,
    },
}

/// A source that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// SHA-256 over path, kind and content of everything, in the order of paths.
    pub(crate) source_hash: String,
    pub(crate) warnings: Vec<Warning>,
}

/// A source that was copied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// While one is held, what was kept under it stays, though no build's row names it yet.
#[derive(Debug, Clone)]
pub(crate) struct Hold(#[allow(dead_code, reason = "it ends with the value")] Arc<OwnedRwLockReadGuard<()>>);

/// While it is held nothing is kept.
#[derive(Debug)]
pub(crate) struct Sweep(#[allow(dead_code, reason = "it ends with the value")] OwnedRwLockWriteGuard<()>);

/// See the module.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    digests: Digests,
    gate: Arc<RwLock<()>>,
}

/// The list of a source.
#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    format: u32,
    entries: Vec<Entry>,
}

/// One thing in it.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    /// `d`, `l`, `f`, or `x` for a file that is a program.
    kind: String,
    /// The SHA-256 of a file, what a link names, or nothing.
    content: String,
    bytes: u64,
}

impl Tree {
    fn hash(&self) -> String {
        let mut whole = Context::new(&SHA256);
        for entry in &self.entries {
            // Lengths first, so that no two trees write the same bytes.
            for part in [&entry.kind, &entry.path, &entry.content] {
                whole.update(&(part.len() as u64).to_le_bytes());
                whole.update(part.as_bytes());
            }
        }
        hex(whole.finish().as_ref())
    }
}

impl Entry {
    fn is_file(&self) -> bool {
        matches!(self.kind.as_str(), "f" | "x")
    }
}

impl Sources {
    /// In this folder, which is there.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Self> {
        for part in ["blobs", "trees", "partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        Ok(Self { folder, digests: Digests::default(), gate: Arc::default() })
    }

    /// Needed to keep a source until the build's row names it.
    pub(crate) async fn hold(&self) -> Hold {
        Hold(Arc::new(self.gate.clone().read_owned().await))
    }

    /// Needed to clear away what no row names: taken before the rows are read.
    pub(crate) async fn close(&self) -> Sweep {
        Sweep(self.gate.clone().write_owned().await)
    }

    fn blob(&self, sha256: &str) -> PathBuf {
        self.folder.join("blobs").join(sha256)
    }

    fn tree(&self, source_hash: &str) -> PathBuf {
        self.folder.join("trees").join(source_hash)
    }

    /// Puts something together beside its place and moves it there when it is whole.
    fn put(&self, to: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let partial = self.folder.join("partial").join(names::uuid());
        let moved = write(&partial)
            .and_then(|()| fs::set_permissions(&partial, fs::Permissions::from_mode(0o400)))
            .and_then(|()| fs::rename(&partial, to));
        if moved.is_err() {
            let _ = fs::remove_file(&partial);
        }
        moved
    }

    /// Keeps what belongs to a source in `from`. Callers see to it that nothing changes there meanwhile.
    pub(crate) fn keep(&self, _: &Hold, from: &Path, include: &Include) -> Result<Kept, SnapshotError> {
        let mut tree = Tree { format: 1, entries: Vec::new() };
        let listing = snapshot::list(from, include, Ignoring::OwnRules)?;
        for Item { path, kind } in listing.items {
            let (kind, content, bytes) = match kind {
                Kind::Folder => ("d", String::new(), 0),
                Kind::Link(target) => ("l", target, 0),
                Kind::File { is_program } => {
                    let (sha256, bytes) = self
                        .keep_file(&from.join(&path))
                        .map_err(|source| SnapshotError::Io { path: path.clone().into(), source })?;
                    (if is_program { "x" } else { "f" }, sha256, bytes)
                }
            };
            tree.entries.push(Entry { path, kind: kind.to_owned(), content, bytes });
        }
        let source_hash = tree.hash();
        self.keep_tree(&source_hash, &tree)
            .map_err(|source| SnapshotError::Io { path: PathBuf::new(), source })?;
        Ok(Kept { source_hash, warnings: listing.warnings })
    }

    fn keep_file(&self, path: &Path) -> io::Result<(String, u64)> {
        let (sha256, bytes) = self.digests.of_file(path)?;
        let blob = self.blob(&sha256);
        if !fs::metadata(&blob).is_ok_and(|kept| kept.len() == bytes) {
            self.put(&blob, |partial| fs::copy(path, partial).map(drop))?;
        }
        Ok((sha256, bytes))
    }

    fn keep_tree(&self, source_hash: &str, tree: &Tree) -> io::Result<()> {
        let (path, json) = (self.tree(source_hash), serde_json::to_vec(tree)?);
        if fs::read(&path).is_ok_and(|kept| kept == json) {
            return Ok(());
        }
        self.put(&path, |partial| fs::write(partial, json))
    }

    /// True when a list of it is here.
    pub(crate) fn has(&self, source_hash: &str) -> bool {
        !source_hash.is_empty() && self.tree(source_hash).is_file()
    }

    /// Makes `to` of a kept source.
    pub(crate) fn restore(&self, source_hash: &str, to: &Path) -> Result<Restored, RestoreError> {
        let tree = self.read(source_hash)?;
        let io_error = |path: &str| {
            let path = path.to_owned();
            move |source| RestoreError::Io { path, source }
        };
        make_folder(to).map_err(io_error(""))?;
        let mut restored = Restored { files: 0, bytes: 0 };
        for entry in &tree.entries {
            let target = to.join(&entry.path);
            match entry.kind.as_str() {
                "d" => make_folder(&target).map_err(io_error(&entry.path))?,
                "l" => symlink(&entry.content, &target).map_err(io_error(&entry.path))?,
                _ => {
                    self.restore_file(entry, &target)?;
                    restored.files += 1;
                    restored.bytes += entry.bytes;
                }
            }
        }
        Ok(restored)
    }

    fn read(&self, source_hash: &str) -> Result<Tree, RestoreError> {
        let path = self.tree(source_hash);
        let missing = || RestoreError::Missing(source_hash.to_owned());
        let json = fs::read(&path).map_err(|_| missing())?;
        match serde_json::from_slice::<Tree>(&json) {
            Ok(tree) if tree.format == 1 && tree.hash() == source_hash => Ok(tree),
            _ => {
                let _ = fs::remove_file(&path);
                Err(missing())
            }
        }
    }

    fn restore_file(&self, entry: &Entry, target: &Path) -> Result<(), RestoreError> {
        let io_error = |source| RestoreError::Io { path: entry.path.clone(), source };
        let damaged = || RestoreError::Damaged(entry.path.clone());
        let blob = self.blob(&entry.content);
        match self.digests.of_file(&blob) {
            Ok((sha256, _)) if sha256 == entry.content => {}
            Ok(_) => {
                fs::remove_file(&blob).map_err(io_error)?;
                return Err(damaged());
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged()),
            Err(e) => return Err(io_error(e)),
        }
        fs::copy(&blob, target).map_err(io_error)?;
        let mode = if entry.kind == "x" { 0o755 } else { 0o644 };
        fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(io_error)
    }

    /// Clears away every source that is not `used`, every file that is in none, and what was half-written. Safe to be
    /// killed at: lists go before files.
    pub(crate) fn sweep(&self, _: &Sweep, used: &HashSet<String>) -> io::Result<u64> {
        for entry in fs::read_dir(self.folder.join("partial"))? {
            fs::remove_file(entry?.path())?;
        }
        let mut needed = HashSet::new();
        for entry in fs::read_dir(self.folder.join("trees"))? {
            let entry = entry?;
            match entry.file_name().to_str().filter(|hash| used.contains(*hash)).map(|hash| self.read(hash)) {
                Some(Ok(tree)) => {
                    needed.extend(tree.entries.into_iter().filter(Entry::is_file).map(|entry| entry.content));
                }
                // A damaged list went as it was read.
                Some(Err(_)) => {}
                None => fs::remove_file(entry.path())?,
            }
        }
        let mut freed = 0;
        for entry in fs::read_dir(self.folder.join("blobs"))? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|sha256| needed.contains(sha256)) {
                freed += entry.metadata()?.len();
                fs::remove_file(entry.path())?;
            }
        }
        Ok(freed)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        sources: Sources,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let sources = Sources::open(dir.path().join("sources")).unwrap();
            fs::create_dir(dir.path().join("project")).unwrap();
            Self { dir, sources }
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.dir.path().join("project").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        async fn keep(&self) -> String {
            let hold = self.sources.hold().await;
            let from = self.dir.path().join("project");
            self.sources.keep(&hold, &from, &Include::default()).unwrap().source_hash
        }

        fn restore(&self, hash: &str) -> Result<tempfile::TempDir, RestoreError> {
            let to = tempfile::tempdir().unwrap();
            self.sources.restore(hash, &to.path().join("root")).map(|_| to)
        }

        fn kept(&self, part: &str) -> usize {
            fs::read_dir(self.dir.path().join("sources").join(part)).unwrap().count()
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn what_is_restored_is_what_was_kept_and_may_be_written_to() {
        let place = Place::new();
        place.write("d/a.py", "one");
        place.write("run.sh", "two");
        fs::create_dir(place.dir.path().join("project/empty")).unwrap();
        fs::set_permissions(place.dir.path().join("project/run.sh"), fs::Permissions::from_mode(0o700))
            .unwrap();
        symlink("d/a.py", place.dir.path().join("project/l")).unwrap();
        let hash = place.keep().await;
        fs::remove_dir_all(place.dir.path().join("project")).unwrap();
        for _ in 0..2 {
            let to = place.restore(&hash).unwrap();
            let root = to.path().join("root");
            assert_eq!(fs::read_to_string(root.join("l")).unwrap(), "one");
            assert_eq!((mode(&root.join("run.sh")), mode(&root.join("d/a.py"))), (0o755, 0o644));
            assert_eq!((mode(&root), mode(&root.join("empty"))), (0o755, 0o755));
            // The copy of the next round is whole all the same.
            fs::write(root.join("d/a.py"), "spoilt").unwrap();
        }
    }

    #[tokio::test]
    async fn the_hash_is_of_paths_modes_and_contents_and_nothing_else() {
        let one = Place::new();
        one.write("a.py", "x");
        one.write("b/c.py", "y");
        let same = Place::new();
        same.write("b/c.py", "y");
        same.write("a.py", "x");
        let hash = one.keep().await;
        assert_eq!(hash, same.keep().await);
        // As builds of earlier servers have it.
        assert_eq!(hash, "2d78d5198e69d62046042aa671bf0e0d6006edebd9d2663ef38968d2f47e4e31");
        same.write("b/c.py", "z");
        assert_ne!(hash, same.keep().await);
        let other = Place::new();
        other.write("a.py", "x");
        other.write("bc.py", "y");
        assert_ne!(hash, other.keep().await);
        fs::set_permissions(one.dir.path().join("project/a.py"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(hash, one.keep().await);
    }

    #[tokio::test]
    async fn a_file_that_did_not_change_is_kept_once() {
        let place = Place::new();
        place.write("model.pkl", "large");
        place.write("copy.pkl", "large");
        for n in 0..20 {
            place.write("predict.py", &n.to_string());
            place.keep().await;
            place.keep().await;
        }
        assert_eq!((place.kept("trees"), place.kept("blobs"), place.kept("partial")), (20, 21, 0));
    }

    #[tokio::test]
    async fn what_is_damaged_is_never_used_and_is_kept_anew() {
        let place = Place::new();
        place.write("a.py", "good");
        let hash = place.keep().await;
        let blob =
            fs::read_dir(place.dir.path().join("sources/blobs")).unwrap().next().unwrap().unwrap().path();
        for (damage, is_listed) in [("evil", true), ("", true), ("", false)] {
            fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(&blob, damage).unwrap();
            if !is_listed {
                fs::remove_file(&blob).unwrap();
            }
            assert!(matches!(place.restore(&hash), Err(RestoreError::Damaged(path)) if path == "a.py"));
            assert_eq!(place.keep().await, hash);
            place.restore(&hash).unwrap();
        }
        let tree = place.dir.path().join("sources/trees").join(&hash);
        let listed = fs::read_to_string(&tree).unwrap();
        for damaged in [&listed[..listed.len() / 2], &listed.replace("a.py", "../a.py"), ""] {
            fs::remove_file(&tree).unwrap();
            fs::write(&tree, damaged).unwrap();
            assert!(matches!(place.restore(&hash), Err(RestoreError::Missing(_))));
            assert_eq!(place.keep().await, hash);
            place.restore(&hash).unwrap();
        }
    }

    #[tokio::test]
    async fn a_sweep_leaves_what_is_used_and_nothing_else() {
        let place = Place::new();
        place.write("shared", "s");
        place.write("a.py", "1");
        let old = place.keep().await;
        place.write("a.py", "2");
        let new = place.keep().await;
        place.write("../sources/partial/half", "x");
        let sweep = place.sources.close().await;
        assert_eq!(place.sources.sweep(&sweep, &HashSet::from([new.clone()])).unwrap(), 1);
        assert!(place.sources.has(&new) && !place.sources.has(&old));
        assert_eq!((place.kept("trees"), place.kept("blobs"), place.kept("partial")), (1, 2, 0));
        place.restore(&new).unwrap();
        assert!(matches!(place.restore(&old), Err(RestoreError::Missing(_))));
        place.sources.sweep(&sweep, &HashSet::new()).unwrap();
        assert_eq!(place.kept("blobs"), 0);
    }

    #[tokio::test]
    async fn a_sweep_waits_for_what_is_being_kept() {
        let place = Place::new();
        let hold = place.sources.hold().await;
        let closing = place.sources.close();
        tokio::pin!(closing);
        tokio::select! {
            biased;
            _ = &mut closing => panic!("something is being kept"),
            () = tokio::task::yield_now() => {}
        }
        drop(hold);
        closing.await;
    }
}
