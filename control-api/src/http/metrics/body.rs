//! A body whose values stay the text they are: metrics are kept as they were sent, with every digit.

use std::{collections::BTreeMap, fmt::Display};

use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt, Limited};
use millgate_contract::limits::TRACKED_METRICS_BYTES_MAX;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{
    fault::{Fault, Outcome},
    store::metrics::object,
};

/// Bytes of the whole body.
const BODY_BYTES_MAX: usize = 2 * TRACKED_METRICS_BYTES_MAX;
/// Metrics at one time; the SDK's bound for one call is the same.
const METRICS_MAX: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct RawBody {
    fields: BTreeMap<String, Box<RawValue>>,
}

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Outcome<Self> {
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| match e.downcast::<http_body_util::LengthLimitError>() {
            Ok(_) => Fault::TooLarge(format!("the body is over {BODY_BYTES_MAX} bytes")),
            Err(e) => Fault::Invalid(format!("the body could not be read: {e}")),
        })?;
        match serde_json::from_slice(&body.to_bytes()) {
            Ok(fields) => Ok(Self { fields }),
            Err(e) => Err(Fault::Invalid(format!("the body must be a JSON object: {e}"))),
        }
    }
}

impl RawBody {
    /// A field that must be there. A number may come as text.
    pub(super) fn needed<T: DeserializeOwned>(&mut self, name: &str, rule: impl Display) -> Outcome<T> {
        #[cfg(test)]
        crate::http::asked::note("", name);
        let Some(raw) = self.fields.remove(name).filter(|raw| raw.get() != "null") else {
            return Err(Fault::Invalid(format!("field `{name}` is missing: {rule}")));
        };
        let text: Option<String> = serde_json::from_str(raw.get()).ok();
        let read = serde_json::from_str(raw.get()).ok();
        let read = read.or_else(|| serde_json::from_str(text?.trim()).ok());
        read.ok_or_else(|| {
            let shown: String = raw.get().chars().take(100).collect();
            Fault::Invalid(format!("field `{name}` is {shown}: {rule}"))
        })
    }

    /// The metrics, as the text that is kept.
    pub(super) fn metrics(&mut self) -> Outcome<String> {
        let rule = format!("it must be an object of at most {METRICS_MAX} metrics");
        let raw: Box<RawValue> = self.needed("metrics", &rule)?;
        let wrong = |what: String| Fault::Invalid(format!("field `metrics` {what}: {rule}"));
        let metrics = object(raw.get().as_bytes()).ok_or_else(|| wrong("is no object".to_owned()))?;
        if metrics.len() > METRICS_MAX {
            return Err(wrong(format!("holds {}", metrics.len())));
        }
        if raw.get().len() > TRACKED_METRICS_BYTES_MAX {
            return Err(Fault::TooLarge(format!(
                "field `metrics` has {} bytes, more than {TRACKED_METRICS_BYTES_MAX}",
                raw.get().len()
            )));
        }
        Ok(raw.get().to_owned())
    }

    /// Names of what nobody asked for.
    pub(super) fn unknown(self) -> Vec<String> {
        self.fields.into_keys().collect()
    }
}
