//! `PUT /api/v2/projects/{id}/source`: a tar archive that takes the place of all of a project's files at once.
//! What would escape, links that leave, hard links, devices, programs that run as somebody else, and more than the bounds
//! are refused; then nothing changes.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path as FilePath, PathBuf},
};

use axum::{body::Body, extract::State};
use http_body_util::BodyExt;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;
use tar::{Archive, EntryType};
use tokio::io::AsyncWriteExt;

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    files::checked_path,
};
use crate::{
    app::App,
    builder::{
        blocking,
        snapshot::{RUNS_AS_ANOTHER, SnapshotError, leaves},
    },
    fault::{Fault, Outcome},
    names,
    rows::Level,
};

/// What an archive may hold.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    bytes_max: u64,
    files_max: u64,
}

/// A folder that is removed with all in it, unless it was moved.
struct Workspace(PathBuf);

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Contributor).await?;
    let bounds = Bounds { bytes_max: app.config.archive_bytes_max, files_max: app.config.archive_files_max };
    let workspace = Workspace(app.dir.uploads().join(names::uuid()));
    tokio::fs::create_dir(&workspace.0).await?;
    let archive = workspace.0.join("archive.tar");
    receive(body, &archive, bounds.bytes_max).await?;
    let (from, to) = (archive, workspace.0.join("tree"));
    let (files, bytes) = blocking(move || unpack(&from, &to, bounds)).await??;
    let lock = app.project_lock(&project.id);
    let _guard = lock.write().await;
    let target = app.dir.project(project.id.as_str());
    blocking(move || exchange(&workspace, &target)).await??;
    Ok(Answer::of(json!({ "files": files, "bytes": bytes })))
}

async fn receive(mut body: Body, path: &FilePath, bytes_max: u64) -> Outcome<()> {
    let mut file = tokio::fs::File::create(path).await?;
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Fault::Invalid(format!("the upload broke off: {e}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        bytes += chunk.len() as u64;
        if bytes > bytes_max {
            return Err(Fault::TooLarge(format!("the archive is over {bytes_max} bytes")));
        }
        file.write_all(&chunk).await?;
    }
    Ok(file.flush().await?)
}

/// Puts the new tree where the old one is; the old one goes with the workspace.
fn exchange(workspace: &Workspace, target: &FilePath) -> Outcome<()> {
    let tree = workspace.0.join("tree");
    fs::create_dir_all(target)?;
    renameat2(AT_FDCWD, &tree, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE)
        .map_err(|e| Fault::from(io::Error::from(e)))
}

/// Unpacks into a new folder; answers files and bytes.
fn unpack(archive: &FilePath, to: &FilePath, bounds: Bounds) -> Outcome<(u64, u64)> {
    let broken = |e: io::Error| Fault::Invalid(format!("the body is not a tar archive: {e}"));
    fs::create_dir(to)?;
    let (mut files, mut bytes) = (0, 0);
    let mut archive = Archive::new(File::open(archive)?);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let text = String::from_utf8(raw)
            .map_err(|_| Fault::Invalid("a name in the archive is not UTF-8".to_owned()))?;
        if kind.is_dir() && FilePath::new(&text).components().all(|c| c == std::path::Component::CurDir) {
            continue;
        }
        let path = checked_path(&text).ok_or_else(|| {
            Fault::Invalid(format!("the archive holds {text:?}, which is not below the project"))
        })?;
        files += 1;
        if files > bounds.files_max {
            return Err(Fault::TooLarge(format!("the archive holds more than {} files", bounds.files_max)));
        }
        let at = place(to, &path)?;
        match kind {
            EntryType::Directory => match fs::create_dir(&at) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
                _ => {}
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mode = entry.header().mode().unwrap_or(0o644);
                if mode & RUNS_AS_ANOTHER != 0 {
                    return Err(Fault::Invalid(SnapshotError::RunsAsAnother(path).to_string()));
                }
                let is_program = mode & 0o111 != 0;
                bytes += write(&mut entry, &at, bounds.bytes_max - bytes)?;
                let mode = if is_program { 0o755 } else { 0o644 };
                fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
            }
            EntryType::Symlink => {
                let link = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                if leaves(&path, &link) {
                    return Err(Fault::Invalid(format!(
                        "the archive holds a link `{}` to `{}`, which is outside the project",
                        path.display(),
                        link.display()
                    )));
                }
                std::os::unix::fs::symlink(&link, &at)?;
            }
            other => {
                return Err(Fault::Invalid(format!(
                    "the archive holds `{}` of type {other:?}; only files, folders and symbolic links are taken",
                    path.display()
                )));
            }
        }
    }
    Ok((files, bytes))
}

/// Where an entry goes: its folders made, none of them a link, what was there before it removed.
fn place(root: &FilePath, path: &FilePath) -> Outcome<PathBuf> {
    let mut at = root.to_owned();
    for name in path.parent().into_iter().flat_map(FilePath::components) {
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(kind) if kind.is_dir() => {}
            Ok(_) => {
                return Err(Fault::Invalid(format!(
                    "the archive holds `{}` below something that is not a folder",
                    path.display()
                )));
            }
            Err(_) => fs::create_dir(&at)?,
        }
    }
    let at = root.join(path);
    if fs::symlink_metadata(&at).is_ok_and(|kind| !kind.is_dir()) {
        fs::remove_file(&at)?;
    }
    Ok(at)
}

fn write(entry: &mut impl Read, at: &FilePath, bytes_max: u64) -> Outcome<u64> {
    let mut file = File::options().write(true).create_new(true).open(at).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Fault::Invalid(format!("the archive holds a file and a folder `{}`", at.display()))
        }
        _ => e.into(),
    })?;
    let written = io::copy(&mut entry.take(bytes_max + 1), &mut file)?;
    if written > bytes_max {
        return Err(Fault::TooLarge("the archive's files are over the limit".to_owned()));
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 1_000, files_max: 10 };

    struct Item<'a> {
        path: &'a str,
        kind: EntryType,
        link: &'a str,
        content: &'a [u8],
        mode: u32,
    }

    fn file(path: &str) -> Item<'_> {
        Item { path, kind: EntryType::Regular, link: "", content: b"x", mode: 0o777 }
    }

    fn link<'a>(path: &'a str, link: &'a str, kind: EntryType) -> Item<'a> {
        Item { path, kind, link, content: b"", mode: 0o2777 }
    }

    /// Written by hand: the crate's own writer refuses what an attacker would write.
    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for item in items {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..item.path.len()].copy_from_slice(item.path.as_bytes());
            header.as_old_mut().linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
            header.set_entry_type(item.kind);
            header.set_size(item.content.len() as u64);
            header.set_mode(item.mode);
            header.set_cksum();
            builder.append(&header, item.content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(items: &[Item<'_>]) -> (tempfile::TempDir, Outcome<(u64, u64)>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.tar"), archive(items)).unwrap();
        let result = unpack(&dir.path().join("a.tar"), &dir.path().join("tree"), BOUNDS);
        (dir, result)
    }

    #[test]
    fn files_folders_and_inner_links_are_taken_with_plain_modes() {
        let (dir, result) = unpacked(&[
            link("./", "", EntryType::Directory),
            link("d/", "", EntryType::Directory),
            file("d/a.py"),
            file("e/f/b.py"),
            link("l", "d/a.py", EntryType::Symlink),
        ]);
        assert_eq!(result.unwrap(), (4, 2));
        let mode = fs::metadata(dir.path().join("tree/d/a.py")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert_eq!(fs::read_to_string(dir.path().join("tree/l")).unwrap(), "x");
    }

    #[test]
    fn what_would_escape_is_refused_and_nothing_lies_outside() {
        let attacks: [&[Item<'_>]; 13] = [
            &[file("../x")],
            &[file("/tmp/x")],
            &[file("d/../../x")],
            &[link("l", "/etc", EntryType::Symlink)],
            &[link("l", "../..", EntryType::Symlink)],
            &[link("l", ".", EntryType::Symlink), link("m", "l/../..", EntryType::Symlink)],
            &[link("l", "d", EntryType::Symlink), file("l/x")],
            &[link("h", "/etc/passwd", EntryType::Link)],
            &[link("dev", "", EntryType::Char)],
            &[link("pipe", "", EntryType::Fifo)],
            &[link("disk", "", EntryType::Block)],
            &[Item { mode: 0o4755, ..file("root.sh") }],
            &[Item { mode: 0o2755, ..file("group.sh") }],
        ];
        for (n, attack) in attacks.iter().enumerate() {
            let (dir, result) = unpacked(attack);
            assert!(matches!(result, Err(Fault::Invalid(_))), "attack {n}: {result:?}");
            let mut names: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, ["a.tar", "tree"], "attack {n}");
        }
    }

    #[test]
    fn bombs_are_bounded_in_bytes_and_files() {
        let big = Item { content: &[0; 1_001], ..file("a") };
        assert!(matches!(unpacked(&[big]).1, Err(Fault::TooLarge(_))));
        let names: Vec<String> = (0..11).map(|n| format!("f{n}")).collect();
        let many: Vec<Item<'_>> = names.iter().map(|name| file(name)).collect();
        assert!(matches!(unpacked(&many).1, Err(Fault::TooLarge(_))));
    }

    #[test]
    fn noise_is_not_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.tar"), [7; 2_048]).unwrap();
        let result = unpack(&dir.path().join("a.tar"), &dir.path().join("tree"), BOUNDS);
        assert!(matches!(result, Err(Fault::Invalid(_))), "{result:?}");
    }
}
