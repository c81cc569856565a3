//! The admin listener: `/live` (the process runs), `/ready` (a call would be routed now), `/metrics`, and `/calls`: the
//! events of calls that were kept.

use std::{convert::Infallible, io, sync::Arc};

use hyper::{Request, Response, StatusCode};
use millgate_contract::refusal::Refusal;
use tokio::{net::TcpListener, task::spawn_blocking};

use super::{Body, CallerBody, accept::Accepting, answer};
use crate::{call_log::CallFilter, gate::Fault, gateway::Inner};

/// Probes and scrapers are few.
const CONNECTIONS_MAX: usize = 64;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON_LINES: &str = "application/x-ndjson";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves until `shutdown`.
pub(crate) async fn serve(
    inner: Arc<Inner>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut accepting = Accepting::plain(&inner, CONNECTIONS_MAX);
    let each = move |request: Request<CallerBody>| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(admin(inner, &request).await) }
    };
    accepting.run(&listener, shutdown, &each, |_| {}).await;
    Ok(())
}

/// Events of calls, one line each, the newest last: `?model=`, `code=`, `since=`, `limit=`.
async fn calls(inner: &Inner, query: &str) -> Response<Body> {
    let Some(log) = &inner.call_log else {
        return answer::text(
            StatusCode::NOT_FOUND,
            PLAIN,
            "this gateway keeps no events of calls\n".to_owned(),
        );
    };
    let mut filter = CallFilter::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if let Err(error) = filter.set(&name, &value) {
            return answer::text(StatusCode::BAD_REQUEST, PLAIN, format!("{error}\n"));
        }
    }
    match log.read(filter).await {
        Ok(lines) => {
            let text = lines.iter().flat_map(|line| [line, "\n"]).collect();
            answer::text(StatusCode::OK, JSON_LINES, text)
        }
        Err(error) => {
            tracing::error!(%error, "events of calls cannot be read");
            answer::refusal(&Refusal::Internal, None)
        }
    }
}

async fn admin(inner: Arc<Inner>, request: &Request<CallerBody>) -> Response<Body> {
    if let Some(fault) = request.extensions().get::<Fault>() {
        return answer::refusal(&Refusal::from(*fault), None);
    }
    match request.uri().path() {
        "/live" => answer::text(StatusCode::OK, PLAIN, "live\n".to_owned()),
        "/ready" if inner.is_ready() => answer::text(StatusCode::OK, PLAIN, "ready\n".to_owned()),
        "/ready" => answer::text(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not ready\n".to_owned()),
        "/metrics" => match spawn_blocking(move || inner.metrics_page()).await {
            Ok(page) => answer::text(StatusCode::OK, OPEN_METRICS, page),
            Err(_) => answer::refusal(&Refusal::Internal, None),
        },
        "/calls" => calls(&inner, request.uri().query().unwrap_or("")).await,
        _ => answer::refusal(&Refusal::NotFound, None),
    }
}
