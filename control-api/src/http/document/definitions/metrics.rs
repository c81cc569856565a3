//! Tracked metrics.

use super::{
    Definition,
    Kind::{Any, Integer, Number, Text},
    field, optional,
};

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "MetricRow",
        fields: &[
            field("modelDeploymentCrn", Text, ""),
            field("modelBuildCrn", Text, ""),
            field("modelCrn", Text, ""),
            field("startTimeStampMs", Integer, "Unix milliseconds"),
            field("endTimeStampMs", Integer, "Unix milliseconds"),
            optional("predictionUuid", Text, "not there in an aggregate"),
            field("metrics", Any, "an object: what was tracked, and what became known later"),
        ],
    },
    Definition {
        name: "TrackDelayedMetricsRequest",
        fields: &[
            field("prediction_uuid", Text, "`uuid` of the answer"),
            field("metrics", Any, "an object, merged into the row of the prediction"),
        ],
    },
    Definition {
        name: "TrackAggregateMetricsRequest",
        fields: &[
            field("model_deployment_crn", Text, "what they are about"),
            field("start_timestamp_ms", Number, "Unix milliseconds, rounded to the nearest"),
            field("end_timestamp_ms", Number, "Unix milliseconds, rounded to the nearest"),
            field("metrics", Any, "an object"),
        ],
    },
];
