//! A project's files. Targets are checked component by component and never reached through a link; what is uploaded
//! goes to a file of its own first and takes its place when it is whole.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Component, Path as FilePath, PathBuf},
};

use axum::{
    body::Body,
    extract::{Multipart, State, multipart::MultipartRejection},
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answer::{Answer, Answered},
    caller::{Caller, Path},
};
use crate::{
    app::App,
    builder::blocking,
    fault::{Fault, Outcome},
    names,
    rows::Level,
};

/// Bytes of one component of a path.
const COMPONENT_BYTES_MAX: usize = 255;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 3_000;
/// Files of one upload.
const UPLOAD_FILES_MAX: usize = 10_000;

/// What people read of it is what there is, and no other system sees a folder's end in it.
fn is_shown_as_it_is(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| !names::hides_something(name) && !name.contains('\\'))
}

/// A relative path of plain names; `None` for anything that could lead out of its root.
pub(crate) fn checked_path(text: &str) -> Option<PathBuf> {
    if text.len() > PATH_BYTES_MAX || text.contains('\0') || text.starts_with('/') {
        return None;
    }
    let mut path = PathBuf::new();
    for component in FilePath::new(text).components() {
        match component {
            Component::Normal(name) if name.len() <= COMPONENT_BYTES_MAX && is_shown_as_it_is(name) => {
                path.push(name);
            }
            Component::CurDir => {}
            _ => return None,
        }
    }
    (path.components().count() > 0).then_some(path)
}

pub(super) fn target(text: &str) -> Outcome<PathBuf> {
    checked_path(text).ok_or_else(|| {
        Fault::Invalid(format!(
            "path {:?} must be below the project: plain names of at most {COMPONENT_BYTES_MAX} bytes, without `..`, `\\` \
             and characters that are not shown, not beginning with `/`",
            text.chars().take(200).collect::<String>()
        ))
    })
}

/// Refuses a path one of whose folders is a link. Callers hold the project's lock, so none can appear meanwhile.
pub(super) fn refuse_links(root: &FilePath, path: &FilePath) -> io::Result<()> {
    let mut at = root.to_owned();
    for name in path.parent().into_iter().flat_map(FilePath::components) {
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(kind) if kind.is_dir() => {}
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    "a part of the path is not a folder",
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

pub(crate) async fn upload(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Contributor).await?;
    let mut form = form.map_err(|e| Fault::Invalid(format!("the body must be a multipart form: {e}")))?;
    let root = app.dir.project(project.id.as_str());
    let mut count = 0;
    while let Some(mut field) =
        form.next_field().await.map_err(|e| Fault::Invalid(format!("the form cannot be read: {e}")))?
    {
        count += 1;
        if count > UPLOAD_FILES_MAX {
            return Err(Fault::TooLarge(format!("more than {UPLOAD_FILES_MAX} files in one upload")));
        }
        let name =
            field.name().filter(|name| !name.is_empty()).or_else(|| field.file_name()).unwrap_or_default();
        let path = target(name)?;
        let partial = Partial::new(&app);
        let mut file = tokio::fs::File::create(&partial.0).await?;
        let mut bytes = 0_u64;
        while let Some(chunk) = field
            .chunk()
            .await
            .map_err(|e| Fault::Invalid(format!("the upload of `{}` broke off: {e}", path.display())))?
        {
            bytes += chunk.len() as u64;
            if bytes > app.config.upload_bytes_max {
                return Err(Fault::TooLarge(format!(
                    "`{}` is over {} bytes",
                    path.display(),
                    app.config.upload_bytes_max
                )));
            }
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        drop(file);
        let lock = app.project_lock(&project.id);
        let _guard = lock.write().await;
        let root = root.clone();
        blocking(move || put(&root, &path, &partial.0)).await??;
    }
    if count == 0 {
        return Err(Fault::Invalid("the form holds no file: its keys are the target paths".to_owned()));
    }
    Ok(Answer::empty())
}

/// Moves a whole upload into its place.
fn put(root: &FilePath, path: &FilePath, partial: &FilePath) -> Outcome<()> {
    let refused = |e: io::Error| match e.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            Fault::Invalid(format!("`{}` cannot be written: {e}", path.display()))
        }
        _ => Fault::from(e),
    };
    refuse_links(root, path).map_err(refused)?;
    let target = root.join(path);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    fs::rename(partial, &target).map_err(refused)
}

/// A file on its way; removed unless it was moved.
struct Partial(PathBuf);

impl Partial {
    fn new(app: &App) -> Self {
        Self(app.dir.uploads().join(names::uuid()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) async fn list_root(state: State<App>, caller: Caller, Path(id): Path<String>) -> Answered {
    list(state, caller, Path((id, String::new()))).await
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path((id, text)): Path<(String, String)>,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Viewer).await?;
    let root = app.dir.project(project.id.as_str());
    let text = text.trim_matches('/').to_owned();
    let path = if text.is_empty() { PathBuf::new() } else { target(&text)? };
    let lock = app.project_lock(&project.id);
    let _guard = lock.read().await;
    let files = blocking(move || entries(&root, &path)).await??;
    Ok(Answer::of(json!({ "files": files })))
}

fn entries(root: &FilePath, path: &FilePath) -> Outcome<Vec<Value>> {
    let missing = || Fault::missing("file", &path.display().to_string());
    refuse_links(root, path).map_err(|_| missing())?;
    let at = root.join(path);
    let kind = match fs::symlink_metadata(&at) {
        Ok(kind) => kind,
        Err(_) if path.as_os_str().is_empty() => return Ok(Vec::new()),
        Err(_) => return Err(missing()),
    };
    if !kind.is_dir() {
        return Ok(vec![entry(path, &kind)]);
    }
    let mut files = Vec::new();
    for found in fs::read_dir(&at)? {
        let found = found?;
        files.push((path.join(found.file_name()), found.metadata()?));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files.iter().map(|(path, kind)| entry(path, kind)).collect())
}

fn entry(path: &FilePath, kind: &fs::Metadata) -> Value {
    let file_size = if kind.is_dir() { 0 } else { kind.len() };
    json!({ "path": path.to_string_lossy(), "is_dir": kind.is_dir(), "file_size": file_size.to_string() })
}

pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((id, text)): Path<(String, String)>,
) -> Answered {
    let (project, _) = caller.project(&app, &id, Level::Contributor).await?;
    let root = app.dir.project(project.id.as_str());
    let path = target(text.trim_matches('/'))?;
    let lock = app.project_lock(&project.id);
    let _guard = lock.write().await;
    blocking(move || -> Outcome<()> {
        let missing = || Fault::missing("file", &path.display().to_string());
        refuse_links(&root, &path).map_err(|_| missing())?;
        let at = root.join(&path);
        let kind = fs::symlink_metadata(&at).map_err(|_| missing())?;
        if kind.is_dir() {
            fs::remove_dir_all(&at)?;
        } else {
            fs::remove_file(&at)?;
        }
        Ok(())
    })
    .await??;
    Ok(Answer::empty())
}

/// `POST …/files/{path}:download`: the file's bytes.
pub(crate) async fn download(
    State(app): State<App>,
    caller: Caller,
    Path((id, text)): Path<(String, String)>,
) -> Result<Response, Fault> {
    let (project, _) = caller.project(&app, &id, Level::Viewer).await?;
    let root = app.dir.project(project.id.as_str());
    let path = target(text.trim_matches('/'))?;
    let lock = app.project_lock(&project.id);
    let guard = lock.read().await;
    let file = blocking(move || -> Outcome<fs::File> {
        let missing = || Fault::missing("file", &path.display().to_string());
        refuse_links(&root, &path).map_err(|_| missing())?;
        let at = root.join(&path);
        if !fs::symlink_metadata(&at).is_ok_and(|kind| kind.is_file()) {
            return Err(missing());
        }
        Ok(fs::File::open(&at)?)
    })
    .await??;
    drop(guard);
    let bytes = file.metadata()?.len();
    let (mut sender, body) = Channel::<bytes::Bytes, io::Error>::new(4);
    tokio::spawn(async move {
        let mut file = tokio::fs::File::from_std(file).take(bytes);
        loop {
            let mut chunk = bytes::BytesMut::with_capacity(64 * 1024);
            match file.read_buf(&mut chunk).await {
                Ok(0) => return,
                Ok(_) if sender.send_data(chunk.freeze()).await.is_err() => return,
                Ok(_) => {}
                Err(e) => return sender.abort(e),
            }
        }
    });
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_root_pass() {
        for (text, path) in
            [("a.py", "a.py"), ("./d//a.py", "d/a.py"), ("d/…/ünï", "d/…/ünï"), ("a..b", "a..b")]
        {
            assert_eq!(checked_path(text), Some(PathBuf::from(path)), "{text}");
        }
        // A name is its bytes: composed and decomposed ones are two, and so are those that other systems reserve.
        for text in
            ["\u{e9}.py", "e\u{301}.py", "con", "a.", "a ", "%2e%2e", "..%2fx", "x/.../y", "-rf", "~", "日本"]
        {
            assert_eq!(checked_path(text), Some(PathBuf::from(text)), "{text:?}");
        }
        for text in [
            "",
            ".",
            "/etc/passwd",
            "../x",
            "d/../../x",
            "d/..",
            "a\0b",
            "//x",
            "..\\x",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            "gpj.\u{202e}yp.exe",
            "a\u{2066}b",
            "a\u{200b}b",
            "a\u{feff}",
            "a\u{2028}b",
            "a\u{ad}b",
        ] {
            assert_eq!(checked_path(text), None, "{text:?}");
        }
        assert_eq!(checked_path(&"x".repeat(256)), None);
    }

    #[test]
    fn a_link_is_never_written_through() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("l")).unwrap();
        let partial = root.path().join("partial");
        fs::write(&partial, "x").unwrap();
        assert!(matches!(put(root.path(), FilePath::new("l/a"), &partial), Err(Fault::Invalid(_))));
        assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
        // The link itself is replaced, not what it names.
        put(root.path(), FilePath::new("l"), &partial).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("l")).unwrap(), "x");
    }
}
