//! Tracked predictions while the server, and PostgreSQL where there is one, is killed again and again: each that was
//! answered is read afterwards, once.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    figures::Figures,
    http::{Connection, request},
    postgres::Postgres,
    server::{Model, Server},
};

const TRACKING: &str = "\
import cml.models_v1 as models
from cml.metrics_v1 import track_metric
@models.cml_model(metrics=True)
def predict(args):
    track_metric('n', args['n'])
    return args['n']
";
const PREDICTIONS: usize = 200_000;
const CALLERS: u64 = 8;
/// Between two kills.
const KILL_PAUSE: Duration = Duration::from_secs(1);
const PAGE_ROWS: usize = 20_000;

/// Numbers of answered predictions by UUID.
type Answered = Rc<RefCell<HashMap<String, u64>>>;

/// Until so many predictions are answered, or the time is over.
pub(crate) async fn run(time: Duration) -> Figures {
    run_on(None, time).await
}

/// The same with the rows in PostgreSQL, which is killed in turn with the server.
pub(crate) async fn run_on_postgres(time: Duration) -> Figures {
    run_on(Some(Postgres::start()), time).await
}

async fn run_on(mut postgres: Option<Postgres>, time: Duration) -> Figures {
    let mut figures = Figures::default();
    let configuration = postgres.as_ref().map(Postgres::configuration).unwrap_or_default();
    let mut server = Server::start_with(&configuration);
    let model = server.deploy("tracking", TRACKING, &["--replicas", "2"]);
    let answered = Answered::default();
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (model, answered) = (model.clone(), Rc::clone(&answered));
        callers.spawn_local(async move { call(&model, caller, &answered, begun + time).await });
    }
    let (mut kills, mut database_kills) = (0, 0);
    loop {
        let pause = tokio::time::timeout(KILL_PAUSE, async { while callers.join_next().await.is_some() {} });
        if pause.await.is_ok() {
            break;
        }
        match &mut postgres {
            Some(postgres) if database_kills < kills => {
                postgres.kill();
                postgres.start_again();
                database_kills += 1;
            }
            _ => {
                server.kill_and_start();
                kills += 1;
            }
        }
    }
    let took = begun.elapsed();
    let rows = read(&server, &model);
    let answered = answered.borrow();
    let lost = answered.iter().filter(|(uuid, n)| rows.get(*uuid).is_none_or(|row| row.0 != **n)).count();
    // Each call has a number of its own: two rows of one number are a call that ran twice, or a row that was kept twice.
    let mut by_number: HashMap<u64, u32> = HashMap::new();
    for (number, times) in rows.values() {
        *by_number.entry(*number).or_default() += times;
    }
    figures.aim_at_least("predictions answered", answered.len() as f64, PREDICTIONS as f64, "");
    figures
        .show("answered/s, restarts included", format!("{:.0}", answered.len() as f64 / took.as_secs_f64()));
    figures.show("kills of the server", kills);
    if postgres.is_some() {
        figures.show("kills of PostgreSQL", database_kills);
    }
    figures.must_be("lost", lost, 0);
    figures.must_be("doubled", by_number.values().filter(|times| **times > 1).count(), 0);
    // They ran, their callers were cut off before the answer.
    figures.show("rows of calls without an answer", rows.len().saturating_sub(answered.len()));
    figures
}

/// Calls until there are enough, connecting anew whenever the server is gone.
async fn call(model: &Model, caller: u64, answered: &Answered, end: Instant) {
    let mut connection = None;
    let mut number = caller << 32;
    while Instant::now() < end && answered.borrow().len() < PREDICTIONS {
        number += 1;
        let body = model.body(&format!(r#"{{"n":{number}}}"#));
        let bytes = request(&model.host, "/model", &model.api_key, &body);
        let kept = connection.take();
        let opened = if kept.is_some() { kept } else { Connection::open(&model.host).await.ok() };
        let Some(mut open) = opened else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(answer) = open.exchange(&bytes).await else { continue };
        connection = Some(open).filter(|_| !answer.is_last);
        let envelope: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if let Some(uuid) = envelope["response"]["uuid"].as_str() {
            answered.borrow_mut().insert(uuid.to_owned(), number);
        }
    }
}

/// How long it takes until all that was answered can be read: a read has gateways ship first, for a second at most.
pub(super) fn ship(server: &Server, model: &Model) -> Duration {
    let path = format!("/api/v2/metrics?model_crn={}&page_size=1", crn(server, model));
    let begun = Instant::now();
    while get(model, &path).expect("the server is there").0.contains("warning:") {}
    begun.elapsed()
}

fn crn(server: &Server, model: &Model) -> String {
    server.show(&model.name)["crn"].as_str().expect("models have CRNs").to_owned()
}

/// Every row: its number, and how often it is there.
pub(super) fn read(server: &Server, model: &Model) -> HashMap<String, (u64, u32)> {
    let crn = crn(server, model);
    let mut rows: HashMap<String, (u64, u32)> = HashMap::new();
    let mut token = String::new();
    loop {
        let path = format!("/api/v2/metrics?model_crn={crn}&page_size={PAGE_ROWS}&page_token={token}");
        let page = get(model, &path).expect("the server is there").1;
        for row in page["metrics"].as_array().into_iter().flatten() {
            let uuid = row["predictionUuid"].as_str().unwrap_or_default().to_owned();
            let number = row["metrics"]["n"].as_u64().unwrap_or_default();
            rows.entry(uuid).or_insert((number, 0)).1 += 1;
        }
        page["next_page_token"].as_str().unwrap_or_default().clone_into(&mut token);
        if token.is_empty() {
            return rows;
        }
    }
}

/// One page and its head, by HTTP/1.0, where a body is not in chunks.
fn get(model: &Model, path: &str) -> std::io::Result<(String, Value)> {
    let mut stream = TcpStream::connect(&model.host)?;
    let (host, key) = (&model.host, &model.api_key);
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    let (head, body) = answer.split_at(head + 4);
    Ok((String::from_utf8_lossy(head).to_ascii_lowercase(), serde_json::from_slice(body)?))
}
