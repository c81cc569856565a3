//! Where tracked metrics leave the data plane: after the replica's answer, before the caller's. The gateway decides
//! CRN, UUID and times; a replica decides only the values.

use bytes::Bytes;
use millgate_contract::ids::{DeploymentId, ModelId, ReplicaId};

/// One answered call of a function that collects metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedPrediction {
    /// The `uuid` in the caller's answer.
    pub uuid: String,
    /// Whose prediction it is.
    pub model: ModelId,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// That deployment's CRN.
    pub deployment_crn: String,
    /// The process that made it.
    pub replica: ReplicaId,
    /// Unix milliseconds when the call was sent to the replica.
    pub start_ms: u64,
    /// Unix milliseconds when its answer had been read.
    pub end_ms: u64,
    /// JSON object of what the function tracked; empty when it tracked nothing.
    pub metrics: Bytes,
}

/// Takes what functions tracked.
pub trait MetricsSink: Send + Sync {
    /// Keeps one row safe. Called on the call's own task before its answer is sent, so it may take at most half a
    /// millisecond; an error is logged and the caller still gets the prediction.
    fn append(&self, prediction: TrackedPrediction) -> std::io::Result<()>;
}
