//! The control API as what a gateway gives every request that is not a model call. In an upgrade it comes later than the
//! gateway and goes earlier: a request that is too early waits, one that is too late is told to come again.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::Request;
use millgate_gateway::{CallerAddress, CallerBody, Fallback};
use serde_json::json;
use tokio::{runtime::Handle, sync::watch, task::AbortHandle, time::timeout};
use tower::{ServiceExt, util::BoxCloneSyncService};

/// How long a request waits for the control API to come.
const COMING_WAIT: Duration = Duration::from_secs(30);
/// How long requests that are underway are given when it goes.
const GOING_WAIT: Duration = Duration::from_secs(10);

/// Where the control API is to be found.
#[derive(Clone)]
pub(crate) struct Office {
    /// Where it runs: not on the threads of calls.
    runtime: Handle,
    presence: Arc<watch::Sender<Presence>>,
    /// Requests that it is answering.
    underway: Arc<watch::Sender<usize>>,
}

#[derive(Clone)]
enum Presence {
    Coming,
    Here(Router),
    Gone,
}

impl Office {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            presence: Arc::new(watch::Sender::new(Presence::Coming)),
            underway: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The threads of the control API.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The control API is here.
    pub(crate) fn open(&self, router: Router) {
        self.presence.send_replace(Presence::Here(router));
    }

    /// It takes no more requests; returns when those underway are answered, or have taken too long.
    pub(crate) async fn close(&self) {
        self.presence.send_replace(Presence::Gone);
        let mut underway = self.underway.subscribe();
        let _ = timeout(GOING_WAIT, underway.wait_for(|requests| *requests == 0)).await;
    }

    /// As a gateway's fallback.
    pub(crate) fn fallback(&self) -> Fallback {
        let office = self.clone();
        BoxCloneSyncService::new(tower::service_fn(move |mut request: Request<CallerBody>| {
            let office = office.clone();
            let from = CallerAddress::of(request.extensions());
            request.extensions_mut().insert(millgate_control_api::CallerAddress(from));
            async move {
                let response = office.answer(request.map(Body::new)).await;
                Ok::<_, Infallible>(response.map(|body| body.map_err(Into::into).boxed_unsync()))
            }
        }))
    }

    async fn answer(&self, request: Request<Body>) -> Response {
        let mut presence = self.presence.subscribe();
        let there = presence.wait_for(|presence| !matches!(presence, Presence::Coming));
        // Counted before it is known whether it is here, so that whoever closes sees every request that found it open.
        let _underway = Underway::begin(&self.underway);
        let found = timeout(COMING_WAIT, there).await.map(|found| found.map(|presence| presence.clone()));
        match found {
            Ok(Ok(Presence::Here(router))) => self.run(router, request).await,
            _ => unavailable(),
        }
    }

    /// Answers on the control API's own threads.
    async fn run(&self, router: Router, request: Request<Body>) -> Response {
        let answering = self.runtime.spawn(router.oneshot(request));
        let _abandoned = Abandoned(answering.abort_handle());
        match answering.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(ended) => match ended.try_into_panic() {
                // As if it had happened here: the connection ends.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unavailable(),
            },
        }
    }
}

/// Ends the answering of a request whose caller has gone.
struct Abandoned(AbortHandle);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One request that is being answered.
struct Underway<'a>(&'a watch::Sender<usize>);

impl<'a> Underway<'a> {
    fn begin(requests: &'a watch::Sender<usize>) -> Self {
        requests.send_modify(|requests| *requests += 1);
        Self(requests)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

fn unavailable() -> Response {
    let message = "the control API is changing over to another process; try again";
    // 14 is gRPC's UNAVAILABLE.
    let body = json!({ "error": message, "code": 14, "message": message, "details": [] });
    let headers = [(RETRY_AFTER, "1"), (CONTENT_TYPE, "application/json")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    fn request() -> Request<Body> {
        Request::builder().uri("/x").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_request_that_is_too_early_waits_and_one_that_is_too_late_is_503() {
        let office = Office::new(Handle::current());
        let early = tokio::spawn({
            let office = office.clone();
            async move { office.answer(request()).await.status() }
        });
        tokio::task::yield_now().await;
        office.open(Router::new().route("/x", get(|| async { "here" })));
        assert_eq!(early.await.unwrap(), StatusCode::OK);
        office.close().await;
        let late = office.answer(request()).await;
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(late.headers()[RETRY_AFTER], "1");
    }

    #[tokio::test]
    async fn requests_are_answered_on_threads_that_no_call_waits_for() {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("office").build();
        let own = own.unwrap();
        let office = Office::new(own.handle().clone());
        let thread = || async { std::thread::current().name().unwrap_or_default().to_owned() };
        office.open(Router::new().route("/x", get(thread)));
        let body = office.answer(request()).await.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "office");
        own.shutdown_background();
    }

    #[tokio::test]
    async fn closing_waits_for_what_is_underway() {
        let office = Office::new(Handle::current());
        let (finish, finished) = watch::channel(false);
        let slow = move || {
            let mut finished = finished.clone();
            async move {
                let _ = finished.wait_for(|finished| *finished).await;
                "done"
            }
        };
        office.open(Router::new().route("/x", get(slow)));
        let answering = tokio::spawn({
            let office = office.clone();
            async move { office.answer(request()).await.status() }
        });
        while *office.underway.borrow() == 0 {
            tokio::task::yield_now().await;
        }
        let closing = tokio::spawn({
            let office = office.clone();
            async move { office.close().await }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        finish.send(true).unwrap();
        assert_eq!(answering.await.unwrap(), StatusCode::OK);
        closing.await.unwrap();
    }
}
