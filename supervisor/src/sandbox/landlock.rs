//! Landlock: file rights that hold whatever a file's owner and mode say, and whatever is mounted (landlock(7)).
//!
//! Written to is only what is named as writable, and device files. What is read depends on the root: inside a root of
//! its own everything that is visible was put there to be read; where none could be had, only what would have been put
//! there is. Processes outside, and abstract sockets of theirs, are out of reach where the kernel knows of scopes.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use crate::sys;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// From removing a folder to making a link: what changes a folder.
const CHANGE_DIR: u64 = 0x1ff0;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;

const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
const WRITE: u64 = READ | WRITE_FILE | CHANGE_DIR | REFER | TRUNCATE;
/// What a file can have, as opposed to a folder.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
const DEVICES: u64 = READ | WRITE_FILE | TRUNCATE | IOCTL_DEV;

const BENEATH_PATH: i32 = 1;

const SCOPES: u64 = 0b11;
/// The first version with scopes.
const SCOPES_VERSION: u32 = 6;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// What may be done where.
#[derive(Debug)]
pub(super) struct Rights<'a> {
    /// Read from and executed.
    pub(super) readable: Vec<&'a Path>,
    /// Written to as well.
    pub(super) writable: Vec<&'a Path>,
    /// Holds the devices.
    pub(super) devices: &'a Path,
}

/// Restricts the calling thread, and all that it will start, for good. Names what of it the kernel does not know.
/// `no_new_privs` must be set.
pub(super) fn restrict(rights: &Rights<'_>) -> io::Result<Vec<String>> {
    let version = version()?;
    let handled = handled_by(version);
    let ruleset = create(version, handled)?;
    let groups = [(&rights.readable, READ), (&rights.writable, WRITE), (&vec![rights.devices], DEVICES)];
    for (paths, access) in groups {
        for path in paths {
            allow(&ruleset, path, access & handled)?;
        }
    }
    // SAFETY: an integer and a descriptor that is open; no memory of ours is touched.
    sys::check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    let has_scopes = version >= SCOPES_VERSION;
    Ok((!has_scopes)
        .then(|| format!("scopes of signals and abstract sockets: Landlock is of version {version}"))
        .into_iter()
        .collect())
}

fn version() -> io::Result<u32> {
    const ASK_VERSION: u32 = 1;
    let nothing = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag the kernel reads no ruleset and answers its version.
    let version = sys::check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, ASK_VERSION)
    })?;
    u32::try_from(version).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A right that the kernel does not know of must not be asked for.
fn handled_by(version: u32) -> u64 {
    let since = |first: u32, right: u64| if version >= first { right } else { 0 };
    READ | WRITE_FILE | CHANGE_DIR | since(2, REFER) | since(3, TRUNCATE) | since(5, IOCTL_DEV)
}

fn create(version: u32, handled_access_fs: u64) -> io::Result<OwnedFd> {
    let ruleset = Ruleset { handled_access_fs, handled_access_net: 0, scoped: SCOPES };
    let bytes = match version {
        0..4 => 8,
        4..SCOPES_VERSION => 16,
        _ => size_of::<Ruleset>(),
    };
    // SAFETY: the kernel reads `bytes` of the ruleset, which has at least as many.
    let fd = sys::check(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, bytes, 0)
    })?;
    // SAFETY: the call returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?) })
}

/// What is not there, or cannot be reached, needs no right.
fn allow(ruleset: &OwnedFd, path: &Path, access: u64) -> io::Result<()> {
    let Ok(file) = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path) else {
        return Ok(());
    };
    let access = if file.metadata()?.is_dir() { access } else { access & OF_FILES };
    let rule = PathBeneath { allowed_access: access, parent_fd: file.as_raw_fd() };
    // SAFETY: the rule lives through the call, and its descriptor is open.
    sys::check(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), BENEATH_PATH, &raw const rule, 0)
    })
    .map(drop)
}

/// Paths as the rules take them.
pub(super) fn each<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<&'a Path> {
    paths.into_iter().map(PathBuf::as_path).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Landlock holds for the thread that asks for it, so that a test can have it for itself.
    fn confined<T: Send>(rights: &Rights<'_>, act: impl FnOnce() -> T + Send) -> Option<T> {
        if version().is_err() {
            return None;
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().unwrap();
                restrict(rights).unwrap();
                act()
            });
            Some(thread.join().unwrap())
        })
    }

    #[test]
    fn only_what_is_named_can_be_read_and_only_what_is_writable_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["readable", "writable", "neither"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), "old").unwrap();
        }
        let (readable, writable) = (at("readable"), at("writable"));
        let rights =
            Rights { readable: vec![&readable], writable: vec![&writable], devices: Path::new("/dev") };
        let outcome = confined(&rights, || {
            let read = |name: &str| fs::read(at(name).join("file")).is_ok();
            let write = |name: &str| fs::write(at(name).join("file"), "new").is_ok();
            let make = |name: &str| fs::create_dir(at(name).join("dir")).is_ok();
            let moved = fs::rename(at("writable/file"), at("writable/dir/file")).is_ok();
            let all = |act: &dyn Fn(&str) -> bool| ["readable", "writable", "neither"].map(act);
            (all(&read), all(&write), all(&make), moved, fs::write("/dev/null", "x").is_ok())
        });
        let Some((read, write, make, moved_early, device)) = outcome else { return };
        assert_eq!(read, [true, true, false]);
        assert_eq!(write, [false, true, false]);
        assert_eq!(make, [false, true, false]);
        assert!(!moved_early, "the folder was not there yet");
        assert!(device);
        assert_eq!(fs::read_to_string(at("neither/file")).unwrap(), "old");
    }

    #[test]
    fn no_right_is_asked_for_that_an_older_kernel_does_not_know() {
        assert_eq!(handled_by(1), 0x1fff);
        assert_eq!(handled_by(2), 0x3fff);
        assert_eq!(handled_by(3), 0x7fff);
        assert_eq!(handled_by(4), 0x7fff);
        assert_eq!(handled_by(7), 0xffff);
    }
}
