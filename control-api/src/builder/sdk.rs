//! The Python SDK of this server, as it is put into each environment.

use std::{fs, io, path::Path};

/// Files below the SDK's root: path and content.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Writes the SDK into an environment's `site-packages`.
pub(super) fn install(site_packages: &Path) -> io::Result<usize> {
    for (path, content) in FILES {
        let target = site_packages.join(path);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(target, content)?;
    }
    Ok(FILES.len())
}
