//! What a call costs a gateway with 1 and with 1,000 models, one of them called or each in turn, with 1 and with 10,000
//! API keys, and how long a route change takes with 1,000 models. The figure is the processor's time of the thread that
//! runs the gateway; callers and replicas have threads of their own. `growth CALLS ROUNDS` prints one line of JSON.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use millgate_bench::{
    issuer::Issuer,
    replicas,
    stages::{body, request},
};
use millgate_contract::route::RouteSnapshot;
use millgate_gateway::{Gateway, GatewayConfig, no_fallback};
use tokio::net::TcpListener;

const MODELS: usize = 1_000;
const KEYS: usize = 10_000;
const ANSWER_BYTES_MAX: usize = 8 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), BoxError> {
    let args: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [calls, rounds] = args[..] else { return Err("usage: growth CALLS ROUNDS".into()) };
    let folder = tempfile::tempdir()?;
    serve_replicas(folder.path())?;
    let houses = [House::open(1, folder.path())?, House::open(MODELS, folder.path())?];
    let keys: Vec<String> = (0..KEYS).map(|number| Issuer::default().api_key(number)).collect();
    let cases = [(&houses[0], 1, 1), (&houses[1], 1, 1), (&houses[1], MODELS, 1), (&houses[0], 1, KEYS)];
    let mut found = vec![Vec::new(); cases.len()];
    for round in 0..=rounds {
        for (at, (house, models, keys_used)) in cases.iter().enumerate() {
            // The first round checks each key's signature once, and connects.
            let calls = if round == 0 { calls.max(*models).max(*keys_used) } else { calls };
            let cost = house.call(calls, *models, &keys[..*keys_used])?;
            if round > 0 {
                found[at].push(cost);
            }
        }
    }
    let change_ms =
        (0..rounds).map(|round| houses[1].change(round, folder.path())).collect::<Result<Vec<_>, _>>()?;
    let figures = serde_json::json!({
        "call_us_1_model_1_key": found[0], "call_us_one_of_1000_models": found[1],
        "call_us_each_of_1000_models": found[2], "call_us_10000_keys": found[3],
        "route_change_ms": change_ms,
    });
    println!("{figures}");
    Ok(())
}

/// Replicas for all models, on a thread of their own that ends with the program.
fn serve_replicas(folder: &Path) -> Result<(), BoxError> {
    let (folder, (ready, is_ready)) = (folder.to_owned(), mpsc::channel());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let bound = (0..MODELS).try_for_each(|number| replicas::serve(number, &folder));
            let _ = ready.send(bound);
            std::future::pending::<std::io::Result<()>>().await
        })
    });
    is_ready.recv()?.map_err(Into::into)
}

/// A gateway on a thread of its own.
struct House {
    gateway: Gateway,
    address: SocketAddr,
    /// Where the kernel says what its thread has had: nanoseconds first.
    schedstat: String,
}

impl House {
    fn open(models: usize, folder: &Path) -> Result<Self, BoxError> {
        let snapshot = Issuer::default().snapshot(1, models, folder);
        let (opened, is_opened) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let gateway = Gateway::new(GatewayConfig::default());
                let thread = std::fs::read_link("/proc/thread-self")?;
                let schedstat = format!("/proc/{}/schedstat", thread.display());
                let house = Self { gateway: gateway.clone(), address: listener.local_addr()?, schedstat };
                let _ = opened.send((house, gateway.apply(snapshot)));
                gateway.serve(listener, no_fallback(), std::future::pending()).await
            })
        });
        let (house, applied) = is_opened.recv()?;
        applied?;
        while !house.gateway.is_connected() {
            std::thread::yield_now();
        }
        Ok(house)
    }

    fn cpu(&self) -> Result<Duration, BoxError> {
        let text = std::fs::read_to_string(&self.schedstat)?;
        let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Microseconds of the gateway's thread per call, models and keys taken in turn.
    fn call(&self, calls: usize, models: usize, keys: &[String]) -> Result<f64, BoxError> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let before = self.cpu()?;
        for number in 0..calls {
            let body = body(number % models, r#"{"a": 3, "b": 5}"#);
            stream.write_all(request(&keys[number % keys.len()], &body).as_bytes())?;
            // An answer is short, and the gateway writes it at once.
            let bytes = stream.read(&mut answer)?;
            if !answer[..bytes].starts_with(b"HTTP/1.1 200") {
                return Err(String::from_utf8_lossy(&answer[..bytes]).into_owned().into());
            }
        }
        Ok(self.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / calls as f64)
    }

    /// Milliseconds from a new snapshot in the publisher's hands to the gateway routing by it.
    fn change(&self, round: usize, folder: &Path) -> Result<f64, BoxError> {
        let mut snapshot = Issuer::default().snapshot(round as u64 + 2, MODELS, folder);
        "renamed".clone_into(&mut snapshot.models[round % MODELS].name);
        let begun = Instant::now();
        self.gateway.apply(RouteSnapshot::open(&snapshot.seal())?)?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}
