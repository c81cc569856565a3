//! Tracked metrics: windows of rows, what became known later, and aggregates.
//!
//! Whoever sees a project reads its metrics; whoever may call its models adds to them, since their calls do so anyway. A
//! read has gateways ship first what is on their spools, and says in a `Warning` of which nothing was heard.

mod body;
mod rows;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use millgate_contract::ids::{BuildId, DeploymentId, ModelId};

use self::body::RawBody;
use super::{answer::Answer, caller::Caller, query::Params};
use crate::{
    app::App,
    fault::{Fault, Outcome},
    moment::now_us,
    names,
    rows::Level,
    store::{
        PAGE_SIZE_MAX,
        metrics::{Aggregate, Cursor, Source, Window},
    },
};

/// Rows of a page where nothing is said.
const PAGE_ROWS_DEFAULT: i64 = 10_000;
/// The last millisecond that is a time: the end of the year 9999.
const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// Rows of a window, as one JSON document that is written while it is read.
pub(crate) async fn list(State(app): State<App>, caller: Caller, params: Params) -> Result<Response, Fault> {
    let mut window = window(&app, &caller, &params).await?;
    let rows_max = match params.number("page_size", 1.0, PAGE_SIZE_MAX as f64)? {
        Some(size) => size,
        None => PAGE_ROWS_DEFAULT,
    };
    let (after, silent) = match params.text("page_token") {
        Some(token) => {
            let (end_ms, cursor) = read_token(token)?;
            window.end_ms = end_ms;
            (Some(cursor), Vec::new())
        }
        None => (None, app.publisher.flush().await),
    };
    let mut response = rows::page(app, window, after, rows_max).await?;
    warn(&mut response, &silent);
    Ok(response)
}

/// Metrics of a prediction that became known later.
pub(crate) async fn add_delayed(
    State(app): State<App>,
    caller: Caller,
    mut body: RawBody,
) -> Result<Response, Fault> {
    let uuid: String = body.needed("prediction_uuid", "it must be the `uuid` of an answer")?;
    let uuid = uuid::Uuid::parse_str(&uuid)
        .map_err(|_| Fault::Invalid(format!("field `prediction_uuid` is {uuid:?}: it must be a UUID")))?
        .to_string();
    let metrics = body.metrics()?;
    let mut silent = Vec::new();
    let mut source = app.store.source_of_prediction(&uuid).await?;
    if source.is_none() {
        silent = app.publisher.flush().await;
        source = app.store.source_of_prediction(&uuid).await?;
    }
    match &source {
        Some(source) if app.store.may_track(&caller.user, source).await? => {
            app.store.add_delayed(&uuid, None, &metrics).await?;
        }
        Some(_) => return Err(Fault::missing("prediction", &uuid)),
        None => app.store.add_delayed(&uuid, Some(&caller.user.username), &metrics).await?,
    }
    let mut response = Answer::empty().ignoring(body.unknown()).into_response();
    if source.is_none() {
        silent.push("the prediction is not there yet".to_owned());
    }
    warn(&mut response, &silent);
    Ok(response)
}

/// A row about a span of time.
pub(crate) async fn add_aggregate(
    State(app): State<App>,
    caller: Caller,
    mut body: RawBody,
) -> Result<Answer, Fault> {
    let crn: String = body.needed("model_deployment_crn", "it must name a deployment")?;
    let time = "it must be Unix milliseconds";
    let start_ms =
        body.needed("start_timestamp_ms", time).and_then(|ms| nearest_ms("start_timestamp_ms", ms))?;
    let end_ms = body.needed("end_timestamp_ms", time).and_then(|ms| nearest_ms("end_timestamp_ms", ms))?;
    if end_ms < start_ms {
        return Err(Fault::Invalid(format!(
            "field `end_timestamp_ms` is {end_ms}: it must not be before `start_timestamp_ms`, {start_ms}"
        )));
    }
    let metrics = body.metrics()?;
    let missing = || Fault::missing("deployment", &crn);
    let id = id_of(&app, &crn).ok_or_else(missing)?;
    let source = app.store.metric_source(&DeploymentId::new(id)).await?.ok_or_else(missing)?;
    if !app.store.may_track(&caller.user, &source).await? {
        return Err(missing());
    }
    app.store.add_aggregate(&source, &Aggregate { start_ms, end_ms, metrics }).await?;
    Ok(Answer::empty().ignoring(body.unknown()))
}

/// What the parameters name, if the caller may see it.
async fn window(app: &App, caller: &Caller, params: &Params) -> Outcome<Window> {
    let start_ms = params.number("start_timestamp_ms", 0.0, TIME_MS_MAX as f64)?.unwrap_or(0);
    // An answered call ended before now; its end was rounded, and so may lie half a millisecond ahead.
    let now_ms = now_us() / 1_000 + 1;
    let end_ms = params.number("end_timestamp_ms", 0.0, TIME_MS_MAX as f64)?.unwrap_or(now_ms);
    let mut named = Named::default();
    if let Some(crn) = params.text("model_deployment_crn") {
        named.deployment(app, crn).await?;
    }
    if let Some(crn) = params.text("model_build_crn") {
        named.build(app, crn).await?;
    }
    if let Some(crn) = params.text("model_crn") {
        named.model(app, crn)?;
    }
    let Some((model, crn)) = named.models.first().cloned() else {
        return Err(Fault::Invalid(
            "name what to read: `model_deployment_crn`, `model_build_crn` or `model_crn`".to_owned(),
        ));
    };
    for (model, crn) in &named.models {
        may_see(app, caller, model, crn).await?;
    }
    let is_one = named.models.iter().all(|(other, _)| *other == model)
        && named.deployment.as_ref().is_none_or(|d| named.build.as_ref().is_none_or(|b| d.build == *b));
    if !is_one {
        return Err(Fault::Invalid(
            "the CRNs are not those of one deployment and its build and model".to_owned(),
        ));
    }
    let model_number = app.store.model(&model).await?.ok_or_else(|| Fault::missing("model", &crn))?.number;
    let deployment_number = named.deployment.map(|source| source.deployment_number);
    Ok(Window { model_number, deployment_number, build: named.build, start_ms, end_ms })
}

/// What CRNs name, each with the model it leads to.
#[derive(Default)]
struct Named {
    deployment: Option<Source>,
    build: Option<BuildId>,
    models: Vec<(ModelId, String)>,
}

impl Named {
    async fn deployment(&mut self, app: &App, crn: &str) -> Outcome<()> {
        let missing = || Fault::missing("deployment", crn);
        let id = DeploymentId::new(id_of(app, crn).ok_or_else(missing)?);
        let source = app.store.metric_source(&id).await?.ok_or_else(missing)?;
        self.models.push((source.model.clone(), crn.to_owned()));
        self.deployment = Some(source);
        Ok(())
    }

    async fn build(&mut self, app: &App, crn: &str) -> Outcome<()> {
        let missing = || Fault::missing("build", crn);
        let id = BuildId::new(id_of(app, crn).ok_or_else(missing)?);
        let model = app.store.model_of_build(&id).await?.ok_or_else(missing)?;
        self.models.push((model, crn.to_owned()));
        self.build = Some(id);
        Ok(())
    }

    fn model(&mut self, app: &App, crn: &str) -> Outcome<()> {
        let id = id_of(app, crn).ok_or_else(|| Fault::missing("model", crn))?;
        self.models.push((ModelId::new(id), crn.to_owned()));
        Ok(())
    }
}

/// A foreign object looks like one that does not exist.
async fn may_see(app: &App, caller: &Caller, model: &ModelId, crn: &str) -> Outcome<()> {
    let missing = || Fault::NotFound(format!("there is nothing of the CRN `{crn}`"));
    let model = app.store.model(model).await?.filter(|model| !model.is_deleting).ok_or_else(missing)?;
    match caller.project(app, model.project_id.as_str(), Level::Viewer).await {
        Ok(_) => Ok(()),
        Err(Fault::NotFound(_)) => Err(missing()),
        Err(other) => Err(other),
    }
}

/// The id at the end of a CRN of this server, or an id alone.
fn id_of<'a>(app: &App, crn: &'a str) -> Option<&'a str> {
    match crn.strip_prefix(names::crn(&app.workspace, "").as_str()) {
        Some(id) => Some(id),
        None => (!crn.contains(':')).then_some(crn),
    }
}

fn nearest_ms(name: &str, ms: f64) -> Outcome<i64> {
    if ms.is_finite() && (0.0..=TIME_MS_MAX as f64).contains(&ms) {
        Ok(ms.round() as i64)
    } else {
        Err(Fault::Invalid(format!(
            "field `{name}` is {ms}: it must be Unix milliseconds from 0 to {TIME_MS_MAX}"
        )))
    }
}

/// Tokens are opaque to callers; they hold the end of the window and the last row that was given.
fn token(end_ms: i64, cursor: &Cursor) -> String {
    format!("m{end_ms:x}.{:x}.{}", cursor.start_ms, cursor.id)
}

fn read_token(token: &str) -> Outcome<(i64, Cursor)> {
    let read = || {
        let mut parts = token.strip_prefix('m')?.splitn(3, '.');
        let mut number = || i64::from_str_radix(parts.next()?, 16).ok();
        let (end_ms, start_ms) = (number()?, number()?);
        Some((end_ms, Cursor { start_ms, id: parts.next()?.to_owned() }))
    };
    read().ok_or_else(|| Fault::Invalid(format!("`page_token` {token:?} was not given out by this list")))
}

/// Says what may be missing. Names come from gateways: what does not belong in a header is replaced.
fn warn(response: &mut Response, silent: &[String]) {
    if silent.is_empty() {
        return;
    }
    let names: String = silent
        .join(", ")
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' })
        .take(1_000)
        .collect();
    let text = format!(
        "299 millgate \"metrics of the last moments may be missing; gateways not heard from: {names}\""
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().append(header::WARNING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_there_and_back_and_others_are_refused() {
        let cursor = Cursor { start_ms: 1_746_629_493_901, id: "0b6d.x".to_owned() };
        assert_eq!(read_token(&token(99, &cursor)).unwrap(), (99, cursor));
        for bad in ["", "m", "m1", "m1.2", "p1.2.3", "mz.2.3"] {
            assert!(read_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_rounded_to_the_nearest_millisecond() {
        assert_eq!(nearest_ms("t", 1_000.5).unwrap(), 1_001);
        assert_eq!(nearest_ms("t", 1_000.4).unwrap(), 1_000);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e18] {
            assert!(nearest_ms("t", bad).is_err(), "{bad}");
        }
    }
}
