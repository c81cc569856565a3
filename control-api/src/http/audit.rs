//! What is recorded of a request, and the record for administrators: by pages, or whole as JSON lines. Recorded is whatever
//! is no mere look, done or refused, by somebody who came in; secrets in it are left out.

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use http_body_util::{BodyExt, channel::Channel};
use serde_json::{Map, Value, json};

use super::{
    address::CallerAddress,
    answer::{Answer, Answered},
    fields,
    operation::{Answers, Operation, Takes},
    query::Params,
};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    milestone::{Milestone, reached},
    moment::{parse_s, rfc3339},
    store::{Deed, Recorded, Underway},
};

/// Bytes of a request or an answer that are recorded.
const PART_BYTES_MAX: usize = 16 * 1024;
/// Rows that are read at once for an export.
const ROWS_PER_READ: i64 = 1_000;
/// Fields whose values nobody is to read later.
const SECRET: [&str; 6] = ["password", "current_password", "api_key", "access_key", "accessKey", "token"];

/// A deed that is being done.
pub(super) struct Doing {
    deed: Deed,
    request: Value,
    keeps_answer: bool,
    /// None of what was refused before it began.
    underway: Option<Underway>,
}

impl Doing {
    /// Begins to record a request, unless it only looks. Its body is read and given back.
    pub(super) async fn begin(operation: &Operation, request: Request) -> Outcome<(Option<Self>, Request)> {
        if !operation.is_recorded {
            return Ok((None, request));
        }
        let (parts, body) = request.into_parts();
        let (body, shown) = match operation.takes {
            Takes::Files | Takes::Archive => (body, Value::Null),
            Takes::Nothing | Takes::Json(_) | Takes::Object => {
                let bytes = fields::read_body(body).await?;
                let shown = shown(&bytes);
                (Body::from(bytes), shown)
            }
        };
        let deed = Deed {
            address: CallerAddress::of(&parts.extensions).0.to_string(),
            operation: operation.name.to_owned(),
            object: parts.uri.path().trim_start_matches("/api/v2/").to_owned(),
            ..Deed::default()
        };
        let keeps_answer = !matches!(operation.answers, Answers::File(_) | Answers::Events);
        Ok((
            Some(Self { deed, request: shown, keeps_answer, underway: None }),
            Request::from_parts(parts, body),
        ))
    }

    /// Whose request it is, if somebody came in by a key; else who says to be somebody.
    pub(super) fn by(&mut self, username: Option<&str>, project_id: Option<&str>) {
        let said = || self.request["username"].as_str().map(|name| name.chars().take(128).collect());
        self.deed.username = username.map(str::to_owned).or_else(said).unwrap_or_default();
        project_id.unwrap_or_default().clone_into(&mut self.deed.project_id);
    }

    /// Writes down that it is about to be done, so that the end of this process in the midst of it is seen.
    pub(super) async fn admit(&mut self, app: &App) -> Outcome<()> {
        self.deed.details = json!({ "request": self.request }).to_string();
        self.underway = Some(app.store.begin_deed(&self.deed).await?);
        reached(Milestone::Admitted);
        Ok(())
    }

    /// Records it with its answer, which is given back.
    pub(super) async fn end(mut self, app: &App, response: Response) -> Outcome<Response> {
        self.deed.status = response.status().as_u16().into();
        let (parts, body) = response.into_parts();
        let (body, answer) = if self.keeps_answer || !parts.status.is_success() {
            let bytes = body.collect().await.map_err(Fault::internal)?.to_bytes();
            let answer = shown(&bytes);
            (Body::from(bytes), answer)
        } else {
            (body, Value::Null)
        };
        if parts.status.is_success() {
            // What was made has its id in the answer only.
            for id in ["id", "key_id"].iter().filter_map(|field| answer[field].as_str()) {
                if !self.deed.object.contains(id) {
                    self.deed.object = format!("{}/{id}", self.deed.object);
                }
            }
        } else {
            answer["message"].as_str().unwrap_or_default().clone_into(&mut self.deed.message);
        }
        let answer = if parts.status.is_success() { answer } else { Value::Null };
        self.deed.details = json!({ "request": self.request, "answer": answer }).to_string();
        reached(Milestone::Done);
        app.store.record(&self.deed, self.underway).await?;
        reached(Milestone::Recorded);
        Ok(Response::from_parts(parts, body))
    }
}

/// JSON without its secrets; what is too long is its length.
fn shown(bytes: &Bytes) -> Value {
    if bytes.len() > PART_BYTES_MAX {
        return json!({ "bytes": bytes.len() });
    }
    let mut value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    redact(&mut value);
    value
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if SECRET.contains(&name.as_str()) {
                    *value = json!("<redacted>");
                } else if name == "environment" {
                    *value = names_of(value);
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// The names of variables: their values may be secrets.
fn names_of(environment: &Value) -> Value {
    let parsed: Map<String, Value> = match environment {
        Value::Object(variables) => variables.clone(),
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        _ => Map::new(),
    };
    json!(parsed.keys().collect::<Vec<_>>())
}

fn view(recorded: &Recorded) -> Value {
    let deed = &recorded.deed;
    json!({
        "number": recorded.number,
        "at": rfc3339(recorded.at_us),
        "username": deed.username,
        "address": deed.address,
        "operation": deed.operation,
        "object": deed.object,
        "project_id": deed.project_id,
        "status": deed.status,
        "message": deed.message,
        "details": serde_json::from_str::<Value>(&deed.details).unwrap_or_default(),
    })
}

pub(crate) async fn list(State(app): State<App>, params: Params) -> Answered {
    let time = |name: &str, default: i64| match params.text(name) {
        None => Ok(default),
        Some(text) => parse_s(text).map(|s| s.saturating_mul(1_000_000)).ok_or_else(|| {
            Fault::Invalid(format!("`{name}` is {text:?}: it must be a date such as 2030-01-31T00:00:00Z"))
        }),
    };
    let page = app.store.deeds(time("since", 0)?, time("until", i64::MAX)?, &params.paging()?).await?;
    let entries: Vec<Value> = page.items.iter().map(view).collect();
    Ok(Answer::of(json!({ "entries": entries, "next_page_token": page.next_page_token })))
}

/// All of it, a JSON object in each line, the oldest first.
pub(crate) async fn export(State(app): State<App>) -> Response {
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
    // Ends with the reader or the rows.
    tokio::spawn(async move {
        let mut after = 0;
        loop {
            let rows = match app.store.deeds_after(after, ROWS_PER_READ).await {
                Ok(rows) => rows,
                Err(fault) => return sender.abort(std::io::Error::other(fault)),
            };
            let Some(last) = rows.last() else { return };
            after = last.number;
            let lines = rows.iter().fold(String::new(), |lines, row| lines + &view(row).to_string() + "\n");
            if sender.send_data(Bytes::from(lines)).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}
