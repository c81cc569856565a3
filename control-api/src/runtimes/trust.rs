//! Which programs the server may run because somebody asked over the API: an administrator of the API is not the owner of
//! the host. What users have brought here (projects, builds) is refused, and so is what others on this host can change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::python::Refusal;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_ALL: u32 = 0o002;

/// The program that a path leads to, when only root and the server's own user can change it.
pub(super) fn checked(path: &Path, data_dir: &Path) -> Result<PathBuf, Refusal> {
    let refused = |reason: String, hint: &str| Refusal::new(path, reason, hint);
    if !path.is_absolute() {
        return Err(refused("it is not an absolute path".to_owned(), "name it as in `/usr/bin/python3.12`"));
    }
    let real = path.canonicalize().map_err(|cause| {
        refused(format!("it cannot be read: {cause}"), "name an interpreter on the server's host")
    })?;
    if real.starts_with(data_dir) {
        let hint = "name an installation of Python, not one that a user has brought";
        return Err(refused("it lies in the data directory".to_owned(), hint));
    }
    let own = nix::unistd::geteuid().as_raw();
    for (place, is_file) in real.ancestors().zip(std::iter::once(true).chain(std::iter::repeat(false))) {
        let about = fs::metadata(place)
            .map_err(|cause| refused(format!("`{}`: {cause}", place.display()), "see who may read it"))?;
        if is_file && !about.is_file() {
            return Err(refused("it is not a file".to_owned(), "name the interpreter in its `bin`"));
        }
        let is_open = about.mode() & WRITABLE_BY_ALL != 0 && about.mode() & STICKY == 0;
        if is_open || !(about.uid() == 0 || about.uid() == own) {
            let hint = "have it owned by root or the server's user, and writable by no others";
            return Err(refused(format!("others can change `{}`", place.display()), hint));
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn reason(path: &Path, data_dir: &Path) -> String {
        checked(path, data_dir).unwrap_err().to_string()
    }

    #[test]
    fn what_others_have_brought_or_can_change_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let data = dir.join("data");
        fs::create_dir_all(data.join("builds/b/root")).unwrap();
        fs::create_dir_all(dir.join("opt/bin")).unwrap();
        let (brought, installed) = (data.join("builds/b/root/python3"), dir.join("opt/bin/python3"));
        for program in [&brought, &installed] {
            fs::write(program, "").unwrap();
        }
        assert_eq!(checked(&installed, &data).unwrap(), installed);
        assert!(reason(&brought, &data).contains("in the data directory"));
        symlink(&brought, dir.join("opt/bin/link")).unwrap();
        assert!(reason(&dir.join("opt/bin/link"), &data).contains("in the data directory"));
        assert!(reason(&dir.join("opt/bin"), &data).contains("not a file"));
        assert!(reason(Path::new("python3"), &data).contains("not an absolute path"));
        assert!(reason(&dir.join("nowhere"), &data).contains("cannot be read"));
        fs::set_permissions(dir.join("opt"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(reason(&installed, &data).contains("others can change"));
        fs::set_permissions(dir.join("opt"), fs::Permissions::from_mode(0o1777)).unwrap();
        checked(&installed, &data).unwrap();
    }
}
