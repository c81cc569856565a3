//! Reads the contents of built builds again, one after another, those that serve first: a disk loses what it held without a
//! word, and a start looks at sizes and times only. It goes at a bounded pace, on a thread of the lowest priority, which
//! is that of its reading as well. Changes nothing of a build: it says what is wrong, and a start of what is said to be damaged
//! reads every content first. Builds may be collected or deleted meanwhile: that they lack files then is no damage.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use ring::digest::{Context, SHA256};
use tokio::sync::oneshot;

use super::{blocking, manifest};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    moment::now_us,
    names::hex,
    rows::{Build, BuildStatus},
};

/// The longest it looks away.
const PERIOD: Duration = Duration::from_secs(600);
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Of a thread: the lowest there is.
const NICE: i32 = 19;

/// Runs until dropped.
pub(crate) async fn run(app: &App) {
    loop {
        let done = match count(app).await {
            Ok(()) if app.config.builds_verify_days > 0 => next(app).await,
            counted => counted.map(|()| false),
        };
        match done {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "builds cannot be read again");
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Reads the build whose turn it is; false when it is none's. A damaged one is read each hour: somebody mends it.
pub(crate) async fn next(app: &App) -> Outcome<bool> {
    let now_us = now_us();
    let before_us = now_us - i64::from(app.config.builds_verify_days) * DAY_US;
    let Some(build) = app.store.build_to_read(before_us, now_us - HOUR_US).await? else { return Ok(false) };
    look_at(app, &build).await?;
    Ok(true)
}

/// Reads a build and says what is wrong with it.
pub(crate) async fn look_at(app: &App, build: &Build) -> Outcome<()> {
    let read = read(app, build).await?;
    // Whoever takes a build's files away says so in its row first. What a start has said of it meanwhile is in there too.
    let Some(build) = app.store.build_with_files(&build.id).await? else { return Ok(()) };
    let damage = read.err().map(|reason| damage(&build, &reason)).unwrap_or_default();
    tell(app, &build, &damage).await?;
    app.store.note_build_read(&build.id).await
}

/// Checks a build before it is started, and says what is wrong with it: that is its error, too.
pub(crate) async fn check_start(app: &App, build: &Build) -> Outcome<()> {
    let (folder, hash) = (app.dir.build(build.id.as_str()), build.build_hash.clone());
    // What a disk lost changed no time.
    let is_doubted = build.status == BuildStatus::Built && !build.reason.is_empty();
    let check = if is_doubted { manifest::check_contents } else { manifest::check };
    let checked = blocking(move || check(&folder, &hash)).await?;
    let damage = checked.err().map(|reason| damage(build, &reason)).unwrap_or_default();
    tell(app, build, &damage).await?;
    if damage.is_empty() { Ok(()) } else { Err(Fault::NotFound(damage)) }
}

/// What is wrong with a build, and what to do.
fn damage(build: &Build, reason: &str) -> String {
    let number = build.build_number;
    format!(
        "build {number} is not as it was sealed: {reason}; put its files back from a backup, or make it again: `millgate builds \
         MODEL --rebuild {number}`"
    )
}

/// Says of a build, of what serves of it, and on the page of figures that it is damaged, or (with nothing) that it is not.
async fn tell(app: &App, build: &Build, damage: &str) -> Outcome<()> {
    if !damage.is_empty() {
        tracing::error!(build = %build.id, damage, "a build is damaged");
    }
    if build.reason != damage {
        app.store.note_build_damage(build, damage).await?;
        app.news.send_replace(());
        count(app).await?;
    }
    Ok(())
}

async fn count(app: &App) -> Outcome<()> {
    app.config.damaged_builds.store(app.store.damaged_builds().await?, Ordering::Relaxed);
    Ok(())
}

async fn read(app: &App, build: &Build) -> Outcome<Result<(), String>> {
    // Dropped with this task, which the thread takes for its end.
    let (_ours, stop) = mpsc::channel();
    let (folder, hash) = (app.dir.build(build.id.as_str()), build.build_hash.clone());
    let bytes_per_s = app.config.builds_verify_bytes_per_s;
    let (told, ended) = oneshot::channel();
    // A thread of its own: priority is a thread's, and shared ones would keep it.
    thread::Builder::new().name("rounds".to_owned()).spawn(move || {
        let priority = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        if let Err(error) = priority {
            tracing::debug!(%error, "builds are read again with the server's priority");
        }
        let result = manifest::read_again(&folder, &hash, |path| slow_hash(path, bytes_per_s, &stop));
        let _ = told.send(result);
    })?;
    ended.await.map_err(Fault::internal)
}

fn slow_hash(path: &Path, bytes_per_s: u64, stop: &Receiver<()>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(hex(context.finish().as_ref()));
        }
        context.update(&chunk[..n]);
        let pause = Duration::from_secs_f64(n as f64 / bytes_per_s as f64);
        if stop.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}
