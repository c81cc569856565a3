//! A page of rows as it is written: some rows at a time are read, put down and forgotten, as fast as the reader takes
//! them. A store that fails on the way breaks the answer off, so that nobody takes a part for the whole.

use std::{collections::HashMap, io};

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use serde_json::json;

use super::token;
use crate::{
    app::App,
    fault::Outcome,
    names::crn,
    store::metrics::{Cursor, MetricRow, Window},
};

/// Rows that are held at one time.
const ROWS_HELD: usize = 200;

/// `{"metrics": [row, …], "next_page_token": "…"}`.
pub(super) async fn page(
    app: App,
    window: Window,
    after: Option<Cursor>,
    rows_max: i64,
) -> Outcome<Response> {
    let left = usize::try_from(rows_max).unwrap_or(usize::MAX);
    let mut page = Page { app, window, after, left, crns: HashMap::new() };
    // What fails now still has a status.
    let first = page.next().await?;
    let (sender, body) = Channel::<Bytes, io::Error>::new(2);
    // Ends by itself: with the page, or with the reader.
    tokio::spawn(page.write(first, sender));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

struct Page {
    app: App,
    window: Window,
    after: Option<Cursor>,
    /// Rows that the page may still have.
    left: usize,
    /// `"modelDeploymentCrn":…,"modelBuildCrn":…,"modelCrn":…` by a deployment's number.
    crns: HashMap<i64, String>,
}

impl Page {
    async fn write(mut self, first: Vec<MetricRow>, mut sender: Sender<Bytes, io::Error>) {
        let mut text = String::from(r#"{"metrics":["#);
        let mut rows = first;
        let mut is_first = true;
        while !rows.is_empty() {
            for row in &rows {
                if !std::mem::take(&mut is_first) {
                    text.push(',');
                }
                if let Err(error) = self.put(row, &mut text).await {
                    return broken(sender, error);
                }
            }
            if sender.send_data(std::mem::take(&mut text).into()).await.is_err() {
                return;
            }
            rows = match self.next().await {
                Ok(rows) => rows,
                Err(error) => return broken(sender, error),
            };
        }
        // A page that ends because it is full may be the last one, which the next will say.
        let next = match &self.after {
            Some(after) if self.left == 0 => token(self.window.end_ms, after),
            _ => String::new(),
        };
        text.push_str(r#"],"next_page_token":""#);
        text.push_str(&next);
        text.push_str("\"}");
        let _ = sender.send_data(text.into()).await;
    }

    async fn next(&mut self) -> Outcome<Vec<MetricRow>> {
        let rows_max = self.left.min(ROWS_HELD);
        if rows_max == 0 {
            return Ok(Vec::new());
        }
        let rows = self.app.store.metric_rows(&self.window, self.after.as_ref(), rows_max).await?;
        self.left -= rows.len();
        if let Some(last) = rows.last() {
            self.after = Some(last.cursor());
        }
        Ok(rows)
    }

    async fn put(&mut self, row: &MetricRow, text: &mut String) -> Outcome<()> {
        use std::fmt::Write;
        if !self.crns.contains_key(&row.deployment_number) {
            let crns = self.crns_of(row.deployment_number).await?;
            self.crns.insert(row.deployment_number, crns);
        }
        let crns = &self.crns[&row.deployment_number];
        let _ =
            write!(text, r#"{{{crns},"startTimeStampMs":{},"endTimeStampMs":{}"#, row.start_ms, row.end_ms);
        if !row.is_aggregate {
            let _ = write!(text, r#","predictionUuid":{}"#, json!(row.id));
        }
        let _ = write!(text, r#","metrics":{}}}"#, row.metrics);
        Ok(())
    }

    async fn crns_of(&self, deployment_number: i64) -> Outcome<String> {
        let source = self.app.store.metric_source_by_number(deployment_number).await?;
        let shown = |id: Option<&str>| json!(id.map(|id| crn(&self.app.workspace, id)).unwrap_or_default());
        let source = source.as_ref();
        Ok(format!(
            r#""modelDeploymentCrn":{},"modelBuildCrn":{},"modelCrn":{}"#,
            shown(source.map(|s| s.deployment.as_str())),
            shown(source.map(|s| s.build.as_str())),
            shown(source.map(|s| s.model.as_str())),
        ))
    }
}

fn broken(sender: Sender<Bytes, io::Error>, error: crate::fault::Fault) {
    tracing::error!(error = &error as &dyn std::error::Error, "a page of metrics is broken off");
    sender.abort(io::Error::other(error));
}
