//! What is told of one call.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use millgate_contract::{
    ids::{DeploymentId, KeyId, ModelId, ReplicaId, RequestId, Username},
    route::ModelRoute,
};
use serde::{Serialize, Serializer};
use time::UtcDateTime;

/// A model as its calls' events name it: one for all of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(super) model: ModelId,
    pub(super) name: String,
}

impl Names {
    pub(crate) fn model(&self) -> &ModelId {
        &self.model
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn of(route: &ModelRoute) -> Arc<Self> {
        Arc::new(Self { model: route.model.clone(), name: route.name.clone() })
    }
}

/// One call, when it has ended. What is not known of it is left out.
#[derive(Debug, Serialize)]
pub(crate) struct CallEvent {
    /// When it ended.
    #[serde(serialize_with = "as_text")]
    pub(crate) time: SystemTime,
    pub(crate) request_id: RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    #[serde(flatten, serialize_with = "names")]
    pub(crate) names: Option<Arc<Names>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<DeploymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replica: Option<ReplicaId>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// Milliseconds it waited for a replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_ms: Option<f64>,
    /// Milliseconds the function ran, as the replica measured them; where it did not say, those the call was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_ms: Option<f64>,
    /// Milliseconds from its head to its end.
    pub(crate) total_ms: f64,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Username>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyId>,
}

/// Milliseconds, to the microsecond.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}

#[allow(clippy::ref_option, reason = "serde calls it so")]
fn names<S: Serializer>(names: &Option<Arc<Names>>, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(None)?;
    if let Some(names) = names {
        map.serialize_entry("model", &names.model)?;
        map.serialize_entry("model_name", &names.name)?;
    }
    map.end()
}

/// `2024-05-08T12:00:00.123Z`: one length for all, so that they sort as text.
pub(super) fn text_of(time: SystemTime) -> String {
    let t = UtcDateTime::from(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        t.year(),
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        t.millisecond()
    )
}

fn as_text<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text_of(*time))
}
