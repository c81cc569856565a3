//! The accept loop and the life of connections, the same for callers and for the admin listener.
//!
//! It survives running out of descriptors by pausing, takes no more connections than it may, and on its end lets each
//! connection finish what it is at before it closes.

use std::{convert::Infallible, io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Body, CallerBody, Fallback,
    addresses::Addresses,
    opening::{Door, Opened},
    service,
    want::Want,
    wire::{Protocol, Wire},
};
use crate::{
    caller_address::Proxies,
    config::GatewayConfig,
    gate::{Answered, Counted, Exchange, Gate, GateLimits, Pace, PaceLimits},
    gateway::Inner,
};

/// The pause after an `accept` that failed for want of something (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes that a connection buffers in each direction.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams at one time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
/// Bytes of the header list of an HTTP/2 request.
const HEADER_LIST_BYTES_MAX: u32 = 8 * 1024;
/// Bytes of bodies that an HTTP/2 caller may send before they are read, of one stream and of all.
const WINDOW_BYTES: [u32; 2] = [256 * 1024, 512 * 1024];
/// What an HTTP/2 caller says before its first frame.
const PREFACE_BYTES: usize = 24;
/// Resets that an HTTP/2 caller may have in hand before its connection ends.
const RESETS_MAX: usize = 32;
/// How long an HTTP/2 connection may be silent before it is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it has to answer.
const PING_WAIT: Duration = Duration::from_secs(10);
/// How long a caller that has connected is given to speak when the gateway ends.
const LAST_WORD_WAIT: Duration = Duration::from_millis(250);

/// Serves callers until `shutdown`, then drains.
pub(crate) async fn serve(
    inner: Arc<Inner>,
    listener: TcpListener,
    other: Fallback,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let drain = Duration::from_millis(inner.config.drain_ms_max);
    let mut accepting = Accepting::of_callers(&inner);
    let mut watching = JoinSet::new();
    if let Some(tls) = inner.config.tls.clone() {
        let inner = Arc::clone(&inner);
        watching.spawn(async move { tls.watch(&inner.metrics.edges).await });
    }
    let each = {
        let inner = Arc::clone(&inner);
        move |request| service::answer(Arc::clone(&inner), other.clone(), request)
    };
    let metrics = &inner.metrics;
    let opened = |open| {
        metrics.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    };
    accepting.run(&listener, shutdown, &each, opened).await;
    inner.begin_drain();
    if inner.is_succeeded() {
        drop(listener);
        // A request may be underway on any connection that is kept alive. It is answered, and its answer is the last.
        accepting.phase.send_replace(Phase::Farewell);
        let farewell = Duration::from_millis(inner.config.farewell_ms_max);
        let _ = timeout(farewell, accepting.all_end()).await;
    } else {
        // Whoever balances load by `/ready` needs a moment to see it.
        let unready = tokio::time::sleep(Duration::from_millis(inner.config.unready_ms));
        accepting.run(&listener, unready, &each, opened).await;
        drop(listener);
    }
    let ending = async {
        accepting.drain().await;
        inner.tasks.finish().await;
    };
    if timeout(drain, ending).await.is_err() {
        tracing::warn!(drain_ms = drain.as_millis(), "calls were still running at the end of the drain");
    }
    Ok(())
}

/// What connections are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Another process accepts; whoever can be told to go there is told.
    Farewell,
    /// Each finishes what it is at.
    Leaving,
}

/// A listener's connections.
pub(super) struct Accepting {
    inner: Arc<Inner>,
    door: Arc<Door>,
    limits: Limits,
    permits: Arc<Semaphore>,
    connections: JoinSet<()>,
    phase: watch::Sender<Phase>,
    /// How many were accepted; of callers it is on the page of figures.
    accepted: Counter,
}

/// What an open connection is held to.
#[derive(Debug, Clone, Copy)]
struct Limits {
    gate: GateLimits,
    write_idle_max: Duration,
}

impl Accepting {
    pub(super) fn of_callers(inner: &Arc<Inner>) -> Self {
        let config = &inner.config;
        let mut accepting = Self::plain(inner, config.connections_max);
        accepting.door = Arc::new(Door {
            proxies: config.proxies.clone(),
            tls: config.tls.clone(),
            ..(*accepting.door).clone()
        });
        accepting.accepted = inner.metrics.edges.connections_accepted.clone();
        accepting
    }

    /// Without TLS, and nobody speaks for others.
    pub(super) fn plain(inner: &Arc<Inner>, connections_max: usize) -> Self {
        let GatewayConfig { connections_per_address_max, write_idle_ms_max, .. } = inner.config;
        let write_idle_max = Duration::from_millis(write_idle_ms_max);
        let gate = GateLimits {
            head_max: Duration::from_millis(inner.config.head_ms_max),
            idle_max: Duration::from_millis(inner.config.keep_alive_ms_max),
            body: inner.config.other_body_limits(),
        };
        Self {
            inner: Arc::clone(inner),
            door: Arc::new(Door {
                proxies: Proxies::default(),
                tls: None,
                addresses: Addresses::new(connections_per_address_max),
                first_byte_max: gate.head_max,
                write_idle_max,
            }),
            limits: Limits { gate, write_idle_max },
            permits: Arc::new(Semaphore::new(connections_max)),
            connections: JoinSet::new(),
            phase: watch::Sender::new(Phase::Serving),
            accepted: Counter::default(),
        }
    }

    /// Accepts until `shutdown`. `opened` is told the number of connections at each change.
    pub(super) async fn run<S, F>(
        &mut self,
        listener: &TcpListener,
        shutdown: impl Future<Output = ()>,
        service: &S,
        opened: impl Fn(usize),
    ) where
        S: Fn(Request<CallerBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let mut shutdown = pin!(shutdown);
        let mut want = Want::default();
        loop {
            let next = async {
                let permits = Arc::clone(&self.permits);
                let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
                (listener.accept().await, permit)
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(_) = self.connections.join_next(), if !self.connections.is_empty() => {}
                (accepted, permit) = next => match accepted {
                    Ok((tcp, peer)) => {
                        want.ends();
                        self.accepted.inc();
                        let connection = self.connection(tcp, peer.ip(), service.clone());
                        self.connections.spawn(async move {
                            let _permit = permit;
                            connection.await;
                        });
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        self.inner.metrics.edges.accept_failures.inc();
                        want.goes_on(&error, Instant::now());
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
            opened(self.connections.len());
        }
    }

    /// The life of one connection.
    fn connection<S, F>(
        &self,
        tcp: TcpStream,
        peer: IpAddr,
        service: S,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        S: Fn(Request<CallerBody>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let (inner, door, limits) = (Arc::clone(&self.inner), Arc::clone(&self.door), self.limits);
        let mut phase = self.phase.subscribe();
        async move {
            let opening = door.open(tcp, peer, &inner.metrics.edges);
            let opened = tokio::select! {
                opened = opening => opened,
                () = silent_at_the_end(&mut phase) => return,
            };
            let Some(Opened { wire, protocol, address, place }) = opened else { return };
            let _place = place;
            let body_limits = (protocol == Protocol::Http2).then_some(limits.gate.body);
            let service = move |request: Request<Incoming>| {
                let caller = door.proxies.caller(address, request.headers());
                let request = request.map(|body| CallerBody::new(body, caller, body_limits));
                // hyper keeps room for an answer's future in every connection and moves it there at every call: 9 KB,
                // which were half of all bytes that a call copied (`make bench-profile`).
                Box::pin(service(request))
            };
            let ended = match protocol {
                Protocol::Http1 => serve_http1(wire, limits, service, phase).await,
                Protocol::Http2 => serve_http2(wire, limits, service, phase).await,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
    }

    /// Lets each connection finish what it is at. Dropping ends them all.
    pub(super) async fn drain(&mut self) {
        self.phase.send_replace(Phase::Leaving);
        self.all_end().await;
    }

    /// Waits until every connection has ended by itself.
    async fn all_end(&mut self) {
        while self.connections.join_next().await.is_some() {}
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn begins(phase: &mut watch::Receiver<Phase>, awaited: Phase) {
    // An error means that the listener's owner is gone, and its connections with it.
    let _ = phase.wait_for(|phase| *phase >= awaited).await;
}

/// Resolves when nothing is to be expected any more of a caller that has said nothing.
async fn silent_at_the_end(phase: &mut watch::Receiver<Phase>) {
    begins(phase, Phase::Leaving).await;
    tokio::time::sleep(LAST_WORD_WAIT).await;
}

async fn serve_http1<S, F>(
    wire: Wire,
    limits: Limits,
    service: S,
    mut phase: watch::Receiver<Phase>,
) -> hyper::Result<()>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let exchange = Arc::new(Exchange::default());
    let leaving = Arc::clone(&exchange);
    let gate = Gate::new(wire, Arc::clone(&exchange), limits.gate);
    let gated = move |mut request: Request<Incoming>| {
        if let Some(fault) = exchange.refused() {
            request.extensions_mut().insert(fault);
        }
        let answering = service(request);
        let exchange = Arc::clone(&exchange);
        async move { answering.await.map(|answer| answer.map(|body| Answered::new(body, exchange))) }
    };
    let mut serving = pin!(http1().serve_connection(TokioIo::new(gate), service_fn(gated)));
    tokio::select! {
        ended = &mut serving => ended,
        // Not hyper's own way: that closes an idle connection without a look at what has just come.
        () = begins(&mut phase, Phase::Leaving) => {
            leaving.leave();
            serving.await
        }
    }
}

async fn serve_http2<S, F>(
    wire: Wire,
    limits: Limits,
    service: S,
    mut phase: watch::Receiver<Phase>,
) -> hyper::Result<()>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let pace = Pace::new();
    let paced = {
        let pace = Arc::clone(&pace);
        move |request: Request<Incoming>| {
            let (asked, answering) = (pace.begin(), service(request));
            async move { answering.await.map(|answer| answer.map(|body| asked.answer(body))) }
        }
    };
    let io = TokioIo::new(Counted::new(wire, PREFACE_BYTES));
    let mut serving = pin!(http2().serve_connection(io, service_fn(paced)));
    let mut late = pin!(pace.until_late(PaceLimits {
        first: limits.gate.head_max,
        idle: limits.gate.idle_max,
        untaken: limits.write_idle_max,
    }));
    tokio::select! {
        ended = &mut serving => ended,
        // What is open is dropped with the connection.
        () = &mut late => Ok(()),
        // GOAWAY names the last request that is answered, so that it loses none.
        () = begins(&mut phase, Phase::Farewell) => {
            serving.as_mut().graceful_shutdown();
            // It then asks whether the caller has heard. One that does not answer, and asks nothing, is not waited for.
            let idle = async {
                begins(&mut phase, Phase::Leaving).await;
                let limits = PaceLimits { first: LAST_WORD_WAIT, idle: LAST_WORD_WAIT, untaken: limits.write_idle_max };
                pace.until_late(limits).await;
            };
            tokio::select! {
                ended = &mut serving => ended,
                () = &mut late => Ok(()),
                () = idle => Ok(()),
            }
        }
    }
}

/// Heads and clocks are the gate's: all that hyper reads has passed it.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES_MAX).half_close(false).keep_alive(true);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES[0])
        .initial_connection_window_size(WINDOW_BYTES[1])
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_send_buf_size(BUFFER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT);
    builder
}
