//! Says when a file below a folder has changed.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use notify::{EventKind, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::mpsc;

use super::is_noise;
use crate::failure::{Context, Failure};

/// Something for each change; several may be told as one.
pub(super) fn watch(folder: &Path) -> Result<mpsc::Receiver<()>, Failure> {
    let (sender, receiver) = mpsc::channel(1);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let folder = folder.to_owned();
    let outputs = own_outputs();
    // The watcher lives as long as its thread, which is parked until the program ends.
    std::thread::spawn(move || {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| matters(&event, &outputs)) {
                // Full: a change is already told.
                let _ = sender.try_send(());
            }
        })
        .and_then(|mut watcher| watcher.watch(&folder, RecursiveMode::Recursive).map(|()| watcher));
        match watcher {
            Ok(_watcher) => {
                let _ = ready.send(Ok(()));
                loop {
                    std::thread::park();
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
    is_ready.recv().context("cannot watch the folder")?.context("cannot watch the folder")?;
    Ok(receiver)
}

/// A file, whatever its name: device and number.
type Identity = (u64, u64);

/// The files that this program prints to: what it says of a reload is no reason for the next one.
fn own_outputs() -> Vec<Identity> {
    let standard = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
    let identities = standard.into_iter().map(|fd| Ok(identity(&File::from(fd?).metadata()?)));
    identities.filter_map(|one: io::Result<Identity>| one.ok()).collect()
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino())
}

fn is_one_of(path: &Path, outputs: &[Identity]) -> bool {
    fs::metadata(path).is_ok_and(|file| outputs.contains(&identity(&file)))
}

fn matters(event: &notify::Event, outputs: &[Identity]) -> bool {
    let is_change = match event.kind {
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
        _ => false,
    };
    is_change && !event.paths.iter().all(|path| is_noise(path) || is_one_of(path, outputs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_file_matters_unless_this_program_prints_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let changed = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            notify::Event::new(EventKind::Modify(ModifyKind::Any)).add_path(path)
        };
        let (code, said) = (changed("code.py"), changed("said.log"));
        let outputs = [identity(&fs::metadata(&said.paths[0]).unwrap())];
        assert!(matters(&code, &outputs) && matters(&said, &[]));
        assert!(!matters(&said, &outputs));
        assert!(!matters(&changed("__pycache__"), &[]));
    }
}
