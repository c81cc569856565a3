//! Logs as server-sent events: what is there, then what comes. The files are written by others (a build, a supervisor)
//! and looked at again after a pause; a reader that goes away ends its task at the next event or beat.

use std::{
    convert::Infallible,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use millgate_contract::{
    ids::{BuildId, DeploymentId, RequestId},
    limits,
    spec::{LogLine, REPLICA_LOG},
};
use serde_json::{Value, json};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

use crate::{
    app::App,
    builder::log::{BuildLine, Step},
    moment::{now_us, rfc3339},
    rows::DeploymentStatus,
};

/// Between two looks at a file.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks without news after which a comment is sent: proxies close silent streams, and a reader gone is noticed.
const LOOKS_PER_BEAT: u32 = 100;
/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

type Events = Sender<Bytes, Infallible>;
/// The reader has gone away.
struct Gone;

fn stream<F>(work: impl FnOnce(Events) -> F) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (sender, body) = Channel::new(16);
    // Ends by itself: when its log is over, or with the reader.
    tokio::spawn(work(sender));
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn send(events: &mut Events, name: &str, data: &Value) -> Result<(), Gone> {
    // JSON on one line: nothing in it can end the event.
    let event = if name.is_empty() {
        format!("data: {data}\n\n")
    } else {
        format!("event: {name}\ndata: {data}\n\n")
    };
    events.send_data(Bytes::from(event)).await.map_err(|_| Gone)
}

/// Lines as plain events, `progress` when a step begins, `done` with status and reason at the end. The data of each has
/// `time`, `step` and `text`, so that a reader that knows no event names can show all of them.
pub(crate) fn build_log(app: App, id: BuildId, path: PathBuf, follows: bool) -> Response {
    stream(async move |mut events| {
        let mut tail = Tail::new(path);
        let mut news = app.news.subscribe();
        let mut step = None;
        let mut looks = 0;
        loop {
            // Asked before the file is read: whatever is written after the end is known is nothing.
            let state = match app.store.build(&id).await {
                Ok(Some(build)) => Some((build.status, build.reason)),
                Ok(None) => None,
                Err(_) => return Ok(()),
            };
            let lines = tail.read().await;
            looks = if lines.is_empty() { looks + 1 } else { 0 };
            for line in lines.iter().filter_map(|line| serde_json::from_slice::<BuildLine>(line).ok()) {
                if line.step == Step::Done {
                    // Said below, by the state, which comes after the line.
                    continue;
                }
                let time = rfc3339(line.time_ms.cast_signed() * 1_000);
                if step != Some(line.step) {
                    step = Some(line.step);
                    send(&mut events, "progress", &json!({ "time": time, "step": line.step, "text": "" }))
                        .await?;
                }
                send(&mut events, "", &json!({ "time": time, "step": line.step, "text": line.text })).await?;
            }
            let is_over = state.as_ref().is_none_or(|(status, _)| status.is_over());
            if lines.is_empty() && (is_over || !follows) {
                if let Some((status, reason)) = state {
                    let text = if reason.is_empty() { status.as_str() } else { reason.as_str() };
                    let end = json!({
                        "time": rfc3339(now_us()), "step": Step::Done, "text": text,
                        "status": status.as_str(), "failure_reason": reason,
                    });
                    send(&mut events, "done", &end).await?;
                }
                return Ok(());
            }
            if lines.is_empty() {
                beat(&mut events, looks).await?;
                // The end of a build is told at once; lines of its log are looked for.
                let _ = tokio::time::timeout(PAUSE, news.changed()).await;
            }
        }
    })
}

/// Lines as plain events, those of one request if it is named; `done` with the deployment's status at the end.
pub(crate) fn replica_log(
    app: App,
    id: DeploymentId,
    dir: PathBuf,
    follows: bool,
    only: Option<RequestId>,
) -> Response {
    stream(async move |mut events| {
        let mut older = Tail::new(dir.join(format!("{REPLICA_LOG}.1")));
        loop {
            let lines = older.read().await;
            if lines.is_empty() {
                break;
            }
            send_lines(&mut events, &lines, only.as_ref()).await?;
        }
        let mut tail = Tail::new(dir.join(REPLICA_LOG));
        let mut looks = 0;
        loop {
            let status = match app.store.deployment(&id).await {
                Ok(Some(deployment)) => Some(deployment.status),
                Ok(None) => None,
                Err(_) => return Ok(()),
            };
            let lines = tail.read().await;
            looks = if lines.is_empty() { looks + 1 } else { 0 };
            send_lines(&mut events, &lines, only.as_ref()).await?;
            if lines.is_empty() && (!follows || status.is_none_or(DeploymentStatus::is_over)) {
                let status = status.map_or("", |status| status.as_str());
                return send(&mut events, "done", &json!({ "status": status })).await;
            }
            if lines.is_empty() {
                beat(&mut events, looks).await?;
                tokio::time::sleep(PAUSE).await;
            }
        }
    })
}

async fn send_lines(events: &mut Events, lines: &[Vec<u8>], only: Option<&RequestId>) -> Result<(), Gone> {
    let is_meant = |line: &LogLine| only.is_none() || line.request_id.as_ref() == only;
    let lines = lines.iter().filter_map(|line| serde_json::from_slice::<LogLine>(line).ok());
    for line in lines.filter(is_meant) {
        let data = json!({
            "time": rfc3339(line.time_ms.cast_signed() * 1_000),
            "source": line.source,
            "replica": line.replica.as_ref().map_or("", |r| r.as_str()),
            "request_id": line.request_id.as_ref().map_or("", |id| id.as_str()),
            "text": line.text,
        });
        send(events, "", &data).await?;
    }
    Ok(())
}

async fn beat(events: &mut Events, looks: u32) -> Result<(), Gone> {
    if looks.is_multiple_of(LOOKS_PER_BEAT) {
        events.send_data(Bytes::from_static(b":\n\n")).await.map_err(|_| Gone)?;
    }
    Ok(())
}

/// A file that grows, may not be there yet, and may be replaced by a new one of the same name.
struct Tail {
    path: PathBuf,
    file: Option<(File, u64)>,
    rest: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new() }
    }

    /// Whole lines that have come since; none when there are none.
    async fn read(&mut self) -> Vec<Vec<u8>> {
        match self.chunk().await {
            Ok(chunk) => {
                self.rest.extend_from_slice(&chunk);
                let mut lines: Vec<Vec<u8>> = self.rest.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                self.rest = lines.pop().unwrap_or_default();
                // A line longer than any that is written: not a log of ours.
                if self.rest.len() > limits::MESSAGE_BYTES_MAX {
                    self.rest.clear();
                }
                lines
            }
            Err(_) => Vec::new(),
        }
    }

    async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let (file, inode) = match &mut self.file {
                Some(open) => open,
                none => {
                    let file = File::open(&self.path).await?;
                    let inode = file.metadata().await?.ino();
                    none.insert((file, inode))
                }
            };
            let mut chunk = vec![0; CHUNK_BYTES];
            let n = file.read(&mut chunk).await?;
            chunk.truncate(n);
            if n > 0 {
                return Ok(chunk);
            }
            // At its end: is it still the one of that name, and not cut?
            let place = file.stream_position().await?;
            let is_same = is_file(&self.path, *inode, place).await;
            if is_same {
                return Ok(chunk);
            }
            self.file = None;
            self.rest.clear();
        }
    }
}

async fn is_file(path: &Path, inode: u64, bytes_min: u64) -> bool {
    // One that was removed has no successor yet: stay with it.
    tokio::fs::metadata(path).await.map_or(true, |now| now.ino() == inode && now.len() >= bytes_min)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[tokio::test]
    async fn a_tail_follows_growth_and_rotation_and_waits_for_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut tail = Tail::new(path.clone());
        assert!(tail.read().await.is_empty());
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.read().await, [b"one"]);
        assert!(tail.read().await.is_empty());
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.read().await, [b"two"]);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "three\n").unwrap();
        assert_eq!(tail.read().await, [b"three".to_vec()]);
    }
}
