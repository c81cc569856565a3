//! `PATCH …/files/{path}`: gives a file or folder of a project another path. Clients that upload under one name and say
//! the right one afterwards need it. Replaces a file that is there already, as an upload does; never a folder.

use std::{fs, io, path::Path as FilePath};

use axum::extract::State;

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
    fields::Fields,
    files::{refuse_links, target},
};
use crate::{
    app::App,
    builder::blocking,
    fault::{Fault, Outcome},
    rows::Level,
};

pub(crate) async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path((id, text)): Path<(String, String)>,
    mut body: Fields,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Contributor).await?;
    let from = target(text.trim_matches('/'))?;
    let to = body.path("path")?;
    // What a client read of the file comes back with its new path.
    body.ignore(&["name", "type", "is_dir", "file_size", "project_id"]);
    if !to.is_empty() {
        let root = app.dir.project(project.id.as_str());
        let lock = app.project_lock(&project.id);
        let _guard = lock.write().await;
        blocking(move || put(&root, &from, FilePath::new(&to))).await??;
    }
    Ok(Answer::empty().ignoring(body.unknown()))
}

/// Moves what is at `from` to `to`, both below `root`. Callers hold the project's lock.
fn put(root: &FilePath, from: &FilePath, to: &FilePath) -> Outcome<()> {
    let missing = || Fault::missing("file", &from.display().to_string());
    refuse_links(root, from).map_err(|_| missing())?;
    fs::symlink_metadata(root.join(from)).map_err(|_| missing())?;
    let refused =
        |e: io::Error| Fault::Invalid(format!("field `path` is {:?}: {e}", to.display().to_string()));
    refuse_links(root, to).map_err(refused)?;
    let target = root.join(to);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    fs::rename(root.join(from), target).map_err(refused)
}
