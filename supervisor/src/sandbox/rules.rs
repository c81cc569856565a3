//! The kernel's own rules for a program, beside what it is shown: Landlock for files, seccomp for system calls. They
//! come last, in the child, and hold for everything that descends from it.

use std::path::{Path, PathBuf};

use super::{Root, Sandbox, landlock, root, seccomp};

/// What names of Landlock in a list of what is missing begin with.
pub(super) const LANDLOCK: &str = "Landlock";

/// Restricts this process; names what could not be had.
pub(super) fn restrict(sandbox: &Sandbox, has_root: bool) -> Vec<String> {
    let Some(root) = &sandbox.root else {
        return vec![format!("{LANDLOCK}: not in the open")];
    };
    let mut missing = match restrict_files(root, has_root) {
        Ok(missing) => missing,
        Err(error) => vec![format!("{LANDLOCK}: {error}")],
    };
    if let Err(error) = seccomp::restrict() {
        missing.push(format!("seccomp: {error}"));
    }
    missing
}

fn restrict_files(root: &Root, has_root: bool) -> std::io::Result<Vec<String>> {
    let mut readable = if has_root { vec![PathBuf::from("/")] } else { of_the_host(root) };
    let mut writable: Vec<PathBuf> = ["/tmp", "/dev/shm"].map(PathBuf::from).into();
    for bind in &root.binds {
        let shown = if has_root { &bind.target } else { &bind.source };
        if bind.is_writable { writable.push(shown.clone()) } else { readable.push(shown.clone()) }
    }
    let readable = landlock::each(&readable);
    let writable = landlock::each(&writable);
    landlock::restrict(&landlock::Rights { readable, writable, devices: Path::new("/dev") })
}

/// Where no root of its own could be had: what would have been in it.
fn of_the_host(root: &Root) -> Vec<PathBuf> {
    let more = ["/proc", "/var/tmp"].map(PathBuf::from);
    root::of_the_system().chain(more).chain(root.binds.iter().map(|bind| bind.source.clone())).collect()
}
