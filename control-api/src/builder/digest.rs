//! SHA-256 of files. Large ones that are as they were are not read again: what was found is remembered, by what the
//! kernel says of a file, until the server ends. Nobody can set a file's change time, so whoever writes to one is noticed.

use std::{
    collections::HashMap,
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::digest::{Context, SHA256};

use crate::names::hex;

/// Smaller ones are read faster than they are worth remembering.
const REMEMBERED_BYTES_MIN: u64 = 1 << 20;
/// Read at once.
const BUFFER_BYTES_MAX: u64 = 256 * 1024;
/// Files; then it begins anew.
const REMEMBERED_FILES_MAX: usize = 10_000;
/// Clocks of file systems tick every few milliseconds: a file changed twice within one tick looks as if changed once.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// SHA-256 of a file, hexadecimal, and its bytes.
pub(crate) fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    hash(&mut File::open(path)?)
}

fn hash(file: &mut File) -> io::Result<(String, u64)> {
    let mut context = Context::new(&SHA256);
    // Most files of an environment are small: a large buffer for each costs more than reading it.
    let size = file.metadata()?.len().saturating_add(1).min(BUFFER_BYTES_MAX);
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(1)];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hex(context.finish().as_ref()), bytes));
        }
        context.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// What changes whenever a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified_ns: (file.mtime(), file.mtime_nsec()),
            changed_ns: (file.ctime(), file.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let changed =
            Duration::new(self.changed_ns.0.unsigned_abs(), self.changed_ns.1.unsigned_abs() as u32);
        SystemTime::now().duration_since(UNIX_EPOCH + changed).is_ok_and(|age| age > SETTLED_AFTER)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<HashMap<Identity, String>>);

impl Digests {
    /// SHA-256 of a file, hexadecimal, and its bytes; read only when it is not known.
    pub(crate) fn of_file(&self, path: &Path) -> io::Result<(String, u64)> {
        let mut file = File::open(path)?;
        // Before it is read: who writes meanwhile makes it another.
        let identity = Identity::of(&file.metadata()?);
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&identity) {
            return Ok((known.clone(), identity.bytes));
        }
        let (digest, bytes) = hash(&mut file)?;
        if bytes >= REMEMBERED_BYTES_MIN && identity.is_settled() {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED_FILES_MAX {
                known.clear();
            }
            known.insert(identity, digest.clone());
        }
        Ok((digest, bytes))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::FileTimes};

    use super::*;

    /// Only time makes a file settle: one that the system brought has had it.
    fn settled_file() -> &'static Path {
        Path::new("/bin/bash")
    }

    #[test]
    fn a_large_settled_file_is_remembered_and_a_small_or_fresh_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let digests = Digests::default();
        let known = digests.of_file(settled_file()).unwrap();
        assert_eq!(known, hash_file(settled_file()).unwrap());
        assert_eq!(digests.len(), usize::from(known.1 >= REMEMBERED_BYTES_MIN));
        let before = digests.len();
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, vec![7; REMEMBERED_BYTES_MIN as usize]).unwrap();
        digests.of_file(&fresh).unwrap();
        digests.of_file(Path::new("/etc/passwd")).unwrap();
        assert_eq!(digests.len(), before);
    }

    #[test]
    fn a_file_that_was_written_to_is_another_whatever_its_modification_time_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let before = Identity::of(&metadata);
        assert!(!before.is_settled());
        loop {
            fs::write(&path, "two").unwrap();
            let times = FileTimes::new().set_modified(metadata.modified().unwrap());
            File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
            let after = Identity::of(&fs::metadata(&path).unwrap());
            assert_eq!(after.modified_ns, before.modified_ns);
            // Within one tick of the clock the two are alike, which is why files have to settle.
            if after != before {
                return;
            }
        }
    }
}
