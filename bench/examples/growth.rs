//! What a call costs a gateway with 1 and with 1,000 models, one of them called or each in turn, with 1 and with 10,000
//! API keys, and how long a route change takes with 1,000 models. The figure is the processor's time of the thread that
//! runs the gateway; callers and replicas have threads of their own. What is compared is called in turns, in short slices: the
//! speed of a machine that others share changes from second to second. `growth CALLS ROUNDS` prints one line of JSON.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
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
/// Of a round. Each case has as many, and a figure is the median of them.
const SLICES: usize = 25;
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
    let (mut found, mut growth) = (vec![Vec::new(); cases.len()], vec![Vec::new(); cases.len()]);
    for (house, models, keys_used) in &cases {
        // Each key's signature is checked once, and each model's connection made.
        house.call(0..calls.max(*models).max(*keys_used), *models, &keys[..*keys_used])?;
    }
    for round in 0..rounds {
        let mut costs = vec![Vec::new(); cases.len()];
        for slice in 0..SLICES {
            let begin = (round * SLICES + slice) * (calls / SLICES);
            for ((house, models, keys_used), costs) in cases.iter().zip(&mut costs) {
                let calls = begin..begin + calls / SLICES;
                costs.push(house.call(calls, *models, &keys[..*keys_used])?);
            }
        }
        for (at, of_case) in costs.iter().enumerate() {
            found[at].push(median(of_case.clone()));
            let ratios = of_case.iter().zip(&costs[0]).map(|(cost, least)| cost / least).collect();
            growth[at].push((median(ratios) - 1.0) * 100.0);
        }
    }
    let change_ms =
        (0..rounds).map(|round| houses[1].change(round, folder.path())).collect::<Result<Vec<_>, _>>()?;
    let figures = serde_json::json!({
        "call_us_1_model_1_key": found[0], "call_us_one_of_1000_models": found[1],
        "call_us_each_of_1000_models": found[2], "call_us_10000_keys": found[3],
        "growth_one_model_percent": growth[1], "growth_models_percent": growth[2], "growth_keys_percent": growth[3],
        "route_change_ms": change_ms,
    });
    println!("{figures}");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
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
    fn call(&self, numbers: Range<usize>, models: usize, keys: &[String]) -> Result<f64, BoxError> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let before = self.cpu()?;
        let calls = numbers.len();
        for number in numbers {
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
