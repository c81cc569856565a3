//! Says when a file below a folder has changed.

use std::path::Path;

use notify::{EventKind, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::mpsc;

use super::is_noise;
use crate::failure::{Context, Failure};

/// Something for each change; several may be told as one.
pub(super) fn watch(folder: &Path) -> Result<mpsc::Receiver<()>, Failure> {
    let (sender, receiver) = mpsc::channel(1);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let folder = folder.to_owned();
    // The watcher lives as long as its thread, which is parked until the program ends.
    std::thread::spawn(move || {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| matters(&event)) {
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

fn matters(event: &notify::Event) -> bool {
    let is_change = match event.kind {
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
        _ => false,
    };
    is_change && !event.paths.iter().all(|path| is_noise(path))
}
