//! A root file system of the program's own, in a mount namespace of its own: the system's programs and libraries, the
//! interpreter, the build, a private `/tmp`, its own `/proc`, six devices. Nothing else has a name in there.
//!
//! Folders on the way to a bound one are made anew, empty and open to all, so that an interpreter below a home that
//! others cannot enter is no obstacle, and the rest of that home is not there.

use std::{
    ffi::CString,
    fmt::Write,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, pivot_root},
};

use super::{Bind, Root};
use crate::{
    limits::{TMP_BYTES_MAX, TMP_FILES_MAX},
    sys,
};

const SYSTEM: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys/devices/system"];
/// What programs read in `/etc`; nothing that another program's configuration or a secret could be in.
const ETC: [&str; 21] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "gai.conf",
    "host.conf",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Why there is no root of its own.
#[derive(Debug, thiserror::Error)]
#[error("{step} `{}`: {source}", .path.display())]
pub(super) struct RootError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn at<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> RootError {
    move |source| RootError { step, path: path.to_owned(), source: source.into() }
}

/// What of the host every program may read.
pub(super) fn of_the_system() -> impl Iterator<Item = PathBuf> {
    SYSTEM.iter().map(PathBuf::from).chain(ETC.iter().map(|name| Path::new("/etc").join(name)))
}

/// Makes the root and moves into it. Names what of it could not be had.
///
/// An error leaves the process outside, in a mount namespace of its own whose mounts nobody else sees.
pub(super) fn enter(root: &Root) -> Result<Vec<String>, RootError> {
    let top = root.staging.as_path();
    unshare(CloneFlags::CLONE_NEWNS).map_err(at("mount namespace for", top))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(at("make private", top))?;
    mount_tmpfs(top, "mode=0755,size=4m,nr_inodes=16384", MsFlags::empty())?;
    let mut missing = Vec::new();
    for path in SYSTEM {
        show_system(top, Path::new(path))?;
    }
    for name in ETC {
        let path = Path::new("/etc").join(name);
        if path.exists() {
            show(top, &Bind::read_only(&path))?;
        }
    }
    write_users(top, root)?;
    make_devices(top)?;
    if let Err(error) = mount_proc(top) {
        missing.push(format!("/proc of its own: {error}"));
    }
    let bounds = format!("mode=1777,size={TMP_BYTES_MAX},nr_inodes={TMP_FILES_MAX}");
    mount_tmpfs(&inside(top, Path::new("/tmp")), &bounds, MsFlags::empty())?;
    make_dir(&inside(top, Path::new("/var")))?;
    symlink("/tmp", top.join("var/tmp")).map_err(at("link", Path::new("/var/tmp")))?;
    for bind in &root.binds {
        show(top, bind)?;
    }
    move_into(top)?;
    Ok(missing)
}

fn move_into(top: &Path) -> Result<(), RootError> {
    chdir(top).map_err(at("enter", top))?;
    // The old root is put over the new one and then taken off: no folder is needed to put it in.
    pivot_root(".", ".").map_err(at("pivot to", top))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at("leave the old root of", top))?;
    let slash = Path::new("/");
    chdir(slash).map_err(at("enter", slash))?;
    let flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, slash, None::<&str>, flags, None::<&str>).map_err(at("make read-only", slash))
}

fn inside(top: &Path, path: &Path) -> PathBuf {
    top.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_dir(path: &Path) -> Result<(), RootError> {
    fs::create_dir_all(path).map_err(at("make", path))
}

fn mount_tmpfs(path: &Path, options: &str, more: MsFlags) -> Result<(), RootError> {
    make_dir(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | more;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options))
        .map_err(at("mount a memory file system on", path))
}

/// `/bin` is a folder on some systems and a link to `usr/bin` on others.
fn show_system(top: &Path, path: &Path) -> Result<(), RootError> {
    let Ok(kind) = fs::symlink_metadata(path) else { return Ok(()) };
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(at("read", path))?;
        return symlink(target, inside(top, path)).map_err(at("link", path));
    }
    show(top, &Bind::read_only(path))
}

fn show(top: &Path, bind: &Bind) -> Result<(), RootError> {
    let target = inside(top, &bind.target);
    bind_to(&bind.source, &target)?;
    let read_only = if bind.is_writable { 0 } else { libc::MOUNT_ATTR_RDONLY };
    restrict(&target, read_only | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

fn bind_to(source: &Path, target: &Path) -> Result<(), RootError> {
    let kind = fs::metadata(source).map_err(at("show", source))?;
    if kind.is_dir() {
        make_dir(target)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        fs::write(target, "").map_err(at("make", target))?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>).map_err(at("show", source))
}

fn restrict(target: &Path, attributes: u64) -> Result<(), RootError> {
    let path = CString::new(target.as_os_str().as_bytes())
        .map_err(|_| at("restrict", target)(io::Error::from(io::ErrorKind::InvalidInput)))?;
    sys::mount_setattr_recursive(&path, attributes).map_err(at("restrict", target))
}

fn make_devices(top: &Path) -> Result<(), RootError> {
    let dev = top.join("dev");
    make_dir(&dev)?;
    for name in DEVICES {
        let (source, target) = (Path::new("/dev").join(name), dev.join(name));
        if source.exists() {
            bind_to(&source, &target)?;
            restrict(&target, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?;
        }
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, dev.join(name)).map_err(at("link", &dev))?;
    }
    mount_tmpfs(&dev.join("shm"), &format!("mode=1777,size={TMP_BYTES_MAX}"), MsFlags::MS_NOEXEC)
}

/// Processes of other users have no entry in it.
fn mount_proc(top: &Path) -> Result<(), RootError> {
    let proc = top.join("proc");
    make_dir(&proc)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &proc, Some("proc"), flags, Some("hidepid=2")).map_err(at("mount", &proc))
}

/// The one user there is, under the name that user code may expect.
fn write_users(top: &Path, root: &Root) -> Result<(), RootError> {
    let etc = top.join("etc");
    make_dir(&etc)?;
    let (uid, home) = (root.uid, root.home.display());
    let mut users = String::from("root:x:0:0:root:/:/usr/sbin/nologin\n");
    let mut groups = String::from("root:x:0:\n");
    if uid != 0 {
        let _ = writeln!(users, "cdsw:x:{uid}:{uid}:cdsw:{home}:/bin/sh");
        let _ = writeln!(groups, "cdsw:x:{uid}:");
    }
    for (name, text) in [("passwd", users), ("group", groups)] {
        let path = etc.join(name);
        fs::write(&path, text).map_err(at("write", &path))?;
    }
    Ok(())
}
