//! The attack table: everything that must not get through, sent to a real server, each row with the status it must
//! get. Nothing of it may reach the function, and a good caller is served between any two rows.

mod caps;
mod framing;
mod http2;
mod json;
mod keys;
mod signed;
mod slow;

use std::time::Duration;

use crate::{
    figures::Figures,
    http::{Answer, Connection, request},
    processes,
    server::{Model, Server},
};

/// Counts its runs, sleeps, or answers with much.
const MODEL: &str = "\
import time
runs = 0
def predict(args):
    global runs
    if isinstance(args, dict) and args.get('do') == 'runs':
        return runs
    runs += 1
    if isinstance(args, dict) and args.get('do') == 'sleep':
        time.sleep(args['s'])
    if isinstance(args, dict) and args.get('do') == 'much':
        return 'x' * 15_000_000
    return 1
";
/// For the rows that take all connections.
const DESCRIPTORS: u64 = 20_000;
/// How long an answer, or an end, may take that does not depend on a clock of the server's.
const AT_ONCE: Duration = Duration::from_secs(5);

/// One attack on one connection of its own.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// The statuses of the answers, in order.
    pub(super) statuses: Vec<u16>,
    /// The connection ends behind them.
    pub(super) closes: bool,
    /// How often the function runs for it.
    pub(super) runs: u64,
}

/// What one row came to.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) faults: Vec<String>,
}

impl Found {
    pub(super) fn new(name: impl Into<String>, text: impl ToString, faults: Vec<String>) -> Self {
        Self { name: name.into(), text: text.to_string(), faults }
    }
}

pub(crate) async fn run(_: Duration) -> Figures {
    let mut figures = Figures::default();
    processes::raise_descriptors(DESCRIPTORS);
    let server = Server::start();
    let model = server.deploy("attacked", MODEL, &["--replicas", "1"]);
    let (before, descriptors) = (processes::rss_bytes(server.pid()), processes::descriptors(server.pid()));
    // The slow ones take their time; on a model of their own they do so while the others are tried.
    let slow_model = server.deploy("slow", MODEL, &["--replicas", "1"]);
    let (slow, mut found) = tokio::join!(slow::all(&slow_model), quick(&server, &model));
    found.extend(slow);
    let held = found.iter().filter(|row| row.faults.is_empty()).count();
    for row in &found {
        figures.row(&row.name, &row.text, &row.faults);
    }
    let after = (processes::rss_bytes(server.pid()), processes::descriptors(server.pid()));
    figures.show("memory of the server before, after", format!("{} MB, {} MB", before >> 20, after.0 >> 20));
    figures.show("descriptors of the server before, after", format!("{descriptors}, {}", after.1));
    let all = found.len();
    figures.must_be("rows as expected", format!("{held} of {all}"), format!("{all} of {all}"));
    figures
}

async fn quick(server: &Server, model: &Model) -> Vec<Found> {
    let mut found = Vec::new();
    let rows = framing::rows(model).into_iter().chain(json::rows(model)).chain(keys::rows(model));
    for row in rows.chain(signed::rows(server, model)) {
        found.push(attempt(model, row).await);
    }
    let narrow = Server::start_with(&format!("[admission]\nline_calls_max = {}\n", framing::IN_LINE));
    let narrow_model = narrow.deploy("narrow", MODEL, &["--replicas", "1"]);
    for says_end_only in [false, true] {
        found.push(framing::hang_up(&narrow_model, says_end_only).await);
    }
    found.push(framing::upload(model).await);
    found.extend(keys::over_time(server, model).await);
    found.extend(http2::all(server, model).await);
    found.extend(caps::all(model).await);
    found
}

async fn attempt(model: &Model, row: Row) -> Found {
    let mut faults = Vec::new();
    let before = runs(model).await;
    let statuses = match Connection::open(&model.host).await {
        Ok(mut connection) => {
            let _ = connection.send(&row.bytes).await;
            let mut statuses = Vec::new();
            for _ in &row.statuses {
                match tokio::time::timeout(AT_ONCE, connection.answer()).await {
                    Ok(Ok(answer)) => {
                        faults.extend(not_an_envelope(&answer));
                        statuses.push(answer.status);
                    }
                    Ok(Err(error)) => faults.push(format!("no answer: {error}")),
                    Err(_) => faults.push("no answer".to_owned()),
                }
            }
            if row.closes && !connection.is_closed_within(AT_ONCE).await {
                faults.push("not closed".to_owned());
            }
            statuses
        }
        Err(error) => {
            faults.push(error.to_string());
            Vec::new()
        }
    };
    if statuses != row.statuses {
        faults.push(format!("must be {:?}", row.statuses));
    }
    // The question itself is not counted.
    let ran = runs(model).await - before;
    if ran != row.runs {
        faults.push(format!("the function ran {ran} times"));
    }
    let text = statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    Found::new(row.name, if row.closes { format!("{text}, closed") } else { text }, faults)
}

fn not_an_envelope(answer: &Answer) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let is_one = body["success"] == (answer.status == 200) && body["StatusCode"] == answer.status;
    (!is_one).then(|| format!("not an envelope: {}", String::from_utf8_lossy(&answer.body)))
}

/// How often the function has run: asked by a good caller, who must be served whatever went on before.
async fn runs(model: &Model) -> u64 {
    let answer = call(model, r#"{"do":"runs"}"#).await.expect("a good caller is served");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["response"].as_u64().unwrap_or_else(|| panic!("not a count: {body}"))
}

/// A good call.
async fn call(model: &Model, request: &str) -> std::io::Result<Answer> {
    Connection::open(&model.host).await?.exchange(&good(model, request)).await
}

/// The bytes of a good call.
fn good(model: &Model, body: &str) -> Vec<u8> {
    request(&model.host, "/model", &model.api_key, &model.body(body))
}

/// A call with these lines in its head, and these bytes behind it.
fn with_lines(model: &Model, lines: &[&str], behind: &[u8]) -> Vec<u8> {
    let mut head = format!(
        "POST /model HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n",
        model.host, model.api_key
    );
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), behind].concat()
}
